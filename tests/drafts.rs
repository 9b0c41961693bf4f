//! Guessed tokens change how fast an answer comes, and nothing else.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use host::{
    conversation::{Conversation, Options, Turn},
    execution::engine::Settings,
    generation::{Advance, Drafted, MOST_AHEAD, Session},
    sampling::SamplingOptions,
};
use serde_json::Value;
use tests::{Fixture, Serving, command, json, output, settings};

const MODELS: [&str; 5] = ["qwen2-f32", "qwen2-q8_0", "gemma3-q8_0", "gemma3n-q8_0", "gptoss-q8_0"];

/// Nobody interrupts.
static NEVER: AtomicBool = AtomicBool::new(false);

/// A session of `context` tokens in pages of 16 in which `most` tokens are guessed.
fn session(serving: &Serving, context: u32, most: usize) -> Session<'static> {
    let settings = Settings {
        rows: 1 + most as u32,
        ahead: most as u32,
        ..settings(context, 16)
    };
    let mut session = Session::new(serving.engine(&settings), context, Some(4));
    session.draft(most, most);
    session
}

#[test]
fn guesses_change_no_logits_and_nothing_that_is_reused_later() {
    for model in MODELS {
        let fixture = Fixture::named(model);
        let (serving, tokens) = (Serving::of(&fixture), fixture.prompt());
        // what repeats is guessed right, and where it breaks off, wrong
        let text = [&tokens[..30].repeat(4)[..], &tokens[30..50], &tokens[10..30].repeat(3)].concat();
        let [mut plain, mut guessing] = [0, MOST_AHEAD].map(|most| session(&serving, 128, most));
        for length in [12, 40, 7, 19] {
            let prompt = [&tokens[..length], &tokens[60..63]].concat();
            let prefills = [&mut plain, &mut guessing].map(|session| session.prefill(&prompt, &NEVER).unwrap());
            assert_eq!(prefills[0], prefills[1], "{model}: as much is reused");
            for &token in &text {
                assert!(plain.logits() == guessing.logits(), "{model}");
                for session in [&mut plain, &mut guessing] {
                    assert_eq!(session.advance(token, &NEVER).unwrap(), Advance::Ready);
                }
                assert_eq!(plain.cached(), guessing.cached());
            }
        }
        assert_eq!(plain.shifts(), guessing.shifts());
        assert!(plain.shifts() > 4, "the context was full");
        let Drafted { drafted, accepted } = guessing.drafted();
        assert!(accepted > 100 && drafted > accepted, "{model}: {accepted} of {drafted}");
        assert_eq!(plain.drafted(), Drafted::default());
    }
}

#[test]
fn a_step_that_guesses_ends_with_the_context() {
    let fixture = Fixture::named("qwen2-q8_0");
    let (serving, tokens) = (Serving::of(&fixture), fixture.prompt());
    let mut ending = session(&serving, 64, MOST_AHEAD);
    let text = tokens[..10].repeat(7);
    ending.prefill(&text[..40], &NEVER).unwrap();
    for &token in &text[40..64] {
        assert_eq!(ending.advance(token, &NEVER).unwrap(), Advance::Ready);
    }
    assert!(ending.drafted().accepted > 0);
    assert_eq!((ending.cached().len(), ending.shifts()), (64, 0));
}

/// How answers are made, to be compared.
fn ways(serving: &Serving) -> Vec<Options> {
    let greedy = SamplingOptions {
        temperature: 0.0,
        ..SamplingOptions::default()
    };
    let seeded = |seed| SamplingOptions {
        seed: Some(seed),
        temperature: 0.5,
        ..SamplingOptions::default()
    };
    let penalized = SamplingOptions {
        repeat_penalty: 1.05,
        repeat_last_n: -1,
        presence_penalty: 0.1,
        frequency_penalty: 0.01,
        ..seeded(5)
    };
    let schema = r#"{"type": "array", "items": {"enum": ["a rose", "by any other name"]}, "minItems": 8}"#;
    let format = serving.model.formats().unwrap().schema(schema).unwrap();
    let with = |sampling: SamplingOptions| Options {
        sampling,
        raw: true,
        ignore_end: true,
        limit: Some(100),
        ..Options::default()
    };
    vec![
        with(greedy.clone()),
        with(seeded(1)),
        with(seeded(2)),
        with(penalized),
        Options {
            stops: vec!["q".into(), "e t".into(), "\n\n".into()],
            ignore_end: false,
            ..with(seeded(3))
        },
        Options {
            format: Some(format.clone()),
            ..with(seeded(4))
        },
        Options {
            format: Some(format),
            ..with(greedy)
        },
    ]
}

