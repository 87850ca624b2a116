"""torch.compile(backend="openvino"): beside eager mode."""

from __future__ import annotations

import copy
import importlib
import os
import pathlib
import threading
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import ovjit.torch  # noqa: E402  (torch may be missing)

from bench.torch_compile import difference  # noqa: E402
from ovjit.compat.frontend.pytorch.torchdynamo import backend, frozen, graphs, partition, runner  # noqa: E402

SEED = 20261122
CONFIG = {"config": {"INFERENCE_PRECISION_HINT": "f32"}}


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"torch.compile\(backend='openvino'\)")
        yield


def close(got, wanted, tolerance=1e-5):
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    np.testing.assert_allclose(
        got.detach().float().numpy(), wanted.detach().float().numpy(), rtol=tolerance, atol=tolerance,
        err_msg=f"seed {SEED}",
    )  # fmt: skip


def network():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(32, 6), torch.nn.LayerNorm(6), torch.nn.GELU(),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("backend", ["openvino", "ovjit"])
def test_a_network_is_as_in_eager_mode(backend) -> None:
    module = network()
    compiled = torch.compile(module, backend=backend, options=CONFIG)
    for _ in range(2):
        x = torch.randn(2, 3, 9, 9)
        close(compiled(x), module(x), 1e-4)


def test_weights_of_products_are_not_copied_when_they_are_read() -> None:
    """The model has them in the memory of the module's tensors."""
    parts = []
    module = torch.nn.Sequential(torch.nn.Linear(6, 7), torch.nn.ReLU(), torch.nn.Linear(7, 5, bias=False))

    def note(*given):
        parts.append(graphs.part_of(*given))
        return parts[-1]

    x = torch.randn(3, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "part_of", note)
        with torch.no_grad():
            close(torch.compile(module, backend="openvino", options=CONFIG)(x), module(x))
    addresses = {
        node.data.ctypes.data for node in parts[0].model.get_ops() if node.get_type_name() == "Constant"
    }
    assert {module[0].weight.data_ptr(), module[2].weight.data_ptr()} <= addresses


def test_weights_that_change_are_seen() -> None:
    module = torch.nn.Linear(4, 3)
    compiled = torch.compile(module, backend="openvino", options=CONFIG)
    x = torch.randn(2, 4)
    with torch.no_grad():
        close(compiled(x), module(x))
        module.weight.mul_(2)
        close(compiled(x), module(x))
        module.weight.data.mul_(0.5)  # PyTorch does not count this one
        close(compiled(x), module(x))
        module.load_state_dict({name: value + 1 for name, value in module.state_dict().items()})
        close(compiled(x), module(x))


def test_weights_of_inference_mode_that_change_are_seen() -> None:
    """PyTorch does not count these writes, and they are neither at the ends nor in the middle."""
    with torch.inference_mode():
        module = torch.nn.Linear(64, 64)
        compiled = torch.compile(module, backend="openvino", options=CONFIG)
        x = torch.ones(1, 64)
        close(compiled(x), module(x))
        module.weight[20, 5] = 50
        close(compiled(x), module(x))


def test_arrays_share_the_memory_of_compiled_weights() -> None:
    module = torch.nn.Linear(4, 3)
    array = module.weight.detach().numpy()
    compiled = torch.compile(module, backend="openvino", options=CONFIG)
    x = torch.randn(2, 4)
    with torch.no_grad():
        close(compiled(x), module(x))
        module.weight.mul_(2)
        close(compiled(x), module(x))
        array[:] = 1.0
        assert bool((module.weight == 1).all())
        close(compiled(x), module(x))


def test_weights_that_change_often_become_inputs() -> None:
    """The graph is then compiled no more. Later, when they stay as they are, they are constants again."""
    made = []

    def make(weights):
        made.append(sorted(weights))
        return lambda arguments: [arguments[0] * arguments[1]]

    call = frozen.Frozen([1], make)
    x, weight = torch.randn(3), torch.randn(3)
    for _ in range(20):
        weight.add_(1)
        close(call([x, weight])[0], x * weight)
    assert made == [[1]] * frozen.FEW_CHANGES + [[]]
    for _ in range(frozen.CALLS_UNTIL_RETRY + 1):
        close(call([x, weight])[0], x * weight)
    assert made == [[1]] * frozen.FEW_CHANGES + [[], [1]]


def test_a_tensor_that_a_module_replaces_becomes_an_input(monkeypatch) -> None:
    """Two sizes and a cache that is an input of the second: no more graphs are compiled."""
    made = []
    compile_part = backend._by_parts

    def counted(*given):
        made.append(given)
        return compile_part(*given)

    class Cached(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)
            self.kept = torch.zeros(1, 4)

        def forward(self, x):
            self.kept = torch.cat([self.kept, self.linear(x)])
            return self.kept.softmax(0)

    monkeypatch.setattr(backend, "_by_parts", counted)
    module = Cached()
    eager = copy.deepcopy(module)
    compiled = torch.compile(module, backend="openvino", options=CONFIG)
    with torch.no_grad():
        for _ in range(8):
            x = torch.randn(1, 4)
            close(compiled(x), eager(x))
    assert len(made) <= 3


def test_a_module_is_evaluated_between_steps_of_training() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 2))
    compiled = torch.compile(module, backend="openvino", options=CONFIG)
    step = torch.optim.SGD(module.parameters(), 0.1)
    x = torch.randn(6, 5)
    for _ in range(frozen.FEW_CHANGES + 3):
        module.train()
        module(x).square().mean().backward()
        step.step()
        module.eval()
        with torch.no_grad():
            close(compiled(x), module(x), 1e-4)


def test_several_threads_and_weights_that_change() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16))
    compiled = torch.compile(module, backend="openvino", options=CONFIG)
    wrong: list[float] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _ in range(30):
                x = torch.randn(2, 16, generator=generator)
                wrong.append(float((compiled(x) - module(x)).abs().max()))

    with torch.no_grad():
        for _ in range(3):
            module[0].weight.mul_(1.5)
            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert len(wrong) == 3 * 4 * 30 and max(wrong) < 1e-5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_goes_on() -> None:
    module = torch.nn.Linear(8, 8)

    def function(x):
        return module(x).tanh(), x.nonzero(), (x * 2)[:, 1:]

    compiled = torch.compile(function, backend="openvino", options=CONFIG, dynamic=True)
    x = torch.randn(3, 8)
    with torch.no_grad():
        compiled(x)
        child = os.fork()
        if not child:
            right = all(
                torch.allclose(a, b, 1e-5, 1e-5) for a, b in zip(compiled(x), function(x), strict=True)
            )
            os._exit(0 if right else 1)
        assert os.waitpid(child, 0)[1] == 0
        for a, b in zip(compiled(x), function(x), strict=True):
            close(a, b)


