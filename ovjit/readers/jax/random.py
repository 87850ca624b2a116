"""Random numbers, which follow from keys: by the functions of the keys' own generator, which JAX traces."""

from __future__ import annotations

from ovjit.graph.dtypes import numpy_dtype
from ovjit.readers.jax.rule_language import *

#: By how many bits the words are rotated in four rounds, alternately.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
#: Philox 4x32: factors of the first and third word, and what each round adds to the key.
_PHILOX_FACTORS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_STEPS = (0x9E3779B9, 0xBB67AE85)
#: The algorithm of `rng_bit_generator` that is not Philox.
_THREEFRY = 1


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


@primitive("iota_2x32_shape")
def iota_2x32_shape(n: JaxNode) -> Any:
    """The number of each element, as the high and the low word of 64 bits."""
    shape = tuple(int(d) for d in n.params["shape"])
    n.check_count(math.prod(shape), "elements of random bits")
    numbers = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    return [n.const(numbers >> np.uint64(32), "u32"), n.const(numbers & np.uint64(0xFFFFFFFF), "u32")]


@primitive("threefry2x32")
def threefry2x32(n: JaxNode) -> Any:
    return [n.fold(word) for word in _encrypt(n, n.inputs[:2], n.inputs[2:])]


def _encrypt(n: JaxNode, key: Sequence[Output], words: Sequence[Output]) -> tuple[Output, Output]:
    """The Threefry 2x32 cipher: two words, encrypted by a key of two words in 20 rounds."""
    (first, second), (x, y) = key, words
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
    return x, y


@primitive("rng_bit_generator")
def rng_bit_generator(n: JaxNode) -> Any:
    """[new state, random bits]. The state is two words of 64 bits: a key, and a counter of blocks.

    A block is two words by Threefry 2x32, or four by Philox 4x32, whose counter has the key as its high half.
    """
    shape, kind = [int(d) for d in n.params["shape"]], element_type(n.params["dtype"])
    count = n.check_count(math.prod(shape), "elements of random bits")
    in_pairs, state = kind == "u64", n[0]
    if n.dtype(state) == "u32":
        state = _join_words(n, *(n("Gather", state, n.const([i, i + 2]), 0) for i in (0, 1)))
    key, start = (n("Gather", state, n.const(i), 0) for i in (0, 1))
    if int(n.params["algorithm"]) == _THREEFRY:
        bits, blocks = _bits_by_threefry(n, key, start, shape, in_pairs)
    else:
        blocks = -(-count // (2 if in_pairs else 4))
        bits = n.slice(n.reshape(_bits_by_philox(n, key, start, blocks, in_pairs), [-1]), 0, 0, count)
    new_state = n.concat([n.reshape(v, [1]) for v in (key, n("Add", start, n.like(start, blocks)))], 0)
    if n.dtype(n[0]) == "u32":
        new_state = n.reshape(n.concat([n.unsqueeze(w, [1]) for w in _split_words(n, new_state)], 1), [-1])
    return [n.fold(new_state), n.fold(n.convert(n.reshape(bits, shape), kind))]


def _split_words(n: JaxNode, value: Output) -> tuple[Output, Output]:
    """The low and the high 32 bits of u64."""
    low = n("BitwiseAnd", value, n.like(value, 0xFFFFFFFF))
    return n.convert(low, "u32"), n.convert(n("BitwiseRightShift", value, n.like(value, 32)), "u32")


def _join_words(n: JaxNode, low: Output, high: Output) -> Output:
    low, high = n.convert(low, "u64"), n.convert(high, "u64")
    return n("BitwiseOr", low, n("BitwiseLeftShift", high, n.like(high, 32)))


def _bits_by_philox(n: JaxNode, key: Output, start: Output, blocks: int, in_pairs: bool) -> Output:
    """The words of the blocks, [blocks, 4], or pairs of them as u64, [blocks, 2]."""
    counter = n("Add", start, n.const(np.arange(blocks), "u64"))
    high = n("Add", key, n.convert(n("Less", counter, start), "u64"))
    words, keys = [*_split_words(n, counter), *_split_words(n, high)], _split_words(n, key)
    for number in range(10):
        first, second = (
            _split_words(n, n("Multiply", n.convert(x, "u64"), n.const(factor, "u64")))
            for x, factor in zip(words[::2], _PHILOX_FACTORS, strict=True)
        )
        one, other = (
            n("Add", k, n.like(k, number * step % (1 << 32)))
            for k, step in zip(keys, _PHILOX_STEPS, strict=True)
        )
        words = [
            n("BitwiseXor", n("BitwiseXor", second[1], words[1]), one), second[0],
            n("BitwiseXor", n("BitwiseXor", first[1], words[3]), other), first[0],
        ]  # fmt: skip
    if in_pairs:
        words = [_join_words(n, *words[:2]), _join_words(n, *words[2:])]
    return n.concat([n.unsqueeze(word, [1]) for word in words], 1)


def _bits_by_threefry(
    n: JaxNode, key: Output, start: Output, shape: Sequence[int], in_pairs: bool
) -> tuple[Output, int]:
    """(bits, number of blocks). The two words of a block are next to each other in a dimension: the first of
    an even size, else the largest."""
    sizes = list(shape) or [1]
    axis = next((i for i, size in enumerate(sizes) if size % 2 == 0), sizes.index(max(sizes)))
    halved = [*sizes[:axis], -(-sizes[axis] // 2), *sizes[axis + 1 :]] if not in_pairs else sizes
    blocks = math.prod(halved)
    counter = n("Add", start, n.const(np.arange(blocks).reshape(halved), "u64"))
    words = _encrypt(n, _split_words(n, key), _split_words(n, counter))
    if in_pairs:
        return _join_words(n, *words), blocks
    bits = n.concat([n.unsqueeze(word, [axis + 1]) for word in words], axis + 1)
    bits = n.reshape(bits, [*halved[:axis], 2 * halved[axis], *halved[axis + 1 :]])
    return n.slice(bits, axis, 0, sizes[axis]), blocks


#: Operators that are one expression.
primitives({
    "random_wrap": lambda n: separate_parts(n, n[0]),
    "random_unwrap": lambda n: _keys(n)[0],
    "random_seed": lambda n: separate_parts(n, _trace(n, _generator(n, False).seed, [n[0]], n.rank(n[0]))),
})  # fmt: skip
