"""What programs derive from to describe a graph of JAX. `convert_model` reads jaxprs without it."""

from ovjit.compat.frontend.extensions import _IDecoder


class Decoder(_IDecoder):
    """Root of decoders of JAX's graphs."""


__all__ = ["Decoder"]
