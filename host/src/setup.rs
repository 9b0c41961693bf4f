//! From what the user asked for to a running engine: backends, devices, and what happens when one fails.

use std::path::PathBuf;

use anyhow::{Context, bail};
use backend_api::{error::Code, types::Type};

use crate::{
    execution::{
        Engine,
        engine::{EngineError, Settings},
    },
    log,
    model::LoadedModel,
    placement::{self, ContextWish, DeviceList, Ground, PlaceError, Placement, Wishes},
    plugins::{Plugin, Prober, Search, choose, discover, features, open_first},
    progress::Meter,
};

/// The most tokens of a step where the model does not choose.
pub const DEFAULT_BATCH: u32 = 512;
/// Tokens a page of the cache.
const PAGE_TOKENS: u32 = 64;
/// How often a new plan is made where a device has less memory than it said: each takes twice as much off as the one before,
/// so that they end with nothing asked of it.
const RETRIES: u32 = 8;
/// The part of what a device was asked for that it is asked less of after it refused the first time.
const FIRST_STEP: u64 = 64;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// A folder with plugins.
    pub plugins: Option<PathBuf>,
    /// The backend's name.
    pub backend: Option<String>,
    /// Whether anything else may run than what was chosen.
    pub fallback: bool,
    /// The instruction set to hold backends to.
    pub features: Option<String>,
    /// The devices.
    pub devices: DeviceList,
    /// Threads on the CPU; 0 lets the backend choose.
    pub threads: u32,
    /// How the model is placed.
    pub wishes: Wishes,
    /// Sequences that are served side by side.
    pub sequences: u32,
    /// Wanted columns of a step.
    pub rows: u32,
    /// Tokens of a step that are guesses; their columns are wanted, too.
    pub ahead: u32,
    /// The type of keys and values in the cache.
    pub cache_type: Type,
}

/// An engine and what it runs on.
pub struct Running {
    /// The engine.
    pub engine: Engine,
    /// The backend's name.
    pub backend: String,
    /// The devices' labels, the chosen ones first.
    pub devices: Vec<String>,
    /// Tokens of context.
    pub context: u32,
    /// How many layers the devices have, the output projection counted as one.
    pub layers: Layers,
}

/// Layers of a model, the output projection counted as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// All of them.
    pub total: usize,
    /// Those that devices have, and not the host.
    pub on_devices: usize,
    /// Those of each device of the plan.
    pub of_each: Vec<usize>,
}

/// A model that is to run, and all the backends there are. It can be started again on what is left of them.
pub struct Setup<'a> {
    model: &'a LoadedModel,
    request: &'a Request,
    plugins: Vec<Plugin>,
}

/// What an attempt gives that is not to be followed by another: an engine, or a wish that cannot be met.
type Outcome = Result<(Engine, Placement), PlaceError>;

/// Opens the first backend that can run the model. What falls back says so, with the reason. `meter` counts the bytes of
/// weights that are uploaded.
pub fn start(model: &LoadedModel, request: &Request, meter: &Meter) -> anyhow::Result<Running> {
    Setup::new(model, request)?.start(meter)
}

