"""Native bags of embeddings: rows of a table added up in registers.

The bags of a kernel are ranges of the list of indices: given by offsets, all equally long, or runs of equal
segment numbers. Every index, offset and segment is checked before it is used; a bad one is error code 1.
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.kernel import Frame, Kernel
from ovjit.compiler.fuse import Group
from ovjit.compiler.lower import Lowering, place_constants
from ovjit.compiler.plan import Constants, Planner, ceil_div, split
from ovjit.compiler.views import View, product

#: operation -> how its bags are given
WAYS = {
    "EmbeddingBagOffsetsSum": "offsets", "EmbeddingBagOffsets": "offsets", "EmbeddingBagPackedSum": "packed",
    "EmbeddingBagPacked": "packed", "EmbeddingSegmentsSum": "segments",
}  # fmt: skip
#: Vectors of a row that are added up at a time.
VECTORS = 4


@functools.cache
def bag_kernel(way: str, index: str, weighted: bool, default: bool, mean: bool) -> Kernel:
    """y[bag] = sum of table[index] * weight over the bag's indices. A chunk is a range of bags."""
    frame = Frame().pointers("table", "at", "y")
    frame.pointers(
        *(["bags"] if way != "packed" else []), *(["w"] if weighted else []), *(["other"] if default else [])
    )
    frame.integers("rows", "width", "row", "count", "many", "per_chunk", "each")
    size = 8 if index == "i64" else 4
    src = ["@njit(nogil=True)", "def kernel(bases, args, chunk, scratch):", frame.prologue()]
    src += [
        "    zero = const_f32(0.0)",
        "    bag = chunk * per_chunk",
        "    stop = imin(bag + per_chunk, many)",
    ]
    if way == "segments":  # the first chunk sees to it that numbers do not fall
        src += ["    if chunk == 0:", "        i = 0", "        last = 0", "        while i < count:"]
        src += [
            f"            number = ld_{index}(bags + i * {size}) + 0",
            "            if number < last or number >= many:",
        ]
        src += ["                return 1", "            last = number", "            i += 1"]
    if way == "offsets":
        src += [
            "    if chunk == 0 and count > 0:",
            f"        if ld_{index}(bags) != 0:",
            "            return 1",
        ]
    src += ["    while bag < stop:"]
    src += [f"        {line}" for line in _range(way, index, size)]
    src += [
        "        i = first",
        "        while i < end:",
        f"            place = ld_{index}(at + i * {size}) + 0",
    ]
    src += [
        "            if place < 0:",
        "                place += rows",
        "            if place < 0 or place >= rows:",
    ]
    src += [
        "                return 1",
        "            i += 1",
        "        q = y + bag * width * 4",
        "        pick = -1",
    ]
    if default:
        src += [
            "        if first == end:",
            f"            pick = ld_{index}(other) + 0",
            "            if pick >= rows:",
        ]
        src += ["                return 1"]
    if mean:
        src += ["        scale = const_f32(1.0)", "        if end > first:"]
        src += ["            scale = div(scale, cast_f32(spread_i64(end - first)))"]
    src += ["        j = 0", "        while j < width:", "            left = width - j"]
    src += [f"            a{v} = zero" for v in range(VECTORS)]
    src += ["            if pick >= 0:", "                p = table + pick * row + j * 4"]
    src += [f"                a{v} = loadm_f32(p + {v} * VL * 4, left - {v} * VL)" for v in range(VECTORS)]
    src += [
        "            i = first",
        "            while i < end:",
        f"                place = ld_{index}(at + i * {size}) + 0",
    ]
    src += [
        "                if place < 0:",
        "                    place += rows",
        "                p = table + place * row + j * 4",
    ]
    src += ["                f = splat_f32(w + i * 4)"] if weighted else []
    for v in range(VECTORS):
        load = f"loadm_f32(p + {v} * VL * 4, left - {v} * VL)"
        src += [f"                a{v} = " + (f"fma({load}, f, a{v})" if weighted else f"add(a{v}, {load})")]
    src += ["                i += 1"]
    for v in range(VECTORS):
        value = f"mul(a{v}, scale)" if mean else f"a{v}"
        src += [f"            storem_f32(q + (j + {v} * VL) * 4, {value}, left - {v} * VL)"]
    src += [f"            j += {VECTORS} * VL", "        bag += 1", "    return 0", ""]
    words = [
        way,
        index,
        *(["weighted"] if weighted else []),
        *(["mean"] if mean else []),
        *(["default"] if default else []),
    ]
    return Kernel(f"bags_f32_{'_'.join(words)}", "\n".join(src), frame)


