//! Dropped-in files: each is listed with what it is, none takes the host down, and the best one that works is used.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use backend_api::contract::OpenOptions;
use host::plugins::{Plugin, Prober, Search, choose, discover, open_first};
use serde_json::{Value, json};
use tempfile::TempDir;

const TIME_LIMIT: Duration = Duration::from_secs(4);

/// The plugin of `faulty-backend/` with a fault, or without any.
fn faulty(features: &[&str]) -> PathBuf {
    tests::build("tests/faulty-backend", features)
}

/// A folder with these plugins of `faulty-backend/`, each in a file that is named by its fault.
fn folder(faults: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for fault in faults {
        let features: &[&str] = if *fault == "good" { &[] } else { &[fault] };
        fs::copy(faulty(features), folder.path().join(format!("{fault}.so"))).unwrap();
    }
    folder
}

fn found_in(folder: &TempDir) -> Vec<Plugin> {
    found_with(folder, None)
}

fn found_with(folder: &TempDir, seen: Option<PathBuf>) -> Vec<Plugin> {
    let prober = Prober {
        executable: tests::host(),
        time_limit: TIME_LIMIT,
        seen,
    };
    discover(&search(folder), &prober).unwrap()
}

fn search(folder: &TempDir) -> Search {
    Search {
        explicit: Some(folder.path().into()),
        ..Search::default()
    }
}

fn file_names(plugins: &[Plugin]) -> Vec<&str> {
    plugins.iter().map(file_name).collect()
}

fn file_name(plugin: &Plugin) -> &str {
    plugin.path.file_name().unwrap().to_str().unwrap()
}

/// The error of a file, or the reason of its score.
fn obstacle(plugins: &[Plugin], file: &str) -> String {
    let plugin = plugins.iter().find(|plugin| plugin.path.ends_with(file)).unwrap();
    plugin.obstacle().unwrap()
}

/// Some library that this process has mapped: its C library, say.
fn strangers_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut words = maps.split_whitespace();
    words
        .find(|word| word.starts_with('/') && word.contains(".so."))
        .unwrap()
        .into()
}

#[test]
fn every_file_is_listed_with_what_it_is_and_the_good_one_works() {
    let faults = [
        "panics",
        "aborts",
        "hangs",
        "no-number",
        "cannot-serve",
        "other-abi",
        "other-version",
        "good",
    ];
    let folder = folder(&faults);
    fs::write(folder.path().join("text.so"), "this is no library\n").unwrap();
    fs::write(folder.path().join("empty.so"), "").unwrap();
    fs::copy(strangers_library(), folder.path().join("stranger.so")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("dangling.so")).unwrap();
    tests::host(); // the build is not timed
    let start = Instant::now();
    let plugins = found_in(&folder);

    assert!(
        start.elapsed() < TIME_LIMIT * 3,
        "the others wait for the one that hangs"
    );
    assert_eq!(plugins.len(), faults.len() + 4);
    let expected = [
        ("panics.so", "its score failed: the plugin panicked: no luck today"),
        (
            "aborts.so",
            "the process that asked for its score ended with signal: 6 (SIGABRT)",
        ),
        ("hangs.so", "it gave no score within 4 s"),
        ("no-number.so", "its score is NaN, expected a finite number"),
        ("cannot-serve.so", "libabsent.so.1 not found"),
        (
            "other-abi.so",
            "it was built for another plugin contract: BackendFunctions: mismatched package, expected",
        ),
        (
            "other-version.so",
            "it was built for version 99.0.0 of the plugin contract, this host has 0.",
        ),
        ("text.so", "not a shared library: it is no ELF file"),
        ("empty.so", "not a shared library: the file is too short"),
        (
            "stranger.so",
            "a shared library that is no backend: it exports no root module",
        ),
        ("dangling.so", "the file cannot be read: No such file or directory"),
    ];
    for (file, start) in expected {
        let obstacle = obstacle(&plugins, file);
        assert!(obstacle.starts_with(start), "{file}: {obstacle}");
        assert!(!obstacle.contains('\n') && obstacle.len() < 250, "{file}: {obstacle}");
    }
    let attempts = choose(&plugins, None, true).unwrap();
    assert_eq!(
        attempts.iter().map(|plugin| plugin.label()).collect::<Vec<_>>(),
        ["plain"]
    );
    assert!(attempts[0].path.ends_with("good.so"));
    let device = attempts[0].open(0, &OpenOptions::default()).unwrap();
    let buffer = device.allocate(100).into_result().unwrap();
    device.free(buffer).into_result().unwrap();
    assert!(device.free(buffer).into_result().is_err());
}

#[test]
fn a_plugin_that_ends_the_process_is_known_by_its_name() {
    let plugins = found_in(&folder(&["aborts"]));
    assert_eq!(plugins[0].name.as_deref(), Some("plain"));
    assert!(plugins[0].module.is_none());
}

