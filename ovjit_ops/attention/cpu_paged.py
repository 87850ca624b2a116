"""Native paged attention: arguments of the kernels in `cpu_paged_kernels`, and the steps that run them.

The steps write the new keys and values of all sequences to their blocks, compute the items of tokens and of
prompts, and combine the parts of long sequences. The number of chunks depends on shapes. Chunks whose items
are not in the table return at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.codegen.cpu.formats import F32, WORD, tile_heights, unit_format
from ovjit.codegen.kernel import Kernel
from ovjit.graph.paged_caches import INPUTS, kinds_of
from ovjit.graph.symbolic import sym_max
from ovjit.planning.lower import Constants, Layout, Lowering, NotNative, Planner, View, ceil_div, product
from ovjit.planning.plan import ALIGNMENT
from ovjit.tiles.pack import tile_width
from ovjit_ops.attention.cpu_attention_kernels import MOST_FOLDED, TABLE_BYTES
from ovjit_ops.attention.cpu_paged_kernels import PagedMode, paged_merge, paged_rows, paged_scores
from ovjit_ops.attention.cpu_paged_plan import sizes
from ovjit_ops.attention.cpu_paged_sparse import HEADER, LEAST_BLOCK, paged_sparse
from ovjit_ops.attention.cpu_paged_tiles import TILE_COLUMNS, tiles_kernel
from ovjit_ops.attention.cpu_paged_writes import paged_guard, paged_rotate, paged_write

#: Optional input -> argument of the kernels.
_OPTIONAL = {
    "alibi_slopes": "slopes", "sinks": "sinks", "qq_bias": "pairs", "qq_bias_begins": "pairs_at",
    "token_type_ids": "kinds",
}  # fmt: skip
#: Maximum queries that are multiplied with a key that is loaded.
MOST_TALL = 4
SPARSE = ("xattention_threshold", "xattention_block_size", "xattention_stride")
ROTATION = ("rotated_block_indices", "rotation_deltas", "rotation_trig_lut")


class PagedAttention(Lowering):
    """Attention of f32, bf16 or f16 queries over caches of any kind."""

    takes = (("f32", "bf16", "f16"), ("f32", "bf16", "f16"), ("f32", "bf16", "f16"), None)
    constant_inputs = None

    def set_up(self) -> None:
        self.named = dict(zip(INPUTS, self.node.inputs, strict=False))
        attrs = self.node.attrs
        self.keys, self.values = kinds_of(attrs)
        self.lanes, self.width = self.target.lanes, tile_width(self.target)
        dtype = self.named["query"].dtype
        if any(self.named[n].dtype != dtype for n in ("key", "value")):
            raise NotNative
        if self.target.is_gpu and any(map(self.has, ("rotated_block_indices", "qq_bias"))):
            raise NotNative  # a CUDA graph goes on behind a guard that has found invalid indices
        mode = PagedMode(
            dtype, self.node.outputs[0].dtype, self.keys.kind, self.values.kind, self.has("alibi_slopes"),
            self.has("sinks"), self.has("qq_bias"), self.has("token_type_ids"), bool(attrs["scores"]),
            self.has("xattention_threshold"),
        )  # fmt: skip
        width = self.named["query"].shape[1]
        group = width // (self.keys.heads * self.keys.size) if isinstance(width, int) else 1
        self.tall = ceil_div(group, ceil_div(group, MOST_TALL) or 1) or 1
        # keys, or vectors of values, at a time: enough sums to hide the latency of multiply-adds
        ahead = min(4, (16 if self.lanes == 16 else 8) // self.tall)
        vectors = ceil_div(self.values.size, self.lanes)
        across = next((n for n in range(ahead, 1, -1) if vectors % n == 0), ahead)
        ragged = self.keys.size % self.lanes > 0 or self.values.size % (self.lanes * across) > 0
        self.rows = paged_rows(
            mode=mode, tall=self.tall, ahead=ahead, across=across, grouped=self.values.group > 0,
            ragged=ragged, lanes=self.lanes,
        )  # fmt: skip
        self.tiles = None
        unit = unit_format(attrs["precision"], self.target)
        self.on_unit = unit is not None
        tiled = not self.keys.tokens % self.lanes and not self.target.is_gpu  # which has no tiles
        scoring = mode._replace(out="", vkind="", sinking=False, summed=False)
        self.scores = None
        if mode.summed:
            self.scores = paged_scores(mode=scoring, rounded=tiled and self.on_unit, tall=1, lanes=self.lanes)
        if tiled and unit is not None:
            from ovjit_ops.attention.cpu_paged_unit import unit_kernel  # few CPUs have a matrix unit

            self.tiles = unit_kernel(self.target, unit, mode)
        elif tiled:
            self.tiles = tiles_kernel(self.target, mode, self.values.size % self.width > 0)
        self.merge = paged_merge(mode=PagedMode(out=mode.out, summed=mode.summed))
        self.write = paged_write(T=dtype, kind=mode.kind, vkind=mode.vkind) if attrs["writing"] else None
        self.rotate = paged_rotate(kind=mode.kind) if self.has("rotated_block_indices") else None
        self.sparse = paged_sparse(T=dtype) if mode.sparse else None
        optional = (self.sparse, self.tiles, self.write, self.scores, self.rotate)
        self.kernels = (self.rows, self.merge, *(k for k in optional if k is not None))

    def has(self, name: str) -> bool:
        """Whether an input may have elements."""
        shape = self.named[name].shape
        return shape is None or 0 not in shape

    def pack(self, constants: Constants) -> None:
        super().pack(constants)
        ramp = np.arange(self.node.attrs["part"] * self.keys.tokens, dtype=np.float32)
        self.ramp = constants.add(ramp, "distances of keys").offset
        self.zeros = constants.add(np.zeros(TILE_COLUMNS * 2, np.float32), "attention zeros").offset

    def plan(self, planner: Planner) -> None:
        y = planner.row_major_output(self.node.outputs[0])
        attrs = self.node.attrs
        q, k, v = (self._rows(planner, n) for n in ("query", "key", "value"))
        tables = {n: planner.contiguous(self.named[n]) for n in ("table", "block_indices", "scale", "window")}
        caches = {n: self._cache(planner, n) for n in ("key_cache", "value_cache")}
        for view in caches.values():
            planner.written_inputs.add(view.buffer)
        sequences, tokens = planner.shape(self.named["past_lens"])[0], q.shape[0]
        layout = sizes(
            sequences, tokens, planner.shape(self.named["block_indices"])[0], self.keys.tokens,
            attrs["part"], attrs["rows"],
        )  # fmt: skip
        group = q.shape[1] // (self.keys.heads * self.keys.size)
        shared: dict[str, Any] = {
            "table": tables["table"].ptr, "entries": tables["block_indices"].ptr,
            "keys": caches["key_cache"].ptr, "values": caches["value_cache"].ptr,
            "heads": self.keys.heads, "group": group, "key_size": self.keys.size,
            "value_size": self.values.size,
            "block": self.keys.tokens, "k_row": self.keys.row, "v_row": self.values.row,
            "k_head": self.keys.bytes, "v_head": self.values.bytes,
            "k_block": self.keys.bytes * self.keys.heads, "v_block": self.values.bytes * self.values.heads,
            "v_group": self.values.group or self.values.size,
            "u_step": ceil_div(max(self.keys.size, self.values.size) * 4, ALIGNMENT) * ALIGNMENT,
            "y": y.ptr, "y_row": y.strides[0], "q": q.ptr, "q_row": q.strides[0], "k": k.ptr, "v": v.ptr,
            "x_row": k.strides[0], "w_row": v.strides[0], "part": attrs["part"],
            "scale": tables["scale"].ptr, "window": tables["window"].ptr,
            "writes_at": layout["writes_at"], "ramp": planner.constants.at(self.ramp),
        }  # fmt: skip
        reads = [*tables.values(), q]
        if self.rotate is not None:
            self._rotate(planner, self.rotate, shared, caches["key_cache"])
        if self.write is not None:
            planner.need_scratch((self.keys.tokens + 1) * shared["u_step"])
            planner.step(
                self.write, shared, layout["writes"] * self.keys.heads, [*tables.values(), k, v],
                list(caches.values()), product(k.shape) + product(v.shape),
            )  # fmt: skip
        self._attend(planner, shared, layout, reads, list(caches.values()), y, sequences)

    def _attend(
        self, planner: Planner, shared: dict[str, Any], layout: dict[str, Any], reads: list[View],
        caches: list[View], y: View, sequences: Any,
    ) -> None:  # fmt: skip
        """Add the steps that compute attention. They follow the writes of keys and values."""
        attrs, group = self.node.attrs, shared["group"]
        for name, at in _OPTIONAL.items():
            shared[at] = shared["scale"]
            if self.has(name):
                view = planner.contiguous(self.named[name])
                reads.append(view)
                shared[at] = view.ptr
        self._choose(planner, shared, reads, sequences)
        sums = planner.allocate((y.shape[0] if self.scores is not None else 0, self.keys.heads * group, 2), 4)
        shared["sums"] = sums.ptr
        flops = 2.0 * self.keys.tokens * group * self.keys.heads * (shared["key_size"] + shared["value_size"])
        flops *= planner.shape(self.named["block_indices"])[0]
        if self.tiles is not None:
            columns = max(1, TILE_COLUMNS // self.keys.tokens) * self.keys.tokens
            lain = self._scratch(planner, attrs["rows"] * group, columns, tiles=True)
            values = shared | lain | {"number_at": 2, "items_at": layout["many_at"]}
            values |= {"some": columns // self.keys.tokens, "zeros": planner.constants.at(self.zeros)}
            chunks = layout["many"] * self.keys.heads
            planner.step(self.tiles, values, chunks, [*reads, *caches], [y, sums], flops * attrs["rows"])
        rows = attrs["short_rows"] if self.tiles is not None else max(attrs["rows"], attrs["short_rows"])
        count = ceil_div(rows * group, self.tall) * self.tall
        shared |= self._scratch(planner, count, attrs["part"] * self.keys.tokens)
        slot = attrs["short_rows"] * group * (shared["o_step"] + 8)
        partial = planner.allocate((layout["few"], self.keys.heads, slot), 1)
        shared |= {"partial": partial.ptr, "slot_size": slot}
        for number, items in ((1, "few"), (2, "many")):
            if items == "few" or self.tiles is None:
                values = shared | {"number_at": number, "items_at": layout[f"{items}_at"]}
                chunks = layout[items] * self.keys.heads
                planner.step(self.rows, values, chunks, [*reads, *caches], [y, partial, sums], flops)
        merging = [reads[0], partial]
        planner.step(self.merge, shared, sequences * self.keys.heads, merging, [y, sums], y.count)
        if self.scores is not None:
            entries = planner.shape(self.named["block_indices"])[0]
            self._score(planner, self.scores, shared, [*reads, *caches, sums], sequences, entries)

    def _score(
        self, planner: Planner, kernel: Kernel, shared: dict[str, Any], reads: list[View], sequences: Any,
        entries: Any,
    ) -> None:  # fmt: skip
        """Add the step that sums the weights of keys, in a buffer for the tokens of all listed blocks."""
        scores, count = (planner.row_major_output(v) for v in self.node.outputs[1:3])
        recent, recents = shared["scale"], 0
        if self.has("score_aggregation_window"):
            view = planner.contiguous(self.named["score_aggregation_window"])
            reads.append(view)
            recent, recents = view.ptr, view.shape[0] if view.shape else 1
        line = shared["q_step"]  # after a query
        offsets = {"s_at": line, "u_at": line + self.keys.tokens * 4 + ALIGNMENT}
        planner.need_scratch(offsets["u_at"] + (self.keys.tokens + 1) * shared["u_step"] + ALIGNMENT)
        outputs = {"y": scores.ptr, "count": count.ptr, "recent": recent, "recents": recents}
        outputs["short_rows"] = self.node.attrs["short_rows"]
        values = shared | offsets | outputs | {"sequences": sequences}
        work = 2.0 * entries * self.keys.tokens * shared["heads"] * shared["group"] * shared["key_size"]
        chunks = sym_max(entries, 1)
        planner.step(kernel, values | {"listed": entries}, chunks, reads, [scores, count], work)

    def _choose(self, planner: Planner, shared: dict[str, Any], reads: list[View], sequences: Any) -> None:
        """Add the step that selects XAttention's blocks."""
        shared |= {"selected": shared["scale"], "side": 0}
        if self.sparse is None:
            return
        tokens, heads = planner.shape(self.named["query"])[0], self.keys.heads * shared["group"]
        side = tokens // LEAST_BLOCK + 1
        selected = planner.allocate((HEADER + side * side * heads,), 1)
        views = [planner.contiguous(self.named[n]) for n in SPARSE]
        names = ("threshold", "block_size", "strides")
        arguments: dict[str, Any] = dict(zip(names, (v.ptr for v in views), strict=True))
        sums_at = tokens * 4 + 256
        planner.need_scratch(sums_at + side * 4 + 256)
        shared |= {"selected": selected.ptr, "side": side}
        arguments["thresholds"] = views[0].shape[0] if views[0].shape else 1
        values = shared | arguments | {"sequences": sequences, "queries": heads, "sums_at": sums_at}
        keys = self._rows(planner, "key")
        work = 1.0 * tokens * tokens * self.keys.size
        planner.step(self.sparse, values, side * heads, [*reads, *views, keys], [selected], work)
        reads.append(selected)

    def _rotate(self, planner: Planner, kernel: Kernel, shared: dict[str, Any], cache: View) -> None:
        """Add the step that rotates cached keys in place."""
        views = {n: planner.contiguous(self.named[n]) for n in ROTATION}
        blocks, deltas, angles = views.values()
        each = deltas.shape[1] if len(deltas.shape) > 1 else 1
        pointers = {"rotated": blocks.ptr, "deltas": deltas.ptr, "angles": angles.ptr, "each": each}
        planner.need_scratch((self.keys.tokens + 2) * shared["u_step"])
        chunks = blocks.shape[0] * self.keys.heads
        planner.step(kernel, shared | pointers, chunks, [*views.values()], [cache], cache.count)

    def _scratch(self, planner: Planner, count: int, columns: int, tiles: bool = False) -> dict[str, int]:
        """Row strides and offsets in a chunk's scratch memory, in bytes, for `count` rows and `columns`
        keys."""

        def row(n: int, lanes: int) -> int:
            return ceil_div(n, lanes) * lanes * 4

        lanes, size, value_size = self.lanes, self.keys.size, self.values.size
        steps = {
            "q_step": row(size, lanes), "s_step": row(columns, 16), "o_step": row(value_size, 4 * lanes),
            "vp_step": columns * self.width * 4,
        }  # fmt: skip
        unpacked = ceil_div(max(size, value_size) * 4, ALIGNMENT) * ALIGNMENT
        sizes_of = {
            "q_at": count * steps["q_step"], "s_at": count * steps["s_step"],
            "o_at": count * steps["o_step"], "m_at": count * 4 + 64, "l_at": count * 4 + 64,
            "u_at": (self.keys.tokens + 1) * unpacked, "less_at": count * 4 + ALIGNMENT,
            "c_at": count * steps["q_step"],
            "p_at": self.tall * lanes * lanes * 4 if lanes <= MOST_FOLDED else 0,
        }  # fmt: skip
        unit = tiles and self.on_unit
        at = ceil_div(count, tile_heights(self.target, F32)[0]) * TABLE_BYTES if tiles and not unit else 0
        if unit:
            from ovjit.codegen.cpu.amx import ROW_BYTES, ROWS

            def lines_of(n: int) -> int:
                """Bytes of n bf16 elements, padded to whole lines."""
                return ceil_div(2 * n, ROW_BYTES) * ROW_BYTES

            rows = ceil_div(count, ROWS) * ROWS
            steps |= {"q_step": lines_of(size), "s_step": row(columns, 32) + ROW_BYTES}
            steps |= {"n_step": lines_of(max(size, value_size)), "vp_step": lines_of(columns) * self.width}
            sizes_of |= {name: rows * steps[f"{name[0]}_step"] for name in ("q_at", "s_at", "o_at")}
            sizes_of |= {"n_at": self.keys.tokens * steps["n_step"]}
            size = lines_of(size) // WORD
        if tiles:
            sizes_of["kp_at"] = ceil_div(columns, self.width) * size * self.width * 4
            sizes_of["vp_at"] = ceil_div(value_size, self.width) * steps["vp_step"]
        offsets = {}
        for name, bytes_of in sizes_of.items():
            at = ceil_div(at, ALIGNMENT) * ALIGNMENT
            offsets[name] = at
            at += bytes_of
        planner.need_scratch(at + 64)
        return steps | offsets

    def _rows(self, planner: Planner, name: str) -> View:
        """The view [tokens, ...] of an input with contiguous rows."""
        return planner.with_layout(self.named[name], Layout(range(2)))

    def _cache(self, planner: Planner, name: str) -> View:
        """The view of the caller's cache. Raises NotNative if it is not contiguous: writes to a copy would be
        lost."""
        view = planner.view(self.named[name])
        if not view.is_contiguous:
            raise NotNative
        return view


