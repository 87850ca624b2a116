"""Strings: tables of texts, and which text of a table a string is.

Bytes of strings are numbers in OpenVINO too: StringTensorUnpack gives them, StringTensorPack takes them.
"""

from __future__ import annotations

import json
from functools import cache

from ovjit.build import record_of, set_attributes
from ovjit.forks import made_once
from ovjit.graph.op import find_op
from ovjit.readers.onnx.control import loop_over
from ovjit.readers.onnx.patterns import EDGE, table_of
from ovjit.readers.onnx.rule_language import *


def cast_text(n: OnnxNode, x: Output, kind: str) -> Output:
    """Numbers as text, or text as numbers: operations that OpenVINO does not have. For small types of 8 bits
    and fewer the result is of a wider one."""
    if kind == "string":
        row = ELEMENT_TYPES[n.dtype(x)]
        if row.bits < 8 or row.bits == 8 and row.is_real:
            x = n.convert(x, "f32" if row.is_real else "i32")
        return n("NumberToString", x)
    row = ELEMENT_TYPES[kind]
    if row.kind != "b" and (row.bits < 8 or row.bits == 8 and row.is_real):
        kind = "f32" if row.is_real else "i64"
    return n("StringToNumber", x, destination_type=kind)


def _encode(texts: Sequence[Any]) -> list[bytes]:
    return [text if isinstance(text, bytes) else str(text).encode() for text in texts]


def text_at(n: OnnxNode, texts: Sequence[Any], index: Output) -> Output:
    """Strings: texts[index]."""
    data = _encode(texts)
    ends = np.cumsum([len(text) for text in data])
    begins = ends - [len(text) for text in data]
    sides = [n("Gather", n.const(v.astype(np.int32)), index, 0, opset=8) for v in (begins, ends)]
    return n("StringTensorPack", *sides, np.frombuffer(b"".join(data), np.uint8))


def _look_up(n: OnnxNode, x: Output, texts: Sequence[Any]) -> tuple[Output, list[int]]:
    """(positions of strings in a list of words, the position of each text in that list). Columns of one
    tensor share the list, which grows while the model is read, so that there is one step for all of them."""
    words = [text.decode() if isinstance(text, bytes) else str(text) for text in texts]
    source, column = x, None
    if record_of(x.node) is find_op("Gather", 8):
        data, *others = x.node.input_values()
        if all(n.value(other) is not None for other in others) and n.dtype(data) == "string":
            source, column = data, others
    shared = n.reader.memo.setdefault("lists of words", {})
    if source not in shared:
        shared[source] = n("StringLookup", source, words="[]").node, {}
    node, positions = shared[source]
    for word in words:
        positions.setdefault(word, len(positions))
    set_attributes(node, words=json.dumps(list(positions)))
    index = node.output(0)
    if column is not None:
        index = n("Gather", index, *column, opset=8)
    return index, [positions[word] for word in words]


def find_text(n: OnnxNode, x: Output, texts: Sequence[Any]) -> tuple[Output, Output]:
    """(whether each string is among `texts`, the index of the first equal one; any index for others)"""
    index, positions = _look_up(n, x, texts)
    lengths = np.full(max(positions, default=-1) + 2, -1, np.int64)  # the last one is for words of others
    for number, position in reversed(list(enumerate(positions))):
        lengths[position] = number
    matches = n("Gather", lengths, n("Minimum", index, len(lengths) - 1), 0, opset=8)
    matches = n("Select", n("GreaterEqual", index, 0), matches, -1)
    return n("GreaterEqual", matches, 0), n("Maximum", matches, 0)


def compare_text(n: OnnxNode, x: Output, texts: Sequence[Any]) -> Output:
    """Compare strings with texts: a mask [..., texts]"""
    index, positions = _look_up(n, x, texts)
    return n("Equal", n.unsqueeze(index, [n.rank(x)]), np.array(positions, np.int64))


class Tokens(NamedTuple):
    """The result of a Tokenizer with an expression: words of texts [texts] or [texts, 1]."""

    texts: Output
    token: str
    shortest: int
    fill: str