#[test]
fn a_plugin_cut_short_anywhere_is_refused() {
    let whole = fs::read(faulty(&[])).unwrap();
    let folder = folder(&[]);
    let cuts = [
        1,
        64,
        4096,
        whole.len() / 4,
        whole.len() / 2,
        whole.len() - 4096,
        whole.len() - 1,
    ];
    for kept in cuts {
        fs::write(folder.path().join(format!("{kept}.so")), &whole[..kept]).unwrap();
    }
    let plugins = found_in(&folder);
    assert_eq!(plugins.len(), cuts.len());
    for plugin in plugins {
        let error = plugin.error.unwrap().to_string();
        assert!(
            error.contains("cut short") || error.contains("too short"),
            "{}: {error}",
            plugin.path.display()
        );
    }
}

#[test]
fn a_plugin_damaged_inside_takes_nothing_down() {
    let whole = fs::read(faulty(&[])).unwrap();
    let folder = folder(&["good"]);
    // The tables that the dynamic loader works with, and the table of sections.
    let places = [0x400, 0x1000, 0x2000, whole.len() - 0x1000];
    for place in places {
        let mut damaged = whole.clone();
        damaged[place..place + 0x1000].fill(0xff);
        fs::write(folder.path().join(format!("{place}.so")), damaged).unwrap();
    }
    let plugins = found_in(&folder);
    assert_eq!(plugins.len(), places.len() + 1);
    assert_eq!(file_names(&plugins)[0], "good.so");
    assert!(plugins[1..].iter().all(|plugin| plugin.error.is_some()));
}

#[test]
fn of_two_with_one_name_the_better_score_is_used_and_both_are_listed() {
    let plugins = found_in(&folder(&["good", "better"]));
    assert_eq!(file_names(&plugins), ["better.so", "good.so"]);
    for wanted in [None, Some("plain")] {
        let attempts = choose(&plugins, wanted, true).unwrap();
        assert_eq!(attempts.len(), 1);
        assert_eq!(attempts[0].version.as_deref(), Some("2.0.0"));
    }
}

#[test]
fn a_backend_that_cannot_open_hands_over_to_the_next() {
    let plugins = found_in(&folder(&["good", "no-open", "cannot-serve"]));
    let open = |plugin: &Plugin| plugin.open(plugin.devices[0].id, &OpenOptions::default());
    for wanted in ["closed", "absent"] {
        let attempts = choose(&plugins, Some(wanted), true).unwrap();
        assert_eq!(attempts[0].name.as_deref(), Some(wanted));
        let (used, device) = open_first(&attempts, open).unwrap_or_else(|error| panic!("{error}"));
        assert!(device.free_memory().is_ok());
        assert_ne!(used.name.as_deref(), Some("absent"));
    }
    let alone = choose(&plugins, Some("closed"), false).unwrap();
    let error = open_first(&alone, open).map(|_| ()).unwrap_err().to_string();
    assert_eq!(
        error,
        "no backend can serve:\n  backend closed cannot serve: the device is full"
    );
    let error = choose(&plugins, Some("cuda37"), true).unwrap_err().to_string();
    assert!(
        error.starts_with("there is no backend \"cuda37\"; known are: "),
        "{error}"
    );
}

#[test]
fn a_file_that_answered_before_is_not_asked_in_a_process_of_its_own_again() {
    let (folder, cache) = (folder(&["good", "panics"]), tempfile::tempdir().unwrap());
    let seen = cache.path().join("graft/probes.json");
    found_with(&folder, Some(seen.clone()));
    let nobody = Prober {
        executable: "/nowhere/host".into(),
        time_limit: TIME_LIMIT,
        seen: Some(seen),
    };
    let plugins = discover(&search(&folder), &nobody).unwrap();
    assert_eq!(plugins[0].obstacle(), None);
    assert!(
        obstacle(&plugins, "panics.so").contains("/nowhere/host"),
        "failures are asked again"
    );
}

