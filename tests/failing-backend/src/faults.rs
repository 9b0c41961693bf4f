//! Which call fails, and how.

use std::{
    collections::{HashMap, HashSet},
    env,
    str::FromStr,
    sync::{LazyLock, Mutex, PoisonError},
};

use backend_api::{BackendError, Result, error::Code};

/// What may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    Open,
    Allocate,
    Write,
    Read,
    Copy,
    Compile,
    Run,
    Synchronize,
}

impl FromStr for Call {
    type Err = ();

    fn from_str(name: &str) -> Result<Call, ()> {
        Ok(match name {
            "open" => Call::Open,
            "allocate" => Call::Allocate,
            "write" => Call::Write,
            "read" => Call::Read,
            "copy" => Call::Copy,
            "compile" => Call::Compile,
            "run" => Call::Run,
            "synchronize" => Call::Synchronize,
            _ => return Err(()),
        })
    }
}

/// `1:run:3:lost`: the third run of card 1, however often it was opened, and all that is asked of it afterwards.
/// `failed`, `memory` and `panics` fail once, with the code or by a panic.
struct Fault {
    card: u32,
    call: Call,
    number: u64,
    how: String,
}

impl FromStr for Fault {
    type Err = ();

    fn from_str(text: &str) -> Result<Fault, ()> {
        let [card, call, number, how] = *text.split(':').collect::<Vec<_>>() else {
            return Err(());
        };
        Ok(Fault {
            card: card.parse().map_err(drop)?,
            call: call.parse()?,
            number: number.parse().map_err(drop)?,
            how: how.to_owned(),
        })
    }
}

static FAULTS: LazyLock<Vec<Fault>> = LazyLock::new(|| {
    let faults = env::var("FAIL_AT").unwrap_or_default();
    let faults = faults.split(',').filter(|fault| !fault.is_empty());
    let parsed = faults.map(|fault| {
        fault
            .parse()
            .unwrap_or_else(|()| panic!("FAIL_AT: {fault:?} is no fault"))
    });
    parsed.collect()
});

/// What was asked so far, and the cards that are lost.
#[derive(Default)]
struct Past {
    calls: HashMap<(u32, Call), u64>,
    lost: HashSet<u32>,
}

static PAST: LazyLock<Mutex<Past>> = LazyLock::new(Mutex::default);

/// Counts a call; an error where it is to fail.
pub fn check(card: u32, call: Call) -> Result<()> {
    let mut past = PAST.lock().unwrap_or_else(PoisonError::into_inner);
    if past.lost.contains(&card) {
        return Err(BackendError::new(Code::DeviceLost, "it has fallen off the bus"));
    }
    let number = past.calls.entry((card, call)).or_default();
    *number += 1;
    let number = *number;
    let fault = FAULTS
        .iter()
        .find(|f| (f.card, f.call, f.number) == (card, call, number));
    let Some(fault) = fault else { return Ok(()) };
    let message = format!("{call:?} {number} fails on command");
    match fault.how.as_str() {
        "lost" => {
            past.lost.insert(card);
            Err(BackendError::new(Code::DeviceLost, message))
        }
        "memory" => Err(BackendError::out_of_memory(message)),
        "panics" => panic!("{message}"),
        _ => Err(BackendError::failed(message)),
    }
}
