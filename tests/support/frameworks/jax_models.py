"""Functions of JAX, as `jax.make_jaxpr` gives them: ovjit beside JAX itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax

import ovjit as ov
from ovjit.compat.frontend.jax.jaxpr_decoder import JaxprPythonDecoder

SEED = 20261123
RNG = np.random.default_rng(SEED)
F32 = {"INFERENCE_PRECISION_HINT": "f32"}


def real(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


X, Y, W, IMAGE, K = real(3, 4), real(3, 4), real(4, 5), real(2, 8, 8, 3), real(3, 3, 3, 4)
IDS = np.array([2, 0, 1], np.int32)
NHWC = ("NHWC", "HWIO", "NHWC")


def conv(**options: Any) -> Callable[..., Any]:
    return lambda x, k: lax.conv_general_dilated(x, k, dimension_numbers=NHWC, **options)


def attention(x: Any) -> Any:
    """Two heads of a causal layer."""
    q, k, v = (jnp.einsum("bld,dhe->bhle", x, w) for w in (Q1, Q2, Q3))
    scores = jnp.einsum("bhle,bhme->bhlm", q, k) / np.sqrt(3)
    scores = jnp.where(jnp.tril(jnp.ones((5, 5), bool)), scores, -1e9)
    return jnp.einsum("bhlm,bhme->blhe", jax.nn.softmax(scores), v).reshape(2, 5, 6)


Q1, Q2, Q3 = real(6, 2, 3), real(6, 2, 3), real(6, 2, 3)


def norm(x: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-5)


KEY = jax.random.PRNGKey(3)
TYPED = jax.random.key(4)
MANY = jax.random.split(jax.random.key(5), 2)

HALVES = np.round(RNG.normal(size=(6, 8)) * 2).astype(np.float32) / 2


def pooled(of: Any, *window: Any) -> Callable[..., Any]:
    return lambda x: lax.reduce_window(x, -jnp.inf if of is lax.max else jnp.inf, of, *window)


def end_of(kind: Any, index: int) -> Any:
    """The least (0) or the largest (1) number of an integer type, or truth value."""
    return bool(index) if np.dtype(kind).kind == "b" else (jnp.iinfo(kind).min, jnp.iinfo(kind).max)[index]


def slope(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.grad(lambda x: jnp.sum(function(x) ** 2))


ENDS = np.array([0, -0.0, 0.5, -1.5, 255.5, -300, 3e9, -3e9, 5e9, 1e30, -np.inf, np.inf, np.nan], np.float32)
DIVIDENDS, DIVISORS = (
    v.ravel() for v in np.meshgrid(*[np.array([0, 1, -1, 7, -7, -(2**31), 2**31 - 1], np.int32)] * 2)
)
WORDS = np.array([7, 0, 0xFFFFFFFE, 0xFFFFFFFF], np.uint32)


def bits_of(algorithm: int) -> Callable[..., Any]:
    shapes = ((), (5,), (3, 5), (4, 3), (3, 4, 2))
    return lambda state: [
        lax.rng_bit_generator(state, shape, dtype=kind, algorithm=lax.RandomAlgorithm(algorithm))
        for kind in ("uint8", "uint16", "uint32")
        for shape in shapes
    ]


def draw(generator: str) -> Callable[..., Any]:
    key = jax.random.key(5, impl=generator)
    return lambda x: (
        x + jax.random.uniform(key, (2, 2)),
        jax.random.bits(jax.random.fold_in(jax.random.split(key, 3)[1], 7), (5,), "uint8"),
    )


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    **{f"bits by algorithm {n}": (bits_of(n), (WORDS,)) for n in range(3)},
    **{
        f"numbers drawn by {name}": (draw(name), (real(2, 2),))
        for name in ("rbg", "unsafe_rbg", "philox2x32", "philox4x32", "threefry4x32")
    },
    "numbers that integers do not have": (
        lambda x: [x.astype(kind) for kind in ("int32", "int8", "uint8", "int16", "uint32", "bool")],
        (ENDS,),
    ),
    "integers by 0": (
        lambda x, y: [
            f(x.astype(kind), y.astype(kind))
            for f in (lax.div, lax.rem, jnp.floor_divide, jnp.mod)
            for kind in ("int32", "int8", "uint8")
        ],
        (DIVIDENDS, DIVISORS),
    ),
    "functions at their poles": (
        lambda x: (lax.rsqrt(x), lax.digamma(x[:2]), 1 / lax.reduce_precision(x, 5, 7)),
        (ENDS,),
    ),
    "functions that JAX expresses by others": (
        lambda x, y: (
            lax.igamma(x, y),
            lax.igammac(x, y),
            lax.betainc(x, y, x / (x + y)),
            lax.linalg.lu_pivots_to_permutation(jnp.array([2, 2, 3]), 4),
        ),
        (np.abs(X) + np.float32(0.1), np.abs(Y)),
    ),
    "slopes of windows": (
        lambda x, t: (
            slope(pooled(lax.max, (2, 3), (1, 2), "SAME"))(x),
            slope(pooled(lax.min, (3, 2), (3, 1), ((1, 0), (0, 2))))(x),
            slope(pooled(lax.max, (1, 2), (1, 3), "VALID"))(x),
            jax.jvp(pooled(lax.max, (2, 2), (1, 2), "SAME"), (x,), (t,))[1],
            jax.jvp(pooled(lax.min, (2, 3), (2, 2), "VALID"), (x,), (t,))[1],
        ),
        (HALVES, real(6, 8)),
    ),
    "windows that begin with a number": (
        lambda x: (
            lax.reduce_window(x, np.float32(2), lax.add, (2, 3), (1, 2), "SAME"),
            lax.reduce_window(x, np.float32(2), lax.add, (2, 1), (1, 1), "VALID", base_dilation=(2, 1)),
            lax.reduce_window(x, np.float32(0.5), lax.max, (3, 2), (2, 1), ((1, 2), (0, 1))),
        ),
        (real(4, 5),),
    ),
    "results without elements": (
        lambda x, k: (
            conv(window_strides=(1, 1), padding="VALID", rhs_dilation=(5, 1))(x, k),
            lax.reduce_window(x, -jnp.inf, lax.max, (1, 9, 1, 1), (1, 1, 1, 1), "VALID"),
            x[:, 3:3].sum(0) @ x[0, 0].T,
        ),
        (IMAGE, K),
    ),
    "layer": (lambda x, w: jax.nn.softmax(jax.nn.gelu(x @ w)), (X, W)),
    "activations": (
        lambda x: [
            f(x)
            for f in (
                jax.nn.relu,
                jax.nn.silu,
                jax.nn.elu,
                jax.nn.softplus,
                jnp.tanh,
                jax.nn.sigmoid,
                jax.nn.hard_swish,
                jax.nn.log_softmax,
                lax.erfc,
                jnp.exp2,
            )
        ],
        (X,),
    ),
    "numbers": (
        lambda x, y: (
            x / y,
            x % y,
            jnp.power(jnp.abs(x), y),
            jnp.round(x),
            jnp.sign(x),
            x**3,
            jnp.clip(x, -1, 1),
            jnp.cbrt(x),
            jnp.log1p(jnp.abs(x)),
            jnp.expm1(x),
            jnp.floor(x),
            jnp.maximum(x, y),
        ),
        (X, Y),
    ),
    "integers": (
        lambda i: (i // 2, i % 2, i & 1, i | 4, i ^ 3, i << 1, i * 2 - 1, -i, (i > 0) & (i < 2)),
        (IDS,),
    ),
    "types": (
        lambda x, i: (x.astype(jnp.int32), i.astype(jnp.float32), x.astype(bool), x.astype(jnp.float16)),
        (X, IDS),
    ),
    "reductions": (
        lambda x: (
            x.sum(),
            x.max(0),
            x.min(1),
            x.prod(),
            (x > 0).any(1),
            (x > -9).all(),
            x.mean(1, keepdims=True),
            x.argmax(1),
            x.argmin(0),
            x.std(),
            jnp.cumsum(x, 1),
            jnp.cumsum(x, 0),
        ),
        (X,),
    ),
    "shapes": (
        lambda x: (
            x.T,
            x.reshape(2, 6),
            x[None, :, None],
            x[::-1],
            x[1:, ::2],
            jnp.stack([x, x]),
            jnp.unstack(x, axis=1),
            jnp.tile(x, (2, 1)),
            jnp.concatenate([x, x], 1),
            jnp.pad(x, ((1, 0), (0, 2))),
            jnp.pad(x, 1, mode="reflect"),
            jnp.split(x, 2, 1),
            jnp.repeat(x, 2, 0),
            jnp.roll(x, 1, 1),
            jnp.broadcast_to(x, (2, 3, 4)),
            jnp.squeeze(x[:1]),
        ),
        (X,),
    ),
    "lax pad": (
        lambda x: (lax.pad(x, 0.5, ((1, 2, 1), (0, 1, 2))), lax.pad(x, 0.0, ((-1, 0, 0), (1, -2, 0)))),
        (X,),
    ),
    "sorting": (lambda x: (jnp.sort(x), jnp.argsort(x), jnp.sort(x, 0), lax.top_k(x, 2)), (X,)),
    "picking": (
        lambda x, i: (
            x[i],
            jnp.take(x, i, axis=1),
            x[i, i],
            x[0, 1],
            x[:, 1],
            jnp.take_along_axis(x, i[:, None], 1),
            x[i % 2][:, i],
        ),
        (X, IDS),
    ),
    "picking beyond": (
        lambda x, i: (
            jnp.take(x, i, axis=0),
            x.at[i].get(mode="fill", fill_value=-1),
            x[i],
            x.at[i].add(2.0),
            x.at[i].subtract(2.0),
            x.at[jnp.array([0, 0, 9])].subtract(0.5),
            x.at[i].set(1.0, mode="drop"),
        ),
        (X, np.array([0, 7, -1, 2], np.int32)),
    ),
    "putting": (
        lambda x, i: (
            x.at[i].add(1.0),
            x.at[0].set(2.0),
            x.at[:, i].max(0.5),
            x.at[i, i].mul(3.0),
            x.at[1, 2].set(5),
        ),
        (X, IDS),
    ),
    "dynamic slices": (
        lambda x, i: (
            lax.dynamic_slice(x, (i[1], i[0]), (2, 2)),
            lax.dynamic_update_slice(x, x[:2, :2], (i[2], i[0])),
            lax.dynamic_index_in_dim(x, i[0]),
        ),
        (X, IDS),
    ),
    "products": (
        lambda x, w: (
            x @ w,
            jnp.einsum("ij,kj->ki", x, x),
            jnp.einsum("bij,bjk->bik", x[None], w[None]),
            jnp.tensordot(x, w, 1),
            jnp.dot(x[0], x[1]),
            jnp.outer(x[0], w[0]),
        ),
        (X, W),
    ),
    "attention": (attention, (real(2, 5, 6),)),
    "norm": (norm, (X,)),
    "conv same": (conv(window_strides=(2, 2), padding="SAME"), (IMAGE, K)),
    "conv valid": (conv(window_strides=(1, 1), padding="VALID", rhs_dilation=(2, 2)), (IMAGE, K)),
    "conv groups": (
        conv(window_strides=(1, 1), padding="SAME", feature_group_count=3),
        (IMAGE, real(3, 3, 1, 6)),
    ),
    "conv transposed": (lambda x, k: lax.conv_transpose(x, k, (2, 2), "SAME"), (IMAGE, K)),
    "pooling": (
        lambda x: (
            lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
            lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"),
            lax.reduce_window(x, jnp.inf, lax.min, (1, 2, 2, 1), (1, 1, 1, 1), "SAME"),
        ),
        (IMAGE,),
    ),
    "scan": (lambda x: lax.scan(lambda c, a: (c + a, c * a), x[0], x), (X,)),
    "scan backwards": (lambda x: lax.scan(lambda c, a: (c * 0.5 + a, c), x[0], x, reverse=True), (X,)),
    "loop": (lambda x: lax.fori_loop(0, 5, lambda i, v: v * 1.1 + i, x), (X,)),
    "while": (lambda x: lax.while_loop(lambda v: v.sum() < 50, lambda v: v * 2 + 1, jnp.abs(x)), (X,)),
    "cond": (
        lambda x: (
            lax.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, x),
            lax.cond(x.sum() <= 0, lambda v: v * 2, lambda v: v - 1, x),
        ),
        (X,),
    ),
    "switch": (lambda x: lax.switch(1, [jnp.sin, jnp.cos, jnp.tan], x), (X,)),
    "vmap": (jax.vmap(lambda x, i: x[i] + jnp.roll(x, 1)), (X, IDS)),
    "gradient": (jax.grad(lambda x: jnp.sum(jnp.tanh(x @ W) ** 2)), (X,)),
    "recomputed": (jax.checkpoint(lambda x: jnp.sin(jnp.cos(x))), (X,)),
    "unused": (lambda x: (x, jax.random.normal(jax.random.key(0), (3,)))[0] * 2, (X,)),
    "switch of a number": (
        lambda x: [
            lax.switch(jnp.int32(x.sum() * 0) + i, [jnp.sin, jnp.cos, jnp.tan, jnp.exp], x)
            for i in range(-1, 6)
        ],
        (X,),
    ),
    "loops that end one by one": (
        jax.vmap(
            lambda v: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] * 1.5 + 0.1, s[1] + 1), (v, 0))
        ),
        (jnp.abs(X[0]),),
    ),
    "special functions": (
        lambda x: (
            lax.erf_inv(jnp.tanh(x) * 0.9),
            lax.lgamma(x),
            lax.digamma(jnp.abs(x) + 0.3),
            lax.bessel_i0e(x),
            lax.bessel_i1e(x),
            jnp.arctan2(x, x[::-1]),
            lax.reduce_precision(x * 1e4, 5, 10),
            lax.reduce_precision(x * 1e-5, 5, 10),
            lax.reduce_precision(x, 8, 7),
        ),
        (X,),
    ),
    "bits": (
        lambda i, x: (
            lax.population_count(i),
            lax.clz(i),
            lax.shift_right_logical(i, jnp.int32(3)),
            lax.shift_right_arithmetic(i, jnp.int32(3)),
            lax.bitcast_convert_type(x, jnp.int32),
            lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.uint32), jnp.float32),
            jnp.signbit(x),
            lax.reduce_xor(i, axes=[0]),
        ),
        (np.array([0, 1, -1, 12345, -(2**31)], np.int32), X),
    ),
    "running": (
        lambda x: [
            f(x, axis, reverse=back)
            for f in (lax.cumprod, lax.cummax, lax.cummin, lax.cumlogsumexp)
            for axis in (0, 1)
            for back in (False, True)
        ],
        (X,),
    ),
    "sorts by several keys": (
        lambda i, x: (lax.sort((i, x, -x), num_keys=2), lax.sort((i, x), num_keys=1), lax.approx_max_k(x, 2)),
        (np.array([2, 0, 2, 1, 0, 2], np.int32), real(6)),
    ),
    "places in a list": (
        lambda x, v: (
            jnp.searchsorted(x, v),
            jnp.searchsorted(x, v, side="right"),
            jnp.digitize(v, x),
            jnp.interp(v, x, x**2),
            jnp.histogram(v, 4, (-1.0, 1.0))[0],
        ),
        (np.sort(real(5)), np.append(real(6), np.float32(np.nan))),
    ),
    "functions of pairs": (
        lambda x: (
            lax.reduce(x, jnp.float32(1), lambda a, b: a * b * 1.0, (1,)),
            lax.reduce(x, jnp.float32(-9), lambda a, b: jnp.where(a > b, a, b), (0, 1)),
            lax.reduce_window(x, jnp.float32(1), lax.mul, (2, 3), (1, 2), "SAME", window_dilation=(1, 1)),
            lax.reduce_window(x, jnp.float32(1), lax.mul, (2, 2), (1, 1), "VALID", window_dilation=(2, 1)),
        ),
        (X,),
    ),
    "functions of elements": (
        lambda x: (x.at[0].apply(jnp.sin), x.at[:, 1:3].apply(lambda v: v * v + 1)),
        (X,),
    ),
    "diagonals": (lambda x: (jnp.diagonal(x[:, :3]), jnp.corrcoef(x), jnp.trace(x)), (X,)),
    "matrices": (
        lambda x: (
            jnp.linalg.cholesky(x),
            jnp.linalg.inv(x),
            jnp.linalg.solve(x, x[..., :2] + 1),
            jnp.linalg.det(x),
            jnp.linalg.slogdet(x),
            jnp.abs(jnp.linalg.qr(x[..., :2])[1]),
            jnp.linalg.qr(x, mode="complete")[0] @ x,
            jax.scipy.linalg.solve_triangular(x, x[..., :1], lower=True, trans=1, unit_diagonal=True),
            lax.linalg.lu(x),
            jax.scipy.linalg.expm(x / 8),
        ),
        (np.stack([m @ m.T + 2 * np.eye(4, dtype=np.float32) for m in real(2, 4, 4)]),),
    ),
    "values of matrices": (
        lambda x, s: (
            jnp.linalg.svd(x, compute_uv=False),
            jnp.abs(jnp.linalg.svd(x, full_matrices=True)[0][..., :3]),
            jnp.abs(jnp.linalg.svd(x, full_matrices=False)[2]),
            jnp.linalg.pinv(x),
            jnp.linalg.matrix_rank(x),
            jnp.linalg.lstsq(x[0], x[0, :, :1] + 1)[0],
            jax.scipy.linalg.polar(x[0])[0],
            *(lambda found: (found[0], jnp.abs(found[1])))(jnp.linalg.eigh(s)),
            jnp.linalg.eigvalsh(s, UPLO="U"),
        ),
        (real(2, 5, 3), (lambda m: m + m.swapaxes(1, 2))(real(3, 4, 4))),
    ),
    "random numbers of captured keys": (
        lambda x: (
            jax.random.uniform(TYPED, x.shape) + x,
            jax.random.normal(jax.random.split(TYPED)[1], (3,)),
            jax.random.bernoulli(jax.random.fold_in(TYPED, 2), 0.3, (5,)),
            jax.vmap(lambda key: jax.random.bits(key, (2,)))(MANY),
            jax.random.uniform(jax.random.clone(jax.random.wrap_key_data((x[0, :2] * 0).astype(jnp.uint32)))),
        ),
        (X,),
    ),
    "casts of bf16": (
        lambda x: (
            x.astype(jnp.bfloat16).astype(jnp.float32),
            x.astype(jnp.float16).astype(jnp.bfloat16).astype(jnp.float32),
            jnp.dot(x.astype(jnp.bfloat16), x.T.astype(jnp.bfloat16), preferred_element_type=jnp.float32),
            (x * 20).astype(jnp.bfloat16).astype(jnp.int32),
            lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16),
            jnp.argsort(x.astype(jnp.bfloat16)),
        ),
        (X,),
    ),
    "random numbers": (
        lambda x: (
            x + jax.random.normal(KEY, (3, 4)),
            [jax.random.uniform(k, (2,)) for k in jax.random.split(jax.random.key(5))],
            jax.random.randint(jax.random.fold_in(KEY, 7), (5,), 0, 10),
            jax.random.truncated_normal(KEY, -1, 1, (3,)),
            jax.random.permutation(KEY, x),
        ),
        (X,),
    ),
    "random numbers of a key that is given": (
        lambda key, seed, x: (
            jax.random.bits(key, (5,)),
            jax.random.uniform(jax.random.PRNGKey(seed), (4,)),
            lax.scan(lambda c, a: (jax.random.split(c)[0], a + jax.random.uniform(c, (4,))), key, x)[1],
        ),
        (np.array([1, 2], np.uint32), np.int32(9), X),
    ),
    "random numbers of distributions": (
        lambda key: (
            jax.random.gamma(key, jnp.array([0.1, 1, 2.5])),
            jax.vmap(lambda one: jax.random.loggamma(one, 0.3, (2,)))(jax.random.split(key)),
            jax.random.dirichlet(key, jnp.array([1.0, 2.0, 3.0]), (2,)),
        ),
        (np.array([1, 2], np.uint32),),
    ),
    "complex numbers": (
        lambda x, y: [
            part
            for z in (
                (x + 1j * y) / (y + 2j),
                (x + 1j * y) @ (y.T + 2j),
                jnp.exp(1j * x),
                jnp.sqrt(x + 1j * y),
                jnp.log(x + 1j * y),
                jnp.conj(x + 1j * y),
                (x + 1j * y) ** -3,
                jnp.sin(x + 1j * y),
                jnp.where(x > 0, x + 1j * y, 0),
                jnp.prod(x + 1j * y, 1),
                jnp.sign(x + 1j * y),
            )
            for part in (z.real, z.imag, jnp.abs(z), z == z[:1])
        ],
        (X, Y),
    ),
    "Fourier transforms": (
        lambda x: (
            jnp.abs(jnp.fft.fft(x)),
            jnp.fft.irfft(jnp.fft.rfft(x), n=3),
            jnp.fft.fft2(x).imag,
            jnp.fft.ifftn(jnp.fft.fftn(x)).real,
            jnp.fft.rfft2(x).real,
        ),
        (X,),
    ),
    "recurrence of complex numbers": (
        lambda x: lax.scan(
            lambda c, a: (c * a, (c * a).real), jnp.ones(4, jnp.complex64), x * jnp.complex64(1 + 0.1j)
        )[1],
        (X,),
    ),
    "products of 8 bits": (
        lambda x, w, k: (
            lax.dot_general(x, w, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32),
            lax.conv_general_dilated(x[None, None], k, (1, 1), "SAME", preferred_element_type=jnp.int32),
            jnp.einsum("ij,jk", x.astype(jnp.float32), w),
        ),
        (
            RNG.integers(-128, 127, (5, 8)).astype(np.int8),
            RNG.integers(-128, 127, (8, 3)).astype(np.int8),
            RNG.integers(-128, 127, (2, 1, 3, 3)).astype(np.int8),
        ),
    ),
    "products of real numbers as other types": (
        lambda x: [
            lax.dot(x, x.T, preferred_element_type=kind) for kind in (jnp.int32, jnp.int8, jnp.float16)
        ],
        (HALVES * np.float32(3.5),),
    ),
    "groups of batches": (
        lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "SAME", batch_group_count=2),
        (real(4, 3, 5, 5), real(6, 3, 3, 3)),
    ),
    "rows by groups": (
        lambda x, w, sizes: lax.ragged_dot(x, w, sizes),
        (real(6, 4), real(3, 4, 5), np.array([2, 1, 2], np.int32)),
    ),
    "windows of integers": (
        lambda x: (
            lax.reduce_window(x, 0, lax.add, (2, 2), (1, 1), "SAME"),
            lax.reduce_window(x, 0, lax.add, (2, 2), (1, 1), "VALID", window_dilation=(2, 1)),
            lax.reduce_window(x, -(2**31), lax.max, (2, 2), (1, 1), "VALID", base_dilation=(1, 2)),
        ),
        (RNG.integers(-(2**30), 2**30, (4, 5)).astype(np.int32),),
    ),
    "least and largest integers and truth values of windows": (
        lambda x: [
            lax.reduce_window(v, np.array(start, v.dtype), of, (2, 2), (1, 1), padding)
            for v in (x, x.astype(jnp.int32) + jnp.int32(-(2**31)), x > 100)
            for of, start in ((lax.min, end_of(v.dtype, 1)), (lax.max, end_of(v.dtype, 0)))
            for padding in ("SAME", ((-1, 2), (0, -1)))
        ],
        (np.array([[0, 5, 3, 255], [7, 0, 9, 1], [200, 100, 0, 4]], np.uint8),),
    ),
    "windows that begin inside": (
        lambda x: [
            lax.reduce_window(x, start, of, (2, 3), (1, 2), ((-1, 2), (1, -1)))
            for of, start in ((lax.max, -jnp.inf), (lax.min, jnp.inf), (lax.add, 0.0))
        ],
        (real(4, 5),),
    ),
    "reductions over no elements": (
        lambda x: (
            [
                f(v[:0], axes)
                for axes in ((0,), (0, 1))
                for f in (lax.reduce_and, lax.reduce_or, lax.reduce_xor)
                for v in (x, x.astype(jnp.uint8), x > 1)
            ]
            + [
                lax.reduce(x[:0] * 0.5, np.float32(2), lambda a, b: a * b + a, (0,)),
                jnp.abs(jnp.prod(x[:0] * 1j, 0)),
            ]
        ),
        (np.arange(6, dtype=np.int32).reshape(2, 3),),
    ),
    "reductions by other functions": (
        lambda x: [
            lax.reduce(x, np.float32(1), f, (1,))
            for f in (jnp.hypot, jnp.logaddexp, lambda a, b: lax.nextafter(lax.max(a, b), lax.max(a, b)))
        ],
        (real(3, 2),),
    ),
    "slopes of a condition": (
        jax.grad(lambda x: lax.cond(x[0, 0] > 0, lambda v: (v**2).sum(), lambda v: v.sum(), x)),
        (X,),
    ),
    "truth values": (
        lambda x, y: (jnp.maximum(x, y), jnp.minimum(x, y), jnp.max(x, 0), jnp.min(x, 1), jnp.argmin(x, 0)),
        (RNG.random((3, 4)) < 0.5, RNG.random((3, 4)) < 0.5),
    ),
    "small numbers": (
        lambda x: (jnp.log1p(x) * 1e6, jnp.expm1(x) * 1e6, jnp.nextafter(x, 1) - x),
        (np.array([1e-6, -1e-7, 1e-8, 1e-20], np.float32),),
    ),
    "the largest in the total order": (
        lambda x: [
            (lax.top_k(y, 3), lax.top_k(y, 2, axis=0), jnp.partition(y, 1, axis=1))
            for y in (x, x.astype(jnp.bfloat16).astype(jnp.float16))
        ],
        (np.array([[1, np.nan, 2, -3], [-0.0, 0, -0.0, 0], [0, -0.0, np.inf, -np.inf]], np.float32),),
    ),
    "cube roots of bf16": (
        lambda x: jnp.cbrt(x.astype(jnp.bfloat16)).astype(jnp.float32),
        (np.array([3e38, -3e38, 1e-30, 8, 0, 27.5], np.float32),),
    ),
    "where NaN is": (
        lambda x: (jnp.argmin(x), jnp.argmax(x)),
        (np.array([1, -np.inf, np.nan, 3], np.float32),),
    ),
    "bits in other widths": (
        lambda x: (
            lax.bitcast_convert_type(x, jnp.uint8),
            lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.uint8), jnp.int32),
            lax.reduce_and_p.bind(x, axes=(0,)),
        ),
        (RNG.integers(-(2**31), 2**31, 5).astype(np.int32),),
    ),
    "no steps and no dimensions": (
        lambda x: (
            lax.scan(lambda c, a: (c + a, c * a), x[0], x[:0]),
            x[0, 0].at[()].add(3.0),
            x[0, 0].at[()].subtract(3.0),
            lax.conv_general_dilated(x, x, (), "VALID"),
        ),
        (X,),
    ),
    "reshape that transposes": (lambda x: lax.reshape(x, (6, 2), (1, 0)), (X,)),
    "products of complex and real numbers": (
        lambda x, w: [v for z in ((x + 1j) @ w, x @ (w * 2j)) for v in (z.real, z.imag)],
        (X, W),
    ),
}


def attention_of_any_length(x: Any) -> Any:
    q = (x @ W[:, :4]).reshape(*x.shape[:2], 2, 2)
    scores = jnp.einsum("blhe,bmhe->bhlm", q, q)
    scores = jnp.where(jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool)), scores, -1e9)
    return jnp.einsum("bhlm,bmhe->blhe", jax.nn.softmax(scores), q).reshape(x.shape)


#: Functions of one input whose shape is symbolic, and shapes that it has.
OF_ANY_SIZE: dict[str, tuple[Callable[..., Any], str, list[tuple[int, ...]]]] = {
    "attention": (attention_of_any_length, "b, l, 4", [(2, 3, 4), (1, 7, 4)]),
    "sizes": (
        lambda x: (
            x.reshape(-1, 2).sum(1) + x.shape[0] % 3,
            jnp.arange(x.shape[1] * 2 + 1),
            jnp.zeros((x.shape[0], 2)),
            jnp.eye(x.shape[1]),
        ),
        "2*b, c",
        [(4, 5), (6, 3)],
    ),
    "slices": (
        lambda x: (x[:, :-1], x[1:], x[::2], x[-1], x[: x.shape[0] // 2], jnp.concatenate([x, x])),
        "b, c",
        [(4, 5), (6, 3)],
    ),
    "copies": (
        lambda x: (jnp.tile(x[:1], (x.shape[0], 2)), jnp.tile(x, (x.shape[1], x.shape[0] + 1))),
        "b, c",
        [(4, 5), (6, 3)],
    ),
    "running": (
        lambda x: (lax.cumprod(x, 0), lax.cummax(x, 1), lax.cumlogsumexp(x, 0, reverse=True)),
        "b, c",
        [(4, 5), (1, 3), (17, 16)],
    ),
    "order": (lambda x: (jnp.sort(x, 0), jnp.argsort(x, 1), jnp.cumsum(x, 0)), "b, c", [(4, 5), (6, 3)]),
    "updates": (
        lambda x: (
            jnp.asarray(x).at[0].set(1),
            jnp.asarray(x).at[:, 1].add(2),
            jnp.take_along_axis(x, jnp.argmax(x, 1)[:, None], 1),
            lax.dynamic_update_slice(x, x[:1, :1] * 0, (1, 1)),
            jnp.roll(x, 1, 0),
        ),
        "b + 1, 5",
        [(4, 5), (6, 5)],
    ),
    "images": (
        lambda x: (conv(window_strides=(2, 1), padding="VALID")(x, K), lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")),
        "b, h, w, 3",
        [(2, 8, 8, 3), (3, 6, 9, 3)],
    ),
    "recurrence": (
        lambda x: lax.scan(lambda c, a: (c * 0.5 + a, c.sum()), jnp.zeros(x.shape[1:]), x),
        "l, b",
        [(4, 5), (6, 3)],
    ),
    "branches": (
        lambda x: lax.cond(x.sum() > 0, lambda v: v * 2 + v.shape[0], lambda v: v[::-1] + 0, x),
        "b, 4",
        [(4, 4), (6, 4)],
    ),
}  # fmt: skip


def check_any_size(name: str) -> None:
    function, dims, shapes = OF_ANY_SIZE[name]
    given = jax.ShapeDtypeStruct(export.symbolic_shape(dims), np.float32)
    compiled = ov.compile_model(ov.convert_model(jax.make_jaxpr(function)(given)), "CPU", F32)
    for shape in shapes:
        x = real(*shape)
        result = compiled([x])
        for i, want in enumerate(map(np.asarray, jax.tree_util.tree_leaves(function(x)))):
            assert result[i].shape == want.shape and result[i].dtype == want.dtype, (name, shape, i)
            np.testing.assert_allclose(result[i], want, 2e-5, 2e-5, err_msg=f"{name} {i}, seed {SEED}")


def check(name: str) -> None:
    function, arrays = FUNCTIONS[name]
    given = [jnp.asarray(array) for array in arrays]
    model = ov.convert_model(jax.make_jaxpr(function)(*given))
    assert [p.get_any_name() for p in model.inputs] == [f"jaxpr_invar_{i}" for i in range(len(given))]
    wanted = jax.tree_util.tree_leaves(function(*given))
    result = ov.compile_model(model, "CPU", F32)(list(arrays))
    assert len(result) == len(wanted), name
    for i, want in enumerate(wanted):
        want = np.asarray(want)
        assert result[i].shape == want.shape and result[i].dtype == want.dtype, (
            name,
            i,
            result[i].dtype,
            want.dtype,
        )
        np.testing.assert_allclose(result[i], want, rtol=2e-5, atol=2e-5, err_msg=f"{name} {i}, seed {SEED}")


def read_open_jaxprs() -> None:
    """A Jaxpr without constants is a model, one with them has not their values."""
    model = ov.convert_model(jax.make_jaxpr(lambda x: x * 2)(X).jaxpr)
    np.testing.assert_array_equal(ov.compile_model(model, "CPU", F32)([X])[0], X * 2)
    kept = jnp.asarray(Y)
    try:
        ov.convert_model(jax.make_jaxpr(lambda x: x + kept)(X).jaxpr)
    except RuntimeError as error:
        assert "a Jaxpr with constants" in str(error), error
    else:
        raise AssertionError("a Jaxpr was read without its constants")


def multiply_64_bits() -> None:
    for kind in (np.int64, np.uint64):
        one = np.append(RNG.integers(0, 2**63, 30), [0, 1, 2**63 - 1, -1, -(2**63), 2**32]).astype(kind)
        other = np.concatenate([one[::-2], one[::-2]])
        with jax.enable_x64(True):
            model = ov.convert_model(jax.make_jaxpr(lax.mulhi)(one, other))
            result = ov.compile_model(model, "CPU")([one, other])[0]
            np.testing.assert_array_equal(result, lax.mulhi(one, other))


def count_bits_of_64() -> None:
    numbers = np.array([0, 1, -1, 2**40, -(2**50), 2**31, 12345678901], np.int64)
    with jax.enable_x64(True):
        function = lambda x: (lax.population_count(x), lax.clz(x))  # noqa: E731
        model = ov.convert_model(jax.make_jaxpr(function)(numbers))
        result, wanted = ov.compile_model(model, "CPU")([numbers]), function(numbers)
        for i, want in enumerate(wanted):
            np.testing.assert_array_equal(result[i], want)


def keep_the_digits_of_erfc() -> None:
    """Small numbers are as near to f64 as JAX's own; Gelu, which is written with erfc, is one node."""
    x = np.linspace(-4, 9, 53).astype(np.float32)
    result = ov.compile_model(ov.convert_model(jax.make_jaxpr(lax.erfc)(x)), "CPU", F32)(x)[0]
    np.testing.assert_allclose(result, [math.erfc(float(number)) for number in x], 1e-5)
    for function in (
        lambda x: jax.nn.gelu(x, approximate=False),
        lambda x: lax.erfc(-x * math.sqrt(0.5)) * (0.5 * x),
    ):
        model = ov.convert_model(jax.make_jaxpr(function)(x))
        assert [op.get_type_name() for op in model.get_ordered_ops()] == ["Parameter", "Gelu", "Result"]
    for function in (
        lambda x, y: 0.5 * y * lax.erfc(-x * math.sqrt(0.5)),
        lambda x, y: 0.5 * x * lax.erfc(x * math.sqrt(0.5)) + y,
        lambda x, y: x * lax.erfc(-x * math.sqrt(0.5)) + y,
    ):  # not Gelu
        model = ov.convert_model(jax.make_jaxpr(function)(x, x + 1))
        result = ov.compile_model(model, "CPU", F32)([x, x + 1])[0]
        np.testing.assert_allclose(result, function(x, x + 1), 2e-5, 2e-6)


