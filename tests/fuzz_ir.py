"""IR files with any number, attribute, name, line or edge changed: an error of our own, or the interpreter's
answer."""

from __future__ import annotations

import functools
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuzz_models
import fuzzing
import numpy as np

import ovjit

#: Values of attributes, dimensions and other text, and sometimes the names of attributes and tags.
_TOKEN = re.compile(r'(?<==")[^"<>]*(?=")|(?<=>)[^<>\n]+(?=<)|(?<=[ ])[a-z_-]+(?==")')


@functools.cache
def files() -> list[tuple[str, bytes]]:
    out = []
    with tempfile.TemporaryDirectory() as folder:
        for model in fuzz_models.models():
            path = Path(folder) / "model.xml"
            ovjit.save_model(model, path, compress_to_fp16=False)
            out.append((path.read_text(), path.with_suffix(".bin").read_bytes()))
    return out


def make(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([20261207, seed])
    base = int(rng.integers(len(files())))
    text, weights = files()[base]
    changes: list[list[Any]] = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        tokens = len(_TOKEN.findall(text))
        lines = text.count("\n")
        kind = str(rng.choice(["value", "value", "value", "copy", "swap", "drop", "twice", "bytes", "cut"]))
        at = int(rng.integers(tokens))
        if kind == "value":
            old = _TOKEN.findall(text)[at]
            number = re.fullmatch(r"-?\d+", old) and rng.random() < 0.8
            new = str(rng.choice(np.array(fuzz_models.NUMBERS, object))) if number else str(
                fuzz_models.TEXTS[int(rng.integers(len(fuzz_models.TEXTS)))]
            )  # fmt: skip
            if "," in old and rng.random() < 0.7:
                parts = old.split(",")
                parts[int(rng.integers(len(parts)))] = new
                new = ",".join(parts)
            changes.append(["value", at, new])
        elif kind in ("copy", "swap"):
            changes.append([kind, at, int(rng.integers(tokens))])
        elif kind in ("drop", "twice"):
            changes.append([kind, int(rng.integers(1, lines))])
        elif kind == "bytes":
            changes.append([kind, int(rng.integers(len(weights))), rng.integers(0, 256, 8).tolist()])
        else:
            changes.append([kind, int(rng.integers(len(weights)))])
    return {"base": base, "changes": changes, "seed": seed}


def changed(case: dict[str, Any]) -> tuple[str, bytes]:
    """The file's text and its weights."""
    text, weights = files()[case["base"]]
    for kind, at, *more in case["changes"]:
        places = [m.span() for m in _TOKEN.finditer(text)]
        lines = text.split("\n")
        if kind == "value" and at < len(places):
            first, last = places[at]
            text = text[:first] + more[0].replace("<", "").replace("&", "") + text[last:]
        elif kind in ("copy", "swap") and max(at, more[0]) < len(places):
            (a, b), (c, d) = sorted((places[at], places[more[0]]))
            if b > c:
                continue
            one, two = text[a:b], text[c:d]
            text = text[:a] + two + text[b:c] + (one if kind == "swap" else two) + text[d:]
        elif kind == "drop" and at < len(lines):
            text = "\n".join(lines[:at] + lines[at + 1 :])
        elif kind == "twice" and at < len(lines):
            text = "\n".join(lines[: at + 1] + lines[at:])
        elif kind == "bytes":
            weights = weights[:at] + bytes(more[0]) + weights[at + len(more[0]) :]
        elif kind == "cut":
            weights = weights[:at]
    return text, weights


def check(case: dict[str, Any]) -> str:
    fuzz_models.install()
    text, weights = changed(case)
    return fuzz_models.run(lambda: ovjit.Core().read_model(text.encode("utf-8", "replace"), weights))


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for changes in fuzzing.without(case["changes"]):
        yield {**case, "changes": changes}


def script(case: dict[str, Any]) -> str:
    return (
        "import json, fuzz_ir  # in tests/\n"
        f"case = json.loads({json.dumps(json.dumps(case))})\n"
        "print(fuzz_ir.changed(case)[0])\nprint(fuzz_ir.check(case))"
    )


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
