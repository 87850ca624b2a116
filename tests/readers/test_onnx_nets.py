"""Small networks as exporters write them, by the references and natively, beside ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.onnx.beside_onnxruntime import by_onnxruntime, by_ovjit
from tests.support.onnx.exported import NETS, STEPS


def check(name: str, seed: int, native: bool) -> None:
    model, values = NETS[name](seed)
    data = model.SerializeToString()
    ours, theirs = by_ovjit(data, values, native), by_onnxruntime(data, values)
    assert len(ours) == len(theirs)
    for i, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        where = f"output {i} of {name}, seed {seed}"
        assert mine.dtype == other.dtype and mine.shape == other.shape, where
        if mine.dtype.kind == "f" and mine.size:
            tolerance = STEPS.get(name, 3e-5 * float(np.abs(other).max()))
            np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance, err_msg=where)
        else:
            np.testing.assert_array_equal(mine, other, err_msg=where)


@pytest.mark.parametrize("name", NETS)
def test_by_the_references(name: str) -> None:
    for seed in (0, 1):
        check(name, seed, native=False)


@pytest.mark.parametrize("name", ["tiny_bert", "gpt2_past", "yolov3", "faster_rcnn", "mask_head", "ferplus"])
def test_natively(name: str) -> None:
    check(name, 5, native=True)


@pytest.mark.long
@pytest.mark.parametrize("name", NETS)
def test_all_natively(name: str) -> None:
    check(name, 6, native=True)
