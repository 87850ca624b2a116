"""Layers: convolutions, products with weights, tables, and functions of activation."""

from __future__ import annotations

from ovjit.readers.numerics.convolutions import apply_filters
from ovjit.readers.torch.operators.elementwise import scale
from ovjit.readers.torch.rule_language import *


def spread(values: Any, count: int) -> list[int]:
    """One number per spatial dimension, from a list or a single number."""
    listed = [values] if isinstance(values, int) else list(values)
    return listed * count if len(listed) == 1 else listed


@aten("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "convolution_overrideable",
      "mkldnn_convolution", "thnn_conv2d", "_convolution_mode", "conv_transpose1d", "conv_transpose2d",
      "conv_transpose3d")  # fmt: skip
def convolution(
    n: Call, x: Output, weight: Output, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: Any = 1, transposed: bool = False, output_padding: Any = 0,
) -> Output:  # fmt: skip
    rank = n.rank(weight)
    dims = rank - 2
    transposed = transposed or "transpose" in n.op
    single = n.shape(x) is not None and n.rank(x) == rank - 1
    if single:
        x = n.unsqueeze(x, [0])
    strides, spacing = spread(stride, dims), spread(dilation, dims)
    auto, pads = _padding(padding, dims)
    if any(isinstance(v, Number) for v in pads):
        x, pads = n.also("constant_pad_nd", x, [v for v in reversed(pads) for _ in range(2)]), [0] * dims
    if auto == "same_upper" and any(s != 1 for s in strides):
        raise UnsupportedError("padding='same' of a convolution with strides is not supported")
    attributes: dict[str, Any] = {"strides": strides, "dilations": spacing, "pads_begin": pads,
                                  "pads_end": pads, "auto_pad": auto}  # fmt: skip
    if transposed:
        attributes["output_padding"] = spread(output_padding, dims)
    out = n.bias(apply_filters(n, x, weight, groups, transposed, **attributes), bias, rank)
    return n.squeeze(out, [0]) if single else out


def _padding(padding: Any, dims: int) -> tuple[str, list[int]]:
    if isinstance(padding, str):
        return {"same": "same_upper", "valid": "valid"}[padding], [0] * dims
    return "explicit", spread(padding, dims)


@aten("linear")
def linear(n: Call, x: Output, weight: Output, bias: Any = None) -> Output:
    if n.dtype(x) != n.dtype(weight):
        x, weight = n.same_kind([x, weight])
    out = n("MatMul", x, weight, transpose_a=False, transpose_b=True)
    if bias is None:
        return out
    return n("Add", out, bias if n.dtype(out) == "dynamic" else n.to_type(bias, n.dtype(out)))


@aten("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner_product", "linalg_matmul", "_int_mm")
def matmul(n: Call, x: Any, mat2: Any = None, other: Any = None, tensor: Any = None, vec: Any = None) -> Any:
    b = next(v for v in (mat2, other, tensor, vec) if v is not None)
    if isinstance(x, Complex) or isinstance(b, Complex):
        return n.also("complex_matmul", n.also("conj", x) if n.op == "aten::vdot" else x, b)
    if n.op == "aten::_int_mm":
        return n("MatMul", n.convert(x, "i32"), n.convert(b, "i32"))
    return product(n, *n.same_kind([x, b]))


def product(n: Call, a: Output, b: Output) -> Output:
    """A matrix product; integers are multiplied in f64, which is exact up to 2^53."""
    kind = n.dtype(a)
    if n.is_real(a):
        return n("MatMul", a, b)
    return n.to_type(n("MatMul", n.convert(a, "f64"), n.convert(b, "f64")), kind)


@aten("addmm", "addmv", "baddbmm", "addbmm", "addr", "_addmm_activation")
def addmm(
    n: Call, x: Any, mat1: Any = None, mat2: Any = None, mat: Any = None, vec: Any = None, batch1: Any = None,
    batch2: Any = None, vec1: Any = None, vec2: Any = None, beta: Any = 1, alpha: Any = 1,
    use_gelu: bool = False,
) -> Output:  # fmt: skip
    name = n.op.removeprefix("aten::")
    a = next(v for v in (mat1, mat, batch1, vec1) if v is not None)
    b = next(v for v in (mat2, vec, batch2, vec2) if v is not None)
    if name == "addr":
        result = n("Multiply", n.unsqueeze(a, [1]), n.unsqueeze(b, [0]))
    else:
        result = product(n, *n.same_kind([a, b]))
    if name == "addbmm":
        result = n("ReduceSum", result, [0], keep_dims=False)
    result = scale(n, result, alpha)
    constant = n.known_number(beta)
    if constant != 0:
        p, q = n.same_kind([result, scale(n, x, beta)])
        result = n("Add", p, q)
    if name == "_addmm_activation":
        result = n("Gelu", result, approximation_mode="TANH") if use_gelu else n("Relu", result)
    return result


