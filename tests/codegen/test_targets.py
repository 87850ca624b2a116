"""Code for any target is printed in any process, several in one, as a process of that target does."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

import ovjit as ov
from ovjit import compiler
from ovjit.codegen.cpu import targets
from ovjit.codegen.cpu.formats import F32, tile_heights
from ovjit.codegen.cpu.host import best_target, check_runs, host_target
from ovjit.codegen.cpu.targets import EXTRA, Target, has_features, target_of
from ovjit.codegen.kernel import Kernel
from ovjit.codegen.loading import addresses
from ovjit.compiler.options import Options
from ovjit.errors import UnsupportedError
from ovjit.graph.graph import Graph
from tests.support.run import printed

SEED = 20261123
#: What CPUs have that OpenVINO is mostly run on.
EXTRAS = {
    "avx512": ("avx512vnni",), "avx2": (), "neon": ("lse", "dotprod", "i8mm", "bf16", "fp16fml"),
    "generic": (),
}  # fmt: skip
#: Those of CPUs, which have tiles.
TARGETS = {name: target for name, target in targets.TARGETS.items() if not target.is_gpu}
#: In the LLVM text of a tile for f32: its accumulators.
VECTORS = {name: f"<{target.lanes} x float>" for name, target in TARGETS.items()}
#: In the machine code of a tile of f32: how it multiplies and adds.
WORDS = {"avx512": "vfmadd231ps\t", "avx2": "vfmadd231ps\t", "neon": "fmla\tv", "generic": "mulps\t"}


def network() -> Graph:
    """A network of what depends on a target: tiles, depthwise, reductions, attention, elementwise."""
    op, rng = ov.opset13, np.random.default_rng(SEED)

    def weights(*shape: int) -> ov.Node:
        return op.constant(rng.standard_normal(shape, np.float32))

    x = op.parameter([1, 3, 24, 24], np.float32)
    y = op.relu(op.convolution(x, weights(32, 3, 3, 3), [2, 2], [1, 1], [1, 1], [1, 1]))
    y = op.group_convolution(y, weights(32, 1, 1, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    y = op.divide(op.swish(y), op.constant(np.float32(6)))
    y = op.reshape(y, op.constant(np.array([1, 144, 32])), False)
    y = op.scaled_dot_product_attention(y, y, y)
    y = op.matmul(op.reduce_mean(y, op.constant(np.array([1])), False), weights(32, 40), False, False)
    return ov.Model([op.softmax(y, 1)], [x], "targets")._graph()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def kernels_for(target: Target) -> list[Kernel]:
    return compiler.compile(network(), target, Options.of({}, target)).kernels


def printed_for(target: Target) -> dict[str, list[str]]:
    """kernel -> its source and its LLVM text, both as digests."""
    found = {}
    for kernel in kernels_for(target):
        found[kernel.name] = [digest(kernel.source + kernel.key), digest(kernel.text(target))]
    return found


HERE = """
import json
from ovjit.codegen.cpu.host import host_target
from tests.codegen.test_targets import printed_for
print(json.dumps([host_target(), printed_for(host_target())]))
"""


def in_a_process_of_its_own(name: str) -> tuple[list, dict[str, list[str]]]:
    hidden = ",".join(f for f, of in EXTRA.items() if of == name and f not in EXTRAS[name])
    target, found = json.loads(printed("-c", HERE, OVJIT_ISA=name, OVJIT_HIDE=hidden))
    return target, found


def usable(name: str) -> bool:
    """Whether a process of this instruction set can be had here, with EXTRAS."""
    try:
        check_runs(target_of(name, EXTRAS[name]))
    except UnsupportedError:
        return False
    return True


def test_targets_side_by_side_print_what_processes_of_their_own_do() -> None:
    here = {name: printed_for(target_of(name, EXTRAS[name])) for name in ("avx512", "avx2", "generic")}
    sources = [{source for source, _ in found.values()} for found in here.values()]
    assert not set.intersection(*({text for _, text in found.values()} for found in here.values()))
    assert set.intersection(*sources), "kernels that are the same for all"
    assert "generic" in [name for name in here if usable(name)]
    for name in filter(usable, here):
        target, there = in_a_process_of_its_own(name)
        assert target[0] == name and target[-1] == list(EXTRAS[name])
        assert there == here[name], name


@pytest.mark.parametrize("name", list(TARGETS))
def test_every_target_is_printed_here(name: str) -> None:
    """Its text and its machine code, whatever this machine is."""
    target = target_of(name, EXTRAS[name])
    (tile,) = (k for k in kernels_for(target) if k.name.startswith("matmul_f32"))
    assert VECTORS[name] in tile.text(target)
    assert WORDS[name] in tile.assembly(target)
    height = tile_heights(target, F32)[0]
    assert f"_{height}x{target.tile_vectors * target.lanes}_{name}" in tile.name


@pytest.mark.parametrize("name", list(TARGETS))
def test_kernels_of_each_target_have_names_of_their_own(name: str) -> None:
    plain, more = target_of(name), target_of(name, [f for f, of in EXTRA.items() if of == name])
    (tile,) = (k for k in kernels_for(plain) if k.name.startswith("matmul_f32"))
    symbols = {tile.symbol(target) for target in (*TARGETS.values(), plain, more)}
    assert len(symbols) == len(TARGETS) + (plain != more)


def test_code_that_this_cpu_does_not_run_is_not_loaded() -> None:
    foreign = next(t for t in (target_of("neon"), target_of("avx512")) if t.machine != host_target().machine)
    kernels = kernels_for(foreign)
    with pytest.raises(UnsupportedError, match=f"code for {foreign.name} does not run on this CPU"):
        addresses(kernels[:1], target=foreign)


def test_code_of_a_lesser_target_runs_beside_that_of_this_cpu() -> None:
    """The same kernel for two targets in one process, at two addresses."""
    lesser = target_of("generic", machine=host_target().machine)
    (kernel,) = (k for k in kernels_for(lesser) if k.name.startswith("softmax"))
    (mine,), (other,) = (addresses([kernel], target=t).values() for t in (host_target(), lesser))
    assert (mine == other) == (best_target() == "generic")


def test_features_of_others_are_no_features() -> None:
    assert has_features(target_of("avx512", ["avx512vnni"]), ["avx512vnni"])
    assert not has_features(target_of("avx512"), ["avx512vnni"])
    assert target_of("avx2", ["avx512vnni"]).extras == ()
    assert not has_features(target_of("avx2", ["avx512vnni"]), ["avx512vnni"])
    with pytest.raises(ValueError, match="amx-tile: source that depends on it"):
        has_features(target_of("avx512"), ["amx-tile"])
