"""Loops that repeat each item of a sequence so often as another sequence says, as one Gather."""

from __future__ import annotations

from ovjit.readers.onnx.rule_language import *
from ovjit.readers.onnx.tensors import decode


def repeat_appended(n: OnnxNode, inputs: list[Any], graph: Any, insert: Any, axis: int) -> Output | None:
    """The result that the Loop `n` of these inputs joins along `axis`, if in iteration i its body adds to a
    sequence

        Reshape(Expand(Unsqueeze(SequenceAt(items, i), axis + 1), [1, SequenceAt(counts, i), ...]), [-1, ...])

    by the node `insert`: Gather(items, SearchSorted(CumSum(counts), Range(0, ReduceSum(counts))), axis), with
    the places to the right of equal sums. The shape may be guarded, as Where(Equal(shape, -1), 1, shape).
    None for any other loop. torch.repeat_interleave is exported in this form.
    """
    body = _Body(n, graph)
    trips, go_on = [*inputs, None][:2]
    reshape = body.node(insert.input[1], "Reshape")
    expand = body.node(reshape and reshape.input[0], "Expand")
    unsqueeze = body.node(expand and expand.input[0], "Unsqueeze")
    if reshape is None or expand is None or unsqueeze is None or not body.goes_on(go_on):
        return None
    items = body.item(unsqueeze.input[0])
    sizes = body.sizes(expand.input[1])
    if items is None or sizes is None or items.first or not isinstance(trips, Output):
        return None
    before, counts, after = sizes
    shape = list((n.shape(items.rows) or ())[1:])
    if body.axes(unsqueeze) != [axis + 1] or shape[axis] != 1 or len(before) != axis + 1:
        return None
    if not _expands_nothing([*before, *after], shape) or not body.joins(reshape, shape, axis):
        return None
    often = n.convert(n.reshape(counts.rows, [-1]), "i64")
    often = n("Slice", often, [0], n.reshape(n.convert(trips, "i64"), [1]), [1], [0], opset=8)
    often = n("Select", n("Equal", often, -1), 1, often) if body.guarded else often
    ends = n("CumSum", often, 0)
    indices = n.upto(n("ReduceSum", often, [0], keep_dims=False))
    picked = n("SearchSorted", ends, indices, right_mode=True, opset=15)
    rows = n("Gather", n.squeeze(items.rows, [axis + 1]), picked, 0, opset=8)
    return n.transpose(rows, [*range(1, axis + 1), 0, *range(axis + 1, len(shape))])


def _expands_nothing(target: list[Any], shape: list[Any]) -> bool:
    """Whether Expand to `target` leaves an item's own axes as they are: 1, -1, or the axis's size."""
    if len(target) != len(shape):
        return False
    return all(int(v) in (1, -1, size) for v, size in zip(target, shape, strict=True))


class _Body:
    """The nodes of a loop's body, by the names of their outputs."""

    def __init__(self, n: OnnxNode, graph: Any):
        self.n = n
        self.graph = graph
        self.producers = {name: node for node in graph.node for name in node.output}
        self.guarded = False

    def node(self, name: str | None, op: str) -> Any:
        node = self.producers.get(name or "")
        return node if node is not None and node.op_type == op and not node.domain else None

    def value(self, name: str) -> np.ndarray | None:
        """The elements of a constant of the body or around it."""
        node = self.node(name, "Constant")
        if node is not None and node.attribute:
            attribute = node.attribute[0]
            if attribute.HasField("t"):
                return self.elements(attribute.t)
            return np.array(attribute.i if attribute.name == "value_int" else attribute.ints).reshape(-1)
        outer_value = None if name in self.producers else self.n.scope.find(name)
        value = self.n.value(outer_value) if isinstance(outer_value, Output) else None
        return None if value is None else value.reshape(-1)

    def elements(self, tensor: Any) -> np.ndarray:
        return decode(tensor, self.n.reader.external)[0].reshape(-1)

    def axes(self, node: Any) -> list[int]:
        """The axes of an Unsqueeze: an input or, before opset 13, an attribute."""
        value = self.value(node.input[1]) if len(node.input) > 1 else None
        if value is None:
            value = np.array(node.attribute[0].ints if node.attribute else [], np.int64)
        return [int(v) for v in value]

    def joins(self, reshape: Any, shape: list[Any], axis: int) -> bool:
        """Whether this Reshape joins the repeats to `axis` of an item's `shape`."""
        new = self.value(reshape.input[1])
        expected_shape = [-1 if i == axis else size for i, size in enumerate(shape)]
        if new is None or len(new) != len(expected_shape):
            return False
        copied = not any(a.name == "allowzero" and a.i for a in reshape.attribute)
        return all(
            v == size or (v == 0 and i < axis and copied)
            for i, (v, size) in enumerate(zip(new, expected_shape, strict=True))
        )

    def item(self, name: str) -> LoopSequence | None:
        """The sequence of which `name` is this iteration's item."""
        at = self.node(name, "SequenceAt")
        if at is None or at.input[1] != self.graph.input[0].name or at.input[0] in self.producers:
            return None
        sequence = self.n.scope.find(at.input[0])
        return sequence if isinstance(sequence, LoopSequence) else None

    def sizes(self, name: str) -> tuple[np.ndarray, LoopSequence, np.ndarray] | None:
        """(sizes before, counts, sizes after) of a shape of constants and one count."""
        where = self.node(name, "Where")
        if where is not None:
            equal = self.node(where.input[0], "Equal")
            if equal is None or equal.input[0] != where.input[2] or not self._of(equal.input[1], -1):
                return None
            if not self._of(where.input[1], 1):
                return None
            self.guarded, name = True, where.input[2]
        joined = self.node(name, "Concat")
        if joined is None or len(joined.input) != 3:
            return None
        before, after = self.value(joined.input[0]), self.value(joined.input[2])
        counts = self.item(joined.input[1])
        if before is None or counts is None or after is None or counts.first:
            return None
        return (before, counts, after) if (self.n.shape(counts.rows) or ())[1:] == (1,) else None

    def _of(self, name: str, number: int) -> bool:
        """Whether all elements of a value, of any shape, equal this number."""
        filled, scaled = self.node(name, "ConstantOfShape"), self.node(name, "Mul")
        value: np.ndarray | None
        if filled is not None:
            value = self.elements(filled.attribute[0].t) if filled.attribute else np.zeros(1)
        elif scaled is not None:
            value = self.value(scaled.input[1]) if self._of(scaled.input[0], 1) else None
        else:
            value = self.value(name)
        return value is not None and value.size == 1 and value.reshape(-1)[0] == number

    def goes_on(self, begins: Output | None) -> bool:
        """Whether the loop always runs to its last iteration."""
        start = self.n.value(begins)
        name = self.graph.output[0].name
        while (node := self.node(name, "Cast") or self.node(name, "Identity")) is not None:
            name = node.input[0]
        value = np.ones(1) if name == self.graph.input[1].name else self.value(name)
        return (begins is None or (start is not None and bool(start.all()))) and (
            value is not None and bool(value.all())
        )
