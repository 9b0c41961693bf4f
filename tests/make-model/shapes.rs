//! The shapes of well-known models: their keys and tensors.

use models::gguf::{GgufWriter, Value};

use crate::vocabulary::{self, Kind};

/// A tensor that a shape has.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its sizes, fastest first.
    pub dims: Vec<u64>,
    /// Its layer, if it has one.
    pub layer: Option<u64>,
}

/// The shape of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How it is asked for.
    pub name: &'static str,
    family: Family,
    /// d, L, feed-forward size, vocabulary.
    d: u64,
    layers: u64,
    f: u64,
    vocabulary: u64,
    /// H, Hkv, hd.
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    window: u64,
    /// Experts; layers that share caches.
    extra: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Gemma3,
    Gemma3n,
    Qwen2 { tied: bool },
    GptOss,
}

use Family::*;

const TIED: Family = Qwen2 { tied: true };
const UNTIED: Family = Qwen2 { tied: false };
const GEMMA: u64 = 262_144;

/// P, the width of a layer's own inputs, and the rank of laurel.
const PER_LAYER: u64 = 256;
const LAUREL: u64 = 64;
const STREAMS: u64 = 4;

#[rustfmt::skip]
const fn shape(name: &'static str, family: Family, sizes: [u64; 4], heads: [u64; 3], window: u64, extra: u64) -> Shape {
    let [d, layers, f, vocabulary] = sizes;
    let [heads, kv_heads, head_dim] = heads;
    Shape { name, family, d, layers, f, vocabulary, heads, kv_heads, head_dim, window, extra }
}

