//! A conversation on a terminal, as its user sees it.

mod handover;
mod pseudo;

use std::{fs, path::Path};

use models::gguf::{Array, Gguf, GgufWriter, Strings, Value as Metadata};
use pseudo::{CTRL_C, CTRL_D, Screen, Terminal, UP};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Fixture, command, json};

const WIDE: u16 = 120;
/// Nothing is left to chance, and answers are short.
const SHORT: [&str; 4] = ["--temperature", "0", "--predict", "12"];
const QUESTION: &str = "JULIET: What man art thou?";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn short(home: &TempDir) -> Terminal {
    Terminal::start(home.path(), WIDE, &SHORT)
}

/// The words of what was printed.
fn words(rows: &[String]) -> Vec<&str> {
    rows.iter().flat_map(|row| row.split_whitespace()).collect()
}

fn text(rows: &[String]) -> String {
    rows.join("\n")
}

/// The messages of the conversation, by way of a file.
fn messages(terminal: &Terminal, home: &Path) -> Vec<(String, String)> {
    let name = "messages.json";
    terminal.enter(&format!("/save {name}"));
    let saved: Value = serde_json::from_slice(&fs::read(home.join(name)).unwrap()).unwrap();
    let string = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
    let list = saved["messages"].as_array().unwrap().iter();
    list.map(|message| (string(message, "role"), string(message, "content")))
        .collect()
}

fn said(terminal: &Terminal, home: &Path) -> Vec<String> {
    let all = messages(terminal, home).into_iter();
    all.filter(|(role, _)| role == "user")
        .map(|(_, content)| content)
        .collect()
}

