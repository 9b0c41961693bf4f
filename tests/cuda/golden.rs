//! The models of `fixtures/` on the emulation say what the reference implementations say.

use std::process::Command;

use tempfile::TempDir;
use tests::{Fixture, Logits, command, json, output, tokens};

use crate::{EMULATED, plugins};

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

/// A command that runs on the emulation and on nothing else.
fn emulated(plugins: &TempDir, arguments: &[&str]) -> Command {
    let mut command = command(arguments);
    command.args(["--backend", EMULATED, "--no-fallback", "--plugins"]);
    command.arg(plugins.path());
    command
}

fn logits(plugins: &TempDir, fixture: &Fixture, tokens: &[u32], batch: &str) -> Logits {
    let file = plugins.path().join(format!("{}-{batch}.safetensors", fixture.name));
    let ids: Vec<String> = tokens.iter().map(u32::to_string).collect();
    let (path, ids, to) = (fixture.path(), ids.join(" "), file.to_str().unwrap());
    let arguments = ["logits", &path, "--tokens", &ids, "--output", to];
    let mut command = emulated(plugins, &arguments);
    command.args(["--kv-type", "f32", "--batch-size", batch]);
    assert_eq!(output(&mut command), b"");
    Logits::read(&file)
}

#[test]
fn logits_are_those_of_the_reference() {
    let Some(plugins) = plugins() else { return };
    for (model, most_error, most_difference) in GOLDEN {
        let fixture = Fixture::named(model);
        let prompt = &fixture.prompt()[..POSITIONS];
        let reference = Logits(fixture.logits().0[..POSITIONS].to_vec());
        let few = logits(&plugins, &fixture, prompt, "7");
        for (found, batch) in [(&few, "7"), (&logits(&plugins, &fixture, prompt, "48"), "48")] {
            let (error, difference) = (found.error_from(&reference), found.largest_difference(&reference));
            println!("{model}, batches of {batch}: error {error:.2e}, logit {difference:.2e}");
            assert!(error <= most_error && difference <= most_difference, "{model}");
        }
        // a column's result depends on no other of up to eight
        let one = logits(&plugins, &fixture, &prompt[..9], "1");
        assert_eq!(one.0, few.0[..9], "{model}");
    }
}

#[test]
fn the_greedy_continuation_is_that_of_the_reference() {
    let Some(plugins) = plugins() else { return };
    for (model, _, most_difference) in GOLDEN {
        let fixture = Fixture::named(model);
        let greedy = fixture.greedy();
        let certain = greedy
            .iter()
            .take_while(|(_, margin)| *margin > 2.0 * most_difference)
            .count();
        let asked = certain.min(8);
        let ids: Vec<u32> = fixture.greedy_prompt();
        let text = crate::plans::text_of(&fixture, &ids);
        let mut run = emulated(
            &plugins,
            &["run", &fixture.path(), &text, "--predict", &asked.to_string()],
        );
        run.args("--raw --ignore-eos --temperature 0 --json --kv-type f32 --batch-size 8".split(' '));
        let answer = json(&mut run);
        let expected: Vec<u32> = greedy[..asked].iter().map(|(token, _)| *token).collect();
        println!("{model}: {asked} tokens of {certain} that are certain");
        assert!(asked >= 2, "{model}");
        assert_eq!(tokens(&answer["tokens"]), expected, "{model}");
        assert_eq!(answer["backend"], EMULATED);
    }
}
