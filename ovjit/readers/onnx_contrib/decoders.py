"""Attention of com.microsoft with a cache, and rotary embedding."""

from __future__ import annotations

from ovjit.readers.onnx.nn import rms_norm
from ovjit.readers.onnx_contrib.attention import *
from ovjit.readers.onnx_contrib.blocks import unpack_nibbles


def _rotate_queries_and_keys(
    n: OnnxNode, q: Output, k: Output, prompt: Output, positions: Output
) -> tuple[Output, Output]:
    """Rotate queries and keys by their positions in the sequence, or by `positions`."""
    rotary_positions = positions
    if n.has(9):  # of a prompt's the first alone counts, from which on its places are numbered
        ids = n.convert(n[9], "i64")
        begin = n.slice(n.slice(ids, 0, 0, 1), 1, 0, 1)
        rotary_positions = n("Select", prompt, n("Add", begin, n.unsqueeze(n.upto(n.dim_of(q, 2)), [0])), ids)
    cos, sin = (n.unsqueeze(n("Gather", n[i], rotary_positions, 0, opset=8), [1]) for i in (7, 8))
    turn = bool(n.attr("rotary_interleaved", 0))
    q, k = (rotate(n, x, cos, sin, turn, n.last_dim(x), 2 * n.last_dim(n[7])) for x in (q, k))
    return q, k


def _visible(n: OnnxNode, count: Output, positions: Output, lengths: Output) -> Output:
    """Mask [batch, 1, queries, keys] of the keys that each query attends to, of `count` keys."""
    columns, query_positions = n.reshape(n.upto(count), [1, 1, 1, -1]), n.unsqueeze(positions, [1, 3])
    keep = n("Less", columns, n.unsqueeze(lengths, [1, 2, 3]))
    if n.attr("causal", 1):
        keep = n("LogicalAnd", keep, n("LessEqual", columns, query_positions))
    window = n.attr("local_window_size", -1)
    if window > 0:
        keep = n("LogicalAnd", keep, n("Greater", columns, n("Subtract", query_positions, window)))
    return keep


