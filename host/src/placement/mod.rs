//! Which parts of a model go to which device, so that everything fits, to the byte.
//!
//! The fewest devices that hold everything are taken, since each crossing between two costs time in every step; of what those
//! can hold, the largest batch up to the architecture's own. Each device has a contiguous run of layers, the output projection
//! goes to the last, and what no device has room for, from the first layer on, stays on the host. Tables that tokens are looked
//! up in stay on the host too, where they are used as they are mapped.
//!
//! [`costs`] has what parts take by themselves and [`partition`] divides layers by it; whether that fits is always asked of the
//! exact plan, made by [`crate::execution`], in `fit`. [`search`] goes through what is possible, and `refusal` says what is not.

pub mod costs;
mod explain;
mod fit;
pub mod ground;
pub mod list;
pub mod losses;
pub mod partition;
mod refusal;
pub mod search;
pub mod size;

use crate::execution::{
    Plan,
    device::Target,
    engine::{EngineError, Settings},
    layout::Layout,
    plan::Purposes,
};

pub use ground::ground;
pub use list::DeviceList;
pub use losses::Losses;
pub use search::place;

/// The context where neither the user nor the model asks for less, as Ollama has it.
pub const DEFAULT_CONTEXT: u32 = 4096;
/// The least tokens of a step that are chosen to save a device.
const LEAST_BATCH: u32 = 64;

/// What there is to place a model on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Devices in the order in which layers go through them.
    pub devices: Vec<Target>,
    /// The device of kind cpu that serves what they refuse, and has what they have no room for; none where nothing may run
    /// elsewhere, or where it is one of the devices.
    pub host: Option<Target>,
}

impl Ground {
    /// All targets: the devices, then the host.
    pub fn targets(&self) -> Vec<Target> {
        self.devices.iter().chain(&self.host).cloned().collect()
    }
}

/// Tokens of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextWish {
    /// So many.
    Tokens(u32),
    /// As many as there is room for, up to what the model was trained for.
    Max,
}

/// What the user asked for. What was asked for is done or refused, never changed.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// `--ctx-size`.
    pub context: Option<ContextWish>,
    /// `--batch-size`.
    pub batch: Option<u32>,
    /// `--gpu-layers`: layers on devices, the last ones; the output projection counts as one, and comes first.
    pub layers: Option<u32>,
    /// `--split`: how the layers are divided among the devices.
    pub split: Vec<u32>,
    /// `--cpu-experts`: of so many layers, the first ones, the experts stay on the host.
    pub experts: Option<u32>,
    /// `--reserve`: bytes of each device that are left free.
    pub reserve: u64,
    /// `--spread`: all devices are used.
    pub spread: bool,
}

/// A model in its place.
#[derive(Clone, Debug)]
pub struct Placement {
    /// What it is set up for.
    pub settings: Settings,
    /// The exact plan.
    pub plan: Plan,
    /// All devices and the host: what the indices in `layout` mean.
    pub targets: Vec<Target>,
    /// How many of them are devices; the host follows, if there is one.
    pub devices: usize,
    /// The index of the host, where parts of the model can be there.
    pub host: Option<usize>,
    /// What goes where.
    pub layout: Layout,
    /// What was considered and why it lost.
    pub alternatives: Vec<Alternative>,
}

impl Placement {
    /// Layers of the model, and one for its output projection.
    pub fn layers_total(&self) -> usize {
        self.layout.layers.len() + 1
    }

    /// How many of them a target has.
    pub fn layers_on(&self, target: usize) -> usize {
        let homes = self.layout.layers.iter().chain([&self.layout.output]);
        homes.filter(|home| **home == target).count()
    }

    /// Bytes that are asked of a target.
    pub fn planned_on(&self, target: usize) -> u64 {
        self.purposes_on(target).unwrap_or_default().total()
    }

    /// The same by what they are for; nothing where the target has no share.
    pub fn purposes_on(&self, target: usize) -> Option<Purposes> {
        let plan = self.plan.devices.iter().find(|device| device.index == target);
        plan.map(|device| device.purposes())
    }

    /// How many of them devices have, and not the host.
    pub fn layers_on_devices(&self) -> usize {
        self.layers_total() - self.host.map_or(0, |host| self.layers_on(host))
    }

    /// The layers of a target as people read them: `12-23, output`.
    pub fn layers_of(&self, target: usize) -> String {
        let mine = |layer: &usize| self.layout.layers[*layer] == target;
        let mine: Vec<usize> = (0..self.layout.layers.len()).filter(mine).collect();
        let run = match mine.as_slice() {
            [] => None,
            [one] => Some(one.to_string()),
            [first, .., last] => Some(format!("{first}-{last}")),
        };
        let output = (self.layout.output == target).then(|| "output".to_owned());
        let lookup = (self.layout.lookup == target).then(|| "look-up".to_owned());
        let parts: Vec<String> = lookup.into_iter().chain(run).chain(output).collect();
        parts.join(", ")
    }
}

/// What was considered, and why it lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// `1 device, batch 64`.
    pub what: String,
    /// `12.4 GiB are needed where 11.0 GiB are free`.
    pub why: String,
}

/// Why a model was not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// What was asked for cannot be.
    #[error("{what}\nhint: {hint}")]
    Refused {
        /// With the numbers that it would take.
        what: String,
        /// What can be.
        hint: String,
    },
    /// The plan could not be made.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Bytes that plans may use of a device: a card's free memory, without what its driver takes and what is to stay free; all
/// of the host's, whose free memory grows when it is needed.
pub fn room(target: &Target, reserve: u64) -> u64 {
    let has = if target.imports() {
        target.info.total
    } else {
        target.info.free
    };
    has.saturating_sub(target.context()).saturating_sub(reserve)
}
