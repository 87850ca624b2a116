"""Parts of kernels that select boxes: sorted candidates, and the overlap of a box with VL others.

Candidates are sorted by score with a stable radix sort. A NaN score is not a candidate; a NaN box overlaps
none.
"""

from __future__ import annotations

from typing import Any

from ovjit.codegen.kernel_language import *

#: Bytes of the counters of `sorted_pairs`.
COUNTS = 256 * 8
#: Up to so many pairs are inserted one by one: to count bytes takes 2,048 steps for any number.
INSERTED = 32

#: The tensors of kernels that select boxes of each class of each image.
SELECTING: Any = {
    "over": "image label", "boxes": "image label i k", "scores": "image label i", "max_boxes": "",
    "iou_threshold": "", "score_threshold": "", "chosen": "image label capacity:1",
    "values": "image label capacity:1", "counts": "image label",
}  # fmt: skip


@inline
def key_of(p):
    """A 32-bit integer that decreases as the f32 at p increases. Both zeros give the same."""
    key = ld[i32](p) & 0xFFFFFFFF
    if key == 0x80000000:
        key = 0
    if key < 0x80000000:
        key = 0x7FFFFFFF - key
    return key


@inline
def sorted_pairs(a, b, count, counts):
    """Sort `count` pairs (key << 32 | number) at a by ascending key. b has the same size, `counts` has COUNTS
    bytes."""
    if count <= INSERTED:
        for i in range(1, count):
            pair = ld[i64](a + i * 8) + 0
            to = i
            while to > 0:
                before = ld[i64](a + to * 8 - 8) + 0
                if ((before >> 32) & 0xFFFFFFFF) <= ((pair >> 32) & 0xFFFFFFFF):
                    break
                st[i64](a + to * 8, before)
                to -= 1
            st[i64](a + to * 8, pair)
    else:
        source = a
        target = b
        for shift in range(32, 64, 8):  # an even number of passes: the result is at `a`
            for i in range(256):
                st[i64](counts + i * 8, 0)
            for i in range(count):
                slot = counts + ((ld[i64](source + i * 8) >> shift) & 255) * 8
                st[i64](slot, ld[i64](slot) + 1)
            before = 0
            for i in range(256):
                number = ld[i64](counts + i * 8) + 0
                st[i64](counts + i * 8, before)
                before += number
            for i in range(count):
                pair = ld[i64](source + i * 8) + 0
                slot = counts + ((pair >> shift) & 255) * 8
                number = ld[i64](slot) + 0
                st[i64](target + number * 8, pair)
                st[i64](slot, number + 1)
            swap = source
            source = target
            target = swap


@inline
def candidates(s, s_i, n, score_threshold, inclusive, a, b, counts):
    """Store the pairs (key, index) of those of the n scores at s, s_i bytes apart, that pass the threshold to
    `a`, sorted. Returns how many."""
    bar = ld[f32](score_threshold)
    count = 0
    for k in range(0, n, VL):
        v = gather[f32](s + k * s_i, s_i, n - k)
        passed = v >= const[f32](bar) if inclusive else v > const[f32](bar)
        if hor[boolean](passed):
            for one in range(k, min(k + VL, n)):
                score = ld[f32](s + one * s_i)
                good = score >= bar if inclusive else score > bar
                if good:
                    key = key_of(s + one * s_i)
                    st[i64](a + count * 8, (key << 32) | one)
                    count += 1
    sorted_pairs(a, b, count, counts)
    return count


@inline
def side_length(low, height, border):
    """The side of boxes. `border`: corners are pixels that belong to the box."""
    return height - low + const[f32](1.0) if border else height - low


@inline
def append_box(q, stride, y1, x1, y2, x2, area):
    """Append the box in lane 0 to those at q: five rows, `stride` bytes apart."""
    st[f32](q, lane[f32](y1, 0))
    st[f32](q + stride, lane[f32](x1, 0))
    st[f32](q + 2 * stride, lane[f32](y2, 0))
    st[f32](q + 3 * stride, lane[f32](x2, 0))
    st[f32](q + 4 * stride, lane[f32](area, 0))


@inline
def intersection_area(q, stride, y1, x1, y2, x2, border):
    """The common area of a box with VL boxes at q."""
    zero = const[f32](0.0)
    low_y = maximum(y1, load[f32](q))
    low_x = maximum(x1, load[f32](q + stride))
    height = maximum(side_length(low_y, minimum(y2, load[f32](q + 2 * stride)), border), zero)
    width = maximum(side_length(low_x, minimum(x2, load[f32](q + 3 * stride)), border), zero)
    return height * width


@inline
def box_iou(q, stride, intersection, area):
    """Intersection over union of a box with VL boxes at q, from `intersection_area`; 0 if one has no area."""
    zero = const[f32](0.0)
    areas = load[f32](q + 4 * stride)
    return select((area > zero) & (areas > zero), intersection / (area + areas - intersection), zero)


@inline
def finish_class(values, item, count, capacity, *, chosen, counts):
    """Store the number of selected boxes, and clear the slots after them."""
    st[i64](counts + item * 8, count)
    for k in range(count, capacity, VL):
        slot = (item * capacity + k) * 4
        storem[i32](chosen + slot, const[i32](0), capacity - k)
        storem[f32](values + slot, const[f32](0.0), capacity - k)