def test_results_are_kept_by_later_calls() -> None:
    module = torch.nn.Linear(4, 3)
    compiled = torch.compile(module, backend="openvino", options=CONFIG)
    a, b = torch.randn(2, 4), torch.randn(2, 4)
    first = compiled(a)
    compiled(b)
    close(first, module(a).detach())


def test_open_shapes_are_compiled_once() -> None:
    module = network()
    compiled = torch.compile(module, backend="openvino", options=CONFIG, dynamic=True)
    torch._dynamo.utils.counters.clear()
    for batch, size in ((2, 9), (3, 12), (5, 7)):
        x = torch.randn(batch, 3, size, size + 1)
        close(compiled(x), module(x), 1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


class Counting(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(3))

    def forward(self, x):
        self.calls.add_(1)
        x = self.layer(x)
        x[0].mul_(2)
        return x + self.calls


def test_buffers_and_views_that_are_written() -> None:
    module = Counting()
    compiled = torch.compile(copy.deepcopy(module), backend="openvino", options=CONFIG)
    for _ in range(3):
        x = torch.randn(2, 3)
        close(compiled(x), module(x))
    close(compiled.calls, module.calls)


def test_an_operator_that_is_not_compiled_runs_in_eager_mode_and_is_told_once() -> None:
    def function(x):
        return torch.special.airy_ai(x).sin() + x.relu().sum()

    compiled = torch.compile(function, backend="openvino", options=CONFIG)
    x = torch.randn(4, 4)
    with pytest.warns(UserWarning, match="aten::special_airy_ai is not compiled: no conversion rule exists"):
        close(compiled(x), function(x), 1e-4)
    close(compiled(x), function(x), 1e-4)


def test_an_operator_with_an_open_number_is_left_alone() -> None:
    """The size of regions is an attribute of ROIAlign. What is around it is compiled."""
    align = pytest.importorskip("torchvision").ops.roi_align

    def function(x, boxes, size):
        return align(x.sin(), boxes, (size, size + 1)).cos()

    compiled = torch.compile(function, backend="openvino", options=CONFIG, dynamic=True)
    x, boxes = torch.rand(1, 2, 9, 9), torch.tensor([[0, 1.0, 1.0, 6.0, 7.0]])
    partition._WARNINGS.clear()
    with pytest.warns(
        UserWarning, match="torchvision::roi_align is not compiled.* by numbers that are not known"
    ):
        close(compiled(x, boxes, 3), function(x, boxes, 3))
    close(compiled(x, boxes, 4), function(x, boxes, 4))


def test_disabled_operators_run_in_eager_mode() -> None:
    options = {**CONFIG, "disabled_ops": ["torch.ops.aten.sin.default"]}
    compiled = torch.compile(lambda x: x.cos().sin() + 1, backend="openvino", options=options)
    x = torch.randn(3)
    with pytest.warns(UserWarning, match="aten::sin is not compiled: it is one of disabled_ops"):
        close(compiled(x), x.cos().sin() + 1)


@pytest.mark.parametrize("given", [
    "[aten::sin, aten.cos]", "aten::sin,aten::cos", "['torch.ops.aten.sin.default', \"cos\"]",
    [torch.ops.aten.sin, torch.ops.aten.cos.default],
])  # fmt: skip
def test_disabled_operators_are_a_list_or_a_text(given) -> None:
    options = {**CONFIG, "disabled_ops": given}
    compiled = torch.compile(lambda x: x.cos().exp().sin() + 1, backend="openvino", options=options)
    x = torch.randn(3)
    with pytest.warns(UserWarning) as told:
        partition._WARNINGS.clear()
        close(compiled(x), x.cos().exp().sin() + 1)
    found = {str(w.message).split()[1] for w in told if "disabled_ops" in str(w.message)}
    assert found == {"aten::sin", "aten::cos"}


def test_one_overload_of_an_operator_is_disabled() -> None:
    options = {**CONFIG, "disabled_ops": "aten.bitwise_and.Scalar"}
    x = torch.arange(6)
    compiled = torch.compile(lambda x: (x & 3) & x.flip(0), backend="openvino", options=options)
    partition._WARNINGS.clear()
    with pytest.warns(UserWarning, match="aten::bitwise_and is not compiled") as told:
        assert compiled(x).equal((x & 3) & x.flip(0))
    assert len(told) == 1


def test_gradients_with_aot_autograd() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.LayerNorm(8))
    other = copy.deepcopy(module)
    compiled = torch.compile(other, backend="openvino", options={"aot_autograd": True})
    x = torch.randn(5, 4)
    for _ in range(2):
        for network in (module, compiled):
            network(x).square().sum().backward()
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        close(b.grad, a.grad, 1e-4)


def test_sums_of_open_dimensions() -> None:
    def function(*parts):
        rows = torch.sym_sum([part.shape[0] for part in parts])
        return torch.cat(parts).view(rows, 2, -1).sum(1)

    compiled = torch.compile(function, backend="openvino", dynamic=True, options=CONFIG)
    for sizes in ((2, 3, 4), (5, 2, 7)):
        parts = [torch.randn(size, 6) for size in sizes]
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            close(compiled(*parts), function(*parts), 1e-5)