def _range(way: str, index: str, size: int) -> list[str]:
    """Lines that set `first` and `end` of the bag."""
    if way == "packed":
        return ["first = bag * each", "end = first + each"]
    if way == "offsets":
        return [
            f"first = ld_{index}(bags + bag * {size}) + 0", "end = count", "if bag + 1 < many:",
            f"    end = ld_{index}(bags + (bag + 1) * {size}) + 0",
            "if first < 0 or end < first or end > count:",
            "    return 1",
        ]  # fmt: skip
    out = []
    for name, number in (("first", "bag"), ("end", "bag + 1")):
        out += [
            f"{name} = 0", "high = count", f"while {name} < high:", f"    middle = ({name} + high) // 2",
            f"    if ld_{index}(bags + middle * {size}) < {number}:",
            f"        {name} = middle + 1", "    else:",
            "        high = middle",
        ]  # fmt: skip
    return out


class Bags(Lowering):
    """Sums or means of rows of an f32 table."""

    def __init__(self, group: Group):
        super().__init__(group)
        self.node = group.last
        self.way = WAYS[self.node.op.name]
        names = self.node.op.input_names
        self.named = dict(zip(names, self.node.inputs, strict=False))
        self.weighted = "per_sample_weights" in self.named
        self.default = "default_index" in self.named
        mean = self.node.attrs.get("reduction") == "mean"
        index = self.named["indices"].dtype
        self.kernel = bag_kernel(self.way, index, self.weighted, self.default, mean)
        self.kernels = (self.kernel,)

    def pack(self, constants: Constants) -> None:
        place_constants(constants, self.node.inputs)

    def plan(self, planner: Planner) -> None:
        table, indices = (planner.contiguous(self.named[n]) for n in ("emb_table", "indices"))
        out = self.node.output
        y = planner.allocate(planner.shape(out), 4)
        many = y.shape[0]
        if not y.count:
            planner.alias_or_copy(out, y)
            return
        width = product(y.shape[1:])
        count = indices.count
        per_bag = max(1, count // many)
        per_chunk = split(many, width * per_bag * 4)
        values: dict[str, Any] = {
            "table": table.ptr, "at": indices.ptr, "y": y.ptr, "rows": table.shape[0], "width": width,
            "row": width * 4, "count": count, "many": many, "per_chunk": per_chunk,
            "each": indices.shape[-1] if self.way == "packed" else 0,
        }  # fmt: skip
        reads: list[View] = [table, indices]
        for key, name in (("bags", "offsets"), ("bags", "segment_ids"), ("w", "per_sample_weights"),
                          ("other", "default_index")):  # fmt: skip
            if name in self.named:
                view = planner.contiguous(self.named[name])
                values[key] = view.ptr
                reads.append(view)
        planner.step(self.kernel, values, ceil_div(many, per_chunk), reads, [y], 2.0 * count * width)
        planner.alias_or_copy(out, y)


def lower_bags(group: Group) -> Lowering | None:
    """Native for f32 and indices of one type."""
    node = group.last
    indices = {v.dtype for v in node.inputs if v.dtype != "f32"}
    known = node.inputs[0].shape is not None
    return (
        Bags(group)
        if node.output.dtype == "f32" and len(indices) == 1 and indices <= {"i32", "i64"} and known
        else None
    )
