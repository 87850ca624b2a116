"""Blobs of all test models in another process, on another CPU, of another version, with forged constants."""

from __future__ import annotations

import hashlib
import json
import logging
import pathlib

import numpy as np
import pytest

import ovjit
from ovjit import opset8
from ovjit.codegen.cpu.host import host_target, usable
from ovjit.disk.keys import user_key
from ovjit.storage.container import Container, write_container
from ovjit.storage.graph_format import dump, parse
from tests.support.blob_models import CASES, Case
from tests.support.run import python

IMPORT = """
import sys, json, hashlib, pathlib, ovjit
import numpy as np
from ovjit.codegen.compiling import counts
core = ovjit.Core()
out = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.blob")):
    model = core.import_model(path, "CPU")
    found = []
    for feed in sorted(path.parent.glob(path.stem + ".*.npz")):
        with np.load(feed) as arrays:
            values = list(model([arrays[name] for name in sorted(arrays)]).values())
        found.append(hashlib.sha256(b"".join(v.tobytes() for v in values)).hexdigest())
        np.savez(feed.with_suffix(".out.npz"), *values)
    out[path.stem] = [found, bool(model.get_property("LOADED_FROM_CACHE")), counts["compiled"]]
print(json.dumps(out))
"""


def export(folder: pathlib.Path, cases: dict[str, Case]) -> dict[str, list[list[np.ndarray]]]:
    """Write the models' blobs and feeds; returns what the models answer in this process."""
    answers = {}
    for name, case in cases.items():
        model = ovjit.Core().compile_model(case.build(), "CPU")
        (folder / f"{name}.blob").write_bytes(model.export_model().getvalue())
        answers[name] = []
        for i, feed in enumerate(case.feeds):
            np.savez(folder / f"{name}.{i}.npz", *feed)
            answers[name].append([np.array(v) for v in model(feed).values()])
    return answers


