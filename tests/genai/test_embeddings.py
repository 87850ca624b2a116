"""EmbeddingPipeline with models that read pictures, beside results of the real one in embeddings.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ovjit as ov
from ovjit import genai
from ovjit.errors import OvjitError
from tests.support import genai_embeddings as cases
from tests.support.genai_cases import is_same
from tests.support.genai_families import clip, write_folder
from tests.support.genai_images import picture

pytest.importorskip("jinja2")
pytest.importorskip("regex")

EXPECTED = json.loads((Path(__file__).parent / "embeddings.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", cases.FAMILIES)
def test_vectors_are_those_of_the_real_package(kind: str, tmp_path: Path) -> None:
    results = cases.collect(ov, genai, tmp_path, kind)
    assert list(results) == list(EXPECTED[kind]) and len(results) > 20
    pairs = {name: (value, EXPECTED[kind][name]) for name, value in results.items()}
    assert not {name: pair for name, pair in pairs.items() if not is_same(*pair, 1e-5)}


def test_texts_of_a_batch_have_the_pictures_and_vectors_of_single_ones(tmp_path: Path) -> None:
    """The real pipeline gives all texts the masks of one, and is not sure to read videos."""
    folder = cases.write_embedding_folder(ov, tmp_path / "qwen3", "qwen3_vl")
    pipe = genai.EmbeddingPipeline(folder, "CPU", **cases.EXACT)
    shown = ([picture(ov, 40, 33, seed=3)], [clip(ov, 6, 30, 21)])
    about = genai.VideoMetadata()
    about.fps = 24.0
    texts = ["hello", "is it so?", "a <ov_genai_video_0> b <ov_genai_image_0>"]
    rows = pipe.embed(texts, *shown, [about]).embeddings.data
    single = [pipe.embed(text, *shown, [about]).embeddings.data for text in texts]
    assert np.array_equal(rows, np.concatenate(single))
    products = rows @ rows.T
    assert np.allclose(np.diag(products), 1) and (products - np.eye(3)).max() < 0.999


def test_special_tokens_before_a_text_are_an_error(tmp_path: Path) -> None:
    folder = write_folder(ov, tmp_path / "qwen3", "qwen3_vl")
    with pytest.raises(OvjitError, match="only at the end"):
        genai.EmbeddingPipeline(folder, "CPU").embed("hello")


@pytest.mark.parametrize("kind", ["TextEmbeddingPipeline", "EmbeddingPipeline", "TextRerankPipeline"])
def test_a_folder_without_a_model_is_told_with_its_file(kind: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r'Could not open the file: ".*openvino_model.xml"'):
        getattr(genai, kind)(tmp_path, "CPU")
