"""LoRA adapters and drafts, beside results of the real openvino_genai, which `tests.support.genai_adapters`
has written, and beside sums in NumPy."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai
from ovjit.errors import OvjitError
from tests.support import genai_adapters as cases
from tests.support.genai_cases import is_same

EXPECTED = json.loads((Path(__file__).parent / "adapters.json").read_text(encoding="utf-8"))
TOKENS = ov.Tensor(np.array([[1, 260, 270, 20]], np.int64))
OPTIONS = {"max_new_tokens": 8, "ignore_eos": True}
MODES = ("DYNAMIC", "STATIC_RANK", "STATIC", "FUSE")


def test_results_are_those_of_the_real_package(folder: Path) -> None:
    results = cases.collect(genai, ov, folder)
    assert list(results) == list(EXPECTED)
    wrong = {n: (v, EXPECTED[n]) for n, v in results.items() if not is_same(v, EXPECTED[n], 2e-3)}
    assert not wrong


@pytest.fixture(scope="module")
def adapted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose layers have names, with the files of adapters beside it."""
    path = tmp_path_factory.mktemp("adapters")
    cases.write_adapters(path)
    return cases.adapt_names(ov, path / "llama", folder)


def adapter_of(adapted: Path, name: str) -> genai.Adapter:
    return genai.Adapter(adapted.parent / f"{name}.safetensors")


def run(pipeline: Any, **options: Any) -> Any:
    return pipeline.generate(TOKENS, **OPTIONS, **options).tokens[0]


def test_configurations(adapted: Path) -> None:
    config, modes = genai.AdapterConfig, genai.AdapterConfig.Mode
    a, b = adapter_of(adapted, "a"), adapter_of(adapted, "b")
    configs = [
        config(a), config(a, 0.5, modes.MODE_STATIC), config([a, b], mode=modes.MODE_FUSE),
        config([(b, 2), (a, 0.25)]), config(adapter=a, alpha=3), config(modes.MODE_FUSE),
    ]  # fmt: skip
    assert [each.get_adapters_and_alphas() for each in configs] == [
        [(a, 1.0)],
        [(a, 0.5)],
        [(a, 1.0), (b, 1.0)],
        [(b, 2.0), (a, 0.25)],
        [(a, 3.0)],
        [],
    ]
    changed = config(a).add(b, 0.5).set_alpha(a, 0.1).remove(b)
    assert (changed.get_adapters(), changed.get_alpha(a)) == ([a], float(np.float32(0.1)))
    assert [bool(each) for each in (config(), config(a, 0.0), genai.Adapter(), a)] == [
        False,
        True,
        False,
        True,
    ]
    assert len(config(adapter=genai.Adapter()).get_adapters()) == 1
    assert str(modes.MODE_STATIC_RANK) == "Mode.MODE_STATIC_RANK" and int(modes.MODE_FUSE) == 4
    settings = genai.GenerationConfig(adapters=config(a))
    settings.adapters.set_alpha(a, 7)
    assert settings.adapters.get_alpha(a) == 7
    for wrong in (
        lambda: config(3), lambda: config(a, "1"), lambda: config([a, (b, 1)]), lambda: config([a], 0.5),
        lambda: genai.Adapter(3), lambda: config().add(3), lambda: setattr(settings, "adapters", a),
    ):  # fmt: skip
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(OvjitError, match="was already registered"):
        config(a).add(a)
    for method in ("remove", "get_alpha"):
        with pytest.raises(OvjitError, match=f"Unknown adapter object passed to AdapterConfig::{method}"):
            getattr(config(a), method)(b)
    with pytest.raises(OvjitError, match="register adapter object first"):
        config(a).set_alpha(b, 1.0)


@pytest.mark.parametrize("mode", ["STATIC", "FUSE"])
def test_fixed_adapters_cannot_be_changed(adapted: Path, mode: str) -> None:
    kind = getattr(genai.AdapterConfig.Mode, f"MODE_{mode}")
    a, b = adapter_of(adapted, "a"), adapter_of(adapted, "b")
    pipeline = genai.LLMPipeline(adapted, "CPU", adapters=genai.AdapterConfig(a, kind))
    first = run(pipeline)
    for other in (genai.AdapterConfig(b), genai.AdapterConfig(a, 0.5)):
        with pytest.warns(RuntimeWarning, match=f"no effect: the pipeline was loaded with MODE_{mode}"):
            assert run(pipeline, adapters=other) == first
    with pytest.raises(OvjitError, match="Cannot change adapters"):
        run(pipeline, adapters=genai.AdapterConfig(b, kind))
    assert run(pipeline) == run(pipeline, adapters=genai.AdapterConfig(a)) == first


