//! Model files that are damaged or lie: every one is refused with its name and fault, or runs. Nothing crashes, hangs or
//! takes memory without bounds.

mod changed;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use backend_api::types::Type;
use models::{
    architecture::Model,
    gguf::{Gguf, GgufWriter, TensorType, Value},
    graph::Shape,
    template::{ChatTemplate, Prompt},
    tokenizer::{Special, Tokenizer},
};
use tempfile::TempDir;

/// Address space of a program under test, in KiB: what it needs, and no room for a number from a broken file.
const MEMORY_KIB: u64 = 4 << 20;
const SECONDS: u64 = 30;

const QWEN2: &str = "qwen2-q8_0.gguf";
const GEMMA3: &str = "gemma3-q8_0.gguf";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

struct Ran {
    code: Option<i32>,
    stderr: String,
}

/// Runs `host` within limits of memory and time; a time that is over shows as code 137, a signal as 128 and more.
fn host(arguments: &[&str]) -> Ran {
    let script = format!("ulimit -c 0; ulimit -v {MEMORY_KIB}; exec timeout -s KILL {SECONDS} \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(tests::host())
        .args(arguments)
        .env("XDG_CACHE_HOME", tests::host().with_file_name("test-cache"))
        .env_remove("GRAFT_PLUGINS")
        .env_remove("GRAFT_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether a program that was given a bad `file` did well: success, or a failure that names the file.
fn verdict(ran: &Ran, file: &Path) -> Result<(), String> {
    let told = ran.stderr.contains(&file.display().to_string()) && ran.stderr.contains("error: ");
    match ran.code {
        _ if ran.stderr.contains("panicked") => Err(format!("a panic: {}", ran.stderr)),
        Some(0) => Ok(()),
        Some(1) if told || ran.stderr.contains("the model's output is broken") => Ok(()),
        code => Err(format!("code {code:?}: {}", ran.stderr)),
    }
}

/// Numbers that look random and are the same in every run (Steele et al., "SplitMix", 2014).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// A model file, to be damaged.
struct Original {
    name: &'static str,
    bytes: Vec<u8>,
    /// Where the tensors' data start.
    data: usize,
}

impl Original {
    fn all() -> Vec<Original> {
        let read = |name| {
            let bytes = fs::read(fixture(name)).unwrap();
            let gguf = Gguf::open(&fixture(name)).unwrap();
            let data = gguf.tensors().iter().map(|t| t.offset).min().unwrap() as usize;
            Original { name, bytes, data }
        };
        [QWEN2, GEMMA3].map(read).into()
    }

    /// A few bytes of the header are changed: in its first keys, in the tensors' records, or anywhere.
    fn flipped(&self, numbers: &mut Numbers) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for _ in 0..1 + numbers.below(3) {
            let at = match numbers.below(3) {
                0 => numbers.below(1500),
                1 => self.data - 1 - numbers.below(3500),
                _ => numbers.below(self.data),
            };
            match numbers.below(4) {
                0 => bytes[at] = 0xff,
                1 => bytes[at] = 0,
                2 => bytes[at] ^= 1 << numbers.below(8),
                _ => bytes[at] = numbers.below(256) as u8,
            }
        }
        bytes
    }

    /// Bytes of the weights are changed.
    fn wrong_weights(&self, numbers: &mut Numbers) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for _ in 0..2000 {
            let at = self.data + numbers.below(bytes.len() - self.data);
            bytes[at] = numbers.below(256) as u8;
        }
        bytes
    }

    /// Lengths to cut at: around the header's parts and evenly over the file.
    fn cuts(&self) -> BTreeSet<usize> {
        let begin = [0, 1, 3, 4, 7, 8, 15, 16, 23, 24, 25, 31, 32, 33, 40, 100, 1000];
        let header = (1..20).map(|i| self.data * i / 20);
        let around = [self.data - 40, self.data - 1, self.data, self.data + 1];
        let rest = (0..20).map(|i| self.data + (self.bytes.len() - self.data) * i / 20);
        begin
            .into_iter()
            .chain(header)
            .chain(around)
            .chain(rest)
            .chain([self.bytes.len() - 1])
            .collect()
    }
}

/// Files that are damaged by chance, each with a name that says how.
fn damaged() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for original in Original::all() {
        let name = original.name.trim_end_matches(".gguf");
        for cut in original.cuts() {
            files.push((format!("{name}-cut-{cut}.gguf"), original.bytes[..cut].to_vec()));
        }
        for seed in 0..250 {
            files.push((
                format!("{name}-flipped-{seed}.gguf"),
                original.flipped(&mut Numbers(seed)),
            ));
        }
        for seed in 0..8 {
            files.push((
                format!("{name}-weights-{seed}.gguf"),
                original.wrong_weights(&mut Numbers(seed)),
            ));
        }
    }
    files
}

