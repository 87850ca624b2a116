"""ContinuousBatchingPipeline beside LLMPipeline, and its memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from tests.support.sweeps import some

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.blocks import Row

SEED = 20261128


def load(folder: Path, **options: Any) -> Any:
    config = genai.SchedulerConfig()
    for name, value in options.items():
        setattr(config, name, value)
    return genai.ContinuousBatchingPipeline(folder, config, "CPU")


def tensor_of(tokens: Any) -> Any:
    return ov.Tensor(np.asarray(tokens, np.int64)[None])


def check_pool(pipeline: Any) -> None:
    """All blocks are free, or those of prefixes."""
    pool = pipeline._batches._pool
    assert pool.count == 0
    assert len(set(pool._free) | set(pool._idle)) == len(pool._free) + len(pool._idle) == pool.decoder.blocks
    assert set(pool._idle) == set(pool._keys) and {pool._blocks[k] for k in pool._keys.values()} == set(
        pool._keys
    )


@pytest.mark.parametrize(
    ("properties", "kind"),
    [
        ({}, "u8"), ({"KV_CACHE_PRECISION": "f16"}, "f16"), ({"INFERENCE_PRECISION_HINT": "f32"}, "f32"),
        ({"EXECUTION_MODE_HINT": "ACCURACY"}, "f32"),
    ],
)  # fmt: skip
def test_caches_are_u8_by_default(
    folder: Path, properties: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in openvino_genai, whose default engine has paged caches; its other one has those of the model."""
    monkeypatch.delenv("OVJIT_PRECISION")
    single = genai.LLMPipeline(folder, "CPU", **properties)
    assert single._engine.decoder.compiled.get_property("KV_CACHE_PRECISION") == getattr(ov.Type, kind)
    batched = genai.ContinuousBatchingPipeline(folder, genai.SchedulerConfig(), "CPU", properties)
    assert batched._batches._decoder.kind == kind
    if not properties:
        plain = genai.LLMPipeline(folder, "CPU", ATTENTION_BACKEND="SDPA")
        variables = plain._engine.decoder.compiled._executable.program.variables
        assert all(variable.stored != "u8" for variable in variables)


def test_batches_compute_in_the_default_precision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of compile_model, as LLMPipeline does: bf16 takes half of the memory's time for a token."""
    monkeypatch.setenv("OVJIT_PRECISION", "bf16")
    name = "INFERENCE_PRECISION_HINT"
    expected = genai.LLMPipeline(folder, "CPU")._engine.decoder.compiled.get_property(name)
    for properties in ({}, {"draft_model": genai.draft_model(folder, "CPU")}):
        pipeline = genai.ContinuousBatchingPipeline(folder, genai.SchedulerConfig(), "CPU", properties)
        decoders = [pipeline._batches._decoder]
        if properties:
            decoders.append(pipeline._proposals._decoder)
        for decoder in decoders:
            assert [part.get_property(name) for part in (decoder._body, decoder._head)] == [expected] * 2


@pytest.mark.parametrize("seed", some(range(4), 2))
def test_random_requests_are_those_of_llm_pipeline(folder: Path, seed: int) -> None:
    """With few blocks, chunks of prompts, common prefixes and requests that are added between steps."""
    rng = np.random.default_rng([SEED, seed])
    single = genai.LLMPipeline(folder, "CPU")
    split = bool(rng.integers(2))
    pipeline = load(
        folder, num_kv_blocks=int(rng.integers(12, 18)), max_num_batched_tokens=int(rng.integers(8, 90)),
        dynamic_split_fuse=split, max_num_seqs=8, enable_prefix_caching=bool(rng.integers(2)),
    )  # fmt: skip
    prefix = rng.integers(3, 300, 70)
    requests = []
    for i in range(12):
        tokens = [*prefix[: int(rng.integers(0, 70))], *rng.integers(3, 300, int(rng.integers(1, 20)))]
        options: dict[str, Any] = {
            "max_new_tokens": int(rng.integers(1, 30)),
            "ignore_eos": True,
            "logprobs": 1,
        }
        kind = rng.integers(4)
        if kind == 1:
            options |= {"do_sample": True, "rng_seed": i, "num_return_sequences": 2}
        elif kind == 2:
            options |= {"num_beams": 3, "ignore_eos": False}
        config = genai.GenerationConfig(**options)
        requests.append((tokens, config, pipeline.add_request(i, tensor_of(tokens), config)))
        for _ in range(rng.integers(3)):
            pipeline.step()
    while pipeline.has_non_finished_requests():
        pipeline.step()
    for tokens, config, handle in requests:
        expected = single.generate(tensor_of(tokens), config)
        outputs = sorted(handle.read_all(), key=lambda output: -output.score)[: config.num_return_sequences]
        message = f"seed {[SEED, seed]}"
        assert [output.generated_ids for output in outputs] == expected.tokens, message
        np.testing.assert_allclose([o.score for o in outputs], expected.scores, atol=2e-3, err_msg=message)
    check_pool(pipeline)


