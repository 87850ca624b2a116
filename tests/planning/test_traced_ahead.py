"""Plans for open shapes are traced before any shape is known, of guessed dimensions, and blobs have the
traces: they give the bits that planning each shape anew gives, in other processes too, without a planner."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.errors import OvjitError
from ovjit.graph.shapes import Interval, guess_input_shape
from ovjit.planning import concrete_types
from ovjit.planning.parametric import Traces
from ovjit.storage import container
from ovjit.storage.blob import key_of
from ovjit.storage.container import SECTIONS, Container, write_container
from ovjit.storage.graph_format import dump, parse
from ovjit.storage.stored_program import code_in_parts
from tests.support.decoders import decoder
from tests.support.run import printed

SEED = 20261122
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def lines() -> ov.Model:
    """[?, 3, 8, W] -> [?, W / 4, 11]: convolutions, attention, softmax."""
    rng = np.random.default_rng(SEED)

    def weights(*shape: int) -> Any:
        return ops.constant((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))

    def ints(*numbers: int) -> Any:
        return ops.constant(np.array(numbers, np.int64))

    x = y = ops.parameter(ov.PartialShape([-1, 3, 8, -1]), np.float32, name="image")
    for wide in ((16, 3), (24, 16)):
        y = ops.relu(ops.convolution(y, weights(*wide, 3, 3), [2, 2], [1, 1], [1, 1], [1, 1]))
    y = ops.transpose(ops.reduce_mean(y, ints(2), False), ints(0, 2, 1))
    scores = ops.softmax(ops.matmul(ops.matmul(y, weights(24, 24), False, False), y, False, True), 2)
    y = ops.add(y, ops.matmul(scores, y, False, False))
    return ov.Model([ops.softmax(ops.matmul(y, weights(24, 11), False, False), 2)], [x], "lines")


def images(rng: np.random.Generator, count: int) -> list[list[np.ndarray]]:
    widths = rng.integers(40, 300, count).tolist()
    return [[rng.standard_normal((1, 3, 8, width)).astype(np.float32)] for width in widths]


def steps(rng: np.random.Generator, count: int) -> list[list[np.ndarray]]:
    """A prompt, and then one element at a time."""
    sizes = [int(rng.integers(2, 200)), *[1] * (count - 1)]
    order = np.zeros(1, np.int32)
    return [[rng.standard_normal((1, size, 16)).astype(np.float32), order] for size in sizes]


MODELS: dict[str, tuple[Callable[[], ov.Model], Callable[[np.random.Generator, int], list]]] = {
    "lines": (lines, images),
    "decoder": (lambda: decoder(told=False), steps),
}


def batches(rng: np.random.Generator, count: int) -> list[list[np.ndarray]]:
    """As `images`, several in a batch."""
    return [[rng.standard_normal((2 + i % 3, 3, 8, 60 + i)).astype(np.float32)] for i in range(count)]


def parts(rng: np.random.Generator, count: int) -> list[list[np.ndarray]]:
    """Prompts and single elements, alternating."""
    sizes = [int(rng.integers(20, 90)) if i % 2 == 0 else 1 for i in range(count)]
    return [[rng.standard_normal((1, size, 16)).astype(np.float32), np.zeros(1, np.int32)] for size in sizes]


def several(rng: np.random.Generator, count: int) -> list[list[np.ndarray]]:
    """As `steps`, in a batch of four whose order changes."""
    given = steps(rng, count)
    wide = [np.concatenate([x, x / 2, x / 3, x / 4]) for x, _ in given]
    return [[x, rng.integers(0, 4, 4).astype(np.int32) if i else np.arange(4, dtype=np.int32)]
            for i, x in enumerate(wide)]  # fmt: skip


#: What only blobs have traces for.
MORE = {
    "batches": (lines, batches),
    "parts": (MODELS["decoder"][0], parts),
    "several": (MODELS["decoder"][0], several),
}


def answers(compiled: ov.CompiledModel, feeds: list[list[np.ndarray]]) -> list[list[bytes]]:
    request = compiled.create_infer_request()
    return [[value.tobytes() for value in request.infer(feed).values()] for feed in feeds]


def plain(model: ov.Model, monkeypatch: pytest.MonkeyPatch) -> ov.CompiledModel:
    """The model, each shape of which is planned step by step."""
    with monkeypatch.context() as patch:
        patch.setenv("OVJIT_SKIP", "trace_ahead")
        compiled = ov.Core().compile_model(model, "CPU", EXACT)
    for program in programs(compiled):
        program.traces.refused = "the test plans anew"
    return compiled


def programs(compiled: ov.CompiledModel) -> list[Any]:
    """The compiler's programs of a model that trace."""
    inits = getattr(compiled._executable.program, "inits", list)()
    found = [compiled._executable.main, *(init.executable for init in inits if hasattr(init, "executable"))]
    return [one.program for one in dict.fromkeys(found) if one.program.traces is not None]


