"""Patches of PyTorch's functions while a module is recorded, and code that runs outside of the trace."""

from __future__ import annotations

import builtins
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.recorder import alone, is_recording

_ABSENT = object()


#: What is patched now, in this order: (owner, name, what it had before, value).
_patches: list[tuple[Any, str, Any, Any]] = []


@contextlib.contextmanager
def patch(*rows: tuple[Any, str, Any]) -> Iterator[None]:
    """Context manager that sets attributes of classes and modules, given as rows of (owner, name, value).

    At exit it restores the previous attributes and removes those that the owner did not have itself. One
    thread patches at a time, and functions are replaced for this thread alone.
    """
    with alone():
        first = len(_patches)
        try:
            for owner, name, value in rows:
                before = vars(owner).get(name, _ABSENT)
                value = _patch_this_thread(owner, name, before, value)
                _patches.append((owner, name, before, value))
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, before, _ in reversed(_patches[first:]):
                _put_back(owner, name, before)
            del _patches[first:]


def _patch_this_thread(owner: Any, name: str, before: Any, value: Any) -> Any:
    """Return an attribute that is `value` in the recording thread and the owner's previous one in others."""
    if isinstance(value, property):
        assert isinstance(before, property) or before is _ABSENT
        unpatched = property(*(_unpatched_accessor(owner, name, before, at) for at in range(2)))
        pairs = zip((value.fget, value.fset), (unpatched.fget, unpatched.fset), strict=True)
        return property(*(_dispatch_by_thread(one, other) for one, other in pairs))
    if isinstance(value, type) or not callable(value):
        return value
    original = before if before is not _ABSENT else _find_inherited(owner, name)
    return _dispatch_by_thread(value, original if original is not _ABSENT else _missing(owner, name))


def _dispatch_by_thread(replacement: Any, original: Any) -> Any:
    if isinstance(original, (staticmethod, classmethod)):
        original = original.__func__

    def function(*args: Any, **named: Any) -> Any:
        return (replacement if is_recording() else original)(*args, **named)

    with contextlib.suppress(AttributeError):
        functools.update_wrapper(function, replacement)
        if not hasattr(replacement, "__wrapped__"):
            del function.__wrapped__  # type: ignore[attr-defined]
        else:
            function.__wrapped__ = replacement.__wrapped__  # type: ignore[attr-defined]
    return function


def _unpatched_accessor(owner: Any, name: str, before: Any, index: int) -> Any:
    """Return a function that gets (0) or sets (1) the attribute of a class without the patch."""
    original = before if before is not _ABSENT else _find_inherited(owner, name)
    if index == 0:
        return lambda self: original.__get__(self, type(self))
    return lambda self, value: original.__set__(self, value)


def _find_inherited(owner: Any, name: str) -> Any:
    """Return the attribute that an object or a class inherits, as a function of the object, or `_ABSENT`."""
    if isinstance(owner, type):
        inherited = (vars(kind)[name] for kind in owner.__mro__[1:] if name in vars(kind))
        return next(inherited, _ABSENT)
    if isinstance(owner, ModuleType):
        return vars(builtins).get(name, _ABSENT)
    return getattr(owner, name, _ABSENT)


def _missing(owner: Any, name: str) -> Callable[..., Any]:
    """The function that stands for an attribute that a class lacks: it raises AttributeError, or returns
    NotImplemented for an operator."""

    def function(*_: Any, **__: Any) -> Any:
        if name.startswith("__"):
            return NotImplemented
        raise AttributeError(f"{getattr(owner, '__name__', owner)!r} has no attribute {name!r}")

    return function