@aten("outer", "ger")
def outer(n: Call, x: Output, vec2: Any = None) -> Output:
    """Compute the outer product, of floats by a MatMul as in OpenVINO.

    A constant that is computed in f64 is multiplied element-wise: OpenVINO does not fold it, and programs
    such as NNCF would compress it as weights.
    """
    a, b = n.same_kind([n.unsqueeze(x, [1]), n.unsqueeze(vec2, [0])])
    is_folded = n.value(vec2) is not None and vec2.get_node().get_type_name() != "Constant"
    is_table = is_folded and n.dtype(vec2) == "f64"
    return n("MatMul" if n.is_real(a) and not is_table else "Multiply", a, b)


@aten("bilinear")
def bilinear(n: Call, x: Output, input2: Output, weight: Output, bias: Any = None) -> Output:
    """sum_ij x_i W_kij y_j"""
    rank = n.rank(x)
    letters = "abcdefg"[: rank - 1]
    out = n("Einsum", x, weight, input2, equation=f"{letters}i,kij,{letters}j->{letters}k")
    return out if bias is None else n("Add", out, bias)


@aten("_trilinear")
def trilinear(
    n: Call, i1: Output, i2: Output, i3: Output, expand1: Any, expand2: Any, expand3: Any, sumdim: Any
) -> Output:
    """The product of three tensors, with dimensions of 1 inserted at `expand1` to `expand3`, summed over
    `sumdim`."""
    rank = n.rank(i1) + len(expand1)
    expanded = [
        n.unsqueeze(v, sorted(d % rank for d in dims)) if dims else v
        for v, dims in ((i1, expand1), (i2, expand2), (i3, expand3))
    ]
    result = n("Multiply", n("Multiply", expanded[0], expanded[1]), expanded[2])
    return n("ReduceSum", result, [d % rank for d in sumdim], keep_dims=False) if sumdim else result


@aten("embedding_renorm")
def embedding_renorm(n: Call, x: Output, indices: Output, max_norm: float, norm_type: float) -> Output:
    """An embedding table whose rows at `indices` are scaled to a norm of at most `max_norm`."""
    scaled = n.also("renorm", x, norm_type, 0, max_norm)
    flat = n.flat(indices) if n.rank(indices) else n.unsqueeze(indices, [0])
    return n("ScatterUpdate", x, flat, n("Gather", scaled, flat, 0), n.const(0))


@aten("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(
    n: Call, x: Output, indices: Output, offsets: Any = None, mode: int = 0, per_sample_weights: Any = None,
    include_last_offset: bool = False, padding_idx: Any = None,
) -> list[Any]:  # fmt: skip
    indices = n.convert(indices, "i64")
    if mode == 2 or (padding_idx is not None and padding_idx >= 0):
        result = _bags(n, x, indices, offsets, mode, per_sample_weights, include_last_offset, padding_idx)
        return [result, None, None, None]
    if n.rank(indices) == 2:
        if mode == 0:
            extra = [] if per_sample_weights is None else [per_sample_weights]
            out = n("EmbeddingBagPackedSum", x, indices, *extra)
        else:
            out = n("ReduceMean", n("Gather", x, indices, 0), [1], keep_dims=False)
        return [out, None, None, None]
    offsets = n.convert(offsets, "i64")
    if include_last_offset:
        offsets = n.cut(offsets, 0, 0, -1)
    reduction = "sum" if mode == 0 else "mean"
    extra = [] if per_sample_weights is None else [n.const(-1), per_sample_weights]
    out = n("EmbeddingBagOffsets", x, indices, offsets, *extra, reduction=reduction)
    return [out, None, None, None]


