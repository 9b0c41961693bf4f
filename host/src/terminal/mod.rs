//! A conversation on a terminal.

pub mod commands;
mod echo;
pub mod line;
mod nearest;
pub mod parameters;
pub mod quotes;
pub mod save;
pub mod screen;
mod show;
mod tell;
pub mod wrap;

use std::{
    fmt::Display,
    io::{Write, stderr},
    path::Path,
};

use anyhow::{Context, anyhow, bail};
use signal_hook::{consts::SIGINT, flag};

use crate::{
    conversation::{Conversation, Turn},
    dialect::{Think, ThinkError},
    environment,
    generation::{Finish, GenerationError},
    progress::Waiting,
    reply::{
        Piece,
        print::{Printer, Thoughts, calls},
    },
    stats::{self, counted},
};
use commands::{Command, Switch};
use echo::Quiet;
use line::{Entered, LineEditor};
use quotes::{Input, Quotes};
use save::Saved;
use screen::Screen;
use tell::{Kind, tell};

/// Where a conversation takes place, and how it begins.
pub struct Place {
    /// Whether lines are broken between words.
    pub wordwrap: bool,
    /// Whether figures are shown after each answer.
    pub verbose: bool,
    /// Whether thoughts are kept away.
    pub hide_thinking: bool,
}

/// Talks with the user until there is nothing more to say.
pub fn converse(conversation: Conversation<'_>, place: Place, out: &mut dyn Write) -> anyhow::Result<()> {
    flag::register(SIGINT, conversation.interrupt()).context("taking Ctrl-C")?;
    let _quiet = Quiet::new();
    let colors = environment::colors(true);
    let mut terminal = Terminal {
        conversation,
        place,
        out,
        colors,
        editor: LineEditor::new(colors).context("preparing the terminal")?,
    };
    terminal.run()
}

struct Terminal<'c, 'm> {
    conversation: Conversation<'m>,
    place: Place,
    out: &'c mut dyn Write,
    colors: bool,
    editor: LineEditor,
}

