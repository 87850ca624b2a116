"""States of recurrent layers in blocks of a table that the caller owns, for several sequences at once.

The tokens of all sequences are concatenated. A sequence begins with the state in the first of its blocks, and
stores states to the following ones. Block n keeps the state after n * `cache_interval` tokens, counted from
the last multiple of the interval before the new tokens. The last used block keeps the state after the last
token. With an interval of 0 or less, only the last state is kept, in the second block; PagedSelectiveSSM
keeps none. States without a block are not kept; PagedSelectiveSSM rejects such lists.

Models have PagedGatedDeltaNet, PagedSelectiveSSM and PagedCausalConv1D. A compiled model has one check of all
indices (`PagedStatesGuard`), which precedes every write, and `PagedStates`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph.op import Bool, Float, Str, TensorType, op
from ovjit.graph.shapes import bounds
from ovjit_ops.common.dims import Dims, unify
from ovjit_ops.elementwise.arithmetic import REALS

#: The inputs after tokens and table, and their dimensions: S sequences, X = S + 1, E block indices.
TABLES = {
    "subsequence_begins": "X", "block_indices": "E", "block_indices_begins": "X", "past_lens": "S",
    "cache_interval": "S",
}  # fmt: skip
#: Return code of the native check -> error.
FAULTS = {
    14: "subsequence_begins and block_indices_begins should increase from 0 to the number of tokens "
    "and within block_indices",
    15: "block_indices is outside of the table of states, a sequence with new tokens has too few "
    "blocks, or a past is negative",
}


def check_states(
    begins: Any, entries: Any, ends: Any, past: Any, interval: Any, tokens: Any, *tables: Any,
    all_kept: bool = False,
) -> None:  # fmt: skip
    """Raise InferenceError for indices of tokens or blocks that are out of range, and for sequences with
    fewer than two blocks. `all_kept`: also for fewer blocks than states to keep."""
    table_blocks = min(len(x) for x in tables)
    rising = begins[0] == ends[0] == 0 and all((x[1:] >= x[:-1]).all() for x in (begins, ends))
    if not rising or begins[-1] != len(tokens) or ends[-1] > len(entries):
        raise InferenceError(f"paged states: {FAULTS[14]}")
    every, new = np.maximum(interval, 1).astype(np.int64), np.diff(begins)
    states = np.where(all_kept & (interval > 0), -(-(past % every + new) // every), 1)
    short = (new > 0) & (np.diff(ends) <= states)
    if short.any() or (past < 0).any() or (entries < 0).any() or (entries >= table_blocks).any():
        raise InferenceError(f"paged states: {FAULTS[15]}")


def _sequences(
    last: bool, begins: Any, entries: Any, ends: Any, past: Any, interval: Any
) -> Iterator[tuple[int, int, dict[int, int]]]:
    """Yield for each sequence with new tokens: the block of its first state, its first token, and token ->
    block that keeps the state after it, or -1. `last`: without an interval, the last state is kept."""
    for s in range(len(past)):
        first, end, at = int(begins[s]), int(begins[s + 1]), int(ends[s])
        every, span, new = int(interval[s]), int(ends[s + 1]) - at, end - first
        blocks = dict.fromkeys(range(first, end), -1)
        for t in range(first, end):
            done = t - first + 1 + (int(past[s]) % every if every > 0 else 0)
            number = -(-done // every) if every > 0 else int(last)
            boundary = every > 0 and done % every == 0
            if 0 < number < span and (boundary or t == end - 1):
                blocks[t] = int(entries[at + number])
        if new:
            yield int(entries[at]), first, blocks


def delta_states(
    q: Any, k: Any, v: Any, table: Any, gate: Any, beta: Any, *tables: Any, unit: bool,
    eps: tuple[float, float],
) -> np.ndarray:  # fmt: skip
    """PagedGatedDeltaNet in f32. Updates `table` in place."""
    q, k, v, gate, beta = (x.astype(np.float32) for x in (q, k, v, gate, beta))
    if unit:
        squares = ((x * x).sum(-1, keepdims=True) for x in (q, k))
        q, k = (x / np.sqrt(n + np.float32(e)) for x, n, e in zip((q, k), squares, eps, strict=True))
    q, k = (np.repeat(x, v.shape[1] // x.shape[1], 1)[:, :, None] for x in (q, k))
    out = np.zeros_like(v)
    for block, _, blocks in _sequences(True, *tables):
        state = table[block].astype(np.float32)
        for t, to in blocks.items():
            state = state * np.exp(gate[t])[:, None, None]
            change = (v[t] - (state * k[t]).sum(-1)) * beta[t][:, None]
            state = state + change[:, :, None] * k[t]
            out[t] = (state * q[t]).sum(-1) / np.float32(math.sqrt(q.shape[-1]))
            if to >= 0:
                table[to] = state
    return out


def space_states(
    a: Any, dt: Any, b: Any, x: Any, c: Any, table: Any, *tables: Any
) -> np.ndarray:  # fmt: skip
    """PagedSelectiveSSM in f32. Updates `table` in place."""
    a, dt, b, x, c = (n.astype(np.float32) for n in (a, dt, b, x, c))
    b, c = (np.repeat(n, x.shape[1] // n.shape[1], 1)[:, :, None] for n in (b, c))
    out = np.zeros_like(x)
    for block, _, blocks in _sequences(False, *tables):
        state = table[block].astype(np.float32)
        for t, to in blocks.items():
            state = state * np.exp(a * dt[t])[:, None, None] + (x[t] * dt[t][:, None])[:, :, None] * b[t]
            out[t] = (state * c[t]).sum(-1)
            if to >= 0:
                table[to] = state
    return out


def window_states(x: Any, table: Any, weights: Any, bias: Any, *tables: Any) -> np.ndarray:
    """PagedCausalConv1D in f32. Updates `table` in place."""
    x, weights = x.astype(np.float32), weights.astype(np.float32)[:, 0]
    out = np.zeros_like(x)
    for block, _, blocks in _sequences(True, *tables):
        window = table[block].astype(np.float32)
        for t, to in blocks.items():
            window = np.concatenate([window[:, 1:], x[t][:, None]], 1)
            out[t] = (window * weights).sum(-1) + (bias.astype(np.float32) if bias.size else 0)
            if to >= 0:
                table[to] = window
    return out


def _fit(inputs: dict[str, Any], **dimensions: str) -> Dims:
    """The dimensions of an operation's inputs, given by name. Raises ModelError if they do not fit."""
    dims = unify(REALS, **{name: (inputs[name], letters) for name, letters in dimensions.items()})
    for name, letters in TABLES.items():
        check(inputs[name].dtype in ("i32", "dynamic"), f"{name} should be i32, not {inputs[name]}")
        dims.fit(name, inputs[name], letters)
    (low, high), (least, most) = bounds(dims["S"]), bounds(dims["X"])
    fits = (most is None or low < most) and (high is None or least <= high + 1)
    check(fits, f"begins should have one element more than there are sequences ({dims['S']})")
    return dims


