"""Numbers and layouts of the driver's interface beside cuda.h, which a compiler of C reads if both are there.

Recorded with gcc 12 from the headers of CUDA 12.0.146 and 12.4.127 (PyPI: nvidia-cuda-runtime-cu12) and
13.0.88 (toolkit), which agree but for the alignment of tensor maps: 64 before CUDA 13, 128 since.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from ovjit.codegen.gpu.ptx import compile_ptx
from ovjit.gpu import blocks, driver
from ovjit.gpu.signatures import LaunchAttribute, LaunchConfig
from ovjit_ops.matmul.gpu_block_products import TILES, block_product
from tests.support.assembler import find_headers

_DEVICE, _ERROR, _MAP = "CU_DEVICE_ATTRIBUTE_", "CUDA_ERROR_", "CU_TENSOR_MAP_"
#: Expression in C -> its value in the headers.
RECORDED = {
    **{f"{_DEVICE}{name}": number for name, number in (
        ("CLOCK_RATE", 13), ("MULTIPROCESSOR_COUNT", 16), ("INTEGRATED", 18), ("PCI_BUS_ID", 33),
        ("PCI_DEVICE_ID", 34), ("MEMORY_CLOCK_RATE", 36), ("GLOBAL_MEMORY_BUS_WIDTH", 37),
        ("L2_CACHE_SIZE", 38), ("PCI_DOMAIN_ID", 50), ("COMPUTE_CAPABILITY_MAJOR", 75),
        ("COMPUTE_CAPABILITY_MINOR", 76),
    )},
    **{f"{_ERROR}{name}": number for name, number in (
        ("OUT_OF_MEMORY", 2), ("NOT_INITIALIZED", 3), ("DEVICE_UNAVAILABLE", 46), ("NO_DEVICE", 100),
        ("INVALID_DEVICE", 101),
        ("INVALID_CONTEXT", 201), ("NO_BINARY_FOR_GPU", 209), ("ECC_UNCORRECTABLE", 214),
        ("INVALID_PTX", 218), ("JIT_COMPILER_NOT_FOUND", 221), ("UNSUPPORTED_PTX_VERSION", 222),
        ("JIT_COMPILATION_DISABLED", 223), ("ILLEGAL_ADDRESS", 700), ("LAUNCH_OUT_OF_RESOURCES", 701),
        ("LAUNCH_TIMEOUT", 702), ("ILLEGAL_INSTRUCTION", 715), ("MISALIGNED_ADDRESS", 716),
        ("LAUNCH_FAILED", 719), ("SYSTEM_NOT_READY", 802), ("SYSTEM_DRIVER_MISMATCH", 803),
        ("COMPAT_NOT_SUPPORTED_ON_DEVICE", 804), ("NOT_SUPPORTED", 801), ("GRAPH_EXEC_UPDATE_FAILURE", 910),
    )},
    f"{_MAP}DATA_TYPE_UINT8": 0, f"{_MAP}INTERLEAVE_NONE": 0, f"{_MAP}SWIZZLE_128B": 3,
    f"{_MAP}L2_PROMOTION_L2_128B": 2, f"{_MAP}FLOAT_OOB_FILL_NONE": 0, "sizeof(CUtensorMap)": 128,
    "CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION": 6, "CU_LAUNCH_ATTRIBUTE_COOPERATIVE": 2,
    "offsetof(CUlaunchAttributeValue, cooperative)": 0,
    "offsetof(CUlaunchAttributeValue, programmaticStreamSerializationAllowed)": 0,
    "sizeof(CUlaunchAttribute)": 72,
    "offsetof(CUlaunchAttribute, id)": 0, "offsetof(CUlaunchAttribute, value)": 8,
    "sizeof(CUlaunchAttributeValue)": 64, "sizeof(CUlaunchConfig)": 56,
    "offsetof(CUlaunchConfig, gridDimX)": 0, "offsetof(CUlaunchConfig, blockDimX)": 12,
    "offsetof(CUlaunchConfig, sharedMemBytes)": 24, "offsetof(CUlaunchConfig, hStream)": 32,
    "offsetof(CUlaunchConfig, attrs)": 40, "offsetof(CUlaunchConfig, numAttrs)": 48,
    "CU_FUNC_ATTRIBUTE_NUM_REGS": 4,
    "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": 8, "CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL": 9,
    "CU_JIT_ERROR_LOG_BUFFER": 5, "CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES": 6, "CU_STREAM_NON_BLOCKING": 1,
    "CU_STREAM_CAPTURE_MODE_RELAXED": 2, "sizeof(CUgraphExecUpdateResultInfo)": 24, "sizeof(CUuuid)": 16,
}  # fmt: skip


def test_numbers_are_those_of_the_headers() -> None:
    assert {_DEVICE + name: number for name, number in driver.ATTRIBUTES.items()} == {
        name: number for name, number in RECORDED.items() if name.startswith(_DEVICE)
    }
    errors = {number for name, number in RECORDED.items() if name.startswith(_ERROR)}
    assert {*driver.ADVICE, *driver._NOT_UPDATED} == errors
    modes = (
        "DATA_TYPE_UINT8",
        "INTERLEAVE_NONE",
        "SWIZZLE_128B",
        "L2_PROMOTION_L2_128B",
        "FLOAT_OOB_FILL_NONE",
    )
    used = blocks._BYTES, blocks._NOT_INTERLEAVED, blocks._SWIZZLED, blocks._PROMOTED, blocks._ZEROS
    assert tuple(RECORDED[_MAP + mode] for mode in modes) == used
    assert blocks._MOST_SHARED == RECORDED["CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"]
    assert driver._REGISTERS == RECORDED["CU_FUNC_ATTRIBUTE_NUM_REGS"]
    assert driver.EARLY_START == RECORDED["CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION"]
    assert driver.AT_A_TIME == RECORDED["CU_LAUNCH_ATTRIBUTE_COOPERATIVE"]


def test_structures_have_the_layout_of_the_headers() -> None:
    fields = {
        LaunchAttribute: {"id": LaunchAttribute.number, "value": LaunchAttribute.value},
        LaunchConfig: {
            "gridDimX": LaunchConfig.grid_x, "blockDimX": LaunchConfig.block_x,
            "sharedMemBytes": LaunchConfig.shared, "hStream": LaunchConfig.stream,
            "attrs": LaunchConfig.attributes, "numAttrs": LaunchConfig.count,
        },
    }  # fmt: skip
    for kind, by_name in fields.items():
        name = "CUl" + kind.__name__[1:]
        assert RECORDED[f"sizeof({name})"] == ctypes.sizeof(kind)
        for field, place in by_name.items():
            assert RECORDED[f"offsetof({name}, {field})"] == place.offset
    assert RECORDED["sizeof(CUtensorMap)"] == blocks.MAP_SIZE
    assert blocks.MAP_ALIGNMENT == 128  # that of CUDA 13; older drivers want 64


def test_the_map_is_the_first_argument() -> None:
    """At a multiple of 128 bytes, as for programs that are compiled with a header of CUDA 13."""
    tile = TILES[0]._asdict()
    kernel = block_product(
        T="f16", sums="f32", out="f16", rows=64, columns=tile["columns"], stages=tile["stages"],
        computed=False, body=None, first="", second="", third="",
    )  # fmt: skip
    ptx = compile_ptx(kernel.source, "entry")
    assert ".entry entry(\n\t.param .align 128 .b8 entry_param_0[128],\n\t.param .u64 entry_param_1" in ptx
    assert "mov.b64 t, entry_param_0;" in ptx


@pytest.mark.skipif(
    not find_headers() or shutil.which("gcc") is None, reason="there is no cuda.h, or no compiler of C"
)
def test_the_record_is_that_of_the_header(tmp_path: Path) -> None:
    prints = "".join(f'printf("%lld\\n", (long long)({name}));' for name in RECORDED)
    includes = "".join(f"#include <{name}.h>\n" for name in ("cuda", "stdio", "stddef"))
    (tmp_path / "facts.c").write_text(f"{includes}int main() {{ {prints} return 0; }}\n")
    for header in find_headers():
        command = ["gcc", f"-I{header.parent}", str(tmp_path / "facts.c"), "-o", str(tmp_path / "facts")]
        subprocess.run(command, check=True)
        done = subprocess.run([str(tmp_path / "facts")], capture_output=True, text=True, check=True)
        assert dict(zip(RECORDED, map(int, done.stdout.split()), strict=True)) == RECORDED, header
