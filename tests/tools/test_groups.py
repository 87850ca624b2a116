"""Groups of nodes cut out of models need the kernels that they need there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen import loading
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.cpu.targets import TARGETS, target_of
from ovjit.codegen.kernel import Kernel
from ovjit.execution.runner import native_kernels
from ovjit.tools import groups

o = ov.opset13
RNG = np.random.default_rng(20261125)


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def image() -> ov.Model:
    """A mean over what a convolution has laid out by channels, and a product with indices behind it."""
    x = o.parameter([1, 8, 12, 12], np.float32)
    window = ([1, 1], [1, 1], [1, 1], [1, 1])
    y = o.softplus(o.convolution(x, weights(16, 8, 3, 3), *window))
    z = o.gelu(o.multiply(y, weights(1, 16, 1, 1)), "erf")
    mean = o.reduce_mean(o.add(z, y), np.int64([2, 3]), keep_dims=True)
    rows = o.gather(o.constant(weights(40, 16)), o.constant(np.int32([3, 1])), o.constant(0))
    return ov.Model([o.add(o.reshape(mean, np.int64([1, 16]), False), rows)], [x], "image")


def quantized() -> ov.Model:
    def levels(value: object, low: float, high: float) -> object:
        ends = [o.constant(np.full((1, 1, 1, 1), end, np.float32)) for end in (low, high, low, high)]
        return o.fake_quantize(value, *ends, 256)

    x = o.parameter([1, 8, 12, 12], np.float32)
    window = ([1, 1], [0, 0], [0, 0], [1, 1])
    y = o.convolution(levels(x, 0.0, 2.55), levels(o.constant(weights(16, 8, 1, 1)), -1.28, 1.27), *window)
    return ov.Model([levels(o.relu(y), 0.0, 5.1)], [x], "quantized")


def compressed() -> ov.Model:
    """Weights with a zero point and a scale of f16 for each of many channels."""
    x = o.parameter([-1, 64], np.float32)
    whole = o.convert(o.constant(RNG.integers(0, 256, (128, 64)).astype(np.uint8)), "f16")
    zeros = o.convert(o.constant(RNG.integers(90, 160, (128, 1)).astype(np.uint8)), "f16")
    scales = o.constant(RNG.uniform(0.001, 0.01, (128, 1)).astype(np.float16))
    real = o.convert(o.multiply(o.subtract(whole, zeros), scales), "f32")
    return ov.Model([o.relu(o.matmul(x, real, False, True))], [x], "compressed")


def tied() -> ov.Model:
    """A table of embeddings that the last product reads, too, so that its rows lie in panels."""
    table = o.constant(weights(96, 64))
    x = o.parameter([1, -1], np.int32)
    rows = o.gather(table, x, o.constant(0))
    return ov.Model([o.matmul(o.tanh(rows), table, False, True)], [x], "tied")


@pytest.mark.parametrize("make", [image, quantized, compressed, tied])
def test_groups_of_a_model(make, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written and read, they need the kernels that the model's steps call; and so does the model itself."""
    monkeypatch.setenv("OVJIT_SHIPPED", "0")
    found = groups.Found(host_target())
    graph = make()._graph()
    program = groups.programs_of(graph, host_target())["f32"][0]
    found.add(program, "f32")
    assert not found.failures
    whole = groups.Found(host_target(), kind="small")
    whole.add_model(graph)
    for each, kind in ((found, "cuts"), (whole, "small")):
        path = tmp_path / "groups.xz"
        groups.write_lines(each.sorted(), path)
        assert path.stat().st_size < 2_000, "weights are kept"
        cuts = list(groups.cuts(path))
        assert {cut.kind for cut in cuts} == {kind}
        made = {kernel for cut in cuts for kernel in cut.kernels(host_target())}
        assert made >= {kernel for lowering in program.lowerings for kernel in lowering.kernels}


