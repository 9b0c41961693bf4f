//! Replies without a model: tokens of written texts.

mod cuts;
mod harmony;
mod tags;

use std::{path::Path, sync::LazyLock};

use models::{
    gguf::{Array, Gguf, GgufWriter, Strings, Value},
    template::ChatTemplate,
    tokenizer::{Special, Tokenizer},
};

use super::*;
use crate::{dialect::Dialect, stop::StopStrings};

/// As in `tokenizer.ggml.token_type`.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// A model's vocabulary, the format of its replies, and the end of a prompt.
struct Model {
    tokenizer: Tokenizer,
    format: Format,
}

/// gpt-oss: the fixture has all tokens of the format but one.
static GPT_OSS: LazyLock<Model> =
    LazyLock::new(|| Model::of("gptoss-q8_0.gguf", &[("<|constrain|>", CONTROL)], "openai-gpt-oss-120b"));
/// Qwen 3, whose tags are tokens that show.
static QWEN3: LazyLock<Model> = LazyLock::new(|| {
    let tags = [("<think>", USER_DEFINED), ("</think>", USER_DEFINED)];
    Model::of("qwen2-q8_0.gguf", &tags, "Qwen-Qwen3-0.6B")
});
/// DeepSeek's distillations, with tags that are control tokens.
static DEEPSEEK: LazyLock<Model> = LazyLock::new(|| {
    let tags = [("<think>", CONTROL), ("</think>", CONTROL)];
    let template = "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B";
    Model::of("qwen2-q8_0.gguf", &tags, template)
});
/// A vocabulary without the tags, which are spelled in several tokens.
static SPELLED: LazyLock<Model> = LazyLock::new(|| Model::of("qwen2-q8_0.gguf", &[], "Qwen-Qwen3-0.6B"));
static PLAIN: LazyLock<Model> = LazyLock::new(|| Model::of("qwen2-q8_0.gguf", &[], "Qwen-Qwen2.5-7B-Instruct"));

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(name)
}

/// The chat template of a well-known model.
pub(crate) fn template(name: &str) -> ChatTemplate {
    let source = std::fs::read_to_string(fixture(&format!("templates/{name}.jinja"))).unwrap();
    ChatTemplate::new(name, &source).unwrap()
}

/// The tokenizer of a fixture with more tokens, which have these types.
pub(crate) fn tokenizer(file: &str, added: &[(&str, i32)]) -> Tokenizer {
    let original = Gguf::open(&fixture(file)).unwrap();
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let array = |name: &str| original.metadata().get(&key(name)).unwrap().clone();
    let (Value::Array(Array::String(mut tokens)), Value::Array(Array::I32(mut types))) =
        (array("tokens"), array("token_type"))
    else {
        panic!("{file} has tokens and their types");
    };
    for (token, ty) in added {
        Strings::push(&mut tokens, token);
        types.push(*ty);
    }
    let mut writer = GgufWriter::copy_of(&original);
    writer.set(&key("tokens"), tokens).set(&key("token_type"), types);
    Tokenizer::from_gguf(&Gguf::from_bytes(file, writer.to_bytes()).unwrap(), None).unwrap()
}

impl Model {
    fn of(file: &str, added: &[(&str, i32)], template_name: &str) -> Model {
        let tokenizer = tokenizer(file, added);
        let format = Dialect::of(&tokenizer, Some(&template(template_name))).format;
        Model { tokenizer, format }
    }

    fn tokens(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text, Special::Parse)
    }

    fn reader(&self, prompt: &str, stops: &[&str]) -> Reader<'_> {
        let stops = StopStrings::new(stops.iter().copied());
        Reader::new(&self.tokenizer, self.format, &self.tokens(prompt), stops)
    }

    /// The reply that these tokens make, after making sure that its pieces make it too.
    fn read(&self, prompt: &str, stops: &[&str], tokens: &[u32]) -> Reply {
        let mut pieces = Reply::default();
        let mut sink = |piece: Piece<'_>| -> std::io::Result<()> {
            assert!(!piece.text.is_empty());
            pieces.push(piece);
            Ok(())
        };
        let mut reader = self.reader(prompt, stops);
        for &token in tokens {
            if reader.push(token, &mut sink).unwrap() {
                break;
            }
        }
        let reply = reader.finish(&mut sink).unwrap();
        assert_eq!((&pieces.thinking, &pieces.content), (&reply.thinking, &reply.content));
        reply
    }

    /// Reads `input` as the reply to a prompt that ends with `prompt` and compares it with what [`written`] makes of it.
    fn check(&self, prompt: &str, input: &str, expected: &str) {
        let reply = self.read(prompt, &[], &self.tokens(input));
        assert_eq!(written(&reply), expected, "{prompt:?} {input:?}");
    }

    /// What comes with each token: thoughts in brackets, each piece for itself.
    fn stream(&self, prompt: &str, input: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        let mut sink = |piece: Piece<'_>| {
            pieces.push(match piece.channel {
                Channel::Thinking => format!("[{}]", piece.text),
                Channel::Answer => piece.text.to_owned(),
            });
            Ok(())
        };
        let mut reader = self.reader(prompt, &[]);
        for token in self.tokens(input) {
            reader.push(token, &mut sink).unwrap();
        }
        reader.finish(&mut sink).unwrap();
        pieces
    }
}

