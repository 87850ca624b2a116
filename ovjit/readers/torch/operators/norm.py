"""Normalization."""

from __future__ import annotations

from ovjit.readers.torch.rule_language import *


@aten("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm",
      "_batch_norm_with_update", "_native_batch_norm_legit", "_native_batch_norm_legit_functional",
      "_batch_norm_no_update", "_batch_norm_with_update_functional")  # fmt: skip
def batch_norm(
    n: Call, x: Output, weight: Any = None, bias: Any = None, running_mean: Any = None,
    running_var: Any = None, training: bool = False, eps: float = 1e-5, momentum: float = 0.1,
) -> Any:  # fmt: skip
    """(x - mean) / sqrt(var + eps) * weight + bias, by the batch's own statistics if none are given."""
    plain = n.op == "aten::batch_norm"
    if training or running_mean is None or n.op.startswith("aten::_batch_norm_with_update"):
        axes = [i for i in range(n.rank(x)) if i != 1]
        out = affine(n, n("MVN", x, axes, eps=float(eps)), weight, bias, n.rank(x))
        return (
            out if plain else [out, *_of_batch(n, x, axes, weight, running_mean, running_var, eps, momentum)]
        )
    kind, upcast = n.dtype(x), x
    if n.dtype(running_mean) != kind:
        upcast = n.convert(x, n.dtype(running_mean))
    scale = _filled_like(n, 1, running_mean) if weight is None else weight
    shift = _filled_like(n, 0, running_mean) if bias is None else bias
    scale, shift = (n.to_type(v, n.dtype(upcast)) for v in (scale, shift))
    out = n("BatchNormInference", upcast, scale, shift, running_mean, running_var, epsilon=float(eps))
    out = n.to_type(out, kind)
    none = n.const([], n.dtype(upcast))
    return out if plain else [out, none, none]


def _of_batch(
    n: Call, x: Output, axes: list[int], weight: Any, running_mean: Any, running_var: Any, eps: float,
    momentum: float,
) -> list[Any]:  # fmt: skip
    """(mean, 1 / sqrt(var + eps), updated running mean, updated running variance) of a batch."""
    if running_mean is not None and "functional" not in n.op:
        raise UnsupportedError(
            "BatchNorm in training mode is not supported, because it writes its "
            "running mean: call eval() first"
        )
    spread, middle = n.also("var_mean", n.upcast(x), axes, None, 0, False)
    kind = _kind_of_statistics(n, x, weight, running_mean)
    result = [n.convert(v, kind) for v in (middle, n.also("rsqrt", n("Add", spread, n.like(spread, eps))))]
    if n.op.startswith("aten::_batch_norm_with_update"):
        result.append(n.const([], "u8"))
    if running_mean is not None:
        rows = n.to_type(n.tensor(n.count(x, axes)), n.dtype(spread))
        unbiased = n("Divide", n("Multiply", spread, rows), n("Subtract", rows, n.like(rows, 1)))
        for old, new in ((running_mean, middle), (running_var, unbiased)):
            moved = n("Multiply", n("Subtract", n.to_type(new, n.dtype(old)), old), n.like(old, momentum))
            result.append(n("Add", old, moved))
    return result


def _filled_like(n: Call, number: int, like: Output) -> Output:
    """A tensor of the shape of `like`, filled with a number; a constant if the shape is static."""
    shape = n.shape(like)
    return n.const(np.full(shape, number), n.dtype(like)) if is_static(shape) else n.alike(like, number)


def affine(n: Call, x: Output, weight: Any, bias: Any, rank: int) -> Output:
    if weight is not None:
        x = n("Multiply", x, n.per_channel(weight, rank))
    return x if bias is None else n("Add", x, n.per_channel(bias, rank))


@aten("instance_norm")
def instance_norm(
    n: Call, x: Output, weight: Any = None, bias: Any = None, running_mean: Any = None,
    running_var: Any = None, use_input_stats: bool = True, eps: float = 1e-5,
) -> Output:  # fmt: skip
    if not use_input_stats:
        return n.also("batch_norm", x, weight, bias, running_mean, running_var, False, eps)
    rank = n.rank(x)
    return affine(n, n("MVN", x, list(range(2, rank)), eps=float(eps)), weight, bias, rank)


def _kind_of_statistics(n: Call, x: Output, *others: Any) -> str:
    """The element type of mean and deviation: that of the weights, else of the data."""
    return n.dtype(next((v for v in others if v is not None), x))


def _read_statistics(n: Call, x: Output, axes: list[int], eps: float, keepdim: bool, kind: str) -> list[Any]:
    """The mean and 1 / sqrt(var + eps) of a normalisation; None if outputs 1 and 2 are not used."""
    if not n.is_used(1) and not n.is_used(2):
        return [None, None]
    upcast = n.upcast(x)
    spread, middle = n.also("var_mean", upcast, axes, None, 0, keepdim)
    return [n.convert(v, kind) for v in (middle, n.also("rsqrt", n("Add", spread, n.like(upcast, eps))))]


def _normalize(n: Call, x: Output, axes: Any, eps: float) -> Output:
    """(x - mean) / sqrt(variance + eps). MVN takes no eps that is not positive."""
    if eps > 0:
        return n("MVN", x, axes, eps=eps)
    centered = n("Subtract", x, n("ReduceMean", x, axes, keep_dims=True))
    variance = n("ReduceMean", n("Multiply", centered, centered), axes, keep_dims=True)
    return n("Divide", centered, n("Sqrt", n("Add", variance, n.like(variance, eps))))