/// Two turns of a conversation, the first answer cut short after `most` pieces.
fn turns(serving: &Serving, options: &Options, draft: Option<usize>, most: usize) -> Vec<Turn> {
    let session = session(serving, 128, draft.unwrap_or(0));
    let mut options = options.clone();
    options.draft = draft;
    let mut conversation = Conversation::new(&serving.model, session, options);
    let interrupt = conversation.interrupt();
    let mut say = |text: &str, most: usize| {
        let mut pieces = 0;
        conversation.say(text, &mut |_| {
            pieces += 1;
            interrupt.store(pieces >= most, Ordering::Relaxed);
            Ok(())
        })
    };
    let line = "A rose by any other name would smell as sweet. ";
    vec![
        say(&line.repeat(2), most).unwrap(),
        say(&format!(" And again: {line}"), usize::MAX).unwrap(),
    ]
}

#[test]
fn answers_are_the_same_however_their_tokens_are_chosen() {
    for model in MODELS {
        let serving = Serving::of(&Fixture::named(model));
        let mut accepted = 0;
        for (way, options) in ways(&serving).iter().enumerate() {
            for most in [usize::MAX, 11] {
                let [plain, drafted] = [None, Some(MOST_AHEAD)].map(|draft| turns(&serving, options, draft, most));
                for (plain, drafted) in plain.iter().zip(&drafted) {
                    let said = |turn: &Turn| {
                        let answer = turn.answer.clone();
                        (answer.tokens, answer.finish, turn.reply.content.clone(), answer.reused)
                    };
                    assert_eq!(said(plain), said(drafted), "{model}, way {way}");
                    assert_eq!((plain.shifts, plain.complete), (drafted.shifts, drafted.complete));
                    assert_eq!(plain.draft, None);
                    accepted += drafted.draft.unwrap().accepted;
                }
            }
        }
        println!("{model}: {accepted} tokens were guessed");
        assert!(accepted > 0, "{model}");
    }
}

/// A run that repeats itself token by token, since it may say nothing else.
fn repeating(folder: &Path, more: &[&str]) -> Command {
    let tokenized = json(&mut command(&[
        "tokenize",
        "embedded",
        "Parting is such sweet sorrow. ",
        "--json",
    ]));
    let ids: Vec<String> = tests::tokens(&tokenized["tokens"])
        .iter()
        .map(|id| format!("<[{id}]>"))
        .collect();
    let grammar = folder.join("repeat.lark");
    fs::write(&grammar, format!("start: ({})+", ids.join(" "))).unwrap();
    let fixed = "--raw --ignore-eos --temperature 0 --predict 120 --backend cpu --grammar";
    let mut command = command(&["run", "embedded", "JULIET:"]);
    command.args(fixed.split(' ')).arg(grammar).args(more);
    command
}

#[test]
fn the_program_tells_how_guesses_fared() {
    let folder = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let output = repeating(folder.path(), more).output().unwrap();
        assert!(output.status.success());
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.stdout, stderr)
    };
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let plain = parsed(&run(&["--json"]).0);
    let drafted = parsed(&run(&["--json", "--draft", "ngram"]).0);
    assert_eq!(plain["tokens"], drafted["tokens"]);
    assert!(plain.get("drafted").is_none() && plain.get("accepted").is_none());
    let [guesses, right] = ["drafted", "accepted"].map(|key| drafted[key].as_u64().unwrap());
    assert!(right > 0 && right <= guesses, "{right} of {guesses}");

    let (_, figures) = run(&["--stats", "--draft", "ngram", "--draft-max", "2"]);
    let line = figures.lines().find(|line| line.starts_with("draft ")).unwrap();
    assert!(line.contains(" accepted ("), "{line}");
    assert!(!run(&["--stats"]).1.contains("\ndraft "));
}

#[test]
fn guesses_may_be_few_or_hardly_fit() {
    let prompt = "ROMEO: But soft! But soft! But soft! But soft!";
    let run = |more: &str| {
        let fixed = "--raw --ignore-eos --temperature 0 --predict 60 --json --backend cpu";
        let mut command = command(&["run", "embedded", prompt]);
        json(command.args(fixed.split(' ')).args(more.split(' ')))
    };
    let plain = run("--batch-size 4 --ctx-size 48");
    for draft in ["--draft-max 1", "--draft-max 7"] {
        let drafted = run(&format!("--batch-size 4 --ctx-size 48 --draft ngram {draft}"));
        assert_eq!(plain["tokens"], drafted["tokens"]);
        assert_eq!(plain["shifts"], drafted["shifts"]);
    }
    // a step of one token leaves no room for guesses
    assert_eq!(run("--batch-size 1 --draft ngram")["drafted"], 0);
    output(
        command(&[
            "run",
            "embedded",
            prompt,
            "--predict",
            "3",
            "--draft",
            "ngram",
            "--backend",
            "cpu",
        ])
        .arg("--raw"),
    );
}
