//! Commands: what a line that begins with `/` asks for.

use std::{collections::BTreeSet, path::PathBuf};

use super::{nearest::nearest, parameters};
use crate::{dialect::Think, environment};

/// A command and its help.
struct Usage {
    /// What is typed; capitals stand for something else.
    spelling: &'static str,
    help: &'static str,
}

const fn usage(spelling: &'static str, help: &'static str) -> Usage {
    Usage { spelling, help }
}

const COMMANDS: [Usage; 24] = [
    usage("/set parameter NAME VALUE", "Set a parameter, such as temperature"),
    usage("/set system TEXT", "Set the system message; \"\" for none"),
    usage("/set think [LEVEL]", "Think first; LEVEL is low, medium or high"),
    usage("/set nothink", "Answer without thinking"),
    usage("/set format json", "Answer with JSON objects"),
    usage("/set noformat", "Answer in any form"),
    usage("/set history", "Remember what is typed"),
    usage("/set nohistory", "Do not remember what is typed"),
    usage("/set wordwrap", "Break lines between words"),
    usage("/set nowordwrap", "Break lines where the terminal does"),
    usage("/set verbose", "Show figures after each answer"),
    usage("/set quiet", "Show no figures"),
    usage("/show info", "Show what the model is and where it runs"),
    usage("/show parameters", "Show the parameters"),
    usage("/show system", "Show the system message"),
    usage("/show template", "Show the model's chat template"),
    usage("/show license", "Show the model's license"),
    usage("/save FILE", "Save the conversation"),
    usage("/load FILE", "Go on from a saved conversation"),
    usage("/clear", "Forget what was said"),
    usage("/bye", "Exit"),
    usage("/exit", "Exit"),
    usage("/?, /help [COMMAND]", "Help for a command"),
    usage("/? shortcuts", "Help for keyboard shortcuts"),
];

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The help.
    Help(String),
    /// A parameter's new value.
    Parameter {
        /// Its name.
        name: String,
        /// What was typed for it.
        value: String,
    },
    /// Another system message, or none.
    System(Option<String>),
    /// Whether the model thinks before it answers, and how much.
    Think(Think),
    /// Whether answers are JSON objects, or have any form.
    Json(bool),
    /// Something to be on or off.
    Switch(Switch, bool),
    /// Something to be shown.
    Show(Shown),
    /// A conversation to be saved.
    Save(PathBuf),
    /// A conversation to be loaded.
    Load(PathBuf),
    /// What was said is to be forgotten.
    Clear,
    /// The end.
    Exit,
}

/// What is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Whether lines are remembered.
    History,
    /// Whether lines are broken between words.
    WordWrap,
    /// Whether figures are shown.
    Verbose,
}

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shown {
    Info,
    Parameters,
    System,
    Template,
    License,
}

