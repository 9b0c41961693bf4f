//! Prints the table of docs/memory.md: on how many cards of 11441 MiB known shapes fit, as `host plan` says, beside what
//! ollama37 has published.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::Value;

/// Print what models in known shapes take of cards of 11441 MiB
#[derive(Debug, Parser)]
struct Args {
    /// The program `host`, with backends beside it
    host: String,
    /// The program `make-model`
    make_model: String,
    /// Whose planning queries are asked; they need no card
    #[arg(long, default_value = "cuda37")]
    backend: String,
}

/// Shape, types, context, and what ollama37 published: MiB or GiB by card, and cards.
const ROWS: [(&str, &str, &str, &str, &str); 9] = [
    ("gemma3-4b", "q4_k_m", "8192", "–", "1"),
    ("gemma3-12b", "q4_k_m", "8192", "10.5 GiB counted as 11.9–13.0", "1–2"),
    ("gemma3-27b", "q4_k_m", "8192", "8.7 + 8.7 GiB", "2"),
    ("qwen2-1.5b", "q4_k_m", "4096", "–", "1"),
    ("qwen2-7b", "q4_k_m", "4096", "–", "1"),
    ("qwen2-14b", "q4_k_m", "4096", "5205 + 8227 MiB", "2"),
    ("qwen2-32b", "q4_k_m", "4096", "7698 + 7594 + 10222 MiB", "3"),
    ("gptoss-20b", "mxfp4", "16384", "8520 + 8694 MiB", "2"),
    ("gptoss-20b", "mxfp4", "131072", "at batch 128", "3"),
];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    println!(
        "| model | context | cards | batch | MiB planned a card, driver's 128 MiB included | largest part of it: weights, cache, compute, workspace | ollama37 | its cards |"
    );
    println!("|---|--:|--:|--:|---|---|---|--:|");
    for (shape, quant, context, theirs, their_cards) in ROWS {
        let model = args.shape(folder.path(), shape, quant)?;
        let plan = args.plan(&model, "4x11441MiB", context)?;
        ensure!(
            plan["layers_total"] == plan["layers_on_devices"],
            "{shape}: not all layers fit"
        );
        let used = used(&plan);
        let planned: Vec<String> = used
            .iter()
            .map(|of| mib(number(of, "planned") + number(of, "context")))
            .collect();
        let most = used
            .iter()
            .max_by_key(|of| number(of, "planned"))
            .context("no device")?;
        let parts = ["weights", "cache", "compute", "workspace"].map(|part| mib(number(most, part)));
        println!(
            "| {shape} ({quant}) | {context} | {} | {} | {} | {} | {theirs} | {their_cards} |",
            used.len(),
            plan["batch_size"],
            planned.join(" + "),
            parts.join(", "),
        );
    }
    println!("\n| model | cards | longest context |\n|---|--:|--:|");
    for shape in ["gemma3-12b", "gemma3-27b", "qwen2-14b"] {
        let model = args.shape(folder.path(), shape, "q4_k_m")?;
        for cards in ["1", "2"] {
            if let Ok(plan) = args.plan(&model, &format!("{cards}x11441MiB"), "max") {
                println!("| {shape} (q4_k_m) | {cards} | {} |", plan["ctx_size"]);
            }
        }
    }
    Ok(())
}

impl Args {
    /// A file in this shape, of which the header alone is written.
    fn shape(&self, folder: &Path, shape: &str, quant: &str) -> anyhow::Result<String> {
        let path = folder.join(format!("{shape}.gguf")).display().to_string();
        if !Path::new(&path).exists() {
            let made = Command::new(&self.make_model)
                .args([shape, "--quant", quant, "--sparse", &path])
                .output();
            ensure!(
                made.context("make-model")?.status.success(),
                "make-model {shape} failed"
            );
        }
        Ok(path)
    }

    fn plan(&self, model: &str, devices: &str, context: &str) -> anyhow::Result<Value> {
        let planned = Command::new(&self.host)
            .args(["plan", model, "--json", "--backend", &self.backend])
            .args(["--devices", devices, "--ctx-size", context])
            .output()
            .context("host plan")?;
        let said = String::from_utf8_lossy(&planned.stderr);
        ensure!(planned.status.success(), "host plan: {said}");
        Ok(serde_json::from_slice(&planned.stdout)?)
    }
}

fn used(plan: &Value) -> Vec<&Value> {
    let devices = plan["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
    devices
        .iter()
        .filter(|of| of["kind"] != "cpu" && number(of, "layers") > 0)
        .collect()
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or(0)
}

fn mib(bytes: u64) -> String {
    bytes.div_ceil(1 << 20).to_string()
}
