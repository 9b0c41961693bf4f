//! Memory: the plan is what is allocated, and a token that is generated takes nothing from the heap.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

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
    let device = serving
        .target
        .open(log::services(), &OpenOptions::default(), [])
        .unwrap();
    let programs = plan
        .segments
        .iter()
        .map(|segment| device.compile(&segment.graph()).unwrap().1);
    let needs: Vec<_> = programs.collect();
    assert!(needs.iter().all(|needs| needs.resident == 0));
    needs.iter().map(|needs| needs.workspace).max().unwrap()
}

/// How often `host`, its plugin included, had taken memory from the heap at each write to standard output, and at its end.
fn heap_calls(arguments: &[&str]) -> Vec<u64> {
    let counter = tests::build("tests/malloc-counter", &[]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(arguments);
    command.env("LD_PRELOAD", counter).env("MALLOC_COUNTER", folder.path());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = child.id().to_string();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let report = fs::read_to_string(folder.path().join(process)).expect("the counter's report");
    report.lines().map(|line| line.parse().unwrap()).collect()
}

/// Tokens that a run may take to warm up.
const WARM: usize = 16;

/// In 240 tokens the sequence crosses pages of 64, and pages slide out of the window of 32 (and steps of 16).
#[test]
fn a_generated_token_takes_nothing_from_the_heap() {
    let sampling = [
        "--temperature 0",
        "--temperature 0.8",
        "--temperature 1.5 --top-k 0 --typical 0.9 --min-p 0.01 --repeat-penalty 1.1 --repeat-last-n 32",
    ];
    for (threads, draft) in [
        ("--threads 1", ""),
        ("--threads 2", ""),
        ("--threads 2", " --draft ngram"),
    ] {
        for sampling in sampling {
            let fixed = format!("--raw --ignore-eos --seed 1 --backend cpu --batch-size 16 --predict 240{draft}");
            let mut arguments = vec!["run", "embedded", "ROMEO: But soft, but soft, but soft, but soft,"];
            arguments.extend(
                [&fixed, threads, sampling]
                    .iter()
                    .flat_map(|options| options.split(' ')),
            );
            let calls = heap_calls(&arguments);
            // each token whose text is not empty is written at once; the last write is the line's end
            let tokens = &calls[..calls.len() - 2];
            assert!(tokens.len() > 130, "{} writes", tokens.len());
            println!(
                "{threads}{draft} {sampling}: {} calls before the first token",
                tokens[0]
            );
            assert_eq!(
                tokens[WARM],
                tokens[tokens.len() - 1],
                "{threads}{draft} {sampling}: {tokens:?}"
            );
        }
    }
}

/// A number that a file of `/proc` gives in kB after this word, in bytes; none where the process has ended.
fn kilobytes(status: &str, word: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(word))?;
    let number: u64 = line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok()?;
    Some(number << 10)
}

/// What a run may take beside what it accounts for: the program, its vocabulary, its threads.
const BESIDE: u64 = 100 << 20;

/// A model of two layers with a vocabulary of 152,000 pieces, whose weights are holes of the file.
#[test]
fn a_run_takes_hardly_more_memory_than_it_accounts_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    let shape = ["qwen2-1.5b", "--sparse", "--layers", "2"];
    let made = Command::new(env!("CARGO_BIN_EXE_make-model"))
        .args(shape)
        .arg(&file)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut command = command(&["run", file.to_str().unwrap(), "Why is the sky blue?"]);
    command.args("--raw --ignore-eos --temperature 0 --predict 60 --ctx-size 512 --stats --draft ngram".split(' '));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let waiting = thread::spawn(move || child.wait_with_output().unwrap());
    let (mut own, mut all) = (0, 0);
    while !waiting.is_finished() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        own = own.max(kilobytes(&status, "RssAnon").unwrap_or(0));
        all = all.max(kilobytes(&status, "VmHWM").unwrap_or(0));
        thread::sleep(Duration::from_millis(1));
    }
    let output = waiting.join().unwrap();
    let figures = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{figures}");
    let allocated = figures
        .lines()
        .find_map(|line| line.strip_suffix(" bytes allocated"))
        .unwrap();
    let allocated: u64 = allocated.rsplit(' ').next().unwrap().parse().unwrap();
    let mapped = file.metadata().unwrap().len();
    println!("accounted for {allocated}, own {own}; with {mapped} of the file {all}");
    assert!(
        own > 1 << 20 && own < allocated + BESIDE,
        "{own} bytes, {allocated} accounted for"
    );
    assert!(
        all < allocated + mapped + BESIDE,
        "{all} bytes with {mapped} of the file"
    );
}

#[test]
fn the_counter_counts() {
    // a table is built before each write
    let calls = heap_calls(&["inspect", "embedded", "--tensors"]);
    assert!(calls.len() > 3 && calls[0] > 100, "{calls:?}");
    assert!(
        calls.windows(2).all(|pair| pair[0] <= pair[1]) && calls[1] < calls[calls.len() - 2],
        "{calls:?}"
    );
}
