"""Every operation's inference and NumPy reference, from the registry's own samples.

Inference has to foretell what the reference makes, with and without known values and shapes, and the
reference has to agree with the real OpenVINO: its own reference implementation (`Model.evaluate`)
where it has one for the operation, else its CPU device in f32. Where OpenVINO is known to be wrong or
refuses a sample, the reason stands in `DEVIATIONS`.
"""

from __future__ import annotations

import numpy as np
import openvino
import openvino.opset13 as opset
import pytest
from openvino.utils.node_factory import NodeFactory

import ovjit
from docs.operations import listed
from ovjit.api.model.builders import make_builder
from ovjit.errors import InferenceError, ModelError
from ovjit.graph.dtypes import from_numpy, numpy_dtype
from ovjit.graph.op import TensorType, all_ops, find_op
from ovjit.graph.shapes import ANY, Interval, is_static
from ovjit.graph.windows import output_extents, resolve_pads
from ovjit.readers.ir.writer import to_bytes
from ovjit_ops.elementwise.conversion import CONVERTIBLE, convert, convert_body
from tests.support.samples import has_samples, samples_of
from tests.support.sweeps import in_turn

SEED = 20260
OPS = [record for record in all_ops() if has_samples(record)]
#: What OpenVINO's CPU does not run; the last two it only declares.
NOT_THERE = ("BinaryConvolution", "RGBtoNV12", "BGRtoNV12")
#: What OpenVINO has: others are one's own.
THERE = set(listed()) - set(NOT_THERE)
#: But for paged attention, whose node tells its heads beside its inputs: see test_paged_options.
PUBLIC = [record for record in OPS if not record.internal and (record.plugin is True or record.name in THERE)]
NAMES = [f"{record.name}-{record.opset}" for record in OPS]


def typed(array, value=False, shape=True):
    return TensorType(
        from_numpy(array.dtype), array.shape if shape is True else shape, array if value else None
    )


def fits(kind: TensorType, array: np.ndarray) -> bool:
    """Whether `array` is one of those that `kind` stands for."""
    if kind.dtype not in (from_numpy(array.dtype), "dynamic"):
        return False
    if kind.shape is None:
        return True
    return len(kind.shape) == array.ndim and all(
        n in d if isinstance(d, Interval) else n == d for d, n in zip(kind.shape, array.shape, strict=True)
    )


def seeded_samples(record, dtype):
    return list(samples_of(record, np.random.default_rng(SEED), dtype))


def types_of(record):
    return list(record.types)


def test_every_operation_has_reference_and_samples():
    others = {"Parameter", "Constant", "Result", "ReadValue", "Assign"}  # the last two: see test_state
    others |= {"If", "Loop", "TensorIterator"}  # see test_control
    assert [r for r in all_ops() if r.name not in others and (r.ref is None or not has_samples(r))] == []


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("record", in_turn(OPS, 2), ids=NAMES)
def test_inference_foretells_the_reference(record, step):
    """Types take the samples in turn."""
    for turn, dtype in enumerate(types_of(record)):
        for inputs, attrs in list(seeded_samples(record, dtype))[turn % step :: step]:
            attrs = record.check_attributes(attrs)
            outputs = record.evaluate(inputs, attrs)
            told = record.infer_types([typed(x, value=True) for x in inputs], attrs)
            where = f"{record} {dtype} {[x.shape for x in inputs]} {attrs} seed {SEED}"
            assert len(told) == len(outputs), where
            for kind, array in zip(told, outputs, strict=True):
                assert fits(kind, array), f"{where}: {kind}, but {array.dtype}{array.shape}"
                if record.name not in DATA_SHAPED and record.host is None:
                    assert is_static(kind.shape), where
                if kind.value is not None:
                    np.testing.assert_array_equal(kind.value, array, err_msg=where)