@aten("layer_norm", "native_layer_norm")
def layer_norm(
    n: Call, x: Output, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    axes = [-i for i in range(len(normalized_shape), 0, -1)]
    kind = n.dtype(x)
    out = _normalize(n, x, axes, float(eps))
    n.skip_name("Multiply")  # OpenVINO computes the axes with one
    if weight is not None:
        out = n("Multiply", out, n.to_type(weight, kind))
    if bias is not None:
        out = n("Add", out, n.to_type(bias, kind))
    if n.op == "aten::layer_norm":
        return out
    return [out, *_read_statistics(n, x, axes, eps, True, _kind_of_statistics(n, x, weight, bias))]


@aten("group_norm", "native_group_norm")
def group_norm(
    n: Call, x: Output, num_groups: Any = None, weight: Any = None, bias: Any = None, eps: float = 1e-5,
    group: Any = None,
) -> Any:  # fmt: skip
    count = num_groups if group is None else group
    channels = n.size(x, 1)
    ones = [n.fill(1 if i == 0 else 0, [channels], n.dtype(x)) for i in range(2)]
    scale, shift = (n.to_type(v, n.dtype(x)) if v is not None else default
                    for v, default in zip((weight, bias), ones, strict=True))  # fmt: skip
    rows = n.to_shape(x, [n.size(x, 0), count, -1])
    if eps > 0:
        out = n("GroupNormalization", x, scale, shift, num_groups=int(count), epsilon=float(eps))
    else:
        even = n.reshape(_normalize(n, rows, [2], float(eps)), n.shape_of(x))
        scaled = n("Multiply", even, n.per_channel(scale, n.rank(x)))
        out = n("Add", scaled, n.per_channel(shift, n.rank(x)))
    if n.op == "aten::group_norm":
        return out
    return [out, *_read_statistics(n, rows, [2], eps, False, _kind_of_statistics(n, x, weight, bias))]


@aten("rms_norm", "_fused_rms_norm")
def rms_norm(n: Call, x: Output, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Any:
    """x / sqrt(mean(x^2) + eps) * weight, in f32. The second output of the other form is 1 / sqrt(...)."""
    from ovjit.readers.torch.values import torch_types

    kind, upcast = n.dtype(x), n.upcast(x)
    if eps is None:
        eps = torch.finfo(torch_types()[n.dtype(upcast) if kind in ("f16", "bf16") else kind]).eps
    axes = [-i for i in range(len(normalized_shape), 0, -1)]
    square = n("ReduceMean", n("Power", upcast, n.like(upcast, 2)), axes, keep_dims=True)
    root = n("Sqrt", n("Add", square, n.like(upcast, eps)))
    n.skip_name("Multiply")  # OpenVINO computes the axes with one
    out = n.rename(n("Divide", upcast, root), "Multiply")
    if weight is not None:
        out = n("Multiply", out, n.to_type(weight, n.dtype(upcast)))
    out = n.convert(out, kind)
    return out if n.op == "aten::rms_norm" else [out, n("Divide", n.like(root, 1), root)]


@aten("local_response_norm")
def local_response_norm(
    n: Call, x: Output, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Output:
    return n("LRN", x, [1], alpha=float(alpha), beta=float(beta), bias=float(k), size=int(size))


@aten("normalize")
def normalize(n: Call, x: Output, p: Any = 2, dim: int = 1, eps: float = 1e-12) -> Output:
    size = n.also("norm", x, p, None, [dim], True)
    return n("Divide", x, n("Maximum", size, n.like(x, eps)))


@aten("norm_except_dim")
def norm_except_dim(n: Call, x: Output, pow: Any = 2, dim: int = 0) -> Any:
    """The norm over all axes but `dim`; over all axes for -1."""
    if dim == -1:
        return n.also("norm", x, pow)
    return n.also("norm", x, pow, None, _all_but(n, x, dim), True)


@aten("_weight_norm", "_weight_norm_interface")
def weight_norm(n: Call, x: Output, g: Output, dim: int = 0) -> Any:
    """v * g / |v|, the norm over all axes but one; -1 is no axis, so that it is over all"""
    size = n("ReduceL2", x, _all_but(n, x, dim), keep_dims=True)
    out = n("Multiply", x, n("Divide", g, size))
    return [out, size] if n.op.endswith("interface") else out


@aten("_weight_norm_interface_backward")
def weight_norm_backward(
    n: Call, x: Output, saved_v: Output, saved_g: Output, saved_norms: Output, dim: int
) -> list[Output]:
    """Gradients of v and g, by the gradient x of v * g / |v|: with u = v / |v| they are
    (x - u * sum(x * u)) * g / |v| and sum(x * u)."""
    unit = n("Divide", saved_v, saved_norms)
    of_g = n("ReduceSum", n("Multiply", x, unit), _all_but(n, x, dim), keep_dims=True)
    of_v = n("Multiply", n("Subtract", x, n("Multiply", unit, of_g)), n("Divide", saved_g, saved_norms))
    return [of_v, of_g]


def _all_but(n: Call, x: Output, dim: int) -> list[int]:
    return [i for i in range(n.rank(x)) if dim == -1 or i != n.axis(dim, n.rank(x))]
