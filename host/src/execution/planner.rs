//! Divides each device's memory and cuts the operations into programs: makes a [`Plan`].

use std::collections::{BTreeMap, BTreeSet};

use backend_api::{
    BackendError,
    graph::{self as api, ABSENT, Symbol, Tensor},
    types::Type,
};
use models::{gguf::Gguf, graph::Content};

use super::{
    arena::{self, Lifetime},
    device::Target,
    lower::{Lowered, tensors_of},
    plan::{Bound, DevicePlan, Extent, InputKey, Plan, PoolPlace, Region, Segment, Source, Spot, Transfer, Upload},
};

/// Divides the memory of `targets` for a lowered graph. `group_of` tells the cache group of a layer's pool.
pub fn plan(
    lowered: Lowered,
    targets: &[Target],
    file: &Gguf,
    group_of: impl Fn(usize) -> usize,
) -> Result<Plan, BackendError> {
    let planner = Planner::new(&lowered, targets, file)?;
    let labels = targets.iter().map(Target::label).collect();
    planner.finish(group_of, labels)
}

/// What a buffer holds.
#[derive(Clone, Copy, Default)]
struct Held {
    /// Its first tensor, which is all of it.
    whole: Option<Tensor>,
    /// Whether it holds blocks, and some view of it has other rows.
    cut: bool,
}

fn held(lowered: &Lowered) -> Vec<Held> {
    let mut held = vec![Held::default(); lowered.buffers.len()];
    for tensor in &lowered.tensors {
        let held = &mut held[tensor.buffer as usize];
        let whole = held.whole.get_or_insert(*tensor);
        held.cut |= whole.dims[0] != tensor.dims[0] && whole.kind().is_some_and(Type::is_quantized);
    }
    held
}

/// A run of nodes on one target.
struct Run {
    target: usize,
    nodes: std::ops::Range<usize>,
    /// Buffers that come from another target, and from which.
    incoming: Vec<(u32, usize)>,
}

struct Planner<'a> {
    lowered: &'a Lowered,
    /// What each buffer holds.
    held: Vec<Held>,
    file: &'a Gguf,
    runs: Vec<Run>,
    devices: Vec<DevicePlan>,
    /// Target → index into `devices`.
    index: BTreeMap<usize, usize>,
    inputs: BTreeMap<InputKey, (u64, u64)>,
    inputs_bytes: u64,
    logits: Option<(u32, usize)>,
}

impl<'a> Planner<'a> {
    fn new(lowered: &'a Lowered, targets: &[Target], file: &'a Gguf) -> Result<Self, BackendError> {
        let runs = runs(lowered);
        let used: BTreeSet<usize> = runs.iter().map(|r| r.target).collect();
        let index = used.iter().enumerate().map(|(i, &target)| (target, i)).collect();
        let (inputs, inputs_bytes) = input_places(lowered);
        let mut planner = Planner {
            lowered,
            held: held(lowered),
            file,
            runs,
            devices: Vec::new(),
            index,
            inputs,
            inputs_bytes,
            logits: None,
        };
        for target in used {
            let device = planner.device(target, &targets[target])?;
            planner.devices.push(device);
        }
        Ok(planner)
    }

    /// Buffers that a target touches, each with its first and last run.
    fn touched(&self, target: usize) -> BTreeMap<u32, (usize, usize)> {
        let mut touched: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        let mut touch = |buffer: u32, at: usize| {
            touched
                .entry(buffer)
                .and_modify(|life| life.1 = at.max(life.1))
                .or_insert((at, at));
        };
        for run in &self.runs {
            for &(buffer, from) in &run.incoming {
                if from == target || run.target == target {
                    touch(buffer, run.nodes.start);
                }
            }
            if run.target == target {
                for at in run.nodes.clone() {
                    tensors_of(&self.lowered.nodes[at].node)
                        .for_each(|t| touch(self.lowered.tensors[t as usize].buffer, at));
                }
            }
        }
        touched
    }

