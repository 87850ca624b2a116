"""Helpers for element types that NumPy has not: packing and unpacking of values below 8 bits."""

from ovjit.api.tensors.packing import pack_data, unpack_data

__all__ = ["pack_data", "unpack_data"]
