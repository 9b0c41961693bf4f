#!/usr/bin/env python3
"""Counts the machine instructions of sm_37 that a product of one column spends on a weight, and writes the table ptx/SASS.md.

It is the measure of speed that needs no card: a K80 gives about 6.2 of a thread's instructions to each byte that its memory
delivers (150 GB/s, 13 multiprocessors, 562 MHz, four warps' instructions a clock), so a product that spends less is bound by memory.

Counted are the loops of the kernel `product_TYPE_c1`: the loop over units of K, by the weights that it multiplies in a turn,
and the loops that put the input in place, by the rows that share it in a block of 256 threads. Instructions weigh by their
pipe: conversions, special functions, integer products, bit fields, shared memory and shuffles 6, all others 1. The column
"strict" also counts shifts as 3 and reads of device memory as 6. Disassembled by cuobjdump of CUDA 11.8."""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import assemble
import modules
import toolchain

GROUPS = 16  # of lanes, in a block of 256 threads
SLOW = ("F2F", "F2I", "I2F", "I2I", "MUFU", "IMUL", "IMAD", "BFE", "BFI", "FLO", "POPC", "LDS", "STS", "SHFL", "RRO")
STRICT = {"SHL": 3, "SHR": 3, "SHF": 3, "LDG": 6, "LD": 6, "TLD": 6, "TEX": 6}

# bytes and values of a block, values of a unit, values of a group
TYPES = {
    "f32": (4, 1, 4, 4), "f16": (2, 1, 8, 8), "bf16": (2, 1, 8, 8), "q4_0": (18, 32, 32, 32), "q4_1": (20, 32, 32, 32),
    "q5_0": (22, 32, 32, 32), "q5_1": (24, 32, 32, 32), "q8_0": (34, 32, 32, 32), "q2_k": (84, 256, 64, 16),
    "q3_k": (110, 256, 64, 16), "q4_k": (144, 256, 64, 32), "q5_k": (176, 256, 64, 32), "q6_k": (210, 256, 64, 16),
    "iq4_nl": (18, 32, 32, 32), "iq4_xs": (136, 256, 64, 32), "mxfp4": (17, 32, 32, 32),
}
LIMITS = {"q4_k": 3.5, "mxfp4": 3.3, "q6_k": 5.1, "q8_0": 6.6}


def rows_of(name):
    """Rows that a group of lanes has at a time, by the kernels' header."""
    header = (toolchain.CRATE / "kernels/blocks.cuh").read_text()
    elements = ["Elements"] if name in ("f32", "f16", "bf16") else []
    for struct in [f"Block_{name}", *elements, "BlockOfCodes"]:
        body = re.search(rf"struct {struct}\b.*?\n}};", header, re.S)[0]
        if found := re.search(r"ROWS = (\d+)", body):
            return int(found[1])


def instructions(chain, cubin, kernel):
    """Addresses, operations and texts of a kernel's machine code."""
    listing = toolchain.run([chain.cuobjdump(), "-sass", cubin])
    body = re.search(rf"Function : {kernel}\n(.*?)(?=Function : |\Z)", listing, flags=re.S)[1]
    for address, text in re.findall(r"/\*([0-9a-f]{4,5})\*/\s+([^;]*);", body):
        yield int(address, 16), re.sub(r"^@!?P\d+\s+", "", text).split()[0], text


def loops(code):
    """Innermost loops: the instructions between the target of a jump back and the jump."""
    found = []
    for address, operation, text in code:
        target = re.search(r"BRA(?:\.\w+)* (?:\w+, )?(0x[0-9a-f]+)", text)
        if operation.startswith("BRA") and target and int(target[1], 16) < address:
            found.append((int(target[1], 16), address))
    inner = [r for r in found if not any(o != r and r[0] <= o[0] and o[1] <= r[1] for o in found)]
    return [[(op, t) for a, op, t in code if low <= a <= high] for low, high in inner]


def weigh(loop, strict=False):
    total = 0
    for operation, _ in loop:
        name = operation.split(".")[0]
        total += 6 if name in SLOW else STRICT.get(name, 1) if strict else 1
    return total


def measure(code, name):
    """Instructions a weight of the whole, weighed by pipe and strictly, and of the loop over units by operation."""
    _, _, unit, group = TYPES[name]
    rows = rows_of(name)
    found = loops(code)
    products = [sum(op.startswith("FFMA") for op, _ in l) for l in found]
    # elements have a second such loop, for what K cuts
    main = min((l for l, n in zip(found, products) if n == max(products)), key=len)
    stores = [l for l in found if any(op.startswith("STS") for op, _ in l)]
    turns = max(1, max(products) // (rows * unit))
    result = []
    for strict in [False, True]:
        whole = weigh(main, strict) / (turns * rows * unit)
        for loop in stores:
            times = sum(op.startswith("STS.128") for op, _ in loop)
            whole += weigh(loop, strict) / (4 * times if times else group) / (rows * GROUPS)
        result.append(whole)
    return *result, Counter(op.split(".")[0] for op, _ in main), len(main)


def row(chain, name, folder):
    module = modules.modules([f"product_one.{name}"])[0]
    cubin = Path(folder) / f"{name}.cubin"
    kernel = next(k for k in assemble.assemble(chain, module, cubin) if k.name == f"product_{name}_c1")
    bytes_, values = TYPES[name][:2]
    whole, strict, operations, _ = measure(list(instructions(chain, cubin, kernel.name)), name)
    limit = LIMITS.get(name, 6.2 * bytes_ / values)
    most = ", ".join(f"{op} {n}" for op, n in operations.most_common(8))
    return name, whole, strict, limit, kernel.registers, kernel.occupancy, most


def table(rows):
    lines = ["# What a weight costs", "", *__doc__.split("\n\n", 1)[1].split("\n"), "",
             "| type | instructions a weight | limit | | strict | registers | occupancy | operations of a turn |",
             "|---|--:|--:|---|--:|--:|--:|---|"]
    for name, whole, strict, limit, registers, occupancy, most in rows:
        lines.append(f"| {name} | {whole:.2f} | {limit:.2f} | {'' if whole <= limit else 'above'} | {strict:.2f} "
                     f"| {registers} | {occupancy:.0%} | {most} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    toolchain.add_option(parser)
    parser.add_argument("type", nargs="*", help="types of weights [all]")
    parser.add_argument("--dump", action="store_true", help="print the machine code of the loops instead of the table")
    parser.add_argument("--check", action="store_true", help="fail where ptx/SASS.md is not what the modules give")
    arguments = parser.parse_args()
    chain = toolchain.Toolchain(arguments.toolchain)
    names = arguments.type or list(TYPES)
    try:
        chain.ptxas(), chain.cuobjdump()
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
            rows = list(pool.map(lambda name: row(chain, name, folder), names))
            if arguments.dump:
                for name in names:
                    code = list(instructions(chain, Path(folder) / f"{name}.cubin", f"product_{name}_c1"))
                    for loop in loops(code):
                        print(name, *(text for _, text in loop), "", sep="\n")
                return
    except toolchain.Missing as reason:
        sys.exit(f"sass: {reason}")
    text = table(rows)
    path = modules.PTX / "SASS.md"
    if arguments.check:
        if not path.exists() or path.read_text() != text:
            sys.exit("sass: ptx/SASS.md is not what the modules give: run tools/sass.py and commit what it writes")
    elif not arguments.type:
        path.write_text(text)
    print(text[text.index("| type"):], end="")


if __name__ == "__main__":
    main()
