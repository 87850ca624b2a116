# ruff: noqa: E501 (a line is one statement of a model)
"""Random sequences of calls on the requests of one model: tensors set, shared, cut, given on, and states.

Before each run the inputs and states are read through the API; what they show is what has to be computed. Copies of
earlier results, and arrays that were only lent, stay as they are. Aliased memory is part of it: an output given as an
input, one tensor for two inputs, views of a larger tensor.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import ovjit as ov
from ovjit import opset13 as o
from tests.fuzz import fuzzing

LIFE = 3000
STEPS = (4, 8, 12, 20, 30)


class Kind(NamedTuple):
    """A model, and its results and new states from inputs and states, in NumPy."""

    build: Callable[[Any, Any], Any]
    compute: Callable[..., tuple[list[np.ndarray], list[np.ndarray]]]
    widths: list[int]  # of the inputs; rows are open
    same_rows: bool = True
    fixed: int = 0  # rows, where they are not open


W = np.random.default_rng(3).standard_normal((4, 4)).astype(np.float32)


def _dense(ov: Any, o: Any) -> Any:
    x, y = (o.parameter([-1, 4], np.float32, name=n) for n in "xy")
    z = o.relu(o.matmul(x, o.constant(W), False, False))
    return ov.Model([o.add(z, y), o.multiply(x, y), z], [x, y], "dense")


def _dense_now(inputs: Any, states: Any) -> Any:
    x, y = inputs
    z = np.maximum(x @ W, 0)
    return [z + y, x * y, z], []


def _through(ov: Any, o: Any) -> Any:
    """Outputs that are inputs, views, constants, and one value twice."""
    x, y = (o.parameter([-1, 4], np.float32, name=n) for n in "xy")
    flat = o.reshape(x, o.constant(np.array([-1, 2])), False)
    s = o.add(x, y)
    return ov.Model(
        [x, flat, o.constant(W), s, s, o.transpose(y, o.constant(np.array([1, 0])))], [x, y], "through"
    )


def _through_now(inputs: Any, states: Any) -> Any:
    x, y = inputs
    return [x, x.reshape(-1, 2), W, x + y, x + y, y.T], []


def _sum(ov: Any, o: Any) -> Any:
    """A state that adds up rows, of the batch's size."""
    x = o.parameter([-1, 4], np.float32, name="x")
    start = o.broadcast(o.constant(np.float32(1)), o.shape_of(x))
    old = o.read_value(start, "s")
    new = o.add(old, x)
    model = ov.Model(
        [o.result(v) for v in (o.multiply(new, o.constant(np.float32(2))), old)],
        [o.assign(new, "s")],
        [x],
        "sum",
    )
    return model


def _sum_now(inputs: Any, states: Any) -> Any:
    (x,) = inputs
    old = np.ones_like(x) if states[0] is None else states[0]
    new = old + x
    return [new * 2, old], [new]


def _cache(ov: Any, o: Any) -> Any:
    """A cache that grows by rows, as a decoder's, and two readers of it."""
    x = o.parameter([-1, 4], np.float32, name="x")
    y = o.parameter([-1, 4], np.float32, name="y")
    empty = o.broadcast(o.constant(np.float32(0)), o.constant(np.array([0, 4])))
    info = ov.op.util.VariableInfo()
    info.variable_id, info.data_type, info.data_shape = "k", ov.Type.f32, ov.PartialShape([-1, 4])
    variable = ov.op.util.Variable(info)
    old = ov.opset8.read_value(empty, variable)
    new = o.concat([old, x], 0)
    scores = o.softmax(o.matmul(y, new, False, True), 1)
    return ov.Model(
        [o.result(v) for v in (o.matmul(scores, new, False, False), new)],
        [ov.opset8.assign(new, variable)],
        [x, y],
        "cache",
    )


def _cache_now(inputs: Any, states: Any) -> Any:
    x, y = inputs
    new = np.concatenate([np.zeros((0, 4), np.float32) if states[0] is None else states[0], x])
    e = y @ new.T
    e = np.exp(e - e.max(1, keepdims=True))
    return [e / e.sum(1, keepdims=True) @ new, new], [new]


