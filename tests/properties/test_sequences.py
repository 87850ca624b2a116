"""Random sequences of what programs do with tensors and requests; after each step all is as in OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from hypothesis import given, settings
from hypothesis import strategies as st

import ovjit
from tests.support.beside import examples

DTYPES = ["float32", "uint8", "int64", "float16"]
shapes = st.lists(st.integers(1, 4), max_size=4)
which = st.integers(0, 7)
#: Of each dimension, where a part begins, and its length: both are cut to the tensor's.
windows = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=4, max_size=4)
#: A step: its word and its numbers. A tensor is chosen by a number, modulo how many there are.
steps = st.one_of(
    st.tuples(st.just("new"), st.sampled_from(DTYPES), shapes, st.booleans()),
    st.tuples(st.just("empty"), st.sampled_from(DTYPES), shapes),
    st.tuples(st.just("part"), which, windows),
    st.tuples(st.just("copy_to"), which, which),
    st.tuples(st.just("copy_from"), which, which),
    st.tuples(st.just("write"), which, st.integers(0, 100)),
    st.tuples(st.just("add"), which, which),
    st.tuples(st.just("shape"), which, shapes),
    st.tuples(st.just("again"), which, st.booleans()),
)  # fmt: skip


class Held:
    """The tensors that a sequence has made, and the arrays that they share."""

    def __init__(self, ov: Any):
        self.ov = ov
        self.tensors: list[Any] = []
        self.arrays: list[np.ndarray] = []
        self.parents: set[int] = set()  # of which there are parts or views: these keep their shapes
        self.parts: set[int] = set()

    def new(self, dtype: str, shape: list[int], shared: bool) -> None:
        count = int(np.prod(shape, dtype=int))
        array = (np.arange(count) % 120 + len(self.tensors)).astype(dtype).reshape(shape)
        self.arrays.append(array)
        self.tensors.append(self.ov.Tensor(array, shared_memory=shared))

    def empty(self, dtype: str, shape: list[int]) -> None:
        self.tensors.append(self.ov.Tensor(self.ov.Type(np.dtype(dtype)), self.ov.Shape(shape)))
        self.tensors[-1].data[...] = 7

    def part(self, i: int, ends: list[tuple[int, int]]) -> None:
        shape = list(self.tensors[i].shape)
        begin = [b % n for (b, _), n in zip(ends, shape, strict=False)]
        end = [min(n, b + size) for (_, size), n, b in zip(ends, shape, begin, strict=False)]
        self.parents.add(i)
        self.parts.add(len(self.tensors))
        self.tensors.append(self.ov.Tensor(self.tensors[i], begin, end))

    def copy_to(self, i: int, j: int) -> None:
        if not self.changes_a_parent(i, j):
            self.tensors[i].copy_to(self.tensors[j])

    def copy_from(self, i: int, j: int) -> None:
        if not self.changes_a_parent(j, i):
            self.tensors[i].copy_from(self.tensors[j])

    def changes_a_parent(self, source: int, target: int) -> bool:
        """Parts keep the memory here; those of OpenVINO look at the memory that the tensor now has."""
        return target in self.parents and self.tensors[source].shape != self.tensors[target].shape

    def write(self, i: int, value: int) -> None:
        self.tensors[i].data[...] = value

    def add(self, i: int, j: int) -> None:
        self.tensors[i].data[...] += self.tensors[j].data.astype(self.tensors[i].data.dtype)

    def shape(self, i: int, shape: list[int]) -> None:
        if i in self.parents or (i in self.parts and not len(self.tensors[i].shape)):
            return  # OpenVINO dies of another shape for a part of a scalar
        self.tensors[i].shape = shape
        self.tensors[i].data[...] = 3

    def again(self, i: int, shared: bool) -> None:
        """A tensor of another one's array."""
        if shared and i in self.parts:
            return  # an array with gaps: see test_tensors
        if shared:
            self.parents.add(i)
        self.tensors.append(self.ov.Tensor(self.tensors[i].data, shared_memory=shared))

    def do(self, step: tuple[Any, ...]) -> str:
        """What the step raises."""
        word, *numbers = step
        if word not in ("new", "empty"):
            numbers[0] %= len(self.tensors)
        if word in ("copy_to", "copy_from", "add"):
            numbers[1] %= len(self.tensors)
        try:
            getattr(self, word)(*numbers)
        except Exception as error:
            return next(k.__name__ for k in type(error).__mro__ if k.__module__ == "builtins")
        return ""

    def said(self) -> list[Any]:
        about: list[Any] = [a.tolist() for a in self.arrays]
        for t in self.tensors:
            about.append((str(t.element_type), list(t.shape), list(t.strides), t.size, t.byte_size))
            about.append((t.is_continuous(), t.data.dtype.str, t.data.tolist(), t.data.flags.writeable))
        return about


@settings(max_examples=examples(60))
@given(shapes, st.lists(steps, min_size=1, max_size=8))
def test_tensors(first: list[int], sequence: list[tuple[Any, ...]]) -> None:
    theirs, ours = Held(openvino), Held(ovjit)
    done: list[Any] = [("new", "float32", first, True)]
    for step in [done.pop(), *sequence]:
        done.append(step)
        assert theirs.do(step) == ours.do(step), done
        assert len(theirs.tensors) == len(ours.tensors), done
        assert theirs.said() == ours.said(), done
