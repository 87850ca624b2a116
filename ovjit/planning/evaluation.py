"""The native function that replays a trace's arithmetic and writes the plan.

`ovjit.planning.parametric` makes the arrays that it reads. The native loop over iterations also calls it.
"""

from ovjit.codegen.parts import inline, routine
from ovjit.codegen.words import i64, ld, st
from ovjit.graph import traced
from ovjit.graph.traced import LARGEST, MISFIT

#: Products of smaller factors fit 64 bits.
HALF = 1 << 31


@inline
def take_leaves(recipe, values, leaves):
    """Overwrite the leaves of `values` by `leaves`, and return 1. Return 0 without a change if other leaves
    differ than those that the recipe may change, or if one is too large."""
    free = ld(recipe, 1)
    good = 1
    for i in range(ld(recipe, 0)):
        differs = 0
        if ld(leaves, i) != ld(values, i):
            differs = 1
        if differs != ld(free, i) or ld(leaves, i) >= LARGEST:
            good = 0
            break
    if good == 1:
        for i in range(ld(recipe, 0)):
            st[i64](values + i * 8, ld(leaves, i))
    return good


@inline
def size_of_all(recipe, values):
    """Bytes of all buffers whose sizes the recipe changes; -1 if one exceeds its capacity."""
    sizes = ld(recipe, 5)
    total = 0
    for i in range(ld(recipe, 4)):
        size = ld(values, ld(sizes, 2 * i))
        if size > ld(sizes, 2 * i + 1):
            total = -1
            break
        total += size
    return total


@inline
def write_changed(recipe, values):
    """Write the parts of the plan, after the values, that the recipe changes."""
    part = ld(recipe, 7)
    end = part + ld(recipe, 6) * 24
    while part < end:
        st[i64](values + ld(part, 0) * 8, ld(part, 1) + ld(values, ld(part, 2)))
        part += 24


@inline
def suits(use, values):
    """1 if a memory plan serves the buffer sizes among these values, else 0."""
    nodes = ld(use, 4)
    room = ld(use, 5)
    grows = ld(use, 6)
    total = 0
    good = 1
    for i in range(ld(use, 3)):
        size = ld(values, ld(nodes, i))
        if size > ld(room, i):
            good = 0
            break
        total += size
        if ld(grows, i) != 0:
            total += max(size * ld(use, 8) // 8, ld(use, 9))
    if total < ld(use, 7):
        good = 0
    return good


@inline
def write_plan(use, values):
    """Write the plan after its values: results, chunks, arguments."""
    to = values + ld(use, 1) * 8
    part = use + 80
    end = part + 120
    while part < end:
        starts = ld(part, 1)
        for i in range(ld(part, 0)):
            st[i64](to + i * 8, ld(starts, i))
        indices = ld(part, 3)
        nodes = ld(part, 4)
        for i in range(ld(part, 2)):
            at = to + ld(indices, i) * 8
            st[i64](at, ld(at, 0) + ld(values, ld(nodes, i)))
        to += ld(part, 0) * 8
        part += 40


@routine
def evaluate(rows, count, values, use):
    """Compute the rows. Returns 1 + the index of the first row whose guard fails, or 0. A result that may not
    fit into 64 bits is a failed guard.

    `use` is 0, or the address of a `Memory`'s numbers (`Parametric._numbers_of`). With it, constants are
    written after the leaves first, and the plan is written after all values. Returns -1 if the memory plan
    does not serve the sizes.

    If `count` is -1, `rows` has the numbers of a `Recipe`, `use` the new leaves, and `values` a complete
    plan, which is updated. Returns MISFIT without a change if other leaves differ than those of the recipe.
    """
    recipe = 0
    before = 0
    if count < 0:
        recipe = rows
        good = take_leaves(recipe, values, use)
        if good == 0:
            return MISFIT
        before = size_of_all(recipe, values)
        count = ld(recipe, 2)
        rows = ld(recipe, 3)
    elif use != 0:
        for i in range(ld(use, 0)):
            if ld(values, i) >= LARGEST:
                return count + 1
        constants = ld(use, 2)
        while i < ld(use, 1):
            st[i64](values + i * 8, ld(constants, i))
            i += 1
    for i in range(count):
        row = rows + i * 32
        what = ld(row, 0)
        a = ld(values, ld(row, 2))
        b = ld(values, ld(row, 3))
        out = 0
        if what == traced.ADD:
            out = a + b
        elif what == traced.MULTIPLY:
            out = a * b
            big = max(max(a, -a), max(b, -b))
            if big >= HALF:
                if a != 0:
                    if out // a != b:
                        return i + 1
        elif what == traced.DIVIDE:
            if b <= 0:
                return i + 1
            out = a // b
        elif what == traced.REMAINDER:
            if b <= 0:
                return i + 1
            out = a % b
        elif what == traced.LEAST:
            out = min(a, b)
        elif what == traced.MOST:
            out = max(a, b)
        elif what == traced.EQUAL:
            if a != b:
                return i + 1
        elif what == traced.UNEQUAL:
            if a == b:
                return i + 1
        elif what == traced.LESS:
            if a >= b:
                return i + 1
        else:
            if a < b:
                return i + 1
        if what < traced.EQUAL:
            if out > LARGEST:
                return i + 1
            if out < -LARGEST:
                return i + 1
            st[i64](values + ld(row, 1) * 8, out)
    if recipe != 0:
        total = size_of_all(recipe, values)
        if total < before:
            return -1
        write_changed(recipe, values)
    elif use != 0:
        good = suits(use, values)
        if good == 0:
            return -1
        write_plan(use, values)
    return 0
