"""A target of guided fuzzing for what a server hands to paged attention: the numbers of all 28 inputs."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np

import ovjit
from ovjit.errors import InferenceError, OvjitError
from ovjit_ops.attention.paged_reference import paged_attention
from tests.fuzz.fuzz_models import is_internal
from tests.fuzz.guided_targets import _JSON, Target, tokens_changed
from tests.support.guard_pages import BEFORE, BEHIND, guarded
from tests.support.paged_op import GIVEN, KINDS, TABLES, Sizes, model, rows_of

#: A cache of keys is a page, one of values two.
SIZES, BLOCKS = Sizes(heads=4, shared=2, size=8, wide=16, block=8), 8
DATA = ("query", "key", "value")
#: Elements of an input beyond which it is no input, and reals beyond which answers are not compared.
MOST, LARGE = 2000, 30.0
#: How far answers may be from the reference, of the largest.
NEAR = 1e-4
#: Options that have elements together, small and right.
OPTIONS: tuple[dict[str, Any], ...] = (
    {}, {"sliding_window": 5}, {"alibi_slopes": [0.5, 0.25, 0.125, 0.0625]},
    {"score_aggregation_window": [2, 0, 1]}, {"sinks": [[[[0.5]], [[-1.0]], [[0.0]], [[2.0]]]]},
    {"rotated_block_indices": [4, 1], "rotation_deltas": [[1], [0]],
     "rotation_trig_lut": [[0.5] * 8, [0.25] * 8]},
    {"token_type_ids": [0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1]},
    {"qq_bias": [1, 0, 1, 1] * 4, "qq_bias_begins": [0, 0, 16, 16]},
    {"adaptive_rkv_evictable_sizes": [8, 0, 0], "adaptive_rkv_diversity_block_set_indices": [3, 1],
     "adaptive_rkv_diversity_block_set_indices_begins": [0, 2, 2, 2]},
)  # fmt: skip
#: Sequences: a prompt, one that goes on in the midst of a block, one new token.
ROWS: dict[str, Any] = {
    "past_lens": [0, 11, 16], "subsequence_begins": [0, 7, 11, 12], "block_indices": [5, 2, 0, 7, 1, 3],
    "block_indices_begins": [0, 1, 3, 6], "max_context_len": 17,
}  # fmt: skip
PROMPT: dict[str, Any] = {
    "past_lens": [0], "subsequence_begins": [0, 32], "block_indices": [6, 0, 4, 2],
    "block_indices_begins": [0, 4], "max_context_len": 32, "xattention_threshold": [0.6],
    "xattention_block_size": 16, "xattention_stride": 4,
}  # fmt: skip


def arrays_of(call: Any) -> dict[str, np.ndarray] | None:
    """The inputs behind the caches, empty or 0 where nothing is said; None for what cannot be one."""
    found = {}
    for name, (kind, rank) in TABLES.items():
        value = call.get(name, 0.35 if name == "scale" else 0 if rank == 0 else np.zeros([0] * rank))
        try:
            array = np.array(value)
            if kind != "f32" and array.dtype.kind == "f" and array.size:
                return None
            made = array.astype(KINDS[kind])
        except (ValueError, TypeError, OverflowError):
            return None
        if array.dtype.kind not in "iufb" or array.ndim != rank or array.size > MOST:
            return None
        found[name] = made
    return found


def filled(arrays: dict[str, np.ndarray], tokens: int) -> dict[str, np.ndarray]:
    """What the options mean: what is missing is neutral. InferenceError where there are not as many begins as
    sequences, or an option has neither no elements, nor one for each head, token or sequence, nor one for all
    sequences."""
    made, sequences = dict(arrays), len(arrays["past_lens"])
    for name in ("subsequence_begins", "block_indices_begins"):
        if len(made[name]) != sequences + 1:
            raise InferenceError(name)
    counts = {
        "alibi_slopes": (SIZES.heads,), "sinks": (SIZES.heads,), "token_type_ids": (tokens,),
        "score_aggregation_window": (sequences, 1), "xattention_threshold": (sequences, 1),
    }  # fmt: skip
    for name, fitting in counts.items():
        if made[name].size not in (0, *fitting):
            raise InferenceError(name)
    own = made["qq_bias_begins"]
    if own.size:  # the begins of further sequences are 0
        made["qq_bias_begins"] = np.concatenate([own, np.zeros(sequences + 1, own.dtype)])[: sequences + 1]
    return made


def alone(arrays: dict[str, np.ndarray]) -> bool:
    """Whether each block that is written to is listed once, so that no order of sequences changes it."""
    listed: list[int] = []
    written: list[int] = []
    begins, ends = arrays["subsequence_begins"], arrays["block_indices_begins"]
    for s, past in enumerate(arrays["past_lens"].tolist()):
        new = int(begins[s + 1] - begins[s])
        own = arrays["block_indices"][ends[s] : ends[s + 1]].tolist()[: -(-(past + new) // SIZES.block)]
        listed += own
        written += own[past // SIZES.block :] if new else []
    return all(listed.count(block) == 1 for block in written)


class Paged(Target):
    """JSON of one call: its sequences and options, and of how many tokens queries, keys and values are.

    A call that the reference in NumPy refuses is to be refused, with caches as they were. Other calls give
    what it gives, and leave in the caches what it leaves. Inputs and caches lie beside inaccessible pages."""

    longest = 1 << 12

    def __init__(self) -> None:
        rng = np.random.default_rng(20261124)
        self.rng = rng
        self.first = [
            rng.standard_normal((BLOCKS, SIZES.shared, SIZES.block, n)).astype(np.float32)
            for n in (SIZES.size, SIZES.wide)
        ]
        self.rows = rows_of(rng, 64, SIZES)
        given = tuple(name for name in TABLES if name not in GIVEN)
        self.requests = [self._request(names) for names in (given, ())]
        self.given = given

    @staticmethod
    def _request(given: tuple[str, ...]) -> Any:
        config = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "INFERENCE_NUM_THREADS": 1}
        made = model(ovjit, given, 3 if given else 1, SIZES)
        return ovjit.Core().compile_model(made, "CPU", config).create_infer_request()

    def seeds(self) -> list[bytes]:
        calls = [{**ROWS, **more} for more in OPTIONS] + [{**ROWS, "plain": True}, PROMPT]
        return [json.dumps(call).encode() for call in calls]

    def check(self, data: bytes) -> str:
        try:
            call = json.loads(data)
        except (ValueError, RecursionError):
            return ""
        arrays = arrays_of(call) if isinstance(call, dict) else None
        if arrays is None:
            return ""
        plain = bool(call.get("plain"))
        if plain:
            empty = arrays_of({})
            assert empty is not None
            arrays = {n: arrays[n] if n in GIVEN else empty[n] for n in TABLES}
            arrays["scale"] = np.float32(SIZES.size**-0.5)
        return self._both(arrays, self._tokens(call), plain, BEHIND if len(data) % 2 else BEFORE)

    def _tokens(self, call: dict[str, Any]) -> list[np.ndarray]:
        """Queries, keys and values: as many rows as the call says, or as its sequences have."""
        begins = call.get("subsequence_begins")
        last = begins[-1] if isinstance(begins, list) and begins else 0
        counts = [call.get(name, last) for name in DATA]
        limit = len(self.rows[0])
        whole = [min(max(n, 0), limit) if isinstance(n, int) else 0 for n in counts]
        return [rows[:n] for rows, n in zip(self.rows, whole, strict=True)]

    def _both(self, arrays: dict[str, Any], rows: list[np.ndarray], plain: bool, side: str) -> str:
        """What differs between the compiled operation and its reference."""
        caches = [guarded(array, side) for array in self.first]
        want = [array.copy() for array in self.first]
        outputs: Any = None
        try:
            with np.errstate(all="ignore"):
                if len({len(x) for x in rows}) > 1:
                    raise InferenceError("other tokens")
                outputs = paged_attention(*rows, *want, *filled(arrays, len(rows[0])).values(), diverse=True)
        except InferenceError:
            pass
        names = GIVEN if plain else TABLES
        given = dict(zip(DATA, rows, strict=True)) | {n: arrays[n] for n in names}
        given = {name: guarded(np.asarray(array), side) for name, array in given.items()}
        given |= {"key_cache.0": caches[0], "value_cache.0": caches[1]}
        try:
            found = self.requests[plain].infer(given, share_inputs=True)
        except OvjitError as error:
            return self._refused(error, outputs, caches)
        if outputs is None:
            return "what the reference refuses is computed"
        reals = (np.abs(x) for x in arrays.values() if x.dtype == np.float32)
        if alone(arrays) and all((x <= LARGE).all() for x in reals):
            return _difference([*found.values()] + caches, [*outputs[: len(found)], *want])
        return ""

    def _refused(self, error: OvjitError, outputs: Any, caches: list[np.ndarray]) -> str:
        if is_internal(str(error)):
            return f"{type(error).__name__}: {error}"
        if outputs is not None:
            return f"what the reference computes is refused: {error}"
        same = all(np.array_equal(a, b) for a, b in zip(caches, self.first, strict=True))
        return "" if same else f"caches have been written to: {error}"

    def mutate(self, data: bytes, most: int, rng: random.Random) -> bytes:  # type: ignore[override]
        """A hostile value, a number's neighbour, an element more or less, or a whole option or none."""
        way = rng.random()
        try:
            call = json.loads(data)
        except (ValueError, RecursionError):
            return data
        if not isinstance(call, dict) or way < 0.2:
            return tokens_changed(_JSON, data, most, rng)
        name = rng.choice([*call, *DATA])
        value = call.get(name)
        if way < 0.35:
            call |= rng.choice((*OPTIONS, PROMPT, ROWS))
        elif way < 0.4:
            call.pop(name, None)
        elif name in DATA:
            call[name] = rng.randrange(40)
        elif isinstance(value, list) and value:
            at = rng.randrange(len(value))
            few = [value[at], *rng.sample(value, 1)]
            call[name][at : at + 1] = rng.choice(([], few, [_neighbour(value[at], rng)]))
        else:
            call[name] = _neighbour(value, rng)
        return json.dumps(call).encode()


def _neighbour(value: Any, rng: random.Random) -> Any:
    if isinstance(value, (int, float)):
        return rng.choice((value + 1, value - 1, -1, 0, 2 * value, rng.randrange(40)))
    return [_neighbour(x, rng) for x in value] if isinstance(value, list) else value


def _difference(found: list[Any], wanted: list[Any]) -> str:
    for i, (mine, true) in enumerate(zip(found, wanted, strict=True)):
        if mine.shape != true.shape:
            return f"result {i} has the shape {mine.shape}, not {true.shape}"
        far = np.abs(mine - true).max(initial=0)
        if not far <= NEAR * max(np.abs(true).max(initial=0), 1):
            return f"result {i} is off by {far}"
    return ""
