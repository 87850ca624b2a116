"""RandomUniform and Multinomial. Equal seeds give OpenVINO's numbers.

Streams of random 32-bit numbers, vectorised: Philox 4x32-10 (Salmon et al., 2011) and MT19937.
"""

from __future__ import annotations

import secrets

import numpy as np

from ovjit.errors import InferenceError, ModelError, check
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.op import Bool, DType, Index, TensorType, UInt, Word, op
from ovjit.graph.shapes import ANY, Dim
from ovjit.graph.symbolic import sym_int
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import INTEGERS, check_one, given_rank, shape_scalar, shape_value
from ovjit_ops.elementwise.arithmetic import REALS
from ovjit_ops.random.cpu_uniform import MANTISSA

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox(key: int, counter: int, count: int, first: int = 0) -> np.ndarray:
    """`count` numbers of the stream as u32: four for each n = first, first + 1, ... Each round multiplies n
    and the counter, and adds Weyl constants to the key."""
    blocks = -(-count // 4)
    n = np.uint64(first) + np.arange(blocks, dtype=np.uint64)
    n_low, n_high = n & _LOW, n >> _32
    c_low = np.full(blocks, counter & 0xFFFFFFFF, np.uint64)
    c_high = np.full(blocks, counter >> 32 & 0xFFFFFFFF, np.uint64)
    k_low, k_high = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    for _ in range(10):
        a, b = n_low * np.uint64(0xD2511F53), c_low * np.uint64(0xCD9E8D57)
        n_low, n_high, c_low, c_high = (
            (b >> _32) ^ n_high ^ np.uint64(k_low), b & _LOW,
            (a >> _32) ^ c_high ^ np.uint64(k_high), a & _LOW,
        )  # fmt: skip
        k_low, k_high = (k_low + 0x9E3779B9) & 0xFFFFFFFF, (k_high + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([n_low, n_high, c_low, c_high], 1).astype(np.uint32).reshape(-1)[:count]


def mersenne_twister(seed: int, count: int) -> np.ndarray:
    """`count` numbers of MT19937 as u32, equal to PyTorch's generator after manual_seed(seed)."""
    state = np.random.RandomState(seed & 0xFFFFFFFF)
    return state.randint(0, 1 << 32, count, np.uint32)


OUTPUTS = ("f32", "f64", "f16", "bf16", "i32", "i64")
#: Maximum number of elements of a result.
MOST = 1 << 34


def _seeds(global_seed: int, op_seed: int) -> tuple[int, int]:
    """The seeds; unpredictable ones if both are 0."""
    return (
        (secrets.randbits(63), secrets.randbits(63))
        if not global_seed and not op_seed
        else (global_seed, op_seed)
    )


def unit_floats(stream: np.ndarray, dtype: str, torch: bool) -> np.ndarray:
    """Numbers from 0 to 1, from the low bits of the stream; f64 takes two numbers each."""
    bits = MANTISSA[dtype] + torch
    if dtype == "f64":
        pairs = stream.reshape(-1, 2).astype(np.uint64)
        bits_of = (pairs[:, 0] << np.uint64(32)) + pairs[:, 1]
    else:
        bits_of = stream.astype(np.uint64)
    # k / 2^bits, equal to setting the mantissa of a number in [1, 2) and subtracting 1
    low = bits_of & np.uint64((1 << bits) - 1)
    return (low.astype(np.float64) / (1 << bits)).astype(numpy_dtype(dtype))


def uniform(
    count: int, dtype: str, low: np.ndarray, high: np.ndarray, seed: int, op_seed: int, torch: bool
) -> np.ndarray:
    """`count` numbers in [low, high).

    An f64 takes two numbers of the stream. So does an i64, unless PyTorch draws it from a range of 32 bits;
    of OpenVINO's two numbers, the second has the high bits.
    """
    narrow = dtype != "i64" or (torch and max(int(low), int(high)) <= 0xFFFFFFFF)
    total = count * (1 if dtype != "f64" and narrow else 2)
    stream = mersenne_twister(seed, total) if torch else philox(seed, op_seed, total)
    if dtype[0] != "i":
        unit = unit_floats(stream, dtype, torch)
        # OpenVINO's Philox kernel rounds once; PyTorch computes f16 and bf16 in f32
        length = np.asarray(high - low)
        kind = numpy_dtype({("f32", False): "f64", ("f16", True): "f32"}.get((dtype, torch), dtype))
        return (unit.astype(kind) * length.astype(kind) + low.astype(kind)).astype(unit.dtype)
    span = int(high) - int(low)
    if span <= 0:
        raise InferenceError(f"the range from {low} to {high} contains no integer")
    values = stream.astype(np.uint64)
    if not narrow:
        first, second = (values[1::2], values[::2]) if not torch else (values[::2], values[1::2])
        values = (first << np.uint64(32)) + second
    drawn = (values % np.uint64(span)).astype(np.int64)
    return (drawn + int(low)).astype(numpy_dtype(dtype))


@op("RandomUniform", opset=8, types=["i64"], stateful=True, lower=".cpu_uniform:Uniform.of")
class RandomUniform:
    """Uniform numbers in [min_val, max_val), drawn as in TensorFlow (Philox) or PyTorch (MT19937)."""

    words = {"output_type": OUTPUTS, "alignment": "tensorflow pytorch"}

    def infer(
        output_shape,
        min_val,
        max_val,
        *,
        output_type: DType,
        global_seed: UInt = 0,
        op_seed: UInt = 0,
        alignment: Word = "tensorflow",
    ):
        for name, x in (("min_val", min_val), ("max_val", max_val)):
            says = "'min_val' and 'max_val' should have the same type as 'out_type' attribute."
            check(x.dtype in (output_type, "dynamic"), f"{says} {name} {x} should be {output_type}")
            check_one(x, name)
        sizes, rank = shape_value(output_shape, "output_shape"), given_rank(output_shape)
        if sizes is None:
            return TensorType(output_type, None if rank is None else (ANY,) * rank)
        check(all(d >= 0 for d in sizes), f"a dimension of {sizes.tolist()} is negative")
        return TensorType(output_type, tuple(sym_int(d) for d in sizes))

    def ref(output_shape, min_val, max_val, *, output_type, global_seed=0, op_seed=0, alignment="tensorflow"):
        shape = [int(d) for d in output_shape.reshape(-1)]
        count = int(np.prod(shape, dtype=object)) if shape else 1
        if min(shape, default=0) < 0 or count > MOST:
            raise ModelError(f"the shape {shape} is not valid")
        low, high = min_val.reshape(-1)[0], max_val.reshape(-1)[0]
        seeds = _seeds(global_seed, op_seed)
        return uniform(count, output_type, low, high, *seeds, alignment == "pytorch").reshape(shape)


@op("Multinomial", opset=13, types=REALS, stateful=True, lower=".cpu_uniform:Classes.of")
class Multinomial:
    """Draws classes by their probabilities, with or without replacement."""

    def infer(
        probs,
        num_samples,
        *,
        convert_type: Index,
        with_replacement: Bool,
        log_probs: Bool,
        global_seed: UInt = 0,
        op_seed: UInt = 0,
    ):
        check_type(probs, REALS)
        check_type(num_samples, INTEGERS, "num_samples")
        dims = unify(probs=(probs, "BC"))
        count = shape_scalar(num_samples, "num_samples")
        check(count is None or count >= 0, f"num_samples {count} should not be negative")
        columns: Dim = ANY if count is None else count
        return TensorType(convert_type, (*dims.shape("B"), columns))

    def ref(probs, num_samples, *, convert_type, with_replacement, log_probs, global_seed=0, op_seed=0):
        batch, classes = probs.shape
        count = int(num_samples.reshape(-1)[0])
        if count < 0 or (not with_replacement and count > classes) or (count and not classes):
            raise InferenceError(
                f"{count} samples cannot be drawn from {classes} classes without replacement"
            )
        seeds = _seeds(global_seed, op_seed)
        draws = unit_floats(philox(*seeds, 2 * batch * count), "f64", False).reshape(batch, count)
        weights = np.exp(probs.astype(np.float64)) if log_probs else probs.astype(np.float64)
        out = np.zeros((batch, count), numpy_dtype(convert_type))
        for b in range(batch):
            remaining = weights[b].copy()
            for i in range(count):
                cumulative = np.cumsum(remaining)
                cumulative = cumulative / cumulative[-1]
                chosen = min(int(np.searchsorted(cumulative, draws[b, i])), classes - 1)
                out[b, i] = chosen
                if not with_replacement:
                    remaining[chosen] = 0
        return out
