//! Answers in a form that is asked for are exact, on every model and however they are sampled.

use std::sync::LazyLock;

use host::{
    conversation::{Conversation, Options, Turn},
    dialect::Think,
    generation::{Finish, Session},
    model::LoadedModel,
    reply::Channel,
    sampling::SamplingOptions,
    structured::Format,
};
use models::gguf::{Gguf, GgufWriter};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tests::{Fixture, Serving, settings};

const FIXTURES: [&str; 5] = ["gemma3-q8_0", "gemma3n-q8_0", "gptoss-q8_0", "qwen2-q8_0", "qwen2-f32"];
const CONTEXT: u32 = 512;
/// Whatever a model answers that knows nothing of the schemas: they bound an answer to fewer tokens.
const ENOUGH: usize = 3000;

/// Schemas whose answers are of bounded length.
static SCHEMAS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let short = json!({"type": "string", "maxLength": 8});
    let pair = json!({"type": "array", "items": {"type": "integer", "minimum": -5, "maximum": 120}, "minItems": 1, "maxItems": 2});
    vec![
        json!({
            "type": "object",
            "properties": {"name": short, "age": {"type": "integer", "minimum": 0, "maximum": 150}, "alive": {"type": "boolean"}},
            "required": ["name", "age", "alive"],
            "additionalProperties": false
        }),
        json!({"type": "array", "items": pair, "minItems": 2, "maxItems": 3}),
        json!({"enum": ["Montague", "Capulet", "größer als →", 3, null, ["a", {"b": false}]]}),
        json!({"type": "integer", "minimum": -1000, "exclusiveMaximum": 37, "multipleOf": 3}),
        json!({"type": "string", "minLength": 3, "maxLength": 20}),
        json!({"type": "string", "pattern": "^[A-Z][a-z]{2,5}-[0-9]{4}$"}),
        json!({"type": "string", "pattern": "^[äöüß→]{2,6}(日本|Ωmega)$"}),
        json!({"type": "string", "format": "date"}),
        json!({"anyOf": [{"type": "null"}, short, {"type": "array", "items": short, "maxItems": 2}]}),
        json!({
            "type": "object",
            "properties": {"kind": {"const": "speech"}, "line": short, "aside": short, "scene": {"$ref": "#/$defs/scene"}},
            "required": ["kind"],
            "additionalProperties": false,
            "$defs": {"scene": {
                "type": "object",
                "properties": {"act": {"enum": [1, 2, 3, 4, 5]}, "where": short},
                "required": ["act", "where"],
                "additionalProperties": false
            }}
        }),
        json!({"const": {"to be": ["or", "not", {"to": "be"}]}}),
    ]
});

/// A model with a conversation in which nothing was said yet.
struct Stage {
    serving: Serving,
}

impl Stage {
    fn of(name: &'static str) -> Stage {
        let serving = Serving::of(&Fixture::named(name));
        Stage { serving }
    }

    /// The fixture with another chat template.
    fn with_template(name: &'static str, template: &str) -> Stage {
        let fixture = Fixture::named(name);
        let original = Gguf::open(fixture.path().as_ref()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy.gguf");
        let mut writer = GgufWriter::copy_of(&original);
        writer.set("tokenizer.chat_template", template);
        writer.write(&path).unwrap();
        let mut stage = Stage::of(name);
        stage.serving.model = LoadedModel::open(path.to_str()).unwrap();
        stage
    }

    fn model(&self) -> &LoadedModel {
        &self.serving.model
    }

    fn schema(&self, schema: &Value) -> Format {
        self.model().formats().unwrap().schema(&schema.to_string()).unwrap()
    }

    fn grammar(&self, grammar: &str) -> Format {
        self.model().formats().unwrap().grammar(grammar).unwrap()
    }

    fn conversation(&self) -> Conversation<'_> {
        let engine = self.serving.engine(&settings(CONTEXT, 64));
        Conversation::new(self.model(), Session::new(engine, CONTEXT, Some(4)), Options::default())
    }
}

/// Options for an answer as wild as can be.
fn wild(format: Format, seed: u64) -> Options {
    Options {
        sampling: SamplingOptions {
            temperature: 2.0,
            top_k: 0,
            top_p: 1.0,
            seed: Some(seed),
            ..SamplingOptions::default()
        },
        format: Some(format),
        limit: Some(ENOUGH),
        ..Options::default()
    }
}

