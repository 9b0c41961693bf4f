//! Where no CUDA device is, the plugin says so and the CPU answers.

use std::process::Output;

use serde_json::Value;
use tests::command;

use crate::{has_card, listed};

/// The plugin's entry in the list of backends, where no device can serve.
fn absent() -> Option<Value> {
    let entry = listed();
    if has_card() {
        eprintln!("not tested: this machine has a CUDA device: {}", entry["reason"]);
        return None;
    }
    Some(entry)
}

fn answer(options: &[&str]) -> Output {
    let fixed = [
        "run",
        "embedded",
        "ROMEO: But soft,",
        "--raw",
        "--temperature",
        "0",
        "--predict",
        "4",
    ];
    command(&[&fixed, options].concat()).output().unwrap()
}

#[test]
fn it_is_listed_with_score_0_and_the_reason() {
    let Some(entry) = absent() else { return };
    let reason = entry["reason"].as_str().unwrap();
    let known = [
        "libcuda.so.1 not found",
        "no CUDA device",
        "the driver is too old",
        "CUDA_ERROR_",
    ];
    let told = known.iter().any(|start| reason.starts_with(start))
        || reason.contains("has compute capability")
        || reason.contains("has too little memory");
    assert!(told, "{reason}");
    assert_eq!(entry["devices"], Value::Array(Vec::new()));
}

#[test]
fn asked_for_it_the_cpu_answers_with_a_warning() {
    let Some(entry) = absent() else { return };
    let (asked, on_cpu) = (answer(&["--backend", "cuda37"]), answer(&["--backend", "cpu"]));
    assert!(asked.status.success());
    assert_eq!(asked.stdout, on_cpu.stdout);
    assert!(!asked.stdout.is_empty() && on_cpu.stderr.is_empty());
    let reason = entry["reason"].as_str().unwrap();
    assert_eq!(
        String::from_utf8(asked.stderr).unwrap(),
        format!("warning: backend cuda37 cannot serve: {reason}; using cpu\n")
    );
}

#[test]
fn without_fallback_it_is_a_failure() {
    let Some(entry) = absent() else { return };
    let asked = answer(&["--backend", "cuda37", "--no-fallback"]);
    assert_eq!(asked.status.code(), Some(1));
    let said = String::from_utf8(asked.stderr).unwrap();
    assert!(said.contains(entry["reason"].as_str().unwrap()), "{said}");
    assert!(asked.stdout.is_empty());
}
