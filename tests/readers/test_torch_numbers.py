"""PyTorch's special functions, losses by classes, linear algebra and branches, beside PyTorch in f64."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
from tests.support.torch_modules import Of  # noqa: E402 - it needs PyTorch

F = torch.nn.functional
SEED = 20261123
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def wide(value):
    return value.double() if value.is_floating_point() else value


def compare(function, *inputs, tolerance=2e-5, more=()):
    """What ovjit computes in f32, beside PyTorch in f64; also of the lists of inputs in `more`."""
    module = Of(function)
    model = ov.convert_model(module, example_input=tuple(inputs))
    compiled = ov.compile_model(model, "CPU", EXACT)
    for given in (inputs, *more):
        result = compiled([x.numpy() for x in given])
        with torch.no_grad():
            wanted = function(*map(wide, given))
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        assert len(result) == len(wanted)
        for i, want in enumerate(wanted):
            assert result[i].shape == tuple(want.shape), f"seed {SEED}, output {i}"
            np.testing.assert_allclose(result[i], want.numpy(), tolerance, tolerance, err_msg=f"seed {SEED}")
    return model


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(SEED)


#: Numbers on both sides of the places where a formula changes.
REALS = torch.tensor([-7.3, -2.5, -1.2, -0.4, 0.1, 0.5, 1.0, 1.7, 2.0, 3.75, 4.5, 9.0, 31.0])
ENDS = torch.tensor([float("inf"), float("nan"), 0.0, 1.0, 2.0])
SHARES = torch.tensor([-1.0, -0.99999, -0.93, -0.2, 0.0, 0.4, 0.95, 0.9999, 1.0])
SPECIAL = {
    "lgamma": (torch.lgamma, REALS), "lgamma_ends": (torch.lgamma, ENDS), "digamma": (torch.digamma, REALS),
    "erfinv": (torch.erfinv, SHARES), "i0": (torch.special.i0, REALS), "i0e": (torch.special.i0e, REALS),
    "i1": (torch.special.i1, REALS[:-1]), "i1e": (torch.special.i1e, REALS),
    "mvlgamma": (lambda x: torch.mvlgamma(x, 3), REALS[8:]),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions(name) -> None:
    compare(*SPECIAL[name])


CLASSES = torch.tensor([2, 0, -100, 1])
WEIGHTS = torch.tensor([0.5, 2.0, 1.5])
LOSSES = {
    "cross_entropy": lambda x, t: F.cross_entropy(x, t),
    "weighted": lambda x, t: F.cross_entropy(x, t, WEIGHTS.to(x), label_smoothing=0.1),
    "none": lambda x, t: F.cross_entropy(x, t, reduction="none", label_smoothing=0.2),
    "nll": lambda x, t: F.nll_loss(x, t, WEIGHTS.to(x), reduction="sum"),
    "margin": lambda x, t: F.multi_margin_loss(x, t.clamp(min=0), p=2, margin=0.5),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_by_classes(name) -> None:
    compare(LOSSES[name], torch.randn(4, 3), CLASSES)


def test_losses_of_images_and_of_probabilities() -> None:
    compare(F.cross_entropy, torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5)))
    compare(F.cross_entropy, torch.randn(4, 3), torch.rand(4, 3))
    compare(F.nll_loss, torch.randn(3), torch.tensor(1))


def test_a_factor_has_the_type_of_the_sum() -> None:
    """`alpha` times integers and booleans that are added to reals, or to integers."""
    whole = torch.tensor([1, 3, 4, -2])

    def function(x, y):
        return torch.add(x, y, alpha=2.5), torch.sub(x, y, alpha=0.5), torch.add(y, y > 1, alpha=2)

    compare(function, torch.randn(4), whole)
    compare(lambda x, y: torch.rsub(y, x, alpha=1.5), torch.randn(4), whole)


def test_shifts_along_one_axis_add_up() -> None:
    compare(lambda x: (torch.roll(x, (1, 2, -4), (0, 1, -2)), torch.roll(x, -3)), torch.randn(4, 5))
    pairs = torch.randn(4, 5, 2)

    def of_complex(x):
        x = torch.view_as_complex(x)
        return torch.view_as_real(torch.roll(x, (1, -2), (0, 1))), torch.view_as_real(torch.roll(x, 3))

    compare(of_complex, pairs)


def test_numbers_at_the_ends_of_bins() -> None:
    """k / 49 * 49 is below k for some k; bins of numbers that are all the same are around them."""
    x = torch.arange(0, 50, 0.25)
    compare(lambda x: (torch.histc(x, 49, 0, 49), torch.histc(x, 98, 0, 49)), x)
    compare(lambda x: (torch.histc(x, 3), torch.histc(x, 4, 2, 2)), torch.full((5,), 7.0))


def test_running_sums_of_exponentials_far_below_the_largest() -> None:
    x = torch.tensor([[-1000.0, 0, -2000, math.inf, 1], [-math.inf, -math.inf, 3, -800, -1500]])
    compare(lambda x: (torch.logcumsumexp(x, 1), torch.logcumsumexp(x, 0)), x)
    model = compare(lambda x: torch.logcumsumexp(x, 0), torch.randn(3, 2))
    for length in (1, 2, 8, 9, 33):
        x = 300 * torch.randn(length, 2)
        got = ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0]
        np.testing.assert_allclose(got, torch.logcumsumexp(x.double(), 0).numpy(), 1e-6, 1e-5)


def test_running_products_and_extremes_of_any_length() -> None:
    """NaN is the extreme from its place on, and each NaN is its own place."""

    def function(x):
        return (x.cumprod(1), *x.cummax(1), *x.cummin(1), torch.logaddexp(x, -x), torch.logaddexp2(x, x))

    model = compare(function, torch.tensor([[1, 2, math.nan, 4, math.nan], [math.inf, -math.inf, 3, 2, 0]]))
    compiled = ov.compile_model(model, "CPU", EXACT)
    for length in (1, 2, 16, 17, 33):
        x = torch.randn(2, length)
        for i, wanted in enumerate(function(x)):
            np.testing.assert_allclose(compiled([x.numpy()])[i], wanted.numpy(), 1e-5, 1e-6)


def symmetric(count):
    x = torch.randn(count, count)
    return x @ x.T + count * torch.eye(count)


ALGEBRA = {
    "matrix_exp": (torch.linalg.matrix_exp, (torch.randn(2, 4, 4),)),
    "solve_triangular": (
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=False),
        (symmetric(4), torch.randn(4, 2)),
    ),
    "unitriangular": (
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=True, unitriangular=True),
        (symmetric(3) / 9, torch.randn(3, 2)),
    ),
    "cholesky_solve": (lambda b, a: torch.cholesky_solve(b, a), (torch.randn(4, 2), symmetric(4))),
    "cholesky_inverse": (torch.cholesky_inverse, (symmetric(3),)),
    "tensorsolve": (
        lambda x, b: torch.linalg.tensorsolve(x.reshape(2, 3, 6), b),
        (symmetric(6), torch.randn(2, 3)),
    ),
    "lstsq": (lambda a, b: torch.linalg.lstsq(a, b).solution, (torch.randn(2, 5, 3), torch.randn(2, 5, 2))),
    "lstsq of few rows": (
        lambda a, b: torch.linalg.lstsq(a.reshape(2, 3), b).solution,
        (torch.tensor([[2.0, 0.5, 1], [0.3, 1, -2]]), torch.randn(2, 1)),
    ),
    "cov": (
        lambda x, a: torch.cov(x, fweights=torch.tensor([1, 3, 2, 1]), aweights=a),
        (torch.randn(3, 4), torch.rand(4)),
    ),
}


#: Functions of matrices that singular values or eigenvalues define.
SPECTRA = {
    "svdvals": torch.linalg.svdvals,
    "norms": lambda x: tuple(torch.linalg.matrix_norm(x, k) for k in (2, "nuc")),
    "norms by axes": lambda x: torch.linalg.matrix_norm(x, 2, dim=(0, -1), keepdim=True),
    "svd": lambda x: rebuilt(*torch.linalg.svd(x, full_matrices=False)),
    "pinv": lambda x: (torch.linalg.pinv(x), torch.linalg.pinv(x, rtol=0.5), torch.pinverse(x)),
    "pinv by tensors": lambda x: torch.linalg.pinv(x, atol=torch.tensor(1.1)),
    "rank": lambda x: (
        torch.linalg.matrix_rank(x), torch.linalg.matrix_rank(x, tol=1.1), torch.linalg.matrix_rank(x * 0),
    ),
}  # fmt: skip
#: The same of symmetric matrices.
SYMMETRIC = {
    "eigvalsh": lambda x: (torch.linalg.eigvalsh(x), torch.linalg.eigvalsh(x, UPLO="U")),
    "eigh": lambda x: rebuilt(*torch.linalg.eigh(x)[::-1], torch.linalg.eigh(x)[1].mT),
    "pinv": lambda x: torch.linalg.pinv(x - 4, hermitian=True),
    "rank": lambda x: torch.linalg.matrix_rank(x, hermitian=True),
    "cond": lambda x: tuple(torch.linalg.cond(x, p) for p in (None, -2, "fro", 1, "nuc")),
    "sqrth": getattr(torch.linalg, "matrix_sqrth", None),
    "polar": getattr(torch.linalg, "polar", None),
}  # fmt: skip


def rebuilt(left, values, right):
    """The matrix of factors whose signs are free, and what is 1 where they have length 1 and right angles."""
    return (left * values.unsqueeze(-2)) @ right, left.mT @ left, right @ right.mT


@pytest.mark.parametrize("name", SPECTRA)
def test_functions_of_singular_values_at_any_sizes(name) -> None:
    compare(SPECTRA[name], torch.randn(2, 4, 3), tolerance=1e-4, more=[
        [torch.randn(3, 2, 5)], [torch.randn(1, 6, 6)], [torch.randn(2, 1, 4)],
    ])  # fmt: skip


@pytest.mark.parametrize("name", [name for name, function in SYMMETRIC.items() if function])
def test_functions_of_eigenvalues_at_any_sizes(name) -> None:
    compare(SYMMETRIC[name], symmetric(4), tolerance=1e-4, more=[[symmetric(7)], [symmetric(1)]])


def test_complete_bases_of_singular_vectors() -> None:
    """Vectors beyond the rank are not defined but for right angles."""

    def bases(x):
        u, s, v = torch.linalg.svd(x)
        return s, u.mT @ u, v @ v.mT

    compare(bases, torch.randn(5, 3), tolerance=1e-4, more=[[torch.randn(2, 4)], [torch.zeros(3, 3)]])
    model = ov.convert_model(torch.export.export(Of(bases), (torch.randn(3, 5),)))
    x = torch.randn(3, 5)
    result = ov.compile_model(model, "CPU", EXACT)(x.numpy())
    for i, want in enumerate(bases(x)):
        np.testing.assert_allclose(result[i], want.numpy(), 1e-4, 1e-5, err_msg=f"seed {SEED}, output {i}")


def test_matrices_without_elements_have_no_rank() -> None:
    compare(lambda x: (torch.linalg.matrix_rank(x), torch.linalg.pinv(x)), torch.ones(0, 3))


def test_powers_out_of_the_range_of_f16_have_a_norm() -> None:
    x = torch.tensor([[8.5, -7.25, 0.5], [30.0, 1.0, -2.0]], dtype=torch.float16)
    module = Of(lambda x: (torch.linalg.vector_norm(x, 6), torch.linalg.vector_norm(x, 3.5, dim=1)))
    model = ov.convert_model(module, example_input=(x,))
    result = ov.compile_model(model, "CPU", EXACT)(x.numpy())
    for i, want in enumerate(module(x)):
        assert result[i].dtype == np.float16
        np.testing.assert_allclose(result[i], want.numpy(), 2e-3, err_msg=f"output {i}")


def test_singular_matrices_are_told() -> None:
    x = torch.tensor([[[2.0, 1], [4, 2]], [[1, 0], [0, 4]], [[0, 0], [0, 0]]])
    infos = Of(lambda x, b: (torch.linalg.inv_ex(x)[1], torch.linalg.solve_ex(x, b)[1]))
    b = torch.ones(3, 2, 1)
    for model in (
        ov.convert_model(infos, example_input=(x, b)),
        ov.convert_model(torch.export.export(infos, (x, b))),
    ):
        result = ov.compile_model(model, "CPU", EXACT)([x.numpy(), b.numpy()])
        for i, want in enumerate(infos(x, b)):
            assert result[i].dtype == np.int32
            np.testing.assert_array_equal(result[i], want.numpy())
    plain = ov.convert_model(Of(lambda x: torch.linalg.inv_ex(x)[0]), example_input=(x,))
    assert "Loop" not in [node.get_type_name() for node in plain.get_ops()]


@pytest.mark.parametrize("name", ["native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update"])
def test_statistics_that_batch_norm_writes_are_read_in_the_trace(name, monkeypatch) -> None:
    monkeypatch.setattr("ovjit.readers.torch.convert._by_program", None)
    operator = getattr(torch.ops.aten, name)
    training = () if name == "_batch_norm_with_update" else (True,)

    def normalized(x, w, mean, variance):
        results = operator(x, w, w, mean, variance, *training, 0.3, 1e-5)
        return results[0], mean * 1, variance * 1, variance[1:] * 1

    tensors = [torch.randn(4, 3, 2), *(torch.rand(3) + 0.5 for _ in range(3))]
    model = ov.convert_model(Of(normalized), example_input=tuple(t.clone() for t in tensors))
    result = ov.compile_model(model, "CPU", EXACT)([t.numpy().copy() for t in tensors])
    for i, wanted in enumerate(normalized(*(t.clone() for t in tensors))):
        np.testing.assert_allclose(result[i], wanted.numpy(), 1e-5, 1e-5, err_msg=f"output {i}")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_types_of_statistics_are_those_of_weights(kind) -> None:
    x, w = torch.randn(2, 6, 3).to(kind), torch.ones(6, dtype=kind)

    def norms(x, w):
        return (
            *torch.native_group_norm(x, w, w, 2, 6, 3, 2, 1e-5)[1:],
            *torch.native_group_norm(x, w.float(), w.float(), 2, 6, 3, 2, 1e-5)[1:],
            *torch.native_layer_norm(x, [3], None, None, 1e-5)[1:],
            *torch.native_batch_norm(x, w, w, None, None, True, 0.1, 1e-5)[1:],
            torch.cov(x[0], aweights=torch.ones(3)),
        )

    model = ov.convert_model(Of(norms), example_input=(x, w))
    names = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}
    wanted = norms(x, w)
    assert [port.get_element_type().get_type_name() for port in model.outputs] == [
        names[v.dtype] for v in wanted
    ]
    if kind != torch.bfloat16:
        result = ov.compile_model(model, "CPU", EXACT)([x.numpy(), w.numpy()])
        for i, want in enumerate(wanted):
            np.testing.assert_allclose(
                result[i], want.numpy(), 2e-3, 2e-3, err_msg=f"seed {SEED}, output {i}"
            )


@pytest.mark.parametrize("name", ALGEBRA)
def test_linear_algebra(name) -> None:
    function, given = ALGEBRA[name]
    compare(function, *given, tolerance=2e-4)


def test_a_triangle_is_inverted_once_for_all_right_hand_sides() -> None:
    """As delta rules of chunks solve for values and keys; other triangles of the matrix are others."""

    def solved(a, b, c):
        solve = torch.linalg.solve_triangular
        lower = [solve(a, x, upper=False, unitriangular=True) for x in (b, c)]
        return (*lower, solve(a, b, upper=True, unitriangular=True), solve(a, b, upper=False))

    given = symmetric(6), torch.randn(6, 2), torch.randn(6, 3)
    model = ov.convert_model(Of(solved), example_input=given)
    assert [node.get_type_name() for node in model.get_ops()].count("Inverse") == 3
    compare(solved, *given, tolerance=2e-4)


def test_the_median_of_numbers() -> None:
    x = torch.randn(5, 6)
    x[torch.rand(5, 6) < 0.4] = float("nan")
    x[2] = float("nan")
    x[3] = float("inf")
    compare(lambda x: (torch.nanmedian(x, 1)[0], torch.nanmedian(x)), x)


def test_boxes_of_scores_that_are_not_positive() -> None:
    nms = pytest.importorskip("torchvision").ops.nms
    corners = torch.rand(20, 2) * 10
    boxes = torch.cat([corners, corners + 4], 1)
    compare(lambda b, s: nms(b, s, 0.5), boxes, torch.randn(20))
    compare(lambda b, s: nms(b, s, 0.5), boxes, 3 - torch.arange(20.0))


def test_compiled_attention_with_fewer_heads_of_keys() -> None:
    import ovjit.torch  # noqa: F401 - the backend

    def grouped(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    compiled = torch.compile(grouped, backend="ovjit", dynamic=True, options={"config": EXACT})
    for length in (5, 9):
        given = torch.randn(2, 8, length, 16), torch.randn(2, 2, length, 16), torch.randn(2, 2, length, 16)
        with torch.no_grad():
            torch.testing.assert_close(compiled(*given), grouped(*given), atol=1e-5, rtol=1e-5)


def test_combinations() -> None:
    compare(lambda x: (torch.combinations(x, 3), torch.combinations(x, 2, True)), torch.randn(5))


@torch.jit.script_if_tracing
def chosen(x, y):
    if x.numel() == 0:
        return torch.empty((0,), dtype=torch.float32), [y, y]
    else:
        z = x.reshape(-1)
        if z.sum() > 0:
            z = z + y
        return z[z > 0], [y * 2, y + x.size(0)]


@torch.jit.script_if_tracing
def gathered(x):
    made = torch.zeros(0, x.size(1))
    for i in range(x.size(0)):
        made = torch.cat((made, x[i : i + 1] * (i + int(max(x.size(1), 2)))))
    return made


def test_scripts_that_a_trace_compiles_have_the_functions_of_pytorch() -> None:
    """The function is not compiled before the trace, which has other functions in the place of these."""
    model = compare(lambda x: gathered(x) + torch.cat([x, x])[: x.shape[0]], torch.randn(3, 4))
    x = torch.randn(5, 2)
    result = ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0]
    np.testing.assert_allclose(result, (gathered(x) + x).numpy(), 1e-5, 1e-6, err_msg=f"seed {SEED}")


class Choosing(torch.nn.Module):
    def forward(self, x, y):
        found, (first, second) = chosen(x * 1, y)
        return found, first + second


def test_branches_that_depend_on_data() -> None:
    """The other branch than the example's, and one inside of a branch."""
    module = Choosing()
    model = ov.convert_model(module, example_input=(torch.ones(2, 3), torch.ones(())))
    assert [node.get_type_name() for node in model.get_ops()].count("If") == 1
    compiled = ov.compile_model(model, "CPU", EXACT)
    for x in (torch.randn(4, 3) + 2, torch.randn(3, 3) - 2, torch.zeros(0, 3)):
        wanted = module(x, torch.tensor(0.5))
        got = compiled([x.numpy(), np.float32(0.5)])
        for i, want in enumerate(wanted):
            assert got[i].shape == tuple(want.shape)
            np.testing.assert_allclose(got[i], want.numpy(), 1e-5, 1e-6, err_msg=f"seed {SEED}")


