//! Every operation and type on the emulation, against the reference.

use serde_json::Value;
use tests::command;

use crate::emulation;

#[test]
fn the_emulated_backend_passes_the_conformance_suite() {
    let Some(library) = emulation() else { return };
    let output = command(&["check", "--json", library.to_str().unwrap()])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    println!(
        "{} passed, {} refused: {}",
        report["passed"], report["refused"], report["refusals"]
    );
    assert_eq!(report["failures"], Value::Array(Vec::new()));
    assert!(output.status.success() && report["passed"].as_u64() > Some(2000));
}
