//! What the original models call tensors, for messages about those that are missing.

/// Names in GGUF files, without their layer and part, and those in the original models.
const ORIGINS: &[(&str, &str)] = &[
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_sinks", "self_attn.sinks"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "post_attention_layernorm or pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_gate_inp", "mlp.gate or mlp.router"),
    ("ffn_gate_exps", "mlp.experts.gate_proj"),
    ("ffn_up_exps", "mlp.experts.up_proj"),
    ("ffn_down_exps", "mlp.experts.down_proj"),
    ("altup_proj", "altup_projections"),
    ("altup_unembd_proj", "altup_unembed_projections"),
    ("per_layer_token_embd", "embed_tokens_per_layer"),
    ("per_layer_model_proj", "per_layer_model_projection"),
    ("per_layer_proj_norm", "per_layer_projection_norm"),
    ("altup_router", "altup.modality_router"),
    ("altup_router_norm", "altup.router_norm"),
    ("altup_predict_coef", "altup.prediction_coefs"),
    ("altup_correct_coef", "altup.correction_coefs"),
    ("altup_correct_scale", "altup.correct_output_scale"),
    ("laurel_l", "laurel.linear_left"),
    ("laurel_r", "laurel.linear_right"),
    ("laurel_post_norm", "laurel.post_laurel_norm"),
    ("inp_gate", "per_layer_input_gate"),
    ("proj", "per_layer_projection"),
    ("post_norm", "post_per_layer_input_norm"),
];

/// Tensors that hold several: one of them, and the one that holds it.
const FUSED: &[(&str, &str)] = &[
    ("attn_q", "attn_qkv"),
    ("attn_k", "attn_qkv"),
    ("attn_v", "attn_qkv"),
    ("ffn_gate", "ffn_gate_up"),
    ("ffn_up", "ffn_gate_up"),
    ("ffn_gate_exps", "ffn_gate_up_exps"),
    ("ffn_up_exps", "ffn_gate_up_exps"),
];

/// `blk.0.attn_q.weight` in three: `blk.0.`, `attn_q`, `.weight`.
fn split(name: &str) -> (&str, &str, &str) {
    let rest = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let rest = rest.map_or(name, |(_, rest)| rest);
    let own = rest.split('.').next().unwrap_or(rest);
    let (block, part) = (&name[..name.len() - rest.len()], &rest[own.len()..]);
    (block, own, part)
}

/// What the original model calls the tensor `name`.
pub fn original(name: &str) -> Option<&'static str> {
    let (_, own, _) = split(name);
    ORIGINS
        .iter()
        .find(|(known, _)| *known == own)
        .map(|(_, original)| *original)
}

/// The tensor that may hold the tensor `name` among others.
pub fn fused(name: &str) -> Option<String> {
    let (block, own, part) = split(name);
    let fused = FUSED.iter().find(|(known, _)| *known == own);
    fused.map(|(_, fused)| format!("{block}{fused}{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_every_layer() {
        assert_eq!(original("blk.12.attn_q.weight"), Some("self_attn.q_proj"));
        assert_eq!(original("token_embd.weight"), Some("model.embed_tokens"));
        assert_eq!(fused("blk.3.attn_v.bias").as_deref(), Some("blk.3.attn_qkv.bias"));
        assert_eq!((original("blk"), fused("blk.")), (None, None));
    }
}
