"""Attention: what com.microsoft's variants have in common, as OpenVINO's ScaledDotProductAttention.

The ai.onnx operators (Attention, RotaryEmbedding) are read by the bodies that the standard gives them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.model.node import Output
from ovjit.errors import ModelError, UnsupportedError
from ovjit.frontends.onnx.node import OnnxNode
from ovjit.frontends.onnx.registry import MICROSOFT, onnx_op

#: What a masked place adds to its score.
MASKED = -1e30


def ms(name: str) -> Any:
    return onnx_op(name, domain=MICROSOFT)


def to_heads(n: OnnxNode, x: Output, heads: int) -> Output:
    """[batch, length, heads * size] -> [batch, heads, length, size]"""
    return n.transpose(n("Reshape", x, [0, 0, heads, -1], special_zero=True), [0, 2, 1, 3])


def from_heads(n: OnnxNode, x: Output) -> Output:
    """[batch, heads, length, size] -> [batch, length, heads * size]"""
    return n("Reshape", n.transpose(x, [0, 2, 1, 3]), [0, 0, -1], special_zero=True)


def attend(
    n: OnnxNode,
    q: Output,
    k: Output,
    v: Output,
    bias: Output | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
) -> Output:
    """softmax(q @ k.T * scale + bias) @ v of [batch, heads, length, size]; by default 1 / sqrt(size)"""
    if softcap:
        size = n.last_dim(q)
        factor = scale or 1 / float(np.sqrt(size))
        scores = n("MatMul", n("Multiply", q, n.like(q, factor)), k, transpose_b=True)
        scores = n("Multiply", n("Tanh", n("Divide", scores, n.like(q, softcap))), n.like(q, softcap))
        scores = scores if bias is None else n("Add", scores, bias)
        return n("MatMul", n("Softmax", scores, axis=-1, opset=8), v)
    inputs = [q, k, v]
    if bias is not None or scale:
        inputs.append(n.like(q, 0) if bias is None else bias)
    if scale:
        inputs.append(n.like(q, scale))
    return n("ScaledDotProductAttention", *inputs, causal=False)


def add_bias(n: OnnxNode, a: Output | None, b: Output | None) -> Output | None:
    return b if a is None else a if b is None else n("Add", a, b)


def numbers(n: OnnxNode, end: Output) -> Output:
    """0, 1, ... below a number of one element, as i64 [number]"""
    stop = end if n.shape(end) == () else n.reshape(end, np.zeros(0, np.int64))
    return n("Range", 0, stop, 1, output_type="i64", opset=4)


def bias_of(n: OnnxNode, keep: Output, like: Output, masked: float = MASKED) -> Output:
    """0 where `keep` is true, else a number that leaves nothing of a softmax's weight."""
    return n("Select", keep, n.like(like, 0), n.like(like, masked))


def causal_bias(n: OnnxNode, q: Output, k: Output, like: Output, window: int = -1) -> Output:
    """Places up to each query's own; the last query's place is the last key's. [length of q, length of k]"""
    rows, columns = n.dim_of(q, 2), n.dim_of(k, 2)
    own = n("Add", n.unsqueeze(numbers(n, rows), [1]), n("Subtract", columns, rows))
    places = n.unsqueeze(numbers(n, columns), [0])
    keep = n("LessEqual", places, own)
    if window > 0:
        keep = n("LogicalAnd", keep, n("Greater", places, n("Subtract", own, window)))
    return bias_of(n, keep, like)


def padding_bias(n: OnnxNode, mask: Output, k: Output, like: Output) -> Output:
    """A mask of keys: [batch] lengths, [batch, keys], [batch, queries, keys] of 0 and 1 -> a bias of four
    dimensions."""
    rank = n.rank(mask)
    if rank == 1:
        shape = n.shape(mask) or ()
        if shape and isinstance(shape[0], int) and n.shape(k) and isinstance((n.shape(k) or (None,))[0], int):
            if shape[0] != (n.shape(k) or (None,))[0]:
                raise UnsupportedError("a mask of begins and ends")
        places = n.unsqueeze(numbers(n, n.dim_of(k, 2)), [0])
        keep = n("Less", places, n.unsqueeze(n.convert(mask, "i64"), [1]))
        return bias_of(n, n.unsqueeze(keep, [1, 2]), like)
    keep = n("NotEqual", mask, n.like(mask, 0)) if n.dtype(mask) != "boolean" else mask
    if rank == 2:
        keep = n.unsqueeze(keep, [1, 2])
    elif rank == 3:
        keep = n.unsqueeze(keep, [1])
    elif rank != 4:
        raise ModelError(f"the mask has {rank} dimensions")
    return bias_of(n, keep, like)


