#!/usr/bin/env python3
"""Assembles the modules of ptx/ for sm_37 with ptxas 11.8 and says what each kernel takes.

Fails where a kernel spills registers, or where its registers leave room for less than half of the threads that a multiprocessor
of a K80 can hold (2048, of 131072 registers, 256 at a time for a warp), and for less than its shared memory does (112 KiB)."""

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import modules
import toolchain

MOST_THREADS, REGISTERS, GRANULE, SHARED = 2048, 131072, 256, 112 * 1024


class Kernel(NamedTuple):
    name: str
    registers: int
    stack: int
    spilled: int
    shared: int
    threads: int  # of a block

    @property
    def occupancy(self):
        """Share of the most threads that registers leave room for."""
        warp = -(-self.registers * 32 // GRANULE) * GRANULE
        return min(1.0, REGISTERS // warp * 32 / MOST_THREADS)

    @property
    def occupancy_by_shared(self):
        """Share of the most threads that shared memory leaves room for."""
        return min(1.0, SHARED // max(1, self.shared) * self.threads / MOST_THREADS)

    @property
    def is_bad(self):
        return self.spilled > 0 or self.occupancy < min(0.5, self.occupancy_by_shared)


def assemble(chain, module, cubin):
    """What ptxas says of each kernel. The machine code goes to `cubin`."""
    command = [chain.ptxas(), "-v", "-arch=sm_37", module.ptx, "-o", cubin]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{module.name}: {done.stderr}")
    return list(kernels(module, done.stderr))


def kernels(module, words):
    threads = dict(re.findall(r"\.entry (\w+)\(.*?\.maxntid (\d+)", module.ptx.read_text(), flags=re.S))
    pattern = (r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
               r".*?Used (\d+) registers([^\n]*)")
    for name, stack, stores, loads, registers, rest in re.findall(pattern, words, flags=re.S):
        shared = re.search(r"(\d+) bytes smem", rest)
        shared = int(shared[1]) if shared else 0
        yield Kernel(name, int(registers), int(stack), int(stores) + int(loads), shared, int(threads[name]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    toolchain.add_option(parser)
    modules.add_argument(parser)
    parser.add_argument("--faults", action="store_true", help="print only kernels that fail")
    arguments = parser.parse_args()
    chain = toolchain.Toolchain(arguments.toolchain)
    chosen = modules.modules(arguments.module)
    try:
        chain.ptxas()
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
            results = pool.map(lambda m: assemble(chain, m, Path(folder) / f"{m.name}.cubin"), chosen)
            found = [kernel for of_module in results for kernel in of_module]
    except toolchain.Missing as reason:
        sys.exit(f"assemble: {reason}")
    bad = [k for k in found if k.is_bad]
    print(f"{'kernel':32} {'registers':>9} {'occupancy':>9} {'shared':>7} {'occupancy':>9} {'stack':>6} {'spilled':>7}")
    for k in bad if arguments.faults else found:
        print(f"{k.name:32} {k.registers:9} {k.occupancy:9.0%} {k.shared:7} {k.occupancy_by_shared:9.0%} {k.stack:6} {k.spilled:7}")
    if bad:
        sys.exit(f"assemble: {len(bad)} of {len(found)} kernels spill or take too many registers")
    print(f"{len(found)} kernels, none spills")


if __name__ == "__main__":
    main()
