//! Answers in a form: what stands on which stream, and what is said of forms that cannot be used.

use tempfile::TempDir;

use super::*;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// What is said to each of these options with a file, whose folder is left out.
fn complaints(option: &str, files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    let said = |(name, _): &(&str, &str)| {
        let path = folder.path().join(name);
        let ran = host(&["run", MODEL, "x", option, path.to_str().unwrap()]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        ran.stderr.replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    files.iter().map(said).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_schema_that_cannot_be_used_is_named_with_its_fault() {
    let text = complaints(
        "--json-schema",
        &[
            ("no.json", "{\"type\": \"object\""),
            ("empty.json", ""),
            ("number.json", "3"),
            (
                "not.json",
                r#"{"type": "object", "properties": {"a": {"not": {"type": "null"}}}}"#,
            ),
            ("type.json", r#"{"type": "text"}"#),
            ("one-of.json", r#"{"oneOf": [{"type": "integer"}, {"type": "number"}]}"#),
            ("elsewhere.json", r#"{"$ref": "https://example.com/schema.json"}"#),
            ("nowhere.json", r##"{"$ref": "#/$defs/scene"}"##),
            ("pattern.json", r#"{"type": "string", "pattern": "a(b"}"#),
            ("never.json", r#"{"type": "integer", "minimum": 3, "maximum": 2}"#),
        ],
    );
    insta::assert_snapshot!("schemas", text);
}

#[test]
fn a_grammar_that_cannot_be_used_is_named_with_its_line() {
    let text = complaints(
        "--grammar",
        &[
            ("unclosed.lark", "start: a\na: \"b\n"),
            ("bracket.lark", "start: (a | b\nb: \"c\"\n"),
            ("unknown.lark", "start: a b\na: \"x\"\n"),
            ("no-start.lark", "begin: \"a\"\n"),
            ("empty.lark", ""),
            ("llama.gbnf", "root ::= \"yes\" | \"no\"\n"),
            ("special.lark", "start: \"a\" <|im_end|>\n"),
            ("regex.lark", "start: /a(b/\n"),
        ],
    );
    insta::assert_snapshot!("grammars", text);
}

#[test]
fn a_file_that_is_not_there_is_named_with_its_option() {
    for option in ["--json-schema", "--grammar"] {
        let ran = host(&["run", MODEL, "x", option, "nosuch.txt"]);
        assert_eq!(
            (ran.code, ran.stderr),
            (
                Some(1),
                format!("error: {option} nosuch.txt: No such file or directory (os error 2)\n")
            )
        );
    }
}

#[test]
fn an_answer_in_a_form_is_printed_alone() {
    let folder = folder(&[
        ("play.json", r#"{"enum": [{"act": 3, "scene": "ä"}]}"#),
        (
            "play.lark",
            "start: \"To be\" \" or not\"? \", that is the question\"\n",
        ),
    ]);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (schema, grammar) = (file("play.json"), file("play.lark"));
    for more in [
        &["--temperature", "0"][..],
        &["--temperature", "2", "--seed", "5"],
        &["--raw"],
    ] {
        let ask = |option, file: &str| answer(&[&["run", MODEL, "x", option, file], more].concat());
        assert_eq!(
            json(&ask("--json-schema", &schema)),
            serde_json::json!({"act": 3, "scene": "ä"})
        );
        let line = ask("--grammar", &grammar);
        assert!(
            line.starts_with("To be") && line.ends_with(", that is the question\n"),
            "{line}"
        );
    }
}

#[test]
fn an_answer_that_was_cut_is_told_from_a_complete_one() {
    let arguments = [
        "run",
        MODEL,
        "x",
        "--format",
        "json",
        "--predict",
        "3",
        "--temperature",
        "0",
        "--json",
    ];
    let ran = host(&arguments);
    let report = json(&ran.stdout);
    assert_eq!(
        (ran.code, &report["finish"], &report["complete"]),
        (Some(0), &"length".into(), &false.into())
    );
    assert_eq!(
        ran.stderr,
        "warning: the answer is not complete in the form that was asked for: it has as many tokens as it may have\n\
         hint: --predict allows more\n"
    );
    let free = json(&answer(&["run", MODEL, "x", "--predict", "3", "--json"]));
    assert!(free.get("complete").is_none(), "{free}");
}