class TextRows:
    """Texts as rows of letters, [texts, width]: one column more than the longest text has letters.

    `begins`, `ends`: where they are in `letters`, [texts]. `kind`: the element type of letters.
    """

    def __init__(self, n: OnnxNode, begins: Output, ends: Output, letters: Output, kind: str = "i64"):
        self.n = n
        self.begins, stops = (n.reshape(n.convert(v, "i64"), [-1, 1]) for v in (begins, ends))
        self.lengths = n("Subtract", stops, self.begins)  # [texts, 1]
        some = n("Concat", self.lengths, np.zeros((1, 1), np.int64), axis=0)
        self.width = n("Add", n("ReduceMax", some, [0, 1], keep_dims=False), 1)
        padded = n("Concat", letters, np.zeros(1, np.uint8), axis=0)
        self._letters = n.convert(padded, kind)
        self._last = n("Subtract", n.dim_of(self._letters, 0), 1)

    @made_once
    def positions(self) -> Output:
        """[1, width]: 0, 1 ..."""
        return self.n("Unsqueeze", self.n.upto(self.width), [0])

    def letters(self, positions: Output) -> Output:
        """The letters at these positions of each text; undefined after its end."""
        source = self.n("Minimum", self.n("Add", self.begins, positions), self._last)
        return self.n("Gather", self._letters, source, 0, opset=8)


@onnx_op("RegexFullMatch", 20)
def regex_full_match(n: OnnxNode) -> Any:
    """True for texts that match as a whole: an automaton reads the bytes of all texts at once."""
    table = table_of(n.require("pattern"))
    begins, ends, letters = n.all("StringTensorUnpack", n[0])
    rows = TextRows(n, begins, ends, letters, "i32")
    kinds = table.following.shape[1]
    kind = n("Gather", table.kind, rows.letters(rows.positions), 0, opset=8)
    kind = n("Select", n("Less", rows.positions, rows.lengths), kind, n.const(kinds, "i32"))
    count = len(table.following)
    # after a text's end it stays
    next_of = np.concatenate([table.following, np.arange(count, dtype=np.int32)[:, None]], 1).reshape(-1)

    def once(state: Output, now: dict[str, Output]) -> tuple[Output, Output]:
        at = n("Add", n("Multiply", state, n.const(kinds + 1, "i32")), now["kind"])
        return n("Gather", next_of, at, 0, opset=8), n.const(0, "i32")

    start = n.broadcast(n.const(0, "i32"), n.dim_of(rows.lengths, 0))
    state, _ = loop_over(n, once, start, {"kind": n.transpose(kind, [1, 0])})
    return n.reshape(n("Gather", table.accepts[:, EDGE], state, 0, opset=8), n.shape_of(begins))


@onnx_op("TfIdfVectorizer", 9)
def tf_idf_vectorizer(n: OnnxNode) -> Any:
    """Counts of each n-gram of the pool; up to `max_skip_count` words may lie between its words."""
    x, flat, pool = n[0], n.rank(n[0]) == 1, n.attr("pool_int64s")
    if pool is None:
        texts = n.require("pool_strings")
        fused = _text_n_grams(n, texts)
        if fused is not None:
            return fused
        words = sorted(set(texts))
        number = {word: i for i, word in enumerate(words)}
        x, pool = n("StringLookup", x, words=json.dumps(words)), [number[text] for text in texts]
    x = n.unsqueeze(n.convert(x, "i64"), [0] if flat else [])
    columns, weights = np.asarray(n.require("ngram_indexes"), np.int64), n.attr("weights")
    width = n.check_count(int(columns.max(initial=-1)) + 1, "numbers of n-grams")
    if columns.min(initial=0) < 0 or len(set(columns.tolist())) != columns.size:
        raise UnsupportedError("n-grams that share an output index are not supported")
    counts = _counts(n, x, pool)
    if sum(n.last_dim(v) for v in counts) != columns.size:
        raise ModelError(f"{columns.size} output indices are given for the n-grams of {len(pool)} words")
    out = n.convert(n("Concat", *counts, _zero_counts(n, x, 1), axis=1), "f32")
    mode = n.require("mode")
    if mode == "IDF":
        out = n("Minimum", out, 1.0)
    if mode != "TF" and weights:
        if len(weights) != columns.size:
            raise ModelError(f"{len(weights)} weights are given for {columns.size} n-grams")
        out = n("Multiply", out, np.asarray([*weights, 0], np.float32))
    which = np.full(width, columns.size, np.int64)
    which[columns] = np.arange(columns.size)
    out = n("Gather", out, which, 1, opset=8)
    return n.squeeze(out, [0]) if flat else out