def import_elsewhere(folder: pathlib.Path, **variables: str) -> tuple[dict, str]:
    done = python("-c", IMPORT, folder, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def digest(values: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(v.tobytes() for v in values)).hexdigest()


def check_same_bits(folder: pathlib.Path, cases: dict[str, Case]) -> None:
    answers = export(folder, cases)
    found, said = import_elsewhere(folder, OVJIT_CACHE=str(folder / "empty"))
    assert found.keys() == cases.keys() and not said
    for name, (digests, loaded, compiled) in found.items():
        assert digests == [digest(values) for values in answers[name]], name
        assert loaded and compiled == 0, name


def test_every_model_gives_the_same_bits_in_another_process(tmp_path) -> None:
    """Nothing is shared but the key: the importing process has an empty kernel cache and fills nothing."""
    check_same_bits(tmp_path, CASES)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_networks_give_the_same_bits_in_another_process(tmp_path) -> None:
    from tests.support.networks import NAMES, build, network_input

    for name in NAMES:
        core = ovjit.Core()
        case = Case(lambda name=name, core=core: core.read_model(str(build(name))), [[network_input(name)]])
        folder = tmp_path / name
        folder.mkdir()
        check_same_bits(folder, {name: case})
        for file in folder.glob("*.blob"):
            file.unlink()


@pytest.mark.skipif(host_target().name == usable()[-1], reason="there is no lesser instruction set")
@pytest.mark.timeout(300)
def test_a_blob_of_another_cpu_is_compiled_for_this_one(tmp_path) -> None:
    """Another process with a lesser instruction set: it says so, and answers within rounding."""
    cases = {name: CASES[name] for name in ("small", "integers", "sequences")}
    answers = export(tmp_path, cases)
    lesser = usable()[usable().index(host_target().name) + 1]
    found, said = import_elsewhere(tmp_path, OVJIT_ISA=lesser)
    assert [loaded for _, loaded, _ in found.values()] == [False] * len(cases)
    lines = [
        line
        for line in said.splitlines()
        if "the blob's object code is not used, its model is compiled again" in line
    ]
    here = host_target().name
    assert len(lines) == len(cases) and all(here in line and lesser in line for line in lines), said
    for name, values in answers.items():
        for i, wanted in enumerate(values):
            with np.load(tmp_path / f"{name}.{i}.out.npz") as got:
                for k, value in enumerate(wanted):
                    np.testing.assert_allclose(got[f"arr_{k}"], value, 1e-5, 1e-6, err_msg=name)


def with_header(content: bytes, change) -> bytes:
    """The blob as the key's holder would have made it with another header."""
    sections = dict(Container(memoryview(content)).sections)
    header = parse(sections["header"], "header")
    change(header)
    return write_container({**sections, "header": dump(header)}, user_key())


@pytest.mark.parametrize("name", ["convolutions", "integers", "digits dynamic", "data_dependent"])
def test_a_blob_of_another_version_is_compiled(name: str, caplog) -> None:
    case = CASES[name]
    model = ovjit.Core().compile_model(case.build(), "CPU")
    content = model.export_model().getvalue()
    for field, value in (("ovjit", "0.0.9"), ("llvmlite", "0.1"), ("generators", "0" * 64), ("cpu", "i386")):

        def change(header: dict, field=field, value=value) -> None:
            assert header["machine"][field] != value
            header["machine"][field] = value

        caplog.clear()
        with caplog.at_level(logging.WARNING, "ovjit"):
            other = ovjit.Core().import_model(with_header(content, change), "CPU")
        assert not other.get_property("LOADED_FROM_CACHE")
        assert len(caplog.records) == 1 and field in caplog.text and value in caplog.text
        for feed in case.feeds:
            assert digest(list(other(feed).values())) == digest(list(model(feed).values())), field
        again = ovjit.Core().import_model(other.export_model().getvalue(), "CPU")
        assert again.get_property("LOADED_FROM_CACHE")


@pytest.mark.parametrize(
    "variable", ["OVJIT_SKIP=fuse", "OVJIT_WINOGRAD=0", "OVJIT_INTERP=1", "OVJIT_COMPARE=1"]
)
def test_variables_that_change_programs_keep_blobs_apart(
    variable: str, monkeypatch, caplog, tmp_path
) -> None:
    """A blob made under a variable that changes programs is not used without it, nor is a cached model."""
    name, _, value = variable.partition("=")
    model = ovjit.Core().compile_model(CASES["convolutions"].build(), "CPU", {"CACHE_DIR": tmp_path})
    with monkeypatch.context() as patch:
        patch.setenv(name, value)
        build = CASES["convolutions"].build
        changed = ovjit.Core().compile_model(build(), "CPU", {"CACHE_DIR": tmp_path})
        content = changed.export_model().getvalue()
        assert not changed.get_property("LOADED_FROM_CACHE")
        assert ovjit.Core().import_model(content, "CPU").get_property("LOADED_FROM_CACHE")
    with caplog.at_level(logging.WARNING, "ovjit"):
        found = ovjit.Core().import_model(content, "CPU")
    assert not found.get_property("LOADED_FROM_CACHE") and variable in caplog.text
    feed = CASES["convolutions"].feeds[0]
    assert digest(list(found(feed).values())) == digest(list(model(feed).values()))


# --- forged constants


def with_same_checksum(packed: np.ndarray, place: int, by: int) -> None:
    """Change four 64-bit words from word `place` on so that the sums of rows and columns stay."""
    words = packed.view(np.int64)
    for offset, change in ((0, by), (1, -by), (1024, -by), (1025, by)):
        words[place + offset] += change


def indexed(kind: str) -> ovjit.Model:
    """A model with a table of 4,096 indices, all 3, as a constant."""
    data = opset8.parameter([64, 64], np.float32, name="data")
    where = np.full((64, 64), 3, np.int64)
    axis = opset8.constant(np.int64(0))
    updates = opset8.constant(np.ones((64, 64), np.float32))
    pairs = opset8.constant(where.reshape(2048, 2))
    if kind == "gather":
        node = opset8.gather(data, opset8.constant(where + np.arange(64) % 2), axis)
    elif kind == "gather_elements":
        node = opset8.gather_elements(data, opset8.constant(where), 0)
    elif kind == "gather_nd":
        node = opset8.gather_nd(data, pairs)
    elif kind == "scatter_update":
        flat = opset8.constant(where.reshape(-1))
        node = opset8.scatter_update(data, flat, opset8.constant(np.ones((4096, 64), np.float32)), axis)
    elif kind == "scatter_nd_update":
        node = opset8.scatter_nd_update(data, pairs, opset8.constant(np.ones(2048, np.float32)))
    elif kind == "scatter_elements_update":
        node = opset8.scatter_elements_update(data, opset8.constant(where), updates, axis)
    else:
        node = ovjit.opset12.scatter_elements_update(data, opset8.constant(where), updates, axis, "sum")
    return ovjit.Model([node], [data], kind)


@pytest.mark.parametrize("by", [64 - 3, 2**40, 2**61, -(2**40), -(2**62)])
@pytest.mark.parametrize(
    "kind",
    ["gather", "gather_elements", "gather_nd", "scatter_update", "scatter_nd_update",
     "scatter_elements_update", "scatter_elements_sum"],
)  # fmt: skip
def test_forged_indices_reach_no_foreign_memory(kind: str, by: int) -> None:
    """Kernels check every index, though the key authenticates what is in the blob."""
    x = np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32)
    model = ovjit.Core().compile_model(indexed(kind), "CPU")
    right = model(x)[0]
    content = model.export_model().getvalue()
    sections = Container(memoryview(content)).sections
    packed = np.frombuffer(sections["packed"], np.uint8).copy()
    words = packed[: packed.size // 8 * 8].view(np.int64)
    rows = words[: words.size // 1024 * 1024].reshape(-1, 1024)
    places = np.flatnonzero(
        (np.abs(rows[:-1, :-1]) < 5) & (rows[:-1, :-1] > 2) & (rows[1:, 1:] > 2) & (np.abs(rows[1:, 1:]) < 5)
    )
    row, column = divmod(int(places[0]), 1023)
    with_same_checksum(packed[: packed.size // 8 * 8], row * 1024 + column, by)
    forged = write_container({**sections, "packed": packed}, user_key())
    other = ovjit.Core().import_model(forged, "CPU")
    assert other.get_property("LOADED_FROM_CACHE")  # the key authenticates what was forged
    if kind == "gather":  # zeros for what is not there
        found = other(x)[0]
        changed = (found != right).reshape(-1, 64).any(axis=1)
        assert 1 <= changed.sum() <= 4 and (found.reshape(-1, 64)[changed] == 0).all(axis=1).any()
    else:
        with pytest.raises(RuntimeError, match="index is out of range"):
            other(x)


# --- weights stored once


def panels_of(content: bytes) -> list:
    """The rows of arrays in the blob's graph that refer to panels."""
    tables = parse(Container(memoryview(content)).sections["graph"], "graph")
    rows = [
        value["a"]
        for node in tables["nodes"]
        for value in node[5].values()
        if type(value) is dict and "a" in value
    ]
    return [row for row in rows if len(row) == 5]


def tiled() -> ovjit.Model:
    """Weights of all arrangements: planar, grouped with a narrow last panel, shuffled, matrices both ways."""
    rng = np.random.default_rng(8)

    def weights(*shape: int):
        return opset8.constant((rng.normal(size=shape) / 8).astype(np.float32))

    a = opset8.parameter([1, 3, 20, 20], np.float32, name="a")
    x = opset8.convolution(a, weights(48, 3, 5, 3), [2, 2], [1, 1], [1, 1], [1, 1])
    x = opset8.group_convolution(x, weights(2, 37, 24, 3, 2), [1, 1], [1, 1], [1, 1], [1, 1])
    x = opset8.convolution(x, weights(40, 74, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    x = opset8.shuffle_channels(x, 1, 2)
    x = opset8.group_convolution(x, weights(2, 33, 20, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1])
    x = opset8.reduce_mean(x, opset8.constant(np.array([2, 3])), False)
    x = opset8.matmul(opset8.matmul(x, weights(66, 130), False, False), weights(19, 130), False, True)
    return ovjit.Model([x], [a], "tiled")


def test_weights_are_stored_once_and_restored_to_the_bit(caplog) -> None:
    model = ovjit.Core().compile_model(tiled(), "CPU")
    content = model.export_model().getvalue()
    assert len(panels_of(content)) >= 5
    sizes = {kind: len(part) for kind, part in Container(memoryview(content)).sections.items()}
    assert sizes["weights"] < sizes["packed"] / 4
    before, after = model._executable.graph, ovjit.Core().import_model(content, "CPU")._executable.graph
    for mine, other in zip(before.nodes, after.nodes, strict=True):
        for name, value in mine.attrs.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(other.attrs[name], value, strict=True)
    x = np.random.default_rng(1).normal(size=(1, 3, 20, 20)).astype(np.float32)
    with caplog.at_level(logging.WARNING, "ovjit"):
        stranger = ovjit.Core().import_model(
            write_container(Container(memoryview(content)).sections, bytes(range(32))), "CPU"
        )
    assert "another user's key" in caplog.text
    assert np.array_equal(stranger(x)[0], model(x)[0])


@pytest.mark.parametrize("special", [None, -0.0, 1e-40, np.inf, np.nan, np.finfo(np.float32).tiny])
def test_special_weights_are_restored_to_the_bit(special) -> None:
    """Packing changes subnormal numbers, so such weights are stored as they are."""
    w = np.random.default_rng(8).normal(size=(512, 600)).astype(np.float32)
    w[7, 5] = w[7, 5] if special is None else special
    a = opset8.parameter([2, 512], np.float32, name="a")
    model = ovjit.Model([opset8.matmul(a, opset8.constant(w), False, False)], [a])
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    content = ovjit.Core().compile_model(model, "CPU", config).export_model().getvalue()
    assert bool(panels_of(content)) == (special != 1e-40)
    graph = ovjit.Core().import_model(content, "CPU")._executable.graph
    (restored,) = (node.output.constant for node in graph.nodes if node.op.role == "constant")
    assert restored.tobytes() == w.tobytes()


def test_weights_of_open_shapes_are_stored_once() -> None:
    w = np.random.default_rng(8).normal(size=(64, 600)).astype(np.float32)
    a = opset8.parameter(ovjit.PartialShape([-1, 64]), np.float32, name="a")
    model = ovjit.Model([opset8.matmul(a, opset8.constant(w), False, False)], [a])
    compiled = ovjit.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    content = compiled.export_model().getvalue()
    assert len(Container(memoryview(content)).sections["weights"]) < 4096
    again = ovjit.Core().import_model(content, "CPU")
    for rows in (1, 3, 77):
        x = np.random.default_rng(rows).normal(size=(rows, 64)).astype(np.float32)
        assert np.array_equal(again(x)[0], compiled(x)[0])
    assert again._executable.graph.nodes[0].op.name == compiled._executable.graph.nodes[0].op.name


def test_panels_of_strangers_are_checked() -> None:
    """Numbers of the rearrangement, changed one after the other: refused, or another model's weights."""
    content = ovjit.Core().compile_model(tiled(), "CPU").export_model().getvalue()
    sections = dict(Container(memoryview(content)).sections)
    refused = tried = 0
    for value in (-1, 0, 1, 7, 2**31, 2**62, 2**63, 1.5, "1", None, True, [1]):
        for part in range(4):
            tables = parse(sections["graph"], "graph")
            rows = [v["a"] for n in tables["nodes"] for v in n[5].values() if type(v) is dict and "a" in v]
            row = next(r for r in rows if len(r) == 5)
            row[4][part][-1] = value
            tried += 1
            forged = write_container({**sections, "graph": dump(tables)}, bytes(range(32)))
            try:
                ovjit.Core().import_model(forged, "CPU")
            except RuntimeError as error:
                assert "blob" in str(error)
                refused += 1
    assert refused > tried * 0.9, (refused, tried)