def test_checks_are_left_out() -> None:
    @torch.jit.script
    def checked(x):
        if x.sum() > 100:
            raise ValueError("too large")
        return x * 2

    model = ov.convert_model(checked, example_input=torch.ones(3))
    assert "If" not in [node.get_type_name() for node in model.get_ops()]


@torch.jit.script
def repeated(x, y, times):
    """The rows of x, scaled so often as `times` says, and those that are found until a sum is large."""
    out = torch.zeros((0, x.size(1)), dtype=torch.float32)
    for i in range(int(times)):
        out = torch.cat((out, (x[i % x.size(0)] * (i + 1)).unsqueeze(0)), 0)
    total, steps = y * 0, 0
    while bool(total.sum() < 5.0) and steps < 20:
        total = total + y
        steps += 2
        if bool(total.sum() > 4.0):
            total = total * 2
    return out, total + steps


class Repeating(torch.nn.Module):
    def forward(self, x, y, times):
        return repeated(x * 1, y * 1, times)


def test_loops_that_depend_on_data() -> None:
    """Another number of iterations than the example's, none at all, and a branch inside of a loop."""
    module = Repeating()
    model = ov.convert_model(module, example_input=(torch.ones(2, 3), torch.ones(2), torch.tensor(2)))
    assert [node.get_type_name() for node in model.get_ops()].count("Loop") == 2
    compiled = ov.compile_model(model, "CPU", EXACT)
    for times, scale in ((3, 0.3), (0, 1.7), (7, 9.0)):
        given = torch.randn(2, 3), torch.rand(4) * scale, torch.tensor(times)
        got = compiled([v.numpy() for v in given])
        for i, want in enumerate(module(*given)):
            assert got[i].shape == tuple(want.shape), f"seed {SEED}"
            np.testing.assert_allclose(got[i], want.numpy(), 1e-5, 1e-6, err_msg=f"seed {SEED}")