def test_inference_mode_and_autocast() -> None:
    module = network()
    x = torch.randn(2, 3, 9, 9)
    wanted = module(x)
    with torch.inference_mode():
        close(torch.compile(module, backend="openvino", options=CONFIG)(x), wanted, 1e-4)
    layer = torch.nn.Linear(8, 8)
    y = torch.randn(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        close(torch.compile(layer, backend="openvino")(y), layer(y), 2e-2)


@pytest.mark.parametrize(("options", "says"), [
    ({"devices": "CPU"}, "the backend 'openvino' has no option 'devices'"),
    ({"disabled_ops": "[aten::sine]"}, "disabled_ops contains 'aten::sine', which is not a PyTorch operator"),
    ({"disabled_ops": ["aten.sin.Tensor"]}, "'aten.sin.Tensor', which is not a PyTorch operator"),
    ({"config": {"NO_SUCH": 1}}, "Unsupported property NO_SUCH by CPU plugin"),
    ({"config": {"NUM_STREAMS": "x"}}, "Wrong value x for property key NUM_STREAMS"),
    ({"cache_dir": 3, "model_caching": True}, "Wrong value 3 for property key CACHE_DIR"),
    ({"aot_autograd": "nope"}, "the option aot_autograd is True or False, not 'nope'"),
    ({"model_caching": []}, r"the option model_caching is True or False, not \[\]"),
    ({"config": "x"}, "the option config is a dict of properties, not 'x'"),
    ({"disabled_ops": 5}, "the option disabled_ops is a list of operators, not 5"),
    ({"decompositions": 5}, "the option decompositions is a list of operators, not 5"),
    ({"decompositions": ["aten::sine"]}, "decompositions contains 'aten::sine', which is not a PyTorch"),
    ({"decompositions": [torch.ops.aten.mm]}, "'aten.mm', which PyTorch cannot decompose"),
])  # fmt: skip
def test_wrong_options_are_told(options, says) -> None:
    with pytest.raises(Exception, match=says):
        torch.compile(torch.nn.Linear(2, 2), backend="openvino", options=options)(torch.ones(1, 2))


@pytest.mark.parametrize("device", ["NPU7", "GPU.9", "AUTO:GPU.9", "no device"])
@pytest.mark.parametrize("training", [False, True])
def test_a_missing_device_runs_in_eager_mode_with_a_warning(device, training) -> None:
    layer, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    options = {"device": device, "aot_autograd": training}
    partition._WARNINGS.clear()
    compiled = torch.compile(layer, backend="openvino", options=options)
    with pytest.warns(UserWarning, match="the device is missing: .*; it runs in eager mode"):
        result = compiled(x)
    close(result, layer(x), 1e-6)
    assert result.requires_grad == training


@pytest.mark.parametrize("given", ["aten::silu", [torch.ops.aten.silu.default], ["silu"]])
def test_operators_are_decomposed_on_demand(given) -> None:
    options = {**CONFIG, "decompositions": given, "disabled_ops": "aten::silu", "aot_autograd": "False"}
    compiled = torch.compile(torch.nn.functional.silu, backend="openvino", options=options)
    x = torch.randn(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # aten::silu is not left in the graph
        close(compiled(x), torch.nn.functional.silu(x))


def test_compiled_models_are_cached(tmp_path) -> None:
    options = {**CONFIG, "model_caching": True, "cache_dir": str(tmp_path)}
    compiled = torch.compile(torch.nn.Linear(2, 2), backend="openvino", options=options)
    compiled(torch.ones(1, 2))
    assert any(tmp_path.iterdir())


def test_the_entry_points_name_the_backends() -> None:
    text = (pathlib.Path(ovjit.torch.__file__).parents[3] / "pyproject.toml").read_text()
    for name in ("openvino", "ovjit"):
        assert f'{name} = "{ovjit.torch.backend.__name__}:{name}"' in text
        assert callable(getattr(ovjit.torch.backend, name))


def test_batch_norms_in_training_mode() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.BatchNorm1d(3), torch.nn.Tanh())
    other = copy.deepcopy(module)
    compiled = torch.compile(other, backend="openvino", options={"aot_autograd": True, **CONFIG})
    for _ in range(2):
        x = torch.randn(3, 3, 7)
        got, wanted = compiled(x), module(x)
        close(got, wanted, 1e-4)
        got.square().sum().backward()
        wanted.square().sum().backward()
    for a, b in zip(other.parameters(), module.parameters(), strict=True):
        close(a.grad, b.grad, 1e-3)
    for a, b in zip(other.buffers(), module.buffers(), strict=True):
        close(a, b, 1e-4)


@pytest.mark.parametrize("first", [False, True])
def test_layers_that_pytorch_fuses(first) -> None:
    """Without gradients PyTorch runs an encoder's layer and attention as one operator each."""
    layer = torch.nn.TransformerEncoderLayer(
        8, 2, 16, batch_first=True, norm_first=first, activation="gelu" if first else "relu"
    )
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)

    def function(x, mask):
        return layer(x, src_key_padding_mask=mask), *attention(x, x, x, key_padding_mask=mask)

    layer.eval(), attention.eval()
    compiled = torch.compile(function, backend="openvino", options=CONFIG)
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        x = torch.randn(2, 5, 8)
        for got, wanted in zip(compiled(x, mask), function(x, mask), strict=True):
            close(got[:1], wanted[:1], 1e-4)
            close(got[1:, :3], wanted[1:, :3], 1e-4)  # behind, PyTorch pads with zeros


def test_constants_and_branches_of_a_graph() -> None:
    """Tensors that a function makes, torch.cond, and an operator whose outputs PyTorch checks."""

    def function(x, y):
        x = x * torch.tensor([0.5, 2.0, 3.0]) + torch.full((3, 3), -1.0).triu(1)
        return torch.cond(y.sum() > 0, lambda a: a.sin(), lambda a: a * 2, (x,)), torch.full((2,), 3)

    def solved(x, y):
        return torch.linalg.solve(x + 4 * torch.eye(3), y).relu()

    for made in (function, solved):
        compiled = torch.compile(made, backend="openvino", options=CONFIG)
        for sign in (1, -1):
            x, y = torch.randn(3, 3), sign * torch.rand(3, 3)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*with_effects.*")
                got, wanted = compiled(x, y), made(x, y)
            for a, b in zip(got, wanted, strict=True):
                close(a, b, 1e-4)


