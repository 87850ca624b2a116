"""The families of VLMPipeline beside results of the real one in families.json."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import OvjitError, UnsupportedError
from tests.support import genai_families as cases
from tests.support.genai_cases import is_same, value_of

pytest.importorskip("jinja2")
pytest.importorskip("regex")

from ovjit import genai
from ovjit.genai.vision.phi import join_crops

EXPECTED = json.loads((Path(__file__).parent / "families.json").read_text(encoding="utf-8"))


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
    with pytest.raises(UnsupportedError, match="pruning_ratio"):
        pipe.generate("a", pruning_ratio=20)
    with pytest.raises(TypeError):
        metadata.fps = "24"
    (folder / "openvino_vision_embeddings_merger_model.xml").unlink()
    with pytest.raises(OvjitError, match="has no openvino_vision_embeddings_merger_model.xml"):
        genai.VLMPipeline(folder, "CPU")