def _bags(
    n: Call, x: Output, indices: Output, offsets: Any, mode: int, weights: Any, include_last: bool,
    padding: Any,
) -> Output:  # fmt: skip
    """Rows reduced by bag; rows with the index `padding` are skipped, empty bags are zeros."""
    if n.rank(indices) == 2:
        count, length = n.size(indices, 0), n.size(indices, 1)
        bags = n("Broadcast", n.unsqueeze(n.arange(count), [1]), n.ints([count, length]))
        indices, bags = n.flat(indices), n.flat(bags)
        weights = None if weights is None else n.flat(weights)
    else:
        starts = n.convert(offsets, "i64")
        starts = n.cut(starts, 0, 0, -1) if include_last else starts
        count = n.size(starts, 0)
        has_begun = n("LessEqual", n.unsqueeze(starts, [0]), n.unsqueeze(n.arange(n.size(indices, 0)), [1]))
        bags = n("Subtract", n("ReduceSum", n.convert(has_begun, "i64"), [1], keep_dims=False), n.const(1))
    kind = n.dtype(x)
    if padding is not None and padding >= 0:  # to a bag after the last one
        bags = n("Select", n("Equal", indices, n.const(padding)), n.index(count), bags)
    rows = n("Gather", x, indices, 0)
    if weights is not None:
        rows = n("Multiply", rows, n.unsqueeze(weights, [1]))
    more = n.compute("Add", count, 1)
    bag_index = n.expand(n.unsqueeze(bags, [1]), n.shape_of(rows))
    zeros = n.fill(0, [more, n.size(x, 1)], kind)
    reduction = ("sum", "mean", "max")[mode]
    result = n(
        "ScatterElementsUpdate", zeros, bag_index, rows, n.const(0), reduction=reduction, use_init_val=False
    )
    return n.cut(result, 0, 0, count)


@aten("one_hot")
def one_hot(n: Call, x: Output, num_classes: int = -1) -> Output:
    count: Any = num_classes
    if n.known_number(count) == -1:
        top = n("ReduceMax", n.flat(x), [0], keep_dims=False)
        count = Number(n("Add", n.convert(top, "i64"), n.const(1)))
    return n("OneHot", x, n.index(count), n.const(1), n.const(0), axis=-1)


@aten("softmax", "_softmax", "_safe_softmax", "special_softmax")
def softmax(n: Call, x: Any, dim: int, dtype: Any = None) -> Output:
    x = n.real(n.cast(x, dtype))
    if n.rank(x) == 0:
        return n.alike(x, 1)
    out = n("Softmax", x, axis=n.axis(dim, n.rank(x)))
    if n.op == "aten::_safe_softmax":  # of nothing but -inf: zeros
        out = n("Select", n("IsNaN", out), n.like(out, 0), out)
    return out


@aten("log_softmax", "_log_softmax", "special_log_softmax")
def log_softmax(n: Call, x: Any, dim: int, dtype: Any = None) -> Output:
    x = n.real(n.cast(x, dtype))
    return n("LogSoftmax", x, axis=n.axis(dim, n.rank(x))) if n.rank(x) else n.alike(x, 0)


