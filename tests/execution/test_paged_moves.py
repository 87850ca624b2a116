"""PaKVReorder: tokens of caches moved in their blocks; and blocks copied by windows on tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from tests.support.paged_models import Cache, decoder

SEED = 20261122
BLOCKS, HEADS, TOKENS, SIZE = 6, 2, 32, 16
INPUTS = ("key_cache.0", "value_cache.0", "block_indices", "block_indices_begins", "block_update_indices",
          "block_update_indices_begins")  # fmt: skip


def reorder(kind: str) -> Any:
    """A compiled model of one PaKVReorder, as files have it."""
    layers, edges = [], []
    for i, name in enumerate(INPUTS):
        shape, dtype = (f"?,{HEADS},{TOKENS},{SIZE}", "dynamic") if i < 2 else ("?", "i32")
        layers.append(
            f'<layer id="{i}" name="{name}" type="Parameter" version="opset1">'
            f'<data shape="{shape}" element_type="{dtype}"/>'
            f'<output><port id="0" names="{name}"/></output></layer>'
        )
        edges.append(f'<edge from-layer="{i}" from-port="0" to-layer="6" to-port="{i}"/>')
    ports = "".join(f'<port id="{i}"/>' for i in range(6))
    layers.append(
        f'<layer id="6" name="moves" type="PaKVReorder" version="extension"><input>{ports}</input>'
        '<output><port id="6" precision="U8"><dim>1</dim></port></output></layer>'
        '<layer id="7" name="status" type="Result" version="opset1"><input><port id="0"/></input></layer>'
    )
    edges.append('<edge from-layer="6" from-port="6" to-layer="7" to-port="0"/>')
    text = (
        f'<?xml version="1.0"?><net name="moves" version="11"><layers>{"".join(layers)}</layers>'
        f"<edges>{''.join(edges)}</edges></net>"
    )
    config = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": kind}
    return ov.Core().compile_model(ov.Core().read_model(text.encode()), "CPU", config)


def of_channels(data: np.ndarray) -> np.ndarray:
    """The keys that u8 blocks stand for."""
    flat = data.reshape(BLOCKS, HEADS, -1)
    scale, zero = np.moveaxis(
        np.ascontiguousarray(flat[..., : 8 * SIZE]).view(np.float32).reshape(BLOCKS, HEADS, 2, 1, SIZE), 2, 0
    )
    return (flat[..., 8 * SIZE :].reshape(BLOCKS, HEADS, TOKENS, SIZE) - zero) * scale


def given(rng: np.random.Generator, compiled: Any) -> tuple[Any, list[Any]]:
    request, tensors = compiled.create_infer_request(), []
    for port in compiled.inputs[:2]:
        shape = [BLOCKS if d.is_dynamic else d.get_length() for d in port.get_partial_shape()]
        tensor = ov.Tensor(port.get_element_type(), ov.Shape(shape))
        if tensor.data.dtype == np.float32:
            tensor.data[...] = rng.standard_normal(shape)
        else:
            tensor.data[...] = rng.integers(0, 256, shape)
            scales = tensor.data.reshape(BLOCKS, HEADS, -1)[..., : 8 * SIZE].reshape(-1, 8 * SIZE)
            limits = (0.005, 0.02), (90, 160)
            ours = np.stack([rng.uniform(*each, (len(scales), SIZE)) for each in limits], 1)
            tensor.data.reshape(BLOCKS, HEADS, -1)[..., : 8 * SIZE] = (
                ours.astype(np.float32).reshape(BLOCKS, HEADS, -1).view(np.uint8)
            )
        request.set_tensor(port.get_any_name(), tensor)
        tensors.append(tensor)
    return request, tensors


TABLES = {"block_indices": [4, 0, 2], "block_indices_begins": [0, 2, 3]}


@pytest.mark.parametrize("kind", ["f32", "u8"])
def test_tokens_are_moved(kind: str) -> None:
    rng = np.random.default_rng(SEED)
    request, (keys, values) = given(rng, reorder(kind))
    moves = [[40, 3], [41, 4], [3, 63], [0, 31]], [[5, 6]]
    rows_of = {"block_update_indices": np.ravel([*moves[0], *moves[1]])}
    told = {**TABLES, **rows_of, "block_update_indices_begins": [0, 4, 5]}
    read = of_channels if kind == "u8" else np.array
    want, was, old = read(keys.data), np.array(keys.data), np.array(values.data)
    after = old.copy()
    for table, rows in zip(([4, 0], [2]), moves, strict=True):
        for source, target in rows:
            one, other = (table[t // TOKENS] for t in (source, target))
            want[other, :, target % TOKENS] = want[one, :, source % TOKENS]
            after[other, :, target % TOKENS] = after[one, :, source % TOKENS]
    status = request.infer({name: np.array(x, np.int32) for name, x in told.items()})[0]
    assert status.tolist() == [0]
    np.testing.assert_array_equal(values.data, after)  # with their scales
    if kind == "f32":
        np.testing.assert_array_equal(keys.data, want)
    else:
        assert np.abs(of_channels(keys.data) - want).max() <= 0.03, SEED
        np.testing.assert_array_equal(keys.data[[1, 3, 5]], was[[1, 3, 5]])


@pytest.mark.parametrize("name, value", [
    ("block_update_indices", [64, 0]), ("block_update_indices", [0, -1]), ("block_indices", [4, 6, 2]),
    ("block_update_indices_begins", [0, 2, 2]), ("block_indices_begins", [0, 4, 3]),
    ("block_update_indices_begins", [0, 1]), ("block_update_indices_begins", []),
    ("block_indices_begins", []),
])  # fmt: skip
def test_hostile_moves_are_refused(name: str, value: list[int]) -> None:
    request, tensors = given(np.random.default_rng(SEED), reorder("f32"))
    before = [np.array(t.data) for t in tensors]
    told = {**TABLES, "block_update_indices": [33, 1], "block_update_indices_begins": [0, 1, 1], name: value}
    with pytest.raises(RuntimeError, match="block_"):
        request.infer({n: np.array(x, np.int32) for n, x in told.items()})
    for tensor, array in zip(tensors, before, strict=True):
        np.testing.assert_array_equal(tensor.data, array)


@pytest.mark.parametrize("kind", ["f32", "u8"])
def test_blocks_are_copied_by_windows(kind: str) -> None:
    """A sequence that goes on from a copy of another one's last block, as servers fork sequences."""
    from ovjit._offline_transformations import paged_attention_transformation

    rng, model = np.random.default_rng(SEED), decoder(ov)
    paged_attention_transformation(model)
    config = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": kind}
    cache = Cache(ov, ov.Core().compile_model(model, "CPU", config), rng)
    tokens = rng.integers(0, 50, 41)
    cache.request.infer(cache.inputs([(0, 0, tokens[:40])]), share_inputs=True)
    cache.tables[1] = [cache.tables[0][0], cache.free.pop()]  # the first block is shared
    for tensor in cache.caches.values():
        shape = list(tensor.shape)
        source, target = (
            ov.Tensor(tensor, ov.Coordinate([b, 0, 0, 0]), ov.Coordinate([b + 1, *shape[1:]]))
            for b in (cache.tables[0][1], cache.tables[1][1])
        )
        source.copy_to(target)
    request = cache.request
    rows = [(0, 40, tokens[40:]), (1, 40, tokens[40:])]
    request.start_async(cache.inputs(rows), share_inputs=True)
    request.wait()
    logits = np.array(request.get_output_tensor(0).data)[:, 0]
    np.testing.assert_array_equal(logits[0], logits[1])


