//! How a model is spoken to: what its chat template reads of what can be said, and how it writes its replies.

use std::str::FromStr;

use models::{
    template::{ChatTemplate, Prompt, TemplateError},
    tokenizer::Tokenizer,
};
use serde_json::{Map, Value as Json};

use crate::reply::Format;

/// Whether a model thinks before it answers, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Think {
    /// It does.
    On,
    /// It does not: the prompt ends where its answer begins.
    Off,
    /// A little.
    Low,
    /// As much as it is used to.
    Medium,
    /// A lot.
    High,
}

impl Think {
    /// The values by their names.
    pub const NAMES: [(&'static str, Think); 5] = [
        ("on", Think::On),
        ("off", Think::Off),
        ("low", Think::Low),
        ("medium", Think::Medium),
        ("high", Think::High),
    ];

    /// The name: `on`, `low`.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }

    /// How much effort is asked for; what a model is used to where it is only asked to think.
    fn effort(self) -> Option<&'static str> {
        match self {
            Think::Off => None,
            Think::On => Some(Think::Medium.name()),
            Think::Low | Think::Medium | Think::High => Some(self.name()),
        }
    }
}

impl FromStr for Think {
    type Err = String;

    fn from_str(text: &str) -> Result<Think, String> {
        // as other programs have it
        let text = match text {
            "true" => "on",
            "false" => "off",
            text => text,
        };
        let known = Self::NAMES.iter().find(|(name, _)| *name == text);
        known
            .map(|(_, think)| *think)
            .ok_or_else(|| "expected on, off, low, medium or high".to_owned())
    }
}

/// Why a model cannot think as it is asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThinkError {
    /// It cannot think at all.
    #[error("does not support thinking\nhint: leave --think out")]
    Never,
    /// It thinks or does not.
    #[error("supports no levels of thinking, {0:?} is one\nhint: --think on or --think off")]
    NoLevels(&'static str),
}

/// What a model's chat template reads, and how the model replies. It is all that the host knows of a model's manners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// How replies are written.
    pub format: Format,
    /// Whether the template reads `reasoning_effort`.
    levels: bool,
    /// The key under which the template reads what was thought in earlier turns, if it does.
    thinking: Option<&'static str>,
}

impl Dialect {
    /// The dialect of a model with this chat template.
    pub fn of(tokenizer: &Tokenizer, template: Option<&ChatTemplate>) -> Dialect {
        let reads = |variable| template.is_some_and(|template| template.reads(variable));
        let mentions = |text| template.is_some_and(|template| template.mentions(text));
        let thinking = if mentions("reasoning_content") {
            Some("reasoning_content")
        } else if [".thinking", "'thinking'", "\"thinking\""].into_iter().any(mentions) {
            Some("thinking")
        } else {
            None
        };
        Dialect {
            format: Format::of(tokenizer, template),
            levels: reads("reasoning_effort"),
            thinking,
        }
    }

    /// Whether the model can think so. It may always be asked not to think.
    pub fn check(&self, think: Option<Think>) -> Result<(), ThinkError> {
        match think {
            None | Some(Think::Off) => Ok(()),
            Some(_) if !self.format.thinks() => Err(ThinkError::Never),
            Some(level) if level != Think::On && !self.levels => Err(ThinkError::NoLevels(level.name())),
            Some(_) => Ok(()),
        }
    }

    /// The text of a prompt. Messages are those of [`Reply::to_message`](crate::reply::Reply::to_message) and their like;
    /// each template gets them under the names that it reads. A model that can think does, unless it is told not to.
    ///
    /// Fails as the template does.
    pub fn render(
        &self,
        template: &ChatTemplate,
        prompt: &Prompt<'_>,
        think: Option<Think>,
    ) -> Result<String, TemplateError> {
        let messages: Vec<Json> = prompt.messages.iter().map(|message| self.message(message)).collect();
        let mut variables = self.variables(think);
        variables.extend(prompt.extra.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        let mut text = template.render(&Prompt {
            messages: &messages,
            extra: Some(&variables),
            ..prompt.clone()
        })?;
        if think == Some(Think::Off) && prompt.add_generation_prompt {
            text.push_str(self.format.without_thinking(&text));
        }
        Ok(text)
    }

    /// What templates call thinking. All names are given to all: a template ignores what it does not read.
    fn variables(&self, think: Option<Think>) -> Map<String, Json> {
        let mut variables = Map::new();
        if !self.format.thinks() {
            return variables;
        }
        for name in ["enable_thinking", "thinking"] {
            variables.insert(name.into(), (think != Some(Think::Off)).into());
        }
        if let Some(effort) = think.and_then(Think::effort) {
            variables.insert("reasoning_effort".into(), effort.into());
        }
        variables
    }

    /// A message as the template reads it.
    fn message(&self, message: &Json) -> Json {
        let mut message = message.clone();
        let Some(object) = message.as_object_mut() else {
            return message;
        };
        let thought = object.remove("thinking").filter(|thought| thought.is_string());
        if let (Some(thought), Some(key)) = (thought, self.thinking) {
            if matches!(self.format, Format::Harmony(_)) && object.contains_key("tool_calls") {
                return with_one_text(message, &thought);
            }
            object.insert(key.into(), thought);
        }
        message
    }
}

/// A message with calls whose preamble stands with the thoughts: templates of gpt-oss refuse both beside calls.
fn with_one_text(mut message: Json, thought: &Json) -> Json {
    let texts = [thought, &message["content"]].map(|text| text.as_str().unwrap_or_default());
    let text = texts.join("\n\n");
    message["thinking"] = text.trim_end().into();
    message["content"] = "".into();
    message
}