impl<'a> Setup<'a> {
    /// Finds the backends.
    pub fn new(model: &'a LoadedModel, request: &'a Request) -> anyhow::Result<Setup<'a>> {
        check_cache_type(model, request.cache_type)?;
        let plugins = discover(&Search::new(request.plugins.clone()), &Prober::new()?)?;
        Ok(Setup {
            model,
            request,
            plugins,
        })
    }

    /// Opens the first backend that can run the model.
    pub fn start(&self, meter: &Meter) -> anyhow::Result<Running> {
        let attempts = choose(&self.plugins, self.backend()?, self.request.fallback)?;
        if let Some(wanted) = &self.request.features {
            features::select(&attempts, wanted)?;
        }
        let (plugin, outcome) = open_first(&attempts, |plugin| self.open(plugin, meter))?;
        let (mut engine, placement) = outcome?;
        tell(&engine, &placement, self);
        check_memory(&mut engine)?;
        let of_each = engine.plan().devices.iter().map(|d| placement.layers_on(d.index));
        Ok(Running {
            backend: plugin.label(),
            devices: engine.plan().devices.iter().map(|d| d.target.label()).collect(),
            context: placement.settings.context,
            layers: Layers {
                total: placement.layers_total(),
                on_devices: placement.layers_on_devices(),
                of_each: of_each.collect(),
            },
            engine,
        })
    }

    /// Places the model without opening anything: on the backend that was named, or else the best, or the first there is.
    pub fn plan(&self) -> anyhow::Result<Placement> {
        let wanted = self.backend()?;
        let usable = |plugin: &&Plugin| plugin.module.is_some() && wanted.is_none_or(|name| plugin.label() == name);
        let Some(plugin) = self.plugins.iter().find(usable) else {
            choose(&self.plugins, wanted, false)?;
            bail!("no backend can be asked: `host backends` says why");
        };
        if let Some(wanted) = &self.request.features {
            let asked = |other: &&Plugin| self.request.fallback || other.label() == plugin.label();
            features::select(&self.plugins.iter().filter(asked).collect::<Vec<_>>(), wanted)?;
        }
        let ground = placement::ground(plugin, &self.plugins, &self.request.devices, self.request.fallback);
        let ground = ground.with_context(|| format!("backend {}", plugin.label()))?;
        Ok(self.place(&ground)?)
    }

    /// The backend that was named.
    fn backend(&self) -> anyhow::Result<Option<&str>> {
        let (by_name, by_device) = (self.request.backend.as_deref(), self.request.devices.backend.as_deref());
        if let (Some(device), Some(backend)) = (by_device, by_name)
            && device != backend
        {
            bail!("--backend {backend} and --devices {device}:… name two backends");
        }
        Ok(by_name.or(by_device))
    }

    fn place(&self, ground: &Ground) -> Result<Placement, PlaceError> {
        let (model, request) = (self.model, self.request);
        let [keys, values] = [request.cache_type; 2];
        let usual = Settings {
            context: 0,
            batch: 0,
            rows: request.rows.max(1 + request.ahead),
            ahead: request.ahead,
            sequences: request.sequences,
            page_tokens: PAGE_TOKENS,
            cache_types: [keys, values],
            threads: request.threads,
        };
        placement::place(&model.file, &model.model, ground, &request.wishes, &usual)
    }

    /// Opens a backend's devices. Where one has less memory than it said, another plan is made with what it has.
    fn open(&self, plugin: &Plugin, meter: &Meter) -> anyhow::Result<Outcome> {
        let mut ground = placement::ground(plugin, &self.plugins, &self.request.devices, self.request.fallback)?;
        for retry in 0..RETRIES {
            let placement = match self.place(&ground) {
                Ok(placement) => placement,
                Err(refused @ PlaceError::Refused { .. }) => return Ok(Err(refused)),
                Err(error) => return Err(error.into()),
            };
            let (settings, plan) = (&placement.settings, placement.plan.clone());
            let model = self.model;
            match Engine::open(model.file.clone(), &model.model, settings, plan, log::services(), meter) {
                Ok(engine) => return Ok(Ok((engine, placement))),
                Err(error) if shrink(&mut ground, &placement, &error, retry) => {
                    tracing::warn!("{error}; planning again with less of it");
                }
                Err(error) => return Err(error.into()),
            }
        }
        bail!("its devices have less memory than they say");
    }
}

/// Takes memory from a device that ran out of it, so that less is asked of it. False for other failures.
fn shrink(ground: &mut Ground, placement: &Placement, error: &EngineError, retry: u32) -> bool {
    let EngineError::Device { device, error } = error else {
        return false;
    };
    let failed = placement.plan.devices.iter().find(|of| of.target.label() == *device);
    let Some(of) = failed.filter(|_| error.code() == Code::OutOfMemory) else {
        return false;
    };
    let Some(target) = ground.devices.get_mut(of.index).filter(|target| !target.imports()) else {
        return false;
    };
    let step = (of.allocated() / FIRST_STEP).max(1) << retry;
    target.info.free = of.allocated().saturating_sub(step) + target.context();
    true
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

/// What the plan says is what the devices count.
fn check_memory(engine: &mut Engine) -> anyhow::Result<()> {
    let counted = engine.counters().context("asking the devices what they allocated")?;
    for (planned, (label, counters)) in engine.planned().into_iter().zip(counted) {
        let allocated = counters
            .iter()
            .find(|c| c.name.as_str() == "allocated_bytes")
            .map(|c| c.value);
        if let Some(allocated) = allocated.filter(|&bytes| bytes != planned) {
            tracing::warn!("{label} allocated {allocated} bytes, where the plan has {planned}");
        }
    }
    Ok(())
}

/// Says what the user should know of the place that was found.
fn tell(engine: &Engine, placement: &Placement, setup: &Setup<'_>) {
    let (model, wishes) = (&setup.model.model, &setup.request.wishes);
    let trained = model.context();
    if placement.settings.context > trained && matches!(wishes.context, Some(ContextWish::Tokens(_))) {
        tracing::warn!("the model was trained for {trained} tokens of context; beyond that its answers get worse");
    }
    let (total, on_devices) = (placement.layers_total(), placement.layers_on_devices());
    if on_devices < total && wishes.layers.is_none() {
        tracing::warn!(
            "{on_devices} of {total} layers are on devices, which have no room for more; the host has the others\nhint: `host plan` shows what they take"
        );
    }
    if let (Some((layers, host)), None) = (placement.layout.experts, wishes.experts) {
        let host = placement.targets[host].label();
        tracing::warn!("the experts of {layers} layers are on {host}: devices have no room for them");
    }
    for alternative in &placement.alternatives {
        tracing::debug!("placement: not {}: {}", alternative.what, alternative.why);
    }
    for device in &placement.plan.devices {
        tracing::debug!(
            "placement: {} has {} and {:?}",
            device.target.label(),
            placement.layers_of(device.index),
            device.purposes()
        );
    }
    report_refusals(engine);
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

#[cfg(test)]
mod tests;
