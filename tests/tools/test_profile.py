"""The per-kernel table and the measured roofline: numbers that add up and that a machine can make."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen import loading
from ovjit.codegen.cpu import objects
from ovjit.codegen.cpu.formats import F32
from ovjit.codegen.cpu.host import host_target
from ovjit.data import digits
from ovjit.execution.table import Row
from ovjit.tools import profile, roofline
from tests.support.compiled import float_types
from tests.support.run import printed

DIGITS = (16, 1, 8, 8)


@pytest.fixture(scope="module")
def measured() -> roofline.Roofline:
    return roofline.measure(1)


def test_the_roofline_is_a_machines(measured: roofline.Roofline) -> None:
    """Orders of magnitude, from the slowest virtual machine to the fastest core."""
    assert measured.isa == host_target().name
    clock = measured.flops / (4 * host_target().lanes)  # at two vector operations a cycle
    assert 0.1e9 < clock < 10e9
    assert [level.name for level in measured.levels][0] == "L2"
    assert measured.levels[-1].size == math.inf
    assert all(1e9 < level.bandwidth < 4e12 for level in measured.levels)
    assert roofline.measure(1) is measured


def test_kernels_compute_what_is_timed() -> None:
    """The sums that they store are those of the work that is counted."""
    lanes = host_target().lanes
    address = loading.addresses((roofline.dot_kernel(F32), roofline.stream_kernel()))
    dot, stream = (objects.function(a, 4) for a in address.values())
    y = np.zeros(2 * lanes + roofline.ACCUMULATORS, np.float32)
    y[:lanes], y[lanes : 2 * lanes] = 1, 2
    y[2 * lanes :] = 3
    first = [y[i : i + lanes].copy() for i in range(roofline.ACCUMULATORS)]
    turns = 5
    wanted = sum(acc + turns * y[:lanes] * y[lanes : 2 * lanes] for acc in first)
    bases, args = np.array([y.ctypes.data]), np.array([0, 0, turns])
    assert dot(bases.ctypes.data, args.ctypes.data, 0, 0) == 0
    np.testing.assert_array_equal(y[:lanes], wanted)

    x = np.arange(3 * roofline.STREAMS * lanes, dtype=np.float32)
    y = np.zeros(lanes, np.float32)
    bases, args = np.array([x.ctypes.data, y.ctypes.data]), np.array([0, 0, 1, 0, x.nbytes, 2])
    assert stream(bases.ctypes.data, args.ctypes.data, 0, 0) == 0
    np.testing.assert_array_equal(y, 2 * x.reshape(-1, lanes).sum(0) + roofline.STREAMS * x[:lanes])


def test_cache_sizes(tmp_path: Path) -> None:
    assert roofline.cache_sizes(tmp_path / "none") == (roofline.L2_BYTES, 0)
    for index, (level, size) in enumerate([(1, "48K"), (1, "32K"), (2, "2048K"), (3, "1G")]):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "level").write_text(f"{level}\n")
        (folder / "size").write_text(f"{size}\n")
    assert roofline.cache_sizes(tmp_path) == (2 << 20, 1 << 30)


def test_share_is_the_larger_one() -> None:
    made = roofline.Roofline(
        "generic", 1, 100e9, (roofline.Level("L2", 1000, 50e9), roofline.Level("memory", math.inf, 10e9))
    )
    assert made.bandwidth(1000) == 50e9
    assert made.bandwidth(1001) == 10e9
    assert made.share(50, 0, 1e-9) == pytest.approx(0.5)
    assert made.share(50, 1000, 25e-9) == pytest.approx(0.8)
    assert made.share(5, 2000, 400e-9) == pytest.approx(0.5)
    assert made.share(5, 5, 0) == 0


def test_steps_carry_their_format(tmp_path: Path) -> None:
    """A blob's too: its kernels are known by name, format and code alone."""
    x = ov.opset13.parameter([8, 64], np.float32)
    weights = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)
    model = ov.Model([ov.opset13.relu(ov.opset13.matmul(x, weights, False, False)).output(0)], [x])
    core, config = ov.Core(), {"INFERENCE_PRECISION_HINT": "bf16", "PERF_COUNT": True}
    low = "amx_bf16" if "amx-bf16" in host_target().extras else "bf16" if "bf16" in float_types() else "f32"
    compiled = core.compile_model(model, "CPU", config)
    for one in (compiled, core.import_model(compiled.export_model(), "CPU", config)):
        request = one.create_infer_request()
        request.infer([np.ones((8, 64), np.float32)])
        forms = {row.node_type: row.form for row in request._job.profile()}
        assert forms["MatMul"] == low


