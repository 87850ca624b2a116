"""The opset builders: signatures beside the real OpenVINO's, arguments, errors."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit
from ovjit.api.model.builders import builders, make_builder
from ovjit.api.surface import SURFACES, Surface
from ovjit.graph.op import DType, Op, TensorType, all_ops
from tests.support.run import python

#: Where the real module has another signature, and why ours differs: (builder, opset) -> reason.
KNOWN = {
    ("topk", 1): "one record serves versions 1 and 3",
    ("topk", 2): "one record serves versions 1 and 3",
    ("range", range(4, 12)): "the real one leaves output_type out until opset 12",
    ("gelu", range(2, 7)): "the newer version's argument name",
    ("scatter_nd_update", range(15, 18)): "version 15 is not there yet",
    ("one_hot", range(16, 18)): "version 16 is not there yet",
    ("constant", range(13, 18)): "the real one shows *args, **kwargs",
    ("read_value", range(6, 18)): "the real one has several forms, see test_state",
    ("assign", range(6, 18)): "the real one is a class without a signature",
}


def known(name: str, opset: int) -> bool:
    return any(
        name == n and (opset == where if isinstance(where, int) else opset in where) for n, where in KNOWN
    )


@pytest.mark.parametrize("opset", range(1, 18))
def test_signatures_as_openvino(opset: int) -> None:
    real = getattr(openvino, f"opset{opset}")
    wrong = {}
    compared = 0
    for name, function in builders(opset).items():
        theirs = getattr(real, name, None)
        if theirs is None or isinstance(theirs, type) or known(name, opset):  # pybind classes have none
            continue
        compared += 1
        want, have = (
            [(n, p.default is p.empty) for n, p in inspect.signature(f).parameters.items()]
            for f in (theirs, function)
        )
        # what is ours alone comes after `name` and has a default
        if have[: len(want)] != want or any(required for _, required in have[len(want) :]):
            wrong[name] = (have, want)
    assert not wrong
    assert compared >= (50 if opset < 16 else 0)


def test_every_builder_has_openvino_s_name() -> None:
    """A record whose snake_case is not OpenVINO's must say so."""
    real = {name for n in range(1, 18) for name in dir(getattr(openvino, f"opset{n}"))}
    third_party = {
        r.name for r in all_ops() if not getattr(r.infer, "__module__", "").startswith("ovjit_ops")
    }
    ours = {name for n in range(1, 18) for name in builders(n)}
    extra = {"rgb_to_nv12", "bgr_to_nv12"}  # OpenVINO has these operations, and no builders of them
    assert not [name for name in ours - real - extra if name not in third_party]


def test_modules_list_and_hand_out_their_builders() -> None:
    o8 = ovjit.opset8
    assert "relu" in dir(o8) and "parameter" in dir(o8)
    assert o8.relu is o8.relu
    assert o8.relu.__name__ == "relu"
    assert o8.abs is o8.absolute
    with pytest.raises(AttributeError, match="no_such_op"):
        o8.no_such_op  # noqa: B018
    names: dict[str, Any] = {}
    exec("from ovjit.opset8 import *", names)
    assert names["relu"] is o8.relu
    from ovjit.opset13 import constant

    assert "shared_memory" in inspect.signature(constant).parameters
    assert "shared_memory" not in inspect.signature(o8.constant).parameters


