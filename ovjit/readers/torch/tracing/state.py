"""Calls of modules that leave no traces: an example, buffers and attributes are afterwards as before.

A conversion runs a module several times. A module may write to its inputs and buffers each time, or keep
what it computed in an attribute, a list or a dict. It may draw random numbers: each call draws the same ones.
"""

from __future__ import annotations

import contextlib
import operator
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from inspect import Parameter, Signature
from itertools import chain
from keyword import iskeyword
from typing import Any

import numpy as np

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.convolutions import sizes_in_convolutions
from ovjit.readers.torch.tracing.patches import name_tensors, patch, trace_data, trace_listed_sizes

#: Bytes of a buffer of integers beyond which it is taken for packed weights: no copy of it is made.
MOST_INTEGERS = 1 << 20


def call_unchanged(function: Callable[..., Any], module: Any, leaves: Sequence[Any]) -> Any:
    """Call `function` with copies of tensors, and undo its changes to the module."""
    with restore_module(module):
        return function(*(leaf.detach().clone() for leaf in leaves))


def trace_module(module: Any, leaves: Sequence[Any], names: Sequence[str] = ()) -> Any:
    """The script that torch.jit.trace makes of a module and an example. `names`: names of the inputs."""
    trace = partial(torch.jit.trace, module, strict=False, check_trace=False)
    with (
        _named_inputs(module, names), name_tensors(), trace_listed_sizes(), sizes_in_convolutions(),
        trace_data(),
    ):  # fmt: skip
        return call_unchanged(lambda *copies: trace(copies), module, leaves)


@contextlib.contextmanager
def _named_inputs(module: Any, names: Sequence[str]) -> Iterator[None]:
    """Let a trace call inputs by these names, which it takes from a signature. Without names it calls them
    as the functions' arguments that they are passed as, which renames later variables."""
    every = {"self", *names}
    if len(every) <= len(names) or not all(name.isidentifier() and not iskeyword(name) for name in every):
        names = ()
    rows = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
    signed = [(type(module).forward, "__signature__", Signature(rows))] if names else []
    with patch(*signed):
        yield


@contextlib.contextmanager
def restore_module(module: Any) -> Iterator[None]:
    """Context manager that restores a module's buffers and other attributes, with their values and items."""
    restoring = [
        each for part in (module.modules() if hasattr(module, "modules") else ()) for each in _save(part)
    ]
    with _generators_unchanged():
        try:
            yield
        finally:
            for restore in restoring:
                restore()


@contextlib.contextmanager
def _generators_unchanged() -> Iterator[None]:
    """Context manager that restores the random number generators of PyTorch, NumPy and Python.

    They are not restored if another thread ran meanwhile: numbers that it drew would be drawn again.
    """
    getting = torch.get_rng_state, np.random.get_state, random.getstate
    setting: tuple[Callable[[Any], object], ...] = torch.set_rng_state, np.random.set_state, random.setstate
    others, states = _time_of_others(), [get() for get in getting]
    try:
        yield
    finally:
        for get, restore, before in zip(getting, setting, states, strict=True):
            if not _is_equal(get(), before) and others is not None and _time_of_others() == others:
                restore(before)


def _is_equal(one: Any, other: Any) -> bool:
    """Whether two states of a random number generator are equal."""
    if isinstance(one, tuple):
        return all(map(_is_equal, one, other))
    return bool((one == other).all()) if hasattr(one, "all") else bool(one == other)


def _time_of_others() -> dict[int, int] | None:
    """The CPU time of each other thread in nanoseconds; None if unavailable."""
    this_thread = threading.get_ident()
    others = [thread for thread in sys._current_frames() if thread != this_thread]
    try:
        return {each: time.clock_gettime_ns(time.pthread_getcpuclockid(each)) for each in others}
    except (AttributeError, OSError):
        return None if others else {}


def _save(part: Any) -> Iterator[Callable[[], object]]:
    """Yield functions that restore the state of one module."""
    tables: list[Any] = [part._buffers]
    generators = torch.Generator, random.Random, np.random.RandomState, np.random.Generator
    if not isinstance(part, torch.jit.ScriptModule):
        tables.append(vars(part))
        yield from (partial(_put_back, part, type(part), table, dict(table)) for table in tables)
        hooks = {name: set(table) for name in _hook_tables() if (table := vars(part)[name])}
        yield partial(_drop_new_hooks, part, hooks)
    for name, value in (row for table in tables for row in table.items()):
        if _is_state(value):
            yield partial(_restore, value, value.detach().clone(), _writes(value))
        elif isinstance(value, generators):
            yield _restore_generator(value)
        elif type(value) in (dict, list) and name not in _internal():
            yield from _lists(value)


@cache
def _internal() -> frozenset[str]:
    """The names of the attributes that PyTorch itself sets on modules."""
    return frozenset(vars(torch.nn.Module()))


@cache
def _hook_tables() -> list[str]:
    """Attributes that hold a module's hooks."""
    return [name for name in _internal() if name.endswith(("_hooks", "_with_kwargs", "_always_called"))]


def _drop_new_hooks(part: Any, before: Mapping[str, set[int]]) -> None:
    """Remove the hooks that a run has added. Hooks that it removed are not restored, as they run once."""
    for name in _hook_tables():
        if table := vars(part)[name]:
            for key in table.keys() - before.get(name, set()):
                del table[key]


def _restore_generator(value: Any) -> Callable[[], object]:
    """Return a function that restores the state of a generator of random numbers."""
    if isinstance(value, np.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    return partial(value.set_state, value.get_state())


def _put_back(part: Any, kind: type, table: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Restore attributes and remove new ones. Lazy modules, whose class has changed, are skipped."""
    if type(part) is not kind:
        return
    for name in table.keys() - before.keys() - _internal():
        del table[name]
    for name, value in before.items():
        if name not in _internal() and table.get(name, table) is not value:
            table[name] = value


def _lists(value: Any) -> Iterator[Callable[[], None]]:
    """Yield functions that restore the items of a list or dict, and those of nested lists and dicts."""
    containers = {id(value): value}
    queue = [value]
    while queue:
        each = queue.pop()
        yield partial(_refill, each, each.copy())
        inner = {id(v): v for v in _items(each) if type(v) in (dict, list) and id(v) not in containers}
        queue += inner.values()
        containers |= inner


def _refill(value: Any, before: Any) -> None:
    """Replace the items of a list or dict by those in `before`."""
    if len(value) == len(before) and all(map(operator.is_, _items(value), _items(before))):
        return
    value.clear()
    (value.update if isinstance(value, dict) else value.extend)(before)


def _items(value: Any) -> Iterator[Any]:
    return chain.from_iterable(value.items()) if isinstance(value, dict) else iter(value)


def _is_state(buffer: Any) -> bool:
    """Whether a buffer may be one that a module writes to."""
    if type(buffer) is not torch.Tensor or buffer.layout is not torch.strided or buffer.is_quantized:
        return False
    if buffer.is_floating_point() and buffer.element_size() > 1:
        return True
    return buffer.numel() * buffer.element_size() <= MOST_INTEGERS


def _writes(buffer: Any) -> int | None:
    """Return the number of in-place writes to a tensor, or None for inference tensors."""
    return None if buffer.is_inference() else buffer._version


def _restore(buffer: Any, before: Any, writes: int | None) -> None:
    if writes is None or buffer._version != writes:
        with torch.inference_mode(buffer.is_inference()), torch.no_grad():
            if buffer.shape != before.shape:
                buffer.data = before
            elif not buffer.equal(before):
                buffer.copy_(before)
