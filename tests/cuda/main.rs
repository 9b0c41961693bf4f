//! The backend for NVIDIA cards: what it says where there is none, and all of it on the emulation, whose kernels g++ compiles.
//! On a machine with a card, what concerns kernels and models is tested there, too.

mod absent;
mod attention;
mod conformance;
mod device;
mod driver;
mod emulation;
mod failures;
mod golden;
mod long;
mod plans;
mod precision;
mod shapes;
mod single;
mod weights;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;
use tests::{command, cpu_backend, host, json};

/// The environment variable that leaves the emulation out where it is 0: what needs no fault and no second device then
/// runs on the card alone.
const EMULATION: &str = "GRAFT_TESTS_EMULATION";

/// The name of the emulated backend.
const EMULATED: &str = "cuda37-emulated";

/// The emulated plugin's shared library. Nothing where g++ is missing, which is said on standard error.
fn emulation() -> Option<PathBuf> {
    has_compiler().then(|| tests::build("backend-cuda37/emulation", &[]))
}

/// Whether g++ is there, and the emulation wanted; what is not tested without it is said on standard error.
fn has_compiler() -> bool {
    if env::var_os(EMULATION).is_some_and(|value| value == "0") {
        eprintln!("not tested: the emulation, as {EMULATION}=0 asks");
        return false;
    }
    let compiler = Command::new("g++").arg("--version").output();
    let there = compiler.is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("not tested: the emulation of CUDA kernels takes g++, which is not installed (apt-get install g++)");
    }
    there
}

/// A folder with the emulated plugin and the CPU's, where there is g++.
fn plugins() -> Option<TempDir> {
    Some(folder_with(&emulation()?))
}

fn folder_with(plugin: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(plugin, folder.path().join("cuda.so")).unwrap();
    fs::copy(cpu_backend(), folder.path().join("cpu.so")).unwrap();
    folder
}

/// A backend that serves here.
struct Served {
    name: &'static str,
    library: PathBuf,
    /// With the CPU's beside it.
    plugins: TempDir,
}

/// The plugin's shared library.
fn plugin() -> PathBuf {
    host().with_file_name("libbackend_cuda37.so")
}

/// The emulated backend where there is g++; the plugin itself where there is a card.
fn served() -> Vec<Served> {
    let emulated = emulation().map(|library| (EMULATED, library));
    let card = has_card().then(|| ("cuda37", plugin()));
    let served = |(name, library): (&'static str, PathBuf)| Served {
        name,
        plugins: folder_with(&library),
        library,
    };
    emulated.into_iter().chain(card).map(served).collect()
}

/// The plugin's entry in the list of backends that a machine's command prints.
fn listed_by(command: impl Fn(&[&str]) -> Command) -> Value {
    let folder = host();
    let folder = folder.parent().and_then(|path| path.to_str()).unwrap();
    let list = json(&mut command(&["backends", "--json", "--plugins", folder]));
    let ours = |backend: &&Value| backend["name"] == "cuda37";
    let entry = list.as_array().unwrap().iter().find(ours);
    entry.expect("cuda37 is listed").clone()
}

fn has_card() -> bool {
    listed_by(command)["score"].as_f64().unwrap() > 0.0
}
