"""The check of Paddle's parameters: Paddle computes with a last tensor that is cut short."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from ovjit.errors import ModelError
from ovjit.readers.frameworks.paddle import check_parameters, file_to_onnx

#: Element type -> Paddle's number of it.
NUMBERS = {"float32": 5, "int64": 3, "float16": 4, "bool": 0, "uint8": 20}


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def record(array: np.ndarray, levels: int = 0, packed: bool = False) -> bytes:
    """One tensor as Paddle writes it."""
    dims = b"".join(map(varint, array.shape))
    shape = b"\x12" + varint(len(dims)) + dims
    if not packed:
        shape = b"".join(b"\x10" + varint(d) for d in array.shape)
    described = b"\x08" + bytes([NUMBERS[array.dtype.name]]) + shape
    offsets = struct.pack("<Q", 16) + bytes(16)
    head = struct.pack("<IQ", 0, levels) + offsets * levels + struct.pack("<Ii", 0, len(described))
    return head + described + array.tobytes()


ARRAYS = [np.ones((3, 200), np.float32), np.arange(5), np.ones((), np.float16), np.ones((2, 0), bool)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("levels", [0, 2])
def test_every_length_of_a_file(tmp_path: Path, levels: int, packed: bool) -> None:
    records = [record(x, levels, packed) for x in [*ARRAYS, np.ones((2, 7), np.uint8)]]
    whole = {sum(map(len, records[:i])) for i in range(len(records) + 1)}
    data, path = b"".join(records), tmp_path / "m.pdiparams"
    for size in [*range(0, len(data), 7), *whole, *(n - 1 for n in whole if n), *(n + 1 for n in whole)]:
        path.write_bytes(data[:size])
        if min(size, len(data)) in whole:
            check_parameters(str(path))
            continue
        with pytest.raises(ModelError, match=f"m.pdiparams.*is cut short: the file ends after {size} bytes"):
            check_parameters(str(path))


def test_other_forms_are_left_to_paddle(tmp_path: Path) -> None:
    path = tmp_path / "m.pdiparams"
    for data in (b"\x80\x04pickle of a dict", b"PK\x03\x04" + bytes(40), struct.pack("<IQ", 0, 1 << 40)):
        path.write_bytes(data)
        check_parameters(str(path))


def test_a_model_with_cut_parameters_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("{}")
    (tmp_path / "m.pdiparams").write_bytes(record(ARRAYS[0])[:-1])
    with pytest.raises(ModelError, match="tensor 0 is cut short"):
        file_to_onnx(str(tmp_path / "m.json"))
