//! The terminal that an answer is printed on.

use std::io::{self, Write};

use super::wrap::Wrap;

/// Prints texts as they come, lines broken between words at the terminal's present width.
pub struct Screen<'o> {
    out: &'o mut dyn Write,
    wrap: Wrap,
    wordwrap: bool,
    text: String,
    /// Whether anything was printed at all.
    begun: bool,
}

impl<'o> Screen<'o> {
    /// Prints to `out`, which stands for the terminal; without `wordwrap` the terminal breaks lines where it will.
    pub fn new(out: &'o mut dyn Write, wordwrap: bool) -> Screen<'o> {
        Screen {
            out,
            wrap: Wrap::default(),
            wordwrap,
            text: String::new(),
            begun: false,
        }
    }

    /// Prints what was held back, and an empty line after the text.
    pub fn finish(mut self) -> io::Result<()> {
        self.wrap.flush(&mut self.text);
        self.text.push_str(match (self.begun, self.wrap.is_within_line()) {
            (false, _) => "",
            (true, true) => "\n\n",
            (true, false) => "\n",
        });
        self.print()?;
        self.out.flush()
    }

    fn print(&mut self) -> io::Result<()> {
        self.out.write_all(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }
}

impl Write for Screen<'_> {
    /// Takes whole characters only.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = str::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let width = self.wordwrap.then(terminal_size::terminal_size).flatten();
        self.wrap.resize(width.map(|(width, _)| usize::from(width.0)));
        self.wrap.push(text, &mut self.text);
        self.begun = true;
        self.print()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
