"""Decoders over blocks of a cache: tokens a second of several sequences at once, beside OpenVINO's.

    python -m bench.paged [--sizes small llama] [--sequences 1 4 8 16] [--caches f32 u8]
    [--weights f32 u8 i4] [--precision f32] [--context 128] [--threads 1] [--rounds 7] [--steps 8]
    [--json FILE]

Both packages read the same IR of a decoder with state (`bench.transformers`), rewrite it by their own
`paged_attention_transformation`, and decode greedily for sequences whose blocks lie in random order. Prompts
are read first, with lengths from half the context to all of it. Rounds of both are interleaved in one
process. `ratio` is the median over rounds of ovjit's time for a step over OpenVINO's, by the clock; `cpu` is
the same of CPU time, which other jobs on the machine change less. `prompt` is the ratio of CPU time for all
prompts, one after the other. The last line has the geometric means of `ratio` and `cpu`.
`python -m bench.paged_vllm` measures the same through vLLM.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, transformers

SIZES = {
    "small": transformers.Sizes(layers=6, wide=512, heads=8, shared=4, inner=1408, words=8000),
    "llama": transformers.LLAMA,
}
KEYS = ("size", "weights", "cache", "precision", "sequences", "threads")
COLUMNS = (*KEYS, "tokens_s", "openvino_tokens_s", "ratio", "cpu", "prompt", "same")
SEED = 20261123


class Paged:
    """A request of a paged decoder, and sequences whose blocks lie in random order."""

    def __init__(self, package: Any, path: str, config: dict[str, Any], count: int, longest: int):
        core = package.Core()
        model = core.read_model(path)
        _rewrite(package)(model)
        self.compiled = core.compile_model(model, "CPU", config)
        self.request = self.compiled.create_infer_request()
        self.names = {name for port in self.compiled.inputs for name in port.get_names()}
        self.block, self.count = 32, count
        each = -(-longest // self.block)
        blocks = np.random.default_rng(SEED).permutation(count * each).astype(np.int32)
        self.tables, self.lengths = blocks.reshape(count, each), np.zeros(count, np.int64)
        self.caches = []  # kept alive: requests use their memory
        for port in self.compiled.inputs:
            name = port.get_any_name()
            if "_cache." in name:
                dims = [*port.get_partial_shape()][1:]
                shape = package.Shape([count * each, *(d.get_length() for d in dims)])
                tensor = package.Tensor(port.get_element_type(), shape)
                tensor.data[...] = 0
                self.caches.append(tensor)
                self.request.set_tensor(name, tensor)

    def step(self, rows: list[int], new: list[np.ndarray]) -> np.ndarray:
        """The last logits of each of these sequences, which get new tokens."""
        counts = [len(tokens) for tokens in new]
        past = self.lengths[rows]
        lengths = past + counts
        tables = [self.tables[i, : -(-n // self.block)] for i, n in zip(rows, lengths, strict=True)]
        given = {
            "input_ids": np.concatenate(new).astype(np.int64),
            "position_ids": np.concatenate([np.arange(a, b) for a, b in zip(past, lengths, strict=True)]),
            "past_lens": past.astype(np.int32),
            "subsequence_begins": np.cumsum([0, *counts]).astype(np.int32),
            "block_indices": np.concatenate(tables).astype(np.int32),
            "block_indices_begins": np.cumsum([0, *map(len, tables)]).astype(np.int32),
            "max_context_len": np.array(max(lengths), np.int32),
        }
        given = {name: array for name, array in given.items() if name in self.names}
        found = self.request.infer(given, share_inputs=True, share_outputs=True)[0]
        self.lengths[rows] = lengths
        return found.reshape(len(given["input_ids"]), -1)[np.cumsum(counts) - 1]

    def begin(self, prompts: list[np.ndarray]) -> np.ndarray:
        """Read all prompts, one at a time; their next tokens."""
        self.lengths[:] = 0
        return np.array([self.step([i], [prompt])[0].argmax() for i, prompt in enumerate(prompts)])

    def decode(self, tokens: np.ndarray, steps: int) -> tuple[np.ndarray, list[float], list[float]]:
        """Tokens [steps, sequences], seconds and CPU seconds of each step."""
        found, wall, cpu = [], [], []
        rows = list(range(self.count))
        for _ in range(steps):
            began, used = time.perf_counter(), time.process_time()
            logits = self.step(rows, list(tokens[:, None]))
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - used)
            tokens = logits.argmax(1)
            found.append(tokens)
        return np.array(found), wall, cpu


def _rewrite(package: Any) -> Any:
    if package.__name__ == "ovjit":
        from ovjit._offline_transformations import paged_attention_transformation as ours

        return ours
    from openvino._offline_transformations import paged_attention_transformation as theirs

    return theirs


def stored(size: str, weights: str, folder: Path) -> str:
    """The decoder's IR, made by OpenVINO."""
    import openvino

    path = folder / f"{size}-{weights}.xml"
    if not path.exists():
        net = transformers.Net(openvino, f"paged-{size}", weights)
        openvino.save_model(transformers.llama(net, SIZES[size]), path, compress_to_fp16=False)
    return str(path)


