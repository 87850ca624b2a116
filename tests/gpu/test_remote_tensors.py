"""Contexts and tensors in a card's memory, with a stand-in for the driver."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.gpu import driver, exchange
from ovjit.gpu.memory import DeviceTensor, contiguous_runs, row_strides
from tests.support.fake_cuda import FakeCuda, install

op = ov.opset13
RNG = np.random.default_rng(0)
X = RNG.integers(-4, 5, (3, 8)).astype(np.float32)  # sums are exact in f16
W = RNG.integers(-4, 5, (8, 5)).astype(np.float32)


@pytest.fixture
def context(cuda: FakeCuda) -> ov.RemoteContext:
    return ov.Core().create_context("GPU", {})


def model(rows: int = 3) -> ov.Model:
    x = op.parameter([rows, 8], np.float32, name="x")
    return ov.Model([op.relu(op.matmul(x, op.constant(W), False, False))], [x])


def remote_of(context: ov.RemoteContext, array: np.ndarray) -> ov.RemoteTensor:
    remote = context.create_tensor(ov.Tensor(array).element_type, array.shape, {})
    remote.copy_from(ov.Tensor(array))
    return remote


def host_of(remote: ov.RemoteTensor, dtype: Any = ov.Type.f32) -> np.ndarray:
    tensor = ov.Tensor(dtype, [1])
    remote.copy_to(tensor)
    return np.array(tensor.data)


def test_contexts_tell_their_card(cuda: FakeCuda) -> None:
    core = ov.Core()
    context = core.create_context("GPU", {"CONTEXT_TYPE": "CUDA"})
    assert context.get_device_name() == "GPU.0" and context.get_params()["CUDA_CONTEXT"] == 77
    assert core.get_default_context("GPU") is core.get_default_context("GPU.0")
    for wrong in ({"CONTEXT_TYPE": "OCL"}, {"OCL_CONTEXT": 1}):
        with pytest.raises(RuntimeError, match="Unsupported parameters of a context"):
            core.create_context("GPU", wrong)
    with pytest.raises(RuntimeError, match="create_context is not supported by CPU plugin!"):
        core.create_context("CPU", {})
    with pytest.raises(TypeError, match="No constructor defined"):
        ov.RemoteContext()


def test_tensors_are_copied_to_the_card_and_back(context: ov.RemoteContext, cuda: FakeCuda) -> None:
    for array in (X, X.astype(np.float16), np.arange(6).reshape(2, 3), np.array(7.0), np.ones((0, 3))):
        remote = remote_of(context, array)
        assert tuple(remote.get_shape()) == array.shape and remote.get_byte_size() == array.nbytes
        np.testing.assert_array_equal(host_of(remote, ov.Tensor(array).element_type), array)
    params = remote_of(context, X).get_params()
    assert params["SHARED_MEM_TYPE"] == "USM_DEVICE_BUFFER"
    with pytest.raises(RuntimeError, match=r"element types are not equal. \(src: f32 != dst: i32\)"):
        remote_of(context, X).copy_to(ov.Tensor(ov.Type.i32, [3, 8]))
    with pytest.raises(RuntimeError, match="shapes are not equal"):
        remote_of(context, X).copy_from(ov.Tensor(X[:2]))
    with pytest.raises(RuntimeError, match="copy it to a Tensor with copy_to"):
        _ = remote_of(context, X).data
    with pytest.raises(RuntimeError, match="Unsupported properties of a remote tensor"):
        context.create_tensor(ov.Type.f32, [1], {"SHARED_MEM_TYPE": "VA_SURFACE"})
    del remote
    gc.collect()
    assert not cuda.memory


def test_remote_inputs_and_outputs_are_not_copied(context: ov.RemoteContext, cuda: FakeCuda) -> None:
    compiled = ov.Core().compile_model(model(), context)
    request = compiled.create_infer_request()
    x, y = remote_of(context, X), context.create_tensor(ov.Type.f32, [3, 5], {})
    request.set_tensor("x", x)
    request.set_output_tensor(0, y)
    assert request.get_input_tensor() is x and request.get_output_tensor() is y
    before = len(cuda.calls)
    request.start_async()
    request.wait()
    assert np.array_equal(
        cuda.memory[y.get_params()["MEM_HANDLE"]].view(np.float32).reshape(3, 5), host_of(y)
    )
    np.testing.assert_allclose(host_of(y), np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)
    sizes = [name for name in cuda.calls[before:] if name == "cuMemAllocHost_v2"]
    assert len(sizes) == 1 and request.results[0] is y  # codes of errors
    x.copy_from(ov.Tensor(2 * X))
    assert request.infer()[0] is y
    np.testing.assert_allclose(host_of(y), np.maximum(2 * X @ W, 0), rtol=1e-5, atol=1e-5)
    assert cuda.instantiated == 1
    request.set_tensor("x", ov.Tensor(X))  # host tensors again
    request.set_output_tensor(0, ov.Tensor(ov.Type.f32, [3, 5]))
    np.testing.assert_allclose(request.infer()[0], np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(request.infer({0: x})[0], np.maximum(2 * X @ W, 0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(compiled([x])[0], np.maximum(2 * X @ W, 0), rtol=1e-5, atol=1e-5)


def test_an_output_in_the_memory_of_an_input_is_written_last(context: ov.RemoteContext) -> None:
    x = op.parameter([64], np.float32, name="x")
    reversed_sum = op.add(op.gather(x, np.arange(63, -1, -1), 0), op.relu(x))
    request = ov.Core().compile_model(ov.Model([reversed_sum], [x]), "GPU").create_infer_request()
    values = np.arange(-20, 44).astype(np.float32)
    tensor = remote_of(context, values)
    request.set_input_tensor(tensor)
    request.set_output_tensor(tensor)
    request.infer()
    np.testing.assert_array_equal(host_of(tensor), values[::-1] + np.maximum(values, 0))


def test_graph_breaks_copy_remote_tensors(context: ov.RemoteContext) -> None:
    x = op.parameter([2, 3], np.float32, name="x")
    found = op.non_zero(op.relu(x), "i64")
    graph = ov.Model([op.exp(op.gather_nd(x, op.transpose(found, [1, 0]), 0))], [x])
    request = ov.Core().compile_model(graph, "GPU").create_infer_request()
    values = np.array([[1, -2, 3], [-4, 5, 0.5]], np.float32)
    request.set_input_tensor(remote_of(context, values))
    np.testing.assert_allclose(request.infer()[0], np.exp(values[values > 0]), rtol=1e-5)
    result = context.create_tensor(ov.Type.f32, [4], {})
    request.set_output_tensor(result)
    for _ in range(2):
        request.infer()
        np.testing.assert_allclose(host_of(result), np.exp(values[values > 0]), rtol=1e-5)


def test_what_does_not_fit_is_an_error(context: ov.RemoteContext) -> None:
    core = ov.Core()
    request = core.compile_model(model(), "GPU").create_infer_request()
    with pytest.raises(RuntimeError, match="incompatible"):
        request.set_input_tensor(remote_of(context, X[:2]))
    with pytest.raises(RuntimeError, match="ParameterMismatch"):
        request.set_input_tensor(remote_of(context, X.astype(np.float64)))
    with pytest.raises(RuntimeError, match="ParameterMismatch"):
        request.set_output_tensor(remote_of(context, np.ones((3, 5), np.int32)))
    wide = remote_of(context, np.ones((3, 9), np.float32))
    with pytest.raises(RuntimeError, match="only if it is contiguous"):
        request.set_input_tensor(ov.RemoteTensor(wide, [0, 0], [3, 8]))
    with pytest.raises(RuntimeError, match="batch cannot be a RemoteTensor"):
        request.set_input_tensors([remote_of(context, X[:1]) for _ in range(3)])
    on_cpu = core.compile_model(model(), "CPU").create_infer_request()
    with pytest.raises(RuntimeError, match="tensor of GPU.0, but the model is compiled for the CPU"):
        on_cpu.set_input_tensor(remote_of(context, X))


def test_tensors_of_another_card_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeCuda(cards=2))
    try:
        core = ov.Core()
        request = core.compile_model(model(), "GPU.1").create_infer_request()
        with pytest.raises(RuntimeError, match="memory of card 0, and the model runs on card 1"):
            request.set_input_tensor(core.get_default_context("GPU.0").create_tensor(ov.Type.f32, [3, 8], {}))
        own = ov.Tensor(np.zeros((3, 8), np.float32))
        request.set_input_tensor(own)
        with pytest.raises(RuntimeError, match="memory of card 0"):
            request.set_input_tensor(core.get_default_context("GPU.0").create_tensor(ov.Type.f32, [3, 8], {}))
        own.data[...] = X  # still the request's
        np.testing.assert_allclose(request.infer()[0], np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)
    finally:
        driver.forget()


def test_tensors_are_copied_between_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the driver's copy of peers: others take memory of one context."""
    cuda = install(monkeypatch, FakeCuda(cards=2))
    try:
        first, second = (ov.Core().get_default_context(name) for name in ("GPU.0", "GPU.1"))
        source, whole = remote_of(first, X), np.zeros((4, 9), np.float32)
        to = remote_of(second, whole)
        part = ov.RemoteTensor(to, [1, 0], [4, 8])
        source.copy_to(part)
        whole[1:, :8] = X
        np.testing.assert_array_equal(host_of(to), whole)
        back = remote_of(first, np.zeros_like(X))
        back.copy_from(part)
        np.testing.assert_array_equal(host_of(back), X)
        assert cuda.calls.count("cuMemcpyPeerAsync") == 6 and "cuMemcpyDtoDAsync_v2" not in cuda.calls
    finally:
        driver.forget()


