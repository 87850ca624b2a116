"""The script for a card, with a stand-in for the driver: its checks hold, and find faults."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit as ov
from bench import gpu as bench
from bench import gpu_layers
from bench.gpu_worker import MARK, Item, Worker, follow_items, run_items
from ovjit.gpu import driver
from ovjit.gpu.device_job import DeviceJob
from tests.support.fake_cuda import FakeCuda


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


def outcomes(items: Iterator[Item]) -> dict[str, Any]:
    """The results of items by their names; the errors of those that raise one."""
    messages = list(run_items([("", lambda: items)], (0, 0)))
    return {m["name"]: m.get("result", m.get("error")) for m in messages if "begins" not in m and "name" in m}


def constant_items(**results: Any) -> Callable[..., Iterator[Item]]:
    return lambda *_: (Item(name, lambda result=result: result) for name, result in results.items())


class InProcess:
    """A worker in this process."""

    def __init__(self, start: Sequence[int]):
        self.process, self.options = self, argparse.Namespace(quick=True, seconds=0.01)
        self.messages = bench.work(self.options, start)

    def receive(self, seconds: float) -> Any:
        return next(self.messages, None)

    def end(self) -> str:
        return "ended"


def test_checks_leave_time_for_measurements() -> None:
    def section(name: str) -> Any:
        return lambda: iter([Item(f"{name} {i}", lambda: True) for i in range(2)])

    titles = [("a", section("a")), ("b", section("b")), ("", section("measured"))]
    messages = list(run_items(titles, (0, 1), 0.0))
    assert [m["left"] for m in messages if "left" in m] == ["a 1", "b 0"]
    assert [m["name"] for m in messages if "result" in m] == ["measured 0", "measured 1"]
    assert len([m for m in run_items(titles, (0, 0)) if "result" in m]) == 6


def test_there_are_ten_networks() -> None:
    assert len(list(bench.networks())) + 1 == 10


def test_words_are_checked(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    card = driver.open_card(0)
    rows = outcomes(bench.check_words(card, 40))
    assert len(rows) > 4 and all(rows.values())
    run = cuda.run

    def wrong(*arguments: object) -> None:
        run(*arguments)  # type: ignore[arg-type]
        for array in cuda.memory.values():
            array[:8] ^= 1

    monkeypatch.setattr(cuda, "run", wrong, raising=False)
    assert not all(outcomes(bench.check_words(card, 40)).values())
    cuda.fail["cuModuleLoadDataEx"] = 218
    card._functions.clear()
    rows = outcomes(bench.check_words(card, 40))
    assert all("cannot compile the kernel's PTX" in error for error in rows.values())


def test_zeros_of_other_signs_are_other_bits() -> None:
    zero, nan = np.array([0.0, 0], np.float32), np.array([np.nan, 1], np.float32)
    other = nan.copy()
    other.view(np.uint32)[0] ^= 1
    for one, two, same in ((zero, -zero, False), (nan, other, True), (nan, zero, False)):
        assert bench.has_same_bits(one.view(np.uint8), two.view(np.uint8)) is same


def test_an_error_is_one_failed_check(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checks behind it run, also where no further items of its section can be made."""

    def make_items(*_: object) -> Iterator[Item]:
        yield Item("Relu-1", lambda: 1 / 0)
        yield Item("Abs-1", lambda: True)
        raise ValueError("no samples")

    monkeypatch.setattr(bench, "check_words", constant_items(add=True))
    monkeypatch.setattr(bench, "check_operations", make_items)
    for name in ("kinds", "products", "features", "networks", "layers", "variables"):
        monkeypatch.setattr(bench, f"check_{name}", constant_items())
    monkeypatch.setattr(bench, "measure_digits", constant_items(digits=[{"what": "digits", "us": 1}]))
    assert bench.main(["--json", str(tmp_path / "gpu.json")], InProcess) == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["checks"] == {"words": [1, 1], "operations": [1, 3]} and len(found["results"]) == 1
    assert found["failed"] == [
        "Relu-1: ZeroDivisionError: division by zero",
        "item 2: ValueError: no samples",
    ]
    assert "operations: 1 of 3 right" in capsys.readouterr().out


def test_a_lost_card_gets_a_new_process(cuda: FakeCuda) -> None:
    """Behind an error after which no call succeeds, items would fail that are right."""

    def lose() -> None:
        cuda.fail = {"cuStreamSynchronize": 700, "cuStreamCreate": 700}
        driver.open_card(0).create_stream()

    starts: list[list[int]] = []

    def start(position: Sequence[int]) -> InProcess:
        starts.append(list(position))
        cuda.fail.clear()
        return InProcess(position)

    sections = [("a", lambda: iter([Item("x", lambda: True), Item("y", lose), Item("z", lambda: True)]))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "sections", lambda options: sections)
        patch.setattr(bench, "run_kernel_by_kernel", lambda: None)
        messages = [m for m in follow_items(start, 60) if "result" in m or "error" in m]
    assert starts == [[0, 0], [0, 1, 1], [0, 2]] and [m["name"] for m in messages] == ["x", "y", "z"]
    assert messages[1]["error"].count("accessed memory outside") == 2 and messages[2]["result"] is True