def _swap(ov: Any, o: Any) -> Any:
    """Two states that change places, and a third that only passes."""
    x = o.parameter([2, 4], np.float32, name="x")
    zero = o.constant(np.zeros((2, 4), np.float32))
    a, b, c = (o.read_value(zero, n) for n in "abc")
    sinks = [o.assign(b, "a"), o.assign(o.add(a, x), "b"), o.assign(x, "c")]
    return ov.Model(
        [o.result(v) for v in (o.add(a, b), c, o.reshape(c, o.constant(np.array([8])), False))],
        sinks,
        [x],
        "swap",
    )


def _swap_now(inputs: Any, states: Any) -> Any:
    (x,) = inputs
    a, b, c = (np.zeros((2, 4), np.float32) if s is None else s for s in states)
    return [a + b, c, c.reshape(8)], [b, a + x, x]


def _steps(ov: Any, o: Any) -> Any:
    """In place where it can be: a chain over a fixed size."""
    x, y = (o.parameter([3, 4], np.float32, name=n) for n in "xy")
    a = o.add(x, y)
    b = o.relu(a)
    c = o.softmax(b, 1)
    return ov.Model(
        [c, o.reshape(b, o.constant(np.array([4, 3])), False), o.concat([a, x], 0)], [x, y], "steps"
    )


def _steps_now(inputs: Any, states: Any) -> Any:
    x, y = inputs
    a = x + y
    b = np.maximum(a, 0)
    e = np.exp(b - b.max(1, keepdims=True))
    return [e / e.sum(1, keepdims=True), b.reshape(4, 3), np.concatenate([a, x])], []


KINDS = {
    "dense": Kind(_dense, _dense_now, [4, 4]),
    "through": Kind(_through, _through_now, [4, 4]),
    "sum": Kind(_sum, _sum_now, [4]),
    "cache": Kind(_cache, _cache_now, [4, 4], same_rows=False),
    "swap": Kind(_swap, _swap_now, [4], fixed=2),
    "steps": Kind(_steps, _steps_now, [4, 4], fixed=3),
}
STATES = {"sum": ["s"], "cache": ["k"], "swap": ["a", "b", "c"]}


class Wrong(Exception):
    """An answer, or memory, that is not as it has to be."""


