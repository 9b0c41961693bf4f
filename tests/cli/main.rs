//! The program `host` as its users see it: help, exit codes, what stands on which stream, and the shapes of its JSON.
//!
//! Texts are kept in `snapshots/`; `INSTA_UPDATE=always cargo test -p tests --test cli` writes them anew.

mod bench;
mod features;
mod structured;
mod thinking;
mod words;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use models::gguf::{Gguf, GgufWriter};
use serde_json::Value;

const MODEL: &str = "qwen2-q8_0.gguf";
/// Nothing is left to chance, and no template is in the way.
const PLAIN: [&str; 3] = ["--raw", "--temperature", "0"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// `host` in the folder of the fixtures, so that messages have short paths.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(tests::host());
    command.args(arguments).current_dir(fixtures()).stdin(Stdio::null());
    for variable in ["GRAFT_PLUGINS", "GRAFT_LOG", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    command
        .env("XDG_CACHE_HOME", tests::host().with_file_name("test-cache"))
        .env("COLUMNS", "100");
    command
}

fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn host(arguments: &[&str]) -> Ran {
    finish(&mut command(arguments))
}

fn host_with_input(arguments: &[&str], input: &str) -> Ran {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), input).unwrap();
    finish(command(arguments).stdin(fs::File::open(file.path()).unwrap()))
}

/// The output of a run that succeeds and has nothing to say beside it.
fn answer(arguments: &[&str]) -> String {
    quiet(host(arguments))
}

fn quiet(ran: Ran) -> String {
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    ran.stdout
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// `host run` on the prompt "ROMEO:" without chance, as JSON.
fn run_json(more: &[&str]) -> Value {
    json(&answer(
        &[&["run", MODEL, "ROMEO:", "--json"], &PLAIN[..], more].concat(),
    ))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Code, then what stands on standard error, of each command; nothing stands on standard output.
fn complaints(code: i32, commands: &[&[&str]]) -> String {
    let mut all = String::new();
    for arguments in commands {
        let ran = host(arguments);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(code), ""),
            "{arguments:?}: {ran:?}"
        );
        assert!(
            !ran.stderr.contains('\x1b') && !ran.stderr.contains("panicked"),
            "{ran:?}"
        );
        writeln!(all, "$ host {}\n{}", arguments.join(" "), ran.stderr).unwrap();
    }
    all
}

#[test]
fn an_empty_folder_of_plugins_leaves_the_others() {
    let folder = tempfile::tempdir().unwrap();
    run_json(&["--predict", "1", "--plugins", folder.path().to_str().unwrap()]);
}

#[test]
fn an_answer_is_all_that_stands_on_standard_output() {
    let plain = answer(&[&["run", MODEL, "ROMEO:", "--predict", "8"], &PLAIN[..]].concat());
    let ran = host(&[&["run", MODEL, "ROMEO:", "--predict", "8", "--stats"], &PLAIN[..]].concat());
    assert_eq!((ran.code, &ran.stdout), (Some(0), &plain));
    for figure in ["load ", "prefill ", "decode ", "tokens/s", "bytes planned", "workspace"] {
        assert!(ran.stderr.contains(figure), "{figure:?} in {}", ran.stderr);
    }
    let report = run_json(&["--predict", "8"]);
    assert_eq!(format!("{}\n", report["text"].as_str().unwrap()), plain);
}

#[test]
fn an_answer_in_json_has_what_is_documented() {
    let report = run_json(&["--predict", "3"]);
    let expected = [
        "text",
        "thinking",
        "tool_calls",
        "tokens",
        "prompt_tokens",
        "generated",
        "finish",
        "shifts",
        "timings",
        "backend",
        "devices",
        "memory",
    ];
    assert_eq!(keys(&report), expected);
    assert_eq!(keys(&report["timings"]), ["load_ms", "prefill_ms", "decode_ms"]);
    assert!(
        report["timings"]
            .as_object()
            .unwrap()
            .values()
            .all(|time| time.as_f64().unwrap() > 0.0)
    );
    assert_eq!(report["tokens"].as_array().unwrap().len(), 3);
    assert_eq!(report["generated"], 3);
    assert_eq!(
        (&report["thinking"], &report["tool_calls"]),
        (&"".into(), &Value::Array(Vec::new()))
    );
    assert_eq!(report["finish"], "length");
    let tokens = json(&answer(&["tokenize", MODEL, "ROMEO:", "--json"]));
    assert_eq!(report["prompt_tokens"], tokens["tokens"].as_array().unwrap().len());
    let backend = report["backend"].as_str().unwrap();
    assert!(
        report["devices"][0]
            .as_str()
            .unwrap()
            .starts_with(&format!("{backend}:0 "))
    );
}

