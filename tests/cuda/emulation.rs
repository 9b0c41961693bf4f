//! The emulation finds what is wrong with a kernel: each of `emulation/planted` has one fault, and those beside them none.

use std::{path::Path, process::Command, sync::OnceLock};

use tempfile::TempDir;

use crate::has_compiler;

/// How the emulation switches between threads: by its own assembly, or by the C library.
const SWITCHES: [&str; 2] = ["own", "portable"];

/// Orders of threads that are tried.
const SEEDS: std::ops::Range<u32> = 0..8;

/// What became of a kernel.
#[derive(Debug, PartialEq)]
enum Outcome {
    Fault(String),
    Wrong(u32),
}

/// The folder with the programs `own` and `portable`.
fn programs() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<TempDir>> = OnceLock::new();
    BUILT
        .get_or_init(|| has_compiler().then(build))
        .as_ref()
        .map(TempDir::path)
}

fn build() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for switch in SWITCHES {
        let mut compiler = Command::new("g++");
        compiler.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../backend-cuda37/emulation"));
        compiler.args([
            "-std=c++17",
            "-O2",
            "-ffp-contract=off",
            "-fsanitize=bounds",
            "-pthread",
        ]);
        compiler
            .args(["planted/planted.cc", "cuda_emu.cc", "-o"])
            .arg(folder.path().join(switch));
        if switch == "portable" {
            compiler.arg("-DEMU_PORTABLE");
        }
        assert!(compiler.status().unwrap().success(), "{compiler:?}");
    }
    folder
}

/// Runs a kernel in some orders of its threads, switched in both ways. Nothing where there is no compiler.
fn outcomes(kernel: &str, arguments: &[&str]) -> Vec<Outcome> {
    let Some(folder) = programs() else { return Vec::new() };
    let run = |switch: &str, seed: u32| {
        let mut program = Command::new(folder.join(switch));
        let output = program
            .args([kernel, &seed.to_string()])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{program:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        match text.trim_end().strip_prefix("fault: ") {
            Some(words) => Outcome::Fault(words.to_owned()),
            None => Outcome::Wrong(text.split(' ').next().unwrap().parse().unwrap()),
        }
    };
    let both = SWITCHES.iter().flat_map(|switch| SEEDS.map(|seed| run(switch, seed)));
    both.collect()
}

/// Asserts that a kernel ends with a fault whose words hold all of `words`, in every order.
#[track_caller]
fn faults(kernel: &str, words: &[&str]) {
    for outcome in outcomes(kernel, &[]) {
        let told = |told: &String| words.iter().all(|word| told.contains(word));
        assert!(
            matches!(&outcome, Outcome::Fault(t) if told(t)),
            "{kernel}: {outcome:?}"
        );
    }
}

/// Asserts that a kernel ends without a fault, and that some values are wrong in some order.
#[track_caller]
fn gives_wrong_values(kernel: &str) {
    let outcomes = outcomes(kernel, &[]);
    assert!(
        outcomes.iter().all(|o| matches!(o, Outcome::Wrong(_))),
        "{kernel}: {outcomes:?}"
    );
    let wrong = outcomes.iter().any(|o| *o != Outcome::Wrong(0));
    assert!(wrong || outcomes.is_empty(), "{kernel} went unnoticed");
}

#[test]
fn kernels_without_a_fault_are_right_in_every_order() {
    for kernel in ["right_halves", "right_join", "right_dynamic", "right_each"] {
        let outcomes = outcomes(kernel, &[]);
        assert!(
            outcomes.iter().all(|o| *o == Outcome::Wrong(0)),
            "{kernel}: {outcomes:?}"
        );
    }
}

#[test]
fn a_missing_barrier_gives_wrong_sums() {
    gives_wrong_values("missing_barrier");
    gives_wrong_values("unwritten_shared");
}

#[test]
fn an_entry_too_many_is_written_where_a_sentinel_stands() {
    gives_wrong_values("tail_off_by_one");
}

#[test]
fn a_shuffle_that_not_all_lanes_reach_is_a_fault() {
    faults(
        "divergent_shuffle",
        &["thread 0 waits for ever at __shfl_xor_sync (planted/planted.cc:"],
    );
    faults("two_shuffles", &["waits for ever at __shfl_xor_sync"]);
    faults("two_helpers", &["waits for ever at __shfl_xor_sync"]);
}

#[test]
fn lanes_outside_of_a_mask_are_faults() {
    faults("outside_of_mask", &["is not in the mask of __shfl_xor_sync"]);
    faults("source_outside_of_mask", &["reads lane ", "which is not in the mask"]);
}

#[test]
fn a_thread_that_has_left_is_named() {
    faults("early_return", &["waits for ever at __shfl_xor_sync", "has exited"]);
    faults(
        "early_return_before_barrier",
        &["waits for ever at __syncthreads", "thread 64 has exited"],
    );
}

#[test]
fn barriers_at_two_places_are_a_fault() {
    faults(
        "two_barriers",
        &["is at __syncthreads (planted/planted.cc:", ", but thread "],
    );
}

#[test]
fn indices_outside_of_arrays_are_faults() {
    faults(
        "index_outside_of_shared",
        &["thread 127: index 128 is outside of 'float [128]' (planted/planted.cc:"],
    );
    faults("index_outside_of_local", &["index 11 is outside of 'float [4]'"]);
    faults(
        "pointer_outside_of_shared",
        &["memory beside parts was written: it has 512 bytes"],
    );
}

#[test]
fn what_a_block_does_not_have_is_a_fault() {
    faults("too_much_shared", &["a block has 48 KiB of shared memory"]);
    faults("too_deep", &["used all of its stack"]);
    faults("no_such_kernel", &["there is no kernel no_such_kernel"]);
}

#[test]
fn a_block_that_ends_within_a_warp_is_told_at_the_shuffle() {
    for outcome in outcomes("right_join", &["partial"]) {
        let told = |words: &String| words.contains("thread 116 does not exist");
        assert!(matches!(&outcome, Outcome::Fault(words) if told(words)), "{outcome:?}");
    }
}
