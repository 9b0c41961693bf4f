//! What `/show` shows.

use std::io::{self, Write};

use models::gguf::Gguf;
use serde_json::Value as Json;

use super::{commands::Shown, parameters};
use crate::{commands::inspect, conversation::Conversation, stats::counted};

/// Writes what was asked for to `out`.
pub fn show(shown: Shown, conversation: &mut Conversation<'_>, out: &mut dyn Write) -> io::Result<()> {
    let file = &*conversation.model().file;
    match shown {
        Shown::Info => info(conversation, out),
        Shown::Parameters => {
            let all = parameters::all(&conversation.options);
            let width = all.keys().map(String::len).max().unwrap_or(0);
            let shown = all.iter().filter(|(_, value)| !value.is_null());
            shown
                .into_iter()
                .try_for_each(|(name, value)| writeln!(out, "{name:width$}  {}", words(value)))
        }
        Shown::System => text(
            conversation.options.system.as_deref(),
            "There is no system message.",
            out,
        ),
        Shown::Template => text(
            string(file, "tokenizer.chat_template"),
            "The model has no chat template.",
            out,
        ),
        Shown::License => text(license(file).as_deref(), "The model's file names no license.", out),
    }
}

fn info(conversation: &mut Conversation<'_>, out: &mut dyn Write) -> io::Result<()> {
    inspect::summary(&conversation.model().file, out)?;
    writeln!(out)?;
    for device in &conversation.session().engine().plan().devices {
        writeln!(out, "runs on {}", device.target.label())?;
    }
    let messages = counted(conversation.messages().len(), "message");
    let session = conversation.session();
    let (used, context) = (session.cached().len(), session.context());
    writeln!(out, "{messages}; {used} of {context} tokens of context are used")
}

/// A parameter's value: texts of a list beside each other.
fn words(value: &Json) -> String {
    match value.as_array() {
        Some(list) if list.is_empty() => "(none)".into(),
        Some(list) => list.iter().map(Json::to_string).collect::<Vec<_>>().join(" "),
        None => value.to_string(),
    }
}

fn text(text: Option<&str>, nothing: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", text.unwrap_or(nothing).trim_end())
}

fn string<'f>(file: &'f Gguf, key: &str) -> Option<&'f str> {
    file.metadata().opt_string(key).ok().flatten()
}

fn license(file: &Gguf) -> Option<String> {
    let keys = ["general.license", "general.license.name", "general.license.link"];
    let lines: Vec<_> = keys.iter().filter_map(|key| string(file, key)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
