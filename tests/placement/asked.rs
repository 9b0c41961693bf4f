//! What the user asks for is done or refused, with the numbers.

use serde_json::Value;
use tests::{command, json, output};

use super::*;

fn refused(sizes: &[u64], wishes: Wishes) -> String {
    let serving = serving("gemma3-q8_0");
    placed(&serving, sizes, &wishes, 1).unwrap_err().to_string()
}

#[test]
fn layers_that_do_not_fit_are_refused_with_what_they_would_take() {
    let serving = serving("gemma3-q8_0");
    let asked = |layers| Wishes {
        layers: Some(layers),
        ..wishes(1024)
    };
    let all = on_devices(&placed(&serving, &[64 * MIB], &asked(99), 1).unwrap());
    let error = placed(&serving, &[all / 2], &asked(99), 1).unwrap_err().to_string();
    for part in [
        "--gpu-layers 99: ",
        "layers take ",
        "weights ",
        "cache ",
        "compute ",
        "room for ",
        "hint: --gpu-layers ",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // what the hint says fits, and one more does not
    let hint = error.split("hint: --gpu-layers ").nth(1).unwrap();
    let fitting: u32 = hint.split(' ').next().unwrap().parse().unwrap();
    assert!(fitting > 0);
    placed(&serving, &[all / 2], &asked(fitting), 1).unwrap();
    placed(&serving, &[all / 2], &asked(fitting + 1), 1).unwrap_err();
}

#[test]
fn wishes_that_nothing_meets_are_refused_with_what_can_be_asked() {
    let split = |parts: &[u32]| Wishes {
        split: parts.to_vec(),
        ..wishes(256)
    };
    assert!(refused(&[64 * MIB; 2], split(&[1])).starts_with("--split has 1 parts for 2 devices\nhint: "));
    assert!(refused(&[64 * MIB; 2], split(&[1, 0])).contains("the last device has no part"));
    assert!(refused(&[64 * MIB, MIB], split(&[1, 3])).starts_with("--split: the model takes "));
    let experts = Wishes {
        experts: Some(1),
        ..wishes(256)
    };
    assert!(refused(&[64 * MIB], experts).starts_with("--cpu-experts 1: 0 layers of this model have experts"));
}

#[test]
fn the_longest_context_is_one_with_all_layers_on_devices() {
    let max = Wishes {
        context: Some(ContextWish::Max),
        ..Wishes::default()
    };
    let error = refused(&[2 * MIB], max.clone());
    assert!(
        error.starts_with("--ctx-size max is for all layers on devices: the model takes "),
        "{error}"
    );
    let some = Wishes { layers: Some(2), ..max };
    let serving = serving("gemma3-q8_0");
    let placement = placed(&serving, &[4 * MIB], &some, 1).unwrap();
    assert_eq!(placement.layers_on_devices(), 2);
    assert!(placement.settings.context > 64);
}

/// Weights that are mapped take memory like all else: a cache that took it from them would have them read again and again.
#[test]
fn the_longest_context_leaves_room_for_weights_that_are_mapped() {
    let serving = serving("qwen2-q8_0");
    let mut target = serving.target.clone();
    let model = &serving.model;
    let place_in = |target: &Target, context| {
        let ground = Ground {
            devices: vec![target.clone()],
            host: None,
        };
        let wishes = Wishes {
            context: Some(context),
            ..Wishes::default()
        };
        place(&model.file, &model.model, &ground, &wishes, &usual(1))
    };
    let trained = model.model.context();
    let whole = place_in(&target, ContextWish::Max).unwrap();
    let mapped = whole.plan.devices[0].mapped;
    assert_eq!(whole.settings.context, trained);
    assert!(mapped > MIB && mapped < model.file.files()[0].bytes().len() as u64);

    let needed = whole.planned_on(0);
    target.info.free = mapped + needed;
    assert_eq!(place_in(&target, ContextWish::Max).unwrap().settings.context, trained);
    target.info.free -= needed / 4;
    let less = place_in(&target, ContextWish::Max).unwrap();
    assert!(less.settings.context < trained && less.planned_on(0) + mapped <= target.info.free);
    // a number is done
    place_in(&target, ContextWish::Tokens(trained)).unwrap();
    target.info.free = mapped;
    let error = place_in(&target, ContextWish::Max).unwrap_err().to_string();
    assert!(
        error.starts_with("--ctx-size max is for all layers on devices: "),
        "{error}"
    );
}

/// What a file says that its model was trained for may be more than anybody can count.
#[test]
fn the_longest_context_is_one_that_a_cache_can_have() {
    let mut bytes = std::fs::read(Fixture::named("qwen2-q8_0").path()).unwrap();
    let key = b"qwen2.context_length";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
    let file = tempfile::NamedTempFile::new().unwrap();
    for trained in [1u32, 100_000_000, u32::MAX] {
        bytes[at..at + 4].copy_from_slice(&trained.to_le_bytes());
        std::fs::write(file.path(), &bytes).unwrap();
        let path = file.path().to_str().unwrap();
        let plan = json(&mut command(&[
            "plan",
            path,
            "--devices",
            "1x63TiB",
            "--ctx-size",
            "max",
            "--json",
        ]));
        assert_eq!(plan["ctx_size"], trained.min(1 << 24));
    }
}

#[test]
fn all_devices_are_used_where_that_was_asked_for() {
    let model = Fixture::named("qwen2-q8_0").path();
    for count in 1..=5 {
        let devices = format!("{count}x1GiB");
        let plan = json(&mut command(&[
            "plan",
            &model,
            "--devices",
            &devices,
            "--spread",
            "--json",
        ]));
        let devices = plan["devices"].as_array().unwrap();
        let used = devices.iter().filter(|device| device["layers"].as_u64() > Some(0));
        assert_eq!(used.count(), count, "{plan}");
    }
}

#[test]
fn a_plan_for_guesses_is_what_a_run_that_guesses_takes() {
    let model = fixture();
    let wishes = ["--devices", "2x1GiB", "--draft", "ngram", "--batch-size", "4", "--json"];
    let planned = json(&mut command(&[&["plan", &model][..], &wishes].concat()));
    let ran = json(&mut command(
        &[&["run", &model, "hi", "--raw", "--predict", "1"][..], &wishes].concat(),
    ));
    let of = |devices: &Value, key: &str| -> Vec<u64> {
        let devices = devices.as_array().unwrap().iter();
        devices
            .map(|device| device[key].as_u64().unwrap())
            .filter(|&bytes| bytes > 0)
            .collect()
    };
    assert_eq!(of(&planned["devices"], "planned"), of(&ran["memory"], "allocated"));
    let plain = json(&mut command(&[
        "plan",
        &model,
        "--devices",
        "2x1GiB",
        "--batch-size",
        "4",
        "--json",
    ]));
    assert_ne!(of(&plain["devices"], "planned"), of(&ran["memory"], "allocated"));
}

#[test]
fn a_split_is_as_it_was_asked_for() {
    let serving = serving("qwen2-q8_0");
    let layers = serving.model.model.layers();
    let wishes = Wishes {
        split: vec![3, 1],
        ..wishes(256)
    };
    let placement = placed(&serving, &[64 * MIB; 2], &wishes, 1).unwrap();
    assert_eq!(placement.layers_on(0), (layers * 3 + 2) / 4);
    assert_eq!(placement.layers_on(1), layers - (layers * 3 + 2) / 4 + 1);
}

#[test]
fn what_is_reserved_stays_free() {
    let serving = serving("gemma3-q8_0");
    let all = on_devices(&placed(&serving, &[64 * MIB], &wishes(1024), 1).unwrap());
    let with = |reserve| Wishes {
        reserve,
        batch: Some(512),
        ..wishes(1024)
    };
    let whole = placed(&serving, &[all + MIB], &with(MIB), 1).unwrap();
    assert_eq!(whole.layers_on_devices(), whole.layers_total());
    let part = placed(&serving, &[all + MIB], &with(MIB + 1), 1).unwrap();
    assert!(part.layers_on_devices() < part.layers_total());
}

/// The smallest fixture's path.
fn fixture() -> String {
    Fixture::named("gemma3-q8_0").path()
}

#[test]
fn a_plan_in_json_has_what_is_documented() {
    let model = fixture();
    let plan = json(&mut command(&[
        "plan",
        &model,
        "--devices",
        "2x1GiB",
        "--spread",
        "--ctx-size",
        "512",
        "--json",
    ]));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&plan),
        [
            "ctx_size",
            "batch_size",
            "layers_total",
            "layers_on_devices",
            "splits",
            "devices"
        ]
    );
    let of_device = [
        "name",
        "kind",
        "total",
        "weights",
        "cache",
        "compute",
        "workspace",
        "context",
        "planned",
        "layers",
    ];
    let devices = plan["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 3, "two devices and the host");
    let mut layers = 0;
    for device in devices {
        assert_eq!(keys(device), of_device);
        let of = |key: &str| device[key].as_u64().unwrap();
        assert_eq!(
            of("planned"),
            of("weights") + of("cache") + of("compute") + of("workspace")
        );
        layers += of("layers");
    }
    assert_eq!(plan["layers_total"], layers);
    assert_eq!(
        (&plan["layers_on_devices"], &plan["splits"]),
        (&layers.into(), &3.into())
    );
    assert_eq!(
        (&devices[0]["total"], &devices[0]["context"]),
        (&(1u64 << 30).into(), &(128 * MIB).into())
    );
    assert_eq!(
        (&devices[2]["kind"], &devices[2]["context"]),
        (&"cpu".into(), &0.into())
    );
}

