"""The columns of scores that masks hide from all rows of a tile, and that are after all others.

Their weights are 0, so products with their keys and values are left out. Masks are read once more for this,
from the last column on.
"""

from ovjit.codegen.kernel_language import *

#: Masks that are not above this number hide a column: its weight is 0 unless scores differ by as much.
HIDDEN = -60000.0
#: Vectors of masks that are compared at a time.
MASKS = 4


@inline
def hide_all(at, first, columns, whole_vectors):
    """Lanes in which all of the MASKS vectors of masks hide a column, from column `first` of a row on."""
    limit = const[f32](HIDDEN)
    hidden = limit <= limit
    for i in static_range(MASKS):
        there = at + (first + i * VL) * 4
        if whole_vectors:
            hidden = hidden & (load[f32](there) <= limit)
        else:
            count = min(max(columns - first - i * VL, 0), VL)
            hidden = hidden & (blend[f32](count, loadm[f32](there, count), limit) <= limit)
    return hidden


@inline
def count_shown_of(at, columns):
    """`count_shown` of the row of masks at `at`."""
    step = MASKS * VL
    stop = 0
    j = columns // step * step
    if j < columns:
        hidden = hide_all(at, j, columns, False)
        if not hand[boolean](hidden):
            stop = columns
            j = 0
    j -= step
    while j >= 0:
        hidden = hide_all(at, j, columns, True)
        if not hand[boolean](hidden):
            stop = j + step
            for i in static_range(MASKS - 1):
                if stop == j + step - i * VL:
                    if hand[boolean](load[f32](at + (stop - VL) * 4) <= const[f32](HIDDEN)):
                        stop -= VL
            j = 0
        j -= step
    if stop == 0:
        stop = columns
    return stop


@inline
def count_shown(pm, count, columns, *, mask):
    """The number of first columns after which the mask hides all from `count` rows. It is `columns` if a row
    sees none, as the weights of such a row depend on all of them."""
    shown = columns
    if mask.stride.c > 0:
        shown = 0
        rows = count
        if mask.stride.r == 0:
            rows = 1
        for i in range(rows):
            if shown < columns:
                stop = count_shown_of(pm + (rows - 1 - i) * mask.stride.r, columns)
                shown = max(shown, stop)
    return shown
