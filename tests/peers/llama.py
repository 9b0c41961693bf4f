"""Runs a model in llama.cpp's library, as llama-cpp-python wraps it: a line of orders in, a line of seconds out.

Orders: `prompt N` (N tokens into an empty cache, one batch), `generate N DEPTH` (N tokens one by one, after DEPTH that are not timed). The
first line out is about loading: seconds from the call that loads until the logits of a token after a prompt of 8 are there.
"""

import contextlib
import json
import os
import sys
import time

import llama_cpp as llama


class Peer:
    def __init__(self, path: str, threads: int, context: int, batch: int) -> None:
        params = llama.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, batch, batch
        params.n_threads = params.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit(f"llama.cpp cannot make a context for {path}")
        self.pieces = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))

    def evaluate(self, tokens: list[int]) -> None:
        array = (llama.llama_token * len(tokens))(*tokens)
        code = llama.llama_decode(self.context, llama.llama_batch_get_one(array, len(tokens)))
        if code != 0:
            sys.exit(f"llama_decode returned {code}")
        llama.llama_synchronize(self.context)

    def clear(self) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def token(self, i: int) -> int:
        return (i * 7919 + 100) % self.pieces

    def fill(self, tokens: int) -> None:
        self.clear()
        for first in range(0, tokens, 512):
            self.evaluate([self.token(i) for i in range(first, min(first + 512, tokens))])

    def prompt(self, tokens: int) -> float:
        self.clear()
        start = time.perf_counter()
        self.evaluate([self.token(i) for i in range(tokens)])
        return time.perf_counter() - start

    def generate(self, tokens: int, depth: int) -> float:
        self.fill(depth)
        start = time.perf_counter()
        for i in range(tokens):
            self.evaluate([self.token(i * 31)])
        return time.perf_counter() - start


@contextlib.contextmanager
def quiet():
    """Sends what the library writes to standard error to nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)


def main() -> None:
    path, threads, context, batch = sys.argv[1], *map(int, sys.argv[2:5])
    system = llama.llama_print_system_info().decode()
    with quiet():
        start = time.perf_counter()
        peer = Peer(path, threads, context, batch)
        peer.evaluate([peer.token(i) for i in range(8)])
        peer.evaluate([peer.token(9)])
        first = time.perf_counter() - start
    print(json.dumps({"first_token": first, "system": system, "version": llama.__version__}), flush=True)
    for line in sys.stdin:
        order, *numbers = line.split()
        numbers = [int(number) for number in numbers]
        seconds = peer.prompt(*numbers) if order == "prompt" else peer.generate(*numbers)
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
