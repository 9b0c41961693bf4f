//! A stranger's backend, built from `backend-api` alone and dropped into a folder: models run on it, what it refuses runs
//! on the CPU, and all of that is said.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Fixture, Logits, command, cpu_backend, json};

/// A folder with the slow backend and the CPU's.
fn plugins() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(tests::build("tests/slow-backend", &[]), folder.path().join("slow.so")).unwrap();
    fs::copy(cpu_backend(), folder.path().join("cpu.so")).unwrap();
    folder
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn host(plugins: &TempDir, arguments: &[&str]) -> Ran {
    let mut command = command(arguments);
    command.arg("--plugins").arg(plugins.path());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Weights in F32, so that both backends compute exactly and choose the same tokens.
const EXACT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/qwen2-f32.gguf");
const GREEDY: [&str; 8] = [
    "run",
    EXACT,
    "ROMEO: But soft,",
    "--raw",
    "--temperature",
    "0",
    "--predict",
    "6",
];

#[test]
fn a_model_runs_on_it_and_what_it_refuses_runs_on_the_cpu() {
    let plugins = plugins();
    let on_cpu = host(&plugins, &[&GREEDY[..], &["--backend", "cpu", "--json"]].concat());
    let on_slow = host(&plugins, &[&GREEDY[..], &["--backend", "slow", "--json"]].concat());
    assert_eq!(on_slow.code, Some(0), "{}", on_slow.stderr);

    let [cpu, slow] = [&on_cpu, &on_slow].map(|ran| serde_json::from_str::<Value>(&ran.stdout).unwrap());
    assert_eq!(slow["tokens"], cpu["tokens"]);
    assert_eq!(slow["backend"], "slow");
    let devices: Vec<&str> = slow["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d.as_str().unwrap())
        .collect();
    assert!(
        devices[0].starts_with("slow:0") && devices[1].starts_with("cpu:0"),
        "{devices:?}"
    );
    for operation in ["rows", "rope", "cache_store", "attention"] {
        let told = on_slow
            .stderr
            .lines()
            .any(|line| line.contains(&format!("operations {operation} run on cpu:0")) && line.starts_with("warning:"));
        assert!(told, "{operation} is not reported:\n{}", on_slow.stderr);
    }
}

#[test]
fn without_fallback_nothing_runs_elsewhere() {
    let ran = host(
        &plugins(),
        &[&GREEDY[..], &["--backend", "slow", "--no-fallback"]].concat(),
    );
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.is_empty());
    assert!(ran.stderr.contains("no device serves operation"), "{}", ran.stderr);
}

#[test]
fn its_exact_path_gives_the_reference_logits() {
    let plugins = plugins();
    let fixture = Fixture::named("qwen2-f32");
    let prompt = &fixture.prompt()[..8];
    let ids: Vec<String> = prompt.iter().map(u32::to_string).collect();
    let (ids, file) = (ids.join(" "), plugins.path().join("logits.safetensors"));
    let mut arguments = vec!["logits", EXACT, "--tokens", &ids, "--output", file.to_str().unwrap()];
    arguments.extend("--backend slow --kv-type f32 --batch-size 5".split(' '));
    let ran = host(&plugins, &arguments);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);

    let mut reference = fixture.logits();
    reference.0.truncate(prompt.len());
    let error = Logits::read(&file).error_from(&reference);
    assert!(error <= 1e-6, "{error:e}");
}

#[test]
fn the_conformance_suite_shows_its_gaps_as_refusals() {
    let library = tests::build("tests/slow-backend", &[]);
    let report = json(&mut command(&["check", "--json", library.to_str().unwrap()]));
    assert_eq!(report["failed"], 0);
    let row = |operation: &str, ty: &str| {
        let table = report["table"].as_array().unwrap();
        table
            .iter()
            .find(|r| r["operation"] == operation && r["type"] == ty)
            .unwrap()
            .clone()
    };
    assert!(row("product", "Q8_0")["passed"].as_u64() > Some(0));
    assert_eq!(row("product", "Q4_K")["passed"], 0);
    assert_eq!(row("attention", "F16")["passed"], 0);
    assert!(row("attention", "F16")["refused"].as_u64() > Some(0));
}
