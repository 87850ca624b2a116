"""Generators of noise: that of the C++ standard library, that of torch, and those of users."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.sampler import RandomNumbers


def _check_seed(seed: Any, bits: int) -> int:
    number = operator.index(seed)
    if not 0 <= number < 2**bits:
        raise TypeError(f"seed should be in [0, 2**{bits}), not {number}")
    return number


class Generator:
    """The base of generators in Python. A subclass has `next()`, which returns a number, and
    `seed(new_seed)`. It may have `randn_tensor(shape)`, which returns a Tensor."""

    def __copy__(self) -> Generator:
        """The same object: copies of a configuration share the state of their generator."""
        return self


class CppStdGenerator(Generator):
    """Normal numbers of `std::mt19937` and libstdc++'s `std::normal_distribution<float>`: polar method."""

    def __init__(self, seed: int):
        self._uniform = RandomNumbers(_check_seed(seed, 32))
        #: The second number of a pair, [] if it is used. A new seed does not drop it.
        self._spare = np.zeros(0, np.float32)

    def seed(self, new_seed: int) -> None:
        self._uniform = RandomNumbers(_check_seed(new_seed, 64))

    def next(self) -> float:
        return float(self._draw(1)[0])

    def randn_tensor(self, shape: Sequence[int]) -> Tensor:
        sizes = [operator.index(size) for size in shape]
        return Tensor(self._draw(math.prod(sizes)).reshape(sizes))

    def _draw(self, count: int) -> np.ndarray:
        numbers = [self._spare]
        missing = count - len(self._spare)
        while missing > 0:
            # no more trials than missing pairs, so that none is drawn too early
            x, y = 2 * self._uniform.draw_array(missing + 1 & ~1).reshape(-1, 2).T - np.float32(1)
            squares = x * x + y * y
            inside = (squares <= 1) & (squares != 0)
            x, y, squares = x[inside], y[inside], squares[inside]
            factors = np.sqrt(-2 * np.log(squares) / squares)
            numbers.append(np.stack((y * factors, x * factors), 1).reshape(-1))
            missing -= len(numbers[-1])
        drawn = np.concatenate(numbers)
        self._spare = drawn[count:]
        return drawn[:count]


class TorchGenerator(CppStdGenerator):
    """Normal numbers of `torch.Generator`. RuntimeError without the package torch."""

    def __init__(self, seed: int):
        _check_seed(seed, 32)
        try:
            import torch
        except ModuleNotFoundError as error:
            raise OvjitError(
                "TorchGenerator needs the package torch: install it, or use rng_seed or CppStdGenerator"
            ) from error
        self._torch = torch
        self.seed(seed)

    def seed(self, new_seed: int) -> None:
        self._generator = self._torch.Generator(device="cpu").manual_seed(_check_seed(new_seed, 64))

    def _draw(self, count: int) -> np.ndarray:
        return self._draw_shape([count]).reshape(-1)

    def randn_tensor(self, shape: Sequence[int]) -> Tensor:
        return Tensor(self._draw_shape([operator.index(size) for size in shape]))

    def _draw_shape(self, shape: list[int]) -> np.ndarray:
        # torch fills small and large tensors in different orders, so the shape counts
        noise = self._torch.randn(shape, generator=self._generator, dtype=self._torch.float32)
        numbers: np.ndarray = noise.numpy()
        return numbers


def draw_noise(generator: Any, shape: Sequence[int]) -> np.ndarray:
    """Normal numbers f32 [shape] of any generator. RuntimeError for a subclass without `next`."""
    if hasattr(generator, "randn_tensor"):
        return np.array(generator.randn_tensor(list(shape)).data, np.float32).reshape(shape)
    if not hasattr(generator, "next"):
        raise OvjitError(f"{type(generator).__name__} should have a method next()")
    count = math.prod(shape)
    return np.fromiter((generator.next() for _ in range(count)), np.float32, count).reshape(shape)
