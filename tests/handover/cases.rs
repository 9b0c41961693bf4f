//! Where the faults are.

use std::fs;

use rstest::rstest;

use super::{Machine, Ran};

/// All three cards have a part.
const GREEDY: [&str; 3] = ["--temperature", "0", "--spread"];
const SEEDED: [&str; 5] = ["--temperature", "1.1", "--seed", "7", "--spread"];
const SHORT: [&str; 2] = ["--predict", "24"];

/// Whether a run is as if nothing had happened, apart from what was said.
fn is_same(ran: &Ran, undisturbed: &Ran, what: &str) {
    assert_eq!(ran.code, Some(0), "{what}: {}", ran.stderr);
    assert_eq!(ran.tokens(), undisturbed.tokens(), "{what}: {}", ran.stderr);
    ran.check_cards();
}

/// Every call of every card, early and late: loading, in the prompt, in the answer.
#[rstest]
#[case::greedy(&GREEDY)]
#[case::seeded(&SEEDED)]
fn whatever_fails_the_answer_is_the_same_and_without_fallback_it_is_an_error(#[case] arguments: &[&str]) {
    let machine = Machine::new(true);
    let arguments = &[arguments, &SHORT].concat()[..];
    let undisturbed = machine.run("", arguments);
    is_same(&undisturbed, &undisturbed, "no fault");
    assert_eq!(undisturbed.log.matches("closed").count(), 3);
    assert_eq!(undisturbed.stderr, "");
    let (mut while_loading, mut while_answering) = (0, 0);
    let hows = ["lost", "failed", "memory", "panics"];
    let calls = ["open", "allocate", "write", "read", "compile", "run", "synchronize"];
    for (i, call) in calls.iter().enumerate() {
        for (j, number) in [1, 6, 30].iter().enumerate() {
            let fault = format!("{}:{call}:{number}:{}", (i + j) % 3, hows[(i * 5 + j) % 4]);
            let ran = machine.run(&fault, arguments);
            is_same(&ran, &undisturbed, &fault);
            if ran.stderr.contains("on command") {
                match ran.hand_overs().is_empty() {
                    true => while_loading += 1,
                    false => while_answering += 1,
                }
            } else {
                assert_eq!(ran.stderr, "", "{fault}");
            }
            let alone = machine.run(&fault, &[arguments, &["--no-fallback"]].concat());
            alone.check_cards();
            let failed = alone.stderr.contains("on command");
            assert_eq!(alone.code, Some(failed.into()), "{fault}: {}", alone.stderr);
            assert_eq!(failed, alone.stderr.contains("error: "), "{fault}: {}", alone.stderr);
        }
    }
    assert!(
        while_loading > 3 && while_answering > 3,
        "{while_loading} and {while_answering}"
    );
}

#[test]
fn memory_that_runs_out_while_loading_gives_another_plan_or_an_error() {
    let machine = Machine::new(true);
    let short = [&GREEDY[..], &SHORT].concat();
    let fault = "1:allocate:2:memory";
    let ran = machine.run(fault, &short);
    is_same(&ran, &machine.run("", &short), fault);
    assert!(ran.stderr.contains("planning again with less of it"), "{}", ran.stderr);
    assert!(ran.hand_overs().is_empty());
    let alone = machine.run(fault, &[&short[..], &["--no-fallback"]].concat());
    assert_eq!(alone.code, Some(1));
    assert!(
        alone.stderr.contains("failing:1 card: Allocate 2 fails on command"),
        "{}",
        alone.stderr
    );
    alone.check_cards();
}

#[test]
fn copies_between_cards_may_fail() {
    let machine = Machine::new(true);
    let short = [&GREEDY[..], &SHORT].concat();
    let undisturbed = machine.run("", &short);
    for number in [1, 3, 9] {
        let fault = format!("1:copy:{number}:failed");
        let ran = machine.run_with(&[("FAIL_AT", &fault), ("FAIL_PEERS", "1")], &short);
        is_same(&ran, &undisturbed, &fault);
        let (from, devices) = &ran.hand_overs()[0];
        assert_eq!(
            (from.as_str(), &devices[..2]),
            ("failing:1", &["failing:0".to_owned(), "failing:2".into()][..])
        );
    }
}

#[test]
fn one_after_another_fails_and_the_next_backend_ends_the_answer() {
    let faults = "0:run:3:lost,1:run:9:failed,2:run:20:panics";
    let machine = Machine::new(true);
    let short = [&GREEDY[..], &SHORT].concat();
    let ran = machine.run(faults, &short);
    is_same(&ran, &machine.run("", &short), faults);
    let report = ran.report();
    assert_eq!(report["backend"], "cpu");
    let failed: Vec<_> = ran.hand_overs().into_iter().map(|(from, _)| from).collect();
    assert_eq!(failed, ["failing:0", "failing:1", "failing:2"]);
    let again = &report["hand_overs"][2]["evaluated_again"];
    assert!(again.as_u64().unwrap() > 0, "{again}");

    let nothing_left = Machine::new(false).run(faults, &short);
    assert_eq!(nothing_left.code, Some(1));
    let said = &nothing_left.stderr;
    assert!(
        said.contains("failing:2 card: the plugin panicked: Run 20 fails on command"),
        "{said}"
    );
    assert!(said.contains("none of its devices is left"), "{said}");
    nothing_left.check_cards();
}

