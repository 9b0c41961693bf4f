//! What the program says of itself and of mistakes: help, errors, completions, colours, and readers that go away.

use std::{
    fs,
    io::{Read, Write},
    process::{Command, Stdio},
};

use super::*;

#[test]
fn every_command_explains_itself_with_examples() {
    insta::assert_snapshot!("help", answer(&["--help"]));
    for command in [
        "run",
        "logits",
        "tokenize",
        "inspect",
        "backends",
        "check",
        "bench",
        "plan",
        "completions",
    ] {
        let help = answer(&[command, "--help"]);
        assert!(
            help.contains("Example") && help.contains(&format!("host {command}")),
            "{help}"
        );
        assert!(!help.contains('\x1b'), "{help}");
        insta::assert_snapshot!(format!("help_{command}"), help);
    }
}

#[test]
fn the_version_is_the_workspaces() {
    assert_eq!(answer(&["--version"]), format!("host {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn without_a_command_the_help_goes_to_standard_error() {
    let ran = host(&[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""));
    assert!(ran.stderr.contains("Usage: host [OPTIONS] <COMMAND>"));
}

#[test]
fn what_is_not_understood_is_a_usage_error() {
    let commands: &[&[&str]] = &[
        &["walk"],
        &["run", "--walk"],
        &["run", MODEL, "x", "--file", "README.md"],
        &["run", MODEL, "x", "--raw", "--system", "y"],
        &["run", MODEL, "x", "--raw", "--think", "on"],
        &["run", MODEL, "x", "--format", "json", "--json-schema", "x.json"],
        &["run", MODEL, "x", "--format", "yaml"],
        &["run", MODEL, "x", "--draft-max", "3"],
        &["logits", MODEL],
        &["tokenize", MODEL],
        &["check"],
        &["bench", MODEL, "-p", "1-2+0"],
        &["bench", MODEL, "-n", "many"],
        &["completions", "tcsh"],
    ];
    insta::assert_snapshot!("usage_errors", complaints(2, commands));
}

#[test]
fn a_bad_value_names_its_option() {
    let bad = [
        ("--predict", "-2"),
        ("--predict", "many"),
        ("--think", "never"),
        ("--keep", "-1"),
        ("--temperature", "-1"),
        ("--temperature", "NaN"),
        ("--temperature", "warm"),
        ("--top-k", "1.5"),
        ("--top-p", "1.1"),
        ("--top-p", "-0.1"),
        ("--min-p", "2"),
        ("--typical", "-1"),
        ("--repeat-penalty", "0"),
        ("--repeat-last-n", "-2"),
        ("--presence-penalty", "inf"),
        ("--frequency-penalty", "NaN"),
        ("--seed", "x"),
        ("--threads", "0"),
        ("--threads", "-1"),
        ("--ctx-size", "0"),
        ("--ctx-size", "16777217"),
        ("--batch-size", "0"),
        ("--batch-size", "1e3"),
        ("--kv-type", "q5_0"),
        ("--draft", "model"),
        ("--draft-max", "0"),
        ("--draft-max", "8"),
        ("--devices", ""),
        ("--devices", "first"),
        ("--devices", "cpu:"),
        ("--devices", "-1"),
        ("--devices", "2x1parsec"),
        ("--devices", "cpu:0,gpu:0"),
        ("--gpu-layers", "-1"),
        ("--split", "1,x"),
        ("--reserve", "much"),
        ("--parallel", "0"),
    ];
    let mut all = String::new();
    for (option, value) in bad {
        let text = complaints(2, &[&["run", MODEL, "x", &format!("{option}={value}")]]);
        assert!(text.contains(&format!("for '{option} ")), "{text}");
        let separate = complaints(2, &[&["run", MODEL, "x", option, value]]);
        assert!(separate.contains(option), "{separate}");
        all.push_str(text.lines().nth(1).unwrap());
        all.push('\n');
    }
    insta::assert_snapshot!("bad_values", all);
}

#[test]
fn what_cannot_be_done_is_a_failure_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let long = "long ".repeat(100);
    let failures: &[&[&str]] = &[
        &["run", MODEL],
        &["run", MODEL, ""],
        &["run", "Why is the sky blue?"],
        &["run", "nosuch.gguf", "x"],
        &["run", "README.md", "x"],
        &["run", "templates", "x"],
        &["run", "/dev/null", "x"],
        &["run", "vocab/qwen2.gguf", "x"],
        &["run", "vocab/gpt-2.gguf", "x"],
        &["run", MODEL, "--file", "nosuch.txt"],
        &["run", MODEL, "x", "--think", "on"],
        &["run", MODEL, "x", "--backend", "nosuch"],
        &["run", MODEL, "x", "--backend", "nosuch", "--no-fallback"],
        &["run", MODEL, "x", "--devices", "9"],
        &["run", MODEL, "x", "--devices", "foo:0"],
        &["run", MODEL, "x", "--backend", "cpu", "--devices", "foo:0"],
        &["run", MODEL, "x", "--plugins", "nosuch"],
        &["inspect", "nosuch.gguf"],
        &["tokenize", "nosuch.gguf", "x"],
        &["tokenize", MODEL, "x", "--bos"],
        &["logits", MODEL, "--tokens", "", "--output", "/dev/full"],
        &["logits", MODEL, "--tokens", "1 x", "--output", "/dev/full"],
        &["logits", MODEL, "--tokens", "1 -1", "--output", "/dev/full"],
        &["logits", MODEL, "--tokens", "1,2048", "--output", "/dev/full"],
        &[
            "logits",
            MODEL,
            "--tokens",
            "1 2 3",
            "--ctx-size",
            "2",
            "--output",
            "/dev/full",
        ],
        &[
            "logits",
            MODEL,
            "--tokens",
            "1",
            "--output",
            "nosuch/logits.safetensors",
        ],
        &["logits", MODEL, "--tokens", "1", "--output", "templates"],
        &["logits", MODEL, "--tokens", "1", "--output", "/"],
    ];
    let text = complaints(1, failures);
    assert!(
        text.lines().filter(|line| line.starts_with("error: ")).count() == failures.len(),
        "{text}"
    );
    insta::assert_snapshot!("failures", text);

    let ran = host(&["run", MODEL, &long, "--raw", "--ctx-size", "16"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .contains("tokens, but the context holds 16\nhint: --ctx-size"),
        "{}",
        ran.stderr
    );

    let empty = folder.path().join("empty.gguf");
    fs::write(&empty, "").unwrap();
    let ran = host(&["run", empty.to_str().unwrap(), "x"]);
    assert_eq!(
        (ran.code, ran.stderr),
        (Some(1), format!("error: {}: the file is empty\n", empty.display()))
    );
}

#[test]
fn without_any_backend_there_is_a_hint() {
    let folder = tests::installed();
    let program = folder.path().join("host");
    let plugins = folder.path().to_str().unwrap();
    let mut command = Command::new(&program);
    command
        .args(["run", "embedded", "x", "--plugins", plugins])
        .stdin(Stdio::null())
        .env_remove("GRAFT_PLUGINS");
    let ran = finish(command.env("XDG_CACHE_HOME", folder.path()));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(
        ran.stderr.contains("error: no backend was found; hint: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_prompt_that_is_no_text_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), [0xff, 0xfe]).unwrap();
    let ran = host(&["run", MODEL, "--file", file.path().to_str().unwrap()]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("UTF-8"), "{}", ran.stderr);
    let ran = finish(command(&["run", MODEL]).stdin(fs::File::open(file.path()).unwrap()));
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("UTF-8"), "{}", ran.stderr);
}

#[test]
fn colours_are_for_terminals_unless_they_are_asked_for() {
    let failing = ["run", "nosuch.gguf", "x"];
    assert!(!host(&failing).stderr.contains('\x1b'));
    let forced = finish(command(&failing).env("CLICOLOR_FORCE", "1"));
    assert!(forced.stderr.starts_with("\x1b["), "{}", forced.stderr);
    let refused = finish(command(&failing).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1"));
    assert!(!refused.stderr.contains('\x1b'), "{}", refused.stderr);
    let usage = finish(command(&["run", "--nosuch"]).env("NO_COLOR", "1"));
    assert!(!usage.stderr.contains('\x1b'), "{}", usage.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let commands: [&[&str]; 4] = [
        &["run", MODEL, "ROMEO:", "--raw", "--ignore-eos", "--predict", "100000"],
        &["inspect", MODEL, "--tensors"],
        &["completions", "bash"],
        &[
            "tokenize",
            "vocab/llama-bpe.gguf",
            "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        ],
    ];
    for arguments in commands {
        let mut child = command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        output.read_exact(&mut [0; 1]).unwrap();
        drop(output);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{arguments:?}");
    }
    let gone_at_once: [&[&str]; 2] = [&["run", "--help"], &["inspect", MODEL, "--tensors", "--json"]];
    for arguments in gone_at_once {
        let mut child = command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!words.contains("panicked") && !words.contains("pipe"), "{words}");
    }
}

#[test]
fn a_device_without_room_for_the_output_is_a_failure() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let child = command(&["inspect", MODEL])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("No space left"));
}

#[test]
fn shells_complete_commands_and_options() {
    for shell in ["bash", "zsh", "fish"] {
        let script = answer(&["completions", shell]);
        for word in ["tokenize", "temperature", "no-fallback"] {
            assert!(script.contains(word), "{word} for {shell}");
        }
        assert!(!script.contains("\x1b["), "{shell}");
    }
    if Command::new("bash").arg("--version").output().is_ok() {
        let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
        let script = answer(&["completions", "bash"]);
        bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(bash.wait().unwrap().success());
    }
}
