"""Native Unique: single elements are sorted by a radix sort, longer rows by a merge sort. A pass over the
sorted rows then groups equal ones. Single elements of a few kinds are grouped by a small hash table instead.

Elements are compared as integers (`cpu_topk.key_of`): NaN is above all others, both zeros are equal. Single
NaN are equal, rows with NaN are not.
"""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit.planning.copies import MOVED
from ovjit.planning.lower import Lowering, NotNative, Planner, launch
from ovjit_ops.detection.cpu_candidates import COUNTS, sorted_pairs
from ovjit_ops.indexing.cpu_topk import INFINITY, MOST, key_of

#: Type -> type with the same bits, as which it is processed.
BITS = {"boolean": "u8"}
#: The most kinds of a hash table, and its slots of a key and a group.
FEW, SLOTS = 64, 256
#: 2**64 over the golden ratio: products have well mixed upper bits.
GOLDEN = -7046029254386353131


@inline
def sort_key(p, T, turn):
    """A 32-bit key of the element at p, in ascending order. Elements of 64 bits: of the lower half in pass 0,
    of the upper half in pass 1."""
    key = key_of(p, T, True)
    if SIZE[T] == 8 and turn == 0:
        key = key & 0xFFFFFFFF
    elif SIZE[T] == 8:
        key = (key >> 32) + 0x80000000
    elif T != "u32":
        key = min(key, 0x7FFFFFFF) + 0x80000000
    return key


@inline
def order_of(p, q, n, T, distinct_nans):
    """-1, 0 or 1: the order of the n elements at p and those at q. With `distinct_nans`, rows with NaN are
    never equal."""
    answer = 0
    k = 0
    while answer == 0 and k < n:
        a = key_of(p + k * SIZE[T], T, True)
        b = key_of(q + k * SIZE[T], T, True)
        if a < b:
            answer = -1
        elif a > b:
            answer = 1
        elif distinct_nans and T in INFINITY:
            if a == MOST:
                answer = 1
        k += 1
    return answer


@inline
def merged_rows(x, a, b, n, width, T):
    """Sort the indices of n rows of x, which are at a, in the order of the rows. b is a buffer of the same
    size. Returns a or b, where the result is."""
    source = a
    target = b
    length = 1
    while length < n:
        for run in range(0, n, 2 * length):
            i = run
            j = min(run + length, n)
            middle = j
            end = min(run + 2 * length, n)
            for k in range(run, end):
                later = i >= middle
                if i < middle and j < end:
                    p = x + ld[i64](source + i * 8) * width * SIZE[T]
                    q = x + ld[i64](source + j * 8) * width * SIZE[T]
                    order = order_of(q, p, width, T, False)
                    later = order < 0
                if later:
                    st[i64](target + k * 8, ld[i64](source + j * 8))
                    j += 1
                else:
                    st[i64](target + k * 8, ld[i64](source + i * 8))
                    i += 1
        swap = source
        source = target
        target = swap
        length = 2 * length
    return source


@inline
def copy_elements(q, p, n, T):
    """Copy n elements from p to q."""
    for k in range(n):
        st[MOVED[SIZE[T]]](q + k * SIZE[T], ld[MOVED[SIZE[T]]](p + k * SIZE[T]))


@inline
def sort_elements(x, pairs, spare, n, T):
    """Sort pairs of keys and indices. Keys of 64 bits are sorted by 32 bits at a time."""
    for turn in static_range(2 if SIZE[T] == 8 else 1):
        for k in range(n):
            i = k
            if turn > 0:
                i = ld[i64](pairs + k * 8) & 0xFFFFFFFF
            key = sort_key(x + i * SIZE[T], T, turn)
            st[i64](pairs + k * 8, (key << 32) | i)
        sorted_pairs(pairs, spare, n, scratch)


@inline
def group_few(x, first, counts, inverse, n, T, index):
    """Group the n elements of x by a hash table: the first index and the count of each group, and the group
    of each element. Returns the number of groups, -1 if there are more than FEW."""
    for slot in range(SLOTS):
        st[i64](scratch + slot * 16 + 8, -1)
    groups = 0
    k = 0
    while k < n and groups >= 0:
        key = key_of(x + k * SIZE[T], T, True)
        at = scratch + ((key * GOLDEN >> 56) & (SLOTS - 1)) * 16
        group = ld[i64](at + 8) + 0
        while group >= 0:
            if ld[i64](at) == key:
                break
            at += 16
            if at == scratch + SLOTS * 16:
                at = scratch
            group = ld[i64](at + 8) + 0
        if group < 0 and groups == FEW:
            groups = -1
        else:
            if group < 0:
                group = groups
                st[i64](at, key)
                st[i64](at + 8, group)
                st[i64](first + group * 8, k)
                st[i64](counts + group * 8, 0)
                groups += 1
            st[i64](counts + group * 8, ld[i64](counts + group * 8) + 1)
            st[index](inverse + k * SIZE[index], group)
            k += 1
    return groups