    fn device(&self, target_index: usize, target: &Target) -> Result<DevicePlan, BackendError> {
        let rules = target.memory()?;
        let mut device = DevicePlan {
            target: target.clone(),
            index: target_index,
            regions: BTreeMap::new(),
            files: BTreeSet::new(),
            mapped: 0,
            workspace: 0,
            uploads: Vec::new(),
            granularity: rules.granularity,
            spots: BTreeMap::new(),
        };
        let mut activations = Vec::new();
        for (buffer, (first, last)) in self.touched(target_index) {
            let life = Lifetime {
                bytes: self.lowered.buffers[buffer as usize].bytes,
                first,
                last,
            };
            match self.lowered.contents[buffer as usize] {
                Content::Activation => activations.push((buffer, life)),
                _ => self.place_fixed(&mut device, buffer, life.bytes, rules.alignment)?,
            }
        }
        let lives: Vec<Lifetime> = activations.iter().map(|(_, life)| *life).collect();
        let (offsets, total) = arena::assign(&lives, rules.alignment);
        for ((buffer, _), offset) in activations.iter().zip(offsets) {
            device.spots.insert(
                *buffer,
                Spot {
                    region: Region::Activations,
                    offset,
                },
            );
        }
        if total > 0 {
            device.regions.insert(Region::Activations, total);
        }
        Ok(device)
    }

    /// Places a buffer that lives as long as the plan.
    fn place_fixed(
        &self,
        device: &mut DevicePlan,
        buffer: u32,
        bytes: u64,
        alignment: u64,
    ) -> Result<(), BackendError> {
        let spot = match &self.lowered.contents[buffer as usize] {
            Content::Weight(tensor) if device.target.imports() => self.import(device, *tensor),
            Content::Weight(tensor) => self.upload(device, buffer, |whole| Source::Weight(*tensor, whole))?,
            Content::Rewritten(tensor) => self.upload(device, buffer, |whole| Source::Rewritten(*tensor, whole))?,
            Content::Widened(tensor) => {
                let spot = append(device, Region::Constants, bytes, alignment);
                device.uploads.push(Upload {
                    source: Source::Widened(*tensor),
                    spot,
                });
                spot
            }
            Content::Constant(_) => {
                let spot = append(device, Region::Constants, bytes, alignment);
                device.uploads.push(Upload {
                    source: Source::Constant(buffer as usize),
                    spot,
                });
                spot
            }
            Content::Pool { .. } => append(device, Region::Pools, bytes, alignment),
            Content::Logits => append(device, Region::Logits, bytes, alignment),
            Content::Input(input) => {
                device.regions.insert(Region::Inputs, self.inputs_bytes);
                Spot {
                    region: Region::Inputs,
                    offset: self.inputs[&InputKey::from(*input)].0,
                }
            }
            Content::Activation => Spot {
                region: Region::Activations,
                offset: 0,
            },
        };
        device.spots.insert(buffer, spot);
        Ok(())
    }

    fn import(&self, device: &mut DevicePlan, tensor: usize) -> Spot {
        let info = &self.file.tensors()[tensor];
        device.files.insert(info.file);
        device.mapped += info.bytes;
        Spot {
            region: Region::File(info.file),
            offset: info.offset,
        }
    }

    /// A place for a weight that the device gets a copy of. It is one tensor, once; its views have whole rows of it.
    fn upload(
        &self,
        device: &mut DevicePlan,
        buffer: u32,
        source: impl FnOnce(Tensor) -> Source,
    ) -> Result<Spot, BackendError> {
        let held = self.held[buffer as usize];
        let whole = held
            .whole
            .ok_or_else(|| BackendError::failed("a weight has no tensor"))?;
        if held.cut {
            return Err(BackendError::failed("a view cuts the rows of a weight"));
        }
        let layout = device.target.weight(&whole)?;
        let spot = append(device, Region::Weights, layout.bytes, layout.alignment);
        device.uploads.push(Upload {
            source: source(whole),
            spot,
        });
        Ok(spot)
    }

