//! Composites as the primitives that define them.

use crate::{
    draft::Draft,
    error::{BackendError, Result},
    graph::{ABSENT, Node, Role, Tensor},
    operations::{Operation, UnaryKind, word},
    types::Type,
    validate,
};

/// The primitives that a composite node of `draft` stands for, in order; `None` for a primitive. Their temporaries are
/// appended to the draft as tensors and activation buffers, each buffer for one temporary, symbolic as the output is.
/// The draft's nodes stay as they are: the caller puts the new ones in place of `node`.
///
/// # Errors
/// Those of [`validate::node`], which is asked first.
pub fn decompose(draft: &mut Draft, node: &Node) -> Result<Option<Vec<Node>>> {
    let Some(parts) = unfold(draft, node)? else {
        return Ok(None);
    };
    let mut primitives = Vec::new();
    for part in parts {
        match decompose(draft, &part)? {
            Some(nested) => primitives.extend(nested),
            None => primitives.push(part),
        }
    }
    Ok(Some(primitives))
}

/// As [`decompose`], but one level of it: the parts may be composites, which a backend may serve.
pub fn unfold(draft: &mut Draft, node: &Node) -> Result<Option<Vec<Node>>> {
    let operation = validate::node(&draft.graph(), node)?;
    let mut parts = Parts {
        draft,
        node,
        nodes: Vec::new(),
    };
    match operation {
        Operation::ProductAdd => parts.product_add()?,
        Operation::Products => parts.products()?,
        Operation::GatedProduct => parts.gated_product()?,
        Operation::ExpertProductAdd => parts.expert_product_add()?,
        Operation::GatedExpertProduct => parts.gated_expert_product()?,
        Operation::NormAdd => parts.norm_add()?,
        Operation::NormRope => parts.norm_rope(),
        Operation::MixCoefficients => parts.mix_coefficients()?,
        _ => return Ok(None),
    }
    Ok(Some(parts.nodes))
}

struct Parts<'a> {
    draft: &'a mut Draft,
    node: &'a Node,
    nodes: Vec<Node>,
}

