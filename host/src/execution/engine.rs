//! A model that runs: the plan's memory allocated, its programs compiled, and steps evaluated.

use std::sync::Arc;

use backend_api::{
    BackendError,
    contract::{Binding, Counter, HostServices, OpenOptions, ProgramId},
    graph::Step as StepSizes,
    types::Type,
};
use models::{
    architecture::Model,
    gguf::Gguf,
    graph::{Input, Shape},
};
use zerocopy::IntoBytes;

use super::{
    device::Target,
    inputs::Inputs,
    layout::{self, Layout},
    lower::{NotServed, lower},
    plan::{self, Plan, Region, Transfer},
    planner,
    share::{self, Share},
};
use crate::{
    cache::{Cache, CacheConfig, CacheError, Step},
    progress::Meter,
};

/// What a model is set up for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most tokens of a sequence.
    pub context: u32,
    /// T: the most tokens of a step.
    pub batch: u32,
    /// R: the most wanted columns of a step.
    pub rows: u32,
    /// The most tokens of a sequence in a step that are guesses, which may be taken back.
    pub ahead: u32,
    /// S: the most sequences.
    pub sequences: u32,
    /// Tokens a page of the cache.
    pub page_tokens: u32,
    /// The types of keys and of values in the cache.
    pub cache_types: [Type; 2],
    /// Threads of a device of kind cpu; 0 lets it choose.
    pub threads: u32,
}

