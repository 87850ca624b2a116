"""Compiled models in other processes: pools, joblib, cloudpickle and Dask ship them; the docs' recipes."""

from __future__ import annotations

import concurrent.futures
import gc
import importlib.util
import multiprocessing
import os
import pathlib
import pickle
import time
import weakref

import cloudpickle
import joblib
import numpy as np
import pytest
from distributed import Client, LocalCluster

import ovjit
from ovjit.data import digits
from ovjit.errors import ModelError
from ovjit.integrations import shipping
from tests.support import ROOT, doc_pages
from tests.support.run import printed

ONE_THREAD = {"INFERENCE_NUM_THREADS": 1}
_, IMAGES, LABELS = digits()
PARTS = np.array_split(IMAGES[:60], 5)


@pytest.fixture(scope="module", autouse=True)
def importable():
    """Workers of all kinds find this folder's packages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def compiled() -> ovjit.CompiledModel:
    return ovjit.compile_model(digits()[0], "CPU", ONE_THREAD)


@pytest.fixture(scope="module")
def expected(compiled) -> list[bytes]:
    return [compiled(part)[0].tobytes() for part in PARTS]


def answer(model, images) -> tuple[bytes, bool, int]:
    """The output's bytes, whether the code came with the model, and in which process."""
    values = model(images)[0].tobytes()
    return values, model.get_property("LOADED_FROM_CACHE"), os.getpid()


def check(answers: list, expected: list[bytes], processes: int) -> None:
    assert [values for values, *_ in answers] == expected
    assert all(loaded for _, loaded, _ in answers)
    pids = {pid for *_, pid in answers}
    assert os.getpid() not in pids and 1 <= len(pids) <= processes


def test_process_pool(compiled, expected) -> None:
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        check(list(pool.map(answer, [compiled] * len(PARTS), PARTS)), expected, 2)


def test_joblib(compiled, expected) -> None:
    tasks = (joblib.delayed(answer)(compiled, part) for part in PARTS)
    check(joblib.Parallel(n_jobs=2)(tasks), expected, 2)


def test_cloudpickle_and_all_protocols(compiled, expected) -> None:
    forms = [cloudpickle.dumps(compiled)]
    forms += [pickle.dumps(compiled, protocol) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for form in forms:
        model = pickle.loads(form)
        assert model(PARTS[0])[0].tobytes() == expected[0]
        assert model.get_property("INFERENCE_NUM_THREADS") == 1
    # a model in the closure of a function that is shipped by value
    closure = pickle.loads(cloudpickle.dumps(lambda images: compiled(images)[0].tobytes()))
    assert closure(PARTS[1]) == expected[1]


@pytest.fixture(scope="module")
def dask():
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_dask_runs_a_partition_on_each_worker(dask, compiled, expected) -> None:
    model = dask.scatter(compiled, broadcast=True, hash=False)
    workers = list(dask.scheduler_info()["workers"])
    assert len(workers) == 2
    futures = [
        dask.submit(answer, model, part, workers=[workers[i % 2]], pure=False) for i, part in enumerate(PARTS)
    ]
    answers = dask.gather(futures)
    check(answers, expected, 2)
    assert len({pid for *_, pid in answers}) == 2


def loaded(model, seconds: float) -> tuple[int, int, int]:
    """The process, which model it has under the handle, and how many it has loaded at all."""
    time.sleep(seconds)  # so that all workers get a task
    return os.getpid(), id(model()), len(shipping._loaded)


def test_a_shipped_model_is_loaded_once_for_each_worker(compiled, expected, tmp_path) -> None:
    """A handle is small, whatever the model's size, and tasks of a worker share what it stands for."""
    shipped = shipping.ship(compiled, tmp_path)
    assert len(pickle.dumps(shipped)) < 1000 and pickle.loads(pickle.dumps(shipped))() is compiled
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(loaded, [shipped] * 12, [0.05] * 12))
        answers = list(pool.map(answer_of, [shipped] * len(PARTS), PARTS))
    assert answers == expected
    assert len({pid for pid, *_ in found}) == len({pair[:2] for pair in found}) <= 2
    assert all(count == 1 for *_, count in found)
    assert [p.name for p in tmp_path.iterdir()] == [f"ovjit-{shipped.digest[:16]}.blob"]


def answer_of(model, images) -> bytes:
    return model()(images)[0].tobytes()


