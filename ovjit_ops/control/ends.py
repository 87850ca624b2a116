"""Inputs and outputs of a loop: ports, slices of inputs, concatenated outputs, the number of iterations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, ModelError, UnsupportedError, check
from ovjit.graph import bodies, interp
from ovjit.graph.dtypes import from_numpy, numpy_dtype
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, Interval, is_static
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.values import check_one

#: A loop with more iterations does not end: of a nanosecond each, these take 18 minutes.
MOST_ITERATIONS = 1 << 40


class Ports:
    """The checked ports of a Loop or TensorIterator. `iteration`: the index of the parameter that counts
    iterations. `condition`: the index of the result that is the condition. -1: none. `given`: the number of
    the node's inputs."""

    def __init__(self, body: Any, inputs: Any, outputs: Any, count: int, iteration: int, condition: int):
        bodies.check_body(body, "the body")
        self.body = body
        self.inputs = bodies.ports(inputs)
        self.outputs = tuple(sorted(bodies.ports(outputs), key=lambda port: port.outer))
        self.iteration, self.condition = iteration, condition
        bodies.check_inputs(body, self.inputs, count, [iteration] if iteration != -1 else [])
        bodies.check_outputs(self.outputs)
        if iteration != -1:
            check_one(body.inputs[iteration].type, "the parameter of the iteration number")
        for port in (*self.inputs, *self.outputs):
            if port.kind == bodies.MERGED:
                bodies.check_result(body, port.back)
        for port in self.outputs:
            fits = port.kind in (bodies.LAST, bodies.CONCAT)
            check(fits, f"an output has the kind {port.kind!r}; expected last or concat")
            bodies.check_result(body, port.inner)
        for port in self.inputs:
            fits = port.kind in (bodies.INVARIANT, bodies.MERGED, bodies.SLICED)
            check(fits, f"an input has the unknown kind {port.kind!r}")
        if condition != -1:
            bodies.check_result(body, condition)

    def of(self, kind: str) -> list[bodies.Port]:
        return [port for port in (*self.inputs, *self.outputs) if port.kind == kind]

    def feeds(self, types: Sequence[TensorType]) -> tuple[list[TensorType], list[TensorType]]:
        """The types of the body's parameters and of its results. `types`: the types of all inputs.

        Values that are fed back may change their shape. Dimensions that change are dynamic.
        """
        feeds: list[TensorType] = [TensorType("dynamic", None)] * len(self.body.inputs)
        for port in self.inputs:
            source = types[port.outer]
            if port.kind == bodies.SLICED:
                feeds[port.inner] = TensorType(source.dtype, slice_shape(port, source.shape))
            else:
                value = source.value if port.kind == bodies.INVARIANT else None
                feeds[port.inner] = TensorType(source.dtype, source.shape, value)
        if self.iteration != -1:
            feeds[self.iteration] = self.body.inputs[self.iteration].type
        while True:
            results = bodies.body_types(self.body, feeds)
            changed = False
            for port in self.of(bodies.MERGED):
                joined = bodies.join(feeds[port.inner], results[port.back])
                if joined != feeds[port.inner]:
                    if bodies.over_budget():
                        joined = TensorType(joined.dtype, None)
                    feeds[port.inner], changed = joined, True
            if not changed:
                break
        self.check_condition(results)
        return feeds, results

    def check_condition(self, results: Sequence[TensorType]) -> None:
        if self.condition != -1:
            check_type(results[self.condition], ("boolean",), "the condition of a loop's body")
            check_one(results[self.condition], "the condition of a loop's body")

    def types(self, types: Sequence[TensorType], iterations: int | None) -> list[TensorType]:
        """The types of the outputs. `types`: the types of all inputs. `iterations`: their number, or None if
        it is unknown.

        A body that rejects these types is an error only if it runs: 0 iterations give the initial values.
        """
        try:
            feeds, results = self.feeds(types)
        except ModelError:
            if iterations:
                raise
            iterations, results = 0, [value.type for value in self.body.outputs]
            self.check_condition(results)
        out = []
        begun = self.of(bodies.MERGED)
        carried = {p.back: types[p.outer] if iterations == 0 else feeds[p.inner] for p in begun}
        for port in self.outputs:
            result = results[port.inner]
            shape = result.shape
            if port.kind == bodies.CONCAT:
                shape = concat_shape(port, shape, iterations)
            elif iterations in (None, 0) and port.inner in carried:
                shape = carried[port.inner].shape
            out.append(TensorType(result.dtype, shape))
        return out

    def always_again(self, *types: TensorType) -> bool:
        """Whether the body's condition is statically true: a constant, perhaps converted, or an input with a
        known value that is invariant or fed back."""
        again = self.body.outputs[self.condition]
        if again.node.op.role == "parameter":
            index = self.body.inputs.index(again)
            for port in self.inputs:
                round_again = port.kind == bodies.MERGED and port.back == self.condition
                unchanged = round_again or port.kind == bodies.INVARIANT
                if port.inner == index and unchanged and port.outer < len(types):
                    value = types[port.outer].value
                    return value is not None and bool(value.all())
        while again.node.op.name == "Convert" and again.node.inputs[0].dtype == "boolean":
            again = again.node.inputs[0]
        return again.constant is not None and bool(again.constant.all())

    def slice_iterations(self, shapes: Sequence[Any]) -> int | None:
        """The number of parts of the sliced inputs. None if it is dynamic, or if no input is sliced.

        Raises ModelError if two inputs have different numbers.
        """
        counts: list[int] = []  # no set: a hash pins a traced number
        for port in self.of(bodies.SLICED):
            shape = shapes[port.outer]
            if shape is not None and isinstance(extent := shape[bodies.axis_of(port, shape)], int):
                counts.append(bodies.slice_bounds(port, extent)[2])
        check(counts == counts[:1] * len(counts), f"sliced inputs have different numbers of parts: {counts}")
        return counts[0] if counts else None

    def run(self, data: Sequence[np.ndarray], iterations: int | None, go_on: bool) -> tuple[np.ndarray, ...]:
        """The reference. `iterations`: their number; None: until the condition is false."""
        body = self.body
        feeds: list[Any] = [None] * len(body.inputs)
        for port in self.inputs:
            if port.kind != bodies.SLICED:
                feeds[port.inner] = data[port.outer]
        parts: dict[int, list[np.ndarray]] = {port.outer: [] for port in self.of(bodies.CONCAT)}
        picked: dict[int, np.ndarray] = {}
        results: list[np.ndarray] | None = None
        done = 0
        while go_on and (iterations is None or done < iterations):
            bodies.checkpoint()
            for port in self.of(bodies.SLICED):
                feeds[port.inner] = part(port, data[port.outer], done)
            if self.iteration != -1:
                counter = body.inputs[self.iteration].type
                shape = counter.shape if is_static(counter.shape) else ()
                feeds[self.iteration] = np.full(shape, done, numpy_dtype(counter.dtype))
            results = interp.evaluate(body, feeds)
            for port in self.of(bodies.MERGED):
                feeds[port.inner] = results[port.back]
            for port in self.outputs:
                if port.kind == bodies.CONCAT:
                    parts[port.outer].append(results[port.inner])
                elif port.iteration == done:
                    picked[port.outer] = results[port.inner]
            if self.condition != -1:
                go_on = bool(one_element(results[self.condition], "the condition of a loop's body"))
            done += 1
        return tuple(self.results(data, results, parts, picked, done))

    def results(
        self,
        arrays: Sequence[np.ndarray],
        last_results: Sequence[np.ndarray] | None,
        parts: Mapping[int, Sequence[np.ndarray]],
        picked: Mapping[int, np.ndarray],
        done: int,
    ) -> Iterator[np.ndarray]:
        """Yield the outputs after `done` iterations. `last_results`: of the last one. `parts`: the results of
        all iterations, for concatenated outputs. `picked`: the results of the iterations that outputs
        select."""
        initial = {port.back: arrays[port.outer] for port in self.of(bodies.MERGED)}
        for port in self.outputs:
            if port.kind == bodies.CONCAT and parts[port.outer]:
                rows = parts[port.outer]
                axis = bodies.axis_of(port, rows[0].shape)
                yield join_parts(rows[::-1] if port.stride < 0 else rows, axis)
            elif port.kind == bodies.CONCAT:
                yield self.nothing(port, arrays)
            elif port.iteration != -1:
                if port.outer not in picked:
                    raise InferenceError(
                        f"output {port.outer} is the result of iteration {port.iteration}, but only "
                        f"{done} iterations were run"
                    )
                yield picked[port.outer]
            elif last_results is not None:
                yield last_results[port.inner]
            else:
                yield initial[port.inner] if port.inner in initial else self.nothing(port, arrays)

    def nothing(self, port: bodies.Port, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """An output's value after no iteration: an empty concatenation, or zeros of the result's shape for a
        value that is not fed back."""
        type = self.types([TensorType(from_numpy(x.dtype), x.shape) for x in arrays], 0)[port.outer]
        shape = [0 if isinstance(d, Interval) else d for d in type.shape or ()]
        return np.zeros(shape, numpy_dtype(type.dtype))


def ports_of(attrs: Mapping[str, Any], count: int) -> Ports:
    """The ports of a node with these attributes and as many inputs. A TensorIterator counts no iterations
    and has no condition."""
    special = (attrs.get(name, -1) for name in ("iteration_parameter", "condition_result"))
    return Ports(attrs["body"], attrs.get("input_ports", ()), attrs.get("output_ports", ()), count, *special)


def slice_shape(port: bodies.Port, shape: Any) -> Any:
    """The shape of one part of a sliced input."""
    if shape is None:
        return None
    axis = bodies.axis_of(port, shape)
    if isinstance(shape[axis], int):
        bodies.slice_bounds(port, shape[axis])
    return (*shape[:axis], port.part_size, *shape[axis + 1 :])


def concat_shape(port: bodies.Port, shape: Any, iterations: int | None) -> Any:
    """The shape of a result's parts of all iterations, concatenated."""
    if shape is None:
        return None
    check(len(shape) > 0, "the results that are concatenated are scalars; a scalar has no axis")
    axis = bodies.axis_of(port, shape)
    length = ANY if iterations is None else 0 if iterations == 0 else shape[axis] * iterations
    return (*shape[:axis], length, *shape[axis + 1 :])


def part(port: bodies.Port, array: np.ndarray, iteration: int) -> np.ndarray:
    """The part of a sliced input for an iteration. Raises InferenceError after the last part."""
    axis = bodies.axis_of(port, array.shape)
    first, step, count = bodies.slice_bounds(port, array.shape[axis])
    if iteration >= count:
        raise InferenceError(
            f"iteration {iteration} of a loop needs part {iteration} of an input that has {count} parts "
            f"along axis {axis}"
        )
    begin = first + iteration * step
    return array[(slice(None),) * axis + (slice(begin, begin + port.part_size),)]


def join_parts(rows: Sequence[np.ndarray], axis: int) -> np.ndarray:
    try:
        return np.concatenate(rows, axis)
    except ValueError as error:
        raise InferenceError(f"the results of a loop's iterations cannot be concatenated: {error}") from error


def one_element(array: np.ndarray, what: str) -> Any:
    if array.size != 1:
        raise InferenceError(f"{what} should have one element; its shape is {list(array.shape)}")
    return array.reshape(()).item()


def element_of(type: TensorType, what: str) -> Any:
    """The single element of an input if its value is known, else None."""
    check_one(type, what)
    return None if type.value is None else type.value.reshape(()).item()


def check_end(types: Sequence[TensorType], ends: Ports, where: str = "") -> None:
    """Raise UnsupportedError for a Loop that does not end in a lifetime: its condition is always true, and it
    has no number of iterations, or one that is out of reach."""
    count, go_on = element_of(types[0], "the trip count"), element_of(types[1], "the condition")
    if count is None or 0 <= count <= MOST_ITERATIONS or not go_on:
        return
    if ends.condition == -1 or ends.always_again(*types):
        often = "without limit" if count < 0 else f"{int(count)} times"
        raise UnsupportedError(
            f"{where}the loop runs {often}, as its condition is always true: give it a trip count of at most "
            f"{MOST_ITERATIONS} or a condition that becomes false"
        )


def loop_iterations(types: Sequence[TensorType], ends: Ports) -> int | None:
    """The number of iterations of a Loop; None if it is unknown or a condition may end the loop early."""
    count, go_on = element_of(types[0], "the trip count"), element_of(types[1], "the condition")
    if go_on is not None and not go_on:
        return 0
    if count is None or not 0 <= count <= MOST_ITERATIONS or go_on is None:
        return 0 if count == 0 else None
    return int(count) if ends.condition == -1 or ends.always_again(*types) else None
