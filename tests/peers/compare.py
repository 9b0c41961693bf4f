#!/usr/bin/env python3
"""Times Graft and its peers on the same files in the same run, in turns, and prints the ratios.

Peers: llama.cpp's library through llama-cpp-python (built from PyPI's source with every instruction set that this machine has; a second
build with AMX where the machine has it) and candle (a small program beside this script). All read the same file from the page cache with
the same threads; the time of an engine's own evaluation is taken, not that of Python.

    tests/peers/compare.py                                   # the shapes of the table in README
    tests/peers/compare.py --models qwen2-1.5b:q4_0 --turns 3

Raw output goes to tests/peers/results/, files and builds to target/peers (about 20 GB with all models).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
VERSION = "llama-cpp-python==0.3.36"

# shape, quantization, layers (0: all), tokens of the prompt
MODELS = ["qwen2-1.5b:q4_k_m", "qwen2-1.5b:q8_0", "qwen2-1.5b:q4_0", "qwen2-1.5b:q6_k", "qwen2-1.5b:f16", "gemma3-1b:q4_k_m", "gptoss-20b:mxfp4:256"]

FLAGS = {
    "avx2": ["GGML_AVX2", "GGML_FMA", "GGML_F16C", "GGML_BMI2"],
    "avx_vnni": ["GGML_AVX_VNNI"],
    "avx512f": ["GGML_AVX512"],
    "avx512vbmi": ["GGML_AVX512_VBMI"],
    "avx512_vnni": ["GGML_AVX512_VNNI"],
    "avx512_bf16": ["GGML_AVX512_BF16"],
}
AMX = {"amx_tile": "GGML_AMX_TILE", "amx_int8": "GGML_AMX_INT8", "amx_bf16": "GGML_AMX_BF16"}


def run(*command: str | Path, **options) -> str:
    done = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True, **options)
    return done.stdout


def processor() -> tuple[str, set[str]]:
    """The processor's name and its features."""
    facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    return facts["model name"], set(facts["flags"].split())


def llama(folder: Path, name: str, flags: list[str]) -> Path:
    """Python with llama-cpp-python built with these flags of ggml; made once."""
    home = folder / name
    python = home / "bin" / "python"
    stamp = home / "flags"
    wanted = " ".join([VERSION, *flags])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"building {VERSION} with {' '.join(flags)}", file=sys.stderr)
    venv.create(home, with_pip=True, clear=True)
    arguments = " ".join(["-DGGML_NATIVE=OFF", "-DLLAVA_BUILD=OFF", *(f"-D{flag}=ON" for flag in flags)])
    run(python, "-m", "pip", "install", "-q", "--no-cache-dir", "--no-binary", "llama-cpp-python", VERSION, env={**os.environ, "CMAKE_ARGS": arguments}, cwd=folder)
    stamp.write_text(wanted)
    return python


