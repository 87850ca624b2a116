"""Looking inside: what OVJIT_DEBUG prints, interpretation, and steps beside their references."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import debug
from ovjit.data import digits
from ovjit.errors import InferenceError
from ovjit.execution import watch
from ovjit.graph import op as registry
from tests.support import ROOT
from tests.support.compiled import float_types


@pytest.fixture(autouse=True)
def no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in debug.FLAGS:
        if name not in ("OVJIT_CACHE", "OVJIT_KEY", "OVJIT_PRECISION"):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def odd() -> Iterator[None]:
    """An operation that has a reference and nothing else."""

    def infer(data: registry.TensorType) -> registry.TensorType:
        return registry.TensorType(data.dtype, data.shape)

    record = registry.register(registry.Op("Odd", 1, infer, lambda data: data % 2 == 1))
    yield
    registry.unregister(record)


def small_model() -> ov.Model:
    """relu(convolution(x) + x * 2), then an operation that has no native lowering."""
    x = ov.opset8.parameter([1, 4, 5, 6], np.float32, name="x")
    filters = np.random.default_rng(1).standard_normal((4, 4, 1, 1)).astype(np.float32)
    weights = ov.opset8.constant(filters)
    convolved = ov.opset8.convolution(x, weights, [1, 1], [0, 0], [0, 0], [1, 1], name="conv")
    total = ov.opset8.add(convolved, ov.opset8.multiply(x, ov.opset8.constant(np.float32(2))), name="total")
    y = ov.opset8.relu(total, name="rectified")
    return ov.Model([y.output(0), ov.opset8.odd(y, name="odd").output(0)], [x], "small")


def small_input() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((1, 4, 5, 6)).astype(np.float32)


def test_flags_are_declared_once_and_explained() -> None:
    """The variables that the code reads, those that are declared, and those on the page are the same."""
    read: set[str] = set()
    for folder in ("ovjit", "ovjit_ops"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "debug.py":
                read |= set(re.findall(r'"(OVJIT_[A-Z]+)"', path.read_text()))
    read |= {"OVJIT_DEBUG", "OVJIT_SKIP"}  # by functions of debug.py
    page = set(re.findall(r"^### `(OVJIT_[A-Z]+)", (ROOT / "docs" / "debugging.md").read_text(), re.M))
    assert read == set(debug.FLAGS)
    assert page == set(debug.FLAGS)


def test_level_1_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ov.compile_model(small_model())
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("OVJIT_DEBUG", "1")
    ov.compile_model(small_model())
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    counts = r"\d+ kernels \(0 compiled, 0 from the cache, 0 shipped, \d+ known\); "
    assert re.match(r"ovjit: compiled in \d+\.\d ms; " + counts, line)
    assert line.endswith("steps, 1 by NumPy: odd (Odd)")


def test_level_2_has_the_plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OVJIT_DEBUG", "2")
    compiled = ov.compile_model(digits()[0])
    said = capsys.readouterr().err
    assert "steps depend on shapes, all native" in said and "plan for" not in said
    compiled(digits()[1][:3])
    said = capsys.readouterr().err.splitlines()
    steps = int(re.match(r"ovjit: plan for 3x1x8x8: (\d+) steps, arena of \d+ bytes", said[0])[1])  # type: ignore[index]
    assert len(said) == 1 + steps
    assert any("conv_f32" in line and "Mflop" in line for line in said)
    compiled(digits()[1][:3])
    assert capsys.readouterr().err == "", "a known shape is not planned again"


def test_level_3_has_the_graph_after_every_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ovjit.compiler.pass_pipeline import PIPELINE

    monkeypatch.setenv("OVJIT_DEBUG", "3")
    monkeypatch.setenv("OVJIT_SKIP", "weights")
    x = ov.opset8.parameter([8], np.float32, name="x")
    folded = ov.opset8.exp(ov.opset8.constant(np.zeros(8, np.float32)), name="folded")
    ov.compile_model(ov.Model(ov.opset8.relu(ov.opset8.add(x, folded), name="y"), [x]))
    said = capsys.readouterr().err
    for name in (*PIPELINE["capture"], *PIPELINE["graph"]):
        assert (f"ovjit: pass {name}:" in said) == (name != "weights")
    before, _, after = said.partition("ovjit: pass fold:")
    assert "%folded: f32[8] = Exp(" in before
    assert "= Exp(" not in after
    assert "fused into 1 groups\n  Add+Relu %y" in after


def counting_model() -> ov.Model:
    """The sum of all inputs so far."""
    o = ov.opset13
    x = o.parameter([2, 3], np.float32, name="x")
    info = ov.op.util.VariableInfo()
    info.data_shape, info.data_type, info.variable_id = ov.PartialShape([2, 3]), ov.Type.f32, "total"
    variable = ov.op.util.Variable(info)
    total = o.add(o.read_value(o.constant(np.zeros((2, 3), np.float32)), variable), x, name="total")
    return ov.Model([o.result(total)], [o.assign(total, variable)], [x])


def test_passes_before_the_compiler_are_shown_checked_and_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ovjit.compiler import pass_pipeline

    checked: list[Any] = []
    verify = pass_pipeline.verify
    monkeypatch.setattr(pass_pipeline, "verify", lambda graph: (checked.append(graph), verify(graph)))
    monkeypatch.setenv("OVJIT_DEBUG", "3")
    monkeypatch.setenv("OVJIT_CHECK", "1")
    ov.compile_model(counting_model())
    said = capsys.readouterr().err
    stages = ("capture", "state", "graph")
    places = [
        said.index(f"ovjit: pass {name}:") for stage in stages for name in pass_pipeline.PIPELINE[stage]
    ]
    assert places == sorted(places)
    before, _, after = said.partition("ovjit: pass lift:")
    assert "Assign" not in after.partition("ovjit: pass")[0] and "pass lift" not in before
    assert len(checked) >= len(places)
    monkeypatch.setenv("OVJIT_SKIP", "keep_low")
    request = ov.compile_model(counting_model()).create_infer_request()
    assert "ovjit: pass keep_low:" not in capsys.readouterr().err
    for turn in (1, 2):
        assert (request.infer([np.ones((2, 3), np.float32)])[0] == turn).all()


@pytest.mark.parametrize("name", ["lift", "weigths"])
def test_passes_that_cannot_be_skipped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_SKIP", f"fuse,{name}")
    with pytest.raises(ValueError, match=f"OVJIT_SKIP={name} is not valid: give passes that .* weights"):
        ov.compile_model(small_model())


def test_levels_4_and_5_have_sources_and_assembly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also OVJIT_DUMP. The number makes it a kernel that this process has not loaded."""
    monkeypatch.setenv("OVJIT_DEBUG", "5")
    monkeypatch.setenv("OVJIT_DUMP", str(tmp_path / "dump"))
    x = ov.opset8.parameter([8], np.float32, name="x")
    number = 127.0  # divisors that models share are printed into kernels
    ov.compile_model(ov.Model(ov.opset8.divide(x, ov.opset8.constant(np.float32(number)), name="y"), [x]))
    said = capsys.readouterr().err
    assert "ovjit: kernel divide_f32, ovjit_" in said
    assert f"const_f32({number})" in said and "def kernel(bases, args, chunk, scratch):" in said
    assert ".text" in said and re.search(r"\bretq?\b", said)
    sources = [path.read_text() for path in (tmp_path / "dump").glob("divide_f32_*.py")]
    assert len(sources) == 1 and f"const_f32({number})" in sources[0]


