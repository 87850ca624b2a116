"""Models for cards as blobs and in CACHE_DIR, with a stand-in for the driver."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.codegen.gpu import functions, ptx
from tests.support.fake_cuda import FakeCuda
from tests.support.sweeps import in_turn

op = ov.opset13
X = np.random.default_rng(0).integers(-4, 5, (3, 8)).astype(np.float32)  # sums are exact in f16
W = np.random.default_rng(1).integers(-4, 5, (8, 5)).astype(np.float32)


def model(rows: Any = 3) -> ov.Model:
    x = op.parameter([rows, 8], np.float32, name="x")
    return ov.Model([op.relu(op.matmul(x, op.constant(W), False, False))], [x], "products")


def forget_kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As in a new process: no PTX is there, and what is compiled is noted."""
    compiled: list[str] = []
    compile_ptx = ptx.compile_ptx

    def note(source: str, entry: str, of: Any = None) -> str:
        compiled.append(source)
        return compile_ptx(source, entry, of)

    monkeypatch.setattr(functions, "_numbers", {})
    monkeypatch.setattr(functions, "_texts", functions._texts[:1])
    monkeypatch.setattr(ptx, "compile_ptx", note)
    return compiled


@pytest.mark.parametrize("rows", [3, -1])
def test_blobs_have_the_kernels(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    core = ov.Core()
    compiled = core.compile_model(model(rows), "GPU", {"PERF_COUNT": True})
    compiled(X)
    blob = compiled.export_model()
    noted = forget_kernels(monkeypatch)
    imported = core.import_model(blob, "GPU")
    assert imported.get_property("PERF_COUNT") is True and imported.get_property("NETWORK_NAME") == "products"
    np.testing.assert_allclose(imported(X)[0], np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)
    assert not noted and imported.export_model().getvalue() == blob.getvalue()
    assert imported.get_property("EXECUTION_DEVICES") == ["GPU.0"]


def test_compiled_models_are_pickled(cuda: FakeCuda) -> None:
    compiled = pickle.loads(pickle.dumps(ov.Core().compile_model(model(), "GPU")))
    np.testing.assert_allclose(compiled(X)[0], np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)
    assert compiled.get_property("EXECUTION_DEVICES") == ["GPU.0"]


def test_blobs_of_other_devices_are_errors(cuda: FakeCuda) -> None:
    core = ov.Core()
    for its, other in (("GPU", "CPU"), ("CPU", "GPU"), ("GPU", "AUTO")):
        blob = core.compile_model(model(), its).export_model()
        with pytest.raises(RuntimeError, match="cannot be imported for"):
            core.import_model(blob, other)


def test_a_blob_of_another_user_is_compiled_again(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    core = ov.Core()
    blob = core.compile_model(model(), "GPU", {"OVJIT_KEY": "ab" * 32}).export_model()
    noted = forget_kernels(monkeypatch)
    imported = core.import_model(blob, "GPU", {"OVJIT_KEY": "cd" * 32})
    np.testing.assert_allclose(imported(X)[0], np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)
    assert noted


def test_damaged_blobs_are_errors(cuda: FakeCuda) -> None:
    core = ov.Core()
    content = bytearray(core.compile_model(model(), "GPU").export_model().getvalue())
    rng = np.random.default_rng(7)
    for place in rng.integers(0, len(content), 40):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        try:
            result = core.import_model(bytes(damaged), "GPU")(X)[0]
        except RuntimeError:
            continue
        np.testing.assert_allclose(
            result, np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5, err_msg=f"byte {place}"
        )
    with pytest.raises(RuntimeError, match="truncated|whole|not a blob"):
        core.import_model(bytes(content[: len(content) // 2]), "GPU")


@pytest.mark.parametrize(
    "device, rows", in_turn([("GPU", 3), ("GPU", -1), ("AUTO:GPU", -1), ("AUTO:GPU", 3)], 2)
)
def test_models_are_kept_in_a_cache(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, rows: int
) -> None:
    core = ov.Core()
    core.set_property({"CACHE_DIR": str(tmp_path / "cache")})
    ov.save_model(model(rows), tmp_path / "model.xml", compress_to_fp16=False)
    first = core.compile_model(tmp_path / "model.xml", device)
    first(X)
    assert first.get_property("LOADED_FROM_CACHE") is False
    core.compile_model(tmp_path / "model.xml", "CPU")(X)  # its blob has another name
    noted = forget_kernels(monkeypatch)
    second = core.compile_model(tmp_path / "model.xml", device)
    assert second.get_property("LOADED_FROM_CACHE") is True
    np.testing.assert_allclose(second(X)[0], np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)
    assert not noted or rows == -1  # what no plan has needed when the model was kept
    third = core.compile_model(tmp_path / "model.xml", device, {"INFERENCE_PRECISION_HINT": "bf16"})
    assert third.get_property("LOADED_FROM_CACHE") is False