CALLS = """
o8.add(a, 1) | o8.add(a, np.float32(1)) | o8.add(a, [1.0]) | o8.add(1.0, 2.0)
o8.add(a.output(0), b.output(0)) | o8.add(a, 'x') | o8.add(a) | o8.add(a, b, 'none')
o8.add(a, b, 'Explicit').get_attributes() | o8.add(a, b).set_attribute('auto_broadcast', 'Bad')
o8.add(a, b, auto_broadcast='bad') | o8.relu(a, name='rn') | o8.relu(None) | o8.relu(a, foo=1)
o8.broadcast(a, [2, 3], 'BIDIRECTIONAL') | o8.broadcast(a, [4, 2, 3], [1, 2]).get_input_size()
o8.broadcast(a, [2, 3, 4], [0, 1], 'EXPLICIT').get_input_size() | o8.constant(None)
o8.broadcast(a, [2, 3], None, 'BIDIRECTIONAL')
o8.relu(a.output(0)) | o8.parameter(5) | o8.parameter([2, '?']) | o8.parameter('?,3')
o8.parameter(ov.PartialShape.dynamic()) | o8.parameter([1], 'f32') | o8.parameter([[1, 5], 3])
o8.parameter([1], ov.Type.u8) | o8.parameter([1], int) | o8.parameter([1], float)
o8.parameter([], np.int64) | o8.parameter([1], np.dtype('i4')) | o8.convert(a, 'f16')
o8.convert(a, np.float16) | o8.convert(a, ov.Type.f16) | o8.reshape(a, [3, 2], False) | o8.concat([a, b], 0)
o8.transpose(a, [1, 0]) | o8.reduce_mean(a, [1], True) | o8.reduce_mean(a, 1)
o8.softmax(a, 1).get_attributes() | o8.clamp(a, 0, 6).get_attributes() | o8.split(a, 0, 2)
o8.clamp(a, min_value=0., max_value=6.).get_attributes() | o8.matmul(a, b, False, True).get_attributes()
o8.concat([o8.split(a, 0, 2)], 0) | o8.concat([], 0) | o8.shape_of(a) | o8.gather(a, [0], 1)
o8.squeeze(a, [5]) | o8.max_pool(image, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2])
o8.convolution(image, np.ones((2, 3, 3, 3), np.float32), [1, 1], [0, 0], [0, 0], [1, 1])
o8.avg_pool(image, [2, 2], [0, 0], [0, 0], [2, 2], True) | o8.pad(a, [0, 1], [1, 0], 'constant', 0.5)
o8.strided_slice(a, [0, 0], [1, 1], [1, 1], [0, 0], [0, 0]).get_attributes() | o8.result(a)
o8.result(a, name='r') | o8.constant(np.zeros((0, 3))) | o8.constant([])
o8.convolution(image, np.ones((2, 4, 3, 3), np.float32), [1, 1], [0, 0], [0, 0], [1, 1]) | o10.is_inf(a)
o10.is_inf(a, {'detect_negative': False}).get_attributes() | o13.constant(ov.Tensor(np.ones(3)))
o8.constant(2.5, name='n') | o8.add(a, b).get_type_info().version_id
o8.softmax(a, 1).get_type_info().version_id | o1.softmax(a, 1).get_type_info().version_id
o13.constant(np.zeros((0, 3))) | o8.depth_to_space(deep, 'blocks_first', 2)
o8.relu(a, 'n').friendly_name == 'n' | o8.relu(a, name='n').friendly_name == 'n' | o8.squeeze(a, [])
o8.squeeze(image, [0.]) | ov.opset15.squeeze(image, [])
o8.parameter([2], np.float32, 'n').friendly_name == 'n' | o8.result(a, 'n').friendly_name == 'n'
o8.constant(2.5, np.float32, 'n').friendly_name == 'n' | o1.topk(a, 1, 1, 'max', 'value', 'n')
o10.is_inf(a, {}, 'n').friendly_name == 'n' | o8.assign(a, 'v', 'n').friendly_name == 'n'
o8.read_value(a, 'v', np.float32, [2, 3], 'n').friendly_name == 'n'
o8.non_zero(o8.parameter([], np.float32)) | o8.non_zero(a)
o1.logical_xor([True], [False]).get_type_info().version_id
o8.rnn_cell(a, b, W, W, W[0], 3, ['tanh'], [], []).get_type_info().version_id
o8.group_convolution_backprop_data(deep, GROUPS, [2, 2], np.array([4, 4]), [1, 1], [1, 1]).get_attributes()
o8.group_convolution_backprop_data(deep, GROUPS, [2, 2], None, [1, 1], [1, 1]).get_attributes()
o8.convolution_backprop_data(deep, GROUPS[0], [2, 2], np.array([4, 4]), [1, 1], [1, 1]).get_attributes()
o8.avg_pool(image, [3, 5], [0, 0], [0, 0], [1, 2], True, 'ceil', 'same_upper')
o1.max_pool(image, [3, 4], [0, 0], [0, 0], [1, 4], 'ceil', 'same_lower')
o8.max_pool(image, [5, 5], [2, 1], [0, 0], [0, 0], [2, 3], 'ceil', 'same_lower')
o8.max_pool(image, [5, 5], [2, 1], [0, 0], [0, 0], [2, 3], 'floor', 'same_lower')
o8.softmax(a) | o8.avg_pool(image, [2, 2]) | o8.matmul(a, b) | o8.squeeze(a) | o8.mvn(a, [1], eps=1e-6)
""".replace("\n", "|").split("|")  # fmt: skip


