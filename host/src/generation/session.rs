//! One sequence on an engine: what is cached, and the logits of what comes next.

use std::{
    ops::Sub,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use serde::Serialize;

use super::{
    GenerationError,
    draft::{Drafter, MOST_AHEAD},
    handover::{HandOver, Rescue},
};
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

/// How many tokens were guessed, and how many of them were right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drafted {
    /// Tokens that were evaluated before it was known that they come.
    pub drafted: usize,
    /// Those that came.
    pub accepted: usize,
}

impl Sub for Drafted {
    type Output = Drafted;

    fn sub(self, before: Drafted) -> Drafted {
        Drafted {
            drafted: self.drafted - before.drafted,
            accepted: self.accepted - before.accepted,
        }
    }
}

/// Tokens that were evaluated before it is known whether they come.
#[derive(Debug, Default)]
struct Ahead {
    tokens: [u32; MOST_AHEAD],
    count: usize,
    /// How many of them came.
    came: usize,
}

impl Ahead {
    /// The next of them.
    fn next(&self) -> Option<u32> {
        self.tokens[..self.count].get(self.came).copied()
    }
}

/// A sequence that is evaluated in batches. Where it is allowed to guess, tokens that may come are evaluated along with
/// one that is added; they are no part of the sequence before they are added, too.
pub struct Session<'m> {
    engine: Engine,
    /// Where to go on when a device fails; none makes that an error.
    rescue: Option<Box<dyn Rescue + 'm>>,
    hand_overs: Vec<HandOver>,
    cached: Prefix,
    /// The row of the last step that has the logits of the token that comes next.
    row: usize,
    context: u32,
    /// Tokens at the start that survive when a full context is shifted; `None` ends the answer instead.
    keep: Option<u32>,
    shifts: usize,
    drafter: Option<Drafter>,
    /// The fewest and the most tokens to guess.
    guesses: [usize; 2],
    ahead: Ahead,
    drafted: Drafted,
}

