use std::{path::Path, sync::LazyLock};

use models::gguf::Gguf;
use rand_pcg::{Pcg64, rand_core::Rng};
use rstest::rstest;
use serde::de::IgnoredAny;

use super::*;

struct Model {
    tokenizer: Tokenizer,
    formats: Formats,
}

impl Model {
    fn named(name: &str) -> Model {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let tokenizer = crate::model::tokenizer(&Gguf::open(&fixtures.join(name)).unwrap()).unwrap();
        let formats = Formats::new(&tokenizer).unwrap();
        Model { tokenizer, formats }
    }

    /// A logit for each token, and some more as models have that were padded.
    fn logits(&self, value: f32) -> Vec<f32> {
        vec![value; self.tokenizer.vocabulary_size() + 40]
    }

    /// Tokens that can follow.
    fn allowed(&self, constraint: &mut Constraint) -> Vec<u32> {
        let mut logits = self.logits(0.0);
        assert!(constraint.restrict(&mut logits, self.tokenizer.ends()).unwrap());
        (0..logits.len() as u32)
            .filter(|&token| logits[token as usize] == 0.0)
            .collect()
    }

    /// What a model would answer that knows nothing at all, if it comes to an end.
    fn random(&self, format: &Format, seed: u64, limit: usize) -> Option<String> {
        let mut random = Pcg64::new(seed.into(), 1);
        let mut constraint = format.constraint();
        let mut bytes = Vec::new();
        for _ in 0..limit {
            let allowed = self.allowed(&mut constraint);
            let token = allowed[random.next_u32() as usize % allowed.len()];
            if self.tokenizer.is_end(token) {
                return Some(String::from_utf8(bytes).unwrap());
            }
            constraint.accept(token).unwrap();
            bytes.extend_from_slice(self.tokenizer.piece(token).unwrap());
            if constraint.is_finished() {
                return Some(String::from_utf8(bytes).unwrap());
            }
        }
        None
    }
}

static BYTE_LEVEL: LazyLock<Model> = LazyLock::new(|| Model::named("qwen2-q8_0.gguf"));
static SENTENCE_PIECE: LazyLock<Model> = LazyLock::new(|| Model::named("gemma3-q8_0.gguf"));
static HARMONY: LazyLock<Model> = LazyLock::new(|| Model::named("gptoss-q8_0.gguf"));

fn models() -> [&'static Model; 3] {
    [&BYTE_LEVEL, &SENTENCE_PIECE, &HARMONY]
}

