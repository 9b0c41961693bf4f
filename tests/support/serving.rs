//! Models served in the test's own process, by the real plugin.

use std::path::PathBuf;

use backend_api::{contract::DeviceInfo, types::Type};
use host::{
    execution::{
        Engine, Plan,
        device::Target,
        engine::{Settings, plan_for},
    },
    log,
    model::LoadedModel,
    plugins::{Prober, examine},
    progress::Meter,
};

use crate::{Fixture, cpu_backend, host};

/// A model and the device that serves it.
pub struct Serving {
    /// The model.
    pub model: LoadedModel,
    /// The device.
    pub target: Target,
}

impl Serving {
    /// This fixture on the CPU backend.
    pub fn of(fixture: &Fixture) -> Serving {
        Serving::file(&fixture.path())
    }

    /// A model file on the CPU backend.
    pub fn file(path: &str) -> Serving {
        Serving::on(path, cpu_backend())
    }

    /// A model file on the first device of the backend in `library`.
    pub fn on(path: &str, library: PathBuf) -> Serving {
        Serving {
            model: LoadedModel::open(Some(path)).unwrap_or_else(|error| panic!("{error}")),
            target: targets(library).remove(0),
        }
    }

    /// The plan for these settings.
    pub fn plan(&self, settings: &Settings) -> Plan {
        plan_for(
            &self.model.file,
            &self.model.model,
            settings,
            std::slice::from_ref(&self.target),
        )
        .unwrap_or_else(|error| panic!("{error}"))
    }

    /// An engine with these settings.
    pub fn engine(&self, settings: &Settings) -> Engine {
        let (file, plan) = (self.model.file.clone(), self.plan(settings));
        Engine::open(
            file,
            &self.model.model,
            settings,
            plan,
            log::services(),
            &Meter::default(),
        )
        .unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The devices of the backend in `library`.
pub fn targets(library: PathBuf) -> Vec<Target> {
    let prober = Prober {
        executable: host(),
        ..Prober::new().expect("the test's own path")
    };
    let plugin = examine(library, &Prober { seen: None, ..prober });
    let module = plugin.module.unwrap_or_else(|| panic!("{:?}", plugin.obstacle()));
    let target = |info: &DeviceInfo| Target {
        backend: plugin.label(),
        module,
        info: info.clone(),
        logical: None,
    };
    plugin.devices.iter().map(target).collect()
}

/// Settings of one sequence in pages of 16 tokens with an f32 cache, all columns wanted; tests change what matters.
pub fn settings(context: u32, batch: u32) -> Settings {
    Settings {
        context,
        batch,
        rows: batch,
        ahead: 0,
        sequences: 1,
        page_tokens: 16,
        cache_types: [Type::F32; 2],
        threads: 2,
    }
}

/// The logits of every column of a step: `tokens`, all of each `(sequence, count)` in order.
pub fn step(engine: &mut Engine, columns: &[(usize, u32)], tokens: &[u32]) -> Vec<Vec<f32>> {
    let wanted: Vec<u32> = (0..tokens.len() as u32).collect();
    engine
        .evaluate(columns, tokens, &wanted)
        .unwrap_or_else(|error| panic!("{error}"));
    wanted.iter().map(|&row| engine.logits(row as usize).to_vec()).collect()
}

/// The logits of tokens that follow in a sequence, evaluated `at_once` at a time.
pub fn extend(engine: &mut Engine, sequence: usize, tokens: &[u32], at_once: usize) -> Vec<Vec<f32>> {
    let steps = tokens.chunks(at_once);
    steps
        .flat_map(|tokens| step(engine, &[(sequence, tokens.len() as u32)], tokens))
        .collect()
}
