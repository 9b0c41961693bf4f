//! The instruction sets of the CPU's kernels, and a file that is kept in memory.

use tests::{KERNELS, kernel_sets};

use super::*;

/// The logits of a few tokens with these options, held to an instruction set by the environment where one is given.
fn logits(options: &[&str], environment: Option<&str>) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("logits.safetensors");
    let mut command = command(&[
        "logits",
        MODEL,
        "--tokens",
        "2 17 42 99 100",
        "--backend",
        "cpu",
        "--output",
    ]);
    command.arg(&file).args(options);
    if let Some(set) = environment {
        command.env(KERNELS, set);
    }
    tests::output(&mut command);
    fs::read(file).unwrap()
}

#[test]
fn the_kernels_are_the_best_unless_they_are_held_to_less() {
    let listed: Value = serde_json::from_str(&answer(&["backends", "--json"])).unwrap();
    let cpu = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|backend| backend["name"] == "cpu")
        .unwrap();
    let sets: Vec<&str> = cpu["features"]
        .as_array()
        .unwrap()
        .iter()
        .map(|set| set.as_str().unwrap())
        .collect();
    // the emulation is for tests, and not offered
    for set in kernel_sets().into_iter().filter(|set| !set.ends_with("emulated")) {
        assert!(sets.contains(&set), "{set} is one of {sets:?}");
        assert_eq!(logits(&["--cpu-features", set], None), logits(&[], Some(set)), "{set}");
    }
    let best = logits(&[], None);
    assert_eq!(logits(&["--cpu-features", sets.last().unwrap()], None), best);
    if sets.len() > 1 {
        assert_ne!(logits(&["--cpu-features", "scalar"], None), best);
    }
    // what is asked for now matters more than what always holds
    assert_eq!(logits(&["--cpu-features", sets.last().unwrap()], Some("scalar")), best);
}

#[test]
fn a_set_that_is_not_here_is_refused_with_those_that_are() {
    let backend = tests::cpu_backend();
    let commands: [&[&str]; 5] = [
        &["run", MODEL, "hi"],
        &["plan", MODEL],
        &["bench", MODEL],
        &["logits", MODEL, "--tokens", "1", "--output", "/dev/null"],
        &["check", backend.to_str().unwrap()],
    ];
    for command in commands {
        let ran = host(&[command, &["--cpu-features", "sse9"]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
        let begin = "error: --cpu-features sse9: backend cpu has scalar";
        assert!(ran.stderr.starts_with(begin), "{}", ran.stderr);
    }
}

#[test]
fn a_file_is_kept_in_memory_or_it_is_told_why_not() {
    let arguments = ["run", MODEL, "hi", "--raw", "--predict", "2", "--temperature", "0"];
    let free = host(&arguments);
    let locked = host(&[&arguments[..], &["--lock"]].concat());
    assert_eq!((locked.code, &locked.stdout), (Some(0), &free.stdout));
    let hint = "\nhint: `ulimit -l` must be ";
    let warned = locked.stderr.starts_with("warning: --lock: ") && locked.stderr.contains(hint);
    assert!(locked.stderr.is_empty() || warned, "{}", locked.stderr);
    // without any right to lock; a user who may do everything may do this, too
    let line = format!(
        "ulimit -l 0; exec {} {} --lock",
        tests::host().display(),
        arguments.join(" ")
    );
    let limited = finish(
        Command::new("sh")
            .args(["-c", &line])
            .current_dir(fixtures())
            .stdin(Stdio::null()),
    );
    assert_eq!(
        (limited.code, &limited.stdout),
        (Some(0), &free.stdout),
        "{}",
        limited.stderr
    );
}