@pytest.mark.parametrize("name", MODELS)
def test_what_is_traced_ahead_gives_the_bits_of_plans_made_anew(name: str, monkeypatch) -> None:
    build, feeds_of = MODELS[name]
    ahead, anew = ov.Core().compile_model(build(), "CPU", EXACT), plain(build(), monkeypatch)
    made = [program.traces.total for program in programs(ahead)]
    assert all(made), made
    for seed in range(SEED, SEED + 4):
        feeds = feeds_of(np.random.default_rng(seed), 12)
        got, want = answers(ahead, feeds), answers(anew, feeds)
        for feed, one, other in zip(feeds, got, want, strict=True):
            assert one == other, f"seed {seed}, shapes {[x.shape for x in feed]}"
    assert [program.traces.total for program in programs(ahead)] == made, "a trace was made for a shape"
    others = ((3, 3, 8, 50), (1, 3, 8, 5), (2, 3, 8, 9))  # which it does not serve
    for shape in others if name == "lines" else ():
        feed = [np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)]
        assert answers(ahead, [feed]) == answers(anew, [feed]), f"seed {SEED}, shape {shape}"
    assert not any(program.traces.total for program in programs(anew))


def test_a_batch_of_several_is_planned_as_a_batch_of_one_was(monkeypatch) -> None:
    """Prompts and single elements: what two inputs have in common is a batch, though that of the guess is 1,
    and no trace is made for another one."""
    ahead = ov.Core().compile_model(decoder(told=False), "CPU", EXACT)
    anew = plain(decoder(told=False), monkeypatch)
    made = [program.traces.total for program in programs(ahead)]
    for seed in range(SEED, SEED + 3):
        feeds = several(np.random.default_rng(seed), 6)
        assert answers(ahead, feeds) == answers(anew, feeds), f"seed {seed}"
    assert all(made) and [program.traces.total for program in programs(ahead)] == made


def test_an_export_neither_searches_the_input_with_the_total_nor_traces_again(monkeypatch) -> None:
    """The search infers the types of the whole graph for each candidate. Of the two traces of a compilation,
    that of a run which appends many serves a first run, with an empty cache, too, and both any batch."""
    searched = []
    infer = concrete_types.concrete_types

    def count(graph: Any, shapes: Any, *twins: Any) -> Any:
        if not twins:  # which traces have
            searched.append(shapes)
        return infer(graph, shapes, *twins)

    monkeypatch.setattr(concrete_types, "concrete_types", count)
    compiled = ov.Core().compile_model(decoder(told=False), "CPU", EXACT)
    assert len(searched) == 1
    [program] = [program for program in programs(compiled) if program is compiled._executable.main.program]
    assert len(program.traced_ahead) == 2
    compiled.export_model()
    assert len(searched) == 1 and len(program.traced_ahead) == 2


CHILD = """
import hashlib, sys, numpy as np, ovjit as ov
blob, inputs = sys.argv[1:]
feeds = np.load(inputs)
request = ov.Core().import_model(blob, "CPU").create_infer_request()
count = 1 + max(int(name.split("_")[0]) for name in feeds)
for i in range(count):
    given = [feeds[f"{i}_{k}"] for k in range(sum(name.startswith(f"{i}_") for name in feeds))]
    made = request.infer(given)
    print(hashlib.sha256(b"".join(value.tobytes() for value in made.values())).hexdigest())
unwanted = {"ovjit.compiler.program", "ovjit.planning.plan", "numba", "ovjit_ops"}
print(*sorted(unwanted.intersection(sys.modules)), "end")
"""


@pytest.mark.parametrize("build, feeds_of", [*MODELS.values(), *MORE.values()], ids=[*MODELS, *MORE])
def test_a_blob_of_open_shapes_needs_no_planner_in_another_process(
    build: Callable[[], ov.Model], feeds_of: Callable[[np.random.Generator, int], list], tmp_path: Path
) -> None:
    model = build()
    compiled = ov.Core().compile_model(model, "CPU", EXACT)
    before = compiled.export_model().getvalue()
    feeds = feeds_of(np.random.default_rng(SEED + 9), 8)
    want = [hashlib.sha256(b"".join(row)).hexdigest() for row in answers(compiled, feeds)]
    assert compiled.export_model().getvalue() == before, "what has run has no part in a blob"
    assert ov.Core().compile_model(model, "CPU", EXACT).export_model().getvalue() == before
    (tmp_path / "blob").write_bytes(before)
    arrays: dict[str, Any] = {f"{i}_{k}": x for i, feed in enumerate(feeds) for k, x in enumerate(feed)}
    np.savez(tmp_path / "in.npz", **arrays)
    *got, modules = printed("-c", CHILD, tmp_path / "blob", tmp_path / "in.npz").splitlines()
    assert got == want, f"seed {SEED + 9}"
    assert modules == "end", modules
    again = ov.Core().import_model(before, "CPU")
    assert again.export_model().getvalue() == before