def _keeps_rows(n: OnnxNode, node: Any) -> bool:
    """Whether a node is a view of words in which axis 0 has the texts, as in its input."""
    record = record_of(node)
    if record is find_op("Identity"):
        return True
    if record is find_op("Reshape"):
        axis = n.reader.memo.get("flattened", {}).get(node)
        if axis is not None:
            between = (n.shape(node.input_value(0)) or (0,))[1:axis]
            return axis > 0 and all(isinstance(d, int) and d == 1 for d in between)
        pattern = n.value(node.input_value(1))
        keeps = node.get_attributes()["special_zero"] and pattern is not None and pattern.tolist() == [0, -1]
        return bool(keeps)
    if record in (find_op("Squeeze"), find_op("Unsqueeze")) and node.get_input_size() == 2:
        axes, rank = (
            n.value(node.input_value(1)),
            max(n.rank(v) for v in (node.input_value(0), node.output(0))),
        )
        return axes is not None and all(axis % rank > 0 for axis in axes.reshape(-1).tolist())
    return False


def _text_n_grams(n: OnnxNode, pool: Sequence[str]) -> Output | None:
    """The n-grams of texts that a Tokenizer has cut into plain words, without the words: TextNGrams. None for
    other inputs."""
    if n.rank(n[0]) != 2:
        return None
    node = n[0].node
    while _keeps_rows(n, node):
        node = node.input_value(0).node
    tokens = n.reader.memo.get("tokens", {}).get(node)
    if tokens is None or tokens.fill in pool:
        return None
    texts, case = tokens.texts, "none"
    changed = n.reader.memo.get("cased texts", {}).get(texts.node)
    if changed is not None:
        texts, case = changed
    if record_of(texts.node) is find_op("Reshape"):
        source = texts.node.input_value(0)
        shape = n.shape(source)
        texts = source if shape is not None and len(shape) == 2 and shape[1] == 1 else texts
    columns, weights = list(n.require("ngram_indexes")), list(n.attr("weights") or [])
    mode = n.require("mode")
    if mode not in ("TF", "IDF", "TFIDF"):
        return None
    try:
        return n(
            "TextNGrams", texts, case=case, token=tokens.token, shortest=tokens.shortest,
            pool=json.dumps(list(pool)), starts=list(n.require("ngram_counts")), columns=columns,
            width=n.check_count(max(columns, default=-1) + 1, "numbers of n-grams"),
            least=n.require("min_gram_length"), most=n.require("max_gram_length"),
            skips=n.check_count(n.require("max_skip_count"), "skips", MOST_NODES), binary=int(mode == "IDF"),
            scaled=weights if mode != "TF" else [],
        )  # fmt: skip
    except ModelError:
        return None  # the general way reads it, or reports what is wrong


def _zero_counts(n: OnnxNode, x: Output, count: int) -> Output:
    """Zeros, `count` for each row."""
    return n.broadcast(n.const(0), n("Concat", n.dim_of(x, 0), [count], axis=0))