@pytest.mark.parametrize("dynamic", [False, True])
def test_outputs_that_are_views(dynamic) -> None:
    """Of an input, and of a tensor that is an output, too."""

    def function(x):
        first = round((x.shape[1] - 4) / 2)
        y = x * 2
        return x[:, first : first + 4], y[1:].t(), y.t()[2], y, x.split(2, 1)[1], x.view(-1)[::3], x + y

    compiled = torch.compile(function, backend="openvino", dynamic=dynamic, options=CONFIG)
    for length in (8, 9, 11):
        x = torch.randn(3, length)
        for got, wanted in zip(compiled(x), function(x), strict=True):
            close(got, wanted)
            assert got.stride() == wanted.stride()
    compiled(x)[0].zero_()
    assert not x[:, 4:8].any()  # it is the input's memory


@pytest.mark.parametrize("dynamic", [False, True])
def test_outputs_that_are_views_with_gaps(dynamic) -> None:
    """Of tensors that are no outputs: with the strides and the memory of eager mode."""

    def function(x):
        y, z, pairs = x * 2 + 1, x.exp(), (x - 1).unfold(1, 4, 2)
        heads = (x @ x.t()).unsqueeze(0).expand(2, -1, -1)
        return y[:, ::2], z.transpose(0, 1)[1:3, ..., 1:], y.split(3, 1)[1], pairs, heads[..., 1:], x.relu()

    compiled = torch.compile(function, backend="openvino", dynamic=dynamic, options=CONFIG)
    for length in (8, 9, 11):
        x = torch.randn(3, length)
        for got, wanted in zip(compiled(x), function(x), strict=True):
            close(got, wanted)
            assert got.stride() == wanted.stride()
            assert got.storage_offset() == wanted.storage_offset()
            assert got.untyped_storage().size() == wanted.untyped_storage().size()


@pytest.mark.parametrize("dynamic", [False, True])
def test_one_view_with_gaps(dynamic) -> None:
    compiled = torch.compile(lambda x: (x * 2)[..., ::3], backend="openvino", dynamic=dynamic, options=CONFIG)
    for length in (8, 9):
        x = torch.randn(3, length)
        close(compiled(x), (x * 2)[..., ::3])
        assert compiled(x).stride() == (length, 3)


def _broken(x):
    y = x.sin() + 1
    torch._dynamo.graph_break()
    return y.cos() * x


def _written(x, y):
    x.add_(1)
    y[:, 1].mul_(2)
    return x * y


def _shared(x):
    y = x + 1
    return [y, (y, y.t())], {"a": x, "b": None, "c": 3}


def _strided(x):
    y = (x + 1).t() * x.t()
    z = x.clone()
    z.as_strided((2, 2), (2, 1), 1).mul_(3)
    z.fill_diagonal_(5)
    return y.as_strided((2, 2), (1, 2), 1), z


#: Uses of PyTorch that are no common ones: a function and the arguments of its calls, `dynamic` by the name.
ODD = {
    "a break": (_broken, [(torch.rand(3, 4),), (torch.rand(5, 4),)]),
    "inputs that are written": (_written, [(torch.rand(3, 4), torch.rand(3, 4))]),
    "outputs that share memory": (_shared, [(torch.rand(3, 4),)]),
    "strides": (lambda x, y: x @ y, [(torch.rand(4, 3).t(), torch.rand(8, 8)[::2, ::2])]),
    "dynamic strides": (_strided, [(torch.rand(n, 4),) for n in (3, 5)] + [(torch.rand(4, 6).t(),)]),
    "one row many times": (lambda x: x * 2 + 1, [(torch.rand(1, 4).expand(3, 4),)]),
    "whole numbers": (
        lambda x, y: (x // y, x % y, x << 1, x.cumsum(0)),
        [(torch.tensor([-7, 9, 2**40]), torch.tensor([2, -4, 3]))],
    ),
    "bytes": (lambda x: (x + x, x * 3, x.sum()), [(torch.tensor([200, 3], dtype=torch.uint8),)]),
    "truths": (lambda x, y: (x & y, x ^ y, x.sum()), [(torch.rand(5) > 0.5, torch.rand(5) > 0.5)]),
    "complex": (
        lambda x, y: (torch.view_as_real(x * y), x.abs()),
        [(torch.randn(3, dtype=torch.complex64), torch.randn(3, dtype=torch.complex64))],
    ),
    "nothing": (lambda x: (x + 1, x.sum(), x.reshape(-1)), [(torch.zeros(0, 4),)]),
    "means of nothing": (lambda x: (x.mean(0), x.mean(1), x.mean()), [(torch.zeros(0, 4),)]),
    "an operator with its noise": (torch.nn.functional.rrelu, [(torch.randn(3, 4),)]),
    "no tensors": (lambda: torch.arange(5).float() * 2, [()]),
    "dynamic numbers": (lambda x, n: x * n + n, [(torch.rand(3), n) for n in (2, 5, 0, 1)]),
    "dynamic sizes": (
        lambda x: x.relu().sum(0) + x.shape[0],
        [(torch.rand(n, 3),) for n in (5, 1, 0, 2)],
    ),
    "dynamic pairs": (
        lambda x, y: torch.cat([x, y]).softmax(0),
        [(torch.rand(a, 3), torch.rand(b, 3)) for a, b in ((2, 3), (1, 0), (7, 1))],
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_uses(name) -> None:
    """Results and inputs afterwards are as in eager mode."""
    function, calls = ODD[name]
    compiled = torch.compile(
        function, backend="openvino", options=CONFIG, dynamic=name.startswith("dynamic") or None
    )
    for arguments in calls:
        own, theirs = copy.deepcopy(arguments), copy.deepcopy(arguments)
        got, wanted = (
            torch.utils._pytree.tree_flatten((f(*given), given))
            for f, given in ((compiled, own), (function, theirs))
        )
        assert str(got[1]) == str(wanted[1])
        for a, b in zip(got[0], wanted[0], strict=True):
            if isinstance(b, torch.Tensor):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)
            else:
                assert a == b


def test_results_lie_as_in_eager_mode() -> None:
    """Strides of results: permuted, repeated, channels last; also with open dimensions."""
    convolution = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    def function(x, image):
        y = x + 1
        rows = y.sum(1).unsqueeze(1).expand(x.shape[0], 3)
        return (x.t() * 2, y.permute(1, 0).relu(), rows, y.t().contiguous(), convolution(image))

    with torch.no_grad():
        for dynamic in (False, True):
            compiled = torch.compile(function, backend="openvino", options=CONFIG, dynamic=dynamic)
            for length in (4, 5):
                x = torch.randn(length, length + 2)
                image = torch.randn(2, 3, length, 6).to(memory_format=torch.channels_last)
                for got, wanted in zip(compiled(x, image), function(x, image), strict=True):
                    close(got, wanted, 1e-4)
                    assert got.stride() == wanted.stride()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float64, torch.bool, torch.bfloat16])