@pytest.mark.parametrize("record", in_turn(OPS, 2, 1), ids=NAMES)
def test_inference_of_open_shapes_holds_the_reference(record):
    """With values unknown, dimensions open or ranks unknown, what is told has to contain what comes."""
    dtype = types_of(record)[0]
    for inputs, attrs in seeded_samples(record, dtype):
        attrs = record.check_attributes(attrs)
        outputs = record.evaluate(inputs, attrs)
        where = f"{record} {[x.shape for x in inputs]} {attrs} seed {SEED}"
        open_first = [
            typed(x, value=i > 0, shape=(ANY,) * x.ndim if i == 0 else True) for i, x in enumerate(inputs)
        ]
        ranged = [
            typed(x, value=i > 0, shape=tuple(Interval(n, n + 2) for n in x.shape) if i == 0 else True)
            for i, x in enumerate(inputs)
        ]
        no_rank = [typed(x, value=i > 0, shape=None if i == 0 else True) for i, x in enumerate(inputs)]
        for kinds in ([typed(x) for x in inputs], open_first, ranged, no_rank):
            if record.name == "VariadicSplit" and kinds[2].shape is None:
                continue
            told = record.infer_types(kinds, attrs)
            assert len(told) == len(outputs), where
            for kind, array in zip(told, outputs, strict=True):
                assert fits(kind, array), f"{where}: {kinds} give {kind}, but {array.dtype}{array.shape}"


# --- the real OpenVINO


def _empty_last_bag(inputs, attrs):
    return (inputs[2] >= len(inputs[1])).any()


#: Operations that make as much as the data says.
DATA_SHAPED = (
    "NonZero", "Unique", "StringTensorUnpack", "SparseFillEmptyRows", "NonMaxSuppression", "NMSRotated",
    "MulticlassNms", "MatrixNms", "GenerateProposals", "ValidPrefix", "RankedRows", "PagedAttentionExtension",
    "PagedDiversity",
)  # fmt: skip
#: (operation, why, which samples): not compared. None stands for all samples.
DEVIATIONS = {
    "AvgPool": (
        "with padding, rounding up and exclude_pad off, its CPU divides by elements behind the padding too, "
        "but without padding it does not; ours never does, as PyTorch has it; it also refuses empty batches",
        lambda inputs, attrs: (
            not inputs[0].size
            or attrs.get("rounding_type", "floor") != "floor"
            and not attrs["exclude_pad"]
            and any(attrs["pads_begin"] + attrs["pads_end"])
        ),
    ),
    "MaxPool": ("refuses an empty batch", lambda inputs, attrs: not inputs[0].size),
    "Proposal": (
        "does not set the scores of regions that are missing",
        lambda inputs, attrs: attrs["post_nms_topn"] > attrs["pre_nms_topn"],
    ),
    "NonMaxSuppression": (
        "does not set the number of rows where no row may be selected",
        lambda inputs, attrs: int(inputs[2]) == 0,
    ),
    "ReduceMin": (
        "gives infinity or the largest number for nothing",
        lambda inputs, attrs: not inputs[0].size,
    ),
    "RDFT": (
        "refuses to make a signal longer, and -1 in signal_size",
        lambda inputs, attrs: len(inputs) > 2 and -1 in inputs[2],
    ),
    "IRDFT": ("refuses -1 in signal_size", lambda inputs, attrs: len(inputs) > 2 and -1 in inputs[2]),
    "Unique": (
        "does not see that slices along another axis than the first are equal",
        lambda inputs, attrs: len(inputs) > 1 and inputs[0].ndim > 1 and int(inputs[1]) > 0,
    ),
    "SearchSorted": ("gives anything for an empty sequence", lambda inputs, attrs: not inputs[0].size),
    "EmbeddingBagOffsets": ("reads behind the indices for a last bag that is empty", _empty_last_bag),
    "EmbeddingBagOffsetsSum": ("reads behind the indices for a last bag that is empty", _empty_last_bag),
    "Multinomial": (
        "draws from a stream that is not specified",
        lambda inputs, attrs: not attrs["with_replacement"],
    ),
    "ErfInv": ("is good for 4 digits where it computes vectors", lambda inputs, attrs: inputs[0].size >= 8),
    "AUGRUSequence": (
        "takes only full sequences",
        lambda inputs, attrs: (inputs[2] < inputs[0].shape[1]).any(),
    ),
    "Convert": ("has no NumPy type for bf16", lambda inputs, attrs: attrs["destination_type"] == "bf16"),
}
XML_NAMES = {"exclude_pad": "exclude-pad"}
CPU = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_NUM_THREADS": 1}


@pytest.fixture(scope="module")
def core():
    return openvino.Core()


