"""Wrong and odd arguments for the inference API, at random; run by `test_misuse.py`, and by hand:

python -m tests.fuzz.misuse SECONDS [SEED [CASE]]

A case is one request of one small model, and a handful of calls with arrays of wrong types and shapes,
views of all kinds, read-only, big-endian, misaligned, overlapping, shrunk and given back meanwhile, and
with what is no array at all. Whatever comes, the outcome is a right result or one of OpenVINO's kinds of
exceptions; the bytes around every array stay as they are; and afterwards the request still works. The
number of the case under way is in the file that MISUSE_CASE names, so that a crash has a name: `misuse.py 1
SEED CASE` runs it alone.
"""

from __future__ import annotations

import collections
import os
import random
import sys
import time
from typing import Any

import numpy as np

import ovjit as ov
from ovjit import opset8 as o

#: MemoryError for arrays of terabytes, which open dimensions allow.
ALLOWED = (RuntimeError, TypeError, ValueError, MemoryError)
DTYPES = "f4 f8 f2 i1 i2 i4 i8 u1 u2 u4 u8 ? >f4 >i8 c8 O U3 M8[s]".split()
SHAPES = [
    (3, 4), (3, 4), (3, 4), (1, 4), (4, 3), (12,), (3, 4, 1), (0, 4), (), (1,), (1, 1), (5, 4), (3, 5),
    (2, 3, 4),
]  # fmt: skip


class Stranger(np.ndarray):
    """An array whose views are shorter than it is."""

    def __array_finalize__(self, of: Any) -> None:
        self.extra = getattr(of, "extra", 0)

    def __getitem__(self, key: Any) -> Any:
        return np.ndarray.__getitem__(self.view(np.ndarray), key)[:1]


class Raising:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise ValueError("no array today")


class Lying:
    """Says of itself what is not so."""

    shape, dtype, ndim, size, nbytes, flags = (3, 4), np.dtype("f4"), 2, 12, 48, None
    __array_interface__ = {"shape": (1 << 40,), "typestr": "<f4", "data": (0, True), "version": 3}


class Endless(list):
    def __len__(self) -> int:
        return 1 << 62


class Released:
    """A memoryview that is over."""

    @staticmethod
    def make() -> memoryview:
        view = memoryview(bytearray(48))
        view.release()
        return view


outcomes: collections.Counter[str] = collections.Counter()


def models() -> list[tuple[Any, np.dtype, bool]]:
    """(compiled model, dtype of its inputs a and b, whether the first dimension is open); all compute
    relu(a) + b."""
    out = []
    for name, rows in (("f4", 3), ("f4", -1), ("i8", 3), ("i4", -1), ("u1", 3), ("f2", -1)):
        dtype = np.dtype(name)
        a, b = (o.parameter([rows, 4], dtype, name=n) for n in "ab")
        first = a if dtype.kind == "u" else o.relu(a)
        model = ov.Model([o.add(first, b)], [a, b], "misuse")
        out.append((ov.Core().compile_model(model, "CPU", {"NUM_STREAMS": 1}), dtype, rows < 0))
    return out


class Guarded:
    """Memory with a margin of known bytes on either side."""

    MARGIN = 64

    def __init__(self, size: int):
        self.memory = np.full(size + 2 * self.MARGIN, 0xA5, np.uint8)
        self.inside = self.memory[self.MARGIN : self.MARGIN + size]

    def check(self) -> None:
        for edge in (self.memory[: self.MARGIN], self.memory[len(self.memory) - self.MARGIN :]):
            assert (edge == 0xA5).all(), "bytes beside an array were written"


