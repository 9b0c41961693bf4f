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
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
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
        let failed = |source| SaveError::Io {
            path: path.to_owned(),
            source,
        };
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
        let failed = |source| SaveError::Io {
            path: path.to_owned(),
            source,
        };
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
        let text = |message: &Json, key| message.get(key).is_some_and(Json::is_string);
        let broken = |message: &&Json| !text(message, "role") || !text(message, "content");
        match self.messages.iter().find(broken) {
            Some(message) => Err(format!("{message} is no message: expected role and content")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
            (
                unsaid.to_string(),
                "{\"role\":\"user\"} is no message: expected role and content",
            ),
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
        assert!(matches!(saved().save(&missing), Err(SaveError::Io { .. })));
        assert!(matches!(Saved::load(&missing), Err(SaveError::Io { .. })));
        assert!(matches!(
            Saved::load(folder.path()),
            Err(SaveError::NoConversation { .. })
        ));
    }
}
