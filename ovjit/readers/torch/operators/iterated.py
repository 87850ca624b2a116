"""Functions of each element that take as many steps as the elements need: Loops, in i64 and f64."""

from __future__ import annotations

from typing import Any

from ovjit.build import Output
from ovjit.readers.numerics.counted_loops import repeat_steps
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.registry import aten

#: Euclid's algorithm for integers of 64 bits takes fewer steps.
EUCLID = 100


def broadcast_both(n: Call, a: Output, b: Output) -> list[Output]:
    """Both in the shape to which they are broadcast."""
    return [n.expand(a, n.shape_of(b)), n.expand(b, n.shape_of(a))]


@aten("gcd", "lcm")
def gcd(n: Call, x: Any, other: Any) -> Output:
    """Euclid's: (a, b) -> (b, a mod b), until all b are 0"""
    operands = n.same_kind([x, other])
    kind = n.dtype(operands[0])
    a, b = broadcast_both(n, *(n.convert(v, "i64") for v in operands))

    def step(_: Output, state: list[Output], __: list[Output]) -> list[Output]:
        a, b = state
        done = n("Equal", b, n.const(0))
        remainder = n("Mod", a, n("Select", done, n.const(1), b))
        b = n("Select", done, b, remainder)
        return [n("Select", done, a, state[1]), b, n.any_of(n("NotEqual", b, n.const(0)))]

    result = repeat_steps(n, EUCLID, [n("Abs", a), n("Abs", b)], step, ends=True)[0]
    if n.op == "aten::lcm":
        some = n("Maximum", result, n.const(1))
        result = n("Abs", n("Multiply", n("Divide", a, some), b))
    return n.convert(result, kind)
