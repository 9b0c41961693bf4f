//! Asking a plugin for its score in a child process: a plugin that crashes or hangs takes that one down.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{Plugin, answer::words, error::PluginError, listing::Listing, seen};

/// Name of the hidden subcommand that [`answer`]s in the child process.
pub const SUBCOMMAND: &str = "probe-plugin";

/// The most bytes of an answer that are read.
const ANSWER_BYTES: u64 = 1 << 20;

/// How long an answer may take to arrive once the child has ended.
const DRAIN: Duration = Duration::from_secs(1);

/// How plugins that were never seen before are asked.
#[derive(Clone, Debug)]
pub struct Prober {
    /// The `host` executable.
    pub executable: PathBuf,
    /// A child that needs longer is ended.
    pub time_limit: Duration,
    /// The file that remembers which plugins were asked before; nothing asks all of them each time.
    pub seen: Option<PathBuf>,
}

impl Prober {
    /// With this executable, 10 s, and the file in the user's cache.
    pub fn new() -> io::Result<Self> {
        Ok(Prober {
            executable: std::env::current_exe()?,
            time_limit: Duration::from_secs(10),
            seen: seen::default_file(),
        })
    }

    /// Loads the plugin in a child process and asks for its score and devices there.
    pub(super) fn ask(&self, path: &Path) -> Answer {
        let failed = |error| Answer {
            error: Some(error),
            ..Answer::default()
        };
        let started = Command::new(&self.executable)
            .arg(SUBCOMMAND)
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match started {
            Ok(child) => self.follow(child).unwrap_or_else(|error| failed(self.unusable(error))),
            Err(error) => failed(self.unusable(error)),
        }
    }

    fn unusable(&self, error: io::Error) -> PluginError {
        PluginError::Probe {
            program: self.executable.clone(),
            error,
        }
    }

    /// Waits for the child's end and takes the last that it said.
    fn follow(&self, mut child: Child) -> io::Result<Answer> {
        let (answers, complaints) = (child.stdout.take().map(drain), child.stderr.take().map(drain));
        let status = wait(&mut child, self.time_limit)?;
        let reported = last_report(&drained(answers));
        let error = match (status, &reported) {
            (None, _) => Some(PluginError::TooSlow(self.time_limit)),
            (Some(status), _) if !status.success() => Some(PluginError::Died {
                status,
                said: last_line(&drained(complaints)),
            }),
            (Some(_), None) => Some(PluginError::NoAnswer),
            (Some(_), Some(report)) => report.error.as_deref().map(words).map(PluginError::Reported),
        };
        let Report { name, version, .. } = reported.unwrap_or_default();
        let [name, version] = [name, version].map(|said| said.as_deref().map(words));
        Ok(Answer { name, version, error })
    }
}

/// Reads a pipe to its end in a thread. Detached: a process that the plugin started may hold the pipe open for longer
/// than anybody waits.
fn drain(pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut said = Vec::new();
        let _ = pipe.take(ANSWER_BYTES).read_to_end(&mut said);
        sender.send(said)
    });
    receiver
}

/// What was drained; nothing if the pipe's end did not come.
fn drained(pipe: Option<mpsc::Receiver<Vec<u8>>>) -> Vec<u8> {
    pipe.and_then(|pipe| pipe.recv_timeout(DRAIN).ok()).unwrap_or_default()
}

/// What came out of asking in a child process. Name and version are there if the plugin could be loaded.
#[derive(Default)]
pub(super) struct Answer {
    pub name: Option<String>,
    pub version: Option<String>,
    pub error: Option<PluginError>,
}

/// What the parent needs of a [`Listing`].
#[derive(Default, Deserialize)]
struct Report {
    name: Option<String>,
    version: Option<String>,
    error: Option<String>,
}

/// The last line that is a report; the plugin itself may have written others.
fn last_report(said: &[u8]) -> Option<Report> {
    let mut lines = said.split(|byte| *byte == b'\n').rev();
    lines.find_map(|line| serde_json::from_slice(line).ok())
}

