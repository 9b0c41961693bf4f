//! Vocabularies made for the purpose: what small ones do, and what broken ones say.

use models::gguf::{Gguf, GgufWriter, Strings, Value};
use models::tokenizer::{Controls, Kind, Special, Tokenizer, TokenizerError};
use rstest::rstest;

fn load(writer: &GgufWriter<'_>) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_gguf(&Gguf::from_bytes("test.gguf", writer.to_bytes()).unwrap(), None)
}

fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

fn strings<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> Value {
    items.into_iter().collect::<Strings>().into()
}

/// The unknown piece, a control piece, all bytes, and `pieces` with their types and scores from token 258 on.
fn sentence_piece(pieces: &[(&str, i32, f32)]) -> GgufWriter<'static> {
    let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut all: Vec<(&str, i32, f32)> = vec![("<unk>", 2, 0.0), ("<s>", 3, 0.0)];
    all.extend(bytes.iter().map(|byte| (byte.as_str(), 6, 0.0)));
    all.extend(pieces);
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "test");
    writer.set(&key("model"), "llama");
    writer.set(&key("tokens"), strings(all.iter().map(|piece| piece.0)));
    writer.set(
        &key("token_type"),
        all.iter().map(|piece| piece.1).collect::<Vec<i32>>(),
    );
    writer.set(&key("scores"), all.iter().map(|piece| piece.2).collect::<Vec<f32>>());
    writer
}

/// Printable ASCII, the bytes beyond it and those that GPT-2's alphabet moves, then `pieces` from token 256 on.
fn byte_level(pieces: &[&str], merges: &[&str]) -> GgufWriter<'static> {
    let letters = ('!'..='~')
        .chain('¡'..='¬')
        .chain('®'..='ÿ')
        .chain('\u{100}'..='\u{143}')
        .map(String::from);
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "test");
    writer.set(&key("model"), "gpt2");
    writer.set(&key("pre"), "gpt-2");
    writer.set(
        &key("tokens"),
        strings(letters.chain(pieces.iter().map(|piece| piece.to_string()))),
    );
    writer.set(&key("merges"), strings(merges));
    writer
}

#[test]
fn merges_follow_their_ranks() {
    let tokenizer = load(&byte_level(&["ab", "bc", "Ġa"], &["b c", "Ġ a", "a b"])).unwrap();
    let pieces = |text| -> Vec<String> {
        let tokens = tokenizer.encode(text, Special::Plain);
        tokens
            .iter()
            .map(|&token| tokenizer.piece_escaped(token).unwrap())
            .collect()
    };
    assert_eq!(pieces("abc"), ["a", "bc"]);
    assert_eq!(pieces("ab ab"), ["ab", " a", "b"]);
    assert_eq!(pieces("é"), [r"\xc3", r"\xa9"]);
}

#[test]
fn scores_decide_what_is_joined() {
    let writer = sentence_piece(&[
        ("a", 1, -9.0),
        ("b", 1, -9.0),
        ("ab", 1, -2.0),
        ("ba", 1, -1.0),
        ("▁", 1, -9.0),
    ]);
    let tokenizer = load(&writer).unwrap();
    assert_eq!(tokenizer.encode("aba", Special::Plain), [262, 258, 261]);
}

#[test]
fn a_space_goes_before_texts_but_not_before_control_pieces() {
    let pieces = [("▁", 1, -1.0), ("a", 1, -1.0), ("  ", 4, 0.0)];
    let mut writer = sentence_piece(&pieces);
    let tokenizer = load(&writer).unwrap();
    assert_eq!(tokenizer.encode("a<s>a", Special::Parse), [258, 259, 1, 258, 259]);
    assert_eq!(tokenizer.encode("  a", Special::Parse), [258, 260, 259]);
    assert!(tokenizer.encode("", Special::Parse).is_empty());
    assert_eq!(
        tokenizer.decode(&[258, 259, 1, 258, 259], Controls::Show).unwrap(),
        "a<s>a"
    );
    writer.set(&key("add_space_prefix"), false);
    let tokenizer = load(&writer).unwrap();
    assert_eq!(tokenizer.encode("a<s>a", Special::Parse), [259, 1, 259]);
    assert_eq!(tokenizer.decode(&[258, 259], Controls::Show).unwrap(), " a");
}

#[test]
fn the_longest_of_several_special_pieces_is_matched() {
    let mut writer = sentence_piece(&[("<x>", 3, 0.0), ("<x>y", 4, 0.0), ("<x", 4, 0.0)]);
    writer.set(&key("add_space_prefix"), false);
    let tokenizer = load(&writer).unwrap();
    assert_eq!(tokenizer.encode("<x>y<x><x", Special::Parse), [259, 258, 260]);
    assert_eq!(tokenizer.encode("<x>y<x", Special::Plain), [259, 260]);
}

#[test]
fn unused_pieces_are_steps_on_the_way_and_no_tokens() {
    let pieces = [("a", 1, -9.0), ("b", 1, -9.0), ("ab", 5, -2.0), ("aba", 1, -1.0)];
    let mut writer = sentence_piece(&pieces);
    writer.set(&key("add_space_prefix"), false);
    let tokenizer = load(&writer).unwrap();
    assert_eq!(tokenizer.encode("aba", Special::Plain), [261]);
    assert_eq!(tokenizer.encode("ab", Special::Plain), [258, 259]);
}

