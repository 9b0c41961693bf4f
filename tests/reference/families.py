"""The tiny models: their configurations, their GGUF keys, and where each GGUF tensor stands in the reference.

Keys and tensor names are those that llama.cpp's converter writes for the family.
"""

from dataclasses import dataclass, field
from typing import Callable

import torch
from transformers import (
    Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, Ministral3Config, Ministral3ForCausalLM,
    MixtralConfig, MixtralForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen3Config, Qwen3ForCausalLM,
    Qwen3MoeConfig, Qwen3MoeForCausalLM,
)

VOCABULARY = 288
D, FF, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 64, 64, 2, 4, 2, 16
CONTEXT = 512


@dataclass
class Place:
    """A GGUF tensor is part `part` of `parts` along dimension `axis` of the reference's tensor, changed by `to_file`."""

    reference: str
    to_file: Callable = lambda x: x
    to_reference: Callable = lambda x: x
    part: int = 0
    parts: int = 1
    axis: int = 0


def permuted(reference: str, heads: int) -> Place:
    """Rows of each head in the order that turns halves into neighbours."""
    def swap(x, outer, inner):
        return x.reshape(heads, outer, inner, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)

    def half(x):
        return x.shape[0] // heads // 2

    return Place(reference, lambda x: swap(x, 2, half(x)), lambda x: swap(x, half(x), 2))


def plus_one(reference: str) -> Place:
    return Place(reference, lambda x: x + 1, lambda x: x - 1)


@dataclass
class Family:
    """A model as a file and as its reference."""

    name: str
    architecture: str
    model: Callable
    config: object
    keys: dict
    tensors: dict[str, Place]
    quant: str = "F16"
    # chosen so that the greedy continuation is no mere repetition
    seed: int = 0
    extra: dict[str, list[float]] = field(default_factory=dict)
    greedy_from: int = 24
    # what the program is to ask for, where the rotation depends on it
    context: int | None = None
    # another prompt length and context over the same file
    also: tuple[str, int, int] | None = None


def places(layers: int, layer: dict[str, Place], tied: bool = False, norm=Place) -> dict[str, Place]:
    table = {"token_embd.weight": Place("model.embed_tokens.weight"), "output_norm.weight": norm("model.norm.weight")}
    if not tied:
        table["output.weight"] = Place("lm_head.weight")
    for i in range(layers):
        for name, place in layer.items():
            under = f"model.layers.{i}.{place.reference}"
            table[f"blk.{i}.{name}"] = Place(**{**vars(place), "reference": under})
    return table


NORMS = {"attn_norm.weight": Place("input_layernorm.weight"), "ffn_norm.weight": Place("post_attention_layernorm.weight")}
ATTENTION = {f"attn_{gguf}.weight": Place(f"self_attn.{hf}_proj.weight")
             for gguf, hf in {"q": "q", "k": "k", "v": "v", "output": "o"}.items()}
PAIRS = ATTENTION | {"attn_q.weight": permuted("self_attn.q_proj.weight", HEADS),
                     "attn_k.weight": permuted("self_attn.k_proj.weight", KV_HEADS)}
HEAD_NORMS = {f"attn_{x}_norm.weight": Place(f"self_attn.{x}_norm.weight") for x in "qk"}
NETWORK = {f"ffn_{x}.weight": Place(f"mlp.{x}_proj.weight") for x in ("gate", "up", "down")}
EXPERTS = {
    "ffn_gate_inp.weight": Place("mlp.gate.weight"),
    "ffn_gate_exps.weight": Place("mlp.experts.gate_up_proj", part=0, parts=2, axis=1),
    "ffn_up_exps.weight": Place("mlp.experts.gate_up_proj", part=1, parts=2, axis=1),
    "ffn_down_exps.weight": Place("mlp.experts.down_proj"),
}
BIASES = {
    "attn_q.bias": permuted("self_attn.q_proj.bias", HEADS),
    "attn_k.bias": permuted("self_attn.k_proj.bias", KV_HEADS),
    "attn_v.bias": Place("self_attn.v_proj.bias"),
    "attn_output.bias": Place("self_attn.o_proj.bias"),
    **{f"ffn_{x}.bias": Place(f"mlp.{x}_proj.bias") for x in ("gate", "up", "down")},
}
FUSED = {
    "attn_qkv.weight": Place("self_attn.qkv_proj.weight"),
    "attn_output.weight": Place("self_attn.o_proj.weight"),
    "ffn_up.weight": Place("mlp.gate_up_proj.weight"),
    "ffn_down.weight": Place("mlp.down_proj.weight"),
}
GEMMA2 = {
    **ATTENTION, **NETWORK,
    "attn_norm.weight": plus_one("input_layernorm.weight"),
    "post_attention_norm.weight": plus_one("post_attention_layernorm.weight"),
    "ffn_norm.weight": plus_one("pre_feedforward_layernorm.weight"),
    "post_ffw_norm.weight": plus_one("post_feedforward_layernorm.weight"),
}


