//! What is said beside answers.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write, stderr},
};

use super::{screen::Screen, wrap::plain};
use crate::environment;

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something was not done.
    Error,
    /// Something is not as it should be.
    Warning,
    /// Something is to be known.
    Note,
}

impl Kind {
    /// The word that a message begins with, and its color.
    fn beginning(self) -> (&'static str, &'static str) {
        match self {
            Kind::Error => ("error", "\x1b[1;31m"),
            Kind::Warning => ("warning", "\x1b[1;33m"),
            Kind::Note => ("note", "\x1b[33m"),
        }
    }
}

/// Says `what` on standard error, as [`write()`] does.
pub fn tell(kind: Kind, what: impl Display, wordwrap: bool) {
    let mut err = stderr().lock();
    let colors = environment::colors(err.is_terminal());
    // standard error may be gone; there is nobody left to tell
    let _ = write(&mut err, kind, what, colors, wordwrap);
}

/// Writes a message and an empty line after it. Nothing in it does something to the terminal; with `wordwrap` its lines
/// are broken between words.
fn write(out: &mut dyn Write, kind: Kind, what: impl Display, colors: bool, wordwrap: bool) -> io::Result<()> {
    let (word, color) = kind.beginning();
    let (color, end) = if colors { (color, "\x1b[0m") } else { ("", "") };
    let mut screen = Screen::new(out, wordwrap);
    write!(screen, "{color}{word}{end}: {}", plain(&what.to_string()))?;
    screen.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_does_nothing_to_the_terminal_but_begin_in_color() {
        let mut out = Vec::new();
        write(&mut out, Kind::Error, "a\x1b[2J\u{9b}2J\nb", true, false).unwrap();
        let expected = "\x1b[1;31merror\x1b[0m: a\u{fffd}[2J\u{fffd}2J\nb\n\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