def test_prefixes_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load(folder, enable_prefix_caching=True)
    decoder, counts = pipeline._batches._decoder, list[int]()
    hidden = decoder.hidden

    def count(tokens: np.ndarray, *others: Any) -> np.ndarray:
        counts.append(len(tokens))
        return hidden(tokens, *others)

    monkeypatch.setattr(decoder, "hidden", count)
    config = genai.GenerationConfig(max_new_tokens=1)
    prompt = list(range(3, 103))
    first = pipeline.generate([tensor_of(prompt)], [config])[0].m_generation_ids
    assert pipeline.generate([tensor_of(prompt)], [config])[0].m_generation_ids == first
    pipeline.generate([tensor_of([*prompt[:40], 7, 8])], [config])
    size = decoder.block
    assert counts == [100, 100 - 99 // size * size, 42 - 40 // size * size]
    check_pool(pipeline)


def test_caches_grow(folder: Path) -> None:
    pipeline, expected = load(folder), genai.LLMPipeline(folder, "CPU")
    blocks = pipeline._batches._decoder.blocks
    rng = np.random.default_rng(SEED)
    prompts = [tensor_of(rng.integers(3, 300, 400)) for _ in range(6)]
    config = genai.GenerationConfig(max_new_tokens=4, ignore_eos=True)
    results = pipeline.generate(prompts, [config] * 6)
    assert pipeline._batches._decoder.blocks > blocks
    for prompt, result in zip(prompts, results, strict=True):
        assert result.m_generation_ids == expected.generate(prompt, config).tokens, f"seed {SEED}"
    check_pool(pipeline)


def test_sequences_of_a_request_in_several_steps(folder: Path) -> None:
    """Logits of the first ones wait for the others', which the decoder writes to the same memory."""
    tokens = tensor_of(np.random.default_rng(SEED).integers(3, 300, 9))
    config = genai.GenerationConfig(
        max_new_tokens=6, ignore_eos=True, do_sample=True, num_return_sequences=4, temperature=3.0
    )
    whole, parts = (
        load(folder, max_num_batched_tokens=count).generate([tokens], [config])[0] for count in (64, 2)
    )
    assert len({*map(tuple, whole.m_generation_ids)}) == 4
    assert parts.m_generation_ids == whole.m_generation_ids, f"seed {SEED}"


def test_sequences_of_equal_scores_come_in_their_order(folder: Path) -> None:
    """As in openvino_genai, where `read` of several sequences has the last one first."""
    options = {"do_sample": True, "top_k": 2, "top_p": 0.3, "num_return_sequences": 4, "rng_seed": 3}
    config = genai.GenerationConfig(max_new_tokens=8, ignore_eos=True, frequency_penalty=1.5, **options)
    prompt = "not the 2 it there words numbers {}"
    expected = genai.LLMPipeline(folder, "CPU").generate(prompt, config)
    assert len({*expected.texts}) == 4 and {*expected.scores} == {0.0}
    (result,) = load(folder).generate([prompt], [config])
    assert result.m_generation_ids == expected.texts


def test_handles_run_steps_while_there_is_nothing_to_read(folder: Path) -> None:
    pipeline = load(folder)
    config = genai.GenerationConfig(max_new_tokens=3, ignore_eos=True)
    handle, other = (pipeline.add_request(i, "hello", config) for i in range(2))
    first = handle.read()[0].generated_ids
    assert first + handle.read_all()[0].generated_ids == other.read_all()[0].generated_ids
    assert not pipeline.has_non_finished_requests()
    with pytest.raises(OvjitError, match="all results of this request have been read"):
        handle.read()


def test_an_error_of_a_streamer_ends_the_request(folder: Path) -> None:
    class Broken(genai.StreamerBase):
        def write(self, token: Any) -> Any:
            raise ZeroDivisionError("of the streamer")

        def end(self) -> None:
            pass

    pipeline = load(folder)
    config = genai.GenerationConfig(max_new_tokens=3, ignore_eos=True)
    with pytest.raises(ZeroDivisionError, match="of the streamer"):
        pipeline.generate("hello", config, Broken())
    assert not pipeline.has_non_finished_requests()
    check_pool(pipeline)
    assert pipeline.generate("hello", config)[0].m_status is genai.GenerationStatus.FINISHED

    class Adding(Broken):
        def write(self, token: Any) -> Any:
            self.handle = pipeline.add_request(1, prompt, config)
            super().write(token)

    adding, prompt = Adding(), tensor_of([1, 260, 270, 20])
    with pytest.raises(ZeroDivisionError, match="of the streamer"):
        pipeline.generate([prompt], [config], adding)
    tokens = adding.handle.read_all()[0].generated_ids
    assert pipeline.generate([prompt], [config])[0].m_generation_ids == [tokens]
    check_pool(pipeline)


def test_a_question_without_room_is_no_part_of_a_chat(folder: Path) -> None:
    pipeline = load(folder, num_kv_blocks=1)
    config = genai.GenerationConfig(max_new_tokens=3, ignore_eos=True)
    with pytest.warns(DeprecationWarning, match="start_chat is deprecated"):
        pipeline.start_chat()
    result = pipeline.generate("hello " * 200, config)[0]
    assert (result.m_status, result.m_generation_ids) == (genai.GenerationStatus.IGNORED, [""])
    assert not pipeline._prompts.history


@pytest.mark.parametrize(
    ("blocks", "options", "lengths"),
    [
        (3, {}, [93]), (3, {"stop_strings": {"no such text at all"}}, [93]), (3, {"echo": True}, [97]),
        (3, {"num_return_sequences": 3, "do_sample": True}, [29] * 3),
        (3, {"num_return_sequences": 3, "num_beams": 4}, [1] * 3),
        (6, {"num_return_sequences": 4, "num_beams": 4}, [61] * 4),
    ],
)  # fmt: skip
def test_a_request_ends_where_the_cache_is_full(
    folder: Path, blocks: int, options: dict[str, Any], lengths: list[int]
) -> None:
    """Its sequences are as long as openvino_genai's with as many blocks, and the blocks are free again."""
    pipeline, prompt = load(folder, num_kv_blocks=blocks), tensor_of([1, 260, 270, 20])
    config = genai.GenerationConfig(max_new_tokens=1000, ignore_eos=True, rng_seed=3, **options)
    for _ in range(2):
        result = pipeline.generate([prompt], [config])[0]
        assert [*map(len, result.m_generation_ids)] == lengths
        assert result.finish_reasons == [genai.GenerationFinishReason.NONE] * len(lengths)
        assert len(result.m_scores) == len(lengths) and np.isfinite(result.m_scores).all()
        check_pool(pipeline)
    handle = pipeline.add_request(0, prompt, config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    assert handle.get_status() is genai.GenerationStatus.IGNORED
    assert [len(output.generated_ids) for output in handle.read_all()] == lengths


def test_a_stop_string_at_the_first_token_leaves_an_empty_answer(folder: Path) -> None:
    """As in openvino_genai: `generate` has one sequence, and the handle one reading without any."""
    pipeline, prompt = load(folder), tensor_of([180, 159, 270, 132])
    tokens = pipeline.generate([prompt], [genai.GenerationConfig(max_new_tokens=1)])[0].m_generation_ids[0]
    stop = pipeline.get_tokenizer().decode(tokens)
    config = genai.GenerationConfig(max_new_tokens=6, stop_strings={stop})
    result = pipeline.generate([prompt], [config])[0]
    assert (result.m_generation_ids, result.m_scores) == ([[]], [0])
    assert result.finish_reasons == [genai.GenerationFinishReason.STOP]
    handle = pipeline.add_request(0, prompt, config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    assert handle.can_read() and handle.read() == {} and not handle.can_read()


def test_a_prompt_without_room_has_an_empty_answer(folder: Path) -> None:
    pipeline = load(folder, num_kv_blocks=1)
    for options in (
        {},
        {"num_return_sequences": 2, "num_beams": 2},
        {"num_return_sequences": 2, "do_sample": True},
    ):
        config = genai.GenerationConfig(max_new_tokens=3, ignore_eos=True, **options)
        assert pipeline.generate([tensor_of([1] + [3] * 200)], [config])[0].m_generation_ids == [[]]
        check_pool(pipeline)


def test_an_error_of_a_request_leaves_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, prompt = load(folder), tensor_of([1, 260, 270, 20])
    config = genai.GenerationConfig(max_new_tokens=4, ignore_eos=True)
    expected = pipeline.generate([prompt], [config])[0].m_generation_ids[0]
    failing, other = (pipeline.add_request(i, prompt, config) for i in range(2))

    def fail(pool: Any) -> None:
        raise ZeroDivisionError("of the first request")

    monkeypatch.setattr(pipeline._batches.running[0], "advance", fail)
    with pytest.raises(ZeroDivisionError, match="of the first request"):
        pipeline.step()
    assert failing.get_status() is genai.GenerationStatus.CANCEL
    for _ in range(3):
        pipeline.step()
    assert other.get_status() is genai.GenerationStatus.FINISHED
    assert other.read_all()[0].generated_ids == expected
    check_pool(pipeline)


@pytest.mark.parametrize("place", ["hidden", "logits"])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_error_between_two_choices_is_computed_again(
    folder: Path, place: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a step that ends before the choice of tokens: no request waits for ever, and none loses tokens."""
    prompts = [tensor_of([1, 260, 270, 20]), tensor_of([5, 6, 7])]
    configs = [
        genai.GenerationConfig(max_new_tokens=6, ignore_eos=True),
        genai.GenerationConfig(max_new_tokens=6, num_beams=3),
    ]
    pairs = list(zip(prompts, configs, strict=True))
    expected = [load(folder).generate([p], [c])[0].m_generation_ids[0] for p, c in pairs]
    for broken in range(1, 8):
        pipeline = load(folder)
        handles = [pipeline.add_request(i, prompts[i], configs[i]) for i in range(2)]
        compute, calls = getattr(pipeline._batches._decoder, place), iter(range(1, 1000))

        def fail(*arguments: Any, compute: Any = compute, calls: Any = calls, broken: int = broken) -> Any:
            if next(calls) == broken:
                raise error
            return compute(*arguments)

        monkeypatch.setattr(pipeline._batches._decoder, place, fail)
        errors = steps = 0
        while pipeline.has_non_finished_requests() and steps < 50:
            steps += 1
            try:
                pipeline.step()
            except error:
                errors += 1
        assert [handle.get_status().name for handle in handles] == ["FINISHED"] * 2
        assert errors == (broken <= steps)
        for handle, tokens in zip(handles, expected, strict=True):
            best = max(handle.read_all(), key=lambda output: output.score)
            assert best.generated_ids == tokens
        check_pool(pipeline)


def test_proposed_tokens_are_no_prefix(folder: Path) -> None:
    """Their blocks are written again if other tokens are chosen."""
    pool = load(folder, enable_prefix_caching=True)._batches._pool
    row = Row(range(3 * pool.size))
    assert pool.reserve(row, len(row.tokens))
    row.length, row.logit_count = len(row.tokens), 1 + pool.size // 2
    pool.keep_prefix(row)
    other = Row([*row.tokens, 1])
    pool.find_prefix(other)
    assert other.blocks == row.blocks[:2]


def test_constructors_and_their_errors(folder: Path) -> None:
    config, tokenizer = genai.SchedulerConfig(), genai.Tokenizer(folder)
    few = genai.GenerationConfig(max_new_tokens=3, ignore_eos=True)
    texts = [
        pipeline.generate("hello", few)[0].m_generation_ids
        for pipeline in (
            genai.ContinuousBatchingPipeline(folder, config, "CPU", {"PERFORMANCE_HINT": "LATENCY"}, {}, {}),
            genai.ContinuousBatchingPipeline(folder, tokenizer, config, "CPU", PERFORMANCE_HINT="LATENCY"),
            genai.ContinuousBatchingPipeline(str(folder), scheduler_config=config, device="CPU"),
        )
    ]
    assert texts[0] == texts[1] == texts[2]
    with pytest.raises(TypeError, match="incompatible constructor arguments"):
        genai.ContinuousBatchingPipeline(folder, "CPU")
    for other in (folder / "nowhere", Path(__file__).parent):
        with pytest.raises(OvjitError, match="Could not find a model in the directory"):
            genai.ContinuousBatchingPipeline(other, config, "CPU")
    with pytest.raises(UnsupportedError, match="on the device CPU"):
        genai.ContinuousBatchingPipeline(folder, config, "GPU")
    config.dynamic_split_fuse, config.max_num_batched_tokens = False, 8
    with pytest.raises(OvjitError, match="greater or equal to max num sequences"):
        genai.ContinuousBatchingPipeline(folder, config, "CPU")
    pipeline = load(folder)
    with pytest.raises(OvjitError, match="the model takes no pictures"):
        pipeline.generate(["a"], images=[[tensor_of([1])]], generation_config=[few])
    with pytest.raises(OvjitError, match="shape"):
        pipeline.add_request(0, ov.Tensor(np.zeros((2, 3), np.int64)), few)


def test_a_streamer_cannot_generate_with_its_pipeline(folder: Path) -> None:
    pipeline, handles = load(folder), list[Any]()
    config, prompt = genai.GenerationConfig(max_new_tokens=3, ignore_eos=True), tensor_of([1, 260, 270, 20])
    expected = pipeline.generate([prompt], [config])[0].m_generation_ids

    class Stream(genai.StreamerBase):
        def write(self, tokens: Any) -> None:
            for call in (lambda: pipeline.generate([prompt], [config]), pipeline.step):
                with pytest.raises(OvjitError, match="a streamer or callback cannot call generate or step"):
                    call()
            handles.append(pipeline.add_request(len(handles) + 1, prompt, config))

        def end(self) -> None:
            pass

    assert pipeline.generate([prompt], [config], Stream())[0].m_generation_ids == expected
    assert [handle.read_all()[0].generated_ids for handle in handles] == expected * 3
    check_pool(pipeline)


def test_calls_of_several_threads_take_turns(folder: Path) -> None:
    pipeline = load(folder)
    config = genai.GenerationConfig(max_new_tokens=20, ignore_eos=True)
    expected = pipeline.generate(["hello"], [config])[0].m_generation_ids
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(pipeline.generate, ["hello"], [config]) for _ in range(6)]
    assert [call.result()[0].m_generation_ids for call in calls] == [expected] * 6


@pytest.mark.parametrize("kind", ["text", "tensor", "chat"])
def test_a_wrong_number_of_configurations(folder: Path, kind: str) -> None:
    """The errors of the real package: IndexError for texts without a configuration, else RuntimeError."""
    pipeline, config = load(folder), genai.GenerationConfig(max_new_tokens=1)
    item = {
        "text": "a",
        "tensor": tensor_of([3, 4]),
        "chat": genai.ChatHistory([{"role": "user", "content": "a"}]),
    }
    for prompts, configs in ((1, 0), (3, 2), (1, 2), (0, 1)):
        error = IndexError if kind == "text" and configs < prompts else OvjitError
        with pytest.raises(error, match=f"{prompts} prompts"):
            pipeline.generate([item[kind]] * prompts, [config] * configs)
    with pytest.raises(IndexError):
        pipeline.generate([], [])
    assert len(pipeline.generate([item[kind]] * 2, [config] * 2)) == 2
