//! Answers: from a prompt's tokens to text, a piece at a time.

mod draft;
mod guide;
mod handover;
mod ngrams;
mod respelled;
pub mod session;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use models::tokenizer::Tokenizer;
use serde::Serialize;

use crate::{
    execution::engine::EngineError,
    reply::{Reader, Reply, Sink},
    sampling::{Sampler, SamplingError},
    structured::ConstraintError,
};
pub use draft::MOST_AHEAD;
pub use guide::Guide;
pub use handover::{HandOver, Rescue};
pub use respelled::respelled;
pub use session::{Advance, Drafted, Prefill, Session};

/// Why no answer came, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// A device or the cache.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A device failed, and nothing is left to go on with.
    #[error("{0}")]
    NothingLeft(anyhow::Error),
    /// The sampler.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The form that the answer is held to.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// Nothing to continue.
    #[error("the prompt is empty: there is nothing to continue")]
    EmptyPrompt,
    /// More tokens than the context holds.
    #[error(
        "the prompt has {tokens} tokens, but the context holds {context}\nhint: --ctx-size asks for a longer context, up \
         to what the model was trained for"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that the context holds.
        context: u32,
    },
    /// The caller could not take the text.
    #[error("the answer could not be written: {0}")]
    Output(#[from] std::io::Error),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended it, or a stop string.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The user ended it.
    Interrupted,
}

/// An answer with its figures.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The tokens that were chosen, without the one that ended the answer.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt that were in the cache already.
    pub reused: usize,
    /// Tokens of the answer that were guessed.
    pub drafted: Drafted,
    /// Tokens of the prompt that were evaluated: the others, or fewer when that was interrupted.
    pub evaluated: usize,
    /// Time for the prompt.
    pub prefill: Duration,
    /// Time for the answer's tokens.
    pub decode: Duration,
}

/// How an answer is made.
pub struct Generation<'a> {
    /// Knows the tokens that end an answer.
    pub tokenizer: &'a Tokenizer,
    /// Chooses tokens.
    pub sampler: Sampler,
    /// Makes them into a reply, and ends it at a stop string.
    pub reader: Reader<'a>,
    /// Holds the answer to a form.
    pub guide: Option<Guide>,
    /// The most tokens.
    pub limit: usize,
    /// Whether tokens that end an answer do not.
    pub ignore_end: bool,
    /// Ends the answer when it becomes true.
    pub interrupt: &'a AtomicBool,
}

impl Generation<'_> {
    /// Evaluates the prompt and answers it. Text goes to `sink` as it comes.
    pub fn run(
        mut self,
        session: &mut Session<'_>,
        prompt: &[u32],
        sink: &mut Sink<'_>,
    ) -> Result<(Answer, Reply), GenerationError> {
        prompt.iter().for_each(|&token| self.sampler.accept(token));
        let start = Instant::now();
        let Prefill {
            reused,
            evaluated,
            complete,
        } = session.prefill(prompt, self.interrupt)?;
        let prefill = start.elapsed();

        let start = Instant::now();
        let drafted = session.drafted();
        let (tokens, finish) = if complete {
            self.decode(session, sink)?
        } else {
            (Vec::new(), Finish::Interrupted)
        };
        let reply = self.reader.finish(sink)?;
        let answer = Answer {
            tokens,
            finish,
            drafted: session.drafted() - drafted,
            reused,
            evaluated,
            prefill,
            decode: start.elapsed(),
        };
        Ok((answer, reply))
    }

    fn decode(
        &mut self,
        session: &mut Session<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(Vec<u32>, Finish), GenerationError> {
        // reserved once, so that no token allocates
        let mut tokens = Vec::with_capacity(self.limit.min(1 << 16));
        let finish = loop {
            if tokens.len() == self.limit {
                break Finish::Length;
            }
            if self.interrupt.load(Ordering::Relaxed) {
                break Finish::Interrupted;
            }
            let Some(token) = self.next(session.logits())? else {
                break Finish::Stop;
            };
            tokens.push(token);
            self.sampler.accept(token);
            if self.reader.push(token, sink)? || self.guide.as_mut().is_some_and(Guide::is_finished) {
                break Finish::Stop;
            }
            if tokens.len() < self.limit {
                match session.advance(token, self.interrupt)? {
                    Advance::Ready => {}
                    Advance::Full => break Finish::Context,
                    Advance::Interrupted => break Finish::Interrupted,
                }
            }
        };
        Ok((tokens, finish))
    }

    /// The next token; none where the reply ends.
    fn next(&mut self, logits: &mut [f32]) -> Result<Option<u32>, GenerationError> {
        let (tokenizer, ignore_end) = (self.tokenizer, self.ignore_end);
        if let Some(guide) = &mut self.guide {
            return guide.next(&self.reader, tokenizer, &mut self.sampler, logits, ignore_end);
        }
        let token = self.sampler.sample(logits)?;
        Ok((ignore_end || !tokenizer.is_end(token)).then_some(token))
    }
}
