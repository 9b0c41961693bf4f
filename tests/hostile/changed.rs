//! Whole files with numbers, tensors and templates that cannot be.

use super::*;

/// A copy of a fixture with changes, and what `host run` says of it.
struct Changed {
    _folder: TempDir,
    path: PathBuf,
}

impl Changed {
    fn new(name: &str, change: impl FnOnce(&mut GgufWriter)) -> Changed {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let original = Gguf::open(&fixture(name)).unwrap();
        let mut writer = GgufWriter::copy_of(&original);
        change(&mut writer);
        writer.write(&path).unwrap();
        Changed { _folder: folder, path }
    }

    fn run(&self, more: &[&str]) -> Ran {
        let path = self.path.to_str().unwrap();
        host(&[&["run", path, "x", "--predict", "1"], more].concat())
    }

    /// `host run` fails and says all of `expected`, the file's name among it.
    fn fails(&self, more: &[&str], expected: &[&str]) -> Result<(), String> {
        let ran = self.run(more);
        verdict(&ran, &self.path)?;
        let missing = expected.iter().find(|text| !ran.stderr.contains(*text));
        match (ran.code, missing) {
            (Some(1), None) => Ok(()),
            (code, missing) => Err(format!("code {code:?}, {missing:?} not in {}", ran.stderr)),
        }
    }
}

#[test]
fn a_hyper_parameter_that_cannot_be_is_named_with_what_is_expected() {
    let cases: Vec<(&str, &str, Value, &str)> = vec![
        (QWEN2, "qwen2.attention.head_count", 0u32.into(), "at least 1"),
        (QWEN2, "qwen2.attention.head_count", 28u32.into(), "an even number"),
        (
            QWEN2,
            "qwen2.attention.head_count",
            (1u32 << 31).into(),
            "no more heads than embedding_length",
        ),
        (
            QWEN2,
            "qwen2.attention.head_count",
            "four".into(),
            "an integer that fits u32",
        ),
        (
            QWEN2,
            "qwen2.attention.head_count",
            (-4i32).into(),
            "an integer that fits u32",
        ),
        (QWEN2, "qwen2.attention.head_count_kv", 0u32.into(), "at least 1"),
        (
            QWEN2,
            "qwen2.attention.head_count_kv",
            3u32.into(),
            "divides attention.head_count",
        ),
        (
            QWEN2,
            "qwen2.attention.head_count_kv",
            8u32.into(),
            "divides attention.head_count",
        ),
        (QWEN2, "qwen2.attention.key_length", 63u32.into(), "an even number"),
        (QWEN2, "qwen2.attention.key_length", (1u32 << 30).into(), "fit i32"),
        (
            QWEN2,
            "qwen2.attention.layer_norm_rms_epsilon",
            f32::NAN.into(),
            "a finite number",
        ),
        (
            QWEN2,
            "qwen2.attention.layer_norm_rms_epsilon",
            f32::INFINITY.into(),
            "a finite number",
        ),
        (
            QWEN2,
            "qwen2.attention.layer_norm_rms_epsilon",
            (-1f32).into(),
            "a number from 0",
        ),
        (QWEN2, "qwen2.block_count", 0u32.into(), "at least 1"),
        (
            QWEN2,
            "qwen2.block_count",
            u32::MAX.into(),
            "no more layers than the file has tensors",
        ),
        (QWEN2, "qwen2.context_length", 0u32.into(), "at least 1"),
        (QWEN2, "qwen2.embedding_length", 0u32.into(), "at least 1"),
        (QWEN2, "qwen2.rope.freq_base", 0f32.into(), "a number above 1"),
        (QWEN2, "qwen2.rope.freq_base", f32::NAN.into(), "a finite number"),
        (QWEN2, "qwen2.rope.freq_base", (-10_000f32).into(), "a number above 1"),
        (
            QWEN2,
            "qwen2.rope.scaling.type",
            "longrope".into(),
            "\"linear\" or \"yarn\"",
        ),
        (QWEN2, "general.architecture", 7u32.into(), "a string"),
        (QWEN2, "general.alignment", 24u32.into(), "power of two"),
        (QWEN2, "tokenizer.ggml.eos_token_id", 1_000_000u32.into(), "1000000"),
        (QWEN2, "tokenizer.ggml.pre", "nosuch".into(), "nosuch"),
        (QWEN2, "tokenizer.ggml.tokens", vec![1u32].into(), "an array of strings"),
        (GEMMA3, "gemma3.attention.sliding_window", 0u32.into(), "at least 1"),
        (
            GEMMA3,
            "gemma3.attention.sliding_window_pattern",
            0u32.into(),
            "at least 1",
        ),
        (
            GEMMA3,
            "gemma3.attention.sliding_window_pattern",
            vec![true, false].into(),
            "one bool a layer",
        ),
        (
            GEMMA3,
            "gemma3.attention.value_length",
            2u32.into(),
            "the same as attention.key_length",
        ),
        (
            GEMMA3,
            "gemma3.final_logit_softcapping",
            f32::NAN.into(),
            "a finite number",
        ),
        (
            GEMMA3,
            "gemma3.final_logit_softcapping",
            (-30f32).into(),
            "a number from 0",
        ),
        (GEMMA3, "gemma3.rope.freq_base", 0f32.into(), "a number above 1"),
        (
            GEMMA3,
            "gemma3.block_count",
            (1u32 << 31).into(),
            "no more layers than the file has tensors",
        ),
    ];
    let faults = on_two_threads(cases.len(), |index| {
        let (name, key, value, expected) = &cases[index];
        let changed = Changed::new(name, |file| {
            file.set(key, value.clone());
        });
        let result = changed.fails(&["--raw"], &[key, expected]);
        result.map_err(|fault| format!("{name} with {key} = {value:?}: {fault}"))
    });
    assert_none(&faults);
}

