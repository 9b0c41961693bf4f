//! Any bytes are either a sound model or an error: nothing panics, and every tensor's data can be read.
//!
//! `cargo fuzz run gguf corpus/gguf seeds -- -max_len=65536 -malloc_limit_mb=64`, with a nightly compiler or
//! `RUSTC_BOOTSTRAP=1`; the limit holds the reader to allocations that the bytes justify.

#![no_main]

use libfuzzer_sys::fuzz_target;
use models::gguf::{Gguf, GgufWriter, Metadata};

/// Copies are padded to the alignment, which a few bytes may set to gigabytes.
const LARGEST_ALIGNMENT: u64 = 4096;

fuzz_target!(|bytes: &[u8]| {
    match Gguf::from_bytes("fuzz", bytes.to_vec()) {
        Ok(gguf) => check(&gguf),
        Err(error) => assert!(error.to_string().len() < 4096),
    }
});

fn check(gguf: &Gguf) {
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
        let data = gguf.data(tensor);
        assert_eq!(data.len() as u64, tensor.bytes);
        std::hint::black_box(data.iter().fold(0u8, |sum, byte| sum ^ byte));
    }
    gguf.metadata().iter().for_each(|(key, _)| ask(gguf.metadata(), key));
    if gguf.alignment() > LARGEST_ALIGNMENT {
        return;
    }
    let copy = Gguf::from_bytes("copy", GgufWriter::copy_of(gguf).to_bytes()).expect("a copy is sound");
    assert_eq!(copy.tensors().len(), gguf.tensors().len());
}

/// No value passes for two kinds.
fn ask(metadata: &Metadata, key: &str) {
    let numbers = metadata.u32(key).is_ok() || metadata.i32(key).is_ok() || metadata.u64(key).is_ok();
    let arrays = metadata.u32s(key).is_ok() || metadata.i32s(key).is_ok() || metadata.f32s(key).is_ok();
    let strings = metadata
        .strings(key)
        .is_ok_and(|strings| strings.iter().map(str::len).sum::<usize>() <= isize::MAX as usize);
    let others = [
        metadata.string(key).is_ok(),
        metadata.f32(key).is_ok(),
        metadata.bool(key).is_ok(),
    ];
    let taken = [numbers, arrays || strings || metadata.bools(key).is_ok()]
        .into_iter()
        .chain(others);
    assert!(taken.filter(|&took| took).count() <= 1);
}
