//! A conversation with a model: messages, the prompt that they make, and the answers to it.

use std::sync::{Arc, atomic::AtomicBool};

use anyhow::bail;
use models::{
    template::Prompt,
    tokenizer::{Special, Tokenizer},
};
use serde_json::{Value as Json, json};

use crate::{
    dialect::Think,
    generation::{Answer, Generation, Guide, Session},
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
}

/// Messages and the sequence that holds them.
pub struct Conversation<'m> {
    model: &'m LoadedModel,
    session: Session,
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
    pub fn new(model: &'m LoadedModel, session: Session, options: Options) -> Conversation<'m> {
        Conversation {
            model,
            session,
            options,
            messages: Vec::new(),
            interrupt: Arc::default(),
        }
    }

    /// The sequence.
    pub fn session(&mut self) -> &mut Session {
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

    /// Forgets what was said.
    pub fn clear(&mut self) {
        self.messages.clear();
    }

    /// Says `text` to the model. Its reply goes to `sink` as it comes, and into the conversation when it is complete.
    pub fn say(&mut self, text: &str, sink: &mut Sink<'_>) -> anyhow::Result<Turn> {
        let message = json!({"role": "user", "content": text});
        self.messages.push(message);
        let turn = self.answer(sink);
        match &turn {
            Ok(turn) => self.messages.push(turn.reply.to_message()),
            Err(_) => drop(self.messages.pop()),
        }
        turn
    }

    fn answer(&mut self, sink: &mut Sink<'_>) -> anyhow::Result<Turn> {
        let prompt = self.prompt()?;
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
            reader: Reader::new(&self.model.tokenizer, format, &prompt, stops),
            guide: self
                .options
                .format
                .as_ref()
                .map(|form| Guide::new(form.constraint(), format)),
            limit: self.options.limit.map_or(longest, |limit| limit.min(longest)),
            ignore_end: self.options.ignore_end,
            interrupt: &self.interrupt,
        };
        let (answer, reply) = generation.run(&mut self.session, &prompt, sink)?;
        let complete = self.options.format.as_ref().map(|form| form.accepts(&reply.content));
        Ok(Turn {
            prompt_tokens: prompt.len(),
            answer,
            reply,
            complete,
        })
    }

    /// The tokens of all messages as the model wants them: through its chat template, or as they are.
    fn prompt(&self) -> anyhow::Result<Vec<u32>> {
        let text = match &self.model.template {
            Some(_) if !self.options.raw => self.rendered()?,
            _ if self.options.system.is_some() => bail!(
                "--system: {} has no chat template to put it into",
                self.model.file.name()
            ),
            _ => self
                .messages
                .iter()
                .filter_map(|message| message["content"].as_str())
                .collect(),
        };
        let tokens = self.model.tokenizer.encode(&text, Special::Parse);
        Ok(with_bos(&self.model.tokenizer, tokens))
    }

    fn rendered(&self) -> anyhow::Result<String> {
        let Some(template) = &self.model.template else {
            bail!("{} has no chat template", self.model.file.name());
        };
        let system = self.options.system.iter();
        let system = system.map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<_> = system.chain(self.messages.iter().cloned()).collect();
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

/// The tokens with the one that begins a text first, where the model wants it and the template did not write it.
fn with_bos(tokenizer: &Tokenizer, mut tokens: Vec<u32>) -> Vec<u32> {
    match tokenizer.bos() {
        Some(bos) if tokenizer.add_bos() && tokens.first() != Some(&bos) => tokens.insert(0, bos),
        _ => {}
    }
    tokens
}
