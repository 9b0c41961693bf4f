//! Puts every operation of a model on a device that serves it.
//!
//! Each operation has a target that it is meant for. What that refuses as a composite it gets as primitives; what it refuses
//! as a view it gets as a copy; what it refuses altogether goes to another target, those of kind cpu first, as a copy where
//! that one refuses views too, and is reported.

use std::collections::BTreeMap;

use backend_api::{
    BackendError,
    contract::DeviceKind,
    decompose::unfold,
    draft::Draft,
    graph::{ABSENT, Buffer, Node, Role, Symbol, Tensor},
    operations::Operation,
};
use models::graph::{self as model, Content};

use super::device::Target;

/// A node and where it runs.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its tensors are indices into [`Lowered::tensors`].
    pub node: Node,
    /// Index into the targets.
    pub target: usize,
}

/// An operation that a device refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The operation's name.
    pub operation: &'static str,
    /// How many nodes of it went elsewhere.
    pub nodes: usize,
    /// The first reason.
    pub reason: String,
    /// Which target serves it instead.
    pub target: usize,
}

/// A model's graph with every node placed.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// What they lie in.
    pub buffers: Vec<Buffer>,
    /// What each buffer holds.
    pub contents: Vec<Content>,
    /// The operations in order.
    pub nodes: Vec<Placed>,
    /// What went to another target than it was meant for.
    pub refusals: Vec<Refusal>,
    /// The most tokens of a step.
    pub tokens: u32,
    /// The most wanted columns of a step.
    pub rows: u32,
}

/// An operation that no target serves.
#[derive(Debug, thiserror::Error)]
#[error("no device serves operation {operation}: {}", reasons.join("; "))]
pub struct NotServed {
    operation: String,
    reasons: Vec<String>,
}

impl NotServed {
    fn of(node: &Node, error: BackendError) -> Self {
        NotServed {
            operation: name(node),
            reasons: vec![error.to_string()],
        }
    }
}

/// Places every node of a graph on the target that it is meant for, or on one that serves it. `homes` has an index into the
/// targets for each node.
pub fn lower(graph: model::Graph, targets: &[Target], homes: &[usize]) -> Result<Lowered, NotServed> {
    let mut lowering = Lowering::new(graph, targets);
    for (node, &home) in std::mem::take(&mut lowering.draft.nodes).into_iter().zip(homes) {
        lowering.place(node, home)?;
    }
    lowering.keep_pools_together()?;
    Ok(lowering.finish())
}

struct Lowering<'a> {
    targets: &'a [Target],
    draft: Draft,
    contents: Vec<Content>,
    placed: Vec<Placed>,
    refusals: BTreeMap<u32, Refusal>,
}

impl<'a> Lowering<'a> {
    fn new(graph: model::Graph, targets: &'a [Target]) -> Self {
        let as_buffer = |b: &model::Buffer| Buffer {
            role: b.content.role() as u32,
            reserved: 0,
            bytes: b.bytes,
        };
        let buffers = graph.buffers.iter().map(as_buffer).collect();
        let draft = Draft {
            tensors: graph.tensors,
            nodes: graph.nodes,
            buffers,
            tokens: graph.tokens,
            rows: graph.rows,
        };
        let contents = graph.buffers.into_iter().map(|b| b.content).collect();
        Lowering {
            targets,
            draft,
            contents,
            placed: Vec::new(),
            refusals: BTreeMap::new(),
        }
    }

    fn ask(&mut self, target: usize, node: &Node) -> Result<(), BackendError> {
        self.draft.nodes.push(*node);
        let answer = self.targets[target].supports(&self.draft.graph(), self.draft.nodes.len() as u32 - 1);
        self.draft.nodes.pop();
        answer
    }

    fn place(&mut self, node: Node, home: usize) -> Result<(), NotServed> {
        let Err(refusal) = self.ask(home, &node) else {
            self.placed.push(Placed { node, target: home });
            return Ok(());
        };
        if let Some(parts) = unfold(&mut self.draft, &node).map_err(|e| NotServed::of(&node, e))? {
            return parts.into_iter().try_for_each(|part| self.place(part, home));
        }
        if self.place_on_copies(&node, home) {
            return Ok(());
        }
        self.place_elsewhere(node, home, refusal)
    }

    /// Places a node on another target than its own, and records that it was needed.
    fn place_elsewhere(&mut self, node: Node, home: usize, refusal: BackendError) -> Result<(), NotServed> {
        let mut reasons = vec![format!("{}: {}", self.targets[home].label(), refusal)];
        for target in self.others(home) {
            match self.ask(target, &node) {
                Ok(()) => self.placed.push(Placed { node, target }),
                Err(_) if self.place_on_copies(&node, target) => {}
                Err(error) => {
                    reasons.push(format!("{}: {error}", self.targets[target].label()));
                    continue;
                }
            }
            self.report(&node, &refusal, target);
            return Ok(());
        }
        Err(NotServed {
            operation: name(&node),
            reasons,
        })
    }

    /// The other targets, those of kind cpu first.
    fn others(&self, home: usize) -> Vec<usize> {
        let mut others: Vec<usize> = (0..self.targets.len()).filter(|&target| target != home).collect();
        others.sort_by_key(|&target| self.targets[target].kind() != DeviceKind::Cpu);
        others
    }

