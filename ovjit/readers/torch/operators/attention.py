"""Attention."""

from __future__ import annotations

from ovjit.readers.torch.rule_language import *
from ovjit.readers.torch.values import nested_tensor


@aten("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu",
      "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
      "_scaled_dot_product_attention_math", "_scaled_dot_product_fused_attention_overrideable",
      "_scaled_dot_product_attention_math_for_mps")  # fmt: skip
def attention(
    n: Call, x: Output, key: Output, value: Output, attn_mask: Any = None, attn_bias: Any = None,
    is_causal: bool = False, scale: Any = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """softmax(Q K^T * scale + mask) V; with enable_gqa a head of keys serves several of queries.

    Where a row of a boolean mask is False everywhere, PyTorch's reference and its fused kernels differ.
    """
    mask = attn_bias if attn_mask is None else attn_mask
    is_alone = len(n.shape(x) or ()) == 2  # the operation has a dimension of samples at least
    if is_alone:
        x, key, value = (n.unsqueeze(v, [0]) for v in (x, key, value))
    if enable_gqa or n.op != "aten::scaled_dot_product_attention":  # fused operators do not tell it
        key, value = (_repeated_heads(n, v, x) for v in (key, value))
    inputs = [x, key, value]
    if mask is not None:
        inputs.append(mask if n.dtype(mask) == "boolean" else n.to_type(mask, n.dtype(x)))
    if scale is not None:
        if mask is None:
            inputs.append(n.like(x, 0))
        inputs.append(n.tensor(scale, n.dtype(x)))
    out = n("ScaledDotProductAttention", *inputs, causal=bool(is_causal))
    out = n.squeeze(out, [0]) if is_alone else out
    if n.op == "aten::scaled_dot_product_attention":
        return out
    if n.op == "aten::_scaled_dot_product_flash_attention_for_cpu" and n.is_used(1):
        return [out, _log_sums(n, x, key, mask, is_causal, scale)]
    return [out, *[None] * 8]


def _log_sums(n: Call, x: Output, key: Output, mask: Any, is_causal: bool, scale: Any) -> Output:
    """The logarithm of the softmax's denominator, for each row."""
    kind = n.dtype(x)
    size = n.tensor(n.size(x, -1), kind)
    factor = n("Power", size, n.like(size, -0.5)) if scale is None else n.tensor(scale, kind)
    scores = n("MatMul", n("Multiply", x, factor), key, transpose_a=False, transpose_b=True)
    if is_causal:
        rows, columns = (n.arange(n.size(scores, axis)) for axis in (-2, -1))
        is_before = n("GreaterEqual", n.unsqueeze(rows, [1]), columns)
        scores = n("Select", is_before, scores, n.like(scores, -np.inf))
    if mask is not None and n.dtype(mask) == "boolean":
        scores = n("Select", mask, scores, n.like(scores, -np.inf))
    elif mask is not None:
        scores = n("Add", scores, n.to_type(mask, kind))
    result: Output = n.also("logsumexp", scores, [-1])
    return result


def _repeated_heads(n: Call, value: Output, query: Output) -> Output:
    """[..., heads, length, size] with each head as often as there are heads of queries for it"""
    heads, query_heads = n.size(value, -3), n.size(query, -3)
    if heads == query_heads:
        return value
    times = n.compute("Divide", query_heads, heads)
    dims = n.sizes(value)
    with_group_axis = n.unsqueeze(value, [-3])
    target: list[Any] = [1] * (len(dims) + 1)
    target[-3] = times
    return n.to_shape(n.expand(with_group_axis, target), [*dims[:-3], query_heads, *dims[-2:]])


@aten("_native_multi_head_attention")
def native_attention(
    n: Call, x: Output, key: Output, value: Output, embed_dim: int, num_head: int, qkv_weight: Output,
    qkv_bias: Output, proj_weight: Output, proj_bias: Output, mask: Any = None, need_weights: bool = True,
    average_attn_weights: bool = True, mask_type: Any = None,
) -> list[Any]:  # fmt: skip
    """nn.MultiheadAttention as PyTorch fuses it, of [batch, length, size] and one matrix for Q, K and V."""
    if not x == key == value:
        raise UnsupportedError(
            "fused attention with different numbers of query and key tokens is not supported"
        )
    size = n.known_int(embed_dim, "the size of heads")
    batch, length, _ = n.sizes(x)
    q, k, v = (
        n.transpose(n.to_shape(part, [batch, length, num_head, size // num_head]), [0, 2, 1, 3])
        for part in _projections(n, x, qkv_weight, qkv_bias, size)
    )
    weights = None
    if isinstance(x, Nested):
        mask, mask_type = n("LogicalNot", x.mask), 1
    if need_weights:
        scores = n("MatMul", n("Multiply", q, n.like(q, (size // num_head) ** -0.5)), k,
                   transpose_a=False, transpose_b=True)  # fmt: skip
        weights = n("Softmax", scores if mask is None else _mask_scores(n, scores, mask, mask_type), axis=3)
        result = n("MatMul", weights, v)
    else:
        masks = [] if mask is None else [_mask(n, mask, mask_type, n.dtype(q))]
        result = n("ScaledDotProductAttention", q, k, v, *masks, causal=False)
    result = n.transpose(result, [0, 2, 1, 3])
    out = n.also("linear", n.to_shape(result, [batch, length, size]), proj_weight, proj_bias)
    out = nested_tensor(out, x.mask) if isinstance(x, Nested) else out
    if weights is None:
        return [out, None]
    return [out, n("ReduceMean", weights, [1], keep_dims=False) if average_attn_weights else weights]


def _projections(n: Call, x: Output, weight: Output, bias: Output, size: int) -> list[Output]:
    """Queries, keys and values [batch, length, size], by the parts of one matrix where that is constant."""
    if n.value(weight) is None:
        return n.all("Split", n.also("linear", x, weight, bias), 2, num_splits=3)
    rows = [(i * size, (i + 1) * size) for i in range(3)]
    return [n.also("linear", x, n.cut(weight, 0, *part), n.cut(bias, 0, *part)) for part in rows]


def _mask(n: Call, mask: Output, mask_type: Any, kind: str) -> Output:
    """A mask that is true for keys to attend to, from the fused operator's, which is true for keys to
    ignore."""
    if n.rank(mask) == 2 and mask_type == 1:
        mask = n.unsqueeze(mask, [1, 2])
    return n("LogicalNot", mask) if n.dtype(mask) == "boolean" else n.to_type(mask, kind)


def _mask_scores(n: Call, scores: Output, mask: Output, mask_type: Any) -> Output:
    """Add a mask to scores. A boolean one is -inf where true: [length, length], [batch, length] (type 1), or
    of four dimensions."""
    if n.rank(mask) == 2 and mask_type == 1:
        mask = n.unsqueeze(mask, [1, 2])
    if n.dtype(mask) != "boolean":
        return n("Add", scores, n.to_type(mask, n.dtype(scores)))
    return n("Select", mask, n.like(scores, -np.inf), scores)


@aten("_transformer_encoder_layer_fwd")
def encoder_layer(
    n: Call, x: Output, embed_dim: int, num_heads: int, qkv_weight: Output, qkv_bias: Output,
    proj_weight: Output, proj_bias: Output, use_gelu: bool, norm_first: bool, eps: float,
    norm_weight_1: Output, norm_bias_1: Output, norm_weight_2: Output, norm_bias_2: Output,
    ffn_weight_1: Output, ffn_bias_1: Output, ffn_weight_2: Output, ffn_bias_2: Output, mask: Any = None,
    mask_type: Any = None,
) -> Output:  # fmt: skip
    """nn.TransformerEncoderLayer as PyTorch fuses it."""
    if isinstance(x, Nested):
        mask, mask_type = n("LogicalNot", x.mask), 1
    nesting_mask = x.mask if isinstance(x, Nested) else None

    def norm(value: Output, weight: Output, bias: Output) -> Output:
        return n.also("layer_norm", value, [embed_dim], weight, bias, eps)

    first, second = (norm_weight_1, norm_bias_1), (norm_weight_2, norm_bias_2)
    query = norm(x, *first) if norm_first else x
    result = n.also("_native_multi_head_attention", query, query, query, embed_dim, num_heads, qkv_weight,
                  qkv_bias, proj_weight, proj_bias, mask, False, False, mask_type)  # fmt: skip
    x = n("Add", result[0], x)
    x = x if norm_first else norm(x, *first)
    feed_forward = n.also("linear", norm(x, *second) if norm_first else x, ffn_weight_1, ffn_bias_1)
    feed_forward = n.also("gelu" if use_gelu else "relu", feed_forward)
    x = n("Add", n.also("linear", feed_forward, ffn_weight_2, ffn_bias_2), x)
    x = x if norm_first else norm(x, *second)
    return x if nesting_mask is None else nested_tensor(x, nesting_mask)


@aten("_nested_tensor_from_mask_left_aligned")
def left_aligned(n: Call, x: Output, mask: Output) -> bool:
    """Whether all padding comes after the samples' elements. `pad_nested` returns PyTorch's result in both
    cases."""
    return True


@aten("_nested_tensor_from_mask")
def samples(n: Call, x: Output, mask: Output) -> Output:
    return nested_tensor(x, n.to_type(mask, "boolean"))


@aten("to_padded_tensor", "nested_to_padded_tensor")
def pad_nested(n: Call, x: Output, padding: float, output_size: Any = None) -> Output:
    """Padding is overwritten if it is behind all samples. Elsewhere nn.TransformerEncoder nests no samples,
    and computes with the elements of padding."""
    if not isinstance(x, Nested):
        raise UnsupportedError("the operator is supported only after layers of nn.TransformerEncoder")
    to_last, from_second = n.cut(x.mask, 1, 0, -1), n.cut(x.mask, 1, 1, LAST)
    gaps = n(
        "ReduceLogicalOr", n("LogicalAnd", from_second, n("LogicalNot", to_last)), [0, 1], keep_dims=True
    )
    is_written = n.unsqueeze(n("LogicalOr", x.mask, gaps), [2])
    return n("Select", is_written, x, n.like(x, padding))
