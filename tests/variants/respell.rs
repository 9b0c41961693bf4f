//! Changed copies of a gpt-oss file that say the same in other words.

use backend_api::types::Type;
use models::gguf::{Gguf, GgufWriter, TensorType};

/// The data of matrices, or of stacks of them, and what one row of them is.
struct Rows<'a> {
    data: &'a [u8],
    row: usize,
    count: usize,
}

impl<'a> Rows<'a> {
    /// The tensor `name`, where rows are values of vectors (`.bias`) and rows of matrices.
    fn of(file: &'a Gguf, name: &str) -> Rows<'a> {
        let info = file.tensor(name).unwrap();
        let axis = if name.ends_with(".bias") { 0 } else { 1 };
        let mut row = info.dims;
        row[axis..].fill(1);
        Rows {
            data: file.data(info),
            row: info.kind.bytes(row).unwrap() as usize,
            count: info.dims[axis] as usize,
        }
    }
}

/// The rows of all parts, one part after another.
fn in_order(parts: &[Rows]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.data).copied().collect()
}

/// The rows of all parts in turn.
fn in_turn(parts: &[Rows]) -> Vec<u8> {
    let mut rows: Vec<_> = parts.iter().map(|part| part.data.chunks(part.row)).collect();
    let mut all = Vec::new();
    while let Some(first) = rows[0].next() {
        all.extend_from_slice(first);
        rows[1..]
            .iter_mut()
            .for_each(|part| all.extend_from_slice(part.next().unwrap()));
    }
    all
}

/// Puts `fused` in the place of `parts`, which are left out.
fn fuse(copy: &mut GgufWriter, file: &Gguf, fused: &str, parts: &[String], merge: impl Fn(&[Rows]) -> Vec<u8>) {
    let info = file.tensor(&parts[0]).unwrap();
    let rows: Vec<Rows> = parts.iter().map(|name| Rows::of(file, name)).collect();
    let mut dims = info.shape().to_vec();
    let axis = if fused.ends_with(".bias") { 0 } else { 1 };
    dims[axis] = rows.iter().map(|part| part.count as u64).sum();
    copy.tensor(fused, &dims, info.kind, merge(&rows)).unwrap();
    for name in parts {
        copy.remove_tensor(name);
    }
}

/// What a layer's fused tensors hold.
pub const WHOLE: [&str; 2] = ["weight", "bias"];

/// Holds queries, keys and values of a layer in `attn_qkv`: weights, biases, or both.
pub fn fuse_attention(copy: &mut GgufWriter, file: &Gguf, layer: u32, what: &[&str]) {
    for what in what {
        let parts = ["attn_q", "attn_k", "attn_v"].map(|name| format!("blk.{layer}.{name}.{what}"));
        fuse(copy, file, &format!("blk.{layer}.attn_qkv.{what}"), &parts, in_order);
    }
}

/// Holds gate and up of a layer's experts in `ffn_gate_up_exps`: weights, biases, or both.
pub fn fuse_experts(copy: &mut GgufWriter, file: &Gguf, layer: u32, what: &[&str]) {
    for what in what {
        let parts = ["ffn_gate_exps", "ffn_up_exps"].map(|name| format!("blk.{layer}.{name}.{what}"));
        fuse(
            copy,
            file,
            &format!("blk.{layer}.ffn_gate_up_exps.{what}"),
            &parts,
            in_turn,
        );
    }
}

/// Gives tensors of a layer the names of Ollama's older files.
pub fn rename(copy: &mut GgufWriter, file: &Gguf, layer: u32) {
    let names = [
        ("attn_output.weight", "attn_out.weight"),
        ("attn_output.bias", "attn_out.bias"),
        ("attn_sinks.weight", "attn_sinks"),
        ("post_attention_norm.weight", "ffn_norm.weight"),
    ];
    for (usual, older) in names {
        let usual = format!("blk.{layer}.{usual}");
        let info = file.tensor(&usual).unwrap();
        let older = format!("blk.{layer}.{older}");
        copy.remove_tensor(&usual);
        copy.tensor(&older, info.shape(), info.kind, file.data(info).to_vec())
            .unwrap();
    }
}

/// Calls the architecture `name` and puts its keys under `prefix`.
pub fn call(copy: &mut GgufWriter, file: &Gguf, name: &str, prefix: &str) {
    let was = file.metadata().string("general.architecture").unwrap();
    for (key, value) in file.metadata().iter() {
        if let Some(key) = key.strip_prefix(&format!("{was}.")) {
            copy.remove(&format!("{was}.{key}"));
            copy.set(&format!("{prefix}.{key}"), value.clone());
        }
    }
    copy.set("general.architecture", name);
}

/// Leaves out the keys that Ollama's files do not have.
pub fn forget(copy: &mut GgufWriter, prefix: &str) {
    copy.remove(&format!("{prefix}.expert_feed_forward_length"));
    copy.remove(&format!("{prefix}.rope.scaling.type"));
}

/// Puts all MXFP4 data into the order that older files have, as type 4. Gives the bytes of each.
pub fn reorder(copy: &mut GgufWriter, file: &Gguf) -> Vec<u64> {
    let mut rewritten = Vec::new();
    for info in file.tensors().iter().filter(|info| info.kind == Type::MXFP4.into()) {
        let data = file.data(info).chunks(17).flat_map(older_order).collect::<Vec<u8>>();
        rewritten.push(info.bytes);
        copy.tensor(&info.name, info.shape(), TensorType::Mxfp4Old, data)
            .unwrap();
    }
    rewritten
}

/// A block whose byte j holds values 2j and 2j + 1, of one whose byte j holds values j and j + 16.
fn older_order(block: &[u8]) -> Vec<u8> {
    let value = |i: usize| match i {
        0..16 => block[1 + i] & 15,
        _ => block[1 + i - 16] >> 4,
    };
    let bytes = (0..16).map(|j| value(2 * j) | value(2 * j + 1) << 4);
    std::iter::once(block[0]).chain(bytes).collect()
}

/// Rounds the biases of a layer to F16.
pub fn narrow(copy: &mut GgufWriter, file: &Gguf) {
    for info in file.tensors().iter().filter(|info| info.name.ends_with(".bias")) {
        let values = file.data(info).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
        let data: Vec<u8> = values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect();
        copy.tensor(&info.name, info.shape(), Type::F16, data).unwrap();
    }
}
