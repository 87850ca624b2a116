"""Weights of 8 bits whose words are sorted, for CPUs without VNNI, are in a blob once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ovjit.codegen.cpu.formats import U8I8
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.storage.sorted_words import fill_sorted
from ovjit.tiles import narrow
from tests.support.run import printed

SEED = 20261129

#: Exports convolutions and a product in 8 bits, and imports the blob as it is and as one of another key.
#: Prints the bytes of weights, the functions that fill constant memory, and the share of their bytes in it.
EXPORT = """
import json, sys
import numpy as np
import ovjit
from ovjit import opset13 as op
from ovjit.storage.container import Container, write_container
from ovjit.storage.graph_format import parse
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
assert again.get_property("LOADED_FROM_CACHE") and again(x)[0].tobytes() == answer
assert again.export_model().getvalue() == content
for mine, other in zip(model._executable.graph.nodes, again._executable.graph.nodes, strict=True):
    for key, value in mine.attrs.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(other.attrs[key], value, strict=True)
sections = dict(Container(memoryview(content)).sections)
stranger = core.import_model(write_container(sections, bytes(range(32))), "CPU")
assert stranger(x)[0].tobytes() == answer
table = parse(sections["program"], "program")["memory"]
names, sizes = ([get(row) for row in table["filled"]] for get in (lambda row: row[2][0], lambda row: row[1]))
print(json.dumps([len(sections["weights"]), names, sum(sizes) / table["size"]]))
"""


def test_blobs_have_sorted_weights_once_without_masks(tmp_path: Path) -> None:
    """Weights are there as the graph has them, and are sorted again by the lists of words."""
    text = printed("-c", EXPORT, tmp_path, OVJIT_ISA="avx2", OVJIT_HIDE="avxvnni")
    weights, names, share = json.loads(text)
    assert names == ["sorted"] * 4
    elements = 64 * 88 + 88 * 64 + 64 * 136 * 9 + 136 * 80
    assert elements <= weights < 1.1 * elements and share > 0.6


@pytest.mark.parametrize("isa", ["avx512", "avx2", "generic"])
@pytest.mark.parametrize(
    "shape", [(1, 9, 16, 40), (2, 3, 12, 24), (1, 1, 64, 5), (3, 1, 8, 16), (1, 1, 4, 96)]
)
@pytest.mark.parametrize("width", [12, 33, 90])
def test_words_are_sorted_again_by_their_lists(shape: tuple[int, ...], isa: str, width: int) -> None:
    rng, target = np.random.default_rng([SEED, *shape, width]), TARGETS[isa]
    source = np.clip(np.rint(rng.normal(0, width, shape)), -128, 127).astype(np.int8)
    listed = narrow.list_panels(source, target, U8I8)
    lists = np.concatenate([np.zeros(8, np.int64), listed.word_offsets.reshape(-1), listed.steps.reshape(-1)])
    how = {"kind": "i8", "width": listed.sizes.width, "last": listed.sizes.last, "group": 4}
    memory = np.zeros(listed.memory.size, np.uint8)
    at = [64, 64 + listed.word_offsets.nbytes, shape[1]]
    fill_sorted(memory, source, lists.view(np.uint8), how, target.lanes, listed.sizes.panel, at)
    assert np.array_equal(memory, listed.memory.view(np.uint8)), SEED


def test_exports_of_other_models_do_not_import_what_sorts_words() -> None:
    """Imports are most of the time of a process' first export."""
    program = "import sys, ovjit.storage.blob, ovjit.storage.stored_constants; print(*sys.modules)"
    assert "ovjit.storage.sorted_words" in (names := printed("-c", program).split())
    assert "ovjit.tiles.narrow" not in names
