"""Operators of com.microsoft on tokens: hashes, words made of letters, paths and drafts of decoders."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.build import Output
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.dtypes import ELEMENT_TYPES
from ovjit.readers.numerics.bits import bits_of
from ovjit.readers.onnx.control import loop_over
from ovjit.readers.onnx.node import OnnxNode
from ovjit.readers.onnx.text import TextRows
from ovjit.readers.onnx_contrib.attention import ms

#: The most sizes of n-grams that are written out.
MOST_SIZES = 64


# -- hashes --------------------------------------------------------------------------------------------------


def _u32(n: OnnxNode, value: int) -> Output:
    return n.const(np.uint32(value & 0xFFFFFFFF))


def _rotated_left(n: OnnxNode, x: Output, by: int) -> Output:
    """The bits of u32, moved to the left round the end."""
    shifted = n("BitwiseLeftShift", x, _u32(n, by))
    return n("BitwiseOr", shifted, n("BitwiseRightShift", x, _u32(n, 32 - by)))


def _scramble(n: OnnxNode, word: Output) -> Output:
    word = _rotated_left(n, n("Multiply", word, _u32(n, 0xCC9E2D51)), 15)
    return n("Multiply", word, _u32(n, 0x1B873593))


def _absorb(n: OnnxNode, state: Output, word: Output) -> Output:
    state = _rotated_left(n, n("BitwiseXor", state, _scramble(n, word)), 13)
    return n("Add", n("Multiply", state, _u32(n, 5)), _u32(n, 0xE6546B64))


@ms("MurmurHash3")
def murmur_hash(n: OnnxNode) -> Any:
    """32 bits of each element, by words of four bytes; what is left of a text is a last, shorter word."""
    x, kind = n[0], n.dtype(n[0])
    seed = _u32(n, n.attr("seed", 0))
    if kind == "string":
        state, size = _hashed_texts(n, x, seed)
    elif kind in ("i32", "u32", "i64", "u64", "f32", "f64"):
        if ELEMENT_TYPES[kind].is_real:
            x = n.convert(bits_of(n, x), f"u{ELEMENT_TYPES[kind].bits}")
            kind = n.dtype(x)
        words = [x] if kind in ("i32", "u32") else [
            n("BitwiseAnd", x, n.like(x, 0xFFFFFFFF)),
            n("BitwiseRightShift", n.convert(x, "u64"), n.const(np.uint64(32))),
        ]  # fmt: skip
        state = seed
        for word in words:
            state = _absorb(n, state, n.convert(word, "u32"))
        size = _u32(n, 4 * len(words))
    else:
        raise UnsupportedError(f"the hash of {kind} is not supported")
    state = n("BitwiseXor", state, size)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        state = n("BitwiseXor", state, n("BitwiseRightShift", state, _u32(n, shift)))
        state = n("Multiply", state, _u32(n, factor))
    return state if n.attr("positive", 1) else n.convert(state, "i32")


def _hashed_texts(n: OnnxNode, x: Output, seed: Output) -> tuple[Output, Output]:
    """(the hash's state after all bytes of each text, their number)"""
    begins, ends, letters = n.all("StringTensorUnpack", x)
    shape = n.shape_of(begins)
    rows = TextRows(n, begins, ends, letters, "u32")
    lengths = rows.lengths
    words = n("Divide", n("Add", rows.width, 3), 4)  # the last of which no text fills

    def word_at(position: Output) -> Output:
        """Four bytes of each text from a place on, 0 beyond its end."""

        def byte(i: int) -> Output:
            at = n("Add", position, i)
            letter = n("Select", n("Less", at, lengths), rows.letters(at), _u32(n, 0))
            return n("BitwiseLeftShift", letter, _u32(n, 8 * i))

        return n.chain("BitwiseOr", map(byte, range(4)))

    whole_words = n("Divide", lengths, 4)
    which = n("Unsqueeze", n.upto(words), [0])  # [1, words]
    pieces = {
        "word": n.transpose(word_at(n("Multiply", which, 4)), [1, 0]),  # [words, texts]
        "there": n.transpose(n("Less", which, whole_words), [1, 0]),
    }

    def once(state: Output, now: dict[str, Output]) -> tuple[Output, Output]:
        state = n("Select", now["there"], _absorb(n, state, now["word"]), state)
        return state, n.const(0, "i32")

    start = n.broadcast(seed, n.dim_of(lengths, 0))
    state, _ = loop_over(n, once, start, pieces)
    state = n("BitwiseXor", state, _scramble(n, n.squeeze(word_at(n("Multiply", whole_words, 4)), [1])))
    return n.reshape(state, shape), n.reshape(n.convert(lengths, "u32"), shape)


@ms("NGramHashMapping")
def ngram_hash_mapping(n: OnnxNode) -> Any:
    """(ids [batch, length], multipliers, sizes of the tables, past ids, offsets, end of sequence, segments)
    -> (places in the tables [batch, length, orders * heads], the last ids)

    For each order, ids times multipliers are put together by exclusive or. Ids before the beginning, or
    before the end of a sequence or segment that lies between, count as the end of sequence or padding.
    """
    ids = n[0]
    most, heads = n.required("max_ngram_size"), n.required("n_head_per_ngram")
    if most < 2 or heads < 1:
        raise ModelError(f"max_ngram_size {most} and n_head_per_ngram {heads} are not valid")
    n.check_count(most, "sizes of n-grams", MOST_SIZES)
    end = n.reshape(n[5], [1]) if n.has(5) else None
    nothing = n.like(ids, [n.required("pad_id")]) if end is None else end
    batch, length = n.dim_of(ids, 0), n.dim_of(ids, 1)
    if n.has(3):
        past = n[3]
    else:
        past = n.broadcast(nothing, n.concat([batch, n.const([most - 1])], 0))
    every = n("Concat", past, ids, axis=1)

    def before(x: Output, by: int) -> Output:
        """[batch, length] of what is `by` places before, `x` having most - 1 places more at its beginning"""
        return n("Slice", x, [most - 1 - by], n("Add", length, most - 1 - by), [1], [1])

    breaks: Output | None = None  # whether a segment begins at a place
    if n.has(6):
        segments = n[6]
        begins = n("NotEqual", n.slice(segments, 1, 1), n.slice(segments, 1, 0, -1))
        none = n.broadcast(False, n.concat([batch, n.const([most])], 0))
        breaks = n("Concat", none, begins, axis=1)
    multipliers = n[1]
    mixed: Output | None = None
    blocked: Output | None = None
    table_indices = []
    for by in range(most):
        shifted = before(every, by)
        if by:
            ends = []
            if end is not None and n.attr("reset_on_eos", 0):
                ends.append(n("Equal", shifted, end))
            if breaks is not None:
                ends.append(before(breaks, by - 1))
            for one in ends:
                blocked = one if blocked is None else n("LogicalOr", blocked, one)
            shifted = shifted if blocked is None else n("Select", blocked, nothing, shifted)
        part = n("Multiply", shifted, n("Gather", multipliers, [by], 0, opset=8))
        mixed = part if mixed is None else n("BitwiseXor", mixed, part)
        if by:
            sizes = n.slice(n[2], 0, (by - 1) * heads, by * heads)
            table_indices.append(n("FloorMod", n.unsqueeze(mixed, [2]), sizes))
    out = n.concat(table_indices, 2)
    if n.has(4):
        out = n("Add", out, n[4])
    return [out, n.slice(every, 1, 1 - most)]


# -- words, paths and drafts ---------------------------------------------------------------------------------


@ms("WordConvEmbedding")
def word_conv_embedding(n: OnnxNode) -> Any:
    """(letters of words [words, letters], filters [out, 1, window, size], bias, table of letters [.., size])
    -> [words, out], the largest of a convolution over a word's letters; letter 0 is none"""
    ids, filters = n[0], n[1]
    window = n.static_shape(filters, "the filters' shape")[2]
    present = n("Greater", ids, n.like(ids, 0))
    count = n("ReduceSum", n.convert(present, "i64"), [1], keep_dims=True)
    count = n("Maximum", count, window)  # [words, 1]
    at = n("Unsqueeze", n.upto(n.dim_of(ids, 1)), [0])
    letters = n("Gather", n[3], ids, 0, opset=8)  # [words, letters, size]
    inside = n.unsqueeze(n("Less", at, count), [2])
    letters = n.unsqueeze(n("Select", inside, letters, n.like(letters, 0)), [1])
    plain: dict[str, Any] = {"strides": [1, 1], "pads_begin": [0, 0], "pads_end": [0, 0], "dilations": [1, 1]}
    out = n.squeeze(n("Convolution", letters, filters, **plain), [3])  # [words, out, windows]
    out = n("Tanh", n("Add", out, n.unsqueeze(n[2], [1])))
    windows = n.slice(at, 1, 0, 1 - window or None)
    full = n("LessEqual", n("Add", windows, window), count)
    return n("ReduceMax", n("Select", n.unsqueeze(full, [1]), out, n.like(out, -1e12)), [2], keep_dims=False)


@ms("DynamicTimeWarping")
def dynamic_time_warping(n: OnnxNode) -> Any:
    """The path of the least cost through a matrix from one corner to the other, [2, steps].

    Costs are added up along one diagonal after the other, and the path is walked back over these.
    """
    x = n.squeeze(n[0], [0]) if n.rank(n[0]) == 3 else n[0]
    rows = n.dim_of(x, 0)
    # the diagonals as rows: each line of the matrix a place further to the right than that above
    tail = n.broadcast(float("inf"), n.concat([rows, rows], 0))
    line = n.reshape(n("Concat", x, tail, axis=1), [-1])
    line = n("Slice", line, [0], n("Subtract", n.dim_of(line, 0), rows), [1], [0])
    skewed = n.transpose(n.reshape(line, n.concat([rows, n.const([-1])], 0)), [1, 0])  # [diagonals, rows]
    beyond = np.full((1, 1), np.inf, np.float32)

    def further(state: Output, now: dict[str, Output]) -> tuple[Output, Output]:
        """(the costs of the last two diagonals, by rows behind one of no cost, where each place came from)"""
        corner, upper = (n.slice(n.slice(state, 0, i, i + 1), 1, 0, -1) for i in (0, 1))
        previous = n.slice(n.slice(state, 0, 1, 2), 1, 1)
        first = n("LogicalAnd", n("Less", corner, upper), n("Less", corner, previous))
        second = n("LogicalAnd", n("Less", upper, corner), n("Less", upper, previous))
        came = n("Select", second, n.const(1, "i32"), n.const(2, "i32"))
        came = n("Select", first, n.const(0, "i32"), came)
        least = n("Select", first, corner, n("Select", second, upper, previous))
        total = n("Add", least, n.unsqueeze(now["cost"], [0]))
        following = n("Concat", n.slice(state, 0, 1, 2), n("Concat", beyond, total, axis=1), axis=0)
        return following, n.squeeze(came, [0])

    state_shape = n.concat([n.const([2]), n("Add", rows, 1)], 0)
    start = n.broadcast(float("inf"), state_shape)
    start = n("ScatterNDUpdate", start, np.zeros((1, 2), np.int64), np.zeros(1, np.float32), opset=3)
    _, came = loop_over(n, further, start, {"cost": skewed})  # [diagonals, rows]
    count = n.dim_of(came, 0)
    backwards = {
        "came": n.slice(came, 0, -1, None, -1),
        "diagonal": n("Subtract", n("Subtract", count, 1), n.upto(count)),
    }

    def back(state: Output, now: dict[str, Output]) -> tuple[Output, Output]:
        """(row and column of the path, the same where it crosses this diagonal, else -1)"""
        row = n.slice(state, 0, 0, 1)
        here = n("Equal", n("ReduceSum", state, [0], keep_dims=False), now["diagonal"])
        here = n("LogicalAnd", here, n("GreaterEqual", n("ReduceMin", state, [0], keep_dims=False), 0))
        way = n("Gather", now["came"], n("Maximum", row, 0), 0, opset=8)
        steps = n("Gather", np.array([[1, 1], [1, 0], [0, 1]], np.int64), n.squeeze(way, [0]), 0, opset=8)
        previous_step = n("Select", here, n("Subtract", state, steps), state)
        return previous_step, n("Select", here, state, n.const(np.full(2, -1, np.int64)))

    corner = n("Subtract", n.concat([rows, n.dim_of(x, 1)], 0), 1)
    _, path = loop_over(n, back, corner, backwards)  # [diagonals, 2]
    path = n.slice(path, 0, -1, None, -1)
    crossed = n("GreaterEqual", n.squeeze(n.slice(path, 1, 0, 1), [1]), 0)
    crossings = n.reshape(n("NonZero", crossed, output_type="i64"), [-1])
    return n.convert(n.transpose(n("Gather", path, crossings, 0, opset=8), [1, 0]), "i32")


@ms("BifurcationDetector")
def bifurcation_detector(n: OnnxNode) -> Any:
    """(source, tokens so far, where they left the source, predicted tokens)
    -> (tokens with the predicted ones up to the first that differs from the source, where they return to it)

    They return behind their last n-gram, if the source has that once. Longer n-grams decide among several.
    """
    source, tokens = n[0], n[1]
    least, most = n.attr("min_ngram_size", 1), n.attr("max_ngram_size", 3)
    if not 1 <= least <= most:
        raise ModelError(f"n-grams of {least} to {most} tokens are not valid")
    n.check_count(most, "sizes of n-grams", MOST_SIZES)
    if n.has(3):
        begin = n.reshape(n[2], [1])
        source_tail = n("Slice", source, begin, n.dim_of(source, 0), [1], [0])
        other = n.convert(n("NotEqual", n.slice(n[3], 0, 0, -1), source_tail), "i64")
        agreed = n("Equal", n("CumSum", other, 0), 0)
        count = n("Add", n("ReduceSum", n.convert(agreed, "i64"), [0], keep_dims=True), 1)
        tokens = n("Concat", tokens, n("Slice", n[3], [0], count, [1], [0]), axis=0)
    length, size = n.dim_of(source, 0), n.dim_of(tokens, 0)
    result, over = n.const(np.full(1, -1, np.int64)), n.const(np.zeros(1, np.bool_))
    padded = n("Concat", source, np.zeros(most, np.int64), axis=0)
    behind_tokens = n("Concat", tokens, np.zeros(1, np.int64), axis=0)
    for gram in range(least, most + 1):
        over = n("LogicalOr", over, n("Less", size, gram))
        windows = n.upto(n("Maximum", n("Subtract", length, gram - 1), 0))
        tail = n("Maximum", n("Subtract", size, gram), 0)
        equal = []
        for i in range(gram):
            at = n("Minimum", n("Add", tail, i), n("Maximum", n("Subtract", size, 1), 0))
            mine = n("Gather", padded, n("Add", windows, i), 0, opset=8)
            equal.append(n("Equal", mine, n("Gather", behind_tokens, at, 0, opset=8)))
        hit = n.chain("LogicalAnd", equal)
        hits = n("ReduceSum", n.convert(hit, "i64"), [0], keep_dims=True)
        match_ends = n("Add", n("Add", windows, gram), n("Select", hit, 0, 1 << 40))
        match_ends = n("Concat", match_ends, np.full(1, 1 << 40, np.int64), axis=0)
        first = n("ReduceMin", match_ends, [0], keep_dims=True)
        over = n("LogicalOr", over, n("Equal", hits, 0))
        value = n("Select", n("Equal", hits, 1), first, -1)
        result = n("Select", over, result, value)
        over = n("LogicalOr", over, n("GreaterEqual", first, length))
    return [tokens, n.reshape(result, n.shape_of(n[2]))]
