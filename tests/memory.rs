//! Memory: the plan is what is allocated, and a token that is generated takes nothing from the heap.

use std::{fs, path::Path, process::Stdio, sync::Once};

use backend_api::{contract::OpenOptions, types::Type};
use host::{
    execution::{Plan, engine::Settings},
    log,
};
use tests::{Fixture, Serving, command, settings};

#[test]
fn what_the_plan_says_is_what_is_allocated() {
    for model in ["qwen2-f32", "qwen2-q8_0", "gemma3-q8_0"] {
        let serving = Serving::of(&Fixture::named(model));
        let mut totals = Vec::new();
        for settings in several_settings() {
            let engine = serving.engine(&settings);
            let plan = engine.plan();
            let counted = engine.counters().unwrap();
            assert_eq!(counted.len(), plan.devices.len());
            for (device, (label, counters)) in plan.devices.iter().zip(counted) {
                let of = |name: &str| counters.iter().find(|c| c.name.as_str() == name).unwrap().value;
                assert_eq!(
                    of("allocated_bytes"),
                    device.allocated(),
                    "{model} on {label}: {settings:?}"
                );
                assert_eq!(
                    of("allocated_peak"),
                    device.allocated(),
                    "nothing was allocated and freed"
                );
                totals.push(device.allocated());
            }
            assert_eq!(declared_scratch(&serving, plan), plan.devices[0].workspace);
        }
        totals.sort_unstable();
        totals.dedup();
        assert_eq!(
            totals.len(),
            several_settings().len(),
            "the settings ask for different amounts"
        );
    }
}

/// One sequence and several, small steps and large, every type of the cache.
fn several_settings() -> Vec<Settings> {
    let mut all = vec![
        settings(32, 1),
        settings(256, 64),
        Settings {
            rows: 1,
            page_tokens: 64,
            ..settings(2048, 512)
        },
        Settings {
            sequences: 5,
            rows: 5,
            ..settings(300, 33)
        },
    ];
    let typed = |ty| Settings {
        cache_types: [ty; 2],
        ..settings(512, 16)
    };
    all.extend([Type::F32, Type::F16, Type::Q8_0, Type::Q4_0].map(typed));
    all.push(Settings {
        cache_types: [Type::Q8_0, Type::F16],
        ..settings(512, 16)
    });
    all
}

/// The most scratch memory that the plan's programs declare, compiled on a device of their own; nothing else is theirs.
fn declared_scratch(serving: &Serving, plan: &Plan) -> u64 {
    let device = serving.target.open(log::services(), &OpenOptions::default()).unwrap();
    let programs = plan
        .segments
        .iter()
        .map(|segment| device.compile(&segment.graph()).unwrap().1);
    let needs: Vec<_> = programs.collect();
    assert!(needs.iter().all(|needs| needs.resident == 0));
    needs.iter().map(|needs| needs.workspace).max().unwrap()
}

/// How often a run of `host`, its plugin included, took memory from the heap.
fn heap_calls(predict: &str, options: &[&str]) -> u64 {
    // a plugin that was never seen is asked in a child process first, which costs the first run a little more
    static SEEN: Once = Once::new();
    SEEN.call_once(|| drop(tests::output(&mut command(&["backends"]))));
    let counter = tests::build("tests/malloc-counter", &[]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(&["run", "embedded", "ROMEO: But soft,", "--predict", predict]);
    command.args("--raw --ignore-eos --seed 1 --backend cpu --batch-size 16".split(' '));
    command.args(options);
    command.env("LD_PRELOAD", counter).env("MALLOC_COUNTER", folder.path());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = child.id().to_string();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    count_in(&folder.path().join(process))
}

fn count_in(file: &Path) -> u64 {
    fs::read_to_string(file).expect("the counter's report").parse().unwrap()
}

/// From 40 tokens to 240 the sequence crosses pages of 64, and pages slide out of the window of 32 (and steps of 16).
#[test]
fn a_generated_token_takes_nothing_from_the_heap() {
    let sampling = [
        "--temperature 0",
        "--temperature 0.8",
        "--temperature 1.5 --top-k 0 --typical 0.9 --min-p 0.01 --repeat-penalty 1.1 --repeat-last-n 32",
    ];
    for threads in ["--threads 1", "--threads 2"] {
        for sampling in sampling {
            let options: Vec<&str> = threads.split(' ').chain(sampling.split(' ')).collect();
            let (few, many) = (heap_calls("40", &options), heap_calls("240", &options));
            println!("{threads} {sampling}: {few} calls for 40 tokens, {many} for 240");
            assert_eq!(few, many, "{options:?}");
        }
    }
}

#[test]
fn the_counter_counts() {
    // with --json the answer's text is collected in a string, which grows
    let options = ["--threads", "1", "--temperature", "0"];
    let collected = |predict| heap_calls(predict, &[&options[..], &["--json"]].concat());
    assert!(heap_calls("40", &options) > 1000, "opening a model takes thousands");
    assert!(collected("240") > collected("40"));
}
