"""The picture pipelines of ovjit.genai beside results of the real ones in images.npz."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError
from tests.support import genai_images as cases

pytest.importorskip("regex")

from ovjit import genai

EXPECTED = cases.read_results(Path(__file__).parent / "images.npz")
HAS_TORCH = importlib.util.find_spec("torch") is not None


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cases.write_folders(ov, tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("group", cases.GROUPS)
def test_results_are_those_of_the_real_package(group: str, folders: Path) -> None:
    programs = list(cases.GROUPS[group](genai, folders))
    if not HAS_TORCH:
        programs = [program for program in programs if "torch" not in program[0]]
    wrong = [name for name, run in programs if not cases.is_same(cases.value_of(run), EXPECTED[name], 1e-5)]
    assert not wrong


def test_inpainting_pipeline_of_an_image_pipeline(folders: Path) -> None:
    image, mask = cases.picture(ov, 16, 16), cases.picture(ov, 16, 16, 3, 5)
    direct = genai.InpaintingPipeline(folders / "sd", "CPU", **cases.EXACT)
    other = genai.InpaintingPipeline(genai.Image2ImagePipeline(folders / "sd", "CPU", **cases.EXACT))
    results = [p.generate("a", image, mask, num_inference_steps=2).data for p in (direct, other)]
    assert (results[0] == results[1]).all()


def test_networks_of_texts_and_of_blobs(folders: Path, tmp_path: Path) -> None:
    folder = folders / "xl"

    def read(name: str) -> list[Any]:
        model = ov.Core().read_model(folder / name / "openvino_model.xml")
        text = tmp_path / f"{name}.xml"
        ov.save_model(model, text, compress_to_fp16=False)
        return [text.read_text(), ov.Tensor(np.fromfile(text.with_suffix(".bin"), np.uint8))]

    tokenizer = genai.Tokenizer(folder / "tokenizer")
    encoders = [
        kind(*read(name), kind.Config(folder / name / "config.json"), tokenizer, "CPU", **cases.EXACT)
        for name, kind in (
            ("text_encoder", genai.CLIPTextModel),
            ("text_encoder_2", genai.CLIPTextModelWithProjection),
        )
    ]
    unet = genai.UNet2DConditionModel(
        *read("unet"),
        genai.UNet2DConditionModel.Config(folder / "unet" / "config.json"),
        2,
        "CPU",
        **cases.EXACT,
    )
    config = genai.AutoencoderKL.Config(folder / "vae_decoder" / "config.json")
    vae = genai.AutoencoderKL(*read("vae_encoder"), *read("vae_decoder"), config, "CPU", **cases.EXACT)
    scheduler = genai.Scheduler.from_config(folder / "scheduler" / "scheduler_config.json")
    pipe = genai.Image2ImagePipeline.stable_diffusion_xl(scheduler, *encoders, unet, vae)
    pipe.export_model(tmp_path / "blobs")
    loaded = genai.Image2ImagePipeline(folder, "CPU", blob_path=tmp_path / "blobs")
    direct = genai.Image2ImagePipeline(folder, "CPU", **cases.EXACT)
    image = cases.picture(ov, 16, 16)
    results = [p.generate("a", image, num_inference_steps=4).data for p in (pipe, loaded, direct)]
    assert (results[0] == results[1]).all() and (results[0] == results[2]).all()


def test_fixed_sizes_of_a_latent_consistency_model(folders: Path) -> None:
    fixed, free = genai.Text2ImagePipeline(folders / "lcm"), genai.Text2ImagePipeline(folders / "lcm")
    fixed.reshape(2, 8, 24, 3.0)
    for pipe in (fixed, free):
        pipe.compile("CPU", **cases.EXACT)
    free.set_generation_config(fixed.get_generation_config())
    pictures = [pipe.generate("a", num_inference_steps=3).data for pipe in (fixed, free)]
    assert pictures[0].shape == (2, 8, 24, 3) and (pictures[0] == pictures[1]).all()
    encoder = genai.CLIPTextModel(folders / "lcm" / "text_encoder").reshape(3)
    encoder.compile("CPU")
    with pytest.raises(OvjitError, match="cannot take 2 prompts"):
        encoder.infer("a", "b", True)


def test_a_dict_named_config_has_properties(folders: Path) -> None:
    """Of pipelines and of networks, in constructors and in `compile`."""
    late, config = genai.Text2ImagePipeline(folders / "sd"), {"config": cases.EXACT}
    late.compile("CPU", "CPU", "CPU", **config)
    pipes = late, genai.Text2ImagePipeline(folders / "sd", "CPU", **config)
    plain = genai.Text2ImagePipeline(folders / "sd", "CPU", **cases.EXACT)
    expected, *others = (
        pipe.generate("a", height=16, width=16, num_inference_steps=2).data for pipe in (plain, *pipes)
    )
    assert all((expected == other).all() for other in others)
    genai.UNet2DConditionModel(folders / "sd" / "unet").compile("CPU", **config)
    for kind in (genai.CLIPTextModel, genai.Text2ImagePipeline):
        with pytest.raises(OvjitError, match="NO_SUCH"):
            kind(folders / "sd" / ("text_encoder" if kind is genai.CLIPTextModel else ""), "CPU",
                 config={"NO_SUCH": 1})  # fmt: skip


def test_several_pictures_of_fixed_sizes_from_one(folders: Path) -> None:
    fixed, free = (genai.Image2ImagePipeline(folders / "sd") for _ in range(2))
    fixed.reshape(2, 16, 24, 5.0)
    for pipe in (fixed, free):
        pipe.compile("CPU", **cases.EXACT)
    free.set_generation_config(fixed.get_generation_config())
    image = cases.picture(ov, 20, 24)
    pictures = [pipe.generate("a", image, num_inference_steps=3).data for pipe in (fixed, free)]
    assert pictures[0].shape == (2, 16, 24, 3) and (pictures[0] == pictures[1]).all()


def test_a_tokenizer_is_beside_its_encoder(folders: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(folders / "sd", tmp_path / "text_encoder_runs" / "sd")
    genai.CLIPTextModel(folder / "text_encoder")


def test_durations(folders: Path) -> None:
    pipe = genai.Image2ImagePipeline(folders / "xl", "CPU")
    pipe.generate("a", cases.picture(ov, 16, 16), num_inference_steps=5, strength=0.8)
    metrics = pipe.get_performance_metrics()
    assert len(metrics.raw_metrics.unet_inference_durations) == 4
    assert list(metrics.get_text_encoder_infer_duration()) == ["text_encoder_2", "text_encoder"]
    parts = metrics.get_vae_encoder_infer_duration() + metrics.get_vae_decoder_infer_duration()
    first, others = metrics.get_first_and_other_unet_infer_duration()
    parts += first + 3 * others + sum(metrics.get_text_encoder_infer_duration().values())
    assert metrics.get_inference_duration() == pytest.approx(parts)
    assert 0 < metrics.get_inference_duration() < metrics.get_generate_duration()
    assert metrics.get_unet_infer_duration().mean < metrics.get_iteration_duration().mean
    assert metrics.get_load_time() > 0


def test_errors_of_users(folders: Path) -> None:
    pipe = genai.Text2ImagePipeline(folders / "lcm", "CPU")

    class Silent(genai.Generator):
        pass

    with pytest.raises(ZeroDivisionError):
        pipe.generate("a", callback=lambda *arguments: 1 / 0)
    with pytest.raises(OvjitError, match="a streamer or callback cannot call generate"):
        pipe.generate("a", callback=lambda *arguments: pipe.generate("b"))
    with pytest.raises(OvjitError, match=r"Silent should have a method next\(\)"):
        pipe.generate("a", generator=Silent())
    with pytest.raises(OvjitError, match="expected a AdapterConfig, not int"):
        pipe.generate("a", adapters=3)
    with pytest.raises(OvjitError, match="num_inference_steps` must be greater than 0|less then 1"):
        pipe.generate("a", num_inference_steps=0)
    with pytest.raises(OvjitError, match=r"u8 \[1, height, width, 3\], not of uint8 \[16, 16, 3\]"):
        image = genai.Image2ImagePipeline(folders / "sd")
        image.generate("a", ov.Tensor(np.zeros((16, 16, 3), np.uint8)))
