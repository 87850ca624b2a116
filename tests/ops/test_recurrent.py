"""Recurrent layers natively, with random attributes, beside the real OpenVINO."""

from __future__ import annotations

import numpy as np
import openvino
import pytest

import ovjit
from ovjit.codegen.cpu.host import host_target
from ovjit.engine import compile_graph
from ovjit.graph.dtypes import from_numpy, numpy_dtype
from ovjit.graph.graph import Builder
from ovjit.graph.op import find_op
from ovjit.graph.shapes import ANY
from tests.support.run import run_job
from tests.support.samples import samples_of
from tests.support.sweeps import some

SEED = 5200
CPU = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def random_layer(rng: np.random.Generator, cell: bool):
    """(builder's name, inputs after X, keywords, X)"""
    kind = str(rng.choice(list(GATES)))
    batch, steps = int(rng.choice([1, 2, 5, 7, 13, 30])), int(rng.integers(1, 9))
    size, hidden = (int(rng.choice([1, 3, 8, 16, 17, 33, 40])) for _ in range(2))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    turns = () if cell else (2 if direction == "bidirectional" else 1,)
    keywords = {"hidden_size": hidden}
    if not cell:
        keywords["direction"] = direction
    count = {"lstm": 3, "gru": 2, "rnn": 1}[kind]
    names = rng.choice(["sigmoid", "tanh", "relu"], count).tolist()
    keywords["activations"] = names
    keywords |= {"activations_alpha": [], "activations_beta": []}
    if rng.random() < 0.4:
        keywords["clip"] = float(rng.uniform(0.2, 1))
    rows = GATES[kind] * hidden
    bias = rows
    if kind == "gru":
        keywords["linear_before_reset"] = bool(rng.random() < 0.5)
        bias += hidden * keywords["linear_before_reset"]

    def data(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, shape).astype(np.float32)

    state = (batch, *turns, hidden)
    rest = [data(*state)] + ([data(*state)] if kind == "lstm" else [])
    if not cell:
        ragged = rng.random() < 0.6
        rest.append(rng.integers(0 if ragged else steps, steps + 1, batch).astype(np.int64))
    rest += [data(*turns, rows, size), data(*turns, rows, hidden), data(*turns, bias)]
    x = data(batch, size) if cell else data(batch, steps, size)
    return f"{kind}_{'cell' if cell else 'sequence'}", rest, keywords, x


def layer(lib, name, rest, keywords, x, dynamic=False, hint="f32"):
    ops = lib.opset5
    shape = (
        lib.PartialShape([-1] * (x.ndim - 1) + [x.shape[-1]]) if dynamic else lib.PartialShape(list(x.shape))
    )
    parameter = ops.parameter(shape, lib.Type(x.dtype))
    inputs, given, parameters = [], [x], [parameter]
    for value in rest:
        if value.dtype == np.int64:  # lengths as an input, everything else is constant
            parameters.append(ops.parameter(lib.PartialShape(list(value.shape)), lib.Type(value.dtype)))
            inputs.append(parameters[-1])
            given.append(value)
        else:
            inputs.append(ops.constant(value))
    node = getattr(ops, name)(parameter, *inputs, **keywords)
    compiled = lib.Core().compile_model(
        lib.Model(list(node.outputs()), parameters), "CPU", CPU | {"INFERENCE_PRECISION_HINT": hint}
    )
    results = compiled(given)
    return [np.array(results[i]) for i in range(len(node.outputs()))]


@pytest.mark.parametrize("case", some(range(24), 8))
def test_random_sequence(case):
    name, rest, keywords, x = random_layer(np.random.default_rng((SEED, case)), cell=False)
    where = f"seed {(SEED, case)}: {name} {x.shape} {keywords}"
    got = layer(ovjit, name, rest, keywords, x, dynamic=case % 2 == 1)
    want = layer(openvino, name, rest, keywords, x)
    for mine, theirs in zip(got, want, strict=True):
        assert mine.shape == theirs.shape, where
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=2e-4, err_msg=where)


@pytest.mark.parametrize("case", some(range(12), 4))
def test_random_cell(case):
    name, rest, keywords, x = random_layer(np.random.default_rng((SEED, 100 + case)), cell=True)
    where = f"seed {(SEED, 100 + case)}: {name} {x.shape} {keywords}"
    got = layer(ovjit, name, rest, keywords, x, dynamic=case % 2 == 1)
    want = layer(openvino, name, rest, keywords, x)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=2e-4, err_msg=where)


