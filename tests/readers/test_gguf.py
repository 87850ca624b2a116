"""GGUF files: every type of block, every architecture, prompts and tokens against NumPy in f64; refusals."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov

pytest.importorskip("gguf")

from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, quants

from ovjit.codegen.cpu.targets import TARGETS
from ovjit.errors import ModelError, OvjitError, UnsupportedError
from ovjit.generation.decoder import model_file
from ovjit.graph.converted import Factored, InBlocks
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.stored_floats import codebook
from ovjit.readers.gguf.blocks import FORMS, REALS, groups_of, values_of
from ovjit.readers.gguf.header import open_gguf
from ovjit.readers.gguf.settings import Settings
from ovjit.tiles.compressed import how_unpacked, pack_compressed
from tests.readers.gguf_decoders import Reference, Sizes, dequantised, quantised, tensors, write
from tests.support.sweeps import in_turn, some

SEED = 20261122
EXACT = {
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32",
}  # fmt: skip


def made_file(path: Path, s: Sizes, kind: str = "F32") -> dict[str, tuple[str, np.ndarray]]:
    made = tensors(s, kind, np.random.default_rng(SEED))
    write(path, s, made)
    return made


def fed(ids: np.ndarray, begin: int, end: int) -> dict[str, np.ndarray]:
    return {
        "input_ids": ids[None, begin:end], "attention_mask": np.ones((1, end), np.int64),
        "position_ids": np.arange(begin, end)[None], "beam_idx": np.zeros(1, np.int32),
    }  # fmt: skip


def decoded(compiled: Any, ids: np.ndarray, prompt: int) -> np.ndarray:
    """Logits of a prompt, and of the other tokens one by one."""
    request = compiled.create_infer_request()
    parts = [request.infer(fed(ids, 0, prompt))["logits"][0].copy()]
    parts += [request.infer(fed(ids, i, i + 1))["logits"][0].copy() for i in range(prompt, len(ids))]
    return np.concatenate(parts)


def executed(compiled: Any, ids: np.ndarray) -> set[str]:
    """The kinds of steps for a token and for a prompt."""
    request, found = compiled.create_infer_request(), set()
    for count in (1, len(ids)):
        request.reset_state()
        request.infer(fed(ids, 0, count))
        found |= {step.exec_type for step in request.get_profiling_info()}
    return found


def check(path: Path, s: Sizes, kind: str, length: int = 10, prompt: int = 6) -> Any:
    made = made_file(path, s, kind)
    ids = np.random.default_rng([SEED, 1]).integers(0, s.words, length)
    expected = Reference(s, made)(ids)
    compiled = ov.Core().compile_model(path, "CPU", EXACT | {"PERF_COUNT": True})
    assert "ref_numpy" not in executed(compiled, ids), f"{s.arch} {kind}"
    got = decoded(compiled, ids, prompt)
    worst = abs(got - expected).max() / abs(expected).max()
    assert worst < 2e-5, f"{s.arch} {kind} seed {SEED}: {worst}"
    assert (got.argmax(1) == expected.argmax(1)).all(), f"{s.arch} {kind} seed {SEED}"
    return compiled


def operations(compiled: Any) -> list[str]:
    return [o.get_rt_info()["layerType"].astype(str) for o in compiled.get_runtime_model().get_ops()]


@pytest.mark.parametrize("kind", FORMS)
def test_groups_are_what_the_package_dequantises(kind: str) -> None:
    rng = np.random.default_rng([SEED, len(kind), ord(kind[1])])
    data = quantised(rng, kind, (5, 512), 0.1)
    data[2] = 0  # scales of 0
    if kind in ("Q4_1", "Q5_1"):
        data[2, 2:4] = np.full(1, 0.5, np.float16).view(np.uint8)
    order = np.array([3, 2, 1, 4, 0])
    groups = groups_of(kind, data, (5, 512), order)
    codes = np.asarray(groups.codes).astype(np.float64)
    if groups.levels is not None:
        codes = groups.levels[codes.astype(int)].astype(np.float64)
    zero = 0 if groups.zero is None else np.asarray(groups.zero)
    real = (codes - zero) * np.asarray(groups.scale).astype(np.float64)
    expected = dequantised(data, kind)[order].astype(np.float64)
    assert abs(real.reshape(5, 512) - expected).max() <= 1e-6 * abs(expected).max(), f"seed {SEED}"


@pytest.mark.parametrize("kind", FORMS)
def test_numbers_have_the_bits_of_the_packages(kind: str) -> None:
    """Of random bytes, with scales of every size, and of blocks whose scales are usual."""
    block, size = quants.GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    for number in range(12):
        seed = [SEED, 6, number, *kind.encode()]
        rng = np.random.default_rng(seed)
        data = rng.integers(0, 256, (9, 1024 // block * size)).astype(np.uint8)
        if number % 2:
            data = quantised(rng, kind, (9, 1024), 10.0 ** -(number // 2))
        if number == 2:
            data[:3], data[3:5] = 0, 255
        with np.errstate(all="ignore"):
            expected, got = dequantised(data, kind), values_of(kind, data, (9, 1024))
        real = ~np.isnan(expected)
        np.testing.assert_array_equal(got, expected, f"{kind} seed {seed}")
        if kind != "Q2_K":  # a minimum of 0 is subtracted there
            signs = np.signbit(got[real]), np.signbit(expected[real])
            np.testing.assert_array_equal(*signs, f"signs of {kind}, seed {seed}")


def test_small_factors_of_iq1_s_are_kept() -> None:
    """An eighth of a small f16 is none: codes have levels then, and minima otherwise."""
    rng = np.random.default_rng([SEED, 7])
    for scale, has_levels in ((2.0**-9, False), (3.5762787e-07, True), (1025 * 2.0**-24, True)):
        data = quantised(rng, "IQ1_S", (4, 512), 0.1).reshape(4, 2, -1)
        data[1, 1, :2] = np.array([scale], np.float16).view(np.uint8)
        groups = groups_of("IQ1_S", data.reshape(4, -1), (4, 512), None)
        assert (groups.levels is not None) == has_levels
        got = values_of("IQ1_S", data.reshape(4, -1), (4, 512))
        np.testing.assert_array_equal(got, dequantised(data.reshape(4, -1), "IQ1_S"))


#: Bits of a weight in the packed matrices of each type: codes, scales and minima.
PACKED = {
    "Q8_0": 8.5, "Q4_0": 4.5, "Q4_1": 5, "Q5_0": 5.5, "Q5_1": 6, "Q2_K": 3.125, "Q3_K": 3.5625, "Q4_K": 4.625,
    "Q5_K": 5.625, "Q6_K": 6.5625, "IQ4_NL": 4.5, "TQ1_0": 2.0625, "TQ2_0": 2.0625, "Q1_0": 2.125,
    "IQ4_XS": 4.3125, "MXFP4": 4.5, "NVFP4": 5, "IQ3_S": 4.3125, "IQ3_XXS": 4.3125, "IQ2_S": 4.5625,
    "IQ2_XS": 4.5625, "IQ2_XXS": 4.3125, "IQ1_S": 2.625, "IQ1_M": 4.5625,
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("target", ["avx512", "avx2"])
def test_packed_weights_take_their_bits(kind: str, target: str) -> None:
    rng = np.random.default_rng([SEED, 4])
    outs, depth = 64, 512
    groups = groups_of(kind, quantised(rng, kind, (outs, depth), 0.1), (outs, depth), None)
    shown = np.asarray(groups.codes)
    bits = groups.codes.bits if isinstance(groups.codes, InBlocks) else 8 if kind == "Q8_0" else 4

    def by_outs(values: Any) -> Any:
        if isinstance(values, InBlocks):
            return Factored(values, values.shape[1::-1])
        if values is None or values.size == 1:
            return None if values is None else np.full((depth // shown.shape[2], outs), values.flat[0])
        return np.ascontiguousarray(values[..., 0].T).astype(np.float32)

    codes = np.ascontiguousarray(shown.reshape(outs, depth).T.astype(np.uint8 if bits < 8 else np.int8))
    scale, zero = by_outs(groups.scale), by_outs(groups.zero)
    book = "" if groups.levels is None else codebook(groups.levels, 4)
    unpack = how_unpacked(codes, scale, zero, bits, book)
    packed = pack_compressed(codes, scale, zero, unpack, shown.shape[2], TARGETS[target])
    one = packed.zeros.nbytes if packed.zeros is not None and unpack.zero != "one" else 0
    assert (packed.integers.nbytes + packed.scales.nbytes + one) * 8 == PACKED[kind] * outs * depth


@pytest.mark.parametrize("kind", some(["F32", "BF16", "Q8_0", "Q4_K", "MXFP4", "Q3_K", "IQ4_XS", "IQ1_S"], 5))
def test_types(tmp_path: Path, kind: str) -> None:
    compiled = check(tmp_path / "a.gguf", Sizes("llama", layers=1), kind, 22, 14)
    assert operations(compiled).count("CompressedMatMul") == (0 if kind in ("F32", "BF16") else 6)


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", sorted({"F16", *FORMS} - {"Q8_0", "Q3_K", "Q4_K", "IQ4_XS", "MXFP4", "IQ1_S"})
)
def test_other_types(tmp_path: Path, kind: str) -> None:
    compiled = check(tmp_path / "a.gguf", Sizes("llama", layers=1), kind, 22, 14)
    assert operations(compiled).count("CompressedMatMul") == (0 if kind == "F16" else 6)


MODELS = {
    "qwen2": (Sizes("qwen2"), "Q8_0"),
    "qwen3": (Sizes("qwen3", size=64, turned=64), "F32"),
    "gemma2": (Sizes("gemma2", window=4, tied=True), "Q8_0"),
    "gemma3": (Sizes("gemma3", layers=7, window=4, tied=True, extra={"scaling": "linear"}), "F32"),
    "phi3": (Sizes("phi3", window=5), "F32"),
    "gpt2": (Sizes("gpt2", shared=8), "F32"),
    "mixtral": (Sizes("llama", experts=4), "Q4_K"),
    "experts of 6 bits": (Sizes("llama", layers=1, experts=4, tied=True, extra={"normed": False}), "Q6_K"),
    "experts of reals": (Sizes("llama", experts=4), "F32"),
    "qwen2moe": (Sizes("qwen2moe", experts=6, chosen=3), "Q8_0"),
    "qwen3moe": (Sizes("qwen3moe", experts=4), "IQ4_NL"),
    "gpt-oss": (Sizes("gpt-oss", experts=6, window=4, extra={"scaling": "yarn"}), "MXFP4"),
    "gpt-oss of reals": (Sizes("gpt-oss", experts=4, window=3, size=64, turned=64), "F32"),
    "scales": (Sizes("qwen2", layers=1, extra={"scales": True}), "NVFP4"),
    "scales of experts": (Sizes("qwen3moe", layers=1, experts=4, extra={"scales": True}), "NVFP4"),
    "scales of gpt-oss": (Sizes("gpt-oss", layers=1, experts=4, extra={"scales": True}), "F32"),
    "factors": (Sizes("llama", layers=1, turned=16, extra={"factors": True}), "F32"),
    "linear": (Sizes("llama", layers=1, tied=True, extra={"scaling": "linear"}), "F32"),
    "yarn": (Sizes("llama", layers=1, extra={"scaling": "yarn"}), "F32"),
}


@pytest.mark.parametrize("name", in_turn(MODELS, 2))
def test_architectures(tmp_path: Path, name: str) -> None:
    check(tmp_path / "a.gguf", *MODELS[name])


@pytest.mark.parametrize(("length", "prompt"), [(8, 4), (13, 10)], ids=["short", "long"])
def test_two_tables_of_factors(tmp_path: Path, length: int, prompt: int) -> None:
    check(tmp_path / "a.gguf", Sizes("phi3", layers=1, extra={"longrope": True}), "F32", length, prompt)


def test_padded_batch_and_beams(tmp_path: Path) -> None:
    s = Sizes("llama", layers=1)
    reference = Reference(s, made_file(tmp_path / "a.gguf", s, "Q8_0"))
    request = ov.Core().compile_model(tmp_path / "a.gguf", "CPU", EXACT).create_infer_request()
    ids = np.random.default_rng([SEED, 2]).integers(0, s.words, (2, 7))
    mask = np.ones((2, 6), np.int64)
    mask[1, :2] = 0  # the second sequence is shorter
    places = np.maximum(mask.cumsum(1) - 1, 0)
    got = request.infer([ids[:, :6], mask, places, np.arange(2, dtype=np.int32)])["logits"]
    for row, start in ((0, 0), (1, 2)):
        expected = reference(ids[row, start:6])
        assert abs(got[row, start:] - expected).max() < 2e-5 * abs(expected).max(), f"seed {SEED}"
    mask = np.concatenate([mask[::-1], np.ones((2, 1), np.int64)], 1)  # beams change places
    got = request.infer([ids[::-1, 6:], mask, np.array([[4], [6]]), np.array([1, 0], np.int32)])["logits"]
    for row, whole in ((0, ids[1, 2:]), (1, ids[0])):
        expected = reference(whole)[-1]
        assert abs(got[row, 0] - expected).max() < 2e-5 * abs(expected).max(), f"seed {SEED}"


def test_the_ir_means_the_same_to_openvino(tmp_path: Path) -> None:
    real: Any = pytest.importorskip("openvino")
    s = Sizes("qwen2", layers=1)
    made = made_file(tmp_path / "a.gguf", s, "Q4_K")
    model = ov.Core().read_model(tmp_path / "a.gguf")
    assert [p.get_any_name() for p in model.inputs] == [
        "input_ids", "attention_mask", "position_ids", "beam_idx",
    ]  # fmt: skip
    assert {v.info.variable_id for v in model.get_variables()} == {
        "past_key_values.0.key", "past_key_values.0.value"
    }  # fmt: skip
    ov.save_model(model, tmp_path / "a.xml", compress_to_fp16=False)
    ids = np.random.default_rng([SEED, 3]).integers(0, s.words, 8)
    expected = Reference(s, made)(ids)
    got = decoded(real.Core().compile_model(tmp_path / "a.xml", "CPU", EXACT), ids, 5)
    assert abs(got - expected).max() < 1e-4 * abs(expected).max(), f"seed {SEED}"
    again = ov.Core().read_model(tmp_path / "a.xml")
    tokens = json.loads(again.get_rt_info(["gguf", "tokenizer.ggml.tokens"]).astype(str))
    assert tokens == [f"<{i}>\n" for i in range(s.words)]


def test_openvino_runs_experts_of_packed_and_real_tables(tmp_path: Path) -> None:
    """Such experts are computed for all rows."""
    real: Any = pytest.importorskip("openvino")
    s, path = Sizes("llama", layers=1, experts=4), tmp_path / "a.gguf"
    made = tensors(s, "Q8_0", np.random.default_rng(SEED))
    shape = s.experts, s.wide, s.inner
    made["blk.0.ffn_down_exps.weight"] = "F32", quantised(np.random.default_rng(SEED), "F32", shape, 0.06)
    write(path, s, made)
    ids = np.random.default_rng([SEED, 4]).integers(0, s.words, 7)
    expected = Reference(s, made)(ids)
    model = ov.Core().read_model(path)
    ov.save_model(model, tmp_path / "a.xml", compress_to_fp16=False)
    for package, given in ((ov, model), (real, tmp_path / "a.xml")):
        got = decoded(package.Core().compile_model(given, "CPU", EXACT), ids, 4)
        assert abs(got - expected).max() < 1e-4 * abs(expected).max(), f"{package.__name__} seed {SEED}"


def test_openvino_runs_gpt_oss(tmp_path: Path) -> None:
    """Sinks, windows and experts with biases; ovjit reads the chosen experts only."""
    real: Any = pytest.importorskip("openvino")
    s, path = Sizes("gpt-oss", experts=4, window=4, extra={"scaling": "yarn"}), tmp_path / "a.gguf"
    made = made_file(path, s, "MXFP4")
    ids = np.random.default_rng([SEED, 8]).integers(0, s.words, 9)
    expected = Reference(s, made)(ids)
    model = ov.Core().read_model(path)
    compiled = ov.Core().compile_model(model, "CPU", EXACT | {"PERF_COUNT": True})
    assert any(step.startswith("chosen_l4") for step in executed(compiled, ids))
    ov.save_model(model, tmp_path / "a.xml", compress_to_fp16=False)
    got = decoded(real.Core().compile_model(tmp_path / "a.xml", "CPU", EXACT), ids, 5)
    assert abs(got - expected).max() < 1e-4 * abs(expected).max(), f"seed {SEED}"


def test_a_file_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "sha256-0"
    made_file(path, Sizes("llama", layers=1))
    assert ov.Core().read_model(path).outputs[0].get_any_name() == "logits"
    with pytest.raises(UnsupportedError, match="from its path"):
        ov.Core().read_model(path.read_bytes())


def test_metadata_is_in_rt_info(tmp_path: Path) -> None:
    made_file(tmp_path / "a.gguf", Sizes("llama", layers=1))
    model = ov.Core().read_model(tmp_path / "a.gguf")
    notes = {k: model.get_rt_info(["gguf", k]).value for k in ("general.architecture", "llama.block_count")}
    assert notes == {"general.architecture": "llama", "llama.block_count": 1}
    assert json.loads(model.get_rt_info(["gguf", "tokenizer.ggml.scores"]).value)[3] == -3.0
    assert model.get_rt_info(["gguf", "tokenizer.ggml.bos_token_id"]).value == 1


def test_the_front_end_is_found(tmp_path: Path) -> None:
    made_file(tmp_path / "a.gguf", Sizes("llama", layers=1))
    manager = ov.frontend.FrontEndManager()
    assert "gguf" not in manager.get_available_front_ends()  # as in OpenVINO
    assert manager.load_by_model(tmp_path / "a.gguf").get_name() == "gguf"
    front = manager.load_by_framework("gguf")
    assert front.convert(front.load(tmp_path / "a.gguf")).inputs[0].get_any_name() == "cache_k_l0"


def test_the_front_end_knows_its_files_as_openvinos(tmp_path: Path) -> None:
    real: Any = pytest.importorskip("openvino")
    made_file(tmp_path / "a.gguf", Sizes("llama", layers=1))
    (tmp_path / "b.gguf").write_bytes(b"GGUX")
    asked = [*(str(tmp_path / n) for n in ("a.gguf", "b.gguf", "c.gguf", "c.onnx", "")), 3, None, b"GGUF"]
    found = []
    for package in (real, ov):
        front = package.frontend.FrontEndManager().load_by_framework("gguf")
        found.append([front.supported(path) for path in asked])
    assert found[1] == found[0] and found[0].count(True) == 1


def _ports(model: Any) -> tuple[list[Any], list[Any]]:
    """Names, types and shapes of inputs; of outputs the names of their nodes, too."""

    def facts(port: Any) -> tuple[Any, ...]:
        return port.get_names(), port.get_element_type().to_string(), str(port.get_partial_shape())

    return (
        [facts(p) for p in model.inputs],
        [(p.get_node().get_friendly_name(), *facts(p)) for p in model.outputs],
    )


def _flat(s: Sizes, ids: np.ndarray, rows: int, low: int, caches: dict[str, np.ndarray]) -> dict[str, Any]:
    """llama.cpp's inputs for tokens from `low` on, whose rows of the cache are in reverse order."""
    new, held = np.arange(low, len(ids)), rows - 1 - np.arange(len(ids))
    masks = {}
    for name, window in (("self_kq_mask", 0), ("self_kq_mask_swa", s.window)):
        mask = np.full((len(new), rows), -np.inf, np.float32)
        for i, place in enumerate(new):
            seen = np.arange(max(0, place - window + 1) if window else 0, place + 1)
            mask[i, held[seen]] = 0
        masks[name] = mask[None, None]
    if not s.window:
        del masks["self_kq_mask_swa"]
    given = {
        "inp_kv_idx": held[new], "inp_out_ids": [len(new) - 1], "inp_pos": new, "inp_tokens": ids[new],
    }  # fmt: skip
    flat = {name: np.array(value, np.int32).reshape(1, 1, 1, -1) for name, value in given.items()}
    return {**flat, **masks, **caches, "token_len_per_seq": np.array([len(new)])}


