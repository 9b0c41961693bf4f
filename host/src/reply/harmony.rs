//! Replies of gpt-oss: messages with headers, between tokens that are not text. The format is described in OpenAI's
//! "harmony response format".
//!
//! `<|start|>assistant<|channel|>analysis<|message|>…<|end|>` is thinking. On the channel `final` it is the answer, and on
//! `commentary` too: what is said there to nobody in particular (a preamble to calls) is meant for the user. A message to a
//! recipient (`to=functions.NAME`, in either part of the header) is a call.

use std::io;

use models::tokenizer::Tokenizer;

use super::{Channel, Sink, output::Output};

/// What the tokens of the format say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A header begins with the role.
    Start,
    /// The header goes on with the channel.
    Channel,
    /// The header goes on with the type of the content.
    Constrain,
    /// The header ends, the text begins.
    Message,
    /// The message ends.
    End,
}

const MARKS: [(&str, Mark); 7] = [
    ("<|start|>", Mark::Start),
    ("<|channel|>", Mark::Channel),
    ("<|message|>", Mark::Message),
    ("<|end|>", Mark::End),
    ("<|constrain|>", Mark::Constrain),
    ("<|return|>", Mark::End),
    ("<|call|>", Mark::End),
];
/// So many of them make the format.
const NEEDED: usize = 4;

/// The opening of a message that is the answer, after the role.
pub(super) const FINAL: &str = "<|channel|>final<|message|>";
/// The opening of what is thought, after the role.
pub(super) const ANALYSIS: &str = "<|channel|>analysis<|message|>";
/// The end of a header.
pub(super) const MESSAGE: &str = "<|message|>";

const ROLES: [&str; 5] = ["assistant", "user", "system", "developer", "tool"];
const THINKING: &str = "analysis";
const CHANNELS: [&str; 3] = [THINKING, "commentary", "final"];
const TYPES: [&str; 1] = ["json"];
/// Functions stand in a namespace of this name; others are the model's own tools.
const FUNCTIONS: &str = "functions.";

/// Bytes of a header. What is longer, or has a line break in it, is none.
const LONGEST_HEADER: usize = 256;

/// The tokens of the format in a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks([Option<u32>; MARKS.len()]);

impl Marks {
    /// Those of a vocabulary that has the format.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Marks> {
        let marks = MARKS.map(|(spelling, _)| tokenizer.token(spelling));
        marks[..NEEDED].iter().all(Option::is_some).then_some(Marks(marks))
    }

    pub(super) fn mark(&self, token: u32) -> Option<Mark> {
        let at = self.0.iter().position(|&mark| mark == Some(token))?;
        Some(MARKS[at].1)
    }
}

/// Where a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a header, or before one.
    Header,
    /// In the text of a message.
    Text(Channel),
    /// In the arguments of a call.
    Arguments,
}

/// Reads a reply in the format.
#[derive(Debug)]
pub(super) struct Harmony {
    place: Place,
    header: Header,
}

impl Harmony {
    /// At the start of an answer that has no header.
    pub(super) fn new() -> Harmony {
        Harmony {
            place: Place::Text(Channel::Answer),
            header: Header {
                text: String::with_capacity(LONGEST_HEADER + 4),
                channel: None,
            },
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Takes a token that is no text.
    pub(super) fn mark(&mut self, mark: Mark, out: &mut Output, sink: &mut Sink<'_>) -> io::Result<()> {
        match (mark, self.place) {
            (Mark::Message, Place::Header) => {
                self.end_role(out, sink)?;
                self.place = self.header.said().begin(out);
            }
            (Mark::Message, _) | (Mark::Constrain, Place::Text(_) | Place::Arguments) => {}
            (Mark::Constrain, Place::Header) => self.text(" ", out, sink)?,
            (Mark::Channel, Place::Header) if self.header.channel.is_none() => {
                self.end_role(out, sink)?;
                self.header.begin_channel();
            }
            (Mark::Channel, _) => {
                self.end(out, sink)?;
                self.header.begin_channel();
            }
            (Mark::Start | Mark::End, _) => self.end(out, sink)?,
        }
        Ok(())
    }

    /// Takes text.
    pub(super) fn text(&mut self, text: &str, out: &mut Output, sink: &mut Sink<'_>) -> io::Result<()> {
        match self.place {
            Place::Text(channel) => out.text(channel, text, sink),
            Place::Arguments => out.arguments(text, sink),
            Place::Header => {
                let taken = self.header.take(text);
                if taken < text.len() {
                    self.place = self.header.said().salvage(out, sink)?;
                    self.text(&text[taken..], out, sink)?;
                }
                Ok(())
            }
        }
    }

    /// What stands where a role is expected and is none, is answer.
    fn end_role(&self, out: &mut Output, sink: &mut Sink<'_>) -> io::Result<()> {
        let text = self.header.role().rest;
        if self.header.channel.is_none() && !text.is_empty() {
            out.begin(Channel::Answer);
            out.text(Channel::Answer, text, sink)?;
        }
        Ok(())
    }

    /// Ends the message; what stands in a header without one is not lost.
    pub(super) fn end(&mut self, out: &mut Output, sink: &mut Sink<'_>) -> io::Result<()> {
        let said = self.header.said();
        if self.place == Place::Header && !said.rest.is_empty() {
            said.salvage(out, sink)?;
        }
        self.place = Place::Header;
        self.header.text.clear();
        self.header.channel = None;
        Ok(())
    }
}

/// What stands between `<|start|>` and `<|message|>`.
#[derive(Debug)]
struct Header {
    text: String,
    /// Where the channel begins in the text.
    channel: Option<usize>,
}

/// What a header says.
struct Said<'h> {
    channel: Channel,
    /// Whom the model calls.
    recipient: Option<&'h str>,
    /// What is no part of a header.
    rest: &'h str,
}

impl Header {
    fn begin_channel(&mut self) {
        self.channel = Some(self.text.len());
    }

