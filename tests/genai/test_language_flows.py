"""Pictures whose prompts are read by language models beside results of the real pipelines in language_flows.npz."""

# ruff: noqa: E501
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import ovjit as ov
from ovjit.errors import OvjitError
from tests.support import genai_language_flows as cases
from tests.support.genai_images import is_same, picture, read_results, value_of

pytest.importorskip("regex")

from ovjit import genai

EXPECTED = read_results(Path(__file__).parent / "language_flows.npz")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.write_language_folders(ov, tmp_path_factory.mktemp("flows"))


@pytest.mark.parametrize("group", cases.GROUPS)
def test_results_are_those_of_the_real_package(group: str, folders: Path) -> None:
    programs = list(cases.GROUPS[group](genai, folders))
    wrong = [name for name, run in programs if not is_same(value_of(run), EXPECTED[name], 1e-4)]
    assert programs and not wrong


@pytest.mark.pypi
def test_recorded_results_are_those_of_the_installed_package(tmp_path: Path) -> None:
    real, package = pytest.importorskip("openvino_genai"), pytest.importorskip("openvino")
    folder = cases.write_language_folders(package, tmp_path)
    for name, run in cases.GROUPS["settings"](real, folder):
        assert is_same(value_of(run), EXPECTED[name], 1e-4), name


def test_what_the_real_package_cannot(folders: Path) -> None:
    """A text's pipeline of one with pictures ends its process, and one with pictures cannot be reshaped."""
    given = genai.Image2ImagePipeline(folders / "klein", "CPU", **cases.EXACT)
    direct = genai.Text2ImagePipeline(folders / "klein", "CPU", **cases.EXACT)
    pictures = [each.generate("a", **cases.SHORT).data for each in (direct, genai.Text2ImagePipeline(given))]
    assert (pictures[0] == pictures[1]).all()
    fixed = genai.Image2ImagePipeline(folders / "klein")
    config = fixed.get_generation_config()
    config.max_sequence_length = 40
    fixed.set_generation_config(config)
    fixed.reshape(1, 24, 16, 4.0)
    fixed.compile("CPU", **cases.EXACT)
    pictures = [each.generate("a", picture(ov, 21, 18), **cases.SHORT).data for each in (given, fixed)]
    assert is_same(pictures[0], pictures[1], 0)


def test_the_last_latent_is_the_picture(folders: Path) -> None:
    pipe, latents = genai.Text2ImagePipeline(folders / "klein", "CPU", **cases.EXACT), []
    picture = pipe.generate("a", **cases.SHORT, callback=lambda *step: latents.append(step[2]))
    assert (pipe.decode(latents[-1]).data == picture.data).all()


def test_errors_of_users(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "klein", tmp_path / "klein")
    path = tmp_path / "klein" / "vae_decoder" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "bn_running_var_data": [1.0]}))
    with pytest.raises(OvjitError, match="'bn_running_var_data' of 16 numbers"):
        genai.Text2ImagePipeline(tmp_path / "klein", "CPU")
    encoder = genai.Qwen3TextEncoder(folders / "klein" / "text_encoder", "CPU")
    encoder.get_config().hidden_states_layers = [3]
    with pytest.raises(OvjitError, match="no output 'hidden_states.3': export it for this pipeline"):
        encoder.infer("a", "", False, 9)
    with pytest.raises(OvjitError, match="batch_size 1 or 2, not 3"):
        genai.Qwen3TextEncoder(folders / "klein" / "text_encoder").reshape(3, 9)
