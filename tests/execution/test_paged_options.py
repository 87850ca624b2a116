"""The options of paged attention, beside OpenVINO's operation: windows, slopes, sinks, scores, rotation of
cached keys, pairs of queries, diversity of keys."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit as ov
from ovjit.errors import ModelError
from tests.support.paged_expected import Call
from tests.support.paged_op import HEADS, KINDS, PLAIN, SHARED, SIZE, TABLES, Run, Sizes, model, rows_of
from tests.support.sweeps import in_turn, some

SEED = 20261122
#: Sequences: an empty past, a long one, one that begins in the midst of a block.
FIRST = [(0, 40, [5, 2]), (0, 70, [0, 7, 1]), (0, 3, [4])]
SETS = "adaptive_rkv_diversity_block_set_indices"
NEXT = [(40, 1, [5, 2]), (70, 5, [0, 7, 1]), (3, 2, [4])]


def both(given: tuple[str, ...], outputs: int = 1, kind: str = "f32", **constants: Any) -> tuple[Run, Run]:
    return tuple(Run(p, model(p, given, outputs, **constants), kind) for p in (ov, openvino))  # type: ignore[return-value]


def compare(runs: tuple[Run, Run], calls: list[tuple[list[Any], dict[str, Any]]], near: float = 2e-6) -> None:
    """The two give the same, call after call, and leave the same in their caches."""
    rng = np.random.default_rng(SEED)
    for number, (rows, more) in enumerate(calls):
        data = rows_of(rng, sum(r[1] for r in rows))
        for mine, real in zip(*(run(rows, data, **more) for run in runs), strict=True):
            assert mine.shape == real.shape, number
            far = np.abs(mine - real).max(initial=0)
            assert far <= near * max(np.abs(real).max(initial=0), 1), (SEED, number)
    for name, tensor in runs[0].caches.items():
        if tensor.data.dtype == np.float32:
            assert np.abs(tensor.data - runs[1].caches[name].data).max() <= 1e-6, (SEED, name)


@pytest.mark.parametrize("constants", [
    {}, {"sliding_window": 4}, {"sliding_window": 40}, {"alibi_slopes": [0.5, 0.25, 0.1, 0.05]},
    {"sinks": np.linspace(-1, 2, HEADS).reshape(1, HEADS, 1, 1)}, {"scale": 0.7},
    {"sliding_window": 9, "sinks": np.linspace(-1, 2, HEADS).reshape(1, HEADS, 1, 1)},
], ids=lambda c: "+".join(c) or "plain")  # fmt: skip
def test_constants(constants: dict[str, Any]) -> None:
    compare(both((), **constants), [(FIRST, {}), (NEXT, {})])


@pytest.mark.parametrize("kind", some(["bf16", "u8", "u4", "f16", "f32"], 3))
def test_scores_in_bf16_are_weights(kind: str) -> None:
    """Scores are exp(score - largest) / sum. Both are of queries and keys in one precision, or large ones do
    not add up to 1: a matrix unit rounds them to bf16."""
    rng = np.random.default_rng(SEED)
    names = ("score_aggregation_window",)
    run = Run(ov, model(ov, names, 2), kind, hint="bf16")
    for rows in ([(0, 40, [5, 2]), (0, 3, [4])], [(40, 30, [5, 2, 7]), (3, 1, [4])]):
        query, key, value = rows_of(rng, sum(new for _, new, _ in rows))
        _, scores = run(rows, (query * 30, key, value), score_aggregation_window=[-1])
        ends = np.cumsum([past + new for past, new, _ in rows])[:-1]
        for part, (_, new, _) in zip(np.split(scores, ends), rows, strict=True):
            np.testing.assert_allclose(part.sum(), new * HEADS, rtol=1e-3)


@pytest.mark.parametrize("recent", [None, [1, 1, 1], [3, 80, 0], [40, 2, 1]])
def test_scores(recent: Any) -> None:
    given = () if recent is None else ("score_aggregation_window",)
    more = {} if recent is None else {"score_aggregation_window": recent}
    compare(both(given, 2), [(FIRST, more), (NEXT, more)])


@pytest.mark.parametrize("each", [1, 32])
def test_rotation(each: int) -> None:
    rng = np.random.default_rng(SEED)
    angles = rng.uniform(-3, 3, (9, SIZE // 2))
    table = np.concatenate([np.cos(angles), np.sin(angles)], 1)
    none = {"rotated_block_indices": [], "rotation_deltas": np.zeros((0, 1)), "rotation_trig_lut": table}
    some = {**none, "rotated_block_indices": [7, 5], "rotation_deltas": rng.integers(0, 9, (2, each))}
    compare(both(tuple(none)), [(FIRST, none), (NEXT, some)])


def test_pairs_of_queries() -> None:
    rng = np.random.default_rng(SEED)
    none = {"qq_bias": [], "qq_bias_begins": [0, 0, 0, 0]}
    seen = [np.tril(rng.random((n, n)) < 0.5) | np.eye(n, dtype=bool) for _, n, _ in NEXT]
    some = {"qq_bias": np.concatenate([x.reshape(-1) for x in seen]), "qq_bias_begins": [0, 1, 26, 30]}
    compare(both(tuple(none)), [(FIRST, none), (NEXT, some)])


def test_diversity() -> None:
    names = ("adaptive_rkv_start_size", "adaptive_rkv_evictable_sizes", SETS, f"{SETS}_begins")
    more = dict(zip(names, (0, [32, 64, 0], [5, 0, 7], [0, 1, 3, 3]), strict=True))
    compare(both(names, 3), [([(0, 40, [5, 2]), (0, 70, [0, 7, 1]), (0, 3, [4])], more)], 1e-5)


@functools.cache
def three_outputs(names: tuple[str, ...]) -> Run:
    """The model with these inputs, for calls that are refused and leave its caches empty."""
    return Run(ov, model(ov, names, 3))


@pytest.mark.parametrize("name, more", [
    ("qq_bias_begins", {"qq_bias": [1, 1, 1, 1], "qq_bias_begins": [0, 5]}),
    ("qq_bias_begins", {"qq_bias": [1, 1, 1, 1], "qq_bias_begins": [0, 3]}),
    ("rotated_block_indices", {"rotated_block_indices": [8], "rotation_deltas": [[0]],
                               "rotation_trig_lut": np.ones((1, SIZE))}),
    ("rotated_block_indices", {"rotated_block_indices": [0], "rotation_deltas": [[1]],
                               "rotation_trig_lut": np.ones((1, SIZE))}),
    ("rotation_deltas", {"rotated_block_indices": [0, 1], "rotation_deltas": [[0]],
                         "rotation_trig_lut": np.ones((1, SIZE))}),
    ("rotation_deltas", {"rotated_block_indices": [0], "rotation_deltas": [[0] * 5],
                         "rotation_trig_lut": np.ones((1, SIZE))}),
    ("rotation_trig_lut", {"rotated_block_indices": [0], "rotation_deltas": [[0]],
                           "rotation_trig_lut": np.ones((1, SIZE // 2))}),
    *(("alibi_slopes", {"alibi_slopes": [0.1] * n}) for n in (1, 3, 5)),
    *(("sinks", {"sinks": np.ones((1, n, 1, 1))}) for n in (1, 3, 5)),
    *(("token_type_ids", {"token_type_ids": [1] * n}) for n in (1, 3)),
    ("score_aggregation_window", {"score_aggregation_window": [1, 1]}),
    ("xattention_threshold", {"xattention_threshold": [0.5, 0.5]}),
    ("evictable", {"adaptive_rkv_evictable_sizes": [64]}),
    ("evictable", {"adaptive_rkv_evictable_sizes": [5]}),
    ("evictable", {"adaptive_rkv_evictable_sizes": [0, 0]}),
    ("evictable", {"adaptive_rkv_evictable_sizes": [32], f"{SETS}": [8], f"{SETS}_begins": [0, 1]}),
    ("evictable", {"adaptive_rkv_evictable_sizes": [32], f"{SETS}": [1], f"{SETS}_begins": [0, 7]}),
    ("evictable", {"adaptive_rkv_evictable_sizes": [32], f"{SETS}": [1], f"{SETS}_begins": [0]}),
])  # fmt: skip
def test_hostile_numbers_are_refused_before_anything_is_written(name: str, more: dict[str, Any]) -> None:
    run = three_outputs(tuple(more))
    with pytest.raises(RuntimeError, match=name):
        run([(0, 2, [1])], rows_of(np.random.default_rng(SEED), 2), **more)
    assert not any(tensor.data.any() for tensor in run.caches.values())


def test_blocks_that_are_gone_are_not_seen() -> None:
    """-1 in the place of a block before the window, or of invisible keys."""
    rng = np.random.default_rng(SEED)
    run, whole = (Run(ov, model(ov, sliding_window=20)) for _ in range(2))
    first, then = rows_of(rng, 70), rows_of(rng, 1)
    for each in (run, whole):
        each([(0, 70, [3, 1, 6])], first)
    got, want = run([(70, 1, [-1, 1, 6])], then)[0], whole([(70, 1, [3, 1, 6])], then)[0]
    np.testing.assert_array_equal(got, want)
    run = Run(ov, model(ov))
    run([(0, 70, [3, 1, 6])], first)
    got = run([(70, 1, [3, -1, 6])], then)[0].reshape(HEADS, -1)
    keys, values = (np.concatenate([first[i], then[i]]).reshape(71, SHARED, -1) for i in (1, 2))
    kept = np.r_[0:32, 64:71]
    for head in range(HEADS):
        s = keys[kept, head // 2] @ then[0].reshape(HEADS, SIZE)[head] * SIZE**-0.5
        w = np.exp(s - s.max())
        np.testing.assert_allclose(got[head], w / w.sum() @ values[kept, head // 2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "threshold, block, stride, tokens",
    in_turn([
        (0.5, 128, 16, 512), (0.3, 128, 8, 512), (0.6, 64, 8, 512), (1.0, 128, 16, 512),
        (0.3, 32, 16, 493), (0.5, 32, 8, 388), (0.4, 64, 16, 457), (0.5, 128, 16, 507),
    ], 2),
)  # fmt: skip
def test_xattention(threshold: float, block: int, stride: int, tokens: int) -> None:
    """A prompt of whole blocks, and of parts of blocks and of strides."""
    names = ("xattention_threshold", "xattention_block_size", "xattention_stride")
    more = dict(zip(names, ([threshold], block, stride), strict=True))
    runs = tuple(Run(p, model(p, names), blocks=20) for p in (ov, openvino))
    compare(runs, [([(0, tokens, list(range(16, 0, -1)))], more)])  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [0, 4])
def test_tokens_of_pictures(window: int) -> None:
    """They see one another, behind and before; two pictures, and text around them."""
    kinds = [0] * 10 + [1] * 25 + [0] * 5 + [0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 0]
    more = {"token_type_ids": kinds}
    runs = both(("token_type_ids",), sliding_window=window)
    then = [(40, 1, [3, 4]), (12, 1, [0])], {"token_type_ids": [0, 0]}
    compare(runs, [([(0, 40, [3, 4]), (0, 12, [0])], more), then])


@pytest.mark.parametrize("name", ["alibi_slopes", "sinks", "token_type_ids", "qq_bias"])
def test_open_inputs_that_are_given_empty_are_as_absent(name: str) -> None:
    """Kernels read an element of each for every head, token or sequence, whose memory is not there."""
    rng = np.random.default_rng(20261123)
    names = (name, "qq_bias_begins") if name == "qq_bias" else (name,)
    plain, opened = Run(ov, model(ov)), Run(ov, model(ov, names))
    empty = {n: np.zeros([0] * TABLES[n][1]) for n in names}
    for rows in ([(0, 40, [0, 1]), (0, 3, [2])], [(40, 1, [0, 1]), (3, 5, [2])]):
        data = rows_of(rng, sum(row[1] for row in rows))
        np.testing.assert_allclose(opened(rows, data, **empty)[0], plain(rows, data)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("short", [0, 1, 2])
def test_queries_keys_and_values_of_other_tokens_are_refused(short: int) -> None:
    """Rows that are not there would be read from other memory."""
    run, data = Run(ov, model(ov)), list(rows_of(np.random.default_rng(SEED), 40))
    data[short] = data[short][:30]
    with pytest.raises(RuntimeError, match="tokens"):
        run([(0, 40, [1, 2])], data)
    assert not any(tensor.data.any() for tensor in run.caches.values())


@pytest.mark.parametrize("name, value", [
    ("scale", 0.25), ("alibi_slopes", [0.5, 0.25, 0.125, 0.0625]),
    ("sinks", np.array([-1, 0, 1, 2]).reshape(1, HEADS, 1, 1)),
], ids=["scale", "alibi_slopes", "sinks"])  # fmt: skip
def test_constants_of_f16(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a model whose constants are stored in 16 bits."""
    data = rows_of(np.random.default_rng(SEED), 113)
    want = Run(ov, model(ov, **{name: value}))(FIRST, data)[0]
    monkeypatch.setitem(TABLES, name, ("f16", TABLES[name][1]))
    monkeypatch.setitem(KINDS, "f16", np.float16)
    np.testing.assert_array_equal(Run(ov, model(ov, **{name: value}))(FIRST, data)[0], want)


