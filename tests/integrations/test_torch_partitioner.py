"""OpenVINO's names around its backend of torch.compile, beside the real package."""

from __future__ import annotations

import importlib

import pytest

torch = pytest.importorskip("torch")
import ovjit.torch  # noqa: E402, F401
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

SINES = {"disabled_ops": ["torch.ops.aten.sin.default"], "testing": True}


def _part(root, name):
    return importlib.import_module(f"{root}.frontend.pytorch.torchdynamo.{name}")


def _constant(x):
    return (x.sin() + 1) @ torch.ones(3, 3)


def _eigenvalues(x):
    return torch.linalg.eig(x.sin() @ x.t() * 2)[0].abs().cos() + 1


@pytest.mark.parametrize("root", ["openvino", "ovjit.compat"])
@pytest.mark.parametrize(("function", "options", "compiled", "is_whole"), [
    (_constant, {}, 1, True),
    (_constant, SINES, 1, False),
    (_eigenvalues, {}, 2, False),
    (torch.sin, {}, 0, False),
    (torch.sin, {"testing": True}, 1, True),
    (torch.sin, SINES, 0, False),
])  # fmt: skip
def test_graphs_are_divided(root, function, options, compiled, is_whole) -> None:
    x = torch.randn(2, 3)
    partitioner = _part(root, "partition").Partitioner(options)
    graph = partitioner.fx_serialize(make_fx(function)(x), x)
    divided = partitioner.make_partitions(graph, options)
    found = [node.name for node in divided.graph.nodes if node.op == "call_module"]
    assert sorted(found) == [f"fused_{i}" for i in range(compiled)]
    assert partitioner.check_fully_supported(divided) is is_whole
    torch.testing.assert_close(divided(x), function(x))


@pytest.mark.parametrize("root", ["openvino", "ovjit.compat"])
def test_what_was_compiled_is_forgotten(root) -> None:
    """OpenVINO's own `reset` names a function that its module does not have."""
    execute = _part(root, "execute")
    forget = execute.clear_caches if root == "openvino" else _part(root, "backend").reset
    x = torch.randn(2, 3)
    graph = make_fx(lambda x: x.cos() + 1)(x)
    forget()
    torch.testing.assert_close(execute.openvino_execute(graph, x), graph(x))
    assert len(execute.compiled_cache) == 1
    forget()
    assert not execute.compiled_cache


def test_options_of_all_graphs(monkeypatch) -> None:
    backend = _part("ovjit.compat", "backend")
    monkeypatch.setattr(backend, "openvino_options", {"device": "NPU7"})
    _part("ovjit.compat", "partition")._WARNINGS.clear()
    torch._dynamo.reset()
    with pytest.warns(UserWarning, match='"NPU7" name is not registered .*; it runs in eager mode'):
        torch.compile(torch.nn.ReLU(), backend="openvino", options={"device": "CPU"})(torch.ones(2))