@pytest.mark.parametrize("case", some(range(10), 4))
def test_weights_that_are_inputs(case, monkeypatch):
    """Natively, and as the reference has it, with other weights the second time."""
    monkeypatch.setenv("OVJIT_CHECK", "1")
    name, rest, keywords, x = random_layer(np.random.default_rng((SEED, 200 + case)), cell=case % 3 == 0)
    b, arrays, opened = Builder(), [x, *rest], case % 2 == 1
    values = [
        b.add(
            "Parameter", (),
            {"shape": (ANY,) * a.ndim if opened else a.shape, "element_type": from_numpy(a.dtype)},
        ).output
        for a in arrays
    ]  # fmt: skip
    kind, form = name.split("_")
    record = find_op(kind.upper() + form.title())
    attrs = record.check_attributes(keywords)
    executable = compile_graph(b.finish(b.add(record, values, attrs).outputs), {})
    job = executable.new_job()
    for _ in range(2):
        run_job(job, arrays)
        for mine, theirs in zip(job.outputs, record.evaluate(arrays, attrs), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=2e-4, err_msg=f"case {case}: {name}")
        arrays = [a if a.dtype == np.int64 else a * np.float32(0.7) for a in arrays]
    assert not any(step.host for step in executable.program.plan([a.shape for a in arrays]).steps)


@pytest.mark.skipif(
    "bf16" not in find_op("RecurrentSteps").native_types(host_target()), reason="no AVX512-BF16"
)
@pytest.mark.parametrize("case", some(range(16), 6))
def test_states_are_multiplied_in_bf16(case):
    """Random layers, also of open shapes, beside OpenVINO in f32: what is lost is the rounding to bf16."""
    name, rest, keywords, x = random_layer(np.random.default_rng((SEED, 300 + case)), cell=case % 4 == 0)
    where = f"seed {(SEED, 300 + case)}: {name} {x.shape} {keywords}"
    low = layer(ovjit, name, rest, keywords, x, dynamic=case % 2 == 1, hint="bf16")
    want = layer(openvino, name, rest, keywords, x)
    for mine, exact in zip(low, want, strict=True):
        spread = max(1.0, float(np.abs(exact).max(initial=0)))
        assert np.abs(mine - exact).max(initial=0) < 0.06 * spread, where


@pytest.mark.parametrize("name", ["RNNSequence", "GRUSequence", "LSTMSequence"])
def test_errors_in_bf16_are_no_larger_than_openvinos(name):
    """Of the operation's samples, beside exact arithmetic: the geometric mean of the largest errors."""
    record, errors = find_op(name), []
    if "bf16" not in find_op("RecurrentSteps").native_types(host_target()):
        pytest.skip("no AVX512-BF16: OpenVINO computes in f32 there, or emulates")
    taken = "hidden_size direction activations activations_alpha activations_beta clip linear_before_reset"
    for (x, *rest), attrs in samples_of(record, np.random.default_rng(SEED)):
        attrs = record.check_attributes(attrs)
        arrays = [x.astype(numpy_dtype("bf16")).astype(np.float32), *rest]
        wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
        exact = record.evaluate(wide, attrs)
        keywords = {k: list(v) if isinstance(v, tuple) else v for k, v in attrs.items() if k in taken.split()}
        made = name.replace("Sequence", "_sequence").lower()
        for package in (ovjit, openvino):
            got = layer(package, made, rest, keywords, arrays[0], hint="bf16")
            far = [np.abs(g - e).max(initial=0) for g, e in zip(got, exact, strict=True)]
            errors.append(max(float(max(far)), 1e-6))
    ours, theirs = (np.exp(np.mean(np.log(errors[i::2]))) for i in (0, 1))
    assert ours <= theirs, f"{ours} {theirs}, seed {SEED}"