impl Terminal<'_, '_> {
    fn run(&mut self) -> anyhow::Result<()> {
        let (mut quotes, mut entered) = (Quotes::default(), String::new());
        loop {
            match self
                .editor
                .read(quotes.is_open())
                .context("reading from the terminal")?
            {
                Entered::End => return Ok(writeln!(self.out)?),
                Entered::Interrupted { empty } => {
                    if empty && !quotes.is_open() {
                        writeln!(self.out, "Use Ctrl + d or /bye to exit.")?;
                    }
                    quotes.forget();
                    entered.clear();
                }
                Entered::Text(text) => {
                    entered.push_str(&text);
                    let input = quotes.push(&text);
                    if input == Input::More {
                        entered.push('\n');
                        continue;
                    }
                    self.editor.remember(&std::mem::take(&mut entered));
                    if self.answer(input)? == Next::End {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Does what was asked for. Only an error of the terminal itself is one.
    fn answer(&mut self, input: Input) -> anyhow::Result<Next> {
        let done = match input {
            Input::Command(line) => self.obey(&line),
            Input::Message(text) if text.trim().is_empty() => Ok(Next::Line),
            Input::Message(text) => self.say(&text).map(|()| Next::Line),
            Input::More => Ok(Next::Line),
        };
        match done {
            Err(error) if is_output(&error) => Err(error),
            Err(error) => {
                match error.downcast_ref() {
                    Some(&GenerationError::PromptTooLong { tokens, context }) => self.tell_too_long(tokens, context),
                    _ => self.tell(Kind::Error, format_args!("{error:#}")),
                }
                Ok(Next::Line)
            }
            done => done,
        }
    }

    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        let mut screen = Screen::new(self.out, self.place.wordwrap);
        let thoughts = match self.place.hide_thinking {
            true => Thoughts::Hidden,
            false => Thoughts::Before,
        };
        let mut printer = Printer::new(&mut screen, thoughts, self.colors);
        let mut waiting = Some(Waiting::new("reading the prompt".into()));
        let turn = self.conversation.say(text, &mut |piece| {
            waiting = None;
            let text = &wrap::plain(piece.text);
            printer.piece(Piece { text, ..piece })
        });
        drop(waiting);
        printer.finish()?;
        screen.finish()?;
        self.conclude(&turn?)
    }

    /// Says what the answer does not.
    fn conclude(&mut self, turn: &Turn) -> anyhow::Result<()> {
        let interrupted = turn.answer.finish == Finish::Interrupted;
        for call in calls(&turn.reply) {
            self.tell(Kind::Warning, call);
        }
        match (turn.is_kept(), interrupted, turn.reply.thinking.is_empty()) {
            (true, ..) => {}
            (false, true, _) => self.note("interrupted before an answer; your message was not kept"),
            (false, false, thoughtless) => {
                let thought = if thoughtless { "" } else { "thought but " };
                let what = format_args!("the model {thought}gave no answer; your message was not kept");
                self.tell(Kind::Warning, what);
            }
        }
        if let Some(incomplete) = turn.incomplete().filter(|_| !interrupted) {
            let hint = match turn.answer.finish {
                Finish::Length => "\nhint: /set parameter num_predict -1 allows more",
                _ => "",
            };
            let reason = incomplete.reason();
            self.note(format_args!(
                "the answer is not complete in the form that was asked for: {reason}{hint}"
            ));
        }
        self.tell_of_context(turn);
        if self.place.verbose {
            let mut err = stderr().lock();
            stats::turn(&mut err, turn)?;
            writeln!(err)?;
        }
        Ok(())
    }

    /// Says what the context had no room for.
    fn tell_of_context(&mut self, turn: &Turn) {
        let context = self.conversation.session().context();
        if turn.left_out > 0 {
            let messages = match turn.left_out {
                1 => "message".to_owned(),
                count => counted(count, "message"),
            };
            self.note(format_args!(
                "the context of {context} tokens had no room for the oldest {messages}"
            ));
        }
        if turn.shifts > 0 {
            let times = match turn.shifts {
                1 => String::new(),
                shifts => format!(" {shifts} times"),
            };
            self.note(format_args!(
                "the context of {context} tokens was full; the oldest half of it was dropped{times}"
            ));
        }
        if turn.answer.finish == Finish::Context {
            let hint = self.hint_to_clear().unwrap_or_default();
            self.note(format_args!(
                "the context of {context} tokens is full: the answer ends here{hint}"
            ));
        }
    }

    fn tell_too_long(&self, tokens: usize, context: u32) {
        let hint = self.hint_to_clear();
        let hint = hint.unwrap_or("\nhint: a longer context needs another start, with --ctx-size");
        let what = format_args!("the prompt has {tokens} tokens, but the context holds {context}{hint}");
        self.tell(Kind::Error, what);
    }

    /// Where something was said that can be forgotten.
    fn hint_to_clear(&self) -> Option<&'static str> {
        let said = !self.conversation.messages().is_empty();
        said.then_some("\nhint: /clear forgets what was said")
    }

    fn obey(&mut self, line: &str) -> anyhow::Result<Next> {
        let said = match commands::parse(line)? {
            Command::Exit => return Ok(Next::End),
            Command::Help(topic) => commands::help(&topic),
            Command::Show(shown) => {
                let mut text = Vec::new();
                show::show(shown, &mut self.conversation, &mut text)?;
                // as it is, so that it can be copied
                self.print(&String::from_utf8_lossy(&text), false)?;
                return Ok(Next::Line);
            }
            Command::Parameter { name, value } => {
                parameters::set(&mut self.conversation.options, &name, &value)?;
                format!("Set parameter '{name}' to '{value}'")
            }
            Command::System(text) => self.set_system(text)?.into(),
            Command::Think(think) => self.set_think(think)?.into(),
            Command::Json(json) => self.set_format(json)?.into(),
            Command::Switch(switch, on) => self.switch(switch, on).into(),
            Command::Clear => {
                self.conversation.clear();
                "Cleared session context".into()
            }
            Command::Save(path) => self.save(&path)?,
            Command::Load(path) => self.load(&path)?,
        };
        self.print(&said, self.place.wordwrap)?;
        Ok(Next::Line)
    }

    /// Prints a text and an empty line after it. Nothing in it does something to the terminal.
    fn print(&mut self, text: &str, wordwrap: bool) -> anyhow::Result<()> {
        let mut screen = Screen::new(self.out, wordwrap);
        writeln!(screen, "{}", wrap::plain(text).trim_end())?;
        Ok(screen.finish()?)
    }

    fn set_system(&mut self, text: Option<String>) -> anyhow::Result<&'static str> {
        let model = self.conversation.model();
        if text.is_some() && (self.conversation.options.raw || model.template.is_none()) {
            bail!("there is no chat template in use to put a system message into");
        }
        self.conversation.options.system = text;
        Ok(match self.conversation.options.system {
            Some(_) => "Set system message.",
            None => "Removed system message.",
        })
    }

    fn set_think(&mut self, think: Think) -> anyhow::Result<&'static str> {
        let model = self.conversation.model();
        let name = model.file.name();
        model.dialect.check(Some(think)).map_err(|error| {
            let hint = match error {
                ThinkError::Never => "",
                ThinkError::NoLevels(_) => "\nhint: /set think or /set nothink",
            };
            anyhow!("{name} {}{hint}", error.reason())
        })?;
        self.conversation.options.think = Some(think);
        Ok(match think {
            Think::Off => "Set 'nothink' mode.",
            _ => "Set 'think' mode.",
        })
    }

    fn set_format(&mut self, json: bool) -> anyhow::Result<&'static str> {
        let model = self.conversation.model();
        self.conversation.options.format = match json {
            true => Some(model.formats()?.json()?),
            false => None,
        };
        Ok(match json {
            true => "Set format to 'json' mode.",
            false => "Disabled format.",
        })
    }

