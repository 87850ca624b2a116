"""Small random functions of JAX, each beside JAX itself.

`python tests/support/frameworks/jax_random.py COUNT SEED` tries seeds from SEED on. A function is a chain of
steps; a step takes values that were made before it, of any type, and makes one or several more.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax

import ovjit as ov

F32 = {"INFERENCE_PRECISION_HINT": "f32"}
#: What one rounding of a type changes at most, relative to the largest number of a result.
STEP = {"float32": 2.0**-20, "float16": 2.0**-9, "bfloat16": 2.0**-6}
REALS = ("float32", "float32", "float32", "bfloat16", "float16")
WHOLE = ("int32", "int8", "uint8", "int32")
#: Elements of the largest value.
MOST = 3000

Step = Callable[[random.Random, Any], Callable[[Any], Any]]
STEPS: list[tuple[str, Step]] = []


def step(make: Step) -> Step:
    """Decorator: `make(rng, x)` is a function of an array like x, with choices drawn by rng, or None."""
    STEPS.append((make.__name__, make))
    return make


def is_real(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def axis_of(rng: random.Random, x: Any) -> int:
    return rng.randrange(x.ndim)


@step
def cast(rng: random.Random, x: Any) -> Any:
    kind = rng.choice((*REALS, *WHOLE, "bool"))
    if is_real(x) and kind in WHOLE:  # numbers that do not fit are nobody's promise
        low = 0 if kind == "uint8" else -100
        return lambda v: jnp.clip(v, low, 100).astype(kind)
    return lambda v: v.astype(kind)


@step
def cast_twice(rng: random.Random, x: Any) -> Any:
    if not is_real(x):
        return None
    kinds = rng.sample(("bfloat16", "float32", "bfloat16"), 2)
    return lambda v: v.astype(kinds[0]).astype(kinds[1])


@step
def unary(rng: random.Random, x: Any) -> Any:
    if x.dtype == bool:
        return jnp.logical_not
    if not is_real(x):
        return rng.choice((jnp.abs, jnp.negative, jnp.square, jnp.sign, jnp.invert, lax.population_count))
    return rng.choice(
        (
            jnp.tanh,
            jax.nn.relu,
            jax.nn.gelu,
            jax.nn.silu,
            jnp.sin,
            jnp.abs,
            jnp.floor,
            jnp.round,
            jax.nn.elu,
            lambda v: jnp.sqrt(jnp.abs(v)),
            lambda v: jnp.log1p(jnp.abs(v)),
            jax.nn.softplus,
            lax.erf,
            lambda v: lax.rsqrt(jnp.abs(v) + 1),
            lambda v: jnp.exp(-jnp.abs(v)),
            jnp.isfinite,
            jnp.cbrt,
            lambda v: jnp.clip(v, -0.5, 0.75),
            lambda v: v / 3,
            lambda v: jnp.where(v > 0, v, v * 2),
        )
    )


@step
def with_itself(rng: random.Random, x: Any) -> Any:
    """Two operands, one of them turned or a row of the other."""
    axis = axis_of(rng, x)
    other = rng.choice(
        (
            lambda v: jnp.flip(v, axis),
            lambda v: lax.slice_in_dim(v, 0, 1, axis=axis),
            lambda v: jnp.roll(v, 1, axis),
        )
    )
    if x.dtype == bool:
        join = rng.choice((jnp.logical_and, jnp.logical_or, jnp.logical_xor))
    elif is_real(x):
        join = rng.choice(
            (
                jnp.add,
                jnp.multiply,
                jnp.subtract,
                jnp.maximum,
                jnp.less,
                jnp.equal,
                lambda a, b: a / (jnp.abs(b) + 1),
                lambda a, b: jnp.where(a < b, a, b),
            )
        )
    else:
        join = rng.choice(
            (
                jnp.add,
                jnp.multiply,
                jnp.subtract,
                jnp.minimum,
                jnp.bitwise_xor,
                jnp.bitwise_and,
                lambda a, b: a // (b | 1),
                lambda a, b: a % (b | 1),
                lambda a, b: lax.rem(a, (b | 1) + 0 * a),
                lambda a, b: a << (b & 3),
                lambda a, b: a >> (b & 3),
                jnp.greater,
            )
        )
    return lambda v: join(v, other(v))


@step
def reduced(rng: random.Random, x: Any) -> Any:
    axis, keep = axis_of(rng, x), rng.random() < 0.5
    if x.ndim < 2:
        keep = True
    kinds = (
        (jnp.any, jnp.all, jnp.sum, jnp.argmax)
        if x.dtype == bool
        else (
            jnp.sum,
            jnp.max,
            jnp.min,
            jnp.argmax,
            jnp.argmin,
            *((jnp.mean, jnp.var) if is_real(x) else (jnp.sum,)),
        )
    )
    kind = rng.choice(kinds)
    return lambda v: kind(v, axis=axis, keepdims=keep)


@step
def running(rng: random.Random, x: Any) -> Any:
    if x.dtype == bool:
        return None
    axis, back = axis_of(rng, x), rng.random() < 0.5
    kind = rng.choice((lax.cumsum, lax.cummax, lax.cummin))
    return lambda v: kind(v, axis=axis, reverse=back)


@step
def moved(rng: random.Random, x: Any) -> Any:
    axis = axis_of(rng, x)
    order = rng.sample(range(x.ndim), x.ndim)
    many = rng.randrange(2, 4)
    ways: list[Callable[[Any], Any]] = [
        lambda v: jnp.transpose(v, order),
        lambda v: v.reshape(-1, v.shape[-1]),
        lambda v: v[::-1],
        lambda v: jnp.expand_dims(v, axis),
        lambda v: jnp.repeat(v, many, axis),
        lambda v: jnp.ravel(v),
        lambda v: jnp.concatenate([v, v], axis),
        lambda v: jnp.stack([v, v], axis),
        lambda v: v[..., ::2],
        lambda v: jnp.pad(v, [(1, 2) if i == axis else (0, 0) for i in range(v.ndim)]),
        lambda v: lax.pad(
            v, jnp.zeros((), v.dtype), [(1, -1, 1) if i == axis else (0, 0, 0) for i in range(v.ndim)]
        ),
        lambda v: lax.rev(v, (axis,)),
        lambda v: jnp.tile(v, (2,) + (1,) * (v.ndim - 1)),
    ]
    return rng.choice(ways)


@step
def ordered(rng: random.Random, x: Any) -> Any:
    axis = axis_of(rng, x)
    if x.dtype == bool:
        return None
    count = min(x.shape[-1], rng.randrange(1, 4))
    return rng.choice(
        (
            lambda v: jnp.sort(v, axis),
            lambda v: jnp.argsort(v, axis, stable=True),
            lambda v: lax.top_k(v, count)[0],
            lambda v: lax.top_k(v, count)[1],
            lambda v: jnp.sort(v, axis, descending=True),
            lambda v: lax.sort((v, lax.rev(v, (axis,))), dimension=axis, num_keys=2)[1],
        )
    )


@step
def picked(rng: random.Random, x: Any) -> Any:
    axis = axis_of(rng, x)
    size = x.shape[axis]
    places = np.array([rng.randrange(-size, size) for _ in range(rng.randrange(1, 5))])
    beyond = np.array([rng.randrange(-2 * size, 2 * size) for _ in range(3)])
    one = rng.choice((1, -2)) if x.dtype != bool and x.dtype != "uint8" else 1
    mode = rng.choice(("fill", "clip", "wrap"))
    return rng.choice(
        (
            lambda v: jnp.take(v, places, axis),
            lambda v: jnp.take(v, beyond, axis, mode=mode),
            lambda v: v[places % v.shape[0]],
            lambda v: v.at[0].set(jnp.asarray(one, v.dtype)),
            lambda v: v.at[places % v.shape[0]].max(jnp.asarray(one, v.dtype)),
            lambda v: jnp.take_along_axis(v, jnp.argsort(v, axis, stable=True), axis),
            lambda v: lax.dynamic_slice_in_dim(
                v, v.astype(jnp.int32).ravel()[0] % 5, max(1, size // 2), axis
            ),
            lambda v: lax.dynamic_update_slice_in_dim(
                v, lax.slice_in_dim(v, 0, 1, axis=axis), v.astype(jnp.int32).ravel()[0] % 3, axis
            ),
            lambda v: jnp.where(v > 0, v, jnp.zeros_like(v)),
            lambda v: v.at[beyond].max(jnp.asarray(1, v.dtype), mode="drop"),
        )
    )


@step
def product(rng: random.Random, x: Any) -> Any:
    if x.dtype == bool or x.dtype == "uint8":
        return None
    wide = rng.randrange(1, 6)
    kind = "float32" if rng.random() < 0.3 else x.dtype
    w = (
        np.random.default_rng(rng.randrange(1 << 30)).integers(-3, 4, (x.shape[-1], wide))
        / (2 if is_real(x) else 1)
    ).astype(x.dtype)
    kinds: list[Callable[[Any], Any]] = [lambda v: v @ w, lambda v: jnp.einsum("...i,...i->...", v, v[::-1])]
    if is_real(x):
        kinds.append(lambda v: jnp.dot(v, w, preferred_element_type=kind))
    else:
        kinds.append(lambda v: jnp.dot(v, w, preferred_element_type="int32"))
    return rng.choice(kinds)


@step
def convolved(rng: random.Random, x: Any) -> Any:
    if not is_real(x) or x.ndim < 2:
        return None
    groups = rng.choice((1, 2))
    channels, filters = 2 * groups if groups > 1 else rng.randrange(1, 4), 2 * rng.randrange(1, 3)
    spatial = rng.choice((1, 2))
    size = [rng.randrange(1, 4) for _ in range(spatial)]
    k = (
        np.random.default_rng(rng.randrange(1 << 30)).integers(-2, 3, (filters, channels // groups, *size))
        / 4
    ).astype(x.dtype)
    strides, dilation = [[rng.randrange(1, 3) for _ in range(spatial)] for _ in range(2)]
    spread, pads = (
        [rng.choice((1, 1, 2)) for _ in range(spatial)],
        [(rng.randrange(3), rng.randrange(3)) for _ in range(spatial)],
    )
    long = 7

    def run(v: Any) -> Any:
        image = jnp.resize(v, (2, channels, *[long] * spatial))
        return lax.conv_general_dilated(
            image,
            k,
            strides,
            pads,
            spread,
            dilation,
            feature_group_count=groups,
        )

    return run


@step
def windowed(rng: random.Random, x: Any) -> Any:
    if x.dtype == bool:
        return None
    size, steps = [rng.randrange(1, 3) for _ in x.shape], [rng.randrange(1, 3) for _ in x.shape]
    spread, far = [rng.randrange(1, 3) for _ in x.shape], rng.choice(("SAME", [(1, 0)] * x.ndim))
    low = -jnp.inf if is_real(x) else jnp.iinfo(x.dtype).min
    start, join = rng.choice(((low, lax.max), (0, lax.add)))
    if rng.random() < 0.3:
        return lambda v: lax.reduce_window(v, jnp.asarray(1, v.dtype), lax.mul, size, steps, far)
    return lambda v: lax.reduce_window(
        v, jnp.asarray(start, v.dtype), join, size, steps, far, window_dilation=spread
    )


@step
def looped(rng: random.Random, x: Any) -> Any:
    half = jnp.asarray(0.5 if is_real(x) else 1, x.dtype) if x.dtype != bool else None
    if half is None:
        return None
    axis = axis_of(rng, x)
    count = rng.randrange(5)
    back = rng.random() < 0.5
    return rng.choice(
        (
            lambda v: lax.scan(lambda c, a: (c * half + a, c - a), v[0], v, reverse=back)[1],
            lambda v: lax.scan(lambda c, a: (c * half + a, None), v[0], v)[0],
            lambda v: lax.fori_loop(0, count, lambda i, c: c * half + i.astype(c.dtype), v),
            lambda v: lax.while_loop(
                lambda s: s[0] < count, lambda s: (s[0] + 1, jnp.roll(s[1], 1, axis)), (0, v)
            )[1],
            lambda v: lax.cond(v.sum() > 0, lambda a: a + half, lambda a: a[::-1], v),
            lambda v: lax.switch(
                v.astype(jnp.int32).ravel()[0] % 3, [lambda a: a, lambda a: a * half, lambda a: -a], v
            ),
            lambda v: lax.map(lambda a: a * half + a.ravel()[0], v),
            lambda v: lax.associative_scan(jnp.add, v, axis=axis, reverse=back),
        )
    )


@step
def mapped(rng: random.Random, x: Any) -> Any:
    if x.dtype == bool:
        return None
    axis = axis_of(rng, x)
    return rng.choice(
        (
            lambda v: jax.vmap(lambda a: a - a.max(), in_axes=axis)(v),
            lambda v: jax.vmap(jnp.sort, in_axes=axis, out_axes=-1)(v) if v.ndim > 1 else v,
            lambda v: jax.vmap(lambda a: a[..., ::-1] if a.ndim else a)(v),
            lambda v: jax.vmap(lambda a: lax.cond(a.sum() > 0, lambda b: b + 1, lambda b: b * 2, a))(v),
            lambda v: jax.vmap(lambda a, i: jnp.roll(a, i) if a.ndim else a + i.astype(a.dtype))(
                v, jnp.arange(v.shape[0])
            ),
            lambda v: jax.vmap(
                lambda a: lax.while_loop(
                    lambda s: s[0] < 3, lambda s: (s[0] + 1 + (s[1].sum() > 0), s[1] + 1), (0, a)
                )[1]
            )(v),
            lambda v: jax.vmap(lambda a, i: lax.dynamic_slice_in_dim(jnp.atleast_1d(a), i, 1))(
                v, jnp.arange(v.shape[0])
            ),
        )
    )


@step
def drawn(rng: random.Random, x: Any) -> Any:
    key = jax.random.key(rng.randrange(1000))
    kind = x.dtype if is_real(x) else jnp.float32
    return rng.choice(
        (
            lambda v: v + jax.random.uniform(key, v.shape, kind).astype(v.dtype),
            lambda v: jax.random.bernoulli(key, 0.3, v.shape),
            lambda v: jax.random.permutation(key, v),
            lambda v: jax.random.categorical(key, v.astype(jnp.float32)) if v.ndim > 1 else v,
            lambda v: jax.random.randint(key, v.shape, -5, 50) + v.astype(jnp.int32),
            lambda v: jax.random.bits(jax.random.fold_in(key, 3), v.shape, "uint8"),
            lambda v: jax.random.normal(key, v.shape, kind),
            lambda v: jnp.where(
                jax.random.bernoulli(jax.random.split(key)[1], 0.5, v.shape), v, jnp.zeros_like(v)
            ),
        )
    )


@step
def normed(rng: random.Random, x: Any) -> Any:
    if not is_real(x):
        return None
    axis = axis_of(rng, x)
    return rng.choice(
        (
            lambda v: jax.nn.softmax(v, axis),
            lambda v: jax.nn.log_softmax(v, axis),
            lambda v: jax.nn.logsumexp(v, axis, keepdims=True),
            lambda v: jax.nn.standardize(v, axis),
            lambda v: jax.nn.one_hot(jnp.argmax(v, axis), 4, dtype=v.dtype),
            lambda v: jnp.linalg.norm(v, axis=axis, keepdims=True),
            lambda v: jax.nn.glu(jnp.concatenate([v, v], axis), axis),
        )
    )


class Chain:
    """One random function: `names` of its steps, `given` arrays of its inputs."""

    def __init__(self, seed: int):
        rng, numbers = random.Random(seed), np.random.default_rng(seed)
        self.given = [self._array(rng, numbers) for _ in range(rng.choice((1, 1, 2)))]
        self.steps: list[tuple[int, Callable[[Any], Any]]] = []
        self.names: list[str] = []
        values: list[Any] = [jnp.asarray(a) for a in self.given]
        wanted = rng.randrange(2, 7)
        for _ in range(60):
            if len(self.steps) == wanted:
                break
            at = rng.choice((len(values) - 1, rng.randrange(len(values))))
            x, (name, make) = values[at], rng.choice(STEPS)
            if not x.ndim or not x.size:
                continue
            made = make(rng, x)
            if made is None:
                continue
            y = made(x)
            if y.size > MOST or not y.size or y.ndim > 5:
                continue
            values.append(y)
            self.steps.append((at, made))
            self.names.append(f"{name}({at}) -> {y.dtype}{list(y.shape)}")
        used = {at for at, _ in self.steps}
        self.results = [i for i in range(len(self.given), len(values)) if i not in used]

    @staticmethod
    def _array(rng: random.Random, numbers: np.random.Generator) -> np.ndarray:
        shape = [rng.randrange(1, 7) for _ in range(rng.randrange(1, 5))]
        kind = rng.choice((*REALS, *REALS, *WHOLE, "bool"))
        values = numbers.normal(0, 2, shape)
        if kind == "uint8":
            values = np.abs(values)
        return np.asarray(values * 4 if kind in WHOLE else values > 0 if kind == "bool" else values).astype(
            jnp.dtype(kind)
        )

    def __call__(self, *given: Any) -> list[Any]:
        values = [jnp.asarray(a) for a in given]
        for at, made in self.steps:
            values.append(made(values[at]))
        return [values[i] for i in self.results]


def tensor_of(array: np.ndarray) -> ov.Tensor:
    if array.dtype != ml_dtypes.bfloat16:
        return ov.Tensor(np.ascontiguousarray(array))
    tensor = ov.Tensor(ov.Type.bf16, ov.Shape(array.shape))
    tensor.data[...] = array.view(np.float16)
    return tensor


def array_of(tensor: ov.Tensor) -> np.ndarray:
    return (
        np.array(tensor.data).view(ml_dtypes.bfloat16)
        if tensor.element_type == ov.Type.bf16
        else np.array(tensor.data)
    )


def difference(chain: Chain) -> str:
    """What ovjit does otherwise than JAX does step by step; empty for nothing."""
    wanted = [np.asarray(v) for v in chain(*chain.given)]
    compiled = ov.compile_model(ov.convert_model(jax.make_jaxpr(chain)(*chain.given)), "CPU", F32)
    request = compiled.create_infer_request()
    request.infer([tensor_of(a) for a in chain.given])
    narrow = max((STEP.get(str(v), 0) for v in _kinds(chain)), default=0)
    for i, want in enumerate(wanted):
        got = array_of(request.get_output_tensor(i))
        if got.dtype != want.dtype or got.shape != want.shape:
            return f"result {i} is {got.dtype}{got.shape}, not {want.dtype}{want.shape}"
        a, b = got.astype(np.float64), want.astype(np.float64)
        top = np.abs(b[np.isfinite(b)]).max(initial=1)
        with np.errstate(invalid="ignore"):
            near = (
                (np.abs(a - b) <= top * 3 * narrow * len(chain.steps))
                | (a == b)
                | (np.isnan(a) & np.isnan(b))
            )
        if not near.all():
            places = f"in {(~near).sum()} of {near.size} places"
            return f"result {i} is {got[~near][:5]}, not {want[~near][:5]}, {places}"
    return ""


def _kinds(chain: Chain) -> set[str]:
    closed = jax.make_jaxpr(chain)(*chain.given)
    return {str(v.aval.dtype) for e in closed.jaxpr.eqns for v in (*e.invars, *e.outvars)}


def main(count: int, first: int) -> int:
    wrong = 0
    for seed in range(first, first + count):
        chain = Chain(seed)
        try:
            what = difference(chain)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"[-600:]
        if what:
            wrong += 1
            given = [f"{a.dtype}{list(a.shape)}" for a in chain.given]
            print(f"seed {seed}: {given} {chain.names}\n    {what}", flush=True)
    print(f"{count} functions from seed {first}, {wrong} wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
