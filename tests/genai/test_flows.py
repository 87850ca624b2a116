"""Stable Diffusion 3, Flux and adapters of pictures beside results of the real pipelines in flows.npz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError, UnsupportedError
from tests.support import genai_flows as cases
from tests.support.genai_images import is_same, picture, read_results, value_of

pytest.importorskip("regex")

from ovjit import genai

EXPECTED = read_results(Path(__file__).parent / "flows.npz")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.write_flow_folders(ov, tmp_path_factory.mktemp("flows"))


@pytest.mark.filterwarnings("ignore:There unused LoRA tensors")
@pytest.mark.parametrize("group", cases.GROUPS)
def test_results_are_those_of_the_real_package(group: str, folders: Path) -> None:
    programs = list(cases.GROUPS[group](genai, folders))
    wrong = [name for name, run in programs if not is_same(value_of(run), EXPECTED[name], 1e-4)]
    assert programs and not wrong


def test_several_pictures_of_one(folders: Path) -> None:
    pipe = genai.Image2ImagePipeline(folders / "flux", "CPU", **cases.EXACT)
    pictures = [
        pipe.generate("a", picture(ov, 21, 18), **cases.SHORT, num_images_per_prompt=count).data
        for count in (1, 2)
    ]
    assert pictures[1].shape == (2, 24, 16, 3)
    assert (pictures[0][0] == pictures[1][0]).all() and (pictures[1][0] != pictures[1][1]).any()


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_a_t5_encoder_takes_other_lengths_and_rows(kind: str, folders: Path) -> None:
    pipe = genai.Text2ImagePipeline(folders / kind, "CPU", **cases.EXACT)
    for options in ({"max_sequence_length": 9}, {"guidance_scale": 1.0}, {}):
        fresh = genai.Text2ImagePipeline(folders / kind, "CPU", **cases.EXACT)
        results = [p.generate("a", **{**cases.SHORT, **options}).data for p in (pipe, fresh)]
        assert (results[0] == results[1]).all()


def test_blobs(folders: Path, tmp_path: Path) -> None:
    pipe = genai.Text2ImagePipeline(folders / "sd3", "CPU", **cases.EXACT)
    pipe.export_model(tmp_path)
    loaded = genai.Text2ImagePipeline(folders / "sd3", "CPU", blob_path=tmp_path)
    results = [each.generate("a", **cases.SHORT).data for each in (pipe, loaded)]
    assert (results[0] == results[1]).all()
    config = genai.AdapterConfig(genai.Adapter(cases.write_adapter(tmp_path / "a.safetensors", "flux")))
    with pytest.raises(UnsupportedError, match="a blob takes no adapters"):
        genai.Text2ImagePipeline(folders / "sd3", "CPU", blob_path=tmp_path, adapters=config)
    with pytest.raises(UnsupportedError, match="cannot be exported: use AdapterConfig.Mode.MODE_FUSE"):
        genai.Text2ImagePipeline(folders / "flux", "CPU", adapters=config).export_model(tmp_path / "flux")


def test_durations_without_predicted_steps(folders: Path) -> None:
    pipe = genai.Text2ImagePipeline(folders / "flux", "CPU")
    pipe.generate("a", **{**cases.SHORT, "num_inference_steps": 11})
    raw = pipe.get_performance_metrics().raw_metrics
    # steps 6 and 7 are predicted; 8 is the last but three
    assert (len(raw.iteration_durations), len(raw.transformer_inference_durations)) == (11, 9)
    assert not raw.unet_inference_durations


def test_errors_of_users(folders: Path) -> None:
    pipe = genai.Text2ImagePipeline(folders / "flux", "CPU")
    with pytest.raises(OvjitError, match="needs FlowMatchEulerDiscreteScheduler"):
        path = folders / "sd" / "scheduler" / "scheduler_config.json"
        other = genai.Text2ImagePipeline(folders / "flux", "CPU")
        other.set_scheduler(genai.Scheduler.from_config(path))
        other.generate("a")
    with pytest.raises(OvjitError, match="divisible by 4, not 16 and 18"):
        pipe.generate("a", height=18, width=16)
    with pytest.raises(OvjitError, match="above 0, not 0"):
        pipe.generate("a", max_sequence_length=0)
    with pytest.raises(OvjitError, match="latents of 64 x 64 are 1024 tokens, not 3"):
        pipe._impl._sizes = (64, 64)
        pipe.decode(ov.Tensor(np.zeros((1, 3, 16), np.float32)))
    with pytest.raises(TypeError, match="vae should be a AutoencoderKL, not str"):
        encoder, t5, transformer = (pipe._impl.networks[n] for n in pipe._impl._networks)
        genai.Text2ImagePipeline.flux(pipe._impl.scheduler, encoder, t5, transformer, "vae")
    with pytest.warns(RuntimeWarning, match="loaded without adapters"):
        adapter = genai.Adapter(cases.write_adapter(folders / "late.safetensors", "flux"))
        pipe.generate("a", **cases.SHORT, adapters=genai.AdapterConfig(adapter))


def test_parts_and_other_tasks(folders: Path) -> None:
    """The real package has errors here, or ends the process."""
    image, mask = picture(ov, 16, 16), picture(ov, 16, 16, 3, 5)
    direct = genai.InpaintingPipeline(folders / "fill", "CPU", **cases.EXACT)
    parts = {**direct._impl.networks, "vae": direct._impl.vae}
    pipe = genai.InpaintingPipeline.flux_fill(direct._impl.scheduler, *parts.values())
    results = [each.generate("a", image, mask, **cases.SHORT).data for each in (direct, pipe)]
    assert (results[0] == results[1]).all()
    for kind in ("sd3", "flux"):
        text = genai.Text2ImagePipeline(folders / kind, "CPU", **cases.EXACT)
        other = genai.Text2ImagePipeline(genai.InpaintingPipeline(folders / kind, "CPU", **cases.EXACT))
        results = [each.generate("a", **cases.SHORT).data for each in (text, other)]
        assert (results[0] == results[1]).all()
    with pytest.raises(OvjitError, match="from a pipeline with an inpainting model"):
        genai.Image2ImagePipeline(direct)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_the_last_latent_is_the_picture(kind: str, folders: Path) -> None:
    pipe, latents = genai.Text2ImagePipeline(folders / kind, "CPU", **cases.EXACT), []
    picture = pipe.generate("a", **cases.SHORT, callback=lambda *step: latents.append(step[2]))
    assert (pipe.decode(latents[-1]).data == picture.data).all()
