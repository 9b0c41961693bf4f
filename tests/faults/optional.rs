//! What files of each architecture may leave out.

/// Of one architecture.
pub struct Optional {
    pub architecture: &'static str,
    /// Keys that may be absent, without their prefix; where they stand, their values are checked.
    pub keys: &'static [&'static str],
    /// Keys whose values nobody reads.
    pub unread: &'static [&'static str],
    /// Ends of the names of tensors that may be absent.
    pub tensors: &'static [&'static str],
}

/// What any file may leave out.
pub const KEYS: [&str; 5] = [
    "attention.value_length",
    "rope.freq_base",
    "tokenizer.chat_template",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.eos_token_id",
];
pub const UNREAD: [&str; 3] = ["general.description", "general.license", "general.name"];

/// A file with a vocabulary of byte pairs takes all pieces that have no type for text.
const TYPES: &str = "tokenizer.ggml.token_type";
const TURN_END: &str = "tokenizer.ggml.eot_token_id";
const OUTPUT: &str = "output.weight";

pub const OPTIONAL: [Optional; 10] = [
    Optional {
        architecture: "llama",
        keys: &[TYPES, "attention.key_length", "rope.dimension_count"],
        unread: &["vocab_size"],
        tensors: &[OUTPUT, "rope_freqs.weight", ".bias"],
    },
    Optional {
        architecture: "mistral3",
        keys: &[
            TYPES,
            "attention.key_length",
            "attention.temperature_scale",
            "rope.dimension_count",
            "rope.scaling.type",
            "rope.scaling.yarn_beta_fast",
            "rope.scaling.yarn_beta_slow",
            "rope.scaling.yarn_log_multiplier",
            "tokenizer.ggml.pre",
        ],
        unread: &["vocab_size"],
        tensors: &[OUTPUT],
    },
    Optional {
        architecture: "phi3",
        keys: &[
            TYPES,
            "attention.head_count_kv",
            "attention.sliding_window",
            "rope.dimension_count",
            "rope.scaling.attn_factor",
        ],
        // of files without factors on frequencies
        unread: &["rope.scaling.original_context_length"],
        tensors: &[OUTPUT],
    },
    Optional {
        architecture: "qwen2",
        keys: &[TYPES, TURN_END],
        unread: &[],
        tensors: &[OUTPUT],
    },
    Optional {
        architecture: "qwen3",
        keys: &[
            TYPES,
            "attention.key_length",
            "rope.scaling.type",
            "rope.scaling.yarn_attn_factor",
            "rope.scaling.yarn_beta_fast",
            "rope.scaling.yarn_beta_slow",
        ],
        unread: &[],
        tensors: &[OUTPUT],
    },
    Optional {
        architecture: "qwen3moe",
        keys: &[TYPES, "attention.key_length", "expert_weights_norm"],
        unread: &["feed_forward_length"],
        tensors: &[OUTPUT],
    },
    Optional {
        architecture: "gemma2",
        keys: &[
            TYPES,
            "attention.sliding_window",
            "attn_logit_softcapping",
            "final_logit_softcapping",
        ],
        unread: &[],
        tensors: &[],
    },
    Optional {
        architecture: "gemma3",
        keys: &[
            TURN_END,
            "attention.layer_norm_rms_epsilon",
            "rope.scaling.type",
            "tokenizer.ggml.add_space_prefix",
            "tokenizer.ggml.pre",
            "tokenizer.ggml.unknown_token_id",
        ],
        unread: &["tokenizer.ggml.padding_token_id"],
        tensors: &[],
    },
    Optional {
        architecture: "gemma3n",
        keys: &[
            TURN_END,
            "attention.sliding_window_pattern",
            "final_logit_softcapping",
            "tokenizer.ggml.add_space_prefix",
            "tokenizer.ggml.pre",
            "tokenizer.ggml.unknown_token_id",
        ],
        unread: &["tokenizer.ggml.padding_token_id"],
        tensors: &[],
    },
    Optional {
        architecture: "gpt-oss",
        keys: &[
            TYPES,
            TURN_END,
            "expert_feed_forward_length",
            "rope.scaling.type",
            "tokenizer.ggml.bos_token_id",
            "tokenizer.ggml.pre",
        ],
        // of files that say `expert_feed_forward_length`
        unread: &["feed_forward_length"],
        tensors: &[OUTPUT],
    },
];

/// Changes after which a file is as good as before.
pub const HARMLESS: [(&str, &str); 2] = [
    ("gemma3n", "tensor per_layer_token_embd.weight with 2047 in dimension 1"),
    ("gemma3n", "key gemma3n.attention.sliding_window_pattern as U32(7)"),
];
