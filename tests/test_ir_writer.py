"""IR that ovjit writes, read by the real OpenVINO."""

from __future__ import annotations

import numpy as np
import openvino
import pytest

import ovjit


@pytest.mark.parametrize("exclude", [True, False])
def test_attributes_with_a_dash_in_their_name(exclude, tmp_path):
    """AvgPool's `exclude-pad`: the corners of a padded average tell both values apart."""
    ops = ovjit.opset8
    x = ops.parameter([1, 1, 4, 4], np.float32, name="x")
    y = ops.avg_pool(x, [1, 1], [1, 1], [1, 1], [3, 3], exclude)
    model = ovjit.Model([y], [x], "pool")
    ovjit.save_model(model, tmp_path / "pool.xml", compress_to_fp16=False)
    data = np.random.default_rng(3).standard_normal((1, 1, 4, 4)).astype(np.float32)
    theirs = openvino.Core().compile_model(tmp_path / "pool.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = theirs(data)[0]
    assert expected[0, 0, 0, 0] == pytest.approx(data[0, 0, :2, :2].sum() / (4 if exclude else 9), abs=1e-5)
    for read in (model, ovjit.Core().read_model(tmp_path / "pool.xml")):
        np.testing.assert_allclose(ovjit.compile_model(read, "CPU")(data)[0], expected, atol=1e-5)
