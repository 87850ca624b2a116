"""Blobs of strangers with anything in their graph and header changed, all checksums right: an error of the
project's own, or the interpreter's answer. Their code is never used, so the graph is all there is."""

from __future__ import annotations

import copy
import functools
import json
import logging
import random
import sys
from collections.abc import Iterator
from typing import Any

import ovjit
from ovjit.storage.container import Container, write_container
from ovjit.storage.graph_format import dump, parse
from tests.fuzz import fuzz_bases, fuzz_models, fuzzing

FOREIGN = bytes(range(32))
CHANGED = ("graph", "header")
#: Sections of an untrusted blob that are not read.
UNUSED = ("code", "program")
#: Neighbouring seeds that change one blob.
BLOCK = 128
KINDS = ("value", "value", "value", "copy", "drop", "twice", "bytes")


class Blob:
    """The sections of a model's blob, the changed ones parsed, and the places in these."""

    def __init__(self, number: tuple[int, int]):
        model = fuzz_bases.base(number)
        content = ovjit.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1}).export_model()
        sections: dict[str, Any] = dict(Container(memoryview(content.getvalue())).sections)
        self.sections = {k: b"" if k in UNUSED else bytes(v) for k, v in sections.items()}
        self.feeds = fuzz_bases.feeds(number)
        self.tables = {k: parse(self.sections[k], k) for k in CHANGED}
        self.places = {k: list(_places(self.tables[k])) for k in CHANGED}


@functools.lru_cache(64)
def blob(number: tuple[int, int]) -> Blob:
    return Blob(number)


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield from _places(value, (*path, key))


def make(seed: int) -> dict[str, Any]:
    number = fuzz_bases.pick(random.Random(seed // BLOCK))
    rng = random.Random(seed)
    base = blob(number)
    changes: list[list[Any]] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        section = "graph" if rng.random() < 0.9 else "header"
        places = base.places[section]
        at = rng.choice(places)
        kind = rng.choice(KINDS)
        if kind == "value":
            new = _value(rng, _get(base.tables[section], at))
            changes.append([kind, section, list(at), new])
        elif kind == "copy":
            changes.append([kind, section, list(at), list(rng.choice(places))])
        elif kind == "bytes":
            size = len(base.sections["weights"])
            changes.append([kind, "weights", rng.randrange(max(size, 1)), list(rng.randbytes(8))])
        else:
            changes.append([kind, section, list(at)])
    return {"base": number, "changes": changes, "seed": seed}


def _value(rng: random.Random, old: Any) -> Any:
    other = rng.random() < 0.2
    if isinstance(old, bool) and not other:
        return not old
    if (isinstance(old, (int, float)) and not other) or (isinstance(old, str) and other):
        return rng.choice(fuzz_models.NUMBERS)
    if isinstance(old, str) or rng.random() < 0.4:
        return rng.choice(fuzz_models.TEXTS)
    return rng.choice([[], {}, None, True, 0.5, [0], {"t": []}, {"a": []}, [[0, 0]]])


def _get(tree: Any, path: Any) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def changed(case: dict[str, Any]) -> bytes:
    sections = dict(blob(tuple(case["base"])).sections)
    touched = {section for _, section, *_ in case["changes"]}
    sections.update({k: json.loads(sections[k]) for k in CHANGED if k in touched})
    for kind, section, at, *more in case["changes"]:
        if kind == "bytes":
            raw = sections["weights"]
            sections["weights"] = raw[:at] + bytes(more[0]) + raw[at + len(more[0]) :] if raw else raw
            continue
        try:
            parent = _get(sections[section], at[:-1])
            if kind == "value":
                parent[at[-1]] = more[0]
            elif kind == "copy":
                parent[at[-1]] = copy.deepcopy(_get(sections[section], more[0]))
            elif kind == "drop":
                del parent[at[-1]]
            elif isinstance(parent, list):
                parent.insert(at[-1], copy.deepcopy(parent[at[-1]]))
        except (LookupError, TypeError):
            continue  # an earlier change has taken the place away
    dumped = {k: dump(v) if isinstance(v, dict) else v for k, v in sections.items()}
    return write_container(dumped, FOREIGN)


def check(case: dict[str, Any]) -> str:
    logging.getLogger("ovjit").setLevel(logging.ERROR)
    fuzz_models.install()
    try:
        content = changed(case)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return ""  # nothing that a file can hold
    feeds = blob(tuple(case["base"])).feeds
    return fuzz_models.read_and_run(lambda: ovjit.Core().import_model(content, "CPU"), feeds=feeds)


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for changes in fuzzing.without(case["changes"]):
        yield {**case, "changes": changes}


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
