"""What programs derive from to describe a graph of JAX. ovjit has no front end that reads one, as
`convert_model` says."""

from ovjit.compat.frontend.extensions import _IDecoder


class Decoder(_IDecoder):
    """Root of decoders of JAX's graphs."""


__all__ = ["Decoder"]
