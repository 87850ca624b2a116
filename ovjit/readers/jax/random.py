"""Random numbers, which follow from keys: by the functions of the keys' own generator, which JAX traces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ovjit.build import Output
from ovjit.graph.dtypes import numpy_dtype
from ovjit.readers.jax.multi_tensor import flat, join_parts, separate_parts
from ovjit.readers.jax.reader import JaxNode
from ovjit.readers.jax.registry import primitive, primitives

#: By how many bits the words are rotated in four rounds, alternately.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _trace(n: JaxNode, function: Callable[..., Any], values: Sequence[Output], batch: int = 0) -> Output:
    """The result of a JAX function, traced and read; it is mapped over the first `batch` dimensions of all
    values."""
    import jax

    for _ in range(batch):
        function = jax.vmap(function)
    specs = [jax.ShapeDtypeStruct(n.dims(v), numpy_dtype(n.dtype(v))) for v in values]
    return n.fold(n.run(jax.make_jaxpr(function)(*specs), values)[0])


def _generator(n: JaxNode, is_input: bool = True) -> Any:
    """The random number generator to which the keys of an equation belong."""
    aval = n.eqn.invars[0].aval if is_input else n.eqn.outvars[0].aval
    return aval.dtype._impl


def _keys(n: JaxNode) -> tuple[Output, int]:
    """(keys as words in a last dimension, number of their dimensions)."""
    value: Any = n[0]
    return join_parts(n, value), len(n.eqn.invars[0].aval.shape)


@primitive("random_split")
def random_split(n: JaxNode) -> Any:
    split, shape = _generator(n).split, tuple(int(d) for d in n.params["shape"])
    words, batch = _keys(n)
    return separate_parts(n, _trace(n, lambda key: split(key, shape), [words], batch))


@primitive("random_fold_in")
def random_fold_in(n: JaxNode) -> Any:
    words, batch = _keys(n)
    data = n.spread(n[1], n.out_dims())
    return separate_parts(n, _trace(n, _generator(n).fold_in, [words, data], batch))


@primitive("random_bits")
def random_bits(n: JaxNode) -> Any:
    bits, width = _generator(n).random_bits, int(n.params["bit_width"])
    shape = tuple(int(d) for d in n.params["shape"])
    words, batch = _keys(n)
    return _trace(n, lambda key: bits(key, width, shape), [words], batch)


@primitive("random_gamma")
def random_gamma(n: JaxNode) -> Any:
    """Gamma-distributed numbers by JAX's own function, for all elements at once if possible."""
    import jax

    function = partial(n.eqn.primitive.impl, log_space=n.params["log_space"], use_vmap=True)
    specs = [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in n.eqn.invars]
    return n.run(jax.make_jaxpr(function)(*specs), flat(n.inputs))


@primitive("iota_2x32_shape")
def iota_2x32_shape(n: JaxNode) -> Any:
    """The number of each element, as the high and the low word of 64 bits."""
    shape = tuple(int(d) for d in n.params["shape"])
    n.check_count(math.prod(shape), "elements of random bits")
    numbers = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    return [n.const(numbers >> np.uint64(32), "u32"), n.const(numbers & np.uint64(0xFFFFFFFF), "u32")]


@primitive("threefry2x32")
def threefry2x32(n: JaxNode) -> Any:
    """The Threefry 2x32 cipher: two words, encrypted by a key of two words in 20 rounds."""
    first, second, x, y = n.inputs
    third = n("BitwiseXor", n("BitwiseXor", first, second), n.like(first, 0x1BD11BDA))
    keys = [first, second, third]
    x, y = n("Add", x, first), n("Add", y, second)
    for group in range(5):
        for count in _ROTATIONS[group % 2]:
            x = n("Add", x, y)
            high_bits = n("BitwiseLeftShift", y, n.like(y, count))
            low_bits = n("BitwiseRightShift", y, n.like(y, 32 - count))
            y = n("BitwiseXor", n("BitwiseOr", high_bits, low_bits), x)
        x = n("Add", x, keys[(group + 1) % 3])
        y = n("Add", n("Add", y, keys[(group + 2) % 3]), n.like(y, group + 1))
    return [n.fold(x), n.fold(y)]


#: Operators that are one expression.
primitives({
    "random_wrap": lambda n: separate_parts(n, n[0]),
    "random_unwrap": lambda n: _keys(n)[0],
    "random_seed": lambda n: separate_parts(n, _trace(n, _generator(n, False).seed, [n[0]], n.rank(n[0]))),
})  # fmt: skip
