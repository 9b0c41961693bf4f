//! How a model writes its replies.

use models::{template::ChatTemplate, tokenizer::Tokenizer};

use super::{
    harmony::{self, Marks},
    tags,
};

/// The ways of writing replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// All is answer.
    Plain,
    /// Messages on channels (gpt-oss), by these tokens.
    Harmony(Marks),
    /// Thinking stands first, in `<think>` tags.
    Think {
        /// The opening tag as one token.
        open: Option<u32>,
        /// The closing tag as one token.
        close: Option<u32>,
    },
}

impl Format {
    /// The format of a model: that of gpt-oss where the vocabulary has its tokens, thinking in tags where the chat template
    /// knows of them.
    pub fn of(tokenizer: &Tokenizer, template: Option<&ChatTemplate>) -> Format {
        if let Some(marks) = Marks::of(tokenizer) {
            return Format::Harmony(marks);
        }
        match template {
            Some(template) if template.mentions(tags::OPEN) => Format::Think {
                open: tokenizer.token(tags::OPEN),
                close: tokenizer.token(tags::CLOSE),
            },
            _ => Format::Plain,
        }
    }

    /// Whether a model that writes so can think.
    pub fn thinks(&self) -> bool {
        *self != Format::Plain
    }

    /// What is to follow a prompt so that the model answers without thinking.
    pub fn without_thinking(&self, prompt: &str) -> &'static str {
        let end = prompt.trim_end();
        match self {
            Format::Harmony(_) if !end.ends_with(harmony::MESSAGE) => harmony::FINAL,
            Format::Think { .. } if end.ends_with(tags::OPEN) && end.len() < prompt.len() => "\n</think>\n\n",
            Format::Think { .. } if end.ends_with(tags::OPEN) => "\n\n</think>\n\n",
            Format::Think { .. } if !end.ends_with(tags::CLOSE) => "<think>\n\n</think>\n\n",
            Format::Plain | Format::Harmony(_) | Format::Think { .. } => "",
        }
    }

    /// What is to follow a prompt so that the model thinks first, where nothing else may come before its answer.
    pub fn with_thinking(&self, prompt: &str) -> &'static str {
        let end = prompt.trim_end();
        match self {
            Format::Harmony(_) if !end.ends_with(harmony::MESSAGE) => harmony::ANALYSIS,
            Format::Think { .. } if !end.ends_with(tags::OPEN) && !end.ends_with(tags::CLOSE) => "<think>\n",
            Format::Plain | Format::Harmony(_) | Format::Think { .. } => "",
        }
    }

    /// What ends a model's thinking, where it does not do so itself.
    pub fn end_of_thinking(&self) -> &'static str {
        match self {
            Format::Plain => "",
            Format::Harmony(_) => "<|end|>",
            Format::Think { .. } => "\n</think>\n\n",
        }
    }

    /// What begins an answer after something else has ended.
    pub fn begin_of_answer(&self) -> &'static str {
        match self {
            Format::Harmony(_) => "<|start|>assistant<|channel|>final<|message|>",
            Format::Plain | Format::Think { .. } => "",
        }
    }
}
