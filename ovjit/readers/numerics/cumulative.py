"""Reductions of all elements up to each place of an axis, by doubling.

After step k, each place has the result of the 2^k elements that end with it.
"""

from __future__ import annotations

from ovjit.build.bodies import over_slices
from ovjit.readers.numerics.counted_loops import repeat_steps
from ovjit.readers.rule_language import *

#: Joins two tensors element by element. It is associative, and makes its nodes from these two alone.
Join = Callable[[Output, Output], Output]


def running(n: Builder, x: Output, axis: int, join: Join, backwards: bool = False) -> Output:
    """x[..., i, ...] joined with all elements before it along `axis`; `backwards`: with all after it."""
    length = (n.shape(x) or ())[axis]
    if not isinstance(length, int):
        return _of_open_length(n, x, axis, join, backwards)
    step = 1
    while step < length:
        joined = join(n.slice(x, axis, step), n.slice(x, axis, 0, length - step))
        edge = n.slice(x, axis, length - step) if backwards else n.slice(x, axis, 0, step)
        x = n.concat([joined, edge] if backwards else [edge, joined], axis)
        step *= 2
    return x


def running_in_order(
    n: Builder, x: Output, axis: int, join: Join, start: float, backwards: bool, exclusive: bool
) -> Output:
    """`running` one element after the other from `start` on, as NumPy does: an overflow stays one, which may
    not happen in another order. `exclusive`: each place has what is before it, the first one `start`."""
    rank, length = n.rank(x), (n.shape(x) or ())[axis]
    if length == 0:
        return n.same(x)
    sizes = [n.dim_of(x, i) for i in range(rank) if i != axis]
    first = n.broadcast(n.like(x, start), n.concat(sizes, 0) if sizes else np.zeros(0, np.int64))
    leads = exclusive or not isinstance(length, int)  # then there is an element, too, of none
    if leads:
        lead = n.unsqueeze(first, [axis])
        x = n.concat([x, lead] if backwards else [lead, x], axis)

    def once(state: list[Output], pieces: list[Output], others: list[Output]) -> list[Output]:
        joined = join(state[0], pieces[0])
        return [joined, joined]

    name = n.reader.name(n.base, "TensorIterator")
    result = over_slices(n, once, [first], [x], [], name, axis, backwards)[1]
    if not leads:
        return result
    return n.slice(result, axis, 1) if exclusive == backwards else n.slice(result, axis, 0, -1)


def _of_open_length(n: Builder, x: Output, axis: int, join: Join, backwards: bool) -> Output:
    length = n.dim_of(x, axis)

    def step(k: Output, state: list[Output], others: list[Output]) -> list[Output]:
        total, (positions, last) = state[0], others
        far = n("Power", n.const(2), k)
        other = n("Add" if backwards else "Subtract", positions, far)
        within = n("Minimum", n("Maximum", other, n.const(0)), last)
        joined = join(total, n("Gather", total, within, axis, opset=8))
        return [n("Select", n.along(n("Equal", within, other), axis, n.rank(x)), joined, total)]

    size = n.convert(n.scalar(n("Maximum", length, n.const(1))), "f64")
    steps = n("Floor", n("Divide", n("Log", size), n.const(math.log(2), "f64")))
    positions = n.upto(length)
    times = n("Add", n.convert(steps, "i64"), n.const(1))
    last = n("Subtract", length, n.const(1))
    return repeat_steps(n, times, [x], step, [positions, last])[0]
