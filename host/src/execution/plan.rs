//! The memory of each device, byte for byte, and the programs.
//!
//! A device's memory is a few regions, each one allocation: weights (or the imported files), constants, pools, step
//! inputs, activations, logits, and scratch. What the plan says is what [`super::engine`] allocates.

use std::collections::{BTreeMap, BTreeSet};

use backend_api::graph::{self as api, Graph, Node, Role, Symbol, Tensor};
use models::graph::Input;

use super::{device::Target, lower::Refusal};

/// A part of a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Region {
    /// A file of the model, used where it is mapped.
    File(usize),
    /// Weights that are uploaded: all of a device that does not import, else those that the file has in another order.
    Weights,
    /// What the model computed, and widened vectors.
    Constants,
    /// Keys and values.
    Pools,
    /// Step inputs.
    Inputs,
    /// Activations, those whose lives do not meet in the same place.
    Activations,
    /// The logits.
    Logits,
}

impl Region {
    pub(super) fn role(self) -> Role {
        match self {
            Region::File(_) | Region::Weights => Role::Weight,
            Region::Constants => Role::Constant,
            Region::Pools => Role::Pool,
            Region::Inputs => Role::Input,
            Region::Activations => Role::Activation,
            Region::Logits => Role::Output,
        }
    }

    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Region::File(_) => "mapped",
            Region::Weights => "weights",
            Region::Constants => "constants",
            Region::Pools => "cache",
            Region::Inputs => "inputs",
            Region::Activations => "activations",
            Region::Logits => "logits",
        }
    }
}

/// A place in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The region.
    pub region: Region,
    /// Bytes from its start.
    pub offset: u64,
}

/// What a buffer of a program is bound to: a region, or one of the weights that are uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Where it begins.
    pub spot: Spot,
    /// Bytes of it; of a weight those in the file, whatever the device makes of them.
    pub bytes: u64,
}

/// Bytes that move with the size of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes at the largest step.
    pub bytes: u64,
    /// What the last dimension is.
    pub symbol: Symbol,
    /// Bytes of one column.
    pub column: u64,
}

impl Extent {
    /// Bytes in a step.
    pub fn in_step(&self, step: &api::Step) -> u64 {
        match self.symbol {
            Symbol::None => self.bytes,
            Symbol::Tokens => self.column * u64::from(step.tokens),
            Symbol::Rows => self.column * u64::from(step.rows),
        }
    }
}

/// What must be carried from one device to another before a segment runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Index into [`Plan::devices`], and the place there.
    pub from: (usize, Spot),
    /// Where it is needed.
    pub to: (usize, Spot),
    /// How much.
    pub extent: Extent,
}

/// Consecutive operations on one device: one program.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Index into [`Plan::devices`].
    pub device: usize,
    /// What must be there before it runs.
    pub transfers: Vec<Transfer>,
    /// For each of `buffers` what is bound.
    pub bound: Vec<Bound>,
    pub(super) buffers: Vec<api::Buffer>,
    pub(super) tensors: Vec<Tensor>,
    pub(super) nodes: Vec<Node>,
    pub(super) sizes: (u32, u32),
}

impl Segment {
    /// The segment as the contract has it.
    pub fn graph(&self) -> Graph<'_> {
        Graph::new(&self.tensors, &self.nodes, &self.buffers, self.sizes.0, self.sizes.1)
    }
}

/// A weight that is uploaded.
#[derive(Clone, Copy, Debug)]
pub struct Upload {
    /// What is written.
    pub source: Source,
    /// Where to.
    pub spot: Spot,
}

/// Where fixed contents come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Tensor of the file, as it lies there; its description.
    Weight(usize, Tensor),
    /// Tensor of the file in the usual order of its type; its description.
    Rewritten(usize, Tensor),
    /// Tensor of the file, widened to F32.
    Widened(usize),
    /// A buffer of the lowered graph that the model computed.
    Constant(usize),
}