impl<'m> Session<'m> {
    /// A session of up to `context` tokens. When they are used up, the first `keep` stay, half of the others are
    /// dropped, the oldest first, and the rest is evaluated again; without `keep` the answer ends.
    pub fn new(engine: Engine, context: u32, keep: Option<u32>) -> Session<'m> {
        let mut cached = Prefix::default();
        cached.reserve(context as usize);
        Session {
            engine,
            rescue: None,
            hand_overs: Vec::new(),
            cached,
            row: 0,
            context,
            keep,
            shifts: 0,
            drafter: None,
            guesses: [0; 2],
            ahead: Ahead::default(),
            drafted: Drafted::default(),
        }
    }

    /// Goes on elsewhere when a device fails: the sequence so far is evaluated again there.
    pub fn with_rescue(self, rescue: Box<dyn Rescue + 'm>) -> Session<'m> {
        Session {
            rescue: Some(rescue),
            ..self
        }
    }

    /// The devices that failed so far, and where their work went.
    pub fn hand_overs(&self) -> &[HandOver] {
        &self.hand_overs
    }

    /// Lets up to `most` tokens be guessed, from what was said before, and evaluated with each that is added; 0 for none, and
    /// no more than the engine was set up for. That changes how fast tokens come, and nothing else. As many are guessed as
    /// seem to pay, but `least` wherever anything like it was said before.
    pub fn draft(&mut self, least: usize, most: usize) {
        let most = most.min(self.engine.cache().config().ahead as usize).min(MOST_AHEAD);
        self.guesses = [least.min(most), most];
        self.drafter = match self.drafter.take() {
            _ if most == 0 => None,
            None => Some(Drafter::new(self.context as usize)),
            drafter => drafter,
        };
    }

    /// What was guessed so far.
    pub fn drafted(&self) -> Drafted {
        self.drafted
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
        self.engine.logits(self.row)
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
    /// was evaluated until then stays cached. Where a device fails, all of it is evaluated on what is left.
    pub fn prefill(&mut self, prompt: &[u32], interrupt: &AtomicBool) -> Result<Prefill, GenerationError> {
        loop {
            match self.try_prefill(prompt, interrupt) {
                Err(GenerationError::Engine(error)) => self.hand_over(error)?,
                outcome => return outcome,
            }
        }
    }

    fn try_prefill(&mut self, prompt: &[u32], interrupt: &AtomicBool) -> Result<Prefill, GenerationError> {
        if prompt.is_empty() {
            return Err(GenerationError::EmptyPrompt);
        }
        if prompt.len() > self.context as usize {
            return Err(GenerationError::PromptTooLong {
                tokens: prompt.len(),
                context: self.context,
            });
        }
        self.settle()?;
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
        if let Some(drafter) = &mut self.drafter {
            drafter.read(self.cached.tokens());
        }
        Ok(Prefill {
            reused,
            evaluated,
            complete: evaluated == fresh.len(),
        })
    }

    /// Goes on elsewhere where `failure` is a device's. Other failures would come again anywhere, and are given back. The
    /// sequence starts over in any case.
    fn hand_over(&mut self, failure: EngineError) -> Result<(), GenerationError> {
        let evaluated_again = self.cached.tokens().len();
        self.cached.truncate(0);
        self.ahead = Ahead::default();
        let (Some(rescue), EngineError::Device { device, error }) = (&mut self.rescue, &failure) else {
            return Err(failure.into());
        };
        let mut devices = self.engine.plan().devices.iter().map(|device| &device.target);
        let Some(failed) = devices.find(|target| target.label() == *device).cloned() else {
            return Err(failure.into());
        };
        self.engine.close();
        let running = rescue
            .rescue(&failed, error, self.context)
            .map_err(GenerationError::NothingLeft)?;
        let hand_over = HandOver {
            from: device.clone(),
            reason: error.message.to_string(),
            backend: running.backend,
            devices: running.devices,
            context: running.context.min(self.context),
            evaluated_again,
            layers: running.layers,
        };
        hand_over.tell(self.context);
        self.context = hand_over.context;
        self.hand_overs.push(hand_over);
        self.engine = running.engine;
        let most = self.engine.cache().config().ahead as usize;
        self.guesses = self.guesses.map(|guesses| guesses.min(most));
        Ok(())
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
        if self.ahead.next() == Some(token) {
            self.ahead.came += 1;
            self.drafted.accepted += 1;
            self.cached.extend(&[token]);
            self.learn();
            self.row = self.ahead.came;
            return Ok(Advance::Ready);
        }
        self.settle()?;
        if self.cached.tokens().len() < self.context as usize {
            return match self.step(token) {
                Err(error) => self.step_elsewhere(error, token, interrupt),
                Ok(()) => Ok(Advance::Ready),
            };
        }
        let Some(keep) = self.keep else {
            return Ok(Advance::Full);
        };
        self.shifts += 1;
        let mut rest = shifted(self.cached.tokens(), keep);
        rest.push(token);
        self.resume(&rest, interrupt)
    }

    /// Adds a token whose step failed: the sequence is evaluated on what is left, and shifted first where it is too long
    /// there.
    fn step_elsewhere(
        &mut self,
        error: EngineError,
        token: u32,
        interrupt: &AtomicBool,
    ) -> Result<Advance, GenerationError> {
        let mut sequence = self.cached.tokens().to_vec();
        self.hand_over(error)?;
        while sequence.len() + 1 > self.context as usize {
            let Some(keep) = self.keep else {
                return Ok(Advance::Full);
            };
            self.shifts += 1;
            sequence = shifted(&sequence, keep);
        }
        sequence.push(token);
        self.resume(&sequence, interrupt)
    }

    /// Goes on with a sequence that is evaluated as far as it is cached.
    fn resume(&mut self, sequence: &[u32], interrupt: &AtomicBool) -> Result<Advance, GenerationError> {
        let complete = self.prefill(sequence, interrupt)?.complete;
        Ok(if complete { Advance::Ready } else { Advance::Interrupted })
    }

    /// Takes back what was evaluated and did not come.
    fn settle(&mut self) -> Result<(), EngineError> {
        if self.ahead.count > 0 {
            self.ahead = Ahead::default();
            let length = self.cached.tokens().len() as u32;
            self.engine.cache().truncate(SEQUENCE, length)?;
        }
        Ok(())
    }

    /// Evaluates a token and what may follow it. A token that failed is no part of the sequence.
    fn step(&mut self, token: u32) -> Result<(), EngineError> {
        self.cached.extend(&[token]);
        self.learn();
        self.guess();
        let mut tokens = [token; 1 + MOST_AHEAD];
        tokens[1..].copy_from_slice(&self.ahead.tokens);
        let columns: [u32; 1 + MOST_AHEAD] = std::array::from_fn(|column| column as u32);
        let count = 1 + self.ahead.count;
        let start = Instant::now();
        if let Err(error) = self.run(&tokens[..count], &columns[..count], self.ahead.count as u32) {
            self.cached.truncate(self.cached.tokens().len() - 1);
            return Err(error);
        }
        if let Some(drafter) = &mut self.drafter {
            drafter.timed(count, start.elapsed());
        }
        Ok(())
    }

    /// Shows the token that was added last to the one who guesses.
    fn learn(&mut self) {
        if let Some(drafter) = &mut self.drafter {
            drafter.push(self.cached.tokens());
        }
    }

    /// Guesses what comes next, as far as the context goes.
    fn guess(&mut self) {
        let Some(drafter) = &mut self.drafter else { return };
        let tokens = self.cached.tokens();
        let room = self.context as usize - tokens.len();
        let [least, most] = self.guesses.map(|guesses| guesses.min(room));
        let draft = drafter.propose(tokens, least, most);
        self.ahead.tokens[..draft.len()].copy_from_slice(draft);
        self.ahead.count = draft.len();
        self.drafted.drafted += draft.len();
    }

    /// Evaluates tokens that follow; with `wanted`, the logits of the last.
    fn evaluate(&mut self, tokens: &[u32], wanted: bool) -> Result<(), EngineError> {
        let last = [tokens.len() as u32 - 1];
        self.run(tokens, if wanted { &last } else { &[] }, 0)?;
        self.cached.extend(tokens);
        Ok(())
    }

    /// A step of the engine, whose first logits are those that come next.
    fn run(&mut self, tokens: &[u32], wanted: &[u32], ahead: u32) -> Result<(), EngineError> {
        self.row = 0;
        let columns = [(SEQUENCE, tokens.len() as u32)];
        self.engine.evaluate_ahead(&columns, ahead, tokens, wanted)
    }
}

/// The first `keep` tokens and the newer half of the others.
fn shifted(tokens: &[u32], keep: u32) -> Vec<u32> {
    let keep = (keep as usize).min(tokens.len().saturating_sub(2));
    let dropped = ((tokens.len() - keep) / 2).max(1);
    [&tokens[..keep], &tokens[keep + dropped..]].concat()
}
