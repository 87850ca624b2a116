"""Blobs of strangers with anything in their graph and header changed, all checksums right: an error of the
project's own, or the interpreter's answer. Their code is never used, so the graph is all there is."""

from __future__ import annotations

import copy
import functools
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import fuzz_models
import fuzzing
import numpy as np

import ovjit
from ovjit.storage.container import Container, write_container
from ovjit.storage.graph_format import dump, parse

FOREIGN = bytes(range(32))
CHANGED = ("graph", "header")


@functools.cache
def blobs() -> list[dict[str, Any]]:
    """The sections of a blob of each model, the changed ones parsed."""
    out = []
    for model in fuzz_models.models():
        content = ovjit.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1}).export_model()
        sections: dict[str, Any] = dict(Container(memoryview(content.getvalue())).sections)
        sections = {k: bytes(v) for k, v in sections.items()}
        out.append({**sections, **{k: parse(sections[k], k) for k in CHANGED}})
    return out


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield from _places(value, (*path, key))


def make(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([20261208, seed])
    base = int(rng.integers(len(blobs())))
    changes = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        section = "graph" if rng.random() < 0.9 else "header"
        places = list(_places(blobs()[base][section]))
        at = places[int(rng.integers(len(places)))]
        kind = str(rng.choice(["value", "value", "value", "copy", "drop", "twice", "bytes"]))
        if kind == "value":
            new = _value(rng, _get(blobs()[base][section], at))
            changes.append([kind, section, list(at), new])
        elif kind == "copy":
            changes.append([kind, section, list(at), list(places[int(rng.integers(len(places)))])])
        elif kind == "bytes":
            size = len(blobs()[base]["weights"])
            changes.append(
                [kind, "weights", int(rng.integers(max(size, 1))), rng.integers(0, 256, 8).tolist()]
            )
        else:
            changes.append([kind, section, list(at)])
    return {"base": base, "changes": changes, "seed": seed}


def _value(rng: np.random.Generator, old: Any) -> Any:
    other = rng.random() < 0.2
    if isinstance(old, bool) != other and isinstance(old, bool):
        return not old
    if (isinstance(old, (int, float)) and not other) or (isinstance(old, str) and other):
        return fuzz_models.NUMBERS[int(rng.integers(len(fuzz_models.NUMBERS)))]
    if isinstance(old, str) or rng.random() < 0.4:
        return fuzz_models.TEXTS[int(rng.integers(len(fuzz_models.TEXTS)))]
    return [[], {}, None, True, 0.5, [0], {"t": []}, {"a": []}, [[0, 0]]][int(rng.integers(9))]


def _get(tree: Any, path: Any) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def changed(case: dict[str, Any]) -> bytes:
    sections = dict(blobs()[case["base"]])
    sections.update({k: copy.deepcopy(sections[k]) for k in CHANGED})
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
    return write_container({**sections, **{k: dump(sections[k]) for k in CHANGED}}, FOREIGN)


def check(case: dict[str, Any]) -> str:
    logging.getLogger("ovjit").setLevel(logging.ERROR)
    blobs()  # before constants lie between pages
    fuzz_models.install()
    try:
        content = changed(case)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return ""  # nothing that a file can hold
    return fuzz_models.run(lambda: ovjit.Core().import_model(content, "CPU"))


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for changes in fuzzing.without(case["changes"]):
        yield {**case, "changes": changes}


def script(case: dict[str, Any]) -> str:
    return (
        "import json, fuzz_blobs  # in tests/\n"
        f"case = json.loads({json.dumps(json.dumps(case))})\n"
        "print(fuzz_blobs.check(case))"
    )


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
