//! Files that other engines wrote: their names for keys, their order of fused rows, and what a model does not read of them.

use models::{
    architecture::Model,
    gguf::{Gguf, GgufWriter, TensorType},
    graph::{Content, Graph, Shape},
};
use rstest::rstest;

fn fixture(name: &str) -> Gguf {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/");
    Gguf::open(format!("{fixtures}{name}.gguf").as_ref()).unwrap()
}

fn written(writer: &GgufWriter) -> Gguf {
    Gguf::from_bytes("changed.gguf", writer.to_bytes()).unwrap()
}

fn graph(file: &Gguf) -> Graph {
    let model = Model::load(file).unwrap();
    model.graph(&Shape {
        context: 256,
        ..Shape::smallest(model.cache())
    })
}

/// The file with keys under other names.
fn renamed(file: &Gguf, names: &[(&str, &str)]) -> Gguf {
    let mut writer = GgufWriter::copy_of(file);
    for (from, to) in names {
        let value = file.metadata().get(from).unwrap_or_else(|| panic!("no {from}")).clone();
        writer.remove(from).set(to, value);
    }
    written(&writer)
}

#[test]
fn ollamas_names_for_the_rotation_of_mistral3_mean_the_same() {
    let file = fixture("families/mistral3-f16");
    let names = [
        (
            "mistral3.rope.scaling.yarn_beta_fast",
            "mistral3.rope.scaling.beta_fast",
        ),
        (
            "mistral3.rope.scaling.yarn_beta_slow",
            "mistral3.rope.scaling.beta_slow",
        ),
        (
            "mistral3.rope.scaling.yarn_log_multiplier",
            "mistral3.rope.scaling.mscale_all_dim",
        ),
        ("mistral3.attention.temperature_scale", "mistral3.rope.scaling_beta"),
    ];
    assert_eq!(graph(&renamed(&file, &names)), graph(&file));
    for (key, _) in names {
        let without = written(GgufWriter::copy_of(&file).remove(key));
        let same = graph(&without) == graph(&file);
        // the usual numbers are those of the file
        let usual = key.ends_with("yarn_beta_fast") || key.ends_with("yarn_beta_slow");
        assert!(usual || !same, "{key} has no effect");
    }
}

#[test]
fn early_files_have_a_linear_factor_of_their_own_name() {
    let file = fixture("families/llama-biased-f16");
    let linear = |key: &str| {
        let mut writer = GgufWriter::copy_of(&file);
        graph(&written(writer.set(&format!("llama.{key}"), 4.0f32)))
    };
    assert_eq!(linear("rope.scale_linear"), linear("rope.scaling.factor"));
    assert_ne!(linear("rope.scale_linear"), graph(&file));
}

#[test]
fn gemma3_files_of_ollama_do_not_say_their_epsilon() {
    let file = fixture("gemma3-q8_0");
    let without = written(GgufWriter::copy_of(&file).remove("gemma3.attention.layer_norm_rms_epsilon"));
    assert_eq!(graph(&without), graph(&file));
}

/// The bytes that a graph reads as the gates, and as the ups, of layer 0's experts.
fn gate_and_up(file: &Gguf) -> [Vec<u8>; 2] {
    let graph = graph(file);
    let product = backend_api::operations::Operation::GatedExpertProduct.id();
    let node = graph.nodes.iter().find(|node| node.operation == product).unwrap();
    [1, 2].map(|input| {
        let view = &graph.tensors[node.inputs[input] as usize];
        let Content::Weight(tensor) = graph.buffers[view.buffer as usize].content else {
            panic!("a weight")
        };
        let data = file.data(&file.tensors()[tensor]);
        let [_, m, n, _] = view.dims;
        let row = view.kind().unwrap().row_bytes(view.dims[0].into()).unwrap() as usize;
        let rows = (0..n).flat_map(|e| (0..m).map(move |r| (e, r)));
        rows.flat_map(|(e, r)| {
            let at = view.offset as i64 + i64::from(r) * view.strides[1] + i64::from(e) * view.strides[2];
            data[at as usize..at as usize + row].to_vec()
        })
        .collect()
    })
}

#[test]
fn llama_cpp_puts_the_gates_of_fused_experts_before_their_ups() {
    let file = fixture("families/qwen3moe-f16");
    let mut writer = GgufWriter::copy_of(&file);
    for layer in 0..file.metadata().u32("qwen3moe.block_count").unwrap() {
        let [gate, up] = ["gate", "up"].map(|part| format!("blk.{layer}.ffn_{part}_exps.weight"));
        let [of_gate, of_up] = [&gate, &up].map(|name| file.tensor(name).unwrap());
        let (dims, TensorType::Known(ty)) = (of_gate.dims, of_gate.kind) else {
            panic!("{}", of_gate.kind)
        };
        let [gates, ups] = [of_gate, of_up].map(|info| file.data(info));
        let expert = gates.len() / dims[2] as usize;
        let fused: Vec<u8> = gates
            .chunks(expert)
            .zip(ups.chunks(expert))
            .flat_map(|(g, u)| [g, u].concat())
            .collect();
        writer.remove_tensor(&gate).remove_tensor(&up);
        let name = format!("blk.{layer}.ffn_gate_up_exps.weight");
        writer
            .tensor(&name, &[dims[0], 2 * dims[1], dims[2]], ty, fused)
            .unwrap();
    }
    assert_eq!(gate_and_up(&written(&writer)), gate_and_up(&file));
}

#[test]
fn a_model_whose_tokens_see_later_ones_is_refused() {
    let file = fixture("qwen2-q8_0");
    let bidirectional = written(GgufWriter::copy_of(&file).set("qwen2.attention.causal", false));
    let error = Model::load(&bidirectional).err().unwrap().to_string();
    assert!(error.contains("qwen2.attention.causal"), "{error}");
}

#[rstest]
#[case("gemma3-q8_0")]
#[case("gemma3n-q8_0")]
#[case("gptoss-q8_0")]
#[case("qwen2-q8_0")]
#[case("families/llama3-f16")]
#[case("families/mixtral-f16")]
#[case("families/phi3-q8_0")]
#[case("families/gemma2-f16")]
fn models_read_all_tensors_of_their_layers(#[case] name: &str) {
    let file = fixture(name);
    assert!(Model::load(&file).unwrap().unread(&file).is_empty());
}

#[test]
fn tensors_that_a_model_does_not_read_are_named() {
    let file = fixture("qwen2-q8_0");
    let shorter = written(GgufWriter::copy_of(&file).set("qwen2.block_count", 3u32));
    let unread = Model::load(&shorter).unwrap();
    let unread = unread.unread(&shorter);
    assert!(
        !unread.is_empty() && unread.iter().all(|name| name.starts_with("blk.3.")),
        "{unread:?}"
    );
}
