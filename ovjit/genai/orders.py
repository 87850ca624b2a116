"""Orders of equal elements, as the sorting functions of libstdc++, which openvino_genai is built with, leave
them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

#: True if the first element has to stand before the second one.
Before = Callable[[Any, Any], bool]
#: Ranges up to this length are sorted by insertion.
_SHORT = 16


def select_first(items: Sequence[Any], count: int, before: Before) -> list[Any]:
    """The `count` first of `items`, in the order of a heap, as partial_sort selects them."""
    heap = make_heap(items[:count], before)
    for item in items[count:] if count else ():
        if before(item, heap[0]):
            _sift_down(heap, 0, len(heap), item, before)
    return heap


def make_heap(items: Sequence[Any], before: Before) -> list[Any]:
    """The items as a heap whose root is the last one in order, as make_heap makes it."""
    heap = list(items)
    for parent in range(len(heap) // 2 - 1, -1, -1):
        _sift_down(heap, parent, len(heap), heap[parent], before)
    return heap


def replace_root(heap: list[Any], value: Any, before: Before) -> None:
    """Put a value into a heap instead of the root, as pop_heap and push_heap do."""
    last = len(heap) - 1
    if last:
        _sift_down(heap, 0, last, heap[last], before)
    _sift_up(heap, last, 0, value, before)


def _sift_down(heap: list[Any], top: int, size: int, value: Any, before: Before) -> None:
    """Put a value at `top` of a heap of `size` elements. Children move up until the end of the heap is
    reached, and from there the value moves up again."""
    hole = top
    while (child := 2 * hole + 2) < size:
        if before(heap[child], heap[child - 1]):
            child -= 1
        heap[hole], hole = heap[child], child
    if child == size:
        heap[hole], hole = heap[child - 1], child - 1
    _sift_up(heap, hole, top, value, before)


def _sift_up(heap: list[Any], hole: int, top: int, value: Any, before: Before) -> None:
    """Put a value into a hole of a heap, or above it, up to `top`."""
    while hole > top and before(heap[(hole - 1) // 2], value):
        heap[hole], hole = heap[(hole - 1) // 2], (hole - 1) // 2
    heap[hole] = value


def sort(items: Sequence[Any], before: Before) -> list[Any]:
    """The items in the order of C++'s std::sort: quicksort of ranges longer than `_SHORT`, then an insertion
    sort. Its switch to heapsort at a depth limit, which few inputs reach, is missing."""
    ordered, ranges = list(items), [(0, len(items))]
    while ranges:
        first, last = ranges.pop()
        if last - first > _SHORT:
            cut = _partition(ordered, first, last, before)
            ranges += [(first, cut), (cut, last)]
    for i, item in enumerate(ordered):
        hole = i
        while hole and before(item, ordered[hole - 1]):
            ordered[hole], hole = ordered[hole - 1], hole - 1
        ordered[hole] = item
    return ordered


def _partition(items: list[Any], first: int, last: int, before: Before) -> int:
    """Partition a range by the median of three of its elements. Returns the begin of the second part."""
    a, b, c = (items[i] for i in (first + 1, (first + last) // 2, last - 1))
    if before(a, b):
        index = (first + last) // 2 if before(b, c) else last - 1 if before(a, c) else first + 1
    else:
        index = first + 1 if before(a, c) else last - 1 if before(b, c) else (first + last) // 2
    items[first], items[index] = items[index], items[first]
    pivot, low, high = items[first], first + 1, last
    while True:
        while before(items[low], pivot):
            low += 1
        high -= 1
        while before(pivot, items[high]):
            high -= 1
        if low >= high:
            return low
        items[low], items[high] = items[high], items[low]
        low += 1
