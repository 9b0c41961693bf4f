//! Conversations in files: JSON that says what it is.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// The form of the file. Another number is another form.
const VERSION: u32 = 1;

/// A conversation as a file has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Tells a conversation from other JSON, and its form from later ones.
    graft_conversation: u32,
    /// The model's name, for who reads the file.
    pub model: String,
    /// The system message.
    pub system: Option<String>,
    /// How much the model was asked to think, if anything was said about that.
    pub think: Option<String>,
    /// The parameters of answers.
    pub parameters: Map<String, Json>,
    /// What was said: objects with `role` and `content`.
    pub messages: Vec<Json>,
}

/// Why a conversation was not saved or loaded. No file and no conversation has changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each says itself what it is
pub enum SaveError {
    #[error("{}: {reason}", path.display())]
    Io { path: PathBuf, reason: String },
    #[error("{} is no saved conversation: {reason}", path.display())]
    NoConversation { path: PathBuf, reason: String },
    #[error(
        "{} is no saved conversation, so it was not overwritten\nhint: choose another name",
        path.display()
    )]
    NotOverwritten { path: PathBuf },
}

impl Saved {
    /// A conversation to be saved.
    pub fn new(
        model: String,
        system: Option<String>,
        think: Option<String>,
        parameters: Map<String, Json>,
        messages: Vec<Json>,
    ) -> Saved {
        Saved {
            graft_conversation: VERSION,
            model,
            system,
            think,
            parameters,
            messages,
        }
    }

    /// Writes the file, whole or not at all. A file that is there already is replaced only if it is a conversation, too.
    pub fn save(&self, path: &Path) -> Result<(), SaveError> {
        let failed = |error| failed(path, error);
        if path.symlink_metadata().is_ok() && Saved::load(path).is_err() {
            return Err(SaveError::NotOverwritten { path: path.to_owned() });
        }
        // a link's target is replaced, not the link
        let target = path.canonicalize().unwrap_or(path.to_owned());
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        writeln!(file, "{text}").map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&target).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Saved, SaveError> {
        let failed = |error| failed(path, error);
        let other = |reason: String| SaveError::NoConversation {
            path: path.to_owned(),
            reason,
        };
        // a pipe or a device could go on for ever
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(other("it is no regular file".into()));
        }
        let bytes = fs::read(path).map_err(failed)?;
        let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| other(error.to_string()))?;
        saved.check().map_err(other)?;
        Ok(saved)
    }

    fn check(&self) -> Result<(), String> {
        if self.graft_conversation != VERSION {
            let found = self.graft_conversation;
            return Err(format!("it has form {found}, where {VERSION} is expected"));
        }
        let mut numbered = (1..).zip(&self.messages);
        let fault = numbered.find_map(|(number, message)| Some((number, fault(message)?)));
        fault.map_or(Ok(()), |(number, expected)| {
            Err(format!("message {number} is none: expected {expected}"))
        })
    }
}