/// Why a model could not be set up or a step not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An operation that no device serves.
    #[error(transparent)]
    NotServed(#[from] NotServed),
    /// A device failed.
    #[error("{device}: {error}")]
    Device {
        /// The device.
        device: String,
        /// What it said.
        error: BackendError,
    },
    /// The plan could not be made.
    #[error("planning failed: {0}")]
    Plan(BackendError),
    /// The cache refused.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A token that the vocabulary does not have.
    #[error("token {token} is not in the vocabulary of {vocabulary}")]
    Token {
        /// The token.
        token: u32,
        /// V.
        vocabulary: u32,
    },
    /// More columns than the engine was set up for.
    #[error("a step of {found} {what}, where at most {most} are served")]
    StepSize {
        /// Tokens or wanted columns.
        what: &'static str,
        /// How many were asked for.
        found: usize,
        /// How many are served.
        most: u32,
    },
    /// Its devices were given back.
    #[error("no device is left to go on with")]
    Closed,
    /// Columns and tokens that do not fit each other.
    #[error("a malformed step: {0}")]
    Malformed(&'static str),
}

impl EngineError {
    pub(super) fn device(target: &Target, error: BackendError) -> EngineError {
        EngineError::Device {
            device: target.label(),
            error,
        }
    }
}

impl Settings {
    /// The model as operations for these settings.
    pub fn graph(&self, model: &Model) -> models::graph::Graph {
        model.graph(&self.shape(&self.cache(model)))
    }

    /// An error where the cache could not be as large.
    pub fn check(&self, model: &Model) -> Result<(), CacheError> {
        self.cache(model).check()
    }

    /// The shape of the graph that serves a model with these cache windows.
    fn shape(&self, cache: &CacheConfig) -> Shape {
        Shape {
            tokens: self.batch,
            rows: self.rows,
            sequences: self.sequences,
            context: self.context,
            page_tokens: self.page_tokens,
            pages: cache.groups.iter().map(|g| g.pages).collect(),
            cache_types: self.cache_types,
        }
    }

    fn cache(&self, model: &Model) -> CacheConfig {
        let windows = &model.cache().windows;
        CacheConfig::full(
            self.page_tokens,
            self.sequences as usize,
            self.context,
            self.batch,
            windows,
        )
        .with_ahead(self.ahead)
    }
}

/// Plans a model on the first of these devices; the others take what it refuses. None of them needs to be here.
pub fn plan_for(file: &Gguf, model: &Model, settings: &Settings, targets: &[Target]) -> Result<Plan, EngineError> {
    plan_on(file, model, settings, targets, &Layout::whole(model.layers()))
}

/// Plans a model on the devices that `layout` names, which need not be here.
pub fn plan_on(
    file: &Gguf,
    model: &Model,
    settings: &Settings,
    targets: &[Target],
    layout: &Layout,
) -> Result<Plan, EngineError> {
    let mut graph = settings.graph(model);
    let parts = layout::parts(&mut graph);
    let homes: Vec<usize> = parts.into_iter().map(|part| layout.home(part)).collect();
    let lowered = lower(graph, targets, &homes)?;
    let group_of = |layer: usize| model.cache().layers[layer].map_or(0, |kept| kept.group);
    planner::plan(lowered, targets, file, group_of).map_err(EngineError::Plan)
}

struct Program {
    share: usize,
    id: ProgramId,
    bindings: Vec<Binding>,
    transfers: Vec<Transfer>,
}

/// A model on its devices.
pub struct Engine {
    programs: Vec<Program>,
    shares: Vec<Share>,
    plan: Plan,
    cache: Cache,
    step: Step,
    inputs: Inputs,
    logits: Vec<f32>,
    staging: Vec<u8>,
    /// The sequences of steps that devices may not have finished.
    unfinished: Vec<usize>,
    vocabulary: u32,
    // last: imported memory outlives the devices
    _file: Arc<Gguf>,
}

impl Engine {
    /// Opens the devices of a plan for `model`, allocates what it says, uploads weights and compiles its programs. `meter`
    /// counts the bytes that are uploaded.
    pub fn open(
        file: Arc<Gguf>,
        model: &Model,
        settings: &Settings,
        plan: Plan,
        services: HostServices,
        meter: &Meter,
    ) -> Result<Engine, EngineError> {
        let options = OpenOptions {
            threads: settings.threads,
            ..OpenOptions::default()
        };
        let shares = share::open(&plan, &file, services, &options, meter)?;
        let mut programs = Vec::new();
        for segment in &plan.segments {
            programs.push(compile(segment, &shares)?);
        }
        let cache = Cache::new(settings.cache(model))?;
        let mut engine = Engine {
            programs,
            shares,
            cache,
            step: Step::default(),
            inputs: Inputs::new(plan.inputs.clone()),
            logits: Vec::with_capacity(plan.logits.2 as usize * plan.rows as usize),
            staging: Vec::with_capacity(plan.staging() as usize),
            unfinished: Vec::new(),
            vocabulary: model.vocabulary(),
            plan,
            _file: file,
        };
        engine.send_tables()?;
        Ok(engine)
    }

    /// Gives back all devices and their memory; it evaluates nothing any more.
    pub fn close(&mut self) {
        self.programs.clear();
        self.shares.clear();
    }

    /// The plan that it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// V: how many tokens the logits tell apart.
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary
    }

    /// The cache's tables.
    pub fn cache(&mut self) -> &mut Cache {
        &mut self.cache
    }

    /// What each real device counted, by the label of the first that is part of it.
    pub fn counters(&self) -> Result<Vec<(String, Vec<Counter>)>, EngineError> {
        let count = |i: usize| {
            let share = &self.shares[i];
            Ok((share.device.target().label(), share.at(share.device.counters())?))
        };
        self.real().map(|(i, _)| count(i)).collect()
    }

    /// Bytes that were allocated of each device of the plan, and the most that ever were.
    pub fn allocated(&self) -> Vec<(u64, u64)> {
        self.shares.iter().map(|share| share.device.allocated()).collect()
    }

    /// Bytes that the plan has for each real device that [`Engine::counters`] names.
    pub fn planned(&self) -> Vec<u64> {
        let planned = |parts: Vec<usize>| parts.iter().map(|&i| self.plan.devices[i].allocated()).sum();
        self.real().map(|(_, parts)| planned(parts)).collect()
    }

    /// For each real device the first share of it, and all.
    fn real(&self) -> impl Iterator<Item = (usize, Vec<usize>)> + '_ {
        let shares = |i: usize| {
            let same = |j: &usize| self.shares[*j].device.shares_with(&self.shares[i].device);
            (0..self.shares.len()).filter(same).collect::<Vec<_>>()
        };
        (0..self.shares.len())
            .map(move |i| (i, shares(i)))
            .filter(|(i, shares)| shares.first() == Some(i))
    }

    /// Evaluates new tokens of each `(sequence, count)`, sequences ascending, `tokens` all of theirs in order. `wanted`
    /// are the columns, ascending, whose logits [`Engine::logits`] then gives. Without any, devices may still be at work when
    /// this returns, and the first takes the next step while the others finish this one.
    pub fn evaluate(&mut self, columns: &[(usize, u32)], tokens: &[u32], wanted: &[u32]) -> Result<(), EngineError> {
        self.evaluate_ahead(columns, 0, tokens, wanted)
    }

    /// As [`Engine::evaluate`], where the last `ahead` tokens of each sequence are guesses: [`Cache::truncate`] takes those
    /// back that were wrong.
    pub fn evaluate_ahead(
        &mut self,
        columns: &[(usize, u32)],
        ahead: u32,
        tokens: &[u32],
        wanted: &[u32],
    ) -> Result<(), EngineError> {
        self.check(columns, tokens, wanted)?;
        self.cache.begin_ahead(columns, ahead, &mut self.step)?;
        self.unfinished.extend(columns.iter().map(|(sequence, _)| *sequence));
        let ran = self.run_step(tokens, wanted);
        if ran.is_err() {
            // nothing of these steps can be trusted: the sequences start over
            for sequence in self.unfinished.drain(..) {
                self.cache.release(sequence)?;
            }
            self.send_tables().ok();
        }
        ran
    }

    /// The logits `[V]` of wanted column `row` of the last step, none where it had no such column. Who reads them may change
    /// them.
    pub fn logits(&mut self, row: usize) -> &mut [f32] {
        let values = self.vocabulary as usize;
        self.logits
            .get_mut(row * values..(row + 1) * values)
            .unwrap_or_default()
    }

    fn check(&self, columns: &[(usize, u32)], tokens: &[u32], wanted: &[u32]) -> Result<(), EngineError> {
        if self.shares.is_empty() {
            return Err(EngineError::Closed);
        }
        let sizes = [
            ("tokens", tokens.len(), self.plan.tokens),
            ("wanted columns", wanted.len(), self.plan.rows),
        ];
        for (what, found, most) in sizes {
            if found > most as usize {
                return Err(EngineError::StepSize { what, found, most });
            }
        }
        if columns.iter().map(|(_, count)| *count as usize).sum::<usize>() != tokens.len() {
            return Err(EngineError::Malformed(
                "the counts of its sequences are not the number of its tokens",
            ));
        }
        if !wanted.is_sorted_by(|a, b| a < b) || wanted.last().is_some_and(|&last| last as usize >= tokens.len()) {
            return Err(EngineError::Malformed(
                "wanted columns must ascend and lie within its tokens",
            ));
        }
        match tokens.iter().find(|&&token| token >= self.vocabulary) {
            Some(&token) => Err(EngineError::Token {
                token,
                vocabulary: self.vocabulary,
            }),
            None => Ok(()),
        }
    }

    fn run_step(&mut self, tokens: &[u32], wanted: &[u32]) -> Result<(), EngineError> {
        self.let_the_first_finish()?;
        self.copy_pages()?;
        self.send_inputs(tokens, wanted)?;
        let context = self.step.positions.iter().max().map_or(0, |p| p + 1);
        let sizes = StepSizes {
            tokens: tokens.len() as u32,
            rows: wanted.len() as u32,
            context: context as u32,
            reserved: 0,
        };
        for i in 0..self.programs.len() {
            self.carry(i, &sizes)?;
            let program = &self.programs[i];
            let share = &self.shares[program.share];
            share.at(share.device.run(program.id, &program.bindings, share.workspace, sizes))?;
        }
        if !wanted.is_empty() || self.shares.len() == 1 {
            self.fetch_logits(wanted.len())?;
        }
        Ok(())
    }

    /// Steps do not run ahead of the device that begins them: at most one waits for it.
    fn let_the_first_finish(&self) -> Result<(), EngineError> {
        match self.programs.first() {
            Some(first) if !self.unfinished.is_empty() => {
                let share = &self.shares[first.share];
                share.at(share.device.synchronize())
            }
            _ => Ok(()),
        }
    }

    /// Takes the logits, when the last device is done, and with it all others.
    fn fetch_logits(&mut self, rows: usize) -> Result<(), EngineError> {
        let (index, spot, values) = self.plan.logits;
        self.logits.resize(values as usize * rows, 0.0);
        let share = &self.shares[index];
        let (buffer, offset) = share.place(spot);
        share.at(share.device.read(buffer, offset, self.logits.as_mut_bytes()))?;
        self.unfinished.clear();
        Ok(())
    }

    /// Carries what a program needs from other devices.
    fn carry(&mut self, program: usize, sizes: &StepSizes) -> Result<(), EngineError> {
        for i in 0..self.programs[program].transfers.len() {
            let Transfer { from, to, extent } = self.programs[program].transfers[i];
            let (source, target) = (&self.shares[from.0], &self.shares[to.0]);
            let (from, to, bytes) = (source.place(from.1), target.place(to.1), extent.in_step(sizes));
            if source.device.reaches(&target.device) {
                // what the target still reads there must not be written over
                target.holds(source)?;
                source.at(source.device.copy(from, &target.device, to, bytes))?;
                source.holds(target)?;
            } else {
                self.staging.resize(bytes as usize, 0);
                source.at(source.device.read(from.0, from.1, &mut self.staging))?;
                target.at(target.device.write(to.0, to.1, &self.staging))?;
            }
        }
        Ok(())
    }

    /// Copies pages that were shared and are now written.
    fn copy_pages(&mut self) -> Result<(), EngineError> {
        for copy in &self.step.copies {
            for pool in self.plan.pools.iter().filter(|p| p.group == copy.group) {
                let share = &self.shares[pool.device];
                let (buffer, start) = share.place(pool.spot);
                let at = |page: u32| (buffer, start + u64::from(page) * pool.page_bytes);
                share.at(share
                    .device
                    .copy(at(copy.from), &share.device, at(copy.to), pool.page_bytes))?;
            }
        }
        Ok(())
    }

    fn send_inputs(&mut self, tokens: &[u32], wanted: &[u32]) -> Result<(), EngineError> {
        let Engine {
            step, inputs, shares, ..
        } = self;
        let mut send =
            |input, values: &mut dyn ExactSizeIterator<Item = i32>| write_input(shares, inputs.set(input, values));
        send(Input::Tokens, &mut tokens.iter().map(|&t| t as i32))?;
        send(Input::Positions, &mut step.positions.iter().copied())?;
        send(Input::Starts, &mut step.starts.iter().copied())?;
        send(Input::Wanted, &mut wanted.iter().map(|&w| w as i32))?;
        send(
            Input::WantedPositions,
            &mut wanted.iter().map(|&w| step.positions[w as usize]),
        )?;
        let before = |column: &i32| wanted.partition_point(|w| (*w as i32) < *column) as i32;
        send(Input::WantedStarts, &mut step.starts.iter().map(before))?;
        for (group, slots) in step.slots.iter().enumerate() {
            send(Input::Slots(group), &mut slots.iter().copied())?;
        }
        let blocks = self.cache.config().blocks();
        for word in &self.step.words {
            let first = word.sequence * blocks + word.block;
            let value = std::iter::once(word.page);
            write_input(
                &self.shares,
                self.inputs.set_from(Input::Table(word.group), first, value),
            )?;
        }
        Ok(())
    }

    /// Sends all block tables.
    fn send_tables(&mut self) -> Result<(), EngineError> {
        for group in 0..self.cache.config().groups.len() {
            let table = self.cache.table(group);
            let bytes = self.inputs.set(Input::Table(group), table.iter().copied());
            write_input(&self.shares, bytes)?;
        }
        Ok(())
    }
}

/// Writes a changed part of the inputs to every device that has them.
fn write_input(shares: &[Share], changed: Option<(u64, &[u8])>) -> Result<(), EngineError> {
    let Some((offset, bytes)) = changed else { return Ok(()) };
    for share in shares {
        if let Some(binding) = share.regions.get(&Region::Inputs) {
            share.at(share.device.write(binding.buffer, binding.offset + offset, bytes))?;
        }
    }
    Ok(())
}

fn compile(segment: &plan::Segment, shares: &[Share]) -> Result<Program, EngineError> {
    let share = &shares[segment.device];
    let (id, needs) = share.at(share.device.compile(&segment.graph()))?;
    if needs.workspace > share.workspace.bytes || needs.resident > 0 {
        let error = BackendError::failed(format!(
            "a program declares {} bytes of scratch and {} resident bytes, where the plan has {} and 0",
            needs.workspace, needs.resident, share.workspace.bytes
        ));
        return share.at(Err(error));
    }
    let bindings = segment.bound.iter().map(|bound| share.binding(*bound)).collect();
    Ok(Program {
        share: segment.device,
        id,
        bindings,
        transfers: segment.transfers.clone(),
    })
}
