"""The parameters of the CUDA driver's functions that are called, as types of ctypes.

Without them ctypes passes an int as 32 bits, and a call with a missing argument reads a random register. The
stand-in for the driver (`tests/support/fake_cuda.py`) converts arguments by this table, and a test compares
the table with the toolkit's header.

Source: the CUDA Driver API reference of CUDA 12 and 13.
"""

from __future__ import annotations

import ctypes
from typing import Any

_INT, _UNSIGNED, _SIZE, _WORD = ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_uint64
_BYTE, _POINTER, _TEXT = ctypes.c_ubyte, ctypes.c_void_p, ctypes.c_char_p

#: Function of the library -> the types of its parameters. Handles are pointers, addresses of the card are
#: words of 64 bits; devices and enumerations are ints.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (_UNSIGNED,),
    "cuDriverGetVersion": (_POINTER,),
    "cuGetErrorString": (_INT, _POINTER),
    "cuDeviceGetCount": (_POINTER,),
    "cuDeviceGet": (_POINTER, _INT),
    "cuDeviceGetName": (_POINTER, _INT, _INT),
    "cuDeviceTotalMem_v2": (_POINTER, _INT),
    "cuDeviceGetUuid_v2": (_POINTER, _INT),
    "cuDeviceGetAttribute": (_POINTER, _INT, _INT),
    "cuDevicePrimaryCtxRetain": (_POINTER, _INT),
    "cuCtxPushCurrent_v2": (_POINTER,),
    "cuCtxPopCurrent_v2": (_POINTER,),
    "cuMemGetInfo_v2": (_POINTER, _POINTER),
    "cuMemAlloc_v2": (_POINTER, _SIZE),
    "cuMemFree_v2": (_WORD,),
    "cuMemAllocHost_v2": (_POINTER, _SIZE),
    "cuMemFreeHost": (_POINTER,),
    "cuMemcpyHtoDAsync_v2": (_WORD, _POINTER, _SIZE, _POINTER),
    "cuMemcpyDtoHAsync_v2": (_POINTER, _WORD, _SIZE, _POINTER),
    "cuMemcpyDtoDAsync_v2": (_WORD, _WORD, _SIZE, _POINTER),
    "cuMemcpyPeerAsync": (_WORD, _POINTER, _WORD, _POINTER, _SIZE, _POINTER),
    "cuMemsetD8Async": (_WORD, _BYTE, _SIZE, _POINTER),
    "cuPointerGetAttribute": (_POINTER, _INT, _WORD),
    "cuModuleLoadDataEx": (_POINTER, _POINTER, _UNSIGNED, _POINTER, _POINTER),
    "cuModuleGetFunction": (_POINTER, _POINTER, _TEXT),
    "cuFuncGetAttribute": (_POINTER, _INT, _POINTER),
    "cuFuncSetAttribute": (_POINTER, _INT, _INT),
    "cuOccupancyMaxActiveBlocksPerMultiprocessor": (_POINTER, _POINTER, _INT, _SIZE),
    "cuLaunchKernel": (_POINTER, *[_UNSIGNED] * 7, _POINTER, _POINTER, _POINTER),
    "cuLaunchKernelEx": (_POINTER, _POINTER, _POINTER, _POINTER),
    "cuTensorMapEncodeTiled": (_POINTER, _INT, _UNSIGNED, *[_POINTER] * 5, *[_INT] * 4),
    "cuStreamCreate": (_POINTER, _UNSIGNED),
    "cuStreamDestroy_v2": (_POINTER,),
    "cuStreamSynchronize": (_POINTER,),
    "cuStreamBeginCapture_v2": (_POINTER, _INT),
    "cuStreamEndCapture": (_POINTER, _POINTER),
    "cuGraphInstantiateWithFlags": (_POINTER, _POINTER, _WORD),
    "cuGraphExecUpdate_v2": (_POINTER, _POINTER, _POINTER),
    "cuGraphLaunch": (_POINTER, _POINTER),
    "cuGraphDestroy": (_POINTER,),
    "cuGraphExecDestroy": (_POINTER,),
    "cuEventCreate": (_POINTER, _UNSIGNED),
    "cuEventDestroy_v2": (_POINTER,),
    "cuEventRecord": (_POINTER, _POINTER),
    "cuEventElapsedTime": (_POINTER, _POINTER, _POINTER),
}


class LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute: a number, and a value of 64 bytes, of which the first 12 are used."""

    _fields_ = (
        ("number", ctypes.c_uint), ("padding", ctypes.c_uint), ("value", ctypes.c_uint * 3),
        ("further", ctypes.c_uint * 13),
    )  # fmt: skip


class LaunchConfig(ctypes.Structure):
    """CUlaunchConfig: grid, block, bytes of dynamic shared memory, stream, attributes."""

    _fields_ = (
        *((name, ctypes.c_uint) for name in ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z")),
        ("shared", ctypes.c_uint), ("stream", ctypes.c_void_p), ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    )  # fmt: skip


def declare(library: Any) -> Any:
    """The library of ctypes, whose functions get their parameters. Functions that an old driver lacks are
    left out: calling them raises AttributeError."""
    for name, kinds in SIGNATURES.items():
        function = getattr(library, name, None)
        if function is not None:
            function.argtypes, function.restype = kinds, ctypes.c_int
    return library
