//! Runs a GGUF model in candle: a line of orders in, a line of seconds out, as `llama.py` beside it.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Write, stdin, stdout},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor, quantized::gguf_file::Content};
use candle_transformers::models::{quantized_gemma3 as gemma3, quantized_qwen2 as qwen2};

enum Model {
    Qwen2(qwen2::ModelWeights),
    Gemma3(gemma3::ModelWeights),
}

impl Model {
    fn load(path: &str) -> Result<Model> {
        let mut file = BufReader::new(File::open(path)?);
        let content = Content::read(&mut file)?;
        let architecture = content.metadata.get("general.architecture").context("no architecture")?;
        Ok(match architecture.to_string()?.as_str() {
            "qwen2" => Model::Qwen2(qwen2::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?),
            "gemma3" => Model::Gemma3(gemma3::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?),
            other => bail!("candle has no quantized {other}"),
        })
    }

    /// Evaluates tokens from position `first` on, to the logits of the last.
    fn evaluate(&mut self, tokens: &[u32], first: usize) -> Result<()> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        match self {
            Model::Qwen2(model) => model.forward(&input, first)?,
            Model::Gemma3(model) => model.forward(&input, first)?,
        };
        Ok(())
    }
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 7919 + 100) % 100_000).collect()
}

fn timed(model: &mut Model, order: &str) -> Result<f64> {
    let words: Vec<&str> = order.split_whitespace().collect();
    let number = |i: usize| -> Result<usize> { Ok(words.get(i).context("a number is missing")?.parse()?) };
    let start = match words[0] {
        "prompt" => {
            let start = Instant::now();
            model.evaluate(&tokens(number(1)?), 0)?;
            start
        }
        "generate" => {
            // position 0 empties the cache: at least one token goes before
            let depth = number(2)?.max(1);
            model.evaluate(&tokens(depth), 0)?;
            let start = Instant::now();
            for i in 0..number(1)? {
                model.evaluate(&[i as u32 * 31 + 7], depth + i)?;
            }
            start
        }
        other => bail!("unknown order {other}"),
    };
    Ok(start.elapsed().as_secs_f64())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, threads, ..] = &arguments[..] else {
        bail!("usage: candle-peer MODEL THREADS …");
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build_global()?;
    let start = Instant::now();
    let mut model = Model::load(path)?;
    model.evaluate(&tokens(8), 0)?;
    let mut out = BufWriter::new(stdout());
    writeln!(out, "{{\"first_token\": {}}}", start.elapsed().as_secs_f64())?;
    out.flush()?;
    for line in stdin().lines() {
        writeln!(out, "{{\"seconds\": {}}}", timed(&mut model, &line?)?)?;
        out.flush()?;
    }
    Ok(())
}