    fn finish(mut self, group_of: impl Fn(usize) -> usize, targets: Vec<String>) -> Result<Plan, BackendError> {
        let mut segments = Vec::new();
        for run in &self.runs {
            segments.push(self.segment(run)?);
        }
        for segment in &segments {
            let device = &mut self.devices[segment.device];
            for node in 0..segment.nodes.len() as u32 {
                device.workspace = device.workspace.max(device.target.workspace(&segment.graph(), node)?);
            }
        }
        self.logits = self.last_home_of_logits();
        let (buffer, device) = self
            .logits
            .ok_or_else(|| BackendError::failed("the graph has no logits"))?;
        let values = self.held[buffer as usize].whole.map_or(0, |t| t.dims[0]);
        let constant = |(i, content): (usize, &Content)| match content {
            Content::Constant(values) => Some((i, values.clone())),
            _ => None,
        };
        Ok(Plan {
            logits: (device, self.devices[device].spots[&buffer], values),
            pools: self.pools(group_of),
            segments,
            inputs: self.inputs,
            refusals: self.lowered.refusals.clone(),
            targets,
            constants: self.lowered.contents.iter().enumerate().filter_map(constant).collect(),
            tokens: self.lowered.tokens,
            rows: self.lowered.rows,
            devices: self.devices,
        })
    }

    fn last_home_of_logits(&self) -> Option<(u32, usize)> {
        let is_logits = |b: u32| matches!(self.lowered.contents[b as usize], Content::Logits);
        self.lowered.nodes.iter().rev().find_map(|placed| {
            let buffer = self.lowered.tensors[placed.node.output as usize].buffer;
            is_logits(buffer).then(|| (buffer, self.index[&placed.target]))
        })
    }

    fn pools(&self, group_of: impl Fn(usize) -> usize) -> Vec<PoolPlace> {
        let mut pools = Vec::new();
        for (buffer, content) in self.lowered.contents.iter().enumerate() {
            let Content::Pool { layer, .. } = content else { continue };
            for (device, plan) in self.devices.iter().enumerate() {
                let Some(&spot) = plan.spots.get(&(buffer as u32)) else {
                    continue;
                };
                let tensor = self.held[buffer].whole;
                let pages = tensor.map_or(1, |t| t.dims[3].max(1));
                let page_bytes = self.lowered.buffers[buffer].bytes / u64::from(pages);
                pools.push(PoolPlace {
                    group: group_of(*layer),
                    device,
                    spot,
                    page_bytes,
                });
            }
        }
        pools
    }

    /// A run of nodes with its tensors moved to where their buffers lie.
    fn segment(&self, run: &Run) -> Result<Segment, BackendError> {
        let index = self.index[&run.target];
        let device = &self.devices[index];
        let mut segment = Segment {
            device: index,
            transfers: run
                .incoming
                .iter()
                .map(|&(buffer, from)| self.transfer(buffer, from, run.target))
                .collect(),
            bound: Vec::new(),
            buffers: Vec::new(),
            tensors: Vec::new(),
            nodes: Vec::new(),
            sizes: (self.lowered.tokens, self.lowered.rows),
        };
        let mut moved: BTreeMap<u32, u32> = BTreeMap::new();
        let mut buffers: BTreeMap<Spot, u32> = BTreeMap::new();
        for at in run.nodes.clone() {
            let mut node = self.lowered.nodes[at].node;
            for slot in node
                .inputs
                .iter_mut()
                .chain([&mut node.output])
                .filter(|slot| **slot != ABSENT)
            {
                let old = *slot;
                *slot = *moved.entry(old).or_insert_with(|| {
                    let tensor = self.lowered.tensors[old as usize];
                    let bound = self.bound(device, tensor.buffer);
                    let buffer = *buffers.entry(bound.spot).or_insert_with(|| segment.bind(bound));
                    let within = device.spots[&tensor.buffer].offset - bound.spot.offset;
                    segment.tensors.push(Tensor {
                        buffer,
                        offset: within + tensor.offset,
                        ..tensor
                    });
                    segment.tensors.len() as u32 - 1
                });
            }
            segment.nodes.push(node);
        }
        Ok(segment)
    }

