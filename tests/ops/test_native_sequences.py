"""GatherTree, greedy decoding, CTCLoss natively, beside references: ties, NaN, no steps, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import openvino.opset4
import pytest

import ovjit as ov
from ovjit.api.model.builders import as_output
from ovjit.api.model.node import Node
from ovjit.errors import InferenceError
from ovjit.graph.op import find_op
from tests.support.oracle import real_answers
from tests.support.sweeps import parts

SEED = 20261120


def infer(name: str, inputs: list[np.ndarray], attrs: dict[str, Any]) -> list[np.ndarray]:
    """The outputs of the operation alone, which has to run natively."""
    record = find_op(name)
    parameters = [ov.opset8.parameter(list(a.shape), a.dtype) for a in inputs]
    node = Node._new(record, [as_output(p) for p in parameters], record.check_attributes(attrs), None)
    compiled = ov.compile_model(ov.Model(node.outputs(), parameters, "one"), "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    outputs = list(request.infer(inputs).to_tuple())
    assert "ref_numpy" not in {row.exec_type for row in request.get_profiling_info()}
    return outputs


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_greedy_decoding(merge: bool, masked: bool) -> None:
    rng = np.random.default_rng(SEED)
    for round in range(12):
        batch, steps, classes = (int(v) for v in rng.integers(1, 12, 3))
        classes += round % 3 * 256  # one to three blocks, in which the largest is looked for
        data = np.round(rng.standard_normal((batch, steps, classes)), 1).astype(np.float32)
        data[rng.random(data.shape) < 0.5 / classes] = np.nan
        lengths = rng.integers(not masked, steps + 1, batch)
        if masked:
            name, data = "CTCGreedyDecoder", data.transpose(1, 0, 2).copy()
            mask = (np.arange(steps)[:, None] < lengths).astype(np.float32)
            inputs, attrs = [data, mask], {"ctc_merge_repeated": merge}
        else:
            name, attrs = "CTCGreedyDecoderSeqLen", {"merge_repeated": merge, "classes_index_type": "i64"}
            inputs = [data, lengths, *([np.array([round % classes])] if round % 2 else [])]
        record = find_op(name)
        wanted = record.evaluate(inputs, record.check_attributes(attrs))
        for got, want in zip(infer(name, inputs, attrs), wanted, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=f"{name}, seed {SEED}, round {round}")


@pytest.mark.parametrize("merge", [True, False])
def test_sequences_end_where_their_mask_is_zero_first(merge: bool) -> None:
    """Beside OpenVINO: a sequence that is masked from its first step has no labels."""
    rng = np.random.default_rng(SEED)
    for round in range(8):
        batch, steps = (int(v) for v in rng.integers(1, 8, 2))
        data = rng.standard_normal((steps, batch, 4)).astype(np.float32)
        mask = (rng.random((steps, batch)) < 0.7).astype(np.float32)
        mask[0, round % batch] = 0
        inputs, attrs = [data, mask], {"ctc_merge_repeated": merge}
        record = find_op("CTCGreedyDecoder")
        real = openvino.opset4.ctc_greedy_decoder
        parameters = [openvino.opset4.parameter(list(a.shape), a.dtype) for a in inputs]
        model = openvino.Model([real(*parameters, merge)], parameters, "one")
        want = openvino.compile_model(model, "CPU")(inputs)[0]
        for got in (infer("CTCGreedyDecoder", inputs, attrs), record.evaluate(inputs, attrs)):
            np.testing.assert_array_equal(got[0], want, err_msg=f"seed {SEED}, round {round}")


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.int64])
def test_gather_tree(kind: type) -> None:
    rng = np.random.default_rng(SEED)
    for round in range(12):
        shape = tuple(int(v) for v in rng.integers(1, 9, 3))
        ids, parents = rng.integers(0, 6, shape), rng.integers(0, shape[2], shape)
        lengths = rng.integers(-1, shape[0] + 3, shape[1])
        inputs = [np.asarray(a).astype(kind) for a in (ids, parents, lengths, 5)]
        (wanted,) = find_op("GatherTree").evaluate(inputs, {})
        (got,) = infer("GatherTree", inputs, {})
        np.testing.assert_array_equal(got, wanted, err_msg=f"seed {SEED}, round {round}")


def test_beams_of_numbers_that_are_none() -> None:
    """An unused parent may be NaN, a length infinite. Others are refused by both."""
    ids, nan, far = np.arange(6, dtype=np.float32).reshape(3, 1, 2), np.float32("nan"), np.float32("inf")
    for step, length, fine in (
        (0, 3, True), (2, 3, False), (1, 1, True), (0, far, True), (0, -far, True), (0, nan, False)
    ):  # fmt: skip
        parents = np.zeros_like(ids)
        parents[step] = nan
        inputs = [ids, parents, np.array([length], np.float32), np.array(-1, np.float32)]
        if fine:
            (wanted,) = find_op("GatherTree").evaluate(inputs, {})
            np.testing.assert_array_equal(infer("GatherTree", inputs, {})[0], wanted, f"{step} {length}")
            continue
        for run in (infer, lambda name, *given: find_op(name).evaluate(*given)):
            with pytest.raises(InferenceError):
                run("GatherTree", inputs, {})


def test_what_is_out_of_range_is_refused() -> None:
    ids = np.zeros((3, 1, 2), np.int32)
    for parent in (2, -1):
        with pytest.raises(RuntimeError, match="out of range"):
            infer("GatherTree", [ids, np.full_like(ids, parent), np.array([3], np.int32), np.int32(1)], {})
    for length in (-1, 4):
        with pytest.raises(RuntimeError, match="length is out of range"):
            infer("CTCGreedyDecoderSeqLen", [np.zeros((1, 3, 2), np.float32), np.array([length])], {})


@pytest.mark.parametrize("rounds", parts(range(6), 2))
@pytest.mark.parametrize("ways", range(8))
def test_ctc_loss(ways: int, rounds: range) -> None:
    """Beside the reference in f64, with repeated labels, blanks among them, none, and what cannot be; beside
    OpenVINO in whole sequences with at least one label."""
    rng = np.random.default_rng([SEED, ways, rounds.start])
    attrs = {
        "preprocess_collapse_repeated": bool(ways & 1), "ctc_merge_repeated": bool(ways & 2),
        "unique": bool(ways & 4),
    }  # fmt: skip
    for round in rounds:
        batch, steps, classes = (int(v) for v in rng.integers(1, (5, 40, 20)))
        data = (rng.standard_normal((batch, steps, classes)) * rng.choice([1, 8])).astype(np.float32)
        times = rng.integers(1, steps + 1, batch)
        counts = np.minimum(rng.integers(0, steps + 1, batch) // 2, times)
        labels = rng.integers(0, classes, (batch, steps))
        blank = [np.array(int(rng.integers(classes)))] if round % 2 else []
        kind = np.int32 if round % 3 else np.int64
        inputs = [data, *(a.astype(kind) for a in (times, labels, counts, *blank))]
        record = find_op("CTCLoss")
        exact = [data.astype(np.float64), *inputs[1:]]
        (wanted,) = record.evaluate(exact, record.check_attributes(attrs))
        (got,) = infer("CTCLoss", inputs, attrs)
        where = f"seed {SEED}, {ways}, {rounds}: round {round}"
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6, err_msg=where)
        if classes == 1:
            continue
        labels, times = rng.integers(0, classes, (batch, steps)), np.full(batch, steps)
        counts = rng.integers(1, steps // 2 + 2, batch)  # OpenVINO may crash where one is 0
        inputs = [data, *(np.asarray(a, np.int32) for a in (times, labels, counts, rng.integers(classes)))]
        given = [openvino.opset4.parameter(list(a.shape), a.dtype) for a in inputs]
        node = openvino.opset4.ctc_loss(*given, *attrs.values())
        (wanted,) = real_answers(openvino.Model(node.outputs(), given), inputs)
        (got,) = infer("CTCLoss", inputs, attrs)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4, err_msg=where)


def test_ctc_loss_refuses() -> None:
    good = [np.zeros((1, 3, 2), np.float32), *(np.array(v) for v in ([3], [[0, 0, 0]], [2], 1))]
    assert np.isfinite(infer("CTCLoss", good, {})[0]).all()
    lengths = ((1, [4]), (1, [-1]), (1, [1]), (3, [4]), (3, [-1]))
    for place, value in (*lengths, (2, [[0, 2, 0]]), (2, [[-1, 0, 0]]), (4, 2), (4, -1)):
        bad = [np.array(value) if i == place else a for i, a in enumerate(good)]
        with pytest.raises(RuntimeError, match="out of range"):
            infer("CTCLoss", bad, {})