def test_regions_are_copied(context: ov.RemoteContext) -> None:
    whole = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    remote = remote_of(context, whole)
    region = ov.RemoteTensor(remote, [1, 1, 2], [3, 3, 5])
    np.testing.assert_array_equal(host_of(region), whole[1:3, 1:3, 2:5])
    region.copy_from(ov.Tensor(np.full((2, 2, 3), -1, np.float32)))
    whole[1:3, 1:3, 2:5] = -1
    np.testing.assert_array_equal(host_of(remote), whole)
    inner = ov.RemoteTensor(region, [0, 1, 0], [2, 2, 2])
    other = remote_of(context, np.arange(4, dtype=np.float32).reshape(2, 1, 2))
    inner.copy_from(other)
    whole[1:3, 2:3, 2:4] = np.arange(4).reshape(2, 1, 2)
    np.testing.assert_array_equal(host_of(remote), whole)
    window = ov.Tensor(ov.Tensor(np.zeros((4, 4, 4), np.float32)), [0, 0, 0], [2, 2, 3])
    region.copy_to(window)
    np.testing.assert_array_equal(window.data, whole[1:3, 1:3, 2:5])
    with pytest.raises(RuntimeError, match="outside of"):
        ov.RemoteTensor(remote, [0, 0, 0], [3, 4, 6])
    rows = ov.RemoteTensor(remote, [1, 0, 0], [2, 4, 5])
    x = op.parameter([1, 4, 5], np.float32, name="x")
    request = ov.Core().compile_model(ov.Model([op.relu(x)], [x]), "GPU").create_infer_request()
    request.set_input_tensor(rows)
    np.testing.assert_array_equal(request.infer()[0], np.maximum(whole[1:2], 0))


