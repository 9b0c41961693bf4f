//! Tokens and texts against what the reference tokenizers say of the same vocabularies.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use models::gguf::Gguf;
use models::tokenizer::{Controls, Decoder, Kind, Pattern, Special, Tokenizer, unescape};
use proptest::prelude::*;
use rstest::rstest;
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(name)
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_gguf(&Gguf::open(&fixture(name)).unwrap(), None).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
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

#[test]
fn control_pieces_are_only_text_in_plain_mode() {
    for (name, text) in [
        ("qwen2-q8_0", "<|im_start|>user"),
        ("gemma3-q8_0", "a<end_of_turn>"),
        ("gptoss-q8_0", "<|end|>"),
    ] {
        let tokenizer = tokenizer(&format!("{name}.gguf"));
        let (plain, parsed) = (
            tokenizer.encode(text, Special::Plain),
            tokenizer.encode(text, Special::Parse),
        );
        assert!(
            plain.iter().all(|&token| tokenizer.kind(token) != Kind::Control),
            "{name}"
        );
        assert!(
            parsed.iter().any(|&token| tokenizer.kind(token) == Kind::Control),
            "{name}"
        );
        assert_eq!(tokenizer.decode(&plain, Controls::Hide).unwrap(), text);
        assert_eq!(tokenizer.decode(&parsed, Controls::Show).unwrap(), text);
        assert!(tokenizer.decode(&parsed, Controls::Hide).unwrap().len() < text.len());
    }
}

#[test]
fn user_defined_pieces_are_matched_in_both_modes() {
    let tokenizer = tokenizer("gemma3-q8_0.gguf");
    let newlines = tokenizer.token("\n\n\n").unwrap();
    assert_eq!(tokenizer.kind(newlines), Kind::UserDefined);
    for special in [Special::Plain, Special::Parse] {
        assert_eq!(tokenizer.encode("\n\n\n", special), [newlines]);
    }
}

#[rstest]
#[case("qwen2-q8_0.gguf", None, &["<|endoftext|>", "<|im_end|>"])]
#[case("gemma3-q8_0.gguf", Some("<s>"), &["</s>", "<end_of_turn>"])]
#[case("gptoss-q8_0.gguf", None, &["<|endoftext|>", "<|return|>", "<|call|>"])]
#[case("vocab/llama-bpe.gguf", Some("<|begin_of_text|>"), &["<|end_of_text|>", "<|eot_id|>"])]
#[case("vocab/llama-spm.gguf", Some("<s>"), &["</s>"])]
#[case("vocab/gpt-2.gguf", None, &["<|endoftext|>"])]
fn a_text_begins_and_ends_as_the_vocabulary_says(#[case] file: &str, #[case] bos: Option<&str>, #[case] ends: &[&str]) {
    let tokenizer = tokenizer(file);
    let added = tokenizer.bos().filter(|_| tokenizer.add_bos());
    assert_eq!(added, bos.map(|name| tokenizer.token(name).unwrap()));
    assert!(!tokenizer.add_eos());
    let names: Vec<_> = tokenizer
        .ends()
        .iter()
        .map(|&end| tokenizer.piece_escaped(end).unwrap())
        .collect();
    assert_eq!(names, ends);
}

#[test]
fn the_callers_pattern_goes_before_the_files() {
    let gguf = Gguf::open(&fixture("gptoss-q8_0.gguf")).unwrap();
    let numbers = |pattern| {
        Tokenizer::from_gguf(&gguf, pattern)
            .unwrap()
            .encode("1234", Special::Plain)
            .len()
    };
    assert!(numbers(Some(Pattern::Qwen2)) == 4 && numbers(None) == numbers(Some(Pattern::O200k)));
}