class Writing(torch.nn.Module):
    def forward(self, x, times):
        return written(x * 1, times)


@torch.jit.script
def written(x, times):
    for i in range(int(times)):
        x[i - 1] = x[i] * 2 + x[-1]
    return x


def test_loops_that_write_to_what_is_outside() -> None:
    model = ov.convert_model(Writing(), example_input=(torch.ones(3, 2), torch.tensor(2)))
    assert [node.get_type_name() for node in model.get_ops()].count("Loop") == 1
    compiled = ov.compile_model(model, "CPU", EXACT)
    for times in (0, 1, 4):
        given = torch.randn(5, 2), torch.tensor(times)
        np.testing.assert_allclose(compiled([v.numpy() for v in given])[0], Writing()(*given), 1e-5, 1e-6)


class Recurrent(torch.nn.Module):
    """A loop of Python's over a length: it writes to a tensor, appends to lists, and calls a module."""

    def __init__(self, bounds=lambda n: (n,)):
        super().__init__()
        self.layer, self.bounds = torch.nn.Linear(3, 3), bounds

    def forward(self, x):
        x = self.layer(x)
        whole, state, items, parts = torch.zeros_like(x), x[:, 0] * 0, [], []
        for t in range(*self.bounds(x.shape[1])):
            now = x[:, t]
            state = torch.tanh(self.layer(state) + now)
            whole[:, t] = state + 1
            items.append(state[:, :2])
            parts.append(x[:, t : t + 1] + state[:, None])
        return whole, state, torch.stack(items, dim=-1), torch.cat(parts, 1)