/// A reply in one line: `[thinking]answer`, and each call as `{name arguments}`.
fn written(reply: &Reply) -> String {
    let calls = reply
        .calls
        .iter()
        .map(|call| format!("{{{} {}}}", call.name, call.arguments));
    let thinking = match reply.thinking.as_str() {
        "" => String::new(),
        thinking => format!("[{thinking}]"),
    };
    thinking + &reply.content + &calls.collect::<String>()
}

#[test]
fn the_format_follows_from_vocabulary_and_template() {
    assert!(matches!(GPT_OSS.format, Format::Harmony(_)));
    for model in [&QWEN3, &DEEPSEEK] {
        assert!(matches!(
            model.format,
            Format::Think {
                open: Some(_),
                close: Some(_)
            }
        ));
    }
    assert_eq!(
        SPELLED.format,
        Format::Think {
            open: None,
            close: None
        }
    );
    assert_eq!(PLAIN.format, Format::Plain);
    assert_eq!(Format::of(&QWEN3.tokenizer, None), Format::Plain);
    assert!(matches!(Format::of(&GPT_OSS.tokenizer, None), Format::Harmony(_)));
}

#[test]
fn in_a_plain_reply_all_is_answer() {
    PLAIN.check(
        "",
        "<think>Hm.</think> To be 🦀 <|im_start|>or not",
        "<think>Hm.</think> To be 🦀 or not",
    );
    PLAIN.check("", "", "");
    PLAIN.check("<think>", "so", "so");
}

#[test]
fn a_vocabulary_that_is_padded_brings_no_text() {
    for model in [&PLAIN, &QWEN3, &GPT_OSS] {
        assert_eq!(model.read("", &[], &[u32::MAX, 1 << 30]), Reply::default());
    }
}

#[test]
fn stop_strings_end_the_answer_and_nothing_else() {
    let read = |model: &Model, text: &str| written(&model.read("", &["END"], &model.tokens(text)));
    assert_eq!(read(&PLAIN, "a END b"), "a ");
    assert_eq!(read(&QWEN3, "<think>a END b</think>c END d"), "[a END b]c ");
    let analysis = "<|start|>assistant<|channel|>analysis<|message|>a END b<|end|>";
    let call = "<|start|>assistant to=functions.f<|channel|>commentary<|message|>END<|call|>";
    let answer = "<|start|>assistant<|channel|>final<|message|>c END d<|return|>";
    let all = [analysis, call, answer, call, analysis].concat();
    assert_eq!(read(&GPT_OSS, &all), "[a END b]c {f END}");
}

#[test]
fn what_could_have_begun_a_stop_string_comes_before_what_follows_it() {
    let input = "<|channel|>final<|message|>a EN<|end|><|start|>assistant<|channel|>analysis<|message|>b";
    let mut seen = String::new();
    let mut reader = GPT_OSS.reader("<|start|>assistant", &["END"]);
    let mut sink = |piece: Piece<'_>| {
        seen.push_str(piece.text);
        Ok(())
    };
    for token in GPT_OSS.tokens(input) {
        reader.push(token, &mut sink).unwrap();
    }
    reader.finish(&mut sink).unwrap();
    assert_eq!(seen, "a ENb");
}

#[test]
fn a_sink_that_fails_ends_the_reading() {
    let fail = |_: Piece<'_>| Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
    for model in [&PLAIN, &QWEN3, &GPT_OSS] {
        let mut reader = model.reader("", &[]);
        let failed = model
            .tokens("ROMEO")
            .into_iter()
            .any(|token| reader.push(token, &mut { fail }).is_err());
        assert!(failed || reader.finish(&mut { fail }).is_err());
    }
}

#[test]
fn a_reply_as_a_message_has_what_there_is() {
    let mut reply = Reply {
        content: "4".into(),
        ..Reply::default()
    };
    assert_eq!(reply.to_message(), json!({"role": "assistant", "content": "4"}));
    reply.thinking = "Hm.".into();
    let call = |arguments: &str| ToolCall {
        name: "f".into(),
        arguments: arguments.into(),
    };
    reply.calls = vec![call("{\"a\": 1}"), call("{\"a\":")];
    let function = |arguments: Json| json!({"type": "function", "function": {"name": "f", "arguments": arguments}});
    let calls = [function(json!({"a": 1})), function(json!("{\"a\":"))];
    assert_eq!(
        reply.to_message(),
        json!({"role": "assistant", "content": "4", "thinking": "Hm.", "tool_calls": calls})
    );
}
