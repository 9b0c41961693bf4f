//! What a backend must refuse, and what a device owes to its host beside computing.

use abi_stable::std_types::{RSlice, RSliceMut};

use super::{
    case::Case,
    report::Verdict,
    session::{Guarded, Session, failed},
};
use crate::{
    BackendError,
    contract::{Binding, BufferId, Place, ProgramId},
    draft::Draft,
    error::Code,
    graph::{Graph, Node, Step},
    validate,
};

/// A word that means nothing in any enumeration.
const UNKNOWN: u32 = 0x7777;

/// For a case that is served: what differs from it in a way that must be refused.
pub(super) fn of_operation(session: &Session, case: &Case) -> Vec<(String, Verdict)> {
    let Some(&node) = case.draft.nodes.first() else {
        return Vec::new();
    };
    let label = |what: &str| format!("{} refuses {what}", case.label);
    let mut verdicts = vec![(
        label("unknown operations"),
        all_refused(
            session,
            &case.draft,
            [0, 18, 100, 109, u32::MAX].map(|operation| Node { operation, ..node }),
        ),
    )];
    let words = (0..node.params.len()).map(|word| node.with(word, UNKNOWN));
    verdicts.push((label("unknown parameters"), all_refused(session, &case.draft, words)));
    let missing = (0..node.inputs.len()).flat_map(|i| {
        [UNKNOWN, crate::graph::ABSENT].map(|index| {
            let mut node = node;
            node.inputs[i] = index;
            node
        })
    });
    verdicts.push((label("missing inputs"), all_refused(session, &case.draft, missing)));
    let mut draft = case.draft.clone();
    draft.tensors.iter_mut().for_each(|t| t.ty = UNKNOWN);
    verdicts.push((label("unknown types"), all_refused(session, &draft, [node])));
    verdicts
}

/// Fails where `supports` serves a node that the contract calls unknown or malformed.
fn all_refused(session: &Session, draft: &Draft, nodes: impl IntoIterator<Item = Node>) -> Verdict {
    for node in nodes {
        let nodes = [node];
        let graph = Graph::new(&draft.tensors, &nodes, &draft.buffers, draft.tokens, draft.rows);
        let Err(reason) = validate::node(&graph, &node) else {
            continue;
        };
        match session.module.supports()(&session.info, &graph, 0).into_result() {
            Ok(()) => return Verdict::Failed(format!("supports serves a node of which the contract says: {reason}")),
            Err(e) if e.code() == Code::Panicked => return Verdict::Failed(format!("supports: {e}")),
            Err(_) => {}
        }
    }
    Verdict::Passed { error: 0.0, bound: 0.0 }
}

type Duty = fn(&Session) -> Result<(), String>;

/// The duties of a device as a whole.
pub(super) fn of_device(session: &Session) -> Vec<(String, Verdict)> {
    let duties: [(&str, Duty); 11] = [
        ("describes itself alike each time", describes),
        ("keeps what is written", keeps),
        ("refuses unknown buffers", unknown_buffers),
        ("frees a buffer once", frees_once),
        ("refuses ranges outside of a buffer", ranges),
        ("allocates 0 bytes or refuses them", nothing),
        ("copies between buffers", copies),
        ("refuses unknown programs", unknown_programs),
        ("refuses bindings that do not fit", bindings),
        ("orders queues by events", queues),
        ("reports free memory and counters", reports),
    ];
    let verdict = |duty: Duty| match duty(session) {
        Ok(()) => Verdict::Passed { error: 0.0, bound: 0.0 },
        Err(reason) => Verdict::Failed(reason),
    };
    duties.map(|(name, duty)| (name.to_string(), verdict(duty))).into()
}

/// Demands an error that is no panic.
fn refused<T>(what: &str, outcome: crate::contract::Outcome<T>) -> Result<(), String> {
    match outcome.into_result() {
        Ok(_) => Err(format!("{what} is no error")),
        Err(e) if e.code() == Code::Panicked => Err(format!("{what}: {e}")),
        Err(_) => Ok(()),
    }
}