@pytest.mark.parametrize("seed", range(30))
def test_runs_are_the_elements_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(0, 4))
    sizes = rng.integers(1, 4, rank)
    arrays = []
    for _ in range(2):
        big = rng.integers(0, 99, [int(n) + int(rng.integers(0, 3)) for n in sizes]).astype(np.int16)
        starts = [int(rng.integers(0, b - n + 1)) for b, n in zip(big.shape, sizes, strict=True)]
        arrays.append(big[(..., *(slice(s, s + n) for s, n in zip(starts, sizes, strict=True)))])
    source, to = arrays
    want = source.copy()
    for (begin, end), size in contiguous_runs(source.shape, 2, source.strides, to.strides):
        ctypes.memmove(to.ctypes.data + end, source.ctypes.data + begin, size)
    np.testing.assert_array_equal(to, want, err_msg=f"seed {seed}")


def test_host_tensors_are_pinned(context: ov.RemoteContext, cuda: FakeCuda) -> None:
    tensor = context.create_host_tensor(ov.Type.f32, [3, 8])
    tensor.data[...] = X
    request = ov.Core().compile_model(model(), "GPU").create_infer_request()
    request.set_input_tensor(tensor)
    np.testing.assert_allclose(request.infer()[0], np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)
    # the tensor's, that of the output, and codes of errors: the input needs no staging
    assert len(cuda.pinned) == 3
    array = tensor.data
    del request, tensor
    gc.collect()
    assert len(cuda.pinned) == 1 and np.array_equal(array, X)
    del array
    gc.collect()
    assert not cuda.pinned