def _counts(n: OnnxNode, x: Output, pool: Sequence[int]) -> list[Output]:
    """Counts of the pool's n-grams in each row, [rows, n-grams], one tensor for each length of n-grams."""
    starts = [*n.require("ngram_counts"), len(pool)]
    out = []
    for size, (start, end) in enumerate(zip(starts, starts[1:], strict=False), 1):
        if not 0 <= start <= end <= len(pool) or (end - start) % size:
            raise ModelError(f"ngram_counts {starts[:8]} is not valid for {len(pool)} words")
        grams = np.asarray(pool[start:end], np.int64).reshape(-1, size)
        total = _zero_counts(n, x, len(grams))
        is_counted = n.require("min_gram_length") <= size <= n.require("max_gram_length")
        # words that are farther apart make no other n-grams of one word
        steps = (n.check_count(n.require("max_skip_count"), "skips", MOST_NODES) if size > 1 else 0) + 1
        for step in range(1, steps + 1 if is_counted and len(grams) else 1):
            hits = []
            for i in range(size):
                word = n.slice(x, 1, i * step, -(size - 1 - i) * step or None)  # [rows, windows]
                hits.append(n("Equal", n.unsqueeze(word, [2]), grams[:, i]))
            hit = n.convert(n.chain("LogicalAnd", hits), "i64")
            total = n("Add", total, n("ReduceSum", hit, [1], keep_dims=False))
        out.append(total)
    return out


@onnx_op("StringConcat", 20)
def string_concat(n: OnnxNode) -> Any:
    """Concatenates pairs of texts: the new bytes are rows as wide as the longest result."""
    begins, ends, letters = n.all("StringTensorUnpack", n[0])
    begins_2, ends_2, letters_2 = n.all("StringTensorUnpack", n[1])
    first, second = n("Subtract", ends, begins), n("Subtract", ends_2, begins_2)
    lengths = n("Add", first, second)
    shape = n.shape_of(lengths)

    def column(value: Output) -> Output:
        return n.reshape(n.broadcast(value, shape), [-1, 1])

    flat = column(lengths)
    longest = n("Maximum", n("ReduceMax", flat, [0, 1], keep_dims=False), n.const(0, "i32"))
    width = n("Add", longest, n.const(1, "i32"))
    zero, one = n.const(0, "i32"), n.const(1, "i32")
    columns = n.unsqueeze(n("Range", zero, width, one, output_type="i32", opset=4), [0])
    size = n.squeeze(n.convert(n.dim_of(letters, 0), "i32"), [0])
    second_start = n("Subtract", n("Add", begins_2, size), first)
    source = n("Select", n("Less", columns, column(first)), n("Add", column(begins), columns),
               n("Add", column(second_start), columns))  # fmt: skip
    both = n("Concat", letters, letters_2, np.zeros(1, np.uint8), axis=0)
    last = n.convert(n("Subtract", n.dim_of(both, 0), 1), "i32")
    rows = n("Gather", both, n("Minimum", source, last), 0, opset=8)
    count = n.squeeze(n.convert(n.dim_of(flat, 0), "i32"), [0])
    numbers = n("Range", zero, count, one, output_type="i32", opset=4)
    starts = n.reshape(n("Multiply", numbers, width), shape)
    return n("StringTensorPack", starts, n("Add", starts, lengths), n.reshape(rows, [-1]))


def _change_case(n: OnnxNode, letters: Output, upper: bool) -> Output:
    """Change the case of UTF-8 letters of up to three bytes whose two cases have the same length."""
    table = _case_table(upper)
    padded = n("Concat", np.zeros(2, np.int32), n.convert(letters, "i32"), np.zeros(2, np.int32), axis=0)
    around = [n.slice(padded, 0, i, i - 4 or None) for i in range(5)]  # two before each byte ... two after
    low = [n("BitwiseAnd", byte, n.const(63, "i32")) for byte in around]

    def letter(at: int, size: int) -> Output:
        """The letter of `size` bytes that begins at `around[at]`, with its case changed."""
        code = n("BitwiseAnd", around[at], n.const((127, 31, 15)[size - 1], "i32"))
        for i in range(1, size):
            code = n("Add", n("Multiply", code, n.const(64, "i32")), low[at + i])
        return n("Gather", n.const(table), code, 0, opset=8)

    def leads(at: int, size: int) -> Output:
        least, most = ((0, 0x80), (0xC0, 0xE0), (0xE0, 0xF0))[size - 1]
        above = n("GreaterEqual", around[at], n.const(least, "i32"))
        return n("LogicalAnd", above, n("Less", around[at], n.const(most, "i32")))

    out = around[2]
    for size, mark in ((1, 0), (2, 0xC0), (3, 0xE0)):
        for byte_index in range(size):  # of this byte in its letter
            code, shift = letter(2 - byte_index, size), 64 ** (size - 1 - byte_index)
            part = n("Divide", code, n.const(shift, "i32"))
            part = n("BitwiseAnd", part, n.const(63, "i32")) if byte_index else part
            part = n("Add", part, n.const(0x80 if byte_index else mark, "i32"))
            out = n("Select", leads(2 - byte_index, size), part, out)
    return n.convert(out, "u8")


