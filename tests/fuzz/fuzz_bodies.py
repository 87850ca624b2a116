"""Random programs of branches, loops and states, built by the same calls in ovjit and in OpenVINO.

A TensorIterator or Loop has states, sliced inputs in both directions, last values, values of an iteration and
joined outputs; an If has several outputs; variables lie inside and outside of bodies. The model is then
reshaped, run with several sizes, and its states are read, set and reset.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import ovjit
from ovjit.errors import OvjitError
from tests.fuzz import fuzzing
from tests.fuzz.fuzz_beside_openvino import F32, difference

LIFE = 100
DTYPES = (np.float32, np.float32, np.float32, np.int32, np.int64)


class Program:
    """Draws the calls again for each package: the same seed makes the same calls."""

    def __init__(self, ov: Any, seed: int, depth: int):
        self.ov, self.r, self.depth = ov, random.Random(seed), depth
        self.op = importlib.import_module(f"{ov.__name__}.opset13")
        self.op6 = importlib.import_module(f"{ov.__name__}.opset6")
        self.util = importlib.import_module(f"{ov.__name__}.op.util")
        self.dtype = self.r.choice(DTYPES)
        self.sinks: list[Any] = []
        self.said: list[str] = []
        self.variables = 0

    def number(self, *shape: int) -> Any:
        rng = np.random.default_rng(self.r.randrange(1 << 30))
        values = rng.standard_normal(shape) * (1 if self.dtype is np.float32 else 3)
        return self.op.constant(np.asarray(values, self.dtype))

    def compute(self, values: list[Any], steps: int) -> Any:
        """Some operations that keep rank 3, [T, B, C]."""
        out = self.r.choice(values)
        for _ in range(steps):
            other = self.r.choice(values)
            kind = self.r.choice(
                ("add", "multiply", "relu", "tanh", "maximum", "subtract", "scale", "sum", "state")
            )
            if kind in ("relu", "tanh"):
                out = (
                    self.op.relu(out) if kind == "relu" or self.dtype is not np.float32 else self.op.tanh(out)
                )
            elif kind == "scale":
                out = self.op.multiply(out, self.number(1, 1, 1))
            elif kind == "sum":
                out = self.op.reduce_max(out, self.op.constant(np.array([self.r.choice((0, 2))])), True)
            elif kind == "state":
                out = self.state(out) if self.r.random() < 0.3 and not any(self.opened) else out
            else:
                out = getattr(self.op, kind)(out, other)
        return out

    def dims(self, *first: int) -> list[int]:
        """The sizes of a body's input; open ones where the model's are."""
        return [-1] * 3 if any(self.opened) else [*first, *self.shape[len(first) :]]

    def full(self, value: Any) -> Any:
        """The value with all sizes of the inputs."""
        return self.op.add(value, self.op.multiply(self.x, self.op.constant(np.zeros((1, 1, 1), self.dtype))))

    def wide(self, value: Any) -> Any:
        """The value with the last sizes of the inputs."""
        return self.op.reduce_max(self.full(value), self.op.constant(np.array([0])), True)

    def state(self, value: Any) -> Any:
        self.variables += 1
        name = f"v{self.variables}"
        kind = self.op.constant(np.zeros((1, 1, 1), self.dtype)).get_element_type()
        shape = value.get_output_partial_shape(0)
        zeros = np.zeros([1, 1, 1] if shape.is_dynamic else list(shape.to_shape()), self.dtype)
        info = self.util.VariableInfo()
        info.data_shape, info.data_type, info.variable_id = shape, kind, name
        variable = self.util.Variable(info)
        first = self.op.multiply(value, self.op.constant(np.full((1, 1, 1), 2, self.dtype)))
        with_init = shape.is_dynamic or self.r.random() < 0.6
        held = self.op6.read_value(first if with_init else self.op.constant(zeros), variable)
        out = self.op.add(held, value)
        self.sinks.append(self.op6.assign(out, variable))
        self.said.append(f"state init {with_init}")
        return self.op.reduce_sum(out, self.op.constant(np.array([0])), True)

    def loop(self, values: list[Any]) -> list[Any]:
        r, op = self.r, self.op
        is_loop = r.random() < 0.5
        self.said.append("loop" if is_loop else "iterator")
        sources = [self.full(r.choice(values)) for _ in range(r.choice((1, 1, 2)))]
        states = [op.relu(op.reduce_max(v, op.constant(np.array([0])), True)) for v in
                  (r.choice(values) for _ in range(r.choice((1, 1, 2))))]  # fmt: skip
        fixed = [self.full(r.choice(values))] if r.random() < 0.3 else []
        states = [self.wide(s) for s in states]
        if is_loop and r.random() < 0.5:
            sources = []
        xs = [op.parameter(self.dims(1), self.dtype) for _ in sources]
        hs = [op.parameter(self.dims(1), self.dtype) for _ in states]
        fs = [op.parameter(self.dims(), self.dtype) for _ in fixed]
        at = op.parameter([], np.int64) if is_loop and r.random() < 0.6 else None
        inside = [*xs, *hs, *[op.reduce_max(f, op.constant(np.array([0])), True) for f in fs]]
        if at is not None:
            inside.append(op.reshape(op.convert(at, np.dtype(self.dtype).name.replace("float", "f").replace("int", "i")),
                                     op.constant(np.array([1, 1, 1])), False))  # fmt: skip
        sinks, self.sinks = self.sinks, []
        nexts = [op.minimum(op.reduce_max(self.compute(inside, r.randint(1, 3)), op.constant(np.array([0])), True),
                            op.constant(np.full((1, 1, 1), 50, self.dtype))) for _ in hs]  # fmt: skip
        nothing = op.constant(np.zeros((1, 1, 1), self.dtype))
        nexts = [op.add(n, op.multiply(h, nothing)) for n, h in zip(nexts, hs, strict=True)]
        rows = [op.reduce_max(self.compute([*inside, *nexts], r.randint(0, 2)), op.constant(np.array([0])), True)
                for _ in range(r.choice((0, 1, 2)))]  # fmt: skip
        self.sinks = sinks
        results = [op.result(v) for v in [*nexts, *rows]]
        parameters = [*xs, *hs, *fs, *([at] if at is not None else [])]
        if is_loop:
            going = op.constant(np.array(True))
            if r.random() < 0.4:
                total = op.reduce_sum(op.convert(nexts[0], "f32"), op.constant(np.array([0, 1, 2])), False)
                going = op.less(total, op.constant(np.float32(r.choice((1, 5, 30)))))
            condition = op.result(going)
            trips = r.choice((1, 2, 3, 4)) if not sources or r.random() < 0.3 else -1
            trips = r.choice((0, 2, 3)) if not sources and r.random() < 0.2 else trips
            node = op.loop(
                op.constant(np.array(trips, r.choice((np.int64, np.int32)))), op.constant(np.array(True))
            )
            body = self.ov.Model([condition, *results], parameters, "body")
            node.set_function(body)
            node.set_special_body_ports([parameters.index(at) if at is not None else -1, 0])
        else:
            node = op.tensor_iterator()
            node.set_body(self.ov.Model(results, parameters, "body"))
        back = r.random() < 0.3
        for x, s in zip(xs, sources, strict=True):
            start, step, end = (-1, -1, 0) if back and not is_loop else (0, 1, -1)
            node.set_sliced_input(x, s.output(0), start, step, 1, end, 0)
        for h, s, n in zip(hs, states, results, strict=False):
            node.set_merged_input(h, s.output(0), n.output(0))
        for f, s in zip(fs, fixed, strict=True):
            node.set_invariant_input(f, s.output(0))
        outputs = []
        for i, n in enumerate(results):
            ways = ["last"] if i < len(nexts) and r.random() < 0.6 else ["joined"]
            if r.random() < 0.3:
                ways = ["last", "joined"]
            for way in ways:
                if way == "last":
                    outputs.append(node.get_iter_value(n.output(0), -1))
                elif not is_loop and r.random() < 0.3:
                    outputs.append(node.get_concatenated_slices(n.output(0), -1, -1, 1, 0, 0))
                else:
                    outputs.append(node.get_concatenated_slices(n.output(0), 0, 1, 1, -1, 0))
        self.said.append(
            f"{len(sources)} sliced, {len(states)} states, {len(fixed)} fixed, {len(outputs)} outputs, back {back}"
        )
        return [
            op.relu(v)
            if r.random() < 0.5
            else op.multiply(v, self.op.constant(np.ones((1, 1, 1), self.dtype)))
            for v in outputs
        ]

    def branch(self, values: list[Any]) -> list[Any]:
        r, op = self.r, self.op
        condition = op.less(
            op.reduce_sum(op.convert(r.choice(values), "f32"), op.constant(np.array([0, 1, 2])), False),
            op.constant(np.float32(r.choice((-1, 0, 0, 2)))),
        )
        condition = op.reshape(condition, op.constant(np.array([1])), False)  # of a known rank
        node = op.if_op(condition)
        count = r.choice((1, 2, 3))
        sources = [r.choice(values) for _ in range(2)]
        bodies = []
        for _ in range(2):
            ps = [
                op.parameter([-1, -1, -1] if any(self.opened) else s.get_output_shape(0), self.dtype)
                for s in sources
            ]
            sinks, self.sinks = self.sinks, []
            found = [op.result(self.compute(list(ps), r.randint(0, 2))) for _ in range(count)]
            self.sinks = sinks
            bodies.append((ps, found))
        (tp, tr), (ep, er) = bodies
        node.set_then_body(self.ov.Model(tr, tp, "then"))
        node.set_else_body(self.ov.Model(er, ep, "else"))
        for s, a, b in zip(sources, tp, ep, strict=True):
            node.set_input(s.output(0), a, b)
        self.said.append(f"branch of {count}")
        outputs = [node.set_output(a, b) for a, b in zip(tr, er, strict=True)]
        return [op.relu(v) if r.random() < 0.5 else op.add(v, self.number(1, 1, 1)) for v in outputs]

    def model(self) -> Any:
        r, op = self.r, self.op
        self.shape = [r.choice((1, 2, 3, 5)), r.choice((1, 2, 3)), r.choice((1, 4, 7, 17))]
        is_open = r.random() < 0.25  # where sizes of bodies are open, OpenVINO often leaves memory as it was
        self.opened = [is_open and r.random() < 0.6 for _ in self.shape]
        shape = [-1 if o else d for o, d in zip(self.opened, self.shape, strict=True)]
        inputs = [op.parameter(shape, self.dtype, name=f"x{i}") for i in range(r.choice((1, 2)))]
        values: list[Any] = list(inputs)
        self.x = inputs[0]
        for _ in range(r.choice((1, 2, 2, 3))):
            kind = r.choice(("loop", "loop", "branch", "compute", "state"))
            if kind == "loop":
                values += self.loop(values)
            elif kind == "branch":
                values += self.branch(values)
            elif kind == "state":
                values.append(self.state(r.choice(values)))
            else:
                values.append(self.compute(values, 2))
        outputs = [op.result(v) for v in values[len(inputs) :][-4:]]
        return self.ov.Model(outputs, self.sinks, inputs, "m")

    def run(self) -> list[Any]:
        model = self.model()
        found: list[Any] = [[str(o.get_partial_shape()) for o in model.outputs]]
        r, dims = self.r, list(self.shape)
        if r.random() < 0.4:
            dims = [d + r.choice((0, 1, 2)) if o else d for d, o in zip(dims, self.opened, strict=True)]
            model.reshape({p: dims for p in model.inputs} if r.random() < 0.5 else {p.any_name: dims for p in model.inputs}
                          if all(p.names for p in model.inputs) else {p: dims for p in model.inputs})  # fmt: skip
            found.append([str(o.get_partial_shape()) for o in model.outputs])
            opened = [False] * 3
            self.said.append(f"reshaped to {dims}")
        else:
            opened = self.opened
        request = self.ov.Core().compile_model(model, "CPU", F32).create_infer_request()
        rng = np.random.default_rng(r.randrange(1 << 30))
        for _ in range(r.choice((1, 2, 3, 4))):
            sizes = [
                r.choice((d, d, d + 1, max(d - 1, 1))) if o else d for d, o in zip(dims, opened, strict=True)
            ]
            data = [np.asarray(rng.standard_normal(sizes) * 2, self.dtype) for _ in model.inputs]
            results = request.infer(data)
            found.append([np.array(results[i]) for i in range(len(model.outputs))])
            act = r.choice(("none", "none", "reset", "states", "one"))
            states = {s.name: s for s in request.query_state()}
            if act == "reset":
                request.reset_state()
            elif act == "states":
                found.append([np.array(states[k].state.data) for k in sorted(states)])
            elif act == "one" and states:
                states[min(states)].reset()
        return found


def run_in(ov: Any, case: dict[str, Any]) -> Any:
    program = Program(ov, case["seed"], 0)
    try:
        return program.run(), program.said
    except Exception as error:
        return error, program.said


def make(seed: int) -> dict[str, Any]:
    return {"seed": seed}


def check(case: dict[str, Any]) -> str:
    ours, said = run_in(ovjit, case)
    if isinstance(ours, Exception) and not isinstance(ours, (OvjitError, TypeError, MemoryError)):
        return f"{said}: raises {type(ours).__name__}: {ours}"
    import openvino

    real, _ = run_in(openvino, case)
    if isinstance(real, Exception):
        return ""
    if isinstance(ours, Exception):
        return f"{said}: refuses: {str(ours)[:400]}"
    for i, (a, b) in enumerate(zip(ours, real, strict=True)):
        for k, (u, v) in enumerate(zip(a, b, strict=True)):
            if isinstance(u, str):
                if u != v:
                    return f"{said}: shape {k}: {u}, not {v}" if case.get("shapes") else ""
            elif (wrong := difference(u, v)) and np.abs(np.nan_to_num(np.asarray(v, np.float64))).max(
                initial=0
            ) < 1e9:
                return f"{said}: step {i}, value {k}: {wrong}"
    return ""


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return iter(())


def script(case: dict[str, Any]) -> str:
    return f"from tests.fuzz import fuzz_bodies\nprint(fuzz_bodies.check({json.dumps(case)}))"


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
