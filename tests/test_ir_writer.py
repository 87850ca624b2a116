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


def weighed(library, kind: str):
    """A product with weights in some form, a sum behind it."""
    ops = library.opset13
    rng = np.random.default_rng(11)

    def real(*shape: int):
        return ops.constant(rng.standard_normal(shape).astype(np.float32))

    x = ops.parameter([1, 8], np.float32, name="x")
    data = x
    few = ops.convert(ops.constant(rng.integers(0, 9, (8, 8)).astype(np.uint8)), np.float32)
    if kind in ("quantized", "converted"):
        ends = [real(1, 1) for _ in range(4)]
        data = ops.fake_quantize(x, *ends, 256) if kind == "quantized" else None
        data = data or ops.fake_convert(x, real(1), real(1), "f8e4m3")
        weights = real(8, 8)
    elif kind == "real":
        weights = real(8, 8)
    elif kind == "without scale":
        weights = ops.subtract(few, real(8, 1))
    elif kind == "scale in f16":
        half = ops.constant(rng.standard_normal((8, 1)).astype(np.float16))
        weights = ops.multiply(few, ops.convert(half, np.float32))
    elif kind == "of 16 bits":
        many = ops.constant(rng.integers(0, 9, (8, 8)).astype(np.int16))
        weights = ops.multiply(ops.convert(many, np.float32), real(8, 1))
    elif kind == "with zero points":
        weights = ops.multiply(real(8, 1), ops.subtract(few, real(8, 1)))
    else:
        assert kind == "scaled"
        weights = ops.reshape(ops.multiply(few, real(8, 1)), np.array([8, 8]), False)
    return library.Model([ops.add(ops.matmul(data, weights, False, True), real(1, 8))], [x], "m")


@pytest.mark.parametrize(
    "kind",
    [
        "real", "quantized", "converted", "scaled", "with zero points", "without scale", "scale in f16",
        "of 16 bits",
    ],
)  # fmt: skip
def test_constants_of_quantized_models_stay_f32(kind, tmp_path):
    """Whether constants are stored as f16 is a question of the whole model, as in OpenVINO."""
    types = []
    for library in (openvino, ovjit):
        path = tmp_path / f"{library.__name__}.xml"
        library.save_model(weighed(library, kind), path, compress_to_fp16=True)
        constants = openvino.Core().read_model(path).get_ops()
        types.append(sorted(str(n.get_element_type()) for n in constants if n.get_type_name() == "Constant"))
        model = weighed(library, kind)
        offline = __import__(f"{library.__name__}._offline_transformations", fromlist=["_"])
        offline.compress_model_transformation(model)
        constants = [n for n in model.get_ops() if n.get_type_name() == "Constant"]
        types.append(sorted(n.get_element_type().get_type_name() for n in constants))
    assert types[:2] == types[2:], kind
