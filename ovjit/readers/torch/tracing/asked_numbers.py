"""Numbers that Python takes from a trace, which are the example's. PyTorch does not warn of all of them."""

from __future__ import annotations

import contextlib
import functools
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.assertions import is_assertion
from ovjit.readers.torch.tracing.patches import caller, patch, suspend_tracing
from ovjit.readers.torch.tracing.recorder import collect_warnings, tell
from ovjit.readers.torch.tracing.size_values import Parts, is_of_sizes, reads_sizes, register_parts

#: What PyTorch warns of where a number or a branch is the example's.
_ASKED = re.compile(
    r"to a Python (integer|float|number|boolean)|used as a Python number .*\bmath\.(gcd|isqrt|lcm)\(",
    re.DOTALL,
)

#: Packages whose code stands between a line of a module and what asks it for a number.
_BETWEEN = "ovjit.", "numpy.", "torch."


def files_needing_numbers(warned: Sequence[Any]) -> set[str]:
    """The files whose Python code needed a number during a trace, from PyTorch's warnings."""
    return {w.filename for w in warned if _ASKED.search(str(w.message))}


def warn_of_number(called: str) -> None:
    """Warn of the line that needed a number by calling a function of this module, which calls this one."""
    frame: Any = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
        frame = frame.f_back
    message = f"Converting a tensor to a Python number by {called}() might cause the trace to be incorrect."
    tell(message, torch.jit.TracerWarning, frame.f_code.co_filename, frame.f_lineno)


def _split_with_count(original: Callable[..., Any], number: Callable[..., Any]) -> Callable[..., Any]:
    """A function like `original`, which splits a tensor. While tracing, it returns `Parts`, whose length is
    `number` of the same arguments."""

    def call_recorded(*args: Any, **named: Any) -> Any:
        result = original(*args, **named)
        if isinstance(result, Parts):
            return result
        count = number(*args, **named) if torch.jit.is_tracing() else None
        return result if count is None else Parts(result, count, functools.partial(warn_of_number, "len"))

    return call_recorded


@contextlib.contextmanager
def rounding() -> Iterator[None]:
    """Context manager: warns of `round(h)`, `len(x)`, `torch.tensor([h, w])` and `np.sqrt(h)`, which make
    traced sizes constants as `int(h)` does.

    They are warned of where PyTorch does not, or does not name the line. `torch.numel(x)` is a size as
    `x.numel()` is one. `torch.tensor([1.0, 2.0])` is a constant, and PyTorch's warning of it is left out.
    """
    import torch

    def round_number(self: Any, digits: int | None = None) -> Any:
        warn_of_number("round")
        return round(self.item(), digits)

    def as_numpy(self: Any, *args: Any, **named: Any) -> Any:
        if is_of_sizes(self):
            warn_of_number("numpy")
        return as_array(self, *args, **named)

    def truncate(self: Any) -> Any:
        warn_of_number("trunc")
        return math.trunc(self.item())

    def text(self: Any, **named: Any) -> str:
        if not is_of_sizes(self):
            return str(as_text(self, **named))
        warn_of_number("str")
        with suspend_tracing():
            return str(self.item())

    def count_rows(self: Any) -> int:
        if torch.jit.is_tracing() and self.dim():
            warn_of_number("len")
        return length(self)

    tensor = torch.Tensor
    as_array, length, as_text = tensor.__array__, tensor.__len__, tensor.__repr__
    rows: list[tuple[Any, str, Any]] = [
        (torch, "numel", tensor.numel),
        (tensor, "__array__", as_numpy),
        (tensor, "__len__", count_rows),
        (tensor, "__repr__", text),
        *((owner, "chunk", _split_with_count(owner.chunk, _chunks)) for owner in (torch, tensor)),
        *((owner, "split", _split_with_count(owner.split, _splits)) for owner in (torch, tensor)),
        *((owner, "tensor_split", _cut_apart(owner.tensor_split)) for owner in (torch, tensor)),
    ]
    others = {"__round__": round_number, "__trunc__": truncate, "is_integer": _is_whole, "bit_length": _bits}
    for name, function in others.items():
        if not hasattr(tensor, name):
            rows.append((tensor, name, function))
    for maker in tensor_makers():
        owner = torch.Tensor if hasattr(torch.Tensor, maker.__name__) else torch
        rows.append((owner, maker.__name__, _warning(maker.__name__, maker)))
    register_parts()
    with patch(*rows):
        yield


