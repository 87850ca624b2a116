"""One operation of paged attention as a model of either package, and what it is to give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

HEADS, SHARED, SIZE, WIDE, BLOCK = 4, 2, 16, 24, 32


class Sizes(NamedTuple):
    """Heads of queries and of keys, elements of a key and of a value, tokens of a block."""

    heads: int = HEADS
    shared: int = SHARED
    size: int = SIZE
    wide: int = WIDE
    block: int = BLOCK


PLAIN = Sizes()
#: Inputs behind the caches: element type and rank.
TABLES = {
    "past_lens": ("i32", 1), "subsequence_begins": ("i32", 1), "block_indices": ("i32", 1),
    "block_indices_begins": ("i32", 1), "scale": ("f32", 0), "sliding_window": ("i32", 0),
    "alibi_slopes": ("f32", 1), "max_context_len": ("i32", 0), "score_aggregation_window": ("i32", 1),
    "rotated_block_indices": ("i32", 1), "rotation_deltas": ("i32", 2), "rotation_trig_lut": ("f32", 2),
    "xattention_threshold": ("f32", 1), "xattention_block_size": ("i32", 0), "xattention_stride": ("i32", 0),
    "sinks": ("f32", 4), "adaptive_rkv_start_size": ("i32", 0), "adaptive_rkv_evictable_sizes": ("i32", 1),
    "adaptive_rkv_diversity_block_set_indices": ("i32", 1),
    "adaptive_rkv_diversity_block_set_indices_begins": ("i32", 1), "token_type_ids": ("i32", 1),
    "qq_bias": ("u8", 1), "qq_bias_begins": ("i32", 1),
}  # fmt: skip
KINDS = {"i32": np.int32, "f32": np.float32, "u8": np.uint8}
#: What every call gives.
GIVEN = ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins", "max_context_len")


def model(
    package: Any, given: tuple[str, ...] = (), outputs: int = 1, sizes: Sizes = PLAIN,
    static: Mapping[str, Any] | None = None, **constants: Any,
) -> Any:  # fmt: skip
    """The operation; `given` are inputs besides those of every call, `constants` what is not empty or 0,
    `static` the shapes of inputs that are not open."""
    import importlib

    ops = importlib.import_module(f"{package.__name__}.opset13")
    made = importlib.import_module(f"{package.__name__}.op")
    inputs, parameters = [], []

    def parameter(name: str, kind: Any, shape: list[int]) -> None:
        node = ops.parameter(package.PartialShape(shape), kind, name=name)
        node.output(0).get_tensor().set_names({name})
        parameters.append(node)
        inputs.append(node.output(0))

    for name, width in zip(("query", "key", "value"), widths_of(sizes), strict=True):
        parameter(name, np.float32, [-1, width])
    for name, size in (("key_cache.0", sizes.size), ("value_cache.0", sizes.wide)):
        told = [-1, sizes.shared, sizes.block, size]
        parameter(name, package.Type.dynamic, [-1] * 4 if sizes.block == BLOCK else told)
    for name, (kind, rank) in TABLES.items():
        if name in GIVEN or name in given:
            parameter(name, KINDS[kind], (static or {}).get(name, [-1] * rank))
            continue
        value = constants.get(name, np.float32(sizes.size**-0.5) if name == "scale" else None)
        zero = np.zeros([0] * rank, KINDS[kind])
        inputs.append(ops.constant(zero if value is None else np.asarray(value, KINDS[kind])).output(0))
    node = made._PagedAttentionExtension(inputs)
    for what, size in (("k", sizes.size), ("v", sizes.wide)):
        node.get_rt_info()[f"num_{what}_heads"] = sizes.shared
        node.get_rt_info()[f"{what}_head_size"] = size
    return package.Model([ops.result(node.output(i)) for i in range(outputs)], parameters, "paged")


class Run:
    """A compiled operation with caches."""

    def __init__(self, package: Any, made: Any, kind: str = "f32", blocks: int = 8, hint: str = "f32"):
        config = {"INFERENCE_PRECISION_HINT": hint, "KV_CACHE_PRECISION": kind}
        self._take(package, package.Core().compile_model(made, "CPU", config), blocks)

    @classmethod
    def of(cls, package: Any, compiled: Any, blocks: int = 8) -> Run:
        """A request of a compiled model."""
        made = cls.__new__(cls)
        made._take(package, compiled, blocks)
        return made

    def _take(self, package: Any, compiled: Any, blocks: int) -> None:
        self.request, self.caches = compiled.create_infer_request(), {}
        for port in compiled.inputs:
            if "_cache." in port.get_any_name():
                shape = [blocks if d.is_dynamic else d.get_length() for d in port.get_partial_shape()]
                tensor = package.Tensor(port.get_element_type(), package.Shape(shape))
                tensor.data[...] = 0
                self.caches[port.get_any_name()] = tensor
                self.request.set_tensor(port.get_any_name(), tensor)

    def __call__(self, rows: list[tuple[int, int, list[int]]], data: Any, **more: Any) -> list[np.ndarray]:
        """The outputs for sequences of (past, new tokens, blocks)."""
        given = {
            "past_lens": [r[0] for r in rows], "subsequence_begins": np.cumsum([0, *(r[1] for r in rows)]),
            "block_indices": sum((r[2] for r in rows), []),
            "block_indices_begins": np.cumsum([0, *(len(r[2]) for r in rows)]),
            "max_context_len": max(r[0] + r[1] for r in rows), **more,
        }  # fmt: skip
        arrays = {name: np.array(value, KINDS[TABLES[name][0]]) for name, value in given.items()}
        found = self.request.infer({**dict(zip(("query", "key", "value"), data, strict=True)), **arrays})
        return [np.array(x) for x in found.values()]


def widths_of(sizes: Sizes) -> tuple[int, int, int]:
    """How many elements a row of queries, of keys and of values has."""
    return sizes.heads * sizes.size, sizes.shared * sizes.size, sizes.shared * sizes.wide


def rows_of(
    rng: np.random.Generator, tokens: int, sizes: Sizes = PLAIN
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values of so many tokens."""
    return tuple(rng.standard_normal((tokens, n)).astype(np.float32) for n in widths_of(sizes))  # type: ignore[return-value]