    fn report(&mut self, node: &Node, refusal: &BackendError, target: usize) {
        let fresh = || Refusal {
            operation: Operation::from_id(node.operation).map_or("?", Operation::name),
            nodes: 0,
            reason: refusal.message.to_string(),
            target,
        };
        self.refusals.entry(node.operation).or_insert_with(fresh).nodes += 1;
    }

    /// Tries the node on contiguous copies of its views: `copy` takes any view. Says whether the target serves that.
    fn place_on_copies(&mut self, node: &Node, target: usize) -> bool {
        let sizes = (self.draft.tensors.len(), self.draft.buffers.len());
        let mut copies: BTreeMap<u32, u32> = BTreeMap::new();
        let mut on_copies = *node;
        for slot in on_copies
            .inputs
            .iter_mut()
            .chain([&mut on_copies.output])
            .filter(|slot| **slot != ABSENT)
        {
            if self.is_activation_view(*slot) {
                let tensor = *slot;
                *slot = *copies.entry(tensor).or_insert_with(|| self.contiguous_twin(tensor));
            }
        }
        let copy = |from: u32, to: u32| Node::new(Operation::Copy.id(), &[from], to);
        let read = copies.iter().filter(|(view, _)| node.inputs.contains(view));
        let before = read.map(|(&view, &twin)| copy(view, twin));
        let after = copies.get(&node.output).map(|&twin| copy(twin, node.output));
        let all: Vec<Node> = before.chain([on_copies]).chain(after).collect();
        if copies.is_empty() || all.iter().any(|part| self.ask(target, part).is_err()) {
            self.draft.tensors.truncate(sizes.0);
            self.draft.buffers.truncate(sizes.1);
            return false;
        }
        self.placed.extend(all.into_iter().map(|node| Placed { node, target }));
        true
    }

    fn is_activation_view(&self, tensor: u32) -> bool {
        let tensor = &self.draft.tensors[tensor as usize];
        let role = self.draft.buffers[tensor.buffer as usize].role;
        role == Role::Activation as u32 && !tensor.is_contiguous()
    }

    fn contiguous_twin(&mut self, tensor: u32) -> u32 {
        let of = self.draft.tensors[tensor as usize];
        let buffer = self.draft.buffers.len() as u32;
        let twin = of
            .kind()
            .and_then(|ty| Tensor::contiguous(ty, of.dims, buffer, 0))
            .unwrap_or(of);
        let symbol = Symbol::from_id(of.symbol).unwrap_or(Symbol::None);
        self.draft.tensors.push(twin.symbolic(symbol, of.axis));
        let bytes = twin.extent().unwrap_or(0);
        self.draft.buffers.push(Buffer {
            role: Role::Activation as u32,
            reserved: 0,
            bytes,
        });
        self.draft.tensors.len() as u32 - 1
    }

    /// A pool has one home: where one node that touches it was refused, all that touch it follow.
    fn keep_pools_together(&mut self) -> Result<(), NotServed> {
        let mut homes: BTreeMap<u32, usize> = BTreeMap::new();
        loop {
            let mut moved = Vec::new();
            for (i, placed) in self.placed.iter().enumerate() {
                let pools = self.pools_of(&placed.node);
                let home = pools
                    .iter()
                    .filter_map(|p| homes.get(p))
                    .copied()
                    .max()
                    .unwrap_or(0)
                    .max(placed.target);
                homes.extend(pools.into_iter().map(|pool| (pool, home)));
                if home != placed.target {
                    moved.push((i, home));
                }
            }
            if moved.is_empty() && self.pools_agree(&homes) {
                return Ok(());
            }
            for (i, home) in moved {
                self.follow(i, home)?;
            }
        }
    }

    fn pools_agree(&self, homes: &BTreeMap<u32, usize>) -> bool {
        self.placed
            .iter()
            .all(|p| self.pools_of(&p.node).iter().all(|pool| homes[pool] == p.target))
    }

    fn follow(&mut self, index: usize, home: usize) -> Result<(), NotServed> {
        let node = self.placed[index].node;
        match self.ask(home, &node) {
            Ok(()) => {
                let why = BackendError::unsupported("its cache lies on another device");
                self.report(&node, &why, home);
                self.placed[index].target = home;
                Ok(())
            }
            Err(error) => Err(NotServed {
                operation: name(&node),
                reasons: vec![format!("{}: {error}", self.targets[home].label())],
            }),
        }
    }

    fn pools_of(&self, node: &Node) -> Vec<u32> {
        tensors_of(node)
            .map(|t| self.draft.tensors[t as usize].buffer)
            .filter(|&b| self.draft.buffers[b as usize].role == Role::Pool as u32)
            .collect()
    }

    fn finish(mut self) -> Lowered {
        // what decomposition and copies added are activations
        self.contents.resize(self.draft.buffers.len(), Content::Activation);
        Lowered {
            tensors: self.draft.tensors,
            buffers: self.draft.buffers,
            contents: self.contents,
            nodes: self.placed,
            refusals: self.refusals.into_values().collect(),
            tokens: self.draft.tokens,
            rows: self.draft.rows,
        }
    }
}

fn name(node: &Node) -> String {
    Operation::from_id(node.operation).map_or_else(|| node.operation.to_string(), |o| o.name().into())
}

/// The tensors that a node reads or writes.
pub fn tensors_of(node: &Node) -> impl Iterator<Item = u32> + '_ {
    node.inputs
        .iter()
        .chain([&node.output])
        .copied()
        .filter(|&t| t != ABSENT)
}
