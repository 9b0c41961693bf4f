//! What GGUF's standard keys say, for messages about them.

/// Keys without their architecture's prefix, and what their values are.
const MEANINGS: &[(&str, &str)] = &[
    ("general.architecture", "the name of the architecture, such as llama"),
    ("general.alignment", "the bytes to whose multiples tensors are aligned"),
    ("context_length", "how many tokens of context the model was trained for"),
    ("embedding_length", "how many values a token has between layers"),
    ("block_count", "how many layers there are"),
    (
        "feed_forward_length",
        "how many hidden values a feed-forward network has",
    ),
    ("expert_feed_forward_length", "how many hidden values an expert has"),
    ("expert_count", "how many experts a layer has"),
    ("expert_used_count", "how many experts serve a token"),
    (
        "expert_weights_norm",
        "whether the weights of the experts that serve a token are normalized",
    ),
    ("expert_weights_scale", "a factor on the weights of experts"),
    ("attention.head_count", "how many query heads a layer has"),
    (
        "attention.head_count_kv",
        "how many heads of keys and values a layer has",
    ),
    ("attention.key_length", "how many values a head has"),
    ("attention.value_length", "how many values a head has"),
    ("attention.layer_norm_rms_epsilon", "the ε of norms, such as 1e-6"),
    ("attention.sliding_window", "how many tokens layers with a window see"),
    (
        "attention.sliding_window_pattern",
        "which layers have a window: a period, or one bool a layer",
    ),
    (
        "attention.shared_kv_layers",
        "how many of the last layers read the caches of earlier ones",
    ),
    ("attention.temperature_scale", "how scores grow with the position"),
    ("attn_logit_softcapping", "the softcap of attention's scores"),
    ("final_logit_softcapping", "the softcap of logits"),
    ("rope.dimension_count", "how many values of a head are rotated"),
    ("rope.freq_base", "the base θ of rotary embedding, such as 10000"),
    (
        "rope.freq_base_swa",
        "the base θ of rotary embedding in layers with a window",
    ),
    (
        "rope.scaling.type",
        "how the context was extended: none, linear or yarn",
    ),
    ("rope.scaling.factor", "by how much the context was extended"),
    (
        "rope.scaling.original_context_length",
        "the context before it was extended, in tokens",
    ),
    ("rope.scaling.attn_factor", "a factor on rotated values"),
    (
        "embedding_length_per_layer_input",
        "how many values of its own input each layer takes",
    ),
    ("altup.num_inputs", "how many streams a token has"),
    ("altup.active_idx", "which stream layers work on"),
    (
        "activation_sparsity_scale",
        "one number a layer: how sparse its gate is",
    ),
    ("tokenizer.ggml.model", "the kind of tokenizer: gpt2 or llama"),
    ("tokenizer.ggml.tokens", "the pieces of the vocabulary"),
    ("tokenizer.ggml.merges", "which pieces are merged, the first ones first"),
    (
        "tokenizer.ggml.scores",
        "one number a piece: the highest are merged first",
    ),
    (
        "tokenizer.ggml.token_type",
        "what each piece is: text, control, byte, …",
    ),
    ("tokenizer.ggml.pre", "how text is cut into words"),
    ("tokenizer.chat_template", "the Jinja template of conversations"),
];

/// What the value of `key` is, where the key is a standard one.
pub(super) fn meaning(key: &str) -> Option<&'static str> {
    let own = key.split_once('.').map_or(key, |(_, own)| own);
    let known = MEANINGS.iter().find(|(known, _)| *known == key || *known == own);
    known.map(|(_, meaning)| *meaning)
}