def test_results_of_other_types_lie_as_in_eager_mode(dtype) -> None:
    def function(x):
        return x.t() + x.t(), x.unsqueeze(0).expand(2, 4, 3) * True, x.clone()

    compiled = torch.compile(function, backend="openvino", options=CONFIG)
    whole = (torch.randn(4, 6, dtype=torch.complex64) * 2).to(dtype)
    for x in (
        whole[:, :3].contiguous(),
        whole[:, ::2],
        whole[:1, :3].expand(4, 3),
        whole.view(6, 4).t()[:, :3],
    ):
        for got, wanted in zip(compiled(x), function(x), strict=True):
            torch.testing.assert_close(got, wanted)
            assert got.stride() == wanted.stride()


def test_gradients_within_a_function() -> None:
    def cubes(x):
        return (x**3).sum()

    def function(x):
        return torch.func.grad(cubes)(x), torch.func.hessian(cubes)(x), x.relu()

    x = torch.randn(3)
    for a, b in zip(torch.compile(function, backend="openvino", options=CONFIG)(x), function(x), strict=True):
        close(a, b)


@pytest.mark.parametrize("dynamic", [False, True])
def test_outputs_that_are_views_of_one_tensor_within_the_graph(dynamic) -> None:
    """They share its memory, as in eager mode."""

    def function(x):
        y = (x * 2).t()
        return y.unsqueeze(0), x.relu(), y.flatten(0)[:0].numel(), y[None, 1:]

    compiled = torch.compile(function, backend="openvino", dynamic=dynamic, options=CONFIG)
    for length in (3, 5):
        x = torch.randn(2, length)
        got, wanted = compiled(x), function(x)
        for made in (got, wanted):
            made[0].zero_()
        for a, b in zip(got, wanted, strict=True):
            if isinstance(b, torch.Tensor):
                close(a, b)
                assert a.stride() == b.stride()


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_tensor_that_is_several_outputs(dynamic) -> None:
    def function(x):
        y = x * 2
        return y.to(x.dtype), y, x.contiguous(), y[1:], y.contiguous(), x.relu()

    compiled = torch.compile(function, backend="openvino", dynamic=dynamic, options=CONFIG)
    for length in (3, 5):
        x, own = (torch.linspace(-1, 1, 2 * length).view(2, length) for _ in range(2))
        for got, wanted in zip(compiled(own), function(x), strict=True):
            got.add_(1)
            wanted.add_(1)
            close(got, wanted)
        close(own, x)


def test_the_nearest_elements_of_open_sizes() -> None:
    """PyTorch computes places by numbers of f64."""

    def function(x):
        return torch.nn.functional.interpolate(x, scale_factor=1.7, mode="nearest-exact")

    compiled = torch.compile(function, backend="openvino", dynamic=True, options=CONFIG)
    for shape in ((2, 3, 5, 6), (1, 3, 6, 4)):
        x = torch.randn(shape)
        close(compiled(x), function(x))