def test_a_failing_kernel_has_a_name(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An item alone runs kernel by kernel: before one that is at fault, its name is told."""
    model = bench.product_model(5, 7, 16)[0]
    monkeypatch.setattr(DeviceJob, "_run_steps", DeviceJob._run_steps)  # and back

    def run() -> None:
        bench.run_job(bench.compile_graph(model._graph(), {"card": 0}).new_job(), [np.ones((5, 16), "f4")])

    monkeypatch.setattr(bench, "sections", lambda options: [("a", lambda: iter([Item("x", run)]))])
    list(bench.work(argparse.Namespace(quick=True), [0, 0, 1]))
    lines = [json.loads(line.removeprefix(MARK)) for line in capsys.readouterr().out.splitlines()]
    names = [line["kernel"] for line in lines]
    assert len(names) > 1 and "MatMul: plain_product" in names[0] and cuda.replays == 0
    position = {"title": "a", "at": [0, 0], "name": "x"}

    class Hangs:
        process = property(lambda self: self)
        messages = [{**position, "begins": True}, *lines]

        def receive(self, seconds: float) -> Any:
            if not self.messages:
                raise TimeoutError
            return self.messages.pop(0)

        def kill(self) -> None: ...

    errors = [m["error"] for m in follow_items(lambda _: Hangs(), 0.5, 0.1) if "error" in m]
    assert errors[0].startswith(f"no answer in 0.1 s in {names[-1]}")
    Hangs.messages = [{**position, "begins": True, "seconds": 0.3}]  # an item that needs more time
    errors = [m["error"] for m in follow_items(lambda _: Hangs(), 0.8, 0.1) if "error" in m]
    assert errors[0].startswith("no answer in 0.3 s")


def test_kinds_of_kernels_are_checked(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [("softmax", *row[1:]) for row in bench.memory_bound(2)][1:2]
    monkeypatch.setattr(bench, "memory_bound", lambda count: iter(small))
    assert outcomes(bench.check_kinds()) == {"softmax": True, "paged attention": True}
    run_job = bench.run_job
    monkeypatch.setattr(bench, "run_job", lambda *a: [result + 0.1 for result in run_job(*a)])
    assert not outcomes(bench.check_kinds())["softmax"]


def test_parts_of_the_script() -> None:
    """Checks come first, and those that tell most; a part may run alone."""

    def sections(quick: bool, *parts: str) -> list[str]:
        return [
            title for title, _ in bench.sections(argparse.Namespace(quick=quick, seconds=0.1, part=parts))
        ]

    checks = [title for title in sections(True) if title]
    assert checks[0] == "kinds" and sections(True) == [*checks, ""]
    assert sections(False, "networks") == ["", ""]
    assert sections(False, *bench.PARTS)[: len(checks) + 1] == [*checks, ""]
    assert sections(False, "checks") == checks


@pytest.mark.parametrize("call", ["cuModuleLoadDataEx", "cuModuleGetFunction", "cuFuncGetAttribute"])
def test_errors_of_compilations_name_the_kernel(cuda: FakeCuda, call: str) -> None:
    """Drivers may compile a module when its function is asked for, or used."""
    cuda.fail[call] = 209
    job = bench.compile_graph(bench.product_model(5, 7, 16)[0]._graph(), {"card": 0}).new_job()
    with pytest.raises(driver.CardError, match=rf"{call} of \w+ failed: .*no code for this card"):
        bench.run_job(job, [np.ones((5, 16), np.float32)])


def test_a_process_that_cannot_be_killed_holds_nothing() -> None:
    """A driver that hangs keeps its process from ending."""
    worker = Worker([sys.executable, "-c", SCRIPT % "time.sleep(600)", "0,1"])
    process, worker.process = worker.process, Unkillable()
    assert worker.end() == "the process does not end"
    process.kill()
    assert process.wait(10) == -9


class Unkillable:
    """A process whose driver hangs."""

    def kill(self) -> None: ...

    def wait(self, seconds: float) -> int:
        raise subprocess.TimeoutExpired("", seconds)


#: A worker with three items: the second one ends the process, or never does.
SCRIPT = """
import os, sys, time
from bench.gpu_worker import Item, run_items, serve
items = [Item("x", lambda: True), Item("y", lambda: %s), Item("z", lambda: True)]
print("a line of a library", flush=True)
serve(run_items([("a", lambda: iter(items))], [*map(int, sys.argv[1].split(","))]))
"""


@pytest.mark.parametrize(
    ("fault", "error"), [("os.abort()", "ended with -6"), ("time.sleep(600)", "no answer in 4 s")]
)
def test_a_process_that_ends_or_hangs_is_replaced(fault: str, error: str) -> None:
    workers: list[Worker] = []

    def start(position: Sequence[int]) -> Worker:
        argument = ",".join(map(str, position))
        workers.append(Worker([sys.executable, "-c", SCRIPT % fault, argument]))
        return workers[-1]

    messages = [m for m in follow_items(start, 300, 4) if "result" in m or "error" in m]
    assert [m.get("result") for m in messages] == [True, None, True] and error in messages[1]["error"]
    assert messages[1]["error"].count(error) == 2  # once more alone
    assert len(workers) == 3 and all(worker.process.wait(10) is not None for worker in workers)


def test_the_limit_ends_a_hanging_process() -> None:
    worker = Worker([sys.executable, "-c", SCRIPT % "time.sleep(600)", "0,1"])
    assert [m for m in follow_items(lambda _: worker, 3) if "begins" not in m] == [{"over": True}]
    assert worker.process.wait(10) == -9


#: The script with a worker that checks one item, measures one, and hangs in the third.
INTERRUPTED = """
import sys
from bench import gpu
from bench.gpu_worker import Worker
script = '''
import time
from bench.gpu_worker import Item, serve, run_items
serve(iter([{"card": "NVIDIA Fake 100", "capability": [9, 0], "driver": "12.4"}]))
rows = [{"what": "x", "us": 1}]
measured = [Item("x", lambda: rows), Item("y", lambda: time.sleep(600))]
parts = [("kinds", [Item("a", lambda: True)]), ("", measured)]
serve(run_items([(title, lambda items=items: iter(items)) for title, items in parts], (0, 0)))
'''
def start(position):
    worker = Worker([sys.executable, "-c", script])
    print("worker", worker.process.pid, flush=True)
    return worker
raise SystemExit(gpu.main(["--json", sys.argv[1]], start))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_script_that_is_cut_off_leaves_its_results(number: int, tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    command = [sys.executable, "-c", INTERRUPTED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline().split()[1])
        assert process.stdout.readline() == "kinds: 1 of 1 right\n"
        assert process.stdout.readline() == "what: x us: 1\n"
        while not json.loads(path.read_text())["results"]:  # written behind the printed line
            time.sleep(0.01)
        process.send_signal(number)
        if number == signal.SIGKILL:  # its worker hangs, and holds the pipes
            os.kill(worker, signal.SIGKILL)
        printed, errors = process.communicate(timeout=60)
    report = json.loads(path.read_text())
    assert report["checks"] == {"kinds": [1, 1]} and report["results"] == [{"what": "x", "us": 1}]
    if number == signal.SIGKILL:
        return
    assert process.returncode == 3 and report["over"] and "interrupted: " in errors
    assert printed.split() == ["kinds:", "1", "of", "1", "right", "x", "us", "1;"]
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert "The time was over" in bench.page_of(report)


def test_a_report_is_whole_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gpu.json"
    bench.write_report({"results": [1]}, str(path))

    def write_part(report: object, file: Any, **_: object) -> None:
        file.write('{"results": [')
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.json, "dump", write_part)
    with pytest.raises(KeyboardInterrupt):
        bench.write_report({"results": [1, 2]}, str(path))
    assert json.loads(path.read_text()) == {"results": [1]}


@pytest.mark.parametrize(("arguments", "most"), [([], 480), (["--quick"], 90), (["--limit", "7"], 8)])
def test_the_script_ends_in_time(arguments: list[str], most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def follow(start: object, limit: float) -> Iterator[Any]:
        limits.append(limit)
        yield {"broken": "no card"}

    monkeypatch.setattr(bench, "follow_items", follow)
    assert bench.main(arguments) == 2 and most - 11 < limits[0] < most


def test_a_worker_that_does_not_start_is_no_endless_loop(capsys: pytest.CaptureFixture[str]) -> None:
    start = [sys.executable, "-c", "raise SystemExit(5)"]
    assert list(follow_items(lambda _: Worker(start), 60)) == [{"broken": "the process ended with 5"}]
    assert bench.fill_results(iter([{"broken": "no card: none"}]), None) == 2


def test_the_script_is_a_worker_of_itself() -> None:
    """Without a card a worker says so, and what began it ends with 2."""
    if driver.cards():
        pytest.skip("there is a card")
    command = [sys.executable, "-m", "bench.gpu", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2 and "no card: " in done.stderr


def test_operations_are_checked(cuda: FakeCuda) -> None:
    rows = outcomes(bench.check_operations(4))
    assert len(rows) >= 3 and all(good in (True, None) for good in rows.values()) and any(rows.values())


def test_single_numbers_are_inputs(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.op_samples import native_ops

    monkeypatch.setattr(
        "tests.support.op_samples.native_ops",
        lambda: [r for r in native_ops() if r.name in ("PRelu", "Range")],
    )
    rows = outcomes(bench.check_operations(9))
    assert any(name.startswith("PRelu") for name in rows) and all(r in (True, None) for r in rows.values()), (
        rows
    )


def test_small_networks_have_the_results_of_the_cpu(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, small_digits: None
) -> None:
    wanted = ("moves", "recurrent layer", "depthwise convolution and pooling")
    small = [(name, model) for name, model in bench.networks() if name in wanted]
    assert len(small) == len(wanted)
    monkeypatch.setattr(bench, "networks", lambda: iter(small))
    titles = (f"{name} in {kind}" for name in ("digits", *wanted) for kind in ("f32", "f16"))
    assert outcomes(bench.check_networks()) == dict.fromkeys(titles, True)


def test_products_are_checked(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ((1, 40, 96), (5, 7, 16), (17, 33, 48), (3, 5, 17))
    monkeypatch.setattr(bench, "PRODUCTS", sizes)
    rows = outcomes(bench.check_products(4))
    assert len(rows) == 16 and all(rows.values()), rows
    monkeypatch.setattr(bench, "PRECISIONS", {"bf16": (bench.PRECISIONS["bf16"][0], 2.0**-13)})
    assert not all(outcomes(bench.check_products(4)).values())


def test_products_are_checked_without_features(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of blocks of warps, or of early starts, is known by what is right without them."""
    monkeypatch.setattr(bench, "PRODUCTS", ((7, 40, 96),))
    monkeypatch.setenv("OVJIT_HIDE", "dotprod")
    features: list[Any] = []
    monkeypatch.setattr(bench, "check_product", lambda *_: features.append(driver.features_of(0)) is None)
    rows = outcomes(bench.check_features())
    assert features == [("sm_90",), ()] and os.environ["OVJIT_HIDE"] == "dotprod" and all(rows.values())
    assert [title.split(" without ")[1] for title in rows] == list(bench.HIDDEN)


def test_layers_are_checked_and_measured(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    make = gpu_layers.make_attention
    small = [make(1, 2, 1, 5, 6, 16, True), gpu_layers.make_recurrent("lstm", 1, 2, 4, 5)]
    small.append(gpu_layers.make_convolution(1, 8, 4, 16, 3, 1, 2))
    monkeypatch.setattr(gpu_layers, "small_layers", lambda: iter(small))
    monkeypatch.setattr(gpu_layers, "layers", lambda: iter(small))
    rows = outcomes(bench.check_layers())
    assert len(rows) == 3 and all(rows.values()), rows
    attention, recurrent, _ = (row for rows in outcomes(bench.measure_layers()).values() for row in rows)
    assert attention.keys() == {"what", "us", "TFLOP/s", "GB/s"} and "GB/s" not in recurrent
    run_job = bench.run_job
    monkeypatch.setattr(bench, "run_job", lambda *a: [result + 0.1 for result in run_job(*a)])
    assert not any(outcomes(bench.check_layers()).values())


def test_variables_are_checked(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = outcomes(bench.check_variables())
    assert len(rows) == 4 and all(rows.values()), rows
    monkeypatch.setattr("ovjit.gpu.variables.take_rows", lambda tensor, *_: tensor)  # beams are ignored
    rows = outcomes(bench.check_variables())
    assert not rows["decoder, 3 steps"]


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
    few, many = (row for rows in outcomes(bench.measure_products()).values() for row in rows)
    assert {f"TFLOP/s {name}" for name in bench.PRECISIONS} <= few.keys() & many.keys()
    assert "GB/s f16" in few and "GB/s f16" not in many


def test_results_become_a_page(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_digits: None
) -> None:
    monkeypatch.setattr(bench, "check_words", constant_items(add=True, exp=False))
    for name in ("kinds", "operations", "products", "features", "networks", "layers", "variables"):
        monkeypatch.setattr(bench, f"check_{name}", constant_items(one=True, none=None))
    monkeypatch.setattr(bench, "time_of", lambda run, _: 1e-5 + 0 * np.size(run()))
    results, page = tmp_path / "gpu.json", tmp_path / "gpu.md"
    assert bench.main(["--quick", "--json", str(results)], InProcess) == 1
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