#[test]
fn an_architecture_that_is_not_served_is_told_with_those_that_are() {
    let changed = Changed::new(QWEN2, |file| {
        file.set("general.architecture", "nosuch");
    });
    changed
        .fails(&["--raw"], &["architecture \"nosuch\"", "hint: served are llama"])
        .unwrap();
}

#[test]
fn a_scaling_factor_that_cannot_be_is_named() {
    for factor in [0.0, -8.0, f32::NAN, f32::INFINITY] {
        let changed = Changed::new(QWEN2, |file| {
            file.set("qwen2.rope.scaling.type", "linear")
                .set("qwen2.rope.scaling.factor", factor);
        });
        changed.fails(&["--raw"], &["qwen2.rope.scaling.factor"]).unwrap();
    }
}

#[test]
fn sizes_that_fit_no_tensor_name_a_tensor_and_its_shape() {
    let cases = [
        ("qwen2.embedding_length", 512u32, "token_embd.weight"),
        ("qwen2.embedding_length", 1 << 29, "token_embd.weight"),
        ("qwen2.feed_forward_length", 100, "blk.0.ffn_gate.weight"),
        ("qwen2.feed_forward_length", u32::MAX, "blk.0.ffn_gate.weight"),
        ("qwen2.attention.key_length", 128, "blk.0.attn_q.weight"),
        ("qwen2.block_count", 5, "blk.4.attn_norm.weight"),
    ];
    for (key, value, tensor) in cases {
        let changed = Changed::new(QWEN2, |file| {
            file.set(key, value);
        });
        changed.fails(&["--raw"], &[tensor, "["]).unwrap();
    }
}

