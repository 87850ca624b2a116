"""Kernels that are functions: their machine code beside their meaning in NumPy; what is fused behind them."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit
from ovjit.codegen.row_function import Finish
from ovjit.codegen.template import Template, rows
from ovjit.codegen.words import exp, finish, load, splat, vectors
from ovjit.engine import compile_graph
from ovjit.execution.numpy_words import Memory, Words, program
from ovjit.graph import interp
from ovjit.graph.graph import Builder
from ovjit.graph.shapes import ANY
from ovjit_ops.normalization.cpu_mvn import mvn, rms
from ovjit_ops.normalization.cpu_softmax import log_softmax, softmax
from tests.support.compiled import fuse, program_of, run_passes
from tests.support.graph_nets import SEED, Net
from tests.support.run import run_job

#: The smallest normal number.
NORMAL = float(np.finfo(np.float32).smallest_normal)
LENGTHS = (1, 7, 15, 16, 17, 31, 32, 33, 100)


def answers(graph, arrays):
    job = compile_graph(graph, {}).new_job()
    return run_job(job, arrays)


def whole_softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def run_row(template, arrays, lanes, n, **constants):
    """Run the kernel's text on one row in Python. OutOfBounds for what is read or written outside."""
    names = [*template.tensors, *template.numbers]
    arrays = [*arrays, *(np.array([constants.pop(name)]) for name in template.numbers)]
    kernel = template.kernel(("f64",) * len(template.tensors), Finish(None, ""), **constants)
    one = dict.fromkeys(("rows", "per_chunk", "d0", "d1", "d2"), 1) | {"n": n}
    args = []
    for name, is_pointer in kernel.frame.fields:
        args += [names.index(name), 0] if is_pointer else [one.get(name, 0)]
    bases = np.array([a.ctypes.data for a in arrays], np.int64)
    block = np.array(args, np.int64)
    memory = Memory([(a.ctypes.data, a.nbytes, "an array") for a in (bases, block, *arrays)])
    with np.errstate(all="ignore"):
        made = program(kernel.source, Words(lanes, memory))
    assert made(bases.ctypes.data, block.ctypes.data, 0, 0) == 0


@pytest.mark.parametrize("lanes", [4, 16])
@pytest.mark.parametrize(
    "template, constants, want",
    [
        (softmax, {"keep": True, "normal": 1e-300}, whole_softmax),
        (softmax, {"keep": False, "normal": 1e-300}, whole_softmax),
        (log_softmax, {}, lambda x: x - x.max() - np.log(np.exp(x - x.max()).sum())),
        (
            mvn,
            {"variance": True, "inside": True, "eps": 1e-5},
            lambda x: (x - x.mean()) / np.sqrt(x.var() + 1e-5),
        ),
        (mvn, {"variance": True, "inside": False, "eps": 1e-5}, lambda x: (x - x.mean()) / (x.std() + 1e-5)),
        (mvn, {"variance": False, "inside": True, "eps": 1e-5}, lambda x: x - x.mean()),
        (rms, {"eps": 1e-5}, lambda x: x / np.sqrt((x * x).mean() + 1e-5)),
    ],
)
def test_functions_mean_what_they_say(template, constants, want, lanes):
    """In NumPy, on rows around the width of a vector, touching nothing outside of them."""
    rng = np.random.default_rng(SEED)
    for n in LENGTHS:
        x, y = rng.standard_normal(n) * 3, np.full(n, np.nan)
        run_row(template, [x, y], lanes, n, **constants)
        np.testing.assert_allclose(y, want(x), rtol=1e-12, atol=1e-12, err_msg=f"{n}, seed {SEED}")


def test_models_with_other_epsilons_share_a_kernel():
    rng, kernels = np.random.default_rng(SEED), []
    x = rng.standard_normal((5, 33)).astype(np.float32) * 1e-2
    for eps in (1e-5, 1e-12, 0.5):
        net = Net(x.shape)
        y = net.MVN(*net.inputs, np.array([1]), normalize_variance=True, eps=eps, eps_mode="INSIDE_SQRT")
        graph = net.b.finish([y])
        kernels.append({kernel.symbol() for kernel in program_of(graph).kernels})
        wide = x.astype(np.float64)
        want = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + eps)
        np.testing.assert_allclose(answers(graph, [x])[0], want, rtol=1e-5, atol=1e-5, err_msg=str(SEED))
    assert kernels[0] == kernels[1] == kernels[2]