    /// What is bound for a buffer: its region; but a weight that is uploaded by itself, since views of it are places in the
    /// file, and how its rows lie in the region is the device's affair.
    fn bound(&self, device: &DevicePlan, buffer: u32) -> Bound {
        let spot = device.spots[&buffer];
        let start = Spot { offset: 0, ..spot };
        let (spot, bytes) = match spot.region {
            Region::Weights => (spot, self.lowered.buffers[buffer as usize].bytes),
            Region::File(i) => (start, self.file.files()[i].bytes().len() as u64),
            region => (start, device.regions[&region]),
        };
        Bound { spot, bytes }
    }

    fn transfer(&self, buffer: u32, from: usize, to: usize) -> Transfer {
        let place = |target: usize| (self.index[&target], self.devices[self.index[&target]].spots[&buffer]);
        Transfer {
            from: place(from),
            to: place(to),
            extent: extent(self.lowered, buffer),
        }
    }
}

impl Segment {
    /// Adds a buffer; its index.
    fn bind(&mut self, bound: Bound) -> u32 {
        self.bound.push(bound);
        self.buffers.push(api::Buffer {
            role: bound.spot.region.role() as u32,
            reserved: 0,
            bytes: bound.bytes,
        });
        self.buffers.len() as u32 - 1
    }
}

/// A place at the end of a region.
fn append(device: &mut DevicePlan, region: Region, bytes: u64, alignment: u64) -> Spot {
    let end = device.regions.entry(region).or_default();
    let offset = end.next_multiple_of(alignment);
    *end = offset + bytes;
    Spot { region, offset }
}

/// Step inputs side by side, each on a line of its own.
fn input_places(lowered: &Lowered) -> (BTreeMap<InputKey, (u64, u64)>, u64) {
    let mut places = BTreeMap::new();
    let mut end = 0u64;
    for (buffer, content) in lowered.contents.iter().enumerate() {
        if let Content::Input(input) = content {
            let bytes = lowered.buffers[buffer].bytes;
            places.insert(InputKey::from(*input), (end, bytes / 4));
            end = (end + bytes).next_multiple_of(64);
        }
    }
    (places, end)
}

/// How a buffer's contents grow with the step: by the tensor that spans it.
fn extent(lowered: &Lowered, buffer: u32) -> Extent {
    let bytes = lowered.buffers[buffer as usize].bytes;
    let mut symbols = lowered.tensors.iter().filter(|t| t.buffer == buffer).map(|t| {
        let columns = t.dims[usize::from(t.axis & 3)];
        (Symbol::from_id(t.symbol).unwrap_or(Symbol::None), columns)
    });
    let (symbol, columns) = symbols.next().unwrap_or((Symbol::None, 1));
    Extent {
        bytes,
        symbol,
        column: bytes / u64::from(columns.max(1)),
    }
}

/// Cuts the nodes where the target changes, and finds what each run needs from elsewhere: activations whose newest
/// contents lie on another target.
fn runs(lowered: &Lowered) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    // buffer → the targets that have its newest contents
    let mut newest: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
    for (at, placed) in lowered.nodes.iter().enumerate() {
        let target = placed.target;
        let missing: Vec<(u32, usize)> = tensors_of(&placed.node)
            .map(|t| lowered.tensors[t as usize].buffer)
            .filter_map(|buffer| {
                let homes = newest.get(&buffer)?;
                (!homes.contains(&target)).then(|| homes.first().map(|&home| (buffer, home)))?
            })
            .collect();
        if runs.last().is_none_or(|run| run.target != target) {
            runs.push(Run {
                target,
                nodes: at..at,
                incoming: Vec::new(),
            });
        }
        if let Some(run) = runs.last_mut() {
            for (buffer, home) in missing {
                if newest.entry(buffer).or_default().insert(target) {
                    run.incoming.push((buffer, home));
                }
            }
            run.nodes.end = at + 1;
        }
        let written = lowered.tensors[placed.node.output as usize].buffer;
        if matches!(
            lowered.contents[written as usize],
            Content::Activation | Content::Logits
        ) {
            newest.insert(written, BTreeSet::from([target]));
        }
    }
    runs
}
