"""Which modules the kernels are compiled to. A file of kernels is one, or, by a line `// Modules: A=x|y B=1|2`, one for each
choice of the macros' values: `file.x.1`, and so on."""

from itertools import product
from pathlib import Path
from typing import NamedTuple

from toolchain import CRATE

KERNELS = CRATE / "kernels"
PTX = CRATE / "ptx"


class Module(NamedTuple):
    name: str
    source: Path
    definitions: tuple

    @property
    def ptx(self):
        return PTX / f"{self.name}.ptx"


def modules(wanted=()):
    """All modules; with names or beginnings of names, those."""
    found = [m for file in sorted(KERNELS.glob("*.cu")) for m in of_file(file)]
    chosen = [m for m in found if not wanted or any(m.name == w or m.name.startswith(w + ".") for w in wanted)]
    if not chosen:
        raise SystemExit(f"no module is named {' or '.join(wanted)}: there are {', '.join(m.name for m in found)}")
    return chosen


def of_file(file):
    marked = [line for line in file.read_text().splitlines() if line.startswith("// Modules: ")]
    macros = [m.split("=") for m in marked[0].split()[2:]] if marked else []
    for values in product(*(values.split("|") for _, values in macros)):
        definitions = tuple(f"-D{name}={value}" for (name, _), value in zip(macros, values))
        yield Module(".".join([file.stem, *values]), file, definitions)


def add_argument(parser):
    parser.add_argument("module", nargs="*", help="names of modules, or of files of kernels without the end [all]")
