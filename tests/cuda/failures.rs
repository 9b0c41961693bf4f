//! Errors of the driver, at calls of every kind: the answer goes on elsewhere, with a warning that names device, work and
//! error; without fallback that is an error.

use std::process::{Command, Output};

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
const FAULTS: [(&str, &str, Then); 17] = [
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
    (
        "cuEventCreate@2=2",
        "creating an event: CUDA_ERROR_OUT_OF_MEMORY: out of memory; planning again",
        TriesAgain,
    ),
    (
        "cuEventRecord@5=1",
        "recording an event: CUDA_ERROR_INVALID_VALUE: invalid argument",
        LoadsElsewhere,
    ),
    (
        "cuEventRecord@90=719",
        "recording an event: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure",
        HandsOver,
    ),
    ("cuEventDestroy_v2=1", "", Nothing),
];

/// The same where two devices answer: one goes on without the other, or nothing is said.
const BETWEEN: [(&str, &str, Then); 10] = [
    (
        "cuLaunchKernel@70=719",
        "launching a kernel: CUDA_ERROR_LAUNCH_FAILED",
        HandsOver,
    ),
    (
        "cuStreamSynchronize@9=214",
        "the device's work: CUDA_ERROR_ECC_UNCORRECTABLE",
        HandsOver,
    ),
    (
        "cuEventRecord@90=719",
        "recording an event: CUDA_ERROR_LAUNCH_FAILED",
        HandsOver,
    ),
    (
        "cuStreamWaitEvent=1",
        "waiting for an event: CUDA_ERROR_INVALID_VALUE",
        HandsOver,
    ),
    (
        "cuStreamWaitEvent@3=999",
        "waiting for an event: CUDA_ERROR_UNKNOWN",
        HandsOver,
    ),
    (
        "cuMemcpyPeerAsync=1",
        "copying to another device: CUDA_ERROR_INVALID_VALUE",
        HandsOver,
    ),
    (
        "cuMemcpyPeerAsync@3=719",
        "copying to another device: CUDA_ERROR_LAUNCH_FAILED",
        HandsOver,
    ),
    // an error that spoils a context is that of the next call, too
    (
        "cuCtxEnablePeerAccess@2=214",
        "copying to another device: CUDA_ERROR_ECC_UNCORRECTABLE",
        HandsOver,
    ),
    // devices that cannot reach each other: the driver copies through memory of its own
    ("cuCtxEnablePeerAccess=217", "", Nothing),
    ("cuEventDestroy_v2=1", "", Nothing),
];

const TWO: [&str; 3] = ["--devices", "0,1", "--spread"];

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
    let on_one = FAULTS.map(|(fault, words, then)| (format!("devices=1 {fault}"), words, then, &[][..]));
    let on_two = BETWEEN.map(|(fault, words, then)| (fault.to_owned(), words, then, &TWO[..]));
    for (fault, words, then, devices) in on_one.into_iter().chain(on_two) {
        let ran = run(&driver, &fault, &[devices, &["--no-fallback"]].concat());
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
    let expected = tokens_of_the_cpu();
    let label = |name: &Value| name.as_str().unwrap().split(' ').next().unwrap().to_owned();
    for (fault, words, then) in BETWEEN {
        let (report, said) = succeeded(&run(&driver, fault, &TWO));
        assert_eq!(report["tokens"], expected, "{fault}: {said}");
        assert_eq!(report["backend"], "cuda37", "{fault}: {said}");
        assert_eq!(said.is_empty(), words.is_empty(), "{fault}: {said}");
        let hand_overs = report["hand_overs"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(hand_overs.len(), usize::from(then == HandsOver), "{fault}: {said}");
        for over in hand_overs {
            let (from, on) = (label(&over["from"]), over["devices"].as_array().unwrap());
            let on: Vec<String> = on.iter().map(label).collect();
            assert!(
                from.starts_with("cuda37:") && !on.contains(&from) && on[0].starts_with("cuda37:"),
                "{fault}: {on:?} after {from}"
            );
            let named = format!("warning: {}: {words}", over["from"].as_str().unwrap());
            assert!(said.contains(&named), "{fault}: {said}");
        }
    }
}

/// Weights of more than the ring of pinned memory holds wait for its first part, and find that its copy failed.
#[test]
fn a_copy_that_fails_behind_a_full_ring_is_told() {
    let Some(driver) = driver() else { return };
    let model = driver.path().join("model.gguf");
    let made = Command::new(env!("CARGO_BIN_EXE_make-model"))
        .args(["qwen2-1.5b", "--sparse", "--layers", "1"])
        .arg(&model)
        .output();
    assert!(made.unwrap().status.success());
    let words =
        "cuda37:0 emulated driver's device 0: the device's work: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure";
    for (more, success) in [(&[][..], true), (&["--no-fallback"], false)] {
        let fixed = [
            "run",
            model.to_str().unwrap(),
            "ROMEO:",
            "--raw",
            "--predict",
            "1",
            "--ctx-size",
            "64",
        ];
        let mut command = over(&driver, &[&fixed[..], more].concat());
        let ran = command
            .env("EMULATED_DRIVER", "devices=1 cuEventSynchronize@2=719")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.success(), success, "{said}");
        assert!(
            said.contains(&format!("backend cuda37 cannot serve: {words}")),
            "{said}"
        );
        assert_eq!(said.contains("using cpu"), success, "{said}");
    }
}
