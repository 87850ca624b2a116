"""ONNX operators where shapes are open, types are small or attributes meet: beside ONNX Runtime, or beside
ONNX's own evaluator where that runs them in few types."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper

import ovjit
from ovjit.codegen.cpu.host import host_target
from tests.support.onnx.beside_onnxruntime import by_evaluator, by_onnxruntime, by_ovjit
from tests.support.sweeps import in_turn, some

SEED = 20261121


def one_node(
    op: str, inputs: dict[str, Any], shapes: dict[str, Any], outputs: int = 1, opset: int = 21,
    domain: str = "", constants: dict[str, np.ndarray] | None = None, ir: int = 10, **attributes: Any,
) -> bytes:  # fmt: skip
    """A model of one node; dimensions that are None in `shapes` are open."""
    constants = constants or {}
    names = [*inputs, *constants]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], domain=domain, **attributes)
    infos = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), shapes.get(k, v.shape))
        for k, v in inputs.items()
    ]
    graph = helper.make_graph(
        [node], "g", infos, [onnx.ValueInfoProto(name=f"y{i}") for i in range(outputs)],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(domain, 1)] * bool(domain)
    return helper.make_model(graph, opset_imports=imports, ir_version=ir).SerializeToString()


def same(model: bytes, inputs: dict[str, Any], other: Any = by_onnxruntime, rtol: float = 1e-5) -> None:
    for native in (False, True):
        mine, theirs = by_ovjit(model, inputs, native), other(model, inputs)
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype, f"seed {SEED}"
            np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6, err_msg=f"seed {SEED}, native={native}")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


def test_wrapped_pads_where_some_dimensions_are_open() -> None:
    x = np.arange(6, dtype=np.int64).reshape(2, 3)
    pads = np.array([0, 1, 1, 2], np.int64)
    model = one_node("Pad", {"x": x}, {"x": [2, None]}, constants={"pads": pads}, mode="wrap")
    same(model, {"x": x})


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("wanted", [[8, 9], [13, 11], [9, 12]])
def test_transposed_convolutions_of_open_images_have_their_output_shape(
    auto_pad: str, wanted: list[int], rng: np.random.Generator
) -> None:
    x = rng.standard_normal((2, 4, 5, 4)).astype(np.float32)
    w = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    constants = {"w": w, "b": rng.standard_normal(6).astype(np.float32)}
    attrs = {"strides": [2, 3], "group": 2, "output_shape": wanted, "auto_pad": auto_pad}
    open_shape = {"x": [None, 4, None, None]}
    closed = one_node("ConvTranspose", {"x": x}, {}, constants=constants, **attrs)
    if wanted != [13, 11]:  # of what is missing ONNX Runtime makes nothing
        same(closed, {"x": x}, rtol=1e-4)
    model = one_node("ConvTranspose", {"x": x}, open_shape, constants=constants, **attrs)
    np.testing.assert_allclose(
        by_ovjit(model, {"x": x}, True)[0], by_ovjit(closed, {"x": x}, False)[0], rtol=1e-4, atol=1e-5
    )


def test_filters_of_open_sizes(rng: np.random.Generator) -> None:
    given = {"x": rng.standard_normal((1, 2, 6, 7)).astype(np.float32),
             "w": rng.standard_normal((3, 2, 3, 2)).astype(np.float32)}  # fmt: skip
    model = one_node("Conv", given, {"w": [None, 2, None, None]}, dilations=[1, 2])
    same(model, given, rtol=1e-4)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_filters_of_open_sizes_in_groups(op: str, rng: np.random.Generator) -> None:
    given = {"x": rng.standard_normal((1, 4, 6, 7)).astype(np.float32),
             "w": rng.standard_normal((4, 2, 3, 2)).astype(np.float32)}  # fmt: skip
    model = one_node(op, given, {"w": [None, None, 3, None]}, group=2, strides=[2, 1])
    same(model, given, rtol=1e-4)


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, [3, 5]])
def test_peepholes_of_sequences_of_open_length(
    direction: str, lengths: list[int] | None, rng: np.random.Generator
) -> None:
    count = 1 + (direction == "bidirectional")
    given: dict[str, Any] = {"x": rng.standard_normal((5, 2, 3)).astype(np.float32)}
    shapes = {"w": (count, 16, 3), "r": (count, 16, 4), "b": (count, 32)}
    constants = {k: rng.standard_normal(v).astype(np.float32) for k, v in shapes.items()}
    names = ["x", "w", "r", "b", "l" if lengths else "", "", "", "p"]
    constants["p"] = rng.standard_normal((count, 12)).astype(np.float32)
    if lengths:
        constants["l"] = np.array(lengths, np.int32)
    model = onnx.ModelProto.FromString(
        one_node("LSTM", given, {"x": [None, None, 3]}, 3, constants=constants, hidden_size=4,
                 direction=direction, activations=["Sigmoid", "Tanh", "Softsign"] * count)
    )  # fmt: skip
    model.graph.node[0].input[:] = names
    same(model.SerializeToString(), given, rtol=1e-4)


@pytest.mark.parametrize("op, gates, functions", [
    ("RNN", 1, ["Tanh", "Relu"]), ("GRU", 3, ["Sigmoid", "Tanh", "HardSigmoid", "Elu"]),
    ("LSTM", 4, ["Sigmoid", "Tanh", "Tanh", "HardSigmoid", "Relu", "LeakyRelu"]),
])  # fmt: skip
def test_other_activations_backwards(
    op: str, gates: int, functions: list[str], rng: np.random.Generator
) -> None:
    given = {"x": rng.standard_normal((5, 2, 3)).astype(np.float32)}
    shapes = {"w": (2, gates * 4, 3), "r": (2, gates * 4, 4)}
    constants = {k: rng.standard_normal(v).astype(np.float32) for k, v in shapes.items()}
    outputs = 3 if op == "LSTM" else 2
    same(one_node(op, given, {}, outputs, constants=constants, hidden_size=4, direction="bidirectional",
                  activations=functions), given, rtol=1e-4)  # fmt: skip


def test_products_along_an_axis_of_open_length(rng: np.random.Generator) -> None:
    given = {"x": rng.standard_normal((2, 9, 3)).astype(np.float32)}
    model = one_node(
        "CumProd", given, {"x": [None, None, 3]}, opset=26, ir=13, constants={"axis": np.array(1)}, reverse=1,
        exclusive=1,
    )  # fmt: skip
    same(model, given)


@pytest.mark.parametrize(
    "sizes, mode, padding",
    in_turn(
        list(
            itertools.product([(4, 5, 3), (6,)], ["linear", "nearest"], ["zeros", "border", "reflection"])
        ), 5, 1,
    ),
)  # fmt: skip
def test_samples_of_volumes_of_open_size(
    sizes: tuple[int, ...], mode: str, padding: str, rng: np.random.Generator
) -> None:
    """Beside the standard's evaluator. By default every fifth case, which leaves out no value."""
    grid = 0.9 * rng.standard_normal((2, *range(2, 2 + len(sizes)), len(sizes)))
    given = {"x": rng.standard_normal((2, 3, *sizes)).astype(np.float32), "grid": grid.astype(np.float32)}
    shapes = {"x": [None] * (2 + len(sizes)), "grid": [*[None] * (1 + len(sizes)), len(sizes)]}
    model = one_node("GridSample", given, shapes, opset=20, mode=mode, padding_mode=padding)
    same(model, given, by_evaluator, rtol=1e-4)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("outputs", [2, 3])
