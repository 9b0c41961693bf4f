//! Runs of one kind, timed.

use std::time::Instant;

use anyhow::Context;

use super::{
    Test,
    profile::{Counted, Spent},
};
use crate::execution::Engine;

/// The one sequence.
const SEQUENCE: usize = 0;

/// What runs of a test gave.
pub struct Samples {
    /// Nanoseconds of each.
    pub ns: Vec<u64>,
    /// Bytes that each had to read and write, on average; 0 where devices do not count them.
    pub bytes: u64,
    /// Where the time went, over all of them.
    pub profile: Vec<Spent>,
}

/// Takes `count` samples of a test, after a short one that warms up where `warm`.
pub fn take(engine: &mut Engine, test: &Test, count: u32, warm: bool) -> anyhow::Result<Samples> {
    if warm {
        let short = Test {
            prompt: test.prompt.min(engine.plan().tokens),
            generate: test.generate.min(1),
            ..*test
        };
        reach_depth(engine, 0)?;
        timed(engine, &short)?;
    }
    let mut counted = Counted::default();
    let mut ns = Vec::new();
    for _ in 0..count {
        reach_depth(engine, test.depth)?;
        let before = Counted::now(engine)?;
        ns.push(timed(engine, test)?);
        counted.add(&before, &Counted::now(engine)?);
    }
    Ok(Samples {
        ns,
        bytes: counted.bytes() / u64::from(count),
        profile: counted.profile(),
    })
}

fn timed(engine: &mut Engine, test: &Test) -> anyhow::Result<u64> {
    let start = Instant::now();
    evaluate(engine, test.prompt, engine.plan().tokens)?;
    evaluate(engine, test.generate, 1)?;
    Ok(start.elapsed().as_nanos() as u64)
}

/// Starts over with `depth` tokens in the cache.
fn reach_depth(engine: &mut Engine, depth: u32) -> anyhow::Result<()> {
    engine.cache().release(SEQUENCE).context("starting over")?;
    evaluate(engine, depth, engine.plan().tokens)
}

/// Evaluates `count` tokens, so many a step, each step with the logits of its last.
fn evaluate(engine: &mut Engine, count: u32, a_step: u32) -> anyhow::Result<()> {
    let vocabulary = engine.vocabulary();
    // any tokens will do; these spread over the vocabulary
    let token = |i: u32| (u64::from(i) * 2_654_435_761 % u64::from(vocabulary)) as u32;
    let mut tokens = Vec::with_capacity(a_step.min(count) as usize);
    for first in (0..count).step_by(a_step.max(1) as usize) {
        tokens.clear();
        tokens.extend((first..count.min(first + a_step)).map(token));
        let taken = tokens.len() as u32;
        engine.evaluate(&[(SEQUENCE, taken)], &tokens, &[taken - 1])?;
    }
    Ok(())
}
