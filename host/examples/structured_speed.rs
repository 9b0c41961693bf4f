//! What it costs to hold answers to a form in vocabularies of 128,256 to 262,144 tokens: once a model (the trie), once a
//! form (compiling), and for each token.
//!
//! `cargo run --release -p host --example structured_speed`

use std::{
    path::Path,
    time::{Duration, Instant},
};

use host::structured::{Format, Formats};
use models::{
    gguf::{Gguf, GgufWriter, Strings},
    tokenizer::{Special, Tokenizer},
};

const PIECES: usize = 262_144;
const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "founded": {"type": "integer", "minimum": -3000, "maximum": 2100},
        "rivers": {"type": "array", "items": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 40}, "kilometres": {"type": "number"}},
            "required": ["name", "kilometres"],
            "additionalProperties": false
        }},
        "capital": {"type": "boolean"}
    },
    "required": ["city", "founded", "rivers", "capital"],
    "additionalProperties": false
}"#;
const DOCUMENT: &str = r#"{"city": "Frankfurt am Main", "founded": 794, "rivers": [{"name": "Main", "kilometres": 527.1},
 {"name": "Nidda, which joins the Main at Höchst", "kilometres": 89.7}], "capital": false}"#;

/// A SentencePiece vocabulary of letters in any combination, the shorter ones first.
fn synthetic() -> Tokenizer {
    let mut pieces: Vec<String> = ["<unk>", "<bos>", "<eos>"].map(String::from).into();
    let mut types = vec![2, 3, 3];
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    pieces.extend(bytes);
    types.resize(pieces.len(), 6);
    pieces.push("▁".into());
    let mut words: Vec<String> = ["", "▁"].map(String::from).into();
    for length in 0.. {
        let longer = |word: &String| ('a'..='z').map(|letter| format!("{word}{letter}")).collect::<Vec<_>>();
        words = words.iter().flat_map(longer).collect();
        // every third of the longer ones, so that there are words of five letters too
        let kept = words.iter().step_by(if length < 2 { 1 } else { 3 });
        pieces.extend(kept.take(PIECES - pieces.len()).cloned());
        if pieces.len() == PIECES {
            break;
        }
    }
    types.resize(PIECES, 1);
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "test");
    writer.set("tokenizer.ggml.model", "llama");
    writer.set(
        "tokenizer.ggml.scores",
        (0..PIECES).map(|i| -(i as f32)).collect::<Vec<_>>(),
    );
    writer.set("tokenizer.ggml.tokens", pieces.iter().collect::<Strings>());
    writer.set("tokenizer.ggml.token_type", types);
    writer.set("tokenizer.ggml.add_space_prefix", false);
    writer.set("tokenizer.ggml.bos_token_id", 1u32);
    writer.set("tokenizer.ggml.eos_token_id", 2u32);
    writer.set("tokenizer.ggml.unknown_token_id", 0u32);
    let gguf = Gguf::from_bytes("synthetic", writer.to_bytes()).expect("a vocabulary");
    host::model::tokenizer(&gguf).expect("a tokenizer")
}

fn fixture(name: &str) -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/vocab")
        .join(name);
    let gguf = Gguf::open(&path).expect("the fixture");
    host::model::tokenizer(&gguf).expect("a tokenizer")
}

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let made = act();
    (made, start.elapsed())
}

/// The time of each token that follows the document, or a choice among those allowed where it gives none.
fn walk(tokenizer: &Tokenizer, format: &Format, document: Option<&str>, most: usize) -> Vec<Duration> {
    let mut script = document.map(|text| tokenizer.encode(text, Special::Plain).into_iter());
    let mut constraint = format.constraint();
    let mut logits = vec![0.0; tokenizer.vocabulary_size()];
    let (mut state, mut times) = (1u64, Vec::new());
    while times.len() < most {
        if constraint.is_finished() {
            constraint = format.constraint();
        }
        logits.fill(0.0);
        let (restricted, mask) = timed(|| constraint.restrict(&mut logits, &[]));
        restricted.expect("a token that can follow");
        let token = match &mut script {
            Some(script) => match script.next() {
                Some(token) => token,
                None => break,
            },
            None => {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let allowed: Vec<u32> = (0..).zip(&logits).filter(|(_, l)| **l == 0.0).map(|(t, _)| t).collect();
                allowed[(state >> 33) as usize % allowed.len()]
            }
        };
        assert_eq!(logits[token as usize], 0.0, "the document is in the form");
        let (accepted, accept) = timed(|| constraint.accept(token));
        accepted.expect("a token that was allowed");
        times.push(mask + accept);
    }
    times
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let at = |fraction: f64| micros(times[((times.len() - 1) as f64 * fraction) as usize]);
    let mean = micros(times.iter().sum::<Duration>()) / times.len() as f64;
    println!(
        "  {what:<28} {:>5} tokens   mean {mean:>7.1} µs   median {:>7.1}   99 % {:>7.1}   most {:>8.1}",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn main() {
    let vocabularies = [
        ("llama-bpe", fixture("llama-bpe.gguf")),
        ("qwen2", fixture("qwen2.gguf")),
        ("synthetic, SentencePiece", synthetic()),
    ];
    for (name, tokenizer) in &vocabularies {
        let (formats, trie) = timed(|| Formats::new(tokenizer).expect("a vocabulary"));
        let (json, compile_json) = timed(|| formats.json().expect("a form"));
        let (schema, compile_schema) = timed(|| formats.schema(SCHEMA).expect("a form"));
        println!("{name}: {} tokens", tokenizer.vocabulary_size());
        println!("  trie {trie:.1?}, compiling `json` {compile_json:.1?}, a schema {compile_schema:.1?}");
        report("json, a document", walk(tokenizer, &json, Some(DOCUMENT), 1000));
        report(
            "schema, the same document",
            walk(tokenizer, &schema, Some(DOCUMENT), 1000),
        );
        report("json, any tokens", walk(tokenizer, &json, None, 1000));
        report("schema, any tokens", walk(tokenizer, &schema, None, 1000));
    }
}