class Run:
    def __init__(self, seed: int, without: list[int], ov: Any = ov, o: Any = o):
        self.r = random.Random(seed)
        self.ov = ov
        self.log: list[str] = []
        self.name = self.r.choice(sorted(KINDS))
        self.kind = KINDS[self.name]
        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "KV_CACHE_PRECISION": "f32",
            "INFERENCE_NUM_THREADS": self.r.choice((1, 2)),
        }
        self.compiled = ov.Core().compile_model(self.kind.build(ov, o), "CPU", config)
        self.requests = [self.compiled.create_infer_request() for _ in range(self.r.choice((1, 2, 3)))]
        self.states: list[Any] = [[None] * len(STATES.get(self.name, [])) for _ in self.requests]
        self.held: list[tuple[str, np.ndarray, np.ndarray]] = []
        self.rows = self.kind.fixed or self.r.choice((1, 2, 3, 5))
        self.steps = self.r.choice(STEPS)
        for i in range(self.steps):
            draw = random.Random(self.r.random())
            if i in without:
                continue
            step = draw.choice(ACTIONS)
            self.r, kept = draw, self.r
            self.log.append(f"{i} {step.__name__}")
            step(self)
            self.check_held()
            self.r = kept

    def array(self, rows: int | None = None) -> np.ndarray:
        g = np.random.default_rng(self.r.randrange(1 << 30))
        return g.standard_normal((self.rows if rows is None else rows, 4)).astype(np.float32)

    def hold(self, what: str, array: np.ndarray) -> None:
        self.held.append((f"{self.log[-1]}: {what}", array, array.copy()))

    def check_held(self) -> None:
        for what, array, copy in self.held:
            if not np.array_equal(array, copy, equal_nan=True):
                raise Wrong(f"changed afterwards: {what}")

    # --- what is computed

    def expect(self, i: int, inputs: list[np.ndarray]) -> list[np.ndarray] | None:
        """The results, and the states afterwards; None where the inputs do not fit together."""
        if len({len(x) for x in inputs}) > 1 and self.kind.same_rows:
            return None
        if self.name == "sum" and self.states[i][0] is not None and len(self.states[i][0]) != len(inputs[0]):
            return None
        if self.name == "cache" and (self.states[i][0] is None and not len(inputs[0])):
            return None
        out, self.states[i] = self.kind.compute(inputs, self.states[i])
        return out

    def compare(self, what: str, got: list[np.ndarray], want: list[np.ndarray]) -> None:
        for k, (x, y) in enumerate(zip(got, want, strict=True)):
            if x.shape != y.shape or not np.allclose(x, y, rtol=2e-4, atol=1e-4, equal_nan=True):
                raise Wrong(f"{what}: output {k}: {x.shape} {x.ravel()[:5]}, not {y.shape} {y.ravel()[:5]}")

    def snapshot(self, i: int) -> list[np.ndarray]:
        return [np.array(self.requests[i].get_input_tensor(k).data) for k in range(len(self.kind.widths))]

    def rebind(self, i: int) -> None:
        """Inputs get tensors of their own: what is passed is written to those that are set."""
        for k in range(len(self.kind.widths)):
            self.requests[i].set_input_tensor(k, self.ov.Tensor(self.array()))

    def pick(self) -> int:
        return self.r.randrange(len(self.requests))

    def run(self, i: int, *args: Any, how: str = "", **options: Any) -> None:
        request = self.requests[i]
        inputs = list(args[0]) if args else self.snapshot(i)
        inputs = [np.array(x) for x in inputs]
        before = [None if s is None else s.copy() for s in self.states[i]]
        want = self.expect(i, inputs)
        if want is None:
            self.states[i] = before
            return
        if self.rows and any(not x.size for x in inputs):
            self.states[i] = before
            return
        how = how or self.r.choice(("infer", "infer", "async"))
        if how == "infer":
            result = request.infer(*args, **options)
            got = [result[k] for k in range(len(want))]
        else:
            options.pop("share_outputs", None)
            request.start_async(*args, **options)
            request.wait()
            got = [request.get_output_tensor(k).data for k in range(len(want))]
        title = f"request {i} {how} {options} of {[x.shape for x in inputs]}"
        self.compare(title, got, want)
        self.compare(f"{title}: tensors", [request.get_output_tensor(k).data for k in range(len(want))], want)
        if how == "infer" and not options.get("share_outputs"):
            for k, x in enumerate(got):
                self.hold(f"result {k}", x)
        self.check_states(i)

    def check_states(self, i: int) -> None:
        for state in self.requests[i].query_state():
            want = self.states[i][STATES[self.name].index(state.name)]
            if want is not None:
                self.compare(f"state {state.name} of request {i}", [np.array(state.state.data)], [want])

    def check_all_states(self) -> None:
        for i in range(len(self.requests)):
            self.check_states(i)


# --- actions


def infer_arrays(t: Run) -> None:
    i = t.pick()
    arrays = [t.array() for _ in t.kind.widths]
    for x in arrays:
        t.hold("argument", x)
    t.run(i, arrays, share_inputs=t.r.random() < 0.4, share_outputs=t.r.random() < 0.3)


def infer_again(t: Run) -> None:
    t.run(t.pick())


def other_rows(t: Run) -> None:
    if not t.kind.fixed:
        t.rows = t.r.choice((1, 2, 3, 5, 8, 17))


def set_shared(t: Run) -> None:
    i, k = t.pick(), t.r.randrange(len(t.kind.widths))
    x = t.array()
    t.requests[i].set_input_tensor(k, t.ov.Tensor(x, shared_memory=True))
    t.run(i)
    if t.r.random() < 0.5:
        t.run(i)
    t.rebind(i)  # shared memory cannot grow


def set_cut(t: Run) -> None:
    """A view of a larger tensor, in rows or columns."""
    i, k = t.pick(), t.r.randrange(len(t.kind.widths))
    g = np.random.default_rng(t.r.randrange(1 << 30))
    big = t.ov.Tensor(g.standard_normal((t.rows + 2, 7)).astype(np.float32), shared_memory=True)
    a, b = t.r.choice((0, 1, 2)), t.r.choice((0, 1, 3))
    cut = t.ov.Tensor(big, [a, b], [a + t.rows, b + 4])
    t.requests[i].set_input_tensor(k, cut)
    t.run(i)
    if t.r.random() < 0.5:
        t.run(i)
    t.rebind(i)


