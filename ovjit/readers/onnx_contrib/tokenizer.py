"""Tokenizer of com.microsoft: texts cut into parts by regular expressions, which RE2 matches leftmost first,
and of these the longest.

A table (`patterns`) reads from all places of all texts at once, until none of them can match more: that gives
the longest match that begins at each place. Then one walk over the places, of all texts at once, takes those
that begin after the one before.
"""

from __future__ import annotations

from ovjit.readers.onnx.control import loop_over, loop_while
from ovjit.readers.onnx.patterns import EDGE, table_of
from ovjit.readers.onnx.text import TextRows, Tokens
from ovjit.readers.onnx_contrib.rule_language import *

#: What stands before the first and after the last part where these are marked.
_MARKS = b"\x02\x03"
ANY_CHARACTER = "(?s)."
#: A table's state from which nothing is matched any more.
_DEAD = 1


class _Parts(NamedTuple):
    """Pieces of texts: the text of each, in order, and its begin and end among all bytes."""

    text: Output
    begin: Output
    end: Output


@ms("Tokenizer")
def tokenizer(n: OnnxNode) -> Any:
    """The parts between separators, or those that an expression matches: [..., most parts], filled up"""
    separators, shortest = n.attr("separators") or [], n.require("mincharnum")
    expression, fill = n.attr("tokenexp") or "", n.require("pad_value").encode()
    if shortest < 1 or not (separators or expression):
        raise ModelError("separators or a tokenexp are needed, and a mincharnum of at least 1")
    begins, ends, letters = n.all("StringTensorUnpack", n.reshape(n[0], [-1]))
    begins, ends = (n.convert(v, "i64") for v in (begins, ends))
    count = n.squeeze(n.dim_of(begins, 0), [0])
    texts = n.upto(count)
    parts = _Parts(texts, begins, ends)
    if separators == [""]:  # each letter
        if shortest > 1:
            raise ModelError(f"words of {shortest} characters are not valid")
        parts = _cut(n, parts, letters, ANY_CHARACTER, False, shortest)
    else:
        for pattern in separators or [expression]:
            parts = _cut(n, parts, letters, pattern, bool(separators), shortest)
    out = _filled_up(n, parts, texts, letters, fill, bool(n.require("mark")))
    if separators == [""]:
        separators, expression = [], ANY_CHARACTER
    if not separators and _is_column(n.shape(n[0])) and not n.require("mark"):
        tokens = n.reader.memo.setdefault("tokens", {})
        tokens[out.node] = Tokens(n[0], expression, shortest, fill.decode())
    return out


def _is_column(shape: Any) -> bool:
    """Whether texts have the shape [texts] or [texts, 1]."""
    return shape is not None and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))


def _cut(n: OnnxNode, parts: _Parts, letters: Output, pattern: str, between: bool, shortest: int) -> _Parts:
    """Cuts parts into matches of `pattern`, or the text `between` them, of at least `shortest` letters."""
    table = table_of(pattern, anywhere=True)
    rows = TextRows(n, parts.begin, parts.end, letters)
    lengths, positions = rows.lengths, rows.positions  # the end is a place, too
    byte = rows.letters(positions)  # [parts, width]
    within = n("Less", positions, lengths)
    kinds = table.following.shape[1]
    kind = n("Select", within, n("Gather", table.kind, byte, 0, opset=8), n.const(kinds, "i32"))
    longest = _match_lengths(n, table, kind, positions, lengths)
    is_first = n("LogicalAnd", within, n("NotEqual", n("BitwiseAnd", byte, 0xC0), 0x80))
    size = n.const(1)
    for least in (0xC0, 0xE0, 0xF0):
        size = n("Add", size, n.convert(n("GreaterEqual", byte, least), "i64"))
    beyond = n("Add", positions, n("Select", n("Greater", longest, 0), longest, size))
    hit = n("GreaterEqual", longest, 0)
    if between:  # what is after the last one is a part, too
        hit = n("LogicalOr", hit, n("Equal", positions, lengths))
    free = _drop_overlaps(n, hit, beyond, lengths)
    start, stop = (free, positions) if between else (positions, n("Add", positions, longest))
    start, stop = (n("Add", n("Maximum", side, 0), n("Multiply", longest, 0)) for side in (start, stop))
    before = n("CumSum", n.convert(is_first, "i64"), 1, exclusive=True)
    letters_before = [n("GatherElements", before, side, axis=1) for side in (start, stop)]
    enough = n("GreaterEqual", n("Subtract", letters_before[1], letters_before[0]), shortest)
    keep = n("LogicalAnd", n("GreaterEqual", free, 0), enough)
    which = n.reshape(n("NonZero", n.reshape(keep, [-1]), output_type="i64"), [-1])
    of = n("Divide", which, rows.width)
    sides = [n("Gather", n.reshape(n("Add", rows.begins, v), [-1]), which, 0, opset=8) for v in (start, stop)]
    return _Parts(n("Gather", parts.text, of, 0, opset=8), *sides)


