"""Calls of modules that leave no traces: an example and buffers are afterwards as before.

A conversion runs a module several times. A module may write to its inputs and buffers each time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import Parameter, Signature
from keyword import iskeyword
from typing import Any

from ovjit.readers.torch.recording.patches import named_variables, patched

#: Bytes of a buffer of integers beyond which it is taken for packed weights: no copy of it is made.
MOST_INTEGERS = 1 << 20


def called(function: Callable[..., Any], module: Any, leaves: Sequence[Any]) -> Any:
    """What `function` gives of copies of tensors. What it writes to the module's buffers is undone."""
    with unchanged(module):
        return function(*(leaf.detach().clone() for leaf in leaves))


def traced(module: Any, leaves: Sequence[Any], names: Sequence[str] = ()) -> Any:
    """The script that torch.jit.trace makes of a module and an example. `names` are those of the inputs."""
    import torch

    trace = partial(torch.jit.trace, module, strict=False, check_trace=False)
    with _named_inputs(module, names), named_variables():
        return called(lambda *copies: trace(copies), module, leaves)


@contextlib.contextmanager
def _named_inputs(module: Any, names: Sequence[str]) -> Iterator[None]:
    """Let a trace call inputs by these names, which it takes from a signature. Without names it calls them
    as the functions' arguments that they are passed as, which renames later variables."""
    every = {"self", *names}
    if len(every) <= len(names) or not all(name.isidentifier() and not iskeyword(name) for name in every):
        names = ()
    rows = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
    signed = [(type(module).forward, "__signature__", Signature(rows))] if names else []
    with patched(*signed):
        yield


@contextlib.contextmanager
def unchanged(module: Any) -> Iterator[None]:
    """The buffers of a module are the same tensors with the same numbers after the block."""
    kept = [
        (part, name, buffer, buffer.detach().clone(), _writes(buffer))
        for part in (module.modules() if hasattr(module, "modules") else ())
        for name, buffer in part._buffers.items()
        if _is_state(buffer)
    ]
    try:
        yield
    finally:
        for part, name, buffer, before, writes in kept:
            _restore(part, name, buffer, before, writes)


def _is_state(buffer: Any) -> bool:
    """Whether a buffer may be one that a module writes to."""
    import torch

    if type(buffer) is not torch.Tensor or buffer.layout is not torch.strided or buffer.is_quantized:
        return False
    if buffer.is_floating_point() and buffer.element_size() > 1:
        return True
    return buffer.numel() * buffer.element_size() <= MOST_INTEGERS


def _writes(buffer: Any) -> int | None:
    """How often a tensor has been written to, None where PyTorch does not count that."""
    return None if buffer.is_inference() else buffer._version


def _restore(part: Any, name: str, buffer: Any, before: Any, writes: int | None) -> None:
    import torch

    if writes is None or buffer._version != writes:
        with torch.inference_mode(buffer.is_inference()), torch.no_grad():
            if buffer.shape != before.shape:
                buffer.data = before
            elif not buffer.equal(before):
                buffer.copy_(before)
    if not isinstance(part, torch.jit.ScriptModule) and part._buffers.get(name) is not buffer:
        part._buffers[name] = buffer
