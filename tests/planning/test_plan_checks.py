"""What planning believes is checked: a wrong lowering or caller ends in an error, never in an address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ovjit.compiler.program import Program
from ovjit.engine import compile_graph
from ovjit.errors import OvjitError
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.op import Op as Record
from ovjit.graph.op import TensorType, register, unregister
from ovjit.planning.copies import copy_kernel
from ovjit.planning.fuse import Group
from ovjit.planning.lower import Lowering, plan_copy
from ovjit.planning.plan import Constants, Planner
from ovjit.planning.views import Buffer, View, row_major
from tests.support.compiled import here, program_of


def view(*shape: int, size: int | None = None, **more: Any) -> View:
    strides = row_major(shape, 4)
    return View(Buffer(int(np.prod(shape)) * 4 if size is None else size), shape, strides, 4, **more)


@pytest.mark.parametrize("to", [(5, 3), (3,), (2, 6), (3, 2)], ids=str)
def test_views_broadcast_only_from_one(to: tuple[int, ...]) -> None:
    with pytest.raises(OvjitError, match="cannot be broadcast"):
        view(2, 3).expand(to)


def test_a_view_of_one_broadcasts() -> None:
    assert view(1, 3).expand((4, 5, 3)).strides == (0, 0, 4)


def test_reach_counts_the_halo_and_negative_strides() -> None:
    assert view(2, 3).reach == (0, 24)
    assert view(0, 3).reach == (0, 0)
    assert View(Buffer(24), (2, 3), (12, -4), 4, 8).reach == (0, 24)
    assert View(Buffer(40), (2, 3), (20, 4), 4, 4, ((0, 0), (1, 1))).reach == (0, 40)


def _plan_with(plan: Callable[[Any, Planner], None]) -> Program:
    """A program of Relu -> "Wrong" (f32[4] -> f32[4]), whose lowering plans as `plan` says."""

    class Wrong(Lowering):
        kernels = (copy_kernel(4),)

        def plan(self, planner: Planner) -> None:
            plan(self, planner)

    def infer(x: TensorType) -> TensorType:
        return TensorType("f32", (4,))

    record = Record("WrongForTests", 1, infer, lambda x: x, lower=Wrong)
    register(record)
    try:
        b = Builder()
        x = b.add("Parameter", (), {"shape": (8,), "element_type": "f32"}).output
        return program_of(b.finish([b.add(record, [b.add("Relu", [x]).output]).output]))
    finally:
        unregister(record)


def _source(low: Lowering, planner: Planner) -> View:
    return planner.view(low.group.last.inputs[0])


def _longer(low: Lowering, planner: Planner) -> None:
    planner.alias_or_copy(low.group.last.output, _source(low, planner))


def _outside(low: Lowering, planner: Planner) -> None:
    plan_copy(planner, _source(low, planner).slice(0, 5, 4), planner.output(low.group.last.output))


def _before(low: Lowering, planner: Planner) -> None:
    plan_copy(planner, _source(low, planner).slice(0, -1, 4), planner.output(low.group.last.output))


def _halo(low: Lowering, planner: Planner) -> None:
    source = _source(low, planner).slice(0, 0, 4)
    wide = View(source.buffer, source.shape, source.strides, 4, source.offset, ((1, 0),))
    plan_copy(planner, wide, planner.output(low.group.last.output))


def _unequal(low: Lowering, planner: Planner) -> None:
    planner.copy_step(_source(low, planner), planner.output(low.group.last.output), "")


def _wider(low: Lowering, planner: Planner) -> None:
    source = _source(low, planner)
    planner.views[low.group.last.output] = View(source.buffer, (4,), (8,), 8, source.offset)


def _constant(low: Lowering, planner: Planner) -> None:
    home = planner.data.view(np.zeros(3, np.float32), "f32")
    planner.data.view(np.zeros(64, np.float32), "f32")  # memory behind it, but not the constant's
    plan_copy(planner, View(home.buffer, (4,), (4,), 4), planner.output(low.group.last.output))


@pytest.mark.parametrize(
    "plan", [_longer, _outside, _before, _halo, _unequal, _wider, _constant], ids=lambda f: f.__name__
)
def test_a_wrong_lowering_is_an_error(plan: Callable[[Any, Planner], None]) -> None:
    program = _plan_with(plan)
    with pytest.raises(OvjitError, match="internal error"):
        program.plan([(8,)])


def test_a_constant_is_an_array_of_its_type() -> None:
    with pytest.raises(OvjitError, match="constant"):
        Constants().view(np.zeros(4, np.uint8), "f32")


def _relu(shape: tuple[int, ...]) -> Graph:
    b = Builder()
    x: Value = b.add("Parameter", (), {"shape": shape, "element_type": "f32"}).output
    return b.finish([b.add("Relu", [x]).output])


@pytest.mark.parametrize("shapes", [[(5,)], [(4, 1)], [], [(4,), (4,)]], ids=str)
def test_shapes_that_the_executable_does_not_have(shapes: list[tuple[int, ...]]) -> None:
    executable = compile_graph(_relu((4,)), {})
    with pytest.raises(OvjitError):
        executable.table(tuple(shapes))
    with pytest.raises(OvjitError):
        executable.program.plan(shapes)


def test_an_internal_caller_with_another_shape() -> None:
    job = compile_graph(_relu((4,)), {}).new_job()
    job.set_input(0, np.zeros((1000,), np.float32))
    with pytest.raises(OvjitError, match="shape"):
        job.run()


def test_an_anchor_and_its_epilogue_have_one_shape() -> None:
    b = Builder()
    x = b.add("Parameter", (), {"shape": (1, 8), "element_type": "f32"}).output
    y = b.add("Parameter", (), {"shape": (5, 8), "element_type": "f32"}).output
    product = b.add("MatMul", [x, b.constant(np.zeros((8, 8), np.float32))])
    total = b.add("Add", [product.output, y])
    types = {v: v.type for n in (product, total) for v in (*n.inputs, *n.outputs)}
    planner = Planner(types, [x, y], [total.output], {}, Constants(), target=here().target)
    with pytest.raises(OvjitError, match="fused"):
        planner.begin(Group(here(), product, [total]))
