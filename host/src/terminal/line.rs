//! The line that is typed: editing, history, completion.

use std::{
    borrow::Cow,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustyline::{
    Cmd, ColorMode, CompletionType, ConditionalEventHandler, Config, Context, Editor, Event, EventContext,
    EventHandler, Helper, KeyEvent, RepeatCount,
    completion::{Completer, FilenameCompleter, Pair},
    config::BellStyle,
    error::ReadlineError,
    highlight::Highlighter,
    hint::{Hint, Hinter},
    history::FileHistory,
    validate::Validator,
};

use super::commands::completions;
use crate::environment;

const PROMPT: &str = ">>> ";
const PROMPT_MORE: &str = "... ";
const PLACEHOLDER: &str = "Send a message (/? for help)";
const PLACEHOLDER_MORE: &str = "Use \"\"\" to end a message of several lines";

/// What the user did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// A line, or several that were pasted.
    Text(String),
    /// Ctrl-C on a line, which may have been empty.
    Interrupted {
        /// Whether it was.
        empty: bool,
    },
    /// Ctrl-D on an empty line, or the terminal went away.
    End,
}

/// Reads lines from the terminal.
pub struct LineEditor {
    editor: Editor<Help, FileHistory>,
    /// Where the history is kept.
    file: Option<PathBuf>,
    /// Whether what is typed is remembered.
    pub remembers: bool,
    interrupted_empty: Arc<AtomicBool>,
}

impl LineEditor {
    /// An editor with the history of earlier conversations.
    pub fn new(colors: bool) -> rustyline::Result<LineEditor> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .bell_style(BellStyle::None)
            .history_ignore_dups(true)?
            .color_mode(if colors { ColorMode::Forced } else { ColorMode::Disabled })
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Help {
            placeholder: None,
            files: FilenameCompleter::new(),
        }));
        let interrupted_empty = Arc::<AtomicBool>::default();
        let interrupt = Interrupt {
            empty: interrupted_empty.clone(),
        };
        editor.bind_sequence(KeyEvent::ctrl('C'), EventHandler::Conditional(Box::new(interrupt)));
        Ok(LineEditor {
            file: history_file(&mut editor),
            editor,
            remembers: true,
            interrupted_empty,
        })
    }

    /// Waits for the user; `more` says that a text goes on.
    pub fn read(&mut self, more: bool) -> rustyline::Result<Entered> {
        let (prompt, placeholder) = match more {
            false => (PROMPT, PLACEHOLDER),
            true => (PROMPT_MORE, PLACEHOLDER_MORE),
        };
        let columns = terminal_size::terminal_size().map_or(usize::MAX, |(width, _)| width.0.into());
        if let Some(help) = self.editor.helper_mut() {
            let fits = prompt.len() + placeholder.len() < columns;
            help.placeholder = fits.then_some(Placeholder(placeholder));
        }
        match self.editor.readline(prompt) {
            Ok(text) => Ok(Entered::Text(text)),
            Err(ReadlineError::Eof) => Ok(Entered::End),
            Err(ReadlineError::Interrupted) => Ok(Entered::Interrupted {
                empty: self.interrupted_empty.load(Ordering::Relaxed),
            }),
            Err(error) => Err(error),
        }
    }

    /// Adds what was entered to the history.
    pub fn remember(&mut self, entered: &str) {
        if !self.remembers || entered.trim().is_empty() {
            return;
        }
        let added = self.editor.add_history_entry(entered);
        if let (Ok(true), Some(file)) = (added, &self.file)
            && let Err(error) = self.editor.append_history(file)
        {
            tracing::warn!("{}: what is typed is not kept: {error}", file.display());
            self.file = None;
        }
    }
}

/// The file of the history, read if it is there; nothing where the user has no place for it.
fn history_file(editor: &mut Editor<Help, FileHistory>) -> Option<PathBuf> {
    let folder = environment::state_dir()?;
    let file = folder.join("history");
    let read = fs::create_dir_all(&folder).map_err(ReadlineError::from);
    let read = read.and_then(|()| match file.exists() {
        true => editor.load_history(&file),
        false => Ok(()),
    });
    match read {
        Ok(()) => Some(file),
        Err(error) => {
            tracing::warn!("{}: no history: {error}", file.display());
            None
        }
    }
}

/// Notes whether the line was empty when it was interrupted.
struct Interrupt {
    empty: Arc<AtomicBool>,
}

impl ConditionalEventHandler for Interrupt {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        self.empty.store(context.line().is_empty(), Ordering::Relaxed);
        Some(Cmd::Interrupt)
    }
}

/// What helps while a line is typed.
struct Help {
    /// What stands on an empty line.
    placeholder: Option<Placeholder>,
    files: FilenameCompleter,
}

/// A text that stands on an empty line and cannot be taken over.
#[derive(Clone, Copy)]
struct Placeholder(&'static str);

impl Hint for Placeholder {
    fn display(&self) -> &str {
        self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Help {
    type Hint = Placeholder;

    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<Placeholder> {
        self.placeholder.filter(|_| line.is_empty())
    }
}

impl Completer for Help {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let line = &line[..position];
        if line.starts_with("/save ") || line.starts_with("/load ") {
            return self.files.complete_path(line, position);
        }
        let (start, words) = completions(line);
        let pair = |word: String| Pair {
            display: word.trim_end().to_owned(),
            replacement: word,
        };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}

impl Highlighter for Help {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }
}

impl Validator for Help {}

impl Helper for Help {}
