"""Attention: what com.microsoft's variants have in common, as OpenVINO's ScaledDotProductAttention.

The ai.onnx operators (Attention, RotaryEmbedding) are read by the bodies that the standard gives them.
"""

from __future__ import annotations

from ovjit.readers.onnx_contrib.rule_language import *

#: What a masked place adds to its score.
MASKED = -1e30
#: What ONNX Runtime gives for such a score.
LOWEST = float(np.finfo(np.float32).min)
_END = (1 << 63) - 1


def to_heads(n: OnnxNode, x: Output, heads: int) -> Output:
    """[batch, length, heads * size] -> [batch, heads, length, size]"""
    return n.transpose(n("Reshape", x, [0, 0, heads, -1], special_zero=True), [0, 2, 1, 3])


def from_heads(n: OnnxNode, x: Output) -> Output:
    """[batch, heads, length, size] -> [batch, length, heads * size]"""
    return n("Reshape", n.transpose(x, [0, 2, 1, 3]), [0, 0, -1], special_zero=True)


def attend(
    n: OnnxNode, q: Output, k: Output, v: Output, bias: Output | None = None, scale: float | None = None,
    softcap: float = 0.0, sink: Output | None = None,
) -> Output:  # fmt: skip
    """softmax(q @ k.T * scale + bias) @ v of [batch, heads, length, size]; by default 1 / sqrt(size)

    `sink`, [1, heads or 1, 1, 1], is the score of a place that takes weight and has no value.
    """
    if softcap or sink is not None:
        return n("MatMul", scores_of(n, q, k, bias, scale, softcap, sink)[1], v)
    inputs = [q, k, v]
    if bias is not None or scale:
        inputs.append(n.like(q, 0) if bias is None else bias)
    if scale:
        inputs.append(n.like(q, scale))
    return n("ScaledDotProductAttention", *inputs, causal=False)


def scores_of(
    n: OnnxNode, q: Output, k: Output, bias: Output | None = None, scale: float | None = None,
    softcap: float = 0.0, sink: Output | None = None,
) -> tuple[Output, Output]:  # fmt: skip
    """(the scores before the softmax, and after it without the sink's) as `attend` has them"""
    factor = scale or 1 / float(np.sqrt(n.last_dim(q)))
    scores = n("MatMul", n("Multiply", q, n.like(q, factor)), k, transpose_b=True)
    if softcap:
        scores = n("Multiply", n("Tanh", n("Divide", scores, n.like(q, softcap))), n.like(q, softcap))
    scores = scores if bias is None else n("Add", scores, bias)
    if sink is None:
        return scores, n("Softmax", scores, axis=-1, opset=8)
    shape = n.concat([n.slice(n.shape_of(scores), 0, 0, 3), n.const(np.array([1]))], 0)
    beside = n.broadcast(sink, shape)
    weights = n("Softmax", n("Concat", scores, beside, axis=3), axis=-1, opset=8)
    return scores, n.slice(weights, 3, 0, -1)


def add_bias(n: OnnxNode, a: Output | None, b: Output | None) -> Output | None:
    return b if a is None else a if b is None else n("Add", a, b)


def bias_of(n: OnnxNode, keep: Output, like: Output, masked: float = MASKED) -> Output:
    """A bias: 0 where `keep` is true, else a number that makes the softmax's weight 0."""
    return n("Select", keep, n.like(like, 0), n.like(like, masked))


def causal_bias(
    n: OnnxNode, q: Output, k: Output, like: Output, done: Output | None, masked: float = MASKED
) -> Output:
    """A causal mask [length of q, length of k]: true up to each query's own position, which counts from
    `done` on."""
    query_positions = n.unsqueeze(n.upto(n.dim_of(q, 2)), [1])
    if done is not None:
        query_positions = n("Add", query_positions, done)
    key_positions = n.unsqueeze(n.upto(n.dim_of(k, 2)), [0])
    return bias_of(n, n("LessEqual", key_positions, query_positions), like, masked)


def padding_bias(n: OnnxNode, mask: Output, k: Output, like: Output, masked: float = MASKED) -> Output:
    """A mask of keys: [batch] lengths, [batch, keys], [batch, queries, keys] of 0 and 1 -> a bias of four
    dimensions."""
    rank = n.rank(mask)
    if rank == 1:
        count, batch = (n.shape(mask) or (None,))[0], (n.shape(k) or (None,))[0]
        key_positions = n.unsqueeze(n.upto(n.dim_of(k, 2)), [0])
        ends = marks = n.convert(mask, "i64")
        if isinstance(count, int) and isinstance(batch, int) and count not in (1, batch, 2 * batch):
            raise UnsupportedError(f"a mask of {count} numbers is not supported for a batch of {batch}")
        begins: Output | None = None
        if count != batch and count != 1:  # all ends, then all begins, which may be left out
            size = n.dim_of(k, 0)
            more = n("Concat", marks, n.broadcast(n.const(0), size), axis=0)
            ends = n("Slice", marks, [0], size, [1], [0])
            begins = n("Slice", more, size, n("Multiply", size, 2), [1], [0])
        keep = n("Less", key_positions, n.unsqueeze(ends, [1]))
        if begins is not None:
            keep = n("LogicalAnd", keep, n("GreaterEqual", key_positions, n.unsqueeze(begins, [1])))
        return bias_of(n, n.unsqueeze(keep, [1, 2]), like, masked)
    keep = n("NotEqual", mask, n.like(mask, 0)) if n.dtype(mask) != "boolean" else mask
    if rank == 2:
        keep = n.unsqueeze(keep, [1, 2])
    elif rank == 3:
        keep = n.unsqueeze(keep, [1])
    elif rank != 4:
        raise ModelError(f"the mask has {rank} dimensions, which is not valid")
    return bias_of(n, keep, like, masked)