/// Why nothing was written or read. A temporary file's name, which its error ends with, says nothing to the user.
fn failed(path: &Path, error: io::Error) -> SaveError {
    let text = error.to_string();
    let reason = text.split_once(" at path ").map_or(&*text, |(reason, _)| reason);
    SaveError::Io {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// What is expected where a message is none: templates would fail, or take it for another.
fn fault(message: &Json) -> Option<&'static str> {
    let is_text = |key| message.get(key).is_some_and(Json::is_string);
    let role = message.get("role").and_then(Json::as_str);
    if !role.is_some_and(|role| ROLES.contains(&role)) {
        Some("a role: system, user, assistant or tool")
    } else if !is_text("content") {
        Some("content that is a text")
    } else if message.get("thinking").is_some() && !is_text("thinking") {
        Some("thinking that is a text")
    } else if message.get("tool_calls").is_some_and(|calls| !are_calls(calls)) {
        Some("tool_calls that are a list of functions with names")
    } else {
        None
    }
}

fn are_calls(calls: &Json) -> bool {
    let is_call = |call: &Json| call["function"]["name"].is_string();
    calls.as_array().is_some_and(|calls| calls.iter().all(is_call))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::reply::{Reply, ToolCall};

    fn saved() -> Saved {
        let parameters = json!({"temperature": 0.8, "stop": ["a b"], "seed": u64::MAX});
        Saved::new(
            "model.gguf".into(),
            Some("Be brief.\nVery.".into()),
            Some("low".into()),
            parameters.as_object().unwrap().clone(),
            vec![
                json!({"role": "user", "content": "\"quoted\" é\n"}),
                json!({"role": "assistant", "content": "", "thinking": "hm"}),
            ],
        )
    }

    #[test]
    fn nothing_is_lost_and_a_conversation_may_be_saved_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a talk.json");
        saved().save(&path).unwrap();
        assert_eq!(Saved::load(&path).unwrap(), saved());
        let other = Saved {
            system: None,
            ..saved()
        };
        other.save(&path).unwrap();
        assert_eq!(Saved::load(&path).unwrap(), other);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("talk"), folder.path().join("link"));
        saved().save(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        saved().save(&link).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn what_is_no_conversation_is_neither_loaded_nor_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        let mut later = serde_json::to_value(saved()).unwrap();
        later["graft_conversation"] = json!(2);
        let mut unsaid = serde_json::to_value(saved()).unwrap();
        unsaid["messages"] = json!([{"role": "user"}]);
        let files = [
            ("shopping list".to_owned(), "expected value at line 1 column 1"),
            ("{}".to_owned(), "missing field `graft_conversation` at line 1 column 2"),
            (later.to_string(), "it has form 2, where 1 is expected"),
            (unsaid.to_string(), "message 1 is none: expected content that is a text"),
        ];
        for (text, reason) in files {
            fs::write(&path, &text).unwrap();
            let error = Saved::load(&path).unwrap_err().to_string();
            assert_eq!(error, format!("{} is no saved conversation: {reason}", path.display()));
            let error = saved().save(&path).unwrap_err();
            assert!(matches!(error, SaveError::NotOverwritten { .. }));
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let missing = folder.path().join("none/talk");
        let said = format!("{}: No such file or directory (os error 2)", missing.display());
        assert_eq!(saved().save(&missing).unwrap_err().to_string(), said);
        assert_eq!(Saved::load(&missing).unwrap_err().to_string(), said);
        assert!(matches!(
            Saved::load(folder.path()),
            Err(SaveError::NoConversation { .. })
        ));
    }

    #[rstest]
    #[case(json!("hello"), "a role: system, user, assistant or tool")]
    #[case(json!({"role": "king", "content": ""}), "a role: system, user, assistant or tool")]
    #[case(json!({"role": 1, "content": ""}), "a role: system, user, assistant or tool")]
    #[case(json!({"role": "user", "content": [{"type": "text"}]}), "content that is a text")]
    #[case(json!({"role": "assistant", "content": null}), "content that is a text")]
    #[case(json!({"role": "assistant", "content": "", "thinking": 1}), "thinking that is a text")]
    #[case(
        json!({"role": "assistant", "content": "", "tool_calls": {}}),
        "tool_calls that are a list of functions with names"
    )]
    #[case(
        json!({"role": "assistant", "content": "", "tool_calls": [{"name": "add"}]}),
        "tool_calls that are a list of functions with names"
    )]
    fn a_message_that_is_none_is_named_by_its_number(#[case] message: Json, #[case] expected: &str) {
        let mut broken = saved();
        broken.messages.push(message);
        let expected = format!("message 3 is none: expected {expected}");
        assert_eq!(broken.check(), Err(expected));
    }

    #[test]
    fn a_reply_with_calls_may_be_loaded() {
        let call = ToolCall {
            name: "add".into(),
            arguments: "{\"a\": 2}".into(),
        };
        let mut reply = Reply::default();
        reply.calls.push(call);
        let result = json!({"role": "tool", "content": "4"});
        let mut called = saved();
        called.messages.extend([reply.to_message(), result]);
        assert_eq!(called.check(), Ok(()));
    }
}