def test_splits_of_a_dynamic_axis_into_parts_of_which_the_last_is_shorter(
    axis: int, outputs: int, rng: np.random.Generator
) -> None:
    for size in (5, 6, 8):
        x = {"x": rng.standard_normal((size, 2) if axis == 0 else (2, size)).astype(np.float32)}
        shapes = {"x": (None, 2) if axis == 0 else (2, None)}
        same(one_node("Split", x, shapes, outputs, 18, axis=axis, num_outputs=outputs), x)


def test_products_of_integers_by_a_half(rng: np.random.Generator) -> None:
    """The factor is not cut off to 0."""
    given = {k: rng.integers(-9, 9, (3, 3)).astype(np.int32) for k in "abc"}
    same(one_node("Gemm", given, {}, opset=13, alpha=0.5, beta=1.5), given, by_evaluator)


def test_different_texts() -> None:
    texts = np.array(["b", "a", "\u00e9", "b", "a", "c"], object)
    model = one_node("Unique", {"x": texts}, {"x": [None]}, 4)
    mine, theirs = by_ovjit(model, {"x": texts}, True), by_onnxruntime(model, {"x": texts})
    assert [str(v) for v in mine[0]] == list(theirs[0])
    for a, b in zip(mine[1:], theirs[1:], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [["n", 2], [2, 2]])
def test_texts_behind_identity(shape: Any) -> None:
    """OpenVINO's Identity takes no text."""
    texts = np.array([["b", "\u00e9"], ["", "c d"]], object)
    nodes = [helper.make_node("Identity", ["x"], ["m"]), helper.make_node("Identity", ["m"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.STRING, shape)],
        [onnx.ValueInfoProto(name="y")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data = model.SerializeToString()
    for native in (False, True):
        mine = by_ovjit(data, {"x": texts}, native)[0]
        assert mine.shape == texts.shape
        got = [v.decode() if isinstance(v, bytes) else str(v) for v in mine.reshape(-1)]
        assert got == [*texts.reshape(-1)]


@pytest.mark.parametrize("op, other, wanted", [
    ("Trilu", [], [["a", "b"], ["", "d"]]),
    ("Pad", [[1, 0, 0, 1]], [["", "", ""], ["a", "b", ""], ["c", "d", ""]]),
    ("CenterCropPad", [[1, 4]], [["", "a", "b", ""]]),
])  # fmt: skip
@pytest.mark.parametrize("shape", [[2, 2], [None, None]])
def test_gaps_between_texts_are_empty(op: str, other: list[Any], wanted: list[Any], shape: Any) -> None:
    texts = np.array([["a", "b"], ["c", "d"]], object)
    constants = {f"c{i}": np.array(value, np.int64) for i, value in enumerate(other)}
    model = one_node(op, {"x": texts}, {"x": shape}, opset=18, constants=constants)
    for native in (False, True):
        assert by_ovjit(model, {"x": texts}, native)[0].astype(str).tolist() == wanted


def test_windows_of_quantised_pools_count_whole_beyond_the_padding(rng: np.random.Generator) -> None:
    given = {"x": rng.integers(0, 200, (1, 3, 6, 7)).astype(np.uint8)}
    constants = {"s": np.array(0.1, np.float32), "z": np.array(3, np.uint8), "t": np.array(0.05, np.float32)}
    model = one_node("QLinearAveragePool", given, {}, domain="com.microsoft", constants=constants,
                     kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1], ceil_mode=1,
                     count_include_pad=1)  # fmt: skip
    same(model, given)


def test_scales_and_bias_of_quantised_attention_in_f16(rng: np.random.Generator) -> None:
    given = {"x": rng.integers(0, 255, (2, 3, 6)).astype(np.uint8)}
    constants = {
        "w": rng.integers(-9, 9, (6, 24)).astype(np.int8),
        "b": rng.standard_normal(24).astype(np.float16),
        "s": np.array(0.01, np.float16),
        "t": np.array(0.02, np.float16),
    }
    same(one_node("QAttention", given, {}, domain="com.microsoft", constants=constants, num_heads=4), given,
         rtol=2e-2)  # fmt: skip


def test_caches_of_another_type_than_the_queries(rng: np.random.Generator) -> None:
    """Keys and values are rounded to the type of the cache, which the outputs have too."""
    given: dict[str, Any] = {
        name: rng.standard_normal((1, 1, size)).astype(np.float16)
        for name, size in {"q": 64, "k": 32, "v": 32}.items()
    }
    past = {name: rng.standard_normal((1, 2, 3, 16)).astype(np.float32) for name in ("pk", "pv")}
    constants = {"last": np.array([3], np.int32), "total": np.array(4, np.int32)}
    model = one_node("GroupQueryAttention", {**given, **past}, {}, 3, domain="com.microsoft",
                     constants=constants, num_heads=4, kv_num_heads=2)  # fmt: skip
    same(model, {**given, **past}, rtol=1e-2)


@pytest.mark.parametrize("transposed", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_products_with_a_sparse_matrix(transposed: tuple[int, int], rng: np.random.Generator) -> None:
    """Inputs of sparse tensors take dense ones."""
    first, second = transposed
    dense = np.zeros((4, 5) if first else (5, 4), np.float32)
    places = np.sort(rng.choice(20, 6, replace=False))
    dense.reshape(-1)[places] = rng.standard_normal(6)
    given = {"a": dense, "x": rng.standard_normal((3, 4) if second else (4, 3)).astype(np.float32)}
    proto = onnx.ModelProto.FromString(
        one_node("SparseToDenseMatMul", given, {"x": [None, None]}, domain="com.microsoft", transA=first,
                 transB=second, alpha=0.5)
    )  # fmt: skip
    sparse = helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, dense.shape)
    proto.graph.input[0].type.CopyFrom(sparse)

    def by_sparse(model: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        device = onnxruntime.OrtDevice.make("cpu", 0)
        pairs = np.argwhere(dense)
        entries = onnxruntime.SparseTensor.sparse_coo_from_numpy(
            np.array(dense.shape, np.int64), dense[tuple(pairs.T)], pairs.reshape(-1), device
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        values = {
            "a": onnxruntime.OrtValue.ort_value_from_sparse_tensor(entries),
            "x": onnxruntime.OrtValue.ortvalue_from_numpy(inputs["x"]),
        }
        return [value.numpy() for value in session.run_with_ort_values(None, values)]

    same(proto.SerializeToString(), given, by_sparse)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_centers_by_both_kinds_of_sizes(kind: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 6, 3)).astype(np.float16)
    given = {"x": x, "shape": np.array([8, 3], kind)}
    model = one_node("CenterCropPad", given, {"x": [None, 6, None]}, axes=[0, -2])
    same(model, given, by_evaluator)


def test_experts_with_gelu_take_its_tangent_form(rng: np.random.Generator) -> None:
    given = {"x": rng.standard_normal((4, 4)).astype(np.float32) * 2,
             "scores": rng.standard_normal((4, 3)).astype(np.float32)}  # fmt: skip
    w1, w2 = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 8, 4), (3, 4, 8)))
    bias = np.zeros((3, 8), np.float32)
    model = one_node("MoE", given, {}, domain="com.microsoft", constants={"w1": w1, "b1": bias, "w2": w2},
                     k=2, activation_type="gelu")  # fmt: skip
    same(model, given)