    /// Adds text, a character at a time so that it does not matter how it is cut; says how many bytes belong to a header.
    fn take(&mut self, text: &str) -> usize {
        for (at, character) in text.char_indices() {
            let breaks = character == '\n' && !self.text.trim_start().is_empty();
            if breaks || self.text.len() >= LONGEST_HEADER {
                return at;
            }
            self.text.push(character);
        }
        text.len()
    }

    fn role(&self) -> Part<'_> {
        Part::of(&self.text[..self.channel.unwrap_or(self.text.len())], &ROLES)
    }

    fn said(&self) -> Said<'_> {
        let role = self.role();
        let channel = self.channel.map(|at| Part::of(&self.text[at..], &CHANNELS));
        let named = channel.as_ref().and_then(|part| part.name);
        let to = role.recipient.or(channel.as_ref().and_then(|part| part.recipient));
        // a message of somebody else, which a model may dream up, calls nothing
        let from_model = matches!(role.name, None | Some("assistant"));
        let recipient = to.filter(|name| from_model && !name.is_empty());
        let rest = channel.map_or(role.rest, |part| part.rest);
        Said {
            channel: if named == Some(THINKING) {
                Channel::Thinking
            } else {
                Channel::Answer
            },
            recipient,
            rest: if recipient.is_some() {
                known(rest, &TYPES).1
            } else {
                rest
            },
        }
    }
}

/// A part of a header: `NAME to=RECIPIENT`, and more.
struct Part<'h> {
    name: Option<&'h str>,
    recipient: Option<&'h str>,
    rest: &'h str,
}

impl<'h> Part<'h> {
    fn of(text: &'h str, names: &[&'static str]) -> Part<'h> {
        let (name, rest) = match known(text, names) {
            // a tool's own message
            (None, text) if text.starts_with(FUNCTIONS) => {
                let (name, rest) = word(text);
                (Some(name), rest)
            }
            found => found,
        };
        match rest.strip_prefix("to=") {
            Some(rest) => {
                let (recipient, rest) = word(rest);
                Part {
                    name,
                    recipient: Some(recipient),
                    rest,
                }
            }
            None => Part {
                name,
                recipient: None,
                rest,
            },
        }
    }
}

/// The first word of a text, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// The name that a text begins with, if it is one of these, and what follows, without space before either.
fn known<'h>(text: &'h str, names: &[&'static str]) -> (Option<&'h str>, &'h str) {
    let text = text.trim_start();
    match names.iter().find(|name| text.starts_with(**name)) {
        Some(name) => {
            let (name, rest) = text.split_at(name.len());
            (Some(name), rest.trim_start())
        }
        None => (None, text),
    }
}

impl Said<'_> {
    /// Begins the message.
    fn begin(&self, out: &mut Output) -> Place {
        match self.recipient {
            Some(name) => {
                out.begin_call(name.strip_prefix(FUNCTIONS).unwrap_or(name));
                Place::Arguments
            }
            None => {
                out.begin(self.channel);
                Place::Text(self.channel)
            }
        }
    }

    /// Begins the message with what does not belong to the header, which has no proper end.
    fn salvage(&self, out: &mut Output, sink: &mut Sink<'_>) -> io::Result<Place> {
        let place = self.begin(out);
        match place {
            Place::Text(channel) => out.text(channel, self.rest, sink)?,
            Place::Arguments | Place::Header => out.arguments(self.rest, sink)?,
        }
        Ok(place)
    }
}
