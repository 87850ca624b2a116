"""Which operations have steps of the host, by plans alone: those that are known to have, and no others."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest

from ovjit.engine import compile_graph, make_program
from ovjit.errors import OvjitError
from ovjit.graph import dtypes, interp
from ovjit.graph.graph import Builder
from ovjit.graph.op import Op, all_ops, find_op
from ovjit.graph.shapes import ANY
from tests.support.samples import has_samples, samples_of
from tests.support.samples.text import sample_rows, sample_text
from tests.support.sweeps import some


def host_steps(record: Op, dtype: str, most: int) -> set[str]:
    """Operations of the host's steps: of samples whose data is an input of open batch."""
    found = set()
    rng = np.random.default_rng(zlib.crc32(record.name.encode()))
    for inputs, attrs in itertools.islice(samples_of(record, rng, dtype), most):
        if not all(a.size for a in inputs):
            continue
        b = Builder()
        values = [b.constant(a, dtypes.from_numpy(a.dtype)) for a in inputs[1:]]
        shape = (ANY, *inputs[0].shape[1:]) if inputs[0].ndim > 1 else inputs[0].shape
        given = {"shape": shape, "element_type": dtypes.from_numpy(inputs[0].dtype)}
        x = b.add("Parameter", (), given).output
        try:
            graph = b.finish(b.add(record, [x, *values], attrs).outputs)
            plan = make_program(graph, {}).plan([inputs[0].shape])
        except OvjitError:
            continue
        if plan.cut is not None:
            found |= {node.op.name for node in plan.cut.hosts}
        found |= {s.type for s in plan.steps or () if s.host is not None}
    return found


#: What runs on the host by element type of the data: what data decide the size of, strings, and types that a
#: kernel does not know. `ValidPrefix` is a view that is cut off between two programs. Caches and tables that
#: are constants, as here, are not written where they lie.
CUT = {"ValidPrefix", "SparseFillEmptyRows"}
WRITTEN = {"NumberToString", "NumericToString"}
#: Those on packed strings: what runs there are native routines of `ovjit_ops.text`.
TEXTS = {
    "BPETokenizer", "ByteFallback", "BytesToChars", "CaseFold", "CharsMapNormalization",
    "CharsToBytes", "CombineSegments", "ContribStringJoin", "ContribStringSplit", "EqualStr",
    "FuzeRagged", "NormalizeUnicode", "RaggedTensorPack", "RaggedToDense", "RaggedToRagged",
    "RaggedToSparse", "RegexNormalization", "RegexSplit", "SentencepieceDetokenizer",
    "SentencepieceStreamDetokenizer", "SentencepieceTokenizer", "SpecialTokensSplit",
    "StringToHashBucket", "TrieTokenizer", "Truncate", "UTF8Validate", "UnigramTokenizer",
    "VocabDecoder", "VocabEncoder", "WordpieceTokenizer",
}  # fmt: skip
HOST = {
    "f32": CUT
    | WRITTEN
    | TEXTS
    | {"MulticlassNms", "Range", "PaKVReorder"}
    | {"PagedCausalConv1D", "PagedGatedDeltaNet", "PagedSelectiveSSM"},
    "i32": CUT | WRITTEN | {"GridSample", "Interpolate", "StringTensorPack"},
    "u8": CUT | WRITTEN | {"GridSample", "Range"},
}


@pytest.mark.parametrize("dtype", some(sorted(HOST), 2))
def test_steps_of_the_host(dtype: str) -> None:
    """No operation falls back to NumPy that has not before; one that does no more leaves the list."""
    found: dict[str, str] = {}
    for record in all_ops():
        if has_samples(record) and dtype in (record.types or ("f32",)):
            found |= dict.fromkeys(host_steps(record, dtype, 3), record.name)
    assert found.keys() == HOST[dtype], found


