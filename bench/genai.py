"""Pipelines of texts beside the real openvino_genai: CPU time to the first token, and of each further one.

    python -m bench.genai [--what llm batch prefix prefix-batch embed rerank start restart]
    [--weights f32 u8 i4] [--cases 1x16 1x512 4x16 8x16] [--tokens 24] [--threads 1]
    [--rounds 5] [--layers 12] [--json FILE]

A random llama of 12 layers x 768 with 32,000 words, of which it chooses the 300 of a small tokenizer. Each
pipeline has its own process. In interleaved rounds each one gets the same new random prompts. A case `4x512`
has 4 prompts of 512 tokens. Times are taken at each token by a streamer, for several prompts of `batch` at
each step; `further` is the mean of those in which all prompts have a token. LLMPipeline takes no streamer for
several prompts: there one call has one token, another several. `llm` is LLMPipeline beside the real one with
its default engine (PA) and with that of state (SDPA); `batch` is ContinuousBatchingPipeline; `prefix` and
`prefix-batch` are these with prompts that differ in their last 16 tokens only, in one call after another,
and with `enable_prefix_caching`; `embed` and `rerank` get 16 texts of 64 words; `start` is a process from its
begin to the first token, in wall time, with an empty kernel cache; `restart` the same where models were kept.
Other figures are CPU times in milliseconds; ratios are medians over rounds.
`same` is the share of leading tokens that are equal: caches of the real package are u8 by default.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import command, transformers
from bench.large import touch_memory
from bench.rounds import PAUSE
from bench.startup import environment
from bench.whisper import TEXTS

SEED = 20261128
#: Tokens of the tokenizer of the tests. Rows of the last matrix behind them are small.
WORDS = 300
KEYS = ("what", "weights", "sequences", "prompt", "threads")
COLUMNS = (
    *KEYS, "first_ms", "first", "first_sdpa", "further_ms", "further", "further_sdpa", "ratio", "same",
)  # fmt: skip
#: What is measured -> the pipelines of it: name -> (package, class, properties).
PIPELINES: dict[str, dict[str, tuple[str, str, dict[str, Any]]]] = {
    "llm": {
        "ovjit": ("ovjit", "LLMPipeline", {}),
        "openvino": ("openvino", "LLMPipeline", {}),
        "sdpa": ("openvino", "LLMPipeline", {"ATTENTION_BACKEND": "SDPA"}),
    },
    "prefix": {name: (name, "LLMPipeline", {}) for name in ("ovjit", "openvino")},
    **{
        what: {name: (name, kind, {}) for name in ("ovjit", "openvino")}
        for what, kind in (("batch", "ContinuousBatchingPipeline"),
                           ("prefix-batch", "ContinuousBatchingPipeline"), ("embed", "TextEmbeddingPipeline"),
                           ("rerank", "TextRerankPipeline"))
    },
}  # fmt: skip
#: What is measured of whole processes, see `start`.
STARTS = ("start", "restart")
START = """
import sys, time
if sys.argv[1] == "ovjit":
    import ovjit.as_openvino
import openvino_genai
pipeline = openvino_genai.LLMPipeline(sys.argv[2], "CPU", INFERENCE_NUM_THREADS=int(sys.argv[3]))
pipeline.generate("the weather is there", max_new_tokens=int(sys.argv[4]))
"""


class Net(transformers.Net):
    """Builders whose matrix of words has small rows behind the tokenizer's."""

    def stored_weights(self, out: int, wide: int, gain: float) -> Any:
        gains: Any = gain
        if out == transformers.LLAMA.words:
            gains = np.where(np.arange(out) < WORDS, gain, 0.01)[:, None]
        return super().stored_weights(out, wide, gains)