@cache
def _case_table(upper: bool) -> np.ndarray:
    """Code point -> code point in the other case."""
    table = np.arange(1 << 16, dtype=np.int32)
    for code in range(1 << 16):
        letter = chr(code)
        other = letter.upper() if upper else letter.lower()
        if other != letter and len(other) == 1 and len(other.encode()) == len(letter.encode()):
            table[code] = ord(other)
    return table


@onnx_op("StringNormalizer", 10)
def string_normalizer(n: OnnxNode) -> Any:
    """Changes the case of texts [C] or [1, C] without stop words; one empty text if none remains."""
    action, rank, stop = n.attr("case_change_action"), n.rank(n[0]), n.attr("stopwords") or []
    if rank not in (1, 2):
        raise ModelError(f"texts of {rank} dimensions are not valid; 1 or 2 are expected")
    source = n[0]
    x = n.reshape(n[0], [-1]) if rank == 2 else n[0]
    begins, ends, letters = n.all("StringTensorUnpack", x)
    if stop:
        if not n.attr("is_case_sensitive"):
            x = n("StringTensorPack", begins, ends, _change_case(n, letters, upper=False))
            stop = [word.lower() for word in stop]
        is_stopword = n("ReduceLogicalOr", compare_text(n, x, stop), [-1], keep_dims=False)
        remaining = n.reshape(n("NonZero", n("LogicalNot", is_stopword), output_type="i64"), [-1])
        begins, ends = (n("Gather", v, remaining, 0, opset=8) for v in (begins, ends))
    count = n("Maximum", n.dim_of(begins, 0), 1)
    none = np.zeros(1, np.int32)
    begins, ends = (n("Slice", n("Concat", v, none, axis=0), [0], count, [1], [0]) for v in (begins, ends))
    if action != "NONE":
        letters = _change_case(n, letters, action == "UPPER")
    if rank == 2:
        begins, ends = (n.unsqueeze(v, [0]) for v in (begins, ends))
    out = n("StringTensorPack", begins, ends, letters)
    if rank == 1 and not stop:
        n.reader.memo.setdefault("cased texts", {})[out.node] = (source, action.lower())
    return out


#: What texts are split at where no delimiter is given: spaces, and -1, which is beyond a text.
_BLANKS = np.array([*b" \t\n\v\f\r", -1], np.int64)


def _find_marks(n: OnnxNode, mark: bytes, letter: Callable[[int], Output], lengths: Output) -> Output:
    """Mask of the beginnings of a mark; of overlapping ones, the first."""
    hit = n.chain("LogicalAnd", (n("Equal", letter(i), code) for i, code in enumerate(mark)))
    if any(mark[:i] == mark[-i:] for i in range(1, len(mark))):
        hit = _drop_overlaps(n, hit, len(mark), lengths)
    return hit


def _words(n: OnnxNode, letter: Callable[[int], Output]) -> tuple[Output, Output]:
    """(mask of the first letters of words, mask of their last letters)."""

    def blank(by: int) -> Output:
        equal = n("Equal", n.unsqueeze(letter(by), [2]), _BLANKS)
        return n("ReduceLogicalOr", equal, [2], keep_dims=False)

    here = n("LogicalNot", blank(0))
    return n("LogicalAnd", here, blank(-1)), n("LogicalAnd", here, blank(1))


