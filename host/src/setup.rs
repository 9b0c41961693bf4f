//! From what the user asked for to a running engine: backends, devices, and what happens when one fails.

use std::path::PathBuf;

use anyhow::{Context, bail};
use backend_api::{error::Code, types::Type};

use crate::{
    execution::{
        Engine,
        device::Target,
        engine::{EngineError, Settings},
    },
    log,
    model::LoadedModel,
    placement::{self, ContextWish, DeviceList, Ground, Losses, PlaceError, Placement, Wishes, ground::GroundError},
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

/// What is left to start with.
#[derive(Clone, Debug, Default)]
struct Left {
    /// The devices that failed.
    losses: Losses,
    /// The context of what ran until one failed; none before anything ran.
    context: Option<u32>,
}

/// What an attempt gives that is not to be followed by another: an engine, or a wish that cannot be met.
type Outcome = Result<(Engine, Placement), PlaceError>;

/// What an attempt on some devices gives.
type Attempt = Result<(Engine, Placement), AttemptError>;

/// Why an attempt on some devices failed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    /// They failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A wish that cannot be met, which no other backend is asked for.
    #[error(transparent)]
    Refused(PlaceError),
    /// There is no place for the model.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

impl AttemptError {
    /// Of a placement before anything ran.
    fn first(error: PlaceError) -> AttemptError {
        match error {
            PlaceError::Refused { .. } => AttemptError::Refused(error),
            PlaceError::Engine(_) => AttemptError::Place(error),
        }
    }
}

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
        self.start_with(&mut Left::default(), meter)
    }

    /// Opens the first backend that can run the model on what is left of its devices.
    fn start_with(&self, left: &mut Left, meter: &Meter) -> anyhow::Result<Running> {
        let attempts = choose(&self.plugins, self.backend()?, self.request.fallback)?;
        if let Some(wanted) = &self.request.features {
            features::select(&attempts, wanted)?;
        }
        let (plugin, outcome) = open_first(&attempts, |plugin| {
            let list = self.list_for(plugin, attempts[0], &left.losses);
            self.open(plugin, &list, left, meter)
        })?;
        let (mut engine, placement) = outcome?;
        tell(&engine, &placement, self);
        check_memory(&mut engine);
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
        let ground = self.ground(plugin, &self.request.devices, &Losses::default());
        let ground = ground.with_context(|| format!("backend {}", plugin.label()))?;
        Ok(self.place(&ground, &self.request.wishes)?)
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

    /// The devices to take of a backend. What is named of one means nothing to another, and after a loss nor do numbers.
    fn list_for(&self, plugin: &Plugin, first: &Plugin, losses: &Losses) -> DeviceList {
        let list = &self.request.devices;
        let is_first = plugin.label() == first.label();
        let applies = match &list.backend {
            Some(backend) => plugin.label() == *backend,
            None => is_first || losses.is_empty(),
        };
        if applies { list.clone() } else { DeviceList::default() }
    }

    fn ground(&self, plugin: &Plugin, list: &DeviceList, losses: &Losses) -> Result<Ground, GroundError> {
        placement::ground(plugin, &self.plugins, list, losses, self.request.fallback)
    }

    fn place(&self, ground: &Ground, wishes: &Wishes) -> Result<Placement, PlaceError> {
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
        placement::place(&model.file, &model.model, ground, wishes, &usual)
    }

    /// Opens a backend's devices. Where one of several fails, the others are planned for.
    fn open(&self, plugin: &Plugin, list: &DeviceList, left: &mut Left, meter: &Meter) -> anyhow::Result<Outcome> {
        loop {
            let ground = self.ground(plugin, list, &left.losses)?;
            let targets = ground.targets();
            let error = match self.open_on(ground, left.context, meter) {
                Err(AttemptError::Engine(error)) => error,
                Err(AttemptError::Place(error)) => return Err(error.into()),
                Err(AttemptError::Refused(refused)) => return Ok(Err(refused)),
                Ok(opened) => return Ok(Ok(opened)),
            };
            let failed = failed_of(&error, targets.iter()).filter(|_| self.request.fallback);
            let Some(failed) = failed else { return Err(error.into()) };
            left.losses.add(failed);
            if self.ground(plugin, list, &left.losses).is_err() {
                return Err(error.into());
            }
            tracing::warn!("{error}; planning again without it");
        }
    }

    /// Opens devices. Where one has less memory than it said, another plan is made with what it has.
    fn open_on(&self, mut ground: Ground, context: Option<u32>, meter: &Meter) -> Attempt {
        let mut retry = 0;
        loop {
            let placement = match context {
                Some(context) => self.place_again(&ground, context)?,
                None => self.place(&ground, &self.request.wishes).map_err(AttemptError::first)?,
            };
            let (settings, plan) = (&placement.settings, placement.plan.clone());
            let model = self.model;
            match Engine::open(model.file.clone(), &model.model, settings, plan, log::services(), meter) {
                Ok(engine) => return Ok((engine, placement)),
                Err(error) if !self.request.fallback || retry == RETRIES => return Err(error.into()),
                Err(error) if shrink(&mut ground, &placement, &error, retry) => {
                    tracing::warn!("{error}; planning again with less of it");
                    retry += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The device that an error is of.
fn failed_of<'t>(error: &EngineError, mut targets: impl Iterator<Item = &'t Target>) -> Option<&'t Target> {
    let EngineError::Device { device, .. } = error else {
        return None;
    };
    targets.find(|target| target.label() == *device)
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

/// What the plan says is what the devices count. One that cannot say will fail when it is needed, if it has failed.
fn check_memory(engine: &mut Engine) {
    let counted = match engine.counters() {
        Ok(counted) => counted,
        Err(error) => return tracing::warn!("asking the devices what they allocated: {error}"),
    };
    for (planned, (label, counters)) in engine.planned().into_iter().zip(counted) {
        let allocated = counters
            .iter()
            .find(|c| c.name.as_str() == "allocated_bytes")
            .map(|c| c.value);
        if let Some(allocated) = allocated.filter(|&bytes| bytes != planned) {
            tracing::warn!("{label} allocated {allocated} bytes, where the plan has {planned}");
        }
    }
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

mod again;

#[cfg(test)]
mod tests;

pub use again::Starter;
