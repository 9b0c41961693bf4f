//! A conversation with a model: messages, the prompt that they make, and the answers to it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::bail;
use models::{
    template::Prompt,
    tokenizer::{Special, Tokenizer},
};
use serde_json::{Value as Json, json};

use crate::{
    dialect::Think,
    generation::{Answer, Drafted, Finish, Generation, Guide, HandOver, Session, respelled},
    model::LoadedModel,
    reply::{Format, Reader, Reply, Sink},
    sampling::{Sampler, SamplingOptions},
    stop::StopStrings,
    structured,
};

/// An answer without a limit still ends after so many contexts, as Ollama has it.
const LONGEST_IN_CONTEXTS: usize = 10;

/// How answers are made; may change from turn to turn.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// The system message.
    pub system: Option<String>,
    /// Whether what is said goes without the model's chat template.
    pub raw: bool,
    /// Whether the model thinks before it answers; it does if it can, where nothing is said.
    pub think: Option<Think>,
    /// Descriptions of tools, a JSON array, for the template.
    pub tools: Option<Json>,
    /// What an answer is to be; a model does not think before it, unless it is asked to.
    pub format: Option<structured::Format>,
    /// What ends an answer.
    pub stops: Vec<String>,
    /// The most tokens of an answer.
    pub limit: Option<usize>,
    /// Whether tokens that end an answer do not.
    pub ignore_end: bool,
    /// The most tokens to guess at once; none where the engine was not set up for guesses.
    pub draft: Option<usize>,
}

/// A turn: what was said to the model and what it replied.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Tokens of the whole prompt.
    pub prompt_tokens: usize,
    /// The answer's tokens and figures.
    pub answer: Answer,
    /// What was replied.
    pub reply: Reply,
    /// Whether the answer is complete in the form that was asked for; none without one.
    pub complete: Option<bool>,
    /// How many of the oldest messages the context had no room for.
    pub left_out: usize,
    /// How many times the context was full and shifted while the answer was made.
    pub shifts: usize,
    /// The devices that failed meanwhile, and where the answer went on.
    pub hand_overs: Vec<HandOver>,
    /// How guesses fared, where tokens may be guessed.
    pub draft: Option<Drafted>,
}

impl Turn {
    /// Whether it became a part of the conversation: there was an answer. A message that is empty would stand in the
    /// way of those after it.
    pub fn is_kept(&self) -> bool {
        self.reply.is_answer()
    }

    /// Why the answer is not complete in the form that was asked for; nothing where it is, or no form was asked for.
    pub fn incomplete(&self) -> Option<Incomplete> {
        (self.complete == Some(false)).then_some(Incomplete(self.answer.finish))
    }
}

/// Why an answer is not complete; as a text, with a hint that names options of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", self.reason(), self.hint())]
pub struct Incomplete(Finish);

impl Incomplete {
    /// The reason alone.
    pub fn reason(self) -> &'static str {
        match self.0 {
            Finish::Length => "it has as many tokens as it may have",
            Finish::Context => "the context is full",
            Finish::Interrupted => "it was interrupted",
            Finish::Stop => "a stop string ended it",
        }
    }

    fn hint(self) -> &'static str {
        match self.0 {
            Finish::Length => "\nhint: --predict allows more",
            Finish::Context => "\nhint: --ctx-size asks for a longer one",
            Finish::Interrupted | Finish::Stop => "",
        }
    }
}

/// What the model is asked to continue.
struct Asked {
    tokens: Vec<u32>,
    /// Oldest messages that are not part of it.
    left_out: usize,
}

/// Messages and the sequence that holds them.
pub struct Conversation<'m> {
    model: &'m LoadedModel,
    session: Session<'m>,
    /// How the next answer is made.
    pub options: Options,
    /// What was said so far, without the system message: objects with `role` and `content`, and `thinking` and
    /// `tool_calls` where a reply has them.
    messages: Vec<Json>,
    /// Set from elsewhere to end the answer that is being made.
    interrupt: Arc<AtomicBool>,
}