def write_through(t: Run) -> None:
    """The tensor that is set gets other values, by its view."""
    i, k = t.pick(), t.r.randrange(len(t.kind.widths))
    data = t.requests[i].get_input_tensor(k).data
    if any(np.shares_memory(data, x) for _, x, _ in t.held):
        return
    data[...] = np.random.default_rng(t.r.randrange(1 << 30)).standard_normal(data.shape)
    t.run(i)


def output_as_input(t: Run) -> None:
    """A result's tensor is set as an input of this or another request."""
    i, j = t.pick(), t.pick()
    outputs = [(n, t.requests[i].get_output_tensor(n)) for n in range(len(t.compiled.outputs))]
    fits = [
        (n, x)
        for n, x in outputs
        if len(x.shape) == 2
        and x.shape[1] == 4
        and x.shape[0]
        and (not t.kind.fixed or x.shape[0] == t.kind.fixed)
        and not (t.name == "through" and n == 2)
    ]
    if not fits:
        return
    n, tensor = t.r.choice(fits)
    k = t.r.randrange(len(t.kind.widths))
    t.requests[j].set_input_tensor(k, tensor)
    t.log[-1] += f" output {n} of {i} to {k} of {j}"
    t.run(j)
    if t.r.random() < 0.5:
        t.run(j)
    t.rebind(j)


def results_as_arguments(t: Run) -> None:
    i, j = t.pick(), t.pick()
    out = [t.requests[i].get_output_tensor(n).data for n in range(len(t.compiled.outputs))]
    fits = [
        x
        for x in out
        if x.ndim == 2 and x.shape[1] == 4 and x.shape[0] and (not t.kind.fixed or len(x) == t.kind.fixed)
    ]
    if fits:
        x = t.r.choice(fits)
        t.run(
            j,
            [x if t.r.random() < 0.6 else t.array(len(x)) for _ in t.kind.widths],
            share_inputs=t.r.random() < 0.6,
        )


def same_for_two(t: Run) -> None:
    if len(t.kind.widths) < 2:
        return
    i = t.pick()
    x = t.ov.Tensor(t.array(), shared_memory=t.r.random() < 0.5)
    t.requests[i].set_input_tensor(0, x)
    t.requests[i].set_input_tensor(1, x)
    t.run(i)
    t.rebind(i)


def set_output(t: Run) -> None:
    """A tensor of the program for an output, sometimes a view of a larger one."""
    if not t.kind.fixed:
        return
    i = t.pick()
    n = t.r.randrange(len(t.compiled.outputs))
    shape = list(t.compiled.output(n).shape)
    x = np.full(shape, 7, np.float32)
    t.requests[i].set_output_tensor(n, t.ov.Tensor(x, shared_memory=True))
    t.run(i)
    got = t.requests[i].get_output_tensor(n).data
    if not np.array_equal(got, x):
        raise Wrong(f"output {n} of request {i} is not in the tensor that was set")


def output_is_input(t: Run) -> None:
    """One tensor is an input and an output at once."""
    if not t.kind.fixed or t.ov is not ov:
        return
    i = t.pick()
    x = t.ov.Tensor(t.array())
    fits = [n for n in range(len(t.compiled.outputs)) if list(t.compiled.output(n).shape) == list(x.shape)]
    n = t.r.choice(fits)
    t.requests[i].set_input_tensor(t.r.randrange(len(t.kind.widths)), x)
    t.requests[i].set_output_tensor(n, x)
    request = t.requests[i]
    inputs = t.snapshot(i)
    want = t.expect(i, inputs)
    request.infer()
    assert want is not None
    t.compare(
        f"request {i} in place, output {n}",
        [request.get_output_tensor(k).data for k in range(len(want))],
        want,
    )
    t.check_states(i)
    t.requests[i] = t.compiled.create_infer_request()
    t.states[i] = [None] * len(t.states[i])


def reset(t: Run) -> None:
    i = t.pick()
    if not t.states[i]:
        return
    if t.r.random() < 0.5:
        t.requests[i].reset_state()
        t.states[i] = [None] * len(t.states[i])
    else:
        names = STATES[t.name]
        state = t.r.choice(t.requests[i].query_state())
        state.reset()
        t.states[i][names.index(state.name)] = None
    t.run(i)


