//! Errors of the driver, at calls of every kind: the answer goes on elsewhere, with a warning that names device, work and
//! error; without fallback that is an error.

use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Fixture, command, json};

use crate::driver::{driver, over};

/// What becomes of a run with a fault.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// The CPU loads the model instead.
    LoadsElsewhere,
    /// The card is left without layers, since it has no memory for them.
    LeavesTheCard,
    /// The CPU goes on with the answer.
    HandsOver,
    /// The card answers after another attempt.
    TriesAgain,
    /// The card answers, and nothing is said.
    Nothing,
}
use Then::*;

/// What the emulated driver is asked for, what is said of it, and what happens then.
const FAULTS: [(&str, &str, Then); 13] = [
    (
        "cuDevicePrimaryCtxRetain=999",
        "opening the device: CUDA_ERROR_UNKNOWN: unknown error",
        LoadsElsewhere,
    ),
    (
        "cuStreamCreate=2",
        "creating a stream: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        LeavesTheCard,
    ),
    (
        "cuMemHostAlloc=2",
        "pinning host memory: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        LeavesTheCard,
    ),
    (
        "cuMemAlloc_v2=2",
        "allocating device memory: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        LeavesTheCard,
    ),
    (
        "cuMemAlloc_v2@2=2",
        "allocating device memory: CUDA_ERROR_OUT_OF_MEMORY: out of memory; planning again",
        TriesAgain,
    ),
    (
        "cuMemcpyHtoDAsync_v2@3=214",
        "CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered",
        LoadsElsewhere,
    ),
    (
        "compiler=222",
        "on device 0: CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the provided PTX was compiled with an unsupported toolchain. (ptxas \
         application ptx input, line 1; fatal   : not for this device; ptxas fatal   : Ptx assembly aborted)",
        HandsOver,
    ),
    (
        "cuModuleLoadDataEx@4=2",
        "on device 0: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        HandsOver,
    ),
    (
        "cuModuleGetFunction@5=500",
        "CUDA_ERROR_NOT_FOUND: named symbol not found",
        HandsOver,
    ),
    (
        "cuLaunchKernel@70=719",
        "launching a kernel: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure",
        HandsOver,
    ),
    (
        "cuMemcpyDtoHAsync_v2@4=999",
        "copying from the device: CUDA_ERROR_UNKNOWN: unknown error",
        HandsOver,
    ),
    (
        "cuGraphLaunch@3=700",
        "launching what was captured: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access",
        HandsOver,
    ),
    ("cuGraphInstantiateWithFlags=801", "", Nothing),
];

/// The model's answer over the emulated driver, asked for this.
fn run(driver: &TempDir, asked: &str, more: &[&str]) -> Output {
    let arguments = [&ANSWER[..], more].concat();
    let path = Fixture::named("qwen2-f32").path();
    let arguments: Vec<&str> = arguments
        .into_iter()
        .map(|word| if word == "MODEL" { &path } else { word })
        .collect();
    let mut command = over(driver, &arguments);
    command.env("EMULATED_DRIVER", asked).output().unwrap()
}

const ANSWER: [&str; 12] = [
    "run",
    "MODEL",
    "ROMEO: But soft,",
    "--raw",
    "--ignore-eos",
    "--temperature",
    "0",
    "--json",
    "--predict",
    "10",
    "--ctx-size",
    "64",
];

fn tokens_of_the_cpu() -> Value {
    let path = Fixture::named("qwen2-f32").path();
    let arguments = ANSWER.map(|word| if word == "MODEL" { path.as_str() } else { word });
    json(command(&arguments).args(["--backend", "cpu"]))["tokens"].clone()
}

/// The report of a run that succeeded, and what it said.
fn succeeded(ran: &Output) -> (Value, String) {
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{said}");
    (serde_json::from_slice(&ran.stdout).unwrap(), said)
}

#[test]
fn whatever_call_fails_the_answer_is_the_same() {
    let Some(driver) = driver() else { return };
    let expected = tokens_of_the_cpu();
    for (fault, words, then) in FAULTS {
        let (report, said) = succeeded(&run(&driver, &format!("devices=1 {fault}"), &[]));
        println!("{fault}: {said}");
        assert_eq!(report["tokens"], expected, "{fault}: {said}");
        let backend = if matches!(then, LoadsElsewhere | HandsOver) {
            "cpu"
        } else {
            "cuda37"
        };
        assert_eq!(report["backend"], backend, "{fault}: {said}");
        let handed_over = report["hand_overs"].as_array().map_or(0, Vec::len);
        assert_eq!(handed_over, usize::from(then == HandsOver), "{fault}: {said}");
        assert_eq!(said.is_empty(), words.is_empty(), "{fault}: {said}");
        let told = said
            .lines()
            .all(|line| line.starts_with("warning: ") || line.starts_with("hint: "));
        assert!(told && said.contains(words), "{fault}: {said}");
        assert_eq!(
            said.contains("0 of 5 layers are on devices"),
            then == LeavesTheCard,
            "{fault}: {said}"
        );
    }
}

#[test]
fn without_fallback_it_is_an_error_that_says_what_failed() {
    let Some(driver) = driver() else { return };
    for (fault, words, then) in FAULTS {
        let ran = run(&driver, &format!("devices=1 {fault}"), &["--no-fallback"]);
        let said = String::from_utf8_lossy(&ran.stderr);
        let failed = then != Nothing;
        assert_eq!(ran.status.code(), Some(failed.into()), "{fault}: {said}");
        assert_eq!(said.starts_with("error: "), failed, "{fault}: {said}");
        assert!(
            said.contains(words.trim_end_matches("; planning again")),
            "{fault}: {said}"
        );
        assert_eq!(ran.stdout.is_empty(), failed, "{fault}");
    }
}

/// The parts of the memory of one card fail together; another card does not.
#[test]
fn the_other_card_goes_on() {
    let Some(driver) = driver() else { return };
    for fault in ["cuLaunchKernel@70=719", "cuStreamSynchronize@9=214"] {
        let (report, said) = succeeded(&run(&driver, fault, &["--devices", "0,1", "--spread"]));
        assert_eq!(report["tokens"], tokens_of_the_cpu(), "{fault}: {said}");
        assert_eq!(report["backend"], "cuda37", "{fault}: {said}");
        let hand_overs = report["hand_overs"].as_array().expect(&said);
        assert_eq!(hand_overs.len(), 1, "{fault}: {said}");
        let label = |name: &Value| name.as_str().unwrap().split(' ').next().unwrap().to_owned();
        let on: Vec<String> = hand_overs[0]["devices"].as_array().unwrap().iter().map(label).collect();
        let from = label(&hand_overs[0]["from"]);
        assert!(
            from.starts_with("cuda37:") && !on.contains(&from),
            "{fault}: {on:?} after {from}"
        );
    }
}
