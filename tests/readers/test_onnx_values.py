"""ONNX operators of special numbers: NaN among others, overflow on the way, bits of NaN."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import ovjit as ov
from ovjit.codegen.cpu.host import host_target
from tests.support.onnx.beside_onnxruntime import by_onnxruntime, by_ovjit

INF, NAN = np.inf, np.nan


def node_model(
    op: str, x: np.ndarray, opset: int, second: np.ndarray | None = None, is_open: bool = False,
    **attributes: Any,
) -> bytes:  # fmt: skip
    """A model of one node of the input "x" and, if given, a constant."""
    inits = [] if second is None else [numpy_helper.from_array(second, "c")]
    node = helper.make_node(op, ["x", "c"] if inits else ["x"], ["y"], **attributes)
    shape = [None] * x.ndim if is_open else x.shape
    dtype = helper.np_dtype_to_tensor_dtype(x.dtype)
    given, made = helper.make_tensor_value_info("x", dtype, shape), onnx.ValueInfoProto(name="y")
    graph = helper.make_graph([node], "g", [given], [made], inits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)
    return model.SerializeToString()


@pytest.mark.parametrize("is_open", [False, True])
def test_cumulative_products_go_from_one_element_to_the_next(is_open: bool) -> None:
    """[1e30, inf, inf]: pairs of elements, joined in another order, would give 1e30 at the end"""
    rng = np.random.default_rng(69)
    lines = [[1e30, 1e30, 1e-30, 1], [1e-30, 1e-30, 1e30, 1e30], [0, INF, 2, -1], [NAN, 1, 0, 3]]
    for x in (
        np.array(lines, np.float32),
        np.array([[300, 300, 0.001]], np.float16),
        np.array([[2, -3, 2**30, 4]], np.int32),
        rng.standard_normal((3, 37)).astype(np.float32),
        np.zeros((2, 0), np.float32),
    ):
        for reverse, exclusive in ((0, 0), (1, 0), (0, 1), (1, 1)):
            how = {"reverse": reverse, "exclusive": exclusive}
            line = x[:, ::-1] if reverse else x
            if exclusive and x.size:
                line = np.concatenate([np.ones_like(line[:, :1]), line[:, :-1]], 1)
            with np.errstate(all="ignore"):
                right = np.cumprod(line, 1, dtype=x.dtype)
            right = right[:, ::-1] if reverse else right
            model = node_model("CumProd", x, 26, np.array(1), is_open, **how)
            for native in (False, True):
                np.testing.assert_array_equal(by_ovjit(model, {"x": x}, native)[0], right, str(how))


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_nan_is_the_extreme_of_its_line_for_both(dtype: str) -> None:
    rows = [[1, NAN, 3], [NAN, 1, -3], [2, 1, NAN], [NAN, NAN, 1], [-INF, NAN, 0], [INF, INF, INF],
            [0.0, -0.0, 0.0], [-INF, 1, -INF], [3, 1, 1]]  # fmt: skip
    x = np.array(rows, dtype)
    for op, function in (("ArgMin", np.argmin), ("ArgMax", np.argmax)):
        for last in (0, 1):
            model = node_model(op, x, 13, axis=1, keepdims=0, select_last_index=last)
            right = 2 - function(x[:, ::-1], 1) if last else function(x, 1)
            for native in (False, True):
                np.testing.assert_array_equal(by_ovjit(model, {"x": x}, native)[0], right)
    for op, function in (("ReduceMin", np.min), ("ReduceMax", np.max)):  # the value at that place
        model = node_model(op, x, 13, axes=[1], keepdims=0)
        np.testing.assert_array_equal(by_ovjit(model, {"x": x}, True)[0], function(x, 1))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_arg_min_of_integers(dtype: type) -> None:
    low = np.iinfo(dtype).min
    x = np.array([[low, 5, low], [3, 1, 1], [-1, low + 1, 0]], dtype)
    for op, last in (("ArgMin", 0), ("ArgMin", 1), ("ArgMax", 0), ("ArgMax", 1)):
        model = node_model(op, x, 13, axis=1, select_last_index=last)
        np.testing.assert_array_equal(by_ovjit(model, {"x": x}, True), by_onnxruntime(model, {"x": x}))


INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_divided_towards_zero(dtype: str) -> None:
    """The standard's Div truncates, its Mod has the divisor's sign, and with `fmod` the dividend's.

    By zero, and the smallest number by -1: 0 and itself, where C says nothing.
    """
    info = np.iinfo(dtype)
    pairs = [(7, 2), (7, 3), (info.max, 2), (info.max, 1), (1, 7), (0, 5)]
    if info.min:
        pairs += [(-7, 2), (7, -2), (-7, -2), (-8, 2), (-1, 7), (info.min, 2), (info.min, 3), (5, info.min)]
    x, y = (np.array(v, dtype) for v in zip(*pairs, strict=True))
    quotients = [abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) for a, b in pairs]
    rows: list[tuple[str, dict[str, int], list[int]]] = [
        ("Div", {}, quotients),
        ("Mod", {"fmod": 0}, [a % b for a, b in pairs]),
        ("Mod", {"fmod": 1}, [a - q * b for (a, b), q in zip(pairs, quotients, strict=True)]),
    ]
    for op, how, right in rows:
        model = node_model(op, x, 14, y, **how)
        for native in (False, True):
            np.testing.assert_array_equal(by_ovjit(model, {"x": x}, native)[0], np.array(right, dtype), op)
    for a, b, q in ((5, 0, 0), (info.min, -1, info.min)) if info.min else ((5, 0, 0),):
        model = node_model("Div", np.array([a], dtype), 14, np.array([b], dtype))
        for native in (False, True):
            assert by_ovjit(model, {"x": np.array([a], dtype)}, native)[0] == q


#: Element type -> numbers, quiet and signalling NaN with payloads, of both signs: their bits.
BITS: dict[str, list[int]] = {
    "float16": [0x3C00, 0x8000, 1, 0x7C00, 0x7E00, 0x7E01, 0x7C01, 0xFE55, 0xFDFF],
    "bfloat16": [0x3F80, 0x8000, 1, 0x7F80, 0x7FC0, 0x7FC1, 0x7F81, 0xFFD5, 0xFFBF],
    "float32": [0x3F800000, 1 << 31, 1, 0x7FC00001, 0x7F800001, 0xFFC12345, 0x7FA00000, 0xFF800000, 5],
    "float64": [1, 1 << 63, 0x7FF8000000000001, 0x7FF0000000000001, 0xFFF8123456789ABC, 2, 3, 4, 5],
}


def special_floats(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(bits, the same as numbers), both [9, 3]"""
    kind = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    bits = np.array(BITS[name] * 3, f"u{kind.itemsize}").reshape(9, 3)
    return bits, bits.view(kind)


