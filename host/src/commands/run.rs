//! `host run`: an answer to a prompt.

use std::{
    io::{IsTerminal, Write, stderr, stdin},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, bail};
use serde::Serialize;

use super::tokenize::read_input;
use crate::{
    cli::RunArgs,
    conversation::{Conversation, Options},
    generation::{Finish, Session},
    model::{EMBEDDED, LoadedModel, open_file},
    progress::Waiting,
    sampling::SamplingOptions,
    setup::{self, Running},
    stats::{self, milliseconds},
};

#[derive(Serialize)]
struct Report<'a> {
    text: &'a str,
    tokens: &'a [u32],
    prompt_tokens: usize,
    generated: usize,
    finish: Finish,
    timings: Timings,
    backend: &'a str,
    devices: &'a [String],
}

#[derive(Serialize)]
struct Timings {
    load_ms: f64,
    prefill_ms: f64,
    decode_ms: f64,
}

/// Answers the prompt. The answer alone goes to `out`.
pub fn run(args: &RunArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let text = prompt_text(args)?;
    let start = Instant::now();
    let waiting = Waiting::new(format!("loading {}", args.model.as_deref().unwrap_or(EMBEDDED)));
    let model = LoadedModel::open(args.model.as_deref())?;
    check(&model, args)?;
    let running = setup::start(&model, &args.engine.request(1), waiting.meter())?;
    drop(waiting);
    let load = start.elapsed();

    let Running {
        engine,
        backend,
        devices,
        context,
    } = running;
    let session = Session::new(engine, context, (!args.no_shift).then_some(args.keep));
    let mut conversation = Conversation::new(&model, session, options(args));
    let turn = conversation.say(&text, &mut |piece| {
        if !args.json {
            out.write_all(piece.text.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    })?;
    let answer = &turn.answer;
    if args.json {
        let report = Report {
            text: &turn.reply.content,
            tokens: &answer.tokens,
            prompt_tokens: turn.prompt_tokens,
            generated: answer.tokens.len(),
            finish: answer.finish,
            timings: Timings {
                load_ms: milliseconds(load),
                prefill_ms: milliseconds(answer.prefill),
                decode_ms: milliseconds(answer.decode),
            },
            backend: &backend,
            devices: &devices,
        };
        serde_json::to_writer(&mut *out, &report)?;
    }
    writeln!(out)?;
    if args.stats {
        let mut err = stderr().lock();
        stats::loading(&mut err, load)?;
        stats::turn(&mut err, &turn)?;
        stats::memory(&mut err, conversation.session(), &devices)?;
    }
    Ok(ExitCode::SUCCESS)
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

fn options(args: &RunArgs) -> Options {
    Options {
        sampling: SamplingOptions::from(&args.sampling),
        system: args.system.clone(),
        raw: args.raw,
        stops: args.stop.clone(),
        limit: usize::try_from(args.predict).ok(),
        ignore_end: args.ignore_eos,
    }
}
