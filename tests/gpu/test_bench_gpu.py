"""The script for a card, with a stand-in for the driver: its checks hold, and find faults."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from bench import gpu as bench
from bench import gpu_layers
from ovjit.gpu import driver
from tests.support.fake_cuda import FakeCuda, install


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    yield install(monkeypatch, FakeCuda())
    driver.forget()


@pytest.fixture
def small_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A small network in the place of that of digits, which takes seconds in the interpreter."""
    op = ov.opset13
    x = op.parameter([1, 1, 8, 8], np.float32, name="x")
    weights = np.random.default_rng(2).standard_normal((64, 10)).astype(np.float32)
    y = op.softmax(op.matmul(op.reshape(x, [1, 64], False), op.constant(weights), False, False), 1)
    ov.save_model(ov.Model([y], [x]), tmp_path / "digits.xml", compress_to_fp16=False)
    images = np.random.default_rng(3).random((2, 1, 8, 8)).astype(np.float32)
    monkeypatch.setattr(bench, "digits", lambda: (tmp_path / "digits.xml", images, None))


def test_there_are_ten_networks() -> None:
    assert len(list(bench.networks())) + 1 == 10


def test_words_are_checked(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    card = driver.open_card(0)
    rows = dict(bench.check_words(card, 40))
    assert len(rows) > 4 and all(rows.values())
    run = cuda.run

    def wrong(*arguments: object) -> None:
        run(*arguments)  # type: ignore[arg-type]
        for array in cuda.memory.values():
            array[:8] ^= 1

    monkeypatch.setattr(cuda, "run", wrong, raising=False)
    assert not all(dict(bench.check_words(card, 40)).values())
    cuda.fail["cuModuleLoadDataEx"] = 218
    card._functions.clear()
    rows = dict(bench.check_words(card, 40))
    assert not any(rows.values()) and "cannot compile the kernel's PTX" in next(iter(rows))


def test_zeros_of_other_signs_are_other_bits() -> None:
    zero, nan = np.array([0.0, 0], np.float32), np.array([np.nan, 1], np.float32)
    other = nan.copy()
    other.view(np.uint32)[0] ^= 1
    for one, two, same in ((zero, -zero, False), (nan, other, True), (nan, zero, False)):
        assert bench.has_same_bits(one.view(np.uint8), two.view(np.uint8)) is same


def test_an_error_keeps_the_results_before_it(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "check_words", lambda *_: iter([("add", True)]))
    monkeypatch.setattr(bench, "check_operations", lambda *_: (("Relu-1", 1 / 0) for _ in "1"))
    with pytest.raises(ZeroDivisionError):
        bench.main(["--json", str(tmp_path / "gpu.json")])
    assert json.loads((tmp_path / "gpu.json").read_text())["checks"] == {"words": [1, 1]}


def test_operations_are_checked(cuda: FakeCuda) -> None:
    rows = list(bench.check_operations(4))
    assert len(rows) >= 3 and all(good for _, good in rows)


def test_small_networks_have_the_results_of_the_cpu(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, small_digits: None
) -> None:
    wanted = ("moves", "recurrent layer", "depthwise convolution and pooling")
    small = [(name, model) for name, model in bench.networks() if name in wanted]
    assert len(small) == len(wanted)
    monkeypatch.setattr(bench, "networks", lambda: iter(small))
    titles = (f"{name} in {kind}" for name in ("digits", *wanted) for kind in ("f32", "f16"))
    assert dict(bench.check_networks()) == dict.fromkeys(titles, True)


def test_products_are_checked(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ((1, 40, 96), (5, 7, 16), (17, 33, 48), (3, 5, 17))
    monkeypatch.setattr(bench, "PRODUCTS", sizes)
    rows = dict(bench.check_products(4))
    assert len(rows) == 16 and all(rows.values()), rows
    monkeypatch.setattr(bench, "PRECISIONS", {"bf16": (bench.PRECISIONS["bf16"][0], 2.0**-13)})
    assert not all(dict(bench.check_products(4)).values())


def test_products_are_checked_without_features(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of blocks of warps, or of early starts, is known by what is right without them."""
    monkeypatch.setattr(bench, "PRODUCTS", ((7, 40, 96),))
    monkeypatch.setenv("OVJIT_HIDE", "dotprod")
    features = []
    monkeypatch.setattr(
        bench,
        "check_products",
        lambda *_: [(str(driver.features_of(0)), features.append(driver.features_of(0)))],
    )
    rows = [title for title, _ in bench.check_features()]
    assert features == [("sm_90",), ()] and os.environ["OVJIT_HIDE"] == "dotprod"
    assert [title.split(" without ")[1] for title in rows] == list(bench.HIDDEN)
    monkeypatch.undo()


def test_layers_are_checked_and_measured(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    make = gpu_layers.make_attention
    small = [make(1, 2, 1, 5, 6, 16, True), gpu_layers.make_recurrent("lstm", 1, 2, 4, 5)]
    small.append(gpu_layers.make_convolution(1, 8, 4, 16, 3, 1, 2))
    monkeypatch.setattr(gpu_layers, "small_layers", lambda: iter(small))
    monkeypatch.setattr(gpu_layers, "layers", lambda: iter(small))
    rows = dict(bench.check_layers())
    assert len(rows) == 3 and all(rows.values()), rows
    attention, recurrent, _ = bench.measure_layers()
    assert attention.keys() == {"what", "us", "TFLOP/s", "GB/s"} and "GB/s" not in recurrent
    run_job = bench.run_job
    monkeypatch.setattr(bench, "run_job", lambda *a: [result + 0.1 for result in run_job(*a)])
    assert not any(dict(bench.check_layers()).values())


def test_variables_are_checked(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = dict(bench.check_variables())
    assert len(rows) == 4 and all(rows.values()), rows
    monkeypatch.setattr("ovjit.gpu.variables.take_rows", lambda tensor, *_: tensor)  # beams are ignored
    rows = dict(bench.check_variables())
    assert not rows["decoder, step 2"]


def test_times_are_of_repeated_graphs(cuda: FakeCuda) -> None:
    """The stand-in counts 0.25 ms for a launch."""
    x = bench.op.parameter([4, 64], np.float32, name="x")
    y = bench.op.softmax(bench.op.convert(bench.op.relu(x), np.float16), 1)
    job = bench.compile_graph(ov.Model([y], [x])._graph(), {"card": 0}).new_job()
    steps = [step.type for step in bench_steps(job, np.ones((4, 64), np.float32))]
    assert bench.kernel_time(job, [np.ones((4, 64), np.float32)]) == pytest.approx(len(steps) * 250e-6)
    skipped = bench.kernel_time(job, [np.ones((4, 64), np.float32)], skipped=steps[0])
    assert skipped == pytest.approx((len(steps) - 1) * 250e-6) and not cuda.events
    assert len(cuda.graphs) == 1  # that of the job


def bench_steps(job: Any, x: np.ndarray) -> Any:
    bench.run_job(job, [x])
    return job._table.plan.steps


def test_products_are_measured(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "MEASURED", ((2, 8, 16), (17, 8, 16)))
    few, many = bench.measure_products()
    assert {f"TFLOP/s {name}" for name in bench.PRECISIONS} <= few.keys() & many.keys()
    assert "GB/s f16" in few and "GB/s f16" not in many


def test_a_card_that_hangs_ends_the_script(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended = threading.Event()
    codes: list[int] = []
    monkeypatch.setattr(bench.os, "_exit", lambda code: (codes.append(code), ended.set()))
    monkeypatch.setattr(bench, "check_words", lambda *_: iter([("add", True)]))
    monkeypatch.setattr(bench, "check_operations", lambda *_: (("Relu", ended.wait(60)) for _ in "1"))
    monkeypatch.setattr(bench, "check_products", lambda *_: (("1 x 1 x 8", 1 / 0) for _ in "1"))
    with pytest.raises(ZeroDivisionError):
        bench.main(["--limit", "0.1", "--json", str(tmp_path / "gpu.json")])
    assert codes == [3] and json.loads((tmp_path / "gpu.json").read_text())["checks"]["words"] == [1, 1]


def test_results_become_a_page(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_digits: None
) -> None:
    monkeypatch.setattr(bench, "check_words", lambda *_: iter([("add", True), ("exp", False)]))
    monkeypatch.setattr(bench, "check_operations", lambda *_: iter([("Relu-1", True)]))
    monkeypatch.setattr(bench, "check_products", lambda *_: iter([("1 x 40 x 96 in f16", True)]))
    monkeypatch.setattr(bench, "check_networks", lambda: iter([("digits", True)]))
    monkeypatch.setattr(bench, "check_layers", lambda: iter([("attention", True)]))
    monkeypatch.setattr(bench, "check_variables", lambda: iter([("decoder", True)]))
    monkeypatch.setattr(bench, "time_of", lambda run, _: 1e-5 + 0 * np.size(run()))
    results, page = tmp_path / "gpu.json", tmp_path / "gpu.md"
    assert bench.main(["--quick", "--json", str(results)]) == 1
    found = json.loads(results.read_text())
    assert found["failed"] == ["exp"] and found["driver"] == "12.4" and found["card"] == "NVIDIA Fake 100"
    assert [row["what"] for row in found["results"]] == [
        "digits, to the first result", "digits", "digits, remote tensors",
    ]  # fmt: skip
    page.write_text(f"before\n{bench.MARKS[0]}\nold\n{bench.MARKS[1]}\nafter\n")
    bench.write_page(str(results), str(page))
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "1 of 2 words" in text and "Wrong: exp." in text and "| digits | 10.0 us |" in text
    real = Path("docs/gpu.md").read_text()
    assert real.count(bench.MARKS[0]) == real.count(bench.MARKS[1]) == 1


def test_without_a_card_the_script_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if driver.cards():
        pytest.skip("there is a card")
    assert bench.main([]) == 2 and "no card: " in capsys.readouterr().err
