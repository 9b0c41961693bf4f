//! Which device each part of a model is meant for.

use std::collections::BTreeSet;

use backend_api::{
    graph::{Node, Role},
    operations::Operation,
};
use models::graph::{Content, Graph};

use super::lower::tensors_of;

/// A part of a model that is placed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Rows of embedding tables that tokens name.
    Lookup,
    /// What else stands before the layers.
    Before,
    /// A layer; without its experts where they are elsewhere.
    Layer(usize),
    /// The products of a layer's experts, and their sum.
    Experts(usize),
    /// What follows the layers: the last norm and the output projection.
    Output,
}

/// For each part the index of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Of each layer.
    pub layers: Vec<usize>,
    /// Of what follows the layers.
    pub output: usize,
    /// Of look-ups.
    pub lookup: usize,
    /// Of the experts of the first so many layers; those of the others are where their layer is.
    pub experts: Option<(usize, usize)>,
}

impl Layout {
    /// Everything on the first target.
    pub fn whole(layers: usize) -> Layout {
        Layout {
            layers: vec![0; layers],
            output: 0,
            lookup: 0,
            experts: None,
        }
    }

    /// The target of a part.
    pub fn home(&self, part: Part) -> usize {
        match (part, self.experts) {
            (Part::Lookup, _) => self.lookup,
            (Part::Before, _) => self.layers.first().copied().unwrap_or(self.output),
            (Part::Output, _) => self.output,
            (Part::Experts(layer), Some((count, target))) if layer < count => target,
            (Part::Layer(layer) | Part::Experts(layer), _) => self.layers[layer],
        }
    }
}

/// The part of each node. Look-ups come to stand first: they need nothing but the tokens, and so all that a target does
/// before the layers is one program.
pub fn parts(graph: &mut Graph) -> Vec<Part> {
    hoist_lookups(graph);
    let first = graph.node_layers.iter().position(Option::is_some);
    let mut experts = BTreeSet::new();
    let mut part_of = |at: usize, node: &Node| match graph.node_layers[at] {
        None if is_lookup(graph, node) => Part::Lookup,
        None if first.is_some_and(|first| at < first) => Part::Before,
        None => Part::Output,
        Some(layer) if is_of_experts(graph, node, &mut experts) => Part::Experts(layer),
        Some(layer) => Part::Layer(layer),
    };
    graph
        .nodes
        .iter()
        .enumerate()
        .map(|(at, node)| part_of(at, node))
        .collect()
}

fn hoist_lookups(graph: &mut Graph) {
    let mut touched = BTreeSet::new();
    let (mut lookups, mut others) = (Vec::new(), Vec::new());
    for (node, layer) in graph.nodes.iter().zip(&graph.node_layers) {
        let fresh = !touched.contains(&buffer_of(graph, node.output));
        touched.extend(tensors_of(node).map(|tensor| buffer_of(graph, tensor)));
        match layer.is_none() && fresh && is_lookup(graph, node) {
            true => lookups.push((*node, *layer)),
            false => others.push((*node, *layer)),
        }
    }
    lookups.append(&mut others);
    (graph.nodes, graph.node_layers) = lookups.into_iter().unzip();
}

fn buffer_of(graph: &Graph, tensor: u32) -> usize {
    graph.tensors[tensor as usize].buffer as usize
}

/// Rows of a weight that step inputs name.
fn is_lookup(graph: &Graph, node: &Node) -> bool {
    let content = |input: usize| node.input(input).map(|t| &graph.buffers[buffer_of(graph, t)].content);
    let table = content(0).is_some_and(|table| table.role() == Role::Weight);
    node.operation == Operation::Rows.id() && table && matches!(content(1), Some(Content::Input(_)))
}

/// Products of experts, and sums of what they give, in whose place nothing else of a layer then has to go elsewhere.
fn is_of_experts(graph: &Graph, node: &Node, outputs: &mut BTreeSet<usize>) -> bool {
    let found = match Operation::from_id(node.operation) {
        Some(Operation::ExpertProduct | Operation::ExpertProductAdd | Operation::GatedExpertProduct) => true,
        Some(Operation::Combine) => node.input(0).is_some_and(|x| outputs.contains(&buffer_of(graph, x))),
        _ => false,
    };
    if found && node.operation != Operation::Combine.id() {
        outputs.insert(buffer_of(graph, node.output));
    }
    found
}