#[test]
fn without_bytes_unknown_characters_in_a_row_are_one_token() {
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "test").set(&key("model"), "llama");
    writer
        .set(&key("tokens"), strings(["<unk>", "a"]))
        .set(&key("token_type"), vec![2, 1]);
    writer
        .set(&key("scores"), vec![0.0f32, 0.0])
        .set(&key("add_space_prefix"), false);
    let tokenizer = load(&writer).unwrap();
    assert_eq!(tokenizer.encode("éßaé", Special::Plain), [0, 1, 0]);
    assert_eq!(tokenizer.kind(0), Kind::Unknown);
    writer.set(&key("token_type"), vec![1, 1]);
    assert!(
        load(&writer)
            .unwrap_err()
            .to_string()
            .contains("no piece for byte 0x00")
    );
}

#[test]
fn pieces_listed_as_eos_and_eot_end_generation() {
    let mut writer = byte_level(&["x1", "x2", "x3"], &[]);
    writer
        .set(&key("eos_token_id"), 256u32)
        .set(&key("eot_token_id"), 257u32)
        .set(&key("eos_token_ids"), vec![258u32]);
    let tokenizer = load(&writer).unwrap();
    assert_eq!(tokenizer.ends(), [256, 257, 258]);
    assert!(tokenizer.is_end(257) && !tokenizer.is_end(0));
}

#[test]
fn end_does_not_end_generation_in_the_harmony_format() {
    let mut writer = byte_level(&["<|end|>", "<|return|>", "<|call|>"], &[]);
    writer
        .set(&key("eos_token_id"), 256u32)
        .set(&key("eot_token_id"), 256u32);
    assert_eq!(load(&writer).unwrap().ends(), [257, 258]);
    let mut writer = byte_level(&["<|end|>"], &[]);
    writer.set(&key("token_type"), [vec![1; 256], vec![3]].concat());
    assert_eq!(load(&writer).unwrap().ends(), [256]);
}

#[rstest]
#[case("model", Some("t5".into()), "`tokenizer.ggml.model` is `t5`; known are `gpt2`, `llama`")]
#[case("model", None, "tokenizer.ggml.model")]
#[case("tokens", None, "tokenizer.ggml.tokens")]
#[case("scores", None, "tokenizer.ggml.scores")]
#[case("token_type", None, "tokenizer.ggml.token_type")]
#[case("scores", Some(vec![0.5f32].into()), "`tokenizer.ggml.scores` has 1 entries, but `tokenizer.ggml.tokens` has 259")]
#[case("token_type", Some(vec![1, 1].into()), "`tokenizer.ggml.token_type` has 2 entries")]
#[case("token_type", Some(vec![7; 259].into()), "`tokenizer.ggml.token_type`[0] is `7`")]
#[case("token_type", Some(vec![6; 259].into()), "`tokenizer.ggml.tokens`[0] is `<unk>`: a piece of type 6")]
#[case("bos_token_id", Some(259u32.into()), "`tokenizer.ggml.bos_token_id` is 259, but the vocabulary ends at 258")]
#[case("eos_token_ids", Some(vec![1u32, 900].into()), "`tokenizer.ggml.eos_token_ids` is 900")]
#[case("add_bos_token", Some(true.into()), "`tokenizer.ggml.add_bos_token` is true, but `tokenizer.ggml.bos_token_id` is missing")]
fn faults_of_a_scored_vocabulary_name_file_and_key(
    #[case] name: &str,
    #[case] value: Option<Value>,
    #[case] said: &str,
) {
    let mut writer = sentence_piece(&[("a", 1, 0.0)]);
    expect_fault(&mut writer, name, value, said);
}

#[rstest]
#[case("pre", Some("default".into()), "`tokenizer.ggml.pre` is `default`; known are `gpt-2`")]
#[case(
    "pre",
    None,
    "`tokenizer.ggml.pre` is missing; it names how words are cut, one of `gpt-2`"
)]
#[case("merges", None, "tokenizer.ggml.merges")]
#[case("merges", Some(strings(["a b", "ab"])), "`tokenizer.ggml.merges`[1] is `ab`: not two pieces")]
#[case("merges", Some(strings(["a c"])), "`tokenizer.ggml.merges`[0] is `a c`: what it makes is not in the vocabulary")]
#[case("merges", Some(strings(["ab "])), "`tokenizer.ggml.merges`[0] is `ab `: a piece of it is not in the vocabulary")]
#[case("tokens", Some(strings(["a", "b"])), "has no piece for byte 0x00")]
fn faults_of_a_merged_vocabulary_name_file_and_key(
    #[case] name: &str,
    #[case] value: Option<Value>,
    #[case] said: &str,
) {
    let mut writer = byte_level(&["ab"], &[]);
    expect_fault(&mut writer, name, value, said);
}

fn expect_fault(writer: &mut GgufWriter<'_>, name: &str, value: Option<Value>, said: &str) {
    assert!(load(writer).is_ok());
    match value {
        Some(value) => writer.set(&key(name), value),
        None => writer.remove(&key(name)),
    };
    let error = load(writer).unwrap_err().to_string();
    assert!(error.starts_with("test.gguf: ") && error.contains(said), "{error}");
}
