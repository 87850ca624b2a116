"""Properties of the device "GPU", beside the names of OpenVINO 2026.4."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.api.run import gpu_properties
from ovjit.gpu import driver
from tests.support.fake_cuda import FakeCuda, install

op = ov.opset13
#: SUPPORTED_PROPERTIES of OpenVINO's GPU plugin without a card, in its order.
NAMES = """
SUPPORTED_PROPERTIES AVAILABLE_DEVICES RANGE_FOR_ASYNC_INFER_REQUESTS RANGE_FOR_STREAMS OPTIMAL_BATCH_SIZE
MAX_BATCH_SIZE DEVICE_ARCHITECTURE FULL_DEVICE_NAME DEVICE_UUID DEVICE_LUID DEVICE_TYPE DEVICE_GOPS
OPTIMIZATION_CAPABILITIES DEVICE_PCI_INFO GPU_DEVICE_ID GPU_DEVICE_TOTAL_MEM_SIZE
GPU_DEVICE_MAX_ALLOC_MEM_SIZE GPU_UARCH_VERSION GPU_CACHELINE_SIZE GPU_EXECUTION_UNITS_COUNT
GPU_MEMORY_STATISTICS COMPATIBILITY_CHECK PERF_COUNT MODEL_PRIORITY GPU_HOST_TASK_PRIORITY GPU_QUEUE_PRIORITY
GPU_QUEUE_THROTTLE GPU_ENABLE_SDPA_OPTIMIZATION GPU_ENABLE_LORA_OPERATION GPU_ENABLE_LARGE_ALLOCATIONS
GPU_ENABLE_LOOP_UNROLLING GPU_DISABLE_WINOGRAD_CONVOLUTION CACHE_DIR CACHE_MODE PERFORMANCE_HINT
EXECUTION_MODE_HINT COMPILATION_NUM_THREADS NUM_STREAMS PERFORMANCE_HINT_NUM_REQUESTS
INFERENCE_PRECISION_HINT ENABLE_CPU_PINNING ENABLE_CPU_RESERVATION DEVICE_ID DYNAMIC_QUANTIZATION_GROUP_SIZE
ACTIVATIONS_SCALE_FACTOR WEIGHTS_PATH CACHE_ENCRYPTION_CALLBACKS KV_CACHE_PRECISION MODEL_PTR OFFLOAD_RATIO
CONFIG_FILE
""".split()
READ_ONLY, WRITE_ONLY = NAMES[:22], ("CACHE_ENCRYPTION_CALLBACKS", "MODEL_PTR")


def model(scale: float = 1.0) -> ov.Model:
    x = op.parameter([2, 3], np.float32, name="x")
    product = op.matmul(x, op.constant(np.full((3, 4), 1 / 3, np.float32)), False, False)
    return ov.Model([op.multiply(product, op.constant(np.float32(scale)))], [x])


def test_names_and_mutability_are_openvinos(cuda: FakeCuda) -> None:
    listed = ov.Core().get_property("GPU", "SUPPORTED_PROPERTIES")
    assert list(listed) == NAMES
    expected = {name: "RO" if name in READ_ONLY else "WO" if name in WRITE_ONLY else "RW" for name in NAMES}
    assert listed == expected


def test_names_are_listed_without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is in the errors of all else."""
    install(monkeypatch, FakeCuda(cards=0))
    core = ov.Core()
    assert list(core.get_property("GPU", "SUPPORTED_PROPERTIES")) == NAMES
    assert core.get_property("GPU", "AVAILABLE_DEVICES") == [] and core.get_property("GPU", "CACHE_DIR") == ""
    for run in (
        lambda: core.get_property("GPU", "FULL_DEVICE_NAME"),
        lambda: core.compile_model(model(), "AUTO:GPU"),
        lambda: core.create_context("GPU", {}),
        lambda: core.query_model(model(), "GPU"),
    ):
        with pytest.raises(RuntimeError, match="no CUDA-capable device is detected: the driver finds no"):
            run()
    old = install(monkeypatch, FakeCuda())
    old.version = 11030

    def lacks(*_: object) -> None:
        raise AttributeError("cuDeviceGetUuid_v2")

    monkeypatch.setattr(FakeCuda, "do_cuDeviceGetUuid", lacks)
    with pytest.raises(RuntimeError, match="the driver is too old"):
        core.compile_model(model(), "GPU")
    assert core.available_devices == ["CPU"]
    monkeypatch.undo()
    install(monkeypatch, FakeCuda())
    with pytest.raises(RuntimeError, match="the driver has GPU, and no GPU.3"):
        core.compile_model(model(), "GPU.3")
    driver.forget()


