//! `host logits`: the logits of every position of a token sequence, as a file.

use std::{collections::HashMap, path::Path, process::ExitCode};

use anyhow::{Context, bail};
use safetensors::{Dtype, tensor::TensorView};

use crate::{cli::LogitsArgs, execution::Engine, model::LoadedModel, setup};

/// Most bytes of logits that one step gives.
const STEP_BYTES: u64 = 64 << 20;

/// Evaluates the tokens in steps and writes `[tokens, V]`.
pub fn run(args: &LogitsArgs) -> anyhow::Result<ExitCode> {
    let tokens = parse(&args.tokens)?;
    let model = LoadedModel::open(Some(&args.model))?;
    let vocabulary = model.model.vocabulary();
    let rows = (STEP_BYTES / (4 * u64::from(vocabulary))).clamp(1, args.engine.batch_size.into()) as u32;
    let mut running = setup::start(&model, &args.engine.request(rows))?;
    if tokens.len() > running.context as usize {
        bail!(
            "{} tokens, but the context holds {}\nhint: --ctx-size",
            tokens.len(),
            running.context
        );
    }
    let logits = evaluate(&mut running.engine, &tokens)?;
    write(&args.output, &logits, tokens.len(), vocabulary as usize)
        .with_context(|| format!("writing {}", args.output.display()))?;
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
            all.extend(engine.logits(row).flat_map(f32::to_le_bytes));
        }
    }
    Ok(all)
}

fn write(path: &Path, logits: &[u8], rows: usize, vocabulary: usize) -> anyhow::Result<()> {
    let view = TensorView::new(Dtype::F32, vec![rows, vocabulary], logits)?;
    safetensors::serialize_to_file([("logits", view)], None::<HashMap<String, String>>, path)?;
    Ok(())
}
