"""Attention."""

from __future__ import annotations

from typing import Any

from ovjit.api.model.node import Output
from ovjit.readers.torch.call import Call
from ovjit.readers.torch.registry import aten


@aten("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu",
      "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention",
      "_scaled_dot_product_attention_math", "_scaled_dot_product_fused_attention_overrideable",
      "_scaled_dot_product_attention_math_for_mps")  # fmt: skip
def attention(
    n: Call, x: Output, key: Output, value: Output, attn_mask: Any = None, attn_bias: Any = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: Any = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """softmax(Q K^T * scale + mask) V; with enable_gqa a head of keys serves several of queries.

    Where a row of a boolean mask is False everywhere, PyTorch's reference and its fused kernels differ.
    """
    mask = attn_bias if attn_mask is None else attn_mask
    if enable_gqa:
        key, value = (_repeated_heads(n, v, x) for v in (key, value))
    inputs = [x, key, value]
    if mask is not None:
        inputs.append(mask if n.dtype(mask) == "boolean" else n.to_type(mask, n.dtype(x)))
    if scale is not None:
        if mask is None:
            inputs.append(n.like(x, 0))
        inputs.append(n.tensor(scale, n.dtype(x)))
    out = n("ScaledDotProductAttention", *inputs, causal=bool(is_causal))
    if n.op == "aten::scaled_dot_product_attention":
        return out
    return [out, *[None] * 8]


def _repeated_heads(n: Call, value: Output, query: Output) -> Output:
    """[..., heads, length, size] with each head as often as there are heads of queries for it"""
    heads, wanted = n.size(value, -3), n.size(query, -3)
    if heads == wanted:
        return value
    times = n.compute("Divide", wanted, heads)
    dims = n.sizes(value)
    wide = n.unsqueeze(value, [-3])
    target: list[Any] = [1] * (len(dims) + 1)
    target[-3] = times
    return n.to_shape(n.expand(wide, target), [*dims[:-3], wanted, *dims[-2:]])


@aten("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
def fused(n: Call, x: Output) -> Any:
    from ovjit.errors import UnsupportedError

    raise UnsupportedError("PyTorch's fused layer: it is turned off while a module is traced")