def test_logits_of_the_last_tokens_alone() -> None:
    """A Gather before the last product, as servers add it."""
    from ovjit._offline_transformations import paged_attention_transformation

    from ovjit import opset13 as ops

    def made(gather: bool) -> Cache:
        model = decoder(ov)
        paged_attention_transformation(model)
        if gather:
            product = model.get_results()[0].input_value(0).get_node()
            which = ops.parameter(ov.PartialShape([-1]), np.int64, name="sampled_tokens_indices")
            which.output(0).get_tensor().set_names({"sampled_tokens_indices"})
            rows = ops.gather(product.input_value(0), which, ops.constant(np.int64(0)))
            product.input(0).replace_source_output(rows.output(0))
            model.add_parameters([which])
            model.validate_nodes_and_infer_types()
        config = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        return Cache(ov, ov.Core().compile_model(model, "CPU", config), np.random.default_rng(SEED))

    rng = np.random.default_rng(SEED)
    rows = [(0, 0, rng.integers(0, 50, 7)), (1, 0, rng.integers(0, 50, 40))]
    whole, some = made(False), made(True)
    want = np.array(whole.request.infer(whole.inputs(rows))[0])[[6, 46]]
    told = {**some.inputs(rows), "sampled_tokens_indices": np.array([6, 46])}
    got = np.array(some.request.infer(told)[0])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