/// The last line of words, for the person who looks for the cause.
fn last_line(said: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(words(line).chars().take(200).collect())
}

/// The child's status; nothing if it was ended because it ran longer than `limit`.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The child's part: loads the plugin at `path`, asks it, and writes to `out` what became known, a JSON line after each
/// stage, so that a plugin that ends the process is known by its name.
pub fn answer(path: &Path, out: &mut dyn Write) -> io::Result<()> {
    leave_no_core();
    let mut plugin = Plugin::at(path.into());
    plugin.load();
    report(&plugin, out)?;
    if plugin.error.is_none() {
        plugin.ask();
        report(&plugin, out)?;
    }
    Ok(())
}

fn report(plugin: &Plugin, out: &mut dyn Write) -> io::Result<()> {
    // The plugin may have left a line unfinished.
    writeln!(out, "\n{}", serde_json::to_string(&Listing::new(plugin, false))?)?;
    out.flush()
}

/// A crash here is expected and handled; its core file would surprise.
fn leave_no_core() {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is valid during the call, which only reads it.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program in the place of `host` that does this.
    fn asked(script: &str) -> Answer {
        let folder = tempfile::tempdir().unwrap();
        let executable = folder.path().join("host");
        std::fs::write(&executable, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&executable, std::fs::Permissions::from_mode(0o755)).unwrap();
        let prober = Prober {
            executable,
            time_limit: Duration::from_secs(2),
            seen: None,
        };
        prober.ask(Path::new("/plugins/x.so"))
    }

    fn error_of(script: &str) -> String {
        asked(script).error.unwrap().to_string()
    }

    #[test]
    fn the_last_report_counts_whatever_else_is_written() {
        let answer =
            asked(r#"echo '{"name":"x"}'; echo hello; printf 'half a line'; printf '\n{"name":"y","version":"2"}\n'"#);
        assert_eq!(answer.name.as_deref(), Some("y"));
        assert_eq!(answer.version.as_deref(), Some("2"));
        assert!(answer.error.is_none());
    }

    #[test]
    fn a_child_that_dies_or_is_silent_or_slow_is_an_error() {
        assert_eq!(
            error_of("kill -ABRT $$"),
            "the process that asked for its score ended with signal: 6 (SIGABRT)"
        );
        assert_eq!(
            error_of("exit 3"),
            "the process that asked for its score ended with exit status: 3"
        );
        assert_eq!(
            error_of("echo first >&2; echo undefined symbol: x >&2; exit 127"),
            "the process that asked for its score ended with exit status: 127 (undefined symbol: x)"
        );
        assert_eq!(error_of("true"), "the process that asked for its score gave no answer");
        assert_eq!(error_of("exec sleep 30"), "it gave no score within 2 s");
    }

    #[test]
    fn what_was_said_before_the_end_is_known() {
        let answer = asked(r#"echo '{"name":"x","version":"1"}'; kill -SEGV $$"#);
        assert_eq!(answer.name.as_deref(), Some("x"));
        assert!(matches!(answer.error, Some(PluginError::Died { .. })));
    }

    #[test]
    fn a_process_that_the_plugin_left_behind_is_not_waited_for() {
        let start = Instant::now();
        let answer = asked(r#"echo '{"name":"x"}'; sleep 10 & exit 0"#);
        assert!(start.elapsed() < Duration::from_secs(8));
        assert!(matches!(answer.error, Some(PluginError::NoAnswer)));
    }

    #[test]
    fn a_missing_program_is_named() {
        let prober = Prober {
            executable: "/nowhere/host".into(),
            time_limit: Duration::from_secs(1),
            seen: None,
        };
        let error = prober.ask(Path::new("/plugins/x.so")).error.unwrap().to_string();
        assert!(error.contains("/nowhere/host: No such file"), "{error}");
    }
}