def set_state(t: Run) -> None:
    i = t.pick()
    if not t.states[i]:
        return
    state = t.r.choice(t.requests[i].query_state())
    rows = t.kind.fixed or (t.r.choice((1, 2, 4)) if t.name == "cache" else t.rows)
    x = t.array(rows)
    state.state = t.ov.Tensor(x, shared_memory=True) if t.r.random() < 0.5 else t.ov.Tensor(x)
    t.states[i][STATES[t.name].index(state.name)] = x.copy()
    t.hold("state that was set", x)
    t.run(i)
    t.run(i)


def give_state_on(t: Run) -> None:
    """A state becomes another request's, or another state."""
    i, j = t.pick(), t.pick()
    if not t.states[i]:
        return
    names = STATES[t.name]
    a = t.r.choice(t.requests[i].query_state())
    b = t.r.choice(t.requests[j].query_state())
    if t.states[i][names.index(a.name)] is None:
        return
    b.state = a.state
    t.states[j][names.index(b.name)] = t.states[i][names.index(a.name)].copy()
    t.check_all_states()
    t.run(i if t.r.random() < 0.5 else j)
    t.check_all_states()


def keep_state(t: Run) -> None:
    """A copy of a state that is read now, and set again later."""
    i = t.pick()
    if not t.states[i]:
        return
    names = STATES[t.name]
    state = t.r.choice(t.requests[i].query_state())
    k = names.index(state.name)
    if t.states[i][k] is None:
        return
    saved, value = t.ov.Tensor(np.array(state.state.data)), t.states[i][k].copy()
    t.run(i)
    state.state = saved
    t.states[i][k] = value
    t.run(i)


def state_as_input(t: Run) -> None:
    i = t.pick()
    if not t.states[i]:
        return
    state = t.r.choice(t.requests[i].query_state())
    x = state.state
    if t.states[i][STATES[t.name].index(state.name)] is None or not x.size:
        return
    t.requests[i].set_input_tensor(0, x)
    t.run(i)
    t.rebind(i)


def together(t: Run) -> None:
    """All requests at once."""
    if len(t.requests) < 2:
        return
    wanted: list[Any] = []
    for i, request in enumerate(t.requests):
        arrays = [t.array() for _ in t.kind.widths]
        want = t.expect(i, arrays)
        if want is None:
            wanted.append(None)
            continue
        request.start_async(arrays, share_inputs=t.r.random() < 0.5)
        for x in arrays:
            t.hold("argument", x)
        wanted.append(want)
    for i, (request, want) in enumerate(zip(t.requests, wanted, strict=True)):
        if want is not None:
            request.wait()
            t.compare(
                f"request {i} of all", [request.get_output_tensor(k).data for k in range(len(want))], want
            )
    t.check_all_states()


def drop(t: Run) -> None:
    """A request ends, while its tensors are those of others."""
    i = t.pick()
    t.requests[i] = t.compiled.create_infer_request()
    t.states[i] = [None] * len(t.states[i])
    for j in range(len(t.requests)):
        if j != i:
            t.run(j)


def call_model(t: Run) -> None:
    if t.states[0]:
        return
    arrays = [t.array() for _ in t.kind.widths]
    result = t.compiled(arrays, share_outputs=t.r.random() < 0.5)
    want, _ = t.kind.compute(arrays, [])
    t.compare("the model's call", [result[k] for k in range(len(want))], want)


ACTIONS = [infer_arrays, infer_arrays, infer_again, other_rows, set_shared, set_cut, write_through, output_as_input,
           output_as_input, results_as_arguments, same_for_two, set_output, output_is_input, reset, set_state, give_state_on,
           keep_state, state_as_input, together, drop, call_model]  # fmt: skip


make = fuzzing.make_by_seed


def check(case: dict[str, Any], engine: Any = None) -> str:
    chosen = (engine, engine.opset13) if engine else (ov, o)
    run = Run.__new__(Run)
    try:
        run.__init__(case["seed"], case["without"], *chosen)  # type: ignore[misc]
    except Exception as error:
        return f"{run.name} {run.log[-1:]}: {type(error).__name__}: {error}"
    return ""


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return fuzzing.without_steps(case, max(STEPS))


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