/// Calls `act` with every index below `count` on two threads, and collects what went wrong.
fn on_two_threads(count: usize, act: impl Fn(usize) -> Result<(), String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut faults = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return faults;
            }
            faults.extend(act(index).err());
        }
    };
    thread::scope(|scope| {
        let workers = [(); 2].map(|()| scope.spawn(work));
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn damaged_files_are_refused_by_name_or_run() {
    let (folder, files) = (tempfile::tempdir().unwrap(), damaged());
    assert!(files.len() >= 300, "{} files", files.len());
    let faults = on_two_threads(files.len(), |index| {
        let (name, bytes) = &files[index];
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let text = path.to_str().unwrap();
        let commands: [&[&str]; 3] = [
            &["run", text, "--raw", "x", "--predict", "1", "--threads", "1"],
            &["inspect", text, "--tensors"],
            &["tokenize", text, "To be, or not to be"],
        ];
        let asked = if index.is_multiple_of(5) {
            &commands[..]
        } else {
            &commands[..1]
        };
        let verdicts = asked.iter().try_for_each(|arguments| {
            verdict(&host(arguments), &path).map_err(|fault| format!("{arguments:?}: {fault}"))
        });
        fs::remove_file(&path).unwrap();
        verdicts
    });
    assert_none(&faults);
}

/// All that a program does with a file before a backend sees it.
fn load(bytes: Vec<u8>) -> Result<(), String> {
    let file = Gguf::from_bytes("damaged", bytes).map_err(|error| error.to_string())?;
    if let Ok(tokenizer) = Tokenizer::from_gguf(&file, None) {
        let tokens = tokenizer.encode("To be, or <|im_start|>not to be?", Special::Parse);
        tokens
            .iter()
            .for_each(|&token| assert!(tokenizer.piece_escaped(token).is_ok()));
    }
    if let Ok(Some(template)) = ChatTemplate::from_gguf(&file) {
        template.render(&Prompt::default()).ok();
    }
    let model = Model::load(&file).map_err(|error| error.to_string())?;
    let shape = Shape {
        tokens: 8,
        rows: 1,
        sequences: 1,
        context: 64,
        page_tokens: 64,
        pages: vec![1; model.cache().windows.len()],
        cache_types: [Type::F16; 2],
    };
    assert!(!model.graph(&shape).nodes.is_empty());
    Ok(())
}

#[test]
fn thousands_of_damaged_headers_cause_no_panic() {
    const EACH: usize = 4000;
    let originals = Original::all();
    let faults = on_two_threads(EACH * originals.len(), |index| {
        let original = &originals[index / EACH];
        let bytes = original.flipped(&mut Numbers(1000 + index as u64));
        let loaded = catch_unwind(AssertUnwindSafe(|| load(bytes)));
        loaded
            .map(drop)
            .map_err(|_| format!("{} with seed {} panicked", original.name, 1000 + index))
    });
    assert_none(&faults);
}

#[test]
fn a_file_that_is_cut_while_it_is_used_ends_in_a_message_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::copy(fixture(GEMMA3), &path).unwrap();
    let mut child = Command::new(tests::host())
        .args([
            "run",
            path.to_str().unwrap(),
            "ROMEO:",
            "--raw",
            "--predict",
            "1000000",
            "--ignore-eos",
        ])
        .env("XDG_CACHE_HOME", tests::host().with_file_name("test-cache"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 20]).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
    // its pipe must not be what stops it
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    let ended = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{message}");
    assert!(
        message.contains(&format!(
            "error: {}: the file changed while it was in use",
            path.display()
        )),
        "{message}"
    );
}
