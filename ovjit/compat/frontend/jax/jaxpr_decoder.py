"""What programs hand to the front end of JAX: a jaxpr."""

from __future__ import annotations

from typing import Any

from ovjit.compat.frontend.jax import Decoder
from ovjit.errors import UnsupportedError
from ovjit.readers.jax.reader import is_jaxpr


class JaxprPythonDecoder(Decoder):
    """A ClosedJaxpr and the name of its model. RuntimeError for another part of JAX."""

    def __init__(self, jaxpr: Any, name: str | None = None, literals: Any = None):
        if not is_jaxpr(jaxpr):
            raise UnsupportedError(f"ovjit reads a ClosedJaxpr, not {type(jaxpr).__name__}")
        if literals is not None:
            raise UnsupportedError("ovjit takes the constants of the ClosedJaxpr itself")
        self.jaxpr = jaxpr
        self.name = "jax_module" if name is None else name


__all__ = ["JaxprPythonDecoder"]
