//! Every operation and type against the reference.

use serde_json::Value;
use tests::command;

use crate::{Served, served};

#[test]
fn the_backend_passes_the_conformance_suite() {
    for Served { name, library, .. } in served() {
        let output = command(&["check", "--json", library.to_str().unwrap()])
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (passed, refusals) = (&report["passed"], report["refusals"].as_object().unwrap());
        println!("{name}: {passed} passed, refused: {refusals:?}");
        assert_eq!(report["failures"], Value::Array(Vec::new()), "{name}");
        assert!(output.status.success() && passed.as_u64() > Some(2500));
        // the host lays the cache out so that its rows are aligned
        let known = "rows of the cache that do not begin at multiples of 16 bytes";
        assert!(refusals.keys().all(|reason| reason == known), "{name}: {refusals:?}");
    }
}
