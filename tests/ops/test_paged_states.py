"""PagedGatedDeltaNet, PagedSelectiveSSM and PagedCausalConv1D of IR files, beside the real OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest

import ovjit as ov
from ovjit.engine import make_program
from ovjit.rewrite.paged_attention import settle_pages
from tests.support.sweeps import in_turn

SEED = 20261123
LISTS = ("subsequence_begins", "block_indices", "block_indices_begins", "past_lens", "cache_interval")
#: Inputs of each operation by letters of dimensions, the number of the table, and the output's letters.
OPS = {
    "PagedGatedDeltaNet": ("THK THK TGV BGVK TG TG", 3, "TGV"),
    "PagedSelectiveSSM": ("G TG THK TGV THK BGVK", 5, "TGV"),
    "PagedCausalConv1D": ("TG BGC G1C G", 1, "TG"),
}
BLOCKS = 10
PRECISIONS = {"f32": "FP32", "f16": "FP16", "bf16": "BF16", "i32": "I32"}


def file_of(
    name: str, extents: dict[str, int], data: str = "", bias: bool = True, stored: str = "f32"
) -> bytes:
    """An IR file of the operation alone. `stored`: elements of the table."""
    letters, table, out = OPS[name]
    shapes = [[extents.get(c, -1) for c in s] for s in letters.split()]
    if name == "PagedCausalConv1D" and not bias:
        shapes[3] = [0]
    ports = [(s, stored if i == table else "f32") for i, s in enumerate(shapes)] + [([-1], "i32")] * 5

    def port(i: int, shape: list[int], kind: str) -> str:
        dims = "".join(f"<dim>{d}</dim>" for d in shape)
        return f'<port id="{i}" precision="{PRECISIONS[kind]}">{dims}</port>'

    n, given = len(ports), [extents.get(c, -1) for c in out]
    layers = [
        f'<layer id="{i}" name="p{i}" type="Parameter" version="opset1"><data '
        f'shape="{",".join(map(str, s))}" element_type="{k}"/><output>{port(0, s, k)}</output></layer>'
        for i, (s, k) in enumerate(ports)
    ]
    layers.append(
        f'<layer id="{n}" name="op" type="{name}" version="extension"><data {data}/><input>'
        f"{''.join(port(i, *p) for i, p in enumerate(ports))}</input>"
        f"<output>{port(n, given, 'f32')}</output></layer>"
        f'<layer id="{n + 1}" name="r" type="Result" version="opset1">'
        f"<input>{port(0, given, 'f32')}</input></layer>"
    )
    ends = [(i, 0, n, i) for i in range(n)] + [(n, n, n + 1, 0)]
    edges = [f'<edge from-layer="{a}" from-port="{b}" to-layer="{c}" to-port="{d}"/>' for a, b, c, d in ends]
    net = f"<layers>{''.join(layers)}</layers><edges>{''.join(edges)}</edges>"
    return f'<?xml version="1.0"?><net name="m" version="11">{net}</net>'.encode()


def request_of(package: Any, content: bytes, hint: str = "f32") -> Any:
    core = package.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the real one's plugin, which brings the operations
    config = {"INFERENCE_PRECISION_HINT": hint}
    return core.compile_model(core.read_model(content, b""), "CPU", config).create_infer_request()


def infer(package: Any, request: Any, data: list[np.ndarray]) -> np.ndarray:
    for i, array in enumerate(data):
        if array.dtype == np.uint16:  # the bits of bf16
            tensor = package.Tensor(array, package.Shape(array.shape), package.Type.bf16)
        else:
            tensor = package.Tensor(array, shared_memory=True)
        request.set_input_tensor(i, tensor)
    request.infer()
    return np.array(request.get_output_tensor(0).data)


def data_of(name: str, extents: dict[str, int], tokens: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Tokens, and the table."""
    sizes = {**extents, "T": tokens, "B": BLOCKS, "1": 1}
    made = [rng.standard_normal([sizes[c] for c in s]).astype(np.float32) for s in OPS[name][0].split()]
    if name == "PagedGatedDeltaNet":
        made[1] /= np.linalg.norm(made[1], axis=-1, keepdims=True)
        made[4], made[5] = -np.abs(made[4]), 1 / (1 + np.exp(made[5]))
    elif name == "PagedSelectiveSSM":
        made[0], made[1] = -np.abs(made[0]), np.abs(made[1])
    return made


