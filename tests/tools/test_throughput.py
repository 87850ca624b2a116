"""Benchmarks of queues: what a worker measures, and how rows compare engines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import ovjit
from bench import throughput
from bench.engines import open_engine
from ovjit.data import digits


def test_a_queue_is_kept_full_and_told_about() -> None:
    xml, images, _ = digits()
    queue = throughput.Queue(open_engine("ovjit"), {"xml": str(xml)}, [images[:1]], 2)
    compiled = ovjit.compile_model(xml, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": 2})
    jobs = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    assert (queue.told["jobs"], queue.told["streams"]) == (jobs, compiled.get_property("NUM_STREAMS"))
    done: list[int] = []
    queue._queue.set_callback(lambda request, data: done.append(1))
    each = queue.run(0.0, least=25)
    assert len(done) == 25 and 0 < each < 1e9
    wanted = ovjit.compile_model(xml, "CPU")(images[:1])[0]
    for request in queue._queue:
        assert request.results[0] == pytest.approx(wanted, abs=1e-5)


def test_rows_compare_each_engine_with_its_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"ovjit": 2e6, "openvino": 4e6}
    asked: list[tuple[str, str]] = []

    class Told:
        def __init__(self, engine: str):
            self.engine = engine

        def ask(self, do: str, **given: Any) -> Any:
            asked.append((self.engine, do))
            return {"jobs": 2} if do == "load_queue" else [taken[self.engine]]

    class Workers:
        def __init__(self, engines: list[str], prepare: Any):
            self.ready = {e: Told(e) for e in engines}
            self.said = {e: prepare(w) for e, w in self.ready.items()}

        def __enter__(self) -> tuple[Any, Any]:
            return self.ready, self.said

        def __exit__(self, *exc: object) -> None:
            pass

    monkeypatch.setattr(throughput, "workers", Workers)
    subject = SimpleNamespace(files={"paths": {}, "inputs": ""})
    rows = throughput.measure(subject, 2, ["ovjit", "openvino", "onnxruntime"], 3, 0.0)
    assert rows.keys() == taken.keys() and ("onnxruntime", "load_queue") not in asked
    assert (rows["ovjit"]["per_s"], rows["ovjit"]["queue_ratio"], rows["ovjit"]["jobs"]) == (500, 0.5, 2)
    assert set(rows["openvino"]) <= set(throughput.COLUMNS)