#: What PyTorch or ovjit says where the number of iterations is the example's.
INCORRECT = "might cause the trace to be incorrect|has the iterations of the example|dynamic dimension"


@pytest.mark.parametrize("bounds", [lambda n: (n,), lambda n: (1, n), lambda n: (1, n, 2)])
def test_a_loop_of_python_has_the_length_of_the_example(bounds) -> None:
    """As in OpenVINO, with PyTorch's warning. Batches of any size are right."""
    torch.manual_seed(SEED)
    module = Recurrent(bounds).eval()
    with pytest.warns(torch.jit.TracerWarning, match=INCORRECT):
        model = ov.convert_model(module, example_input=torch.randn(2, 5, 3))
    assert "Loop" not in {node.get_type_name() for node in model.get_ops()}
    compiled = ov.compile_model(model, "CPU", EXACT)
    for batch in (2, 1, 3):
        x = torch.randn(batch, 5, 3)
        got = compiled([x.numpy()])
        with torch.no_grad():
            wanted = module(x)
        for i, want in enumerate(wanted):
            np.testing.assert_allclose(got[i], want.numpy(), 1e-5, 1e-5, err_msg=f"seed {SEED}, {i}")


def backwards(x):
    state, last = x[:, 0] * 0, x[:, 0] * 0
    for t in reversed(range(len(x[0]))):
        state = state * 0.5 + x[:, t]
    for t in range(x.shape[1] - 1, 0, -2):
        last = last * 0.5 + x[:, t]
    return state, last