impl Parts<'_> {
    fn push(&mut self, operation: Operation, inputs: &[u32], output: u32) -> &mut Node {
        self.nodes.push(Node::new(operation.id(), inputs, output));
        let last = self.nodes.len() - 1;
        &mut self.nodes[last]
    }

    fn push_with(&mut self, operation: Operation, inputs: &[u32], output: u32, params: &[u32]) {
        self.push(operation, inputs, output).params[..params.len()].copy_from_slice(params);
    }

    /// a + b.
    fn add(&mut self, a: u32, b: u32, output: u32) {
        let one = 1f32.to_bits();
        self.push_with(Operation::Add, &[a, b], output, &[one, one]);
    }

    fn tensor(&self, index: u32) -> Tensor {
        self.draft.tensors[index as usize]
    }

    /// A contiguous f32 tensor of the shape of `like` in a buffer of its own.
    fn temporary(&mut self, like: Tensor) -> Result<u32> {
        let plain = Tensor::contiguous(Type::F32, like.dims, 0, 0)
            .ok_or_else(|| BackendError::invalid(format!("a temporary of dims {:?} is too large", like.dims)))?;
        let Tensor { symbol, axis, .. } = like;
        self.draft.place(Role::Activation, Tensor { symbol, axis, ..plain })
    }

    /// As [`Parts::temporary`], with another number of entries in dimension 0.
    fn temporary_of(&mut self, entries: u32, like: u32) -> Result<u32> {
        let mut like = self.tensor(like);
        like.dims[0] = entries;
        self.temporary(like)
    }

    /// Entries `from..from + entries` of dimension 0 of an f32 tensor.
    fn slice(&mut self, of: u32, from: u32, entries: u32) -> u32 {
        let mut view = self.tensor(of);
        view.dims[0] = entries;
        view.offset += u64::from(from) * Type::F32.block_bytes() as u64;
        self.draft.tensor(view)
    }

    /// W·x + b + r; the sum goes through a temporary where there is r, in whose place the output may stand.
    fn product_add(&mut self) -> Result<()> {
        let Node {
            inputs: [x, w, b, r, ..],
            output,
            params,
            ..
        } = *self.node;
        let target = if r == ABSENT {
            output
        } else {
            self.temporary(self.tensor(output))?
        };
        self.push_with(
            Operation::Product,
            &[x, w],
            target,
            &params[..=word::product::PRECISION],
        );
        if b != ABSENT {
            self.add(target, b, target);
        }
        if r != ABSENT {
            self.add(r, target, output);
        }
        Ok(())
    }

    fn products(&mut self) -> Result<()> {
        let Node {
            inputs, output, params, ..
        } = *self.node;
        let mut from = 0;
        for pair in inputs[1..9].chunks_exact(2).filter(|pair| pair[0] != ABSENT) {
            let rows = self.tensor(pair[0]).dims[1];
            let view = self.slice(output, from, rows);
            self.push_with(
                Operation::Product,
                &[inputs[0], pair[0]],
                view,
                &params[..=word::product::PRECISION],
            );
            if pair[1] != ABSENT {
                self.add(view, pair[1], view);
            }
            from += rows;
        }
        Ok(())
    }

    /// The words of `gated` are those of the composite without the precision.
    fn gate(&mut self, g: u32, u: u32) {
        let Node { output, params, .. } = *self.node;
        self.push_with(
            Operation::Gated,
            &[g, u],
            output,
            &params[word::gated_product::KIND..=word::gated_product::LIMIT],
        );
    }

    fn gated_product(&mut self) -> Result<()> {
        let Node {
            inputs: [x, wg, wu, bg, bu, ..],
            output,
            params,
            ..
        } = *self.node;
        let rows = self.tensor(output).dims[0];
        let twice = rows
            .checked_mul(2)
            .ok_or_else(|| BackendError::invalid(format!("twice {rows} rows are too many")))?;
        let both = self.temporary_of(twice, output)?;
        self.push_with(
            Operation::Products,
            &[x, wg, bg, wu, bu],
            both,
            &params[..=word::product::PRECISION],
        );
        let (g, u) = (self.slice(both, 0, rows), self.slice(both, rows, rows));
        self.gate(g, u);
        Ok(())
    }

    fn expert_product_add(&mut self) -> Result<()> {
        let Node {
            inputs: [x, w, ids, b, ..],
            output,
            params,
            ..
        } = *self.node;
        let biases = self.temporary(self.tensor(output))?;
        self.push_with(
            Operation::ExpertProduct,
            &[x, w, ids],
            output,
            &params[..=word::product::PRECISION],
        );
        self.push_with(Operation::Rows, &[b, ids], biases, &[1f32.to_bits()]);
        self.add(output, biases, output);
        Ok(())
    }

    fn gated_expert_product(&mut self) -> Result<()> {
        let Node {
            inputs: [x, wg, wu, ids, bg, bu, ..],
            output,
            params,
            ..
        } = *self.node;
        let mut half = |w, b| {
            let target = self.temporary(self.tensor(output))?;
            let precision = &params[..=word::product::PRECISION];
            match b {
                ABSENT => self.push_with(Operation::ExpertProduct, &[x, w, ids], target, precision),
                b => self.push_with(Operation::ExpertProductAdd, &[x, w, ids, b], target, precision),
            }
            Ok::<u32, BackendError>(target)
        };
        let (g, u) = (half(wg, bg)?, half(wu, bu)?);
        self.gate(g, u);
        Ok(())
    }

    fn norm_add(&mut self) -> Result<()> {
        let Node {
            inputs: [x, w, r, ..],
            output,
            params,
            ..
        } = *self.node;
        let normed = self.temporary(self.tensor(x))?;
        self.push_with(Operation::RmsNorm, &[x, w], normed, &params[..=word::rms_norm::EPSILON]);
        self.add(r, normed, output);
        Ok(())
    }

    fn norm_rope(&mut self) {
        let Node {
            inputs: [x, w, positions, freq, ..],
            output,
            params,
            ..
        } = *self.node;
        self.push_with(
            Operation::RmsNorm,
            &[x, w],
            output,
            &params[..=word::norm_rope::EPSILON],
        );
        let words = &params[word::norm_rope::LAYOUT..=word::norm_rope::MAGNITUDE];
        self.push_with(Operation::Rope, &[output, positions, freq], output, words);
    }

    fn mix_coefficients(&mut self) -> Result<()> {
        let Node {
            inputs: [x, w, a, f, ..],
            output,
            ..
        } = *self.node;
        let [epsilon, inner] =
            [word::mix_coefficients::EPSILON, word::mix_coefficients::IN].map(|i| self.node.params[i]);
        let normed = self.temporary(self.tensor(x))?;
        let mixed = self.temporary_of(self.tensor(a).dims[1], output)?;
        self.push_with(Operation::RmsNorm, &[x, w], normed, &[epsilon]);
        self.push(Operation::Product, &[normed, a], mixed);
        self.push_with(
            Operation::Unary,
            &[mixed],
            mixed,
            &[UnaryKind::Tanh as u32, inner, 1f32.to_bits()],
        );
        self.push(Operation::Product, &[mixed, f], output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::Symbol, testing::Bench};

    fn names(nodes: &[Node]) -> Vec<&'static str> {
        nodes
            .iter()
            .map(|n| Operation::from_id(n.operation).unwrap().name())
            .collect()
    }

    /// The parts of a gated product of experts with both biases over T = 3 tokens, one level and all.
    fn experts(biases: bool) -> (Bench, Vec<Node>, Vec<Node>) {
        let mut b = Bench::new(3, 1);
        let (x, w, ids) = (
            b.values(&[2, 1, 3], &[]),
            b.weight(&[2, 4, 5], &[]),
            b.ids(&[2, 3], &[]),
        );
        let (bias, y) = (b.values(&[4, 5], &[]), b.blank(&[4, 2, 3]));
        b.tokens(&[(x, 2), (ids, 1), (y, 2)]);
        let bias = if biases { bias } else { ABSENT };
        let composite = Node::new(Operation::GatedExpertProduct.id(), &[x, w, w, ids, bias, bias], y).with(0, 1);
        let once = unfold(&mut b.draft.clone(), &composite).unwrap().unwrap();
        let all = decompose(&mut b.draft, &composite).unwrap().unwrap();
        (b, once, all)
    }

    #[test]
    fn nested_composites_come_down_to_primitives() {
        let (_, once, all) = experts(true);
        assert_eq!(names(&once), ["expert_product_add", "expert_product_add", "gated"]);
        let half = ["expert_product", "rows", "add"];
        assert_eq!(names(&all), [&half[..], &half, &["gated"]].concat());
        let (_, once, all) = experts(false);
        assert_eq!(
            (names(&once), once),
            (vec!["expert_product", "expert_product", "gated"], all)
        );
    }

    #[test]
    fn temporaries_are_activations_of_the_outputs_symbol() {
        let (b, _, all) = experts(true);
        let output = b.draft.tensors[all[6].output as usize];
        for node in &all[..6] {
            let temporary = b.draft.tensors[node.output as usize];
            assert_eq!(
                (temporary.symbol, temporary.axis, temporary.dims),
                (Symbol::Tokens as u8, 2, output.dims)
            );
            let buffer = b.draft.buffers[temporary.buffer as usize];
            assert_eq!((buffer.role, buffer.bytes), (Role::Activation as u32, 4 * 4 * 2 * 3));
        }
    }

    #[test]
    fn parts_are_proper_nodes_that_keep_the_precision() {
        let (b, _, all) = experts(true);
        for node in &all {
            validate::node(&b.draft.graph(), node).unwrap();
        }
        assert_eq!([all[0].params[0], all[3].params[0]], [1, 1]);
    }

    #[test]
    fn a_primitive_has_no_parts_and_a_broken_node_no_decomposition() {
        let mut b = Bench::new(1, 1);
        let x = b.values(&[2], &[]);
        let draft = b.draft.clone();
        assert_eq!(
            decompose(&mut b.draft, &Node::new(Operation::Unary.id(), &[x], x)),
            Ok(None)
        );
        assert!(decompose(&mut b.draft, &Node::new(Operation::NormAdd.id(), &[x], x)).is_err());
        assert_eq!(b.draft, draft);
    }

    #[test]
    fn products_write_into_views_of_the_output() {
        let mut b = Bench::new(2, 1);
        let (x, w, bias) = (b.values(&[2, 2], &[]), b.weight(&[2, 3], &[]), b.values(&[3], &[]));
        let y = b.blank(&[6, 2]);
        let composite = Node::new(Operation::Products.id(), &[x, w, ABSENT, w, bias], y);
        let buffers = b.draft.buffers.len();
        let parts = decompose(&mut b.draft, &composite).unwrap().unwrap();
        assert_eq!(names(&parts), ["product", "product", "add"]);
        assert_eq!(b.draft.buffers.len(), buffers);
        let [first, second] = [0, 1].map(|i| b.draft.tensors[parts[i].output as usize]);
        assert_eq!(
            (first.buffer, second.buffer),
            (first.buffer, b.draft.tensors[y as usize].buffer)
        );
        assert_eq!((second.offset - first.offset, second.strides[1]), (12, 24));
    }
}
