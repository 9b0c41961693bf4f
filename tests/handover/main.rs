//! Devices that fail, at any call, while a model is loaded or answers: the same answer comes from what is left, or a clear
//! error where nothing else may run; and no device stays open.

mod cases;

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tests::{KERNELS, cpu_backend};

/// Nothing takes so long but a program that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

const PROMPT: &str = "ROMEO: But soft, what light through yonder window breaks? It is the east, and Juliet is the sun.";

/// Steps of 8 tokens and fewer give the same bits, however a sequence is cut into them.
const USUAL: [&str; 5] = ["--raw", "--ignore-eos", "--json", "--batch-size", "8"];

/// A folder with the program and the cards that fail, and the CPU backend where that is wanted too.
struct Machine {
    folder: TempDir,
}

/// What came of a run.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    /// What the cards wrote when they were opened and closed.
    log: String,
}

impl Machine {
    fn new(with_cpu: bool) -> Machine {
        let folder = tests::installed();
        let cards = tests::build("tests/failing-backend", &[]);
        fs::copy(cards, folder.path().join("failing.so")).unwrap();
        if with_cpu {
            fs::copy(cpu_backend(), folder.path().join("cpu.so")).unwrap();
        }
        Machine { folder }
    }

    /// The embedded model's answer, with these faults.
    fn run(&self, faults: &str, arguments: &[&str]) -> Ran {
        self.run_with(&[("FAIL_AT", faults)], arguments)
    }

    fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
        let own = tempfile::tempdir().unwrap();
        let path = |name: &str| own.path().join(name);
        let mut host = Command::new(self.folder.path().join("host"));
        host.args(["run", "embedded", PROMPT]).args(USUAL).args(arguments);
        for variable in ["GRAFT_PLUGINS", "GRAFT_LOG", KERNELS] {
            host.env_remove(variable);
        }
        host.env("XDG_CACHE_HOME", self.folder.path());
        host.envs(variables.iter().copied()).env("FAIL_LOG", path("log"));
        host.stdout(File::create(path("stdout")).unwrap());
        host.stderr(File::create(path("stderr")).unwrap()).stdin(Stdio::null());
        let mut child = host.spawn().unwrap();
        let start = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{variables:?} {arguments:?} hangs: {}", text(&path("stderr")));
            }
            thread::sleep(Duration::from_millis(2));
        };
        Ran {
            code,
            stdout: text(&path("stdout")),
            stderr: text(&path("stderr")),
            log: text(&path("log")),
        }
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

impl Ran {
    /// The report of a run that succeeded.
    fn report(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    fn tokens(&self) -> Value {
        self.report()["tokens"].clone()
    }

    /// The devices that failed while it answered, and where it went on each time.
    fn hand_overs(&self) -> Vec<(String, Vec<String>)> {
        let report = self.report();
        let name = |name: &Value| name.as_str().unwrap().split(' ').next().unwrap().to_owned();
        let devices = |of: &Value| of["devices"].as_array().unwrap().iter().map(name).collect();
        let list = report["hand_overs"].as_array().into_iter().flatten();
        list.map(|of| (name(&of["from"]), devices(of))).collect()
    }

    /// Every card that was opened was closed, which gives back its memory; and no card is opened again while it is open, or
    /// after it failed.
    fn check_cards(&self) {
        let mut open = Vec::new();
        for line in self.log.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["opened", card] => {
                    assert!(!open.contains(&card), "{}", self.log);
                    open.push(card);
                }
                ["closed", card, ..] => {
                    assert!(line.ends_with("held by 0 others"), "{}", self.log);
                    open.retain(|other| *other != card);
                }
                _ => panic!("{line}"),
            }
        }
        assert!(open.is_empty(), "{open:?} stayed open:\n{}", self.log);
    }
}
