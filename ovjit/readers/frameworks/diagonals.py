"""TensorFlow's operators about the diagonals of matrices: made of them, set and taken."""

from __future__ import annotations

from ovjit.readers.onnx.rule_language import *


class _Band(NamedTuple):
    """Diagonals from `low` to `high`, and the sizes of their matrix, all i64 of one element.

    `several`: they have a dimension of their own, from the highest to the lowest.
    """

    low: Output
    high: Output
    rows: Output
    columns: Output
    several: bool

    def most(self, n: OnnxNode) -> Output:
        """The length of the longest diagonal."""
        rows = n("Add", self.rows, n("Minimum", self.high, n.const([0])))
        return n("Minimum", rows, n("Subtract", self.columns, n("Maximum", self.low, n.const([0]))))

    def number(self, n: OnnxNode) -> Output:
        return n("Add", n("Subtract", self.high, self.low), n.const([1]))

    def start(self, n: OnnxNode, numbers: Output) -> Output:
        """Start of the diagonals with these offsets, in rows padded to the length of the longest diagonal."""
        above, below = (n(op, numbers, n.const(0)) for op in ("Maximum", "Minimum"))
        length = n("Minimum", n("Add", self.rows, below), n("Subtract", self.columns, above))
        gap = n("Subtract", self.most(n), length)
        upper, lower = _sides(n)
        nothing = n.const(0)
        if upper == lower:
            return gap if upper == "RIGHT" else n("Multiply", gap, nothing)
        is_upper = n("GreaterEqual" if upper == "LEFT" else "Greater", numbers, nothing)
        return n("Select", is_upper, *((nothing, gap) if upper == "LEFT" else (gap, nothing)))


def _sides(n: OnnxNode) -> list[str]:
    """The alignment of diagonals shorter than the longest one ("LEFT" or "RIGHT"): above the main diagonal,
    and below it."""
    default = "RIGHT_LEFT" if n.op_type.endswith("V3") else "LEFT_LEFT"
    return str(n.attr("align", default)).split("_")


def _number(n: OnnxNode, index: int) -> Output:
    return n.reshape(n.convert(n[index], "i64"), [1])


def _limits(n: OnnxNode, index: int) -> tuple[Output, Output, bool]:
    """(lowest diagonal, highest diagonal, True if they differ) from an operand."""
    if n.op_type[-2:] not in ("V2", "V3"):
        return n.const([0]), n.const([0]), False
    both = n.reshape(n.convert(n[index], "i64"), [-1])
    count = n.static_shape(both, "the number of limits of diagonals")[0]
    if count == 1:
        return both, both, False
    limits = n.value(both)
    if limits is None:
        raise UnsupportedError("the limits of diagonals are not known, nor the rank of the result")
    return n.const(limits[:1]), n.const(limits[1:]), bool(limits[0] != limits[1])


def _sizes(n: OnnxNode, matrix: Output) -> tuple[Output, Output]:
    rank = n.rank(matrix)
    return n.dim_of(matrix, rank - 2), n.dim_of(matrix, rank - 1)


def _flat(n: OnnxNode, x: Output) -> Output:
    """Merge the last two dimensions."""
    head = n.slice(n.shape_of(x), 0, 0, n.rank(x) - 2)
    return n.reshape(x, n.fold(n.concat([head, n.const([-1])], 0)))


def _set_diagonals(n: OnnxNode, band: _Band, diagonals: Output, around: Any) -> Output:
    """A matrix with these diagonals, and `around` elsewhere."""
    rows, columns = n.unsqueeze(n.upto(band.rows), [1]), n.unsqueeze(n.upto(band.columns), [0])
    number = n("Subtract", columns, rows)
    inside = n("LogicalAnd", n("GreaterEqual", number, band.low), n("LessEqual", number, band.high))
    number = n("Maximum", n("Minimum", number, band.high), band.low)
    position = n("Add", n("Minimum", rows, columns), band.start(n, number))
    position = n("Add", n("Multiply", n("Subtract", band.high, number), band.most(n)), position)
    position = n("Select", inside, position, n.const(0))
    values = _flat(n, diagonals) if band.several else diagonals
    return n("Select", n.fold(inside), n("Gather", values, n.fold(position), -1), around)


def _of_diagonals(n: OnnxNode) -> Output:
    """MatrixDiag of TensorFlow: a matrix with the given diagonals. Without sizes it is as small and as square
    as possible."""
    low, high, several = _limits(n, 1)
    length = n.dim_of(n[0], n.rank(n[0]) - 1)
    rows = n("Subtract", length, n("Minimum", high, n.const([0])))
    columns = n("Add", length, n("Maximum", low, n.const([0])))
    around = n.like(n[0], 0)
    if len(n) > 2:
        requested_sizes = [_number(n, 2), _number(n, 3)]
        rows_told, columns_told = (n("GreaterEqual", v, n.const([0])) for v in requested_sizes)
        both = n("Maximum", rows, columns)
        rows, columns = n("Select", columns_told, rows, both), n("Select", rows_told, columns, both)
        rows, columns = (
            n("Select", rows_told, requested_sizes[0], rows),
            n("Select", columns_told, requested_sizes[1], columns),
        )
        around = n.scalar(n[4])
    return _set_diagonals(n, _Band(low, high, n.fold(rows), n.fold(columns), several), n[0], around)


def _with_diagonals(n: OnnxNode) -> Output:
    low, high, several = _limits(n, 2)
    return _set_diagonals(n, _Band(low, high, *_sizes(n, n[0]), several), n[1], n[0])


def _diagonals(n: OnnxNode) -> Output:
    """The diagonals of a matrix, from the highest, padded to the longest."""
    low, high, several = _limits(n, 1)
    band = _Band(low, high, *_sizes(n, n[0]), several)
    number = n.unsqueeze(n("Subtract", high, n.upto(band.number(n))), [1])
    position = n("Subtract", n.unsqueeze(n.upto(band.most(n)), [0]), band.start(n, number))
    row = n("Subtract", position, n("Minimum", number, n.const(0)))
    column = n("Add", position, n("Maximum", number, n.const(0)))
    inside = n("GreaterEqual", position, n.const(0))
    for at, size in ((row, band.rows), (column, band.columns)):
        inside = n("LogicalAnd", inside, n("Less", at, size))
    flat = n("Select", inside, n("Add", n("Multiply", row, band.columns), column), n.const(0))
    inside, flat = (n.fold(v if several else n.squeeze(v, [0])) for v in (inside, flat))
    padding = n.scalar(n[2]) if len(n) > 2 else n.like(n[0], 0)
    return n("Select", inside, n("Gather", _flat(n, n[0]), flat, -1), padding)


DIAGONALS: dict[str, Rule] = {
    f"{name}{version}": rule
    for name, rule in (
        ("MatrixDiag", _of_diagonals),
        ("MatrixSetDiag", _with_diagonals),
        ("MatrixDiagPart", _diagonals),
    )
    for version in ("", "V2", "V3")
}
