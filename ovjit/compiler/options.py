"""What a compilation may do, for lowerings to ask: set while a program is being made."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ovjit.codegen.cpu.formats import float_types


class Options(NamedTuple):
    """`exact`: no algorithm that trades accuracy for speed (EXECUTION_MODE_HINT=ACCURACY). `precision`: the
    element type that convolutions and matrix products of f32 compute in (INFERENCE_PRECISION_HINT).
    `caches`: what caches of keys and values are stored in where that is another type, halves or u8, "": none
    (KV_CACHE_PRECISION). `dynamic`: elements of the groups in which rows are quantized before they are
    multiplied with compressed weights (DYNAMIC_QUANTIZATION_GROUP_SIZE), 0: they are not."""

    exact: bool = False
    precision: str = "f32"
    dynamic: int = 0
    caches: str = ""

    @staticmethod
    def of(config: Mapping[str, Any]) -> Options:
        """What a compilation's properties say of it."""
        exact = str(config.get("EXECUTION_MODE_HINT", "")).endswith("ACCURACY")
        precision = _precision(config)
        dynamic = int(config.get("DYNAMIC_QUANTIZATION_GROUP_SIZE") or 0)
        caches = cache_type(config)
        return Options(exact, precision, dynamic, "" if caches in ("f32", precision) else caches)


#: Properties that say how caches of keys and values are stored.
CACHES = ("KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION")


def _precision(config: Mapping[str, Any]) -> str:
    return "bf16" if _name(config.get("INFERENCE_PRECISION_HINT")) == "bf16" else "f32"


def _name(asked: Any) -> Any:
    """What an element type is called, however it is given."""
    return getattr(asked, "_name", asked)


def cache_type(config: Mapping[str, Any]) -> str:
    """The element type that caches of keys and values are stored in: what the model computes in unless
    something is asked for, and u8 for all integers. One for both: where they are to differ, halves in the
    place of u8, else f32, which holds either."""
    computed = _precision(config)
    default = computed if computed in float_types() else "f32"
    both, *each = (_name(config.get(name)) for name in CACHES)
    stored = {
        default if asked is None else asked if asked in ("f32", "f16", "bf16") else "u8"
        for asked in (one if one is not None else both for one in each)
    }
    if len(stored) > 1:
        stored.discard("u8")
    return stored.pop() if len(stored) == 1 else "f32"


def half_type(computed: str) -> str:
    """The halves that caches are stored in where their rows cannot be bytes, in a model that computes in the
    type `computed`."""
    return "bf16" if computed == "bf16" and "bf16" in float_types() else "f16"


_DEFAULT = Options()
_current: contextvars.ContextVar[Options] = contextvars.ContextVar("ovjit_options", default=_DEFAULT)


def options() -> Options:
    """The options of the compilation under way."""
    return _current.get()


@contextlib.contextmanager
def _having(variable: contextvars.ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def compiling(chosen: Options) -> contextlib.AbstractContextManager[None]:
    """Lowerings made inside see `chosen`."""
    return _having(_current, chosen)


#: Gives bytes at a multiple of 64 for so many of constants, or None.
Memory = Callable[[int], "np.ndarray | None"]
_memory: contextvars.ContextVar[Memory | None] = contextvars.ContextVar("ovjit_memory", default=None)


def memory_for(size: int) -> np.ndarray | None:
    """The memory that the constants of a program are to lie in, None for any."""
    give = _memory.get()
    return None if give is None else give(size)


def constants_in(give: Memory) -> contextlib.AbstractContextManager[None]:
    """Programs made inside have their constants in the memory that `give` has for them."""
    return _having(_memory, give)