def real_outputs(core, record, inputs, attrs):
    """What OpenVINO computes. Lists and numbers that follow the data are constants."""
    constants = {
        i for i, x in enumerate(inputs) if i > 0 and x.ndim <= 1 and x.size and _steers(record, inputs, i)
    }
    constants |= {1} if record.name == "GroupedMatMul" else set()  # it takes no others
    # its own way to find the shape of the output crashes for those that are not constant
    constants |= {0, 1} if record.name.startswith("PriorBox") else set()
    parameters, ports = [], []
    for i, x in enumerate(inputs):
        if i in constants:
            ports.append(opset.constant(x).output(0))
        else:
            kind = openvino.Type.string if x.dtype == object else x.dtype.type
            parameters.append(opset.parameter(list(x.shape), dtype=kind))
            ports.append(parameters[-1].output(0))
    values = [x for i, x in enumerate(inputs) if i not in constants]
    values = [x.astype(str) if x.dtype == object else x for x in values]
    listed = {XML_NAMES.get(k, k): list(v) if isinstance(v, tuple) else v for k, v in attrs.items()}
    if record.plugin:
        model, values = _from_ir(core, record, inputs, attrs)
    else:
        node = NodeFactory(f"opset{record.opset}").create(record.name, ports, listed)
        model = openvino.Model(node.outputs(), parameters)
    tensors = [
        openvino.Tensor(x) if x.ndim else openvino.Tensor(x.reshape(1), [], openvino.Type(x.dtype))
        for x in values
    ]
    outputs = [
        openvino.Tensor(r.get_element_type(), r.get_partial_shape().get_min_shape()) for r in model.outputs
    ]
    try:
        if model.evaluate(outputs, tensors):
            return [np.array(x.data) for x in outputs]
    except RuntimeError:
        pass  # it has no reference implementation
    results = core.compile_model(model, "CPU", CPU)(values)
    return [np.array(results[i]) for i in range(len(model.outputs))]


def _from_ir(core, record, inputs, attrs):
    """A model of an operation that no opset of OpenVINO's has, by way of a file that ovjit writes, and the
    values of its inputs. What has the letters of weights is constant."""
    core.get_property("CPU", "FULL_DEVICE_NAME")  # the device knows these operations, the core does not
    data = [
        i
        for i, n in enumerate(record.input_names)
        if n not in ("sequence_lengths", "W", "R", "B") and i < len(inputs)
    ]
    given = [
        ovjit.opset13.parameter(list(x.shape), x.dtype) if i in data else ovjit.opset13.constant(x)
        for i, x in enumerate(inputs)
    ]
    node = make_builder(record)(*given, **attrs)
    xml, weights = to_bytes(ovjit.Model(node.outputs(), [given[i] for i in data]))
    return core.read_model(xml, weights), [inputs[i] for i in data]


def _steers(record, inputs, i):
    """Whether input i is a parameter of the operation rather than data."""
    return record.name in ("HardSigmoid", "Selu") or (
        inputs[i].dtype.kind in "iu" and inputs[0].dtype.kind == "f"
    )