fn describes(session: &Session) -> Result<(), String> {
    let ask = || session.module.memory()(&session.info).into_result();
    let rules = ask().map_err(failed("memory"))?;
    let again = ask().map_err(failed("memory"))?;
    if rules != again || !rules.alignment.is_power_of_two() || rules.granularity == 0 {
        return Err(format!("memory says {rules:?}, then {again:?}"));
    }
    Ok(())
}

fn keeps(session: &Session) -> Result<(), String> {
    let held = session.hold(1000)?;
    let bytes: Vec<u8> = (0..1000).map(|i| i as u8).collect();
    session.write(held.id, 0, &bytes)?;
    session.write(held.id, 501, &bytes[..7])?;
    let (part, end) = (session.read(held.id, 499, 11)?, session.read(held.id, 993, 7)?);
    if part[..2] != bytes[499..501] || part[2..9] != bytes[..7] || part[9..] != bytes[508..510] || end != bytes[993..] {
        return Err(format!("wrote 7 bytes at 501 of 1000, then read {part:?} at 499"));
    }
    Ok(())
}

fn unknown_buffers(session: &Session) -> Result<(), String> {
    let unknown = BufferId(u64::MAX - 5);
    let (device, queue) = (&session.device, session.queue);
    let mut bytes = [0u8; 4];
    refused("freeing an unknown buffer", device.free(unknown))?;
    refused(
        "writing to an unknown buffer",
        device.write(queue, unknown, 0, RSlice::from_slice(&[0u8; 4])),
    )?;
    let into = RSliceMut::from_mut_slice(&mut bytes);
    refused("reading an unknown buffer", device.read(queue, unknown, 0, into))
}

fn frees_once(session: &Session) -> Result<(), String> {
    let id = session.device.allocate(64).into_result().map_err(failed("allocate"))?;
    session.device.free(id).into_result().map_err(failed("free"))?;
    refused("freeing a buffer twice", session.device.free(id))
}

fn ranges(session: &Session) -> Result<(), String> {
    let held = session.hold(64)?;
    let (device, queue) = (&session.device, session.queue);
    for (offset, bytes) in [(0, 65), (61, 4), (64, 1), (u64::MAX - 1, 4)] {
        let mut data = vec![0u8; bytes];
        let what = format!("of {bytes} bytes at {offset} of a buffer of 64");
        let write = device.write(queue, held.id, offset, RSlice::from_slice(&data));
        refused(&format!("a write {what}"), write)?;
        let read = device.read(queue, held.id, offset, RSliceMut::from_mut_slice(&mut data));
        refused(&format!("a read {what}"), read)?;
    }
    Ok(())
}

fn nothing(session: &Session) -> Result<(), String> {
    match session.device.allocate(0).into_result() {
        Ok(id) => session.device.free(id).into_result().map_err(failed("free of 0 bytes")),
        Err(e) if e.code() == Code::Panicked => Err(format!("allocating 0 bytes: {e}")),
        Err(_) => Ok(()),
    }
}

fn copies(session: &Session) -> Result<(), String> {
    let (from, to) = (session.hold(64)?, session.hold(64)?);
    let bytes: Vec<u8> = (0..64).collect();
    session.write(from.id, 0, &bytes)?;
    session.write(to.id, 0, &[255; 64])?;
    let place = |buffer, offset| Place {
        device: session.info.id,
        reserved: 0,
        buffer,
        offset,
    };
    let done = session
        .device
        .copy(session.queue, place(from.id, 3), place(to.id, 9), 20);
    done.into_result().map_err(failed("copy"))?;
    let got = session.read(to.id, 0, 64)?;
    if got[..9] != [255; 9] || got[9..29] != bytes[3..23] || got[29..] != [255; 35] {
        return Err(format!(
            "20 bytes of 0, 1, 2, … from 3, copied to 9 among 255s, are {got:?}"
        ));
    }
    let outside = session
        .device
        .copy(session.queue, place(from.id, 60), place(to.id, 0), 5);
    refused("a copy from outside of a buffer", outside)
}

fn unknown_programs(session: &Session) -> Result<(), String> {
    let unknown = ProgramId(u64::MAX - 5);
    let held = session.hold(64)?;
    refused("freeing an unknown program", session.device.free_program(unknown))?;
    refused(
        "asking for the needs of an unknown program",
        session.device.needs(unknown),
    )?;
    let none = binding(held.id, 0);
    let run = session.run(unknown, &[], none, Step::default());
    run.err()
        .map(|_| ())
        .ok_or_else(|| "running an unknown program is no error".into())
}

