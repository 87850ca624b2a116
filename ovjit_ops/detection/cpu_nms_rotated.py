"""Native suppression of rotated boxes: an item is one class of one image.

Boxes whose circumscribed circles do not meet are ruled out a vector at a time. For the others, the common
polygon is clipped in f64, one pair at a time. A box that is not finite, or has no area, overlaps no box.
"""

from __future__ import annotations

from ovjit.codegen.kernel_language import *
from ovjit_ops.detection.cpu_candidates import COUNTS, SELECTING, candidates, finish_class

#: Maximum points after four cuts of four points. A cut at most doubles them, whatever the rounding.
MOST_POINTS = 64
#: Bytes of four corners and an area.
CORNERS = 9 * 8
#: Bytes per kept box: centre and radius in rows of f32, corners and area.
BYTES_EACH = 3 * 4 + CORNERS
#: Factor of radii, which covers rounding in f32.
SLACK = 1.00001


@inline
def polygon_intersection(a, b, points):
    """The common area of two convex polygons of four corners: a is clipped at every side of b. `points`:
    memory for two lists of MOST_POINTS."""
    source = a
    number = 4
    target = points
    for side in range(4):
        start_x = ld[f64](b + side * 16)
        start_y = ld[f64](b + side * 16 + 8)
        edge_x = ld[f64](b + (side + 1) % 4 * 16) - start_x
        edge_y = ld[f64](b + (side + 1) % 4 * 16 + 8) - start_y
        new_number = 0
        if number >= 3:
            last_x = ld[f64](source + number * 16 - 16)
            last_y = ld[f64](source + number * 16 - 8)
            before = edge_x * (last_y - start_y) - edge_y * (last_x - start_x)
            for i in range(number):
                x = ld[f64](source + i * 16)
                y = ld[f64](source + i * 16 + 8)
                inside = edge_x * (y - start_y) - edge_y * (x - start_x)
                if (inside >= 0.0) != (before >= 0.0):
                    t = before / (before - inside)
                    st[f64](target + new_number * 16, last_x + t * (x - last_x))
                    st[f64](target + new_number * 16 + 8, last_y + t * (y - last_y))
                    new_number += 1
                if inside >= 0.0:
                    st[f64](target + new_number * 16, x)
                    st[f64](target + new_number * 16 + 8, y)
                    new_number += 1
                last_x = x
                last_y = y
                before = inside
        number = new_number
        source = points + side % 2 * (MOST_POINTS * 16)
        target = points + (side + 1) % 2 * (MOST_POINTS * 16)
    total = 0.0
    if number >= 3:
        last_x = ld[f64](source + number * 16 - 16)
        last_y = ld[f64](source + number * 16 - 8)
        for i in range(number):
            x = ld[f64](source + i * 16)
            y = ld[f64](source + i * 16 + 8)
            total += last_x * y - x * last_y
            last_x = x
            last_y = y
        total = total * 0.5
        if total < 0.0:
            total = 0.0 - total
    return total


@inline
def put_corners(q, x, y, w, h, angle):
    """Store the corners of a rotated box to q, counter-clockwise."""
    cos = lane[f64](libm_cos[f64](angle), 0) * 0.5
    sin = lane[f64](libm_sin[f64](angle), 0) * 0.5
    across_x = cos * w
    across_y = sin * w
    along_x = 0.0 - sin * h
    along_y = cos * h
    st[f64](q, x - across_x - along_x)
    st[f64](q + 8, y - across_y - along_y)
    st[f64](q + 16, x + across_x - along_x)
    st[f64](q + 24, y + across_y - along_y)
    st[f64](q + 32, x + across_x + along_x)
    st[f64](q + 40, y + across_y + along_y)
    st[f64](q + 48, x - across_x + along_x)
    st[f64](q + 56, y - across_y + along_y)


