"""A decoder that generates tokens: the time to the first one, and how many follow in a second.

    python -m bench.generate [--models llama gpt2] [--precision f32 bf16 u8 i4] [--prompt 64 512]
    [--tokens 64] [--threads 1 2] [--rounds 5]

The models are decoders of `bench.transformers`, with keys and values in variables as `optimum` exports them.
For each precision ovjit and the real OpenVINO read the same file and generate greedily from the same prompt,
in interleaved rounds. f32 and bf16 are compute types of both. u8 and i4 are storage types of weights, in both
engines' default precision. `same` counts the leading tokens on which both agree.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import command, report, transformers

COLUMNS = (
    "model",
    "precision",
    "prompt",
    "threads",
    "first_ms",
    "ratio_first",
    "tokens_s",
    "ratio_token",
    "same",
)


def generate(request: Any, prompt: np.ndarray, tokens: int) -> tuple[list[int], float, list[float]]:
    """(tokens, seconds to the first, seconds of each of the others)"""
    request.reset_state()
    ids, place, found, times = prompt, 0, [], []
    beams = np.zeros(1, np.int32)
    for _ in range(tokens):
        length = place + ids.shape[1]
        positions = np.arange(place, length)[None]
        inputs = {
            "input_ids": ids, "attention_mask": np.ones((1, length), np.int64), "position_ids": positions,
            "beam_idx": beams,
        }  # fmt: skip
        began = time.perf_counter()
        request.infer(inputs)
        times.append(time.perf_counter() - began)
        found.append(int(request.get_output_tensor(0).data[0, -1].argmax()))
        ids, place = np.array([[found[-1]]]), length
    return found, times[0], times[1:]


def measure(
    name: str, precision: str, prompt: int, threads: int, tokens: int, rounds: int, folder: Path | None
) -> dict[str, Any]:
    import openvino

    import ovjit

    stored = precision if precision in ("u8", "i4") else "f32"
    path = str(transformers.build(name, folder, stored))
    hints: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    if precision in ("f32", "bf16"):
        hints["INFERENCE_PRECISION_HINT"] = precision
    mine, theirs = (
        package.Core().compile_model(path, "CPU", hints).create_infer_request()
        for package in (ovjit, openvino)
    )
    ids = transformers.inputs(name, prompt)[0]
    runs: dict[str, list[Any]] = {"mine": [], "theirs": []}
    generate(mine, ids, 2), generate(theirs, ids, 2)  # warm
    for _ in range(rounds):
        runs["mine"].append(generate(mine, ids, tokens))
        runs["theirs"].append(generate(theirs, ids, tokens))
    ours, others = runs["mine"][0][0], runs["theirs"][0][0]
    same = next((i for i, (a, b) in enumerate(zip(ours, others, strict=True)) if a != b), len(ours))
    each = {name: [statistics.median(r[2]) for r in found] for name, found in runs.items()}
    pairs = zip(runs["mine"], runs["theirs"], strict=True)
    return {
        "model": name, "precision": precision, "prompt": prompt, "threads": threads,
        "first_ms": statistics.median(r[1] for r in runs["mine"]) * 1e3,
        "ratio_first": statistics.median(a[1] / b[1] for a, b in pairs),
        "tokens_s": 1 / statistics.median(each["mine"]),
        "ratio_token": statistics.median(a / b for a, b in zip(each["mine"], each["theirs"], strict=True)),
        "same": same,
    }  # fmt: skip


def main() -> int:
    parser = command.parser("generate", __doc__, json=False)
    parser.add_argument("--models", nargs="*", default=["llama"], choices=transformers.DECODERS)
    parser.add_argument("--precision", nargs="*", default=["f32", "bf16", "u8", "i4"])
    parser.add_argument("--prompt", nargs="*", type=int, default=[64, 512])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    rows = [
        measure(name, precision, prompt, threads, arguments.tokens, arguments.rounds, arguments.folder)
        for name in arguments.models
        for precision in arguments.precision
        for prompt in arguments.prompt
        for threads in arguments.threads
    ]
    print(report.table(rows, COLUMNS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