def test_a_level_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_DEBUG", "yes")
    with pytest.raises(ValueError, match="OVJIT_DEBUG=yes"):
        ov.compile_model(small_model())


def test_interpretation(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel runs, and the answers are those of the native program, asynchronously too."""
    native = ov.compile_model(small_model())(small_input())
    monkeypatch.setenv("OVJIT_INTERP", "1")
    compiled = ov.Core().compile_model(small_model(), "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    request.start_async(small_input())
    request.wait()
    rows = request.get_profiling_info()
    assert {row.exec_type for row in rows} == {"ref_numpy"}
    assert [row.node_type for row in rows] == ["Convolution", "Multiply", "Add", "Relu", "Odd"]
    for mine, other in zip(request.results.values(), native.values(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)


def test_skipping_fusion(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = ov.compile_model(small_model())(small_input())[0]
    monkeypatch.setenv("OVJIT_SKIP", "fuse")
    compiled = ov.Core().compile_model(small_model(), "CPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    apart = request.infer(small_input())[0]
    kinds = [row.node_type for row in request.get_profiling_info() if row.node_type != "Reorder"]
    assert sorted(kinds) == ["Add", "Convolution", "Multiply", "Odd", "Relu"]
    np.testing.assert_allclose(apart, fused, rtol=1e-5, atol=1e-5)


def test_flags_that_change_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVJIT_PRECISION", raising=False)
    assert debug.program_flags() == ()
    monkeypatch.setenv("OVJIT_SKIP", "fuse,weights")
    monkeypatch.setenv("OVJIT_DEBUG", "1")
    assert debug.program_flags() == ("OVJIT_SKIP=fuse,weights",)


# --- beside the reference


def test_compare_digits(capsys: pytest.CaptureFixture[str]) -> None:
    xml, images, _ = digits()
    rows = ov.compare(xml, images[:5])
    said = capsys.readouterr().out
    assert [row.name for row in rows if row.type == "output"] == ["aten::softmax/Softmax"]
    assert {"Convolution", "GroupConvolution", "MaxPool", "MatMul", "Softmax"} <= {row.type for row in rows}
    for row in rows:
        assert 0 <= row.error <= 1e-5 and 0 <= row.total <= 1e-5, row
        assert row.name in said and row.kernel in said
    assert any(row.error > 0 for row in rows), "native and NumPy round alike everywhere?"


@pytest.mark.skipif("bf16" not in float_types(), reason="this CPU has no products of bf16")
def test_compare_digits_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that read bf16 and f32 have a reference too; what they give is stored as the step stores it."""
    monkeypatch.setenv("OVJIT_PRECISION", "bf16")
    xml, images, _ = digits()
    rows = ov.compare(xml, images[:5], show=None)
    steps = [row for row in rows if row.type != "output"]
    assert any("bf16" in row.kernel for row in steps)
    assert all(row.error <= row.limit for row in steps), steps


def test_compare_where_a_value_is_never_written() -> None:
    """The convolution reads the shuffle's source in another order, so that no step writes the shuffle."""
    x = ov.opset8.parameter([1, 8, 3, 5], np.float32, name="x")
    shuffled = ov.opset8.shuffle_channels(ov.opset8.relu(x, name="relu"), 1, 2, name="shuffled")
    filters = np.random.default_rng(4).standard_normal((6, 8, 1, 1)).astype(np.float32)
    weights = ov.opset8.constant(filters)
    y = ov.opset8.convolution(shuffled, weights, [1, 1], [0, 0], [0, 0], [1, 1], name="conv")
    data = np.random.default_rng(5).standard_normal((1, 8, 3, 5)).astype(np.float32)
    rows = ov.compare(ov.Model([y.output(0)], [x]), [data], show=None)
    assert [row.name for row in rows if row.name != "shuffled"] == ["relu", "conv", "conv"]
    assert max(row.error for row in rows) < 1e-6


@pytest.fixture
def wrong_operation() -> Iterator[Any]:
    """An operation whose native body is off by a thousandth where x > 1."""
    from ovjit.codegen import trace
    from ovjit_ops.elementwise.arithmetic import REALS, unary

    record = unary("Wrong", lambda x: x * 2, lambda x: trace.where(x > 1, x * 2.002, x * 2), types=REALS)
    yield record
    registry.unregister(record)


def wrong_model() -> ov.Model:
    x = ov.opset8.parameter([4, 9], np.float32, name="x")
    small = ov.opset8.wrong(ov.opset8.softmax(x, 1, name="before"), name="culprit")
    y = ov.opset8.softmax(small, 1, name="after")
    both = ov.opset8.wrong(x, name="real culprit")
    return ov.Model([ov.opset8.transpose(both, [1, 0], name="late").output(0), y.output(0)], [x])


def test_compare_finds_the_culprit(wrong_operation: Any, capsys: pytest.CaptureFixture[str]) -> None:
    data = np.random.default_rng(3).standard_normal((4, 9)).astype(np.float32)
    data[2, 5] = 4
    rows = {row.name: row for row in ov.compare(wrong_model(), {"x": data}) if row.type != "output"}
    beyond = [row for row in rows.values() if row.error > row.limit]
    assert [row.name for row in beyond] == ["real culprit"], "in the other place x is never above 1"
    (found,) = beyond
    assert found.at == (2, 5) and np.isclose(found.error, 1e-3, rtol=1e-2)
    assert np.isclose(found.got, 8.008) and np.isclose(found.want, 8)
    marked = [line for line in capsys.readouterr().out.splitlines() if line.startswith("!")]
    assert len(marked) == 2, "the step, and the model's output that it makes wrong"


def test_stop_at_the_first_difference(wrong_operation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVJIT_COMPARE", "1")
    data = np.full((4, 9), 0.5, np.float32)
    request = ov.compile_model(wrong_model()).create_infer_request()
    request.infer({"x": data})  # nothing is off here
    data[1, 2] = 2
    with pytest.raises(InferenceError, match=r"'real culprit' \(Wrong, wrong_f32\).* at \[1, 2\] .* 4.004"):
        request.infer({"x": data})
    request.start_async({"x": data})
    with pytest.raises(InferenceError, match="real culprit"):
        request.wait()
    data[1, 2] = 0
    np.testing.assert_allclose(request.infer({"x": data})[0], data.T * 2)


def test_largest_error() -> None:
    def error(got: Any, want: Any, dtype: str = "f4") -> tuple[float, tuple[int, ...]]:
        return watch.largest_error(np.array(got, dtype), np.array(want, dtype))

    nan, inf = np.nan, np.inf
    assert error([1, nan, inf, -inf], [1, nan, inf, -inf]) == (0.0, (0,))
    assert error([1, 2], [1, nan]) == (inf, (1,))
    assert error([1, inf], [1, -inf]) == (inf, (1,))
    assert error([1, 5], [1, 4]) == (0.25, (1,))
    assert error([1e-3, 0], [0, 0]) == (pytest.approx(1e-3), (0,))
    assert error([2**62 + 1], [2**62], "i8")[0] > 0
    assert error([True, False], [True, True], "?") == (1.0, (1,))
    assert error([], []) == (0.0, ())
    assert error([1], [[1]])[0] == inf
