"""Linear attention and sparse attention of com.microsoft."""

from __future__ import annotations

from ovjit.readers.onnx.control import loop_over
from ovjit.readers.onnx_contrib.attention import bias_of
from ovjit.readers.onnx_contrib.decoders import group_query_attention
from ovjit.readers.onnx_contrib.rule_language import *


@ms("LinearAttentionGate")
def linear_attention_gate(n: OnnxNode) -> Any:
    """(a, bias and scale of the heads, b) -> (scale * softplus(a + bias), sigmoid(b)), computed in f32"""
    kind = n.dtype(n[0])
    raised = n("SoftPlus", n("Add", n.convert(n[0], "f32"), n[1]))
    out = [n.convert(n("Multiply", raised, n[2]), kind)]
    return out + ([n.convert(n("Sigmoid", n.convert(n[3], "f32")), kind)] if n.has(3) else [])


@ms("LinearAttention")
def linear_attention(n: OnnxNode) -> Any:
    """(queries, keys, values [batch, length, heads * size], state [batch, heads, depth, width], decay, beta)

    A token after the other changes the state: S = exp(decay) S + k (v - S' k) beta, of which `update_rule`
    leaves parts out, and reads q' S from it.
    """
    heads, groups = n.require("q_num_heads"), n.require("kv_num_heads")
    rule = n.attr("update_rule", "gated_delta")
    if n.attr("state_window", 0):
        raise UnsupportedError("a window of states is not supported")
    if groups < 1 or heads < 1 or max(heads, groups) % min(heads, groups):
        raise ModelError(f"{heads} heads of queries are not a multiple of {groups} heads of keys")
    kind = n.dtype(n[0])
    q, k, v = (
        _by_token(n, n.convert(x, "f32"), count)
        for x, count in zip((n[0], n[1], n[2]), (heads, groups, groups), strict=True)
    )
    if heads < groups:  # several heads of keys have one of queries
        q, heads = n("Gather", q, np.arange(groups) * heads // groups, 2, opset=8), groups
    depth, width = n.last_dim(k), n.last_dim(v)
    scale = n.attr("scale", 0.0) or 1 / math.sqrt(depth)
    pieces = {"q": n("Multiply", q, float(scale)), "k": k, "v": v}
    if "gated" in rule:
        pieces["decay"] = n("Exp", _by_token(n, n.convert(n[4], "f32"), groups))
    if "delta" in rule:
        beta = n.convert(n[5], "f32")
        pieces["beta"] = _by_token(n, beta, groups if n.shape(beta) is None or n.last_dim(beta) != 1 else 1)
    if n.has(3):
        state = n.convert(n[3], "f32")
    else:
        shape = n.concat([n.dim_of(n[0], 0), n.const([groups, depth, width])], 0)
        state = n.broadcast(0.0, shape)

    def once(state: Output, now: dict[str, Output]) -> tuple[Output, Output]:
        """One token's step: (new state, q @ state). Values of `now` are [batch, heads, size]."""
        if "decay" in now:
            state = n("Multiply", state, n.unsqueeze(now["decay"], [3]))
        new = now["v"]
        if "beta" in now:
            prediction = n.squeeze(n("MatMul", n.unsqueeze(now["k"], [2]), state), [2])
            new = n("Multiply", now["beta"], n("Subtract", new, prediction))
        state = n("Add", state, n("Multiply", n.unsqueeze(now["k"], [3]), n.unsqueeze(new, [2])))
        rows = n("Reshape", now["q"], [0, groups, heads // groups, depth], special_zero=True)
        return state, n("MatMul", rows, state)  # [batch, groups, heads of a group, width]

    state, read = loop_over(n, once, state, pieces)  # [length, batch, groups, heads of a group, width]
    out = n("Reshape", n.transpose(read, [1, 0, 2, 3, 4]), [0, 0, heads * width], special_zero=True)
    return [n.convert(out, kind), n.convert(state, n.dtype(n[3]) if n.has(3) else kind)]


def _by_token(n: OnnxNode, x: Output, heads: int) -> Output:
    """[batch, length, heads * size] -> [length, batch, heads, size]"""
    return n.transpose(n("Reshape", x, [0, 0, heads, -1], special_zero=True), [1, 0, 2, 3])


@ms("SparseAttention")
def sparse_attention(n: OnnxNode) -> Any:
    """(query, key, value, past key, past value, rows and columns of the blocks that are seen in CSR form,
    total length, lengths of the items, cos, sin): GroupQueryAttention that sees some blocks only"""
    heads, block = n.require("num_heads"), n.require("sparse_block_size")
    rows, columns = n.static(5, "block_row_indices"), n.static(6, "block_col_indices")
    layouts, blocks = rows.shape[0], rows.shape[1] - 1
    if block < 1 or blocks < 1 or heads % layouts or (np.diff(rows) < 0).any() or rows.min() < 0:
        raise ModelError(f"{blocks} blocks of {block} in {layouts} layouts do not match {heads} heads")
    n.check_count(layouts * blocks * blocks, "blocks")
    visible_blocks = np.zeros((layouts, blocks, blocks), bool)
    for layout, (row, column) in enumerate(zip(rows, columns, strict=True)):
        at = column[row[0] : row[-1]]
        visible_blocks[layout, np.repeat(np.arange(blocks), np.diff(row)), at] = True
    total = n.reshape(n.convert(n[7], "i64"), [1])
    lengths = n.convert(n.reshape(n[8], [-1]), "i64")
    length = n.dim_of(n[0], 1)
    begins = n("Select", n("Equal", total, length), 0, n("Subtract", lengths, length))
    positions = n("Add", n.unsqueeze(begins, [1]), n.unsqueeze(n.upto(length), [0]))  # [batch, length]
    mine = n(
        "Gather", visible_blocks, n("Divide", positions, block), 1, opset=8
    )  # [layouts, batch, length, blocks]
    keep = n("Gather", mine, n("Divide", n.upto(total), block), 3, opset=8)
    of_head = n("Gather", n.transpose(keep, [1, 0, 2, 3]), np.arange(heads) % layouts, 1, opset=8)
    last = n("Subtract", lengths, 1)
    turns = [n.inputs[i] if n.has(i) else None for i in (9, 10)]
    n.inputs = [*n.inputs[:5], last, total, *turns, None, bias_of(n, of_head, n[0])]
    return group_query_attention(n)
