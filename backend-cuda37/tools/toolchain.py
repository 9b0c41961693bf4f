#!/usr/bin/env python3
"""Fetches the tools that compile and examine kernels for compute capability 3.7, none of which may be redistributed.

NVRTC, ptxas and the headers of CUDA 11.8 come from PyPI; cuobjdump, nvdisasm, the PTX compiler of driver 470 and two drivers,
which tests try on machines without a card, from Debian's non-free section (on Debian 12, with the mirrors that apt already
knows). They land in a folder outside of what is tracked: --toolchain, or $GRAFT_CUDA_TOOLCHAIN, or target/cuda-toolchain."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

CRATE = Path(__file__).resolve().parent.parent
DEFAULT = Path(os.environ.get("GRAFT_CUDA_TOOLCHAIN", CRATE.parent / "target/cuda-toolchain"))
WHEELS = {
    "nvrtc": "nvidia-cuda-nvrtc-cu11==11.8.89",
    "nvcc": "nvidia-cuda-nvcc-cu11==11.8.89",
    "runtime": "nvidia-cuda-runtime-cu11==11.8.89",
}
PACKAGES = {
    "toolkit": "nvidia-cuda-toolkit",
    "jit470": "libnvidia-tesla-470-ptxjitcompiler1",
    "driver": "libcuda1",
    "driver470": "libnvidia-tesla-470-cuda1",
}


class Missing(Exception):
    """A tool that could not be fetched, with the reason."""


class Toolchain:
    """Paths of the tools; each is fetched when it is first asked for."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()

    def nvrtc(self):
        return self._find(self._wheel("nvrtc"), "libnvrtc.so.11.2")

    def ptxas(self):
        path = self._find(self._wheel("nvcc"), "ptxas")
        path.chmod(0o755)
        return path

    def include(self):
        return self._find(self._wheel("runtime"), "cuda_fp16.h").parent

    def cuobjdump(self):
        return self._find(self._package("toolkit"), "cuobjdump")

    def nvdisasm(self):
        return self._find(self._package("toolkit"), "nvdisasm")

    def jit470(self):
        return self._find(self._package("jit470"), "libnvidia-ptxjitcompiler.so.470.*")

    def driver(self):
        return self._find(self._package("driver"), "libcuda.so.*")

    def driver470(self):
        return self._find(self._package("driver470"), "libcuda.so.*")

    def _wheel(self, name):
        place = self.folder / name
        if not place.exists():
            wheels = self.folder / "wheels"
            run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, WHEELS[name]])
            stem = WHEELS[name].split("==")[0].replace("-", "_")
            unpack(place, lambda to: zipfile.ZipFile(next(wheels.glob(f"{stem}-*.whl"))).extractall(to))
        return place

    def _package(self, name):
        place = self.folder / name
        if not place.exists():
            package = PACKAGES[name]
            apt = self._apt()
            debs = self.folder / "debs"
            debs.mkdir(parents=True, exist_ok=True)
            try:
                run(["apt-get", *apt, "download", package], cwd=debs)
            except Missing:
                # lists of before, where a newer package has taken the place of what they name
                (self.folder / "apt" / "private.sources").unlink()
                run(["apt-get", *self._apt(), "download", package], cwd=debs)
            deb = next(debs.glob(f"{package}_*.deb"))
            unpack(place, lambda to: run(["dpkg", "-x", deb, to]))
        return place

    def _apt(self):
        """Options that give apt lists of its own, with the non-free section, and leave the system's alone."""
        root = self.folder / "apt"
        for folder in ["lists/partial", "cache/archives/partial"]:
            (root / folder).mkdir(parents=True, exist_ok=True)
        sources = root / "private.sources"
        options = ["-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=-"]
        options += ["-o", f"Dir::State::lists={root}/lists", "-o", f"Dir::Cache={root}/cache"]
        if not sources.exists():
            text = debian_sources()
            sources.write_text(text)
            try:
                run(["apt-get", *options, "update", "-qq"])
            except Missing:
                sources.unlink()
                raise
        return options

    @staticmethod
    def _find(place, pattern):
        found = sorted(p for p in place.rglob(pattern) if p.is_file() and not p.is_symlink())
        if not found:
            raise Missing(f"{place} holds no {pattern}: delete the folder to fetch it again")
        return found[0]


def unpack(place, fill):
    """Makes `place` whole or not at all."""
    partial = place.with_name(place.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    partial.rename(place)


def debian_sources():
    """The system's Debian mirrors with the non-free section."""
    index = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(CODENAME) $(SUITE) $(ORIGIN) $(SIGNED_BY)"],
        capture_output=True, text=True, check=False).stdout
    lines = set()
    for line in index.splitlines():
        uri, release = line.split()[:2]
        if "Debian" in line.split() and re.fullmatch(r"bookworm(-updates)?", release):
            lines.add((uri, release))
    if not lines:
        raise Missing("apt knows no Debian 12 mirror here: cuobjdump, nvdisasm and driver 470 come from Debian 12")
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return "\n".join(
        f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: non-free\nSigned-By: {keys}\n" for uri, suite in sorted(lines))


def run(command, **options):
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    except OSError as error:
        raise Missing(f"{command[0]} cannot run: {error}") from error
    if done.returncode != 0:
        raise Missing(f"{' '.join(map(str, command))} failed:\n{done.stderr.strip()}")
    return done.stdout


def untracked(folder):
    """A folder for what may not be redistributed: nowhere in the repository but in target/."""
    repository, path = CRATE.parent, Path(folder).resolve()
    if path.is_relative_to(repository) and not path.is_relative_to(repository / "target"):
        raise argparse.ArgumentTypeError(f"{folder} lies where it could be committed; take a folder in {repository / 'target'}, or outside")
    return path


def add_option(parser):
    parser.add_argument("--toolchain", metavar="DIR", type=untracked, default=str(DEFAULT), help=f"where tools are kept [{DEFAULT}]")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    tools = ["nvrtc", "ptxas", "include", "cuobjdump", "nvdisasm", "jit470", "driver", "driver470"]
    parser.add_argument("tool", nargs="*", choices=[*tools, []], help=f"what to fetch, of {', '.join(tools)} [all]")
    arguments = parser.parse_args()
    chain = Toolchain(arguments.toolchain)
    try:
        for tool in arguments.tool or tools:
            print(f"{tool}: {getattr(chain, tool)()}")
    except Missing as reason:
        sys.exit(f"toolchain: {reason}")


if __name__ == "__main__":
    main()
