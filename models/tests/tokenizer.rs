//! Tokens and texts against what the reference tokenizers say of the same vocabularies.

use std::path::{Path, PathBuf};

use models::gguf::Gguf;
use models::tokenizer::{Controls, Decoder, Pattern, Special, Tokenizer};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_gguf(&Gguf::open(&fixture(name)).unwrap(), None).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[rstest]
#[case("qwen2-f32")]
#[case("qwen2-q8_0")]
#[case("gemma3-q8_0")]
#[case("gemma3n-q8_0")]
#[case("gptoss-q8_0")]
fn texts_become_the_references_tokens(#[case] name: &str) {
    let tokenizer = tokenizer(&format!("{name}.gguf"));
    let facts: Value = serde_json::from_slice(&std::fs::read(fixture(&format!("{name}.json"))).unwrap()).unwrap();
    let cases = facts["tokenize"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let (text, tokens) = (case["text"].as_str().unwrap(), ids(&case["tokens"]));
        assert_eq!(tokenizer.encode(text, Special::Parse), tokens, "{text:?}");
        assert_eq!(tokenizer.decode(&tokens, Controls::Show).unwrap(), text);
    }
    let greedy = tokenizer.decode(&ids(&facts["greedy_tokens"]), Controls::Show).unwrap();
    assert_eq!(greedy, facts["greedy_text"].as_str().unwrap());
}

#[rstest]
#[case("gpt-2")]
#[case("llama-bpe")]
#[case("llama-spm")]
#[case("qwen2")]
fn real_vocabularies_give_the_recorded_tokens(#[case] name: &str) {
    let tokenizer = tokenizer(&format!("vocab/{name}.gguf"));
    let texts = std::fs::read_to_string(fixture(&format!("vocab/{name}.inp"))).unwrap();
    let tokens = std::fs::read_to_string(fixture(&format!("vocab/{name}.out"))).unwrap();
    let texts: Vec<&str> = texts.split_terminator("\n__ggml_vocab_test__\n").collect();
    assert_eq!(texts.len(), tokens.lines().count());
    for (text, line) in texts.iter().zip(tokens.lines()) {
        let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text, Special::Plain), expected, "{text:?}");
        assert_eq!(tokenizer.decode(&expected, Controls::Show).unwrap(), *text);
    }
}