@pytest.mark.parametrize("call", [c.strip() for c in CALLS if c.strip()])
def test_calls_as_openvino(call: str) -> None:
    from tests.support.evaluated import outcome

    told = []
    for ov in (ovjit, openvino):
        opsets = {f"o{n}": importlib.import_module(f"{ov.__name__}.opset{n}") for n in (1, 8, 10, 13)}
        a = ov.opset8.parameter([2, 3], np.float32, name="a")
        b = ov.opset8.parameter([2, 3], np.float32, name="b")
        image = ov.opset8.parameter([1, 3, 8, 8], np.float32)
        deep = ov.opset8.parameter([1, 8, 2, 2], np.float32)
        names = {"ov": ov, "np": np, "a": a, "b": b, "image": image, "deep": deep, **opsets}
        names["W"] = np.eye(3, dtype=np.float32)
        told.append(outcome(call, {**names, "GROUPS": np.ones((4, 2, 1, 3, 3), np.float32)}))
    assert told[0] == told[1]


def test_constants_are_named_after_their_node() -> None:
    for ov in (ovjit, openvino):
        a = ov.opset8.parameter([2], np.float32)
        node = ov.opset8.add(a, np.ones(2, np.float32), name="plus")
        assert node.input_value(1).get_node().friendly_name.startswith("plus/Constant_")


REALS = """
o.convert(f, 'i32') | o.convert(o.floor(o.divide(f, seven)), 'i32') | o.convert(o.sqrt(f), 'i32')
o.convert(o.ceiling(o.multiply(f, part)), 'i32') | o.convert(o.round(f), 'i32') | o.clamp(h, 0, 7) | o.abs(h)
o.negative(o.negative(h)) | o.convert(o.exp(o.log(f)), 'i32') | o.convert(o.relu(f), 'i32')
""".replace("\n", "|").split("|")  # fmt: skip


@pytest.mark.parametrize("chain", [c.strip() for c in REALS if c.strip()])
def test_shapes_that_come_through_real_numbers(chain: str) -> None:
    """Half of a height, for one: known with the shape, as OpenVINO knows it."""
    told = []
    for ov in (ovjit, openvino):
        o = ov.opset13
        x = o.parameter([60, 50, 3], np.float32)
        h = o.gather(o.shape_of(x, "i32"), o.constant(np.array([0], np.int32)), o.constant(np.int32(0)))
        names = {"o": o, "h": h, "f": o.convert(h, "f32"), "seven": o.constant(np.float32(7))}
        pattern = eval(chain, {**names, "part": o.constant(np.float32(0.3))})
        rest = o.constant(np.array([-1], np.int32))
        whole = o.reshape(o.parameter([-1]), o.concat([pattern, rest], 0), False)
        told.append(str(whole.output(0).partial_shape))
    assert told[0] == told[1] != "[?,?]"


def test_optional_inputs_have_no_gaps() -> None:
    """An input that is left out before one that is given would shift the rest."""

    def infer(x, y=None, z=None):
        return x

    two_optional = make_builder(Op("TwoOptional", 1, infer))
    a = ovjit.opset8.parameter([2])
    assert two_optional(a, a, a).get_input_size() == 3
    assert two_optional(a, a).get_input_size() == 2
    with pytest.raises(TypeError, match="'z' only together with 'y'"):
        two_optional(a, None, a)