def test_parts_of_an_open_length() -> None:
    """And the operator of an optimizer that multiplies and adds at once."""

    def function(x):
        parts = x.split((x.shape[0] + 1) // 2)
        return parts[0].sin(), parts[1].cos(), torch.ops.prims.fma(x, x, x + 1)

    compiled = torch.compile(function, backend="openvino", dynamic=True, options=CONFIG)
    for length in (6, 9):
        x = torch.randn(length, 3)
        for got, wanted in zip(compiled(x), function(x), strict=True):
            close(got, wanted)


class Residual(torch.nn.Module):
    """Convolutions of all kinds, with norms and branches between them."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.down = torch.nn.Conv2d(8, 12, 3, stride=2, groups=4, dilation=2)
        self.groups = torch.nn.GroupNorm(3, 12)
        self.up = torch.nn.ConvTranspose2d(
            12, 4, (2, 3), stride=2, padding=1, output_padding=(0, 1), groups=2
        )
        self.head = torch.nn.Linear(12, 5)

    def forward(self, x):
        x = torch.nn.functional.max_pool2d(self.norm(self.first(x)).relu(), 2)
        y = torch.nn.functional.silu(self.groups(self.down(x)))
        z = torch.nn.functional.logsigmoid(self.up(y)).mean((2, 3))
        return self.head(y.mean((2, 3))) + z.sum(1, keepdim=True)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_convolutional_network_is_trained(dynamic) -> None:
    """Three steps with momentum: losses, gradients, weights and buffers are as in eager mode."""
    modules = [Residual()]
    modules.append(copy.deepcopy(modules[0]))
    called = [modules[0], torch.compile(
        modules[1], backend="openvino", options={"aot_autograd": True, **CONFIG}, dynamic=dynamic
    )]  # fmt: skip
    steps = [torch.optim.SGD(m.parameters(), 0.05, momentum=0.9) for m in modules]
    for i in range(3):
        x, y = torch.randn(3 + dynamic * i, 3, 18, 16), torch.randint(0, 5, (3 + dynamic * i,))
        losses = []
        for call, step in zip(called, steps, strict=True):
            step.zero_grad()
            losses.append(torch.nn.functional.cross_entropy(call(x), y))
            losses[-1].backward()
            step.step()
        close(losses[1], losses[0], 1e-4)
        for a, b in zip(modules[1].parameters(), modules[0].parameters(), strict=True):
            close(a.grad, b.grad, 1e-3)
    for a, b in zip(modules[1].state_dict().values(), modules[0].state_dict().values(), strict=True):
        close(a, b, 1e-3)


#: A layer, its arguments after 6 and 12 channels, those by name, and the input's spatial size.
CONVOLUTIONS = {
    "1d": ("Conv1d", (3, 2), {"dilation": 2}, (9,)),
    "1d transposed": ("ConvTranspose1d", (2, 3, 1, 1), {"groups": 3, "dilation": 2}, (8,)),
    "2d in groups": ("Conv2d", ((3, 1), (2, 3), (1, 0), (2, 1)), {"groups": 2}, (8, 9)),
    "2d by channel": ("Conv2d", (3, (1, 2), 1), {"groups": 6, "bias": False}, (7, 8)),
    "2d transposed": ("ConvTranspose2d", ((2, 3), (1, 2), (0, 2), (0, 1)), {"dilation": (1, 2)}, (8, 9)),
    "3d in groups": ("Conv3d", ((1, 2, 3), (2, 1, 3), (0, 1, 1)), {"groups": 2}, (5, 6, 7)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_gradients_of_convolutions(name, dynamic) -> None:
    kind, arguments, named, sizes = CONVOLUTIONS[name]
    layer = getattr(torch.nn, kind)(6, 12, *arguments, **named)

    def function(x):
        return layer(x).sin()

    options = {"aot_autograd": True, **CONFIG}
    compiled = torch.compile(function, backend="openvino", options=options, dynamic=dynamic)
    values = [torch.randn(2, 6, *sizes, requires_grad=True), *layer.parameters()]
    made = [torch.autograd.grad(call(values[0]).sum(), values) for call in (compiled, function)]
    for got, wanted in zip(*made, strict=True):
        close(got, wanted, 1e-3)


#: Functions of a matrix whose forward or backward operators PyTorch does not decompose.
WHOLE = {
    "fake quantization by channel": lambda x: torch.fake_quantize_per_channel_affine(
        x, torch.tensor([0.1, 0.02, 0.3]), torch.tensor([0, 3, -7], dtype=torch.int32), 1, -8, 7
    ),
    "weight norm": lambda x: torch._weight_norm(x, x[:1].sin(), 1),
    "weight norm over all": lambda x: torch._weight_norm(x, x[0, 0], -1),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", WHOLE)
def test_gradients_of_whole_operators(name, dynamic) -> None:
    function = WHOLE[name]
    compiled = torch.compile(
        function, backend="openvino", options={"aot_autograd": True, **CONFIG}, dynamic=dynamic
    )
    given = torch.randn(5, 3)
    made = []
    for call in (compiled, function):
        x = given.clone().requires_grad_()
        result = call(x)
        (result * torch.arange(15).view(5, 3)).sum().backward()
        made.append((result, x.grad))
    close(made[0][0], made[1][0])
    close(made[0][1], made[1][1], 1e-4)


def test_autocast_in_training() -> None:
    """PyTorch's graph says bf16 of statistics that its operator gives in f32."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    other = copy.deepcopy(module)
    compiled = torch.compile(other, backend="openvino", options={"aot_autograd": True, **CONFIG})
    x = torch.randn(2, 3, 8, 8)
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
        warnings.filterwarnings("ignore", message=".*batch_norm.* is not compiled")
        for call in (module, compiled):
            call(x).float().square().mean().backward()
    for a, b in zip(other.parameters(), module.parameters(), strict=True):
        close(a.grad, b.grad, 5e-2)


def test_attention_between_random_numbers() -> None:
    """Attention may draw numbers, too, and gives a list, of which one tensor is read."""

    def function(q, k, v):
        noise = torch.rand_like(q)
        made = torch.nn.functional.scaled_dot_product_attention(q + noise, k, v)
        return made * 2, noise

    given = [torch.randn(1, 2, 5, 8) for _ in range(3)]
    compiled = torch.compile(function, backend="openvino", options=CONFIG)
    results = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rand_like is not compiled: ")
        for called in (compiled, function):
            torch.manual_seed(SEED)
            results.append(called(*given))
    for got, wanted in zip(*results, strict=True):
        close(got, wanted)


@pytest.mark.parametrize("training", [False, True])
def test_random_numbers_are_those_of_eager_mode(training) -> None:
    """With the same state of PyTorch's generator."""
    layer = torch.nn.Linear(6, 4)

    def function(x):
        x = torch.nn.functional.dropout(layer(x).tanh(), 0.5, training)
        made = (torch.rand(3), torch.randn_like(x), torch.randint(0, 99, (8,)), torch.randperm(20))
        return x.relu() + 1, torch.bernoulli(x.sigmoid()), *made, torch.normal(x, 1.0)

    compiled = torch.compile(function, backend="openvino", options={**CONFIG, "aot_autograd": training})
    x = torch.randn(5, 6)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is not compiled: ")
        for _ in range(2):
            state = torch.get_rng_state()
            wanted = function(x)
            torch.set_rng_state(state)
            for a, b in zip(compiled(x), wanted, strict=True):
                close(a, b)


def test_weights_of_divided_graphs_are_constants() -> None:
    """They are no inputs of the compiled parts, and changes of them are seen."""
    from ovjit.compat.frontend.pytorch.torchdynamo import runner

    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sigmoid(), torch.nn.Linear(4, 4))
    options = {**CONFIG, "disabled_ops": "aten::sigmoid"}
    compiled = torch.compile(module, backend="openvino", options=options)
    made = []
    with pytest.MonkeyPatch.context() as patch, torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*aten::sigmoid is not compiled: ")
        inner = runner.part_of
        patch.setattr(runner, "part_of", lambda *given: made.append(inner(*given)) or made[-1])
        for _ in range(2):
            x = torch.randn(3, 4)
            close(compiled(x), module(x))
            module[2].weight.mul_(2)
    assert [len(part.takes) for part in made] == [1] * 4


def _looked_up(x, i):
    return torch.nn.functional.embedding(i, x.flatten(1)), x.relu()


