//! `host logits`: the logits of every position of a token sequence, as a file.

use std::{collections::HashMap, fs, io, path::Path, process::ExitCode};

use anyhow::{Context, bail};
use safetensors::{Dtype, tensor::TensorView};

use crate::{
    cli::LogitsArgs,
    execution::Engine,
    progress::Waiting,
    setup::{self, DEFAULT_BATCH},
};

/// Most bytes of logits that one step gives.
const STEP_BYTES: u64 = 64 << 20;

/// Evaluates the tokens in steps and writes `[tokens, V]`.
pub fn run(args: &LogitsArgs) -> anyhow::Result<ExitCode> {
    let tokens = parse(&args.tokens)?;
    let waiting = Waiting::new(format!("loading {}", args.model));
    let model = args.engine.open(Some(&args.model))?;
    let vocabulary = model.model.vocabulary();
    if let Some(token) = tokens.iter().find(|&&token| token >= vocabulary) {
        bail!(
            "--tokens: {token} is not in the vocabulary of {}: its tokens are 0 to {}",
            model.file.name(),
            vocabulary - 1
        );
    }
    let rows = (STEP_BYTES / (4 * u64::from(vocabulary)))
        .clamp(1, args.engine.batch_size.0.unwrap_or(DEFAULT_BATCH).into()) as u32;
    let mut running = setup::start(&model, &args.engine.request(rows), waiting.meter())?;
    drop(waiting);
    if tokens.len() > running.context as usize {
        bail!(
            "--tokens: {} tokens, but the context holds {}\nhint: --ctx-size asks for a longer context",
            tokens.len(),
            running.context
        );
    }
    let logits = evaluate(&mut running.engine, &tokens)?;
    write(&args.output, &logits, tokens.len(), vocabulary as usize)
        .with_context(|| format!("--output {}", args.output.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Token ids from text.
fn parse(text: &str) -> anyhow::Result<Vec<u32>> {
    let words = text
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty());
    let tokens: Vec<u32> = words
        .map(|word| {
            word.parse()
                .with_context(|| format!("--tokens: {word:?} is no token id"))
        })
        .collect::<Result<_, _>>()?;
    if tokens.is_empty() {
        bail!("--tokens: no token id in {text:?}; expected numbers separated by spaces or commas");
    }
    Ok(tokens)
}

/// The logits of all positions, a row each, as little-endian f32.
fn evaluate(engine: &mut Engine, tokens: &[u32]) -> anyhow::Result<Vec<u8>> {
    let rows = engine.plan().rows as usize;
    let wanted: Vec<u32> = (0..rows as u32).collect();
    let mut all = Vec::new();
    for step in tokens.chunks(rows) {
        engine.evaluate(&[(0, step.len() as u32)], step, &wanted[..step.len()])?;
        for row in 0..step.len() {
            all.extend(engine.logits(row).iter().flat_map(|logit| logit.to_le_bytes()));
        }
    }
    Ok(all)
}

/// Writes the file under another name first, so that there is a whole one or none.
fn write(path: &Path, logits: &[u8], rows: usize, vocabulary: usize) -> anyhow::Result<()> {
    let view = TensorView::new(Dtype::F32, vec![rows, vocabulary], logits)?;
    let file = safetensors::serialize([("logits", view)], None::<HashMap<String, String>>)?;
    let Some(name) = path.file_name() else {
        bail!("expected the name of a file")
    };
    let unfinished = path.with_file_name(format!(".{}.{}", name.display(), std::process::id()));
    let written = replace(path, &unfinished, &file);
    if written.is_err() {
        fs::remove_file(&unfinished).ok();
    }
    Ok(written?)
}

fn replace(path: &Path, unfinished: &Path, contents: &[u8]) -> io::Result<()> {
    fs::write(unfinished, contents)?;
    fs::rename(unfinished, path)
}
