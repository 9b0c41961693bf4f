//! Sequences are the same however they are served: side by side, forked, in scattered pages, resumed, shifted.

use std::sync::atomic::AtomicBool;

use backend_api::BackendError;
use host::{
    execution::{Engine, device::Target, engine::Settings},
    generation::{Advance, Prefill, Rescue, Session},
    setup::Running,
};
use tests::{Fixture, Logits, Serving, command, extend, json, settings, step};

/// Nobody interrupts.
static NEVER: AtomicBool = AtomicBool::new(false);

const MODELS: [&str; 3] = ["qwen2-f32", "qwen2-q8_0", "gemma3-q8_0"];

/// Three sequences of up to 256 tokens in pages of 16, steps of up to eight tokens: results are equal bit by bit.
fn three_sequences() -> Settings {
    Settings {
        sequences: 3,
        ..settings(256, 8)
    }
}

/// Takes and gives back pages, so that the next ones come in no order and hold what no test expects.
fn scatter_pages(engine: &mut Engine, tokens: &[u32]) {
    let tokens: Vec<u32> = tokens.iter().rev().copied().collect();
    for (sequence, count) in [(0, 40), (2, 20), (1, 70), (2, 30), (0, 20)] {
        extend(engine, sequence, &tokens[..count], 8);
    }
    for sequence in [1, 0, 2] {
        engine.cache().release(sequence).unwrap();
    }
}

#[test]
fn forked_sequences_side_by_side_are_what_each_is_alone() {
    for model in MODELS {
        let fixture = Fixture::named(model);
        let (serving, tokens) = (Serving::of(&fixture), fixture.prompt());
        // no multiple of the page: the last shared page is copied by whoever writes first
        let (shared, ours, theirs) = (&tokens[..20], &tokens[20..60], &tokens[90..130]);
        let alone = |tail: &[u32]| {
            let mut engine = serving.engine(&settings(256, 8));
            extend(&mut engine, 0, shared, 8);
            extend(&mut engine, 0, tail, 4)
        };
        let (expected_ours, expected_theirs) = (alone(ours), alone(theirs));
        assert_ne!(expected_ours, expected_theirs);

        let mut engine = serving.engine(&three_sequences());
        scatter_pages(&mut engine, &tokens);
        extend(&mut engine, 1, shared, 8);
        let before = engine.cache().free_pages(0);
        engine.cache().fork(1, 2, 20).unwrap();
        assert_eq!(engine.cache().free_pages(0), before, "a fork takes no page");
        let (mut found_ours, mut found_theirs) = (Vec::new(), Vec::new());
        for (ours, theirs) in ours.chunks(4).zip(theirs.chunks(4)) {
            let mut both = step(&mut engine, &[(1, 4), (2, 4)], &[ours, theirs].concat());
            found_theirs.extend(both.split_off(4));
            found_ours.extend(both);
        }
        assert!(
            found_ours == expected_ours && found_theirs == expected_theirs,
            "{model}"
        );
    }
}

#[test]
fn scattered_and_recycled_pages_change_nothing_and_suffice() {
    for model in MODELS {
        let fixture = Fixture::named(model);
        let (serving, tokens) = (Serving::of(&fixture), fixture.prompt());
        let expected = extend(&mut serving.engine(&settings(256, 8)), 0, &tokens, 8);

        let mut engine = serving.engine(&three_sequences());
        scatter_pages(&mut engine, &tokens);
        let windows = serving.model.model.cache().windows.clone();
        let mut found = Vec::new();
        for tokens in tokens.chunks(8) {
            found.extend(extend(&mut engine, 1, tokens, 8));
            for (group, window) in windows.iter().enumerate() {
                let cache = engine.cache();
                let held = cache.pages(group) - cache.free_pages(group);
                let length = cache.length(1);
                // window + T − 1 tokens lie in at most so many pages of 16
                let most = window.map_or(u32::MAX, |window| (window + 8 + 16 - 2).div_ceil(16));
                assert!(
                    held <= length.div_ceil(16).min(most),
                    "{model}: {held} pages at {length} tokens"
                );
            }
        }
        assert!(found == expected, "{model}");
        let error = Logits(found).error_from(&fixture.logits());
        assert!(error <= 1e-3, "{model}: {error:e}");
        assert_eq!(
            model.starts_with("gemma3"),
            windows.contains(&Some(32)),
            "a window is among what is tested"
        );
    }
}

/// A session in steps of up to eight tokens.
fn session(serving: &Serving, context: u32, keep: Option<u32>) -> Session<'static> {
    Session::new(serving.engine(&settings(context, 8)), context, keep)
}