def rows(x):
    total, items = x[0] * 0, []
    for i, (row, other) in enumerate(zip(x, x.flip(0), strict=False)):
        total = total * 0.5 + row * i + other
    for row in torch.unbind(x, dim=1):
        items.append(row + 1)
    return total, torch.stack(items, 1)


def listed(x):
    y = torch.cat([(x[i] * i)[None] for i in range(x.shape[0])], 0) + 1
    return y, torch.stack([row * row.sum() for row in x.unbind(1)])


def summed(x):
    y = torch.zeros_like(x)
    for i in range(1, x.shape[0]):
        y[i] = y[i - 1] + x[i]
    for i in range(x.shape[0]):
        y[i] *= 2
    return y


def nested(x):
    state = x[0, 0] * 0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            state = state * 0.5 + x[i, j]
    return state


@pytest.mark.parametrize("function", [backwards, rows, listed, summed, nested])
def test_other_loops_of_python_have_the_length_of_the_example(function) -> None:
    torch.manual_seed(SEED)
    with pytest.warns(torch.jit.TracerWarning, match=INCORRECT):
        model = ov.convert_model(Of(function), example_input=torch.randn(3, 5, 2))
    compiled = ov.compile_model(model, "CPU", EXACT)
    for width in (2, 3):
        x = torch.randn(3, 5, width)
        wanted = function(x)
        for i, want in enumerate(wanted if isinstance(wanted, tuple) else [wanted]):
            np.testing.assert_allclose(
                compiled([x.numpy()])[i], want.numpy(), 1e-5, 1e-5, err_msg=f"{width}, {i}"
            )


