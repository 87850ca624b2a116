"""Tokenizer IRs: texts in a second beside OpenVINO's, with openvino_tokenizers.

    python -m bench.tokenizers [--kinds gpt2 llama3 llama2 unigram wordpiece] [--threads 1 2] [--rounds 5]

Small tokenizers of Hugging Face are trained on this project's pages, and converted by openvino_tokenizers.
The texts are the same pages: `long` is one text of 200 kB, `lines 64` and `lines 1` are lines in batches,
`short` is one sentence, `decode 64` and `decode 1` give the texts of lines. `ratio` is the median over
rounds of OpenVINO's CPU time over ovjit's: above 1, ovjit is faster. Needs openvino, openvino_tokenizers,
transformers and regex.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import command

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("kind", "threads", "texts", "openvino_mb_s", "ovjit_mb_s", "ratio")
KINDS = ("gpt2", "llama3", "llama2", "unigram", "wordpiece")
WORDS, PAUSE, SECONDS = 6000, 0.03, 0.2
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def pages() -> str:
    return "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))


def train(kind: str, lines: Sequence[str]) -> Any:
    """A tokenizer of transformers."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    tokens: dict[str, Any] = {"vocab_size": WORDS, "special_tokens": special, "show_progress": False}
    if kind in ("gpt2", "llama3"):
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        if kind == "llama3":
            cut = pre_tokenizers.Split(Regex(LLAMA3), "isolated", False)
            write = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            made.pre_tokenizer = pre_tokenizers.Sequence([cut, write])
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **tokens)
    elif kind == "llama2":
        made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        fallback = [f"<0x{i:02X}>" for i in range(256)]
        trainer = trainers.BpeTrainer(**{**tokens, "special_tokens": special + fallback})
        parts = [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
        made.decoder = decoders.Sequence(parts)
    elif kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **tokens)
    else:
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**tokens)
    made.train_from_iterator(lines, trainer)
    if kind == "llama2":
        made.pre_tokenizer = None
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def write(tokenizer: Any, folder: Path) -> tuple[Path, Path]:
    """The IRs of a tokenizer and its detokenizer, as openvino_tokenizers makes them."""
    import openvino
    from openvino_tokenizers import convert_tokenizer

    made = convert_tokenizer(tokenizer, with_detokenizer=True)
    paths = folder / "tokenizer.xml", folder / "detokenizer.xml"
    for model, path in zip(made, paths, strict=True):
        openvino.save_model(model, path, compress_to_fp16=False)
    return paths


def work_of(encode: Any, decode: Any, text: str) -> dict[str, tuple[Callable[[], None], int]]:
    """Texts -> (what is timed, its bytes)."""
    lines = [line for line in text.splitlines() if line.strip()][:640]
    ids = {n: np.asarray(encode(lines[:n])["input_ids"], np.int64) for n in (1, 64)}
    size = {n: len("".join(lines[:n]).encode()) for n in (1, 64, 640)}
    long, short = [text[:200_000]], ["Hello world, how are you today?"]

    def batches(count: int) -> Callable[[], None]:
        return lambda: [encode(lines[i : i + count]) for i in range(0, 640, count)] and None

    return {
        "long": (lambda: encode(long) and None, len(long[0].encode())),
        "lines 64": (batches(64), size[640]),
        "lines 1": (batches(1), size[640]),
        "short": (lambda: encode(short) and None, len(short[0])),
        "decode 64": (lambda: decode(ids[64]) and None, size[64]),
        "decode 1": (lambda: decode(ids[1]) and None, size[1]),
    }


def cpu_seconds(run: Callable[[], None]) -> float:
    """CPU seconds of one run, over SECONDS."""
    time.sleep(PAUSE)
    run()
    count, began, end = 0, time.process_time(), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        run()
        count += 1
    return (time.process_time() - began) / count


def measure(
    kind: str, paths: tuple[Path, Path], threads: int, rounds: int, text: str
) -> list[dict[str, Any]]:
    import openvino

    import ovjit

    both = {}
    for name, package in (("openvino", openvino), ("ovjit", ovjit)):
        core, config = package.Core(), {"INFERENCE_NUM_THREADS": threads}
        both[name] = work_of(*(core.compile_model(str(path), "CPU", config) for path in paths), text)
    rows = []
    for texts in both["ovjit"]:
        times: dict[str, list[float]] = {name: [] for name in both}
        for turn in range(rounds):
            for name in list(both)[:: 1 if turn % 2 else -1]:
                times[name].append(cpu_seconds(both[name][texts][0]))
        speed = {name: both[name][texts][1] / statistics.median(times[name]) / 1e6 for name in both}
        pairs = zip(times["openvino"], times["ovjit"], strict=True)
        rows.append({
            "kind": kind, "threads": threads, "texts": texts, "openvino_mb_s": speed["openvino"],
            "ovjit_mb_s": speed["ovjit"], "ratio": statistics.median(a / b for a, b in pairs),
        })  # fmt: skip
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser: argparse.ArgumentParser = command.parser("tokenizers", __doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    text, rows = pages(), []
    for kind in given.kinds:
        with tempfile.TemporaryDirectory() as folder:
            paths = write(train(kind, text.splitlines(keepends=True)), Path(folder))
            for threads in given.threads:
                rows += measure(kind, paths, threads, given.rounds, text)
    return command.finish(given, "tokenizers", ("kind", "threads", "texts"), COLUMNS, rows)


if __name__ == "__main__":
    raise SystemExit(main())
