//! `host run`: an answer to a prompt, or a conversation.

mod form;

use std::{
    io::{IsTerminal, Write, stderr, stdin, stdout},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use serde::Serialize;

use super::tokenize::read_input;
use crate::{
    cli::{Draft, RunArgs},
    conversation::{Conversation, Options, Turn},
    environment,
    generation::{Drafted, Finish, HandOver, Session},
    model::{EMBEDDED, LoadedModel, open_file},
    progress::Waiting,
    reply::{
        Channel, Piece, ToolCall,
        print::{Printer, Thoughts, tell_the_rest},
    },
    sampling::SamplingOptions,
    setup::{Layers, Request, Setup, Starter},
    stats::{self, DeviceMemory, milliseconds},
    structured::Format,
    terminal::{self, Place, wrap::plain},
};

#[derive(Serialize)]
struct Report<'a> {
    text: &'a str,
    thinking: &'a str,
    tool_calls: Vec<serde_json::Value>,
    tokens: &'a [u32],
    prompt_tokens: usize,
    generated: usize,
    finish: Finish,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    shifts: usize,
    #[serde(flatten)]
    draft: Option<Drafted>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    hand_overs: &'a [HandOver],
    timings: Timings,
    backend: &'a str,
    devices: &'a [String],
    memory: Vec<DeviceMemory>,
}

#[derive(Serialize)]
struct Timings {
    load_ms: f64,
    prefill_ms: f64,
    decode_ms: f64,
}

