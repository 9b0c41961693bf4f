//! What tests ask of the emulated driver, in `EMULATED_DRIVER`: words `NAME=NUMBER`, separated by spaces.
//!
//! - `version=10020` is a driver of CUDA 10.2,
//! - `devices`, `capability` (× 10) and `memory` (MiB) say what is there,
//! - `cuMemAlloc_v2@3=2`: the third call of a function, of this process, fails with that number; without `@3` every call,
//! - `compiler@3=218`: so does the third compilation of a module, with words in the log.
//!
//! After an error that spoils a context, as an uncorrectable one of the memory, every call in it fails so, until it is released.

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// The numbers of errors, their names and words.
const ERRORS: [(u32, &str, &str); 15] = [
    (1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"),
    (2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"),
    (100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"),
    (101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"),
    (201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"),
    (
        214,
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        "uncorrectable ECC error encountered",
    ),
    (
        217,
        "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED",
        "peer access is not supported between these two devices",
    ),
    (218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"),
    (
        222,
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        "the provided PTX was compiled with an unsupported toolchain.",
    ),
    (500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"),
    (
        700,
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "an illegal memory access was encountered",
    ),
    (
        704,
        "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED",
        "peer access is already enabled",
    ),
    (719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"),
    (
        900,
        "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
        "operation not permitted when stream is capturing",
    ),
    (999, "CUDA_ERROR_UNKNOWN", "unknown error"),
];

/// Errors after which nothing of a context can be used.
const SPOILING: [u32; 4] = [214, 700, 719, 999];

/// A word of the list.
struct Word {
    name: String,
    /// Which call of a function is meant; 0: each.
    call: u32,
    number: u32,
    calls: AtomicU32,
}

static WORDS: LazyLock<Vec<Word>> = LazyLock::new(|| {
    let text = std::env::var("EMULATED_DRIVER").unwrap_or_default();
    text.split_whitespace().map(word).collect()
});

fn word(text: &str) -> Word {
    let (name, number) = text.split_once('=').unwrap_or((text, ""));
    let (name, call) = name.split_once('@').unwrap_or((name, "0"));
    match (call.parse(), number.parse()) {
        (Ok(call), Ok(number)) => Word {
            name: name.to_owned(),
            call,
            number,
            calls: AtomicU32::new(0),
        },
        _ => panic!("EMULATED_DRIVER: {text}: expected NAME[@CALL]=NUMBER"),
    }
}

/// The number that was asked for under this name.
pub fn number(name: &str) -> Option<u32> {
    WORDS.iter().find(|word| word.name == name).map(|word| word.number)
}

/// The error that this call of a function was asked to have.
pub fn fault(function: &str) -> Option<u32> {
    let mut here = WORDS.iter().filter(|word| word.name == function);
    let meant = |word: &&Word| {
        let call = word.calls.fetch_add(1, Relaxed) + 1;
        word.call == 0 || word.call == call
    };
    here.find(meant).map(|word| word.number)
}

/// Whether nothing of a context can be used after this error.
pub fn spoils(error: u32) -> bool {
    SPOILING.contains(&error)
}

/// The name and the words of an error.
pub fn described(error: u32) -> (&'static str, &'static str) {
    let known = ERRORS.iter().find(|(number, ..)| *number == error);
    known.map_or(("CUDA_ERROR_UNKNOWN", "unknown error"), |(_, name, words)| {
        (name, words)
    })
}
