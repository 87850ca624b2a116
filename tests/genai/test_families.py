"""The families of VLMPipeline beside results of the real one in families.json."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError
from tests.support import genai_families as cases
from tests.support.genai_cases import is_same, value_of

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai
from ovjit.genai.vision.phi import join_crops
from ovjit.genai.vision.phi4 import choose_crops
from ovjit.genai.vision.processors import read_processor

EXPECTED = json.loads((Path(__file__).parent / "families.json").read_text(encoding="utf-8"))
#: The text, its tokens and its score of Gemma 4 with whole patches, by the real package.
WHOLE: list[Any] = [["�!�"], 44, [-2.227182388305664]]


@pytest.mark.parametrize("kind", cases.FAMILIES)
def test_results_are_those_of_the_real_package(kind: str, tmp_path: Path) -> None:
    folder = cases.write_folder(ov, tmp_path / kind, kind)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a video without VideoMetadata.fps", RuntimeWarning)
        results = {name: value_of(run) for name, run in cases.programs(genai, folder, kind)}
    assert list(results) == list(EXPECTED[kind])
    pairs = {name: (value, EXPECTED[kind][name]) for name, value in results.items()}
    assert not {name: pair for name, pair in pairs.items() if not is_same(*pair, 1e-3)}


def test_a_batch_of_qwen3_gives_the_texts_of_the_other_pipeline(tmp_path: Path) -> None:
    """The real package does not run this small net in batches."""
    folder = cases.write_folder(ov, tmp_path / "qwen3", "qwen3_vl")
    cases.write_language_model(ov, folder, 3, 2, flat=True)
    config = genai.GenerationConfig(max_new_tokens=8, ignore_eos=True)
    images = [ov.Tensor(cases.picture(ov, 40, 33, seed=seed).data) for seed in (3, 4)]
    shown: list[list[ov.Tensor]] = [images, [], images[:1]]
    options = cases.scheduler(genai, max_num_batched_tokens=16)
    batches = genai.ContinuousBatchingPipeline(folder, options, "CPU", cases.EXACT)
    results = batches.generate(["is it so?", "hello", "hello"], shown, [config] * 3)
    pipe = genai.VLMPipeline(folder, "CPU", **cases.EXACT)
    single = [pipe.generate(prompt, images=each, generation_config=config)
              for prompt, each in zip(["is it so?", "hello", "hello"], shown, strict=True)]  # fmt: skip
    assert [result.texts for result in results] == [result.texts for result in single]


@pytest.mark.parametrize("kind", "qwen2_5_vl qwen3_vl gemma3 gemma3n llava_next internvl_chat".split())
def test_a_chat_reads_new_tokens_only(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for Gemma 3, whose pictures' tokens see each other."""
    folder = cases.write_folder(ov, tmp_path / kind, kind)
    pipe, plain = (genai.VLMPipeline(folder, "CPU", **cases.EXACT) for _ in range(2))
    counts, infer = list[int](), pipe._engine._infer

    def count(values: np.ndarray, parents: np.ndarray) -> np.ndarray:
        counts.append(values.shape[1])
        return infer(values, parents)

    monkeypatch.setattr(pipe._engine, "_infer", count)
    one, two = (ov.Tensor(cases.picture(ov, *sizes, seed=3).data) for sizes in ((40, 33), (20, 64)))
    history = genai.ChatHistory([{"role": "system", "content": "numbers " * 9}])
    for prompt, images in (("is it so?", [one]), ("other words", []), ("look here", [two])):
        history.append({"role": "user", "content": prompt})
        options = {"max_new_tokens": 5, "ignore_eos": True, "logprobs": 1}
        counts.clear()
        result = pipe.generate(history, images=images, **options)
        length = result.perf_metrics.get_num_input_tokens()
        assert counts[1:] == [1] * 4 and (counts[0] == length) is (len(history) == 2 or kind == "gemma3")
        plain._engine.forget()
        expected = plain.generate(history, images=images, **options)
        assert result.texts == expected.texts and is_same(result.scores, expected.scores, 1e-3)
        history.append({"role": "assistant", "content": result.texts[0]})


