"""TensorFlow Lite files of forms beside the plain operators: open pads, further subgraphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit as ov

pytest.importorskip("tflite")

from ovjit.errors import OvjitError, UnsupportedError
from tests.support.tflite.cases import i32, one, x
from tests.support.tflite.files import G, Op, T, const, quantized, write

SEED = 20261127
F32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
RNG = np.random.default_rng(SEED)
REAL = openvino.Core()


def answers(folder: Path, data: bytes, inputs: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Compiled here, and in the real package."""
    path = folder / "model.tflite"
    path.write_bytes(data)
    out = []
    for compiled in (ov.compile_model(path, "CPU", F32), REAL.compile_model(path, "CPU", F32)):
        results = compiled(inputs)
        out.append([np.array(results[i]) for i in range(len(compiled.outputs))])
    return out


def same(folder: Path, data: bytes, inputs: list[np.ndarray]) -> None:
    for got, want in zip(*answers(folder, data, inputs), strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("kind", ["SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"])
@pytest.mark.parametrize("blocks", [False, True], ids=["known blocks", "open blocks"])
@pytest.mark.parametrize("behind", [False, True], ids=["plain", "behind a convolution"])
def test_open_pads_and_crops(kind: str, blocks: bool, behind: bool, tmp_path: Path) -> None:
    """Sizes of blocks, pads and crops that are inputs, also of images with channels first."""
    image = (4, 4, 6, 3)
    open_out = T("out", (1, 1, 1, 3), signature=(-1, -1, -1, 3))
    size = T("size", (2,), "INT32", None if blocks else i32(2, 2))
    tensors = [T("x", image), size, T("ends", (2, 2), "INT32"), open_out]
    ops = [Op(kind, ["x", "size", "ends"], ["out"])]
    if behind:
        weights = const("w", RNG.normal(size=(3, 1, 1, 3)).astype(np.float32))
        tensors += [weights, T("c", image)]
        place = {"Padding": 0, "StrideW": 1, "StrideH": 1}
        ops = [Op("CONV_2D", ["x", "w", ""], ["c"], "Conv2DOptions", place),
               Op(kind, ["c", "size", "ends"], ["out"])]  # fmt: skip
    names = ["x", "ends", *(["size"] if blocks else [])]
    data = write(G(tensors, ops, names, ["out"]))
    for ends in ([[1, 1], [0, 2]], [[0, 0], [2, 0]]):
        given = [RNG.normal(size=image).astype(np.float32), i32(*ends), *([i32(2, 2)] if blocks else [])]
        same(tmp_path, data, given)


def test_subgraphs_of_other_signatures_are_not_read(tmp_path: Path) -> None:
    """An operator without a rule matters where the model reaches it."""
    tensors = [T("x", (2,)), T("y", (2,))]
    other = G(tensors, [Op("LSTM", ["x"], ["y"])], ["x"], ["y"], "other")
    same(tmp_path, write(G(tensors, [Op("ABS", ["x"], ["y"])], ["x"], ["y"]), other), [np.float32([-1, 2])])
    call = Op("STABLEHLO_COMPOSITE", ["x"], ["y"], "StableHLOCompositeOptions",
              {"Name": "twice", "DecompositionSubgraphIndex": 1})  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"No translator found for LSTM node.*LSTM, 1 times \('y'\)"):
        ov.Core().read_model(write(G(tensors, [call], ["x"], ["y"]), other))


def test_dimensions_of_fill_without_elements() -> None:
    """A scalar; the real package ends the process."""
    data = one("FILL", [np.zeros(0, np.int32), x(name="v")], [((), "FLOAT32")])
    assert ov.compile_model(data, "CPU", F32)([np.float32(2.5)])[0] == np.float32(2.5)


# -- models that are cut ------------------------------------------------------------------------------------


