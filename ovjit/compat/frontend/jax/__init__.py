"""Base class of JAX graph decoders, for programs that derive from it. `convert_model` needs no decoder."""

from ovjit.compat.frontend.extensions import _IDecoder


class Decoder(_IDecoder):
    """Root of decoders of JAX's graphs."""


__all__ = ["Decoder"]
