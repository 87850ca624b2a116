"""WhisperPipeline and ASRPipeline beside results of the real openvino_genai, which
`tests.support.whisper_cases` has written, and their parts beside NumPy in float64."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from bench.whisper import END, NO_TIMES, write_folder
from ovjit.compat import opset13 as ops
from ovjit.errors import OvjitError
from tests.support import whisper_cases as cases
from tests.support.genai_cases import EXACT, value_of

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai
from ovjit.genai.whisper.mel import FeatureExtractor, build_filters
from ovjit.genai.whisper.rules import Segments
from ovjit.genai.whisper.words import filter_median, split_characters, time_words, warp

EXPECTED = json.loads((Path(__file__).parent / "expected_whisper.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def speech_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(ov, tmp_path_factory.mktemp("genai") / "whisper")


@pytest.fixture(scope="module")
def pipeline(speech_folder: Path) -> Any:
    return genai.WhisperPipeline(speech_folder, "CPU", **EXACT)


@pytest.mark.parametrize("group", cases.GROUPS)
def test_results_are_those_of_the_real_package(group: str, speech_folder: Path) -> None:
    programs = cases.GROUPS[group](genai, speech_folder)
    results = {name: value_of(run) for name, run in programs}
    assert list(results) == list(EXPECTED[group])
    wrong = {n: (v, EXPECTED[group][n]) for n, v in results.items() if v != EXPECTED[group][n]}
    assert not wrong


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("seconds", [0.3, 31.5])
def test_features(mels: int, seconds: float, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"feature_size": mels}))
    samples = np.array(cases.record(seconds, mels), np.float32)
    features = FeatureExtractor(tmp_path).extract(samples)
    length = max(len(samples), 480000)
    padded = np.zeros(length + 400)
    padded[: len(samples) + 200] = np.concatenate([samples[200:0:-1], samples])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    angles = np.exp(-2j * np.pi * np.outer(np.arange(400), np.arange(201)) / 400)
    rows = np.linspace(0, length // 160 - 1, 40).astype(int)
    power = np.abs(np.stack([padded[i * 160 : i * 160 + 400] * window for i in rows]) @ angles) ** 2
    logs = np.log10(np.maximum(power @ build_filters(201, mels, 16000).astype(np.float64).T, 1e-10))
    highest = features.data.max() * 4 - 4 + 8  # the lowest value of the data is 8 below its highest
    assert logs.max() <= highest - 8 + 1e-3
    expected = (np.maximum(logs, highest - 16) + 4) / 4
    np.testing.assert_allclose(features.data[:, rows].T, expected, atol=2e-4, err_msg=f"seed {mels}")
    assert features.data.shape == (mels, length // 160) and features.active == len(samples) // 160
    behind = features.window(length // 160 - 10, 3000)
    assert behind.shape == (1, mels, 3000) and not behind[..., 10:].any()


def test_filters_have_the_area_one() -> None:
    filters = build_filters(4001, 80, 16000).astype(np.float64)
    np.testing.assert_allclose(filters.sum(1) * 2, 1, atol=0.02)  # a bin is two hertz
    assert (np.diff(filters.argmax(1)) > 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_the_path_of_words(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.integers(-8, 8, (int(rng.integers(1, 9)), int(rng.integers(1, 30)))).astype(np.float32)
    rows, columns = costs.shape
    sums = np.full((rows + 1, columns + 1), np.inf)
    sums[0, 0] = 0
    for i in range(rows):
        for j in range(columns):
            sums[i + 1, j + 1] = costs[i, j] + min(sums[i, j], sums[i, j + 1], sums[i + 1, j])
    path = list(zip(*warp(costs), strict=True))
    assert path[0] == (0, 0) and path[-1] == (rows - 1, columns - 1), f"seed {seed}"
    steps = {(b[0] - a[0], b[1] - a[1]) for a, b in zip(path, path[1:], strict=False)}
    assert steps <= {(0, 1), (1, 0), (1, 1)}, f"seed {seed}"
    assert sum(costs[cell] for cell in path) == sums[-1, -1], f"seed {seed}"


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 7, 40])
def test_medians(frames: int) -> None:
    values = np.random.default_rng(frames).standard_normal((2, 3, frames)).astype(np.float32)
    windows = [np.median(values[..., max(i - 3, 0) : i + 4], -1) for i in range(frames)]
    np.testing.assert_array_equal(filter_median(values), np.stack(windows, -1))


def test_words_with_punctuation() -> None:
    words = [(" (", [1]), ("one", [2, 3]), (".", [4]), (" two", [5]), ("!", [6]), ("", [300])]
    timings = time_words(words, ([0, 1, 2, 3, 4, 5, 6, 6], [0, 10, 20, 30, 40, 50, 90, 91]), 2.0)
    assert [(w.word, w.token_ids) for w in timings] == [(" (one.", [1, 2, 3, 4]), (" two!", [5, 6])]
    assert [round(w.start_ts, 3) for w in timings] == [2.2, 2.8]

    class Tokenizer:
        def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
            return bytes(tokens).decode(errors="replace")

    groups = split_characters([*"é你".encode(), 97, 0xE4], Tokenizer())
    assert [text for text, _ in groups] == ["é", "你", "a"]


def test_segments() -> None:
    def split(*tokens: int) -> Any:
        segments = Segments(tokens, 100, 3000, np.float32(0.02), 30.0)
        values = [(round(s.start, 2), round(s.end, 2), s.tokens) for s in segments.items]
        return values, segments.ranges, segments.frames

    assert split(100, 1, 2, 150, 99) == ([(30.0, 31.0, [1, 2])], [(1, 3)], 3000)
    assert split(100, 1, 150, 150, 2) == ([(30.0, 31.0, [1])], [(1, 2)], 100)
    assert split(110, 1, 2) == ([(30.2, -1.0, [1, 2])], [(1, 3)], 3000)
    assert split(110, 110, 1, 120) == ([(30.2, 30.4, [110, 1])], [(1, 3)], 3000)
    assert split(1, 2) == ([], [], 3000)
    assert split(110) == ([], [], 3000)  # the real package does not return here


def test_a_single_token_with_timestamps_ends(pipeline: Any) -> None:
    results = pipeline.generate(cases.record(31, 1), max_new_tokens=1, return_timestamps=True)
    assert (results.texts, results.chunks) == ([""], [])


def test_new_tokens_count_alone(pipeline: Any) -> None:
    """As in openvino_genai, a limit of all tokens that the prompt reaches is an error only without one of new
    tokens."""
    sound, options = cases.record(2, 3), {"language": "en", "suppress_tokens": cases.TEXT}
    expected = pipeline.generate(sound, max_new_tokens=3, **options).texts
    assert pipeline.generate(sound, max_new_tokens=3, max_length=1, **options).texts == expected
    with pytest.raises(OvjitError, match="max_length"):
        pipeline.generate(sound, max_length=2, **options)


def test_models_for_english_only(speech_folder: Path, pipeline: Any) -> None:
    config = genai.WhisperGenerationConfig(speech_folder / "generation_config.json")
    config.is_multilingual, config.max_new_tokens, config.suppress_tokens = False, 8, cases.TEXT
    sound = cases.record(2, 3)
    results = pipeline.generate(sound, config)
    assert results.language == "en"
    other = genai.WhisperPipeline(speech_folder, "CPU", **EXACT)
    other.set_generation_config(config)
    assert other.generate(sound).texts == results.texts != [""]
    with pytest.raises(OvjitError, match="Cannot specify 'task'"):
        other.generate(sound, task="translate")
    assert other.get_generation_config().is_multilingual is False


@pytest.mark.parametrize("status, timestamps", [("STOP", False), ("CANCEL", False), ("STOP", True)])
def test_a_streamer_ends_the_generation(pipeline: Any, status: str, timestamps: bool) -> None:
    class Streamer(genai.StreamerBase):
        def __init__(self) -> None:
            self.items: list[Any] = []

        def write(self, token: Any) -> Any:
            self.items.append(token)
            return getattr(genai.StreamingStatus, status)

        def end(self) -> None:
            self.items.append("end")

    streamer, sound = Streamer(), cases.record(31 if timestamps else 5, 2)
    suppressed = cases.UNREADABLE if timestamps else cases.TEXT
    options = {"return_timestamps": timestamps, "suppress_tokens": suppressed, "max_new_tokens": 12}
    results = pipeline.generate(sound, streamer=streamer, **options)
    tokens, *others = streamer.items
    assert others == ["end"] and (timestamps or len(tokens) == 1)
    assert results.texts == [pipeline.get_tokenizer().decode(tokens)]
    whole = pipeline.generate(sound, **options)
    assert whole.texts[0].startswith(results.texts[0]) and len(whole.texts[0]) > len(results.texts[0])


def test_a_streamer_cannot_call_generate(pipeline: Any) -> None:
    class Streamer(genai.StreamerBase):
        def write(self, token: Any) -> Any:
            pipeline.generate([0.5] * 400, max_new_tokens=1)

    with pytest.raises(OvjitError, match="cannot call generate"):
        pipeline.generate(cases.record(1, 1), streamer=Streamer(), max_new_tokens=2)


def write_past(folder: Path, source: Path) -> None:
    """Write the form with keys and values as inputs and outputs of two decoders: variables are replaced."""
    shutil.copytree(source, folder)
    for name, is_later in (("decoder", False), ("decoder_with_past", True)):
        model = ov.Core().read_model(source / "openvino_decoder_model.xml")
        inputs = {next(iter(port.get_names())): port.get_node() for port in model.inputs}
        sinks = {sink.get_variable_id(): sink for sink in model.get_sinks()}
        parameters, results = [], list(model.get_results())
        for node in [n for n in model.get_ordered_ops() if n.get_type_name() == "ReadValue"]:
            key = node.get_variable_id().removeprefix("past_key_values.")
            sink, value = sinks[node.get_variable_id()], node.input_value(0)
            if is_later:
                parameter = ops.parameter(node.output(0).get_partial_shape(), np.float32)
                parameter.output(0).set_names({f"past_key_values.{key}"})
                parameters.append(parameter)
                value = parameter.output(0)
            for target in list(node.output(0).get_target_inputs()):
                target.replace_source_output(value)
            if not is_later or "encoder" not in key:
                result = ops.result(sink.input_value(0))
                result.output(0).set_names({f"present.{key}"})
                results.append(result)
        # the pipeline reorders the rows of keys and values
        for target in list(inputs["beam_idx"].output(0).get_target_inputs()):
            gather = target.get_node()
            for taker in list(gather.output(0).get_target_inputs()):
                taker.replace_source_output(gather.input_value(0))
        names = ["input_ids"] if is_later else ["input_ids", "encoder_hidden_states"]
        changed = ov.Model(results, [*(inputs[n] for n in names), *parameters], name)
        ov.save_model(changed, folder / f"openvino_{name}_model.xml", compress_to_fp16=False)


def test_decoders_with_the_past_as_inputs(speech_folder: Path, pipeline: Any, tmp_path: Path) -> None:
    folder = tmp_path / "past"
    write_past(folder, speech_folder)
    other = genai.WhisperPipeline(folder, "CPU", **EXACT)
    sound = cases.record(5, 3)
    for options in ({}, {"num_beams": 3}, {"return_timestamps": True}):
        suppressed = cases.UNREADABLE if "return_timestamps" in options else cases.TEXT
        values = {"max_new_tokens": 12, "suppress_tokens": suppressed, **options}
        expected = pipeline.generate(sound, **values)
        results = other.generate(sound, **values)
        assert cases.results_of(results) == cases.results_of(expected), options
        assert expected.texts != [""]
    words = genai.WhisperPipeline(folder, "CPU", word_timestamps=True, **EXACT)
    stateful = genai.WhisperPipeline(speech_folder, "CPU", word_timestamps=True, **EXACT)
    timings = [p.generate(sound, max_new_tokens=9, suppress_tokens=cases.TEXT) for p in (words, stateful)]
    assert cases.results_of(timings[0]) == cases.results_of(timings[1])
    (folder / "openvino_decoder_with_past_model.xml").unlink()
    with pytest.raises(OvjitError, match="automatic-speech-recognition-with-past"):
        genai.WhisperPipeline(folder, "CPU")


def test_cross_attention_is_computed_once(pipeline: Any) -> None:
    decoder = pipeline._decoder
    assert "encoder_hidden_states" not in decoder._names and decoder._cross is not None


def test_figures_are_added(pipeline: Any) -> None:
    first, second = (pipeline.generate([0.5] * 400, max_new_tokens=n).perf_metrics for n in (3, 4))
    total = first + second
    assert total.get_num_generated_tokens() == 7
    assert len(total.whisper_raw_metrics.decode_inference_durations) == 7
    assert total.get_encode_inference_duration().mean > 0 and total.get_decode_inference_duration().mean > 0
    assert first.get_features_extraction_duration().mean > 0 and first.get_ttft().mean > 0
    assert first.get_inference_duration().mean < first.get_generate_duration().mean


def test_figures_of_beams_and_prompts(pipeline: Any) -> None:
    """A step of two beams has two tokens; texts alone take time to tokenize."""
    options = {"max_new_tokens": 5, "stop_token_ids": set(), "ignore_eos": True}
    beams = pipeline.generate([0.5] * 400, num_beams=2, **options).perf_metrics
    assert list(beams.raw_metrics.m_batch_sizes) == [1, 2, 2, 2, 2]
    assert beams.get_num_generated_tokens() == 9 and len(beams.raw_metrics.m_durations) == 8
    assert beams.get_tokenization_duration().mean == 0
    prompted = pipeline.generate([0.5] * 400, initial_prompt="hello", **options).perf_metrics
    assert prompted.get_tokenization_duration().mean > 0


def test_wrong_folders_and_settings(speech_folder: Path, tmp_path: Path, pipeline: Any) -> None:
    with pytest.raises(RuntimeError, match="openvino_encoder_model"):
        genai.WhisperPipeline(tmp_path, "CPU")
    for arguments in ((3, "CPU"), (tmp_path,), (tmp_path, "CPU", {})):
        with pytest.raises(TypeError):
            genai.WhisperPipeline(*arguments)
    with pytest.raises(RuntimeError, match="NO_SUCH"):
        genai.WhisperPipeline(speech_folder, "CPU", NO_SUCH=1)
    with pytest.raises(OvjitError, match=r"Failed to open .*config\.json"):
        genai.ASRPipeline(tmp_path, "CPU")
    for kind, text in (("fun_asr", "openvino_encoder_model"), ("llama", "llama")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(OvjitError, match=text):
            genai.ASRPipeline(tmp_path, "CPU")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 8000}))
    with pytest.raises(OvjitError, match="sampling_rate should be at least 16000, not 8000"):
        FeatureExtractor(tmp_path)
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        with pytest.raises(OvjitError, match=f"^{name} has a token"):
            pipeline.generate([0.5] * 400, max_new_tokens=2, **{name: [cases.TINY.words]})
    with pytest.raises(OvjitError, match="lang_to_id has a token"):
        pipeline.generate([0.5] * 400, max_new_tokens=2, lang_to_id={"<|en|>": 99999})
    with pytest.raises(OvjitError, match="'language' fr must be provided in 'lang_to_id'"):
        pipeline.generate([0.5] * 400, max_new_tokens=2, language="fr")


@pytest.mark.parametrize("heads, text", [([(2, 0)], r"not in \[0, 2\)"), ([(0, 2)], "a head that its layer")])
def test_wrong_alignment_heads(speech_folder: Path, heads: Any, text: str) -> None:
    pipeline = genai.WhisperPipeline(speech_folder, "CPU", word_timestamps=True, **EXACT)
    with pytest.raises(OvjitError, match=text):
        pipeline.generate([0.5] * 4000, max_new_tokens=2, alignment_heads=heads, suppress_tokens=cases.TEXT)


def test_a_configuration_of_speech_for_another_pipeline(speech_folder: Path) -> None:
    pipeline = genai.ASRPipeline(speech_folder, "CPU", **EXACT)
    config = pipeline.get_generation_config()
    config.max_new_tokens, config.suppress_tokens, config.language = 6, cases.TEXT, "de"
    pipeline.set_generation_config(config)
    results = pipeline.generate(cases.record(3, 4))
    assert results.languages == ["de"] and len(results.texts[0]) > 3
    assert len(results.perf_metrics.asr_raw_metrics.decode_inference_durations) == 6
    assert results.perf_metrics.get_num_generated_tokens() == 6
    assert pipeline.get_tokenizer().get_eos_token_id() == END
    with pytest.raises(TypeError, match="ASRGenerationConfig"):
        pipeline.set_generation_config(genai.WhisperGenerationConfig())
    assert config.for_whisper().no_timestamps_token_id == NO_TIMES