@aten("elu")
def elu(n: Call, x: Output, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Output:
    below = n("Multiply", x, n.like(x, input_scale)) if input_scale != 1 else x
    if input_scale == 1:
        out = n("Elu", x, alpha=float(alpha))
    else:
        low = n("Multiply", n("Subtract", n("Exp", below), n.like(x, 1)), n.like(x, alpha))
        out = n("Select", n("Greater", x, n.like(x, 0)), x, low)
    return out if scale == 1 else n("Multiply", out, n.like(x, scale))


@aten("celu")
def celu(n: Call, x: Output, alpha: Any = 1.0) -> Output:
    """max(0, x) + min(0, a * (exp(x / a) - 1))"""
    if alpha == 1:
        return n("Elu", x, alpha=1.0)
    low = n(
        "Multiply", n("Subtract", n("Exp", n("Divide", x, n.like(x, alpha))), n.like(x, 1)), n.like(x, alpha)
    )
    return n("Select", n("Greater", x, n.like(x, 0)), x, low)


@aten("leaky_relu", "rrelu", "rrelu_with_noise", "rrelu_with_noise_functional")
def leaky_relu(
    n: Call, x: Output, negative_slope: Any = 0.01, lower: Any = 0.125, upper: Any = 1 / 3,
    training: bool = False, noise: Any = None,
) -> Any:  # fmt: skip
    n.no(training, what="rrelu in training mode")
    slope = negative_slope if n.op == "aten::leaky_relu" else (lower + upper) / 2
    result = n("PRelu", x, n.like(x, slope))
    return [result, noise] if n.op == "aten::rrelu_with_noise_functional" else result


@aten("prelu", "_prelu_kernel")
def prelu(n: Call, x: Output, weight: Output) -> Output:
    """PRelu with a slope per channel (dimension 1)."""
    if n.rank(weight) == 1 and n.rank(x) > 1 and n.shape(weight) != (1,):
        weight = n.per_channel(weight, n.rank(x))
    return n("PRelu", x, weight)


@aten("softplus")
def softplus(n: Call, x: Output, beta: Any = 1, threshold: Any = 20) -> Output:
    if beta == 1:
        soft = n("SoftPlus", x)
    else:
        soft = n("Divide", n("SoftPlus", n("Multiply", x, n.like(x, beta))), n.like(x, beta))
    if threshold >= 20:
        return soft
    over = n("Greater", n("Multiply", x, n.like(x, beta)), n.like(x, threshold))
    return n("Select", over, x, soft)


@aten("hardtanh")
def hardtanh(n: Call, x: Output, min_val: Any = -1, max_val: Any = 1) -> Output:
    if not n.is_real(x):  # bounds are rounded towards 0, where those of clamp make real numbers of integers
        min_val, max_val = int(min_val), int(max_val)
    return n.also("clamp", x, min_val, max_val)


@aten("hardshrink", "softshrink")
def shrink(n: Call, x: Output, lambd: Any = 0.5) -> Output:
    bound, zero = n.like(x, lambd), n.like(x, 0)
    size = n("Abs", x)
    if n.op == "aten::hardshrink":
        return n("Select", n("LessEqual", size, bound), zero, x)
    less = n("Multiply", n("Sign", x), n("Subtract", size, bound))
    return n("Select", n("Greater", size, bound), less, n("Multiply", x, zero))


@aten("glu")
def glu(n: Call, x: Output, dim: int = -1) -> Output:
    axis = n.pick_axis(x, dim)
    first, second = n.all("Split", x, axis, num_splits=2)
    return n("Multiply", first, n("Sigmoid", second))


@aten("log_sigmoid", "log_sigmoid_forward")
def log_sigmoid(n: Call, x: Output) -> Any:
    """-softplus(-x); the forward operator also gives exp(-|x|), which PyTorch's gradient reads."""
    out = n("Negative", n("SoftPlus", n("Negative", x)))
    return [out, n("Exp", n("Negative", n("Abs", x)))] if n.op.endswith("forward") else out


@aten("cosine_similarity")
def cosine_similarity(n: Call, x: Output, x2: Output, dim: int = 1, eps: float = 1e-8) -> Output:
    a, b = n.same_kind([x, x2])
    shape = n("Broadcast", n("Multiply", n.like(a, 0), a), n.shape_of(b), mode="bidirectional")
    a, b = n("Add", a, shape), n("Add", b, shape)
    axis = n.pick_axis(a, dim)
    dots = n("ReduceSum", n("Multiply", a, b), [axis], keep_dims=False)
    sizes = [n("Maximum", n("ReduceL2", v, [axis], keep_dims=False), n.like(v, eps)) for v in (a, b)]
    return n("Divide", dots, n("Multiply", *sizes))


@aten("pairwise_distance")
def pairwise_distance(
    n: Call, x: Output, x2: Output, p: Any = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Output:
    gap = n("Add", n("Subtract", *n.same_kind([x, x2])), n.like(x, eps))
    return _length(n, gap, p, keepdim)


def _length(n: Call, gap: Output, p: Any, keepdim: bool) -> Output:
    """The p-norms of rows; the 2-norm is written as in OpenVINO's models."""
    if p != 2 or not n.is_real(gap):
        return n.also("norm", gap, p, None, [-1], keepdim)
    upcast = n.upcast(gap)
    squares = n("ReduceSum", n("Power", upcast, n.like(upcast, 2)), [-1], keep_dims=bool(keepdim))
    return n.convert(n("Power", squares, n.like(upcast, 0.5)), n.dtype(gap))


@aten("pdist", "_pdist_forward")
def pdist(n: Call, x: Output, p: Any = 2.0) -> Output:
    """Distances between each row and the rows after it."""
    count = n.index(n.size(x, 0))
    rows = n.upto(count)
    is_later = n("Less", n.unsqueeze(rows, [1]), n.unsqueeze(rows, [0]))
    pairs = n("NonZero", is_later, output_type="i64")
    ends = [n("Gather", x, n("Gather", pairs, n.const(i), 0), 0) for i in range(2)]
    return n.also("norm", n("Subtract", *ends), p, None, [-1], False)


@aten("cdist", "_cdist_forward", "_euclidean_dist")
def cdist(n: Call, x: Output, x2: Output, p: Any = 2.0) -> Output:
    gap = n("Subtract", n.unsqueeze(x, [-2]), n.unsqueeze(x2, [-3]))
    return _length(n, gap, p, False)


@aten("einsum")
def einsum(n: Call, x: str, tensors: Sequence[Any] = ()) -> Any:
    """`x` is the equation. Without "->", the output has the letters that occur once, in order."""
    if any(isinstance(value, Complex) for value in tensors):
        return n.also("complex_einsum", x, tensors)
    equation = x.replace(" ", "")
    values = n.same_kind(tensors)
    if "->" not in equation:
        letters = equation.replace(",", "").replace("...", "")
        output_letters = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
        equation += "->" + ("..." if "..." in equation else "") + output_letters
    if n.is_real(values[0]):
        return n("Einsum", *values, equation=equation)
    result = n("Einsum", *(n.convert(v, "f64") for v in values), equation=equation)
    return n.convert(result, n.dtype(values[0]))


@aten("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss",
      "binary_cross_entropy", "binary_cross_entropy_with_logits", "soft_margin_loss")  # fmt: skip
def loss(n: Call, x: Output, target: Output, weight: Any = None, reduction: int = 1, beta: float = 1.0,
         delta: float = 1.0, pos_weight: Any = None) -> Output:  # fmt: skip
    name = n.op.removeprefix("aten::")
    a, b = n.same_kind([x, target])
    gap = n("Subtract", a, b)
    size, one = n("Abs", gap), n.like(a, 1)
    if name == "mse_loss":
        each = n("Multiply", gap, gap)
    elif name == "l1_loss":
        each = size
    elif name in ("smooth_l1_loss", "huber_loss"):
        bound = beta if name == "smooth_l1_loss" else delta
        near = n(
            "Multiply", n("Multiply", gap, gap), n.like(a, 0.5 / (bound or 1) if name[0] == "s" else 0.5)
        )
        far = n("Subtract", size, n.like(a, 0.5 * bound))
        far = far if name[0] == "s" else n("Multiply", far, n.like(a, bound))
        each = n("Select", n("Less", size, n.like(a, bound)), near, far) if bound else size
    elif name == "soft_margin_loss":
        each = n.also("log1p", n("Exp", n("Negative", n("Multiply", a, b))))
    elif name == "binary_cross_entropy":
        logs = [n("Maximum", n("Log", v), n.like(a, -100.0)) for v in (a, n("Subtract", one, a))]
        each = n(
            "Negative", n("Add", n("Multiply", b, logs[0]), n("Multiply", n("Subtract", one, b), logs[1]))
        )
    else:
        factor = (
            one if pos_weight is None else n("Add", n("Multiply", n("Subtract", pos_weight, one), b), one)
        )
        soft = n("SoftPlus", n("Negative", a))
        each = n("Add", n("Multiply", n("Subtract", one, b), a), n("Multiply", factor, soft))
    if weight is not None:
        each = n("Multiply", each, weight)
    if reduction == 0:
        return each
    return n.also("mean" if reduction == 1 else "sum", each)


@aten("_grouped_mm")
def grouped_mm(
    n: Call, x: Output, mat2: Output, offs: Any = None, bias: Any = None, out_dtype: Any = None
) -> Output:
    """Products of groups of rows, which end at `offs`, with one matrix [K, N] each."""
    if n.rank(mat2) != 3 or (n.rank(x) == 3 and offs is not None):
        raise UnsupportedError("only groups of rows are supported")
    weights = n.transpose(mat2, [0, 2, 1])
    offsets = [] if offs is None else [n.convert(offs, "i32")]
    out = n("GroupedMatMul", x, weights, *offsets)
    out = out if bias is None else n("Add", out, bias)
    return n.cast(out, out_dtype)


#: Operators that are one expression.
aten_rows({
    "embedding": lambda n, x, indices: n("Gather", x, indices, 0),
    "relu": lambda n, x: n("Relu", x),
    "softmin": lambda n, x, dim: softmax(n, n("Negative", x), dim),
    "silu swish": lambda n, x: n("Swish", n.real(x)),
    "selu": lambda n, x: n("Selu", x, n.like(x, 1.6732632423543772), n.like(x, 1.0507009873554805)),
    "hardsigmoid": lambda n, x: n("HSigmoid", x),
    "relu6": lambda n, x: n.also("clamp", x, 0, 6),
    "softsign": lambda n, x: n("SoftSign", x),
    "tanhshrink": lambda n, x: n("Subtract", x, n("Tanh", x)),
    # [length, batch, channels], filters [size, in, out]
    "conv_tbc": lambda n, x, weight, bias, pad=0: n.transpose(
        n.also("conv1d", n.transpose(x, [1, 2, 0]), n.transpose(weight, [2, 1, 0]), bias, 1, pad), [2, 0, 1]),
    "gelu": lambda n, x, approximate="none":
        n("Gelu", x, approximation_mode="TANH" if approximate == "tanh" else "ERF"),
    "threshold": lambda n, x, threshold, value:
        n("Select", n("LessEqual", x, n.like(x, threshold)), n.like(x, value), x),
})  # fmt: skip