def write_llama(folder: Path, weights: str, layers: int) -> Path:
    """The folder of a decoder with its tokenizer."""
    import openvino

    if not folder.exists():
        model = transformers.llama(
            Net(openvino, "genai-llama", weights), transformers.LLAMA._replace(layers=layers)
        )
        partial = folder.with_name(f"{folder.name}.part")
        shutil.copytree(TEXTS, partial)
        openvino.save_model(model, partial / "openvino_model.xml", compress_to_fp16=False)
        partial.rename(folder)
    return folder


def write_encoder(folder: Path, labels: int) -> Path:
    """The folder of an encoder of 6 layers x 384, or of a classifier of pairs."""
    import openvino

    net, width = transformers.Net(openvino, "genai-encoder"), 384
    ops, shape = net.ops, openvino.PartialShape([-1, -1])
    ids, attended = (ops.parameter(shape, np.int64, name=name) for name in ("input_ids", "attention_mask"))
    x = net.layer_norm(ops.gather(net.weights(WORDS, width, fan=1), ids, net.const(0, np.int64)), width)
    shown = ops.unsqueeze(ops.convert(attended, "f32"), net.ints(1, 2))
    mask = ops.multiply(ops.subtract(net.const(1.0), shown), net.const(-10000.0))
    for _ in range(6):
        x = transformers.encoder_block(net, x, width, 12, mask)
    name = "last_hidden_state"
    if labels:
        first = ops.gather(x, net.const(0, np.int64), net.const(1, np.int64))
        x, name = net.linear(first, width, labels), "logits"
    for node, port in ((ids, "input_ids"), (attended, "attention_mask"), (x, name)):
        node.output(0).tensor.set_names({port})
    shutil.copytree(TEXTS, folder)
    model = net.model([x], [ids, attended], "encoder")
    openvino.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    return folder


#: Tokens of a prompt after those that all prompts share.
OWN = 16


class Case(NamedTuple):
    """Prompts of one call: their number, their tokens, the tokens that follow each, and whether they begin
    alike."""

    sequences: int
    prompt: int
    tokens: int
    seed: int
    shared: bool = False


def _serve(pipe: Any, what: str, name: str, folder: Path, threads: int) -> None:
    """A process with one pipeline: answers to a Case with (CPU seconds to the first token, of each further
    one, result)."""
    package, kind, properties = PIPELINES[what][name]
    if package == "ovjit":
        import ovjit.as_openvino  # noqa: F401
    import openvino
    import openvino_genai

    is_batch, arguments = kind == "ContinuousBatchingPipeline", []
    if is_batch:
        arguments.append(openvino_genai.SchedulerConfig())
        arguments[0].enable_prefix_caching = what == "prefix-batch"
    properties = {"INFERENCE_NUM_THREADS": threads, **properties}
    options = [properties] if is_batch else []
    pipeline = getattr(openvino_genai, kind)(
        str(folder), *arguments, "CPU", *options, **({} if options else properties)
    )
    pipe.send(None)
    while (case := pipe.recv()) is not None:
        if what in ("embed", "rerank"):
            pipe.send(_retrieve(pipeline, case, what))
        else:
            pipe.send(_generate(openvino, openvino_genai, pipeline, case, is_batch))


Times = tuple[float, float, Any]


