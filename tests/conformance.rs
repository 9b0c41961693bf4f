//! The CPU backend means what the reference means, on every instruction set, and uses the best kernels it has.

use std::process::Command;

use serde_json::Value;
use tests::{Fixture, KERNELS, Serving, command, cpu_backend, extend, kernel_sets, settings};

#[test]
fn the_backend_passes_the_conformance_suite_on_every_instruction_set() {
    for set in kernel_sets() {
        let library = cpu_backend();
        let mut check = command(&["check", "--json", library.to_str().unwrap()]);
        let output = check.env(KERNELS, set).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        println!("{set}: {} passed, {} refused", report["passed"], report["refused"]);
        assert_eq!(report["failures"], Value::Array(Vec::new()), "{set}");
        assert!(output.status.success() && report["failed"] == 0 && report["passed"].as_u64() > Some(1000));
        assert_eq!(
            report["refusals"],
            serde_json::json!({}),
            "{set}: composites too are served"
        );
    }
}

/// The set whose tiles are in plain Rust: for tests, and never the best.
const EMULATED: &str = "amx-emulated";

/// The environment variable that tells the test below which set it is to find in use.
const EXPECTED: &str = "EXPECTED_KERNEL_SET";

#[test]
fn products_reach_the_kernels_of_the_best_set_and_of_each_forced_one() {
    let mut sets = kernel_sets();
    let emulated = sets.pop_if(|set| *set == EMULATED);
    assert_eq!(
        emulated.is_some(),
        sets.len() > 1,
        "tiles in plain Rust are there where vectors are"
    );
    let forced = sets.iter().map(|set| (Some(*set), *set));
    for (forced, expected) in forced.chain([(None, *sets.last().unwrap())]) {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "--ignored", "--nocapture", "only_the_expected_kernels_run"]);
        again
            .env_remove(KERNELS)
            .envs(forced.map(|set| (KERNELS, set)))
            .env(EXPECTED, expected);
        let output = again.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{forced:?}: {said}"
        );
    }
}

#[test]
#[ignore = "run by the test above in a process of its own, since the set is chosen by the environment"]
fn only_the_expected_kernels_run() {
    let set = std::env::var(EXPECTED).unwrap();
    let fixture = Fixture::named("qwen2-q8_0");
    let mut engine = Serving::of(&fixture).engine(&settings(64, 32));
    for at_once in [1, 8, 32] {
        engine.cache().release(0).unwrap();
        extend(&mut engine, 0, &fixture.prompt()[..33], at_once);
    }
    let (_, counters) = engine.counters().unwrap().remove(0);
    let kernels = counters
        .iter()
        .filter_map(|c| Some((c.name.as_str().strip_prefix("kernel.")?, c.value)));
    let kernels: Vec<(&str, u64)> = kernels.collect();
    let base = if set == "amx" { "avx512" } else { &set };
    let products = with_vnni(base);
    let expected = format!("product.q8_0.{products}");
    assert!(
        kernels.iter().any(|(name, calls)| *name == expected && *calls > 0),
        "{expected} in {kernels:?}"
    );
    let panel = kernels
        .iter()
        .any(|(name, calls)| name.contains(".q8_0.panel.") && *calls > 0);
    assert_eq!(panel, set != "scalar", "panels for many columns: {kernels:?}");
    // only products of integers have VNNI, and only panels AMX; all else is of the plain set
    for (name, _) in &kernels {
        let found = name.rsplit('.').next().unwrap();
        let wanted = match *name {
            name if set == "amx" && name.contains(".q8_0.panel.") => "amx",
            name if name.contains("product") && name.contains(".q8_0.") => &products,
            _ => base,
        };
        assert_eq!(found, wanted, "{name} in {kernels:?}");
    }
}

/// The set of products in integers: VNNI where it is there.
#[cfg(target_arch = "x86_64")]
fn with_vnni(set: &str) -> String {
    let vnni = set == "avx512" && is_x86_feature_detected!("avx512vnni");
    if vnni { "avx512vnni".into() } else { set.into() }
}

#[cfg(not(target_arch = "x86_64"))]
fn with_vnni(set: &str) -> String {
    set.into()
}