def sections_of(blob: bytes) -> dict[str, Any]:
    return {kind: bytes(content) for kind, content in Container(memoryview(blob)).sections.items()}


def signed(sections: dict[str, Any]) -> bytes:
    rows = parse(sections["program"], "program")["kernels"]
    return write_container({**sections, "code": code_in_parts(sections["code"], rows)}, key_of({}))


def test_traces_that_are_damaged_are_refused_and_those_of_strangers_not_looked_at(caplog) -> None:
    """A blob is refused whatever byte of its traces is another one. With another user's key, the model is
    compiled of the graph."""
    compiled = ov.Core().compile_model(lines(), "CPU", EXACT)
    blob = compiled.export_model().getvalue()
    feeds = images(np.random.default_rng(SEED), 2)
    want = answers(compiled, feeds)
    sections = sections_of(blob)
    assert parse(sections["program"], "program")["traces"][1]
    for kind in ("program", "data"):
        packed = container._compress(sections[kind])[0]
        begin = blob.index(bytes(packed))
        places = np.random.default_rng(SEED).integers(0, len(packed), 12)
        for at in (begin + places).tolist():
            bad = blob[:at] + bytes([blob[at] ^ 4]) + blob[at + 1 :]
            with pytest.raises(RuntimeError, match="damaged"):
                ov.Core().import_model(bad, "CPU")
    assert set(sections) == set(SECTIONS) and signed(sections) == blob
    wild = bytearray(sections["data"])
    wild[: len(wild) // 2] = bytes([255]) * (len(wild) // 2)  # with offsets anywhere, had it this user's key
    forged = write_container({**sections, "data": bytes(wild)}, b"another's key" * 3)
    imported = ov.Core().import_model(forged, "CPU")
    assert "another user's key" in caplog.text and answers(imported, feeds) == want


@pytest.mark.parametrize(
    "change",
    [
        lambda traces: [*traces, 1],
        lambda traces: [10**6, traces[1]],
        lambda traces: [traces[0], 7],
        lambda traces: [traces[0], [{"m": []}]],
        lambda traces: [traces[0], [{"m": [row for row in traces[1][0]["m"] if row[0] != "rows"]}]],
        lambda traces: [traces[0], [{"m": [[k, None] for k, _ in traces[1][0]["m"]]}]],
    ],
)
def test_traces_that_are_none_are_an_error_of_the_blob(change: Callable[[Any], Any]) -> None:
    """Under the right key too: by another version's hand."""
    sections = sections_of(ov.Core().compile_model(lines(), "CPU", EXACT).export_model().getvalue())
    tables = parse(sections["program"], "program")
    tables["traces"] = change(tables["traces"])
    with pytest.raises(RuntimeError, match="valid"):
        ov.Core().import_model(signed({**sections, "program": dump(tables)}), "CPU")


def test_dimensions_that_have_to_fit_together_are_traced_when_they_come() -> None:
    """What no guess can be planned for is compiled as ever, says what is wrong with shapes, and is traced."""
    x = ops.parameter(ov.PartialShape([1, -1]), np.float32, name="x")
    sizes = ops.constant(np.array([-1, 7], np.int64))  # of 64 there are none
    y = ops.relu(ops.reshape(x, sizes, False))
    compiled = ov.Core().compile_model(ov.Model([y], [x], "sevens"), "CPU", EXACT)
    traces: Traces = compiled._executable.program.traces
    assert not traces.total and not traces.refused
    rng = np.random.default_rng(SEED)
    for count in (3, 1, 12):
        data = rng.standard_normal((1, 7 * count)).astype(np.float32)
        assert np.array_equal(compiled(data)[0], np.maximum(data, 0).reshape(count, 7))
    with pytest.raises(OvjitError):
        compiled(np.zeros((1, 9), np.float32))
    assert traces.total
    blob = compiled.export_model().getvalue()
    assert "traces" not in parse(sections_of(blob)["program"], "program")
    assert np.array_equal(ov.Core().import_model(blob, "CPU")(data)[0], compiled(data)[0])


def test_guesses_are_within_bounds() -> None:
    assert guess_input_shape((4, 5)) == (4, 5)
    assert guess_input_shape((Interval(0, None), 3, Interval(0, None))) == (1, 3, 64)
    assert guess_input_shape((Interval(2, 9), Interval(1, 9), Interval(100, None))) == (2, 9, 100)
