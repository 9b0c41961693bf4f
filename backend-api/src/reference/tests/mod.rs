//! Each operation on numbers that can be checked by hand.

mod cache;
mod composites;
mod elementwise;
mod norms;
mod products;
mod routing;
mod steps;

use crate::{
    graph::Node,
    operations::Operation,
    testing::{Bench, assert_close},
};

fn node(operation: Operation, inputs: &[u32], output: u32) -> Node {
    Node::new(operation.id(), inputs, output)
}
