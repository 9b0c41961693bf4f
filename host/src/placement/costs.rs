//! What each part of a model takes of a device, as far as that does not depend on what else is there.

use std::collections::BTreeSet;

use backend_api::{
    BackendError,
    graph::{Node, Role},
};
use models::graph::{Content, Graph};

use crate::execution::{
    device::Target,
    layout::{self, Part},
    lower::tensors_of,
};

/// Bytes of weights and cache of each part.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    /// What stands before the layers, without look-ups.
    pub before: u64,
    /// Each layer, without its experts.
    pub layers: Vec<u64>,
    /// Each layer's experts.
    pub experts: Vec<u64>,
    /// Bytes of them that a token reads.
    pub experts_read: Vec<u64>,
    /// What follows the layers.
    pub output: u64,
    /// Whether what follows the layers has all tables of look-ups too: the embedding is the output projection.
    pub tied: bool,
    /// Whether layer i may be on another device than the one before it: not between those that share a cache.
    pub cuts: Vec<bool>,
}

impl Costs {
    /// Of a model's graph on a device such as `target`.
    pub fn of(mut graph: Graph, layers: usize, target: &Target) -> Result<Costs, BackendError> {
        let parts = layout::parts(&mut graph);
        let mut costs = Costs {
            layers: vec![0; layers],
            experts: vec![0; layers],
            experts_read: vec![0; layers],
            cuts: vec![true; layers],
            ..Costs::default()
        };
        let mut counted: BTreeSet<(usize, u32)> = BTreeSet::new();
        let tables = weights_of(&graph, &parts, Part::Lookup);
        costs.tied = tables.is_subset(&weights_of(&graph, &parts, Part::Output));
        for (node, part) in graph.nodes.iter().zip(parts) {
            for tensor in tensors_of(node) {
                let buffer = graph.tensors[tensor as usize].buffer;
                if let Some(key) = costs.key(part)
                    && counted.insert((key, buffer))
                {
                    let bytes = bytes_of(&graph, buffer, part, target)?;
                    costs.add(part, bytes, read_of(&graph, node, bytes));
                }
                costs.keep_together(&graph, buffer, part);
            }
        }
        Ok(costs)
    }

    /// All weights and caches that belong to a layer: of those whose experts are elsewhere, without them.
    pub fn layer(&self, layer: usize, experts_elsewhere: usize) -> u64 {
        let own = if layer < experts_elsewhere {
            0
        } else {
            self.experts[layer]
        };
        self.layers[layer] + own
    }

    /// How many of the first layers have to be counted to count all that have experts: 0 where none has.
    pub fn with_experts(&self) -> usize {
        self.experts
            .iter()
            .rposition(|&bytes| bytes > 0)
            .map_or(0, |last| last + 1)
    }

    /// A number for each part that has a place; look-ups take nothing where tables are mapped.
    fn key(&self, part: Part) -> Option<usize> {
        let layers = self.layers.len();
        match part {
            Part::Lookup => None,
            Part::Before => Some(0),
            Part::Output => Some(1),
            Part::Layer(layer) => Some(2 + layer),
            Part::Experts(layer) => Some(2 + layers + layer),
        }
    }

    fn add(&mut self, part: Part, bytes: u64, read: u64) {
        match part {
            Part::Lookup => {}
            Part::Before => self.before += bytes,
            Part::Output => self.output += bytes,
            Part::Layer(layer) => self.layers[layer] += bytes,
            Part::Experts(layer) => {
                self.experts[layer] += bytes;
                self.experts_read[layer] += read;
            }
        }
    }

    fn keep_together(&mut self, graph: &Graph, buffer: u32, part: Part) {
        if let (Content::Pool { layer: owner, .. }, Part::Layer(reader)) =
            (&graph.buffers[buffer as usize].content, part)
        {
            let after_first = owner.min(&reader) + 1;
            self.cuts[after_first..=reader.max(*owner)].fill(false);
        }
    }
}

/// The buffers of weights that a part reads.
fn weights_of(graph: &Graph, parts: &[Part], part: Part) -> BTreeSet<u32> {
    let nodes = graph.nodes.iter().zip(parts).filter(|(_, of)| **of == part);
    let buffers = nodes.flat_map(|(node, _)| tensors_of(node).map(|t| graph.tensors[t as usize].buffer));
    let is_weight = |buffer: &u32| graph.buffers[*buffer as usize].content.role() == Role::Weight;
    buffers.filter(is_weight).collect()
}

/// Bytes that a buffer takes on the device; a layer's cache counts where it is owned.
fn bytes_of(graph: &Graph, buffer: u32, part: Part, target: &Target) -> Result<u64, BackendError> {
    let of = &graph.buffers[buffer as usize];
    let uploaded = || {
        let whole = graph.tensors.iter().find(|t| t.buffer == buffer);
        let whole = whole.ok_or_else(|| BackendError::failed("a weight has no tensor"))?;
        let layout = target.weight(whole)?;
        Ok(layout.bytes.next_multiple_of(layout.alignment))
    };
    match of.content {
        Content::Weight(_) if target.imports() => Ok(0),
        Content::Weight(_) | Content::Rewritten(_) => uploaded(),
        Content::Widened(_) => Ok(of.bytes),
        Content::Pool { layer, .. } if part == Part::Layer(layer) => Ok(of.bytes),
        _ => Ok(0),
    }
}

/// Of the bytes of a stack `[K, M, n]` of experts, those of the k that serve a token.
fn read_of(graph: &Graph, node: &Node, bytes: u64) -> u64 {
    let stack = node.input(1).map_or(1, |w| graph.tensors[w as usize].dims[2]);
    let used = graph.tensors[node.output as usize].dims[1];
    bytes / u64::from(stack.max(1)) * u64::from(used.min(stack))
}