def test_products_of_states_in_bf16_are_those_of_the_reference():
    """Few sums are so near to the middle of two bf16 that the order of additions decides."""
    record = find_op("RecurrentSteps")
    if "bf16" not in record.native_types(host_target()):
        pytest.skip("no AVX512-BF16")
    for number, (arrays, attrs) in enumerate(samples_of(record, np.random.default_rng(SEED))):
        at = attrs["roles"].index("r")
        attrs, arrays = record.check_attributes(attrs), [np.asarray(a) for a in arrays]
        arrays[at] = arrays[at].astype(numpy_dtype("bf16"))
        b = Builder()
        values = [
            b.constant(a, "bf16") if i == at else b.add(
                "Parameter", (), {"shape": a.shape, "element_type": from_numpy(a.dtype)}
            ).output
            for i, a in enumerate(arrays)
        ]  # fmt: skip
        executable = compile_graph(b.finish(b.add(record, values, attrs).outputs), {})
        job = executable.new_job()
        given = [a for i, a in enumerate(arrays) if i != at]
        run_job(job, given)
        assert not any(step.host for step in executable.program.plan([a.shape for a in given]).steps)
        for mine, want in zip(job.outputs, record.evaluate(arrays, attrs), strict=True):
            far = np.abs(mine - want)
            where = f"sample {number}, seed {SEED}: {attrs}"
            assert np.median(far) < 1e-6 and far.max(initial=0) < 0.02, where


@pytest.mark.parametrize("bad", [-1, 9, 2**40])
def test_lengths_out_of_range_are_refused(bad):
    rng = np.random.default_rng(SEED)
    data = [rng.uniform(-1, 1, s).astype(np.float32) for s in ((2, 1, 4), (1, 4, 3), (1, 4, 4), (1, 4))]
    lengths = np.array([3, bad], np.int64)
    rest = [data[0], lengths, *data[1:]]
    keywords = {"hidden_size": 4, "direction": "reverse"}
    x = rng.uniform(-1, 1, (2, 8, 3)).astype(np.float32)
    with pytest.raises(RuntimeError, match="RNNSequence"):
        layer(ovjit, "rnn_sequence", rest, keywords, x)


@pytest.mark.parametrize("name", ["lstm_sequence", "gru_sequence", "rnn_sequence"])
def test_forwards_a_length_beyond_the_steps_means_all_of_them(name):
    """Its last states are 0, and a length below 0 is none at all, as in OpenVINO."""
    rng = np.random.default_rng(SEED)
    kind = name.split("_")[0]
    rows = GATES[kind] * 4
    states = [rng.uniform(-1, 1, (4, 1, 4)).astype(np.float32) for _ in range(2 if kind == "lstm" else 1)]
    weights = [rng.uniform(-1, 1, s).astype(np.float32) for s in ((1, rows, 3), (1, rows, 4), (1, rows))]
    keywords = {"hidden_size": 4, "direction": "forward"}
    x = rng.uniform(-1, 1, (4, 2, 3)).astype(np.float32)
    rest = [*states, np.array([1, 3, -1, 100]), *weights]
    got = layer(ovjit, name, rest, keywords, x)
    for mine, theirs in zip(got, layer(openvino, name, rest, keywords, x), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=2e-4, err_msg=f"seed {SEED}: {name}")
    op = find_op(f"{kind.upper()}Sequence")
    for mine, want in zip(got, op.evaluate([x, *rest], op.check_attributes(keywords)), strict=True):
        np.testing.assert_allclose(mine, want, rtol=1e-4, atol=1e-5, err_msg=f"seed {SEED}: {name}")


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_sequence_is_native(dtype):
    rng = np.random.default_rng(SEED)
    ops = ovjit.opset5
    kind = numpy_dtype(dtype)
    x = ops.parameter([2, 5, 3], ovjit.Type(kind))
    w, r, b = (rng.uniform(-1, 1, s).astype(kind) for s in ((2, 16, 3), (2, 16, 4), (2, 16)))
    state = np.zeros((2, 2, 4), kind)
    node = ops.lstm_sequence(x, state, state, np.array([5, 2]), w, r, b, 4, "bidirectional")
    model = ovjit.Model(list(node.outputs()), [x])
    request = ovjit.Core().compile_model(model, "CPU", {"PERF_COUNT": True}).create_infer_request()
    request.infer([ovjit.Tensor(rng.uniform(-1, 1, (2, 5, 3)).astype(kind))])
    assert not [row for row in request.get_profiling_info() if row.exec_type == "ref_numpy"]