/// The number before `unit` in a row of figures that begins with `name`.
fn figure(rows: &[String], name: &str, unit: &str) -> usize {
    let row = rows
        .iter()
        .find(|row| row.starts_with(name))
        .unwrap_or_else(|| panic!("{name}: {rows:?}"));
    let before = row.split(unit).next().unwrap();
    before.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn an_answer_is_what_a_single_run_gives_and_ctrl_d_ends() {
    let home = folder();
    let terminal = short(&home);
    let answer = terminal.enter(QUESTION);
    let single = json(command(&["run", "embedded", QUESTION, "--json"]).args(SHORT));
    assert_eq!(
        words(&answer).join(" "),
        words(&[single["text"].as_str().unwrap().to_owned()]).join(" ")
    );
    terminal.press(CTRL_D);
    assert_eq!(terminal.end().0, Some(0));
}

#[test]
fn the_next_turn_evaluates_only_what_is_new() {
    let home = folder();
    let terminal = Terminal::start(home.path(), WIDE, &["--seed", "3", "--predict", "24", "--stats"]);
    let mut held = 0;
    for question in [
        QUESTION,
        "ROMEO: By a name",
        "JULIET: My ears",
        "ROMEO: Neither, fair saint",
    ] {
        let printed = terminal.enter(question);
        let [evaluated, reused] = [" tokens, ", " reused"].map(|unit| figure(&printed, "prefill", unit));
        assert_eq!(reused, held, "{question}: {printed:?}");
        let answered = figure(&printed, "decode", " tokens");
        // the last token of an answer that reached its limit was never evaluated
        held = evaluated + reused + answered - usize::from(answered == 24);
        assert!(printed.iter().any(|row| row.contains("tokens/s")));
    }
    assert!(held > 60);
}

#[test]
fn what_was_typed_comes_back_in_this_conversation_and_the_next() {
    let home = folder();
    let terminal = short(&home);
    terminal.enter("NURSE: Madam");
    terminal.enter("/set nohistory");
    terminal.enter("JULIET: A secret");
    terminal.press(UP);
    terminal.wait("the last line", |screen| screen.line() == ">>> /set nohistory");
    terminal.press(UP);
    terminal.wait("the line before", |screen| screen.line() == ">>> NURSE: Madam");
    terminal.press("!");
    terminal.wait("an edited line", |screen| screen.line() == ">>> NURSE: Madam!");
    terminal.confirm();
    assert_eq!(
        said(&terminal, home.path()),
        ["NURSE: Madam", "JULIET: A secret", "NURSE: Madam!"]
    );
    terminal.press(CTRL_D);
    terminal.end();
    assert!(home.path().join("graft/history").is_file());

    let terminal = short(&home);
    terminal.press(UP);
    terminal.wait("an earlier conversation's line", |screen| {
        screen.line() == ">>> /set nohistory"
    });
}

#[test]
fn a_message_may_have_several_lines_typed_or_pasted() {
    let home = folder();
    let terminal = short(&home);
    terminal.enter_without_return("\"\"\"ROMEO:");
    terminal.press("\r");
    terminal.wait("a prompt for more", |screen| screen.line().starts_with("... "));
    terminal.enter_without_return("  But soft,");
    terminal.press("\r");
    terminal.wait("a prompt for more", |screen| screen.line().starts_with("... Use"));
    terminal.enter("what light?\"\"\"");
    terminal.press("\x1b[200~one\ntwo\x1b[201~");
    terminal.wait("the pasted text", |screen| screen.line() == "two");
    terminal.confirm();
    let expected = ["ROMEO:\n  But soft,\nwhat light?", "one\ntwo"];
    assert_eq!(said(&terminal, home.path()), expected);

    // and comes back as a whole
    // one goes up within the lines of the paste
    terminal.press(&UP.repeat(4));
    terminal.wait("the message", |screen| screen.line().ends_with("what light?\"\"\""));
    terminal.confirm();
    assert_eq!(said(&terminal, home.path()).last().unwrap(), expected[0]);
}

/// The lines that were taken, as they stand at prompts.
fn taken(screen: &Screen) -> Vec<&str> {
    screen.rows.iter().filter_map(|row| row.strip_prefix(">>> ")).collect()
}

#[test]
fn lines_that_come_at_once_are_all_answered() {
    let home = folder();
    let terminal = short(&home);
    let long = "a".repeat(600);
    terminal.press(&format!("{long}\r{long}b\rJULIET: Ay?\n/set parameter num_predict 3\r"));
    terminal.wait("all lines and a prompt", |screen| {
        screen.is_prompt() && taken(screen).len() == 5
    });
    assert_eq!(
        said(&terminal, home.path()),
        [&long, &(long.clone() + "b"), "JULIET: Ay?"]
    );
}

#[test]
fn what_is_typed_while_an_answer_comes_is_taken_after_it() {
    let home = folder();
    let options = ["--temperature", "0", "--ignore-eos", "--predict", "400"];
    let terminal = Terminal::start(home.path(), WIDE, &options);
    terminal.enter_without_return(QUESTION);
    let row = terminal.screen().cursor.0;
    terminal.press("\r");
    terminal.wait("two lines of an answer", |screen| screen.cursor.0 > row + 2);
    terminal.press("pardon?\rwhat?\rand th");
    terminal.wait("the line that is not ended", |screen| screen.line() == ">>> and th");
    let screen = terminal.screen();
    assert_eq!(taken(&screen), [QUESTION, "pardon?", "what?", "and th"]);
    let shown = screen.rows.iter().filter(|row| row.contains("pardon?")).count();
    assert_eq!(shown, 1, "the answer stays as it is");
    terminal.press("is\r");
    terminal.wait("a prompt", |screen| screen.is_prompt() && taken(screen).len() == 5);
    assert_eq!(said(&terminal, home.path()), [QUESTION, "pardon?", "what?", "and this"]);
}

#[test]
fn ctrl_c_ends_an_answer_and_not_the_program() {
    let home = folder();
    let endless = ["--temperature", "0", "--ignore-eos", "--stats"];
    let terminal = Terminal::start(home.path(), WIDE, &endless);
    terminal.enter_without_return(QUESTION);
    let row = terminal.screen().cursor.0;
    terminal.press("\r");
    terminal.wait("three lines of an answer", |screen| screen.cursor.0 > row + 3);
    terminal.press(CTRL_C);
    let printed = terminal.printed_since(row);
    assert!(figure(&printed, "decode", " tokens") < 10 * 2048, "it was ended early");
    let before = messages(&terminal, home.path());
    assert_eq!(before[0], ("user".into(), QUESTION.into()));
    assert_eq!(before[1].0, "assistant");
    assert!(before[1].1.len() > 20, "what was said stays: {before:?}");

    terminal.enter("/set parameter num_predict 6");
    let printed = terminal.enter("ROMEO: My name");
    assert!(
        figure(&printed, "prefill", " reused") > 20,
        "the cache is of use: {printed:?}"
    );
    assert_eq!(figure(&printed, "decode", " tokens"), 6);
    assert_eq!(messages(&terminal, home.path()).len(), 4);
}

#[test]
fn ctrl_c_ends_the_reading_of_a_long_prompt() {
    let home = folder();
    // many seconds of reading, a token at a time
    let options = ["--ctx-size", "16384", "--batch-size", "1", "--predict", "4", "--stats"];
    let terminal = Terminal::start(home.path(), WIDE, &options);
    terminal.enter("/save talk.json");
    let path = home.path().join("talk.json");
    let mut talk: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let long = ["JULIET: O Romeo, Romeo! wherefore art thou Romeo?"; 600].join("\n");
    talk["messages"] = serde_json::json!([
        {"role": "user", "content": long},
        {"role": "assistant", "content": "Ay."},
    ]);
    fs::write(&path, talk.to_string()).unwrap();
    terminal.enter("/load talk.json");
    terminal.enter_without_return("JULIET: Ay?");
    let row = terminal.screen().cursor.0;
    terminal.press("\r");
    terminal.wait("a sign of patience", |screen| {
        screen.rows[row + 1].contains("reading the prompt")
    });
    terminal.press(CTRL_C);
    let printed = terminal.printed_since(row);
    let read = figure(&printed, "prefill", " tokens, ");
    assert!((1..9000).contains(&read), "{printed:?}");
    assert_eq!(figure(&printed, "decode", " tokens"), 0);
    let note = "note: interrupted before an answer; your message was not kept";
    assert_eq!((&printed[0][..], &printed[1][..]), (note, ""));
    assert!(!text(&printed).contains("reading the prompt"), "{printed:?}");
    assert_eq!(messages(&terminal, home.path()).len(), 2);
    terminal.press(CTRL_D);
    assert_eq!(terminal.end().0, Some(0));
}

#[test]
fn ctrl_c_on_a_line_drops_it_and_on_an_empty_one_says_how_to_leave() {
    let home = folder();
    let terminal = short(&home);
    terminal.enter_without_return("no, not");
    let row = terminal.screen().cursor.0;
    terminal.press(CTRL_C);
    assert_eq!(text(&terminal.printed_since(row)), "");
    let row = terminal.screen().cursor.0;
    terminal.press(CTRL_C);
    assert_eq!(text(&terminal.printed_since(row)), "Use Ctrl + d or /bye to exit.");
    assert!(said(&terminal, home.path()).is_empty());
    terminal.enter_without_return("/bye");
    terminal.press("\r");
    assert_eq!(terminal.end().0, Some(0));
}

#[test]
fn parameters_and_the_system_message_are_set_and_shown() {
    let home = folder();
    let terminal = short(&home);
    let plain = terminal.enter(QUESTION);
    terminal.enter("/clear");
    assert_eq!(terminal.enter(QUESTION), plain, "nothing is left of what was cleared");

    terminal.enter("/set parameter num_predict 3");
    terminal.enter("/set parameter stop 'thou art' x");
    terminal.enter("/set system Speak like a nurse.");
    terminal.enter("/clear");
    assert!(words(&terminal.enter(QUESTION)).len() <= 3);
    let shown = text(&terminal.enter("/show parameters"));
    for line in [
        "temperature        0.0",
        "num_predict        3",
        "stop               \"thou art\" \"x\"",
    ] {
        assert!(shown.contains(line), "{line:?} in {shown}");
    }
    assert_eq!(text(&terminal.enter("/show system")).trim(), "Speak like a nurse.");
    let complaint = text(&terminal.enter("/set parameter temperature -1"));
    assert!(
        complaint.contains("error: temperature: ") && complaint.contains("expected a number from 0"),
        "{complaint}"
    );
    let complaint = text(&terminal.enter("/set parameter num_ctx 8192"));
    assert!(complaint.contains("hint: start again with --ctx-size"), "{complaint}");
    let complaint = text(&terminal.enter("/set think"));
    assert!(complaint.ends_with("does not support thinking\n"), "{complaint}");
}

/// A copy of the embedded model that thinks up to its first full stop.
fn thinker(folder: &Path) -> String {
    let original = Gguf::open(Path::new(&Fixture::named("gemma3-q8_0").path())).unwrap();
    let array = |key| original.metadata().get(key).unwrap().clone();
    let (tokens_key, types_key) = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type");
    let (Metadata::Array(Array::String(tokens)), Metadata::Array(Array::I32(mut types))) =
        (array(tokens_key), array(types_key))
    else {
        panic!("the fixture has tokens and their types");
    };
    let stop = tokens.iter().position(|token| token == ".").unwrap();
    types[stop] = 4;
    let tokens: Strings = tokens
        .iter()
        .map(|token| if token == "." { "</think>" } else { token })
        .collect();
    let path = folder.join("thinker.gguf");
    let mut writer = GgufWriter::copy_of(&original);
    writer.set(tokens_key, tokens).set(types_key, types);
    writer.set("tokenizer.chat_template", "{{ messages[-1].content }}<think>");
    writer.write(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn thoughts_are_dimmed_and_broken_into_lines_like_answers() {
    let home = folder();
    let model = thinker(home.path());
    let options = ["--temperature", "0", "--predict", "40", "--ignore-eos"];
    let terminal = Terminal::start_model(&model, home.path(), 36, &options);
    terminal.press("ROMEO:");
    terminal.wait("what was typed", |screen| screen.line() == ">>> ROMEO:");
    let typed = terminal.screen().cursor.0;
    let printed = terminal.confirm();
    let at = |line: &str| {
        printed
            .iter()
            .position(|row| row == line)
            .unwrap_or_else(|| panic!("{line}: {printed:?}"))
    };
    let (begin, end) = (at("Thinking..."), at("...done thinking."));
    assert_eq!((begin, &printed[end + 1][..]), (0, ""));
    let screen = terminal.screen();
    let rows = |from: usize, to: usize| typed + 1 + from..typed + 1 + to;
    assert!(screen.dim[rows(begin, end + 1)].iter().all(|dim| *dim), "{printed:?}");
    assert!(!screen.dim[rows(end + 2, printed.len())].contains(&true), "{printed:?}");
    assert!(!screen.broken[rows(0, printed.len())].contains(&true), "{printed:?}");
    assert!(printed.len() > end + 2 && end > begin + 1, "{printed:?}");
}

#[test]
fn thoughts_without_an_answer_are_not_kept() {
    let home = folder();
    let model = thinker(home.path());
    let terminal = Terminal::start_model(&model, home.path(), WIDE, &["--temperature", "0", "--ignore-eos"]);
    let complaint = text(&terminal.enter("/set think low"));
    assert!(
        complaint.ends_with("\nhint: /set think or /set nothink\n"),
        "{complaint}"
    );
    terminal.enter("/set parameter num_predict 2");
    let printed = text(&terminal.enter("ROMEO:"));
    let warning = "\n\nwarning: the model thought but gave no answer; your message was not kept\n";
    assert!(printed.contains(warning), "{printed}");
    assert_eq!(messages(&terminal, home.path()).len(), 0);
}

#[test]
fn answers_are_json_objects_while_that_is_asked_for() {
    let home = folder();
    let terminal = Terminal::start(home.path(), WIDE, &["--temperature", "0", "--predict", "24"]);
    terminal.enter("/set format json");
    assert!(terminal.enter(QUESTION)[0].starts_with('{'));
    terminal.enter("/set noformat");
    assert!(!terminal.enter(QUESTION)[0].starts_with('{'));
}

#[test]
fn the_model_is_shown_and_commands_are_helped_with() {
    let home = folder();
    let terminal = short(&home);
    let info = text(&terminal.enter("/show info"));
    for part in ["architecture gemma3", "runs on cpu:0", "0 messages; 0 of 2048 tokens"] {
        assert!(info.contains(part), "{part:?} in {info}");
    }
    assert!(text(&terminal.enter("/show license")).contains("CC0-1.0"));
    assert!(text(&terminal.enter("/show template")).contains("<start_of_turn>"));
    assert!(text(&terminal.enter("/?")).contains("/save FILE"));
    assert!(text(&terminal.enter("/? shortcuts")).contains("Ctrl + d"));
    assert!(text(&terminal.enter("/shwo info")).contains("hint: did you mean /show?"));
    terminal.press("/sh\t");
    terminal.wait("a completed command", |screen| {
        screen.line() == ">>> /show" && screen.cursor.1 == 10
    });
    terminal.press("li\t");
    terminal.wait("a completed word", |screen| screen.line() == ">>> /show license");
}

#[test]
fn a_saved_conversation_goes_on_in_another_process() {
    let home = folder();
    let first = short(&home);
    first.enter("/set system Speak like a nurse.");
    first.enter("/set parameter top_k 7");
    first.enter(QUESTION);
    let confirmed = first.enter("/save talk.json");
    assert_eq!(text(&confirmed).trim(), "Saved 2 messages to talk.json");
    first.press(CTRL_D);
    first.end();

    let second = Terminal::start(home.path(), WIDE, &[]);
    assert_eq!(
        text(&second.enter("/load talk.json")).trim(),
        "Loaded 2 messages from talk.json"
    );
    second.enter("/save again.json");
    let read = |name: &str| fs::read_to_string(home.path().join(name)).unwrap();
    assert_eq!(read("again.json"), read("talk.json"));
    assert!(text(&second.enter("/show info")).contains("2 messages"));
    second.enter("ROMEO: By a name");
    assert_eq!(messages(&second, home.path()).len(), 4);

    fs::write(home.path().join("list"), "milk").unwrap();
    assert!(text(&second.enter("/save list")).contains("was not overwritten"));
    assert!(text(&second.enter("/load list")).contains("is no saved conversation"));
    let missing = "error: nothing/a: No such file or directory (os error 2)\n";
    assert_eq!(text(&second.enter("/load nothing/a")), missing);
    assert_eq!(text(&second.enter("/save nothing/a")), missing);
    assert_eq!(read("list"), "milk");
    assert_eq!(messages(&second, home.path()).len(), 4);
}

#[test]
fn a_full_context_is_shifted_and_that_is_said() {
    let home = folder();
    let options = ["--temperature", "0", "--ctx-size", "64", "--ignore-eos", "--stats"];
    let terminal = Terminal::start(home.path(), WIDE, &[&options[..], &["--predict", "60"]].concat());
    let printed = text(&terminal.enter(QUESTION));
    let note = "note: the context of 64 tokens was full; the oldest half of it was dropped";
    assert!(
        printed.contains(note) && printed.contains("context shifted once"),
        "{printed}"
    );

    // the next prompt has no room for the first two messages
    terminal.enter("/set parameter num_predict 4");
    let printed = text(&terminal.enter("ROMEO: By a name"));
    let note = "note: the context of 64 tokens had no room for the oldest 2 messages";
    assert!(
        printed.contains(note) && printed.contains("oldest 2 messages left out"),
        "{printed}"
    );
    for turn in 2..6 {
        let printed = terminal.enter("JULIET: Ay");
        let [evaluated, reused] = [" tokens, ", " reused"].map(|unit| figure(&printed, "prefill", unit));
        assert!(
            (30..=64).contains(&(evaluated + reused)),
            "as much as fits: {printed:?}"
        );
        assert_eq!(
            messages(&terminal, home.path()).len(),
            2 * turn + 2,
            "nothing is forgotten"
        );
    }
}

#[test]
fn a_context_that_must_not_be_shifted_is_refused_with_numbers() {
    let home = folder();
    let options = ["--temperature", "0", "--ctx-size", "64", "--ignore-eos", "--no-shift"];
    let terminal = Terminal::start(home.path(), WIDE, &options);
    let printed = text(&terminal.enter(QUESTION));
    assert!(
        printed.contains("note: the context of 64 tokens is full: the answer ends here"),
        "{printed}"
    );
    let printed = text(&terminal.enter("ROMEO: By a name"));
    assert!(
        printed.starts_with("error: the prompt has ")
            && printed.ends_with("the context holds 64\nhint: /clear forgets what was said\n"),
        "{printed}"
    );
    assert_eq!(
        messages(&terminal, home.path()).len(),
        2,
        "what was refused was not said"
    );
    terminal.enter("/clear");
    assert!(!text(&terminal.enter("ROMEO: By a name")).contains("error"));
    terminal.enter("/clear");
    let printed = text(&terminal.enter(&"%&".repeat(50)));
    assert!(
        printed.ends_with("with --ctx-size\n") && !printed.contains("/clear"),
        "{printed}"
    );
}

#[test]
fn no_word_is_split_at_the_end_of_a_line() {
    let home = folder();
    let options = ["--temperature", "0", "--predict", "120", "--ignore-eos"];
    let single = json(command(&["run", "embedded", QUESTION, "--json"]).args(options));
    let expected = single["text"].as_str().unwrap().to_owned();
    assert!(
        expected.lines().any(|line| line.len() > 40),
        "a line must be broken: {expected}"
    );

    let terminal = Terminal::start(home.path(), 40, &options);
    let before = terminal.screen().cursor.0;
    let answer = terminal.enter(QUESTION);
    assert_eq!(words(&answer), words(std::slice::from_ref(&expected)));
    let after = terminal.screen();
    assert!(!after.broken[before + 1..after.cursor.0].contains(&true), "{answer:?}");

    terminal.resize(60);
    terminal.enter("/clear");
    let answer = terminal.enter(QUESTION);
    assert_eq!(words(&answer), words(&[expected]));
    assert!(
        answer.iter().any(|row| row.len() > 40),
        "the new width is made use of: {answer:?}"
    );

    terminal.resize(40);
    terminal.enter("/set nowordwrap");
    terminal.enter("/clear");
    let before = terminal.screen().cursor.0;
    terminal.enter(QUESTION);
    let after = terminal.screen();
    assert!(after.broken[before + 1..after.cursor.0].contains(&true));
}

#[test]
fn messages_are_broken_between_words_too() {
    let home = folder();
    let terminal = Terminal::start(home.path(), 40, &SHORT);
    let row = terminal.screen().cursor.0;
    let printed = terminal.enter("/set parameter num_ctx 9");
    let expected = [
        "error: num_ctx cannot change while the",
        "model runs",
        "hint: start again with --ctx-size",
        "",
    ];
    assert_eq!(printed, expected);
    assert!(!terminal.screen().broken[row + 1..].contains(&true));
}

#[test]
fn a_prompt_or_a_pipe_makes_no_conversation() {
    let home = folder();
    let single = Terminal::open(
        home.path(),
        WIDE,
        &[&["run", "embedded", "ROMEO:"], &SHORT[..]].concat(),
    );
    let (code, shown) = single.end();
    assert_eq!(code, Some(0));
    assert!(!shown.contains(">>>"), "{shown}");

    let json = Terminal::open(home.path(), WIDE, &["run", "embedded", "--json"]);
    let (code, shown) = json.end();
    assert_eq!(code, Some(1));
    assert!(shown.contains("error: no prompt"), "{shown}");
}