@pytest.mark.parametrize("rows", [4, None])
def test_experts_that_are_hidden_by_infinite_scores(rows: int | None, rng: np.random.Generator) -> None:
    given = {"x": rng.standard_normal((4, 4)).astype(np.float32),
             "scores": rng.standard_normal((4, 3)).astype(np.float32)}  # fmt: skip
    given["scores"][[0, 2], [1, 2]] = -np.inf
    w1, w2 = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 8, 4), (3, 4, 8)))
    model = one_node(
        "MoE", given, {"x": [rows, 4], "scores": [rows, 3]}, domain="com.microsoft",
        constants={"w1": w1, "b1": np.zeros((3, 8), np.float32), "w2": w2}, k=2, activation_type="relu",
    )  # fmt: skip
    same(model, given)


def test_one_infinite_number_has_an_imaginary_part_of_0() -> None:
    x = np.array([[[np.inf], [-1]], [[-2], [np.nan]]], np.float32)[:, :, None]
    model = ovjit.Core().read_model(one_node("DFT", {"x": x}, {"x": [None, 2, 1, 1]}, opset=17, axis=2))
    result = ovjit.compile_model(model, "CPU")([x])[0]
    np.testing.assert_array_equal(result, np.concatenate([x, np.zeros_like(x)], -1))


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_trees_with_weights_for_one_of_two_classes(post: str, which: int, sign: int) -> None:
    x = np.array([[-1.0], [2.0]], np.float32)
    model = one_node(
        "TreeEnsembleClassifier", {"x": x}, {}, 2, domain="ai.onnx.ml", post_transform=post,
        nodes_treeids=[0] * 3, nodes_nodeids=[0, 1, 2], nodes_featureids=[0] * 3,
        nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        class_treeids=[0, 0], class_nodeids=[1, 2], class_ids=[which] * 2,
        class_weights=[0.3 * sign, 1.7], classlabels_int64s=[4, 7],
    )  # fmt: skip
    same(model, {"x": x})


@pytest.mark.parametrize(
    "op, attrs",
    [("ImageScaler", {"scale": 0.25, "bias": [0.1, 0.2, 0.3]}), ("Crop", {"border": [1, 2, 0, 1]}),
     ("Crop", {"border": [1, 0, 3, 1], "scale": [3, 2]}), ("Scale", {"scale": 0.3}), ("Scale", {}),
     ("MemcpyToHost", {})],
)  # fmt: skip
def test_operators_of_the_first_versions(op: str, attrs: dict[str, Any], rng: np.random.Generator) -> None:
    given = {"x": rng.standard_normal((2, 3, 7, 6)).astype(np.float32)}
    same(one_node(op, given, {}, opset=6, ir=4, **attrs), given)


@pytest.mark.parametrize("axes", [None, [1, -1]])
def test_slices_of_the_first_version_by_inputs(axes: list[int] | None, rng: np.random.Generator) -> None:
    given = {"x": rng.standard_normal((2, 5, 4)).astype(np.float32)}
    given |= {"starts": np.array([1, -3]), "ends": np.array([2**31, -1])}
    if axes is not None:
        given["axes"] = np.array(axes)
    same(one_node("DynamicSlice", given, {}, opset=8, ir=4), given)


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("how", ["up", "down", "nearest"])
def test_scales_of_8_bits_are_powers_of_two(how: str, saturate: int, rng: np.random.Generator) -> None:
    from onnx.numpy_helper import to_float8e8m0

    x = np.exp2(rng.uniform(-126, 128, 300)).astype(np.float32) * rng.choice([-1, 1], 300)
    x = np.concatenate([x, np.exp2(np.arange(-126, 128)), 1.5 * np.exp2(np.arange(-126, 127)),
                        [0, np.nan, np.inf, -np.inf, 3e38, -3e38]]).astype(np.float32)  # fmt: skip
    to = TensorProto.FLOAT8E8M0
    model = one_node("Cast", {"x": x}, {}, opset=24, ir=12, to=to, round_mode=how, saturate=saturate)
    compiled = ovjit.Core().compile_model(model, "CPU")
    got = compiled(x)[0].view(ml_dtypes.float8_e8m0fnu)
    want = to_float8e8m0(x, bool(saturate), how)
    np.testing.assert_array_equal(got.view(np.uint8), want.view(np.uint8), err_msg=f"seed {SEED}")