def repeat_heads(n: OnnxNode, x: Output, times: int) -> Output:
    """Each head `times` times: [batch, heads, length, size] -> [batch, heads * times, length, size]"""
    if times == 1:
        return x
    shape = n.concat(
        [n.dim_of(x, 0), n.dim_of(x, 1), n.const(np.array([times])), n.dim_of(x, 2), n.dim_of(x, 3)], 0
    )
    spread = n("Broadcast", n.unsqueeze(x, [2]), shape, mode="numpy", opset=3)
    heads = (n.shape(x) or (None, None))[1]
    if not isinstance(heads, int):
        raise UnsupportedError("an open number of heads")
    size = n("Concat", n.dim_of(x, 0), [heads * times], n.dim_of(x, 2), n.dim_of(x, 3), axis=0)
    return n("Reshape", spread, size, special_zero=False)


def rotate(
    n: OnnxNode, x: Output, cos: Output, sin: Output, interleaved: bool, size: int, turned: int = 0
) -> Output:
    """Rotary embedding of [batch, heads, length, size]; cos and sin are [batch or 1, 1, length, turned / 2].

    Pairs are (i, i + half), or neighbours if interleaved; elements from `turned` on stay (0: none).
    """
    turned = turned or size
    rest = n.slice(x, 3, turned) if turned < size else None
    part = n.slice(x, 3, 0, turned) if rest is not None else x
    half = turned // 2
    if interleaved:
        a, b = n.slice(part, 3, 0, step=2), n.slice(part, 3, 1, step=2)
    else:
        a, b = n.split(part, 3, [half, half])
    real = n("Subtract", n("Multiply", a, cos), n("Multiply", b, sin))
    imaginary = n("Add", n("Multiply", a, sin), n("Multiply", b, cos))
    if interleaved:
        pairs = n("Concat", n.unsqueeze(real, [4]), n.unsqueeze(imaginary, [4]), axis=4)
        out = n("Reshape", pairs, [0, 0, 0, turned], special_zero=True)
    else:
        out = n("Concat", real, imaginary, axis=3)
    return out if rest is None else n("Concat", out, rest, axis=3)


@ms("MultiHeadAttention")
def multi_head_attention(n: OnnxNode) -> Any:
    """(query, key, value, bias, key padding mask, attention bias, past key, past value)"""
    heads = n.attr("num_heads")
    if not heads or heads < 1:
        raise ModelError("num_heads is missing")
    q = n[0]
    if not n.has(1):
        raise UnsupportedError("packed queries, keys and values")
    k, v = n[1], n[2] if n.has(2) else None
    if n.has(3):
        widths = [(n.shape(x) or (None,))[-1] for x in (q, k if n.rank(k) == 3 else q, v or q)]
        if not all(isinstance(w, int) for w in widths):
            raise UnsupportedError("an open number of channels with a bias")
        parts = n.split(n[3], 0, [int(w) for w in widths])  # type: ignore[arg-type]
        q = n("Add", q, parts[0])
        if n.rank(k) == 3:
            k = n("Add", k, parts[1])
        if v is not None and n.rank(v) == 3:
            v = n("Add", v, parts[2])
    if v is None:
        raise UnsupportedError("packed keys and values")
    q = to_heads(n, q, heads)
    k = to_heads(n, k, heads) if n.rank(k) == 3 else k
    v = to_heads(n, v, heads) if n.rank(v) == 3 else v
    if n.has(6):
        k, v = n("Concat", n[6], k, axis=2), n("Concat", n[7], v, axis=2)
    bias = padding_bias(n, n[4], k, q) if n.has(4) else None
    bias = add_bias(n, bias, n.optional(5))
    if n.attr("unidirectional", 0):
        bias = add_bias(n, bias, causal_bias(n, q, k, q))
    out = attend(n, q, k, v, bias, n.attr("scale"))
    return [from_heads(n, out), k, v]


@ms("Attention")
def attention(n: OnnxNode) -> Any:
    """(input, weights of q, k and v side by side, bias, mask, past of keys and values, attention bias)"""
    x = n[0]
    joined = n("MatMul", x, n[1])
    if n.has(2):
        joined = n("Add", joined, n[2])
    return projected_attention(n, joined, n.optional(3), n.optional(4), n.optional(5))