def test_a_record_alone_makes_a_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    def infer(*parts, axis: int, mode: str = "sum", element_type: DType = "f32"):
        """Adds the parts."""
        return TensorType(element_type, parts[0].shape)

    monkeypatch.setitem(SURFACES, "JoinParts", Surface(names={"parts": "nodes", "mode": "how"}))
    join = make_builder(Op("JoinParts", 1, infer, doc="Adds."))
    assert join.__name__ == "join_parts"
    assert str(inspect.signature(join)).startswith("(nodes, axis, how='sum', element_type='f32', name=None)")
    a = ovjit.opset8.parameter([2], name="a")
    node = join([a, a.output(0), [1.0, 2.0]], 3, how="max", element_type=ovjit.Type.f16, name="j")
    assert repr(node) == "<JoinParts: 'j' ([2])>"
    assert node.get_attributes() == {"axis": 3, "mode": "max", "element_type": "f16"}
    assert node.get_input_size() == 3
    with pytest.raises(RuntimeError, match="axis"):
        join([a], "x")
    with pytest.raises(TypeError, match="list of nodes"):
        join(a, 1)


@pytest.mark.parametrize("package", [ovjit, openvino])
def test_keys_that_are_no_attributes_are_left_unused(package: Any) -> None:
    """Programs hand an older version's dict to a newer builder: num_classes is one of opset1 alone."""
    ops = package.opset8
    sizes = [ops.parameter(shape, np.float32) for shape in ([1, 28], [1, 21], [1, 2, 28])]
    attrs = {"num_classes": 3, "keep_top_k": [5], "nms_threshold": 0.5, "normalized": True}
    node = ops.detection_output(*sizes, attrs)
    assert node.get_attributes()["keep_top_k"] == [5] and "num_classes" not in node.get_attributes()
    grid = importlib.import_module(f"{package.__name__}.opset9").grid_sample
    node = grid(*(ops.parameter([1, n, 2, 2], np.float32) for n in (1, 2)), {"mode": "nearest", "more": 1})
    assert node.get_attributes()["mode"] == "nearest"
    infinite = importlib.import_module(f"{package.__name__}.opset10").is_inf
    node = infinite(sizes[0], {"detect_negative": False, "more": 1})
    assert node.get_attributes() == {"detect_negative": False, "detect_positive": True}


@pytest.mark.parametrize("package", [ovjit, openvino])
def test_constants_of_arrays_of_other_dtypes(package: Any) -> None:
    ops = package.opset13
    made = ops.constant(np.array([1, 2.5], object), package.Type.f32)
    np.testing.assert_array_equal(made.data, np.float32([1, 2.5]))
    for array in (np.ones(2, np.complex64), np.array([1, 2], object)):
        with pytest.raises(RuntimeError, match="Unsupported data type"):
            ops.constant(array)


@pytest.mark.parametrize(
    "element_type", ["f8e5m2", "f4e2m1", "bf16", "f64", "i4", "u4", "u2", "u3", "i8", "u64"]
)
def test_constants_of_texts_of_numbers(element_type: str) -> None:
    kind = getattr(ovjit.Type, element_type)
    assert ovjit.op.Constant(kind, ovjit.Shape([3]), ["1", "2", "3"]).get_value_strings() == ["1", "2", "3"]
    with pytest.raises(RuntimeError, match=f"a constant of {element_type} cannot be made of these texts"):
        ovjit.op.Constant(kind, ovjit.Shape([2]), ["1", "x"])
    if kind.bitwidth < 8 and element_type[0] in "iu":
        with pytest.raises(RuntimeError, match="99 assigned value out of range"):
            ovjit.op.Constant(kind, ovjit.Shape([2]), ["1", "99"])


def test_a_constant_has_a_type() -> None:
    with pytest.raises(RuntimeError, match="Element not supported"):
        ovjit.op.Constant(ovjit.Type.dynamic, ovjit.Shape([1]), [1])


