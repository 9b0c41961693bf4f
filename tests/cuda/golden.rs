//! The models of `fixtures/` say what the reference implementations say.

use std::process::Command;

use models::tokenizer::{Controls, Special};
use tests::{Fixture, Logits, Serving, command, json, output, tokens};

use crate::{Served, served};

/// A model, and how far it may be from its reference with a cache of f32: the mean normalized squared error over the
/// prompt's positions, and the largest difference of a logit. Nothing is quantized on the way, so the files' own types do not
/// matter.
const GOLDEN: [(&str, f64, f64); 5] = [
    ("qwen2-f32", 1e-11, 1e-4),
    ("qwen2-q8_0", 1e-11, 1e-4),
    ("gemma3-q8_0", 1e-11, 1e-4),
    ("gemma3n-q8_0", 1e-11, 1e-4),
    ("gptoss-q8_0", 1e-11, 1e-4),
];

/// Positions of the prompt that are compared.
const POSITIONS: usize = 48;

/// A command that runs on this backend and on nothing else.
pub fn on(served: &Served, arguments: &[&str]) -> Command {
    let mut command = command(arguments);
    command.args(["--backend", served.name, "--no-fallback", "--plugins"]);
    command.arg(served.plugins.path());
    command
}

fn logits(served: &Served, fixture: &Fixture, tokens: &[u32], batch: &str) -> Logits {
    let file = served
        .plugins
        .path()
        .join(format!("{}-{batch}.safetensors", fixture.name));
    let ids: Vec<String> = tokens.iter().map(u32::to_string).collect();
    let (path, ids, to) = (fixture.path(), ids.join(" "), file.to_str().unwrap());
    let mut command = on(served, &["logits", &path, "--tokens", &ids, "--output", to]);
    command.args(["--kv-type", "f32", "--batch-size", batch]);
    assert_eq!(output(&mut command), b"");
    Logits::read(&file)
}

#[test]
fn logits_are_those_of_the_reference() {
    for served in served() {
        for (model, most_error, most_difference) in GOLDEN {
            let fixture = Fixture::named(model);
            let prompt = &fixture.prompt()[..POSITIONS];
            let reference = Logits(fixture.logits().0[..POSITIONS].to_vec());
            let few = logits(&served, &fixture, prompt, "7");
            let many = logits(&served, &fixture, prompt, "48");
            for (found, batch) in [(&few, 7), (&many, 48)] {
                let (error, difference) = (found.error_from(&reference), found.largest_difference(&reference));
                let name = served.name;
                println!("{model} on {name}, batches of {batch}: error {error:.2e}, logit {difference:.2e}");
                assert!(error <= most_error && difference <= most_difference, "{model}");
            }
            // a column's result depends on no other of up to eight
            let one = logits(&served, &fixture, &prompt[..9], "1");
            assert_eq!(one.0, few.0[..9], "{model}");
        }
    }
}

#[test]
fn the_greedy_continuation_is_that_of_the_reference() {
    for served in served() {
        for (model, _, most_difference) in GOLDEN {
            continues(&served, &Fixture::named(model), most_difference);
        }
    }
}

/// The tokens of which the best logit leads by more than twice the largest error, eight at most, are those of the reference.
fn continues(served: &Served, fixture: &Fixture, most_difference: f64) {
    let (name, greedy) = (fixture.name, fixture.greedy());
    let is_certain = |(_, margin): &&(u32, f64)| *margin > 2.0 * most_difference;
    let expected: Vec<u32> = greedy
        .iter()
        .take_while(is_certain)
        .take(8)
        .map(|(token, _)| *token)
        .collect();
    assert!(expected.len() >= 4, "{name}");
    let (text, predict) = (text_of(fixture, &fixture.greedy_prompt()), expected.len().to_string());
    let mut run = on(served, &["run", &fixture.path(), &text, "--predict", &predict]);
    run.args("--raw --ignore-eos --temperature 0 --json --kv-type f32 --batch-size 8".split(' '));
    let answer = json(&mut run);
    println!("{name} on {}: {predict} tokens", served.name);
    assert_eq!(tokens(&answer["tokens"]), expected, "{name}");
    assert_eq!(answer["backend"], served.name);
}

/// The text of these tokens, which gives them again.
fn text_of(fixture: &Fixture, tokens: &[u32]) -> String {
    let tokenizer = Serving::of(fixture).model.tokenizer;
    let words = tokens
        .strip_prefix(&[tokenizer.bos().unwrap_or(u32::MAX)])
        .unwrap_or(tokens);
    let text = tokenizer.decode(words, Controls::Show).unwrap();
    assert_eq!(tokenizer.encode(&text, Special::Parse), words);
    text
}
