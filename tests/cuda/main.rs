//! The backend for NVIDIA cards: what it says where there is none, and all of it on the emulation, whose kernels g++ compiles.

mod absent;
mod attention;
mod conformance;
mod device;
mod emulation;
mod golden;
mod plans;

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;
use tests::cpu_backend;

/// The name of the emulated backend.
const EMULATED: &str = "cuda37-emulated";

/// The emulated plugin's shared library. Nothing where g++ is missing, which is said on standard error.
fn emulation() -> Option<PathBuf> {
    has_compiler().then(|| tests::build("backend-cuda37/emulation", &[]))
}

/// Whether g++ is there; what is not tested without it is said on standard error.
fn has_compiler() -> bool {
    let compiler = Command::new("g++").arg("--version").output();
    let there = compiler.is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("not tested: the emulation of CUDA kernels takes g++, which is not installed (apt-get install g++)");
    }
    there
}

/// A folder with the emulated plugin and the CPU's, where there is g++.
fn plugins() -> Option<TempDir> {
    let emulation = emulation()?;
    let folder = tempfile::tempdir().unwrap();
    fs::copy(emulation, folder.path().join("emulated.so")).unwrap();
    fs::copy(cpu_backend(), folder.path().join("cpu.so")).unwrap();
    Some(folder)
}
