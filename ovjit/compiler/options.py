"""What a compilation is for and what it may do: the target, and the options that properties give."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from ovjit import debug
from ovjit.codegen.cpu.formats import float_types
from ovjit.codegen.cpu.targets import Target
from ovjit.records import NamedTuple

#: Threads of a stream up to which batches are computed part by part: more find too little work in a part.
MOST_THREADS = 8


class Options(NamedTuple):
    """`exact`: no algorithm that trades accuracy for speed (EXECUTION_MODE_HINT=ACCURACY).

    `precision`: the element type of f32 convolutions and matrix products (INFERENCE_PRECISION_HINT).
    `caches`: the types in which caches of keys and values may be stored, if different (`Cache.names`).
    `dynamic`: size of the groups in which rows are quantized before products with compressed weights
    (DYNAMIC_QUANTIZATION_GROUP_SIZE), 0 for none. `kept`: how caches of keys and of values are stored.
    `batches`: large batches may be computed part by part (`ovjit.rewrite.batches`)."""

    exact: bool = False
    precision: str = "f32"
    dynamic: int = 0
    caches: tuple[str, ...] = ()
    kept: tuple[Cache, Cache] | None = None
    batches: bool = False

    @staticmethod
    def of(config: Mapping[str, Any], target: Target) -> Options:
        """What a compilation's properties say of it, for this target."""
        exact = str(config.get("EXECUTION_MODE_HINT", "")).endswith("ACCURACY")
        precision = precision_of(config)
        dynamic = int(config.get("DYNAMIC_QUANTIZATION_GROUP_SIZE") or 0)
        kept, floats = caches_of(config), float_types(target)
        names = (name for cache in kept for name in cache.names(precision, floats))
        low = tuple(dict.fromkeys(name for name in names if name != precision))
        batches = 0 < config.get("threads", 0) <= MOST_THREADS and not config.get("PERF_COUNT")
        return Options(exact, precision, dynamic, low, kept, batches)


#: Properties that say how caches of keys and values are stored.
CACHES = ("KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION")


def precision_of(config: Mapping[str, Any]) -> str:
    """The element type that INFERENCE_PRECISION_HINT asks for."""
    asked = _name(config.get("INFERENCE_PRECISION_HINT"))
    return asked if asked in ("bf16", "f16") else "f32"


def _name(asked: Any) -> Any:
    """What an element type is called, however it is given."""
    return getattr(asked, "_name", asked)


class Cache(NamedTuple):
    """How keys or values are stored: as the type `kind` if it was `asked` for, else so where OpenVINO would.
    `group`: elements of a row of bytes that share a scale, 0: all."""

    kind: str
    group: int = 0
    asked: bool = True

    @property
    def text(self) -> str:
        """What blobs say of it."""
        return f"{self.kind}:{self.group}" + ("" if self.asked else " by default")

    def names(self, computed: str, floats: Collection[str] = ()) -> tuple[str, ...]:
        """The types to store them in, in a model that computes in the type `computed`: the first that fits.
        `floats`: the types that the target multiplies. 16-bit floats have room for rows that cannot be
        bytes."""
        plain = computed if computed in floats else "f32"
        if self.kind not in ("u8", "u4"):
            return (self.kind,)
        behind = f":{self.group}" if self.group else ""
        half = "bf16" if plain == "bf16" else "f16"
        packed = ("u4", "u8") if self.kind == "u4" else ("u8",)
        return (*(kind + behind for kind in packed), half if self.asked else plain)


def caches_of(config: Mapping[str, Any]) -> tuple[Cache, Cache]:
    """How keys and values are to be stored. By default as OpenVINO stores them, in u8 where it makes one node
    of them and attention; in f32 where that is asked for of the model, or accuracy is."""
    given = config.get("given", config)
    hint = _name(given.get("INFERENCE_PRECISION_HINT")) or debug.flag("OVJIT_PRECISION")
    exact = str(given.get("EXECUTION_MODE_HINT", "")).endswith("ACCURACY") or hint in ("f32", "dynamic")
    both = _name(given.get(CACHES[0]))
    found = []
    for name in CACHES[1:]:
        asked = _name(given.get(name)) or both
        group = int(given.get(name.replace("PRECISION", "GROUP_SIZE")) or 0)
        kind = asked or ("f32" if exact else "u8")
        found.append(Cache(kind, group if kind in ("u8", "u4") else 0, asked is not None or exact))
    return found[0], found[1]


class Context(NamedTuple):
    """What a graph is compiled for. Passes and fusion are given it; rules find it as `Builder.context`,
    lowerings as `Group.context`."""

    target: Target
    options: Options = Options()


#: Gives bytes at a multiple of 64 for so many of constants, or None. A mapping is a file's, and shared with
#: it.
Memory = Callable[[int], "np.ndarray | None"]
