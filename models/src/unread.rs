//! Tensors that a file has and its model does not read.

use std::collections::HashSet;

use crate::{
    architecture::Model,
    gguf::Gguf,
    graph::{CacheLayout, Content, Shape},
};

/// What a layer that reads another's cache may have all the same.
const OF_SHARED: [&str; 3] = ["attn_k.weight", "attn_v.weight", "attn_k_norm.weight"];

impl Model {
    /// The tensors of the file's layers that no operation reads: what another variant of the architecture would need.
    pub fn unread<'f>(&self, file: &'f Gguf) -> Vec<&'f str> {
        let graph = self.graph(&Shape::smallest(self.cache()));
        let read: HashSet<usize> = graph.buffers.iter().filter_map(|b| tensor(&b.content)).collect();
        let all = file.tensors().iter().enumerate();
        let unread = all.filter(|(index, _)| !read.contains(index));
        let names = unread.map(|(_, info)| info.name.as_str());
        names.filter(|name| is_of_a_layer(name, self.cache())).collect()
    }
}

fn tensor(content: &Content) -> Option<usize> {
    match *content {
        Content::Weight(tensor) | Content::Widened(tensor) | Content::Rewritten(tensor) => Some(tensor),
        _ => None,
    }
}

/// Whether a layer is to read the tensor.
fn is_of_a_layer(name: &str, cache: &CacheLayout) -> bool {
    let Some((layer, rest)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let shares = layer
        .parse()
        .is_ok_and(|i: usize| matches!(cache.layers.get(i), Some(None)));
    !(shares && OF_SHARED.contains(&rest))
}