def test_floats_of_4_bits_of_no_number_are_0() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 7, -7, 0.25, 0.75, 5, -5, -0.3], np.float32)
    cast = helper.make_node("Cast", ["x"], ["small"], to=TensorProto.FLOAT4E2M1)
    back = helper.make_node("Cast", ["small"], ["y"], to=TensorProto.FLOAT)
    info = [helper.make_tensor_value_info(k, TensorProto.FLOAT, x.shape) for k in "xy"]
    graph = helper.make_graph([cast, back], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    want = x.astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    np.testing.assert_array_equal(ovjit.Core().compile_model(model, "CPU")(x)[0], want)


LOOP = """<ir_version: 8, opset_import: ["" : 17]>
g (int64 n, float[2,3] x, float[2,K] first, int64 k) =>
  (float[2,A] side, int64 count, float[2,B,3] between, float[2,3] one, float[2,3] last, float[C,2,3] rows) {
    begin = SequenceConstruct(first)
    none = SequenceEmpty()
    go = Constant<value = bool {1}>()
    a, b, last, rows = Loop(n, go, begin, none, x)<body = body
      (int64 i, bool on, seq(float[2,3]) s, seq(float[2,3]) t, float[2,3] u) =>
      (bool again, seq(float[2,3]) s2, seq(float[2,3]) t2, float[2,3] v, float[2,3] row) {
        f = Cast<to = 1>(i)
        w = Mul(x, f)
        v = Add(u, w)
        row = Neg(v)
        s2 = SequenceInsert(s, w)
        t2 = SequenceInsert(t, row)
        top = ReduceMax<keepdims = 0>(v)
        limit = Constant<value = float {9.0}>()
        again = Less(top, limit)
    }>
    side = ConcatFromSequence<axis = -1>(a)
    count = SequenceLength(a)
    between = ConcatFromSequence<axis = 1, new_axis = 1>(b)
    one = SequenceAt(b, k)
}"""


@pytest.mark.parametrize("mode", some(["linear", "cubic", "nearest"], 2))
@pytest.mark.parametrize("region", [(0.2, -0.3, 0.7, 1.4), (1e9, -1e9, 3e9, 5e9), (np.nan, 0, np.nan, 1)])
def test_a_region_is_cut_out_alike_of_open_and_known_sizes(mode: str, region: Sequence[float]) -> None:
    """Within the image and around it, far outside, nowhere. Far places took memory for the way there."""
    x = np.random.default_rng(SEED).standard_normal((1, 1, 6, 5)).astype(np.float32)
    constants = {"roi": np.array(region, np.float32), "": np.zeros(0), "sizes": np.array([4, 3])}
    names = {"x": x}
    found = []
    for shape in ((1, 1, 6, 5), (1, 1, None, None)):
        model = onnx.load_from_string(
            one_node(
                "Resize", names, {"x": shape}, constants=constants, mode=mode, axes=[2, 3],
                coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=2.5,
            )
        )  # fmt: skip
        del model.graph.initializer[1]
        found.append(by_ovjit(model.SerializeToString(), names, True)[0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    assert found[0].shape == (1, 1, 4, 3)
    assert (found[0] == 2.5).all() == (region[0] > 1)


def test_a_loop_of_unknown_length_adds_to_sequences(rng: np.random.Generator) -> None:
    model = onnx.parser.parse_model(LOOP).SerializeToString()
    for trips, place in ((1, 0), (4, -2), (30, 1)):
        given = {"n": np.array(trips), "x": np.abs(rng.standard_normal((2, 3))).astype(np.float32),
                 "first": np.ones((2, 2), np.float32), "k": np.array(place)}  # fmt: skip
        same(model, given)


def test_an_item_of_a_sequence_is_picked_by_number(rng: np.random.Generator) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,N] x, float[2,N] z, int64 k) => (float[2,N] y) {
            s = SequenceConstruct(x, z)
            y = SequenceAt(s, k)
        }"""
    ).SerializeToString()
    x, z = rng.standard_normal((2, 2, 3)).astype(np.float32)
    for place in (0, 1, -1, -2):
        same(model, {"x": x, "z": z, "k": np.array(place)})


REPEATED = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2] x, int64[N] counts, float[2,K] first) => (float[A,2] y, float[2,B] turned, float[2] total) {
    length = Shape(x)
    zero = Constant<value_ints = [0]>()
    size = Gather(length, zero)
    ones = ConstantOfShape<value = int64[1] {1}>(size)
    rows = SplitToSequence<axis = 0>(x, ones)
    times = SplitToSequence<axis = 0>(counts, ones)
    trips = Squeeze(size)
    go = Constant<value = bool {1}>()
    none = SequenceEmpty()
    begin = SequenceConstruct(first)
    sum = Constant<value = float[2] {0, 0}>()
    a, b, total = Loop(trips, go, none, begin, sum)<body = body
      (int64 i, bool on, seq(float[R,2]) s, seq(float[2,R]) t, float[2] u) =>
      (bool again, seq(float[R,2]) s2, seq(float[2,R]) t2, float[2] v) {
        row = SequenceAt(rows, i)
        count = SequenceAt(times, i)
        two = Constant<value_ints = [2]>()
        shape = Concat<axis = 0>(count, two)
        part = Expand(row, shape)
        flat = Transpose<perm = [1, 0]>(part)
        s2 = SequenceInsert(s, part)
        t2 = SequenceInsert(t, flat)
        more = ReduceSum<keepdims = 0>(part, zero)
        v = Add(u, more)
        again = Identity(on)
    }>
    y = ConcatFromSequence<axis = 0>(a)
    turned = ConcatFromSequence<axis = -1>(b)
}"""


def test_a_loop_adds_tensors_of_different_lengths_to_sequences(rng: np.random.Generator) -> None:
    """The lengths are numbers of the input, 0 among them."""
    model = onnx.parser.parse_model(REPEATED).SerializeToString()
    for counts in ([3, 1, 0, 2], [2], [0, 0, 5, 1, 1, 1, 0]):
        x = rng.standard_normal((len(counts), 2)).astype(np.float32)
        same(model, {"x": x, "counts": np.array(counts), "first": np.ones((2, 3), np.float32)})


REPEATS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2,3] x, int64[N] counts) => (float[B,A,C] y) {
    turned = Transpose<perm = [1, 0, 2]>(x)
    length = Shape(counts)
    size = Squeeze(length)
    ones = ConstantOfShape<value = int64[1] {1}>(length)
    times = SplitToSequence<axis = 0>(counts, ones)
    rows = SplitToSequence<axis = 1>(turned, ones)
    go = Constant<value = bool {1}>()
    none = SequenceEmpty()
    all = Loop(size, go, none)<body = body
      (int64 i, bool on, seq(float[2,R,3]) s) => (bool again, seq(float[2,R,3]) t) {
        count = SequenceAt(times, i)
        row = SequenceAt(rows, i)
        axis = Constant<value_ints = [2]>()
        row1 = Unsqueeze(row, axis)
        before = Constant<value = int64[2] {2, 1}>()
        after = Constant<value = int64[1] {3}>()
        shape = Concat<axis = 0>(before, count, after)
        long = Shape(shape)
        filled = ConstantOfShape<value = int64[1] {1}>(long)
        minus = Constant<value = int64 {-1}>()
        guard = Mul(filled, minus)
        same = Equal(shape, guard)
        safe = Where(same, filled, shape)
        wide = Expand(row1, safe)
        flat = Constant<value = int64[3] {2, -1, 3}>()
        part = Reshape(wide, flat)
        t = SequenceInsert(s, part)
        again = Cast<to = 9>(go)
    }>
    y = ConcatFromSequence<axis = 1>(all)
}"""


def test_items_are_repeated_without_a_loop(rng: np.random.Generator) -> None:
    """As torch.repeat_interleave is exported for computed numbers of times."""
    open_batch = REPEATS.replace("N,2,3", "N,M,3").replace("{2, 1}", "{-1, 1}")
    open_batch = open_batch.replace("{2, -1, 3}", "{0, -1, 3}")
    for text in (REPEATS, open_batch):
        model = onnx.parser.parse_model(text).SerializeToString()
        kinds = [node.get_type_name() for node in ovjit.Core().read_model(model).get_ops()]
        assert "Loop" not in kinds and kinds.count("Gather") == 1, kinds
        for counts in ([3, 1, 0, 2], [2], [0, 0, 5, 1, 1, 1, 0], [-1, 2]):
            x = rng.standard_normal((len(counts), 2, 3)).astype(np.float32)
            same(model, {"x": x, "counts": np.array(counts)})


@pytest.mark.parametrize(("old", "new"), [
    ("count = SequenceAt(times, i)", "count = Identity(length)"),
    ("value_ints = [2]", "value_ints = [2, 3]"),
    ("filled = ConstantOfShape<value = int64[1] {1}>", "filled = ConstantOfShape<value = int64[1] {2}>"),
    ("int64 {-1}", "int64 {-2}"),
    ("row = SequenceAt(rows, i)", "p = SequenceAt(rows, i) row = Neg(p)"),
    ("again = Cast<to = 9>(go)", "limit = Constant<value = int64 {2}>() again = Less(i, limit)"),
    ("int64[3] {2, -1, 3}", "int64[3] {2, -1, 1}"),
    ("int64[3] {2, -1, 3}", "int64[3] {2, -1, 0}"),
])  # fmt: skip
def test_other_loops_over_items_stay_loops(old: str, new: str) -> None:
    assert REPEATS.count(old) == 1
    text = REPEATS.replace(old, new).replace("float[B,A,C] y", "y")
    ops = ovjit.Core().read_model(onnx.parser.parse_model(text).SerializeToString()).get_ops()
    assert "Loop" in [node.get_type_name() for node in ops]


def test_tensors_of_one_open_length_are_collected_where_nothing_joins_them() -> None:
    """A loop whose tensors are only stacked has none that grows between iterations."""
    stacked = REPEATED.replace("axis = 0>(a)", "axis = 0, new_axis = 1>(a)")
    stacked = stacked.replace("axis = -1>(b)", "axis = -1, new_axis = 1>(b)")
    for text, grows in ((REPEATED, True), (stacked, False)):
        text = text.replace("float[A,2] y", "y").replace("float[2,B] turned", "turned")
        model = ovjit.Core().read_model(onnx.parser.parse_model(text).SerializeToString())
        bodies = [node.get_function() for node in model.get_ops() if node.get_type_name() == "Loop"]
        concats = [sum(op.get_type_name() == "Concat" for op in body.get_ops()) for body in bodies]
        assert (max(concats) > 1) is grows, text


def test_what_a_loop_collects_is_changed(rng: np.random.Generator) -> None:
    """Without its last tensor, which the rows show."""
    text = LOOP.replace("one = SequenceAt(b, k)", "c = SequenceErase(b) one = SequenceAt(c, k)")
    model = onnx.parser.parse_model(text).SerializeToString()
    x = np.abs(rng.standard_normal((2, 3))).astype(np.float32) / 9
    given = {"n": np.array(4), "x": x, "first": np.ones((2, 1), np.float32), "k": np.array(-1)}
    for native in (False, True):
        *_, one, last, rows = by_ovjit(model, given, native)
        np.testing.assert_allclose(one, rows[-2], rtol=1e-6)
        assert rows.shape == (4, 2, 3)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("keep", [0, 1])
def test_an_open_dimension_is_split_into_a_sequence(axis: int, keep: int, rng: np.random.Generator) -> None:
    item = "A,B,C" if keep else "A,B"
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,M,P] x, int64 k) => (float[{item}] y, float[{item},D] z, int64 count, float[{item}] one) {{
            s = SplitToSequence<axis = {axis}, keepdims = {keep}>(x)
            y = ConcatFromSequence<axis = {axis if keep else 0}>(s)
            z = ConcatFromSequence<axis = 1, new_axis = 1>(s)
            count = SequenceLength(s)
            one = SequenceAt(s, k)
        }}"""
    ).SerializeToString()
    same(model, {"x": rng.standard_normal((3, 4, 2)).astype(np.float32), "k": np.array(1)})