def test_settings_of_both_processors_may_be_in_one_file(tmp_path: Path) -> None:
    """As transformers 5 saves them. It counts only if it has both."""
    folder = cases.write_folder(ov, tmp_path / "qwen", "qwen3_vl")
    image, video = (
        read_processor(folder, kind) | {"patch_size": size} for kind, size in (("image", 7), ("video", 9))
    )
    joint = folder / "processor_config.json"
    for settings, sizes in (
        ({"image_processor": image, "video_processor": video}, [7, 9]),
        ({"image_processor": image}, [cases.PATCH] * 2),
    ):
        joint.write_text(json.dumps(settings))
        assert [read_processor(folder, kind)["patch_size"] for kind in ("image", "video")] == sizes
    (folder / "video_preprocessor_config.json").unlink()
    assert read_processor(folder, "video") == read_processor(folder)
    (folder / "preprocessor_config.json").unlink()
    assert read_processor(folder) == {}


def test_gemma_4_reads_whole_patches_and_no_layers(tmp_path: Path) -> None:
    """gemma4_unified: an encoder of patches that are merged before, and no embeddings for layers."""
    folder = cases.write_folder(ov, tmp_path / "gemma4", "gemma4")
    settings = json.loads((folder / "config.json").read_text())
    del settings["text_config"]["hidden_size_per_layer_input"]
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "gemma4_unified"}))
    cases.write_language_model(ov, folder, types=True)
    (folder / "openvino_text_embeddings_per_layer_model.xml").unlink()
    cases.write_whole_patches(ov, folder)
    pipe = genai.VLMPipeline(folder, "CPU", **cases.EXACT)
    image = cases.picture(ov, 40, 33, seed=3)
    results = pipe.generate("is it so?", images=[image], max_new_tokens=4, ignore_eos=True, logprobs=1)
    assert value_of(lambda: [results.texts, results.perf_metrics.get_num_input_tokens()]) == WHOLE[:2]
    assert is_same(results.scores, WHOLE[2], 1e-3)


def test_crops_of_phi_4_cover_or_have_the_nearest_ratio() -> None:
    assert [choose_crops(*sizes) for sizes in ((1, 448), (449, 448), (2688, 2688), (300, 9000))] == [
        (1, 1), (2, 1), (6, 6), (1, 21),
    ]  # fmt: skip
    assert choose_crops(4000, 3000) == (4, 3) and choose_crops(100, 50000) == (1, 36)


def test_crops_of_phi_are_joined_in_rows() -> None:
    rows, columns, side = 1, 3, 4
    places = np.indices((rows * side, columns * side)).transpose(1, 2, 0).astype(np.float32)
    crops = [places[:, i * side : (i + 1) * side].reshape(side * side, 2) for i in range(columns)]
    joined = join_crops(np.stack(crops), rows, columns, np.full(8, -1, np.float32))
    lines = joined.reshape(rows * side // 2, columns * side // 2 + 1, 4, 2)
    for row, column in np.ndindex(2, 6):
        square = [[2 * row + i, 2 * column + j] for i in range(2) for j in range(2)]
        assert lines[row, column].tolist() == square
    assert (lines[:, -1] == -1).all()


def test_bad_videos_and_missing_networks_are_errors(tmp_path: Path) -> None:
    folder = cases.write_folder(ov, tmp_path / "qwen", "qwen2_vl")
    pipe = genai.VLMPipeline(folder, "CPU")
    video, metadata = cases.clip(ov, 4, 20, 20), genai.VideoMetadata()
    with pytest.raises(OvjitError, match=r"u8 \[frames, height, width, 3\]"):
        pipe.generate("a", videos=[ov.Tensor(np.zeros((4, 20, 20), np.uint8))])
    with pytest.raises(TypeError, match="a video should be a Tensor"):
        pipe.generate("a", videos=[np.zeros((4, 20, 20, 3), np.uint8)])
    with pytest.raises(OvjitError, match="Number of videos and videos metadata must match"):
        pipe.generate("a", videos=[video], videos_metadata=[metadata, metadata])
    with pytest.raises(TypeError):
        metadata.fps = "24"
    (folder / "openvino_vision_embeddings_merger_model.xml").unlink()
    with pytest.raises(OvjitError, match="has no openvino_vision_embeddings_merger_model.xml"):
        genai.VLMPipeline(folder, "CPU")
