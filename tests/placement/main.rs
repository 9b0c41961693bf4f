//! Models on several devices: logical ones over the CPU, with memory of their own.

mod asked;
mod exact;
mod shapes;
mod tokens;

use std::{path::Path, process::Command};

use backend_api::{contract::flags, types::Type};
use host::{
    execution::{Engine, device::Target, engine::Settings},
    log,
    placement::{ContextWish, Ground, PlaceError, Placement, Wishes, place},
    progress::Meter,
};
use tests::{Fixture, Serving};

const MIB: u64 = 1 << 20;

/// All fixtures whose architectures differ in what they ask of devices.
const MODELS: [&str; 7] = [
    "qwen2-f32",
    "qwen2-q8_0",
    "gemma3-q8_0",
    "gemma3n-q8_0",
    "gptoss-q8_0",
    "families/mixtral-f16",
    "families/gemma2-f16",
];

/// A model and the CPU backend.
fn serving(name: &'static str) -> Serving {
    Serving::of(&Fixture::named(name))
}

/// Logical devices of these sizes, and the processor.
fn ground(serving: &Serving, sizes: &[u64]) -> Ground {
    let device = |(number, &bytes): (usize, &u64)| {
        let mut target: Target = serving.target.clone();
        target.logical = Some(number as u32);
        (target.info.total, target.info.free) = (bytes, bytes);
        target.info.flags &= !flags::IMPORTS;
        target
    };
    Ground {
        devices: sizes.iter().enumerate().map(device).collect(),
        host: Some(serving.target.clone()),
    }
}

/// Settings whose context and batch wishes decide.
fn usual(sequences: u32) -> Settings {
    Settings {
        context: 0,
        batch: 0,
        ahead: 0,
        rows: sequences,
        sequences,
        page_tokens: 16,
        cache_types: [Type::F16; 2],
        threads: 1,
    }
}

fn wishes(context: u32) -> Wishes {
    Wishes {
        context: Some(ContextWish::Tokens(context)),
        ..Wishes::default()
    }
}

fn placed(serving: &Serving, sizes: &[u64], wishes: &Wishes, sequences: u32) -> Result<Placement, PlaceError> {
    let model = &serving.model;
    place(
        &model.file,
        &model.model,
        &ground(serving, sizes),
        wishes,
        &usual(sequences),
    )
}

fn engine(serving: &Serving, placement: &Placement) -> Engine {
    let (file, plan) = (serving.model.file.clone(), placement.plan.clone());
    let (model, settings) = (&serving.model.model, &placement.settings);
    Engine::open(file, model, settings, plan, log::services(), &Meter::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A file in the shape of a known model, of which the header alone is written.
fn sparse(folder: &Path, shape: &str, options: &[&str]) -> Serving {
    let path = folder.join(format!("{shape}{}.gguf", options.join("")));
    if !path.exists() {
        let made = Command::new(env!("CARGO_BIN_EXE_make-model"))
            .args([shape, "--sparse"])
            .args(options)
            .arg(&path)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }
    Serving::file(path.to_str().unwrap())
}

/// Bytes that all devices are asked for, without the host.
fn on_devices(placement: &Placement) -> u64 {
    let devices = placement
        .plan
        .devices
        .iter()
        .filter(|device| Some(device.index) != placement.host);
    devices.map(|device| device.allocated()).sum()
}
