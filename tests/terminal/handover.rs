//! A device that fails in a conversation.

use super::*;

const ON_CARDS: [&str; 5] = ["--spread", "--batch-size", "8", "--seed", "5"];

/// A conversation on cards with these faults.
fn conversation(home: &TempDir, faults: &str) -> Terminal {
    let cards = tests::build("tests/failing-backend", &[]);
    fs::copy(cards, home.path().join("failing.so")).unwrap();
    let arguments = [&SHORT[2..], &ON_CARDS, &["--plugins", home.path().to_str().unwrap()]].concat();
    let variables = [("FAIL_AT", faults)];
    let terminal = Terminal::open_with(
        &variables,
        home.path(),
        WIDE,
        &[&["run", "embedded"], &arguments[..]].concat(),
    );
    terminal.wait("a prompt", Screen::is_prompt);
    terminal
}

#[test]
fn the_second_turn_goes_on_elsewhere_and_so_do_those_after_it() {
    let said = [QUESTION, "ROMEO: By a name", "JULIET: My ears"];
    let home = folder();
    let undisturbed = conversation(&home, "");
    said.iter().for_each(|text| drop(undisturbed.enter(text)));
    let expected = messages(&undisturbed, home.path());

    for fault in ["1:run:18:lost", "0:run:20:failed"] {
        let home = folder();
        let terminal = conversation(&home, fault);
        let printed: Vec<_> = said.iter().map(|text| text_of(&terminal, text)).collect();
        let warned: Vec<bool> = printed.iter().map(|turn| turn.contains("going on with")).collect();
        assert_eq!(warned, [false, true, false], "{fault}: {printed:?}");
        assert_eq!(messages(&terminal, home.path()), expected, "{fault}");
        let devices = text(&terminal.enter("/show info"));
        let failed = format!("runs on failing:{} ", &fault[..1]);
        assert!(
            devices.contains("runs on failing:2 ") && !devices.contains(&failed),
            "{devices}"
        );
    }
}

fn text_of(terminal: &Terminal, line: &str) -> String {
    text(&terminal.enter(line))
}