/// A device's share.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// The device.
    pub target: Target,
    /// Its index among the targets that were given.
    pub index: usize,
    /// Bytes of each region that is allocated, as asked of the device; imported files are not among them.
    pub regions: BTreeMap<Region, u64>,
    /// The files that are imported.
    pub files: BTreeSet<usize>,
    /// Bytes of weights that are used in them.
    pub mapped: u64,
    /// Bytes of scratch memory that its programs share.
    pub workspace: u64,
    /// Fixed contents that are written once.
    pub uploads: Vec<Upload>,
    pub(super) granularity: u64,
    pub(super) spots: BTreeMap<u32, Spot>,
}

/// What a device's memory is for, in bytes as they are allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Purposes {
    /// Weights that are uploaded, and what the model computed.
    pub weights: u64,
    /// Keys and values.
    pub cache: u64,
    /// Activations, step inputs and logits.
    pub compute: u64,
    /// Scratch memory of programs.
    pub workspace: u64,
}

impl Purposes {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.weights + self.cache + self.compute + self.workspace
    }
}

impl DevicePlan {
    /// Bytes that the device is asked for, each allocation rounded as the device rounds it.
    pub fn allocated(&self) -> u64 {
        self.purposes().total()
    }

    /// The same by what they are for.
    pub fn purposes(&self) -> Purposes {
        let of = |those: &[Region]| {
            let regions = those.iter().filter_map(|region| self.regions.get(region));
            regions.map(|&bytes| self.rounded(bytes)).sum()
        };
        Purposes {
            weights: of(&[Region::Weights, Region::Constants]),
            cache: of(&[Region::Pools]),
            compute: of(&[Region::Activations, Region::Inputs, Region::Logits]),
            workspace: self.rounded(self.workspace),
        }
    }

    /// What the device is asked for where `bytes` are needed: what it takes, so that it counts what the plan says.
    pub fn rounded(&self, bytes: u64) -> u64 {
        bytes.next_multiple_of(self.granularity)
    }
}

/// A pool's place, for copies of pages.
#[derive(Clone, Copy, Debug)]
pub struct PoolPlace {
    /// The cache group.
    pub group: usize,
    /// Index into [`Plan::devices`].
    pub device: usize,
    /// Its first page.
    pub spot: Spot,
    /// Bytes of a page.
    pub page_bytes: u64,
}

/// Where everything lies and what runs where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The devices that have a share.
    pub devices: Vec<DevicePlan>,
    /// The programs in order.
    pub segments: Vec<Segment>,
    /// Where each step input lies in the region of inputs, the same on every device, and its values.
    pub inputs: BTreeMap<InputKey, (u64, u64)>,
    /// The logits: index into `devices`, place, values a row.
    pub logits: (usize, Spot, u32),
    /// All pools.
    pub pools: Vec<PoolPlace>,
    /// Operations that a device refused.
    pub refusals: Vec<Refusal>,
    /// The labels of all targets that were given, those without a share too.
    pub targets: Vec<String>,
    /// Contents of the constants by buffer.
    pub constants: BTreeMap<usize, Vec<f32>>,
    /// The most tokens of a step.
    pub tokens: u32,
    /// The most wanted columns of a step.
    pub rows: u32,
}

impl Plan {
    /// Bytes of host memory through which devices that do not reach each other hand over what they leave.
    pub fn staging(&self) -> u64 {
        let target = |device: usize| &self.devices[device].target;
        let over_host = |transfer: &&Transfer| !target(transfer.from.0).reaches(target(transfer.to.0));
        let transfers = self.segments.iter().flat_map(|segment| &segment.transfers);
        transfers
            .filter(over_host)
            .map(|transfer| transfer.extent.bytes)
            .max()
            .unwrap_or(0)
    }
}

/// A step input in sorted order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InputKey(u8, usize);

impl From<Input> for InputKey {
    fn from(input: Input) -> Self {
        match input {
            Input::Tokens => InputKey(0, 0),
            Input::Positions => InputKey(1, 0),
            Input::Starts => InputKey(2, 0),
            Input::Wanted => InputKey(3, 0),
            Input::WantedPositions => InputKey(4, 0),
            Input::WantedStarts => InputKey(5, 0),
            Input::Slots(group) => InputKey(6, group),
            Input::Table(group) => InputKey(7, group),
        }
    }
}