def _check_groups(heads: Any, groups: Any) -> None:
    if isinstance(heads, int) and isinstance(groups, int):
        check(groups and heads % groups == 0, f"{heads} heads are not a multiple of {groups}")


@op("PagedGatedDeltaNet", opset=1, plugin="extension", stateful=True, types=REALS, role="states")
class PagedGatedDeltaNet:
    """GatedDeltaNet with states [heads, value, key] in blocks of a table. `use_qk_l2norm`: queries and keys
    are normalized to length 1 first."""

    def infer(
        query, key, value, recurrent_state_table, gate, beta, subsequence_begins, block_indices,
        block_indices_begins, past_lens, cache_interval, *, use_qk_l2norm: Bool = False,
        q_l2_norm_eps: Float = 1e-6, k_l2_norm_eps: Float = 1e-6,
    ):  # fmt: skip
        dims = _fit(
            locals(), query="THK", key="THK", value="TGV", recurrent_state_table="BGVK", gate="TG", beta="TG"
        )
        _check_groups(dims["G"], dims["H"])
        return TensorType(value.dtype, dims.shape("TGV"))

    def ref(*inputs, use_qk_l2norm=False, q_l2_norm_eps=1e-6, k_l2_norm_eps=1e-6):
        check_states(*inputs[6:], inputs[0], inputs[3])
        eps = q_l2_norm_eps, k_l2_norm_eps
        return delta_states(*inputs, unit=use_qk_l2norm, eps=eps).astype(inputs[2].dtype)