#[rstest]
#[case::drafts(&["--draft", "ngram", "--predict", "60"])]
#[case::shifts(&["--ctx-size", "48", "--keep", "4", "--predict", "60"])]
#[case::stop(&["--stop", "greater", "--predict", "40"])]
#[case::repeats(&["--repeat-penalty", "1.4", "--repeat-last-n", "32", "--predict", "40"])]
fn guesses_shifts_stops_and_penalties_go_on(#[case] more: &[&str]) {
    let machine = Machine::new(true);
    let arguments = [&SEEDED[..], more].concat();
    let undisturbed = machine.run("", &arguments);
    for number in [3, 7, 15, 24] {
        let fault = format!("1:run:{number}:lost");
        let ran = machine.run(&fault, &arguments);
        is_same(&ran, &undisturbed, &fault);
        assert_eq!(ran.hand_overs().len(), 1, "{fault}");
        let [a, b] = [&ran, &undisturbed].map(|ran| ran.report());
        assert_eq!(
            (&a["text"], &a["finish"], &a["shifts"]),
            (&b["text"], &b["finish"], &b["shifts"]),
            "{fault}"
        );
    }
}

#[test]
fn an_answer_in_a_form_stays_in_it() {
    let machine = Machine::new(true);
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("play.json");
    let text = r#"{"type": "object", "properties": {"who": {"type": "string", "maxLength": 12},
        "acts": {"type": "array", "items": {"type": "integer", "maximum": 9, "minimum": 0}, "maxItems": 3}},
        "required": ["who", "acts"], "additionalProperties": false}"#;
    fs::write(&schema, text).unwrap();
    let form = ["--json-schema", schema.to_str().unwrap(), "--predict", "80"];
    let arguments = [&SEEDED[..], &form].concat();
    let undisturbed = machine.run("", &arguments);
    assert_eq!(undisturbed.report()["complete"], true, "{}", undisturbed.stdout);
    for number in [8, 12, 16] {
        let fault = format!("2:run:{number}:lost");
        let ran = machine.run(&fault, &arguments);
        is_same(&ran, &undisturbed, &fault);
        assert_eq!((ran.hand_overs().len(), &ran.report()["complete"]), (1, &true.into()));
    }
}

#[test]
fn wishes_that_what_is_left_cannot_meet_are_given_up_with_a_warning() {
    let machine = Machine::new(true);
    let split = [
        "--devices",
        "failing:0,failing:1",
        "--split",
        "1,1",
        "--temperature",
        "0",
        "--predict",
        "24",
    ];
    let undisturbed = machine.run("", &split);
    let ran = machine.run("0:run:12:lost", &split);
    is_same(&ran, &undisturbed, "0:run:12:lost");
    assert_eq!(ran.hand_overs()[0].1, ["failing:1"]);
    assert!(
        ran.stderr
            .contains("--split has 2 parts for 1 device; going on without that"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_context_that_what_is_left_has_no_room_for_becomes_shorter_and_that_is_said() {
    let machine = Machine::new(false);
    let two = [
        "--devices",
        "failing:0,failing:1",
        "--ctx-size",
        "max",
        "--temperature",
        "0",
        "--predict",
        "24",
    ];
    let small = ("FAIL_BYTES", "6500000");
    let ran = machine.run_with(&[small, ("FAIL_AT", "0:run:12:lost")], &two);
    is_same(&ran, &machine.run_with(&[small], &two), "0:run:12:lost");
    let context = ran.report()["hand_overs"][0]["context"].as_u64().unwrap();
    assert!((64..2048).contains(&context), "{context}");
    let said = format!("the context holds {context} tokens there, instead of 2048");
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
}

#[test]
fn figures_and_warnings_say_what_happened() {
    let machine = Machine::new(true);
    let ran = machine.run("1:run:12:lost", &[&GREEDY[..], &SHORT, &["--stats"]].concat());
    let again = ran.report()["hand_overs"][0]["evaluated_again"].as_u64().unwrap();
    for said in [
        "warning: failing:1 card: Run 12 fails on command; going on without it".to_owned(),
        format!("; {again} tokens to be evaluated again"),
        "handed over from failing:1 card to failing:0 card, failing:2 card, cpu:0 ".into(),
        format!(": Run 12 fails on command; {again} tokens evaluated again"),
    ] {
        assert!(ran.stderr.contains(&said), "{said}: {}", ran.stderr);
    }
    let error = machine.run("1:run:12:lost", &[&GREEDY[..], &SHORT, &["--no-fallback"]].concat());
    assert_eq!(error.code, Some(1));
    let expected =
        "error: failing:1 card: Run 12 fails on command\nhint: without --no-fallback the answer goes on elsewhere\n";
    assert_eq!(error.stderr, expected);
}
