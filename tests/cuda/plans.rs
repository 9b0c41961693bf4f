//! What the planning queries say without a driver is what is allocated.

use backend_api::{contract::OpenOptions, graph::Graph, types::Type};
use host::{execution::engine::Settings, log};
use tests::{Fixture, Serving, host, settings, targets};

use crate::{Served, emulation, served};

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
