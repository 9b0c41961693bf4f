//! What a model says, told apart: thinking, answer, calls of tools.
//!
//! Models write these into one stream of tokens, each family in its own way ([`Format`]). A [`Reader`] takes the tokens and
//! gives out pieces. A model that breaks its format loses no text by that: what belongs nowhere is answer.

mod format;
mod harmony;
mod output;
pub mod print;
mod reader;
mod tags;
#[cfg(test)]
pub(crate) mod tests;

use serde_json::{Value as Json, json};

pub use format::Format;
pub use reader::Reader;

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

/// A tool that the model wants to be called. It is no piece: it is of use only as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The tool's name, as it was described to the model.
    pub name: String,
    /// What the model wrote for arguments: a JSON object, if the model keeps to the format and was not cut short.
    pub arguments: String,
}

impl ToolCall {
    /// The call as chat templates read it, `{"type": "function", "function": {"name", "arguments"}}`. Arguments that are no
    /// JSON stand there as a string.
    pub fn to_json(&self) -> Json {
        let arguments = serde_json::from_str(&self.arguments).unwrap_or_else(|_| Json::from(self.arguments.as_str()));
        json!({"type": "function", "function": {"name": self.name, "arguments": arguments}})
    }
}

/// A reply as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What was thought.
    pub thinking: String,
    /// What was answered.
    pub content: String,
    /// The tools that are to be called, in order.
    pub calls: Vec<ToolCall>,
}

impl Default for Reply {
    fn default() -> Self {
        Reply {
            thinking: String::with_capacity(ROOM),
            content: String::with_capacity(ROOM),
            calls: Vec::new(),
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

    /// Whether it answers: thoughts alone do not.
    pub fn is_answer(&self) -> bool {
        !self.content.is_empty() || !self.calls.is_empty()
    }

    /// The reply as a message: `role` and `content`, and `thinking` and `tool_calls` where there are any.
    pub fn to_message(&self) -> Json {
        let mut message = json!({"role": "assistant", "content": self.content});
        if !self.thinking.is_empty() {
            message["thinking"] = self.thinking.as_str().into();
        }
        if !self.calls.is_empty() {
            message["tool_calls"] = self.calls.iter().map(ToolCall::to_json).collect();
        }
        message
    }
}
