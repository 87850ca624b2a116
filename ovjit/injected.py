"""Functions of higher rooms that lower rooms call: injected when the package is imported.

Each returns what is needed when it is called, so that nothing is imported earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_functions: dict[str, Callable[[], Any]] = {}


def inject(**functions: Callable[[], Any]) -> None:
    """Called by the package, once: the functions of this module answer with what these give."""
    _functions.update(functions)


def model_bytes(model: Any) -> tuple[bytes, bytes]:
    """A Model as IR: the text of its .xml, and its weights."""
    return _functions["model_bytes"]()(model)


def model_of(xml: bytes, weights: bytes) -> Any:
    """The Model that `model_bytes` made these of."""
    return _functions["model_of"]()(xml, weights)


def compiled_of() -> Callable[[bytes, str], Any]:
    """Returns the function (exported bytes, device name) -> CompiledModel."""
    return _functions["compiled_of"]()