def test_memory_that_is_not_aligned_is_copied(context: ov.RemoteContext, cuda: FakeCuda) -> None:
    """Kernels access 16 bytes at a time."""
    own = context.create_tensor(ov.Type.f32, [128], {})
    address, how = own.get_params()["MEM_HANDLE"], {"SHARED_MEM_TYPE": "USM_USER_BUFFER"}
    x = context.create_tensor(ov.Type.f32, [3, 8], {**how, "MEM_HANDLE": address + 4})
    y = context.create_tensor(ov.Type.f32, [3, 5], {**how, "MEM_HANDLE": address + 260})
    request = ov.Core().compile_model(model(), context).create_infer_request()
    request.set_tensor("x", x)
    request.set_output_tensor(0, y)
    for factor in (1, 2):
        x.copy_from(ov.Tensor(factor * X))
        before = len(cuda.calls)
        request.infer()
        assert cuda.calls[before:].count("cuMemcpyDtoDAsync_v2") == 2
        np.testing.assert_allclose(host_of(y), np.maximum(factor * X @ W, 0), rtol=1e-5, atol=1e-5)


def test_memory_of_the_caller_is_used_by_its_address(context: ov.RemoteContext, cuda: FakeCuda) -> None:
    own = remote_of(context, X)
    address = own.get_params()["MEM_HANDLE"]
    other = context.create_tensor(
        ov.Type.f32, [3, 8], {"SHARED_MEM_TYPE": "USM_USER_BUFFER", "MEM_HANDLE": address}
    )
    np.testing.assert_array_equal(host_of(other), X)
    assert other.get_params()["SHARED_MEM_TYPE"] == "USM_USER_BUFFER"
    del other
    gc.collect()
    assert address in cuda.memory
    with pytest.raises(RuntimeError, match="cuPointerGetAttribute failed"):
        context.create_tensor(
            ov.Type.f32, [3, 8], {"SHARED_MEM_TYPE": "USM_USER_BUFFER", "MEM_HANDLE": X.ctypes.data}
        )


class OfAnotherPackage:
    """A tensor on the card with `__dlpack__`."""

    def __init__(self, remote: ov.RemoteTensor):
        self.remote, self.streams = remote, []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.remote.__dlpack_device__()

    def __dlpack__(self, stream: Any = None) -> Any:
        self.streams.append(stream)
        return self.remote.__dlpack__(stream=stream)


def test_dlpack_shares_the_memory_and_gives_it_back(context: ov.RemoteContext, cuda: FakeCuda) -> None:
    own = remote_of(context, X)
    other = OfAnotherPackage(own)
    shared = context.import_tensor(other)
    assert other.streams == [context.get_params()["CUDA_STREAM"]]
    assert shared.get_params()["MEM_HANDLE"] == own.get_params()["MEM_HANDLE"]
    own.copy_from(ov.Tensor(3 * X))
    del own, other
    gc.collect()
    np.testing.assert_array_equal(host_of(shared), 3 * X)
    assert len(exchange._exported) == 1
    del shared
    gc.collect()
    assert not exchange._exported and not cuda.memory


