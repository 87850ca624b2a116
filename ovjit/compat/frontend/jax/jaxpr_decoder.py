"""Decoder that passes a jaxpr to JAX's front end."""

from __future__ import annotations

from typing import Any

from ovjit.compat.frontend.jax import Decoder
from ovjit.errors import UnsupportedError
from ovjit.readers.jax.reader import is_jaxpr


class JaxprPythonDecoder(Decoder):
    """A ClosedJaxpr and the name of its model. RuntimeError for another part of JAX."""

    def __init__(self, jaxpr: Any, name: str | None = None, literals: Any = None):
        if not is_jaxpr(jaxpr):
            raise UnsupportedError(f"a ClosedJaxpr is expected, not {type(jaxpr).__name__}")
        if literals is not None:
            raise UnsupportedError(
                "constants cannot be given separately: ovjit reads those of the ClosedJaxpr"
            )
        self.jaxpr = jaxpr
        self.name = "jax_module" if name is None else name


__all__ = ["JaxprPythonDecoder"]