#[test]
fn a_file_that_others_can_write_to_is_refused() {
    let folder = folder(&["good"]);
    fs::set_permissions(folder.path().join("good.so"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(obstacle(&found_in(&folder), "good.so").contains("can be written to by others (mode 666)"));
}

/// A copy of the program in a folder of its own, so that only what a test puts there is found.
struct Installation {
    folder: TempDir,
    cache: TempDir,
}

impl Installation {
    fn new() -> Self {
        let folder = tests::installed();
        fs::create_dir(folder.path().join("plugins")).unwrap();
        Installation {
            folder,
            cache: tempfile::tempdir().unwrap(),
        }
    }

    fn add(&self, plugin: &Path, file: &str) {
        fs::copy(plugin, self.folder.path().join(file)).unwrap();
    }

    fn backends(&self, arguments: &[&str], environment: Option<&Path>) -> Output {
        let mut command = Command::new(self.folder.path().join("host"));
        command.arg("backends").args(arguments).current_dir(self.cache.path());
        command.env("XDG_CACHE_HOME", self.cache.path()).env_remove("GRAFT_LOG");
        match environment {
            Some(folder) => command.env("GRAFT_PLUGINS", folder),
            None => command.env_remove("GRAFT_PLUGINS"),
        };
        command.output().unwrap()
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_list_in_json_has_what_is_documented() {
    let installation = Installation::new();
    installation.add(&faulty(&[]), "plugins/good.so");
    fs::write(installation.folder.path().join("text.so"), "text").unwrap();
    let output = installation.backends(&["--json"], None);
    assert!(output.status.success());
    let path = |file: &str| {
        installation
            .folder
            .path()
            .canonicalize()
            .unwrap()
            .join(file)
            .display()
            .to_string()
    };
    let expected = json!([
        {
            "path": path("plugins/good.so"), "name": "plain", "version": "1.0.0", "score": 1.5, "reason": "always there",
            "error": null, "features": [], "devices": [
                { "id": 0, "name": "nothing at all", "kind": "other", "total": 1u64 << 30, "free": 1u64 << 29 },
            ], "chosen": true,
        },
        {
            "path": path("text.so"), "name": null, "version": null, "score": null, "reason": null,
            "error": "not a shared library: it is no ELF file", "features": [], "devices": [], "chosen": false,
        },
    ]);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), expected);
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn the_table_shows_scores_reasons_and_devices() {
    let installation = Installation::new();
    installation.add(&faulty(&[]), "plugins/good.so");
    installation.add(&faulty(&["cannot-serve"]), "absent.so");
    let output = installation.backends(&[], None);
    assert!(output.status.success());
    let table = text(&output.stdout);
    let line = |word: &str| table.lines().find(|line| line.contains(word)).unwrap().to_owned();
    let good = line("plain");
    for word in [
        "*",
        "1.0.0",
        "1.5",
        "always there",
        "0: nothing at all (other, 512.00 MiB of 1.00 GiB free)",
        "good.so",
    ] {
        assert!(good.contains(word), "{word:?} in {good}");
    }
    let absent = line("absent.so");
    assert!(
        absent.contains(" 0 ") && absent.contains("libabsent.so.1 not found") && !absent.contains('*'),
        "{absent}"
    );
}

#[test]
fn a_list_in_which_none_can_serve_fails() {
    let installation = Installation::new();
    let output = installation.backends(&[], None);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no backend was found; hint: "));

    installation.add(&faulty(&["cannot-serve"]), "plugins/absent.so");
    let output = installation.backends(&["--json"], None);
    assert_eq!(output.status.code(), Some(1));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&list[0]["score"], &list[0]["chosen"]), (&json!(0.0), &json!(false)));
}

#[test]
fn the_environment_names_folders_and_the_option_comes_before_them() {
    let installation = Installation::new();
    let (option, environment) = (folder(&[]), folder(&["good"]));
    fs::copy(faulty(&["better"]), option.path().join("good.so")).unwrap();
    let version = |output: Output| serde_json::from_slice::<Value>(&output.stdout).unwrap()[0]["version"].clone();
    assert_eq!(
        version(installation.backends(&["--json"], Some(environment.path()))),
        "1.0.0"
    );
    let explicit = ["--json", "--plugins", option.path().to_str().unwrap()];
    assert_eq!(
        version(installation.backends(&explicit, Some(environment.path()))),
        "2.0.0"
    );
}

#[test]
fn the_current_directory_is_not_searched() {
    let installation = Installation::new();
    fs::create_dir(installation.cache.path().join("plugins")).unwrap();
    fs::copy(faulty(&[]), installation.cache.path().join("plugins/good.so")).unwrap();
    fs::copy(faulty(&[]), installation.cache.path().join("good.so")).unwrap();
    let output = installation.backends(&["--json"], None);
    assert_eq!(text(&output.stdout).trim(), "[]");
}

#[test]
fn a_folder_that_all_can_write_to_is_refused_with_a_hint() {
    let (installation, open) = (Installation::new(), folder(&["good"]));
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    let path = open.path().display().to_string();
    let output = installation.backends(&["--plugins", &path], None);
    assert_eq!(output.status.code(), Some(1));
    let warning = text(&output.stderr);
    assert!(
        warning.starts_with(&format!("warning: no plugins are loaded from {path}: ")),
        "{warning}"
    );
    assert!(warning.contains(&format!("hint: chmod go-w {path}")), "{warning}");
}

#[test]
fn a_missing_folder_is_an_error_where_the_user_named_it() {
    let output = Installation::new().backends(&["--plugins", "/nowhere"], None);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--plugins /nowhere: No such file or directory"));
}
