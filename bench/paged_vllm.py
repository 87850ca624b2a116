"""Tokens a second through vLLM: over ovjit's decoder, over OpenVINO's, and by vLLM's own CPU backend.

    python -m bench.paged_vllm --python PYTHON [--sequences 1 4 16] [--engines ovjit vllm openvino]
    [--weights 0] [--cache f32] [--rounds 5] [--tokens 16] [--json FILE]

PYTHON is that of an environment with vLLM and ovjit (docs/serving.md), and with openvino for that engine.
Each engine is a process with vLLM's whole engine in it, on one thread. All serve the same random Llama and
take turns. OpenVINO's process is ovjit's platform with OpenVINO's package in the place of ovjit's. A request
has 64 tokens and gets `--tokens` more, greedily. Times are CPU seconds of the process, which other jobs
change less than the clock. `ratio` is ovjit's over the other's, the median over rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import command

KEYS = ("engine", "weights", "cache", "sequences")
COLUMNS = (*KEYS, "tokens_cpu_s", "ratio", "same")
SHAPE: dict[str, Any] = {
    "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 4, "vocab_size": 8000, "max_position_embeddings": 1024,
}  # fmt: skip
SEED, PROMPT = 20261123, 64


class Engine:
    """A process with an engine of vLLM, which answers lines of JSON."""

    def __init__(self, python: str, name: str, folder: Path, options: dict[str, Any], log: Path):
        environment = os.environ | {
            "OVJIT_VLLM": "0" if name == "vllm" else "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }  # fmt: skip
        self.name, self.log = name, log
        server = [python, "-m", "bench.paged_vllm", "--serve", name, str(folder), json.dumps(options)]
        self.process = subprocess.Popen(
            server, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w"),
            text=True,
        )  # fmt: skip

    def ask(self, *question: Any) -> Any:
        """The answer to a question. RuntimeError with its last words if the process ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise RuntimeError(f"{self.name} ended: {self.log.read_text()[-3000:]}")


def serve(name: str, folder: Path, options: dict[str, Any]) -> None:
    """One engine: [sequences, tokens, seed] -> [CPU seconds of decoding, tokens]."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    more: dict[str, Any] = {}
    if name != "vllm":
        more["additional_config"] = {**options, "properties": {"INFERENCE_NUM_THREADS": 1}}
    if name == "openvino":
        _use_openvino()
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder), skip_tokenizer_init=True, max_model_len=512, kv_cache_memory_bytes=256 << 20,
        max_num_seqs=16, max_num_batched_tokens=1024, dtype="float32", enable_prefix_caching=False, **more,
    )  # fmt: skip
    for line in sys.stdin:
        count, tokens, seed = json.loads(line)
        rng = np.random.default_rng(seed)
        prompts = [{"prompt_token_ids": rng.integers(3, 8000, PROMPT).tolist()} for _ in range(count)]
        found, times = [], []
        for length in (1, 1 + tokens):  # what the prompts take is subtracted
            params = SamplingParams(temperature=0, max_tokens=length, ignore_eos=True, detokenize=False)
            began = time.process_time()
            outs = llm.generate(prompts, params, use_tqdm=False)
            times.append(time.process_time() - began)
            found = [list(out.outputs[0].token_ids) for out in outs]
        print("@" + json.dumps([times[1] - times[0], found]), flush=True)


def _use_openvino() -> None:
    """Put OpenVINO's package in the place of ovjit's, in the decoder that the platform runs."""
    import openvino
    from openvino._offline_transformations import paged_attention_transformation

    from ovjit.generation import paged

    paged.ov, paged.paged_attention_transformation = openvino, paged_attention_transformation


def make(folder: Path, weights: int) -> None:
    """A random Llama: safetensors, and in `folder`/ir the IR that OpenVINO reads."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    import ovjit
    from ovjit.compat.passes.weight_compression import compress_weights
    from ovjit.readers.checkpoint.reader import read_checkpoint

    torch.manual_seed(SEED)
    config = LlamaConfig(**SHAPE, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    model = read_checkpoint(folder)
    if weights:
        compress_weights(model, weights)
    (folder / "ir").mkdir()
    ovjit.save_model(model, folder / "ir" / "openvino_model.xml", compress_to_fp16=False)
    shutil.copy(folder / "config.json", folder / "ir")


def compare(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A row for each engine and number of sequences."""
    options = {"kv_cache": arguments.cache}
    engines = {
        name: Engine(
            arguments.python,
            name,
            folder if name == "vllm" else folder / "ir",
            options,
            folder / f"{name}.log",
        )  # fmt: skip
        for name in arguments.engines
    }
    rows = []
    for count in arguments.sequences:
        times: dict[str, list[float]] = {name: [] for name in engines}
        tokens: dict[str, Any] = {}
        for turn in range(-1, arguments.rounds):
            order = list(engines)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                seconds, tokens[name] = engines[name].ask(count, arguments.tokens, [SEED, count])
                if turn >= 0:
                    times[name].append(seconds)
        for name, seconds in times.items():
            row = {
                "engine": name, "weights": arguments.weights if name != "vllm" else 0,
                "cache": arguments.cache if name != "vllm" else "f32", "sequences": count,
                "tokens_cpu_s": count * arguments.tokens / statistics.median(seconds),
                "ratio": statistics.median(a / b for a, b in zip(times["ovjit"], seconds, strict=True)),
                "same": tokens[name] == tokens["ovjit"],
            }  # fmt: skip
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
    for engine in engines.values():
        engine.process.kill()
    return rows


def main() -> int:
    parser = command.parser("paged_vllm", __doc__)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--engines", nargs="*", default=["ovjit", "vllm", "openvino"])
    parser.add_argument("--sequences", nargs="*", type=int, default=[1, 4, 16])
    parser.add_argument("--weights", type=int, default=0, choices=(0, 4, 8))
    parser.add_argument("--cache", default="f32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        name, folder, options = arguments.serve
        serve(name, Path(folder), json.loads(options))
        return 0
    if arguments.make:
        make(Path(arguments.make[0]), int(arguments.make[1]))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        maker = [arguments.python, "-m", "bench.paged_vllm", "--make", str(folder), str(arguments.weights)]
        subprocess.run(maker, check=True, stdout=subprocess.DEVNULL)
        rows = compare(arguments, folder)
    return command.finish(arguments, "paged_vllm", KEYS, COLUMNS, rows)


if __name__ == "__main__":
    raise SystemExit(main())