@pytest.mark.parametrize("kind", ("f8e4m3", "f8e5m2"))
@pytest.mark.parametrize("to", ("f32", "f16"))
def test_numbers_quantized_to_eight_bit_floats(kind: str, to: str) -> None:
    """What QuantizeLinear and DequantizeLinear become: natively, and to the bit of every half."""
    b = Builder()
    x = b.add("Parameter", (), {"shape": (ANY,), "element_type": "f16"}).output
    stored = b.add("Convert", [x], {"destination_type": kind}).output
    graph = b.finish(b.add("Convert", [stored], {"destination_type": to}).outputs)
    executable = compile_graph(graph, {})
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    job = executable.new_job()
    job.set_input(0, halves)
    job.run()
    with np.errstate(over="ignore", invalid="ignore"):
        (want,) = interp.evaluate(graph, [halves])
    np.testing.assert_array_equal(job.outputs[0], want)
    assert not any(step.host for step in executable.program.plan([halves.shape]).steps)


@pytest.mark.parametrize("opened", (False, True))
@pytest.mark.parametrize(
    ("name", "attrs", "shapes"),
    [
        ("Einsum", {"equation": "iaib->bi"}, [(4, 3, 4, 2)]),
        ("Einsum", {"equation": "iaii,ajj->ij"}, [(5, 2, 5, 5), (2, 3, 3)]),
        ("Einsum", {"equation": "...ii"}, [(2, 1, 1)]),
        ("Einsum", {"equation": "ii->i"}, [(0, 0)]),
        ("DeformableConvolution", {"group": 1}, [(2, 4, 5, 6), (2, 18, 3, 4), (3, 4, 3, 3), (2, 9, 3, 4)]),
        ("DeformableConvolution", {"group": 2}, [(1, 4, 5, 6), (1, 8, 4, 5), (6, 2, 2, 2)]),
    ],
)
def test_operands_that_are_inputs(
    name: str, attrs: dict, shapes: list[tuple], opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Diagonals of a letter that an equation repeats; filters that are computed."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng, b, record = np.random.default_rng(7), Builder(), find_op(name)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    if name != "Einsum":
        attrs = attrs | {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0)}
    attrs = record.check_attributes(attrs)
    values = [
        b.add(
            "Parameter", (), {"shape": (ANY,) * len(s) if opened and k != 2 else s, "element_type": "f32"}
        ).output
        for k, s in enumerate(shapes)
    ]
    executable = compile_graph(b.finish(b.add(record, values, attrs).outputs), {})
    job = executable.new_job()
    for k, array in enumerate(arrays):
        job.set_input(k, array)
    job.run()
    (want,) = record.evaluate(arrays, attrs)
    np.testing.assert_allclose(job.outputs[0], want, rtol=1e-4, atol=1e-4)
    assert not any(step.host for step in executable.program.plan(shapes).steps)


def test_integers_between_texts_are_checked() -> None:
    """What runs between operations on the host refuses shapes that its reference would compute with."""
    b = Builder()
    strings = sample_rows(["a,b"], ["c"])
    values = [
        b.add("Parameter", (), {"shape": (ANY,), "element_type": dtypes.from_numpy(x.dtype)}).output
        for x in strings
    ]
    table = b.add("Parameter", (), {"shape": (ANY, ANY), "element_type": "i32"}).output
    first = b.constant(np.array([0]))
    rows = b.add("RegexSplit", [*values, b.constant(sample_text(","), "u8")], {"behaviour": "remove"}).outputs
    zeros = b.add("Subtract", [rows[0], rows[0]], {"auto_broadcast": "numpy"}).output
    zeros = b.add("Unsqueeze", [zeros, first], {}).output
    picked = b.add("GatherElements", [table, zeros], {"axis": 1}).output
    picked = b.add("ReduceMax", [picked, first], {"keep_dims": False}).output
    graph = b.finish(b.add("FuzeRagged", [picked, picked, *rows[2:4]], {}).outputs)
    executable = compile_graph(graph, {})
    job = executable.new_job()
    for x in (np.array([[0, 1]], np.int32), np.array([[0, 1], [1, 0]], np.int32)):
        arrays = [*strings, x]
        for i, array in enumerate(arrays):
            job.set_input(i, array)
        if len(x) == 2:
            with pytest.raises(OvjitError, match="GatherElements"):
                job.run()
            break
        job.run()
        for made, want in zip(job.outputs, interp.evaluate(graph, arrays), strict=True):
            np.testing.assert_array_equal(made, want)
