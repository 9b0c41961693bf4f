//! From what the user asked for to a running engine: backends, devices, and what happens when one fails.

use std::path::PathBuf;

use anyhow::{Context, bail};
use backend_api::{contract::DeviceKind, types::Type};

use crate::{
    execution::{
        Engine,
        device::Target,
        engine::{Settings, plan_for},
    },
    log,
    model::LoadedModel,
    plugins::{Plugin, Prober, Search, choose, discover, features, open_first},
    progress::Meter,
};

/// The context where neither the user nor the model asks for less, as Ollama has it.
pub const DEFAULT_CONTEXT: u32 = 4096;
/// The most tokens of a step, unless asked otherwise.
pub const DEFAULT_BATCH: u32 = 512;
/// Tokens a page of the cache.
const PAGE_TOKENS: u32 = 64;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// A folder with plugins.
    pub plugins: Option<PathBuf>,
    /// The backend's name.
    pub backend: Option<String>,
    /// Whether anything else may run than what was chosen.
    pub fallback: bool,
    /// The device: `[BACKEND:]INDEX`.
    pub device: Option<DeviceChoice>,
    /// The instruction set to hold backends to.
    pub features: Option<String>,
    /// Threads on the CPU; 0 lets the backend choose.
    pub threads: u32,
    /// Tokens of context.
    pub context: Option<u32>,
    /// Tokens of a step.
    pub batch: u32,
    /// Wanted columns of a step.
    pub rows: u32,
    /// Tokens of a step that are guesses; their columns are wanted, too.
    pub ahead: u32,
    /// The type of keys and values in the cache.
    pub cache_type: Type,
}

/// A device as the user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceChoice {
    /// The backend, if it was named.
    pub backend: Option<String>,
    /// The device's number.
    pub index: u32,
}

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (backend, index) = match text.split_once(':') {
            Some((backend, index)) => (Some(backend.to_owned()), index),
            None => (None, text),
        };
        let index = index.parse().map_err(|_| {
            format!("{text:?} is no device; expected [BACKEND:]INDEX, such as 0 or cpu:0 (one device is served)")
        })?;
        Ok(DeviceChoice { backend, index })
    }
}

/// An engine and what it runs on.
pub struct Running {
    /// The engine.
    pub engine: Engine,
    /// The backend's name.
    pub backend: String,
    /// The devices' labels, the chosen one first.
    pub devices: Vec<String>,
    /// Tokens of context.
    pub context: u32,
}

/// Opens the first backend that can run the model. What falls back says so, with the reason. `meter` counts the bytes of
/// weights that are uploaded.
pub fn start(model: &LoadedModel, request: &Request, meter: &Meter) -> anyhow::Result<Running> {
    let settings = settings(model, request)?;
    let plugins = discover(&Search::new(request.plugins.clone()), &Prober::new()?)?;
    let named = request.device.as_ref().and_then(|d| d.backend.as_deref());
    if let (Some(device), Some(backend)) = (named, request.backend.as_deref())
        && device != backend
    {
        bail!("--backend {backend} and --devices {device}:… name two backends");
    }
    let attempts = choose(&plugins, request.backend.as_deref().or(named), request.fallback)?;
    if let Some(wanted) = &request.features {
        features::select(&attempts, wanted)?;
    }
    let (plugin, engine) = open_first(&attempts, |plugin| {
        open(plugin, &plugins, model, &settings, request, meter)
    })?;
    report_refusals(&engine);
    let devices = engine.plan().devices.iter().map(|d| d.target.label()).collect();
    Ok(Running {
        engine,
        backend: plugin.label(),
        devices,
        context: settings.context,
    })
}

fn settings(model: &LoadedModel, request: &Request) -> anyhow::Result<Settings> {
    let trained = model.model.context();
    let context = request.context.unwrap_or(DEFAULT_CONTEXT.min(trained));
    if context > trained {
        tracing::warn!("the model was trained for {trained} tokens of context; beyond that its answers get worse");
    }
    check_cache_type(model, request.cache_type)?;
    let batch = request.batch.min(context);
    let ahead = request.ahead.min(batch - 1);
    let [keys, values] = [request.cache_type; 2];
    Ok(Settings {
        context,
        batch,
        rows: request.rows.max(1 + ahead).min(batch),
        ahead,
        sequences: 1,
        page_tokens: PAGE_TOKENS,
        cache_types: [keys, values],
        threads: request.threads,
    })
}

/// Heads are kept in whole blocks.
fn check_cache_type(model: &LoadedModel, ty: Type) -> anyhow::Result<()> {
    let mut lengths = model.model.cache().layers.iter().flatten().map(|layer| layer.head_dim);
    match lengths.find(|length| !(*length as usize).is_multiple_of(ty.block_values())) {
        Some(length) => bail!(
            "--kv-type {}: {} has heads of {length} values, which are not whole blocks of {}\nhint: --kv-type f16",
            ty.name().to_lowercase(),
            model.file.name(),
            ty.block_values()
        ),
        None => Ok(()),
    }
}

fn open(
    plugin: &Plugin,
    plugins: &[Plugin],
    model: &LoadedModel,
    settings: &Settings,
    request: &Request,
    meter: &Meter,
) -> anyhow::Result<Engine> {
    let index = request.device.as_ref().map(|d| d.index);
    let mut targets = vec![target(plugin, index)?];
    if request.fallback {
        targets.extend(best_cpu(plugins, &targets[0]));
    }
    let plan = plan_for(&model.file, &model.model, settings, &targets)?;
    let mut engine = Engine::open(model.file.clone(), &model.model, settings, plan, log::services(), meter)?;
    check_memory(&mut engine)?;
    Ok(engine)
}

/// What the plan says is what the devices count.
fn check_memory(engine: &mut Engine) -> anyhow::Result<()> {
    let counted = engine.counters().context("asking the devices what they allocated")?;
    for (device, (label, counters)) in engine.plan().devices.iter().zip(counted) {
        let allocated = counters
            .iter()
            .find(|c| c.name.as_str() == "allocated_bytes")
            .map(|c| c.value);
        if let Some(allocated) = allocated.filter(|&bytes| bytes != device.allocated()) {
            tracing::warn!(
                "{label} allocated {allocated} bytes, where the plan has {}",
                device.allocated()
            );
        }
    }
    Ok(())
}

fn target(plugin: &Plugin, index: Option<u32>) -> anyhow::Result<Target> {
    let info = match index {
        None => plugin.devices.first(),
        Some(index) => plugin.devices.iter().find(|d| d.id == index),
    };
    let (Some(info), Some(module)) = (info, plugin.module) else {
        bail!(
            "it has no device {}; it has {}",
            index.unwrap_or(0),
            plugin.devices.len()
        );
    };
    Ok(Target {
        backend: plugin.label(),
        module,
        info: info.clone(),
    })
}

/// The best device of kind cpu, for what the chosen one refuses.
fn best_cpu(plugins: &[Plugin], chosen: &Target) -> Option<Target> {
    plugins
        .iter()
        .filter(|p| p.obstacle().is_none() && p.label() != chosen.backend)
        .filter_map(|p| target(p, None).ok())
        .find(|t| t.kind() == DeviceKind::Cpu)
}

/// Says which operations run elsewhere, and why.
fn report_refusals(engine: &Engine) {
    let plan = engine.plan();
    for refusal in &plan.refusals {
        let elsewhere = &plan.targets[refusal.target];
        tracing::warn!(
            "{} operations {} run on {elsewhere}: {}",
            refusal.nodes,
            refusal.operation,
            refusal.reason
        );
    }
}
