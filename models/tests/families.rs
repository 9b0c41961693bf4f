//! What architectures ask of their files beyond the tensors of every layer, and what they say where it is not there.

use std::path::Path;

use backend_api::types::Type;
use models::{
    architecture::Model,
    gguf::{Gguf, GgufWriter},
};
use rstest::rstest;

/// The error that a family's file gives once it is changed.
fn refusal(name: &str, change: impl FnOnce(&mut GgufWriter)) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/families");
    let original = Gguf::open(&folder.join(name).with_extension("gguf")).unwrap();
    let mut writer = GgufWriter::copy_of(&original);
    change(&mut writer);
    let changed = Gguf::from_bytes("changed.gguf", writer.to_bytes()).unwrap();
    Model::load(&changed).err().expect("a refusal").to_string()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[rstest]
#[case("qwen3-f16", "attn_q_norm.weight")]
#[case("gemma2-f16", "post_ffw_norm.weight")]
#[case("mixtral-f16", "ffn_gate_inp.weight")]
#[case("phi3-q8_0", "attn_qkv.weight")]
#[case("phi3-q8_0", "ffn_up.weight")]
fn a_tensor_of_a_layer_that_is_missing_is_named(#[case] file: &str, #[case] tensor: &str) {
    let name = format!("blk.1.{tensor}");
    let error = refusal(file, |file| {
        file.remove_tensor(&name);
    });
    assert!(error.contains("missing") && error.contains(&name), "{error}");
}

#[rstest]
#[case("mixtral-f16", "expert_used_count")]
#[case("qwen3moe-f16", "expert_count")]
#[case("qwen3moe-f16", "expert_feed_forward_length")]
#[case("mistral3-f16", "rope.scaling.original_context_length")]
#[case("phi3-long-f16", "rope.scaling.original_context_length")]
#[case("llama3-f16", "feed_forward_length")]
fn a_key_that_is_missing_is_named(#[case] file: &str, #[case] key: &str) {
    let error = refusal(file, |writer| {
        for architecture in ["llama", "mistral3", "phi3", "qwen3moe"] {
            writer.remove(&format!("{architecture}.{key}"));
        }
    });
    assert!(error.contains(key), "{error}");
}

#[rstest]
#[case("llama3-f16", "llama.rope.dimension_count", 18, "attention.key_length")]
#[case("llama3-f16", "llama.attention.value_length", 32, "the same as attention.key_length")]
#[case("qwen3-yarn-q8_0", "qwen3.rope.scaling.yarn_beta_fast", 0, "a number above 0")]
#[case("qwen3-yarn-q8_0", "qwen3.rope.scaling.yarn_ext_factor", 0, "1")]
fn a_number_that_cannot_be_is_named(#[case] file: &str, #[case] key: &str, #[case] value: u32, #[case] expected: &str) {
    let error = refusal(file, |file| {
        if key.contains("yarn") {
            file.set(key, value as f32);
        } else {
            file.set(key, value);
        }
    });
    assert!(error.contains(key) && error.contains(expected), "{error}");
}

#[test]
fn factors_that_divide_by_nothing_are_refused() {
    for factor in [0.0, -1.0, f32::NAN] {
        let mut factors = [1.0; 8];
        factors[3] = factor;
        let error = refusal("llama3-f16", |file| {
            file.tensor("rope_freqs.weight", &[8], Type::F32, f32s(&factors))
                .unwrap();
        });
        assert!(error.contains("\"rope_freqs.weight\""), "{error}");
    }
}

#[rstest]
#[case("rope_factors_short.weight")]
#[case("rope_factors_long.weight")]
fn one_set_of_factors_asks_for_the_other(#[case] name: &str) {
    let error = refusal("phi3-long-f16", |file| {
        file.remove_tensor(name);
    });
    assert!(error.contains(name) && error.contains("missing"), "{error}");
}

#[test]
fn experts_with_a_tensor_each_are_refused_with_a_hint() {
    let error = refusal("mixtral-f16", |file| {
        file.remove_tensor("blk.0.ffn_gate_exps.weight");
        let gate = f32s(&[0.0; 64 * 32]);
        file.tensor("blk.0.ffn_gate.0.weight", &[64, 32], Type::F32, gate)
            .unwrap();
    });
    assert!(
        error.contains("\"blk.0.ffn_gate.0.weight\"") && error.contains("converted again"),
        "{error}"
    );
}