#[test]
fn tokens_in_json_are_ids_and_pieces() {
    assert_eq!(
        answer(&["tokenize", "gemma3-q8_0.gguf", "hi 🦀", "--bos", "--json"]).trim_end(),
        { r#"{"tokens":[2,399,1989,250,169,176,138],"pieces":["<s>","hi"," ","\\xf0","\\x9f","\\xa6","\\x80"]}"# }
    );
    assert_eq!(
        answer(&["tokenize", MODEL, "", "--json"]),
        "{\"tokens\":[],\"pieces\":[]}\n"
    );
    let piped = quiet(host_with_input(&["tokenize", MODEL, "-", "--json"], "hi there\n"));
    assert_eq!(piped, answer(&["tokenize", MODEL, "hi there\n", "--json"]));
    let lines = answer(&["tokenize", MODEL, "<|im_start|>"]);
    assert_eq!(lines.lines().count(), 1, "a special token is one: {lines}");
}

#[test]
fn a_file_tells_of_itself_in_json() {
    let report = json(&answer(&["inspect", MODEL, "--json", "--tensors"]));
    let expected = [
        "file",
        "version",
        "architecture",
        "served",
        "parameters",
        "bytes",
        "types",
        "metadata",
        "tensors",
    ];
    assert_eq!(keys(&report), expected);
    assert_eq!(
        (&report["architecture"], &report["served"]),
        (&"qwen2".into(), &true.into())
    );
    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!(keys(&tensors[0]), ["name", "type", "shape", "bytes", "file", "offset"]);
    let bytes: u64 = tensors.iter().map(|tensor| tensor["bytes"].as_u64().unwrap()).sum();
    assert_eq!(report["bytes"], bytes);

    let text = answer(&["inspect", "vocab/gpt-2.gguf"]);
    assert!(text.contains("architecture gpt2 (not served)"), "{text}");
    assert!(answer(&["inspect"]).contains("(embedded model)"));
}

#[test]
fn a_prompt_comes_from_an_argument_a_file_or_a_pipe() {
    let [run, options] = [&["run", MODEL, "--predict", "4"][..], &PLAIN[..]];
    let words = answer(&[run, &["But", "soft,", "what"], options].concat());
    assert_eq!(
        quiet(host_with_input(&[run, options].concat(), "But soft, what\n")),
        words
    );

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "But soft, what").unwrap();
    assert_eq!(
        answer(&[run, &["--file", file.path().to_str().unwrap()], options].concat()),
        words
    );

    let both = quiet(host_with_input(&[run, &["what"], options].concat(), "But soft,\n"));
    assert_eq!(both, answer(&[run, &["But soft,\n\nwhat"], options].concat()));
}

#[test]
fn the_template_and_the_system_message_are_part_of_the_prompt() {
    let prompt = |more: &[&str]| {
        let run = ["run", MODEL, "Hello", "--json", "--predict", "1", "--temperature", "0"];
        json(&answer(&[&run, more].concat()))["prompt_tokens"].as_u64().unwrap()
    };
    let (raw, chat, system) = (prompt(&["--raw"]), prompt(&[]), prompt(&["--system", "- be brief"]));
    assert!(raw < chat && chat < system, "{raw} {chat} {system}");
}

#[test]
fn a_model_without_a_template_continues_the_prompt_and_takes_no_system_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.gguf");
    let original = Gguf::open(&fixtures().join(MODEL)).unwrap();
    GgufWriter::copy_of(&original)
        .remove("tokenizer.chat_template")
        .write(&path)
        .unwrap();
    let path = path.to_str().unwrap();

    let ran = host(&["run", path, "ROMEO:", "--predict", "3", "--temperature", "0"]);
    assert_eq!(
        ran.stderr,
        format!("warning: {path} has no chat template: the prompt is continued as it is\n")
    );
    assert_eq!(
        ran.stdout,
        answer(&[&["run", MODEL, "ROMEO:", "--predict", "3"], &PLAIN[..]].concat())
    );

    let ran = host(&["run", path, "ROMEO:", "--system", "x"]);
    let expected = format!("error: --system: {path} has no chat template to put it into\n");
    assert_eq!((ran.code, ran.stderr), (Some(1), expected));
}

#[test]
fn a_stop_text_ends_the_answer_wherever_its_pieces_are_cut() {
    let whole = run_json(&["--predict", "24"]);
    let text = whole["text"].as_str().unwrap();
    let letters: Vec<char> = text.chars().collect();
    // every stop text of three letters, some of which lie over two tokens
    for at in (3..letters.len() - 3).step_by(5) {
        let stop: String = letters[at..at + 3].iter().collect();
        let report = run_json(&["--predict", "24", "--stop", &stop, "--stop", "never to be said"]);
        assert_eq!(report["text"], text[..text.find(&stop).unwrap()], "{stop:?}");
        assert_eq!(report["finish"], "stop");
    }
}