def test_all_that_are_listed_are_readable_but_write_only_ones(cuda: FakeCuda) -> None:
    core = ov.Core()
    for name in NAMES:
        if name == "COMPATIBILITY_CHECK":
            with pytest.raises(TypeError):
                core.get_property("GPU", name)
        elif name in WRITE_ONLY:
            with pytest.raises(RuntimeError, match=f"Unsupported property {name}"):
                core.get_property("GPU", name)
        else:
            assert core.get_property("GPU", name) is not None, name
    assert core.get_property("GPU", "DEVICE_ID") == "0" and not core.get_property("GPU", "ENABLE_CPU_PINNING")
    assert core.get_property("GPU", "DEVICE_PCI_INFO") == "{domain: 0 bus: 3 device: 0x0 function: 0}"
    assert core.get_property("GPU", "DEVICE_GOPS") == {ov.Type.f32: pytest.approx(132 * 128 * 2 * 1.98)}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"NO_SUCH": 1}, "Unsupported property NO_SUCH by GPU plugin"),
        ({"GPU_QUEUE_PRIORTY": "LOW"}, "Or did you mean 'GPU_QUEUE_PRIORITY'"),
        ({"FULL_DEVICE_NAME": "x"}, "It can only be read"),
        ({"PERF_COUNT": "maybe"}, "Wrong value maybe for property key PERF_COUNT"),
        ({"INFERENCE_PRECISION_HINT": "i8"}, "Wrong value i8"),
        ({"GPU_QUEUE_THROTTLE": "NONE"}, "Supported values: LOW, MEDIUM, HIGH"),
        ({"INFERENCE_NUM_THREADS": 2}, "Unsupported property INFERENCE_NUM_THREADS by GPU plugin"),
    ],
)
def test_wrong_properties_are_errors(cuda: FakeCuda, config: dict[str, Any], words: str) -> None:
    core = ov.Core()
    with pytest.raises(RuntimeError, match=words):
        core.compile_model(model(), "GPU", config)
    with pytest.raises(RuntimeError, match=words):
        core.set_property("GPU", config)
    with pytest.raises(RuntimeError, match=words):
        core.compile_model(model(), "GPU", {"DEVICE_PROPERTIES": {"GPU": config}})