#[test]
fn a_resumed_prompt_gives_the_logits_of_a_fresh_one() {
    for model in MODELS {
        let fixture = Fixture::named(model);
        let (serving, tokens) = (Serving::of(&fixture), fixture.prompt());
        let turned = [&tokens[..88], &tokens[120..150]].concat();
        let early = [&tokens[..10], &tokens[120..150]].concat();
        let windowed = model.starts_with("gemma3");
        let mut session = session(&serving, 256, None);
        // each prompt, and how many of its tokens are there already: pages that slid out of a window are not
        let turns = [
            (&tokens[..64], 0),
            (&tokens[..96], 64),
            (&turned[..], 88),
            (&turned[..], turned.len() - 1),
            (&early[..], if windowed { 0 } else { 10 }),
        ];
        for (prompt, reused) in turns {
            assert_eq!(
                session.prefill(prompt, &NEVER).unwrap().reused,
                reused,
                "{model}: a prompt of {} tokens",
                prompt.len()
            );
            let mut fresh = self::session(&serving, 256, None);
            fresh.prefill(prompt, &NEVER).unwrap();
            assert!(
                session.logits() == fresh.logits(),
                "{model}: a prompt of {} tokens",
                prompt.len()
            );
        }
    }
}

#[test]
fn an_interrupted_prompt_leaves_a_cache_to_go_on_from() {
    let fixture = Fixture::named("gemma3-q8_0");
    let (serving, tokens) = (Serving::of(&fixture), fixture.prompt());
    let mut session = session(&serving, 256, None);
    session.prefill(&tokens[..40], &NEVER).unwrap();
    let interrupted = session.prefill(&tokens[..90], &AtomicBool::new(true)).unwrap();
    let expected = Prefill {
        reused: 40,
        evaluated: 0,
        complete: false,
    };
    assert_eq!(interrupted, expected);
    assert_eq!(session.cached(), &tokens[..40]);
    assert_eq!(session.prefill(&tokens[..90], &NEVER).unwrap().reused, 40);
}

#[test]
fn a_shifted_context_goes_on_from_the_tokens_that_it_kept() {
    for model in MODELS {
        let fixture = Fixture::named(model);
        let (serving, tokens) = (Serving::of(&fixture), fixture.prompt());
        let mut shifted = session(&serving, 32, Some(4));
        shifted.prefill(&tokens[..32], &NEVER).unwrap();
        assert_eq!(shifted.advance(tokens[32], &NEVER).unwrap(), Advance::Ready);
        assert_eq!(shifted.shifts(), 1);
        // four stay, half of the other 28 go
        let kept = [&tokens[..4], &tokens[18..33]].concat();
        let mut fresh = session(&serving, 32, None);
        fresh.prefill(&kept, &NEVER).unwrap();
        assert!(shifted.logits() == fresh.logits(), "{model}");
    }
}

#[test]
fn answers_outgrow_the_context_unless_told_not_to() {
    let arguments = "--raw --ignore-eos --temperature 0 --json --ctx-size 32 --predict 100 --backend cpu";
    let run = |more: &[&str]| {
        let mut command = command(&["run", "embedded", "ROMEO: But soft"]);
        json(command.args(arguments.split(' ')).args(more))
    };
    let shifted = run(&[]);
    assert_eq!(
        (&shifted["generated"], &shifted["finish"]),
        (&100.into(), &"length".into())
    );
    let ended = run(&["--no-shift"]);
    assert_eq!(ended["finish"], "context");
    // the token after the last that the context holds is known too
    let prompt = ended["prompt_tokens"].as_u64().unwrap();
    assert_eq!(ended["generated"], 32 - prompt + 1);
    let (shifted, ended) = (tests::tokens(&shifted["tokens"]), tests::tokens(&ended["tokens"]));
    assert_eq!(shifted[..ended.len()], ended);
}

/// Must not be asked.
struct NoRescue;

impl Rescue for NoRescue {
    fn rescue(&mut self, failed: &Target, error: &BackendError, _: u32) -> anyhow::Result<Running> {
        panic!("{} did not fail: {error}", failed.label())
    }
}

#[test]
fn an_error_that_would_come_again_anywhere_is_not_handed_over() {
    let serving = Serving::of(&Fixture::named("qwen2-f32"));
    let mut session = session(&serving, 64, None).with_rescue(Box::new(NoRescue));
    let unknown = serving.model.model.vocabulary();
    let error = session.prefill(&[1, 2, unknown], &NEVER).unwrap_err().to_string();
    assert!(error.contains("is not in the vocabulary"), "{error}");
    session.prefill(&[1, 2], &NEVER).unwrap();
    let error = session.advance(unknown, &NEVER).unwrap_err().to_string();
    assert!(error.contains("is not in the vocabulary"), "{error}");
    assert!(session.hand_overs().is_empty() && session.cached().is_empty());
}