/// What a decoder gives out for each token, and at the end.
fn stream(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<String> {
    let mut decoder = Decoder::new(Controls::Hide);
    let mut step = |token: Option<u32>| {
        let mut text = String::new();
        match token {
            Some(token) => decoder.push(tokenizer, token, &mut text).unwrap(),
            None => decoder.finish(&mut text),
        }
        text
    };
    tokens.iter().copied().map(Some).chain([None]).map(&mut step).collect()
}

#[test]
fn a_stream_never_gives_out_half_a_character() {
    let tokenizer = tokenizer("gemma3-q8_0.gguf");
    let byte = |byte: u8| tokenizer.token(&format!("<0x{byte:02X}>")).unwrap();
    let bytes = |text: &[u8]| text.iter().map(|&b| byte(b)).collect::<Vec<_>>();
    assert_eq!(
        stream(&tokenizer, &bytes("a🚀é".as_bytes())),
        ["a", "", "", "", "🚀", "", "é", ""]
    );
    assert_eq!(
        stream(&tokenizer, &bytes(b"\xF0\x9Fa\xFF\xC3")),
        ["", "", "\u{fffd}a", "\u{fffd}", "", "\u{fffd}"]
    );
    let turn = tokenizer.token("<end_of_turn>").unwrap();
    assert_eq!(stream(&tokenizer, &[byte(0xC3), turn, byte(0xA9)]), ["", "", "é", ""]);
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let tokenizer = tokenizer("gemma3-q8_0.gguf");
    let error = tokenizer.decode(&[5, 2048], Controls::Show).unwrap_err();
    assert_eq!(error.to_string(), "token 2048 is outside the vocabulary of 2048 pieces");
    assert!(tokenizer.piece(2047).is_ok() && tokenizer.piece_escaped(2048).is_err());
}

#[test]
fn escaped_pieces_are_pieces() {
    for file in ["qwen2-q8_0.gguf", "gemma3-q8_0.gguf", "vocab/llama-spm.gguf"] {
        let tokenizer = tokenizer(file);
        for token in 0..tokenizer.vocabulary_size() as u32 {
            assert_eq!(
                unescape(&tokenizer.piece_escaped(token).unwrap()),
                tokenizer.piece(token).unwrap()
            );
        }
    }
}

#[test]
fn a_long_run_is_no_burden() {
    for file in ["vocab/llama-spm.gguf", "vocab/gpt-2.gguf"] {
        let tokenizer = tokenizer(file);
        for piece in ["a", " ", "\n", "1", "é", "aA", "! \n"] {
            let text = piece.repeat(20_000);
            let tokens = tokenizer.encode(&text, Special::Parse);
            assert_eq!(tokenizer.decode(&tokens, Controls::Show).unwrap(), text);
        }
    }
}

static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let files = [
        "qwen2-q8_0.gguf",
        "gptoss-q8_0.gguf",
        "gemma3-q8_0.gguf",
        "vocab/gpt-2.gguf",
        "vocab/llama-spm.gguf",
    ];
    files.map(tokenizer).into()
});

proptest! {
    #[test]
    fn decoding_undoes_encoding(text in "(\\PC|[ \n\ta-z<|>]|<\\|im_end\\|>|</s>|[0-9]|'s|\\s){0,60}") {
        // SentencePiece writes spaces as U+2581, so that character does not come back.
        prop_assume!(!text.contains('\u{2581}'));
        for tokenizer in TOKENIZERS.iter() {
            for special in [Special::Plain, Special::Parse] {
                let tokens = tokenizer.encode(&text, special);
                prop_assert_eq!(&tokenizer.decode(&tokens, Controls::Show).unwrap(), &text);
            }
        }
    }

    #[test]
    fn a_stream_is_the_text_in_pieces(tokens in prop::collection::vec(0u32..2048, 0..40)) {
        for tokenizer in &TOKENIZERS[..3] {
            let whole = tokenizer.decode(&tokens, Controls::Hide).unwrap();
            prop_assert_eq!(stream(tokenizer, &tokens).concat(), whole);
        }
    }
}