class Worker:
    """An engine in a process of its own that holds a model and takes orders line by line."""

    def __init__(self, command: list[str | Path]) -> None:
        self.process = subprocess.Popen([str(w) for w in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{Path(self.process.args[0]).name} ended with {self.process.wait()}")
        return json.loads(line)

    def order(self, *words: object) -> float:
        print(*words, file=self.process.stdin, flush=True)
        return self.answer()["seconds"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Graft:
    """`host bench`, one repetition a call."""

    def __init__(self, host: Path, model: Path, threads: int, extra: list[str]) -> None:
        self.command = [host, "bench", model, "-r", "1", "-t", str(threads), "-o", "json", *extra]
        self.machine: list[dict] = []

    def time(self, prompt: int, generate: int, depth: int) -> float:
        test = ["-p", str(prompt), "-n", str(generate), "-d", str(depth)]
        (row,) = json.loads(run(*self.command, *test))
        self.machine.append({key: row[key] for key in ("read_bandwidth", "arithmetic_peak", "bytes_per_s", "operations_per_s")})
        return row["samples_ns"][0] / 1e9


def first_token(host: Path, model: Path, threads: int) -> float:
    """Seconds of a whole process that answers a prompt of 8 tokens with one."""
    start = time.perf_counter()
    run(host, "run", model, "--raw", "--predict", "1", "--threads", str(threads), "a b c d e f g h", stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def median(values: list[float]) -> float:
    return statistics.median(values)


class Comparison:
    """All engines on one model."""

    def __init__(self, arguments: argparse.Namespace, host: Path, peers: dict[str, list[str | Path]], spec: str) -> None:
        self.arguments, self.host, self.peers = arguments, host, peers
        shape, quant, *rest = spec.split(":")
        self.prompt = int(rest[0]) if rest else 512
        self.name = f"{shape} {quant}"
        self.path = arguments.folder / f"{shape}-{quant}{f'-{arguments.layers}' if arguments.layers else ''}.gguf"
        if not self.path.exists():
            layers = ["--layers", str(arguments.layers)] if arguments.layers else []
            run(ROOT / "target/release/make-model", shape, "--quant", quant, *layers, self.path)

    def run(self) -> dict:
        with self.path.open("rb") as file:  # into the page cache
            while file.read(1 << 24):
                pass
        threads, tokens = self.arguments.threads, self.arguments.tokens
        context = 8192 if max(self.arguments.depths) > 0 else 1024
        workers, failures = {}, {}
        for name, command in self.peers.items():
            try:
                workers[name] = Worker([*command, self.path, str(threads), str(context), "512"])
            except RuntimeError as error:
                failures[name] = str(error)
        graft = Graft(self.host, self.path, threads, self.arguments.graft)
        tests = [(self.prompt, 0, 0)] + [(0, tokens, depth) for depth in self.arguments.depths]
        samples: dict[str, dict[str, list[float]]] = {}
        for turn in range(self.arguments.turns + 1):
            for prompt, generate, depth in tests:
                label = f"pp{prompt}" if prompt else f"tg{generate}" + (f" @ d{depth}" if depth else "")
                took = {"graft": graft.time(prompt, generate, depth)}
                for name, worker in list(workers.items()):
                    try:
                        took[name] = worker.order("prompt", prompt) if prompt else worker.order("generate", generate, depth)
                    except (RuntimeError, BrokenPipeError) as error:
                        failures[name] = f"{label}: {error}"
                        del workers[name]
                if turn > 0:  # the first warms up
                    for name, seconds in took.items():
                        samples.setdefault(label, {}).setdefault(name, []).append((prompt or generate) / seconds)
        start = {"graft, whole process": [first_token(self.host, self.path, threads) for _ in range(3)]}
        start |= {f"{name}, from the call that loads": [worker.facts["first_token"]] for name, worker in workers.items()}
        facts = {name: worker.facts for name, worker in workers.items()}
        for worker in workers.values():
            worker.close()
        return {
            "model": self.name,
            "bytes": self.path.stat().st_size,
            "tokens_per_s": samples,
            "seconds_to_first_token": start,
            "machine": graft.machine,
            "peers": facts,
            "failures": failures,
        }


def table(results: list[dict]) -> str:
    """A row a model and test: medians of tokens a second, and the ratio to the best peer."""
    names = sorted({name for result in results for test in result["tokens_per_s"].values() for name in test if name != "graft"})
    lines = ["| model | test | graft | " + " | ".join(names) + " | to the best peer | of bandwidth | of peak |", "|---|---|--:|" + "--:|" * (len(names) + 3)]
    for result in results:
        machine = {key: median([m[key] for m in result["machine"]]) for key in result["machine"][0]}
        for i, (test, by_engine) in enumerate(result["tokens_per_s"].items()):
            mine = result["machine"][i :: len(result["tokens_per_s"])]
            share = median([m["bytes_per_s"] / m["read_bandwidth"] for m in mine])
            peak = median([m["operations_per_s"] / m["arithmetic_peak"] for m in mine if m["arithmetic_peak"]] or [0])
            peers = [f"{median(by_engine[name]):.1f}" if name in by_engine else "–" for name in names]
            ratios = [min(a / by_engine[n][k] for n in names if n in by_engine) for k, a in enumerate(by_engine["graft"])] if len(by_engine) > 1 else []
            ratio = f"{median(ratios):.2f}" if ratios else "–"
            decode = test.startswith("tg")
            lines.append(
                f"| {result['model']} | {test} | {median(by_engine['graft']):.1f} | {' | '.join(peers)} | {ratio} | "
                f"{f'{share:.0%}' if decode else ''} | {'' if decode else f'{peak:.0%}'} |"
            )
        del machine
    lines += ["", "| model | seconds to the first token |", "|---|---|"]
    for result in results:
        start = "; ".join(f"{name} {median(seconds):.2f}" for name, seconds in result["seconds_to_first_token"].items())
        lines.append(f"| {result['model']} | {start} |")
    for result in results:
        lines += [f"\n{result['model']}: {name} failed: {why}" for name, why in result["failures"].items()]
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="SHAPE:QUANT[:PROMPT]", help="what is run (default: README's table)")
    parser.add_argument("--layers", type=int, default=0, help="another number of layers than the shapes have")
    parser.add_argument("--turns", type=int, default=5, help="how often each engine runs each test (default 5)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every engine")
    parser.add_argument("--tokens", type=int, default=32, help="tokens that are generated (default 32)")
    parser.add_argument("--depths", type=int, nargs="+", default=[0], help="tokens in the cache before they are generated (default 0)")
    parser.add_argument("--folder", type=Path, default=ROOT / "target/peers", help="for models and builds")
    parser.add_argument("--no-candle", action="store_true", help="llama.cpp alone")
    parser.add_argument("--graft", nargs=argparse.REMAINDER, default=[], help="further options of `host bench`, last on the line")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    name, features = processor()
    run("cargo", "build", "--release", "--locked", "-p", "host", "-p", "backend-cpu", "-p", "tests", "--bins", "--lib", cwd=ROOT)
    flags = [flag for feature, list_ in FLAGS.items() if feature in features for flag in list_]
    peers: dict[str, list[str | Path]] = {"llama.cpp": [llama(options.folder, "llama", flags), HERE / "llama.py"]}
    amx = [flag for feature, flag in AMX.items() if feature in features]
    if amx:
        peers["llama.cpp, AMX"] = [llama(options.folder, "llama-amx", flags + amx), HERE / "llama.py"]
    if not options.no_candle:
        target = options.folder / "candle"
        run("cargo", "build", "--release", "--manifest-path", HERE / "candle/Cargo.toml", "--target-dir", target, env={**os.environ, "RUSTFLAGS": "-C target-cpu=native"})
        peers["candle"] = [target / "release/candle-peer"]
    results = []
    for spec in options.models:
        print(f"== {spec}", file=sys.stderr)
        results.append(Comparison(options, ROOT / "target/release/host", peers, spec).run())
    stem = f"{datetime.date.today()}-{platform.machine()}-{name.replace(' ', '-')}"
    head = f"{name}, {options.threads} threads, {datetime.date.today()}, {options.turns} turns; tokens a second, medians\n\n"
    text = head + table(results)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{stem}.md").write_text(text)
    record = {"machine": name, "features": sorted(features), "threads": options.threads, "results": results}
    (HERE / "results" / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(text, end="")


if __name__ == "__main__":
    main()
