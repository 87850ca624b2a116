"""Native Bucketize and SearchSorted: a binary search for each value, or comparisons with the full list in
vectors.

A search in a list of 100 numbers takes 7 unpredictable branches, 40 ns. Comparing vectors of values with all
100 numbers takes 3 ns per value.
"""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.planning.lower import Lowering, NotNative, Planner, launch

#: Maximum length of a list whose numbers are all compared.
COUNTED = 256
TYPES = frozenset("f32 f64 i8 i16 i32 i64 u8 u16 u32 u64".split())
_SIGN = -(1 << 63)


@inline
def number_at(p, T):
    """The element at p; u64 as an int64 in the same order."""
    return ld[i64](p) ^ _SIGN if T == "u64" else ld[T](p)


@kernel(over="... lanes/8", x="...", rows="... n:1", y="...")
def search(x: Tensor, rows: Tensor, y: Tensor, *, T, index, right):
    """y = the number of the row's n elements that are below x (`right`: not above x).

    NaN is above all numbers.
    """
    for j, q, p, to in items(x, rows, y):
        for k in range(min(x.size.lanes - j, 8)):
            value = number_at(x.at(q, lanes=k), T)
            low = 0
            high = rows.size.n
            while low < high:
                middle = (low + high) // 2
                number = number_at(p + middle * SIZE[T], T)
                reached = number > value if right else number >= value
                if reached:
                    high = middle
                else:
                    low = middle + 1
            st[index](y.at(to, lanes=k), low)


@kernel(over="... lanes/VL:1", x="...", numbers="n:1", y="...")
def search_count(x: Tensor, numbers: Tensor, y: Tensor, *, T, index, right):
    """Find the positions of x in one sorted list by counting: each number of it is compared with vectors of
    values."""
    zero = const[index](0)
    one = const[index](1)
    for j, p, q in items(x, y):
        value = loadm[T](p, x.size.lanes - j)
        below = zero
        for i in range(numbers.size.n):
            number = splat[T](numbers.at(n=i))
            reached = number > value if right else number >= value
            below = below + select(reached, zero, one)
        storem[index](q, below, x.size.lanes - j)


class Search(Lowering):
    """Search of values in one sorted list, or of each row of values in its own list."""

    takes = (TYPES,)
    constant_inputs = None

    def set_up(self) -> None:
        attrs = self.node.attrs
        first, second = self.node.inputs
        if first.dtype != second.dtype or not second.shape:
            raise NotNative
        bucketize = self.node.op.name == "Bucketize"
        self.values, self.sequence = (first, second) if bucketize else (second, first)
        right = not attrs["with_right_bound"] if bucketize else attrs["right_mode"]
        constants = {"T": self.values.dtype, "index": attrs["output_type"], "right": right}
        self.search, self.count = search(**constants), search_count(**constants)
        self.kernels = (self.search, self.count)

    def plan(self, planner: Planner) -> None:
        x, rows = planner.contiguous(self.values), planner.contiguous(self.sequence)
        y = planner.row_major_output(self.node.output)
        n = rows.shape[-1]
        if not y.count:
            return
        if len(rows.shape) > 1 or n > COUNTED:
            same = (1,) * (len(x.shape) - len(rows.shape) + 1)
            one = rows.as_shape((*rows.shape[:-1], *same, n)).expand((*x.shape, n))
            work = 8 * 40 * max(n, 2).bit_length()
            launch(planner, self.search, {"x": x, "rows": one, "y": y}, ("y",), work=work)
        else:
            tensors = {"x": x, "numbers": rows, "y": y}
            launch(planner, self.count, tensors, ("y",), work=self.target.lanes * n / 4)