class Case:
    """One request and what it is given."""

    def __init__(self, rng: random.Random, compiled: Any, dtype: np.dtype, open_rows: bool):
        self.rng = rng
        self.compiled, self.dtype, self.open = compiled, dtype, open_rows
        self.request = compiled.create_infer_request()
        self.guards: list[Guarded] = []
        self.alive: list[Any] = []

    def plain(self, shape: tuple[int, ...], dtype: Any = None) -> np.ndarray:
        """An array of small numbers with guarded memory."""
        dtype = np.dtype(self.dtype if dtype is None else dtype)
        if dtype.hasobject or dtype.kind in "UM":
            values = np.arange(int(np.prod(shape))).reshape(shape)
            return values.astype(dtype)
        guarded = Guarded(int(np.prod(shape)) * dtype.itemsize + 1)
        self.guards.append(guarded)
        start = self.rng.random() < 0.2  # misaligned by a byte
        raw = guarded.inside[start : start + int(np.prod(shape)) * dtype.itemsize]
        array = raw.view(dtype).reshape(shape)
        array[...] = np.arange(array.size).reshape(shape) % 7
        return array

    def odd(self, array: np.ndarray) -> np.ndarray:
        """The same shape, lying otherwise."""
        kind = self.rng.randrange(14)
        if kind == 8 and array.ndim == 2:
            return array[::-1, ::-1]
        if kind == 9 and array.ndim == 2 and len(array) > 1:  # rows that overlap
            return np.lib.stride_tricks.as_strided(array, array.shape, (array.itemsize, array.itemsize))
        if kind == 10:
            return array.view(Stranger)
        if kind == 11 and array.dtype.kind in "fiu":  # memory of another owner, who is gone
            return np.frombuffer(bytearray(array.tobytes()), array.dtype).reshape(array.shape)
        if kind == 0 and array.ndim:
            return array[::-1]
        if kind == 1:
            return np.asfortranarray(array)
        if kind == 2 and array.ndim == 2:
            return np.ascontiguousarray(array.T).T
        if kind == 3:
            array = array.view()
            array.flags.writeable = False
            return array
        if kind == 4 and array.ndim:
            return np.broadcast_to(array[:1], array.shape)
        if kind == 5 and array.ndim:
            wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
            wide[..., ::2] = array
            return wide[..., ::2]
        if kind == 6 and array.dtype.kind in "fiu":
            return array.view(np.ma.MaskedArray)
        if kind == 7 and array.ndim == 2:
            return array.view(np.matrix) if array.dtype.kind in "fiu" else array
        return array

    def array(self) -> np.ndarray:
        rng = self.rng
        shape = rng.choice(SHAPES) if rng.random() < 0.5 else (3, 4)
        dtype = rng.choice(DTYPES) if rng.random() < 0.4 else None
        return self.odd(self.plain(shape, dtype))

    def anything(self) -> Any:
        rng = self.rng
        kind = rng.randrange(17)
        if kind < 8:
            return self.array()
        return [
            lambda: rng.choice([Raising(), Lying(), Endless(), Released.make()]),
            lambda: np.lib.stride_tricks.as_strided(
                np.zeros(4, self.dtype), rng.choice([(0, 1 << 60), (1 << 30, 1 << 32), (3, 4)]), (0, 0)
            ),
            lambda: np.empty(rng.choice([(0, 4), (3, 0), (0,), (0, 0, 0), (4, 0)]), self.dtype)[::-1],
            lambda: None,
            lambda: rng.choice(["text", b"bytes", 3, 2.5, True, 1j, object(), range(4), memoryview(b"1234")]),
            lambda: rng.choice([[], [[1, 2], [3]], [1, 2, 3], [[1.0] * 4] * 3, (), {}, {"a": None}, [[]]]),
            lambda: self.tensor(),
            lambda: np.broadcast_to(np.zeros(1, self.dtype), (1 << 40, 4)),
            lambda: np.zeros((3, 4), [("x", "f4"), ("y", "i4")]),
        ][kind - 8]()

    def tensor(self) -> Any:
        rng = self.rng
        array = self.array()
        try:
            tensor = ov.Tensor(array, shared_memory=rng.random() < 0.6)
        except ALLOWED as error:
            outcomes[type(error).__name__] += 1
            return array
        if rng.random() < 0.2:
            del array  # what it shares must stay
        elif rng.random() < 0.2:
            try:
                tensor.shape = rng.choice(SHAPES)
            except ALLOWED as error:
                outcomes[type(error).__name__] += 1
        return tensor

    def inputs(self) -> Any:
        rng = self.rng
        kind = rng.randrange(10)
        if kind < 5:
            return [self.anything(), self.anything()]
        if kind < 7:
            keys = rng.sample(["a", "b", 0, 1, 2, -1, "c", 1.5, None, self.compiled.input(0)], 2)
            return {key: self.anything() for key in keys}
        if kind == 7:
            same = self.array()
            return [same, same]  # twice the same memory
        if kind == 8:
            base = self.plain((6, 4))
            return [base[1:4], base[2:5]]  # overlapping
        return self.anything()

    def expected(self, inputs: Any) -> np.ndarray | None:
        """The answer where inputs are plain arrays of the right shape; None: unknown."""
        if isinstance(inputs, dict):
            inputs = [inputs[k] for k in "ab"] if set(inputs) == {"a", "b"} else None
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            return None
        arrays = []
        for value in inputs:
            good = isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.ndim == 2
            if not good or value.shape != (3, 4):
                return None
            with np.errstate(all="ignore"):
                arrays.append(np.array(value).astype(self.dtype))
        return np.maximum(arrays[0], 0) + arrays[1]

    def step(self) -> None:
        rng, request = self.rng, self.request
        kind = rng.randrange(12)
        if kind < 6:
            inputs = self.inputs()
            want = self.expected(inputs)
            share = rng.random() < 0.5
            if kind < 3:
                result = request.infer(inputs, share_inputs=share)[0]
            elif kind == 3:
                result = self.compiled(inputs, share_inputs=share)[0]
            else:
                request.start_async(inputs, share_inputs=share)
                if kind == 5:
                    self.guards, kept = [], self.guards
                    del inputs  # given back while it runs
                    request.wait()
                    self.guards = kept
                else:
                    request.wait()
                result = request.results[0]
            if want is not None:
                np.testing.assert_array_equal(result, want)
                outcomes["right"] += 1
        elif kind == 6:
            request.set_tensor(rng.choice(["a", "b", "c", self.compiled.output(0), 3, None]), self.anything())
        elif kind == 7:
            request.set_input_tensor(rng.choice([0, 1, 2, -1, None, "a"]), self.tensor())
        elif kind == 8:
            out = self.tensor()
            self.alive.append(out)
            request.set_output_tensor(rng.choice([0, 0, 1, -1]), out)
        elif kind == 9:
            # an output over an input, shifted by some bytes
            base = self.plain((8, 4))
            shift = rng.randrange(4)
            request.set_tensor("a", ov.Tensor(base[:3], shared_memory=True))
            request.set_output_tensor(0, ov.Tensor(base[shift : shift + 3], shared_memory=True))
            request.infer()
        elif kind == 10:
            # the same object, moved and shrunk between calls
            array = np.ones((3, 4), self.dtype)
            other = self.plain((3, 4))
            request.infer([array, other], share_inputs=True)
            array.resize((64, 64), refcheck=False)
            array.resize((rng.choice([2, 3]), 4), refcheck=False)
            array[...] = 2
            result = request.infer([array, other[: len(array)]], share_inputs=True)[0]
            np.testing.assert_array_equal(result, np.array(2, self.dtype) + other[: len(array)])
        else:
            tensor = request.get_tensor(rng.choice(["a", "b", self.compiled.output(0)]))
            tensor.data[...] = 1
            tensor.shape = rng.choice([(3, 4), (3, 4), (2, 4), (7, 4), (12,)])

    def run(self) -> None:
        for _ in range(self.rng.randint(1, 6)):
            try:
                self.step()
                outcomes["done"] += 1
            except ALLOWED as error:
                outcomes[type(error).__name__] += 1
        for guard in self.guards:
            guard.check()
        fresh = self.compiled.create_infer_request()
        a = np.arange(12).reshape(3, 4).astype(self.dtype)
        np.testing.assert_array_equal(fresh.infer([a, a])[0], a + a)
        out = ov.Tensor(np.zeros((3, 4), self.dtype), shared_memory=True)
        self.request.set_output_tensor(0, out)
        for name in "ab":
            self.request.set_tensor(name, ov.Tensor(a, shared_memory=True))
        self.request.infer()
        np.testing.assert_array_equal(out.data, a + a)
        np.testing.assert_array_equal(self.request.infer([a, a])[0], a + a)
        for guard in self.guards:
            guard.check()


def misuse_for(seconds: float, seed: int, only: int | None) -> int:
    """Cases until the time is over, or one; how many there were."""
    made = models()
    note = os.environ.get("MISUSE_CASE")
    ends = time.monotonic() + seconds
    number = 0
    file = open(note, "w") if note else None
    while time.monotonic() < ends:
        if only is None or number == only:
            if file is not None:
                file.seek(0)
                file.write(f"{seed} {number}\n")
                file.flush()
            rng = random.Random(seed * 1_000_003 + number)
            try:
                Case(rng, *rng.choice(made)).run()
            except BaseException:
                print(f"python -m tests.fuzz.misuse 1 {seed} {number}", file=sys.stderr)
                raise
            if only is not None:
                return 1
        number += 1
    return number


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 30)
    count = misuse_for(float(sys.argv[1]), chosen, int(sys.argv[3]) if len(sys.argv) > 3 else None)
    print(f"seed {chosen}: {count} cases, {dict(outcomes)}")
