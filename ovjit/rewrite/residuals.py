"""Finds the FakeQuantizes before the Add of a residual that do not round in OpenVINO.

    Convolution -> FakeQuantize -> Add(residual) -> FakeQuantize

OpenVINO adds the residual in the convolution's epilogue and stores the bytes of the second FakeQuantize. It
clamps to the range of the first one there, and does not round. All other FakeQuantizes round. These
conditions were observed with OpenVINO 2026.4 on AVX2:

- The Add has one reader, a FakeQuantize, possibly after activations and operations with constants per
  channel.
- One of the addends is computed by a convolution of bytes. Only operations with constants per channel, or a
  bias and Relu, are between it and its FakeQuantize. If both addends are of this kind, it is the one without
  a FakeQuantize, else the first.
- The sums overwrite the other addend in memory. So all other readers of that addend precede the convolution,
  and the convolution does not read it.
"""

from __future__ import annotations

from ovjit.graph.graph import Graph, Node, Value
from ovjit.rewrite.compression import plain_constant
from ovjit.rewrite.pattern import Pattern, anything, op, value

_X = value("x")
_NUMBER = anything.let(number=plain_constant)
_SUM, _RANGE = op.Add(anything, anything), op.FakeQuantize(_X, ...)
#: Operations that may read integers instead of reals, since they only move elements.
MOVES = (
    "Reshape Squeeze Unsqueeze Transpose Split VariadicSplit Slice StridedSlice ShuffleChannels DepthToSpace "
    "SpaceToDepth"
)
_CONVOLUTION = op["Convolution GroupConvolution"](...)
#: The steps of a convolution's epilogue before a FakeQuantize: constants per channel, or a bias and Relu.
CUT = op.Relu(_X)
_BIASED = op.Add(_X, _NUMBER) | op.Identity(_X)
BY_NUMBER = op["Add Multiply"](_X, _NUMBER) | op.Identity(_X)
#: The steps of the epilogue after the addition of the residual.
_ACTIVATION = op["Relu Clamp Sigmoid Tanh Gelu Elu PRelu Swish HSwish HSigmoid Mish SoftPlus Abs Sqrt Round"](
    _X, ...
)
_BY_CHANNEL = op["Add Subtract Multiply Divide"](_X, _NUMBER)
#: Operations whose outputs are bytes if their inputs are.
_KEEPS = op[f"MaxPool AvgPool Pad Interpolate Concat {MOVES}"](_X, ...)
_BYTES = op.Convert(_X).where(lambda x: x.dtype in ("u8", "i8"))
_SHIFTED = op["Subtract Multiply Add"](_X, _NUMBER)


def find_unrounded(graph: Graph) -> frozenset[Node]:
    """The FakeQuantizes of the graph that clamp to their range, and do not round."""
    residuals = _Residuals(graph)
    clamping = (residuals.find_clamp(node) for node in graph.nodes if _SUM.fits(node.op))
    return frozenset(node for node in clamping if node is not None)


class _Residuals:
    """The readers of the graph's values, and the places of its nodes in their order."""

    def __init__(self, graph: Graph):
        self.uses = graph.uses_of_elements()
        self.order = {node: i for i, node in enumerate(graph.nodes)}

    def find_clamp(self, add: Node) -> Node | None:
        """The FakeQuantize before a residual sum that only clamps, as the sum is rounded later; or None."""
        one, other = add.inputs
        if one is other or one.shape is None or one.shape != other.shape:
            return None
        if one.constant is not None or other.constant is not None or not self._is_quantized(add.output):
            return None
        pairs = ((one, other), (other, one))
        sides = [side for side, residual in pairs if self._takes(add, side, residual)]
        sides = [side for side in sides if not _RANGE.matches(side)] or sides
        return sides[0].node if sides and _RANGE.matches(sides[0]) else None

    def _is_quantized(self, sums: Value) -> bool:
        """Whether the sums are only stored as bytes."""
        while (reader := self._reader(sums)) is not None:
            if _RANGE.fits(reader.op):
                return reader.inputs[0] is sums and all(v.constant is not None for v in reader.inputs[1:])
            step = _ACTIVATION.first(reader.output) or _BY_CHANNEL.first(reader.output)
            if step is None or step["x"] is not sums:
                return False
            if "number" in step and sum(d != 1 for d in step["number"].shape) > 1:
                return False
            sums = reader.output
        return False

    def _reader(self, x: Value) -> Node | None:
        """The only reader of a value."""
        readers = self.uses[x]
        return readers[0][0] if len(readers) == 1 else None

    def _takes(self, add: Node, side: Value, residual: Value) -> bool:
        """Whether a convolution computes `side`, and can overwrite `residual` with the sums of both."""
        x: Value | None = side
        if _RANGE.matches(side):
            x = self._before(_RANGE, side)
        if x is None:
            return False
        steps = BY_NUMBER
        if CUT.matches(x):
            x, steps = self._before(CUT, x), _BIASED
        while x is not None and steps.matches(x):
            x = self._before(steps, x)
        if x is None or self._reader(x) is None or not _CONVOLUTION.matches(x):
            return False
        readers = {node for node, _ in self.uses[residual] if node is not add}
        return _is_of_bytes(x.node.inputs[0]) and self._all_before(readers, x.node)

    def _before(self, step: Pattern, x: Value) -> Value | None:
        """The input of the step that computes `x`; None if `x` has more than one reader."""
        bindings = step.first(x)
        return None if bindings is None or self._reader(x) is None else bindings["x"]

    def _all_before(self, nodes: set[Node | None], node: Node) -> bool:
        """Whether `node` depends on all of `nodes`. The entry None is a model output, which has no
        successor."""
        if None in nodes:
            return False
        remaining = {each for each in nodes if each is not None}
        first = min((self.order[each] for each in remaining), default=0)
        stack, visited = [node], {node}
        while remaining and stack:
            for result in stack.pop().inputs:
                maker = result.node
                if maker not in visited and self.order[maker] >= first:
                    visited.add(maker)
                    remaining.discard(maker)
                    stack.append(maker)
        return not remaining


def _is_of_bytes(x: Value) -> bool:
    """Whether the elements of `x` are bytes, times a scale."""
    while (step := _KEEPS.first(x) or _SHIFTED.first(x)) is not None:
        x = step["x"]
    return _RANGE.matches(x) or _BYTES.matches(x)
