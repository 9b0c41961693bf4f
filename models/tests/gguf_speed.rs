//! Opening a model with a large vocabulary takes an instant.

use std::time::{Duration, Instant};

use models::gguf::{Gguf, GgufWriter, Strings};

const TOKENS: usize = 262_144;

#[test]
#[ignore = "a timing: run it alone, with --release"]
fn a_vocabulary_of_262144_tokens_opens_in_under_60_ms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.gguf");
    let mut writer = GgufWriter::new();
    writer.set(
        "tokenizer.ggml.tokens",
        (0..TOKENS).map(|i| format!("▁token{i}")).collect::<Strings>(),
    );
    writer.set(
        "tokenizer.ggml.merges",
        (0..TOKENS).map(|i| format!("▁to ken{i}")).collect::<Strings>(),
    );
    writer.set("tokenizer.ggml.scores", vec![-1.0f32; TOKENS]);
    writer.set("tokenizer.ggml.token_type", vec![1i32; TOKENS]);
    writer.write(&path).unwrap();
    let open = || {
        let start = Instant::now();
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(gguf.metadata().strings("tokenizer.ggml.merges").unwrap().len(), TOKENS);
        start.elapsed()
    };
    let fastest = (0..10).map(|_| open()).min().unwrap();
    println!("{fastest:?}");
    assert!(fastest < Duration::from_millis(60), "{fastest:?}");
}