@pytest.mark.parametrize(
    ("s", "kind"),
    in_turn([
        (Sizes("llama", layers=11), "Q8_0"), (Sizes("gemma2", window=4), "F32"), (Sizes("phi3"), "F32"),
        (Sizes("qwen3", layers=1), "Q4_0"), (Sizes("llama", layers=1, experts=4), "F32"),
        (Sizes("phi3", layers=1, extra={"longrope": True}), "F32"),
    ], 2),
    ids=["llama", "gemma2", "phi3", "qwen3", "experts", "two tables of factors"],
)  # fmt: skip
def test_the_front_end_gives_the_real_form(tmp_path: Path, s: Sizes, kind: str) -> None:
    real: Any = pytest.importorskip("openvino")
    path = tmp_path / "a.gguf"
    made = made_file(path, s, kind)
    models = []
    for package in (real, ov):
        front = package.frontend.FrontEndManager().load_by_framework("gguf")
        models.append(front.convert(front.load(str(path))))
    assert _ports(models[1]) == _ports(models[0])
    compiled = ov.compile_model(models[1], "CPU", EXACT)
    ids = np.random.default_rng([SEED, 5]).integers(0, s.words, 8)
    expected = Reference(s, made)(ids)
    caches = {
        f"cache_{kind}_l{i}": np.zeros((1, 12, s.shared, s.size), np.float16)
        for kind in "kv" for i in range(s.layers)
    }  # fmt: skip
    done = 0
    for end in (5, 6, 8):  # a prompt, a token, and several behind a cache
        found = compiled(_flat(s, ids[:end], 12, done, caches))
        worst = abs(found[0][0, 0, 0] - expected[end - 1]).max() / abs(expected).max()
        assert worst < 2e-3, f"{s.arch} {end} seed {SEED}: {worst}"  # caches are f16
        names = [port.get_node().get_friendly_name() for port in compiled.outputs]
        caches = {name: found[i] for i, name in enumerate(names) if i}
        done = end


