"""Slices of rows move towards the inputs of a model, and change no value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.generation.paged import Options, PagedDecoder, split_head
from ovjit.generation.paged_tables import tables_of
from ovjit.generation.row_slices import find_region, take_first_tokens, take_rows
from tests.readers.gguf_decoders import Sizes, tensors, write

SEED, WIDE, HEADS = 20261128, 16, 2
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
LAST = 2**31 - 1


def ints(*values: int) -> Any:
    return ops.constant(np.array(values, np.int64))


def linear(x: Any, out: int, width: int = WIDE, number: int = 0) -> Any:
    rng = np.random.default_rng([SEED, out, width, number])
    return ops.matmul(x, ops.constant(rng.standard_normal((out, width), np.float32) / 4), False, True)


def heads(x: Any) -> Any:
    return ops.transpose(ops.reshape(x, ints(0, 0, HEADS, WIDE // HEADS), True), ints(0, 2, 1, 3))


def merge(x: Any) -> Any:
    return ops.reshape(ops.transpose(x, ints(0, 2, 1, 3)), ints(0, 0, WIDE), True)


def norm(x: Any) -> Any:
    mean = ops.reduce_mean(ops.multiply(x, x), ints(-1), True)
    return ops.divide(x, ops.sqrt(ops.add(mean, np.float32(1e-5))))


def attend(x: Any, mask: Any, causal: bool = False) -> Any:
    query, key, value = (heads(linear(x, WIDE, number=i)) for i in range(3))
    low = ops.slice(query, ints(0), ints(4), ints(1), ints(3))
    high = ops.slice(query, ints(4), ints(LAST), ints(1), ints(3))
    query = ops.concat([ops.negative(high), low], -1)
    return merge(
        ops.scaled_dot_product_attention(query, key, value, *([] if causal else [mask]), causal=causal)
    )


def transposed(x: Any) -> Any:
    return ops.matmul(ops.transpose(x, ints(0, 2, 1)), np.ones((WIDE, 3), np.float32), True, False)


def feed_forward(x: Any) -> Any:
    gate, up = ops.split(linear(norm(x), 4 * WIDE), np.int64(2), 2).outputs()
    return linear(ops.multiply(ops.swish(gate), up), WIDE, 2 * WIDE)


def decoder_layer(x: Any, mask: Any) -> Any:
    x = ops.add(x, linear(attend(norm(x), mask), WIDE))
    return ops.add(x, feed_forward(x))


def encoder_layer(x: Any, mask: Any) -> Any:
    query, key, value = (heads(linear(x, WIDE, number=i)) for i in range(3))
    weights = ops.softmax(ops.add(ops.matmul(query, key, False, True), mask), -1)
    x = ops.add(x, merge(ops.matmul(weights, value, False, False)))
    return ops.mvn(x, ints(2), True, 1e-5, "inside_sqrt")


#: Name -> (what computes the rows, the operations that are sliced).
NETS: dict[str, tuple[Callable[[Any, Any], Any], set[str]]] = {
    "decoder": (decoder_layer, {"MatMul", "ScaledDotProductAttention", "Split", "Reshape", "Transpose"}),
    "feed forward": (lambda x, mask: feed_forward(x), {"MatMul", "Split", "ReduceMean"}),
    "unsqueeze": (lambda x, mask: ops.reshape(ops.relu(ops.unsqueeze(x, ints(2))), ints(0, 0, -1), True),
                  {"Unsqueeze", "Relu", "Reshape"}),
    "elementwise": (lambda x, mask: ops.atan(ops.floor_mod(x, np.float32(3))), {"Atan", "FloorMod"}),
    "softmax over rows": (lambda x, mask: ops.relu(ops.softmax(x, 1)), {"Relu"}),
    "sums of rows": (lambda x, mask: ops.relu(ops.add(x, ops.reduce_sum(ops.relu(x), ints(1), True))),
                     {"Relu", "Add"}),
    "causal": (lambda x, mask: ops.relu(attend(x, mask, True)), {"Relu", "Reshape", "Transpose"}),
    "transposed": (lambda x, mask: ops.relu(transposed(x)), {"Relu"}),
    "joined rows": (lambda x, mask: ops.relu(ops.concat([x, x], 1)), {"Relu"}),
    "reshape of rows": (lambda x, mask: ops.relu(ops.reshape(x, ints(0, -1, 8), True)), {"Relu"}),
}  # fmt: skip


def inputs() -> tuple[Any, Any]:
    x = ops.parameter([-1, -1, WIDE], np.float32, name="x")
    return x, ops.parameter([-1, 1, -1, -1], np.float32, name="mask")


@pytest.mark.parametrize("bounds", [(0, 1), (-1, LAST), (-3, LAST)])
@pytest.mark.parametrize("name", NETS)
def test_the_same_rows(name: str, bounds: tuple[int, int]) -> None:
    rng, (net, kinds) = np.random.default_rng(SEED), NETS[name]
    for tokens in (1, 5):
        arrays = (
            rng.standard_normal((2, tokens, WIDE), np.float32),
            np.zeros((2, 1, tokens, tokens), np.float32),
        )
        arrays[1][:] = np.where(np.tri(tokens), 0, -1e4)
        x, mask = inputs()
        model = ov.Model([ops.result(net(x, mask))], [x, mask], name)
        wanted = ov.compile_model(model, "CPU", EXACT)(arrays)[0]
        taker = model.get_results()[0].input(0)
        region = find_region(taker, 1)
        assert {node.get_type_name() for node in region} >= kinds, "operations that compute rows"
        take_rows(taker, 1, *bounds)
        model.get_results()[0].validate_and_infer_types()
        found = ov.compile_model(model, "CPU", EXACT)(arrays)[0]
        rows = wanted[:, slice(bounds[0], bounds[1] if bounds[1] < LAST else None)]
        np.testing.assert_allclose(found, rows, rtol=1e-5, atol=1e-5, err_msg=f"{SEED} {tokens}")


def test_operations_that_need_other_rows_are_computed_for_all() -> None:
    for name, kind in (("softmax over rows", "Softmax"), ("sums of rows", "ReduceSum"),
                       ("joined rows", "Concat"), ("causal", "ScaledDotProductAttention"),
                       ("transposed", "MatMul")):  # fmt: skip
        x, mask = inputs()
        model = ov.Model([ops.result(NETS[name][0](x, mask))], [x, mask], name)
        region = find_region(model.get_results()[0].input(0), 1)
        assert kind not in {node.get_type_name() for node in region}, name


def test_values_with_other_takers_stay_whole() -> None:
    x, mask = inputs()
    hidden = decoder_layer(x, mask)
    model = ov.Model([ops.result(hidden), ops.result(ops.relu(hidden))], [x, mask], "two")
    assert not find_region(model.get_results()[0].input(0), 1)
    take_rows(model.get_results()[0].input(0), 1, 0, 1)
    arrays = np.ones((1, 4, WIDE), np.float32), np.zeros((1, 1, 4, 4), np.float32)
    model.validate_nodes_and_infer_types()
    first, whole = ov.compile_model(model, "CPU", EXACT)(arrays).to_tuple()
    assert first.shape == (1, 1, WIDE) and whole.shape == (1, 4, WIDE)


def test_the_first_token_of_a_classifier() -> None:
    x, mask = inputs()
    first = ops.gather(encoder_layer(x, mask), np.int64(0), np.int64(1))
    model = ov.Model([ops.result(linear(first, 3))], [x, mask], "classifier")
    rng = np.random.default_rng(SEED)
    arrays = rng.standard_normal((2, 7, WIDE), np.float32), np.zeros((2, 1, 1, 7), np.float32)
    wanted = ov.compile_model(model, "CPU", EXACT)(arrays)[0]
    take_first_tokens(model)
    normal = next(node for node in model.get_ordered_ops() if node.get_type_name() == "MVN")
    assert normal.output(0).get_partial_shape()[1].get_max_length() == 1
    found = ov.compile_model(model, "CPU", EXACT)(arrays)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5, err_msg=f"{SEED}")


def test_logits_compute_what_follows_the_last_attention(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    s = Sizes("llama", layers=2, words=60, wide=64, heads=4, shared=2, size=16, turned=16, inner=96)
    write(tmp_path / "a.gguf", s, tensors(s, "F32", np.random.default_rng(SEED)))
    tokens = np.random.default_rng(SEED).integers(2, s.words, 40)
    results = []
    for defers in (False, True):
        paged = PagedDecoder.load(tmp_path, Options(defers=defers))
        paged.allocate(2)
        tables = tables_of(np.array([0, 40]), np.array([40]), np.arange(2)[None], paged.block)
        hidden = paged.hidden(tokens, np.arange(40), tables)
        assert paged.width == (1 + defers) * s.wide and hidden.shape == (40, paged.width)
        results.append(np.array(paged.logits(hidden[[3, 39]])))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5, err_msg=f"{SEED}")


@pytest.mark.parametrize("source, products", [("shape", 0), ("input", 2)])
def test_sizes_that_are_computed_beside_the_rows(source: str, products: int) -> None:
    """PyTorch's `chunk` computes the sizes of a split. From a static dimension they are constants; of values
    of inputs the part without rows stays whole."""
    x = ops.parameter([-1, 1, WIDE], np.float32, name="x")
    x.output(0).set_names({"x"})
    sizes = ops.parameter([2], np.int64, name="sizes")
    sizes.output(0).set_names({"sizes"})
    both = linear(x, 4 * WIDE)
    if source == "shape":
        half = ops.divide(ops.gather(ops.shape_of(x), ints(-1), ints(0)), ints(1))
        half = ops.multiply(half, ints(2))
        gate, up = ops.variadic_split(both, np.int64(2), ops.concat([half, half], 0)).outputs()
    else:
        gate, up = ops.variadic_split(both, np.int64(2), sizes).outputs()
    logits = linear(linear(ops.multiply(ops.swish(gate), up), WIDE, 2 * WIDE), 7)
    logits.output(0).set_names({"logits"})
    model = ov.Model([ops.result(logits)], [x, sizes], "chunks")
    rows, split = np.random.default_rng(SEED).standard_normal((5, 1, WIDE), np.float32), [2 * WIDE] * 2
    wanted = ov.compile_model(model, "CPU", EXACT)([rows, np.array(split)])[0]
    body, head = split_head(model, defers=True)
    assert [node.get_type_name() for node in body.get_ops()].count("MatMul") == products
    hidden = ov.compile_model(body, "CPU", EXACT)([rows, np.array(split)])[0]
    found = ov.compile_model(head, "CPU", EXACT)([hidden[[1, 4]]])[0]
    np.testing.assert_allclose(found.reshape(2, 7), wanted[[1, 4], 0], rtol=1e-5, atol=1e-5)
