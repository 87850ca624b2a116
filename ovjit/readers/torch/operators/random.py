"""Random numbers."""

from __future__ import annotations

from ovjit.readers.torch.rule_language import *

#: The distance of numbers that are drawn, which stands for 0 where a logarithm is asked of them.
TINY = 2.0**-24


def uniform_of(n: Call, shape: Any, kind: str, low: Any = 0.0, high: Any = 1.0) -> Output:
    """Uniform random numbers in [low, high), new ones in each inference."""
    target = shape if isinstance(shape, Output) else n.const(shape)
    work = kind if kind in ("f32", "f16", "bf16", "i32", "i64") else "f32"
    result = n("RandomUniform", target, n.const(low, work), n.const(high, work), output_type=work,
             global_seed=0, op_seed=0, alignment="pytorch")  # fmt: skip
    return n.convert(result, kind)


def normal_of(n: Call, shape: Any, kind: str) -> Output:
    """Box and Muller: sqrt(-2 log u) cos(2 pi v)"""
    u, v = uniform_of(n, shape, "f32", TINY, 1.0), uniform_of(n, shape, "f32")
    radius = n("Sqrt", n("Multiply", n("Log", u), n.const(-2.0)))
    return n.convert(n("Multiply", radius, n("Cos", n("Multiply", v, n.const(2 * math.pi)))), kind)


@aten("rand", "randn")
def rand(n: Call, x: Any, dtype: Any = None) -> Output:
    kind = "f32" if dtype is None else element_type(dtype)
    return (uniform_of if n.op == "aten::rand" else normal_of)(n, n.ints(list(x)), kind)


@aten("rand_like", "randn_like")
def rand_like(n: Call, x: Output, dtype: Any = None) -> Output:
    kind = n.dtype(x) if dtype is None else element_type(dtype)
    return (uniform_of if n.op == "aten::rand_like" else normal_of)(n, n.shape_of(x), kind)


@aten("randint", "randint.low")
def randint(n: Call, x: Any, high: Any = None, size: Any = None, dtype: Any = None) -> Output:
    low, top = (x, high) if n.overload.startswith("low") else (0, x)
    kind = "i64" if dtype is None else element_type(dtype)
    return n.convert(uniform_of(n, n.ints(list(size)), "i64", low, top), kind)


@aten("randint_like", "randint_like.low_dtype")
def randint_like(n: Call, x: Output, high: Any = None, low: Any = 0, dtype: Any = None) -> Output:
    kind = n.dtype(x) if dtype is None else element_type(dtype)
    return n.convert(uniform_of(n, n.shape_of(x), "i64", low, high), kind)


@aten("normal.Tensor_Tensor", "normal.Tensor_float", "normal.float_Tensor")
def normal_of_tensors(n: Call, x: Any, std: Any = 1.0) -> Output:
    """Normal random numbers, with a mean and a deviation for each."""
    tensors = [v for v in (x, std) if isinstance(v, Output)]
    shape = n.shape_of(n("Add", *tensors) if len(tensors) > 1 else tensors[0])
    return _scale_samples(n, normal_of(n, shape, n.dtype(tensors[0])), x, std)


def _scale_samples(n: Call, samples: Output, mean: Any, std: Any) -> Output:
    kind = n.dtype(samples)
    return n("Add", n("Multiply", samples, n.tensor(std, kind)), n.tensor(mean, kind))


@aten("exponential")
def exponential(n: Call, x: Output, lambd: float = 1.0) -> Output:
    kind = n.dtype(x)
    drawn = n.convert(n("Log", uniform_of(n, n.shape_of(x), "f32", TINY, 1.0)), kind)
    return n("Divide", drawn, n.tensor(-lambd, kind))


@aten("bernoulli")
def bernoulli(n: Call, x: Output, p: Any = None) -> Output:
    chance = x if p is None else n.tensor(p, n.dtype(x))
    return n.convert(n("Less", uniform_of(n, n.shape_of(x), n.dtype(x)), chance), n.dtype(x))


@aten("multinomial")
def multinomial(n: Call, x: Output, num_samples: Any, replacement: bool = False) -> Output:
    single = n.rank(x) == 1
    value = n.unsqueeze(x, [0]) if single else x
    samples = n("Multinomial", value, n.one(num_samples), convert_type="i64",
                with_replacement=bool(replacement), log_probs=False, global_seed=0, op_seed=0)  # fmt: skip
    return n.squeeze(samples, [0]) if single else samples


@aten("randperm")
def randperm(n: Call, x: Any, dtype: Any = None) -> Output:
    """A random permutation: the order of `x` random numbers."""
    result = n.also("argsort", uniform_of(n, n.ints([x]), "f32"))
    return result if dtype is None else n.convert(result, element_type(dtype))


#: Operators that are one expression.
aten_rows({
    "uniform": lambda n, x, /, **bounds:
        uniform_of(n, n.shape_of(x), n.dtype(x), bounds.get("from", 0.0), bounds.get("to", 1.0)),
    # `normal` without an overload is the one in place
    "normal_functional normal": lambda n, x, mean=0.0, std=1.0:
        _scale_samples(n, normal_of(n, n.shape_of(x), n.dtype(x)), mean, std),
    "normal.float_float": lambda n, x, std, size, dtype=None: _scale_samples(n, rand(n, size, dtype), x, std),
    "prims::normal": lambda n, x, mean, std, dtype=None: _scale_samples(n, rand(n, x, dtype), mean, std),
})  # fmt: skip
