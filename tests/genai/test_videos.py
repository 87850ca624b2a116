"""Text2VideoPipeline beside results of the real pipeline in videos.npz."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError, UnsupportedError
from tests.support import genai_videos as cases
from tests.support.genai_images import is_same, read_results, value_of

pytest.importorskip("regex")

from ovjit import genai

EXPECTED = read_results(Path(__file__).parent / "videos.npz")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.write_video_folders(ov, tmp_path_factory.mktemp("videos"))


@pytest.mark.filterwarnings("ignore:guidance_scale <= 1", "ignore:the pipeline is reshaped")
@pytest.mark.parametrize("group", cases.GROUPS)
def test_results_are_those_of_the_real_package(group: str, folders: Path) -> None:
    programs = list(cases.GROUPS[group](genai, folders))
    wrong = [name for name, run in programs if not is_same(value_of(run), EXPECTED[name], 1e-4)]
    assert programs and not wrong


def test_several_videos_of_one_prompt(folders: Path) -> None:
    """The real pipeline's second video varies from run to run."""
    pipe = genai.Text2VideoPipeline(folders / "ltx", "CPU", **cases.EXACT)
    one, two = (pipe.generate("a", **cases.SHORT, num_videos_per_prompt=count).video.data for count in (1, 2))
    assert two.shape == (2, 9, 32, 64, 3)
    assert (one[0] == two[0]).all() and (two[0] != two[1]).any()


def test_no_steps_are_predicted_by_none(folders: Path) -> None:
    pipe = genai.Text2VideoPipeline(folders / "ltx", "CPU", **cases.EXACT)
    one, other = (pipe.generate("a", **cases.SHORT, **more) for more in ({}, {"taylorseer_config": None}))
    assert (one.video.data == other.video.data).all()


def test_figures(folders: Path) -> None:
    result = genai.Text2VideoPipeline(folders / "ltx", "CPU").generate("a", **cases.SHORT)
    figures = result.perf_metrics
    assert type(figures) is genai.VideoGenerationPerfMetrics
    assert isinstance(figures, genai.ImageGenerationPerfMetrics)
    raw = figures.raw_metrics
    assert (len(raw.iteration_durations), len(raw.transformer_inference_durations)) == (3, 3)
    assert list(figures.get_text_encoder_infer_duration()) == ["text_encoder"]
    assert figures.get_load_time() > 0 and figures.get_vae_decoder_infer_duration() > 0


def test_warnings_of_users(folders: Path) -> None:
    pipe = genai.Text2VideoPipeline(folders / "ltx", "CPU")
    with pytest.warns(RuntimeWarning, match="ignores negative_prompt") as caught:
        pipe.generate("a", **cases.SHORT, guidance_scale=1.0, negative_prompt="b")
    config = genai.VideoGenerationConfig()
    config.guidance_scale, config.negative_prompt = 1.0, "b"
    with pytest.warns(RuntimeWarning, match="ignores negative_prompt") as again:
        pipe.set_generation_config(config)
    pipe = genai.Text2VideoPipeline(folders / "ltx")
    pipe.reshape(1, 9, 32, 64, 1.0)
    pipe.compile("CPU")
    with pytest.warns(RuntimeWarning, match="guidance_scale is ignored") as reshaped:
        pipe.generate("a", num_inference_steps=2, guidance_scale=3.0)
    assert {each.filename for each in (*caught, *again, *reshaped)} == {__file__}


def test_errors_of_users(folders: Path, tmp_path: Path) -> None:
    pipe = genai.Text2VideoPipeline(folders / "ltx", "CPU")
    with pytest.raises(OvjitError, match="height should be positive and divisible by 32, not 40"):
        pipe.generate("a", height=40)
    with pytest.raises(OvjitError, match="num_videos_per_prompt should be at least 1"):
        pipe.generate("a", num_videos_per_prompt=0)
    with pytest.raises(OvjitError, match="above 0, not 600"):
        pipe.generate("a", max_sequence_length=600)
    with pytest.raises(TypeError, match="a VideoGenerationConfig, not ImageGenerationConfig"):
        pipe.set_generation_config(genai.ImageGenerationConfig())
    with pytest.raises(UnsupportedError, match="it should be one of .'LTXPipeline'"):
        other = tmp_path / "other"
        other.mkdir()
        (other / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
        genai.Text2VideoPipeline(other)
    for part, field, text in (("vae_decoder", {"timestep_conditioning": True}, "timestep_conditioning"),
                              ("transformer", {"patch_size": 2}, "patches of one latent")):  # fmt: skip
        folder = shutil.copytree(folders / "ltx", tmp_path / part)
        path = folder / part / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **field}))
        with pytest.raises(UnsupportedError, match=text):
            genai.Text2VideoPipeline(folder, "CPU").generate("a", **cases.SHORT)


def test_a_text_encoder_takes_other_lengths_and_rows(folders: Path) -> None:
    pipe = genai.Text2VideoPipeline(folders / "ltx", "CPU", **cases.EXACT)
    for options in ({"max_sequence_length": 9}, {"guidance_scale": 1.0}, {}):
        fresh = genai.Text2VideoPipeline(folders / "ltx", "CPU", **cases.EXACT)
        results = [p.generate("a", **{**cases.SHORT, **options}).video.data for p in (pipe, fresh)]
        assert (results[0] == results[1]).all() and np.ptp(results[0]) > 0


def test_a_callback_stops(folders: Path) -> None:
    """The real pipeline runs further steps before it sees the answer."""
    pipe, steps = genai.Text2VideoPipeline(folders / "ltx", "CPU"), list[tuple[int, int]]()

    def stop_second(step: int, count: int, latent: ov.Tensor) -> bool:
        steps.append((step, count))
        return step == 1

    result = pipe.generate("a", **cases.SHORT, callback=stop_second)
    assert steps == [(0, 3), (1, 3)] and not list(result.video.shape)
    assert len(result.perf_metrics.raw_metrics.iteration_durations) == 2
    with pytest.raises(OvjitError, match="callback should be a function, not int"):
        pipe.generate("a", **cases.SHORT, callback=3)
