//! A reply on the user's screen, or in a pipe.

use std::io::{self, Write};

use super::{Channel, Piece, Reply};

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Where thoughts are shown.
pub enum Thoughts<'w> {
    /// Before the answer, on the same terminal.
    Before,
    /// Apart from the answer, so that who reads it gets the answer alone.
    Apart(&'w mut dyn Write),
    /// Nowhere.
    Hidden,
}

/// Prints the pieces of one reply as they come: thoughts between a line that says so and one that ends them, then the
/// answer.
pub struct Printer<'w> {
    out: &'w mut dyn Write,
    thoughts: Thoughts<'w>,
    /// Whether thoughts are dimmed.
    colors: bool,
    last: Option<Channel>,
    /// Whether what was printed last ended a line.
    ended_line: bool,
}

impl<'w> Printer<'w> {
    /// Prints to `out`; thoughts go where `thoughts` says, dimmed where there are `colors`.
    pub fn new(out: &'w mut dyn Write, thoughts: Thoughts<'w>, colors: bool) -> Printer<'w> {
        Printer {
            out,
            thoughts,
            colors,
            last: None,
            ended_line: true,
        }
    }

    /// Prints a piece.
    pub fn piece(&mut self, piece: Piece<'_>) -> io::Result<()> {
        match (self.last, piece.channel) {
            (Some(Channel::Thinking), Channel::Answer) => self.end_thoughts("...done thinking.\n\n")?,
            (Some(Channel::Answer), Channel::Thinking) => self.think("\n\nThinking...\n")?,
            (None, Channel::Thinking) => self.think("Thinking...\n")?,
            _ => {}
        }
        self.last = Some(piece.channel);
        self.ended_line = piece.text.ends_with('\n');
        match piece.channel {
            Channel::Thinking => self.think(piece.text),
            Channel::Answer => {
                self.out.write_all(piece.text.as_bytes())?;
                self.out.flush()
            }
        }
    }

    /// Ends the reply; an answer's last line is left open.
    pub fn finish(mut self) -> io::Result<()> {
        match self.last {
            Some(Channel::Thinking) => self.end_thoughts(""),
            Some(Channel::Answer) | None => Ok(()),
        }
    }

    fn end_thoughts(&mut self, words: &str) -> io::Result<()> {
        if !self.ended_line {
            self.think("\n")?;
        }
        self.think(words)
    }

    /// Prints among the thoughts. Each piece is dimmed for itself, so that a reply that breaks off leaves nothing dim.
    fn think(&mut self, text: &str) -> io::Result<()> {
        let out = match &mut self.thoughts {
            Thoughts::Before => &mut *self.out,
            Thoughts::Apart(out) => &mut **out,
            Thoughts::Hidden => return Ok(()),
        };
        match text {
            "" => {}
            text if self.colors => write!(out, "{DIM}{text}{PLAIN}")?,
            text => out.write_all(text.as_bytes())?,
        }
        out.flush()
    }
}

/// What is to be said of the calls in a reply.
pub fn calls(reply: &Reply) -> impl Iterator<Item = String> {
    reply.calls.iter().map(|call| {
        format!(
            "the model calls the tool {} with {}; there are no tools here",
            call.name, call.arguments
        )
    })
}

/// Says what an answer that was printed does not show.
pub fn tell_the_rest(reply: &Reply, hidden: bool) {
    for call in calls(reply) {
        tracing::warn!("{call}");
    }
    if !reply.is_answer() && !reply.thinking.is_empty() {
        let hint = if hidden {
            "\nhint: without --hide-thinking its thoughts are shown"
        } else {
            ""
        };
        tracing::warn!("the model thought but gave no answer{hint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THOUGHT: (Channel, &str) = (Channel::Thinking, "Hm.");
    const ANSWER: (Channel, &str) = (Channel::Answer, "4");

    /// What stands on the printer's output after these pieces, and what stands apart from it.
    fn print(apart: bool, colors: bool, pieces: &[(Channel, &str)]) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let thoughts = if apart {
            Thoughts::Apart(&mut err)
        } else {
            Thoughts::Before
        };
        let mut printer = Printer::new(&mut out, thoughts, colors);
        for &(channel, text) in pieces {
            printer.piece(Piece { channel, text }).unwrap();
        }
        printer.finish().unwrap();
        [out, err].map(|bytes| String::from_utf8(bytes).unwrap()).into()
    }

    #[test]
    fn thoughts_stand_before_the_answer_between_lines_of_their_own() {
        let (out, err) = print(false, false, &[THOUGHT, ANSWER]);
        assert_eq!(
            (out.as_str(), err.as_str()),
            ("Thinking...\nHm.\n...done thinking.\n\n4", "")
        );
        let (out, _) = print(false, false, &[(Channel::Thinking, "Hm.\n"), ANSWER]);
        assert_eq!(out, "Thinking...\nHm.\n...done thinking.\n\n4");
    }

    #[test]
    fn thoughts_may_stand_apart_from_the_answer() {
        let (out, err) = print(true, false, &[THOUGHT, ANSWER]);
        assert_eq!(
            (out.as_str(), err.as_str()),
            ("4", "Thinking...\nHm.\n...done thinking.\n\n")
        );
    }

    #[test]
    fn hidden_thoughts_leave_the_answer() {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, Thoughts::Hidden, true);
        for (channel, text) in [THOUGHT, ANSWER] {
            printer.piece(Piece { channel, text }).unwrap();
        }
        printer.finish().unwrap();
        assert_eq!(out, b"4");
    }

    #[test]
    fn an_answer_alone_is_printed_as_it_is() {
        assert_eq!(print(false, true, &[ANSWER, ANSWER]).0, "44");
    }

    #[test]
    fn thoughts_without_an_answer_are_not_said_to_be_done() {
        assert_eq!(print(false, false, &[THOUGHT, THOUGHT]).0, "Thinking...\nHm.Hm.\n");
    }

    #[test]
    fn thoughts_may_come_again() {
        let (out, _) = print(false, false, &[ANSWER, THOUGHT, ANSWER]);
        assert_eq!(out, "4\n\nThinking...\nHm.\n...done thinking.\n\n4");
    }

    #[test]
    fn only_thoughts_are_dimmed() {
        let (out, _) = print(false, true, &[THOUGHT, ANSWER]);
        let dim = |text| format!("\x1b[2m{text}\x1b[0m");
        let thoughts = ["Thinking...\n", "Hm.", "\n", "...done thinking.\n\n"]
            .map(dim)
            .concat();
        assert_eq!(out, thoughts + "4");
    }
}