def test_totals_by_kernel() -> None:
    made = roofline.Roofline("generic", 1, 100e9, (roofline.Level("memory", math.inf, 10e9),))
    rows = [
        Row("a", "Convolution", "conv", "EXECUTED", 0, 0, (), 60_000, 100),
        Row("b", "MaxPool", "pool", "EXECUTED", 0, 0, (), 0, 2_000),
        Row("c", "Convolution", "conv", "EXECUTED", 0, 0, (), 20_000, 300),
        Row("d", "Reorder", "copy_i32", "EXECUTED", 0, 0, (), 500, 500),
    ]
    low = made._replace(peaks={"bf16": 200e9})
    shares = [
        profile.summarise([rows[0]._replace(form=form)], [1000], 1.0, roofline).steps[0].roofline
        for roofline in (made, low) for form in ("f32", "bf16")
    ]  # fmt: skip
    assert shares == pytest.approx([0.6, 0.6, 0.6, 0.3]), "of the peak of the step's own format"
    found = profile.summarise(rows, [1000, 400, 1000, 100], 3.0, made)
    assert [line.name for line in found.steps] == ["a", "b", "c", "d"]
    assert [(line.kernel, line.name) for line in found.kernels] == [
        ("conv", "2"),
        ("pool", "1"),
        ("copy_i32", "1"),
    ]
    conv = found.kernels[0]
    assert conv.us == pytest.approx(2.0)
    assert conv.share == pytest.approx(0.8)
    assert conv.gflops == pytest.approx(40)
    assert conv.gbytes == pytest.approx(0.2)
    assert conv.roofline == pytest.approx(0.4)
    assert found.steps[1].roofline == pytest.approx(0.5)
    assert found.least_us == pytest.approx(0.6 + 0.2 + 0.2 + 0.05), "at the roofline, every step"
    assert found.steps[3].gflops == 0, "a copy computes nothing"
    assert found.gflops == pytest.approx(80_000 / 2500)


def test_a_profile_of_given_inputs_and_properties() -> None:
    """The input decides how many values Range makes, and the hint which format multiplies."""
    count = ov.opset13.parameter([], np.int32)
    steps = ov.opset13.range(ov.opset13.constant(0), count, ov.opset13.constant(1), "f32")
    rows = ov.opset13.reshape(steps, ov.opset13.constant([-1, 64]), False)
    weights = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)
    model = ov.Model([ov.opset13.matmul(rows, weights, False, False).output(0)], [count])
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    found = [
        profile.profile(model, 1, 3, config=config, inputs=[np.array(64 * n, np.int32)]) for n in (1, 200)
    ]
    products = [line for one in found for line in one.steps if line.type == "MatMul"]
    assert [line.us * line.gflops * 1e3 for line in products] == pytest.approx([2 * 64 * 32, 400 * 64 * 32])
    assert not any("bf16" in line.kernel for line in products)


def test_profile_of_the_embedded_network() -> None:
    xml = str(digits()[0])
    found = profile.profile(xml, threads=1, runs=3, shapes=[DIGITS])
    assert sum(line.share for line in found.steps) == pytest.approx(1)
    assert sum(line.us for line in found.kernels) == pytest.approx(found.total_us)
    assert {line.kernel for line in found.steps} == {line.kernel for line in found.kernels}
    heavy = [line for line in found.steps if line.type == "Convolution"]
    if any("winograd" in line.kernel for line in heavy):
        return  # which multiplies less than the convolution is
    # by the network's own shapes: what the kernels say they do is what the convolutions are
    assert sum(line.us * line.gflops for line in heavy) == pytest.approx(
        convolution_flops(xml) / 1e3, rel=0.01
    )
    assert 0.02 < max(line.roofline for line in heavy) < 3
    text = profile.table(found)
    assert all(line.name[-20:] in text for line in found.steps)


def convolution_flops(xml: str) -> float:
    model = ov.Core().read_model(xml)
    model.reshape(list(DIGITS))
    total = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            outs, *depth = node.input(1).get_shape()
            n, _, h, w = node.output(0).get_shape()
            total += 2 * n * h * w * outs * math.prod(depth)
    return float(total)


def test_what_does_not_fit_is_said() -> None:
    xml = str(digits()[0])
    with pytest.raises(ValueError, match="1 inputs, but 2 shapes"):
        profile.profile(xml, shapes=[DIGITS, DIGITS])
    with pytest.raises(ValueError, match="the number of runs is 0"):
        profile.profile(xml, runs=0)


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main(["no such file.xml"]) == 2
    assert "does not exist" in capsys.readouterr().err
    said = printed("-m", "ovjit", "profile", digits()[0], "--runs", 2, "--shape", "4,1,8,8")
    head, *rest = said.splitlines()
    assert head.split() == ["node", "type", "kernel", "us", "share%", "GFLOP/s", "GB/s", "roofline%"]
    assert any("Softmax" in line for line in rest)
    assert rest[-1].startswith("roofline of 1 core")


def test_copies_say_why(tmp_path: Path) -> None:
    """Also in a process that imports the model, whose plans are stored."""
    ops = ov.opset13
    x = ops.parameter([1, 16, 20, 20], np.float32)
    weights = ops.constant(np.ones((16, 16, 3, 3), np.float32))
    conv = ops.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1])
    conv.set_friendly_name("conv")
    ov.save_model(ov.Model([ops.result(conv)], [x]), tmp_path / "m.xml")
    compiled = ov.compile_model(tmp_path / "m.xml", "CPU", {"PERF_COUNT": True})
    (tmp_path / "m.blob").write_bytes(compiled.export_model().getvalue())
    for one in (compiled, ov.Core().import_model((tmp_path / "m.blob").read_bytes(), "CPU")):
        request = one.create_infer_request()
        request.infer([np.ones((1, 16, 20, 20), np.float32)])
        rows = request._job.profile()
        reasons = {row.why for row in rows if row.node_type == "Reorder"}
        assert any("memory order 0, 2, 3, 1; it is in row-major order" in reason for reason in reasons)
        assert all(reasons) and not any(row.why for row in rows if row.node_type == "Convolution")