def test_a_refused_change_keeps_the_adapters(adapted: Path) -> None:
    mode = genai.AdapterConfig.Mode.MODE_STATIC_RANK
    a, b = adapter_of(adapted, "a"), adapter_of(adapted, "b")
    pipeline = genai.LLMPipeline(adapted, "CPU", adapters=genai.AdapterConfig(a, mode))
    first = run(pipeline)
    with pytest.raises(OvjitError, match="MODE_STATIC_RANK was configured for 4"):
        run(pipeline, adapters=genai.AdapterConfig(b))
    settings = genai.GenerationConfig(**OPTIONS)
    assert pipeline.generate(TOKENS, settings).tokens[0] == run(pipeline) == first


def test_warnings(adapted: Path) -> None:
    with pytest.warns(RuntimeWarning, match=r"unused LoRA tensors.*model\.layers\.7\.mlp\.up_proj"):
        genai.LLMPipeline(adapted, "CPU", adapters=genai.AdapterConfig(adapter_of(adapted, "unused")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        genai.LLMPipeline(adapted, "CPU", adapters=genai.AdapterConfig(adapter_of(adapted, "a")))
    pipeline = genai.LLMPipeline(adapted, "CPU")
    with pytest.warns(RuntimeWarning, match="loaded without adapters"):
        run(pipeline, adapters=genai.AdapterConfig(adapter_of(adapted, "a")))
    with pytest.raises(OvjitError, match="an Adapter without a file"):
        genai.LLMPipeline(adapted, "CPU", adapters=genai.AdapterConfig(genai.Adapter()))


def write_whole_weights(adapted: Path, folder: Path) -> tuple[Path, Path]:
    """(a folder whose last weights have a name, an adapter that replaces them)."""
    shutil.copytree(adapted, folder)
    model = ov.Core().read_model(adapted / "openvino_model.xml")
    head = next(n for n in model.get_ordered_ops() if "lm_head" in n.get_friendly_name())
    head.input_value(1).get_node().set_friendly_name("self.lm_head.weight")
    ov.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    weights = np.random.default_rng(3).standard_normal((300, 32)).astype(np.float32)
    tensors = cases.tensors_of(1, 4, ("model.layers.0.mlp.up_proj",))
    path = folder / "whole.safetensors"
    tensors[f"{cases.PREFIX}lm_head.weight"] = "F32", weights
    path.write_bytes(cases.write_safetensors(tensors))
    return folder, path


#: Results of the real package with these weights, without, with the scale 0.5, and with the adapter b.
WHOLE = (
    ([215, 17, 2, 268, 105, 54, 192, 184], -5.755), ([235, 108, 109, 67, 97, 255, 67, 97], -26.793),
    ([215, 154, 202, 253, 132, 271, 297, 230], -5.488), ([235, 108, 109, 67, 97, 272, 42, 217], -26.461),
)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_whole_weights(adapted: Path, tmp_path: Path, mode: str) -> None:
    """Weights of an adapter replace constants."""
    folder, path = write_whole_weights(adapted, tmp_path / "whole")
    whole, b = genai.Adapter(path), adapter_of(adapted, "b")
    first = genai.AdapterConfig(whole, getattr(genai.AdapterConfig.Mode, f"MODE_{mode}"))
    pipeline = genai.LLMPipeline(folder, "CPU", adapters=first)
    configs = [None, genai.AdapterConfig(), genai.AdapterConfig(whole, 0.5), genai.AdapterConfig(b)]
    for config, (tokens, score) in zip(configs[: 4 if mode == "DYNAMIC" else 1], WHOLE, strict=False):
        options = {} if config is None else {"adapters": config}
        result = pipeline.generate(TOKENS, logprobs=1, **OPTIONS, **options)
        assert result.tokens == [tokens]
        np.testing.assert_allclose(result.scores, [score], atol=2e-3)
    batches = genai.ContinuousBatchingPipeline(
        folder, genai.SchedulerConfig(), "CPU", {"adapters": genai.AdapterConfig(whole, first._mode)}
    )
    assert batches.generate([TOKENS], [genai.GenerationConfig(**OPTIONS)])[0].m_generation_ids == [
        WHOLE[0][0]
    ]


GGUF_NAMES = dict(zip(cases.LAYERS, ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up",
                                     "ffn_down"), strict=True))  # fmt: skip


def write_gguf_adapter(path: Path, architecture: str, kind: str = "lora") -> Path:
    """The adapter b as llama.cpp writes it: a llama has rotated pairs of queries and keys side by side."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("adapter.type", kind)
    for name, (_, array) in cases.FILES["b"].items():
        layer, part = name[len(cases.PREFIX) : -len(".weight")].rsplit(".lora_", 1)
        _, _, block, rest = layer.split(".", 3) if layer != "lm_head" else (0, 0, 0, layer)
        own = "output" if layer == "lm_head" else f"blk.{block}.{GGUF_NAMES[rest]}"
        if part == "B" and architecture == "llama" and own.endswith(("attn_q", "attn_k")):
            array = array.reshape(-1, 2, 8, 2).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(f"{own}.weight.lora_{part.lower()}", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_gguf_files(adapted: Path, tmp_path: Path, architecture: str) -> None:
    """The same tokens as with the safetensors file of these matrices."""
    path = write_gguf_adapter(tmp_path / "b.gguf", architecture)
    results = []
    for adapter in (adapter_of(adapted, "b"), genai.Adapter(path)):
        config = genai.AdapterConfig(adapter)
        alone = genai.LLMPipeline(adapted, "CPU", adapters=config).generate(TOKENS, logprobs=1, **OPTIONS)
        batches = genai.ContinuousBatchingPipeline(
            adapted, genai.SchedulerConfig(), "CPU", {"adapters": config}
        )
        settings = genai.GenerationConfig(logprobs=1, **OPTIONS)
        batched = batches.generate([TOKENS], [settings])[0]
        results.append((alone.tokens, batched.m_generation_ids, alone.scores, batched.m_scores))
    assert results[0] == results[1]


@pytest.mark.parametrize("is_batched", [False, True])
def test_a_gguf_file_comes_with_a_later_call(adapted: Path, tmp_path: Path, is_batched: bool) -> None:
    """Layers that the first adapter has are prepared; that of the file has the same ones."""
    later = genai.AdapterConfig(genai.Adapter(write_gguf_adapter(tmp_path / "b.gguf", "llama")))
    expected = genai.LLMPipeline(adapted, "CPU", adapters=later).generate(TOKENS, **OPTIONS).tokens
    first = genai.AdapterConfig(adapter_of(adapted, "b"))
    first.set_alpha(first.get_adapters()[0], 0.1)
    if is_batched:
        batches = genai.ContinuousBatchingPipeline(
            adapted, genai.SchedulerConfig(), "CPU", {"adapters": first}
        )
        results = [
            batches.generate([TOKENS], [genai.GenerationConfig(**OPTIONS, **more)])[0].m_generation_ids
            for more in ({}, {"adapters": later})
        ]
    else:
        pipeline = genai.LLMPipeline(adapted, "CPU", adapters=first)
        results = [pipeline.generate(TOKENS, **OPTIONS, **more).tokens for more in ({}, {"adapters": later})]
    assert results[0] != expected and results[1] == expected


def test_gguf_files_that_are_no_adapters(tmp_path: Path) -> None:
    with pytest.raises(OvjitError, match="is no LoRA adapter: its adapter.type is 'other'"):
        genai.Adapter(write_gguf_adapter(tmp_path / "other.gguf", "llama", "other"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(OvjitError):
        genai.Adapter(tmp_path / "bad.gguf")


def test_a_changed_adapter_reads_a_chat_anew(adapted: Path) -> None:
    """Keys and values of one adapter are not those of another."""
    a, b = adapter_of(adapted, "a"), adapter_of(adapted, "b")
    pipeline = genai.LLMPipeline(adapted, "CPU", adapters=genai.AdapterConfig(a))
    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = True
    batches = genai.ContinuousBatchingPipeline(
        adapted, scheduler, "CPU", {"adapters": genai.AdapterConfig(a)}
    )
    prompt = ov.Tensor(np.random.default_rng(cases.SEED).integers(3, 300, (1, 100)))
    plain = genai.LLMPipeline(adapted, "CPU")
    for adapters in (
        genai.AdapterConfig(a),
        genai.AdapterConfig(),
        genai.AdapterConfig(b),
        genai.AdapterConfig(a),
    ):
        config = genai.GenerationConfig(adapters=adapters, **OPTIONS)
        result = pipeline.generate(prompt, config).tokens
        assert batches.generate([prompt], [config])[0].m_generation_ids == result
        assert adapters or result == plain.generate(prompt, **OPTIONS).tokens


def test_requests_of_a_batch_share_adapters(adapted: Path) -> None:
    a, b = (genai.AdapterConfig(adapter_of(adapted, name)) for name in "ab")
    pipeline = genai.ContinuousBatchingPipeline(adapted, genai.SchedulerConfig(), "CPU", {"adapters": a})
    configs = [genai.GenerationConfig(adapters=each, **OPTIONS) for each in (a, b)]
    with pytest.raises(OvjitError, match="must be the same for all requests"):
        pipeline.generate([TOKENS, TOKENS], configs)
    handle = pipeline.add_request(0, TOKENS, configs[0])
    with pytest.raises(OvjitError, match="must be the same for all requests"):
        pipeline.add_request(1, TOKENS, configs[1])
    other = pipeline.add_request(1, TOKENS, genai.GenerationConfig(**OPTIONS))
    assert handle.read_all()[0].generated_ids == other.read_all()[0].generated_ids


def test_a_draft_keeps_its_adapters_with_those_of_the_pipeline(adapted: Path) -> None:
    a, b = genai.AdapterConfig(adapter_of(adapted, "a")), genai.AdapterConfig(adapter_of(adapted, "b"))
    properties = {"adapters": a, "draft_model": genai.draft_model(adapted, "CPU", adapters=b)}
    pipeline = genai.ContinuousBatchingPipeline(adapted, genai.SchedulerConfig(), "CPU", properties)
    config = pipeline.get_config()
    config.update_generation_config(**OPTIONS)
    pipeline.generate([TOKENS], [config])
    assert pipeline._adapters.is_current(a) and pipeline._proposals._adapters.is_current(b)


@pytest.mark.parametrize("seed", range(3))
def test_drafts_of_random_requests_change_no_token(adapted: Path, seed: int) -> None:
    """With few blocks, chunks of prompts, prefixes, and requests that are added between steps."""
    rng = np.random.default_rng([cases.SEED, seed])
    similar = genai.AdapterConfig(adapter_of(adapted, "b"), 0.1)
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks, scheduler.max_num_seqs = int(rng.integers(8, 14)), 6
    scheduler.max_num_batched_tokens = int(rng.integers(6, 40))
    scheduler.dynamic_split_fuse, scheduler.enable_prefix_caching = bool(rng.integers(2)), True
    draft = genai.draft_model(adapted, "CPU", adapters=similar)
    properties = {"draft_model": draft} if seed != 1 else {"prompt_lookup": True}
    pipeline = genai.ContinuousBatchingPipeline(adapted, scheduler, "CPU", properties)
    single, requests = genai.LLMPipeline(adapted, "CPU"), []
    prefix = rng.integers(3, 300, 70)
    for i in range(9):
        tokens = [*prefix[: int(rng.integers(0, 70))], *rng.integers(3, 300, int(rng.integers(1, 20)))]
        config = genai.GenerationConfig(max_new_tokens=int(rng.integers(1, 30)), ignore_eos=True, logprobs=1)
        if rng.integers(3) == 0:
            config.do_sample, config.rng_seed = True, i
        config.num_assistant_tokens = int(rng.integers(1, 7))
        config.max_ngram_size = 2 if seed == 1 else 0
        prompt = ov.Tensor(np.array([tokens], np.int64))
        requests.append((prompt, config, pipeline.add_request(i, prompt, config)))
        for _ in range(rng.integers(3)):
            pipeline.step()
    while pipeline.has_non_finished_requests():
        pipeline.step()
    for prompt, config, handle in requests:
        output = handle.read_all()[0]
        message = f"seed {[cases.SEED, seed]}"
        expected = single.generate(prompt, config)
        assert [output.generated_ids] == expected.tokens, message
        np.testing.assert_allclose(output.score, expected.scores[0], atol=2e-3, err_msg=message)
    assert pipeline._batches._pool.count == 0
    if seed != 1:
        assert pipeline._proposals._pool.count == 0