/// Why a line is no command.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each says itself what it is
pub enum CommandError {
    #[error("unknown command {typed:?}\nhint: {hint}")]
    Unknown { typed: String, hint: String },
    #[error("{command} takes nothing more")]
    TooMuch { command: &'static str },
    #[error("expected {expected}")]
    Incomplete { expected: String },
    #[error("{0}: the name of the file is empty")]
    NoName(&'static str),
    #[error("{0}: a quotation mark is missing")]
    Quotation(&'static str),
}

/// Reads a command.
pub fn parse(line: &str) -> Result<Command, CommandError> {
    let (command, rest) = word(line);
    match command {
        "/?" | "/help" => help_on(rest),
        "/set" => set(rest),
        "/show" => show(rest),
        "/save" => Ok(Command::Save(file("/save", rest)?)),
        "/load" => Ok(Command::Load(file("/load", rest)?)),
        "/clear" => alone("/clear", rest, Command::Clear),
        "/bye" => alone("/bye", rest, Command::Exit),
        "/exit" => alone("/exit", rest, Command::Exit),
        _ => Err(unknown(command, "")),
    }
}

/// The first word, and what comes after it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn alone(command: &'static str, rest: &str, meaning: Command) -> Result<Command, CommandError> {
    match rest.is_empty() {
        true => Ok(meaning),
        false => Err(CommandError::TooMuch { command }),
    }
}

fn set(text: &str) -> Result<Command, CommandError> {
    let (what, rest) = word(text);
    let switch = |command, switch, on| alone(command, rest, Command::Switch(switch, on));
    match what {
        "parameter" => match word(rest) {
            (_, "") => Err(expected("/set parameter")),
            (name, value) => Ok(Command::Parameter {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
        },
        "system" => match rest {
            "" => Err(expected("/set system")),
            r#""""# => Ok(Command::System(None)),
            text => Ok(Command::System(Some(text.to_owned()))),
        },
        "think" => match rest {
            "" => Ok(Command::Think(Think::On)),
            level => level.parse().map(Command::Think).map_err(|_| expected("/set think")),
        },
        "nothink" => alone("/set nothink", rest, Command::Think(Think::Off)),
        "format" => match rest {
            "json" => Ok(Command::Json(true)),
            _ => Err(expected("/set format")),
        },
        "noformat" => alone("/set noformat", rest, Command::Json(false)),
        "history" => switch("/set history", Switch::History, true),
        "nohistory" => switch("/set nohistory", Switch::History, false),
        "wordwrap" => switch("/set wordwrap", Switch::WordWrap, true),
        "nowordwrap" => switch("/set nowordwrap", Switch::WordWrap, false),
        "verbose" => switch("/set verbose", Switch::Verbose, true),
        "quiet" => switch("/set quiet", Switch::Verbose, false),
        "" => Err(expected("/set")),
        _ => Err(unknown(what, "/set ")),
    }
}

fn show(text: &str) -> Result<Command, CommandError> {
    let (what, rest) = word(text);
    let shown = |command, shown| alone(command, rest, Command::Show(shown));
    match what {
        "info" => shown("/show info", Shown::Info),
        "parameters" => shown("/show parameters", Shown::Parameters),
        "system" => shown("/show system", Shown::System),
        "template" => shown("/show template", Shown::Template),
        "license" => shown("/show license", Shown::License),
        "" => Err(expected("/show")),
        _ => Err(unknown(what, "/show ")),
    }
}

/// The name of a file, quoted as in a shell where it has blanks.
fn file(command: &'static str, text: &str) -> Result<PathBuf, CommandError> {
    let words = shlex::split(text).ok_or(CommandError::Quotation(command))?;
    match &words[..] {
        [] => Err(expected(command)),
        [name] if name.trim().is_empty() => Err(CommandError::NoName(command)),
        [name] => Ok(environment::of_user(name)),
        _ => Err(CommandError::TooMuch { command }),
    }
}

fn help_on(topic: &str) -> Result<Command, CommandError> {
    let topic = topic.trim_start_matches('/');
    match topic == SHORTCUTS || COMMANDS.iter().any(|command| command.is_about(topic)) {
        true => Ok(Command::Help(topic.to_owned())),
        false => Err(unknown(topic, "/")),
    }
}

/// The commands that begin like this.
fn expected(beginning: &str) -> CommandError {
    let all = COMMANDS.iter().map(|command| command.spelling);
    let possible: Vec<_> = all.filter(|spelling| spelling.starts_with(beginning)).collect();
    let expected = match &possible[..] {
        [one] => (*one).to_owned(),
        several => format!("one of\n  {}", several.join("\n  ")),
    };
    CommandError::Incomplete { expected }
}

/// `typed` comes after `before`, and no command goes on so.
fn unknown(typed: &str, before: &str) -> CommandError {
    let known = COMMANDS
        .iter()
        .filter_map(|command| command.spelling.strip_prefix(before));
    let near = nearest(typed, known.map(|rest| word(rest).0));
    CommandError::Unknown {
        typed: format!("{before}{typed}"),
        hint: near.map_or("/? lists the commands".into(), |near| {
            format!("did you mean {before}{near}?")
        }),
    }
}

impl Usage {
    /// Whether it begins with `/topic`.
    fn is_about(&self, topic: &str) -> bool {
        self.spelling[1..].starts_with(topic)
    }

    /// The words that are typed as they are.
    fn fixed(&self) -> &'static str {
        let end = self.spelling.find(|c: char| c.is_ascii_uppercase() || ",[".contains(c));
        end.map_or(self.spelling, |end| &self.spelling[..end])
    }
}

const SHORTCUTS: &str = "shortcuts";

const KEYS: [(&str, &str); 13] = [
    ("Ctrl + a", "Move to the beginning of the line"),
    ("Ctrl + e", "Move to the end of the line"),
    ("Alt + b", "Move back one word"),
    ("Alt + f", "Move forward one word"),
    ("Ctrl + k", "Delete to the end of the line"),
    ("Ctrl + u", "Delete to the beginning of the line"),
    ("Ctrl + w", "Delete the word before the cursor"),
    ("Ctrl + l", "Clear the screen"),
    ("Ctrl + r", "Search what was typed before"),
    ("Up, Down", "Go through what was typed before"),
    ("Tab", "Complete a command"),
    ("Ctrl + c", "Stop the answer"),
    ("Ctrl + d", "Exit"),
];

/// The help on a topic: commands that begin so, or the shortcuts.
pub fn help(topic: &str) -> String {
    if topic == SHORTCUTS {
        return table("Keyboard shortcuts:", KEYS.into_iter());
    }
    let commands = COMMANDS.iter().filter(|command| command.is_about(topic));
    let table = table("Commands:", commands.map(|command| (command.spelling, command.help)));
    match topic {
        "" => table + "\nUse \"\"\" to begin a message of several lines.\n",
        _ => table,
    }
}

fn table(title: &str, rows: impl Iterator<Item = (&'static str, &'static str)>) -> String {
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    let line = |(left, right): &(&str, &str)| format!("  {left:width$}  {right}\n");
    std::iter::once(format!("{title}\n"))
        .chain(rows.iter().map(line))
        .collect()
}

/// The words that can come at the end of `line`, and where in it the last word begins.
pub fn completions(line: &str) -> (usize, Vec<String>) {
    let start = line.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
    let parameters = parameters::names()
        .into_iter()
        .map(|name| format!("/set parameter {name} "));
    let fixed = COMMANDS
        .iter()
        .map(|command| command.fixed().to_owned())
        .chain(parameters);
    let rest = |full: String| {
        let (_, end) = full.starts_with(line).then(|| full.split_at(start))?;
        let next = end.find(' ').map_or(end, |blank| &end[..=blank]);
        (!next.is_empty()).then(|| next.to_owned())
    };
    let words: BTreeSet<String> = fixed.filter_map(rest).collect();
    (start, words.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parameter(name: &str, value: &str) -> Command {
        Command::Parameter {
            name: name.into(),
            value: value.into(),
        }
    }

    #[rstest]
    #[case("/?", Command::Help("".into()))]
    #[case("/help", Command::Help("".into()))]
    #[case("/? shortcuts", Command::Help("shortcuts".into()))]
    #[case("/help /set", Command::Help("set".into()))]
    #[case("/help save", Command::Help("save".into()))]
    #[case("/set parameter temperature 0.5", parameter("temperature", "0.5"))]
    #[case("/set  parameter stop  'a b' c", parameter("stop", "'a b' c"))]
    #[case("/set system You are  brief.\nVery.", Command::System(Some("You are  brief.\nVery.".into())))]
    #[case("/set system \"\"", Command::System(None))]
    #[case("/set think", Command::Think(Think::On))]
    #[case("/set think low", Command::Think(Think::Low))]
    #[case("/set nothink", Command::Think(Think::Off))]
    #[case("/set format json", Command::Json(true))]
    #[case("/set noformat", Command::Json(false))]
    #[case("/set nohistory", Command::Switch(Switch::History, false))]
    #[case("/set wordwrap", Command::Switch(Switch::WordWrap, true))]
    #[case("/set quiet", Command::Switch(Switch::Verbose, false))]
    #[case("/show license", Command::Show(Shown::License))]
    #[case("/save 'my talk.json'", Command::Save("my talk.json".into()))]
    #[case("/load talk.json", Command::Load("talk.json".into()))]
    #[case("/clear", Command::Clear)]
    #[case("/bye", Command::Exit)]
    #[case("/exit ", Command::Exit)]
    fn a_command_is_understood(#[case] line: &str, #[case] command: Command) {
        assert_eq!(parse(line).unwrap(), command);
    }

    #[rstest]
    #[case("/shwo info", "unknown command \"/shwo\"\nhint: did you mean /show?")]
    #[case("/embed", "unknown command \"/embed\"\nhint: /? lists the commands")]
    #[case("/set verbos", "unknown command \"/set verbos\"\nhint: did you mean /set verbose?")]
    #[case(
        "/show licence",
        "unknown command \"/show licence\"\nhint: did you mean /show license?"
    )]
    #[case("/help sett", "unknown command \"/sett\"\nhint: did you mean /set?")]
    #[case("/clear all", "/clear takes nothing more")]
    #[case("/set parameter seed", "expected /set parameter NAME VALUE")]
    #[case("/set format xml", "expected /set format json")]
    #[case("/set think much", "expected /set think [LEVEL]")]
    #[case("/save", "expected /save FILE")]
    #[case(
        "/show",
        "expected one of\n  /show info\n  /show parameters\n  /show system\n  /show template\n  /show license"
    )]
    #[case("/save a b", "/save takes nothing more")]
    #[case("/save \"\"", "/save: the name of the file is empty")]
    #[case("/load ' '", "/load: the name of the file is empty")]
    #[case("/load 'a", "/load: a quotation mark is missing")]
    fn what_is_not_understood_gets_a_hint(#[case] line: &str, #[case] message: &str) {
        assert_eq!(parse(line).unwrap_err().to_string(), message);
    }

    #[test]
    fn every_command_of_the_help_is_understood() {
        for command in &COMMANDS {
            let line = command
                .spelling
                .replace("/?, ", "")
                .replace(" [COMMAND]", "")
                .replace(" [LEVEL]", "");
            assert!(parse(&line).is_ok(), "{line}");
            assert!(help("").contains(command.spelling));
        }
        assert!(help("shortcuts").contains("Ctrl + d"));
        assert!(!help("show").contains("/set"));
    }

    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        for line in [help(""), help(SHORTCUTS)].join("").lines() {
            assert!(line.len() < 80, "{line}");
        }
    }

    #[rstest]
    #[case("/s", 0, &["/save ", "/set ", "/show "])]
    #[case("/set w", 5, &["wordwrap"])]
    #[case("/set parameter te", 15, &["temperature "])]
    #[case("/set parameter", 5, &["parameter "])]
    #[case("/cl", 0, &["/clear"])]
    #[case("hello", 0, &[])]
    fn a_command_is_completed(#[case] line: &str, #[case] start: usize, #[case] words: &[&str]) {
        let words = words.iter().map(|word| word.to_string()).collect();
        assert_eq!(completions(line), (start, words));
    }
}