def chain(folder: Path) -> Path:
    """x -> CONV_2D -> c -> RELU -> r -> ADD y -> o -> CONV_2D -> p"""
    shape, image = (1, 5, 6, 4), {"Padding": 0, "StrideW": 1, "StrideH": 1}
    weights = [const(f"w{i}", RNG.normal(size=(4, 3, 3, 4)).astype(np.float32)) for i in range(2)]
    ops = [Op("CONV_2D", ["x", "w0", ""], ["c"], "Conv2DOptions", image), Op("RELU", ["c"], ["r"]),
           Op("ADD", ["r", "y"], ["o"], "AddOptions"),
           Op("CONV_2D", ["o", "w1", ""], ["p"], "Conv2DOptions", image)]  # fmt: skip
    path = folder / "chain.tflite"
    path.write_bytes(write(G([*weights, *(T(n, shape) for n in "xycrop")], ops, ["x", "y"], ["p"])))
    return path


def front_ends() -> list[Any]:
    from openvino.frontend import FrontEndManager as Real
    from ovjit.frontend import FrontEndManager

    return [FrontEndManager().load_by_framework("tflite"), Real().load_by_framework("tflite")]


@pytest.mark.parametrize("name", ["c", "r", "o"])
def test_outputs_inside_of_a_chain_have_channels_last(name: str, tmp_path: Path) -> None:
    path = chain(tmp_path)
    given = {"x": RNG.normal(size=(1, 5, 6, 4)), "y": RNG.normal(size=(1, 5, 6, 4))}
    results = []
    for package, front in zip((ov, openvino), front_ends(), strict=True):
        loaded = front.load(path)
        place = loaded.get_place_by_tensor_name(name)
        assert list(loaded.get_partial_shape(place).to_shape()) == [1, 5, 6, 4]
        loaded.override_all_outputs([place])
        model = front.convert(loaded)
        compiled = package.Core().compile_model(model, "CPU", F32)
        named = {port.get_any_name() for port in compiled.inputs}
        results.append(compiled({k: v.astype(np.float32) for k, v in given.items() if k in named})[name])
    assert results[0].shape == results[1].shape
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")