def allow_hashed_sizes() -> contextlib.AbstractContextManager[None]:
    """Context manager: sizes are hashed as Python's numbers in dicts and sets, with a warning. Assertions of
    code about sizes are assumed to hold, without a warning: PyTorch's own functions have such assertions,
    which a mode of tensors' functions does not see."""

    def hash_size(self: Any) -> int:
        if self.dim() or not is_of_sizes(self):
            return identity(self)
        warn_of_number("hash")
        with suspend_tracing():
            return hash(self.item())

    def truth(self: Any) -> bool:
        if is_of_sizes(self) and is_assertion(caller()):
            with suspend_tracing():
                return bool(self)
        return bool(torch._C.TensorBase.__bool__(self))

    identity = torch.Tensor.__hash__
    return patch((torch.Tensor, "__bool__", truth), (torch.Tensor, "__hash__", hash_size))


@functools.cache
def tensor_makers() -> frozenset[Callable[..., Any]]:
    """PyTorch's functions that create a tensor from numbers, unpatched."""
    return frozenset((torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor))


def data_of(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the data argument of a call of one of `tensor_makers`."""
    index = 1 if function.__name__ == "new_tensor" else 0
    return args[index] if len(args) > index else kwargs.get("data", kwargs.get("obj"))


def numbers_in(data: Any) -> Iterator[Any]:
    if isinstance(data, (list, tuple)):
        for part in data:
            yield from numbers_in(part)
    else:
        yield data


def _cut_apart(original: Callable[..., Any]) -> Callable[..., Any]:
    """`tensor_split` with a warning if the number of parts is a size."""

    def call_recorded(input: Any, sections: Any = None, *more: Any, **named: Any) -> Any:
        if is_of_sizes(named.get("sections", sections)):
            warn_of_number("tensor_split")
        return original(input, *(() if sections is None else (sections,)), *more, **named)

    return call_recorded


def _warning(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that creates a tensor of numbers, with a warning if sizes among them become constants."""

    @functools.wraps(original)
    def call_recorded(*args: Any, **kwargs: Any) -> Any:
        data = data_of(original, args, kwargs)
        numbers = list(numbers_in(data))
        if not any(isinstance(number, torch.Tensor) for number in numbers):
            with collect_warnings():
                return original(*args, **kwargs)
        result = original(*args, **kwargs)
        if data is not numbers[0] and any(map(is_of_sizes, numbers)) and not reads_sizes(result):
            warn_of_number(name)
        return result

    return call_recorded


def _is_whole(self: Any) -> Any:
    """`is_integer` for a traced number."""
    return self == self.floor() if self.is_floating_point() else self == self


def _bits(self: Any) -> Any:
    """`bit_length` for a traced number: the number of powers of two that are not larger."""
    return (2 ** torch.arange(63) <= self.abs()).sum()


def _chunks(input: Any, chunks: Any, dim: int = 0) -> Callable[[], Any] | None:
    """Return a function for the number of parts of `chunk`, or None if the dimension is static."""

    def number() -> Any:
        total = input.size(dim)
        return -(-total // -(-total // chunks))

    return number if is_of_sizes(input.size(dim)) else None


def _splits(input: Any, split_size_or_sections: Any = None, dim: int = 0, **named: Any) -> Any:
    """Return a function for the number of parts of `split`; None for a static dimension or given lengths."""
    length = named.get("split_size", split_size_or_sections)
    if isinstance(length, (list, tuple)) or length is None or not is_of_sizes(input.size(dim)):
        return None
    return lambda: -(-input.size(dim) // length)