def test_runtime_is_the_same_package() -> None:
    import ovjit.runtime as ov
    import ovjit.runtime.opset8 as o8
    from ovjit.runtime import Model, properties
    from ovjit.runtime.op import Parameter

    assert o8 is ovjit.opset8 and ov.opset8 is ovjit.opset8
    assert Model is ovjit.Model and Parameter is ovjit.op.Parameter and properties is ovjit.properties
    assert ovjit.opset8.__spec__.name == ovjit.opset8.__name__
    assert ov.get_version() == ovjit.get_version()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("ovjit.runtime.no_such_module")


def test_import_is_light_and_silent() -> None:
    code = (
        "import sys, ovjit, ovjit.runtime, ovjit.opset8; dir(ovjit); ovjit.__version__\n"
        "heavy = {'numpy', 'numba', 'llvmlite', 'onnx', 'openvino'} & set(sys.modules)\n"
        "ovjit.opset8.relu(ovjit.opset8.parameter([1])); ovjit.Model\n"
        "print(sorted(heavy | ({'numba', 'llvmlite', 'onnx', 'openvino'} & set(sys.modules))))"
    )
    done = python("-c", code)
    assert (done.stdout.strip(), done.stderr) == ("['numpy']", "")


def test_every_public_name_is_there_and_openvino_s() -> None:
    assert {name for name in ovjit.__all__ if not hasattr(ovjit, name)} == set()
    ours_alone = {"OVAny", "compare", "progress", "read_model"}
    assert set(ovjit.__all__) - set(dir(openvino)) <= ours_alone
    assert set(ovjit.__all__) <= set(dir(ovjit))
    with pytest.raises(AttributeError, match="NoSuchName"):
        ovjit.NoSuchName  # noqa: B018


@pytest.mark.parametrize("shapes", [([2], [2]), ([], [2]), ([2], [])], ids=["no scalar", "first", "last"])
def test_promoted_types_as_openvino(shapes: tuple[list[int], list[int]]) -> None:
    """The common type of each two, by safe and unsafe rules, NumPy's and PyTorch's."""
    names = "f16 bf16 f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 boolean".split()

    def answer(ov: Any, x: str, y: str, rules: tuple[bool, bool]) -> str:
        left, right = (
            ov.opset14.parameter(s, getattr(ov.Type, t)) for s, t in zip(shapes, (x, y), strict=True)
        )
        try:
            return ov.opset14.convert_promote_types(left, right, *rules).output(0).element_type.to_string()
        except RuntimeError:
            return "none"

    for x in names:
        for y in names:
            for rules in ((False, False), (False, True), (True, False), (True, True)):
                assert answer(ovjit, x, y, rules) == answer(openvino, x, y, rules), (x, y, rules)


@pytest.mark.parametrize("given", [{"exclude-pad": True}, {"exclude-pad": False}, {}], ids=str)
def test_a_factory_takes_attributes_by_their_names_in_files(given: dict[str, bool]) -> None:
    attrs = {"kernel": [3, 3], "strides": [1, 1], "pads_begin": [1, 1], "pads_end": [1, 1], **given}
    attrs |= {"rounding_type": "floor", "auto_pad": "explicit"}
    data, found = np.full((1, 1, 4, 4), 6, np.float32), []
    for ov in (ovjit, openvino):
        factory = importlib.import_module(f"{ov.__name__}.utils.node_factory").NodeFactory("opset1")
        x = ov.opset13.parameter([1, 1, 4, 4], np.float32)
        node = factory.create("AvgPool", [x.output(0)], attrs)
        assert node.get_attributes()["exclude-pad"] == given.get("exclude-pad", True)
        found.append(ov.compile_model(ov.Model(node.outputs(), [x]), "CPU")(data)[0])
    np.testing.assert_allclose(*found, rtol=2e-2)  # OpenVINO may compute in bf16
    assert (found[0] == 6).all() == given.get("exclude-pad", True)
