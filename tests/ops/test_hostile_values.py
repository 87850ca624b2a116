"""Values that operations refuse: the same error, whether they are constants, come at run time, or go to the
reference; and never one of Python's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph import dtypes
from ovjit.graph.graph import Builder, Graph, Node
from ovjit.graph.interp import evaluate
from ovjit.graph.op import Op, TensorType, find_op
from ovjit.graph.shapes import ANY
from tests.support.run import run_job
from tests.support.samples import samples_of

F = np.float32
BIG = 1 << 62
Case = tuple[str | Op, Sequence[Any], dict[str, Any]]


def _f(*shape: int) -> np.ndarray:
    return np.arange(int(np.prod(shape)), dtype=F).reshape(shape)


def _i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


#: Each is refused however its inputs come.
REFUSED: list[Case] = [
    (
        "Interpolate", [_f(1, 1, 5, 5), _i(1 << 42, 1), _i(2, 3)],
        {"mode": "nearest", "shape_calculation_mode": "sizes"},
    ),
    ("Reshape", [_f(6), _i(4)], {}),
    ("Reshape", [_f(6), _i(-1, -1)], {}),
    ("Reshape", [_f(1, 17), _i()], {}),
    ("Reshape", [_f(6), _i(-2, -3)], {}),
    ("Reshape", [_f(6), _i(0, 6)], {"special_zero": False}),
    ("Reshape", [_f(6), _i(BIG, BIG)], {}),
    ("Tile", [_f(2, 3), _i(-1, 2)], {}),
    ("Tile", [_f(2, 3), _i(BIG, BIG)], {}),
    ("Broadcast", [_f(3), _i(-2, 3)], {"mode": "numpy"}),
    ("Broadcast", [_f(3), _i(2, 4)], {"mode": "numpy"}),
    ("Transpose", [_f(2, 3), _i(0, 0)], {}),
    ("Transpose", [_f(2, 3), _i(0, 5)], {}),
    ("Slice", [_f(5), _i(0), _i(5), _i(0)], {}),
    ("Slice", [_f(5), _i(0), _i(5), _i(1), _i(4)], {}),
    ("StridedSlice", [_f(5), _i(0), _i(5), _i(0)], {"begin_mask": (0,), "end_mask": (0,)}),
    ("Split", [_f(5), np.array(0)], {"num_splits": 2}),
    ("Split", [_f(4), np.array(3)], {"num_splits": 2}),
    ("VariadicSplit", [_f(5), np.array(0), _i(2, 2)], {}),
    ("VariadicSplit", [_f(5), np.array(0), _i(-1, -1)], {}),
    ("VariadicSplit", [_f(5), np.array(0), _i(-5, 10)], {}),
    ("BatchToSpace", [_f(4, 2, 2), _i(1, 2, 2), _i(1, 0, 0), _i(0, 0, 0)], {}),
    ("BatchToSpace", [_f(4, 2, 2), _i(1, 2, 2), _i(0, 9, 0), _i(0, 0, 0)], {}),
    ("BatchToSpace", [_f(3, 2, 2), _i(1, 2, 2), _i(0, 0, 0), _i(0, 0, 0)], {}),
    ("BatchToSpace", [_f(4, 2, 2), _i(1, 0, 2), _i(0, 0, 0), _i(0, 0, 0)], {}),
    ("SpaceToBatch", [_f(1, 4, 4), _i(1, 2, 2), _i(1, 0, 0), _i(0, 0, 0)], {}),
    ("SpaceToBatch", [_f(1, 4, 4), _i(1, 3, 2), _i(0, 0, 0), _i(0, 0, 0)], {}),
    ("SpaceToBatch", [_f(1, 4, 4), _i(1, 2), _i(0, 0, 0), _i(0, 0, 0)], {}),
    ("ShuffleChannels", [_f(1, 5, 2)], {"axis": 1, "group": 2}),
    ("ReverseSequence", [_f(2, 5), _i(1, 6)], {"batch_axis": 0, "seq_axis": 1}),
    ("ReverseSequence", [_f(2, 5), _i(-1, 5)], {"batch_axis": 0, "seq_axis": 1}),
    ("ReverseSequence", [_f(2, 5, 3), _i(1, 6)], {"batch_axis": 0, "seq_axis": 1}),
    ("ReverseSequence", [_f(5, 2, 3), _i(-1, 5)], {"batch_axis": 1, "seq_axis": 0}),
    ("ReverseSequence", [_f(2, 5), _i(-(1 << 63), 5)], {"batch_axis": 0, "seq_axis": 1}),
    ("ReverseSequence", [_f(2, 5), _i(1, 1, 1)], {"batch_axis": 0, "seq_axis": 1}),
    ("ScatterUpdate", [_f(4, 3), _i(4), _f(1, 3), np.array(0)], {}),
    ("ScatterUpdate", [_f(4, 3), _i(-5), _f(1, 3), np.array(0)], {}),
    ("ScatterUpdate", [_f(4, 3), _i(1, 2), _f(1, 3), np.array(0)], {}),
    ("ScatterUpdate", [_f(4, 3), _i(1, 2), _f(2, 4), np.array(0)], {}),
    ("ScatterNDUpdate", [_f(4, 3), np.array([[1], [2]]), _f(3)], {}),
    ("ScatterNDUpdate", [_f(4, 3), np.array([[1], [9]]), _f(2, 3)], {}),
    ("ScatterNDUpdate", [_f(4, 3), np.array([[1], [2]]), _f(2, 4)], {}),
    ("ScatterElementsUpdate", [_f(4, 3), np.array([[4]]), _f(1, 1), np.array(0)], {}),
    ("ScatterElementsUpdate", [_f(4, 3), np.zeros((1, 4), np.int64), _f(1, 4), np.array(0)], {}),
    ("ScatterElementsUpdate", [_f(4, 3), np.zeros((1, 3), np.int64), _f(1, 2), np.array(0)], {}),
    ("GatherElements", [_f(4, 3), np.array([[4, 0, 0]])], {"axis": 0}),
    ("GatherElements", [_f(4, 1), np.array([[0, 0]])], {"axis": 0}),
    ("GatherElements", [_f(4, 3), np.array([[0]])], {"axis": 0}),
    ("GatherND", [_f(4, 3), np.array([[4]])], {"batch_dims": 0}),
    ("GatherND", [_f(4, 3), np.array([[0, 0, 0]])], {"batch_dims": 0}),
    ("TopK", [_f(4), np.array(5)], {"axis": 0, "mode": "max", "sort": "value"}),
    ("TopK", [_f(4), np.array(-1)], {"axis": 0, "mode": "max", "sort": "value"}),
    ("Roll", [_f(4), _i(1, 2), _i(0, 0, 0)], {}),
    ("Roll", [_f(4), _i(1), _i(3)], {}),
    ("Roll", [_f(2, 3), _i(), _i(1)], {}),
    ("Roll", [_f(2, 3), _i(1), _i()], {}),
    ("Pad", [_f(4), _i(-5), _i(0), np.array(0, F)], {"pad_mode": "constant"}),
    ("Pad", [_f(4), _i(4), _i(0), np.array(0, F)], {"pad_mode": "reflect"}),
    ("Pad", [_f(4), _i(BIG), _i(BIG), np.array(0, F)], {"pad_mode": "constant"}),
    ("NonMaxSuppression", [_f(1, 3, 4), _f(1, 1, 3), np.array(2), _f(0), np.array(0, F)], {}),
    ("NonMaxSuppression", [_f(1, 3, 4), _f(1, 1, 3), np.array(2), np.array(0, F), _f(2)], {}),
    ("EmbeddingBagOffsetsSum", [_f(5, 1), _i(0, 1), _i(0, 1, 2), _i()], {}),
    ("EmbeddingBagOffsetsSum", [_f(5, 1), _i(0, 1), _i(0, 1, 2), np.array(5)], {}),
    ("EmbeddingSegmentsSum", [_f(5, 1), _i(0, 1), _i(0, 1), _i(), np.array(0)], {}),
    ("EmbeddingSegmentsSum", [_f(5, 1), _i(0, 1), _i(0, 1), np.array(3), _i()], {}),
    ("HardSigmoid", [_f(7), np.array(0, F), _f(1, 1)], {}),
    ("HardSigmoid", [np.array(0, F), _f(1), np.array(0, F)], {}),
    ("Selu", [_f(7), _f(1), _f(1, 1)], {}),
    ("Swish", [_f(7), _f(1, 1)], {}),
    ("GroupedMatMul", [_f(3, 7, 16), _f(1, 5, 16)], {}),
    ("GroupedMatMul", [_f(1, 7, 16), _f(3, 5, 16)], {}),
    ("Col2Im", [_f(1, 6, 4), _i(3, 4), _i(BIG, 4)], {}),
    ("RoPE", [_f(1, 5, 2, 1), _f(1, 1, 5, 8), _f(1, 1, 5, 8)], {"rotary_ndims": 8, "input_trans0213": True}),
    ("RoPE", [_f(1, 2, 5, 6), _f(1, 1, 5, 8), _f(1, 1, 5, 8)], {"rotary_ndims": 8}),
    ("CTCGreedyDecoderSeqLen", [_f(2, 9, 3), _i(9, 4), _i()], {}),
    ("CTCGreedyDecoderSeqLen", [_f(2, 9, 3), _i(9, 4), _i(0, 1)], {}),
    ("Einsum", [_f(3, 4), _f(3)], {"equation": "ab,b"}),
    ("ExperimentalDetectronPriorGridGenerator", [_f(3, 1), _f(1, 2, 4, 5), _f(1, 3, 64, 90)],
     {"flatten": True, "h": 0, "w": 0, "stride_x": 0.0, "stride_y": 0.0}),
    ("ExperimentalDetectronROIFeatureExtractor", [_f(5, 0), _f(1, 3, 8, 8), _f(1, 3, 4, 4)],
     {"output_size": 3, "sampling_ratio": 2, "pyramid_scales": (4, 8), "aligned": False}),
    ("ExperimentalDetectronROIFeatureExtractor", [_f(5, 4), _f(1, 3, 8, 8), _f(1, 1, 4, 4)],
     {"output_size": 3, "sampling_ratio": 2, "pyramid_scales": (4, 8), "aligned": False}),
    ("ExperimentalDetectronDetectionOutput", [_f(6, 4), _f(6, 8), _f(0, 2), _f(1, 3)],
     {"score_threshold": 0.05, "nms_threshold": 0.5, "num_classes": 2, "post_nms_count": 10,
      "max_detections_per_image": 5, "max_delta_log_wh": 4.0, "deltas_weights": (1.0, 1.0, 1.0, 1.0)}),
    ("ScaledDotProductAttention",
     [_f(2, 4, 5, 8), _f(1, 1, 6, 8), _f(2, 1, 6, 8), _f(), _f(), _f(1, 4, 0, 1)], {}),
    ("ReverseSequence", [_f(2, 5), _i(1)], {"batch_axis": 0, "seq_axis": 1}),
    ("RandomUniform", [np.array([[3]]), np.array(0, F), np.array(1, F)], {"output_type": "f32"}),
    ("AvgPool", [_f(1, 1, 3, 4)],
     {"kernel": (2, BIG), "auto_pad": "same_lower", "strides": (1, 1), "pads_begin": (0, 0),
      "pads_end": (0, 0), "exclude_pad": True}),
]  # fmt: skip


def _graph(case: Case, constants: Sequence[bool], open_dims: bool) -> tuple[Graph, list[np.ndarray]]:
    op, inputs, attrs = case
    b, name = Builder(), op if isinstance(op, str) else op.name
    values, arrays = [], []
    for array, constant in zip(inputs, constants, strict=True):
        if constant:
            values.append(b.constant(array))
            continue
        known = name == "VariadicSplit" and values  # it has an output for each of its lengths
        shape = (ANY,) * array.ndim if open_dims and not known else array.shape
        kind = {"shape": shape, "element_type": dtypes.from_numpy(array.dtype)}
        values.append(b.add("Parameter", (), kind).output)
        arrays.append(array)
    node: Node = b.add(op, values, attrs)
    return b.finish(node.outputs), arrays


def _name(case: Case) -> str:
    return case[0] + "-" + "-".join(str(x.tolist() if x.size < 5 else list(x.shape)) for x in case[1])


@pytest.mark.parametrize("case", REFUSED, ids=_name)
def test_one_truth_about_what_is_an_error(case: Case) -> None:
    name, inputs, attrs = case
    record = find_op(name)
    with pytest.raises(OvjitError):
        record.evaluate(inputs, record.check_attributes(attrs))
    ways = [[False] * len(inputs), [i > 0 for i in range(len(inputs))], [False, *[True] * (len(inputs) - 1)]]
    ways += [[k == i for k in range(len(inputs))] for i in range(1, len(inputs))]
    for constants in ways:
        for open_dims in (False, True):
            with pytest.raises(OvjitError) as caught:
                graph, arrays = _graph(case, constants, open_dims)
                job = compile_graph(graph, {}).new_job()
                run_job(job, arrays)
            assert name in str(caught.value), "the message names the operation"


#: What names nothing is not refused, as OpenVINO has it; and it is the same however the inputs come.
ACCEPTED: list[Case] = [
    ("ScatterUpdate", [_f(4, 0), _i(9), _f(1, 0), np.array(0)], {}),
    ("ScatterNDUpdate", [_f(4, 0), np.array([[9]]), _f(1, 0)], {}),
    ("GatherND", [_f(4, 0), np.array([[9]])], {"batch_dims": 0}),
    ("Slice", [_f(5), _i(-100), _i(-200), _i(-1)], {}),
    ("Slice", [_f(5), _i(-100), _i(0), _i(-1)], {}),
    ("Slice", [_f(5), _i(0), _i(5), _i(BIG)], {}),
    ("Slice", [_f(5), _i(BIG), _i(-BIG), _i(-BIG)], {}),
    ("LRN", [_f(1, 1, 2, 1) * 0, _i(1)], {"alpha": 1.0, "beta": 1.0, "bias": 1.0, "size": BIG}),
    ("LRN", [_f(1, 1, 2, 1) * 0, _i(2, 3)], {"alpha": 1.0, "beta": 1.0, "bias": 1.0, "size": BIG}),
    ("Broadcast", [_f(3), _i(3, 2), _i(0)], {"mode": "none"}),  # as OpenVINO writes "explicit"
    ("STFT", [1 + _f(4), 1 + _f(1), np.array(1), np.array(BIG)], {"transpose_frames": False}),
    ("EmbeddingBagOffsetsSum", [_f(5, 1), _i(0, 1), _i(0, 1), np.array(9)], {}),
    ("Slice", [_f(5, 0), _i(-9, -9), _i(-20, -20), _i(-1, -1)], {}),
    ("StridedSlice", [_f(5), _i(-100), _i(-200), _i(-1)], {"begin_mask": (0,), "end_mask": (0,)}),
    ("StridedSlice", [_f(5), _i(BIG), _i(-BIG), _i(-BIG)], {"begin_mask": (0,), "end_mask": (0,)}),
    ("ShuffleChannels", [_f(1, 0, 2)], {"axis": 1, "group": 2}),
    ("ShuffleChannels", [_f(0, 4, 2)], {"axis": 1, "group": 2}),
    ("BatchToSpace", [_f(0, 2, 2), _i(1, 2, 2), _i(0, 0, 0), _i(0, 0, 0)], {}),
    ("BatchToSpace", [_f(4, 0, 2), _i(1, 2, 2), _i(0, 0, 0), _i(0, 0, 0)], {}),
    ("SpaceToBatch", [_f(1, 0, 2), _i(1, 2, 2), _i(0, 0, 0), _i(0, 0, 0)], {}),
    ("Tile", [_f(2, 3), _i(0, 2)], {}),
    ("Tile", [_f(0, 3), _i(2, 2)], {}),
    ("Roll", [_f(0, 3), _i(2), _i(0)], {}),
    ("ReverseSequence", [_f(2, 5), _i(0, 5)], {"batch_axis": 0, "seq_axis": 1}),
    ("Reshape", [_f(0), _i(0, 3)], {"special_zero": False}),
    ("Einsum", [_f(3, 4), _f(1)], {"equation": "ab,b"}),  # a dimension of 1 is as long as the other is
    ("Einsum", [_f(2, 3, 5, 1), _f(2, 7, 3, 8)], {"equation": "bhqk,bkhd->bqhd"}),
    ("Einsum", [_f(2, 3, 1, 2), _f(3, 5, 1, 4)], {"equation": "aikl,ijkm->ajlm"}),
]  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED, ids=_name)
def test_one_truth_about_what_is_none(case: Case) -> None:
    name, inputs, attrs = case
    record = find_op(name)
    want = record.evaluate(inputs, record.check_attributes(attrs))
    for constants in ([False] * len(inputs), [i > 0 for i in range(len(inputs))]):
        for open_dims in (False, True):
            graph, arrays = _graph(case, constants, open_dims)
            assert [x.tolist() for x in evaluate(graph, arrays)] == [x.tolist() for x in want]
            job = compile_graph(graph, {}).new_job()
            run_job(job, arrays)
            for got, expected in zip(job.outputs, want, strict=True):
                assert (got.shape, got.tolist()) == (expected.shape, expected.tolist())


#: Attributes that ended in Python's errors.
ATTRIBUTES: list[Case] = [
    ("MVN", [_f(2, 3), _i(1)], {"normalize_variance": True, "eps": 1e400, "eps_mode": "inside_sqrt"}),
    ("NonZero", [_f(2, 3)], {"output_type": ","}),
    ("PriorBox", [_i(2, 3), _i(20, 30)], {"fixed_size": [8.0], "density": [2.0**31], "offset": 0.5}),
]


@pytest.mark.parametrize("case", ATTRIBUTES, ids=_name)
def test_attributes_that_no_kernel_can_have(case: Case) -> None:
    try:
        graph, arrays = _graph(case, [False] + [True] * (len(case[1]) - 1), False)
        job = compile_graph(graph, {}).new_job()
        run_job(job, arrays)
    except OvjitError:
        pass  # refused in the project's own words, or run


def test_what_no_check_has_caught_is_told_as_the_operations_refusal() -> None:
    def fail(x: Any) -> Any:
        raise IndexError("there is no such place")

    record = Op("Careless", 1, lambda x: x, fail)
    with pytest.raises(OvjitError, match=r"Careless failed on .*float32\[2\].*no such place"):
        record.evaluate([_f(2)], {})
    careless = Op("Careless", 1, fail, lambda x: x)
    with pytest.raises(OvjitError, match=r"Careless failed on .*f32\[2\].*no such place"):
        careless.infer_types([TensorType("f32", (2,))], {})


def test_split_lengths_of_open_length_are_accepted_by_the_builder() -> None:
    """As OpenVINO: the node has no outputs until it is known how many."""
    from ovjit import opset13 as op

    x, lengths = op.parameter([-1], F), op.parameter([-1], np.int64)
    assert op.variadic_split(x, op.constant(np.array(0)), lengths).get_output_size() == 0


@pytest.mark.parametrize("scores", [22, 44, 0])
def test_classes_that_detections_do_not_have(scores: int) -> None:
    """A graph that says three, of eleven priors, and finds other scores at run time."""
    record = find_op("DetectionOutput", 1)
    (boxes, _, priors), attrs = next(iter(samples_of(record, np.random.default_rng(1), "f32")))
    arrays = [boxes, np.zeros((2, scores), F), priors]
    with pytest.raises(OvjitError, match="DetectionOutput"):
        graph, given = _graph((record, arrays, attrs), [False] * 3, True)
        job = compile_graph(graph, {}).new_job()
        run_job(job, given)


LOWEST = np.iinfo(np.int64).min


@pytest.mark.parametrize(
    ("name", "number", "wrong"),
    [
        ("EmbeddingSegmentsSum", 2, [0, 2, LOWEST]),
        ("PagedSelectiveSSM", 8, [0, 3, -(2**31)]),
        ("PaKVReorder", 3, [0, 3, -(2**31)]),
        ("PaKVReorder", 5, [0, -2, 3]),
    ],
)
def test_begins_whose_differences_overflow(name: str, number: int, wrong: list[int]) -> None:
    """References refuse begins and ids that fall, however far."""
    record = find_op(name)
    inputs, attrs = next(iter(samples_of(record, np.random.default_rng(3), "f32")))
    arrays = [np.array(x) for x in inputs]
    if name == "EmbeddingSegmentsSum":
        arrays = [arrays[0], np.zeros(3, np.int64), np.zeros(3, np.int64), np.array(3)]
    arrays[number] = np.array(wrong, arrays[number].dtype)
    with pytest.raises(OvjitError):
        record.evaluate(arrays, record.check_attributes(attrs))