def test_a_known_number_of_parts_whose_lengths_are_computed(rng: np.random.Generator) -> None:
    for dims, lengths in (("6,2", "int64[3] lengths"), ("N,2", "int64[3] lengths"), ("N,2", "")):
        known = "" if lengths else "lengths = Constant<value_ints = [1, 2, 3]>()"
        model = onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            g (float[{dims}] x{", " * bool(lengths)}{lengths}) => (float[A,2] y, float[B,2] z, int64 count) {{
                {known}
                one = Constant<value_int = 1>()
                s = SplitToSequence<axis = 0>(x, lengths)
                y = SequenceAt(s, one)
                t = SequenceErase(s, one)
                z = ConcatFromSequence<axis = 0>(t)
                count = SequenceLength(s)
            }}"""
        ).SerializeToString()
        for sizes in ([1, 2, 3], [4, 2, 0])[: 2 if lengths else 1]:
            given = {"x": rng.standard_normal((6, 2)).astype(np.float32), "lengths": np.array(sizes)}
            same(model, given if lengths else {"x": given["x"]})


def test_as_many_parts_as_outputs_whatever_lengths_there_are(rng: np.random.Generator) -> None:
    given = {"x": rng.standard_normal((2, 5)).astype(np.float32), "lengths": np.array([1, 4], np.int64)}
    same(one_node("Split", given, {"lengths": [None]}, 2, opset=13, axis=-1), given)


def test_as_many_axes_are_sliced_as_the_starts_turn_out_to_have(rng: np.random.Generator) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[N,3] x, int64[K] places, int64[1] i) => (float[A,B] y) {
            one = Constant<value_ints = [1]>()
            j = Add(i, one)
            k = Add(j, one)
            start = Slice(places, i, j)
            end = Slice(places, j, k)
            y = Slice(x, start, end)
        }"""
    ).SerializeToString()
    x, places = rng.standard_normal((6, 3)).astype(np.float32), np.array([0, 2, 5, 5], np.int64)
    for i in range(3):
        same(model, {"x": x, "places": places, "i": np.array([i], np.int64)})