#: Functions of a matrix and of integers: what they raise in eager mode they raise when they are compiled.
#: Integers that are right, and such that are not.
RAISING = {
    "rows": (lambda x, i: x[i], [[1, -4], [0, 3]], [[4], [-5]]),
    "places of two dimensions": (lambda x, i: x[i, :, i - 1], [[1, 0, 3]], [[4], [-3]]),
    "an embedding": (_looked_up, [[0, 3]], [[4], [-1]]),
    "selected rows": (lambda x, i: x.index_select(0, i), [[0, 3]], [[4], [-1]]),
    "elements": (lambda x, i: x.take(i * 6), [[3, -4]], [[4], [-5]]),
    "elements of rows": (lambda x, i: x.flatten(1).gather(0, i[:, None]), [[3, 0]], [[4], [-1]]),
    "elements that are set": (lambda x, i: x.flatten(1).scatter(1, i[:, None], 3.0), [[3, 5]], [[6], [-1]]),
    "elements that are added": (
        lambda x, i: x.flatten(1).scatter_add(1, i[:, None], x[:, 0]),
        [[5]],
        [[6], [-1]],
    ),
    "elements that are reduced": (
        lambda x, i: x.flatten(1).scatter_reduce(1, i[:, None], x[:, 0], "amax"),
        [[5]],
        [[6], [-1]],
    ),
    "added rows": (lambda x, i: x.index_add(0, i, x[:1]), [[2]], [[4], [-1]]),
    "copied rows": (lambda x, i: x.index_copy(0, i, x[:1]), [[2]], [[4], [-1]]),
    "filled rows": (lambda x, i: x.index_fill(0, i, 2.0), [[2, -4]], [[4], [-5]]),
    "reduced rows": (lambda x, i: x.index_reduce(0, i, x[:1], "amin"), [[2]], [[4], [-1]]),
    "rows that are set": (lambda x, i: x.index_put((i,), x[0]), [[3, -4]], [[4], [-5]]),
    "elements that are put": (lambda x, i: x.put(i, x[0, 0, :1]), [[23], [-24]], [[24], [-25]]),
    "bags": (lambda x, i: torch.nn.functional.embedding_bag(i[None], x.flatten(1)), [[0, 3]], [[4], [-1]]),
    "classes": (lambda x, i: torch.nn.functional.cross_entropy(x[:1, 0], i), [[2], [-100]], [[3], [-1]]),
    "classes of images": (
        lambda x, i: torch.nn.functional.nll_loss(x[None], i.expand(1, 2, 3)),
        [[3], [-100]],
        [[4], [-1]],
    ),
    "numbers for ones": (lambda x, i: x.masked_scatter(x > 10 - i, x[0, 0]), [[0]], [[30]]),
    "assertions": (lambda x, i: (torch._assert_async((i > 0).all(), "positive"), i * 2)[1], [[3]], [[0]]),
    "bytes that divide": (lambda x, i: 7 // i.to(torch.uint8), [[3]], [[1, 0]]),
    "a divisor of 0": (lambda x, i: i % 0, [], [[3]]),
    "a negative power": (lambda x, i: i**-2, [], [[3]]),
    "quotients": (lambda x, i: (x.sum() + 7 // i, i / i), [[3, -4]], [[1, 0]]),
    "rounded quotients": (lambda x, i: torch.div(i + 1, i, rounding_mode="trunc"), [[3]], [[0]]),
    "remainders": (lambda x, i: 7 % i, [[3, -4]], [[1, 0]]),
    "indices that are computed": (lambda x, i: x.sin()[(i * 2) // x.shape[1]], [[3], [-4]], [[4], [-5]]),
}


@pytest.mark.parametrize("name", RAISING)
@pytest.mark.parametrize("dynamic", [False, True])
def test_errors_of_eager_mode(name, dynamic) -> None:
    function, right, wrong = RAISING[name]
    compiled = torch.compile(function, backend="openvino", options=CONFIG, dynamic=dynamic)
    x = torch.randn(4, 2, 3)
    for numbers in (*right, *wrong, *right):
        i = torch.tensor(numbers)
        if numbers in right:
            for got, wanted in zip(*(torch.utils._pytree.tree_leaves(f(x, i)) for f in (compiled, function)),
                                   strict=True):  # fmt: skip
                close(got, wanted)
            continue
        with pytest.raises((IndexError, RuntimeError)) as raised:
            function(x, i)
        with pytest.raises(type(raised.value)):
            compiled(x, i)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("function", [lambda x: x[:0].max() + x, lambda x: x[:0].amin() + x])
def test_the_maximum_of_nothing_is_refused(function, dynamic) -> None:
    compiled = torch.compile(function, backend="openvino", options=CONFIG, dynamic=dynamic)
    with warnings.catch_warnings(), pytest.raises((IndexError, RuntimeError), match="dim"):
        warnings.filterwarnings("ignore", message=".*without elements")
        compiled(torch.randn(4, 3))


def test_a_complex_tensor_between_parts() -> None:
    """It is the only output of the first part, and an input of the second one."""

    def function(x):
        z = torch.logcumsumexp(x.to(torch.complex64)[:, :3] * 2j, 1)
        return torch.view_as_real(z * z)

    compiled = torch.compile(function, backend="openvino", options=CONFIG)
    x = torch.randn(2, 4, 5)
    with pytest.warns(UserWarning, match="aten::logcumsumexp is not compiled: .* of complex tensors"):
        partition._WARNINGS.clear()
        close(compiled(x), function(x))


def test_new_tensors_of_complex_types() -> None:
    def function(x):
        made = (x.new_zeros(2), x.new_full((2,), 3.0), torch.full_like(x, 2.0), torch.ones_like(x))
        return [torch.view_as_real(v) for v in (*made, torch.full((2,), 2.0, dtype=x.dtype))]

    x = torch.randn(3, dtype=torch.complex64)
    compiled = torch.compile(function, backend="openvino", options=CONFIG)
    for a, b in zip(compiled(x), function(x), strict=True):
        close(a, b)


COMPLEX = {
    "a product of vectors": lambda x: torch.vdot(x[0], x[1] * 2),
    "a product with a conjugate": lambda x: torch.vdot(x[0].conj(), x[1] * 2),
    "wider numbers": lambda x: (
        x.to(torch.complex128) * x,
        torch.float_power(x, 2),
        x / (x.real.double() + 1),
        x - 1j,
    ),
    "narrower numbers": lambda x: torch.view_as_real((x * 2).to(torch.complex32)),
    "wider sums": lambda x: (x.sum(dtype=torch.complex128), x.mean(0, dtype=torch.complex128)),
    "no numbers": lambda x: (x[:0].flip(0), torch.cat([x[:, :0], x[:, :0]]), x[:0].roll(1)),
}


@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_complex_numbers(name, dynamic) -> None:
    compiled = torch.compile(COMPLEX[name], backend="openvino", options=CONFIG, dynamic=dynamic)
    x = torch.randn(4, 5, dtype=torch.complex64)
    found = (torch.utils._pytree.tree_leaves(f(x)) for f in (compiled, COMPLEX[name]))
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_bytes_are_resized_as_in_eager_mode(mode) -> None:
    """Each byte: PyTorch rounds the weights of its kernel, and the rows between both passes."""

    def function(x):
        return torch.nn.functional.interpolate(x, size=(20, 28), mode=mode, antialias=True)

    x = torch.randint(0, 256, (1, 3, 33, 47), dtype=torch.uint8)
    compiled = torch.compile(lambda x: function(x) // 2, backend="openvino", options=CONFIG)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*2d_aa is not compiled: PyTorch resizes bytes")
        got = compiled(x)
    assert got.dtype is torch.uint8 and torch.equal(got, function(x) // 2)
    close(torch.compile(function, backend="openvino", options=CONFIG)(x.float()), function(x.float()), 1e-3)


def _ragged(*lengths):
    parts = [torch.randn(n, 3) for n in lengths]
    return torch.nested.nested_tensor(parts, layout=torch.jagged)


@pytest.mark.parametrize("training", [False, True])
def test_nested_tensors(training) -> None:
    """Offsets are handed on as they are, so a result may be added to its input."""
    options = {**CONFIG, "aot_autograd": training}
    layer = torch.nn.Linear(3, 3)
    functions = (lambda n: (layer(n) * 2).sin(), lambda n: n.softmax(-1) + n)
    for function in functions:
        compiled = torch.compile(function, backend="openvino", options=options)
        for nested in (_ragged(2, 4), _ragged(1, 5, 3)):
            got, wanted = compiled(nested), function(nested)
            close((got + nested).values(), (wanted + nested).values())


def test_inputs_that_a_backward_graph_reads_are_not_copied() -> None:
    """They are kept for it as they are."""
    x, y = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    compiled = torch.compile(lambda x, y: x * y, backend="openvino", options={**CONFIG, "aot_autograd": True})
    made = compiled(x, y)
    kept = {tensor.data_ptr() for tensor in made.grad_fn.saved_tensors}
    assert kept == {x.data_ptr(), y.data_ptr()}
    made.sum().backward()
    close(x.grad, y)
    close(y.grad, x)


def test_an_operator_that_does_not_take_complex_tensors_is_left() -> None:
    def function(x):
        return torch.view_as_real(torch.logcumsumexp(x * 2, 0) * x)

    compiled = torch.compile(function, backend="openvino", options=CONFIG)
    x = torch.randn(3, dtype=torch.complex64)
    with pytest.warns(UserWarning, match="aten::logcumsumexp is not compiled: .* of complex tensors"):
        close(compiled(x), function(x))


def _of_dynamo(package):
    """OpenVINO's modules of the backend, here or in the real package."""
    name = f"{package}.frontend.pytorch.torchdynamo"
    return (importlib.import_module(f"{name}.{part}") for part in ("execute", "compile", "op_support"))


def test_the_modules_of_openvinos_backend(tmp_path) -> None:
    """Graph modules are run and compiled by the names of OpenVINO's functions."""
    from torch.fx.experimental.proxy_tensor import make_fx

    execute, compiled, support = _of_dynamo("ovjit.compat")
    layer, x = torch.nn.Linear(4, 3), torch.randn(2, 4)
    with torch.no_grad():
        pair = make_fx(lambda x: (torch.relu(layer(x)), x.sum(1)))(x)
        one = make_fx(lambda x: layer(x).sin())(x)
        for executor, kind in (("openvino", tuple), ("strictly_openvino", list)):
            for graph in (pair, pair, one):
                found = execute.execute(graph, x, executor=executor, options=CONFIG)
                assert isinstance(found, torch.Tensor if graph is one else kind)
                for got, wanted in zip(*map(torch.utils._pytree.tree_leaves, (found, graph(x))), strict=True):
                    close(got, wanted)
        execute.clear_caches()
        model = compiled.openvino_compile(one, x, options=CONFIG)
        close(execute.execute_cached(model, x)[0], one(x))
    with pytest.raises(ValueError, match="executor"):
        execute.execute(one, x, executor="other")
    nodes = {node.name: node for node in pair.graph.nodes}
    sines = support.OperatorSupport({"disabled_ops": ["aten::relu"]})
    assert [sines.is_node_supported({}, nodes[name]) for name in ("x_1", "relu", "sum_1")] == [
        False,
        False,
        True,
    ]
    sines.enable_by_name(nodes["relu"])
    assert sines.is_node_supported({}, nodes["relu"])
    path = compiled.cached_model_name("hash", "CPU", (x,), str(tmp_path))
    ovjit.save_model(ovjit.convert_model(torch.nn.Tanh(), example_input=x), f"{path}.xml")
    options = {**CONFIG, "cache_dir": str(tmp_path)}
    model = compiled.openvino_compile_cached_model(path, options, torch.randn(5, 4))
    assert list(model.inputs[0].get_shape()) == [5, 4]
    y = torch.randn(5, 4)
    close(torch.from_numpy(model(y.numpy())[0]), y.tanh())


def test_gradients_of_numbers_that_are_made_complex() -> None:
    """The gradient of `b` in `a + b * i` has the conjugate of the constant i."""

    class Complex(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (torch.nn.Parameter(torch.randn(3, 4)) for _ in range(3))

        def forward(self, x):
            made = torch.complex(self.c, x) * (self.a + 2j * self.b)
            return made.real / (x - 1j * self.b).abs()

    module = Complex().double()
    other = copy.deepcopy(module)
    compiled = torch.compile(other, backend="openvino", options={"aot_autograd": True, **CONFIG})
    x = torch.randn(3, 4, dtype=torch.float64)
    (compiled(x) * x).sum().backward()
    (module(x) * x).sum().backward()
    for got, want in zip(other.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-4, atol=1e-4)


def test_the_benchmark_tells_wrong_outputs() -> None:
    """Outputs of zeros agree with those of a wrong engine, and NaN is greater than no limit."""
    wanted = [torch.tensor([1.0, -4.0])]
    assert difference([torch.tensor([1.0, -3.0])], wanted) == 0.25
    assert np.isnan(difference([torch.tensor([1.0, np.nan])], wanted))
    with pytest.raises(ValueError, match="0 everywhere"):
        difference([torch.zeros(2)], [torch.zeros(2)])
