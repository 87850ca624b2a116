"""Decoders from llama.cpp's files: tokens a second, beside llama.cpp's own through `llama-cpp-python`.

    python -m bench.gguf [--types Q8_0 Q4_0 Q4_K Q5_K Q6_K] [--layers 4] [--wide 2048] [--prompt 64]
    [--threads 1] [--rounds 7] [--steps 16] [--json FILE]

Files have random weights. Both packages read the same file and the same prompt, and decode the same tokens.
Rounds of both are interleaved in one process. `ratio` is the median over rounds of ovjit's time for a token
over llama.cpp's, by the clock; `cpu` the same of CPU time. `prompt` is the ratio of CPU time for the prompt.
`apart` is the greatest difference of the last logits over the greatest: llama.cpp rounds rows to 8 bits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import command
from tests.readers.gguf_decoders import Sizes, tensors, write

KEYS = ("type", "threads")
COLUMNS = (*KEYS, "tokens_s", "llama_cpp_tokens_s", "ratio", "cpu", "prompt", "apart")
SEED = 20261123
WORDS = 4000


class Ours:
    """ovjit's decoder with state. Like llama.cpp's it computes the logits of the last tokens."""

    def __init__(self, path: Path, threads: int):
        from ovjit.generation import Decoder

        config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self.decoder = Decoder.load(path, config=config)

    def begin(self) -> None:
        self.decoder.reset()

    def step(self, ids: np.ndarray) -> np.ndarray:
        """The logits behind these tokens."""
        return self.decoder.feed(ids)[-1]


def llama_cpp_model(path: Path, threads: int, logits_all: bool = False) -> Any:
    """llama.cpp's model of a file. Where there is AMX its weights stay as they are in the file: its copies
    for AMX end in a general protection fault on virtual machines."""
    import llama_cpp

    if "amx_tile" not in Path("/proc/cpuinfo").read_text():
        return _llama_cpp_model(path, threads, logits_all)
    defaults = llama_cpp.llama_cpp.llama_model_default_params

    def as_in_file() -> Any:
        given = defaults()
        given.use_extra_bufts = False
        return given

    llama_cpp.llama_cpp.llama_model_default_params = as_in_file
    try:
        return _llama_cpp_model(path, threads, logits_all)
    finally:
        llama_cpp.llama_cpp.llama_model_default_params = defaults


def _llama_cpp_model(path: Path, threads: int, logits_all: bool) -> Any:
    import llama_cpp

    return llama_cpp.Llama(
        str(path), n_ctx=4096, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False,
        logits_all=logits_all,
    )  # fmt: skip


class LlamaCpp:
    """llama.cpp's, with a cache of f16."""

    def __init__(self, path: Path, threads: int):
        self.llama = llama_cpp_model(path, threads)

    def begin(self) -> None:
        self.llama.reset()

    def step(self, ids: np.ndarray) -> np.ndarray:
        """The logits behind these tokens."""
        self.llama.eval([int(i) for i in ids])
        pointer = self.llama._ctx.get_logits_ith(-1)
        return np.ctypeslib.as_array(pointer, shape=(WORDS,)).copy()


def timed(one: Any, prompt: np.ndarray, steps: int) -> tuple[float, float, float, np.ndarray]:
    """Seconds and CPU seconds of a token, CPU seconds of the prompt, the last logits."""
    one.begin()
    began = time.process_time()
    one.step(prompt)
    read = time.process_time() - began
    wall, cpu = [], []
    for n in range(steps):
        before, used = time.perf_counter(), time.process_time()
        logits = one.step(prompt[n : n + 1])
        wall.append(time.perf_counter() - before)
        cpu.append(time.process_time() - used)
    return statistics.median(wall), statistics.median(cpu), read, logits


def measure(kind: str, threads: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    s = Sizes(
        "llama", layers=given.layers, wide=given.wide, heads=given.wide // 64, shared=given.wide // 128,
        size=64, turned=64, inner=given.wide * 11 // 4 // 256 * 256, words=WORDS,
    )  # fmt: skip
    path = folder / f"{kind}-{given.layers}x{given.wide}.gguf"
    if not path.exists():
        write(path, s, tensors(s, kind, np.random.default_rng(SEED)))
    both = [Ours(path, threads), LlamaCpp(path, threads)]
    prompt = np.random.default_rng(SEED).integers(0, WORDS, given.prompt)
    found: list[list[Any]] = [[], []]
    for turn in range(given.rounds + 1):
        for i in (0, 1) if turn % 2 else (1, 0):
            time.sleep(0.02)  # pools of threads go to sleep
            found[i].append(timed(both[i], prompt, given.steps))
    ours, theirs = (rows[1:] for rows in found)  # the first warms up

    def ratio(n: int) -> float:
        return statistics.median(a[n] / b[n] for a, b in zip(ours, theirs, strict=True))

    logits = ours[-1][3], theirs[-1][3]
    return {
        "type": kind, "threads": threads, "tokens_s": 1 / statistics.median(r[0] for r in ours),
        "llama_cpp_tokens_s": 1 / statistics.median(r[0] for r in theirs), "ratio": ratio(0),
        "cpu": ratio(1), "prompt": ratio(2),
        "apart": float(abs(logits[0] - logits[1]).max() / abs(logits[0]).max()),
    }  # fmt: skip


def main() -> int:
    parser = command.parser("gguf", __doc__)
    parser.add_argument("--types", nargs="*", default=["Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--wide", type=int, default=2048)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--threads", nargs="*", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bench-gguf")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for kind in given.types:
        for threads in given.threads:
            rows.append(measure(kind, threads, given, given.folder))
            print(json.dumps(rows[-1]), flush=True)
    return command.finish(given, "gguf", KEYS, COLUMNS, rows)


if __name__ == "__main__":
    raise SystemExit(main())
