"""What programs import of OpenVINO's native front end for PyTorch: the types that decoders tell."""

from ovjit.readers.torch.decoders import DecoderType as _Type

__all__ = ["_Type"]
