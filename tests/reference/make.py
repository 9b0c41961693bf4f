"""Write a tiny random model of each family as GGUF, with what the reference says of that very file.

`python make.py [NAME…]` writes ../fixtures/families/NAME.gguf, NAME.safetensors and NAME.json; see README.md.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from families import FAMILIES, VOCABULARY, Family

FIXTURES = Path(__file__).parent.parent / "fixtures"
PROMPT_TOKENS = 160
GENERATED = 24
# logits are kept of the last of every so many positions
KEPT = 4
# matrices whose products spread over more than 1
SPREADS = {"q_proj": 2.0, "qkv_proj": 1.4, "lm_head": 2.0, "mlp.gate.": 2.0}
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Vocabulary:
    """The first pieces and merges of the qwen2 fixture, and a prompt in them."""

    def __init__(self):
        fields = gguf.GGUFReader(FIXTURES / "qwen2-q8_0.gguf").fields
        pieces = fields["tokenizer.ggml.tokens"].contents()
        merges = fields["tokenizer.ggml.merges"].contents()
        ordinary = VOCABULARY - len(SPECIALS)
        self.tokens = pieces[:ordinary] + SPECIALS
        self.types = [gguf.TokenType.NORMAL] * ordinary + [gguf.TokenType.CONTROL] * len(SPECIALS)
        self.merges = merges[:ordinary - 256]
        assert [merge.replace(" ", "") for merge in self.merges] == pieces[256:ordinary]
        whole = self.tokenizer(pieces, merges)
        text = whole.decode(json.loads((FIXTURES / "qwen2-q8_0.json").read_text())["prompt_tokens"])
        self.prompt = self.tokenizer(self.tokens, self.merges).encode(text).ids[:PROMPT_TOKENS]
        assert len(self.prompt) == PROMPT_TOKENS

    @staticmethod
    def tokenizer(pieces: list[str], merges: list[str]) -> Tokenizer:
        ids = {piece: i for i, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[tuple(merge.split(" ")) for merge in merges]))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer


def norm_mean(family: Family, name: str) -> float:
    """gemma's norms add 1 by themselves; its blocks have to stand out against embeddings of size 1."""
    if family.architecture != "gemma2":
        return 1.0
    return 1.5 if "post_" in name else 0.0


def random_state(family: Family) -> dict[str, torch.Tensor]:
    """Weights that keep activations near 1, so that scores and logits spread over a few units."""
    generator = torch.Generator().manual_seed(family.seed)
    state = {}
    for name, old in family.model(family.config).state_dict().items():
        drawn = torch.randn(old.shape, generator=generator)
        if "norm" in name:
            drawn = 0.3 * drawn + norm_mean(family, name)
        elif old.ndim == 1:
            drawn = 0.5 * drawn
        else:
            spread = next((spread for part, spread in SPREADS.items() if part in name), 1.0)
            drawn = spread * drawn / old.shape[-1] ** 0.5
        state[name] = drawn
    return state


def to_file(family: Family, state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    tensors = {}
    for name, place in family.tensors.items():
        part = state[place.reference].chunk(place.parts, place.axis)[place.part]
        tensors[name] = place.to_file(part).contiguous().numpy()
    return tensors | {name: np.array(values, np.float32) for name, values in family.extra.items()}


def to_reference(family: Family, tensors: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    parts: dict[str, list] = {}
    for name, place in family.tensors.items():
        parts.setdefault(place.reference, []).append((place, place.to_reference(torch.from_numpy(tensors[name]))))
    state = {
        name: torch.cat([part for _, part in sorted(found, key=lambda p: p[0].part)], found[0][0].axis)
        for name, found in parts.items()
    }
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    return state


def stored_type(name: str, tensor: np.ndarray, quant: str) -> Type:
    """Norms, biases, factors and routers are F32 in converted files."""
    return Type.F32 if tensor.ndim < 2 or "ffn_gate_inp" in name else Type[quant]


def write(family: Family, vocabulary: Vocabulary, path: Path):
    writer = gguf.GGUFWriter(path, family.architecture)
    writer.add_name(f"Random {family.name}")
    writer.add_description("A tiny random model, for tests")
    writer.add_license("CC0-1.0")
    for key, value in family.keys.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add[type(value)](f"{family.architecture}.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(vocabulary.tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    for name, tensor in to_file(family, random_state(family)).items():
        kind = stored_type(name, tensor, family.quant)
        writer.add_tensor(name, quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_back(path: Path) -> dict[str, np.ndarray]:
    tensors = {}
    for tensor in gguf.GGUFReader(path).tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        values = dequantize(np.asarray(tensor.data), tensor.tensor_type).reshape(shape)
        tensors[tensor.name] = np.array(values, np.float32)
    return tensors


@torch.no_grad()
def reference(family: Family, path: Path, prompt: list[int], greedy_from: int, context: int | None):
    family.config._attn_implementation = "eager"
    model = family.model(family.config).float().eval()
    model.load_state_dict(to_reference(family, read_back(path)))

    def logits(ids):
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()

    rows = list(range(KEPT - 1, len(prompt), KEPT))
    ids, margins = list(prompt[:greedy_from]), []
    for _ in range(GENERATED):
        best = torch.topk(logits(ids)[-1], 2)
        margins.append(float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    facts = {
        "model": path.name, "context": context, "prompt_tokens": prompt, "rows": rows,
        "greedy_from": greedy_from, "greedy_tokens": ids[greedy_from:], "greedy_margins": margins,
    }
    return {"logits": logits(prompt)[rows].numpy()}, facts


def describe(family: Family, path: Path, name: str, prompt: list[int], greedy_from: int, context: int | None):
    arrays, facts = reference(family, path, prompt, greedy_from, context)
    save_file(arrays, path.with_name(f"{name}.safetensors"))
    path.with_name(f"{name}.json").write_text(json.dumps(facts) + "\n")
    spread, margins = arrays["logits"].std(), np.array(facts["greedy_margins"])
    tokens = len(set(facts["greedy_tokens"]))
    print(f"{name}: {path.stat().st_size} bytes, logits spread over {spread:.2f}, "
          f"{tokens} different tokens, margins from {margins.min():.3f}")


def main():
    vocabulary = Vocabulary()
    (FIXTURES / "families").mkdir(exist_ok=True)
    for family in FAMILIES:
        if len(sys.argv) > 1 and family.name not in sys.argv[1:]:
            continue
        path = FIXTURES / "families" / f"{family.name}.gguf"
        write(family, vocabulary, path)
        describe(family, path, family.name, vocabulary.prompt, family.greedy_from, family.context)
        if family.also:
            name, length, context = family.also
            describe(family, path, name, vocabulary.prompt[:length], 24, context)


main()