def test_a_shipped_model_goes_with_its_handle(compiled) -> None:
    shipped = shipping.ship(compiled)
    form, path = pickle.dumps(shipped), pathlib.Path(shipped.source())
    assert path.stat().st_mode & 0o077 == 0
    del shipped
    gc.collect()
    assert not path.exists()
    shipping._loaded.clear()
    with pytest.raises(ModelError, match="does not exist"):
        pickle.loads(form)()


def test_a_file_that_was_replaced_is_refused(compiled, tmp_path) -> None:
    """Also by a whole model of the same user, whose key authenticates it."""
    shipped = shipping.ship(compiled, tmp_path)
    form, path = pickle.dumps(shipped), pathlib.Path(shipped.source())
    right = path.read_bytes()
    other = ovjit.compile_model(doubled(1), "CPU", ONE_THREAD).export_model().getvalue()
    shipping._loaded.clear()
    for wrong in (other, right[:-1], right + b"\0", right[:1000] + bytes([right[1000] ^ 1]) + right[1001:]):
        path.write_bytes(wrong)
        with pytest.raises(ModelError, match="other bytes than the model that was shipped"):
            pickle.loads(form)()
    shipping.ship(compiled, tmp_path)
    assert path.read_bytes() == right
    shipping._loaded.clear()
    assert pickle.loads(form)() is not compiled


def doubled(number: int) -> ovjit.Model:
    x = ovjit.opset13.parameter([4], np.float32)
    return ovjit.Model([ovjit.opset13.multiply(x, np.float32(number + 2))], [x])


def test_models_that_nobody_uses_are_dropped() -> None:
    """Those that were shipped go with their handles; of those that tasks have loaded a few stay."""
    alive, forms = [], []
    for number in range(12):
        model = ovjit.compile_model(doubled(number), "CPU", ONE_THREAD)
        alive.append(weakref.ref(model))
        shipped = shipping.ship(model)
        assert shipped() is model
        forms.append((pickle.dumps(shipped), pathlib.Path(shipped.source()).read_bytes()))
        del model, shipped
    gc.collect()
    assert [number for number, each in enumerate(alive) if each() is not None] == []
    loaded = []
    for number, (form, blob) in enumerate(forms):
        handle = pickle.loads(form)
        handle.source = lambda blob=blob: blob
        assert handle()(np.ones(4, np.float32))[0].tolist() == [number + 2] * 4
        loaded.append(weakref.ref(handle()))
    gc.collect()
    assert sum(each() is not None for each in loaded) == shipping.MOST_RECENT
    shipping._recent.clear()


def test_dask_takes_handles(dask, compiled, expected) -> None:
    shipped = shipping.ship(compiled)
    futures = [dask.submit(answer_of, shipped, part, pure=False) for part in PARTS]
    assert dask.gather(futures) == expected


def compile_and_answer(model, images) -> bytes:
    return ovjit.compile_model(model, "CPU", ONE_THREAD)(images)[0].tobytes()


def test_dask_ships_models_that_are_not_compiled(dask, expected) -> None:
    model = ovjit.Core().read_model(digits()[0])
    assert dask.submit(compile_and_answer, model, PARTS[2]).result() == expected[2]


def test_dask_brings_results_and_errors_back(dask, compiled) -> None:
    """A compiled model that a worker made comes back; what a worker's inference raises is raised here."""
    remote = dask.submit(ovjit.compile_model, digits()[0], "CPU", ONE_THREAD).result()
    assert remote(PARTS[0])[0].tobytes() == compiled(PARTS[0])[0].tobytes()
    with pytest.raises(RuntimeError, match="shape"):
        dask.submit(answer, compiled, np.zeros((1, 1, 5, 5), np.float32)).result()


PROGRAMS = doc_pages.programs(ROOT / "docs" / "distributed.md")


@pytest.mark.parametrize("program", PROGRAMS, ids=["processes", "pool", "joblib", "dask", "ray"])
def test_the_recipes_run(program: str, tmp_path) -> None:
    if "import ray" in program and importlib.util.find_spec("ray") is None:
        pytest.skip("needs ovjit[ray]")
    (tmp_path / "program.py").write_text(program)
    assert printed("program.py", folder=tmp_path, seconds=100) == f"359 of {len(LABELS)} right\n"
