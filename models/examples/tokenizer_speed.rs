//! How long vocabularies of 262,144 pieces take to load, and texts made to be hard to encode.
//!
//! `cargo run --release -p models --example tokenizer_speed`

use std::hint::black_box;
use std::time::Instant;

use models::gguf::{Gguf, GgufWriter, Strings, Value};
use models::tokenizer::{Special, Tokenizer};

const PIECES: usize = 262_144;
const MERGES: usize = 500_000;
const TEXT: usize = 1_000_000;

/// Pieces of up to 16 letters, each but the first 26 made of two earlier ones; and all the ways to make them.
fn words() -> (Vec<String>, Vec<String>) {
    let mut words: Vec<String> = ('a'..='z').map(String::from).collect();
    let mut known: std::collections::HashSet<String> = words.iter().cloned().collect();
    let mut merges = Vec::new();
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    while words.len() < PIECES - 512 {
        let (left, right) = (&words[random(words.len())], &words[random(words.len().min(2000))]);
        let word = format!("{left}{right}");
        if word.len() <= 16 && known.insert(word.clone()) {
            merges.push(format!("{left} {right}"));
            words.push(word);
        }
    }
    for word in words.iter().skip(26).cycle() {
        if merges.len() >= MERGES {
            break;
        }
        let (left, right) = word.split_at(1 + random(word.len() - 1));
        if known.contains(left) && known.contains(right) {
            merges.push(format!("{left} {right}"));
        }
    }
    (words, merges)
}

fn gguf(model: &str, pieces: &[String], types: Vec<i32>, more: (&str, Value)) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "test");
    writer.set("tokenizer.ggml.model", model);
    writer.set("tokenizer.ggml.pre", "gpt-4o");
    writer.set("tokenizer.ggml.tokens", pieces.iter().collect::<Strings>());
    writer.set("tokenizer.ggml.token_type", types);
    writer.set(more.0, more.1);
    writer.to_bytes()
}

fn byte_level(words: &[String], merges: &[String]) -> Vec<u8> {
    let letters = ('!'..='~')
        .chain('¡'..='¬')
        .chain('®'..='ÿ')
        .chain('\u{100}'..='\u{143}')
        .map(String::from);
    let pieces: Vec<String> = letters.chain(words.iter().skip(26).cloned()).collect();
    let types = vec![1; pieces.len()];
    gguf(
        "gpt2",
        &pieces,
        types,
        ("tokenizer.ggml.merges", merges.iter().collect::<Strings>().into()),
    )
}

/// With 6,400 control pieces, as gemma has.
fn sentence_piece(words: &[String]) -> Vec<u8> {
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let controls = (0..6400).map(|index| format!("<unused{index}>"));
    let pieces: Vec<String> = bytes
        .chain(controls)
        .chain(words.iter().cloned())
        .take(PIECES)
        .collect();
    let types = [vec![6; 256], vec![3; 6400], vec![1; pieces.len() - 6656]].concat();
    let scores: Vec<f32> = (0..pieces.len()).map(|index| -(index as f32)).collect();
    gguf("llama", &pieces, types, ("tokenizer.ggml.scores", scores.into()))
}

fn measure<T>(what: &str, run: impl Fn() -> T) {
    let mut times = [(); 5].map(|()| {
        let start = Instant::now();
        black_box(run());
        start.elapsed().as_secs_f64() * 1e3
    });
    times.sort_by(f64::total_cmp);
    println!(
        "{what}: {:.1} ms (median of 5; {:.1} to {:.1})",
        times[2], times[0], times[4]
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (words, merges) = words();
    println!("{} pieces, {} merges", words.len() + 230, merges.len());
    for (name, bytes) in [("gpt2", byte_level(&words, &merges)), ("llama", sentence_piece(&words))] {
        measure(&format!("{name}: read the file"), || {
            Gguf::from_bytes("speed.gguf", bytes.clone())
        });
        let gguf = Gguf::from_bytes("speed.gguf", bytes)?;
        measure(&format!("{name}: load the tokenizer"), || {
            Tokenizer::from_gguf(&gguf, None)
        });
        let tokenizer = Tokenizer::from_gguf(&gguf, None)?;
        for piece in [
            "a",
            " ",
            "\n",
            "the quick brown fox, 12345 jumped! ",
            "😁",
            " \n",
            "aA",
            "<",
        ] {
            let text = piece.repeat(TEXT / piece.len());
            measure(&format!("{name}: encode 1 MB of {piece:?}"), || {
                tokenizer.encode(&text, Special::Parse)
            });
        }
    }
    Ok(())
}