@pytest.mark.parametrize("finished", [False, True], ids=["alone", "with a body behind it"])
def test_softmax_makes_no_denormal_numbers(finished):
    """They would take CPUs a hundred times as long; what is a normal number is there."""
    ops, rng = ovjit.opset13, np.random.default_rng(SEED)
    x = (rng.standard_normal((40, 77)) * 40).astype(np.float32)
    x[3, 5:] = -np.inf
    x[4] = 1.5
    x[5, 7] = np.nan
    given = ops.parameter(list(x.shape), np.float32)
    made = ops.softmax(given, 1)
    model = ovjit.Model([ops.subtract(made, np.float32(0)) if finished else made], [given])
    got = ovjit.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([x])[0]
    wide = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    want = wide / wide.sum(1, keepdims=True)
    assert np.isnan(got[5]).all()
    got, want = (np.delete(a, 5, 0) for a in (got, want))
    small, normal = want < NORMAL * (1 - 1e-4), want > NORMAL * (1 + 1e-4)
    assert small.any() and ((got == 0) | (got >= NORMAL)).all(), SEED
    assert (got[small] == 0).all(), SEED
    np.testing.assert_allclose(got[normal], want[normal], rtol=2e-5, atol=0, err_msg=str(SEED))


def test_what_is_read_outside_is_an_error():
    @rows("n")
    def off_by_one(x, y, n):
        for i in vectors(n):
            finish(y, i, load(x, i + 1))

    with pytest.raises(TypeError, match="'i \\+ 1' is not part of the kernel language"):
        off_by_one.kernel(("f32", "f32"), Finish(None, ""))


