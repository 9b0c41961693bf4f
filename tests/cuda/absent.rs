//! Where no CUDA device can serve, the plugin says why and the CPU answers.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;
use tests::command;

use crate::{driver, has_card, listed_by};

/// A machine without a device that can serve.
struct Machine {
    /// Where its driver lies, if it has one.
    driver: Option<PathBuf>,
    /// What the emulated driver is asked for.
    asked: &'static str,
    /// What the plugin says of it; nothing where that depends on the machine.
    reason: Option<&'static str>,
    cache: TempDir,
}

/// What the emulated driver is asked for, and what the plugin says then.
const EMULATED: [(&str, &str); 5] = [
    ("devices=0", "no CUDA device"),
    (
        "version=10020",
        "the driver is too old: it has CUDA 10.2, at least 11.4 (driver 470) is needed",
    ),
    (
        "capability=35",
        "emulated driver's device 0 has compute capability 3.5, at least 3.7 is needed",
    ),
    (
        "memory=256",
        "emulated driver's device 0 has too little memory: 256 MiB, at least 512 are needed",
    ),
    ("cuInit=999", "CUDA_ERROR_UNKNOWN: unknown error"),
];

impl Machine {
    fn new(driver: Option<&Path>, asked: &'static str, reason: Option<&'static str>) -> Machine {
        Machine {
            driver: driver.map(Path::to_owned),
            asked,
            reason,
            cache: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        if let Some(driver) = &self.driver {
            command.env("LD_LIBRARY_PATH", driver);
        }
        // what is there is not what a list of seen plugins knows
        command.env("XDG_CACHE_HOME", self.cache.path());
        command.env("EMULATED_DRIVER", self.asked);
        command
    }

    fn answer(&self, options: &[&str]) -> Output {
        let fixed = ["run", "embedded", "ROMEO: But soft,"];
        let usual = ["--raw", "--temperature", "0", "--predict", "4"];
        self.command(&[&fixed[..], &usual, options].concat()).output().unwrap()
    }

    fn entry(&self) -> Value {
        listed_by(|arguments| self.command(arguments))
    }

    fn reason(&self) -> String {
        self.entry()["reason"].as_str().unwrap().to_owned()
    }
}

/// This machine where it has no card, machines of an emulated driver where g++ is, and those of Debian's drivers where they
/// were fetched, which takes a machine without a card, too.
fn machines(emulated: &TempDir) -> Vec<Machine> {
    let mut machines = Vec::new();
    if driver::links(emulated) {
        let of = |(asked, reason)| Machine::new(Some(emulated.path()), asked, Some(reason));
        machines.extend(EMULATED.map(of));
    }
    if has_card() {
        eprintln!("not tested without a card: this machine has one");
        return machines;
    }
    machines.push(Machine::new(None, "", None));
    for name in ["driver", "driver470"] {
        match fetched(name) {
            Some(folder) => machines.push(Machine::new(Some(&folder), "", Some("no CUDA device"))),
            None => eprintln!("not tested with Debian's {name}: backend-cuda37/tools/toolchain.py {name} fetches it"),
        }
    }
    machines
}

/// The folder of `libcuda.so.1` in a driver that `toolchain.py` has fetched.
fn fetched(name: &str) -> Option<PathBuf> {
    let usual = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/cuda-toolchain"));
    let toolchain = env::var_os("GRAFT_CUDA_TOOLCHAIN").map_or(usual.to_owned(), PathBuf::from);
    holder(&toolchain.join(name))
}

fn holder(folder: &Path) -> Option<PathBuf> {
    let entries = folder.read_dir().ok()?.flatten().map(|entry| entry.path());
    let mut below = Vec::new();
    for path in entries {
        match path.file_name() {
            Some(name) if name == OsStr::new("libcuda.so.1") => return Some(folder.to_owned()),
            _ => below.extend(path.is_dir().then_some(path)),
        }
    }
    below.iter().find_map(|folder| holder(folder))
}

#[test]
fn it_is_listed_with_score_0_and_the_reason() {
    let emulated = tempfile::tempdir().unwrap();
    for machine in machines(&emulated) {
        let entry = machine.entry();
        let reason = entry["reason"].as_str().unwrap();
        println!("{} {}: {reason}", machine.asked, machine.driver.is_some());
        match machine.reason {
            Some(expected) => assert_eq!(reason, expected),
            None => {
                let known = [
                    "libcuda.so.1 not found",
                    "no CUDA device",
                    "the driver is too old",
                    "CUDA_ERROR_",
                ];
                let told = known.iter().any(|start| reason.starts_with(start))
                    || reason.contains("has compute capability")
                    || reason.contains("has too little memory");
                assert!(told, "{reason}");
            }
        }
        assert_eq!((&entry["score"], &entry["chosen"]), (&0.0.into(), &false.into()));
        assert_eq!(
            (&entry["error"], &entry["devices"]),
            (&Value::Null, &Value::Array(vec![]))
        );
    }
}

#[test]
fn asked_for_it_the_cpu_answers_with_a_warning() {
    let emulated = tempfile::tempdir().unwrap();
    for machine in machines(&emulated) {
        let (asked, on_cpu) = (machine.answer(&["--backend", "cuda37"]), machine.answer(&[]));
        assert!(asked.status.success());
        assert_eq!(asked.stdout, on_cpu.stdout);
        assert!(!asked.stdout.is_empty() && on_cpu.stderr.is_empty());
        assert_eq!(
            String::from_utf8(asked.stderr).unwrap(),
            format!(
                "warning: backend cuda37 cannot serve: {}; using cpu\n",
                machine.reason()
            )
        );
    }
}

#[test]
fn without_fallback_it_is_a_failure() {
    let emulated = tempfile::tempdir().unwrap();
    for machine in machines(&emulated) {
        let asked = machine.answer(&["--backend", "cuda37", "--no-fallback"]);
        assert_eq!(asked.status.code(), Some(1));
        let said = String::from_utf8(asked.stderr).unwrap();
        let reason = machine.reason();
        assert_eq!(
            said,
            format!("error: no backend can serve:\n  backend cuda37 cannot serve: {reason}\n")
        );
        assert!(asked.stdout.is_empty());
    }
}

#[test]
fn whoever_asks_for_nothing_is_told_nothing() {
    let emulated = tempfile::tempdir().unwrap();
    for machine in machines(&emulated) {
        let list = machine
            .command(&["backends", "--plugins", folder_of_host().to_str().unwrap()])
            .output()
            .unwrap();
        let text = String::from_utf8(list.stdout).unwrap();
        let line = text.lines().find(|line| line.contains(" cuda37 ")).unwrap();
        assert!(line.contains(&format!(" 0      {}", machine.reason())), "{text}");
        let usual = machine.answer(&["--no-fallback"]);
        assert!(usual.status.success() && usual.stderr.is_empty());
    }
}

fn folder_of_host() -> PathBuf {
    tests::host().parent().unwrap().to_owned()
}
