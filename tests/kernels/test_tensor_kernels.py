"""Kernels whose parameters are tensors with named axes: what is printed, and what a launch makes of views."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset8 as op
from ovjit.codegen.cpu.host import host_target
from ovjit.codegen.function import inline, kernel
from ovjit.codegen.words import SIZE, VL, Table, Tensor, items, ld, loadm, share, storem
from ovjit.errors import OvjitError
from ovjit.planning.constants import Constants
from ovjit.planning.launch import launch, try_launch
from ovjit.planning.plan import Planner
from ovjit.planning.touches import Trace
from ovjit.planning.views import View
from tests.support.compiled import here

SEED = 20261122
STEPS = Table(2)


@kernel(over="r h", x="n h c:1", y="r h c")
def by_names(x: Tensor, y: Tensor, factor, *, T):
    for r, i, q in items(y):
        p = x.at(n=r * factor, h=i)
        for k in range(0, y.size.c, VL):
            storem[T](y.at(q, c=k), loadm[T](p + k * SIZE[T], x.size.c - k), y.size.c - k)


@kernel(over="... lanes/VL", x="... n", y="... n")
def by_lanes(x: Tensor, y: Tensor, *, T):
    for j, p, q in items(x, y):
        for _ in range(x.size.n):
            storem[T](q, loadm[T](p, x.size.lanes - j), y.size.lanes - j)
            p += x.stride.n
            q += y.stride.n


@kernel(over="r h", x="n h c:1", y="r h c")
def by_table(x: Tensor, y: Tensor, steps=STEPS, *, T):
    for _r, i, q in items(y):
        storem[T](q, loadm[T](x.at(n=ld(steps, 1), h=i), x.size.c), y.size.c)


def view(planner: Planner, shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> View:
    made = planner.allocate([shape[a] for a in order or range(len(shape))], 4)
    return made if order is None else made.permute(np.argsort(order))


def planner() -> Planner:
    made = Planner({}, [], [], {}, Constants(), target=here().target)
    made.begin(type("Group", (), {"name": "g", "nodes": [], "origins": (), "anchor": None, "body": ()}))
    return made


def frame(made) -> list[str]:
    return [name for name, _ in made.frame.fields]


def test_the_argument_block_has_what_is_read_and_nothing_else():
    fields = frame(by_names(T="f32"))
    assert fields[:3] == ["x", "y", "factor"]
    assert set(fields[3:]) == {
        "size_h", "size_c", "x_n", "x_h", "y_r", "y_h", "y_c", "item_count", "per_chunk",
    }  # fmt: skip


def test_values_follow_from_the_views():
    p = planner()
    x, y = view(p, (4, 3, 5)), view(p, (2, 3, 5), (1, 0, 2))
    made = by_names(T="f32")
    launch(p, made, {"x": x, "y": y}, ("y",), work=1e9, factor=2)
    (step,) = p.steps
    values = dict(zip(frame(made), step.args, strict=True))
    assert (values["x"].buffer, values["y"].buffer) == (x.buffer, y.buffer)
    names = "size_h size_c x_n x_h y_r y_h y_c item_count per_chunk factor".split()
    assert [values[n] for n in names] == [3, 5, 60, 20, 20, 40, 4, 6, 1, 2]


def test_other_axes_are_merged_and_the_fastest_makes_vectors():
    p = planner()
    x, y = view(p, (2, 3, 7, 40)), view(p, (2, 3, 7, 40))
    made = by_lanes(T="f32")
    launch(p, made, {"x": x, "y": y}, ("y",), axes={"n": 1}, work=1)
    (step,) = p.steps
    values = dict(zip(frame(made), step.args, strict=True))
    blocks = -(-280 // host_target().lanes)  # 7 * 40 adjacent elements
    names = ("size_n", "size_lanes", "blocks", "item_count")
    assert [values[n] for n in names] == [3, 280, blocks, 2 * blocks]
    assert (values["x_n"], values["x_lanes"], values["x_3"]) == (1120, 4, 3360)


def test_too_many_other_axes_are_no_launch():
    p = planner()
    shape = (2, 3, 2, 3, 2, 3, 5)
    tensors = {"x": view(p, shape, (5, 4, 2, 0, 3, 1, 6)), "y": view(p, shape)}
    assert not try_launch(p, by_lanes(T="f32"), tensors, ("y",), axes={"n": 6}, work=1)
    assert not p.steps
    launch(p, by_lanes(T="f32"), tensors, ("y",), axes={"n": 6}, work=1, flops=6)
    places = [frame(step.kernel).index("y") for step in p.steps]
    offsets = [step.args[place].offset for step, place in zip(p.steps, places, strict=True)]
    assert offsets == [0, tensors["y"].strides[0]]  # one for each index of the slowest
    assert [step.flops for step in p.steps] == [3, 3]


@kernel(over="... lanes/block:1", x="...", y="...")
def by_blocks(x: Tensor, y: Tensor, block, *, T):
    for j, p, q in items(x, y):
        for k in range(0, min(x.size.lanes - j, block), VL):
            storem[T](q + k * SIZE[T], loadm[T](p + k * SIZE[T], block - k), min(x.size.lanes - j, block) - k)


@pytest.mark.parametrize("adjacent", [True, False])
def test_a_split_by_an_argument(adjacent):
    p = planner()
    x, y = view(p, (3, 10), None if adjacent else (1, 0)), view(p, (3, 10))
    made = by_blocks(T="f32")
    launch(p, made, {"x": x, "y": y}, ("y",), block=4, work=lambda n, along: 1e6 * n * along["y"])
    (step,) = p.steps
    values = dict(zip(frame(made), step.args, strict=True))
    names = ("size_lanes", "blocks", "item_count", "block", "per_chunk")
    assert [values[n] for n in names] == ([30, 8, 8, 4, 1] if adjacent else [1, 1, 30, 4, 1])


def test_unknown_keywords_are_refused():
    p = planner()
    tensors = {"x": view(p, (4, 3, 5)), "y": view(p, (2, 3, 5))}
    with pytest.raises(
        TypeError, match=r"by_names_f32 has no argument 'wrok', 'fator'; it has T, factor; .*work"
    ):
        launch(p, by_names(T="f32"), tensors, ("y",), wrok=1e9, fator=2)
    assert not p.steps
    launch(p, by_table(T="f32"), tensors, ("y",), steps0=1, steps1=2)
    with pytest.raises(TypeError, match="by_table_f32 has no argument 'stops0'"):
        launch(p, by_table(T="f32"), tensors, ("y",), stops0=1)
    assert len(p.steps) == 1


def test_items_that_go_on_from_one_another_are_one_chunk():
    p = planner()
    x, y, other = view(p, (4, 3, 5)), view(p, (2, 3, 5)), view(p, (7,))
    for one_chunk in (False, True):
        launch(
            p, by_names(T="f32"), {"x": x, "y": y}, ("y",), work=1e9, factor=2, one_chunk=one_chunk,
            reads=[other], type="Reorder",
        )  # fmt: skip
    assert [step.chunks for step in p.steps] == [6, 1]
    assert {step.type for step in p.steps} == {"Reorder"}


@pytest.mark.parametrize(
    "x, y, said",
    [
        ((4, 3), (2, 3, 5), "has the axes n h c"),
        ((4, 3, 5), (2, 2, 5), "another extent along h"),
        ((4, 3, 6), (2, 3, 5), "another extent along c"),
    ],
)
def test_views_that_do_not_fit_are_refused(x, y, said):
    p = planner()
    with pytest.raises(OvjitError, match=said):
        launch(p, by_names(T="f32"), {"x": view(p, x), "y": view(p, y)}, ("y",), work=1, factor=1)


def test_views_of_too_few_dimensions_are_refused():
    @kernel(over="...", x="... k c", y="... k c")
    def of_pairs(x: Tensor, y: Tensor, *, T):
        for p, q in items(x, y):
            storem[T](q, loadm[T](p, 1), 1)

    p = planner()
    with pytest.raises(OvjitError, match="has the axes ... k c"):
        launch(p, of_pairs(T="f32"), {"x": view(p, (4,)), "y": view(p, (4,))}, ("y",), work=1)


def test_an_axis_that_is_to_be_adjacent_is():
    p = planner()
    x = view(p, (4, 3, 5), (0, 2, 1))
    with pytest.raises(OvjitError, match="by_names_f32 cannot iterate over x"):
        launch(p, by_names(T="f32"), {"x": x, "y": view(p, (2, 3, 5))}, ("y",), work=1, factor=1)
    assert not p.steps


@pytest.mark.parametrize(
    "declared",
    [
        {"over": "q", "x": "n"}, {"over": "lanes/VL n", "x": "... n"}, {"x": "n n"}, {"z": "n"},
        {"over": "n ...", "x": "... n"},
    ],
    ids=str,
)  # fmt: skip
def test_declarations_without_a_meaning(declared):
    with pytest.raises(TypeError, match="k: "):

        @kernel(**declared)
        def k(x: Tensor): ...


def test_indices_without_a_name_make_addresses_all_the_same():
    @kernel(over="n m", x="n m")
    def unnamed(x: Tensor):
        for _, _, p in items(x):
            storem["f32"](p, loadm["f32"](p, 1), 1)

    assert "p = x + along_n * x_n + along_m * x_m" in unnamed().source


def test_what_a_kernel_cannot_say_of_its_tensors():
    @inline
    def at_depth(t, i):
        return t.at(depth=i)

    @kernel(over="n", x="n c")
    def unknown_axis(x: Tensor):
        for _, p in items(x):
            storem["f32"](p, loadm["f32"](at_depth(x, 1), 1), 1)

    @kernel(over="n", x="n c")
    def targets(x: Tensor):
        for _ in items(x):
            storem["f32"](x, loadm["f32"](x, 1), 1)

    @kernel(x="n c")
    def nothing(x: Tensor):
        for _, p in items(x):
            storem["f32"](p, loadm["f32"](p, 1), 1)

    @kernel(over="n", x="n c")
    def taken(x: Tensor):
        for size_c, p in items(x):
            storem["f32"](p, loadm["f32"](p, x.size.c), size_c)

    @kernel
    def plain(x: Tensor, n, per_chunk):
        for i in share(n, per_chunk):
            storem["f32"](x.at(n=i), loadm["f32"](x, 1), 1)

    for one, said in (
        (unknown_axis, "axis 'depth'"), (targets, "1 indices and 1 addresses"), (nothing, "over any axes"),
        (taken, "size_c"), (plain, "axis 'n'"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=said):
            one()


def test_every_order_of_dimensions_gives_the_same_sums(monkeypatch: pytest.MonkeyPatch):
    """CumSum along each axis of tensors that lie in any order, against NumPy; chunks are proved apart."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    for order in itertools.permutations(range(4)):
        shape = tuple(int(n) for n in rng.integers(1, 9, 4))
        axis, exclusive, reverse = int(rng.integers(4)), bool(rng.integers(2)), bool(rng.integers(2))
        x = op.parameter(shape, np.int32)
        y = op.cum_sum(op.transpose(x, np.array(order)), np.int64(axis), exclusive, reverse)
        array = rng.integers(-100, 100, shape).astype(np.int32)
        want = np.transpose(array, order)
        want = np.flip(want, axis) if reverse else want
        want = np.cumsum(want, axis) - (want if exclusive else 0)
        want = np.flip(want, axis) if reverse else want
        got = ov.compile_model(ov.Model([y], [x]), "CPU")(array)[0]
        np.testing.assert_array_equal(got, want, f"seed {SEED}: {shape} {order} {axis} {exclusive} {reverse}")


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_more_dimensions_than_a_kernel_walks(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """GatherElements and ScatterElementsUpdate of permuted views of 7 dimensions are native, in several
    steps. Of elements written to one place the last is there, or their sum."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    rng = np.random.default_rng(SEED)
    order, axis = rng.permutation(7), 3
    given = rng.integers(-9, 9, (2, 3, 2, 3, 2, 3, 4)).astype(np.float32)
    data = given.transpose(order)
    places = rng.integers(0, data.shape[axis], data.shape)
    updates = rng.integers(-9, 9, data.shape[::-1]).astype(np.float32)
    x, i, u = op.parameter(given.shape), op.parameter(data.shape, np.int64), op.parameter(updates.shape)
    seen, turned = op.transpose(x, order), op.transpose(u, np.arange(7)[::-1])
    outputs = [
        op.gather_elements(seen, i, axis),
        ov.opset12.scatter_elements_update(seen, i, turned, np.int64(axis), reduction),
    ]
    model = ov.Model([o.output(0) for o in outputs], [x, i, u])
    request = ov.compile_model(model, "CPU", {"PERF_COUNT": True}).create_infer_request()
    got = request.infer([given, places, updates])
    want = data.copy()
    for place in np.ndindex(data.shape):
        target = (*place[:axis], places[place], *place[axis + 1 :])
        want[target] = updates[place[::-1]] + (want[target] if reduction == "sum" else 0)
    np.testing.assert_array_equal(got[0], np.take_along_axis(data, places, axis), f"seed {SEED}")
    np.testing.assert_array_equal(got[1], want, f"seed {SEED}")
    assert not [row for row in request.get_profiling_info() if row.exec_type == "ref_numpy"]


@kernel(over="... n/width m/rows", x="... n m", y="... n m:1")
def by_tiles(x: Tensor, y: Tensor, rows, *, T, width):
    for j, i, p, q in items(x, y):
        for a in range(min(width, y.size.n - j)):
            for b in range(min(rows, y.size.m - i)):
                storem[T](y.at(q, n=a, m=b), loadm[T](x.at(p, n=a, m=b), 1), 1)


@kernel(over="r times", x="r", y="r")
def by_number(x: Tensor, y: Tensor, times, *, T):
    for r, i in items():
        if i + 1 == times:
            storem[T](y.at(r=r), loadm[T](x.at(r=r), 1), 1)


def test_several_axes_are_split_by_constants_and_arguments():
    p = planner()
    x, y = view(p, (2, 5, 7), (1, 0, 2)), view(p, (2, 5, 7))
    p.trace = Trace()
    made = by_tiles(T="f32", width=2)
    launch(p, made, {"x": x, "y": y}, ("y",), work=1e9, width=2, rows=3)
    (step,) = p.steps
    values = dict(zip(frame(made), step.args, strict=True))
    names = "size_n size_m blocks_n blocks item_count rows".split()
    assert [values[n] for n in names] == [5, 7, 3, 3, 18, 3] and step.chunks == 18
    assert "along_n * 2 * y_n" in made.source and "along_m * rows * y_m" in made.source
    ((_, _, touches),) = p.trace.steps
    written = [sorted(touches(chunk)[1][0][1]) for chunk in range(18)]
    assert [len(places) for places in written[6:9]] == [12, 12, 4]  # one row of 3, 3 and 1 columns
    assert sorted(place for places in written for place in places) == list(range(2 * 5 * 7 * 4))


def test_items_count_through_an_argument():
    p = planner()
    made = by_number(T="f32")
    launch(p, made, {"x": view(p, (4,)), "y": view(p, (4,))}, ("y",), work=1e9, disjoint=False, times=3)
    (step,) = p.steps
    values = dict(zip(frame(made), step.args, strict=True))
    assert (values["item_count"], values["times"]) == (12, 3)