@pytest.mark.parametrize("deep", [False, True])
def test_sizes_and_elements_of_a_tensor_of_either_rank(deep: bool, rng: np.random.Generator) -> None:
    ends = {"a": "start = 1", "b": "start = -2", "c": "end = -1", "d": "start = 1, end = 2",
            "e": "start = -9", "f": "start = 2, end = 1"}  # fmt: skip
    branch = """If(deep)<then_branch = t () => (float[A,B,C] u) {{ u = Unsqueeze({0}, one) }},
                         else_branch = e () => (float[A,B] u) {{ u = Identity({0}) }}>"""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        g (bool deep, float[N,4] x, int64[N,4] at) => ({", ".join(f"int64[N{k}] {k}" for k in ends)}, y) {{
            one = Constant<value_ints = [1]>()
            v = {branch.format("x")}
            i = {branch.format("at").replace("float", "int64")}
            {" ".join(f"{k} = Shape<{how}>(v)" for k, how in ends.items())}
            y = GatherElements<axis = 1>(v, i)
        }}"""
    ).SerializeToString()
    x, at = rng.standard_normal((5, 4)).astype(np.float32), np.zeros((5, 4), np.int64)
    same(model, {"deep": np.array(deep), "x": x, "at": at})


@pytest.mark.parametrize("op", ["GatherElements", "ScatterElements"])
@pytest.mark.parametrize("opened", ["", "x", "i", "xi"])
def test_elements_of_fewer_indices_than_data(op: str, opened: str, rng: np.random.Generator) -> None:
    """Along the other dimensions too, whichever of the two shapes is open."""
    for data, many, axis in (((5, 7), (3, 2), 1), ((5, 4), (7, 3), 0), ((2, 3, 4), (1, 2, 6), -1),
                             ((4, 5), (4, 0), 0), ((4, 5), (4, 3), 1)):  # fmt: skip
        given = {"x": rng.standard_normal(data).astype(np.float32), "i": rng.integers(-3, 3, many)}
        attributes: dict[str, Any] = {"axis": axis}
        if op == "ScatterElements":  # sums of small integers do not depend on their order
            given["u"] = rng.integers(-9, 9, many).astype(np.float32)
            attributes["reduction"] = "add"
        opens = opened.replace("i", "iu")
        shapes = {k: [None] * len(data) for k in given if k in opens}
        same(one_node(op, given, shapes, opset=18, **attributes), given)


@pytest.mark.parametrize("name", ["kernel_shape", "strides", "dilations"])
def test_windows_farther_than_any_image_are_refused(name: str) -> None:
    x = np.zeros((1, 1, 4), np.float32)
    attributes = {"kernel_shape": [1], name: [2**63 - 1]}
    model = one_node("MaxPool", {"x": x}, {}, **attributes)
    with pytest.raises(RuntimeError, match="should not exceed 2147483647"):
        ovjit.Core().read_model(model)


STAND_INS = {
    TensorProto.FLOAT8E4M3FNUZ: (ml_dtypes.float8_e4m3fnuz, np.arange(256, dtype=np.uint8)),
    TensorProto.FLOAT8E5M2FNUZ: (ml_dtypes.float8_e5m2fnuz, np.arange(256, dtype=np.uint8)),
    TensorProto.INT2: (ml_dtypes.int2, np.arange(256, dtype=np.uint8)),
}


def _stood_in(kind: int, nodes: list[Any], functions: Sequence[Any] = ()) -> bytes:
    data = STAND_INS[kind][1]
    count = 4 * data.size if kind == TensorProto.INT2 else data.size
    tensor = onnx.TensorProto(name="c", data_type=kind, dims=[count], raw_data=data.tobytes())
    s = helper.make_tensor("s", TensorProto.FLOAT, [], [0.375])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "g", [x], [onnx.ValueInfoProto(name="y")], [tensor, s])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 25), helper.make_opsetid("own", 1)], ir_version=11,
        functions=functions,
    ).SerializeToString()  # fmt: skip


@pytest.mark.parametrize("kind", STAND_INS)
@pytest.mark.parametrize("op", ["Cast", "DequantizeLinear", "captured"])
def test_constants_of_types_that_openvino_does_not_have(kind: int, op: str) -> None:
    """All codes of the type, read by what asks for their numbers alone."""
    dtype, data = STAND_INS[kind]
    if kind == TensorProto.INT2:
        codes = (data[:, None] >> np.arange(0, 8, 2) & 3).ravel().astype(np.float32)
        expected = np.where(codes > 1, codes - 4, codes)
    else:
        expected = data.view(dtype).astype(np.float32)
    read = helper.make_node("Cast", ["c"], ["r"], to=TensorProto.FLOAT)
    if op == "DequantizeLinear":
        read, expected = helper.make_node("DequantizeLinear", ["c", "s"], ["r"]), expected * np.float32(0.375)
    nodes = [read, helper.make_node("Add", ["r", "x"], ["y"])]
    if op == "captured":
        limit = helper.make_node("Less", ["x", "s"], ["q"])
        whole = helper.make_node("ReduceMax", ["q8"], ["p8"], keepdims=0)
        branches = [
            helper.make_graph([*nodes[:1], helper.make_node(what, ["r", "x"], ["z"])], what, [],
                              [onnx.ValueInfoProto(name="z")])
            for what in ("Add", "Sub")
        ]  # fmt: skip
        nodes = [
            limit, helper.make_node("Cast", ["q"], ["q8"], to=TensorProto.FLOAT), whole,
            helper.make_node("Cast", ["p8"], ["p"], to=TensorProto.BOOL),
            helper.make_node("If", ["p"], ["y"], then_branch=branches[0], else_branch=branches[1]),
        ]  # fmt: skip
    compiled = ovjit.compile_model(ovjit.Core().read_model(_stood_in(kind, nodes)), "CPU")
    (y,) = compiled([np.zeros(1, np.float32)]).values()
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("kind", STAND_INS)
def test_who_asks_for_a_type_that_openvino_does_not_have_gets_an_error(kind: int) -> None:
    """A constant's wider type is not passed on to an output, a zero point or a sum."""
    refused = "is not supported by OpenVINO"
    quantize = helper.make_node("QuantizeLinear", ["x", "s", "c"], ["q"])
    for nodes in (
        [helper.make_node("Identity", ["c"], ["y"])],
        [helper.make_node("CastLike", ["x", "c"], ["y"])],
        [quantize, helper.make_node("DequantizeLinear", ["q", "s"], ["y"])],
        [helper.make_node("ConstantOfShape", ["n"], ["y"], value=onnx.TensorProto(
            data_type=kind, dims=[1], raw_data=b"\x01"))],
    ):  # fmt: skip
        model = onnx.ModelProto.FromString(_stood_in(kind, nodes))
        model.graph.initializer.append(helper.make_tensor("n", TensorProto.INT64, [1], [3]))
        with pytest.raises(RuntimeError, match=refused):
            ovjit.Core().read_model(model.SerializeToString())
    same = helper.make_node("Identity", ["a"], ["b"])
    function = helper.make_function("own", "Same", ["a"], ["b"], [same], [helper.make_opsetid("", 25)])
    with pytest.raises(RuntimeError, match=refused):
        call = helper.make_node("Same", ["c"], ["y"], domain="own")
        ovjit.Core().read_model(_stood_in(kind, [call], [function]))
    model = onnx.ModelProto.FromString(_stood_in(kind, [helper.make_node("Identity", ["x"], ["z"])]))
    model.graph.output[0].name = "c"
    with pytest.raises(RuntimeError, match=refused):
        ovjit.Core().read_model(model.SerializeToString())


