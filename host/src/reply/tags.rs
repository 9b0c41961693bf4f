//! Thinking between tags at the start of a reply: `<think>…</think>`, as DeepSeek R1 and Qwen 3 write it.

use std::io;

use super::{Channel, Sink, output::Output};

pub(super) const OPEN: &str = "<think>";
pub(super) const CLOSE: &str = "</think>";

/// Bytes that are held without taking more memory: tags, the space before them, and what one token brings.
const ROOM: usize = 1 << 12;

/// Where a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At its start: a tag may come.
    Start,
    /// As [`Place::Start`], but the prompt has an end to thinking already, so that the answer is what is expected.
    Closed,
    /// In its thinking.
    Thinking,
    /// In its answer, for good: tags are text there.
    Answer,
}

/// Reads a reply with tags. White space beside tags is no part of the text.
#[derive(Debug)]
pub(super) struct Tags {
    place: Place,
    /// Text that may begin a tag, and the space before it.
    held: String,
    /// Whether leading space is still to be dropped.
    trims: bool,
}

impl Tags {
    /// For the reply to a prompt that ends so.
    pub(super) fn after(prompt: &str) -> Tags {
        let end = prompt.trim_end();
        let place = if end.ends_with(OPEN) {
            Place::Thinking
        } else if end.ends_with(CLOSE) {
            Place::Closed
        } else {
            Place::Start
        };
        Tags {
            place,
            held: String::with_capacity(ROOM),
            trims: place != Place::Start,
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Takes text.
    pub(super) fn text(&mut self, text: &str, out: &mut Output, sink: &mut Sink<'_>) -> io::Result<()> {
        self.held.push_str(text);
        while self.advance(out, sink)? {}
        Ok(())
    }

    /// Gives out what is held: no tag can come any more.
    pub(super) fn finish(&mut self, out: &mut Output, sink: &mut Sink<'_>) -> io::Result<()> {
        let channel = match self.place {
            Place::Thinking => Channel::Thinking,
            Place::Start | Place::Closed | Place::Answer => Channel::Answer,
        };
        self.give(self.held.len(), channel, out, sink)
    }

    /// Decides about what is held as far as it goes; whether the place changed, so that there may be more to decide.
    fn advance(&mut self, out: &mut Output, sink: &mut Sink<'_>) -> io::Result<bool> {
        match self.place {
            Place::Start | Place::Closed => {
                let text = self.held.trim_start();
                if text.starts_with(OPEN) {
                    let space = self.held.len() - text.len();
                    self.pass(space + OPEN.len(), Place::Thinking);
                } else if OPEN.starts_with(text) {
                    return Ok(false);
                } else {
                    self.place = Place::Answer;
                }
                Ok(true)
            }
            Place::Thinking => match self.held.find(CLOSE) {
                Some(at) => {
                    let thought = self.held[..at].trim_end().len();
                    self.give(thought, Channel::Thinking, out, sink)?;
                    self.pass(at - thought + CLOSE.len(), Place::Answer);
                    Ok(true)
                }
                None => {
                    self.give(self.held.len() - undecided(&self.held), Channel::Thinking, out, sink)?;
                    Ok(false)
                }
            },
            Place::Answer => {
                self.give(self.held.len(), Channel::Answer, out, sink)?;
                Ok(false)
            }
        }
    }

    /// Drops a tag of so many bytes and what stands before it.
    fn pass(&mut self, bytes: usize, place: Place) {
        self.held.drain(..bytes);
        self.place = place;
        self.trims = true;
    }

    /// Gives out the first `bytes` that are held.
    fn give(&mut self, bytes: usize, channel: Channel, out: &mut Output, sink: &mut Sink<'_>) -> io::Result<()> {
        let text = &self.held[..bytes];
        let text = if self.trims { text.trim_start() } else { text };
        self.trims &= text.is_empty();
        out.text(channel, text, sink)?;
        self.held.drain(..bytes);
        Ok(())
    }
}

/// Bytes at the end of `text` that may begin the closing tag, with the space before them.
fn undecided(text: &str) -> usize {
    let begun = (1..CLOSE.len()).rev().find(|&length| text.ends_with(&CLOSE[..length]));
    let before = &text[..text.len() - begun.unwrap_or(0)];
    text.len() - before.trim_end().len()
}
