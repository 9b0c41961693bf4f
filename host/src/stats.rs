//! Figures of a run, as people read them.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use crate::{
    conversation::Turn,
    execution::{
        Engine,
        plan::{DevicePlan, Purposes},
    },
    generation::Drafted,
    setup::Layers,
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

/// A device's memory in bytes, planned and allocated, and its part of the model.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceMemory {
    /// The device.
    pub name: String,
    /// Layers of the model that it has; the output projection counts as one.
    pub layers: usize,
    /// What was planned.
    pub planned: u64,
    /// What was allocated.
    pub allocated: u64,
    /// What was planned, by what it is for.
    #[serde(flatten)]
    pub purposes: Purposes,
}

/// The memory of all devices of an engine.
pub fn devices(engine: &Engine, layers: &Layers) -> Vec<DeviceMemory> {
    let plans = engine
        .plan()
        .devices
        .iter()
        .zip(engine.allocated())
        .zip(&layers.of_each);
    let memory = |((plan, (allocated, _)), layers): ((&DevicePlan, (u64, u64)), &usize)| DeviceMemory {
        name: plan.target.label(),
        layers: *layers,
        planned: plan.allocated(),
        allocated,
        purposes: plan.purposes(),
    };
    plans.map(memory).collect()
}

/// What runs where, what each device was planned to allocate and did, and for what.
pub fn memory(to: &mut dyn Write, engine: &Engine, layers: &Layers) -> io::Result<()> {
    writeln!(
        to,
        "{} of {} layers on devices, {}",
        layers.on_devices,
        layers.total,
        counted(engine.plan().segments.len(), "graph split")
    )?;
    for device in devices(engine, layers) {
        writeln!(
            to,
            "{}: {}, {} bytes planned, {} allocated",
            device.name,
            counted(device.layers, "layer"),
            device.planned,
            device.allocated
        )?;
        let of = device.purposes;
        let purposes = [
            ("weights", of.weights),
            ("cache", of.cache),
            ("compute", of.compute),
            ("workspace", of.workspace),
        ];
        for (name, bytes) in purposes {
            writeln!(to, "  {name:<12} {bytes:>14}")?;
        }
    }
    let staging = engine.plan().staging();
    if staging > 0 {
        writeln!(
            to,
            "{staging} bytes of host memory carry what devices leave to each other"
        )?;
    }
    Ok(())
}
