"""Native Unique of elements: their order by a radix sort, then one walk over those that are equal.

Elements become integers in the same order (`cpu_topk.key_of`): NaN are equal and above all others, both zeros
are one.
"""

from __future__ import annotations

from ovjit.codegen.function import inline, kernel
from ovjit.codegen.words import *
from ovjit.compiler.copies import MOVED
from ovjit.compiler.lower import Lowering
from ovjit.compiler.plan import NotNative, Planner
from ovjit_ops.detection.cpu_candidates import COUNTS, sorted_pairs
from ovjit_ops.indexing.cpu_topk import key_of

#: Elements whose bits are those of another type.
BITS = {"boolean": "u8"}


@inline
def sort_key(p, T, turn):
    """32 bits of the element at p that rise with it; of 64 bits, the lower ones are sorted by first."""
    key = key_of(p, T, True)
    if SIZE[T] == 8 and turn == 0:
        key = key & 4294967295
    elif SIZE[T] == 8:
        key = (key >> 32) + 2147483648
    elif T != "u32":
        key = min(key, 2147483647) + 2147483648
    return key


@kernel
def unique(
    x: Ptr, values: Ptr, first: Ptr, inverse: Ptr, counts: Ptr, number: Ptr, pairs: Ptr, spare: Ptr, n, *, T,
    index, count, rising,
):  # fmt: skip
    """The different elements, where each is first, which of them each element is, and how many there are."""
    for turn in static_range(2 if SIZE[T] == 8 else 1):
        for k in range(n):
            i = k
            if turn > 0:
                i = ld[i64](pairs + k * 8) & 4294967295
            key = sort_key(x + i * SIZE[T], T, turn)
            st[i64](pairs + k * 8, (key << 32) | i)
        sorted_pairs(pairs, spare, n, scratch)
    found = 0
    last = 0
    for k in range(n):
        i = ld[i64](pairs + k * 8) & 4294967295
        key = key_of(x + i * SIZE[T], T, True)
        if k == 0 or key != last:
            st[i64](spare + found * 8, i)
            st[i64](pairs + found * 8, 0)
            found += 1
            last = key
        st[i64](pairs + (found - 1) * 8, ld[i64](pairs + (found - 1) * 8) + 1)
        st[index](inverse + i * SIZE[index], found - 1)
    st[i64](number, found)
    if rising:
        for g in range(found):
            i = ld[i64](spare + g * 8) + 0
            st[index](first + g * SIZE[index], i)
            st[MOVED[SIZE[T]]](values + g * SIZE[T], ld[MOVED[SIZE[T]]](x + i * SIZE[T]))
            st[count](counts + g * SIZE[count], ld[i64](pairs + g * 8))
    else:
        made = 0
        for i in range(n):
            g = ld[index](inverse + i * SIZE[index]) + 0
            if ld[i64](spare + g * 8) >= 0:  # the first of its kind
                st[index](first + made * SIZE[index], i)
                st[MOVED[SIZE[T]]](values + made * SIZE[T], ld[MOVED[SIZE[T]]](x + i * SIZE[T]))
                st[count](counts + made * SIZE[count], ld[i64](pairs + g * 8))
                st[i64](spare + g * 8, -1 - made)
                made += 1
            st[index](inverse + i * SIZE[index], -1 - ld[i64](spare + g * 8))


class LoweredUnique(Lowering):
    def set_up(self) -> None:
        (data,) = self.node.inputs
        attrs = self.node.attrs
        dtype = BITS.get(data.dtype, data.dtype)
        kinds = {"index": attrs["index_element_type"], "count": attrs["count_element_type"]}
        self.kernel = unique(T=dtype, **kinds, rising=attrs["sorted"])

    def plan(self, planner: Planner) -> None:
        x = planner.contiguous(self.node.inputs[0])
        if x.count >= 1 << 32:  # numbers of elements are half of what is sorted
            raise NotNative
        made = planner.row_major_outputs(self.node)
        pairs, spare = (planner.allocate((x.count + 1,), 8) for _ in range(2))
        names = ("values", "first", "inverse", "counts", "number", "pairs", "spare")
        views = [*made, pairs, spare]
        values = {name: view.ptr for name, view in zip(names, views, strict=True)}
        planner.need_scratch(COUNTS)
        planner.step(self.kernel, {"x": x.ptr, "n": x.count, **values}, 1, [x], views, 40.0 * x.count)
