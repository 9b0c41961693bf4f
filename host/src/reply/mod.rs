//! What a model says, told apart: thinking, answer, calls of tools.

/// What a piece of a reply belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// What the model thinks before it answers.
    Thinking,
    /// The answer.
    Answer,
}

/// Text of a reply as it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Where it belongs.
    pub channel: Channel,
    /// The text; never empty, never a part of a character.
    pub text: &'a str,
}

/// Takes pieces as they arrive.
pub type Sink<'a> = dyn FnMut(Piece<'_>) -> std::io::Result<()> + 'a;

/// Bytes of text that are taken without asking the heap again.
const ROOM: usize = 1 << 16;

/// A reply as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What was thought.
    pub thinking: String,
    /// What was answered.
    pub content: String,
}

impl Default for Reply {
    fn default() -> Self {
        Reply {
            thinking: String::new(),
            content: String::with_capacity(ROOM),
        }
    }
}

impl Reply {
    /// Adds a piece.
    pub fn push(&mut self, piece: Piece<'_>) {
        match piece.channel {
            Channel::Thinking => self.thinking.push_str(piece.text),
            Channel::Answer => self.content.push_str(piece.text),
        }
    }
}