@inline
def is_kept(selected, stride, count, corners, mine, points, x, y, reach, area, good, bar):
    """1 if the box overlaps each of the `count` kept boxes by less than `bar`, else 0. A box that is not
    `good` overlaps none. Its corners are at `mine`, those of kept boxes at `corners`."""
    zero = const[f32](0.0)
    free = 1
    if count > 0 and bar <= 0.0:
        free = 0
    k = 0
    while k < count and good and free == 1:
        q = selected + k * 4
        dx = load[f32](q) - cast[f32](spread[f64](x))
        dy = load[f32](q + stride) - cast[f32](spread[f64](y))
        both = load[f32](q + 2 * stride) + cast[f32](spread[f64](reach))
        near = (dx * dx + dy * dy <= both * both) & (both > zero)
        if hor[boolean](blend[boolean](count - k, near, zero != zero)):
            i = k
            while i < min(k + VL, count):
                q = corners + i * CORNERS
                other = ld[f64](q + 64)
                if other > 0.0:
                    intersection = polygon_intersection(q, mine, points)
                    st[f32](points, intersection / (area + other - intersection))
                    if ld[f32](points) >= bar:
                        free = 0
                        i = count
                i += 1
        k += VL
    return free


@kernel(**SELECTING)
def nms_select_rotated(
    boxes: Tensor, scores: Tensor, max_boxes: Tensor, iou_threshold: Tensor, score_threshold: Tensor,
    chosen: Tensor, values: Tensor, counts: Tensor, top, skip, *, clockwise, limit,
):  # fmt: skip
    """`nms_select` for boxes of (x, y, w, h, angle)."""
    n = scores.size.i
    capacity = chosen.size.capacity
    stride = (capacity + VL + 1) // 2 * 8
    keep = max(min(ld[limit](max_boxes) + 0, capacity), 0)
    selected = scratch + COUNTS
    corners = selected + 3 * stride
    mine = corners + capacity * CORNERS
    points = mine + CORNERS
    bar = ld[f32](iou_threshold)
    for image, label, b, s in items(boxes, scores):
        a = points + 2 * MOST_POINTS * 16
        number = image * scores.size.label + label
        candidate_count = candidates(s, scores.stride.i, n, score_threshold, False, a, a + n * 8, scratch)
        candidate_count = min(candidate_count, top)
        if label == skip:
            candidate_count = 0
        count = 0
        c = 0
        while c < candidate_count and count < keep:
            one = ld[i64](a + c * 8) & 4294967295
            p = boxes.at(b, i=one)
            x = ld[f32](p) * 1.0
            y = ld[f32](p + boxes.stride.k) * 1.0
            w = ld[f32](p + 2 * boxes.stride.k) * 1.0
            h = ld[f32](p + 3 * boxes.stride.k) * 1.0
            angle = ld[f32](p + 4 * boxes.stride.k) * (1.0 if clockwise else -1.0)
            area = w * h
            reach = lane[f64](sqrt(spread[f64](w * w + h * h)), 0) * (0.5 * SLACK)
            # the sum times 0 is not 0 if a number is not finite
            good = w > 0.0 and h > 0.0 and (x + y + w + h + angle) * 0.0 == 0.0
            if good:
                put_corners(mine, x, y, w, h, spread[f64](angle))
            free = is_kept(selected, stride, count, corners, mine, points, x, y, reach, area, good, bar)
            if free == 1:
                q = selected + count * 4
                st[f32](q, x)
                st[f32](q + stride, y)
                q = corners + count * CORNERS
                if good:
                    st[f32](selected + count * 4 + 2 * stride, reach)
                    for i in range(0, 64, 8):
                        st[f64](q + i, ld[f64](mine + i))
                    st[f64](q + 64, area)
                else:
                    st[f32](selected + count * 4 + 2 * stride, -inf)
                    st[f64](q + 64, 0.0)
                slot = (number * capacity + count) * 4
                st[i32](chosen + slot, one)
                st[f32](values + slot, ld[f32](scores.at(s, i=one)))
                count += 1
            c += 1
        finish_class(values, number, count, capacity)
