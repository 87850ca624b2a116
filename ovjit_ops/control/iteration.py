"""Loop and TensorIterator: a body that runs repeatedly, with results fed back to its parameters."""

from __future__ import annotations

from typing import Any

from ovjit.errors import check
from ovjit.graph.bodies import SLICED
from ovjit.graph.dtypes import from_numpy
from ovjit.graph.op import Any_, Int, Op, TensorType, op
from ovjit_ops.control.constant_loops import fold_constant_loop
from ovjit_ops.control.ends import MOST_ITERATIONS, check_end, loop_iterations, one_element, ports_of
from ovjit_ops.control.ranges import sum_ranges


def lower_repeated(group: Any) -> Any:
    from ovjit_ops.control.cpu_repeat import LoweredRepeat

    return LoweredRepeat.of(group)


@op(
    "Loop",
    opset=5,
    runs_body=True,
    lower=lower_repeated,
    rules=[fold_constant_loop, sum_ranges],
    rules_for=["Loop", "TensorIterator"],
)
class Loop:
    """Runs `body` at most `trip_count` times (unlimited if negative), while `condition` and then the body's
    result `condition_result` are true. The parameter `iteration_parameter` is the iteration's index."""

    def infer(
        trip_count,
        condition,
        *inputs,
        body: Any_,
        input_ports: Any_ = (),
        output_ports: Any_ = (),
        iteration_parameter: Int = -1,
        condition_result: Int = -1,
    ):
        all_inputs = (trip_count, condition, *inputs)
        ends = ports_of(locals(), len(all_inputs))
        check(
            trip_count.dtype in ("i32", "i64"), f"the trip count should be i32 or i64, not {trip_count.dtype}"
        )
        check(condition.dtype == "boolean", f"the condition should be boolean, not {condition.dtype}")
        return tuple(ends.types(all_inputs, loop_iterations(all_inputs, ends)))

    def ref(*arrays, **attrs):
        count = int(one_element(arrays[0], "the trip count"))
        go_on = bool(one_element(arrays[1], "the condition"))
        ends = ports_of(attrs, len(arrays))
        if not 0 <= count <= MOST_ITERATIONS:
            check_end([TensorType(from_numpy(a.dtype), a.shape, a) for a in arrays], ends)
        return ends.run(arrays, None if count < 0 else count, go_on)


@op("TensorIterator", opset=1, runs_body=True, lower=lower_repeated)
class TensorIterator:
    """Runs `body` once for each part of its sliced inputs; once without sliced inputs."""

    def infer(*inputs, body: Any_, input_ports: Any_ = (), output_ports: Any_ = ()):
        ends = ports_of(locals(), len(inputs))
        iterations = ends.slice_iterations([t.shape for t in inputs])
        return tuple(ends.types(inputs, iterations if ends.of(SLICED) else 1))

    def ref(*inputs, **attrs):
        ends = ports_of(attrs, len(inputs))
        iterations = ends.slice_iterations([a.shape for a in inputs])
        return ends.run(inputs, 1 if iterations is None else iterations, True)


def _bounded_types(*inputs: Any, body: Any_, input_ports: Any_, output_ports: Any_, iteration_parameter: Int,
                   condition_result: Int):  # fmt: skip
    ends = ports_of(locals(), len(inputs) - 1)
    *types, room = inputs
    extent = room.shape[0]
    outputs = ends.types(types, extent if isinstance(extent, int) else None)
    return (*outputs, TensorType("i64", ()))


#: A Loop whose concatenated outputs have capacity for as many iterations as its last input has elements,
#: which are not read. Its last output is the number of iterations. `ovjit.execution.control` makes it; models
#: do not have it.
BOUNDED = Op("BoundedLoop", 1, _bounded_types, lower=lower_repeated, runs_body=True)