#[test]
fn an_answer_ends_where_the_grammar_does_and_nowhere_else() {
    for model in models() {
        let format = model.formats.grammar(r#"start: "ab""#).unwrap();
        let mut constraint = format.constraint();
        let mut text = Vec::new();
        while !constraint.is_finished() {
            let allowed = model.allowed(&mut constraint);
            assert!(!allowed.iter().any(|&token| model.tokenizer.is_end(token)), "{text:?}");
            constraint.accept(allowed[0]).unwrap();
            text.extend_from_slice(model.tokenizer.piece(allowed[0]).unwrap());
        }
        assert_eq!(text, b"ab");
    }
}

#[test]
fn every_token_that_ends_an_answer_may_end_one_that_could_go_on() {
    for model in models() {
        let format = model.formats.grammar(r#"start: /a+/"#).unwrap();
        let mut constraint = format.constraint();
        assert!(!constraint.is_complete());
        let before = model.allowed(&mut constraint);
        assert!(!before.iter().any(|&token| model.tokenizer.is_end(token)));
        constraint.accept(before[0]).unwrap();
        assert!(constraint.is_complete() && !constraint.is_finished());
        let after = model.allowed(&mut constraint);
        let ends: Vec<u32> = after
            .iter()
            .copied()
            .filter(|&token| model.tokenizer.is_end(token))
            .collect();
        assert_eq!(ends, model.tokenizer.ends());
    }
}

#[test]
fn without_ends_an_answer_goes_on_while_it_can() {
    let model = &*BYTE_LEVEL;
    let format = model.formats.grammar(r#"start: /a{1,3}/"#).unwrap();
    let mut constraint = format.constraint();
    let mut text = String::new();
    while !constraint.is_finished() {
        let mut logits = model.logits(0.0);
        assert!(constraint.restrict(&mut logits, &[]).unwrap());
        let token = logits.iter().position(|&logit| logit == 0.0).unwrap() as u32;
        constraint.accept(token).unwrap();
        text += std::str::from_utf8(model.tokenizer.piece(token).unwrap()).unwrap();
    }
    assert_eq!(text, "aaa");
}

#[test]
fn an_answer_may_be_empty() {
    let model = &*BYTE_LEVEL;
    let format = model.formats.grammar("start: \"\"").unwrap();
    assert_eq!(model.allowed(&mut format.constraint()), model.tokenizer.ends());
    assert!(!format.constraint().restrict(&mut model.logits(0.0), &[]).unwrap());
    assert!(format.accepts("") && !format.accepts("a"));
}

#[test]
fn tokens_without_a_piece_never_follow() {
    for model in models() {
        let format = model.formats.grammar(r#"start: /(.|\n)*/"#).unwrap();
        let allowed = model.allowed(&mut format.constraint());
        assert!(allowed.len() > model.tokenizer.vocabulary_size() / 2);
        assert!(*allowed.last().unwrap() < model.tokenizer.vocabulary_size() as u32);
    }
}

#[test]
fn a_grammar_cannot_ask_for_tokens_that_are_no_text() {
    let model = &*BYTE_LEVEL;
    let format = model.formats.grammar("start: <[*]>").unwrap();
    let allowed = model.allowed(&mut format.constraint());
    assert!(allowed.iter().all(|&token| !model.tokenizer.is_end(token)));
    let error = model.formats.grammar("start: <|im_end|>").unwrap_err().to_string();
    assert!(
        error.contains("unknown special token") && error.contains("an answer is text"),
        "{error}"
    );
}

#[test]
fn objects_of_a_model_that_knows_nothing_are_json() {
    for model in models() {
        let format = model.formats.json().unwrap();
        let answers: Vec<String> = (0..8).filter_map(|seed| model.random(&format, seed, 200)).collect();
        for answer in &answers {
            serde_json::from_str::<IgnoredAny>(answer).unwrap_or_else(|error| panic!("{answer}: {error}"));
            assert!(answer.starts_with('{') && answer.ends_with('}'), "{answer:?}");
            assert!(format.accepts(answer));
        }
    }
}

#[test]
fn a_cut_answer_is_not_accepted() {
    let format = SENTENCE_PIECE.formats.json().unwrap();
    assert!(format.accepts(r#"{"größe": [1, {"→": null}]}"#));
    assert!(format.accepts("{\n  \"a\": 1\n}"));
    assert!(!format.accepts(r#"{"größe": [1, {"→": null}]"#));
    assert!(!format.accepts(r#"{"größe"#));
    assert!(!format.accepts(""));
    assert!(!format.accepts("{}}"));
    assert!(!format.accepts("[]"));
}

#[test]
fn white_space_is_bounded() {
    let format = BYTE_LEVEL.formats.json().unwrap();
    assert!(format.accepts("{ \"a\" : 1 }"));
    assert!(!format.accepts("{  \"a\":1}"));
    assert!(!format.accepts("{\n\n\"a\":1}"));
    assert!(!format.accepts("{}\n"));
    assert!(!format.accepts(" {}"));
}

#[test]
fn a_schema_may_say_how_much_white_space_there_is() {
    let compact = r#"{"type": "array", "x-guidance": {"whitespace_flexible": false}}"#;
    let format = BYTE_LEVEL.formats.schema(compact).unwrap();
    assert!(format.accepts("[1,2]"));
    assert!(!format.accepts("[1, 2]"));
}

#[rstest]
#[case::no_json("{\"type\": ", "not JSON: EOF while parsing a value at line 1 column 9")]
#[case::unknown_keyword(r#"{"type": "object", "not": {}}"#, "\"not\"")]
#[case::unknown_keyword_is_told_what_to_do(r#"{"type": "object", "not": {}}"#, "hint: leave the keyword out")]
#[case::one_of(r#"{"oneOf": [{"type": "integer"}, {"type": "number"}]}"#, "hint: write anyOf")]
#[case::a_reference_that_leads_nowhere(r##"{"$ref": "#/$defs/a"}"##, "$defs")]
#[case::a_reference_elsewhere(r#"{"$ref": "https://example.com/a.json"}"#, "example.com")]
#[case::nothing_is_right("false", "hint: no answer could be right")]
#[case::contradiction(r#"{"type": "integer", "minimum": 3, "maximum": 2}"#, "minimum")]
#[case::no_schema("3", "chema")]
#[case::no_type(r#"{"type": "text"}"#, "text")]
#[case::no_pattern(r#"{"type": "string", "pattern": "("}"#, "(")]
#[case::a_long_value_of_many_bytes(
    r#"{"required": "ääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääää"}"#,
    "its reader failed"
)]
fn a_schema_that_cannot_be_used_is_refused(#[case] schema: &str, #[case] said: &str) {
    let error = BYTE_LEVEL.formats.schema(schema).unwrap_err().to_string();
    assert!(error.contains(said), "{error}");
    assert!(!error.contains("backtrace"), "{error}");
}

#[rstest]
#[case::syntax("start: \"a\nb: \"c\"", "line 1, column 10")]
#[case::unknown_name("start: a", "a")]
#[case::no_start("a: \"b\"", "start")]
#[case::gbnf("root ::= \"a\"", "hint: this looks like llama.cpp's GBNF")]
#[case::empty("", "grammar")]
fn a_grammar_that_cannot_be_used_is_refused(#[case] grammar: &str, #[case] said: &str) {
    let error = BYTE_LEVEL.formats.grammar(grammar).unwrap_err().to_string();
    assert!(error.contains(said), "{error}");
}

#[rstest]
#[case::itself(r##"{"$ref": "#"}"##)]
#[case::both_itself(r##"{"allOf": [{"$ref": "#"}]}"##)]
#[case::one_another(r##"{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}"##)]
fn a_schema_that_nothing_can_begin_is_refused(#[case] schema: &str) {
    let error = BYTE_LEVEL.formats.schema(schema).unwrap_err().to_string();
    assert!(error.contains("nothing that it accepts"), "{error}");
}

#[test]
fn a_grammar_that_leads_nowhere_is_at_fault() {
    let model = &*BYTE_LEVEL;
    // the token that ends an answer is no text
    let grammar = format!("start: \"a\" <[{}]>", model.tokenizer.ends()[0]);
    let mut constraint = model.formats.grammar(&grammar).unwrap().constraint();
    let first = model.allowed(&mut constraint)[0];
    constraint.accept(first).unwrap();
    let error = constraint
        .restrict(&mut model.logits(0.0), model.tokenizer.ends())
        .unwrap_err();
    assert!(
        error.to_string().contains("the grammar or schema is at fault"),
        "{error}"
    );
}

#[test]
fn a_mark_before_the_text_is_skipped() {
    let formats = &BYTE_LEVEL.formats;
    assert!(formats.schema("\u{feff}{\"type\": \"integer\"}").unwrap().accepts("1"));
    assert!(formats.grammar("\u{feff}start: \"a\"").unwrap().accepts("a"));
}

#[test]
fn a_grammar_that_nothing_can_begin_is_refused() {
    let error = BYTE_LEVEL.formats.grammar("start: start").unwrap_err().to_string();
    assert!(error.contains("nothing that it accepts"), "{error}");
}

/// Takes little time whether or not it can be done.
fn assert_quick(format: impl FnOnce() -> Result<Format, FormatError>) {
    let start = std::time::Instant::now();
    if let Ok(format) = format() {
        let (mut logits, ends) = (BYTE_LEVEL.logits(0.0), BYTE_LEVEL.tokenizer.ends());
        assert!(format.constraint().restrict(&mut logits, ends).unwrap());
    }
    assert!(start.elapsed().as_secs() < 10);
}

#[rstest]
#[case::long(r#"{"type": "string", "minLength": 1000000000, "maxLength": 2000000000}"#)]
#[case::repeated(r#"{"type": "string", "pattern": "((a{1000}){1000}){1000}"}"#)]
#[case::many(r#"{"type": "array", "minItems": 1000000000}"#)]
#[case::large(r#"{"type": "integer", "multipleOf": 1000000007, "minimum": 5, "maximum": 1e300}"#)]
fn a_schema_that_asks_for_too_much_takes_no_time(#[case] schema: &str) {
    assert_quick(|| BYTE_LEVEL.formats.schema(schema));
}

#[rstest]
#[case::repeated("start: /((a{1000}){1000}){1000}/")]
#[case::many("start: \"a\"{1000000000}")]
#[case::ambiguous("start: (\"a\"?){5000}")]
fn a_grammar_that_asks_for_too_much_takes_no_time(#[case] grammar: &str) {
    assert_quick(|| BYTE_LEVEL.formats.grammar(grammar));
}

#[test]
fn deep_nesting_is_refused_before_it_ends_the_program() {
    let nested = |open: &str, close: &str| [open.repeat(100_000), "a".into(), close.repeat(100_000)].concat();
    let formats = &BYTE_LEVEL.formats;
    formats.grammar(&format!("start: {}", nested("(", ")"))).unwrap_err();
    formats.grammar(&format!("start: /{}/", nested("(", ")"))).unwrap_err();
    let error = formats.schema(&nested("{\"items\":", "}")).unwrap_err().to_string();
    assert!(
        error.contains("it is nested too deeply") && !error.contains("not JSON"),
        "{error}"
    );
}