def allow_divmod() -> contextlib.AbstractContextManager[None]:
    """Context manager in which Python's divmod, and pow with a modulus, accept tensors such as traced
    sizes."""
    power: Any = torch.Tensor.__pow__

    def modular_power(base: Any, exponent: Any, modulus: Any = None) -> Any:
        result = power(base, exponent)
        return result if modulus is None else result % modulus

    return patch(
        (torch.Tensor, "__divmod__", lambda a, b: (a // b, a % b)),
        (torch.Tensor, "__rdivmod__", lambda a, b: (b // a, b % a)),
        (torch.Tensor, "__pow__", modular_power),
    )


def caller() -> Any:
    """The frame that calls the patched function which calls this one."""
    return sys._getframe(3)


def outside(frame: Any) -> Any:
    """The innermost frame of another package's code."""
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("ovjit."):
        frame = frame.f_back
    return frame


@contextlib.contextmanager
def name_tensors() -> Iterator[None]:
    """Context manager in which a trace names tensors after variables of the function that calls an operator.
    It looks past ovjit's own functions."""
    tracer: Any = torch.jit._trace
    maker = "_create_interpreter_name_lookup_fn"

    def lookup(_: int = 1) -> Any:
        def name_of(tensor: Any) -> str:
            variables = outside(sys._getframe(1)).f_locals
            return next((k for k, v in variables.items() if v is tensor and k != "self"), "")

        return name_of

    with patch(*([(tracer, maker, lookup)] if hasattr(tracer, maker) else [])):
        yield


#: Functions with an argument that is a list of numbers or one number.
_LISTING = {
    "torch": ("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "adaptive_avg_pool1d",
              "adaptive_max_pool1d", "roll"),
    "torch.nn.functional": ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "unfold"),
    "torch.Tensor": ("roll",),
}  # fmt: skip


def trace_listed_sizes() -> contextlib.AbstractContextManager[None]:
    """Context manager in which a size in a list of numbers stays traced. PyTorch records the example's if the
    list has no other."""
    import torch

    owners = {"torch": torch, "torch.nn.functional": torch.nn.functional, "torch.Tensor": torch.Tensor}

    def as_list(value: Any) -> Any:
        return [value] if isinstance(value, torch.Tensor) and not value.dim() else value

    def wrap(original: Any) -> Any:
        def function(*args: Any, **named: Any) -> Any:
            others = {k: v if k == "input" else as_list(v) for k, v in named.items()}
            return original(*args[:1], *map(as_list, args[1:]), **others)

        return function

    return patch(*(
        (owners[owner], name, wrap(getattr(owners[owner], name)))
        for owner, names in _LISTING.items() for name in names
    ))  # fmt: skip


def trace_data() -> contextlib.AbstractContextManager[None]:
    """Context manager in which `x.data` is traced, as `x.detach()` is; otherwise it is a constant of the
    example. `x.data = y` writes the elements of y."""
    descriptor: Any = torch._C.TensorBase.data

    def data(self: Any) -> Any:
        return self.detach() if torch.jit.is_tracing() else descriptor.__get__(self)

    def assign(self: Any, value: Any) -> None:
        is_alike = self.shape == value.shape and self.dtype == value.dtype
        if not torch.jit.is_tracing() or not is_alike:
            descriptor.__set__(self, value)
            return
        with torch.no_grad():
            self.detach().copy_(value)

    return patch((torch.Tensor, "data", property(data, assign)))


def _put_back(owner: Any, name: str, value: Any) -> None:
    if value is _ABSENT:
        delattr(owner, name)
    else:
        setattr(owner, name, value)


@contextlib.contextmanager
def _suspend_patches() -> Iterator[None]:
    """Context manager that suspends the patches."""
    rows = list(_patches)
    for owner, name, value, _ in reversed(rows):
        _put_back(owner, name, value)
    try:
        yield
    finally:
        for owner, name, _, value in rows:
            setattr(owner, name, value)


@contextlib.contextmanager
def compile_scripts_unpatched() -> Iterator[None]:
    """Context manager in which functions that a trace scripts, as `torch.jit.script_if_tracing` does, are
    compiled with PyTorch's own functions: the compiler knows these by identity, and takes others for the
    user's code."""
    compiler, name = torch.jit._script, "_script_impl"
    original: Any = getattr(compiler, name, None)

    def compile_plain(*args: Any, **named: Any) -> Any:
        named["_frames_up"] = named.get("_frames_up", 0) + 1  # this function's
        with _suspend_patches():
            return original(*args, **named)

    with patch(*([] if original is None else [(compiler, name, compile_plain)])):
        yield


@contextlib.contextmanager
def forward_only() -> Iterator[None]:
    """Make torch.jit.trace skip the attributes that only scripts need. It would search every module for
    overloads, properties and exported methods, and compile the methods. Its own modules have neither
    overloads nor properties. A trace calls `forward` alone, and the compiler may refuse other methods."""
    recursive, internal = torch.jit._recursive, torch._jit_internal

    def unless_traced(original: Any, nothing: type) -> Any:
        def function(module: Any, *more: Any) -> Any:
            return nothing() if type(module).__module__ == "torch.jit._trace" else original(module, *more)

        return function

    rows = [(internal, "module_has_exports", lambda module: False)]
    for name, nothing in (("get_overload_annotations", dict), ("get_property_stubs", list)):
        rows.append((recursive, name, unless_traced(getattr(recursive, name, None), nothing)))
    with patch(*(row for row in rows if hasattr(row[0], row[1]))):
        yield


@contextlib.contextmanager
def suspend_tracing() -> Iterator[None]:
    """Context manager that suspends tracing: operations are not recorded, and numbers are Python's."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)
