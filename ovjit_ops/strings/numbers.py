"""NumberToString and StringToNumber, which OpenVINO does not have: Cast of ONNX, as ONNX Runtime has it.

Numbers are printed as C's printf does: integers in decimals, booleans as 1 and 0, reals by "%.8g", those of
64 bits, too, and NaN, INF, -INF. Texts are read as C's strtod and strtoll do: blanks first, then as many
letters as belong to a number. An integer has 64 bits, of which narrower types keep the low ones.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.dtypes import ELEMENT_TYPES, numpy_dtype
from ovjit.graph.op import DType, TensorType, op
from ovjit_ops.common.checks import check_type
from ovjit_ops.elementwise.arithmetic import NUMBERS

TYPES = (*NUMBERS, "boolean")
_BLANKS = r"[ \t\n\v\f\r]*"
_INTEGER = re.compile(_BLANKS + r"([+-]?[0-9]+)")
_HEXADECIMAL = r"0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?"
_DECIMAL = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?"
_REAL = re.compile(f"{_BLANKS}([+-]?(?:{_HEXADECIMAL}|{_DECIMAL}|inf(?:inity)?|nan))", re.IGNORECASE)


def _text(number: Any) -> bytes:
    if isinstance(number, float):
        if number != number:
            return b"NaN"
        if abs(number) == np.inf:
            return b"INF" if number > 0 else b"-INF"
        return b"%.8g" % number
    return b"%d" % number


def _make_error(text: str, why: str) -> InferenceError:
    return InferenceError(f"the text {text[:40]!r} {why}")


def _real(text: str) -> float:
    match = _REAL.match(text)
    if match is None:
        raise _make_error(text, "is no number")
    digits = match[1].lower()
    try:
        number = float.fromhex(digits) if "0x" in digits else float(digits)
    except OverflowError:
        number = np.inf
    if abs(number) == np.inf and "inf" not in digits:
        raise _make_error(text, "is beyond the numbers of 64 bits")
    return number


def _integer(text: str, is_signed: bool) -> int:
    match = _INTEGER.match(text)
    if match is None:
        raise _make_error(text, "is no integer")
    number = int(match[1]) if len(match[1]) <= 40 else 1 << 64
    low, high = (-(1 << 63), (1 << 63) - 1) if is_signed else (1 - (1 << 64), (1 << 64) - 1)
    if not low <= number <= high:
        raise _make_error(text, "is beyond the integers of 64 bits")
    return number & ((1 << 64) - 1)


@op("NumberToString", types=TYPES, plugin="extension")
class NumberToString:
    """The numbers as texts."""

    def infer(data):
        check_type(data, (*TYPES, "dynamic"))
        return TensorType("string", data.shape)

    def ref(data):
        real = data.dtype.kind not in "iub"
        numbers = (data.astype(np.float64) if real else data).reshape(-1).tolist()
        out = np.empty(len(numbers), object)
        out[:] = [_text(number) for number in numbers]
        return out.reshape(data.shape)


@op("StringToNumber", types=["string"], plugin="extension")
class StringToNumber:
    """The numbers that texts begin with, in the type `destination_type`."""

    def infer(data, *, destination_type: DType):
        check(data.dtype in ("string", "dynamic"), f"strings are expected, not {data}")
        check(destination_type in TYPES, f"destination_type {destination_type} should be a number's")
        return TensorType(destination_type, data.shape)

    def ref(data, *, destination_type):
        texts = [t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t) for t in data.reshape(-1)]
        row, kind = ELEMENT_TYPES[destination_type], numpy_dtype(destination_type)
        if row.is_real:
            numbers = np.array([_real(text) for text in texts], np.float64)
            with np.errstate(over="ignore"):
                return numbers.astype(kind).reshape(data.shape)
        integers = np.array([_integer(text, row.kind == "i") for text in texts], np.uint64)
        return (integers != 0 if row.kind == "b" else integers.astype(kind)).reshape(data.shape)
