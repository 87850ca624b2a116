"""The parts of vLLM's platform that need no vLLM: the entry point, options, tables, the paged decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ovjit._offline_transformations import paged_attention_transformation

import ovjit as ov
from ovjit.errors import UnsupportedError
from ovjit.generation.paged import Options, PagedDecoder, read_folder, split_head
from ovjit.generation.paged_tables import Tables, check_tables, tables_of
from ovjit.integrations.vllm import platform
from ovjit.integrations.vllm.options import parse_options
from tests.support import ROOT
from tests.support.paged_models import SIZES, Cache, alone, decoder
from tests.support.run import printed

SEED = 20261123
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


def test_the_entry_point_answers_nothing_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVJIT_VLLM", raising=False)
    assert platform() is None
    for said in ("", "0", "off", "False"):
        monkeypatch.setenv("OVJIT_VLLM", said)
        assert platform() is None
    for said in ("1", "on", "True"):
        monkeypatch.setenv("OVJIT_VLLM", said)
        assert platform() == "ovjit.integrations.vllm.platform.OvjitPlatform"
    monkeypatch.setenv("OVJIT_VLLM", "maybe")
    with pytest.raises(ValueError, match="OVJIT_VLLM should be 1 or 0, not 'maybe'"):
        platform()


def test_asking_costs_nothing() -> None:
    code = (
        "import sys; from ovjit.integrations.vllm import platform; assert platform() is None; "
        "assert not {'numpy', 'numba', 'torch', 'vllm'} & set(sys.modules)"
    )
    printed("-c", code)
    entry = '[project.entry-points."vllm.platform_plugins"]\novjit = "ovjit.integrations.vllm:platform"\n'
    assert entry in (ROOT / "pyproject.toml").read_text()


def test_options() -> None:
    assert parse_options({}) == Options()
    assert parse_options({}, "bfloat16").kv_cache == "bf16"
    made = parse_options(
        {"weights": 4, "group": 64, "kv_cache": "u8", "properties": {"NUM_STREAMS": 1}}, "auto"
    )
    assert made.config == {
        "INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "u8", "NUM_STREAMS": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "dtype", "words"),
    [
        ({"wieghts": 8}, "auto", "'wieghts'; supported keys: weights"),
        ({"weights": 5}, "auto", "not 5"),
        ({"weights": True}, "auto", "not True"),
        ({"group": 24}, "auto", "multiple of 16, not 24"),
        ({"kv_cache": "i8"}, "auto", "caches of 'i8'"),
        ({}, "fp8_e4m3", "caches of 'fp8_e4m3'"),
        ({"properties": ["a"]}, "auto", "a dict by name"),
    ],
)
def test_options_that_are_refused(given: dict[str, Any], dtype: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_options(given, dtype)


def test_tables() -> None:
    """Against loops, for random batches; columns that a sequence does not need are never read."""
    rng = np.random.default_rng(SEED)
    for _ in range(50):
        count, block = int(rng.integers(0, 6)), int(rng.choice([1, 8, 32]))
        new, past = rng.integers(1, 50, count), rng.integers(0, 90, count)
        lengths = new + past
        most = int(-(-lengths.max(initial=1) // block)) + 2
        blocks = rng.integers(0, 1000, (count + 1, most)).astype(np.int32)
        needed = [-(-int(n) // block) for n in lengths]
        for row, n in zip(blocks, needed, strict=False):
            row[n:] = -7
        made = tables_of(np.cumsum([0, *new]), lengths, blocks, block)
        assert all(array.dtype == np.int32 for array in made)
        assert made.past_lens.tolist() == past.tolist(), f"seed {SEED}"
        assert made.block_indices_begins.tolist() == np.cumsum([0, *needed]).tolist()
        expected = [int(b) for row, n in zip(blocks, needed, strict=False) for b in row[:n]]
        assert made.block_indices.tolist() == expected, f"seed {SEED}"
        assert made.max_context_len == lengths.max(initial=0)
    with pytest.raises(ValueError, match="are inconsistent"):
        tables_of(np.array([0, 4]), np.array([33]), np.zeros((1, 1), np.int32), 32)
    with pytest.raises(ValueError, match="are inconsistent"):
        tables_of(np.array([0, 4]), np.array([3]), np.zeros((1, 1), np.int32), 32)


@pytest.mark.parametrize(
    ("begins", "lengths", "blocks", "words"),
    [
        ([0, 4], [4, 4], [[0]], "are expected"),
        ([0, 4, 8], [4, 4], [[0]], "a row for each sequence"),
        ([0, 4], [4], [0], "are expected"),
        ([0.0, 4.0], [4], [[0]], "should be integers"),
        ([0, 4], [1 << 32], [[0]], "between 0 and"),
        ([0, -4], [4], [[0]], "between 0 and"),
        ([0, 4], [(1 << 31) - 1], [[0]], "inconsistent"),
        ([0, 4], [4], [[-1]], "blocks"),
        ([0, 4], [4], [[1 << 32]], "blocks"),
    ],
)
def test_batches_that_contradict_themselves(begins: Any, lengths: Any, blocks: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tables_of(np.array(begins), np.array(lengths), np.array(blocks), 32)


def test_hostile_block_tables() -> None:
    """Tables that name blocks outside of the caches, or of other sequences, are errors. Answers of a
    sequence that takes no part stay the same bits, and no byte of its blocks changes."""
    rng = np.random.default_rng(SEED)
    paged = PagedDecoder(decoder(ov), parse_options({}))
    size, total = paged.block, 12
    paged.allocate(total)
    mine = np.array([[3, 7]], np.int32)  # 40 tokens of a bystander
    words = rng.integers(0, SIZES.words, 64)
    paged.hidden(words[:40], np.arange(40), tables_of(np.array([0, 40]), np.array([40]), mine, size))

    def kept() -> list[bytes]:
        return [np.asarray(tensor.data)[[3, 7]].tobytes() for tensor in paged.caches.values()]

    before, refused = kept(), 0
    for i in range(200):
        count = int(rng.integers(1, 5))
        new, past = rng.integers(0, 50, count), rng.integers(0, 70, count)
        free = rng.permutation([b for b in range(total) if b not in (3, 7)])
        needed = (new + past + size - 1) // size
        if needed.sum() > len(free):
            continue
        indices = free[: needed.sum()].astype(np.int32)
        good = Tables(
            past.astype(np.int32), np.cumsum([0, *new]).astype(np.int32), indices,
            np.cumsum([0, *needed]).astype(np.int32), np.array((new + past).max(), np.int32),
        )  # fmt: skip
        rows = int(new.sum())
        tokens, places = rng.integers(0, SIZES.words, rows), np.zeros(rows, np.int64)
        bad, name = good, str(rng.choice([n for n in Tables._fields if getattr(good, n).size]))
        array = getattr(good, name).copy()
        kind = int(rng.integers(0, 5))
        if kind == 0:  # another number at a random place
            array.reshape(-1)[rng.integers(0, array.size)] = rng.choice(
                [-1, -(1 << 31), total, (1 << 31) - 1, 1 << 20, int(array.reshape(-1)[0]) + 1]
            )
        elif kind == 1 and array.ndim:
            array = array[: rng.integers(0, array.size)]
        elif kind == 2 and array.ndim:
            array = np.concatenate([array, array[-1:]])
        elif kind == 3:
            array = array.astype(rng.choice([np.int64, np.float32]))
        elif indices.size > 1:  # a block of another place
            name, array = "block_indices", indices.copy()
            array[rng.integers(0, indices.size)] = array[rng.integers(0, indices.size)]
        bad = good._replace(**{name: array})
        try:
            check_tables(bad, rows, size, total)
        except ValueError:
            refused += 1
            with pytest.raises(ValueError):
                paged.hidden(tokens, places, bad)
        else:
            paged.hidden(tokens, places, bad)
            used = bad.block_indices.tolist()
            assert all(0 <= b < total for b in used), f"seed {SEED}, try {i}: {bad}"
        if not {3, 7} & set(bad.block_indices.tolist()):
            assert kept() == before, f"seed {SEED}, try {i}: {bad}"
        before = kept()
    assert refused > 60, refused
    with pytest.raises(ValueError, match="positions"):
        paged.hidden(words[:2], np.arange(3), good)


def test_a_block_that_gets_tokens_belongs_to_one_sequence() -> None:
    def check(past: list[int], new: list[int], blocks: list[list[int]]) -> None:
        lengths = np.add(past, new)
        check_tables(tables_of(np.cumsum([0, *new]), lengths, np.array(blocks), 4), sum(new), 4, 9)

    check([8, 8], [1, 1], [[5, 6, 7], [5, 6, 8]])  # a common prefix
    check([8, 8], [0, 1], [[5, 6, 7], [5, 6, 8]])
    check([8, 8], [1, 0], [[5, 6, 7], [5, 6, 0]])
    for past, new, blocks in (
        ([8, 8], [1, 1], [[5, 6, 7], [5, 6, 7]]),
        ([8, 3], [1, 1], [[5, 6, 7], [6, 0, 0]]),
        ([8], [1], [[5, 6, 5]]),
        ([0], [8], [[5, 5]]),
        ([3, 12], [1, 0], [[5, 0, 0], [6, 5, 7]]),
    ):
        with pytest.raises(ValueError, match="occur again"):
            check(past, new, blocks)


def served(
    options: Options, sequences: list[np.ndarray], rng: np.random.Generator, paged: PagedDecoder | None = None
) -> list[np.ndarray]:
    """Logits of all tokens, in chunks, with blocks in any order; the first block is shared by all."""
    paged = paged or PagedDecoder(decoder(ov), options)
    blocks = 1 + sum(-(-len(s) // paged.block) for s in sequences)
    paged.allocate(blocks + 1)
    assert sum(t.byte_size for t in paged.caches.values()) == (blocks + 1) * sum(paged.layer_bytes)
    free = [int(b) for b in rng.permutation(np.arange(1, blocks + 1))]
    width = max(-(-len(s) // paged.block) for s in sequences)
    rows = [[free.pop() for _ in range(-(-len(s) // paged.block))] for s in sequences]
    shared = sequences[0][: paged.block]
    same = [len(s) > paged.block and (s[: paged.block] == shared).all() for s in sequences]
    table = np.full((len(sequences), width), -1, np.int32)
    for row, own, is_same in zip(table, rows, same, strict=True):
        row[: len(own)] = [rows[0][0], *own[1:]] if is_same else own
    made: list[list[np.ndarray]] = [[] for _ in sequences]
    past = [paged.block if is_same and i else 0 for i, is_same in enumerate(same)]
    while any(p < len(s) for p, s in zip(past, sequences, strict=True)):
        ready = [i for i, s in enumerate(sequences) if past[i] < len(s) and (past[0] >= paged.block or not i)]
        counts = [min(len(sequences[i]) - past[i], int(rng.choice([1, 3, 32, 50]))) for i in ready]
        lengths = np.array([past[i] + n for i, n in zip(ready, counts, strict=True)])
        tables = tables_of(np.cumsum([0, *counts]), lengths, table[ready], paged.block)
        ranges = [np.arange(end - n, end) for n, end in zip(counts, lengths, strict=True)]
        tokens = np.concatenate([sequences[i][at] for i, at in zip(ready, ranges, strict=True)])
        places = np.concatenate(ranges)
        hidden = paged.hidden(tokens, places, tables).copy()
        logits = paged.logits(hidden).copy()
        last = np.cumsum(counts) - 1
        assert abs(paged.logits(hidden[last]) - logits[last]).max() < 1e-5 * abs(logits).max()
        for i, n, part in zip(ready, counts, np.split(logits, last[:-1] + 1), strict=True):
            made[i].append(part)
            past[i] += n
    return [np.concatenate(parts) for parts in made]


@pytest.mark.parametrize(
    ("given", "bound"),
    [({}, 1e-5), ({"kv_cache": "u8"}, 0.03), ({"kv_cache": "u4"}, 0.1), ({"weights": 8}, 0.03)],
    ids=["f32", "u8", "u4", "w8"],
)
def test_the_decoder_gives_what_one_sequence_alone_gives(given: dict[str, Any], bound: float) -> None:
    rng = np.random.default_rng(SEED)
    sequences = [rng.integers(0, SIZES.words, n) for n in (70, 5, 60, 33)]
    sequences[2][:32] = sequences[0][:32]
    stateful = ov.Core().compile_model(decoder(ov), "CPU", EXACT)
    found = served(parse_options(given), sequences, rng)
    for i, (got, tokens) in enumerate(zip(found, sequences, strict=True)):
        expected = alone(stateful, tokens)[-len(got) :]
        assert len(got) == len(tokens) - (32 if i == 2 else 0)
        assert abs(got - expected).max() < bound * abs(expected).max(), f"seed {SEED}, {i}"


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K"])
def test_folders_of_packed_gguf_files(tmp_path: Path, kind: str) -> None:
    """Weights are multiplied as they are packed, whatever the batch."""
    pytest.importorskip("gguf")
    from tests.readers.gguf_decoders import Sizes, tensors, write

    s, rng = Sizes("llama", layers=1, words=SIZES.words), np.random.default_rng(SEED)
    write(tmp_path / "a.gguf", s, tensors(s, kind, rng))
    in_f32 = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    stateful = ov.Core().compile_model(tmp_path / "a.gguf", "CPU", EXACT | in_f32)
    paged = PagedDecoder.load(tmp_path, parse_options({"properties": in_f32}))
    sequences = [rng.integers(0, s.words, n) for n in (50, 5)]
    for got, tokens in zip(served(Options(), sequences, rng, paged), sequences, strict=True):
        expected = alone(stateful, tokens)
        assert abs(got - expected).max() < 1e-5 * abs(expected).max(), f"seed {SEED}, {len(tokens)}"


@pytest.mark.parametrize("longest", [8, 9])
def test_one_table_of_factors_holds_for_all_sequences(tmp_path: Path, longest: int) -> None:
    """Phi 3 has another table beyond its original context, here of 8 tokens."""
    pytest.importorskip("gguf")
    from tests.readers.gguf_decoders import Sizes, tensors, write

    s, rng = Sizes("phi3", layers=1, words=SIZES.words, extra={"longrope": True}), np.random.default_rng(SEED)
    made = tensors(s, "F32", rng)
    names = [f"rope_factors_{name}.weight" for name in ("short", "long")]
    write(tmp_path / "a.gguf", s, made)
    write(tmp_path / "b.gguf", s, made | dict.fromkeys(names, made[names[longest > 8]]))
    stateful = ov.Core().compile_model(tmp_path / "b.gguf", "CPU", EXACT)
    sequences = [rng.integers(0, s.words, n) for n in (70, 5, 11)]
    paged = PagedDecoder(ov.Core().read_model(tmp_path / "a.gguf"), longest=longest)
    for got, tokens in zip(served(Options(), sequences, rng, paged), sequences, strict=True):
        expected = alone(stateful, tokens)
        assert abs(got - expected).max() < 1e-5 * abs(expected).max(), f"seed {SEED}, {len(tokens)}"


def test_each_sequence_has_its_own_table_of_factors(tmp_path: Path) -> None:
    """Without a longest sequence, prompts of one call have what each of them has alone."""
    pytest.importorskip("gguf")
    from tests.readers.gguf_decoders import Sizes, tensors, write

    s, rng = Sizes("phi3", layers=1, words=SIZES.words, extra={"longrope": True}), np.random.default_rng(SEED)
    write(tmp_path / "a.gguf", s, tensors(s, "F32", rng))
    model = ov.Core().read_model(tmp_path / "a.gguf")
    stateful = ov.Core().compile_model(model, "CPU", EXACT)
    paged_attention_transformation(model)
    cache = Cache(ov, ov.Core().compile_model(model, "CPU", EXACT), rng)
    sequences = [rng.integers(0, s.words, n) for n in (5, 70, 8, 9)]
    logits = cache.request.infer(cache.inputs([(i, 0, tokens) for i, tokens in enumerate(sequences)]))[0]
    parts = np.split(np.array(logits)[:, 0], np.cumsum([len(tokens) for tokens in sequences]))
    for got, tokens in zip(parts, sequences, strict=False):
        expected = alone(stateful, tokens)
        assert abs(got - expected).max() < 1e-5 * abs(expected).max(), f"seed {SEED}, {len(tokens)}"


def test_attention_that_is_not_served_is_named(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from tests.readers.gguf_decoders import Sizes, tensors, write

    s = Sizes("gemma2", layers=1)  # with soft-capped scores
    write(tmp_path / "a.gguf", s, tensors(s, "F32", np.random.default_rng(SEED)))
    with pytest.raises(UnsupportedError, match="Gemma 2 with attn_logit_softcapping"):
        PagedDecoder.load(tmp_path)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="config.json"):
        read_folder(tmp_path)
    ov.save_model(decoder(ov), tmp_path / "openvino_model.xml", compress_to_fp16=False)
    paged = PagedDecoder.load(tmp_path)
    paged.allocate(4)
    paged.warm_up([1, 20], 4)
    assert paged.layers == [([2, 32, 16], [2, 32, 16])] * 2 and paged.block == 32 and paged.width == 64
    assert read_folder(tmp_path, {"architectures": ["A"], "eos_token_id": 7})
    with pytest.raises(
        UnsupportedError, match="openvino_model.xml is computed.*not supported: a, rope_parameters"
    ):
        read_folder(tmp_path, {"rope_parameters": {}, "a": 1})
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    (tmp_path / "openvino_model.xml").unlink()
    with pytest.raises(RuntimeError, match="several GGUF files: a.gguf, b.gguf"):
        read_folder(tmp_path)


def test_logits_that_are_no_product() -> None:
    ops = ov.opset13
    x = ops.parameter([2, 3], np.float32)
    y = ops.softmax(x, 1)
    y.output(0).set_names({"logits"})
    with pytest.raises(RuntimeError, match="a MatMul is expected"):
        split_head(ov.Model([y], [x], "none"))
