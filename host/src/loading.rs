//! How a model's file comes into memory: it is mapped, and nothing else is needed; but its pages can be there sooner, and
//! be made to stay.

use std::{sync::Arc, thread};

use backend_api::machine;
use models::gguf::{Gguf, GgufFile};

/// Brings the file's pages into memory while other things are done. Not where it is larger than the memory that is free: its
/// beginning would have to leave for its end.
pub fn prefetch(file: &Arc<Gguf>) {
    if mapped(file) == 0 || mapped(file) > machine::free() {
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