@pytest.mark.parametrize("name", BITS)
def test_bits_of_nan_as_integers_and_back(name: str) -> None:
    bits, numbers = special_floats(name)
    for integer in (bits.dtype, np.dtype(f"i{bits.itemsize}")):
        for source, target in ((numbers, integer), (bits.view(integer), numbers.dtype), (bits, integer)):
            to = int(helper.np_dtype_to_tensor_dtype(target))
            for is_open in (False, True):
                model = node_model("BitCast", source, 26, is_open=is_open, to=to)
                for native in (False, True):
                    (made,) = by_ovjit(model, {"x": source}, native)
                    assert np.asarray(made).dtype == target
                    np.testing.assert_array_equal(np.asarray(made).view(bits.dtype), bits)


def test_bits_are_computed_with_and_saved(tmp_path: Any) -> None:
    """The sign is set by integers, and the result is added up in f32."""
    x = np.array([1.5, 2, -3], np.float32)
    nodes = [
        helper.make_node("BitCast", ["x"], ["i"], to=onnx.TensorProto.UINT32),
        helper.make_node("BitwiseOr", ["i", "sign"], ["n"]),
        helper.make_node("BitCast", ["n"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["f", "x"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [3])], [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(np.array([1 << 31], np.uint32), "sign")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)], ir_version=11)
    model = ov.Core().read_model(proto.SerializeToString())
    ov.save_model(model, tmp_path / "m.xml")
    for each in (model, ov.Core().read_model(tmp_path / "m.xml")):
        np.testing.assert_array_equal(ov.compile_model(each, "CPU")([x])[0], [0, 0, -6])


