//! From a reply's tokens to its parts.

use std::io;

use models::tokenizer::{Controls, Decoder, Tokenizer};

use super::{
    Channel, Format, Reply, Sink,
    harmony::{self, Harmony, Mark, Marks},
    output::Output,
    tags::{self, Tags},
};
use crate::stop::StopStrings;

/// Tokens at a prompt's end in which an open or closed tag is looked for.
const END: usize = 32;
/// Bytes of text that one token brings, without taking more memory.
const ROOM: usize = 1 << 10;

/// Reads a reply, a token at a time. In the long run a token takes nothing from the heap.
pub struct Reader<'t> {
    tokenizer: &'t Tokenizer,
    decoder: Decoder,
    /// The text of the current token.
    text: String,
    place: Place,
    output: Output,
}

enum Place {
    Plain,
    Harmony(Marks, Harmony),
    Tags([Option<u32>; 2], Tags),
}

impl<'t> Reader<'t> {
    /// For a reply to `prompt` in this format. Where the prompt begins the reply (with a header, an opened tag), the reply
    /// goes on from there.
    pub fn new(tokenizer: &'t Tokenizer, format: Format, prompt: &[u32], stops: StopStrings) -> Reader<'t> {
        let place = match format {
            Format::Plain => Place::Plain,
            Format::Harmony(marks) => Place::Harmony(marks, Harmony::new()),
            Format::Think { open, close } => {
                let end = &prompt[prompt.len().saturating_sub(END)..];
                let end = tokenizer.decode(end, Controls::Show).unwrap_or_default();
                Place::Tags([open, close], Tags::after(&end))
            }
        };
        let mut reader = Reader {
            tokenizer,
            decoder: Decoder::new(Controls::Hide),
            text: String::with_capacity(ROOM),
            place,
            output: Output::new(StopStrings::default()),
        };
        reader.follow(prompt);
        reader.output = Output::new(stops);
        reader
    }

    /// Goes to where the last message of a prompt is; what is said there is no part of the reply.
    fn follow(&mut self, prompt: &[u32]) {
        let Place::Harmony(marks, _) = &self.place else { return };
        let starts = |&token: &u32| marks.mark(token) == Some(Mark::Start);
        let start = prompt.iter().rposition(starts).unwrap_or(prompt.len());
        for &token in &prompt[start..] {
            // nobody is there to fail
            self.push(token, &mut |_| Ok(())).ok();
        }
    }

    /// Takes a token; says whether a stop string ended the answer, after which nothing is given out. Ids that the tokenizer
    /// has no piece for (a padded vocabulary) are no text.
    pub fn push(&mut self, token: u32, sink: &mut Sink<'_>) -> io::Result<bool> {
        self.text.clear();
        let Reader {
            tokenizer,
            decoder,
            text,
            place,
            output,
        } = self;
        match place {
            Place::Plain => {
                decoder.push(tokenizer, token, text).ok();
                output.text(Channel::Answer, text, sink)?;
            }
            Place::Harmony(marks, harmony) => match marks.mark(token) {
                Some(mark) => {
                    decoder.finish(text);
                    harmony.text(text, output, sink)?;
                    harmony.mark(mark, output, sink)?;
                }
                None => {
                    decoder.push(tokenizer, token, text).ok();
                    harmony.text(text, output, sink)?;
                }
            },
            Place::Tags(tokens, tags) => {
                match tokens.iter().position(|&tag| tag == Some(token)) {
                    // a control token, in some files
                    Some(tag) => {
                        decoder.finish(text);
                        text.push_str([tags::OPEN, tags::CLOSE][tag]);
                    }
                    None => {
                        decoder.push(tokenizer, token, text).ok();
                    }
                }
                tags.text(text, output, sink)?;
            }
        }
        Ok(output.stopped())
    }

    /// Whether text that comes now belongs to the answer and nothing else. Not so where a model that may think has not
    /// begun to speak.
    pub fn in_answer(&self) -> bool {
        match &self.place {
            Place::Plain => true,
            Place::Harmony(_, harmony) => harmony.place() == harmony::Place::Text(Channel::Answer),
            Place::Tags(_, tags) => matches!(tags.place(), tags::Place::Answer | tags::Place::Closed),
        }
    }

    /// Whether text that comes now is thought.
    pub fn in_thinking(&self) -> bool {
        match &self.place {
            Place::Plain => false,
            Place::Harmony(_, harmony) => harmony.place() == harmony::Place::Text(Channel::Thinking),
            Place::Tags(_, tags) => tags.place() == tags::Place::Thinking,
        }
    }

    /// The reply, when no token follows; what was held back goes to `sink`. A call that was cut short is one of its calls.
    pub fn finish(mut self, sink: &mut Sink<'_>) -> io::Result<Reply> {
        self.text.clear();
        let (text, output) = (&mut self.text, &mut self.output);
        self.decoder.finish(text);
        match &mut self.place {
            Place::Plain => output.text(Channel::Answer, text, sink)?,
            Place::Harmony(_, harmony) => {
                harmony.text(text, output, sink)?;
                harmony.end(output, sink)?;
            }
            Place::Tags(_, tags) => {
                tags.text(text, output, sink)?;
                tags.finish(output, sink)?;
            }
        }
        self.output.finish(sink)
    }
}