/// All of them: name, family, [d, L, f, V], [H, Hkv, hd], window, experts or layers that share caches.
#[rustfmt::skip]
pub const SHAPES: [Shape; 12] = [
    shape("gemma3-1b",   Gemma3,  [1152, 26,  6912, GEMMA],   [ 4,  1, 256],  512, 0),
    shape("gemma3-4b",   Gemma3,  [2560, 34, 10240, GEMMA],   [ 8,  4, 256], 1024, 0),
    shape("gemma3-12b",  Gemma3,  [3840, 48, 15360, GEMMA],   [16,  8, 256], 1024, 0),
    shape("gemma3-27b",  Gemma3,  [5376, 62, 21504, GEMMA],   [32, 16, 128], 1024, 0),
    shape("qwen2-1.5b",  TIED,    [1536, 28,  8960, 151_936], [12,  2, 128],    0, 0),
    shape("qwen2-7b",    UNTIED,  [3584, 28, 18944, 152_064], [28,  4, 128],    0, 0),
    shape("qwen2-14b",   UNTIED,  [5120, 48, 13824, 152_064], [40,  8, 128],    0, 0),
    shape("qwen2-32b",   UNTIED,  [5120, 64, 27648, 152_064], [40,  8, 128],    0, 0),
    shape("gptoss-20b",  GptOss,  [2880, 24,  2880, 201_088], [64,  8,  64],  128, 32),
    shape("gptoss-120b", GptOss,  [2880, 36,  2880, 201_088], [64,  8,  64],  128, 128),
    shape("gemma3n-e2b", Gemma3n, [2048, 30,  8192, GEMMA],   [ 8,  2, 256],  512, 10),
    shape("gemma3n-e4b", Gemma3n, [2048, 35, 16384, GEMMA],   [ 8,  2, 256],  512, 15),
];

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        SHAPES.into_iter().find(|shape| shape.name == text).ok_or_else(|| {
            let names: Vec<_> = SHAPES.iter().map(|shape| shape.name).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

impl Shape {
    /// The same with another number of layers.
    pub fn with_layers(self, layers: u64) -> Shape {
        let shared = if self.family == Gemma3n {
            self.extra.min(layers / 3)
        } else {
            self.extra
        };
        Shape {
            layers,
            extra: shared,
            ..self
        }
    }

    /// L.
    pub fn layers(&self) -> u64 {
        self.layers
    }

    /// Whether the embedding is the output projection too.
    pub fn tied(&self) -> bool {
        !matches!(self.family, UNTIED | GptOss)
    }

    fn architecture(&self) -> &'static str {
        match self.family {
            Gemma3 => "gemma3",
            Gemma3n => "gemma3n",
            Qwen2 { .. } => "qwen2",
            GptOss => "gpt-oss",
        }
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> Vec<Tensor> {
        let mut all = List::default();
        let (d, v) = (self.d, self.vocabulary);
        all.add("token_embd.weight", &[d, v]);
        if self.family == Gemma3n {
            let own = PER_LAYER * self.layers;
            all.add("per_layer_token_embd.weight", &[own, v]);
            all.add("per_layer_model_proj.weight", &[d, own]);
            all.add("per_layer_proj_norm.weight", &[PER_LAYER]);
            all.add("altup_proj.weight", &[d, d, STREAMS - 1]);
            all.add("altup_unembd_proj.weight", &[d, d, STREAMS - 1]);
        }
        for i in 0..self.layers {
            all.layer = Some(i);
            self.layer(&mut all);
        }
        all.layer = None;
        all.add("output_norm.weight", &[d]);
        if !self.tied() {
            all.add("output.weight", &[d, v]);
        }
        all.tensors
    }

    fn layer(&self, all: &mut List) {
        let (d, f, n) = (self.d, self.f, self.extra);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let biased = matches!(self.family, Qwen2 { .. } | GptOss);
        all.add("attn_norm.weight", &[d]);
        for (name, k, m) in [("attn_q", d, q), ("attn_k", d, kv), ("attn_v", d, kv)] {
            all.linear(name, &[k, m], biased);
        }
        all.linear("attn_output", &[q, d], self.family == GptOss);
        match self.family {
            Qwen2 { .. } => self.feed_forward(all),
            Gemma3 => {
                self.gemma_norms(all);
                self.feed_forward(all);
            }
            Gemma3n => {
                self.gemma_norms(all);
                self.feed_forward(all);
                self.streams(all);
            }
            GptOss => {
                all.add("attn_sinks.weight", &[self.heads]);
                all.add("post_attention_norm.weight", &[d]);
                all.linear("ffn_gate_inp", &[d, n], true);
                for (name, k, m) in [("ffn_gate_exps", d, f), ("ffn_up_exps", d, f), ("ffn_down_exps", f, d)] {
                    all.linear(name, &[k, m, n], true);
                }
            }
        }
    }

    fn feed_forward(&self, all: &mut List) {
        all.add("ffn_norm.weight", &[self.d]);
        all.add("ffn_gate.weight", &[self.d, self.f]);
        all.add("ffn_up.weight", &[self.d, self.f]);
        all.add("ffn_down.weight", &[self.f, self.d]);
    }

    fn gemma_norms(&self, all: &mut List) {
        all.add("attn_q_norm.weight", &[self.head_dim]);
        all.add("attn_k_norm.weight", &[self.head_dim]);
        all.add("post_attention_norm.weight", &[self.d]);
        all.add("post_ffw_norm.weight", &[self.d]);
    }

    fn streams(&self, all: &mut List) {
        let (d, n) = (self.d, STREAMS);
        all.add("laurel_l.weight", &[d, LAUREL]);
        all.add("laurel_r.weight", &[LAUREL, d]);
        all.add("laurel_post_norm.weight", &[d]);
        all.add("altup_router_norm.weight", &[d]);
        all.add("altup_router.weight", &[d, n]);
        all.add("altup_predict_coef.weight", &[n, n * n]);
        all.add("altup_correct_coef.weight", &[n, n]);
        all.add("altup_correct_scale.weight", &[d]);
        all.add("inp_gate.weight", &[d, PER_LAYER]);
        all.add("proj.weight", &[PER_LAYER, d]);
        all.add("post_norm.weight", &[d]);
    }

    /// Sets all metadata.
    pub fn set_metadata(&self, writer: &mut GgufWriter) {
        let architecture = self.architecture();
        writer.set("general.architecture", architecture);
        writer.set("general.name", format!("random weights in the shape of {}", self.name));
        let mut set = |key: &str, value: Value| {
            writer.set(&format!("{architecture}.{key}"), value);
        };
        let size = |n: u64| Value::U32(n as u32);
        set("block_count", size(self.layers));
        set("embedding_length", size(self.d));
        set("feed_forward_length", size(self.f));
        set("context_length", size(131_072));
        set("attention.head_count", size(self.heads));
        set("attention.head_count_kv", size(self.kv_heads));
        set("attention.key_length", size(self.head_dim));
        set("attention.value_length", size(self.head_dim));
        set("attention.layer_norm_rms_epsilon", Value::F32(1e-6));
        set("rope.freq_base", Value::F32(1e6));
        if self.window > 0 {
            set("attention.sliding_window", size(self.window));
        }
        if self.family == GptOss {
            set("expert_count", size(self.extra));
            set("expert_used_count", size(4));
            set("expert_feed_forward_length", size(self.f));
            set("rope.scaling.type", Value::String("yarn".into()));
            set("rope.scaling.factor", Value::F32(32.0));
            set("rope.scaling.original_context_length", size(4096));
        }
        if self.family == Gemma3n {
            self.gemma3n_metadata(&mut set);
        }
        let (kind, special) = self.vocabulary_kind();
        vocabulary::set(writer, kind, self.vocabulary as usize, special);
    }

    fn gemma3n_metadata(&self, set: &mut dyn FnMut(&str, Value)) {
        let size = |n: u64| Value::U32(n as u32);
        let windowed: Vec<bool> = (1..=self.layers).map(|i| !i.is_multiple_of(5)).collect();
        // the gates of the first ten layers let 5 % through
        let sparsity = (0..self.layers).map(|i| if i < 10 { 1.644_853_6 } else { f32::NEG_INFINITY });
        set("attention.sliding_window_pattern", windowed.into());
        set("attention.shared_kv_layers", size(self.extra));
        set("embedding_length_per_layer_input", size(PER_LAYER));
        set("altup.num_inputs", size(STREAMS));
        set("altup.active_idx", size(0));
        set("activation_sparsity_scale", sparsity.collect::<Vec<f32>>().into());
        set("final_logit_softcapping", Value::F32(30.0));
    }

    fn vocabulary_kind(&self) -> (Kind, &'static [&'static str]) {
        match self.family {
            Gemma3 | Gemma3n => (Kind::SentencePiece, &["<end_of_turn>", "<start_of_turn>"]),
            Qwen2 { .. } => (
                Kind::ByteLevel("qwen2"),
                &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            ),
            GptOss => (
                Kind::ByteLevel("gpt-4o"),
                &[
                    "<|return|>",
                    "<|endoftext|>",
                    "<|call|>",
                    "<|start|>",
                    "<|channel|>",
                    "<|message|>",
                    "<|end|>",
                ],
            ),
        }
    }
}

#[derive(Default)]
struct List {
    tensors: Vec<Tensor>,
    layer: Option<u64>,
}

impl List {
    fn add(&mut self, name: &str, dims: &[u64]) {
        let name = match self.layer {
            Some(i) => format!("blk.{i}.{name}"),
            None => name.to_owned(),
        };
        self.tensors.push(Tensor {
            name,
            dims: dims.to_vec(),
            layer: self.layer,
        });
    }

    fn linear(&mut self, name: &str, dims: &[u64], biased: bool) {
        self.add(&format!("{name}.weight"), dims);
        if biased {
            self.add(&format!("{name}.bias"), &dims[1..]);
        }
    }
}