/// What is answered with these options to a prompt that leads nowhere; what was printed is what was replied.
fn ask(conversation: &mut Conversation<'_>, options: Options) -> Turn {
    conversation.clear();
    conversation.options = options;
    let mut printed = String::new();
    let turn = conversation
        .say("Speak!", &mut |piece| {
            if piece.channel == Channel::Answer {
                printed.push_str(piece.text);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(printed, turn.reply.content);
    turn
}

fn assert_valid(schema: &Value, turn: &Turn) {
    let text = &turn.reply.content;
    assert_eq!(
        (turn.answer.finish, turn.complete),
        (Finish::Stop, Some(true)),
        "{text}"
    );
    let answer: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let errors: Vec<String> = jsonschema::validator_for(schema)
        .unwrap()
        .iter_errors(&answer)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{schema}: {text}: {errors:?}");
}

#[test]
fn every_answer_is_what_the_schema_describes() {
    for name in FIXTURES {
        let stage = Stage::of(name);
        let mut conversation = stage.conversation();
        for schema in SCHEMAS.iter() {
            let format = stage.schema(schema);
            for seed in 0..3 {
                let turn = ask(&mut conversation, wild(format.clone(), seed));
                assert_valid(schema, &turn);
            }
        }
    }
}

#[test]
fn the_likeliest_answer_is_what_the_schema_describes_too() {
    for name in FIXTURES {
        let stage = Stage::of(name);
        let mut conversation = stage.conversation();
        for schema in SCHEMAS.iter() {
            let mut options = wild(stage.schema(schema), 0);
            options.sampling.temperature = 0.0;
            assert_valid(schema, &ask(&mut conversation, options));
        }
    }
}

#[test]
fn an_object_that_is_complete_is_json_and_one_that_is_not_is_reported() {
    let mut complete = 0;
    for name in FIXTURES {
        let stage = Stage::of(name);
        let mut conversation = stage.conversation();
        let format = stage.model().formats().unwrap().json().unwrap();
        for seed in 0..12 {
            let options = Options {
                limit: Some(120),
                ..wild(format.clone(), seed)
            };
            let turn = ask(&mut conversation, options);
            let text = &turn.reply.content;
            let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
            assert!(text.starts_with('{'), "{text}");
            assert_eq!(turn.complete, Some(is_json), "{text}");
            assert_eq!(turn.answer.finish == Finish::Stop, is_json, "{text}");
            complete += usize::from(is_json);
        }
    }
    assert!((5..60).contains(&complete), "{complete} of 60");
}

#[test]
fn an_answer_is_what_the_grammar_accepts() {
    let grammar = r#"
        start: speaker ": " line+
        speaker: "ROMEO" | "JULIET"
        line: /[A-Z][a-zäöü ,']{3,12}/ ("." | "!" | "?") "\n"
    "#;
    for name in FIXTURES {
        let stage = Stage::of(name);
        let format = stage.grammar(grammar);
        let mut conversation = stage.conversation();
        for seed in 0..3 {
            let options = Options {
                limit: Some(200),
                ..wild(format.clone(), seed)
            };
            let turn = ask(&mut conversation, options);
            let text = &turn.reply.content;
            let (speaker, lines) = text.split_once(": ").unwrap();
            assert!(["ROMEO", "JULIET"].contains(&speaker), "{text}");
            let ended = lines.ends_with('\n');
            assert_eq!(turn.complete, Some(ended), "{text}");
            let whole =
                |line: &&str| line.ends_with(['.', '!', '?']) && line.starts_with(|c: char| c.is_ascii_uppercase());
            let count = lines.lines().count() - usize::from(!ended);
            assert!(lines.lines().take(count).all(|line| whole(&line)), "{text}");
        }
    }
}

#[test]
fn an_answer_whose_end_is_ignored_goes_on_while_its_form_lets_it() {
    let stage = Stage::of("gemma3-q8_0");
    let mut conversation = stage.conversation();
    for seed in 0..3 {
        let options = Options {
            ignore_end: true,
            ..wild(stage.grammar("start: /[ab]{1,40}/"), seed)
        };
        let turn = ask(&mut conversation, options);
        assert_eq!((turn.reply.content.len(), turn.answer.finish), (40, Finish::Stop));
        assert_eq!(turn.complete, Some(true));
    }
}

#[test]
fn an_answer_that_may_end_is_complete_where_the_limit_ends_it() {
    let stage = Stage::of("qwen2-q8_0");
    let options = Options {
        ignore_end: true,
        limit: Some(5),
        ..wild(stage.grammar("start: /[ab]+/"), 0)
    };
    let turn = ask(&mut stage.conversation(), options);
    assert_eq!((turn.answer.finish, turn.complete), (Finish::Length, Some(true)));
}

#[test]
fn a_stop_string_cuts_an_answer_and_that_is_reported() {
    let stage = Stage::of("qwen2-q8_0");
    let mut conversation = stage.conversation();
    let options = |grammar| Options {
        stops: vec!["b".into()],
        ..wild(stage.grammar(grammar), 0)
    };
    let cut = ask(&mut conversation, options(r#"start: "aabc""#));
    assert_eq!((cut.reply.content.as_str(), cut.complete), ("aa", Some(false)));
    assert_eq!(cut.answer.finish, Finish::Stop);
    let whole = ask(&mut conversation, options(r#"start: "aa" "bc"?  "#));
    assert_eq!((whole.reply.content.as_str(), whole.complete), ("aa", Some(true)));
}

#[test]
fn a_full_context_ends_an_answer_and_that_is_reported() {
    let stage = Stage::of("qwen2-q8_0");
    let engine = stage.serving.engine(&settings(64, 64));
    let mut conversation = Conversation::new(stage.model(), Session::new(engine, 64, None), Options::default());
    let turn = ask(&mut conversation, wild(stage.grammar("start: /[ab]{500}/"), 0));
    assert_eq!((turn.answer.finish, turn.complete), (Finish::Context, Some(false)));
}

#[test]
fn a_form_outlives_a_shift_of_the_context() {
    let stage = Stage::of("qwen2-q8_0");
    let engine = stage.serving.engine(&settings(64, 64));
    let mut conversation = Conversation::new(stage.model(), Session::new(engine, 64, Some(4)), Options::default());
    let turn = ask(&mut conversation, wild(stage.grammar("start: /[ab]{300}c/"), 0));
    assert!(conversation.session().shifts() > 0);
    assert_eq!((turn.reply.content.len(), turn.complete), (301, Some(true)));
}

const HARMONY: &str = "{{ messages[0].content }}<|start|>assistant";
const THINK: &str = "{{ messages[0].content }}{# <think> #}";

/// Models that may think, as their templates are known.
fn thinkers() -> [Stage; 3] {
    [
        Stage::with_template("gptoss-q8_0", HARMONY),
        Stage::with_template("qwen2-q8_0", THINK),
        Stage::with_template("gemma3-q8_0", THINK),
    ]
}

#[test]
fn a_model_that_thinks_answers_at_once_where_its_answer_has_a_form() {
    for stage in thinkers() {
        let mut conversation = stage.conversation();
        for (seed, schema) in (0..).zip(SCHEMAS.iter()) {
            let turn = ask(&mut conversation, wild(stage.schema(schema), seed));
            assert_valid(schema, &turn);
            assert_eq!(turn.reply.thinking, "");
        }
    }
}

#[test]
fn a_model_that_is_to_think_first_answers_in_the_form_when_it_has() {
    for stage in thinkers() {
        let mut conversation = stage.conversation();
        let mut answered = 0;
        for (seed, schema) in (0..).zip(SCHEMAS.iter()) {
            let options = Options {
                think: Some(Think::On),
                ..wild(stage.schema(schema), seed)
            };
            let turn = ask(&mut conversation, options);
            if turn.complete == Some(true) {
                assert_valid(schema, &turn);
                assert_ne!(turn.reply.thinking, "");
                answered += 1;
            } else {
                assert_eq!(turn.answer.finish, Finish::Length);
            }
        }
        assert!(
            answered > SCHEMAS.len() / 2,
            "{answered}: {}",
            stage.model().file.name()
        );
    }
}