def measure(
    size: str, weights: str, cache: str, precision: str, count: int, threads: int, context: int, steps: int,
    rounds: int, folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """One row of the table."""
    import openvino

    import ovjit

    path = stored(size, weights, folder)
    config = {
        "INFERENCE_NUM_THREADS": threads, "KV_CACHE_PRECISION": cache,
        "INFERENCE_PRECISION_HINT": precision,
    }  # fmt: skip
    rng = np.random.default_rng([SEED, count])
    prompts = [rng.integers(0, SIZES[size].words, int(n)) for n in np.linspace(context // 2, context, count)]
    longest = context + 3 * steps
    both = [Paged(package, path, config, count, longest) for package in (ovjit, openvino)]
    firsts = [one.begin(prompts) for one in both]
    ends = [one.lengths.copy() for one in both]
    for one, first in zip(both, firsts, strict=True):  # warm
        one.decode(first, 3)
    wall: list[list[float]] = [[], []]
    cpu: list[list[float]] = [[], []]
    prompt: list[list[float]] = [[], []]
    tokens: list[Any] = [None, None]
    for turn in range(rounds):
        for i in (0, 1) if turn % 2 else (1, 0):
            both[i].lengths[:] = ends[i]
            time.sleep(0.02)  # pools of threads go to sleep
            tokens[i], seconds, used = both[i].decode(firsts[i], steps)
            wall[i].append(statistics.median(seconds))
            cpu[i].append(statistics.median(used))
            began = time.process_time()
            both[i].begin(prompts)
            prompt[i].append(time.process_time() - began)
    same = float((tokens[0] == tokens[1]).mean())
    return {
        "size": size, "weights": weights, "cache": cache, "precision": precision, "sequences": count,
        "threads": threads,
        "tokens_s": count / statistics.median(wall[0]),
        "openvino_tokens_s": count / statistics.median(wall[1]),
        "ratio": statistics.median(a / b for a, b in zip(*wall, strict=True)),
        "cpu": statistics.median(a / b for a, b in zip(*cpu, strict=True)),
        "prompt": statistics.median(a / b for a, b in zip(*prompt, strict=True)), "same": same,
    }  # fmt: skip


def compare(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All rows, printed as they come."""
    rows = []
    for size in arguments.sizes:
        for weights in arguments.weights:
            for cache in arguments.caches:
                for count in arguments.sequences:
                    for threads in arguments.threads:
                        row = measure(
                            size, weights, cache, arguments.precision, count, threads, arguments.context,
                            arguments.steps, arguments.rounds, folder,
                        )  # fmt: skip
                        print(" ".join(f"{name}={_short(row[name])}" for name in COLUMNS), flush=True)
                        rows.append(row)
    return rows


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def mean(rows: list[dict[str, Any]], name: str) -> float:
    """The geometric mean of a column."""
    return float(np.exp(np.mean([np.log(row[name]) for row in rows])))


def main() -> int:
    parser = command.parser("paged", __doc__)
    parser.add_argument("--sizes", nargs="*", default=["small", "llama"], choices=SIZES)
    parser.add_argument("--sequences", nargs="*", type=int, default=[1, 4, 8, 16])
    parser.add_argument("--caches", nargs="*", default=["f32", "u8"])
    parser.add_argument("--weights", nargs="*", default=["f32", "u8", "i4"])
    parser.add_argument("--precision", default="f32", help="INFERENCE_PRECISION_HINT of both")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--threads", nargs="*", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bench-paged")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = compare(arguments, arguments.folder)
    print(f"geometric mean: {mean(rows, 'ratio'):.3f} by the clock, {mean(rows, 'cpu'):.3f} of CPU time")
    return command.finish(arguments, "paged", KEYS, COLUMNS, rows)


if __name__ == "__main__":
    raise SystemExit(main())
