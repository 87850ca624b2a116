"""Variables of models stay in a card's memory between runs, with a stand-in for the driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from ovjit.execution.states import States
from ovjit.gpu import driver
from ovjit.gpu.variables import CardProgram
from tests.support.decoders import HEADS, SIZE, decoder
from tests.support.fake_cuda import FakeCuda, install
from tests.support.sweeps import some

op = ov.opset13
SEED = 20261129
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}


class Counting(FakeCuda):
    """A driver that counts the bytes that are copied to the card and back."""

    up = down = 0

    def do_cuMemcpyHtoDAsync(self, to: Any, source: Any, size: Any, stream: Any) -> None:
        self.up += getattr(size, "value", size)
        return super().do_cuMemcpyHtoDAsync(to, source, size, stream)

    def do_cuMemcpyDtoHAsync(self, to: Any, source: Any, size: Any, stream: Any) -> None:
        self.down += getattr(size, "value", size)
        return super().do_cuMemcpyDtoHAsync(to, source, size, stream)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    counting = Counting()
    install(monkeypatch, counting)
    yield counting
    driver.forget()


def running_sum(shape: tuple[int, ...] = (4, 64)) -> ov.Model:
    """The sum of all inputs so far, times two."""
    x = op.parameter(list(shape), np.float32, name="x")
    before = op.read_value(op.constant(np.zeros(shape, np.float32)), "sum")
    after = op.add(before, x)
    model = ov.Model([op.multiply(after, np.float32(2))], [x], "sums")
    model.add_sinks([op.assign(after, "sum")])
    return model


def answers(request: ov.InferRequest, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    request.infer(inputs)
    return [np.array(t.data) for t in request.output_tensors]


def inputs_of(rng: np.random.Generator, batch: int, new: int, order: Any) -> dict[str, np.ndarray]:
    x = rng.standard_normal((batch, new, HEADS * SIZE)).astype(np.float32)
    return {"x": x, "beam_idx": np.asarray(order, np.int32)}


def close(left: np.ndarray, right: np.ndarray, message: str) -> None:
    assert left.shape == right.shape, message
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5, err_msg=message)


@pytest.mark.parametrize("seed", some(range(6), 1))
def test_decoders_have_the_results_of_the_cpu(cuda: Counting, seed: int) -> None:
    """Random lengths, orders of beams, resets, looks at states, and states that are set and cut."""
    rng = np.random.default_rng([SEED, seed])
    model = decoder(beams=True, told=False)
    card, cpu = (ov.Core().compile_model(model, device, EXACT) for device in ("GPU", "CPU"))
    assert isinstance(card._executable.program, CardProgram)
    a, b = card.create_infer_request(), cpu.create_infer_request()
    batch = 2
    for step in range(14):
        what, title = rng.random(), f"seed {SEED}, {seed}, step {step}"
        if what < 0.1:
            a.reset_state(), b.reset_state()
            batch = int(rng.integers(1, 4))
        elif what < 0.3:
            k = int(rng.integers(4))
            left, right = (request.query_state()[k].state for request in (a, b))
            close(left.data, right.data, title)
            if rng.random() < 0.5 and left.data.size:
                left.data[...] *= 2
                right.data[...] *= 2
        elif what < 0.4:
            value = [s.state.data for s in b.query_state()]
            for states in (a.query_state(), b.query_state()):
                for state, array in zip(states, value, strict=True):
                    state.state = ov.Tensor(np.ascontiguousarray(array[:, :, : array.shape[2] // 2]))
        elif what < 0.55 and step:
            states = a.query_state(), b.query_state()
            length = states[1][0].state.shape[2] // 2
            for state in (*states[0], *states[1]):
                state._cut(2, length)
        order = rng.integers(0, batch, batch) if rng.random() < 0.4 else np.arange(batch)
        inputs = inputs_of(rng, batch, int(rng.choice([1, 1, 2, 5])), order)
        for one, other in zip(answers(a, inputs), answers(b, inputs), strict=True):
            close(one, other, title)
    for one, other in zip(a.query_state(), b.query_state(), strict=True):
        assert one.name == other.name
        close(one.state.data, other.state.data, f"seed {seed}")


def test_values_are_not_copied_to_the_host(cuda: Counting) -> None:
    shape = (64, 512)
    request = ov.Core().compile_model(running_sum(shape), "GPU", EXACT).create_infer_request()
    x = np.ones(shape, np.float32)
    request.infer([x])
    size, graphs = x.nbytes, cuda.instantiated
    for i in range(2, 5):
        cuda.up = cuda.down = 0
        request.infer([x])
        assert size <= cuda.up < size + 4096 and cuda.down == size
        np.testing.assert_array_equal(request.output_tensors[0].data, np.full(shape, 2 * i))
    assert cuda.instantiated == graphs
    allocated = len(cuda.memory)
    request.infer([x])
    assert len(cuda.memory) == allocated  # two values take turns
    assert request._job.states().tensor(0) is not None
    (state,) = request.query_state()
    np.testing.assert_array_equal(state.state.data, np.full(shape, 5))
    state.reset()
    request.infer([x])
    np.testing.assert_array_equal(request.output_tensors[0].data, np.full(shape, 2))


def test_remote_tensors_are_not_copied(cuda: Counting) -> None:
    shape = (64, 512)
    context = ov.Core().create_context("GPU", {})
    request = ov.Core().compile_model(running_sum(shape), context, EXACT).create_infer_request()
    x, y = (context.create_tensor(ov.Type.f32, shape, {}) for _ in range(2))
    x.copy_from(ov.Tensor(np.ones(shape, np.float32)))
    request.set_input_tensor(x)
    request.set_output_tensor(y)
    for i in range(1, 4):
        cuda.up = cuda.down = 0
        request.infer()
        assert cuda.down == 0 and (i == 1 or cuda.up < 4096)
    result = ov.Tensor(ov.Type.f32, shape)
    y.copy_to(result)
    np.testing.assert_array_equal(result.data, np.full(shape, 6))
    request.set_output_tensor(ov.Tensor(ov.Type.f32, shape))
    request.set_input_tensor(ov.Tensor(np.ones(shape, np.float32)))
    request.infer()
    np.testing.assert_array_equal(request.output_tensors[0].data, np.full(shape, 8))


def test_a_run_that_fails_keeps_the_values(cuda: Counting) -> None:
    request = ov.Core().compile_model(running_sum(), "GPU", EXACT).create_infer_request()
    x = np.ones((4, 64), np.float32)
    for _ in range(2):
        request.infer([x])
    cuda.fail["cuGraphLaunch"] = 1
    with pytest.raises(RuntimeError, match="invalid argument"):
        request.infer([x])
    del cuda.fail["cuGraphLaunch"]
    np.testing.assert_array_equal(request.infer([x])[0], np.full((4, 64), 6))
    assert not any(cuda.streams.values())


def test_an_interrupt_keeps_the_values(cuda: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the run, and before its values are stored: the next run does not write to what it reads."""
    x = op.parameter([64], np.float32, name="x")
    before = op.read_value(op.constant(np.zeros(64, np.float32)), "reversed")
    after = op.add(op.gather(before, np.arange(63, -1, -1), 0), x)
    model = ov.Model([after], [x])
    model.add_sinks([op.assign(after, "reversed")])
    request = ov.Core().compile_model(model, "GPU", EXACT).create_infer_request()
    array, want = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    for step in range(6):
        if step in (2, 4):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(States, "store", interrupt)
                request.infer([array])
        want = want[::-1] + array
        np.testing.assert_array_equal(request.infer([array])[0], want)