fn binding(buffer: BufferId, bytes: u64) -> Binding {
    Binding {
        buffer,
        offset: 0,
        bytes,
    }
}

/// The simplest program that the backend serves: a few floats added or copied.
fn simple_case(session: &Session) -> Option<Case> {
    let mut found = None;
    for operation in [crate::operations::Operation::Add, crate::operations::Operation::Copy] {
        super::cases::generate(operation, 0, &|_| true, &mut |case| {
            let graph = case.draft.graph();
            let serves = |node| {
                session.module.supports()(&session.info, &graph, node)
                    .into_result()
                    .is_ok()
            };
            if found.is_none() && serves(0) {
                found = Some(case);
            }
        });
    }
    found
}

fn bindings(session: &Session) -> Result<(), String> {
    let Some(case) = simple_case(session) else {
        return Ok(());
    };
    let program = session.compile(&case.draft.graph())?;
    let needs = session
        .device
        .needs(program.id)
        .into_result()
        .map_err(failed("needs"))?;
    let workspace = Guarded::new(session, needs.workspace as usize, session.rules.alignment)?;
    let held: Result<Vec<_>, _> = case
        .draft
        .buffers
        .iter()
        .map(|b| session.hold(b.bytes as usize))
        .collect();
    let held = held?;
    let good: Vec<Binding> = held
        .iter()
        .zip(&case.draft.buffers)
        .map(|(h, b)| binding(h.id, b.bytes))
        .collect();
    let step = case.draft.graph().largest_step();
    let attempt = |what: &str, bindings: &[Binding], step| {
        let run = session.run(program.id, bindings, workspace.binding(), step);
        run.err()
            .map(|_| ())
            .ok_or_else(|| format!("a run with {what} is no error"))
    };
    let last = good.len() - 1;
    let with = |change: fn(&mut Binding)| {
        let mut all = good.clone();
        change(&mut all[last]);
        all
    };
    attempt("too few bindings", &good[..last], step)?;
    attempt("a binding past its buffer's end", &with(|b| b.offset = 8), step)?;
    attempt("a binding that is too small", &with(|b| b.bytes -= 1), step)?;
    attempt(
        "a binding of an unknown buffer",
        &with(|b| b.buffer = BufferId(u64::MAX - 5)),
        step,
    )?;
    let longer = Step {
        tokens: step.tokens + 1,
        ..step
    };
    attempt("more tokens than the graph's T", &good, longer)
}

fn queues(session: &Session) -> Result<(), String> {
    let device = &session.device;
    let run = || -> Result<Vec<u8>, BackendError> {
        let second = device.create_queue().into_result()?;
        let event = device.create_event().into_result()?;
        let buffer = device.allocate(16).into_result()?;
        device
            .write(second, buffer, 0, RSlice::from_slice(&[7; 16]))
            .into_result()?;
        device.signal(second, event).into_result()?;
        device.wait(session.queue, session.info.id, event).into_result()?;
        let mut bytes = vec![0; 16];
        device
            .read(session.queue, buffer, 0, RSliceMut::from_mut_slice(&mut bytes))
            .into_result()?;
        device.synchronize(second).into_result()?;
        device.free(buffer).into_result()?;
        device.free_event(event).into_result()?;
        device.free_queue(second).into_result()?;
        Ok(bytes)
    };
    match run().map_err(failed("a second queue"))? {
        bytes if bytes == [7; 16] => Ok(()),
        bytes => Err(format!("a queue that waited for another's write read {bytes:?}")),
    }
}

fn reports(session: &Session) -> Result<(), String> {
    session
        .device
        .free_memory()
        .into_result()
        .map_err(failed("free_memory"))?;
    let counters = session.device.counters().into_result().map_err(failed("counters"))?;
    match counters.iter().find(|c| c.name.is_empty()) {
        Some(counter) => Err(format!("a counter of {} has no name", counter.value)),
        None => Ok(()),
    }
}
