"""Networks of the script for a card: those of ovjit and of PyTorch are the same."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from bench import gpu as bench
from bench import gpu_networks
from bench.gpu_networks import Network
from bench.gpu_worker import Item, run_items
from tests.support.fake_cuda import FakeCuda

#: The same networks, with sizes for the interpreter of kernels.
SMALL = (
    Network("ResNet", gpu_networks.resnet, {"width": 8, "counts": (1, 1), "classes": 5}, 16),
    Network("BERT", gpu_networks.bert, {"rows": 5, "width": 16, "heads": 2, "layers": 1, "words": 9}),
    Network("Llama", gpu_networks.llama, {
        "rows": 3, "width": 32, "inner": 24, "heads": 4, "key_heads": 2, "layers": 2, "words": 9}),
    Network("MobileNet", gpu_networks.mobilenet, {
        "width": 8, "last": 16, "classes": 5, "stages": ((1, 8, 1, 1), (2, 8, 2, 2))}, 16),
    Network("ViT", gpu_networks.vit, {
        "patch": 4, "patches": 4, "width": 16, "heads": 2, "layers": 1, "classes": 5}, 8),
    Network("U-Net", gpu_networks.unet, {"width": 8, "levels": 2, "classes": 2}, 8),
)  # fmt: skip


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_networks, "NETWORKS", SMALL)
    monkeypatch.setattr(gpu_networks, "BATCHES", (1, 3))
    monkeypatch.setattr(gpu_networks, "_results", {})
    monkeypatch.setattr(gpu_networks, "_weights", {})


def once(run: Callable[[], Any], seconds: float) -> float:
    """In the place of a measurement."""
    run()
    return 1e-3


def results_of(items: Iterator[Item]) -> list[dict[str, Any]]:
    messages = list(run_items([("", lambda: items)], (0, 0)))
    assert not [message["error"] for message in messages if "error" in message]
    return [row for message in messages for row in message.get("result", ())]


def exact_results() -> dict[str, np.ndarray]:
    """The CPU's results in f32."""
    found = {}
    for network in SMALL:
        for batch in gpu_networks.BATCHES:
            model, _ = network.build(batch, gpu_networks.weights_of(network))
            compiled = ov.compile_model(model, "CPU", bench.EXACT)
            found[gpu_networks.title(network, batch)] = np.array(compiled(network.inputs(batch))[0])
    return found


def test_networks_run_on_the_card_with_remote_tensors(cuda: FakeCuda) -> None:
    rows = results_of(gpu_networks.measure_ovjit(once, 0))
    want = exact_results()
    assert [row["what"] for row in rows] == [*want] == [*gpu_networks._results]
    assert all(row["us"] == 1000 for row in rows)
    for name, result in gpu_networks._results.items():
        assert np.abs(result - want[name]).max() < 2e-2 * np.abs(want[name]).max(), name


def test_networks_of_pytorch_have_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are traced as a whole: `torch.compile` would leave what it cannot trace to Python."""
    torch = pytest.importorskip("torch")
    compile_whole = functools.partial(torch.compile, backend="eager", fullgraph=True)
    monkeypatch.setattr(
        torch, "compile", lambda module, mode, dynamic: compile_whole(module, dynamic=dynamic)
    )
    gpu_networks._results.update(exact_results())
    rows = results_of(gpu_networks.measure_torch(torch, once, 0, "cpu"))
    assert len(rows) == 2 * 2 * len(SMALL)
    for way in gpu_networks.WAYS:
        found = [row for row in rows if f"{way} us" in row]
        assert len(found) == 2 * len(SMALL) and all(row[f"{way} difference"] < 2e-2 for row in found), rows


def test_all_operations_run_on_the_card(cuda: FakeCuda) -> None:
    for network in SMALL:
        model, _ = network.build(1)
        names = {node.get_friendly_name() for node in model.get_ops()}
        assert ov.Core().query_model(model, "GPU").keys() == names, network.name


def test_the_reason_why_pytorch_is_left_out_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (row,) = results_of(bench.measure_with_torch(lambda torch: iter(())))
    assert row["what"] == "PyTorch" and "torch" in row["left out"]


def test_weights_do_not_depend_on_the_batch() -> None:
    for network in SMALL:
        weights = gpu_networks.weights_of(network)
        _, again = network.build(3, weights)
        assert len(again) == len(weights) and all(a is b for a, b in zip(again, weights, strict=True))


def test_rows_of_a_case_are_one() -> None:
    rows = [
        {"what": "a", "us": 30.0}, {"what": "b", "GB/s": 1}, {"what": "a", "torch us": 60.0},
        {"what": "a", "torch.compile us": 40.0, "torch.compile s": 9},
    ]  # fmt: skip
    merged = bench.merge_rows(rows)
    assert merged[0] == {
        "what": "a", "us": 30.0, "torch us": 60.0, "torch.compile us": 40.0, "torch.compile s": 9,
        "of torch": 0.75,
    }  # fmt: skip
    assert merged[1:] == rows[1:2] and rows[0] == {"what": "a", "us": 30.0}