def test_settings_reach_compiled_models(cuda: FakeCuda) -> None:
    core = ov.Core()
    core.set_property("GPU", {"GPU_QUEUE_THROTTLE": "LOW"})
    core.set_property("CPU", {"PERF_COUNT": True})
    compiled = core.compile_model(model(), "GPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    get = compiled.get_property
    for name in get("SUPPORTED_PROPERTIES"):
        get(name)
    assert get("GPU_QUEUE_THROTTLE").name == "LOW" and get("PERF_COUNT") is False
    assert (get("NUM_STREAMS"), get("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) == (2, 3)
    assert get("PERFORMANCE_HINT").name == "THROUGHPUT" and get("DEVICE_ID") == "0"
    for name in ("NO_SUCH", "GPU_CACHELINE_SIZE", "INFERENCE_NUM_THREADS"):
        with pytest.raises(RuntimeError, match="Unsupported property"):
            get(name)


def test_the_number_of_a_card_selects_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeCuda(cards=2))
    try:
        core = ov.Core()
        for name, config in (("GPU", {"DEVICE_ID": "1"}), ("GPU.1", {"DEVICE_ID": 1}), ("GPU.1", {})):
            compiled = core.compile_model(model(), name, config)
            assert compiled.get_property("EXECUTION_DEVICES") == ["GPU.1"]
            assert compiled.get_property("DEVICE_ID") == "1"
        with pytest.raises(RuntimeError, match="mismatch: DEVICE_ID is '1', but the device name is 'GPU.0'"):
            core.compile_model(model(), "GPU.0", {"DEVICE_ID": "1"})
        with pytest.raises(RuntimeError, match="GPU"):
            core.compile_model(model(), "GPU", {"DEVICE_ID": "2"})
        monkeypatch.setattr(gpu_properties, "_fact", lambda name, index, facts: index)
        assert core.get_property("GPU", "FULL_DEVICE_NAME") == 0
        core.set_property("GPU", {"DEVICE_ID": "1"})
        assert core.get_property("GPU", "FULL_DEVICE_NAME") == 1
        assert core.get_property("GPU.0", "FULL_DEVICE_NAME") == 0
        assert core.compile_model(model(), "GPU").get_property("EXECUTION_DEVICES") == ["GPU.1"]
        assert core.compile_model(model(), "GPU.0").get_property("DEVICE_ID") == "0"
    finally:
        driver.forget()


def test_half_precision_is_the_default_and_others_are_used_where_they_are_asked_for(cuda: FakeCuda) -> None:
    core, x = ov.Core(), np.array([[0.1, 0.7, 0.33], [1, 2, 3]], np.float32)
    results = {}
    for hint in ("f32", "f16", "bf16", "dynamic"):
        compiled = core.compile_model(model(), "GPU", {"INFERENCE_PRECISION_HINT": hint})
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == (
            ov.Type.f32 if hint == "dynamic" else getattr(ov.Type, hint)
        )
        results[hint] = compiled(x)[0]
    np.testing.assert_array_equal(results["dynamic"], results["f32"])
    w = np.full((3, 4), 1 / 3, np.float32)
    np.testing.assert_allclose(results["f32"], x @ w, rtol=1e-6)
    half = x.astype(np.float16).astype(np.float32) @ w.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(results["f16"], half, rtol=1e-3)
    assert not np.array_equal(results["f16"], results["f32"])
    np.testing.assert_allclose(results["bf16"], x @ w, rtol=2e-2)
    assert not np.array_equal(results["bf16"], results["f32"])
    default = core.compile_model(model(), "GPU")
    assert default.get_property("INFERENCE_PRECISION_HINT") == ov.Type.f16
    np.testing.assert_array_equal(default(x)[0], results["f16"])


def test_hetero_asks_the_devices_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenVINO's Core without a card: HETERO:CPU,GPU names the CPU, HETERO:GPU,CPU raises."""
    install(monkeypatch, FakeCuda(cards=0))
    core = ov.Core()
    assert set(core.query_model(model(), "HETERO:CPU,GPU").values()) == {"CPU"}
    for name in ("HETERO:GPU,CPU", "AUTO:CPU,GPU", "MULTI:CPU,GPU"):
        with pytest.raises(RuntimeError, match="no CUDA-capable device is detected"):
            core.query_model(model(), name)
    driver.forget()


@pytest.mark.parametrize("count", [0, 1])
def test_properties_of_devices_are_for_compilations(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeCuda(cards=count))
    core = ov.Core()
    for name in ("GPU", "GPU.0"):
        with pytest.raises(RuntimeError, match="set_property does not take DEVICE_PROPERTIES"):
            core.set_property(name, {"DEVICE_PROPERTIES": {"GPU": {"NUM_STREAMS": 2}}})
    driver.forget()