def changed(function: Callable[..., Any], given: tuple[Any, ...], primitive: str, **params: Any) -> Any:
    """The jaxpr with other parameters of one primitive."""
    closed = jax.make_jaxpr(function)(*given)
    eqns = [
        e.replace(params={**e.params, **params}) if e.primitive.name == primitive else e
        for e in closed.jaxpr.eqns
    ]
    return closed.replace(jaxpr=closed.jaxpr.replace(eqns=eqns))


def refuse_what_is_not_valid() -> None:
    """What fuzzing has found: convolutions of no groups, loops of more operands than there are."""
    scanned = (lambda x: lax.scan(lambda c, a: (c + a, c * a), x[0], x), (X,))
    counted = (lambda x: lax.while_loop(lambda v: v.sum() < 0, lambda v: v + 1, x), (X,))
    wrong: list[tuple[Any, str, dict[str, int]]] = [
        ((conv(window_strides=(1, 1), padding="SAME"), (IMAGE, K)), "conv_general_dilated",
         {"feature_group_count": 0}),
        *((scanned, "scan", {name: n}) for name in ("num_consts", "num_carry") for n in (2**62, -1)),
        *((counted, "while", {name: n}) for name in ("cond_nconsts", "body_nconsts") for n in (2**62, -1)),
    ]  # fmt: skip
    for (function, given), primitive, params in wrong:
        try:
            ov.convert_model(changed(function, given, primitive, **params))
        except RuntimeError as error:
            assert f"primitive {primitive}" in str(error), error
        else:
            raise AssertionError(f"{primitive} of {params} was read")


