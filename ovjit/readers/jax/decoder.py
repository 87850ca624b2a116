"""A jaxpr with a name, as decoders pass it, and how jaxprs are found without importing JAX."""

from __future__ import annotations

from typing import Any

from ovjit.errors import UnsupportedError


def is_jaxpr(value: Any, *names: str) -> bool:
    """True for a ClosedJaxpr, or for what has one of JAX's `names`."""
    kind = type(value)
    return kind.__name__ in (names or ("ClosedJaxpr",)) and kind.__module__.partition(".")[0] == "jax"


class JaxprDecoder:
    """A ClosedJaxpr, or a Jaxpr without constants, and the name of its model. RuntimeError for another part
    of JAX."""

    def __init__(self, jaxpr: Any, name: str | None = None, literals: Any = None):
        if not is_jaxpr(jaxpr, "ClosedJaxpr", "Jaxpr"):
            raise UnsupportedError(f"a ClosedJaxpr is expected, not {type(jaxpr).__name__}")
        if literals is not None:
            raise UnsupportedError(
                "constants cannot be given separately: ovjit reads those of the ClosedJaxpr"
            )
        self.jaxpr = jaxpr
        self.name = "jax_module" if name is None else name
