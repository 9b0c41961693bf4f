//! What the planning queries say without a driver is what is allocated.

use backend_api::{contract::OpenOptions, graph::Graph, types::Type};
use host::{execution::engine::Settings, log};
use serde_json::Value;
use tests::{Fixture, Serving, host, json, settings, targets};

use crate::{Served, emulation, golden::on, served};

const MODELS: [&str; 4] = ["qwen2-f32", "gemma3-q8_0", "gemma3n-q8_0", "gptoss-q8_0"];

fn several_settings() -> [Settings; 4] {
    let typed = |ty| Settings {
        cache_types: [ty; 2],
        ..settings(512, 16)
    };
    let several = Settings {
        sequences: 5,
        rows: 5,
        ..settings(300, 33)
    };
    [settings(32, 1), several, typed(Type::F16), typed(Type::Q8_0)]
}

#[test]
fn what_the_plan_says_is_what_is_allocated() {
    for served in served() {
        for model in MODELS {
            allocates_what_it_plans(&served, model);
        }
    }
}

fn allocates_what_it_plans(served: &Served, model: &'static str) {
    let serving = Serving::on(&Fixture::named(model).path(), served.library.clone());
    for settings in several_settings() {
        let engine = serving.engine(&settings);
        let plan = engine.plan();
        assert_eq!(plan.devices.len(), 1, "{model}: all of it is on {}", served.name);
        let (_, counters) = engine.counters().unwrap().remove(0);
        let of = |name: &str| counters.iter().find(|c| c.name.as_str() == name).unwrap().value;
        let planned = plan.devices[0].allocated();
        assert_eq!(of("allocated_bytes"), planned, "{model}: {settings:?}");
        assert_eq!(of("allocated_peak"), planned, "{model}: {settings:?}");
    }
}

/// Devices, the type of the cache, and the rest of what is asked for.
const WISHES: [(&str, &str, &str); 6] = [
    ("1x512", "f16", "--batch-size 8 --ctx-size 64"),
    ("1x600", "q8_0", "--batch-size 64 --ctx-size 512 --parallel 3"),
    ("2x512", "f32", "--batch-size 1 --ctx-size 100 --spread"),
    ("2x512", "q4_0", "--batch-size 33 --ctx-size 2048 --spread"),
    ("3x64", "f16", "--batch-size 256 --ctx-size 300 --spread --parallel 2"),
    ("4x64", "q8_0", "--batch-size 16 --ctx-size 64 --spread --draft ngram"),
];

/// What runs warn of fails the test: the host compares its plan with each device's counter `allocated_bytes`.
#[test]
fn runs_on_one_device_and_on_several_allocate_what_host_plan_said() {
    for served in served() {
        for (i, model) in MODELS.iter().enumerate() {
            // each model meets half of them, and all of them are met twice
            for wishes in WISHES.iter().skip(i % 2).step_by(2) {
                allocates_what_host_plan_said(&served, model, *wishes);
            }
        }
    }
}

fn allocates_what_host_plan_said(served: &Served, model: &'static str, (parts, ty, rest): (&str, &str, &str)) {
    let path = Fixture::named(model).path();
    let asked = |words: &str| {
        let mut command = on(served, &words.split(' ').collect::<Vec<_>>());
        command
            .arg(&path)
            .args(["--json", "--kv-type", ty])
            .args(rest.split(' '));
        command.env("GRAFT_CUDA37_DEVICES", parts);
        command
    };
    let (plan, wish) = (json(&mut asked("plan")), format!("{model}: {parts} {ty} {rest}"));
    let mut run = asked("run --raw --ignore-eos --temperature 0 --predict 3");
    let run = json(run.arg("ROMEO: But soft, what light"));
    assert_eq!(run["backend"], served.name, "{wish}");
    let memory = run["memory"].as_array().unwrap();
    let planned = plan["devices"].as_array().unwrap();
    assert_eq!(memory.len().to_string(), parts[..1], "{wish}: {memory:?}");
    assert_eq!(memory.len(), planned.len(), "{wish}: {planned:?}");
    for (of_run, of_plan) in memory.iter().zip(planned) {
        for purpose in ["weights", "cache", "compute", "workspace", "planned"] {
            assert_eq!(of_run[purpose], of_plan[purpose], "{wish}: {purpose}");
        }
        assert_eq!(of_run["allocated"], of_run["planned"], "{wish}");
        assert!(of_run["planned"].as_u64() > Some(0), "{wish}");
    }
    println!(
        "{wish} on {}: {:?}",
        served.name,
        memory.iter().map(|of| &of["allocated"]).collect::<Vec<&Value>>()
    );
}

/// The workspace that a backend's planning queries give for a graph, and for each of its tensors what a weight takes.
fn planned(target: &host::execution::device::Target, graph: &Graph<'_>) -> (u64, Vec<String>) {
    let of_node = |node| {
        target.supports(graph, node).unwrap();
        target.workspace(graph, node).unwrap()
    };
    let workspace = (0..graph.nodes.len() as u32).map(of_node).max().unwrap_or(0);
    let weight = |tensor| format!("{:?}", target.module.weight()(&target.info, tensor).into_result());
    (workspace, graph.tensors.iter().map(weight).collect())
}

#[test]
fn the_plugin_plans_without_a_driver_as_the_emulation_and_as_its_programs_then_need() {
    let Some(library) = emulation() else { return };
    let mut emulated = targets(library);
    let emulated = emulated.remove(0);
    let device = emulated.open(log::services(), &OpenOptions::default(), []).unwrap();
    let plugin = host::plugins::load::load(&host().with_file_name("libbackend_cuda37.so")).unwrap();
    let real = host::execution::device::Target {
        module: plugin,
        ..emulated.clone()
    };
    assert_eq!(
        real.module.memory()(&real.info),
        emulated.module.memory()(&emulated.info)
    );
    for model in MODELS {
        let serving = Serving::on(&Fixture::named(model).path(), emulation().unwrap());
        for settings in several_settings() {
            for segment in &serving.plan(&settings).segments {
                let graph = segment.graph();
                let answers = planned(&real, &graph);
                assert_eq!(answers, planned(&emulated, &graph), "{model}: {settings:?}");
                let needs = device.compile(&graph).unwrap().1;
                assert_eq!(
                    (needs.workspace, needs.resident),
                    (answers.0, 0),
                    "{model}: {settings:?}"
                );
            }
        }
    }
}