def _match_lengths(n: OnnxNode, table: Any, kind: Output, positions: Output, lengths: Output) -> Output:
    """The length of the longest match at each position, -1 for none: [parts, width]. `kind`: the class of
    each byte, with a class of its own after the end of a part."""
    count, kinds = table.following.shape
    sides = np.append(table.sides, EDGE).astype(np.int32)
    side = n("Gather", sides, kind, 0, opset=8)
    column = n("Concat", n.dim_of(side, 0), [1], axis=0)
    first = n.broadcast(n.const(EDGE, "i32"), column)
    before = n("Concat", first, n.slice(side, 1, 0, -1), axis=1)
    start = n("Gather", np.array(table.starts, np.int32), before, 0, opset=8)
    state = n("Select", n("LessEqual", positions, lengths), start, n.const(_DEAD, "i32"))
    ended = np.full((count, 1), _DEAD, np.int32)
    following = n.const(np.concatenate([table.following, ended], 1).reshape(-1))
    accepts = n.const(table.accepts.reshape(-1))

    def accepts_state(state: Output, next_side: Output, table: Output) -> Output:
        return n("Gather", table, n("Add", n("Multiply", state, n.const(4, "i32")), next_side), 0, opset=8)

    longest = n("Select", accepts_state(state, side, accepts), n.const(0), -1)
    row = n.squeeze(positions, [0])
    end = n.squeeze(n("Subtract", n.dim_of(kind, 1), 1), [0])

    def once(now: dict[str, Output], trip: Output, scope: Any) -> Any:
        """Extend the match at each position by one byte."""
        all_kinds, next_side, at, limit, onward, ends = (
            scope.capture(v) for v in (kind, side, row, end, following, accepts)
        )
        here, there = (n("Minimum", n("Add", n("Add", at, trip), i), limit) for i in (0, 1))
        byte = n("Gather", all_kinds, here, 1, opset=8)
        step = n("Add", n("Multiply", now["state"], n.const(kinds + 1, "i32")), byte)
        state = n("Gather", onward, step, 0, opset=8)
        is_accepted = accepts_state(state, n("Gather", next_side, there, 1, opset=8), ends)
        longest = n("Select", is_accepted, n("Add", trip, 1), now["longest"])
        alive = n("ReduceLogicalOr", n("NotEqual", state, n.const(_DEAD, "i32")), [0, 1], keep_dims=False)
        return {"state": state, "longest": longest}, alive

    return loop_while(n, once, end, n.const(True), {"state": state, "longest": longest})["longest"]


def _drop_overlaps(n: OnnxNode, hit: Output, beyond: Output, lengths: Output) -> Output:
    """The end of the previous match for each match [parts, width] that overlaps no earlier one, -1 elsewhere.
    `beyond`: the end of each match."""

    def once(free: Output, now: dict[str, Output]) -> tuple[Output, Output]:
        is_free = n("LogicalAnd", now["hit"], n("LessEqual", free, now["place"]))
        return n("Select", is_free, now["beyond"], free), n("Select", is_free, free, -1)

    end = n.squeeze(n.dim_of(hit, 1), [0])
    pieces = {name: n.transpose(v, [1, 0]) for name, v in (("hit", hit), ("beyond", beyond))}
    pieces["place"] = n.upto(end)
    _, before = loop_over(n, once, n.squeeze(n("Multiply", lengths, 0), [1]), pieces)
    return n.transpose(before, [1, 0])


def _filled_up(
    n: OnnxNode, parts: _Parts, texts: Output, letters: Output, fill: bytes, has_marks: bool
) -> Output:
    """The parts of each text as a row, padded with `fill`; rows of length 0 if no text has a part."""
    how: dict[str, Any] = {"output_type": "i64", "opset": 15}
    first, last = (n("SearchSorted", parts.text, texts, right_mode=side, **how) for side in (False, True))
    counts = n.unsqueeze(n("Subtract", last, first), [1])
    first = n.unsqueeze(first, [1])
    most = n("ReduceMax", n("Concat", counts, np.zeros((1, 1), np.int64), axis=0), [0, 1], keep_dims=False)
    if has_marks:
        most = n("Select", n("Greater", most, 0), n("Add", most, 2), 0)
    order = n("Unsqueeze", n.upto(most), [0])
    part_index = n("Subtract", order, int(has_marks))
    size, number = n.dim_of(letters, 0), n.dim_of(parts.begin, 0)
    others = np.array([0, len(fill), len(fill) + 1, len(fill) + 2])  # after the parts: what fills, two marks
    which = n("Select", n("Less", part_index, counts), n("Add", first, part_index), number)
    if has_marks:
        which = n("Select", n("Less", part_index, 0), n("Add", number, 1), which)
        which = n("Select", n("Equal", part_index, counts), n("Add", number, 2), which)
    shape = n("Concat", n.shape_of(n[0]), n("Unsqueeze", most, [0]), axis=0)
    sides = []
    for bounds, more in ((parts.begin, others[:3]), (parts.end, others[1:])):
        table = n("Concat", bounds, n("Add", size, more), axis=0)
        sides.append(n.convert(n.reshape(n("Gather", table, which, 0, opset=8), shape), "i32"))
    content = n("Concat", letters, np.frombuffer(fill + _MARKS, np.uint8), axis=0)
    return n("StringTensorPack", *sides, content)