@inline
def sort_few(x, first, counts, inverse, n, groups, T, index):
    """Sort the groups of `group_few` by their elements."""
    numbers = scratch
    ranks = scratch + FEW * 8
    for g in range(groups):
        i = ld[i64](first + g * 8) + 0
        count = ld[i64](counts + g * 8) + 0
        key = key_of(x + i * SIZE[T], T, True)
        to = g
        while to > 0:
            before = ld[i64](first + to * 8 - 8) + 0
            other = key_of(x + before * SIZE[T], T, True)
            if other <= key:
                break
            st[i64](first + to * 8, before)
            st[i64](counts + to * 8, ld[i64](counts + to * 8 - 8))
            st[i64](numbers + to * 8, ld[i64](numbers + to * 8 - 8))
            to -= 1
        st[i64](first + to * 8, i)
        st[i64](counts + to * 8, count)
        st[i64](numbers + to * 8, g)
    for g in range(groups):
        st[i64](ranks + ld[i64](numbers + g * 8) * 8, g)
    for k in range(n):
        group = ld[index](inverse + k * SIZE[index]) + 0
        st[index](inverse + k * SIZE[index], ld[i64](ranks + group * 8))


@inline
def group_rows(x, pairs, spare, inverse, n, width, T, index):
    """Group the n rows of x by sorting them: at `spare` the first index of each group, at `pairs` the counts,
    and the group of each row. Returns the number of groups."""
    if width == 1:
        sort_elements(x, pairs, spare, n, T)
    else:
        for k in range(n):
            st[i64](pairs + k * 8, k)
        group = merged_rows(x, pairs, spare, n, width, T)
        if group != pairs:
            for k in range(n):
                st[i64](pairs + k * 8, ld[i64](spare + k * 8))
    groups = 0
    last = 0
    for k in range(n):
        i = ld[i64](pairs + k * 8) & 0xFFFFFFFF
        if width == 1:
            key = key_of(x + i * SIZE[T], T, True)
            fresh = k == 0 or key != last
            last = key
        else:
            fresh = k == 0
            if k > 0:
                order = order_of(x + i * width * SIZE[T], x + last * width * SIZE[T], width, T, True)
                fresh = order != 0
            last = i
        if fresh:
            st[i64](spare + groups * 8, i)
            st[i64](pairs + groups * 8, 0)
            groups += 1
        st[i64](pairs + (groups - 1) * 8, ld[i64](pairs + (groups - 1) * 8) + 1)
        st[index](inverse + i * SIZE[index], groups - 1)
    return groups


@kernel(
    x="n width:1", values="", first="", inverse="n:1", counts="", number="", pairs="more:1", spare="more:1"
)
def unique(
    x: Tensor, values: Tensor, first: Tensor, inverse: Tensor, counts: Tensor, number: Tensor,
    pairs: Tensor, spare: Tensor, *, T, index, count, rising,
):  # fmt: skip
    """Store the distinct rows of x, the first index of each, for each row the index of its distinct one, and
    counts."""
    n = x.size.n
    width = x.size.width
    groups = -1
    if width == 1:
        groups = group_few(x, spare, pairs, inverse, n, T, index)
    is_grouped = groups >= 0
    if is_grouped:
        if rising:
            sort_few(x, spare, pairs, inverse, n, groups, T, index)
    else:
        groups = group_rows(x, pairs, spare, inverse, n, width, T, index)
    st[i64](number, groups)
    if rising or is_grouped:
        for g in range(groups):
            i = ld[i64](spare + g * 8) + 0
            st[index](first + g * SIZE[index], i)
            copy_elements(values + g * width * SIZE[T], x + i * width * SIZE[T], width, T)
            st[count](counts + g * SIZE[count], ld[i64](pairs + g * 8))
    else:
        group = 0
        for i in range(n):
            g = ld[index](inverse + i * SIZE[index]) + 0
            if ld[i64](spare + g * 8) >= 0:  # the first occurrence
                st[index](first + group * SIZE[index], i)
                copy_elements(values + group * width * SIZE[T], x + i * width * SIZE[T], width, T)
                st[count](counts + group * SIZE[count], ld[i64](pairs + g * 8))
                st[i64](spare + g * 8, -1 - group)
                group += 1
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
        n = x.shape[0]
        if n >= 1 << 32:  # an index is the lower half of a sorted pair
            raise NotNative
        outputs = planner.row_major_outputs(self.node)
        outputs += [planner.allocate((n + 1,), 8) for _ in range(2)]
        names = ("values", "first", "inverse", "counts", "number", "pairs", "spare")
        planner.need_scratch(max(COUNTS, SLOTS * 16))
        views = {"x": x, **dict(zip(names, outputs, strict=True))}
        launch(planner, self.kernel, views, names, flops=40.0 * x.count)
