#!/usr/bin/env python3
"""Compiles the modules of ptx/ with driver 470's own PTX compiler, which is what the driver of a K80 does when a program starts.

No card is needed. Fails where a module is refused, or where the modules that one model needs take more than 2 s; the driver
keeps what it compiled, so that this is the time of the first start alone."""

import argparse
import ctypes
import sys
import time
from multiprocessing import Pool

import modules
import toolchain

LIMIT_S = 2.0
# types of weights that models have, the others being those of every model
MODELS = {
    "Q4_K_M": ["q4_k", "q6_k", "f32"], "Q4_K_M of rows that 256 does not divide": ["q4_k", "q6_k", "q5_0", "q8_0", "f32"],
    "Q8_0": ["q8_0", "f32"], "gpt-oss MXFP4": ["mxfp4", "q8_0", "f32", "bf16"],
}
HEADS = ["64", "128", "256"]


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


def needed(times, types, head):
    """Seconds for what a model with such weights and heads needs, over a cache of f16."""
    chosen = [f"product.{t}" for t in types] + [f"attention.f16.{head}"]
    chosen += [name for name in times if not name.startswith(("product.", "attention.", "measure"))]
    return sum(times.get(name, 0) for name in chosen) / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    toolchain.add_option(parser)
    modules.add_argument(parser)
    arguments = parser.parse_args()
    try:
        library = str(toolchain.Toolchain(arguments.toolchain).jit470())
    except toolchain.Missing as reason:
        sys.exit(f"jit470: {reason}")
    chosen = modules.modules(arguments.module)
    with Pool(maxtasksperchild=1) as pool:
        results = pool.map(compile_module, [(library, m) for m in chosen], chunksize=1)
    faults = 0
    for module, (milliseconds, words) in zip(chosen, results):
        print(f"{module.name:24} {milliseconds:7.0f} ms {words or ''}".rstrip())
        faults += words is not None
    if faults:
        sys.exit(f"jit470: {faults} modules are refused")
    if arguments.module:
        return
    times = {m.name: milliseconds for m, (milliseconds, _) in zip(chosen, results)}
    worst = {name: max(needed(times, types, head) for head in HEADS) for name, types in MODELS.items()}
    for name, seconds in worst.items():
        print(f"{name}: {seconds:.2f} s")
    if max(worst.values()) > LIMIT_S:
        sys.exit(f"jit470: more than {LIMIT_S} s")


if __name__ == "__main__":
    main()
