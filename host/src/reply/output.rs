//! Where the parts of a reply go: into the whole, and to whoever watches it come.

use std::io;

use super::{Channel, Piece, ROOM, Reply, Sink, ToolCall};
use crate::stop::StopStrings;

/// Between two messages of one channel.
const BETWEEN: &str = "\n\n";

/// Collects a reply. Its answer ends before a stop string; what is thought or given to tools has none.
pub(super) struct Output {
    reply: Reply,
    stops: StopStrings,
    stopped: bool,
    /// Whether answer text may be held back by the stop strings.
    answering: bool,
    /// Channels that have text, thinking first; what follows there in another message is set off.
    begun: [bool; 2],
    set_off: bool,
}

impl Output {
    pub(super) fn new(stops: StopStrings) -> Output {
        Output {
            reply: Reply::default(),
            stops,
            stopped: false,
            answering: false,
            begun: [false; 2],
            set_off: false,
        }
    }

    /// Whether a stop string ended the answer.
    pub(super) fn stopped(&self) -> bool {
        self.stopped
    }

    /// Begins a message of a channel.
    pub(super) fn begin(&mut self, channel: Channel) {
        self.set_off = self.begun[channel as usize];
    }

    /// Begins a call.
    pub(super) fn begin_call(&mut self, name: &str) {
        if self.stopped {
            return;
        }
        // a model that begins one call after another must not reserve without end
        if let Some(last) = self.reply.calls.last_mut() {
            last.arguments.shrink_to_fit();
        }
        self.reply.calls.push(ToolCall {
            name: name.to_owned(),
            arguments: String::with_capacity(ROOM),
        });
    }

    /// Text of a channel.
    pub(super) fn text(&mut self, channel: Channel, text: &str, sink: &mut Sink<'_>) -> io::Result<()> {
        if text.is_empty() || self.stopped {
            return Ok(());
        }
        self.begun[channel as usize] = true;
        if std::mem::take(&mut self.set_off) {
            self.put(channel, BETWEEN, sink)?;
        }
        self.put(channel, text, sink)
    }

    /// Text of the arguments of the call that was begun last.
    pub(super) fn arguments(&mut self, text: &str, sink: &mut Sink<'_>) -> io::Result<()> {
        match self.reply.calls.last_mut() {
            Some(_) if self.stopped => Ok(()),
            Some(call) => {
                call.arguments.push_str(text);
                Ok(())
            }
            None => self.text(Channel::Answer, text, sink),
        }
    }

    /// The reply as it is when no token follows.
    pub(super) fn finish(mut self, sink: &mut Sink<'_>) -> io::Result<Reply> {
        self.release(sink)?;
        self.reply
            .calls
            .iter_mut()
            .for_each(|call| call.arguments.shrink_to_fit());
        Ok(self.reply)
    }

    fn put(&mut self, channel: Channel, text: &str, sink: &mut Sink<'_>) -> io::Result<()> {
        match channel {
            Channel::Thinking => {
                self.release(sink)?;
                emit(&mut self.reply, Piece { channel, text }, sink)
            }
            Channel::Answer if self.stopped => Ok(()),
            Channel::Answer => {
                self.answering = true;
                let printable = self.stops.push(text);
                self.stopped = printable.stop.is_some();
                let text = printable.text;
                emit(&mut self.reply, Piece { channel, text }, sink)
            }
        }
    }

    /// Gives out what might have begun a stop string.
    fn release(&mut self, sink: &mut Sink<'_>) -> io::Result<()> {
        if !std::mem::take(&mut self.answering) || self.stopped {
            return Ok(());
        }
        let piece = Piece {
            channel: Channel::Answer,
            text: self.stops.finish(),
        };
        emit(&mut self.reply, piece, sink)
    }
}

fn emit(reply: &mut Reply, piece: Piece<'_>, sink: &mut Sink<'_>) -> io::Result<()> {
    if piece.text.is_empty() {
        return Ok(());
    }
    reply.push(piece);
    sink(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_without_end_reserve_no_more_than_one() {
        let mut output = Output::new(StopStrings::default());
        for _ in 0..1000 {
            output.begin_call("again");
        }
        let reserved: usize = output.reply.calls.iter().map(|call| call.arguments.capacity()).sum();
        assert_eq!(reserved, ROOM);
    }
}
