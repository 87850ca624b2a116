"""Parts of tensors that are replaced, at indices along several axes."""

from __future__ import annotations

from ovjit.readers.rule_language import *


def replace_at(n: Builder, x: Output, update: Output, rows: list[tuple[int, Output]]) -> Output:
    """Along each axis of `rows`, the elements at its indices are replaced."""
    if not rows:
        return n.same(update)
    axis, index = rows[0]
    part = update if len(rows) == 1 else replace_at(n, n("Gather", x, index, axis), update, rows[1:])
    return n("ScatterUpdate", x, index, part, axis)
