//! Models in known shapes on dies of a Tesla K80, by the plugin's own planning queries: neither driver nor card is asked.

use std::process::Command;

use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;
use tests::{command, json};

/// Files in known shapes, of which the header alone is there.
struct Shapes(TempDir);

impl Shapes {
    fn new() -> Shapes {
        Shapes(tempfile::tempdir().unwrap())
    }

    fn file(&self, shape: &str) -> String {
        let path = self.0.path().join(shape);
        if !path.exists() {
            let quant = if shape.starts_with("gptoss") { "mxfp4" } else { "q4_k_m" };
            let mut made = Command::new(env!("CARGO_BIN_EXE_make-model"));
            made.args([shape, "--sparse", "--quant", quant]).arg(&path);
            assert!(made.output().unwrap().status.success(), "{made:?}");
        }
        path.to_str().unwrap().to_owned()
    }

    /// The plan for dies of 11441 MiB, with a cache of f16.
    fn plan(&self, shape: &str, dies: u32, context: u32, batch: u32) -> Value {
        json(&mut self.planning(shape, dies, context, batch))
    }

    fn planning(&self, shape: &str, dies: u32, context: u32, batch: u32) -> Command {
        let model = self.file(shape);
        let (devices, context, batch) = (format!("{dies}x11441MiB"), context.to_string(), batch.to_string());
        let mut command = command(&["plan", &model, "--json", "--backend", "cuda37", "--kv-type", "f16"]);
        // no driver, if there is one: a plan needs none
        command.env("CUDA_VISIBLE_DEVICES", "");
        command.args(["--devices", &devices, "--ctx-size", &context, "--batch-size", &batch]);
        command
    }
}

/// What a plan has on dies, and not on the host.
fn dies(plan: &Value) -> Vec<&Value> {
    let all = plan["devices"].as_array().unwrap().iter();
    all.filter(|of| of["kind"] != "cpu" && of["layers"].as_u64() > Some(0))
        .collect()
}

fn sum(dies: &[&Value], purposes: &[&str]) -> u64 {
    let of = |die: &Value| {
        purposes
            .iter()
            .map(|purpose| die[*purpose].as_u64().unwrap())
            .sum::<u64>()
    };
    dies.iter().map(|die| of(die)).sum()
}

#[rstest]
#[case("gptoss-20b", 131_072, 2)]
#[case("gptoss-20b", 16_384, 2)]
#[case("gemma3-12b", 8192, 1)]
#[case("gemma3-27b", 8192, 2)]
#[case("qwen2-14b", 4096, 1)]
#[case("qwen2-32b", 4096, 2)]
fn all_layers_fit_the_fewest_dies_with_batch_512(#[case] shape: &str, #[case] context: u32, #[case] fewest: usize) {
    let plan = Shapes::new().plan(shape, 4, context, 512);
    assert_eq!((&plan["ctx_size"], &plan["batch_size"]), (&context.into(), &512.into()));
    assert_eq!(plan["layers_on_devices"], plan["layers_total"]);
    let dies = dies(&plan);
    println!("{shape}, context {context}: {dies:#?}");
    assert_eq!(dies.len(), fewest);
    for die in dies {
        assert_eq!(die["total"], 11_441u64 << 20);
        let parts = sum(&[die], &["weights", "cache", "compute", "workspace"]);
        assert_eq!(die["planned"], parts);
        assert!(parts + die["context"].as_u64().unwrap() <= 11_441 << 20, "{die}");
    }
}

#[test]
fn the_longest_contexts_fit_two_dies_asked_for_and_found() {
    let shapes = Shapes::new();
    let plan = shapes.plan("gptoss-20b", 2, 131_072, 512);
    assert_eq!(plan["layers_on_devices"], plan["layers_total"]);
    assert_eq!(dies(&plan).len(), 2);
}

/// What grows is the cache; block tables and positions take some bytes a page and a column.
#[test]
fn no_memory_grows_with_context_times_batch() {
    let shapes = Shapes::new();
    for shape in ["gptoss-20b", "gemma3-12b"] {
        let scratch = |context, batch| {
            let plan = json(shapes.planning(shape, 2, context, batch).arg("--spread"));
            assert_eq!(dies(&plan).len(), 2);
            sum(&dies(&plan), &["compute", "workspace"])
        };
        let grown = |batch| scratch(131_072, batch).saturating_sub(scratch(8192, batch));
        // whole pages of 2 MiB are allocated
        let (few, many) = (grown(64), grown(512));
        assert!(
            few <= 8 << 20 && many <= 8 << 20,
            "{shape}: {few} and {many} bytes more"
        );
    }
}
