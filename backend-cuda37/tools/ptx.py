#!/usr/bin/env python3
"""Compiles the kernels to PTX for compute capability 3.7 with NVRTC 11.8, and writes it to ptx/, a module a file.

The header is rewritten to `.version 6.0`, which is what NVRTC 11.8's text amounts to and what driver 470, the last for such
cards, accepts. With --check nothing is written: it fails where ptx/ is not what the sources give."""

import argparse
import ctypes
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import modules
import toolchain

OPTIONS = ["--gpu-architecture=compute_37", "--std=c++17", "-default-device"]


class Compiler:
    def __init__(self, chain):
        self.library = ctypes.CDLL(str(chain.nvrtc()))

    def ptx(self, module):
        """The module's PTX. Fails with the compiler's words."""
        program = ctypes.c_void_p()
        source = module.source.read_bytes()
        self.library.nvrtcCreateProgram(ctypes.byref(program), source, str(module.source).encode(), 0, None, None)
        options = [o.encode() for o in [*OPTIONS, f"-I{modules.KERNELS}", *module.definitions]]
        given = (ctypes.c_char_p * len(options))(*options)
        if self.library.nvrtcCompileProgram(program, len(options), given) != 0:
            raise SystemExit(f"{module.name}: {self._text(program, 'ProgramLog')}")
        text = self._text(program, "PTX")
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return rewritten(text)

    def _text(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, text)
        return text.value.decode()


def rewritten(text):
    """With the older version, and without the names of files and builds, which are not the kernels' own."""
    text = re.sub(r"^\.version .*$", ".version 6.0", text, count=1, flags=re.M)
    text = re.sub(r"^//.*\n", "", text, flags=re.M)
    return re.sub(r"[ \t]+$", "", text, flags=re.M).strip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    toolchain.add_option(parser)
    modules.add_argument(parser)
    parser.add_argument("--check", action="store_true", help="only compare, and fail where something differs")
    arguments = parser.parse_args()
    try:
        compiler = Compiler(toolchain.Toolchain(arguments.toolchain))
    except toolchain.Missing as reason:
        sys.exit(f"ptx: {reason}")
    chosen = modules.modules(arguments.module)
    with ThreadPoolExecutor() as pool:
        made = list(zip(chosen, pool.map(compiler.ptx, chosen)))
    stale = [m.ptx for m, text in made if not m.ptx.exists() or m.ptx.read_text() != text]
    extra = [] if arguments.module else sorted(set(modules.PTX.glob("*.ptx")) - {m.ptx for m in chosen})
    if arguments.check:
        for path in [*stale, *extra]:
            print(f"{path} is not what the kernels' sources give")
        if stale or extra:
            sys.exit("ptx: run tools/ptx.py and commit what it writes")
        return
    for module, text in made:
        module.ptx.write_text(text)
    for path in extra:
        path.unlink()
    print(f"{len(made)} modules, {len(stale)} of them new or changed, {len(extra)} removed")


if __name__ == "__main__":
    main()
