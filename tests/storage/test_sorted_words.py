"""Weights of 8 bits whose words are sorted, for CPUs without VNNI, are in a blob once and are restored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ovjit.codegen.cpu.formats import U8I8
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.storage.panels import panel_bytes, panels_of, unpack
from ovjit.storage.sorted_words import restore_order
from ovjit.tiles import narrow
from tests.support.run import printed

SEED = 20261129

#: Exports convolutions and a product in 8 bits. Imports the blob as it is, and as one of another key with
#: numbers of its rows changed. Prints the number of sorted arrays, the bytes of the section of weights, and
#: how many changes were refused and tried.
EXPORT = """
import json, sys
import numpy as np
import ovjit
from ovjit import opset13 as op
from ovjit.storage.container import Container, write_container
from ovjit.storage.graph_format import dump, parse
folder, rng = sys.argv[1], np.random.default_rng(5)
def quantized(x):
    return op.fake_quantize(x, *(op.constant(np.float32(v)) for v in (0, 2.55, 0, 2.55)), 256)
def weights(*shape):
    values = np.clip(np.rint(rng.normal(0, 40, shape)), -127, 127).astype(np.int8)
    scale = np.full((shape[0], *(1,) * (len(shape) - 1)), 0.001, np.float32)
    return op.multiply(op.convert(op.constant(values), "f32"), op.constant(scale))
ones, none = [1, 1], [0, 0]
a = x = op.parameter([1, 64, 9, 9], np.float32, name="a")
for outs, size in ((88, 1), (64, 1), (136, 3)):
    pads = [size // 2] * 2
    stride = [2, 2] if size == 3 else ones
    ins = x.output(0).get_partial_shape()[1].get_length()
    x = op.relu(op.convolution(quantized(x), weights(outs, ins, size, size), stride, pads, pads, ones))
x = op.reshape(x, op.constant(np.array([25, 136])), False)
x = op.matmul(quantized(x), weights(80, 136), False, True)
ovjit.save_model(ovjit.Model([x], [a], "bytes"), folder + "/m.xml", compress_to_fp16=False)
core = ovjit.Core()
model = core.compile_model(core.read_model(folder + "/m.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
content = model.export_model().getvalue()
x = np.abs(rng.normal(size=(1, 64, 9, 9))).astype(np.float32)
answer = model(x)[0].tobytes()
again = core.import_model(content, "CPU")
assert again(x)[0].tobytes() == answer and again.export_model().getvalue() == content
for mine, other in zip(model._executable.graph.nodes, again._executable.graph.nodes, strict=True):
    for key, value in mine.attrs.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(other.attrs[key], value, strict=True)
sections = dict(Container(memoryview(content)).sections)
tables = parse(sections["graph"], "graph")
rows = [v["a"] for n in tables["nodes"] for v in n[5].values() if type(v) is dict and "a" in v]
rows = [row[4] for row in rows if len(row) > 4 and len(row[4]) == 5]
stranger = core.import_model(write_container(sections, bytes(range(32))), "CPU")
assert stranger(x)[0].tobytes() == answer
refused = tried = 0
for place, before in enumerate(rows[0][4]):
    for value in (-1, before + 1, 2**31, 2**62, 2**63, 1.5, None, [1]):
        rows[0][4][place] = value
        tried += 1
        try:
            core.import_model(write_container({**sections, "graph": dump(tables)}, bytes(range(32))), "CPU")
        except RuntimeError as error:
            assert "blob" in str(error), error
            refused += 1
    rows[0][4][place] = before
print(json.dumps([len(rows), len(sections["weights"]), refused, tried]))
"""


@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic"])
@pytest.mark.parametrize(
    "shape", [(1, 9, 16, 40), (2, 3, 12, 24), (1, 1, 64, 5), (3, 1, 8, 16), (1, 1, 4, 96)]
)
@pytest.mark.parametrize("width", [12, 33, 90])
def test_the_order_is_restored(shape: tuple[int, ...], isa: str, width: int) -> None:
    """Bit by bit, with words of all ways."""
    rng, target = np.random.default_rng([SEED, *shape, width]), TARGETS[isa]
    source = np.clip(np.rint(rng.normal(0, width, shape)), -128, 127).astype(np.int8)
    source.flat[:4] = (-128, -128, 127, -128)
    listed = narrow.list_panels(source, target, U8I8)
    parts = [
        listed.memory.view(np.uint8),
        *(a.reshape(-1).view(np.uint8) for a in (listed.word_offsets, listed.steps)),
    ]
    padded = [
        np.concatenate((np.zeros(64, np.uint8), part, np.zeros(-part.size % 8, np.uint8))) for part in parts
    ]
    begins = np.cumsum([0, *map(len, padded)])
    groups, runs, depth, outs = shape
    how = {"kind": "i8", "width": listed.sizes.width, "last": listed.sizes.last, "group": 4}

    row = panels_of(how, source)
    tables = [int(begin) + 64 for begin in begins[1:3]]
    row = [*row, [target.lanes, listed.sizes.panel, runs, *tables]]
    assert panel_bytes(row, 1, source.size) == listed.memory.size
    plain = restore_order(np.concatenate(padded), 64, row)
    assert np.array_equal(unpack(plain, row[:4]), source.reshape(-1)), SEED


def test_blobs_have_sorted_weights_once(tmp_path: Path) -> None:
    sorted_arrays, weights, refused, tried = json.loads(printed("-c", EXPORT, tmp_path, OVJIT_ISA="avx2"))
    assert sorted_arrays == 4
    assert weights < 88 * 64  # that of the smallest array would be more
    assert refused >= 0.8 * tried, (refused, tried)
