"""Decoders of files are kept compiled with the changes of `Decoder.load`, and found without reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as ops
from ovjit.disk import kernel_cache
from ovjit.generation.decoder import Decoder, EditingCore
from ovjit.storage import kept_models, late_writes, origins
from tests.support import paged_models

PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of the models that are read; compiled ones are kept at once, in a folder of their own."""
    monkeypatch.setattr(kernel_cache, "_default", kernel_cache.KernelCache(tmp_path / "cache"))
    monkeypatch.setattr(origins, "SETTLED_SECONDS", 0.0)
    monkeypatch.setattr(late_writes, "write_later", lambda executable, write: write(executable))
    for name in kept_models._WATCHING:
        monkeypatch.delenv(name, raising=False)
    names: list[str] = []
    read = EditingCore._read

    def note(self: Any, *arguments: Any) -> Any:
        names.append(self._name)
        return read(self, *arguments)

    monkeypatch.setattr(EditingCore, "_read", note)
    return names


@pytest.fixture
def file(tmp_path: Path) -> Path:
    ov.save_model(paged_models.decoder(ov), tmp_path / "openvino_model.xml", compress_to_fp16=False)
    return tmp_path / "openvino_model.xml"


def double(model: Any) -> list[str]:
    """A change: logits times the input `factor`."""
    result = next(r for r in model.get_results() if "logits" in r.output(0).get_names())
    factor = ops.parameter([1], np.float32, name="factor")
    factor.output(0).set_names({"factor"})
    model.add_parameters([factor])
    result.input(0).replace_source_output(ops.multiply(result.input_value(0), factor).output(0))
    model.validate_nodes_and_infer_types()
    return ["factor"]


def test_a_kept_decoder_is_not_read_again(file: Path, reads: list[str]) -> None:
    first, second, three = (Decoder.load(file, rows=rows).feed(PROMPT) for rows in (1, 1, 3))
    assert reads == ["last 1", "last 3"], "other rows are another model"
    assert len(first) == len(second) == 1 and len(three) == 3
    assert (first == second).all()
    np.testing.assert_allclose(three[-1], first[0], rtol=1e-4, atol=1e-4)


def test_a_changed_decoder_is_never_a_kept_one(file: Path, reads: list[str]) -> None:
    plain = Decoder.load(file, rows=1).feed(PROMPT)
    for _ in range(2):
        decoder = Decoder.load(file, change=double, rows=1)
        decoder._request.set_tensor("factor", ov.Tensor(np.array([2.0], np.float32)))
        np.testing.assert_allclose(decoder.feed(PROMPT), 2 * plain, rtol=1e-4, atol=1e-4)
    assert reads == ["last 1", "changed", "changed"]
    assert (Decoder.load(file, rows=1).feed(PROMPT) == plain).all() and len(reads) == 3


def test_the_cache_of_the_user_knows_the_change(file: Path, reads: list[str], tmp_path: Path) -> None:
    config = {"CACHE_DIR": str(tmp_path / "models")}
    plain = Decoder.load(file, config=config, rows=1)
    again = Decoder.load(file, config=config, rows=1)
    assert again.compiled.get_property("LOADED_FROM_CACHE") and not plain.compiled.get_property(
        "LOADED_FROM_CACHE"
    )
    assert (plain.feed(PROMPT) == again.feed(PROMPT)).all()
    assert len(ov.Core().compile_model(file, "CPU", config).outputs[0].get_partial_shape()) == 3
    assert len(Decoder.load(file, config=config, rows=3).feed(PROMPT)) == 3
    assert reads == ["last 1", "last 3"]