impl<'m> Conversation<'m> {
    /// An empty conversation with a model that runs in `session`.
    pub fn new(model: &'m LoadedModel, session: Session<'m>, options: Options) -> Conversation<'m> {
        Conversation {
            model,
            session,
            options,
            messages: Vec::new(),
            interrupt: Arc::default(),
        }
    }

    /// The sequence.
    pub fn session(&mut self) -> &mut Session<'m> {
        &mut self.session
    }

    /// Ends the answer that is being made when it becomes true.
    pub fn interrupt(&self) -> Arc<AtomicBool> {
        self.interrupt.clone()
    }

    /// What was said so far.
    pub fn messages(&self) -> &[Json] {
        &self.messages
    }

    /// The model.
    pub fn model(&self) -> &'m LoadedModel {
        self.model
    }

    /// Forgets what was said.
    pub fn clear(&mut self) {
        self.messages.clear();
    }

    /// Goes on from what was said elsewhere: objects with `role` and `content`.
    pub fn resume(&mut self, messages: Vec<Json>) {
        self.messages = messages;
    }

    /// Says `text` to the model. Its reply goes to `sink` as it comes, and into the conversation when it is complete or
    /// was interrupted; an error leaves the conversation as it was, and so does a reply without an answer.
    pub fn say(&mut self, text: &str, sink: &mut Sink<'_>) -> anyhow::Result<Turn> {
        self.interrupt.store(false, Ordering::Relaxed);
        let message = json!({"role": "user", "content": text});
        self.messages.push(message);
        let turn = self.answer(sink);
        match &turn {
            Ok(turn) if turn.is_kept() => self.messages.push(turn.reply.to_message()),
            _ => drop(self.messages.pop()),
        }
        turn
    }

    fn answer(&mut self, sink: &mut Sink<'_>) -> anyhow::Result<Turn> {
        let Asked { tokens, left_out } = self.prompt()?;
        let (shifts, hand_overs) = (self.session.shifts(), self.session.hand_overs().len());
        self.session.draft(0, self.options.draft.unwrap_or(0));
        let longest = LONGEST_IN_CONTEXTS * self.session.context() as usize;
        let format = if self.options.raw {
            Format::Plain
        } else {
            self.model.dialect.format
        };
        let stops = StopStrings::new(&self.options.stops);
        let generation = Generation {
            tokenizer: &self.model.tokenizer,
            sampler: Sampler::new(self.options.sampling.clone())?,
            reader: Reader::new(&self.model.tokenizer, format, &tokens, stops),
            guide: self
                .options
                .format
                .as_ref()
                .map(|form| Guide::new(form.constraint(), format)),
            limit: self.options.limit.map_or(longest, |limit| limit.min(longest)),
            ignore_end: self.options.ignore_end,
            interrupt: &self.interrupt,
        };
        let (answer, reply) = generation.run(&mut self.session, &tokens, sink)?;
        let complete = self.options.format.as_ref().map(|form| form.accepts(&reply.content));
        Ok(Turn {
            prompt_tokens: tokens.len(),
            draft: self.options.draft.map(|_| answer.drafted),
            answer,
            reply,
            complete,
            left_out,
            shifts: self.session.shifts() - shifts,
            hand_overs: self.session.hand_overs()[hand_overs..].to_vec(),
        })
    }

    /// The prompt of as many messages as fit, the newest first; the last is part of it in any case. Where a full context
    /// must not be shifted, of all messages.
    fn prompt(&self) -> anyhow::Result<Asked> {
        let all = self.asked(0)?;
        if self.fits(&all) || !self.session.may_shift() {
            return Ok(all);
        }
        let said = self.messages.iter().enumerate().skip(1);
        let begins: Vec<usize> = said.filter(|(_, m)| m["role"] == "user").map(|(at, _)| at).collect();
        let first = first_of(begins.len(), |at| Ok(self.fits(&self.asked(begins[at])?)))?;
        let left_out = begins.get(first).or(begins.last());
        left_out.map_or(Ok(all), |&left_out| self.asked(left_out))
    }

    fn fits(&self, asked: &Asked) -> bool {
        asked.tokens.len() <= self.session.context() as usize
    }

    /// The tokens of the messages after the first `left_out`, as the model wants them: through its chat template, or as
    /// they are. What is cached stays as it was chosen.
    fn asked(&self, left_out: usize) -> anyhow::Result<Asked> {
        let messages = &self.messages[left_out..];
        let text = match &self.model.template {
            Some(_) if !self.options.raw => self.rendered(messages)?,
            _ if self.options.system.is_some() => bail!(
                "--system: {} has no chat template to put it into",
                self.model.file.name()
            ),
            _ => messages
                .iter()
                .filter_map(|message| message["content"].as_str())
                .collect(),
        };
        let tokenizer = &self.model.tokenizer;
        let tokens = with_bos(tokenizer, tokenizer.encode(&text, Special::Parse));
        Ok(Asked {
            tokens: respelled(tokenizer, self.session.cached(), &tokens),
            left_out,
        })
    }

    fn rendered(&self, messages: &[Json]) -> anyhow::Result<String> {
        let Some(template) = &self.model.template else {
            bail!("{} has no chat template", self.model.file.name());
        };
        let system = self.options.system.iter();
        let system = system.map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<_> = system.chain(messages.iter().cloned()).collect();
        let tokenizer = &self.model.tokenizer;
        let piece = |token: Option<u32>| token.and_then(|t| tokenizer.piece_escaped(t).ok());
        let (bos, eos) = (piece(tokenizer.bos()), piece(tokenizer.eos()));
        let prompt = Prompt {
            messages: &messages,
            tools: self.options.tools.as_ref(),
            bos_token: bos.as_deref(),
            eos_token: eos.as_deref(),
            add_generation_prompt: true,
            ..Prompt::default()
        };
        let dialect = &self.model.dialect;
        let think = self.think();
        let mut text = dialect.render(template, &prompt, think)?;
        if self.options.format.is_some() && think != Some(Think::Off) {
            text.push_str(dialect.format.with_thinking(&text));
        }
        Ok(text)
    }

    /// Whether the model is to think. Where answers have a form, it is asked for the answer alone, unless the user says so.
    fn think(&self) -> Option<Think> {
        let alone = self.options.format.as_ref().map(|_| Think::Off);
        self.options.think.or(alone)
    }
}

/// The first of `count` places that `is_one`, as all after it are; `count` if none is.
fn first_of(count: usize, is_one: impl Fn(usize) -> anyhow::Result<bool>) -> anyhow::Result<usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        match is_one(middle)? {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    Ok(low)
}

/// The tokens with the one that begins a text first, where the model wants it and the template did not write it.
fn with_bos(tokenizer: &Tokenizer, mut tokens: Vec<u32>) -> Vec<u32> {
    match tokenizer.bos() {
        Some(bos) if tokenizer.add_bos() && tokens.first() != Some(&bos) => tokens.insert(0, bos),
        _ => {}
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_is_found_wherever_it_is() {
        for count in 0..20 {
            for first in 0..=count {
                assert_eq!(first_of(count, |at| Ok(at >= first)).unwrap(), first);
            }
        }
        assert!(first_of(1, |_| bail!("broken")).is_err());
    }
}