def test_requests_have_values_of_their_own_and_free_them(cuda: Counting) -> None:
    compiled = ov.Core().compile_model(running_sum(), "GPU", EXACT)
    one, other = compiled.create_infer_request(), compiled.create_infer_request()
    x = np.ones((4, 64), np.float32)
    for request in (one, other, one):
        request.infer([x])
    assert [r.query_state()[0].state.data[0, 0] for r in (one, other)] == [2, 1]
    del one, other, request, compiled
    assert not cuda.memory and not cuda.streams


def test_rows_that_are_not_there_are_zeros(cuda: Counting) -> None:
    model = decoder(beams=True, told=False)
    card, cpu = (ov.Core().compile_model(model, device, EXACT) for device in ("GPU", "CPU"))
    rng = np.random.default_rng(SEED)
    a, b = card.create_infer_request(), cpu.create_infer_request()
    for order in ([0, 1], [1, -1], [0, 1]):
        inputs = inputs_of(rng, 2, 1, order)
        for one, other in zip(answers(a, inputs), answers(b, inputs), strict=True):
            close(one, other, str(order))


def test_values_after_a_graph_break_are_arrays_of_the_host(cuda: Counting) -> None:
    """A part of the graph has data-dependent shapes, so that its parts exchange arrays."""
    x = op.parameter([6], np.float32, name="x")
    before = op.read_value(op.constant(np.zeros(6, np.float32)), "sum")
    found = op.non_zero(op.relu(x), "i64")
    after = op.add(before, op.reduce_sum(op.gather_nd(x, op.transpose(found, [1, 0]), 0), [0], True))
    model = ov.Model([op.exp(after)], [x], "sums")
    model.add_sinks([op.assign(after, "sum")])
    request = ov.Core().compile_model(model, "GPU", EXACT).create_infer_request()
    states, total = request._job.states(), 0.0
    for values in ([0.1, -1, 0.2, -2, 0, 0], [0.1, -1, -0.2, -2, 0, 0.3]):
        array = np.array(values, np.float32)
        total += array[array > 0].sum()
        np.testing.assert_allclose(request.infer([array])[0], np.exp(np.full(6, total)), rtol=1e-5)
        assert states.tensor(0) is None
    np.testing.assert_allclose(request.query_state()[0].state.data, np.full(6, total), rtol=1e-5)


def test_blobs_keep_their_variables(cuda: Counting) -> None:
    blob = ov.Core().compile_model(running_sum(), "GPU", EXACT).export_model()
    loaded = ov.Core().import_model(blob, "GPU")
    assert isinstance(loaded._executable.program, CardProgram)
    request = loaded.create_infer_request()
    for i in (1, 2):
        np.testing.assert_array_equal(
            request.infer([np.ones((4, 64), np.float32)])[0], np.full((4, 64), 2 * i)
        )


def test_generation_has_the_tokens_of_the_cpu(cuda: Counting, tmp_path: Path) -> None:
    """A language model of one layer, whose caches stay on the card: drafts that are wrong are cut off."""
    pytest.importorskip("gguf")
    from ovjit.generation import Decoder, Lookup, Settings, generate
    from tests.readers.gguf_decoders import Sizes, tensors, write

    sizes = Sizes("llama", layers=1, words=120, wide=32, heads=2, shared=1, inner=32)
    write(tmp_path / "model.gguf", sizes, tensors(sizes, "F32", np.random.default_rng(SEED)), None)
    exact = EXACT | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
    prompt, texts = [3, 5, 7, 3, 5, 7, 3, 5], []
    for device in ("CPU", "GPU"):
        decoder = Decoder.load(tmp_path / "model.gguf", device, exact)
        settings = Settings(6, ends=frozenset())
        texts.append(list(generate(decoder, prompt, settings)))
        texts.append(list(generate(decoder, prompt, settings, Lookup())))
    assert texts[0] == texts[1] == texts[2] == texts[3] and cuda.replays