def projected_attention(
    n: OnnxNode, joined: Output, mask: Output | None, past: Output | None, more: Output | None
) -> list[Output]:
    """Attention of q, k and v side by side, [batch, length, 3 * heads * size]."""
    heads = n.required("num_heads")
    if n.attr("do_rotary", 0):
        raise UnsupportedError("do_rotary")
    widths = n.attr("qkv_hidden_sizes")
    if not widths:
        whole = (n.shape(joined) or (None,))[-1]
        if not isinstance(whole, int) or whole % 3:
            raise ModelError("the channels are no three parts")
        widths = [whole // 3] * 3
    q, k, v = (to_heads(n, part, heads) for part in n.split(joined, 2, list(widths)))
    if past is not None:
        old_k, old_v = (n.squeeze(p, [0]) for p in n.split(past, 0, [1, 1]))
        k, v = n("Concat", old_k, k, axis=2), n("Concat", old_v, v, axis=2)
    bias = padding_bias(n, mask, k, q) if mask is not None else None
    bias = add_bias(n, bias, more)
    if n.attr("unidirectional", 0):
        bias = add_bias(n, bias, causal_bias(n, q, k, q))
    out = from_heads(n, attend(n, q, k, v, bias, n.attr("scale")))
    if not n.wants(1):
        return [out]
    return [out, n("Concat", n.unsqueeze(k, [0]), n.unsqueeze(v, [0]), axis=0)]


@ms("GroupQueryAttention")
def group_query_attention(n: OnnxNode) -> Any:
    """(query, key, value, past key, past value, last place of each item, total length, cos, sin)

    Keys and values of the past that are valid come first in its buffers; the present has them and the new
    ones,
    and keeps what a longer buffer has behind them.
    """
    heads, groups = n.required("num_heads"), n.required("kv_num_heads")
    if groups < 1 or heads % groups:
        raise ModelError(f"{heads} heads do not divide into {groups} groups")
    if n.has(1):
        q, k, v = n[0], n[1], n[2]
    else:
        width = (n.shape(n[0]) or (None,))[-1]
        if not isinstance(width, int) or width % (heads + 2 * groups):
            raise ModelError("the channels are no queries, keys and values")
        size = width // (heads + 2 * groups)
        q, k, v = n.split(n[0], 2, [heads * size, groups * size, groups * size])
    q, k, v = to_heads(n, q, heads), to_heads(n, k, groups), to_heads(n, v, groups)
    total = n.reshape(n.convert(n[6], "i64"), [1])
    length = n.dim_of(q, 2)
    done = n("Subtract", total, length)
    if n.attr("do_rotary", 0):
        places = n("Add", numbers(n, length), done)
        cos, sin = (n.unsqueeze(n("Gather", n[i], places, 0, opset=8), [0, 1]) for i in (7, 8))
        size = n.last_dim(q)
        turned = 2 * n.last_dim(n[7])
        turn = bool(n.attr("rotary_interleaved", 0))
        q, k = (rotate(n, x, cos, sin, turn, size, turned) for x in (q, k))
    if n.has(3):
        valid = [n("Slice", n[i], [0], done, [1], [2]) for i in (3, 4)]
        behind = [n("Slice", n[i], total, [(1 << 63) - 1], [1], [2]) for i in (3, 4)]
        k_all, v_all = (n("Concat", old, new, axis=2) for old, new in zip(valid, (k, v), strict=True))
        present = [n("Concat", x, rest, axis=2) for x, rest in zip((k_all, v_all), behind, strict=True)]
    else:
        k_all, v_all = k, v
        present = [k, v]
    bias = causal_bias(n, q, k_all, q, n.attr("local_window_size", -1))
    lengths = n("Add", n.convert(n.reshape(n[5], [-1]), "i64"), 1)
    bias = n("Add", bias, _lengths_bias(n, lengths, k_all, q))
    if n.has(10):
        bias = n("Add", bias, n[10])
    times = heads // groups
    out = attend(
        n,
        q,
        repeat_heads(n, k_all, times),
        repeat_heads(n, v_all, times),
        bias,
        n.attr("scale") or None,
        n.attr("softcap", 0.0),
    )
    return [from_heads(n, out), *present]


def _lengths_bias(n: OnnxNode, lengths: Output, k: Output, like: Output) -> Output:
    """Keys below each item's length: [batch, 1, 1, keys]"""
    keep = n("Less", n.unsqueeze(numbers(n, n.dim_of(k, 2)), [0]), n.unsqueeze(lengths, [1]))
    return bias_of(n, n.unsqueeze(keep, [1, 2]), like)


@ms("RotaryEmbedding")
def rotary_embedding(n: OnnxNode) -> Any:
    """(input, position ids, cos, sin): positions are one begin for all, or one for each place"""
    x, ids, cos, sin = (n[i] for i in range(4))
    flat = n.rank(x) == 3
    half = n.last_dim(cos)
    turned = n.attr("rotary_embedding_dim", 0) or 2 * half
    heads = n.attr("num_heads", 0)
    if flat:
        width = n.last_dim(x)
        heads = heads or width // turned
        x = to_heads(n, x, heads)
    places = ids
    if n.rank(ids) == 1:
        places = n.unsqueeze(n("Add", numbers(n, n.dim_of(x, 2)), ids), [0])
    cos, sin = (n.unsqueeze(n("Gather", table, places, 0, opset=8), [1]) for table in (cos, sin))
    out = rotate(n, x, cos, sin, bool(n.attr("interleaved", 0)), n.last_dim(x), turned)
    return from_heads(n, out) if flat else out