def repeat_heads(n: OnnxNode, x: Output, times: int) -> Output:
    """Each head `times` times: [batch, heads, length, size] -> [batch, heads * times, length, size]"""
    if times == 1:
        return x
    shape = n.concat(
        [n.dim_of(x, 0), n.dim_of(x, 1), n.const(np.array([times])), n.dim_of(x, 2), n.dim_of(x, 3)], 0
    )
    spread = n.broadcast(n.unsqueeze(x, [2]), shape)
    heads = (n.shape(x) or (None, None))[1]
    if not isinstance(heads, int):
        raise UnsupportedError("a dynamic number of heads is not supported")
    size = n("Concat", n.dim_of(x, 0), [heads * times], n.dim_of(x, 2), n.dim_of(x, 3), axis=0)
    return n("Reshape", spread, size, special_zero=False)


def rotate(
    n: OnnxNode, x: Output, cos: Output, sin: Output, interleaved: bool, size: int, rotated: int = 0
) -> Output:
    """Rotary embedding of [batch, heads, length, size]; cos and sin are [batch or 1, 1, length, rotated / 2].

    Pairs are (i, i + half), or neighbours if interleaved; elements from `rotated` on stay (0: none).
    """
    rotated = rotated or size
    unrotated = n.slice(x, 3, rotated) if rotated < size else None
    part = n.slice(x, 3, 0, rotated) if unrotated is not None else x
    half = rotated // 2
    if interleaved:
        a, b = n.slice(part, 3, 0, step=2), n.slice(part, 3, 1, step=2)
    else:
        a, b = n.split(part, 3, [half, half])
    real = n("Subtract", n("Multiply", a, cos), n("Multiply", b, sin))
    imaginary = n("Add", n("Multiply", a, sin), n("Multiply", b, cos))
    if interleaved:
        pairs = n("Concat", n.unsqueeze(real, [4]), n.unsqueeze(imaginary, [4]), axis=4)
        out = n("Reshape", pairs, [0, 0, 0, rotated], special_zero=True)
    else:
        out = n("Concat", real, imaginary, axis=3)
    return out if unrotated is None else n("Concat", out, unrotated, axis=3)


def append_to_buffer(n: OnnxNode, past: Output, new: Output, done: Output, total: Output) -> Output:
    """A buffer [batch, heads, length, size] of past keys or values, with `new` written at positions `done` to
    `total`."""
    valid = n("Slice", past, [0], done, [1], [2])
    return n("Concat", valid, new, n("Slice", past, total, [_END], [1], [2]), axis=2)


def with_past(
    n: OnnxNode, new: list[Output], past: list[Output], length: Output | None
) -> tuple[list[Output], list[Output], Output]:
    """(keys and values after the past ones, the outputs "present", length of the past). With `length`, the
    past's buffers are only filled up to it, and the present ones have the buffers' size.

    With `length`, so many places of the past's buffers are taken, and the present is as long as these.
    """
    if length is None:
        joined = [n("Concat", old, x, axis=2) for old, x in zip(past, new, strict=True)]
        return joined, joined, n.dim_of(past[0], 2)
    done = n.reshape(n.convert(length, "i64"), [1])
    total = n("Add", done, n.dim_of(new[0], 2))
    buffers = [append_to_buffer(n, old, x, done, total) for old, x in zip(past, new, strict=True)]
    return [n("Slice", x, [0], total, [1], [2]) for x in buffers], buffers, done


def _of_beams(n: OnnxNode, x: Output, beams: Output, done: Output) -> Output:
    """Keys or values [batch * beams, heads, length, size], gathered by the beam of each past position,
    `beams` [batch, beams, longest]."""
    rows, positions = n.upto(n.dim_of(x, 0)), n.upto(n.dim_of(x, 2))
    count = n.dim_of(beams, 1)
    by_row = n("Reshape", n.convert(beams, "i64"), n.concat([n.dim_of(x, 0), n.const([-1])], 0),
               special_zero=False)  # fmt: skip
    row_of_beam = n("Slice", by_row, [0], n.dim_of(x, 2), [1], [1])
    own_row = n.unsqueeze(rows, [1])
    row_of_beam = n("Add", n("Multiply", n("Divide", own_row, count), count), row_of_beam)
    row = n("Select", n("Less", n.unsqueeze(positions, [0]), done), row_of_beam, own_row)
    spread = n.broadcast(n.unsqueeze(row, [1, 3]), n.shape_of(x))
    return n("GatherElements", x, spread, axis=0)


