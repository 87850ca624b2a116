"""Random calls of paged attention, of all its inputs at once, against f64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from tests.support.paged_expected import Call, Held, held, turned
from tests.support.paged_op import GIVEN, TABLES, Run, Sizes, model, rows_of

BLOCKS = 24
#: Inputs that may be empty, in the groups that have elements together.
GROUPS = (
    ("alibi_slopes",), ("sinks",), ("score_aggregation_window",), ("token_type_ids",),
    ("qq_bias", "qq_bias_begins"), ("xattention_threshold",),
    ("rotated_block_indices", "rotation_deltas", "rotation_trig_lut"),
    ("adaptive_rkv_evictable_sizes", "adaptive_rkv_diversity_block_set_indices",
     "adaptive_rkv_diversity_block_set_indices_begins"),
)  # fmt: skip
#: What stays the same from call to call, so that it may be a constant.
FIXED = ("alibi_slopes", "sinks", "rotation_trig_lut", "xattention_threshold")
#: How far results may be from f64 of what the caches hold, of the largest.
NEAR = {"f32": 2e-5, "bf16": 3e-2}


class Case:
    """A model of the operation with random sizes and options, and sequences that go on from call to call."""

    def __init__(self, seed: int):
        self.rng = rng = np.random.default_rng(seed)
        self.kind = str(rng.choice(["f32", "f32", "f16", "bf16", "u8", "u4"]))
        self.hint = str(rng.choice(["f32", "f32", "f32", "bf16"]))
        shared, group = int(rng.integers(1, 4)), int(rng.choice([1, 2, 3, 4, 5, 8]))
        block = int(rng.choice([32, 32, 16, 8, 48])) if self.kind[0] != "u" else 32
        size, wide = (int(rng.choice([2, 8, 16, 20, 24, 40, 64, 70, 96])) for _ in range(2))
        self.sizes = Sizes(shared * group, shared, size, wide, block)
        self.outputs = int(rng.integers(1, 4))
        self.used = {g for g in GROUPS if rng.random() < 0.35}
        self.fixed = self._fixed()
        self.tables: list[list[int]] = []
        self.pasts: list[int] = []
        self.free = [int(b) for b in rng.permutation(BLOCKS)]
        self.live = np.zeros((BLOCKS, block), bool)
        given, constants, static = [], {}, {}
        for name, (_, rank) in TABLES.items():
            value = self.fixed.get(name)
            way = rng.choice(["constant", "open", "static"])
            if way == "constant" and (value is not None or not self._used(name)):
                constants |= {name: value} if value is not None else {}
                continue
            given.append(name)
            if way == "static" and (value is not None or not self._used(name)):
                static[name] = list(np.shape(value)) if value is not None else [0] * rank
        self.given = [n for n in given if n not in GIVEN]
        made = model(ov, tuple(self.given), self.outputs, self.sizes, static, **constants)
        self.run = Run(ov, made, self.kind, BLOCKS, self.hint)

    def _used(self, name: str) -> bool:
        return not any(name in g for g in GROUPS if g not in self.used)

    def _fixed(self) -> dict[str, Any]:
        """Numbers that are the same in all calls."""
        rng, heads = self.rng, self.sizes.heads
        angles = rng.uniform(-3, 3, (5, self.sizes.size // 2))
        start = self.sizes.block * int(rng.integers(2))
        found = {
            "scale": float(rng.uniform(0.1, 0.6)),
            "sliding_window": int(rng.choice([0, 0, 1, 5, 40, 2**31 - 1])),
            "xattention_block_size": int(rng.choice([0, 16, 32, 40])), "adaptive_rkv_start_size": start,
            "xattention_stride": int(rng.choice([4, 8, 16])), "alibi_slopes": rng.uniform(0, 0.5, heads),
            "sinks": rng.uniform(-2, 2, (1, heads, 1, 1)),
            "xattention_threshold": [float(rng.uniform(0.1, 1))],
            "rotation_trig_lut": np.concatenate([np.cos(angles), np.sin(angles)], 1),
        }  # fmt: skip
        return {name: value for name, value in found.items() if self._used(name)}

    def _rows(self) -> list[tuple[int, int, list[int]]]:
        """Some sequences: old ones that go on, new ones, and such as share blocks with others."""
        rng, block, rows = self.rng, self.sizes.block, []
        alone = rng.random() < 0.3  # a prompt
        chosen = [i for i in range(len(self.tables)) if rng.random() < 0.7 and not alone]
        for _ in range(1 if alone else int(rng.integers(0, 3))):
            whole = [(i, p // block) for i, p in enumerate(self.pasts) if p >= block]
            chosen.append(len(self.tables))
            self.tables.append([])
            self.pasts.append(0)
            if whole and rng.random() < 0.3 and not alone:
                other, many = whole[rng.integers(len(whole))]
                self.tables[-1] = self.tables[other][:many]
                self.pasts[-1] = many * block
        for i in chosen:
            past, new = self.pasts[i], int(rng.choice([0, 1, 1, 2, 4, 5, 17, 70]))
            needed = -(-(past + new) // block)
            if needed - len(self.tables[i]) > len(self.free):
                new, needed = 0, -(-past // block)
            while len(self.tables[i]) < needed:
                self.tables[i].append(self.free.pop())
            table = [-1 if b < past // block and rng.random() < 0.1 else x
                     for b, x in enumerate(self.tables[i][:needed])]  # fmt: skip
            rows.append((past, new, table + [-1] * int(rng.integers(2))))
            self.pasts[i] = past + new
        return rows

    def _more(self, rows: list[tuple[int, int, list[int]]]) -> dict[str, Any]:
        """Options of a call with elements."""
        rng, tokens = self.rng, sum(new for _, new, _ in rows)
        more: dict[str, Any] = dict(self.fixed)
        if GROUPS[2] in self.used:
            many = 1 if rng.random() < 0.3 else len(rows)
            more["score_aggregation_window"] = rng.choice([-1, 0, 1, 3, 100], many)
        if GROUPS[3] in self.used:
            more["token_type_ids"] = rng.random(tokens) < 0.7
        if GROUPS[4] in self.used:
            pairs = [rng.random((n, n)) < (0.6 if rng.random() < 0.7 else 2) for _, n, _ in rows]
            pairs = [x if rng.random() < 0.7 else x[:0] for x in pairs]
            more["qq_bias"] = np.concatenate([np.zeros(0), *(x.reshape(-1) for x in pairs)])
            more["qq_bias_begins"] = np.cumsum([0, *(x.size for x in pairs)])
        if GROUPS[6] in self.used:
            whole = np.flatnonzero(self.live.all(1))
            more["rotated_block_indices"] = rng.permutation(whole)[: int(rng.integers(3))]
            shape = len(more["rotated_block_indices"]), int(rng.choice([1, self.sizes.block]))
            more["rotation_deltas"] = rng.integers(0, 5, shape)
        if GROUPS[7] in self.used:
            more |= self._evictable(rows)
        return more

    def _evictable(self, rows: list[tuple[int, int, list[int]]]) -> dict[str, Any]:
        """Of whole blocks that nothing is written to."""
        block, first = self.sizes.block, self.fixed.get("adaptive_rkv_start_size", 0) // self.sizes.block
        sizes, sets = [], []
        whole = np.flatnonzero(self.live.all(1))
        for past, new, table in rows:
            if len(whole) > first and self.rng.random() < 0.5:
                sets.append(self.rng.choice(whole, int(self.rng.integers(first + 1, first + 3))).tolist())
                sizes.append((len(sets[-1]) - first) * block)
                continue
            sets.append([])
            there = 0
            while there + 1 <= (past + new) // block and table[there] >= 0:
                there += 1
            sizes.append(max(there - first, 0) * block)
        name = "adaptive_rkv_diversity_block_set_indices"
        begins = np.cumsum([0, *map(len, sets)])
        return {"adaptive_rkv_evictable_sizes": sizes, name: sum(sets, []), f"{name}_begins": begins}

    def _caches(self) -> tuple[Held, Held]:
        keys, values = (np.array(t.data) for t in self.run.caches.values())
        told = self.kind, self.sizes, BLOCKS
        return held(keys, *told, True), held(values, *told, False)

    def call(self) -> None:
        """A call, and what it gives and leaves in the caches."""
        rows, before = self._rows(), self._caches()
        if not rows:
            return
        more = self._more(rows)
        data = rows_of(self.rng, sum(new for _, new, _ in rows), self.sizes)
        empty = {n: np.zeros([0] * TABLES[n][1]) for n in self.given if n not in more}
        got = self.run(rows, data, **empty, **{n: more[n] for n in self.given if n in more})
        after = self._caches()
        self._check_caches(rows, data, more, before, after)
        want = Call(self.sizes, rows, data, more, *(x.numbers for x in after)).outputs()
        for name, mine, true in zip(("out", "scores", "diversity"), got, want, strict=False):
            assert mine.shape == true.shape, name
            far = np.abs(mine - true).max(initial=0) / max(np.abs(true).max(initial=0), 1)
            assert far <= NEAR[self.hint] * (5 if name == "diversity" else 1), (name, far)

    def _check_caches(self, rows: Any, data: Any, more: Any, before: Any, after: Any) -> None:
        """New tokens are where they belong, and nothing else has changed but by rounding."""
        wanted = [turned(before[0].numbers, more), before[1].numbers.copy()]
        at, block = 0, self.sizes.block
        changed = np.zeros(BLOCKS, bool)
        changed[np.asarray(more.get("rotated_block_indices", ()), int)] = True
        for past, new, table in rows:
            for j in range(past, past + new):
                place = table[j // block], j % block
                for cache, given in zip(wanted, data[1:], strict=True):
                    cache[place[0], :, place[1]] = given[at].reshape(self.sizes.shared, -1)
                self.live[place], changed[place[0]] = True, True
                at += 1
        for want, had, got in zip(wanted, before, after, strict=True):
            far = np.abs(got.numbers - want) - got.steps * 1.05 - NEAR[self.hint] * np.abs(want) - 1e-6
            assert far.swapaxes(1, 2)[self.live].max(initial=-1) <= 0
            np.testing.assert_array_equal(got.numbers[~changed], had.numbers[~changed])


#: Seeds of the default suite. They have every type, block, option and window that all seeds have.
SOME = (4, 10, 11, 13, 14, 23)


@pytest.mark.parametrize(
    "seed", [pytest.param(i, marks=() if i in SOME else pytest.mark.long) for i in range(24)]
)
def test_random_calls(seed: int) -> None:
    case = Case(20261123 + seed)
    for _ in range(5):
        case.call()