#[test]
fn an_answer_has_as_many_tokens_as_were_asked_for_and_never_more_than_ten_contexts() {
    for wanted in [0, 1, 7] {
        let report = run_json(&["--predict", &wanted.to_string()]);
        assert_eq!(
            (&report["generated"], &report["finish"]),
            (&wanted.into(), &"length".into())
        );
    }
    let report = run_json(&["--predict", "-1", "--ctx-size", "16", "--ignore-eos"]);
    assert_eq!(
        (&report["generated"], &report["finish"]),
        (&160.into(), &"length".into())
    );
    let report = run_json(&["--predict", "-1", "--ctx-size", "16", "--ignore-eos", "--no-shift"]);
    assert_eq!(report["finish"], "context");
    assert!(report["generated"].as_u64().unwrap() <= 16, "{report}");
}

#[test]
fn what_a_context_had_no_room_for_is_said() {
    let run = |more: &[&str]| {
        let ran = host(
            &[
                &[
                    "run",
                    MODEL,
                    "ROMEO:",
                    "--ctx-size",
                    "16",
                    "--ignore-eos",
                    "--predict",
                    "40",
                ],
                &PLAIN[..],
                more,
            ]
            .concat(),
        );
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stderr
    };
    let shifted = run(&[]);
    assert!(
        shifted.contains("the context of 16 tokens was full") && shifted.contains("--ctx-size"),
        "{shifted}"
    );
    let cut = run(&["--no-shift"]);
    assert!(
        cut.contains("ends here because the context of 16 tokens is full"),
        "{cut}"
    );
    let report = run_json(&["--predict", "40", "--ctx-size", "16", "--ignore-eos"]);
    assert!(report["shifts"].as_u64() > Some(0), "{report}");
}

#[test]
fn layers_that_a_model_does_not_read_are_warned_of() {
    let file = Gguf::open(&fixtures().join(MODEL)).unwrap();
    let mut writer = GgufWriter::copy_of(&file);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shorter.gguf");
    writer.set("qwen2.block_count", 3u32).write(&path).unwrap();
    let ran = host(&[&["run", path.to_str().unwrap(), "ROMEO:", "--predict", "1"], &PLAIN[..]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("blk.3.attn_norm.weight"), "{}", ran.stderr);
}

#[test]
fn a_seed_repeats_an_answer() {
    let run = |seed: &str| answer(&["run", MODEL, "ROMEO:", "--raw", "--predict", "24", "--seed", seed]);
    assert_eq!(run("7"), run("7"));
    let answers: BTreeSet<String> = (0..6).map(|seed| run(&seed.to_string())).collect();
    assert!(answers.len() > 1, "{answers:?}");
}

#[test]
fn a_context_beyond_what_the_model_was_trained_for_is_warned_of() {
    let ran = host(&[&["run", MODEL, "x", "--predict", "1", "--ctx-size", "4000"], &PLAIN[..]].concat());
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.stderr.starts_with("warning: the model was trained for 2048 tokens"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_device_may_be_named_with_its_backend_or_without() {
    for device in ["0", "cpu:0"] {
        assert_eq!(run_json(&["--predict", "2", "--devices", device])["backend"], "cpu");
    }
    for ty in ["f32", "F16", "q8_0", "q4_0"] {
        run_json(&["--predict", "2", "--kv-type", ty]);
    }
}

#[test]
fn logits_are_a_row_a_token_in_a_whole_file_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logits.safetensors");
    let text = path.to_str().unwrap();
    fs::write(&path, "an older file").unwrap();
    assert_eq!(
        answer(&["logits", MODEL, "--tokens", "739, 25\n774", "--output", text]),
        ""
    );
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let logits = file.tensor("logits").unwrap();
    assert_eq!(
        (logits.dtype(), logits.shape()),
        (safetensors::Dtype::F32, &[3, 2048][..])
    );
    assert!(logits.data().chunks_exact(4).any(|bytes| bytes != [0; 4]));

    // a folder in the file's place cannot be replaced
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    let ran = host(&["logits", MODEL, "--tokens", "739", "--output", taken.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.stderr,
        format!("error: --output {}: Is a directory (os error 21)\n", taken.display())
    );
    let names: BTreeSet<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["logits.safetensors".into(), "taken".into()]),
        "nothing else is left"
    );
}
