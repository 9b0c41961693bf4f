//! The plugin itself over the emulation as a `libcuda.so.1`: its calls of the driver, and the PTX that it brings.

use std::{os::unix::fs::symlink, process::Command};

use serde_json::Value;
use tempfile::TempDir;
use tests::{Fixture, command, host, json};

use crate::{emulation, listed_by};

/// Operations of which each takes another way to its kernels; the others go by the emulated plugin.
const OPERATIONS: &str = "add,rms_norm,rope,cache_store,attention,rows,product,copy";

/// A folder with the emulated driver under the name that a driver has.
pub fn driver() -> Option<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    links(&folder).then_some(folder)
}

/// Puts the emulated driver into a folder; false where there is no g++.
pub fn links(folder: &TempDir) -> bool {
    let library = emulation();
    library.is_some_and(|library| symlink(library, folder.path().join("libcuda.so.1")).is_ok())
}

pub fn over(driver: &TempDir, arguments: &[&str]) -> Command {
    let mut command = command(arguments);
    command.env("LD_LIBRARY_PATH", driver.path());
    // devices are not those that a list of seen plugins knows
    command.env("XDG_CACHE_HOME", driver.path());
    command
}

#[test]
fn the_plugin_passes_the_conformance_suite_over_an_emulated_driver() {
    let Some(driver) = driver() else { return };
    let library = host().with_file_name("libbackend_cuda37.so");
    let arguments = ["check", "--json", "--operations", OPERATIONS, library.to_str().unwrap()];
    let output = over(&driver, &arguments).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failures = report["failures"].as_array().unwrap();
    assert!(failures.is_empty(), "{} failures: {:?}", failures.len(), failures[0]);
    println!("{} passed", report["passed"]);
    assert!(output.status.success() && report["passed"].as_u64() > Some(300));
}

#[test]
fn a_card_is_chosen_before_the_cpu_and_generates_what_the_cpu_does() {
    let Some(driver) = driver() else { return };
    let path = Fixture::named("qwen2-f32").path();
    let fixed = "--raw --temperature 0 --predict 24 --json --ctx-size 128".split(' ');
    let arguments: Vec<&str> = ["run", &path, "ROMEO: But soft,"].into_iter().chain(fixed).collect();
    let on_cpu = json(command(&arguments).args(["--backend", "cpu"]));
    let on_card = json(&mut over(&driver, &arguments));
    assert_eq!(on_card["backend"], "cuda37");
    assert_eq!(on_card["tokens"], on_cpu["tokens"]);
}

#[test]
fn its_devices_are_listed_with_what_they_are() {
    let Some(driver) = driver() else { return };
    let entry = listed_by(|arguments| over(&driver, arguments));
    assert_eq!(entry["score"], 137.0);
    let devices = entry["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 2);
    for (i, device) in devices.iter().enumerate() {
        assert_eq!(device["name"], format!("emulated driver's device {i}"));
        assert_eq!(device["total"], 11441u64 << 20);
    }
}
