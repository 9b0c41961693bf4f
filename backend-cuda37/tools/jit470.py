#!/usr/bin/env python3
"""Compiles the modules of ptx/ with driver 470's own PTX compiler, which is what the driver of a K80 does when a program starts.

No card is needed. Fails where a module is refused, or, but for --untimed, where the modules that one model needs take more than
2 s of a processor's time, one after the other. The driver keeps what it compiled, and compiles a module when the first of its
kernels is launched: a first start takes that time, spread over the first prompt and the first token."""

import argparse
import ctypes
import sys
import time
from multiprocessing import Pool

import modules
import toolchain

LIMIT_S = 2.0
# Modules but for attention: the types of weights in products, the type of the embedding, what else is not every model's. A step
# of one token, of a few and of many are all counted.
EVERY = ["attention_join", "cache", "copy", "elementwise", "norm", "rope"]
MODELS = {
    "Q4_K_M": (["q4_k", "q6_k"], "q6_k", []),
    "Q4_K_M of rows that 256 does not divide": (["q4_k", "q6_k", "q5_0", "q8_0"], "q8_0", []),
    "Q8_0": (["q8_0"], "q8_0", []),
    "gemma3n Q4_K_M": (["q4_k", "q6_k", "q5_0", "f16"], "q6_k", ["mix.f32.f32", "router"]),
    "gpt-oss MXFP4, the rest Q8_0": (["mxfp4", "q8_0", "f32"], "q8_0", ["experts", "router"]),
    "gpt-oss MXFP4, the rest BF16": (["mxfp4", "bf16", "f32"], "bf16", ["experts", "router"]),
}
HEADS = ["64", "128", "256"]
SHARES = ["2", "4", "8"]


def compile_module(given):
    """Milliseconds, or the compiler's words."""
    library, module = given
    compiler = ctypes.CDLL(library)
    text = module.ptx.read_bytes()
    handle, size = ctypes.c_void_p(), ctypes.c_size_t()
    begun = time.process_time()
    compiler.nvPTXCompilerCreate(ctypes.byref(handle), ctypes.c_size_t(len(text)), text)
    options = (ctypes.c_char_p * 1)(b"--gpu-name=sm_37")
    done = compiler.nvPTXCompilerCompile(handle, 1, options)
    milliseconds = 1000 * (time.process_time() - begun)
    compiler.nvPTXCompilerGetErrorLogSize(handle, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value + 1)
    compiler.nvPTXCompilerGetErrorLog(handle, log)
    compiler.nvPTXCompilerDestroy(ctypes.byref(handle))
    return milliseconds, None if done == 0 else log.value.decode().strip() or f"error {done}"


def needed(times, types, embedding, others, head, share):
    """Seconds for what a model needs over a cache of f16, and those for its steps of one token alone."""
    attention = [f"attention_part.f16.{head}.{share}", "attention_join"]
    one = [f"product_one.{t}" for t in types] + [f"rows.{embedding}", *attention, *EVERY, *others]
    all_ = one + [f"product_{kind}.{t}" for kind in ["few", "many"] for t in types] + [f"attention_tile.f16.{head}"]
    return sum(times[name] for name in set(all_)) / 1000, sum(times[name] for name in set(one)) / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    toolchain.add_option(parser)
    modules.add_argument(parser)
    parser.add_argument("--untimed", action="store_true", help="print times, and fail only where a module is refused")
    arguments = parser.parse_args()
    try:
        library = str(toolchain.Toolchain(arguments.toolchain).jit470())
    except toolchain.Missing as reason:
        sys.exit(f"jit470: {reason}")
    chosen = modules.modules(arguments.module)
    with Pool() as pool:
        results = pool.map(compile_module, [(library, m) for m in chosen], chunksize=1)
    faults = 0
    for module, (milliseconds, words) in zip(chosen, results):
        print(f"{module.name:26} {milliseconds:7.0f} ms {words or ''}".rstrip())
        faults += words is not None
    if faults:
        sys.exit(f"jit470: {faults} modules are refused")
    if arguments.module:
        return
    times = {m.name: milliseconds for m, (milliseconds, _) in zip(chosen, results)}
    worst = {name: max(needed(times, *model, h, s) for h in HEADS for s in SHARES) for name, model in MODELS.items()}
    for name, (seconds, one) in worst.items():
        print(f"{name}: {seconds:.2f} s, {one:.2f} s of them for a token")
    if not arguments.untimed and max(worst.values())[0] > LIMIT_S:
        sys.exit(f"jit470: more than {LIMIT_S} s")



if __name__ == "__main__":
    main()