def leaving(x):
    state = x[0] * 0
    for t in range(x.shape[0]):
        if t > 2:
            break
        state = state * 0.5 + x[t]
    return state


def returning(x):
    state = x[0] * 0
    for t in range(x.shape[0]):
        if t > 2:
            return state * 2
        state = state * 0.5 + x[t]
    return state


def split(x):
    return sum(part.sum(0) for part in x.split(2))


def exported(x):
    state = leaving(x)
    return torch.vmap(lambda v: v * 2)(x), state


@pytest.mark.parametrize(
    ("function", "said"),
    [(returning, "range.x.shape"), (exported, "range.x.shape"), (split, "a dynamic dimension into 2 parts")],
)
def test_loops_that_stay_those_of_the_example_are_told(function, said) -> None:
    with pytest.warns(torch.jit.TracerWarning, match=said):
        ov.convert_model(Of(function), example_input=torch.randn(4, 2))


def halves(x):
    n = x.shape[0] // 2
    return x[:n] + torch.zeros(n, 1), x[n:, None], x.view(2, n, -1)


class Mixed(torch.nn.Module):
    """Its loop is over the rows of a weight, and left early."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 2))

    def forward(self, x):
        for i in range(self.weight.t().shape[1]):
            if i > 1:
                break
            x = x * self.weight[i]
        return x * sum([2.0] * self.weight.shape[-1])


@pytest.mark.parametrize("module", [Of(halves), Mixed()])
def test_parts_by_open_dimensions_and_loops_over_weights_are_not_told(module) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        ov.convert_model(module, example_input=torch.randn(4, 2))
    assert not [w for w in shown if "incorrect" in str(w.message)]


def scaled_by_sizes(x):
    n = int(x.shape[0] / 2)
    return x[:n] * math.sqrt(x.shape[0]) * int(x.shape[0]), x * float(max(x.shape[0], 5))


def test_exported_numbers_of_sizes_hold_for_others() -> None:
    """torch.vmap is not traced, and what is exported has no warnings of PyTorch's where Python asks."""
    module = Of(lambda x: scaled_by_sizes(torch.vmap(lambda v: v * 2)(x)))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        compiled = ov.compile_model(ov.convert_model(module, example_input=torch.randn(4, 2)), "CPU", EXACT)
    assert not [w for w in shown if "incorrect" in str(w.message)]
    for rows in (4, 7):
        x = torch.randn(rows, 2)
        for got, wanted in zip(compiled(x.numpy()).values(), module(x), strict=True):
            np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-6)