#[test]
fn tensors_of_wrong_shapes_and_types_are_named_with_both() {
    let cases: [(&str, &[u64], TensorType, &str); 6] = [
        ("token_embd.weight", &[2048, 256], Type::F32.into(), "[2048, 256]"),
        ("token_embd.weight", &[256, 0], Type::F32.into(), "1 to 2147483647 rows"),
        ("output_norm.weight", &[255], Type::F32.into(), "[256]"),
        (
            "output_norm.weight",
            &[256],
            TensorType::F64,
            "F32, F16, BF16 or a quantized type",
        ),
        (
            "blk.0.attn_norm.weight",
            &[256],
            TensorType::I8,
            "F32, F16, BF16 or a quantized type",
        ),
        ("blk.1.attn_q.bias", &[1], Type::F32.into(), "[256]"),
    ];
    for (name, dims, kind, expected) in cases {
        let bytes = vec![
            0;
            kind.bytes(std::array::from_fn(|i| dims.get(i).copied().unwrap_or(1)))
                .unwrap() as usize
        ];
        let changed = Changed::new(QWEN2, |file| {
            file.tensor(name, dims, kind, bytes).unwrap();
        });
        changed.fails(&["--raw"], &[name, kind.name(), expected]).unwrap();
    }
}

#[test]
fn a_vocabulary_that_the_logits_do_not_cover_is_refused() {
    let changed = Changed::new(QWEN2, |file| {
        for name in ["token_embd.weight", "output.weight"] {
            file.tensor(name, &[256, 2000], Type::F16, vec![0; 256 * 2000 * 2])
                .unwrap();
        }
    });
    changed.fails(&["--raw"], &["2048 pieces", "2000"]).unwrap();
}

#[test]
fn weights_that_are_no_numbers_end_in_a_sampling_error() {
    for value in [f32::NAN, f32::INFINITY] {
        let norm: Vec<u8> = [value; 256].iter().flat_map(|v| v.to_le_bytes()).collect();
        let changed = Changed::new(QWEN2, |file| {
            file.tensor("output_norm.weight", &[256], Type::F32, norm.clone())
                .unwrap();
        });
        for temperature in ["0", "1"] {
            let ran = changed.run(&["--raw", "--temperature", temperature]);
            assert_eq!(ran.code, Some(1), "{}", ran.stderr);
            assert!(ran.stderr.contains("the model's output is broken"), "{}", ran.stderr);
        }
    }
}

#[test]
fn tensors_at_odd_offsets_are_read_or_refused() {
    for (i, name) in [QWEN2, GEMMA3].into_iter().enumerate() {
        for pad in 0..4 {
            let changed = Changed::new(name, |file| {
                file.set("general.alignment", 1u32)
                    .set("general.padding", "x".repeat(pad + i));
            });
            let ran = changed.run(&["--raw"]);
            verdict(&ran, &changed.path).unwrap();
        }
    }
}

#[test]
fn a_cache_type_whose_blocks_do_not_fit_the_heads_is_refused_by_its_flag() {
    let zeros = |k: u64, m: u64| ([k, m], vec![0u8; (k * m * 2) as usize]);
    let changed = Changed::new(QWEN2, |file| {
        file.set("qwen2.attention.key_length", 16u32);
        for block in 0..4 {
            for (name, k, m) in [
                ("attn_q", 256, 64),
                ("attn_k", 256, 32),
                ("attn_v", 256, 32),
                ("attn_output", 64, 256),
            ] {
                let (dims, data) = zeros(k, m);
                file.tensor(&format!("blk.{block}.{name}.weight"), &dims, Type::F16, data)
                    .unwrap();
                if name != "attn_output" {
                    let bias = vec![0; m as usize * 4];
                    file.tensor(&format!("blk.{block}.{name}.bias"), &[m], Type::F32, bias)
                        .unwrap();
                }
            }
        }
    });
    changed
        .fails(
            &["--raw", "--kv-type", "q8_0"],
            &["--kv-type q8_0", "heads of 16 values"],
        )
        .unwrap();
    assert_eq!(changed.run(&["--raw"]).code, Some(0));
}

#[test]
fn chat_templates_without_end_are_refused() {
    let templates = [
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 100000000000 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for m in messages %}",
        "{{ raise_exception('no') }}",
        "{{ messages[99].content.x }}",
    ];
    let faults = on_two_threads(templates.len(), |index| {
        let changed = Changed::new(QWEN2, |file| {
            file.set("tokenizer.chat_template", templates[index]);
        });
        let result = changed.fails(&[], &["chat_template"]);
        result.map_err(|fault| format!("{}: {fault}", templates[index]))
    });
    assert_none(&faults);
}
