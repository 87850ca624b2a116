"""Samples of `ovjit_ops/pooling`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit_ops.elementwise.arithmetic import cases
from tests.support.samples import samples


def _sample_attributes(torch: bool, dilated: bool) -> list[tuple[tuple[int, ...], dict[str, Any]]]:
    def case(shape: tuple[int, ...], k: int, s: int, begin: int = 0, end: int = 0, d: int = 1, **more: Any):
        rank = len(shape) - 2
        attrs = {
            "kernel": (k,) * rank,
            "strides": (s,) * rank,
            "pads_begin": (begin,) * rank,
            "pads_end": (end,) * rank,
            **more,
        }
        if dilated:
            attrs["dilations"] = (d,) * rank
        return shape, attrs

    cases = [
        case((1, 16, 8, 8), 2, 2),
        case((2, 17, 15, 16), 3, 2, 1, 1),
        case((1, 33, 7, 9), 3, 1, 1, 1),
        case((1, 3, 16, 17), 3, 2, rounding_type="ceil"),
        case((1, 3, 16, 17), 3, 2, 0, 1, rounding_type="ceil"),
        case((1, 5, 13, 14), 3, 3, auto_pad="same_upper"),
        case((1, 5, 13, 14), 4, 3, auto_pad="same_lower"),
        case((1, 5, 13, 14), 3, 2, 1, 1, auto_pad="valid"),
        case((1, 4, 9), 3, 2, 1, 0),
        case((1, 2, 5, 6, 7), 2, 2, 0, 1),
        case((0, 3, 5, 5), 2, 1),
    ]
    if dilated:
        cases += [case((1, 5, 13, 14), 3, 2, 1, 1, d=2), case((1, 5, 13, 14), 2, 1, 0, 1, d=3)]
    if torch:
        cases += [
            case((1, 3, 16, 17), 3, 2, 1, 1, rounding_type="ceil_torch"),
            case((1, 3, 7, 7), 2, 3, 1, 1, rounding_type="ceil_torch"),
        ]
    return cases


def _samples(torch: bool, dilated: bool, more: Sequence[dict[str, Any]]):
    shaped = _sample_attributes(torch, dilated)
    return cases(*((shape, {**attrs, **more[i % len(more)]}) for i, (shape, attrs) in enumerate(shaped)))


samples("MaxPool")(_samples(False, False, [{}]))


_INDEX_VARIANTS = [{"index_element_type": "i64", "axis": 0}, {"index_element_type": "i32", "axis": 2}]


samples("MaxPool", 8)(_samples(False, True, _INDEX_VARIANTS))
samples("MaxPool", 14)(_samples(True, True, _INDEX_VARIANTS))


_PAD_VARIANTS = [{"exclude_pad": True}, {"exclude_pad": False}, {"exclude_pad": False}]


samples("AvgPool")(_samples(False, False, _PAD_VARIANTS))
samples("AvgPool", 14)(_samples(True, False, _PAD_VARIANTS))


samples("AvgPool", 16)(_samples(True, True, _PAD_VARIANTS))
