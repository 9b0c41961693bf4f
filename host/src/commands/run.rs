//! `host run`: an answer to a prompt.

use std::{
    io::{IsTerminal, Write, stderr, stdin},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use models::{
    template::Prompt,
    tokenizer::{Special, Tokenizer},
};
use serde::Serialize;
use serde_json::json;

use super::tokenize::read_input;
use crate::{
    cli::RunArgs,
    generation::{Answer, Finish, Generation, Session},
    model::{EMBEDDED, LoadedModel, open_file},
    progress::Waiting,
    sampling::{Sampler, SamplingOptions},
    setup::{self, Running},
    stop::StopStrings,
};

/// An answer without a limit still ends after so many contexts, as Ollama has it.
const LONGEST_IN_CONTEXTS: usize = 10;

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
    let sampler = Sampler::new(SamplingOptions::from(&args.sampling))?;
    let start = Instant::now();
    let waiting = Waiting::new(format!("loading {}", args.model.as_deref().unwrap_or(EMBEDDED)));
    let model = LoadedModel::open(args.model.as_deref())?;
    let tokens = prompt_tokens(&model, args, &text)?;
    let running = setup::start(&model, &args.engine.request(1))?;
    drop(waiting);
    let load = start.elapsed();

    let Running {
        engine,
        backend,
        devices,
        context,
    } = running;
    let mut session = Session::new(engine, context, (!args.no_shift).then_some(args.keep));
    let longest = LONGEST_IN_CONTEXTS * context as usize;
    let generation = Generation {
        tokenizer: &model.tokenizer,
        sampler,
        stops: StopStrings::new(&args.stop),
        limit: usize::try_from(args.predict).map_or(longest, |limit| limit.min(longest)),
        ignore_end: args.ignore_eos,
    };
    let mut answer_text = String::new();
    let answer = generation.run(&mut session, &tokens, &mut |piece| {
        if args.json {
            answer_text.push_str(piece);
            return Ok(());
        }
        out.write_all(piece.as_bytes())?;
        out.flush()
    })?;
    if args.json {
        let report = Report {
            text: &answer_text,
            tokens: &answer.tokens,
            prompt_tokens: tokens.len(),
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
        print_stats(&mut session, &answer, tokens.len(), load, &devices)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
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

/// The prompt as the model wants it: through its chat template, or as it is.
fn prompt_tokens(model: &LoadedModel, args: &RunArgs, text: &str) -> anyhow::Result<Vec<u32>> {
    let rendered = match &model.template {
        Some(template) if !args.raw => {
            let system = args
                .system
                .iter()
                .map(|text| json!({"role": "system", "content": text}));
            let messages: Vec<_> = system.chain([json!({"role": "user", "content": text})]).collect();
            let piece = |token: Option<u32>| token.and_then(|t| model.tokenizer.piece_escaped(t).ok());
            let (bos, eos) = (piece(model.tokenizer.bos()), piece(model.tokenizer.eos()));
            template.render(&Prompt {
                messages: &messages,
                tools: None,
                bos_token: bos.as_deref(),
                eos_token: eos.as_deref(),
                add_generation_prompt: true,
                extra: None,
                now: None,
            })?
        }
        _ if args.system.is_some() => bail!("--system: {} has no chat template to put it into", model.file.name()),
        None if !args.raw => {
            tracing::warn!(
                "{} has no chat template: the prompt is continued as it is",
                model.file.name()
            );
            text.to_owned()
        }
        _ => text.to_owned(),
    };
    Ok(with_bos(
        &model.tokenizer,
        model.tokenizer.encode(&rendered, Special::Parse),
    ))
}

/// The tokens with the one that begins a text first, where the model wants it and the template did not write it.
fn with_bos(tokenizer: &Tokenizer, mut tokens: Vec<u32>) -> Vec<u32> {
    match tokenizer.bos() {
        Some(bos) if tokenizer.add_bos() && tokens.first() != Some(&bos) => tokens.insert(0, bos),
        _ => {}
    }
    tokens
}

fn print_stats(
    session: &mut Session,
    answer: &Answer,
    prompt: usize,
    load: Duration,
    devices: &[String],
) -> anyhow::Result<()> {
    let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    let mut err = stderr().lock();
    writeln!(err, "load     {:>10.1} ms", milliseconds(load))?;
    let evaluated = prompt - answer.reused;
    writeln!(
        err,
        "prefill  {:>10.1} ms  {evaluated} tokens, {} reused  {:.1} tokens/s",
        milliseconds(answer.prefill),
        answer.reused,
        rate(evaluated, answer.prefill)
    )?;
    writeln!(
        err,
        "decode   {:>10.1} ms  {} tokens  {:.1} tokens/s",
        milliseconds(answer.decode),
        answer.tokens.len(),
        rate(answer.tokens.len(), answer.decode)
    )?;
    if session.shifts() > 0 {
        writeln!(err, "context shifted {} times", session.shifts())?;
    }
    for (label, device) in devices.iter().zip(&session.engine().plan().devices) {
        writeln!(err, "{label}: {} bytes allocated", device.allocated())?;
        for (region, bytes) in &device.regions {
            writeln!(err, "  {:<12} {bytes:>14}", region.name())?;
        }
        writeln!(err, "  {:<12} {:>14}", "scratch", device.workspace)?;
    }
    Ok(())
}