@onnx_op("StringSplit", 20)
def string_split(n: OnnxNode) -> Any:
    """(parts of each text [..., most parts], texts without letters after the last; how many each has)

    Texts are rows of letters here. Places where parts begin and end are put before the others by sorting.
    """
    mark = (n.attr("delimiter") or "").encode()
    most = n.attr("maxsplit")
    x = n.reshape(n[0], [-1])
    begins, ends, letters = n.all("StringTensorUnpack", x)
    rows = TextRows(n, begins, ends, letters)
    lengths, width, positions = rows.lengths, rows.width, rows.positions
    beyond = n("Add", width, n.const(len(mark)))

    def letter(by: int) -> Output:
        """[texts, width]: the letters shifted by `by` positions, -1 outside of the text"""
        at = n("Add", positions, by)
        within = n("LogicalAnd", n("GreaterEqual", at, 0), n("Less", at, lengths))
        return n("Select", within, rows.letters(n("Maximum", at, 0)), -1)

    def in_front(which: Output) -> Output:
        """The positions where the mask is true, in order, padded with positions after all texts."""
        keys = n("Select", which, positions, beyond)
        how: dict[str, Any] = {"mode": "min", "sort": "value", "index_element_type": "i64"}
        return n("TopK", keys, width, axis=1, **how, opset=11)

    none, last = n("Multiply", lengths, 0), lengths  # where a text ends for its last part
    if mark:
        hit = _find_marks(n, mark, letter, lengths)
        mark_positions = in_front(hit)  # where the marks are
        starts = n("Concat", none, n("Add", mark_positions, len(mark)), axis=1)
        stops = n("Concat", mark_positions, n("Add", none, beyond), axis=1)
        count = n("Add", n("ReduceSum", n.convert(hit, "i64"), [1], keep_dims=True), 1)
    else:
        first, final = _words(n, letter)
        starts, stops = in_front(first), n("Add", in_front(final), 1)
        count = n("ReduceSum", n.convert(first, "i64"), [1], keep_dims=True)
        last = n("ReduceMax", n("Select", final, n("Add", positions, 1), 0), [1], keep_dims=True)
    end = n.squeeze(n.dim_of(starts, 1), [0])
    order = n("Unsqueeze", n.upto(end), [0])
    if most is not None and most >= 0:
        count = n("Minimum", count, most + 1)
        stops = n("Select", n("Equal", order, most), last, stops)
    there = n("Less", order, count)
    stops = n("Minimum", stops, lengths)
    sides = [n("Select", there, n("Add", rows.begins, side), 0) for side in (starts, stops)]
    parts = n("ReduceMax", n("Concat", count, np.zeros((1, 1), np.int64), axis=0), [0, 1], keep_dims=False)
    shape = n.shape_of(n[0])
    parts_shape = n("Concat", shape, n("Unsqueeze", parts, [0]), axis=0)
    sides = [n("Slice", side, [0], n("Unsqueeze", parts, [0]), [1], [1]) for side in sides]
    sides = [n.convert(n.reshape(side, parts_shape), "i32") for side in sides]
    return [n("StringTensorPack", *sides, letters), n.reshape(count, shape)]


def _drop_overlaps(n: OnnxNode, hit: Output, size: int, lengths: Output) -> Output:
    """Mask [texts, width] of the beginnings of marks that no earlier mark overlaps."""

    def once(free: Output, now: dict[str, Output]) -> tuple[Output, Output]:
        is_free = n("LogicalAnd", now["hit"], n("LessEqual", free, now["place"]))
        return n("Select", is_free, n("Add", now["place"], size), free), is_free

    end = n.squeeze(n.dim_of(hit, 1), [0])
    positions = n.upto(end)
    free = n.squeeze(n("Multiply", lengths, 0), [1])
    _, is_free = loop_over(n, once, free, {"hit": n.transpose(hit, [1, 0]), "place": positions})
    return n.transpose(is_free, [1, 0])