def test_the_real_front_end_computes_the_same_first_position(tmp_path: Path) -> None:
    """Its graph on the CPU takes a cache of one row alone, and an index for each head."""
    real: Any = pytest.importorskip("openvino")
    s, path = Sizes("llama", layers=1), tmp_path / "a.gguf"
    made_file(path, s)
    found = []
    for package, count in ((real, s.shared), (ov, 1)):
        front = package.frontend.FrontEndManager().load_by_framework("gguf")
        compiled = package.compile_model(front.convert(front.load(str(path))), "CPU", EXACT)
        caches = {f"cache_{kind}_l0": np.zeros((1, 1, s.shared, s.size), np.float16) for kind in "kv"}
        given = _flat(s, np.array([17]), 1, 0, caches)
        given["inp_kv_idx"] = np.arange(count, dtype=np.int32).reshape(1, 1, 1, -1)
        results = compiled(given)
        found.append([results[i].astype(np.float64) for i in range(3)])
    pairs = found[0][1].reshape(1, 1, s.shared, -1, 2)  # ours are half a head apart
    found[0][1] = pairs.swapaxes(3, 4).reshape(found[1][1].shape)
    for one, other in zip(*found, strict=True):
        assert abs(one - other).max() < 1e-3 * abs(one).max()


def changed(kind: str, made: dict[str, tuple[str, np.ndarray]]) -> None:
    if kind == "missing":
        del made["blk.0.ffn_down.weight"]
    elif kind == "more":
        made["blk.0.attn_sinks.weight"] = "F32", np.zeros(8, np.float32)
    elif kind == "shape":
        made["blk.0.attn_q.weight"] = "F32", np.zeros((128, 256), np.float32)
    else:
        made["blk.0.ffn_down.weight"] = "Q8_K", np.zeros((256, 292), np.uint8)


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("missing", ModelError, "'blk.0.ffn_down.weight' of the architecture 'llama' is missing"),
        ("more", UnsupportedError, "blk.0.attn_sinks.weight"),
        (
            "shape",
            ModelError,
            r"attn_q.weight' has the shape \[128, 256\]; the metadata require \[256, 256\]",
        ),
        (
            "type",
            UnsupportedError,
            "ffn_down.weight': tensors of type Q8_K are not supported; supported types: F32",
        ),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, kind: str, error: type, said: str) -> None:
    s, path = Sizes("llama", layers=1), tmp_path / "a.gguf"
    made = tensors(s, "F32", np.random.default_rng(SEED))
    changed(kind, made)
    write(path, s, made)
    with pytest.raises(error, match=said):
        ov.Core().read_model(path)