def lists_of(*rows: tuple[int, int, int, list[int]]) -> list[np.ndarray]:
    """The lists of sequences (past, new tokens, interval, blocks)."""
    begins, ends = (np.cumsum([0, *n]) for n in ([r[1] for r in rows], [len(r[3]) for r in rows]))
    given = begins, sum((r[3] for r in rows), []), ends, [r[0] for r in rows], [r[2] for r in rows]
    return [np.array(x, np.int32) for x in given]


ROWS = [(0, 5, 2, [8, 1, 3, 2]), (3, 1, 4, [5, 5]), (7, 3, 0, [4, 9]), (4, 0, 2, [6, 6]),
        (1, 6, 3, [7, 7, 6, 0])]  # fmt: skip
EXTENTS = [{"H": 2, "G": 4, "K": 16, "V": 8, "C": 4}, {"H": 1, "G": 3, "K": 7, "V": 5, "C": 2},
           {"H": 2, "G": 2, "K": 40, "V": 21, "C": 3}]  # fmt: skip


@pytest.mark.parametrize("name", in_turn(list(OPS), 2))
@pytest.mark.parametrize("extents", EXTENTS, ids=str)
@pytest.mark.parametrize("more", [False, True], ids=["plain", "more"])
def test_as_the_real_package(name: str, extents: dict[str, int], more: bool) -> None:
    """Results and tables, call after call; `more`: rows of length 1, or a bias."""
    rng = np.random.default_rng([SEED, extents["K"]])
    unit = f'use_qk_l2norm="{str(more).lower()}" q_l2_norm_eps="0.01" k_l2_norm_eps="0.02"'
    content = file_of(name, extents, unit if name == "PagedGatedDeltaNet" else "", more)
    requests = [(p, request_of(p, content)) for p in (ov, openvino)]
    table = OPS[name][1]
    tables = [data_of(name, extents, 1, rng)[table]] * 2
    for rows in (ROWS, [ROWS[1], (5, 1, 2, [3, 2])]):
        data = data_of(name, extents, sum(r[1] for r in rows), rng)
        if name == "PagedCausalConv1D" and not more:
            data[3] = np.zeros(0, np.float32)
        found = []
        for i, (package, request) in enumerate(requests):
            given = [x.copy() for x in data]
            given[table] = tables[i] = tables[i].copy()
            found.append(infer(package, request, [*given, *lists_of(*rows)]))
        for mine, real in (found, tables):
            np.testing.assert_allclose(mine, real, rtol=0, atol=3e-6 * np.abs(real).max(), err_msg=f"{SEED}")