@ms("GroupQueryAttention")
def group_query_attention(n: OnnxNode) -> Any:
    """(query, key, value, past key, past value, last place of each item, total length, cos, sin, position
    ids, attention bias, sinks of the heads, two scales of a quantised cache, weights of two norms)

    Valid keys and values of the past come first in its buffers. The present has them and the new ones, and
    keeps the content of a longer buffer after them.
    """
    heads, groups = n.require("num_heads"), n.require("kv_num_heads")
    if groups < 1 or heads % groups:
        raise ModelError(f"{heads} heads are not divisible by {groups} groups")
    if n.attr("sliding_window_cache", 0):
        raise UnsupportedError("a sliding-window cache is not supported")
    shown = n.attr("qk_output", 0)
    q, k, v = _projections(n, heads, groups)
    if n.has(14) or n.has(15):
        epsilon = n.attr("qk_norm_epsilon", 1e-6)
        q = rms_norm(n, q, n[14], -1, epsilon) if n.has(14) else q
        k = rms_norm(n, k, n[15], -1, epsilon) if n.has(15) else k
    total = n.reshape(n.convert(n[6], "i64"), [1])
    length = n.dim_of(q, 2)
    lengths = n("Add", n.convert(n.reshape(n[5], [-1]), "i64"), 1)
    # where the new ones of each item begin; those of a prompt at 0, whatever its items are filled up with
    prompt = n("Equal", total, length)
    begins = n("Select", prompt, 0, n("Subtract", lengths, length))  # [batch]
    positions = n("Add", n.unsqueeze(begins, [1]), n.unsqueeze(n.upto(length), [0]))  # [batch, length]
    if n.attr("do_rotary", 0):
        q, k = _rotate_queries_and_keys(n, q, k, prompt, positions)
    caches = [_Cache(n, which, groups, n.last_dim(x)) for which, x in (("k", k), ("v", v))]
    present = [cache.quantize(x) for cache, x in zip(caches, (k, v), strict=True)]
    if n.has(3):
        done = n("Subtract", total, length)
        past = [_write_cache(n, n[3 + i], new, done, total, positions) for i, new in enumerate(present)]
        valid_caches, present = [n("Slice", x, [0], total, [1], [2]) for x in past], past
    else:
        valid_caches = present
    k_all, v_all = (
        n.convert(cache.read(x), n.dtype(q)) for cache, x in zip(caches, valid_caches, strict=True)
    )
    keep = _visible(n, n.dim_of(k_all, 2), positions, lengths)
    bias = n.add_input(bias_of(n, keep, q), 10)
    sink: Output | None = None
    if n.has(11):
        sink = n.convert(n.reshape(n[11], [1, heads, 1, 1]), n.dtype(q))
    elif n.attr("smooth_softmax", 0) > 0:
        sink = n.const(np.zeros((1, 1, 1, 1)), n.dtype(q))
    k_all, v_all = (repeat_heads(n, x, heads // groups) for x in (k_all, v_all))
    how = (bias, n.attr("scale") or None, n.attr("softcap", 0.0), sink)
    if not (shown and n.is_output_used(3)):
        return [from_heads(n, attend(n, q, k_all, v_all, *how)), *present]
    scores, weights = scores_of(n, q, k_all, *how)
    shown_scores = n("Select", keep, scores, n.like(scores, 0)) if shown == 1 else weights
    return [from_heads(n, n("MatMul", weights, v_all)), *present, shown_scores]


class _Cache:
    """Format of keys ("k") or values ("v") in a cache: unchanged, or quantized to integers by a scale.

    There is one scale for all, or one for each element of each head. Two values of four bits are packed in a
    byte, the lower one first.
    """

    def __init__(self, n: OnnxNode, which: str, groups: int, size: int):
        self.n, self.scale = n, None
        kind = n.attr(f"{which}_quant_type", "NONE")
        if kind == "NONE":
            return
        self.bits = n.attr("kv_cache_bit_width", 8) or 8
        if size % 2 * (self.bits == 4):
            raise ModelError(f"a cache of {self.bits} bits for {size} elements is not valid")
        scale = n.convert(n[12 if which == "k" else 13], "f32")
        self.scale = n.reshape(scale, [1, groups, 1, size] if kind == "PER_CHANNEL" else [1])

    def quantize(self, x: Output) -> Output:
        """Converts keys or values [batch, heads, length, size] to the format of the cache."""
        n = self.n
        if self.scale is None:
            return x
        steps = n("Round", n("Divide", n.convert(x, "f32"), self.scale), mode="half_to_even")
        top = float(1 << (self.bits - 1))
        steps = n("Clamp", steps, min=-top, max=top - 1)
        if self.bits == 8:
            return n.convert(steps, "i8")
        steps = n("Add", steps, top)
        low, high = n.slice(steps, 3, 0, step=2), n.slice(steps, 3, 1, step=2)
        return n.convert(n("Add", low, n("Multiply", high, 16.0)), "u8")

    def read(self, x: Output) -> Output:
        """Converts a cache back to keys or values [batch, heads, length, size]."""
        n = self.n
        if self.scale is None:
            return x
        if self.bits == 4:
            steps = n("Subtract", n.convert(unpack_nibbles(n, x), "f32"), 8.0)
        else:
            steps = n.convert(x, "f32")
        return n("Multiply", steps, self.scale)


def _projections(n: OnnxNode, heads: int, groups: int) -> list[Output]:
    """Queries, keys and values as [batch, heads, length, size], which may come side by side."""
    if n.has(1):
        parts = [n[0], n[1], n[2]]
    else:
        width = n.last_dim(n[0])
        if width % (heads + 2 * groups):
            raise ModelError("the channels do not match queries, keys and values")
        size = width // (heads + 2 * groups)
        parts = n.split(n[0], 2, [heads * size, groups * size, groups * size])
    counts = (heads, groups, groups)
    return [to_heads(n, x, c) if n.rank(x) == 3 else x for x, c in zip(parts, counts, strict=True)]


def _write_cache(
    n: OnnxNode, past: Output, new: Output, done: Output, total: Output, positions: Output
) -> Output:
    """A cache in its own type, with `new` written at the `positions` of each item."""
    new = n.convert(new, n.dtype(past))
    out = append_to_buffer(n, past, new, done, total)
    if (n.shape(positions) or (None,))[0] == 1 or (n.shape(new) or (None,))[0] == 1:
        return out
    rows = n.broadcast(n.unsqueeze(positions, [1, 3]), n.shape_of(new))
    return n("ScatterElementsUpdate", out, rows, new, 2, opset=3)


@ms("DecoderMaskedMultiHeadAttention")
def decoder_masked_multi_head_attention(n: OnnxNode) -> Any:
    """(query, key, value, mask, attention bias, past key, past value, past length, beam width, cache
    indirection, bias), of one new place"""
    inputs = [n.inputs[i] if n.has(i) else None for i in range(11)]
    length = inputs[7] if n.attr("past_present_share_buffer", 0) else None
    n.inputs = [*inputs[:3], inputs[10], *inputs[3:7], length, inputs[9]]
    return multi_head_attention(n)


@ms("RotaryEmbedding")
def rotary_embedding(n: OnnxNode) -> Any:
    """(input, position ids, cos, sin): positions are one begin for all, or one for each place"""
    ids, cos, sin = (n[i] for i in range(1, 4))
    x, rotated, flat = _rotated_heads(n, cos)
    positions = ids
    if n.rank(ids) == 1:
        positions = n.unsqueeze(n("Add", n.upto(n.dim_of(x, 2)), ids), [0])
    cos, sin = (n.unsqueeze(n("Gather", table, positions, 0, opset=8), [1]) for table in (cos, sin))
    out = rotate(n, x, cos, sin, bool(n.attr("interleaved", 0)), n.last_dim(x), rotated)
    return from_heads(n, out) if flat else out


def _rotated_heads(n: OnnxNode, cos: Output) -> tuple[Output, int, bool]:
    """(input 0 as [batch, heads, length, size], how many elements are rotated, whether it had three
    dimensions)"""
    x = n[0]
    rotated = n.attr("rotary_embedding_dim", 0) or 2 * n.last_dim(cos)
    if n.rank(x) != 3:
        return x, rotated, False
    heads = n.attr("num_heads", 0) or n.last_dim(x) // rotated
    return to_heads(n, x, heads), rotated, True


@ms("GemmaRotaryEmbedding")
def gemma_rotary_embedding(n: OnnxNode) -> Any:
    """(angles [batch, length, size], q, q with swapped half heads, k, k with swapped half heads)"""
    cos, sin = (n.unsqueeze(n.convert(n(op, n[0]), n.dtype(n[1])), [1]) for op in ("Cos", "Sin"))
    return [n("Add", n("Multiply", n[i], cos), n("Multiply", n[i + 1], sin)) for i in (1, 3)]


@ms("MRotaryEmbedding")
def multimodal_rotary_embedding(n: OnnxNode) -> Any:
    """(input, position ids [3, batch, length], cos, sin): each of `mrope_section`'s parts of the angles uses
    other positions. Parts are consecutive, or with mrope_layout=1 interleaved."""
    ids, cos, sin = (n[i] for i in range(1, 4))
    x, rotated, flat = _rotated_heads(n, cos)
    sections = [int(v) for v in n.require("mrope_section")]
    half = n.last_dim(cos)
    if len(sections) != 3 or sum(sections) != half:
        raise ModelError(f"mrope_section {sections} does not divide {half} into three sections")
    which = np.repeat(np.arange(3), sections)
    if n.attr("mrope_layout", 0):
        which = np.zeros(half, np.int64)
        for i in (1, 2):
            which[i : 3 * sections[i] : 3] = i
    scale = n.attr("scale", 1.0)

    def rows_of(table: Output) -> Output:
        rows = n("Gather", table, ids, 0, opset=8)  # [3, batch, length, half]
        out = n("Gather", rows, 0, 0, opset=8)
        for i in (1, 2):
            out = n("Select", which == i, n("Gather", rows, i, 0, opset=8), out)
        return n.unsqueeze(out if scale == 1 else n("Multiply", out, n.like(out, scale)), [1])

    out = rotate(n, x, rows_of(cos), rows_of(sin), bool(n.attr("interleaved", 0)), n.last_dim(x), rotated)
    return from_heads(n, out) if flat else out