@pytest.mark.parametrize("sizes", some([Sizes(6, 2, 16, 32), PLAIN, Sizes(3, 3, 12, 16)], 2), ids=str)
def test_prompts_that_end_anywhere_in_a_tile(sizes: Sizes) -> None:
    """Tiles compute no keys behind all their rows. With and without cached tokens, and a part of a vector."""
    rng, run = np.random.default_rng(SEED), Run(ov, model(ov, sizes=sizes))
    table = [5, 2, 7, 0]
    for new in (7, 8, 9, 11, 12, 13, 17, 25, 48, 49, 65):
        for past in (0, 33):
            if past:
                run([(0, past, table)], rows_of(rng, past, sizes))
            data = rows_of(rng, new, sizes)
            got = run([(past, new, table)], data)[0]
            keys, values = (np.array(t.data, np.float64) for t in run.caches.values())
            more = {"scale": np.float32(sizes.size**-0.5)}
            want = Call(sizes, [(past, new, table)], data, more, keys, values).outputs()[0]
            np.testing.assert_allclose(
                got, want, rtol=0, atol=2e-6 * np.abs(want).max(), err_msg=f"{new} {past}"
            )


def test_a_query_that_sees_no_key_gives_zeros() -> None:
    """And adds nothing to the scores."""
    names, rng = ("qq_bias", "qq_bias_begins"), np.random.default_rng(SEED)
    seen = np.tril(np.ones((5, 5)))
    seen[2] = 0
    more = {"qq_bias": seen.reshape(-1), "qq_bias_begins": [0, 25], "score_aggregation_window": [-1]}
    run = Run(ov, model(ov, (*names, "score_aggregation_window"), 2))
    out, scores = run([(0, 5, [3])], rows_of(rng, 5), **more)
    assert not out[2].any() and all(out[i].any() for i in (0, 1, 3, 4))
    np.testing.assert_allclose(scores.sum(), 4 * HEADS, rtol=1e-5)