def stored_as(array: np.ndarray, kind: str) -> np.ndarray:
    """f32 as f16, or as the bits of bf16."""
    if kind == "f16":
        return array.astype(np.float16)
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def real_numbers(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


@pytest.mark.parametrize("name", in_turn(list(OPS), 2))
@pytest.mark.parametrize("extents", EXTENTS, ids=str)
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_tables_of_16_bits(name: str, extents: dict[str, int], kind: str) -> None:
    """What f32 tables give, states being rounded when they are stored; and no step is the host's."""
    rng = np.random.default_rng([SEED, extents["K"]])
    content, table = file_of(name, extents, stored=kind), OPS[name][1]
    data = data_of(name, extents, sum(r[1] for r in ROWS), rng)
    held = stored_as(data[table], kind)
    exact, given = [x.copy() for x in data], [x.copy() for x in data]
    exact[table], given[table] = real_numbers(held), held.copy()
    y = infer(ov, request_of(ov, file_of(name, extents)), [*exact, *lists_of(*ROWS)])
    request = request_of(ov, content)
    np.testing.assert_array_equal(infer(ov, request, [*given, *lists_of(*ROWS)]), y)
    np.testing.assert_array_equal(given[table], stored_as(exact[table], kind))
    graph = ov.Core().read_model(content, b"")._graph()
    plan = make_program(settle_pages(graph, {}, {})[0], {}).plan([x.shape for x in (*data, *lists_of(*ROWS))])
    assert all(step.host is None for step in plan.steps)


@pytest.mark.parametrize("name", list(OPS))
@pytest.mark.parametrize("hint", ["f32", "bf16"])
def test_tokens_in_parts_are_those_of_a_prompt(name: str, hint: str) -> None:
    """The same bits, however a sequence is cut; and the table is the caller's own memory."""
    extents, rng = EXTENTS[2], np.random.default_rng(SEED)
    request, table = request_of(ov, file_of(name, extents), hint), OPS[name][1]
    data = data_of(name, extents, 11, rng)
    whole = infer(ov, request, [*(x.copy() for x in data), *lists_of((0, 11, 100, [2, 5]))])
    state, parts, first = data[table], [], 0
    for count in (1, 1, 4, 5):
        pairs = zip(OPS[name][0].split(), data, strict=True)
        cut = [x[first : first + count] if "T" in letters else x for letters, x in pairs]
        cut[table] = state
        blocks = [2, 5] if first == 0 else [5, 5]
        parts.append(infer(ov, request, [*cut, *lists_of((first, count, 100, blocks))]))
        first += count
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert np.isfinite(whole).all() and np.abs(whole).max() > 0.1


@pytest.mark.parametrize("name", list(OPS))
@pytest.mark.parametrize("index, value", [
    (0, [0, 4]), (0, [1, 5]), (0, [0, 6]), (0, [0]), (0, []), (1, [0, BLOCKS, 2]), (1, [0, -1, 2]), (1, []),
    (2, [0, 4]), (2, [0, 1]), (2, [1, 3]), (2, []), (3, [-1]), (3, []), (3, [0, 0]), (4, []),
])  # fmt: skip
def test_hostile_lists_are_refused_before_anything_is_written(name: str, index: int, value: Any) -> None:
    extents, rng = EXTENTS[0], np.random.default_rng(SEED)
    request, data = request_of(ov, file_of(name, extents)), data_of(name, extents, 5, rng)
    before, lists = data[OPS[name][1]].copy(), lists_of((0, 5, 2, [0, 1, 2]))
    lists[index] = np.array(value, np.int32)
    with pytest.raises(RuntimeError):
        infer(ov, request, [*data, *lists])
    np.testing.assert_array_equal(data[OPS[name][1]], before)


def test_states_should_be_inputs() -> None:
    content = file_of("PagedSelectiveSSM", EXTENTS[0])
    model = ov.Core().read_model(content, b"")
    layer = next(n for n in model.get_ordered_ops() if n.get_type_name() == "PagedSelectiveSSM")
    made = ov.opset13.add(layer.input_value(5), np.float32(1))
    layer.input(5).replace_source_output(made.output(0))
    with pytest.raises(RuntimeError, match="input of the model"):
        ov.compile_model(model, "CPU")


def test_too_few_blocks_for_all_states() -> None:
    """PagedSelectiveSSM refuses them, as the real one does; the others keep what there are blocks for."""
    for name in OPS:
        for package in (ov, openvino):
            data = data_of(name, EXTENTS[0], 6, np.random.default_rng(SEED))
            given = [*data, *lists_of((1, 6, 3, [0, 0, 1]))]
            request = request_of(package, file_of(name, EXTENTS[0]))
            if name == "PagedSelectiveSSM":
                with pytest.raises(RuntimeError):
                    infer(package, request, given)
            else:
                infer(package, request, given)