/// Answers the prompt, of which the answer alone goes to `out`; or, where there is none, talks with the user.
pub fn run(args: &RunArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let text = match is_conversation(args) {
        true => None,
        false => Some(prompt_text(args)?),
    };
    let start = Instant::now();
    let waiting = Waiting::new(format!("loading {}", args.model.as_deref().unwrap_or(EMBEDDED)));
    let model = args.engine.open(args.model.as_deref())?;
    check(&model, args)?;
    let format = form::of(args, &model)?;
    let request = Request {
        ahead: Draft::ahead(args.draft),
        ..args.engine.request(1)
    };
    let mut starter = Starter::new(Setup::new(&model, &request)?);
    let running = starter.start(waiting.meter())?;
    drop(waiting);
    let loaded = Loaded {
        time: start.elapsed(),
        backend: running.backend,
        devices: running.devices,
        layers: running.layers,
    };

    let keep = (!args.no_shift).then_some(args.keep);
    let session = Session::new(running.engine, running.context, keep).with_rescue(Box::new(starter));
    let conversation = Conversation::new(&model, session, options(args, format));
    match text {
        Some(text) => answer(conversation, &text, args, &loaded, out)?,
        None => converse(conversation, args, &loaded, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What was loaded, and where.
struct Loaded {
    time: Duration,
    backend: String,
    devices: Vec<String>,
    layers: Layers,
}

impl Loaded {
    /// What devices have of the model after a turn.
    fn layers_after<'a>(&'a self, turn: &'a Turn) -> &'a Layers {
        turn.hand_overs.last().map_or(&self.layers, |last| &last.layers)
    }
}

/// Whether somebody sits at a terminal and has given no prompt.
fn is_conversation(args: &RunArgs) -> bool {
    let prompt = !args.prompt.is_empty() || args.file.is_some();
    !prompt && !args.json && stdin().is_terminal() && stdout().is_terminal()
}

fn converse(
    mut conversation: Conversation<'_>,
    args: &RunArgs,
    loaded: &Loaded,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if args.stats {
        let mut err = stderr().lock();
        stats::loading(&mut err, loaded.time)?;
        stats::memory(&mut err, conversation.session().engine(), &loaded.layers)?;
    }
    let place = Place {
        wordwrap: !args.nowordwrap,
        verbose: args.stats,
        hide_thinking: args.hide_thinking,
    };
    terminal::converse(conversation, place, out)
}

/// One answer to one prompt.
fn answer(
    mut conversation: Conversation<'_>,
    text: &str,
    args: &RunArgs,
    loaded: &Loaded,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let turn = if args.json {
        let turn = conversation.say(text, &mut |_| Ok(()))?;
        let memory = stats::devices(conversation.session().engine(), loaded.layers_after(&turn));
        serde_json::to_writer(&mut *out, &report(&turn, loaded, memory))?;
        turn
    } else {
        print_reply(&mut conversation, text, args.hide_thinking, out)?
    };
    writeln!(out)?;
    if !args.json {
        tell_the_rest(&turn.reply, args.hide_thinking);
        tell_of_context(&turn, conversation.session().context());
    }
    form::tell_incomplete(&turn);
    if args.stats {
        let mut err = stderr().lock();
        stats::loading(&mut err, loaded.time)?;
        stats::turn(&mut err, &turn)?;
        stats::memory(&mut err, conversation.session().engine(), loaded.layers_after(&turn))?;
    }
    Ok(())
}

fn report<'a>(turn: &'a Turn, loaded: &'a Loaded, memory: Vec<DeviceMemory>) -> Report<'a> {
    let (answer, last) = (&turn.answer, turn.hand_overs.last());
    Report {
        text: &turn.reply.content,
        thinking: &turn.reply.thinking,
        tool_calls: turn.reply.calls.iter().map(ToolCall::to_json).collect(),
        tokens: &answer.tokens,
        prompt_tokens: turn.prompt_tokens,
        generated: answer.tokens.len(),
        finish: answer.finish,
        complete: turn.complete,
        shifts: turn.shifts,
        draft: turn.draft,
        hand_overs: &turn.hand_overs,
        timings: Timings {
            load_ms: milliseconds(loaded.time),
            prefill_ms: milliseconds(answer.prefill),
            decode_ms: milliseconds(answer.decode),
        },
        backend: last.map_or(&loaded.backend, |last| &last.backend),
        devices: last.map_or(&loaded.devices, |last| &last.devices),
        memory,
    }
}

/// Says what the context had no room for.
fn tell_of_context(turn: &Turn, context: u32) {
    if turn.shifts > 0 {
        tracing::warn!(
            "the context of {context} tokens was full: the older half of it was dropped {}\nhint: --ctx-size asks for a longer one",
            stats::times(turn.shifts)
        );
    }
    if turn.answer.finish == Finish::Context {
        tracing::warn!(
            "the answer ends here because the context of {context} tokens is full\nhint: --ctx-size asks for a longer one"
        );
    }
}

/// Prints the reply as it comes.
fn print_reply(
    conversation: &mut Conversation<'_>,
    text: &str,
    hide_thinking: bool,
    out: &mut dyn Write,
) -> anyhow::Result<Turn> {
    let (terminal, mut err) = (stdout().is_terminal(), stderr());
    let colors = environment::colors(if terminal { terminal } else { err.is_terminal() });
    let thoughts = match (hide_thinking, terminal) {
        (true, _) => Thoughts::Hidden,
        (false, true) => Thoughts::Before,
        (false, false) => Thoughts::Apart(&mut err),
    };
    let harmless = |channel| match channel {
        Channel::Thinking if !terminal => stderr().is_terminal(),
        _ => terminal,
    };
    let mut printer = Printer::new(out, thoughts, colors);
    let turn = conversation.say(text, &mut |piece| match harmless(piece.channel) {
        true => printer.piece(Piece {
            text: &plain(piece.text),
            ..piece
        }),
        false => printer.piece(piece),
    })?;
    printer.finish()?;
    Ok(turn)
}

/// What is piped in, then the prompt's words; or a file.
fn prompt_text(args: &RunArgs) -> anyhow::Result<String> {
    if let Some(file) = &args.file {
        return std::fs::read_to_string(file).with_context(|| format!("--file {}", file.display()));
    }
    let piped = if stdin().is_terminal() {
        String::new()
    } else {
        read_input()?
    };
    let words = args.prompt.join(" ");
    match (piped.is_empty(), words.is_empty()) {
        (true, true) => {
            // a prompt in the model's place is told as such
            open_file(args.model.as_deref())?;
            bail!(
                "no prompt\nhint: give one (host run MODEL \"Why is the sky blue?\"), name a file with --file, or pipe it in"
            )
        }
        (false, false) => Ok(format!("{}\n\n{words}", piped.trim_end())),
        (true, false) => Ok(words),
        (false, true) => Ok(piped.strip_suffix('\n').map_or(piped.clone(), str::to_owned)),
    }
}

/// What can be told before anything is loaded.
fn check(model: &LoadedModel, args: &RunArgs) -> anyhow::Result<()> {
    model
        .dialect
        .check(args.think)
        .map_err(|error| anyhow!("--think: {} {error}", model.file.name()))?;
    if model.template.is_some() || args.raw {
        return Ok(());
    }
    let name = model.file.name();
    if args.system.is_some() {
        bail!("--system: {name} has no chat template to put it into");
    }
    tracing::warn!("{name} has no chat template: the prompt is continued as it is");
    Ok(())
}

fn options(args: &RunArgs, format: Option<Format>) -> Options {
    Options {
        sampling: SamplingOptions::from(&args.sampling),
        system: args.system.clone(),
        raw: args.raw,
        think: args.think,
        format,
        stops: args.stop.clone(),
        limit: usize::try_from(args.predict).ok(),
        ignore_end: args.ignore_eos,
        draft: args.draft.map(|_| args.draft_max as usize),
        ..Options::default()
    }
}