#[test]
fn a_plan_is_a_table_with_what_was_considered() {
    let model = fixture();
    let text = output(&mut command(&[
        "plan",
        &model,
        "--devices",
        "cpu:2x5MiB",
        "--ctx-size",
        "2048",
    ]));
    let text = String::from_utf8(text).unwrap();
    for part in [
        "weights",
        "workspace",
        "free",
        "graph split",
        "cpu:0/1",
        "output",
        "Considered, too:",
        "are needed",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_run_says_what_ran_where_and_what_it_took() {
    let model = fixture();
    let run = |devices: &str| {
        let fixed = [
            "run",
            &model,
            "ROMEO:",
            "--raw",
            "--temperature",
            "0",
            "--predict",
            "8",
            "--json",
        ];
        json(command(&fixed).args(["--devices", devices, "--spread"]))
    };
    let (alone, several) = (run("cpu:0"), run("cpu:3x64MiB"));
    assert_eq!(alone["tokens"], several["tokens"]);
    let memory = several["memory"].as_array().unwrap();
    assert_eq!(memory.len(), 4);
    for device in memory {
        assert_eq!(device["planned"], device["allocated"]);
    }
    assert!(memory[..3].iter().all(|device| device["layers"].as_u64().unwrap() > 0));
    assert!(memory[3]["name"].as_str().unwrap().starts_with("cpu:0 "));
}

#[test]
fn a_run_that_cannot_be_as_asked_fails_and_says_what_it_would_take() {
    let model = fixture();
    let ran = command(&["run", &model, "x", "--gpu-layers", "99", "--devices", "cpu:1x2MiB"])
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(1));
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(
        said.starts_with("error: --gpu-layers 99: 7 of 7 layers take "),
        "{said}"
    );
    assert!(said.contains("there is room for 2.00 MiB on cpu:0/0"), "{said}");
}

#[test]
fn layers_that_no_device_has_room_for_are_told_of() {
    let model = fixture();
    let ran = command(&["run", &model, "x", "--predict", "1", "--devices", "cpu:1x3MiB"])
        .output()
        .unwrap();
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(
        ran.status.success() && said.contains("of 7 layers are on devices"),
        "{said}"
    );
    let debug = command(&[
        "run",
        &model,
        "x",
        "--predict",
        "1",
        "--devices",
        "cpu:1x64MiB",
        "--log",
        "debug",
    ])
    .output()
    .unwrap();
    let said = String::from_utf8(debug.stderr).unwrap();
    assert!(said.contains("placement: cpu:0/0"), "{said}");
}
