//! The program `host` as a user runs it, and the instruction sets that its CPU backend may be held to.

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::host;

/// The environment variable that holds the CPU backend to an instruction set.
pub const KERNELS: &str = "GRAFT_CPU_KERNELS";

/// The CPU backend's shared library.
pub fn cpu_backend() -> PathBuf {
    host().with_file_name("libbackend_cpu.so")
}

/// `host` with these arguments, no input, and nothing of the user's own settings.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(host());
    command.args(arguments).stdin(Stdio::null());
    for variable in ["GRAFT_PLUGINS", "GRAFT_LOG", KERNELS] {
        command.env_remove(variable);
    }
    command.env("XDG_CACHE_HOME", host().with_file_name("test-cache"));
    command
}

/// The output of a command that succeeds and has nothing to warn of.
pub fn output(command: &mut Command) -> Vec<u8> {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let complaints = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}: {complaints}");
    assert!(stderr.is_empty(), "{command:?}: {complaints}");
    stdout
}

/// As [`output`], of a command that prints JSON.
pub fn json(command: &mut Command) -> Value {
    serde_json::from_slice(&output(command)).expect("JSON")
}

/// The instruction sets that this machine has. The others are named on standard error: there the backend itself says
/// that it cannot serve, with the reason.
pub fn kernel_sets() -> Vec<&'static str> {
    ["scalar", "avx2", "avxvnni", "avx512", "amx", "amx-emulated"]
        .into_iter()
        .filter(|set| is_here(set))
        .collect()
}

fn is_here(set: &str) -> bool {
    let plugins = host();
    let folder = plugins.parent().and_then(|path| path.to_str()).expect("a folder");
    let listed = command(&["backends", "--json", "--plugins", folder])
        .env(KERNELS, set)
        .output()
        .expect("the program starts");
    let list: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let ours = |backend: &&Value| backend["name"] == "cpu";
    let cpu = list
        .as_array()
        .and_then(|list| list.iter().find(ours))
        .expect("the CPU backend is listed");
    let here = cpu["score"].as_f64().expect("a score") > 0.0;
    if !here {
        let reason = cpu["reason"].as_str().expect("a reason");
        assert!(reason.starts_with("this machine has no "), "{reason}");
        eprintln!("not tested with {KERNELS}={set}: {reason}");
    }
    here
}