def name_the_way_of_other_objects() -> None:
    """Functions that are exported or compiled have no jaxpr: the error says how to make one."""
    from jax import export

    compiled = jax.jit(lambda x: x + 1)
    for given in (compiled, export.export(compiled)(X)):
        try:
            ov.convert_model(given)
        except RuntimeError as error:
            assert "give jax.make_jaxpr(function)(*examples)" in str(error), error
        else:
            raise AssertionError(f"{type(given)} was read")


def main() -> None:
    failed = {}
    every = [(check, name) for name in FUNCTIONS] + [(check_any_size, name) for name in OF_ANY_SIZE]
    for test, name in every:
        try:
            test(name)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:700]
    assert not failed, "\n".join(f"{name}: {what}" for name, what in failed.items())
    try:
        ov.convert_model(jax.make_jaxpr(lambda x: jnp.linalg.eig(x @ x.T)[0].real)(X))
    except RuntimeError as error:
        assert "No conversion rule found for operations: eig. The equations are: eig" in str(error), error
        assert "jax_models.py" in str(error), error
    else:
        raise AssertionError("primitives that are not read were read")
    refuse_what_is_not_valid()
    name_the_way_of_other_objects()
    count_bits_of_64()
    multiply_64_bits()
    keep_the_digits_of_erfc()
    read_open_jaxprs()
    front = ov.frontend.FrontEndManager().load_by_framework("jax")
    decoder = JaxprPythonDecoder(jax.make_jaxpr(jnp.tanh)(X), "net")
    assert front.supported(decoder)
    model = front.convert(front.load(decoder))
    assert model.get_friendly_name() == "net"
    np.testing.assert_allclose(ov.compile_model(model, "CPU", F32)([X])[0], np.tanh(X), rtol=2e-5, atol=2e-5)


if __name__ == "__main__":
    main()