ONES = [
    ("llama", {}, "F32", 2), ("llama", {}, "Q8_0", 1), ("qwen2", {}, "Q4_0", 1), ("gpt2", {}, "F32", 3),
    ("qwen2moe", {"experts": 4}, "Q8_0", 1), ("gemma3", {}, "F32", 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "sizes", "kind", "more"), in_turn(ONES, 2), ids=lambda v: "" if type(v) is dict else v
)
def test_dimensions_of_1_behind_others(
    tmp_path: Path, arch: str, sizes: dict[str, Any], kind: str, more: int
) -> None:
    """A tensor has four dimensions, of which a file may say those of 1 behind its own: [n, 1] is [n]."""
    s, plain, longer = Sizes(arch, layers=1, **sizes), tmp_path / "plain.gguf", tmp_path / "longer.gguf"
    made = made_file(plain, s, kind)
    room = {name: min(more, 4 - array.ndim) for name, (_, array) in made.items()}
    write(longer, s, {
        name: (one, array.reshape((1,) * room[name] + array.shape)) for name, (one, array) in made.items()
    })  # fmt: skip
    file = open_gguf(str(longer))
    assert file.tensors["blk.0.attn_norm.weight"].shape == (1,) * more + (s.wide,)
    ids = np.random.default_rng([SEED, 2]).integers(0, s.words, 5)
    found = [decoded(ov.Core().compile_model(path, "CPU", EXACT), ids, 3) for path in (plain, longer)]
    np.testing.assert_array_equal(*found)