def test_a_number_that_an_exported_program_chooses_by_a_size() -> None:
    module, rows = (
        Of(lambda x: x * torch.sym_ite(x.shape[0] > 3, 2, 5)),
        torch.export.Dim("rows", min=2, max=64),
    )
    program = torch.export.export(module, (torch.randn(4, 3),), dynamic_shapes=(({0: rows},),))
    compiled = ov.compile_model(ov.convert_model(program), "CPU", EXACT)
    for count in (2, 3, 4, 9):
        x = torch.randn(count, 3)
        np.testing.assert_array_equal(compiled([x.numpy()])[0], module(x), err_msg=f"{count} rows")


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 2.5, float("inf")])
def test_distances_of_all_pairs_of_rows(p) -> None:
    module, x = Of(lambda x: F.pdist(x, p)), torch.rand(5, 3)
    compiled = ov.compile_model(ov.convert_model(module, example_input=x), "CPU", EXACT)
    for rows in (5, 2, 7, 1):
        x = torch.rand(rows, 3)
        np.testing.assert_allclose(compiled([x.numpy()])[0], module(x), rtol=1e-5, atol=1e-5)


def test_the_most_frequent_truth() -> None:
    def modes(x):
        return *x.mode(0), *x.mode(1, True)

    compare(modes, torch.tensor([[True, False, True], [True, True, False]]))


def test_products_of_booleans_by_kronecker_at_other_sizes() -> None:
    def pairs(x):
        return torch.kron(x, x)

    given = torch.tensor([[True, False, True]])
    model = compare(pairs, given)
    other = torch.tensor([[True, False], [True, True]])
    result = ov.compile_model(model, "CPU", EXACT)([other.numpy()])[0]
    np.testing.assert_array_equal(result, pairs(other).numpy())


HOLES = torch.tensor([
    [1.0, math.nan, 3.0, 2.0], [math.nan, 1.0, math.nan, 0.0], [-math.inf, 3.0, math.inf, math.inf],
    [2.0, 2.0, 1.0, 2.0],
])  # fmt: skip
WITH_HOLES = {
    "cummax": lambda x: (*x.cummax(0), *x.cummax(1)),
    "cummin": lambda x: (*x.cummin(0), *x.cummin(1)),
    "min": lambda x: (*x.min(0), *x.min(1, True)),
    "max": lambda x: (*x.max(0), *x.max(1, True)),
    "argmin": lambda x: (x.argmin(), x.argmin(1), x.argmin(0, True)),
    "median": lambda x: (x.median(), *x.median(0), *x.median(1, True)),
    "mode": lambda x: (*x.mode(0), *x.mode(1, True)),
    "quantile": lambda x: (x.quantile(0.3), x.quantile(0.6, 0), x.nanquantile(0.3, 1)),
    "sign": lambda x: (x.sign(), x.sgn(), torch.hypot(x, x.flip(1))),
    "histc": lambda x: torch.histc(x, 3, 0.0, 3.0),
}


@pytest.mark.parametrize("name", WITH_HOLES)
def test_nan_among_numbers(name) -> None:
    compare(WITH_HOLES[name], HOLES)


@pytest.mark.parametrize("median", [torch.median, torch.nanmedian])
def test_the_median_of_no_numbers(median) -> None:
    model = ov.convert_model(Of(median), example_input=torch.randn(2, 3))
    compiled = ov.compile_model(model, "CPU", EXACT)
    assert np.isnan(compiled([np.zeros((2, 0), np.float32)])[0])


def test_powers_of_integers_are_exact() -> None:
    compare(torch.pow, torch.tensor([3, -3, 7, 10, 2, -2, 1]), torch.tensor([40, 35, 20, 18, 62, 63, 99]))
    compare(torch.pow, torch.tensor([1, -1, -1, 5]), torch.tensor([-1, -2, -3, -2]))


@pytest.mark.parametrize("name", ["sum", "nansum", "prod"])
def test_sums_and_products_as_booleans(name) -> None:
    function = getattr(torch, name)
    compare(lambda x: function(x, 1, dtype=torch.bool), torch.tensor([[0.0, 0.3], [0.0, 0.0], [-2.0, 1.0]]))


DIVIDENDS = torch.tensor([0.9, -0.9, 7.5, -7.5, 1.0, -0.4, 0.0, math.inf, -math.inf, math.nan, 1e20])
DIVISORS = torch.tensor([0.1, -0.1, 2.0, -2.0, 0.0, math.inf, -math.inf, 0.3, 3.0])