def _retrieve(pipeline: Any, case: Case, what: str) -> Times:
    """The time of a call of `embed_documents` or `rerank` with texts of about so many tokens."""
    rng = np.random.default_rng([SEED, case.seed])
    words = np.array("the weather is not there hello world other words and".split())
    texts = [" ".join(rng.choice(words, case.prompt // 2)) for _ in range(case.sequences)]
    start_s = time.process_time()
    result = pipeline.embed_documents(texts) if what == "embed" else pipeline.rerank(texts[0], texts)
    return time.process_time() - start_s, 0.0, result


def _generate(package: Any, genai: Any, pipeline: Any, case: Case, batch: bool) -> Times:
    """The times of generated tokens, and the tokens."""
    rng = np.random.default_rng([SEED, case.seed])
    ids, others = rng.integers(3, WORDS, (2, case.sequences, case.prompt))
    if case.shared:
        ids[:, :-OWN] = others[:, :-OWN] = np.random.default_rng(SEED).integers(3, WORDS, case.prompt - OWN)
    config = genai.GenerationConfig(max_new_tokens=case.tokens, ignore_eos=True)
    if batch:
        return _generate_by_steps(genai, pipeline, [package.Tensor(row[None]) for row in ids], config)
    mask, seconds = package.Tensor(np.ones_like(ids)), list[float]()
    if case.sequences == 1:
        return _stream(genai, pipeline, genai.TokenizedInputs(package.Tensor(ids), mask), config)
    for count, rows in ((1, others), (case.tokens, ids)):
        inputs = genai.TokenizedInputs(package.Tensor(rows), mask)
        start_s, config.max_new_tokens = time.process_time(), count
        tokens = pipeline.generate(inputs, config).tokens
        seconds.append(time.process_time() - start_s)
    return seconds[0], (seconds[1] - seconds[0]) / max(case.tokens - 1, 1), tokens


def _stream(genai: Any, pipeline: Any, inputs: Any, config: Any) -> Times:
    """The times of one prompt's tokens, by a streamer."""
    stamps: list[tuple[float, int]] = []

    class Streamer(genai.StreamerBase):
        def write(self, token: Any) -> Any:
            count = 1 if isinstance(token, int) else len(token)
            stamps.append((time.process_time(), count))
            return genai.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    start_s = time.process_time()
    tokens = pipeline.generate(inputs, config, Streamer()).tokens
    further = sum(count for _, count in stamps[1:])
    return stamps[0][0] - start_s, (stamps[-1][0] - stamps[0][0]) / max(further, 1), tokens


def _generate_by_steps(genai: Any, pipeline: Any, prompts: list[Any], config: Any) -> Times:
    """The times of a batch, at each step."""
    start_s = time.process_time()
    handles = [pipeline.add_request(i, prompt, config) for i, prompt in enumerate(prompts)]
    stamps = list[float]()
    while all(handle.get_status() == genai.GenerationStatus.RUNNING for handle in handles):
        pipeline.step()
        if all(handle.can_read() for handle in handles):
            stamps.append(time.process_time())
    while pipeline.has_non_finished_requests():
        pipeline.step()
    if not stamps:
        raise ValueError("the first sequence ended before the last prompt was read: give more --tokens")
    tokens = [handle.read_all()[0].generated_ids for handle in handles]
    return stamps[0] - start_s, (stamps[-1] - stamps[0]) / max(len(stamps) - 1, 1), tokens


class Process:
    """The parent's side of `_serve`."""

    def __init__(self, *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, *arguments), daemon=True)
        self._process.start()
        other.close()
        self._pipe.recv()

    def run(self, case: Case) -> Times:
        time.sleep(PAUSE)
        self._pipe.send(case)
        times: Times = self._pipe.recv()
        return times

    def end(self) -> None:
        self._pipe.send(None)
        self._process.join()


def measure(
    what: str, folder: Path, cases: Sequence[Case], threads: int, rounds: int
) -> list[dict[str, Any]]:
    """A row for each case."""
    ready = {name: Process(what, name, folder, threads) for name in PIPELINES[what]}
    names, rows = list(ready), []
    for number, case in enumerate(cases):
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        results: dict[str, Any] = {}
        for turn in range(rounds + 1):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                first_s, further_s, results[name] = ready[name].run(case._replace(seed=1000 * number + turn))
                if turn:  # the first round compiles, and reads what prompts share
                    times[name].append((first_s, further_s))
        row = {"sequences": case.sequences, "prompt": case.prompt, "threads": threads,
               **_compare(times, case.tokens > 1)}  # fmt: skip
        if what not in ("embed", "rerank"):
            row["same"] = _share(results["ovjit"], results["openvino"])
        print(" ".join(f"{key}={value:.3g}" for key, value in row.items()), flush=True)
        rows.append({"what": what, **row})
    for process in ready.values():
        process.end()
    return rows


def _compare(times: dict[str, list[tuple[float, float]]], has_further: bool) -> dict[str, float]:
    """Milliseconds of ovjit, and its ratios to the others."""
    figures = {}
    for i, name in enumerate(("first", "further") if has_further else ("ratio",)):
        mine = [pair[i] for pair in times["ovjit"]]
        figures[f"{name}_ms" if has_further else "first_ms"] = statistics.median(mine) * 1e3
        for other in [other for other in times if other != "ovjit"]:
            ratios = [a / pair[i] for a, pair in zip(mine, times[other], strict=True)]
            figures[name if other == "openvino" else f"{name}_{other}"] = statistics.median(ratios)
    return figures


def _share(mine: list[list[int]], others: list[list[int]]) -> float:
    """The share of tokens before the first difference of each sequence."""
    same = sum(int(np.cumprod([a == b for a, b in zip(*pair, strict=True)]).sum())
               for pair in zip(mine, others, strict=True))  # fmt: skip
    return same / sum(map(len, mine))


def start(what: str, folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """A process from its begin to the first token: with an empty kernel cache ("start"), or after processes
    that have generated more tokens ("restart")."""
    times: dict[str, list[float]] = {"ovjit": [], "openvino": []}
    size = sum(path.stat().st_size for path in folder.iterdir())
    with tempfile.TemporaryDirectory() as caches:

        def run(name: str, tokens: int, cache: str) -> float:
            start_s = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", START, name, str(folder), str(threads), str(tokens)], check=True,
                env={**environment(), "OVJIT_CACHE": str(Path(caches) / cache)},
            )  # fmt: skip
            return time.perf_counter() - start_s

        for name in times:  # Python's bytecode, the files' pages, and for "restart" the kept models
            run(name, 64, "first")
        for turn in range(rounds):
            for name in ("ovjit", "openvino")[:: 1 if turn % 2 else -1]:
                touch_memory(2 * size)
                times[name].append(run(name, 1, "first" if what == "restart" else f"new{turn}"))
    pairs = zip(times["ovjit"], times["openvino"], strict=True)
    return {
        "what": what, "threads": threads, "first_ms": statistics.median(times["ovjit"]) * 1e3,
        "ratio": statistics.median(a / b for a, b in pairs),
    }  # fmt: skip


def compare(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All rows."""
    pairs = [text.split("x") for text in options.cases]
    cases = [Case(int(count), int(size), options.tokens, 0) for count, size in pairs]
    alike = [case._replace(shared=True) for case in cases]
    rows = []
    for what in options.what:
        if what in ("embed", "rerank"):
            path = write_encoder(folder / what, int(what == "rerank"))
            for threads in options.threads:
                rows += measure(what, path, [Case(16, 64, 1, 0), Case(1, 16, 1, 0)], threads, options.rounds)
            continue
        for weights in options.weights:
            path = write_llama(options.folder / f"llama-{weights}-{options.layers}", weights, options.layers)
            for threads in options.threads:
                print(what, weights, threads, flush=True)
                if what in STARTS:
                    more = [start(what, path, threads, options.rounds)]
                else:
                    chosen = alike if what.startswith("prefix") else cases
                    more = measure(what, path, chosen, threads, options.rounds)
                rows += [{**row, "weights": weights} for row in more]
    return rows


def main() -> int:
    parser = command.parser("genai", __doc__)
    names = [*PIPELINES, *STARTS]
    parser.add_argument("--what", nargs="*", default=names, choices=names)
    parser.add_argument("--weights", nargs="*", default=["f32", "u8", "i4"], choices=["f32", "u8", "i4"])
    parser.add_argument("--cases", nargs="*", default=["1x16", "1x512", "4x16", "8x16"])
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--threads", nargs="*", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bench-genai")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        rows = compare(options, Path(temporary))
    return command.finish(options, "genai", KEYS, COLUMNS, rows)


if __name__ == "__main__":
    raise SystemExit(main())
