"""Paged attention in f64, one query and one key after another, and what the bytes of caches stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.support.paged_op import Sizes


class Held(NamedTuple):
    """A cache as numbers [blocks, heads, tokens, size], and how far neighbours of a stored number are."""

    numbers: np.ndarray
    steps: np.ndarray


def held(data: np.ndarray, kind: str, sizes: Sizes, blocks: int, is_key: bool) -> Held:
    """What a cache has."""
    size = sizes.size if is_key else sizes.wide
    shape = blocks, sizes.shared, sizes.block, size
    if kind in ("f32", "f16", "bf16"):
        if kind == "bf16":
            data = (np.ascontiguousarray(data).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        numbers = data.astype(np.float64).reshape(shape)
        return Held(numbers, np.abs(numbers) * {"f32": 2e-7, "f16": 1e-3, "bf16": 8e-3}[kind] + 1e-7)
    raw = np.ascontiguousarray(data).reshape(blocks, sizes.shared, -1).view(np.uint8)
    if is_key:
        scale, zero = _floats(raw[..., : 8 * size]).reshape(blocks, sizes.shared, 2, 1, size).swapaxes(0, 2)
        scale, zero = (x.swapaxes(0, 1) for x in (scale, zero))
        bytes_of = raw[..., 8 * size :].reshape(*shape[:3], -1)
    else:
        rows = raw.reshape(*shape[:3], -1)
        scale, zero = np.moveaxis(_floats(rows[..., :8]), -1, 0)[..., None]
        bytes_of = rows[..., 8:]
    if kind == "u4":
        bytes_of = np.stack([bytes_of >> 4, bytes_of & 15], -1).reshape(shape)
    return Held((bytes_of - zero) * scale, np.broadcast_to(scale, shape))


def _floats(raw: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(raw).view(np.float32).astype(np.float64)


def turned(keys: np.ndarray, more: Mapping[str, Any]) -> np.ndarray:
    """Keys of which those of some blocks are rotated."""
    keys = keys.copy()
    half = keys.shape[-1] // 2
    table = np.asarray(more.get("rotation_trig_lut", ()), np.float32).astype(np.float64)
    for i, block in enumerate(more.get("rotated_block_indices", ())):
        deltas = np.asarray(more["rotation_deltas"])[i]
        for t in range(keys.shape[2]):
            row = table[deltas[t if len(deltas) > 1 else 0]]
            pairs = keys[block, :, t, :half] + 1j * keys[block, :, t, half:]
            pairs *= row[:half] + 1j * row[half:]
            keys[block, :, t] = np.concatenate([pairs.real, pairs.imag], -1)
    return keys


class Call(NamedTuple):
    """One call: sequences (past, new tokens, blocks), their data, options, and the caches after it."""

    sizes: Sizes
    rows: Sequence[tuple[int, int, list[int]]]
    data: Sequence[np.ndarray]
    more: Mapping[str, Any]
    keys: np.ndarray
    values: np.ndarray

    def begins(self) -> list[int]:
        """The first rows of sequences."""
        return [0, *np.cumsum([new for _, new, _ in self.rows]).tolist()]

    def _picture(self, s: int, i: int, j: int) -> bool:
        """Whether new tokens i and j of a sequence and all between them are of pictures."""
        kinds, at = self.more.get("token_type_ids", ()), self.begins()[s]
        return bool(len(kinds)) and all(kinds[at + n] for n in range(min(i, j), max(i, j) + 1))

    def _sees(self, s: int, i: int, j: int) -> bool:
        """Whether new token i of a sequence sees its token at the position j."""
        past, new, table = self.rows[s]
        if table[j // self.sizes.block] < 0:
            return False
        window, place = int(self.more.get("sliding_window", 0)), past + i
        visible = j <= place and (window <= 0 or place - j < window)
        visible = visible or (j >= past and self._picture(s, i, j - past))
        begins = self.more.get("qq_bias_begins", ())
        if j >= past and len(begins) and begins[s + 1] > begins[s]:
            visible = visible and bool(self.more["qq_bias"][begins[s] + i * new + j - past])
        return visible

    def sequence(self, s: int, head: int) -> tuple[np.ndarray, np.ndarray]:
        """The result and the weights of a sequence's new tokens, of one head."""
        past, new, table = self.rows[s]
        block, at = self.sizes.block, self.begins()[s]
        own = head // (self.sizes.heads // self.sizes.shared)
        queries = self.data[0].reshape(-1, self.sizes.heads, self.sizes.size)
        q = queries[at : at + new, head].astype(np.float64)
        places = [(table[j // block], own, j % block) for j in range(past + new)]
        k = np.array([self.keys[p] for p in places]).reshape(len(places), -1)
        v = np.array([self.values[p] for p in places]).reshape(len(places), -1)
        scores = q @ k.reshape(len(places), self.sizes.size).T * float(np.float32(self.more["scale"]))
        if len(self.more.get("alibi_slopes", ())):
            slope = float(np.float32(self.more["alibi_slopes"][head]))
            scores += slope * (np.arange(past + new) - past - np.arange(new)[:, None])
        kept = self._kept(q, head)
        weights = np.zeros_like(scores)
        sinks = np.asarray(self.more.get("sinks", ())).reshape(-1)
        for i in range(new):
            seen = [j for j in range(past + new) if self._sees(s, i, j) and (kept is None or kept[i, j])]
            total = np.exp(float(np.float32(sinks[head]))) if len(sinks) else 0.0
            if seen:
                w = np.exp(scores[i, seen])
                weights[i, seen] = w / (w.sum() + total)
        return weights @ v.reshape(len(places), self.sizes.wide), weights

    def _kept(self, q: np.ndarray, head: int) -> np.ndarray | None:
        """The keys that XAttention computes for each query of a prompt that is alone."""
        threshold = np.asarray(self.more.get("xattention_threshold", ())).reshape(-1)
        each, stride = (int(self.more.get(f"xattention_{n}", 0)) for n in ("block_size", "stride"))
        if len(self.rows) != 1 or self.rows[0][0] or len(q) < 2 or not len(threshold):
            return None
        if each < 16 or stride < 1 or each % stride:
            return None
        own, tokens = head // (self.sizes.heads // self.sizes.shared), len(q)
        k = self.data[1].reshape(len(q), self.sizes.shared, -1)[:, own].astype(np.float64)
        many, blocks = -(-len(q) // stride), -(-len(q) // each)
        rest = np.zeros((many * stride - len(q), q.shape[1]))  # the last group may be a part of one
        q, k = np.concatenate([q, rest]), np.concatenate([k, rest])
        sums = np.zeros((blocks, blocks))
        for i in range(many):
            mine = q[i * stride : (i + 1) * stride][::-1]
            found = [(mine * k[j * stride : (j + 1) * stride]).sum() for j in range(i + 1)]
            w = np.exp(np.array(found) * float(np.float32(self.more["scale"])) / stride)
            for j in range(i + 1):
                sums[i * stride // each, j * stride // each] += w[j] / w.sum()
        kept = np.zeros((tokens, tokens), bool)
        for i in range(blocks):
            chosen = {0, i}
            for j in sorted(range(1, i), key=lambda j: -sums[i, j]):
                if sums[i, list(chosen)].sum() < sums[i].sum() * np.float32(threshold[0]):
                    chosen.add(j)
            for j in chosen:
                kept[i * each : (i + 1) * each, j * each : (j + 1) * each] = True
        return kept

    def outputs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The attention, the weights of keys, and their diversity."""
        out = np.zeros((len(self.data[0]), self.sizes.heads, self.sizes.wide))
        scores: list[np.ndarray] = []
        for s, (past, new, _) in enumerate(self.rows):
            scores.append(np.zeros(past + new))
            recent = np.asarray(self.more.get("score_aggregation_window", ())).reshape(-1)
            last = int(recent[s if len(recent) > 1 else 0]) if len(recent) else 1
            first = 0 if last < 0 else max(new - last, 0)
            for head in range(self.sizes.heads if new else 0):
                at = self.begins()[s]
                out[at : at + new, head], weights = self.sequence(s, head)
                scores[-1] += weights[first:].sum(0)
        different = np.concatenate([np.zeros(0), *self._diversity()])
        width = self.sizes.heads * self.sizes.wide
        return out.reshape(-1, width), np.concatenate([np.zeros(0), *scores]), different

    def _diversity(self) -> Iterator[np.ndarray]:
        """Of each sequence, block and evictable token: minus the sum of what is like it."""
        prefix = "adaptive_rkv_diversity_block_set_indices"
        block, begins = self.sizes.block, self.more.get(f"{prefix}_begins", ())
        first = int(self.more.get("adaptive_rkv_start_size", 0))
        for s, many in enumerate(self.more.get("adaptive_rkv_evictable_sizes", ())):
            table = self.rows[s][2]
            if len(begins) and begins[s + 1] > begins[s]:
                table = self.more[prefix][begins[s] : begins[s + 1]]
            found = np.zeros((many, many))
            for head in range(self.sizes.shared):
                k = np.array([self.keys[table[(first + t) // block], head, t % block] for t in range(many)])
                k = k.reshape(many, self.sizes.size)
                k /= np.sqrt((k**2).sum(-1, keepdims=True) + np.finfo(np.float32).eps)
                near = k @ k.T
                near[np.arange(many), np.arange(many)] = 0
                found += np.where(near < near.mean(-1, keepdims=True), 0, near) if many else 0
            yield -(found / self.sizes.shared).reshape(many // block, block, many).sum(1).reshape(-1)
