//! How a model's file comes into memory: it is mapped, and nothing else is needed; but its pages can be there sooner, and
//! be made to stay.

use std::{fs, sync::Arc, thread};

use models::gguf::{Gguf, GgufFile};

/// Brings the file's pages into memory while other things are done. Not where it is larger than the memory that is free: its
/// beginning would have to leave for its end.
pub fn prefetch(file: &Arc<Gguf>) {
    if mapped(file) == 0 || available().is_some_and(|available| mapped(file) > available) {
        return;
    }
    let file = file.clone();
    thread::spawn(move || file.prefetch());
}

/// Keeps the file's pages in memory. Where the system refuses, a warning says what to do.
pub fn lock(file: &Gguf) {
    if let Err(error) = file.lock() {
        let kibibytes = mapped(file).div_ceil(1 << 10);
        tracing::warn!(
            "--lock: {} cannot be kept in memory: {error}\nhint: `ulimit -l` must be {kibibytes} or more, or unlimited",
            file.name()
        );
    }
}

/// Bytes of its files that are mapped.
fn mapped(file: &Gguf) -> u64 {
    let files = file.files().iter().filter(|file| file.is_mapped());
    files.map(GgufFile::bytes).map(|bytes| bytes.len() as u64).sum()
}

/// Bytes of memory that can be had without taking it from somebody else, as Linux estimates them.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}
