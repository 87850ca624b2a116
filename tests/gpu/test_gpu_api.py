"""The device "GPU" by its name: with a stand-in for the driver, and without a card."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.gpu import driver
from tests.support.fake_cuda import FakeCuda, install

op = ov.opset13
X = np.random.default_rng(0).integers(-4, 5, (3, 8)).astype(np.float32)  # sums are exact in f16
W = np.random.default_rng(1).integers(-4, 5, (8, 5)).astype(np.float32)


def model(rows: int = 3) -> ov.Model:
    x = op.parameter([rows, 8], np.float32, name="x")
    product = op.matmul(x, op.constant(W), False, False, name="product")
    return ov.Model([op.relu(product, name="relu")], [x])


def test_a_model_is_compiled_for_the_card(cuda: FakeCuda) -> None:
    core = ov.Core()
    assert core.available_devices == ["CPU", "GPU"]
    compiled = core.compile_model(model(), "GPU")
    np.testing.assert_allclose(compiled(X)[0], np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)
    assert compiled.get_property("EXECUTION_DEVICES") == ["GPU.0"]
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.f16
    assert cuda.replays == 1


def test_requests_and_queues_work_as_on_the_cpu(cuda: FakeCuda) -> None:
    compiled = ov.Core().compile_model(model(), "GPU.0")
    request = compiled.create_infer_request()
    request.start_async(X)
    request.wait()
    np.testing.assert_allclose(request.get_output_tensor(0).data, np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)
    queue, results = ov.AsyncInferQueue(compiled, 2), {}
    queue.set_callback(lambda request, i: results.__setitem__(i, np.array(request.get_output_tensor(0).data)))
    for i in range(5):
        queue.start_async(X * i, i)
    queue.wait_all()
    assert sorted(results) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(results[3], np.maximum(3 * X @ W, 0), rtol=1e-5, atol=1e-4)


def test_requests_are_awaited_and_cancelled(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    request = ov.Core().compile_model(model(), "GPU").create_infer_request()
    request.infer(X)
    goes_on, wait = threading.Event(), FakeCuda.do_cuStreamSynchronize

    def wait_late(self: FakeCuda, stream: Any) -> int:
        assert goes_on.wait(60)
        return wait(self, stream)

    monkeypatch.setattr(FakeCuda, "do_cuStreamSynchronize", wait_late)
    request.start_async(-X)
    assert not request.wait_for(20)
    request.cancel()
    goes_on.set()
    with pytest.raises(RuntimeError, match="(?i)cancel"):
        request.wait()
    request.start_async(X)
    assert request.wait_for(60_000)
    np.testing.assert_allclose(request.get_output_tensor(0).data, np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)


def test_several_cards_have_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeCuda(cards=2))
    try:
        core = ov.Core()
        assert core.available_devices == ["CPU", "GPU.0", "GPU.1"]
        assert core.get_property("GPU", "AVAILABLE_DEVICES") == ["0", "1"]
        assert core.compile_model(model(), "GPU.1").get_property("EXECUTION_DEVICES") == ["GPU.1"]
        with pytest.raises(RuntimeError):
            core.compile_model(model(), "GPU.2")
    finally:
        driver.forget()


def test_auto_stays_on_the_cpu_where_it_may(cuda: FakeCuda) -> None:
    core = ov.Core()
    for name in ("AUTO", "AUTO:GPU,CPU", "MULTI:GPU,CPU", "AUTO:CPU"):
        core.compile_model(model(), name)(X)
    assert cuda.replays == 0
    core.compile_model(model(), "AUTO:GPU")(X)
    assert cuda.replays == 1


def test_properties_of_the_card(cuda: FakeCuda) -> None:
    core = ov.Core()
    assert core.get_property("GPU", "FULL_DEVICE_NAME") == "NVIDIA Fake 100 (dGPU)"
    assert core.get_property("GPU", "GPU_DEVICE_TOTAL_MEM_SIZE") == 1 << 30
    assert core.get_property("GPU", "GPU_EXECUTION_UNITS_COUNT") == 132
    assert str(core.get_property("GPU", "DEVICE_TYPE")).endswith("DISCRETE")
    core.set_property("GPU", {"PERF_COUNT": True})
    assert core.get_property("GPU", "PERF_COUNT") is True
    assert core.get_property("CPU", "PERF_COUNT") is False


def test_profiles_tell_the_kernels(cuda: FakeCuda) -> None:
    compiled = ov.Core().compile_model(model(), "GPU", {"PERF_COUNT": True})
    request = compiled.create_infer_request()
    request.infer(X)
    rows = request.get_profiling_info()
    assert rows and all(row.real_time.total_seconds() > 0 for row in rows)


def test_query_model_names_what_runs_on_the_card(cuda: FakeCuda) -> None:
    x = op.parameter([3, 3], np.float32, name="x")
    inverse = op.inverse(x, False, name="inverse") if hasattr(op, "inverse") else None
    if inverse is None:
        inverse = ov.opset14.inverse(x, False, name="inverse")
    asked = ov.Core().query_model(ov.Model([op.relu(inverse, name="relu")], [x]), "GPU")
    assert asked.get("relu") == "GPU"


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        ("cuDevicePrimaryCtxRetain", 46, "exclusive mode and another process uses it"),
        ("cuMemAlloc_v2", 2, "out of memory: the card has too little free memory: use smaller shapes"),
        ("cuModuleLoadDataEx", 222, "the driver is older than the PTX of the kernels"),
    ],
)
def test_failures_of_the_card_say_what_to_do(cuda: FakeCuda, function: str, code: int, words: str) -> None:
    core = ov.Core()
    cuda.fail[function] = code
    with pytest.raises(RuntimeError, match=words):
        core.compile_model(model(), "GPU")(X)
    want = np.maximum(X @ W, 0)
    np.testing.assert_allclose(core.compile_model(model(), "CPU")(X)[0], want, rtol=1e-1, atol=1e-1)
    del cuda.fail[function]
    np.testing.assert_allclose(core.compile_model(model(), "GPU")(X)[0], want, rtol=1e-5, atol=1e-5)


def test_without_a_card_the_errors_are_openvinos() -> None:
    core = ov.Core()
    if driver.cards():
        pytest.skip("there is a card")
    assert core.available_devices == ["CPU"]
    with pytest.raises(RuntimeError, match=r"Device with \"GPU\" name is not registered .*: .* CPU \(.+\)"):
        core.compile_model(model(), "GPU")
    with pytest.raises(RuntimeError, match=r"\[GPU\] Can't get NUM_STREAMS property as no supported devices"):
        core.get_property("GPU.1", "NUM_STREAMS")
    np.testing.assert_allclose(
        core.compile_model(model(), "AUTO:GPU,CPU")(X)[0], np.maximum(X @ W, 0), rtol=1e-2, atol=1e-1
    )


def test_versions_are_those_of_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's Core has versions of GPU and NPU without such hardware, if their drivers are installed."""
    fake = install(monkeypatch, FakeCuda(cards=0))
    core = ov.Core()
    assert not driver.cards() and list(core.get_versions("MULTI:GPU.1,CPU")) == ["CPU", "GPU", "MULTI"]
    assert core.get_versions("NPU")["NPU"].description == "ovjit_npu" and "cuDeviceGet" not in fake.calls

    def load() -> None:
        raise OSError

    monkeypatch.setattr(driver, "load_library", load)
    driver.forget()
    with pytest.raises(RuntimeError, match="libcuda.so.1 is not installed"):
        core.get_versions("GPU")
    driver.forget()