    fn switch(&mut self, switch: Switch, on: bool) -> &'static str {
        match switch {
            Switch::History => self.editor.remembers = on,
            Switch::WordWrap => self.place.wordwrap = on,
            Switch::Verbose => self.place.verbose = on,
        }
        match (switch, on) {
            (Switch::History, true) => "What is typed is remembered.",
            (Switch::History, false) => "What is typed is not remembered.",
            (Switch::WordWrap, true) => "Set 'wordwrap' mode.",
            (Switch::WordWrap, false) => "Set 'nowordwrap' mode.",
            (Switch::Verbose, true) => "Set 'verbose' mode.",
            (Switch::Verbose, false) => "Set 'quiet' mode.",
        }
    }

    fn save(&self, path: &Path) -> anyhow::Result<String> {
        let conversation = &self.conversation;
        let saved = Saved::new(
            conversation.model().file.name(),
            conversation.options.system.clone(),
            conversation.options.think.map(|think| think.name().to_owned()),
            parameters::all(&conversation.options),
            conversation.messages().to_vec(),
        );
        saved.save(path)?;
        Ok(format!(
            "Saved {} to {}",
            counted(saved.messages.len(), "message"),
            path.display()
        ))
    }

    /// Goes on from a file, or leaves everything as it is.
    fn load(&mut self, path: &Path) -> anyhow::Result<String> {
        let saved = Saved::load(path)?;
        let mut options = self.conversation.options.clone();
        for (name, value) in saved.parameters {
            parameters::set_json(&mut options, &name, value).with_context(|| path.display().to_string())?;
        }
        if let Some(think) = saved.think {
            let think = think
                .parse()
                .map_err(|error| anyhow!("{}: think: {error}", path.display()))?;
            match self.conversation.model().dialect.check(Some(think)) {
                Ok(()) => options.think = Some(think),
                Err(_) => self.note("this model cannot think as it was asked to in the conversation"),
            }
        }
        self.set_system(saved.system.clone())?;
        options.system = saved.system;
        self.conversation.options = options;
        let messages = counted(saved.messages.len(), "message");
        let said = format!("Loaded {messages} from {}", path.display());
        self.conversation.resume(saved.messages);
        Ok(said)
    }

    fn note(&self, what: impl Display) {
        self.tell(Kind::Note, what);
    }

    fn tell(&self, kind: Kind, what: impl Display) {
        tell(kind, what, self.place.wordwrap);
    }
}

/// What comes after an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Line,
    End,
}

/// Whether the terminal itself failed.
fn is_output(error: &anyhow::Error) -> bool {
    error.is::<std::io::Error>() || matches!(error.downcast_ref(), Some(GenerationError::Output(_)))
}
