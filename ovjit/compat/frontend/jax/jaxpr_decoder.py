"""Decoder that passes a jaxpr to JAX's front end."""

from ovjit.compat.frontend.jax import Decoder
from ovjit.readers.jax.decoder import JaxprDecoder


class JaxprPythonDecoder(JaxprDecoder, Decoder):
    """A ClosedJaxpr and the name of its model. RuntimeError for another part of JAX."""


__all__ = ["JaxprPythonDecoder"]