@pytest.mark.parametrize("most", [2, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("record", PUBLIC, ids=[f"{r.name}-{r.opset}" for r in PUBLIC])
def test_reference_agrees_with_openvino(core, record, most):
    """On so many samples at most, from the first to the last."""
    types = types_of(record)
    dtype = next(t for t in ("f32", "i32", "boolean", types[0]) if t in types)
    _, skipped = DEVIATIONS.get(record.name, ("", lambda inputs, attrs: False))
    chosen = [sample for sample in seeded_samples(record, dtype) if not skipped(*sample)]
    assert chosen
    for inputs, attrs in chosen[:: -(-len(chosen) // most)]:
        where = f"{record} {[x.shape for x in inputs]} {attrs} seed {SEED}"
        ours = record.evaluate(inputs, record.check_attributes(attrs))
        theirs = real_outputs(core, record, inputs, attrs)
        for mine, real in zip(ours, theirs, strict=True):
            assert mine.shape == real.shape and (mine.dtype == real.dtype or real.dtype.kind == "U"), where
            if real.dtype.kind == "U":
                assert [s.decode() for s in mine.reshape(-1)] == real.reshape(-1).tolist(), where
                continue
            # a transform's error is one of its largest elements: OpenVINO sums in f32
            scale = max(1.0, np.abs(real).max(initial=0)) if record.name.endswith("FT") else 1.0
            np.testing.assert_allclose(mine, real, rtol=3e-5, atol=3e-5 * scale, err_msg=where)


INTEGER_OPS = [
    "Add",
    "Subtract",
    "Multiply",
    "Maximum",
    "Minimum",
    "Divide",
    "FloorMod",
    "Mod",
    "SquaredDifference",
]


@pytest.mark.parametrize("name", INTEGER_OPS)
def test_64_bit_integers_against_python(name):
    """i64 and u64 natively, beyond 2^53: Python's own integers are the oracle."""
    exact = {
        "Add": lambda a, b: a + b,
        "Subtract": lambda a, b: a - b,
        "Multiply": lambda a, b: a * b,
        "Maximum": max,
        "Minimum": min,
        "Divide": lambda a, b: a // b if b else 0,
        "FloorMod": lambda a, b: a % b if b else 0,
        "Mod": lambda a, b: (abs(a) % abs(b)) * (1 if a >= 0 else -1) if b else 0,
        "SquaredDifference": lambda a, b: (a - b) ** 2,
        "Power": lambda a, b: pow(a, b, 2**64) if b >= 0 else a ** (b % 2) if abs(a) == 1 else 0,
    }[name]
    for dtype, edges in (
        ("i64", [0, 1, -1, 7, -7, 2**31, -(2**31), 2**62 + 1, 2**63 - 1, -(2**63)]),
        ("u64", [0, 1, 7, 2**32, 2**63 + 5, 2**64 - 1]),
    ):
        pairs = [(a, b) for a in edges for b in edges]
        x, y = (np.array(v, dtype=numpy_dtype(dtype)) for v in zip(*pairs, strict=True))
        (got,) = find_op(name).evaluate([x, y], {})
        with np.errstate(all="ignore"):
            body = np.asarray(find_op(name).scalar(x, y))
        modulus = 2**64
        want = [exact(a, b) % modulus for a, b in pairs]
        assert [int(v) % modulus for v in got] == want, (name, dtype)
        assert body.dtype == x.dtype and np.array_equal(body, got), (name, dtype)


ALONG = {
    "CumSum": lambda ops, x, axis: ops.cumsum(x, ops.constant(np.array(axis))),
    "ReduceSum": lambda ops, x, axis: ops.reduce_sum(x, ops.constant(np.array(axis))),
    "Squeeze": lambda ops, x, axis: ops.squeeze(x, ops.constant(np.array(axis))),
    "LogSoftmax": lambda ops, x, axis: ops.log_softmax(x, axis),
}


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("name", ALONG)
def test_a_single_number_has_one_axis(name, axis):
    answers = []
    for ov in (openvino, ovjit):
        x = ov.opset13.parameter([], np.float32)
        model = ov.Model([ALONG[name](ov.opset13, x, axis)], [x])
        answers.append(ov.compile_model(model, "CPU")([np.float32(2)])[0])
    assert answers[0].shape == answers[1].shape == ()
    np.testing.assert_array_equal(*answers)


def test_division_rounds_as_asked():
    x, y = np.array([7, -7, 7, -7, 5], dtype=np.int32), np.array([2, 2, -2, -2, 0], dtype=np.int32)
    divide = find_op("Divide")
    for floor, want in ((True, [3, -4, -4, 3, 0]), (False, [3, -3, -3, 3, 0])):
        assert divide.evaluate([x, y], {"m_pythondiv": floor})[0].tolist() == want
        with np.errstate(all="ignore"):
            assert np.asarray(divide.scalar(x, y, m_pythondiv=floor)).tolist() == want


@pytest.mark.parametrize(
    "record",
    in_turn([r for r in OPS if r.scalar], 2),
    ids=[f"{r.name}-{r.opset}" for r in OPS if r.scalar],
)
def test_scalar_body_on_arrays_agrees_with_the_reference(record):
    for dtype in [t for t in types_of(record) if t not in ("f16", "bf16")]:
        for inputs, attrs in seeded_samples(record, dtype):
            if record.name == "PRelu":
                inputs = [
                    x.reshape(s)
                    for x, s in zip(inputs, record.align(*(x.shape for x in inputs)), strict=True)
                ]
            if attrs.get("destination_type") in ("f16", "bf16"):
                continue
            with np.errstate(all="ignore"):
                body = np.asarray(record.scalar(*inputs, **attrs))
            (want,) = record.evaluate(inputs, attrs)
            where = f"{record} {dtype} {[x.shape for x in inputs]} {attrs} seed {SEED}"
            assert body.shape == want.shape, where
            np.testing.assert_allclose(body.astype(want.dtype), want, rtol=1e-5, atol=1e-6, err_msg=where)


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -1.5, 3e38], dtype=np.float32)


@pytest.mark.parametrize(
    ("name", "attrs", "want"),
    [
        ("Relu", {}, [np.nan, np.inf, 0, 0, 0, 1.5, 0, 3e38]),
        ("Clamp", {"min": -1.0, "max": 1.0}, [np.nan, 1, -1, 0, 0, 1, -1, 1]),
        ("Sigmoid", {}, [np.nan, 1, 0, 0.5, 0.5, 0.8175745, 0.1824255, 1]),
        ("Sign", {}, [np.nan, 1, -1, 0, 0, 1, -1, 1]),
        ("HSwish", {}, [np.nan, np.inf, np.nan, 0, 0, 1.125, -0.375, 3e38]),
        ("SoftPlus", {}, [np.nan, np.inf, 0, 0.6931472, 0.6931472, 1.7014133, 0.2014133, 3e38]),
        ("IsNaN", {}, [True] + [False] * 7),
        ("IsFinite", {}, [False] * 3 + [True] * 5),
    ],
)
def test_not_a_number_and_infinities(name, attrs, want):
    with np.errstate(all="ignore"):
        for got in (find_op(name).evaluate([SPECIAL], attrs)[0], find_op(name).scalar(SPECIAL, **attrs)):
            np.testing.assert_allclose(
                np.asarray(got, dtype=np.float64), np.array(want, dtype=np.float64), rtol=1e-6
            )


def test_pooling_and_reduction_of_not_a_number():
    x = np.array([np.nan, 1, 2, 3, -np.inf, -np.inf], dtype=np.float32).reshape(1, 1, 6)
    out, index = find_op("MaxPool", 8).evaluate(
        [x], find_op("MaxPool", 8).check_attributes({"kernel": (2,), "strides": (2,)})
    )
    np.testing.assert_array_equal(out.ravel(), [np.nan, 3, -np.inf])
    np.testing.assert_array_equal(index.ravel(), [0, 3, 4])
    for name in ("ReduceMax", "ReduceMin", "ReduceSum"):
        assert np.isnan(find_op(name).evaluate([x.ravel(), np.array([0])], {})[0])
    values, order = find_op("TopK").evaluate(
        [np.array([1, np.nan, 3, 3], dtype=np.float32), np.array(3)],
        find_op("TopK").check_attributes({"axis": 0, "mode": "max", "sort": "value"}),
    )
    np.testing.assert_array_equal(values, [np.nan, 3, 3])
    assert order.tolist() == [1, 2, 3]


def test_convert_out_of_range():
    """Observed on OpenVINO: through 32 bits (64 for wide types), the smallest integer for the rest."""
    x = np.array([-1.9, 1.9, 300.7, -300, 3e9, 1e20, np.nan, np.inf, 0.5], dtype=np.float32)
    low = -(2**31)
    assert convert(x, "i32").tolist() == [-1, 1, 300, -300, low, low, low, low, 0]
    assert convert(x, "u8").tolist() == [255, 1, 44, 212, 0, 0, 0, 0, 0]
    assert convert(x, "i64").tolist() == [-1, 1, 300, -300, 3_000_000_000, -(2**63), -(2**63), -(2**63), 0]
    assert convert(x, "boolean").all()
    for to in set(CONVERTIBLE) - {"bf16"}:
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(np.asarray(convert_body(x, to)), convert(x, to), err_msg=to)


@pytest.mark.parametrize("auto_pad", ["explicit", "valid", "same_upper", "same_lower"])
def test_resolved_pads_hold_all_windows(auto_pad):
    """The windows that are counted are the windows that fit between the resolved pads."""
    for extent in (5, 7, 8, 16):
        for kernel in (1, 2, 3, 5):
            for stride in (1, 2, 3):
                for dilation in (1, 2):
                    window = {
                        "kernel": [kernel],
                        "strides": [stride],
                        "dilations": [dilation],
                        "pads_begin": [2],
                        "pads_end": [1],
                    }
                    if auto_pad == "valid" and (kernel - 1) * dilation + 1 > extent:
                        continue
                    (b,), (e,) = resolve_pads(auto_pad, [extent], **window)
                    padded = extent + b + e
                    brute = len(range(0, padded - (kernel - 1) * dilation, stride))
                    if padded >= (kernel - 1) * dilation + 1:
                        got = output_extents(auto_pad, [extent], **window)
                        assert got == (brute,), (auto_pad, extent, kernel, stride, dilation)


def f32(*shape):
    return TensorType("f32", shape)


def i64(*values):
    return TensorType("i64", (len(values),), np.array(values, dtype=np.int64))


def number(value):
    return TensorType("i64", (), np.array(value, dtype=np.int64))


POOL = {"kernel": (2, 2), "strides": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0)}
CONV = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0)}
IMAGE = f32(1, 4, 5, 5)
WRONG = [
    ("Convolution", [IMAGE, f32(2, 4, 3, 3)], {**CONV, "strides": (0, 1)}),
    ("Convolution", [IMAGE, f32(2, 4, 3, 3)], {**CONV, "dilations": (1, 0)}),
    ("Convolution", [IMAGE, f32(2, 4, 3, 3)], {**CONV, "pads_begin": (-1, 0)}),
    ("Convolution", [IMAGE, f32(2, 4, 3, 3)], {**CONV, "auto_pad": "foo"}),
    ("Convolution", [IMAGE, f32(2, 4, 3, 3)], {**CONV, "strides": (1,)}),
    ("Convolution", [IMAGE, f32(2, 4, 3, 3)], {**CONV, "strides": "１,１"}),
    ("Convolution", [IMAGE, f32(2, 3, 3, 3)], CONV),
    ("Convolution", [IMAGE, f32(2, 4, 7, 3)], CONV),
    ("Convolution", [IMAGE, f32(2, 4, 0, 3)], CONV),
    ("Convolution", [IMAGE, f32(2, 4, 3)], CONV),
    ("Convolution", [IMAGE, TensorType("f16", (2, 4, 3, 3))], CONV),
    ("GroupConvolution", [IMAGE, f32(3, 2, 1, 3, 3)], CONV),
    ("GroupConvolution", [IMAGE, f32(0, 2, 1, 3, 3)], CONV),
    ("ConvolutionBackpropData", [IMAGE, f32(4, 2, 3, 3)], {**CONV, "pads_begin": (9, 9)}),
    ("ConvolutionBackpropData", [IMAGE, f32(4, 2, 3, 3), i64(5, -5)], CONV),
    ("MaxPool", [IMAGE], {**POOL, "strides": (0, 1)}),
    ("MaxPool", [IMAGE], {**POOL, "kernel": (0, 2)}),
    ("MaxPool", [IMAGE], {**POOL, "kernel": (-1, 2)}),
    ("MaxPool", [IMAGE], {**POOL, "kernel": (9, 9)}),
    ("MaxPool", [IMAGE], {**POOL, "rounding_type": "up"}),
    ("MaxPool", [IMAGE], {**POOL, "index_element_type": "f32"}),
    ("MaxPool", [IMAGE], {**POOL, "axis": 7}),
    ("AvgPool", [f32(5, 5)], {**POOL, "exclude_pad": True}),
    ("Softmax", [f32(2, 3)], {"axis": 2}),
    ("ReduceMean", [f32(2, 3), i64(2)], {}),
    ("Reshape", [f32(2, 3), i64(4, -1)], {"special_zero": False}),
    ("Reshape", [f32(2, 3), i64(-1, -1)], {"special_zero": False}),
    ("Reshape", [f32(2, 3), i64(-2, 3)], {"special_zero": False}),
    ("Reshape", [f32(2, 3), i64(6, 1, 0)], {"special_zero": True}),
    ("Reshape", [f32(2, 3), i64(2**32, 2**32)], {"special_zero": False}),
    ("Transpose", [f32(2, 3), i64(0, 0)], {}),
    ("Transpose", [f32(2, 3), i64(0, 2)], {}),
    ("Concat", [f32(2, 3), f32(3, 2)], {"axis": 0}),
    ("Concat", [f32(2, 3), f32(2, 3)], {"axis": 2}),
    ("Split", [f32(5), number(0)], {"num_splits": 2}),
    ("Split", [f32(5), number(0)], {"num_splits": 0}),
    ("VariadicSplit", [f32(5), number(0), i64(2, 4)], {}),
    ("Unsqueeze", [f32(2, 3), i64(5)], {}),
    ("StridedSlice", [f32(5), i64(0), i64(5), i64(0)], {"begin_mask": (0,), "end_mask": (0,)}),
    (
        "StridedSlice",
        [f32(5), i64(9), i64(5), i64(1)],
        {"begin_mask": (0,), "end_mask": (0,), "shrink_axis_mask": (1,)},
    ),
    ("Slice", [f32(5), i64(0), i64(5), i64(0)], {}),
    ("Slice", [f32(5), i64(0), i64(5), i64(1), i64(1)], {}),
    ("Pad", [f32(5), i64(1), i64(1)], {"pad_mode": "mirror"}),
    ("Pad", [f32(5), i64(-4), i64(-4)], {"pad_mode": "constant"}),
    ("Pad", [f32(5), i64(5), i64(0)], {"pad_mode": "reflect"}),
    ("Broadcast", [f32(5), i64(4)], {"mode": "numpy"}),
    ("Broadcast", [f32(5), i64(-5)], {"mode": "numpy"}),
    ("Gather", [f32(5), i64(0), number(1)], {}),
    ("Gather", [f32(5), f32(1), number(0)], {}),
    ("OneHot", [i64(0), number(-1), f32(), f32()], {"axis": 0}),
    ("TopK", [f32(5), number(6)], {"axis": 0, "mode": "max", "sort": "value"}),
    ("TopK", [f32(5), number(2)], {"axis": 0, "mode": "most", "sort": "value"}),
    ("MatMul", [f32(2, 3), f32(4, 2)], {}),
    ("MatMul", [f32(2, 3), f32()], {}),
    ("Add", [f32(2, 3), f32(4)], {}),
    ("Add", [f32(2), i64(1, 2)], {}),
    ("Add", [f32(2, 3), f32(3)], {"auto_broadcast": "none"}),
    ("Clamp", [f32(2)], {"min": 2.0, "max": 1.0}),
    ("Clamp", [f32(2)], {"min": float("nan"), "max": 1.0}),
    ("BatchNormInference", [IMAGE, f32(4), f32(3), f32(4), f32(4)], {"epsilon": 0.1}),
    ("LRN", [IMAGE, i64(4)], {"alpha": 1.0, "beta": 1.0, "bias": 1.0, "size": 5}),
    ("LRN", [IMAGE, i64(1)], {"alpha": 1.0, "beta": 1.0, "bias": 1.0, "size": 0}),
    ("ShuffleChannels", [IMAGE], {"axis": 1, "group": 3}),
    ("DepthToSpace", [IMAGE], {"block_size": 3, "mode": "blocks_first"}),
    ("FakeQuantize", [f32(2), f32(), f32(), f32(), f32()], {"levels": 1}),
    ("Range", [number(0), number(5), number(0)], {"output_type": "i64"}),
]


