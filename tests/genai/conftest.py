"""The folder that the tests of ovjit.genai share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ovjit as ov
from bench import transformers as nets

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer's IRs and settings, and the model that `tests.support.genai_folder` writes, too."""
    path = tmp_path_factory.mktemp("genai") / "llama"
    shutil.copytree(HERE / "data", path)
    sizes = nets.Sizes(layers=2, wide=32, heads=2, shared=1, inner=48, words=300)
    model = nets.llama(nets.Net(ov, "llama"), sizes)
    ov.save_model(model, path / "openvino_model.xml", compress_to_fp16=False)
    return path
