//! Figures of a run, as people read them.

use std::{
    io::{self, Write},
    time::Duration,
};

use crate::{
    conversation::Turn,
    generation::{Drafted, Session},
};

/// A time in milliseconds.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// So many of something: `1 message`, `2 messages`.
pub fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// How often: `once`, `2 times`.
pub fn times(count: usize) -> String {
    match count {
        1 => "once".into(),
        count => format!("{count} times"),
    }
}

/// How long loading took.
pub fn loading(to: &mut dyn Write, time: Duration) -> io::Result<()> {
    writeln!(to, "load     {:>10.1} ms", milliseconds(time))
}

/// What a turn took, how much of its prompt was cached, and what the context had no room for.
pub fn turn(to: &mut dyn Write, turn: &Turn) -> io::Result<()> {
    let answer = &turn.answer;
    let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    writeln!(
        to,
        "prefill  {:>10.1} ms  {} tokens, {} reused  {:.1} tokens/s",
        milliseconds(answer.prefill),
        answer.evaluated,
        answer.reused,
        rate(answer.evaluated, answer.prefill)
    )?;
    writeln!(
        to,
        "decode   {:>10.1} ms  {} tokens  {:.1} tokens/s",
        milliseconds(answer.decode),
        answer.tokens.len(),
        rate(answer.tokens.len(), answer.decode)
    )?;
    if let Some(Drafted { drafted, accepted }) = turn.draft {
        let percent = 100 * accepted / drafted.max(1);
        writeln!(to, "draft    {drafted:>10} tokens  {accepted} accepted ({percent} %)")?;
    }
    if turn.left_out > 0 {
        writeln!(to, "oldest {} left out", counted(turn.left_out, "message"))?;
    }
    if turn.shifts > 0 {
        writeln!(to, "context shifted {}", times(turn.shifts))?;
    }
    Ok(())
}

/// What each device allocated, and for what.
pub fn memory(to: &mut dyn Write, session: &mut Session, devices: &[String]) -> io::Result<()> {
    for (label, device) in devices.iter().zip(&session.engine().plan().devices) {
        writeln!(to, "{label}: {} bytes allocated", device.allocated())?;
        for (region, bytes) in &device.regions {
            writeln!(to, "  {:<12} {bytes:>14}", region.name())?;
        }
        writeln!(to, "  {:<12} {:>14}", "scratch", device.workspace)?;
    }
    Ok(())
}