@pytest.mark.parametrize(("name", "inputs", "attrs"), WRONG, ids=[f"{i}-{w[0]}" for i, w in enumerate(WRONG)])
def test_nonsense_is_refused(name, inputs, attrs):
    record = find_op(name)
    with pytest.raises(ModelError):
        record.infer_types(inputs, record.check_attributes(attrs))


@pytest.mark.parametrize("bad", [5, -6, 2**31, 2**63 - 1, -(2**63)])
def test_indices_out_of_range(bad):
    data, index = np.arange(5, dtype=np.float32), np.array([bad, 1], dtype=np.int64)
    (got,) = find_op("Gather").evaluate([data, index, np.array(0)], {})
    assert got.tolist() == [0, 1]
    for name, more in (("GatherElements", []), ("ScatterElementsUpdate", [data[:2], np.array(0)])):
        with pytest.raises(InferenceError):
            find_op(name).evaluate([data, index, *more], {})


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
def test_half_precision_is_of_reals(dtype):
    """NumPy has other names for bf16 than for its own reals: means are not rounded down, and NaN is the
    largest element of a window."""
    kind, whole = numpy_dtype(dtype), np.zeros((), np.int64)
    scattered = find_op("ScatterElementsUpdate", 12)
    arrays = [np.array([1, 2], kind), np.array([0, 0]), np.array([1.5, 2], kind), whole]
    (mean,) = scattered.evaluate(arrays, {"reduction": "mean", "use_init_val": True})
    np.testing.assert_array_equal(mean.astype(np.float32), np.array([1.5, 2], np.float32))
    pooled = np.array([[[1, np.nan, 3]]], kind)
    pool = find_op("MaxPool", 8)
    values, places = pool.evaluate([pooled], pool.check_attributes({"kernel": (2,)}))
    assert np.isnan(values.astype(np.float32)).all() and places.tolist() == [[[1, 1]]]
