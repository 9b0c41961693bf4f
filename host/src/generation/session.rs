//! One sequence on an engine: what is cached, and the logits of what comes next.

use std::sync::atomic::{AtomicBool, Ordering};

use super::GenerationError;
use crate::{
    cache::Prefix,
    execution::{Engine, engine::EngineError},
};

/// The one sequence that is served.
const SEQUENCE: usize = 0;

/// How far a prompt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefill {
    /// Tokens that were in the cache already.
    pub reused: usize,
    /// Tokens that were evaluated.
    pub evaluated: usize,
    /// Whether that is all of it; if not, it was interrupted and there are no logits.
    pub complete: bool,
}

/// What became of a token that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// It is part of the sequence; the logits are those of what comes next.
    Ready,
    /// The context is full and must not be shifted.
    Full,
    /// Shifting the context was interrupted.
    Interrupted,
}

/// A sequence that is evaluated in batches.
pub struct Session {
    engine: Engine,
    cached: Prefix,
    logits: Vec<f32>,
    context: u32,
    /// Tokens at the start that survive when a full context is shifted; `None` ends the answer instead.
    keep: Option<u32>,
    shifts: usize,
}

impl Session {
    /// A session of up to `context` tokens. When they are used up, the first `keep` stay, half of the others are
    /// dropped, the oldest first, and the rest is evaluated again; without `keep` the answer ends.
    pub fn new(engine: Engine, context: u32, keep: Option<u32>) -> Session {
        let mut cached = Prefix::default();
        cached.reserve(context as usize);
        Session {
            engine,
            cached,
            logits: Vec::new(),
            context,
            keep,
            shifts: 0,
        }
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The most tokens that it holds.
    pub fn context(&self) -> u32 {
        self.context
    }

    /// How many times a full context was shifted.
    pub fn shifts(&self) -> usize {
        self.shifts
    }

    /// The logits `[V]` of the token that comes next. The sampler may change them.
    pub fn logits(&mut self) -> &mut [f32] {
        &mut self.logits
    }

    /// Whether a full context is shifted.
    pub fn may_shift(&self) -> bool {
        self.keep.is_some()
    }

    /// The tokens that are cached.
    pub fn cached(&self) -> &[u32] {
        self.cached.tokens()
    }

    /// Makes `prompt` the sequence, reusing what is cached of it. Ends between two batches once `interrupt` is true; what
    /// was evaluated until then stays cached.
    pub fn prefill(&mut self, prompt: &[u32], interrupt: &AtomicBool) -> Result<Prefill, GenerationError> {
        if prompt.is_empty() {
            return Err(GenerationError::EmptyPrompt);
        }
        if prompt.len() > self.context as usize {
            return Err(GenerationError::PromptTooLong {
                tokens: prompt.len(),
                context: self.context,
            });
        }
        let reused = self.reuse(prompt)?;
        let batch = self.engine.plan().tokens as usize;
        let mut evaluated = 0;
        let fresh = &prompt[reused..];
        for tokens in fresh.chunks(batch) {
            if interrupt.load(Ordering::Relaxed) {
                break;
            }
            evaluated += tokens.len();
            self.evaluate(tokens, evaluated == fresh.len())?;
        }
        Ok(Prefill {
            reused,
            evaluated,
            complete: evaluated == fresh.len(),
        })
    }

    /// Cuts the sequence to what can be reused of it for `prompt`, and says how many tokens that are.
    fn reuse(&mut self, prompt: &[u32]) -> Result<usize, EngineError> {
        let wanted = self.cached.reusable(prompt) as u32;
        let cache = self.engine.cache();
        let reused = cache.resumable(SEQUENCE, wanted);
        cache.truncate(SEQUENCE, reused)?;
        self.cached.truncate(reused as usize);
        Ok(reused as usize)
    }

    /// Adds a token. A full context is shifted first, if that is allowed; `interrupt` ends that early.
    pub fn advance(&mut self, token: u32, interrupt: &AtomicBool) -> Result<Advance, GenerationError> {
        if self.cached.tokens().len() < self.context as usize {
            self.evaluate(&[token], true)?;
            return Ok(Advance::Ready);
        }
        let Some(keep) = self.keep else {
            return Ok(Advance::Full);
        };
        self.shifts += 1;
        let rest = self.shifted(keep, token);
        let complete = self.prefill(&rest, interrupt)?.complete;
        Ok(if complete { Advance::Ready } else { Advance::Interrupted })
    }

    /// The first `keep` tokens and the newer half of the others, then `token`.
    fn shifted(&self, keep: u32, token: u32) -> Vec<u32> {
        let tokens = self.cached.tokens();
        let keep = (keep as usize).min(tokens.len().saturating_sub(2));
        let dropped = ((tokens.len() - keep) / 2).max(1);
        [&tokens[..keep], &tokens[keep + dropped..], &[token]].concat()
    }

    /// Evaluates tokens that follow; with `wanted`, takes the logits of the last.
    fn evaluate(&mut self, tokens: &[u32], wanted: bool) -> Result<(), GenerationError> {
        let last = [tokens.len() as u32 - 1];
        let columns = if wanted { &last[..] } else { &[] };
        let evaluated = self
            .engine
            .evaluate(&[(SEQUENCE, tokens.len() as u32)], tokens, columns);
        if evaluated.is_err() {
            self.cached.truncate(0);
        }
        evaluated?;
        self.cached.extend(tokens);
        if wanted {
            self.logits.clear();
            self.logits.extend(self.engine.logits(0));
        }
        Ok(())
    }
}