@op("PagedSelectiveSSM", opset=1, plugin="extension", stateful=True, types=REALS, role="states")
class PagedSelectiveSSM:
    """SelectiveSSM with states in blocks of a table."""

    def infer(
        A, dt, B, x, C, recurrent_state_table, subsequence_begins, block_indices, block_indices_begins,
        past_lens, cache_interval,
    ):  # fmt: skip
        dims = _fit(locals(), A="H", dt="TH", B="TGN", x="THP", C="TGN", recurrent_state_table="BHPN")
        _check_groups(dims["H"], dims["G"])
        return TensorType(x.dtype, dims.shape("THP"))

    def ref(*inputs):
        check_states(*inputs[6:], inputs[1], inputs[5], all_kept=True)
        return space_states(*inputs).astype(inputs[3].dtype)


@op("PagedCausalConv1D", opset=1, plugin="extension", stateful=True, types=REALS, role="states")
class PagedCausalConv1D:
    """A convolution of each channel over its last tokens, which are stored in blocks of a table."""

    def infer(
        input_embeds, conv_state_table, conv_weight, conv_bias, subsequence_begins, block_indices,
        block_indices_begins, past_lens, cache_interval,
    ):  # fmt: skip
        dims = _fit(locals(), input_embeds="TH", conv_state_table="BHK", conv_weight="H1K")
        count = conv_bias.shape[0] if conv_bias.shape else dims["H"]
        fits = not isinstance(count, int) or count in (0, dims["H"]) or not isinstance(dims["H"], int)
        check(fits, f"conv_bias should have one element per channel or none, not {conv_bias}")
        return TensorType(input_embeds.dtype, dims.shape("TH"))

    def ref(*inputs):
        check_states(*inputs[4:], inputs[0], inputs[1])
        return window_states(*inputs).astype(inputs[0].dtype)


def _lower_guard(group):
    from ovjit_ops.recurrent.cpu_paged_states import PagedStatesGuard

    return PagedStatesGuard.of(group)


@op("PagedStatesGuard", internal=True, lower=_lower_guard)
class PagedStatesGuard:
    """Checks all indices of tokens and of blocks of the tables. Its output has no meaning."""

    def infer(begins, entries, ends, past, interval, tokens, *tables, all_kept: Bool = False):
        return TensorType("i64", (1,))

    def ref(*inputs, all_kept=False):
        check_states(*inputs, all_kept=all_kept)
        return np.zeros(1, np.int64)


def _lower(group):
    from ovjit_ops.recurrent.cpu_paged_states import lower_paged_states

    return lower_paged_states(group)


@op("PagedStates", internal=True, lower=_lower, stateful=True, ulp=64)
class PagedStates:
    """One of the operations above. The last input is the output of the guard, so that the check precedes it.
    `stored`: the table's element type."""

    def infer(
        *inputs, what: Str, stored: Str = "f32", unit: Bool = False, q_eps: Float = 1e-6,
        k_eps: Float = 1e-6,
    ):  # fmt: skip
        if what == "delta":
            return PagedGatedDeltaNet.infer(*inputs[:-1])
        return (PagedSelectiveSSM if what == "space" else PagedCausalConv1D).infer(*inputs[:-1])

    def ref(*inputs, what, stored="f32", unit=False, q_eps=1e-6, k_eps=1e-6):
        if what == "delta":
            return delta_states(*inputs[:-1], unit=unit, eps=(q_eps, k_eps)).astype(inputs[2].dtype)
        return (space_states if what == "space" else window_states)(*inputs[:-1]).astype(inputs[0].dtype)