@pytest.mark.parametrize("word", ["while x: pass", "y = unknown(x)", "y[0] = x"])
def test_what_a_kernel_cannot_say_is_an_error(word, tmp_path):
    import importlib.util

    path = tmp_path / "mine.py"
    path.write_text(
        f"from ovjit.codegen.template import rows\n\n\n@rows('n')\ndef mine(x, y, n):\n    {word}\n"
    )
    spec = importlib.util.spec_from_file_location("mine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert isinstance(module.mine, Template)
    with pytest.raises(
        TypeError, match="mine: .* is not (part of the kernel language|an intrinsic of kernels)"
    ):
        module.mine.kernel(("f32", "f32"), Finish(None, ""))


def test_words_are_not_called():
    for word in (load, splat, exp):
        with pytest.raises(TypeError, match="is an intrinsic of kernels"):
            word(1)


def f32(*values):
    return np.array(values if len(values) > 1 else values[0], np.float32)


def check(net, output, kernels):
    graph = net.b.finish([output])
    assert [[n.op.name for n in g.nodes] for g in fuse(run_passes(graph))] == kernels
    rng = np.random.default_rng(SEED)
    arrays = [rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]
    (want,) = interp.evaluate(graph, [a.astype(np.float32) for a in arrays])
    np.testing.assert_allclose(answers(graph, arrays)[0], want, rtol=2e-5, atol=2e-5, err_msg=f"seed {SEED}")


@pytest.mark.parametrize("n", [7, 16, 33, 100])
def test_scale_shift_residual_and_activation_are_in_the_kernel_of_a_norm(n):
    rng = np.random.default_rng(SEED)
    scale, shift = rng.standard_normal((2, n)).astype(np.float32)
    net = Net((2, 5, n), (2, 5, n))
    x, r = net.inputs
    y = net.MVN(x, np.array([-1]), normalize_variance=True, eps=1e-5, eps_mode="INSIDE_SQRT")
    y = net.Relu(net.Add(net.Add(net.Multiply(y, scale), shift), r))
    check(net, y, [["MVN", "Multiply", "Add", "Add", "Relu"]])


@pytest.mark.parametrize("shape", [(3, 17), (2, 3, 4, 33), (1, 1000), (5, 1)])
def test_an_operand_with_one_element_a_row(shape):
    net = Net(shape, (*shape[:-1], 1))
    x, r = net.inputs
    check(net, net.Multiply(net.Softmax(x, axis=-1), r), [["Softmax", "Multiply"]])


def test_rows_that_are_torn_apart():
    """A softmax along channels that lie apart, of a transposed tensor, into a part of a concatenation."""
    net = Net((2, 6, 5, 4))
    (x,) = net.inputs
    turned = net.Transpose(x, np.array([0, 2, 1, 3]))
    y = net.Concat(net.Multiply(net.Softmax(turned, axis=2), f32(2.0)), turned, axis=2)
    check(net, y, [["Transpose"], ["Softmax", "Multiply"], ["Concat"]])


def power(net, x, p):
    return net.Power(x, f32(p))


RMS_FORMS = {
    "x / sqrt": lambda net, x, v: net.Divide(x, net.Sqrt(v)),
    "x * 1 / sqrt": lambda net, x, v: net.Multiply(x, net.Divide(f32(1.0), net.Sqrt(v))),
    "1 / sqrt * x": lambda net, x, v: net.Multiply(net.Divide(f32(1.0), net.Sqrt(v)), x),
    "x * v^-0.5": lambda net, x, v: net.Multiply(x, power(net, v, -0.5)),
    "x / v^0.5": lambda net, x, v: net.Divide(x, power(net, v, 0.5)),
}


@pytest.mark.parametrize("form", RMS_FORMS)
@pytest.mark.parametrize("square", ["power", "product"])
def test_rms_norms_as_exporters_write_them(form, square):
    net = Net((3, 4, 40))
    (x,) = net.inputs
    twice = power(net, x, 2.0) if square == "power" else net.Multiply(x, x)
    v = net.Add(net.ReduceMean(twice, np.array([-1]), keep_dims=True), f32(1e-6))
    gamma = np.linspace(0.5, 2, 40).astype(np.float32)
    check(net, net.Multiply(RMS_FORMS[form](net, x, v), gamma), [["RootMeanSquare", "Multiply"]])


@pytest.mark.parametrize("again", [False, True])
def test_layer_norms_as_exporters_write_them(again):
    net = Net((3, 4, 40))
    (x,) = net.inputs

    def centred():
        return net.Subtract(x, net.ReduceMean(x, np.array([-1]), keep_dims=True))

    first = centred()
    second = centred() if again else first
    spread = net.Add(net.ReduceMean(power(net, second, 2.0), np.array([-1]), keep_dims=True), f32(1e-5))
    check(net, net.Divide(first, net.Sqrt(spread)), [["MVN"]])


def mean(net, x, axis=-1):
    return net.ReduceMean(x, np.array([axis]), keep_dims=True)


#: The variance of x, of which m is the mean, as TensorFlow's and JAX's layers have it.
VARIANCES = {
    "squared difference": lambda net, x, m: mean(net, net.SquaredDifference(x, m)),
    "difference squared": lambda net, x, m: mean(net, net.SquaredDifference(m, x)),
    "mean of squares": lambda net, x, m: net.Subtract(mean(net, net.Multiply(x, x)), net.Multiply(m, m)),
}


@pytest.mark.parametrize("form", VARIANCES)
@pytest.mark.parametrize("scaled_first", [False, True])
def test_layer_norms_as_other_frameworks_write_them(form, scaled_first):
    """(x - m) / s * scale + offset, and x * (scale / s) + (offset - m * (scale / s))"""
    net = Net((3, 4, 40))
    (x,) = net.inputs
    scale, offset = np.random.default_rng(SEED).standard_normal((2, 40)).astype(np.float32)
    m = mean(net, x)
    inverse = power(net, net.Add(VARIANCES[form](net, x, m), f32(1e-3)), -0.5)
    if scaled_first:
        factor = net.Multiply(inverse, scale)
        y = net.Add(net.Multiply(x, factor), net.Subtract(offset, net.Multiply(m, factor)))
    else:
        y = net.Add(net.Multiply(net.Multiply(net.Subtract(x, m), inverse), scale), offset)
    check(net, y, [["MVN", "Multiply", "Add"]])


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("place", ["epsilon", "power", "root"])
def test_one_element_of_a_higher_rank_makes_no_norm_of_a_lower(centred, place):
    """[3, 4, 40] and [1, 1, 1, 1] are [1, 3, 4, 40]."""
    net = Net((3, 4, 40))
    x = net.inputs[0]
    if centred:
        x = net.Subtract(x, net.ReduceMean(x, np.array([-1]), keep_dims=True))

    def one(name, value):
        return np.full([1] * (4 if name == place else 0), value, np.float32)

    mean = net.ReduceMean(net.Power(x, one("power", 2)), np.array([-1]), keep_dims=True)
    v = net.Add(mean, one("epsilon", 1e-5))
    y = net.Divide(x, net.Power(v, one("root", 0.5)))
    graph = net.b.finish([y])
    data = np.random.default_rng(SEED).standard_normal((3, 4, 40)).astype(np.float32)
    (want,) = interp.evaluate(graph, [data])
    (got,) = answers(graph, [data])
    assert got.shape == want.shape == (1, 3, 4, 40)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5, err_msg=f"seed {SEED}")