def test_inputs_inside_of_a_chain_have_channels_last(tmp_path: Path) -> None:
    """The real front end refuses such cuts of its own; both halves together are the whole model."""
    path, front = chain(tmp_path), front_ends()[0]
    x, y = (RNG.normal(size=(1, 5, 6, 4)).astype(np.float32) for _ in "xy")
    want = REAL.compile_model(path, "CPU", F32)({"x": x, "y": y})["p"]
    loaded = front.load(path)
    loaded.extract_subgraph([], [loaded.get_place_by_tensor_name("r")])
    half = ov.compile_model(front.convert(loaded), "CPU", F32)({"x": x})["r"]
    loaded = front.load(path)
    loaded.override_all_inputs([loaded.get_place_by_tensor_name("r"), loaded.get_place_by_tensor_name("y")])
    rest = front.convert(loaded)
    assert [tuple(port.get_shape()) for port in rest.inputs] == [(1, 5, 6, 4)] * 2
    got = ov.compile_model(rest, "CPU", F32)({"r": half, "y": y})["p"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")


def test_shapes_that_are_set_leave_the_layout_of_the_model(tmp_path: Path) -> None:
    """Without cuts the model is the one of `read_model`."""
    path = chain(tmp_path)
    counts = []
    for package, front in zip((ov, openvino), front_ends(), strict=True):
        loaded = front.load(path)
        for place in loaded.get_inputs():
            loaded.set_partial_shape(place, package.PartialShape([-1, 7, 6, 4]))
        model = front.convert(loaded)
        assert str(model.output(0).get_partial_shape()) == "[?,7,6,4]"
        names = [node.get_type_name() for node in model.get_ordered_ops()]
        counts.append({kind: names.count(kind) for kind in {*names} - {"Constant"}})
    assert counts[0] == counts[1]


def test_places_and_cuts_beside_openvino(tmp_path: Path) -> None:
    """Places outlive the name of their model. Inputs that no output needs stay when outputs are chosen."""
    path = chain(tmp_path)
    found = []
    for package, front in zip((ov, openvino), front_ends(), strict=True):
        lasting = [*front.load(path).get_inputs(), *front.load(path).get_outputs()]
        told: list[Any] = [(place.get_names(), place.is_input(), place.is_output()) for place in lasting]
        loaded = front.load(path)
        inside = loaded.get_place_by_tensor_name("r")
        told.append(str(loaded.get_element_type(inside) == package.Type.f32))
        for cut in ("outputs", "subgraph", "nothing"):
            loaded = front.load(path)
            inside = loaded.get_place_by_tensor_name("r")
            if cut == "subgraph":
                loaded.extract_subgraph(loaded.get_inputs(), [inside])
            else:
                loaded.override_all_outputs([inside] if cut == "outputs" else [])
            model = front.convert(loaded)
            told.append([sorted(port.get_names()) for port in (*model.inputs, *model.outputs)])
        found.append(told)
    assert found[0] == found[1]
    assert found[0][-2] == [["x"], ["y"], ["r"]]


def test_outputs_of_convert_model(tmp_path: Path) -> None:
    """A tensor inside, in the file's layout: OpenVINO takes outputs of the model alone. A model that is read
    has no name for a tensor in another layout, as there."""
    path = chain(tmp_path)
    cut = ov.convert_model(path, output=["r", "p"])
    assert [tuple(port.get_shape()) for port in cut.outputs] == [(1, 5, 6, 4)] * 2
    given = {name: RNG.normal(size=(1, 5, 6, 4)).astype(np.float32) for name in "xy"}
    got = ov.compile_model(cut, "CPU", F32)(given)
    front = front_ends()[1]
    loaded = front.load(path)
    loaded.override_all_outputs([loaded.get_place_by_tensor_name("r")])
    real = openvino.Core().compile_model(front.convert(loaded), "CPU", F32)(given)
    np.testing.assert_allclose(got["r"], real["r"], rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")
    for package in (ov, openvino):
        model = package.Core().read_model(path)
        with pytest.raises(RuntimeError):
            model.add_outputs("r")
    with pytest.raises(OvjitError, match="No node with name other"):
        ov.convert_model(path, output="other")


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("scale", [7.24103810595056e33, 2e34])
def test_masked_scores_of_16_bits(scale: float, tmp_path: Path) -> None:
    """The lowest f32 hides scores; f32 does not hold the width of such numbers' range. By NumPy, in f64."""
    lowest = np.finfo(np.float32).min
    scores = RNG.normal(size=(4, 6)).astype(np.float32)
    scores[:, 3:] = [[lowest, 1.0, lowest], [2.0, lowest, lowest], [lowest] * 3, [-2e37, 3e37, -lowest]]
    wide = quantized(scale := float(np.float32(scale)))
    tensors = [T("x", (4, 6)), T("stored", (4, 6), "INT16", quant=wide), T("real", (4, 6)),
               T("probs", (4, 6), "INT16", quant=quantized(2.0**-15)), T("out", (4, 6))]  # fmt: skip
    ops = [
        Op("QUANTIZE", ["x"], ["stored"], "QuantizeOptions"),
        Op("DEQUANTIZE", ["stored"], ["real"], "DequantizeOptions"),
        Op("SOFTMAX", ["stored"], ["probs"], "SoftmaxOptions", {"Beta": 1.0}),
        Op("DEQUANTIZE", ["probs"], ["out"], "DequantizeOptions"),
    ]
    path = tmp_path / "model.tflite"
    path.write_bytes(write(G(tensors, ops, ["x"], ["stored", "real", "out"])))
    result = ov.compile_model(path, "CPU", F32)(scores)
    steps = np.clip(np.rint(scores.astype(np.float64) / scale), -32768, 32767)
    np.testing.assert_array_equal(result[0], steps.astype(np.int16))
    np.testing.assert_allclose(result[1], steps * scale, rtol=1e-6)
    far = np.exp((steps - steps.max(axis=1, keepdims=True)) * scale)
    np.testing.assert_allclose(result[2], far / far.sum(axis=1, keepdims=True), atol=2.0**-14)
