"""Text2SpeechPipeline beside results of the real one in speech.npz."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError, UnsupportedError
from tests.support import genai_speech as cases
from tests.support.genai_images import read_results, value_of

pytest.importorskip("regex")

from ovjit import genai

EXPECTED = read_results(Path(__file__).parent / "speech.npz")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.write_folder(ov, tmp_path_factory.mktemp("speech") / "t5")


def test_results_are_those_of_the_real_package(speech: Path) -> None:
    programs = dict(cases.programs(genai, speech))
    assert programs.keys() == EXPECTED.keys()
    for name, run in programs.items():
        value, expected = value_of(run), EXPECTED[name]
        if isinstance(expected, str) or value.dtype.kind == "U":
            assert str(value) == expected, name
        else:
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=2e-5, err_msg=name)


def test_figures_before_a_call() -> None:
    """Those that SpeechT5 does not measure are 0, as in openvino_genai."""
    metrics = genai.SpeechGenerationPerfMetrics()
    assert [*metrics.generate_duration] == [*metrics.throughput] == [0, 0]
    for name in ("ttft", "tpot", "ipot", "throughput", "inference_duration", "grammar_compile_time"):
        assert [*getattr(metrics, f"get_{name}")()] == [0, 0], name
    assert [*metrics.get_generate_duration()] == [-1, -1] and metrics.m_evaluated


def test_figures(speech: Path) -> None:
    pipe = genai.Text2SpeechPipeline(speech, "CPU")
    results = pipe.generate(["hello", "world"])
    metrics = results.perf_metrics
    assert metrics.num_generated_samples == sum(each.get_size() for each in results.speeches) > 0
    assert len(metrics.raw_metrics.tokenization_durations) == 2
    assert metrics.throughput.mean * metrics.generate_duration.mean == pytest.approx(
        1000 * metrics.num_generated_samples
    )
    assert metrics.get_load_time() > 0
    # each speech is its own
    single = pipe.generate("hello").speeches[0].data
    np.testing.assert_array_equal(results.speeches[0].data, single)


def test_errors_of_users(speech: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["KokoroModel"]}))
    with pytest.raises(UnsupportedError, match="ovjit supports SpeechT5ForTextToSpeech"):
        genai.Text2SpeechPipeline(tmp_path, "CPU")
    (tmp_path / "config.json").write_text((speech / "config.json").read_text())
    with pytest.raises(OvjitError, match="openvino_encoder_model.xml' is missing"):
        genai.Text2SpeechPipeline(tmp_path, "CPU")
    pipe = genai.Text2SpeechPipeline(speech, "CPU")
    with pytest.raises(TypeError, match="config should be a SpeechGenerationConfig, not GenerationConfig"):
        pipe.set_generation_config(genai.GenerationConfig())
    with pytest.raises(OvjitError, match=r"maxlenratio \(1\) must be greater than minlenratio \(2\)"):
        pipe.generate("hello", minlenratio=2.0, maxlenratio=1.0)
    # the real package ends the process
    with pytest.raises(TypeError, match="speaker_embedding should be a Tensor, not int"):
        pipe.generate("hello", 3)
    with pytest.raises(TypeError, match="expected a path"):
        pipe.get_generation_config().phonemize_fallback_model_dir = 3
