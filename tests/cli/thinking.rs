//! Thoughts and answers of models that think. The fixtures do not, so copies of them are taught to: their templates open
//! the thinking, and a full stop ends it.

use models::{
    gguf::{Array, Strings, Value as Metadata},
    tokenizer::{Controls, Tokenizer},
};
use tempfile::TempDir;

use super::*;

const TEMPLATE: &str = "tokenizer.chat_template";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const USER_DEFINED: i32 = 4;
const GREEDY: [&str; 6] = ["ROMEO:", "--temperature", "0", "--predict", "40", "--ignore-eos"];

/// A copy of a fixture in a folder of its own.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn of(name: &str, change: impl FnOnce(&Gguf, &mut GgufWriter<'_>)) -> Copy {
        let original = Gguf::open(&fixtures().join(name)).unwrap();
        let mut writer = GgufWriter::copy_of(&original);
        change(&original, &mut writer);
        let folder = tempfile::tempdir().unwrap();
        writer.write(&folder.path().join("copy.gguf")).unwrap();
        Copy { folder }
    }

    /// A model that thinks up to its first full stop, if its template lets it.
    fn thinking(end_of_prompt: &str) -> Copy {
        Copy::of("gemma3-q8_0.gguf", |original, writer| {
            let array = |key| original.metadata().get(key).unwrap().clone();
            let (Metadata::Array(Array::String(tokens)), Metadata::Array(Array::I32(mut types))) =
                (array(TOKENS), array(TYPES))
            else {
                panic!("the fixture has tokens and their types");
            };
            let stop = tokens.iter().position(|token| token == ".").unwrap();
            types[stop] = USER_DEFINED;
            let tokens = tokens.iter().map(|token| if token == "." { "</think>" } else { token });
            writer.set(TOKENS, tokens.collect::<Strings>()).set(TYPES, types);
            writer.set(
                TEMPLATE,
                format!("{{{{ messages[0].content }}}}{end_of_prompt}").as_str(),
            );
        })
    }

    fn path(&self) -> String {
        self.folder.path().join("copy.gguf").to_str().unwrap().to_owned()
    }

    fn run(&self, more: &[&str]) -> Ran {
        host(&[&["run", &self.path()], &GREEDY[..], more].concat())
    }

    fn json(&self, more: &[&str]) -> Value {
        json(&quiet(self.run(&[&["--json"], more].concat())))
    }
}

/// A model whose reply has both thoughts and an answer, and what these are.
fn thinker() -> (Copy, String, String) {
    let copy = Copy::thinking("<think>");
    let report = copy.json(&[]);
    let tokens = tests::tokens(&report["tokens"]);
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(Path::new(&copy.path())).unwrap(), None).unwrap();
    let end = tokenizer.token("</think>").unwrap();
    let at = tokens
        .iter()
        .position(|&token| token == end)
        .expect("a full stop among 40 tokens");
    let text = |tokens| tokenizer.decode(tokens, Controls::Hide).unwrap();
    let (thinking, answer) = (text(&tokens[..at]), text(&tokens[at + 1..]));
    let (thinking, answer) = (thinking.trim(), answer.trim_start());
    assert!(!thinking.is_empty() && !answer.is_empty(), "{report}");
    assert_eq!(
        (&report["thinking"], &report["text"]),
        (&thinking.into(), &answer.into())
    );
    (copy, thinking.to_owned(), answer.to_owned())
}

#[test]
fn in_a_pipe_the_answer_alone_stands_on_standard_output() {
    let (copy, thinking, answer) = thinker();
    let ran = copy.run(&[]);
    assert_eq!((ran.code, ran.stdout), (Some(0), format!("{answer}\n")));
    assert_eq!(ran.stderr, format!("Thinking...\n{thinking}\n...done thinking.\n\n"));
    for hide in ["--hide-thinking", "--hidethinking"] {
        assert_eq!(quiet(copy.run(&[hide])), format!("{answer}\n"));
    }
}

#[test]
fn a_stop_text_is_looked_for_in_the_answer_only() {
    let (copy, thinking, answer) = thinker();
    let of = |text: &str| text.split_whitespace().next().unwrap().to_owned();
    let report = copy.json(&["--stop", &of(&thinking), "--stop", &of(&answer)]);
    assert_eq!(
        (&report["thinking"], &report["finish"]),
        (&thinking.into(), &"stop".into())
    );
    assert!(answer.starts_with(report["text"].as_str().unwrap()), "{report}");
}

#[test]
fn a_model_that_does_not_stop_thinking_gives_no_answer_and_says_so() {
    let copy = Copy::of(MODEL, |_, writer| {
        writer.set(TEMPLATE, "{{ messages[0].content }}<think>");
    });
    let report = copy.json(&[]);
    let thinking = report["thinking"].as_str().unwrap();
    assert_eq!(report["text"], "");
    assert!(thinking.len() > 20, "{report}");
    let ran = copy.run(&[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "\n"));
    let warning = "warning: the model thought but gave no answer\n";
    assert_eq!(
        ran.stderr,
        format!("Thinking...\n{}\n{warning}", thinking.trim_end_matches('\n'))
    );
    let hidden = copy.run(&["--hide-thinking"]);
    assert_eq!(
        hidden.stderr,
        warning.to_owned() + "hint: without --hide-thinking its thoughts are shown\n"
    );
}

#[test]
fn a_model_may_be_told_not_to_think() {
    // by the template, or in its stead
    let templates = [
        "{% if enable_thinking %}<think>{% else %}<think></think>{% endif %}",
        "<think>",
    ];
    for template in templates {
        let copy = Copy::thinking(template);
        assert_ne!(copy.json(&[])["thinking"], "");
        for off in ["--think=off", "--think=false"] {
            let report = copy.json(&[off]);
            assert_eq!(report["thinking"], "", "{template}");
            assert_ne!(report["text"], "", "{template}");
        }
    }
}

#[test]
fn how_much_a_model_thinks_reaches_its_template() {
    let template = fs::read_to_string(fixtures().join("templates/openai-gpt-oss-120b.jinja")).unwrap();
    let copy = Copy::of("gptoss-q8_0.gguf", |_, writer| {
        writer.set(TEMPLATE, template.as_str());
    });
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(Path::new(&copy.path())).unwrap(), None).unwrap();
    let length = |text: &str| tokenizer.encode(text, models::tokenizer::Special::Parse).len() as u64;
    let prompt = |how: &[&str]| {
        let run = ["run", &copy.path(), "2+2?", "--predict", "0", "--json"];
        json(&answer(&[&run, how].concat()))["prompt_tokens"].as_u64().unwrap()
    };
    let usual = prompt(&[]);
    assert_eq!((prompt(&["--think"]), prompt(&["--think", "medium"])), (usual, usual));
    assert_eq!(
        prompt(&["--think", "off"]),
        usual + length("<|channel|>final<|message|>")
    );
    for level in ["low", "high"] {
        let difference = length(&format!("Reasoning: {level}\n\n")) as i64 - length("Reasoning: medium\n\n") as i64;
        assert_eq!(prompt(&["--think", level]) as i64 - usual as i64, difference, "{level}");
    }
}

#[test]
fn a_model_that_knows_no_levels_is_asked_for_none() {
    let ran = Copy::thinking("<think>").run(&["--think", "low"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    let expected = "supports no levels of thinking, \"low\" is one\nhint: --think on or --think off\n";
    assert!(ran.stderr.ends_with(expected), "{}", ran.stderr);
}