@pytest.mark.parametrize("real", ["float16", "bfloat16", "float32", "float64"])
def test_bits_of_computed_numbers(real: str, rng: np.random.Generator) -> None:
    kind = np.dtype(getattr(ml_dtypes, real, real))
    width = 8 * kind.itemsize
    fraction = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}[real]
    fields = np.linspace(0, 2 ** (width - 1 - fraction) - 1, 40).astype(np.uint64) << np.uint64(fraction)
    some = rng.integers(0, 2**64, 200, np.uint64) >> np.uint64(64 - width)
    bits = np.concatenate([some, fields, fields[1:] - 1])
    bits = np.concatenate([bits, bits[:80] >> np.uint64(width - fraction)]).astype(f"u{kind.itemsize}")
    values = bits.view(kind)
    # the instruction of AVX512-BF16 that rounds f32 to bf16 makes zeros of subnormals
    flushes = real == "bfloat16" and "avx512bf16" in host_target().extras
    with np.errstate(invalid="ignore"):
        number = ~np.isnan(values.astype(np.float64))
    for other in (f"int{width}", f"uint{width}"):
        for source, target in ((values, np.dtype(other)), (bits.view(other), kind)):
            to = int(helper.np_dtype_to_tensor_dtype(target))
            model = one_node("BitCast", {"x": source}, {"x": [None]}, opset=26, to=to)
            for native in (False, True):
                (got,) = by_ovjit(model, {"x": source}, native)
                wrong = (np.asarray(got).view(bits.dtype) != bits) & number
                if flushes and native and target == kind:
                    wrong &= (bits.astype(np.uint64) >> np.uint64(fraction)) & np.uint64(255) != 0
                where = f"seed {SEED}, {source.dtype} as {target}, native={native}"
                assert not wrong.any(), f"{where}: {bits[wrong][:4]} came out as {got[wrong][:4]}"
                if target == kind:
                    assert np.isnan(got.astype(np.float64)[~number]).all(), where


def test_texts_are_none_of_the_numbers_that_are_encoded() -> None:
    x = np.array([["a", "1"]], dtype=object)
    model = one_node("OneHotEncoder", {"x": x}, {}, domain="ai.onnx.ml", ir=8, cats_int64s=[1, 2, 5], zeros=1)
    same(model, {"x": x})


def test_numbers_are_none_of_the_texts_that_are_encoded() -> None:
    x = np.array([[1, 2]])
    model = one_node(
        "OneHotEncoder", {"x": x}, {}, domain="ai.onnx.ml", ir=8, cats_strings=["a", "1"], zeros=1
    )
    same(model, {"x": x})


@pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT4E2M1"])
@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_numbers_next_to_ties_between_small_floats(kind: str, wide: Any) -> None:
    """They are rounded once: by f16 first, as OpenVINO's conversion goes, they would be ties."""
    small = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(kind))
    numbers = np.arange(16 if "4E" in kind else 256).astype(np.uint8).view(small).astype(np.float64)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    ties = (numbers[1:] + numbers[:-1]) / 2
    x = np.concatenate([ties, ties * (1 + 2e-5), ties * (1 - 2e-5), numbers, [-0.0, 1e-9]]).astype(wide)
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], to=TensorProto.DataType.Value(kind)),
        helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
    ]
    infos = [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("y", 1, x.shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    wanted = x.astype(small).astype(np.float32)
    for native in (False, True):
        (got,) = by_ovjit(model.SerializeToString(), {"x": x}, native)
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("precision", [0, TensorProto.FLOAT16, TensorProto.FLOAT])
def test_the_division_of_a_quantisation_has_a_precision(precision: int, rng: np.random.Generator) -> None:
    """By default that of the scale: f16 divided as f16 comes to other ties."""
    scale = np.float16(0.2803)
    near = np.arange(-90, 90) * 0.5 * float(scale)
    x = np.concatenate([rng.normal(size=4000) * 20, near]).astype(np.float16)
    more = {"precision": precision} if precision else {}
    model = one_node("QuantizeLinear", {"x": x}, {}, opset=23, ir=11, output_dtype=TensorProto.INT8,
                     constants={"scale": np.array(scale)}, **more)  # fmt: skip
    wide = np.float32 if precision == TensorProto.FLOAT else np.float16
    steps = np.rint(x.astype(wide) / scale.astype(wide))
    other = np.rint(x.astype(np.float32) / np.float32(scale))
    wanted = np.clip(steps, -128, 127).astype(np.int8)
    assert (wide is np.float32) == bool((steps == other).all())
    for native in (False, True):
        (got,) = by_ovjit(model, {"x": x}, native)
        np.testing.assert_array_equal(got, wanted)


def test_scales_in_f32_of_halves(rng: np.random.Generator) -> None:
    """What stands for f16 is computed in the scale's f32, and rounded once."""
    x, scale = rng.integers(-128, 128, 3000).astype(np.int8), rng.uniform(0.1, 1, 1).astype(np.float32)
    model = one_node("DequantizeLinear", {"x": x}, {}, opset=23, ir=11, constants={"scale": scale[0]},
                     output_dtype=TensorProto.FLOAT16)  # fmt: skip
    wanted = (x.astype(np.float32) * scale[0]).astype(np.float16)
    assert (wanted != x.astype(np.float16) * scale[0].astype(np.float16)).any()
    for native in (False, True):
        (got,) = by_ovjit(model, {"x": x}, native)
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("opset", [10, 16])
def test_the_largest_weighted_pixel_of_regions(opset: int, rng: np.random.Generator) -> None:
    """RoiAlign with mode "max", beside ONNX Runtime: regions of no size, outside of the image, of none."""
    for i in range(6):
        images, channels, height, width = (int(v) for v in rng.integers(1, (4, 4, 9, 9)))
        first = rng.uniform(-3, 10, (i % 4, 2))
        sizes = rng.uniform(0 if opset == 10 else -1, 9, first.shape)
        given = {
            "x": rng.standard_normal((images, channels, height, width)).astype(np.float32),
            "rois": np.concatenate([first, first + sizes], 1).astype(np.float32),
            "batch": rng.integers(0, images, len(first)),
        }
        attributes: dict[str, Any] = {
            "mode": "max", "output_height": 1 + i % 3, "output_width": 1 + i % 2, "sampling_ratio": i % 3,
            "spatial_scale": (1.0, 0.5)[i % 2],
        }  # fmt: skip
        if opset == 16:
            attributes["coordinate_transformation_mode"] = ("half_pixel", "output_half_pixel")[i // 2 % 2]
        shapes = {"x": [None] * 4, "rois": [None, 4], "batch": [None]} if i % 2 else {}
        model = one_node("RoiAlign", given, shapes, opset=opset, **attributes)
        (wanted,) = by_onnxruntime(model, given)
        for native in (False, True)[: 1 + (i == 3)]:
            (made,) = by_ovjit(model, given, native)
            where = f"seed {SEED}, {attributes}"
            np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-5, err_msg=where)


def test_loops_that_never_end_are_refused() -> None:
    """2^63 - 1 iterations without a condition. With one that becomes false, the number is no hindrance."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    kinds = (("i", TensorProto.INT64), ("go", TensorProto.BOOL))
    scalars = [helper.make_tensor_value_info(*row, []) for row in kinds]
    for condition, ends in ("true", False), ("less", True):
        nodes = [
            helper.make_node("Constant", [], ["true"], value=onnx.numpy_helper.from_array(np.array(True))),
            helper.make_node("Constant", [], ["five"], value=onnx.numpy_helper.from_array(np.array(5))),
            helper.make_node("Less", ["i", "five"], ["less"]), helper.make_node("Add", ["a", "x"], ["b"]),
            helper.make_node("Identity", ["a"], ["row"]),
        ]  # fmt: skip
        names = [(condition, TensorProto.BOOL), ("b", TensorProto.FLOAT), ("row", TensorProto.FLOAT)]
        body = helper.make_graph(
            nodes, "body", [*scalars, helper.make_tensor_value_info("a", TensorProto.FLOAT, [3])],
            [helper.make_tensor_value_info(*row, None) for row in names],
        )  # fmt: skip
        most = onnx.numpy_helper.from_array(np.array(2**63 - 1), "most")
        graph = helper.make_graph(
            [helper.make_node("Loop", ["most", "", "x"], ["y", "rows"], body=body)], "g", [x],
            [onnx.ValueInfoProto(name=name) for name in ("y", "rows")], [most],
        )  # fmt: skip
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        model = ovjit.Core().read_model(proto.SerializeToString())
        assert str(model.output(1).partial_shape) == "[?,3]"
        if ends:
            made = ovjit.compile_model(model, "CPU")([np.ones(3, np.float32)])
            np.testing.assert_array_equal(made[0], [7, 7, 7])
            assert made[1].shape == (6, 3)
            continue
        with pytest.raises(RuntimeError, match="the loop runs 9223372036854775807 times, as its condition"):
            ovjit.compile_model(model, "CPU")
        inputs, outputs = [ovjit.Tensor(np.ones(3, np.float32))], [ovjit.Tensor(np.zeros(3, np.float32))] * 2
        with pytest.raises(RuntimeError, match="give it a trip count"):
            model.evaluate(outputs, inputs)


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 11])
def test_compress_by_conditions_of_any_length(count: int, axis: int | None, is_open: bool) -> None:
    """A shorter condition stands for fewer elements, the end of a longer one is left out."""
    x = np.random.default_rng(SEED).standard_normal((3, 2)).astype(np.float32)
    inputs = {"x": x, "c": np.arange(count) % 3 != 1}
    shapes = {"x": [None, None], "c": [None]} if is_open else {}
    same(one_node("Compress", inputs, shapes, **({} if axis is None else {"axis": axis})), inputs)


@pytest.mark.parametrize("alpha", [-2.0, -1.0, -0.3, 0.5, 1.0, 3.0])
def test_celu_of_any_alpha(alpha: float) -> None:
    x = np.linspace(-4, 4, 33).astype(np.float32)
    same(one_node("Celu", {"x": x}, {}, alpha=alpha), {"x": x})


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("length", [15, 16])
@pytest.mark.parametrize("onesided", [0, 1])
def test_stft_of_complex_signals(length: int, onesided: int, is_open: bool) -> None:
    x = np.random.default_rng(SEED).standard_normal((2, 64, 2)).astype(np.float32)
    constants = {"step": np.array(8, np.int64), "w": np.hanning(length).astype(np.float32)}
    shapes = {"x": [2, None, 2]} if is_open else {}
    model = one_node("STFT", {"x": x}, shapes, opset=17, constants=constants, onesided=onesided)
    for native in (False, True):
        mine, theirs = by_ovjit(model, {"x": x}, native)[0], by_onnxruntime(model, {"x": x})[0]
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[], [1], [0, -1]], ids=str)
@pytest.mark.parametrize(
    "op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceLogSum"]
)
def test_axes_that_are_known_when_the_model_runs(op: str, axes: list[int], keepdims: int) -> None:
    """None of them: all."""
    x = np.random.default_rng(SEED).random((2, 3, 4)).astype(np.float32)
    inputs = {"x": x, "axes": np.array(axes, np.int64)}
    for shapes in ({"axes": [None]}, {"x": [None] * 3, "axes": [None]}):
        same(one_node(op, inputs, shapes, opset=18, keepdims=keepdims), inputs)


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (2, 0, 3), (2, 4)])
def test_hardmax_of_empty_axes(shape: tuple[int, ...], opset: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal(shape).astype(np.float32)
    for axis, dims in itertools.product(range(-1, len(shape)), (shape, [None] * len(shape))):
        same(one_node("Hardmax", {"x": x}, {"x": dims}, opset=opset, ir=8, axis=axis), {"x": x})