def test_quotients_that_are_rounded_down() -> None:
    """As Python's: an infinite one is no number, and 0.9 // 0.1 is 8."""
    compare(torch.floor_divide, DIVIDENDS[:, None], DIVISORS)
    compare(lambda x: (x // 2, 7 // x, torch.div(x, -0.25, rounding_mode="floor")), DIVIDENDS)


def test_a_divisor_is_not_rounded_to_f16() -> None:
    x = torch.tensor([1.0, -1.0, 0.5, 1.5, 7.0]).half()
    model = ov.convert_model(Of(lambda x: x // 0.1), example_input=x)
    result = ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0]
    np.testing.assert_array_equal(result, (x // 0.1).numpy())


def test_interpolation_from_the_nearer_end() -> None:
    x, end = torch.tensor([math.inf, 1.0, 1e8, -math.inf]), torch.tensor([2.0, math.inf, 1.0, -math.inf])

    def function(x, end):
        weight = torch.tensor([[0.2], [0.5], [1.0]]).to(x)
        return torch.lerp(x, end, 0.2), torch.lerp(x, end, 0.5), torch.lerp(x, end, weight)

    compare(function, x, end)


def test_the_mean_of_nothing_that_is_selected() -> None:
    """OpenVINO's ReduceMean gives 0."""

    def means(x):
        rows = x[x[:, 0] > 0]
        return x[x > 0].mean(), rows.mean(0), rows.mean(1), F.mse_loss(rows, rows)

    module = Of(means)
    compiled = ov.compile_model(ov.convert_model(module, example_input=torch.randn(4, 3)), "CPU", EXACT)
    for x in (-torch.ones(4, 3), torch.randn(5, 3), torch.ones(2, 3)):
        for got, want in zip(compiled([x.numpy()]).to_tuple(), means(x), strict=True):
            np.testing.assert_allclose(got, want.numpy(), 1e-5, 1e-6)


def test_the_mean_of_an_empty_example() -> None:
    compare(lambda x: (x.mean(), x.mean(1), x.mean(0)), torch.zeros(2, 0))


def test_gamma_functions_near_zero() -> None:
    x = torch.tensor([-1e-20, -1e-12, 1e-20, -0.4999999, -1.0000001])
    compare(lambda x: (torch.lgamma(x), torch.digamma(x)), x)


def test_deviations_and_shares_of_f16_are_computed_in_f32() -> None:
    x = torch.tensor([60000.0, -60000.0, 0.0, 1.0]).half()

    def function(x):
        return x.std(), torch.round(x, decimals=2), torch.addcmul(x, x, x * 0, value=2)

    result = ov.compile_model(ov.convert_model(Of(function), example_input=x), "CPU", EXACT)([x.numpy()])
    for got, want in zip(result.to_tuple(), function(x), strict=True):
        np.testing.assert_allclose(got.astype(np.float32), want.float().numpy(), 1e-3, 1e-3)


def test_numbers_out_of_the_range_of_eight_bits() -> None:
    """As this PyTorch has them: the largest number, or NaN in older ones."""
    x = torch.tensor([447.0, 460.0, 480.0, -30000.0, math.inf, math.nan, 1e-8])
    model = ov.convert_model(Of(lambda x: x.to(torch.float8_e4m3fn).float()), example_input=x)
    result = ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0]
    np.testing.assert_array_equal(result, x.to(torch.float8_e4m3fn).float().numpy())


@pytest.mark.parametrize("name", ["erfc", "erfcx", "ndtr", "log_ndtr"])
def test_tails_of_the_normal_distribution(name) -> None:
    """Small numbers keep their digits, which 1 - erf(x) loses."""
    function, x = getattr(torch.special, name), torch.linspace(-9, 9, 73)
    x = torch.cat([x, torch.tensor([math.inf, -math.inf, math.nan])])
    if name == "erfcx":
        x = x[x > -8]
    model = ov.convert_model(Of(function), example_input=x)
    result = ov.compile_model(model, "CPU", EXACT)([x.numpy()])[0]
    wanted = torch.special.log_ndtr(x.double()).exp() if name == "ndtr" else function(x.double())
    np.testing.assert_allclose(result, wanted.numpy(), 2e-6, 1e-37)


def test_numbers_of_f64_have_all_their_digits() -> None:
    """Tensors that are made of Python's numbers are not rounded to f32 first."""

    def function(x):
        made = torch.scalar_tensor(1.7, dtype=torch.float64), torch.tensor(1 / 3, dtype=torch.float64)
        return x * made[0], x + made[1], x + torch.tensor(2.0**24 + 1, dtype=torch.int64)

    module, x = Of(function), torch.rand(3, dtype=torch.float64)
    for given in (module, torch.export.export(module, (x,))):
        compiled = ov.compile_model(ov.convert_model(given, example_input=x), "CPU")
        for got, wanted in zip(compiled(x.numpy()).values(), function(x), strict=True):
            np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-15)