def cut_by_data() -> ov.Model:
    """A slice up to a computed bound. Behind the break, the bound comes from the extents of an input."""
    x = o.parameter([-1], np.float32)
    count = o.reduce_sum(o.convert(o.greater(x, np.float32(0.5)), "i32"), np.int64([0]), keep_dims=True)
    first = o.slice(x, np.int32([0]), count, np.int32([1]), np.int32([0]))
    return ov.Model([o.softmax(first, 0), o.multiply(count, np.int32(3))], [x], "cut_by_data")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> set[Kernel]:
    """The kernels that programs load from now on, without the runner's."""
    names, addresses = set[Kernel](), loading.addresses

    def noted(kernels, *arguments):
        names.update(set(kernels := list(kernels)) - set(native_kernels()))
        return addresses(kernels, *arguments)

    monkeypatch.setattr(loading, "addresses", noted)
    return names


def test_programs_of_segments(loaded: set[Kernel]) -> None:
    """What follows a graph break is compiled at run time, and its kernels are shipped with the others."""
    model = cut_by_data()
    programs = groups.programs_of(model._graph(), host_target())["f32"]
    assert len(programs) > 1
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    compiled([np.float32([1, 0, 3])])
    expected = {kernel for program in programs for kernel in program.kernels}
    assert loaded and loaded <= expected
    assert not loaded <= set(programs[0].kernels), "the whole graph has all kernels of its segments"


#: A body that Python leads, since its shapes change.
PROGRAM = """
import numpy as np
import ovjit as ov
from tests.support.control_models import growing
compiled = ov.compile_model(growing(ov, ov.opset13), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
compiled([np.ones((3, 2), np.float32), np.int64(3)])
"""


def test_groups_of_a_program(loaded: set[Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All graphs that it compiles while it runs have theirs, and all are frequent if one says so."""
    monkeypatch.setenv("OVJIT_SHIPPED", "0")
    program, path = tmp_path / "program.py", tmp_path / "groups.xz"
    program.write_text(PROGRAM)
    groups.write_lines([], path)
    assert not groups.main([str(program), "--frequent", "--into", str(path)])
    cuts = list(groups.cuts(path))
    assert {cut.kind for cut in cuts} == {groups.FREQUENT}
    computing = {kernel for kernel in loaded if not kernel.name.startswith("copy")}  # all models copy
    assert "multiply_f32" in {kernel.name for kernel in computing}
    assert computing <= {kernel for cut in cuts for kernel in cut.kernels(host_target())}


@pytest.mark.parametrize("isa", TARGETS)
def test_groups_of_the_package(isa: str) -> None:
    """Each can be read, and compiled for any target."""
    lines = groups.lines_of()
    assert len(lines) > 1000
    assert [groups._kind(line) for line in lines[:2]] == [groups.FREQUENT] * 2
    assert {json.loads(line)["precision"] for line in lines} == {"f32", "bf16", None}
    for line in lines[::90]:
        cut = groups.decode(json.loads(line))
        assert cut.kernels(TARGETS[isa]) or cut.precision == "bf16"


def test_groups_of_16_bits_are_in_the_default_type_of_the_cpu() -> None:
    """bf16 on x86-64, and f16 on AArch64, whose models would find no kernels else."""
    arm = target_of("neon", ("lse", "dotprod", "i8mm", "bf16", "fp16fml"))
    x86 = target_of("avx512", ("avx512bf16", "avx512vnni"))
    lines = [line for line in groups.lines_of() if json.loads(line)["precision"] == "bf16"]
    for line in lines[::90]:
        cut = groups.decode(json.loads(line))
        for target, half, other in ((arm, "f16", "bf16"), (x86, "bf16", "f16")):
            # products of compressed weights also name the type of their scales
            kernels = cut.kernels(target)
            plain = [re.sub(r"^(matmul_i8_[a-z0-9]+)_f16", r"\1", k.name) for k in kernels]
            names = {part for name in plain for part in name.split("_")}
            stores = any(f"_{half}(" in k.source for k in kernels)  # conversions are named by what they read
            assert (half in names or stores) and other not in names, (target.name, names)
        assert not cut.kernels(target_of("neon", ("lse", "dotprod")))