#: Operators that move elements: attributes, and further inputs.
MOVES: tuple[tuple[str, dict[str, Any], tuple[Any, ...]], ...] = (
    ("Identity", {}, ()), ("Transpose", {"perm": [1, 0]}, ()), ("Gather", {"axis": 1}, ([2, 0, 1],)),
    ("GatherElements", {"axis": 1}, (np.zeros((9, 3), np.int64),)), ("GatherND", {}, ([[0, 1], [1, 0]],)),
    ("Reshape", {}, ([-1],)), ("Slice", {}, ([0, 2], [100, 0], [0, 1], [1, -1])), ("Tile", {}, ([2, 2],)),
    ("Expand", {}, ([2, 9, 3],)), ("Unsqueeze", {}, ([0],)), ("Concat", {"axis": 0}, ("x",)),
    ("Where", {}, ("x",)), ("Pad", {}, ([1, 1, 1, 1],)), ("Compress", {"axis": 0}, (np.arange(9) % 2 == 0,)),
    ("ScatterElements", {"axis": 1}, (np.tile([2, 0, 1], (9, 1)), "x")), ("Trilu", {}, ()),
)  # fmt: skip


@pytest.mark.parametrize("name", BITS)
def test_moved_elements_keep_the_bits_of_nan(name: str) -> None:
    """Beside the same moves of integers. 16-bit floats that are chosen or padded become quiet natively, and
    subnormals zeros where the instruction that rounds to bf16 flushes them (docs/precision.md)."""
    bits, numbers = special_floats(name)
    nodes, inits = [], {}
    for op, attributes, more in MOVES:
        names = ["x", *(v if isinstance(v, str) else f"{op} {i}" for i, v in enumerate(more))]
        if op == "Where":
            names, inits["mask"] = ["mask", *names], np.arange(27).reshape(9, 3) % 2 == 0
        inits |= {f"{op} {i}": np.array(v) for i, v in enumerate(more) if not isinstance(v, str)}
        nodes.append(helper.make_node(op, names, [op], **attributes))

    def model(value: np.ndarray) -> bytes:
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", kind, value.shape)],
            [onnx.ValueInfoProto(name=node.output[0]) for node in nodes],
            [numpy_helper.from_array(v, k) for k, v in inits.items()],
        )  # fmt: skip
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        return made.SerializeToString()

    right = by_ovjit(model(bits), {"x": bits}, False)
    quiet = {"float16": 0x200, "bfloat16": 0x40}.get(name, 0)
    flushes = name == "bfloat16" and "avx512bf16" in host_target().extras
    for native in (False, True):
        made = by_ovjit(model(numbers), {"x": numbers}, native)
        for (op, _, _), got, want in zip(MOVES, made, right, strict=True):
            got = np.ascontiguousarray(got).view(bits.dtype)
            if native and quiet and op in ("Where", "Pad", "Trilu"):
                nan = np.isnan(want.view(numbers.dtype))
                got, want = (np.where(nan, v | np.array(quiet, v.dtype), v) for v in (got, want))
                if flushes:
                    subnormal = (want & 0x7F80 == 0) & (want & 0x7F != 0) & (got & 0x7FFF == 0)
                    want = np.where(subnormal, want & 0x8000, want)
            np.testing.assert_array_equal(got, want, f"{op} {native}")