def _unpack_part(n: OnnxNode, x: Output, which: int) -> Output:
    """[batch, length, heads, parts, size] -> one part as [batch, heads, length, size]"""
    return n.transpose(n("Gather", x, which, 3, opset=8), [0, 2, 1, 3])


def masked_of(n: OnnxNode) -> float:
    """Value added to masked scores (`mask_filter_value`)."""
    return float(n.attr("mask_filter_value", -10000.0))


@ms("MultiHeadAttention")
def multi_head_attention(n: OnnxNode) -> Any:
    """(query, key, value, bias, key padding mask, attention bias, past key, past value, length of the valid
    past, beam of each past position)"""
    heads = n.attr("num_heads")
    if not heads or heads < 1:
        raise ModelError("num_heads is missing")
    q = n[0]
    if not n.has(1) and n.rank(q) == 3:
        q, k, v = n.all("Split", q, 2, num_splits=3)
    elif not n.has(1):  # [batch, length, heads, 3, size]
        q, k, v = (_unpack_part(n, q, i) for i in range(3))
    elif n.has(2):
        k, v = n[1], n[2]
    else:  # [batch, length, heads, 2, size]
        k, v = (_unpack_part(n, n[1], i) for i in range(2))
    if n.has(3):
        bias_size = n.last_dim(n[3])
        query_size = n.last_dim(q) * (heads if n.rank(q) == 4 else 1)
        if bias_size < 2 * query_size:
            raise ModelError(f"a bias of {bias_size} elements does not match queries of {query_size}")
        parts = n.split(n[3], 0, [query_size, query_size, bias_size - 2 * query_size])
        q = n("Add", q, parts[0])
        if n.rank(k) == 3:
            k = n("Add", k, parts[1])
        if v is not None and n.rank(v) == 3:
            v = n("Add", v, parts[2])
    q, k, v = (to_heads(n, x, heads) if n.rank(x) == 3 else x for x in (q, k, v))
    done: Output | None = None
    present = [k, v]
    if n.has(6):
        (k, v), present, done = with_past(n, [k, v], [n[6], n[7]], n.optional(8))
        if n.has(9):
            k, v = (_of_beams(n, x, n[9], done) for x in (k, v))
    bias = padding_bias(n, n[4], k, q, masked_of(n)) if n.has(4) else None
    bias = add_bias(n, bias, n.optional(5))
    if n.attr("unidirectional", 0):
        bias = add_bias(n, bias, causal_bias(n, q, k, q, done, LOWEST if n.is_output_used(3) else MASKED))
    out = from_heads(n, attend(n, q, k, v, bias, n.attr("scale")))
    if not n.is_output_used(3):
        return [out, *present]
    return [out, *present, scores_of(n, q, k, bias, n.attr("scale"))[0]]


@ms("Attention")
def attention(n: OnnxNode) -> Any:
    """(input, weights of q, k and v side by side, bias, mask, past keys and values, attention bias, length of
    the valid past)"""
    joined = n.add_input(n("MatMul", n[0], n[1]), 2)
    length = n.optional(6) if n.attr("past_present_share_buffer", 0) else None
    return projected_attention(n, joined, n.optional(3), n.optional(4), n.optional(5), length)


def projected_attention(
    n: OnnxNode, joined: Output, mask: Output | None, past: Output | None, more: Output | None,
    length: Output | None = None,
) -> list[Output]:  # fmt: skip
    """Attention of q, k and v side by side, [batch, length, 3 * heads * size]."""
    heads = n.require("num_heads")
    if n.attr("do_rotary", 0):
        raise UnsupportedError("do_rotary is not supported")
    widths = n.attr("qkv_hidden_sizes")
    if not widths:
        width = (n.shape(joined) or (None,))[-1]
        if not isinstance(width, int) or width % 3:
            raise ModelError("the number of channels is not divisible by three")
        widths = [width // 3] * 3
    q, k, v = (to_heads(n, part, heads) for part in n.split(joined, 2, list(widths)))
    done: Output | None = None
    present = [k, v]
    if past is not None:
        old = [n.squeeze(p, [0]) for p in n.split(past, 0, [1, 1])]
        (k, v), present, done = with_past(n, [k, v], old, length)
    bias = padding_bias(n, mask, k, q, masked_of(n)) if mask is not None else None
    bias = add_bias(n, bias, more)
    if n.attr("unidirectional", 0):
        bias = add_bias(n, bias, causal_bias(n, q, k, q, done))
    out = from_heads(n, attend(n, q, k, v, bias, n.attr("scale")))
    if not n.is_output_used(1):
        return [out]
    return [out, n("Concat", *(n.unsqueeze(x, [0]) for x in present), axis=0)]