class PagedGuard(Lowering):
    """One step of one chunk. It validates the indices of rotated blocks, angles and pairs of queries."""

    def set_up(self) -> None:
        self.kernel = paged_guard()

    def plan(self, planner: Planner) -> None:
        begins, rotated, deltas, pairs_at = (planner.contiguous(v) for v in self.node.inputs[:4])
        angles, pairs, cache = (planner.shape(v) for v in self.node.inputs[4:7])
        done = planner.row_major_output(self.node.output)
        attrs = self.node.attrs
        rotations, size = rotated.shape[0] if attrs["rotating"] else 0, attrs["size"]
        values = {
            "begins": begins.ptr, "rotated": rotated.ptr, "deltas": deltas.ptr, "pairs_at": pairs_at.ptr,
            "done": done.ptr, "sequences": begins.shape[0] - 1, "rotations": rotations,
            "cache_blocks": cache[0],
            "block": attrs["block"], "moved": deltas.shape[0], "size": size, "angles": product(angles),
            "each": deltas.shape[1] if len(deltas.shape) > 1 else 1,
            "row": angles[1] if len(angles) > 1 else size,
            "pairs": pairs[0] if attrs["paired"] else -1,
        }  # fmt: skip
        planner.step(self.kernel, values, 1, [begins, rotated, deltas, pairs_at], [done])