@pytest.mark.parametrize("kind", ["u8", "u4", "f32"])
def test_scales_of_keys_are_those_of_channels(kind: str) -> None:
    """Those of tokens are another layout, which is refused by name."""
    config = {"KV_CACHE_PRECISION": kind, "KEY_CACHE_QUANT_MODE": "BY_TOKEN"}
    for mode in ("AUTO", "BY_CHANNEL"):
        ov.compile_model(model(ov), "CPU", {**config, "KEY_CACHE_QUANT_MODE": mode})
    if kind == "f32":  # there are none
        ov.compile_model(model(ov), "CPU", config)
        return
    with pytest.raises(RuntimeError, match="BY_TOKEN"):
        ov.compile_model(model(ov), "CPU", config)


def test_a_file_says_how_many_heads_there_are(tmp_path: Path) -> None:
    """Of caches whose shapes are open: rt_info that OpenVINO's own files lose."""
    made, path = model(ov), tmp_path / "a.xml"
    ov.save_model(made, path)
    data = rows_of(np.random.default_rng(SEED), 40)
    found = [Run(ov, m)([(0, 40, [5, 2])], data) for m in (made, ov.Core().read_model(path))]
    assert np.array_equal(*(x[0] for x in found))


@pytest.mark.parametrize("value", ["0", "-2", "x", "", "2.0", "9" * 40])
def test_wrong_numbers_of_heads_are_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    ov.save_model(model(ov), path)
    path.write_text(path.read_text().replace('num_k_heads="2"', f'num_k_heads="{value}"'))
    with pytest.raises(ModelError, match="the rt_info entry 'num_k_heads' is .*; it should be 1 to"):
        ov.compile_model(path, "CPU")
