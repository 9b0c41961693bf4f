//! What a device can do at most, for who compares work with it: plain reading of its memory, and multiply-adds in registers.

use std::{sync::Arc, time::Instant};

use backend_api::{Result, measure::Measures};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    backend::Cuda37,
    driver::{Driver, Platform, Shape},
    modules::Kernels,
    resources::{Memory, Queue},
};

const MODULE: &str = "measure";

/// How often a figure is taken; the best one counts.
const TRIES: usize = 5;

/// Enough blocks and threads for any card.
const SHAPE: Shape = Shape {
    grid: [2048, 1, 1],
    block: [256, 1, 1],
    shared: 0,
};

/// Bytes that are read at most.
const MOST_BYTES: u64 = 256 << 20;

/// Rounds of multiply-adds, and as many of them in a round as `CHAINS` of the kernel.
const ROUNDS: u32 = 512;
const CHAINS: u32 = 16;

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct ReadArgs {
    x: u64,
    y: u64,
    words: u64,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct ArithmeticArgs {
    y: u64,
    a: f32,
    b: f32,
    rounds: u32,
    nothing: u32,
}

impl<P: Platform> Measures for Cuda37<P> {
    /// As many bytes of the device's own memory as `memory` has are read, at most 256 MiB.
    fn read_bandwidth(device: u32, _threads: u32, memory: &[u8]) -> Result<f64> {
        let bytes = (memory.len() as u64).clamp(1 << 20, MOST_BYTES);
        let (driver, _) = Cuda37::<P>::driver(device)?;
        let (x, y) = (Memory::allocate(&driver, bytes)?, Memory::allocate(&driver, 256)?);
        let argument = ReadArgs {
            x: x.at(0, bytes)?,
            y: y.at(0, 4)?,
            words: bytes / 16,
        };
        best(&driver, "measure_read", &argument, bytes as f64)
    }

    fn arithmetic_peak(device: u32, _threads: u32) -> Result<f64> {
        let (driver, _) = Cuda37::<P>::driver(device)?;
        let y = Memory::allocate(&driver, 256)?;
        let argument = ArithmeticArgs {
            y: y.at(0, 4)?,
            a: 0.999,
            b: 1e-3,
            rounds: ROUNDS,
            nothing: 0,
        };
        let threads = f64::from(SHAPE.grid[0] * SHAPE.block[0]);
        let operations = threads * 2.0 * f64::from(CHAINS) * f64::from(ROUNDS);
        best(&driver, "measure_arithmetic", &argument, operations)
    }
}

/// The most that one of several launches did a second, of `amount` each, after one that warms up.
fn best<A: IntoBytes + Immutable>(driver: &Arc<dyn Driver>, name: &str, argument: &A, amount: f64) -> Result<f64> {
    let (queue, kernels) = (Queue::new(driver)?, Kernels::new(driver));
    let kernel = kernels.get(MODULE, name)?;
    let mut least = f64::INFINITY;
    for round in 0..=TRIES {
        let start = Instant::now();
        // SAFETY: stream and kernel are alive; the caller holds the memory whose addresses are in the argument.
        unsafe { driver.launch(queue.handle(), kernel, &SHAPE, argument.as_bytes())? };
        queue.synchronize()?;
        if round > 0 {
            least = least.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(amount / least.max(1e-9))
}