def sizes(**changes) -> dict:
    """A reference configuration."""
    return dict(
        vocab_size=VOCABULARY, hidden_size=D, intermediate_size=FF, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    ) | changes


def keys(**changes) -> dict:
    """The keys of every family."""
    return {
        "context_length": CONTEXT, "embedding_length": D, "block_count": LAYERS, "feed_forward_length": FF,
        "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10_000.0,
    } | changes


def head_keys(size: int) -> dict:
    return {"attention.key_length": size, "attention.value_length": size}


def theta(kind: str = "default", **more) -> dict:
    return {"rope_type": kind, "rope_theta": 10_000.0, **more}


def llama3_factors(head_dim: int, scaling: dict) -> list[float]:
    """What Llama 3.1's scaling divides each frequency by."""
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    factors = []
    for j in range(head_dim // 2):
        turns = original * scaling["rope_theta"] ** (-2 * j / head_dim) / (2 * torch.pi)
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors


LLAMA3 = theta("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
WIDE = 32
YARN = theta("yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0)
LONG_ORIGINAL = 96
SHORT_FACTORS = [1.0, 1.05, 1.1, 1.2, 1.3, 1.5]
LONG_FACTORS = [1.0, 1.3, 2.0, 3.1, 4.7, 6.0]
DEEP, THIN = 46, 16

FAMILIES = [
    Family(
        "llama3-f16", "llama", LlamaForCausalLM,
        LlamaConfig(**sizes(head_dim=HEAD_DIM, tie_word_embeddings=True, rope_parameters=LLAMA3)),
        keys() | head_keys(HEAD_DIM) | {"vocab_size": VOCABULARY, "rope.dimension_count": HEAD_DIM},
        places(LAYERS, NORMS | PAIRS | NETWORK, tied=True),
        extra={"rope_freqs.weight": llama3_factors(HEAD_DIM, LLAMA3)}, seed=4,
    ),
    Family(  # heads that are wider than d / H, and biases everywhere
        "llama-biased-f16", "llama", LlamaForCausalLM,
        LlamaConfig(**sizes(head_dim=WIDE, attention_bias=True, mlp_bias=True, rope_parameters=theta())),
        keys() | head_keys(WIDE) | {"vocab_size": VOCABULARY, "rope.dimension_count": WIDE},
        places(LAYERS, NORMS | PAIRS | NETWORK | BIASES), seed=8,
    ),
    Family(
        "mixtral-f16", "llama", MixtralForCausalLM,
        MixtralConfig(**sizes(intermediate_size=32, num_local_experts=4, num_experts_per_tok=2, sliding_window=None,
                              rope_parameters=theta())),
        keys(feed_forward_length=32, expert_count=4, expert_used_count=2)
        | {"vocab_size": VOCABULARY, "rope.dimension_count": HEAD_DIM},
        places(LAYERS, NORMS | PAIRS | EXPERTS), seed=8,
    ),
    Family(  # scores grow every 32 tokens
        "mistral3-f16", "mistral3", Ministral3ForCausalLM,
        Ministral3Config(**sizes(head_dim=HEAD_DIM, rope_parameters={
            **YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3})),
        keys() | head_keys(HEAD_DIM) | {
            "vocab_size": VOCABULARY, "rope.dimension_count": HEAD_DIM, "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32,
            "rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0,
            "rope.scaling.yarn_log_multiplier": 1.0, "attention.temperature_scale": 0.3},
        places(LAYERS, NORMS | PAIRS | NETWORK), seed=3,
    ),
    Family(
        "qwen3-f16", "qwen3", Qwen3ForCausalLM,
        Qwen3Config(**sizes(head_dim=WIDE, tie_word_embeddings=True, rope_parameters=theta())),
        keys() | head_keys(WIDE), places(LAYERS, NORMS | ATTENTION | HEAD_NORMS | NETWORK, tied=True), seed=3,
    ),
    Family(  # the long context that qwen3's page recommends, with a factor on cos and sin of its own
        "qwen3-yarn-q8_0", "qwen3", Qwen3ForCausalLM,
        Qwen3Config(**sizes(head_dim=HEAD_DIM, rope_parameters={**YARN, "beta_fast": 16.0, "attention_factor": 1.2})),
        keys() | head_keys(HEAD_DIM) | {
            "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32,
            "rope.scaling.yarn_beta_fast": 16.0, "rope.scaling.yarn_beta_slow": 1.0,
            "rope.scaling.yarn_attn_factor": 1.2},
        places(LAYERS, NORMS | ATTENTION | HEAD_NORMS | NETWORK), quant="Q8_0", seed=11,
    ),
    *(Family(
        name, "qwen3moe", Qwen3MoeForCausalLM,
        Qwen3MoeConfig(**sizes(head_dim=HEAD_DIM, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=16,
                               norm_topk_prob=normed, rope_parameters=theta())),
        keys(expert_count=8, expert_used_count=3, expert_feed_forward_length=16, **said) | head_keys(HEAD_DIM),
        places(LAYERS, NORMS | ATTENTION | HEAD_NORMS | EXPERTS), seed=6,
    ) for name, normed, said in [
        ("qwen3moe-f16", True, {}), ("qwen3moe-unnormed-f16", False, {"expert_weights_norm": False})]),
    Family(
        "gemma2-f16", "gemma2", Gemma2ForCausalLM,
        Gemma2Config(**sizes(head_dim=WIDE, query_pre_attn_scalar=WIDE, sliding_window=32, attn_logit_softcapping=5.0,
                             final_logit_softcapping=2.0, tie_word_embeddings=True, rope_parameters=theta())),
        keys() | head_keys(WIDE) | {
            "attention.sliding_window": 32, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 2.0},
        places(LAYERS, GEMMA2, tied=True, norm=plus_one), seed=2,
    ),
    Family(  # the 27B model is known by its 46 layers, and scales scores by d / H, which is 8 here
        "gemma2-27b-f16", "gemma2", Gemma2ForCausalLM,
        Gemma2Config(**sizes(hidden_size=THIN, intermediate_size=16, num_hidden_layers=DEEP, num_attention_heads=2,
                             num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=THIN // 2, sliding_window=48,
                             tie_word_embeddings=True, rope_parameters=theta())),
        keys(embedding_length=THIN, feed_forward_length=16, block_count=DEEP)
        | {"attention.head_count": 2, "attention.head_count_kv": 1} | head_keys(16)
        | {"attention.sliding_window": 48, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        places(DEEP, GEMMA2, tied=True, norm=plus_one), seed=3,
    ),
    Family(  # half of each head is rotated, all layers have a window
        "phi3-q8_0", "phi3", Phi3ForCausalLM,
        Phi3Config(**sizes(num_key_value_heads=HEADS, original_max_position_embeddings=CONTEXT, sliding_window=48,
                           rope_parameters=theta(partial_rotary_factor=0.5))),
        keys() | {"attention.head_count_kv": HEADS, "rope.dimension_count": HEAD_DIM // 2,
                  "rope.scaling.original_context_length": CONTEXT, "attention.sliding_window": 48},
        places(LAYERS, NORMS | FUSED), quant="Q8_0", seed=7,
    ),
    Family(  # three quarters of each head are rotated; factors change with a context above 96
        "phi3-long-f16", "phi3", Phi3ForCausalLM,
        Phi3Config(**sizes(original_max_position_embeddings=LONG_ORIGINAL, rope_parameters=theta(
            "longrope", partial_rotary_factor=0.75, short_factor=SHORT_FACTORS, long_factor=LONG_FACTORS,
            original_max_position_embeddings=LONG_ORIGINAL))),
        keys() | {"rope.dimension_count": HEAD_DIM * 3 // 4, "rope.scaling.original_context_length": LONG_ORIGINAL,
                  "rope.scaling.attn_factor": (1 + torch.log(torch.tensor(CONTEXT / LONG_ORIGINAL))
                                               / torch.log(torch.tensor(float(LONG_ORIGINAL)))).sqrt().item(),
                  "attention.sliding_window": 0},
        places(LAYERS, NORMS | FUSED),
        extra={"rope_factors_short.weight": SHORT_FACTORS, "rope_factors_long.weight": LONG_FACTORS},
        greedy_from=112, context=256, also=("phi3-short-f16", LONG_ORIGINAL, LONG_ORIGINAL),
    ),
]