def test_capsules_that_nobody_takes_are_dropped(context: ov.RemoteContext, cuda: FakeCuda) -> None:
    capsule = remote_of(context, X).__dlpack__()
    assert len(exchange._exported) == 1 and cuda.memory
    del capsule
    gc.collect()
    assert not exchange._exported and not cuda.memory


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i1", "i4", "i8", "u1", "u2", "?"])
def test_capsules_have_the_layout_of_numpy(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    name = ov.Tensor(array).element_type.get_type_name()
    memory = DeviceTensor(None, array.ctypes.data, array.shape, array.strides, array.itemsize, array)  # type: ignore[arg-type]

    class Exported:
        def __dlpack__(self, **options: Any) -> Any:
            return exchange.export_capsule(memory, name, (1, 0))

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    result = np.from_dlpack(Exported())
    assert result.dtype == array.dtype and result.ctypes.data == array.ctypes.data
    np.testing.assert_array_equal(result, array)
    del result
    gc.collect()
    assert not exchange._exported


def test_capsules_of_numpy_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "check_card", lambda *_: None)
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    capsule = array.__dlpack__()
    dtype, memory = exchange.import_capsule(None, capsule)  # type: ignore[arg-type]
    assert (dtype, memory.address, memory.shape) == ("i16", array.ctypes.data, (2, 3, 4))
    assert memory.strides == row_strides((2, 3, 4), 2)
    with pytest.raises(TypeError, match="was not used before"):
        exchange.import_capsule(None, capsule)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="is not contiguous"):
        exchange.import_capsule(None, array[:, ::2].__dlpack__())  # type: ignore[arg-type]


def test_tensors_of_torch_may_be_freed_at_exit() -> None:
    pytest.importorskip("torch")
    script = (
        "import numpy as np, torch\n"
        "from ovjit.gpu import exchange\n"
        "from ovjit.gpu.memory import DeviceTensor\n"
        "a = np.zeros(4, np.float32)\n"
        "tensor = DeviceTensor(None, a.ctypes.data, a.shape, a.strides, 4, a)\n"
        "torch.kept = torch.from_dlpack(exchange.export_capsule(tensor, 'f32', (1, 0)))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_read_only_memory_is_not_written(context: ov.RemoteContext) -> None:
    content = np.zeros(24, np.float32)
    content.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        remote_of(context, X).copy_to(ov.Tensor(content, ov.Shape([3, 8])))
    assert not content.any()


def test_tensors_of_the_host_are_not_imported(context: ov.RemoteContext) -> None:
    with pytest.raises(RuntimeError, match="use copy_from"):
        context.import_tensor(X)
    with pytest.raises(TypeError, match="neither __dlpack__ nor __cuda_array_interface__"):
        context.import_tensor([1, 2])
    with pytest.raises(BufferError):
        remote_of(context, X).__dlpack__(copy=True)


def test_the_array_interface_shares_the_memory(context: ov.RemoteContext, cuda: FakeCuda) -> None:
    own = remote_of(context, X)
    facts = own.__cuda_array_interface__
    assert facts["typestr"] == "<f4" and facts["strides"] is None and facts["shape"] == (3, 8)

    class Other:
        __cuda_array_interface__ = {**facts, "stream": cuda_stream(cuda)}

    shared = context.import_tensor(Other())
    np.testing.assert_array_equal(host_of(shared), X)
    Other.__cuda_array_interface__ = {**facts, "data": (X.ctypes.data, False)}
    with pytest.raises(RuntimeError, match="cuPointerGetAttribute failed"):
        context.import_tensor(Other())
    region = ov.RemoteTensor(own, [0, 0], [3, 4])
    assert region.__cuda_array_interface__["strides"] == (32, 4)
    bf16 = context.create_tensor(ov.Type.bf16, [2], {})
    assert not hasattr(bf16, "__cuda_array_interface__") and bf16.__dlpack__() is not None


def cuda_stream(cuda: FakeCuda) -> int:
    return next(iter(cuda.streams))