def test_dimensions_of_1_before_others_are_refused(tmp_path: Path) -> None:
    s, path = Sizes("llama", layers=1), tmp_path / "a.gguf"
    made = tensors(s, "F32", np.random.default_rng(SEED))
    name = "blk.0.attn_norm.weight"
    made[name] = "F32", made[name][1].reshape(-1, 1)
    write(path, s, made)
    with pytest.raises(ModelError, match=rf"'{name}' has the shape \[256, 1\]; the metadata require \[256\]"):
        ov.Core().read_model(path)


def test_an_unknown_scaling_is_refused_whatever_its_factor(tmp_path: Path) -> None:
    def scaled(w: GGUFWriter) -> None:
        w.add_string("llama.rope.scaling.type", "su")
        w.add_float32("llama.rope.scaling.factor", 0.0)

    s, path = Sizes("llama", layers=1), tmp_path / "a.gguf"
    write(path, s, tensors(s, "F32", np.random.default_rng(SEED)), scaled)
    with pytest.raises(UnsupportedError, match="rope.scaling.type 'su'.*none, linear, yarn, longrope"):
        ov.Core().read_model(path)


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("logit_scale", 0.25, UnsupportedError, "'llama.logit_scale' is 0.25, which is not supported"),
        ("attention.causal", False, UnsupportedError, "'llama.attention.causal' is False"),
        ("expert_gating_func", 2, UnsupportedError, "'llama.expert_gating_func' is 2"),
        ("router_logit_softcapping", 30.0, UnsupportedError, "'llama.router_logit_softcapping' is 30.0"),
        ("rope.freq_base_more", 0.0, None, ""), ("logit_scale", 1.0, None, ""),
        ("rope.scaling.type", "su", UnsupportedError, "rope.scaling.type 'su'"),
        ("attention.layer_norm_rms_epsilon", -1.0, ModelError, "is -1.0; it should be at least 0.0"),
        ("rope.freq_base", 0.0, ModelError, "rope.freq_base' is 0.0; it should be at least 1.0"),
    ],
)  # fmt: skip
def test_settings_that_are_not_read_are_named(
    tmp_path: Path, name: str, value: Any, error: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other architectures compute with is no setting to pass over."""
    s, path = Sizes("llama", layers=1, extra={"scaling": "linear"}), tmp_path / "a.gguf"
    kinds = {float: "FLOAT32", bool: "BOOL", int: "UINT32", str: "STRING"}
    given, kind = f"llama.{name}", GGUFValueType[kinds[type(value)]]
    write_one = GGUFWriter.add_key_value

    def written(self: Any, key: str, val: Any, vtype: Any, *more: Any, **named: Any) -> None:
        if key != given:
            write_one(self, key, val, vtype, *more, **named)

    monkeypatch.setattr(GGUFWriter, "add_key_value", written)
    write(path, s, tensors(s, "F32", np.random.default_rng(SEED)), lambda w: write_one(w, given, value, kind))
    if error is None:
        ov.Core().read_model(path)
        return
    with pytest.raises(error, match=said):
        ov.Core().read_model(path)


@pytest.mark.parametrize("arch, name", [
    ("gpt2", "blk.0.attn_output.bias"), ("gpt2", "blk.1.ffn_up.bias"), ("qwen2", "blk.1.attn_k.bias"),
    ("qwen2", "blk.0.attn_q.bias"), ("qwen3moe", "blk.0.ffn_gate_inp.weight"),
    ("qwen3moe", "blk.1.ffn_down_exps.weight"), ("qwen3moe", "blk.1.attn_q_norm.weight"),
    ("qwen3", "blk.0.attn_k_norm.weight"), ("gemma3", "blk.0.attn_q_norm.weight"),
    ("gpt-oss", "blk.0.attn_sinks.weight"), ("gpt-oss", "blk.1.ffn_down_exps.bias"),
    ("gpt-oss", "blk.0.post_attention_norm.weight"), ("gpt-oss", "blk.1.ffn_gate_inp.bias"),
    ("phi3", "blk.0.attn_qkv.weight"), ("qwen2moe", "blk.1.ffn_gate_inp_shexp.weight"),
])  # fmt: skip
def test_missing_tensors_are_named(tmp_path: Path, arch: str, name: str) -> None:
    """A bias, too, if other layers have it, or the architecture does."""
    path = tmp_path / "a.gguf"
    s = Sizes(arch, experts=2 if arch.endswith(("moe", "oss")) else 0, words=40, shared=8)
    made = tensors(s, "F32", np.random.default_rng(SEED))
    del made[name]
    write(path, s, made)
    with pytest.raises(ModelError, match=f"'{name}' of the architecture '{arch}' is missing"):
        ov.Core().read_model(path)


def test_norms_of_heads_are_for_architectures_that_have_them(tmp_path: Path) -> None:
    """llama.cpp computes nothing with them in others."""
    path, s = tmp_path / "a.gguf", Sizes("llama", layers=1, words=40)
    made = tensors(s, "F32", np.random.default_rng(SEED))
    write(path, s, made | {"blk.0.attn_q_norm.weight": ("F32", np.ones(s.size, np.float32))})
    with pytest.raises(UnsupportedError, match="not read for the architecture 'llama': 'blk.0.attn_q_norm"):
        ov.Core().read_model(path)


def test_messages_show_a_part_of_long_names(tmp_path: Path) -> None:
    path, s = tmp_path / "a.gguf", Sizes("llama", layers=1, words=40)
    made = tensors(s, "F32", np.random.default_rng(SEED))
    name = "long" * 2000
    write(path, s, made | {name: ("F32", np.zeros((1, 4), np.float32))})
    whole = path.read_bytes()
    begin = whole.index(name.encode())
    for data in (whole, whole[: begin + len(name)]):
        path.write_bytes(data)
        with pytest.raises(RuntimeError, match="longlong") as caught:
            ov.Core().read_model(path)
        assert len(str(caught.value)) < 1000


def test_unknown_architectures_are_named(tmp_path: Path) -> None:
    s, path = Sizes("llama", layers=1), tmp_path / "a.gguf"
    made = tensors(s, "F32", np.random.default_rng(SEED))
    s.arch = "mamba"
    write(path, s, made)
    with pytest.raises(UnsupportedError, match="the architecture 'mamba' is not supported; supported: llama"):
        ov.Core().read_model(path)


def test_huge_sizes_are_refused(tmp_path: Path) -> None:
    s, path = Sizes("llama", layers=1), tmp_path / "a.gguf"
    made = tensors(s, "F32", np.random.default_rng(SEED))
    s.heads = s.shared = s.size = s.turned = 1 << 20
    write(path, s, made)
    with pytest.raises(ModelError, match="1048576 heads of 1048576 elements"):
        ov.Core().read_model(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    s = Sizes("llama", layers=1, words=8, wide=32, size=32, heads=1, shared=1, inner=32)
    made_file(tmp_path / "a.gguf", s)
    whole, path = (tmp_path / "a.gguf").read_bytes(), tmp_path / "b.gguf"
    rng = np.random.default_rng(SEED)
    hurt = [b"", b"GGUF", b"ONNX" + whole[4:], b"GGUF" + struct.pack(">I", 3) + whole[8:]]
    hurt += [whole[:4] + struct.pack("<I", 9) + whole[8:], whole[:-200]]
    hurt += [whole[:n] for n in rng.integers(8, len(whole) - 200, 40)]
    for at in (8, 16):  # counts of tensors and of entries
        hurt += [whole[:at] + struct.pack("<Q", n) + whole[at + 8 :] for n in (1 << 62, 1 << 16, 10**5)]
    at = whole.index(b"tokenizer.ggml.scores") + len("tokenizer.ggml.scores") + 8
    hurt += [whole[:at] + struct.pack("<Q", n) + whole[at + 8 :] for n in (1 << 63, 1 << 40)]
    for content in hurt:
        path.write_bytes(content)
        with pytest.raises(OvjitError, match=r"b\.gguf"):
            ov.Core().read_model(path)
    end = whole.index(b"output.weight")
    for _ in range(150):  # any byte of the header: an error of ours, or another model
        content = bytearray(whole)
        content[rng.integers(0, end)] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            ov.Core().read_model(path)
        except OvjitError:
            pass


def parts_of(folder: Path, s: Sizes) -> tuple[dict[str, tuple[str, np.ndarray]], list[Path]]:
    made = tensors(s, "Q4_0", np.random.default_rng(SEED))
    write(folder / "m.gguf", s, made, most=5)
    return made, sorted(folder.glob("m-*.gguf"))


def test_a_model_in_several_files(tmp_path: Path) -> None:
    """The first one is given, in a folder, too; the others are beside it."""
    s = Sizes("llama", layers=1, words=40)
    made, files = parts_of(tmp_path, s)
    assert len(files) == 3
    ids = np.random.default_rng([SEED, 3]).integers(0, s.words, 8)
    expected = Reference(s, made)(ids)
    assert model_file(tmp_path) == files[0]
    got = decoded(ov.Core().compile_model(files[0], "CPU", EXACT), ids, 5)
    assert abs(got - expected).max() < 2e-5 * abs(expected).max(), f"seed {SEED}"


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    s = Sizes("llama", layers=1, words=40)
    _, files = parts_of(tmp_path, s)
    whole = [file.read_bytes() for file in files]
    for said, number, content in (
        ("-00002-of-00003.gguf' of the model is missing", 1, None), ("not part 2 of 3", 1, whole[2]),
        ("not part 3 of 3", 2, whole[0]), ("-00003-of-00003", 2, whole[2][:100]),
    ):  # fmt: skip
        files[number].unlink()
        if content is not None:
            files[number].write_bytes(content)
        with pytest.raises(ModelError, match=said):
            ov.Core().read_model(files[0])
        files[number].write_bytes(whole[number])
    with pytest.raises(ModelError, match="one of 3 parts of a model: give the first"):
        ov.Core().read_model(files[1])
    other = tmp_path / "other.gguf"
    other.write_bytes(whole[0])
    with pytest.raises(ModelError, match="one of 3 parts of a model: give the first"):
        ov.Core().read_model(other)


def test_plain_numbers_of_any_type(tmp_path: Path) -> None:
    """Doubles and integers, as matrices and as vectors, beside the same numbers in f32."""
    s, found = Sizes("llama", layers=1, words=40), []
    made = tensors(s, "F32", np.random.default_rng(SEED))
    rng = np.random.default_rng([SEED, 9])
    changes = {
        "blk.0.ffn_down.weight": "F64", "blk.0.ffn_up.weight": "I8", "blk.0.attn_norm.weight": "I32",
        "blk.0.ffn_norm.weight": "F64", "output_norm.weight": "I16", "blk.0.attn_v.weight": "I64",
    }  # fmt: skip
    assert {*changes.values()} | {"F32", "F16", "BF16"} == {*REALS}
    for name, kind in changes.items():
        whole = rng.integers(-2, 3, made[name][1].shape) / (64.0 if kind == "F64" else 1.0)
        made[name] = kind, whole.astype(numpy_dtype(REALS[kind]))
    ids = rng.integers(0, s.words, 6)
    for path in (tmp_path / "a.gguf", tmp_path / "b.gguf"):
        write(path, s, made)
        found.append(decoded(ov.Core().compile_model(path, "CPU", EXACT), ids, 4))
        made = {name: (k, d if k == "F32" else d.astype(np.float32)) for name, (k, d) in made.items()}
        made = {name: ("F32", data) for name, (_, data) in made.items()}
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5 * abs(found[1]).max())


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F16"])
def test_norms_may_be_quantised(tmp_path: Path, kind: str) -> None:
    """Vectors that files mostly have in f32 are dequantised, whatever type the file has them in."""
    s, path = Sizes("llama", layers=1, tied=True), tmp_path / "m.gguf"
    made = tensors(s, "F32", np.random.default_rng(SEED))
    name = "blk.0.ffn_norm.weight"
    real = made[name][1]
    stored = real.astype(np.float16) if kind == "F16" else quants.quantize(real, GGMLQuantizationType[kind])
    made[name] = kind, stored
    write(path, s, made)
    ids = np.random.default_rng([SEED, 2]).integers(0, s.words, 8)
    expected = Reference(s, made)(ids)
    got = decoded(ov.Core().compile_model(path, "CPU", EXACT), ids, 5)
    worst = abs(got - expected).max() / abs(expected).max()
    assert worst < 2e-5, f"{kind} seed {SEED}: {worst}"


@pytest.mark.parametrize(
    ("given", "windows"),
    [
        ({}, [4096, 0, 4096]), ({"sliding_window": 7}, [7, 0, 7]), ({"sliding_window": 0}, [0, 0, 0]),
        ({"sliding_window_pattern": 3}, [4096, 4096, 0]),
        ({"sliding_window_pattern": [False, False, True]}, [0, 0, 4096]),
    ],
)  # fmt: skip
def test_windows_of_gemma2(given: dict[str, Any], windows: list[int]) -> None:
    """4,096 tokens where the file does not say it, as in llama.cpp."""
    sizes = {"block_count": 3, "embedding_length": 64, "attention.head_count": 4}
    metadata = (
        sizes | {"attention.layer_norm_rms_epsilon": 1e-6} | {f"attention.{k}": v for k, v in given.items()}
    )
    settings = Settings({"general.architecture": "gemma2"} | {f"gemma2.{k}": v for k, v in metadata.items()})
    assert settings.windows == windows
