"""IR files with any number, attribute, name, line or edge changed: an error of our own, or the interpreter's
answer."""

from __future__ import annotations

import functools
import random
import re
import sys
from collections.abc import Iterator
from typing import Any

import ovjit
from ovjit.readers.ir.writer import to_bytes
from tests.fuzz import fuzz_bases, fuzz_models, fuzzing

#: Values of attributes, dimensions and other text, and sometimes the names of attributes and tags.
_TOKEN = re.compile(r'(?<==")[^"<>]*(?=")|(?<=>)[^<>\n]+(?=<)|(?<=[ ])[a-z_-]+(?==")')
#: Neighbouring seeds that change one model.
BLOCK = 64
KINDS = ("value", "value", "value", "copy", "swap", "drop", "twice", "bytes", "cut")


class File:
    """A model's file and where its tokens are."""

    def __init__(self, number: tuple[int, int]):
        text, self.weights = to_bytes(fuzz_bases.base(number))
        self.text = text.decode()
        if number[1] % 4:  # the shapes of ports are notes: without them a file is read in half the time
            self.text = re.sub(r"\s*<dim>[^<]*</dim>", "", self.text)
        self.feeds = fuzz_bases.feeds(number)
        self.tokens = [m.span() for m in _TOKEN.finditer(self.text)]
        self.lines = self.text.count("\n")


@functools.lru_cache(64)
def file(number: tuple[int, int]) -> File:
    return File(number)


def make(seed: int) -> dict[str, Any]:
    number = fuzz_bases.pick(random.Random(seed // BLOCK))
    rng = random.Random(seed)
    base = file(number)
    changes: list[list[Any]] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.choice(KINDS)
        at = rng.randrange(len(base.tokens))
        if kind == "value":
            first, last = base.tokens[at]
            changes.append(["value", at, _value(rng, base.text[first:last])])
        elif kind in ("copy", "swap"):
            changes.append([kind, at, rng.randrange(len(base.tokens))])
        elif kind in ("drop", "twice"):
            changes.append([kind, rng.randrange(1, base.lines)])
        elif base.weights:
            place = rng.randrange(len(base.weights))
            changes.append([kind, place, list(rng.randbytes(8))] if kind == "bytes" else [kind, place])
    hint = "bf16" if rng.random() < 0.1 else "f32"
    return {"base": number, "changes": changes, "hint": hint, "seed": seed}


def _value(rng: random.Random, old: str) -> str:
    number = re.fullmatch(r"-?\d+", old) and rng.random() < 0.8
    new = str(rng.choice(fuzz_models.NUMBERS if number else fuzz_models.TEXTS))
    if "," in old and rng.random() < 0.7:
        parts = old.split(",")
        parts[rng.randrange(len(parts))] = new
        new = ",".join(parts)
    return new


def changed(case: dict[str, Any]) -> tuple[str, bytes]:
    """The file's text and its weights."""
    base = file(tuple(case["base"]))
    text, weights, places = base.text, base.weights, base.tokens
    for kind, at, *more in case["changes"]:
        if places is None:
            places = [m.span() for m in _TOKEN.finditer(text)]
        if kind == "value" and at < len(places):
            first, last = places[at]
            text = text[:first] + more[0].replace("<", "").replace("&", "") + text[last:]
        elif kind in ("copy", "swap") and max(at, more[0]) < len(places):
            (a, b), (c, d) = sorted((places[at], places[more[0]]))
            if b > c:
                continue
            one, two = text[a:b], text[c:d]
            text = text[:a] + two + text[b:c] + (one if kind == "swap" else two) + text[d:]
        elif kind in ("drop", "twice"):
            lines = text.split("\n")
            if at < len(lines):
                lines[at : at + 1] = [] if kind == "drop" else [lines[at]] * 2
            text = "\n".join(lines)
        elif kind == "bytes":
            weights = weights[:at] + bytes(more[0]) + weights[at + len(more[0]) :]
        elif kind == "cut":
            weights = weights[:at]
        places = None
    return text, weights


def check(case: dict[str, Any]) -> str:
    text, weights = changed(case)
    fuzz_models.install()
    content = text.encode("utf-8", "replace")
    return fuzz_models.read_and_run(
        lambda: ovjit.Core().read_model(content, weights),
        {"INFERENCE_PRECISION_HINT": case["hint"]},
        file(tuple(case["base"])).feeds,
    )


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for changes in fuzzing.without(case["changes"]):
        yield {**case, "changes": changes}


#: The part of a case that findings show.
SHOWN = "changed(case)[0]"

if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