def test_near_misses_are_left_alone():
    """Another axis, another power, the mean of something else, no epsilon."""

    def groups(build):
        net = Net((3, 4, 40), (3, 4, 40))
        graph = run_passes(net.b.finish([build(net, *net.inputs)]))
        return {n.op.name for n in graph.nodes}

    def root(net, x, axis=-1, eps=1e-6):
        v = net.ReduceMean(x, np.array([axis]), keep_dims=True)
        return net.Sqrt(net.Add(v, f32(eps)))

    for build in (
        lambda net, x, y: net.Divide(x, root(net, net.Multiply(x, x), 1)),
        lambda net, x, y: net.Divide(x, root(net, power(net, x, 3.0))),
        lambda net, x, y: net.Divide(x, root(net, net.Multiply(y, y))),
        lambda net, x, y: net.Divide(x, root(net, net.Multiply(x, y))),
        lambda net, x, y: net.Divide(net.Subtract(x, f32(1.0)), root(net, net.Multiply(x, x))),
        lambda net, x, y: net.Divide(net.Subtract(x, mean(net, x)), root(net, net.SquaredDifference(x, y))),
        lambda net, x, y: net.Divide(
            net.Subtract(x, mean(net, x, 1)), root(net, net.SquaredDifference(x, mean(net, x, 1)))
        ),
        lambda net, x, y: net.Add(
            net.Multiply(x, net.Divide(y, root(net, net.SquaredDifference(x, mean(net, x))))),
            net.Subtract(y, net.Multiply(mean(net, x), y)),
        ),
    ):
        assert not {"RootMeanSquare", "MVN"} & groups(build)


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("open_shape", [False, True])
def test_softmax_of_rows_side_by_side(name: str, open_shape: bool) -> None:
    """Rows whose elements are apart, and short ones whose elements are adjacent, into a part of a tensor,
    too; infinities and NaN stay in their row."""
    rng = np.random.default_rng(SEED)
    for shape, axis, way in (
        ((2, 5, 7, 33), 1, "beside"), ((1, 2, 9, 9), 1, "beside"), ((3, 1, 70), 1, "beside"), ((1, 9), 1, ""),
        ((640, 3), -1, "apart"), ((2, 70, 2), 2, "apart"), ((64, 1), 0, ""), ((2, 3, 4, 5, 16), 2, "beside"),
        ((3, 100, 17), 1, "beside"), ((2, 0, 40), 1, ""), ((0, 3, 40), 1, ""),
    ):  # fmt: skip
        data = (rng.standard_normal(shape) * 30).astype(np.float32)
        if data.size > 100:
            data.flat[[3, 50, 77]] = np.inf, np.nan, -np.inf
            data[(0,) * (data.ndim - 1)] = -np.inf
        b = Builder()
        attrs = {"shape": (ANY,) * data.ndim if open_shape else shape, "element_type": "f32"}
        x = b.add("Parameter", (), attrs).output
        y = b.add(name, [x], {"axis": axis}).output
        both = b.add("Concat", [y, x], {"axis": 0 if axis else 1}).output
        graph = b.finish([y, both])
        job = compile_graph(graph, {"threads": 2}).new_job()
        run_job(job, [data])
        if way:
            assert any(f"softmax_f32_{way}" in row.exec_type for row in job.profile()), (shape, axis)
        with np.errstate(all="ignore"):
            wanted = interp.evaluate(graph, [data])
        where = f"{shape} along {axis}, seed {SEED}"
        for got, want in zip(job.outputs, wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=3e-5, atol=1e-30, err_msg=where)
