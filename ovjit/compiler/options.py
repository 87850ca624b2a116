"""The target and the options of a compilation, and their derivation from properties."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from ovjit import debug
from ovjit.codegen.cpu.formats import float_types
from ovjit.codegen.cpu.targets import Target
from ovjit.records import NamedTuple

#: Maximum threads of a stream for which batches are split into parts: a part has too little work for more.
MOST_THREADS = 8


class Options(NamedTuple):
    """`exact`: no algorithm that trades accuracy for speed (EXECUTION_MODE_HINT=ACCURACY).

    `precision`: the element type of f32 convolutions and matrix products (INFERENCE_PRECISION_HINT).
    `caches`: the types in which caches of keys and values may be stored, if different (`Cache.names`).
    `dynamic`: size of the groups in which rows are quantized before products with compressed weights
    (DYNAMIC_QUANTIZATION_GROUP_SIZE), 0 for none. `cache_storage`: how caches of keys and values are stored.
    `batches`: large batches may be computed part by part (`ovjit.rewrite.batches`). `tf32`: tensor cores may
    multiply the 19 upper bits of f32: on GPUs, if EXECUTION_MODE_HINT=PERFORMANCE is set with a precision of
    f32."""

    exact: bool = False
    precision: str = "f32"
    dynamic: int = 0
    caches: tuple[str, ...] = ()
    cache_storage: tuple[Cache, Cache] | None = None
    batches: bool = False
    tf32: bool = False

    @staticmethod
    def of(config: Mapping[str, Any], target: Target) -> Options:
        """The options that these properties request, for this target."""
        exact = str(config.get("EXECUTION_MODE_HINT", "")).endswith("ACCURACY")
        precision = precision_of(config)
        dynamic = int(config.get("DYNAMIC_QUANTIZATION_GROUP_SIZE") or 0)
        caches, floats = caches_of(config), float_types(target)
        names = (name for cache in caches for name in cache.names(precision, floats))
        low = tuple(dict.fromkeys(name for name in names if name != precision))
        batches = 0 < config.get("threads", 0) <= MOST_THREADS and not config.get("PERF_COUNT")
        batches = batches and not target.is_gpu
        mode = str(config.get("given", config).get("EXECUTION_MODE_HINT", ""))
        tf32 = target.is_gpu and precision == "f32" and mode.endswith("PERFORMANCE")
        return Options(exact, precision, dynamic, low, caches, batches, tf32)


#: Properties that say how caches of keys and values are stored.
CACHES = ("KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION")


def precision_of(config: Mapping[str, Any]) -> str:
    """The element type of INFERENCE_PRECISION_HINT: bf16, f16, else f32."""
    hint = _name(config.get("INFERENCE_PRECISION_HINT"))
    return hint if hint in ("bf16", "f16") else "f32"


def _name(element_type: Any) -> Any:
    """The name of an element type that is given as a name or a `Type`."""
    return getattr(element_type, "_name", element_type)


class Cache(NamedTuple):
    """The storage of keys or values: the type `kind`. `explicit`: it was requested; else it is only
    used where OpenVINO would. `group`: elements of a row of bytes that share a scale, 0: all."""

    kind: str
    group: int = 0
    explicit: bool = True

    @property
    def text(self) -> str:
        """The form in blobs."""
        return f"{self.kind}:{self.group}" + ("" if self.explicit else " by default")

    def names(self, computed: str, floats: Collection[str] = ()) -> tuple[str, ...]:
        """Storage types in order of preference, for a model that computes in the type `computed`. `floats`:
        types that the target multiplies. The last type is for rows that cannot be stored as bytes."""
        plain = computed if computed in floats else "f32"
        if self.kind not in ("u8", "u4"):
            return (self.kind,)
        suffix = f":{self.group}" if self.group else ""
        half = "bf16" if plain == "bf16" else "f16"
        packed = ("u4", "u8") if self.kind == "u4" else ("u8",)
        return (*(kind + suffix for kind in packed), half if self.explicit else plain)


def caches_of(config: Mapping[str, Any]) -> tuple[Cache, Cache]:
    """The storage of keys and of values. The default is OpenVINO's: u8 if it fuses caches and attention into
    one node; f32 if INFERENCE_PRECISION_HINT is f32 or dynamic, or EXECUTION_MODE_HINT is ACCURACY."""
    properties = config.get("given", config)
    hint = _name(properties.get("INFERENCE_PRECISION_HINT")) or debug.flag("OVJIT_PRECISION")
    exact = str(properties.get("EXECUTION_MODE_HINT", "")).endswith("ACCURACY") or hint in ("f32", "dynamic")
    both = _name(properties.get(CACHES[0]))
    caches = []
    for name in CACHES[1:]:
        requested = _name(properties.get(name)) or both
        group = int(properties.get(name.replace("PRECISION", "GROUP_SIZE")) or 0)
        kind = requested or ("f32" if exact else "u8")
        caches.append(Cache(kind, group if kind in ("u8", "u4") else 0, requested is not None or exact))
    return caches[0], caches[1]


class Context(NamedTuple):
    """The target and options of a graph. It is an argument of passes and fusion, `Builder.context` in rules,
    and `Group.context` in lowerings."""

    target: Target
    options: Options = Options()


#: (size in bytes) -> memory for constants at a multiple of 64, or None. It may be a shared mapping of a file.
Memory = Callable[[int], "np.ndarray | None"]
