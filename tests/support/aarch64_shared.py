"""What processes, threads and pages share, in one process: it is asked twice with the same folder.

    python -m tests.support.aarch64_shared FOLDER

The first process writes a blob, a model in CACHE_DIR and kernels; the second finds all of them. Both run four
streams with queues, callbacks that raise and threads, then a network between inaccessible pages. Prints the
bytes of a page, and what was found.
"""

from __future__ import annotations

import mmap
import sys
import threading
from pathlib import Path

import numpy as np

import ovjit as ov
from ovjit.data import digits
from tests.support import guard_pages
from tests.support.threads import start_and_join

STREAMS, JOBS, IMAGES = 4, 6, 40
SETTINGS = {"NUM_STREAMS": STREAMS, "INFERENCE_NUM_THREADS": STREAMS}


class Boom(Exception):
    """What a callback raises."""


def queues(compiled: ov.CompiledModel, images: np.ndarray, answers: np.ndarray) -> None:
    """Results by callbacks, and the exception of one of them."""
    queue, seen = ov.AsyncInferQueue(compiled, JOBS), {}

    def keep(request: ov.InferRequest, i: int) -> None:
        seen[i] = request.get_output_tensor(0).data.copy()
        if i == IMAGES // 2:
            raise Boom(i)

    queue.set_callback(keep)
    raised = 0
    for i in range(IMAGES):
        try:
            queue.start_async(images[i : i + 1], i)
        except Boom:
            raised += 1
            queue.start_async(images[i : i + 1], i)
    try:
        queue.wait_all()
    except Boom:
        raised += 1
    queue.wait_all()
    assert raised == 1 and sorted(seen) == [*range(IMAGES)]
    for i, got in seen.items():
        assert np.array_equal(got[0], answers[i]), i


def threads(compiled: ov.CompiledModel, images: np.ndarray, answers: np.ndarray) -> None:
    """A request per thread."""
    wrong: list[object] = []

    def work(first: int) -> None:
        try:
            request = compiled.create_infer_request()
            for i in range(first, IMAGES, STREAMS):
                request.start_async(images[i : i + 3])
                request.wait()
                if not np.array_equal(request.get_output_tensor(0).data, answers[i : i + 3]):
                    wrong.append(i)
        except Exception as error:
            wrong.append(error)

    running = [threading.Thread(target=work, args=(first,)) for first in range(STREAMS)]
    start_and_join(running)
    assert not wrong, wrong


def files(folder: Path, path: Path | str, images: np.ndarray, answers: np.ndarray) -> list[str]:
    """What was found of an earlier process: the blob's code, and the model in CACHE_DIR."""
    blob, core, found = folder / "digits.blob", ov.Core(), []
    if blob.exists():
        imported = core.import_model(blob.read_bytes(), "CPU")
        assert np.array_equal(imported(images)[0], answers)
        found.append(f"blob {imported.get_property('LOADED_FROM_CACHE')}")
    cached = core.compile_model(str(path), "CPU", {"CACHE_DIR": str(folder / "models")})
    assert np.array_equal(cached(images)[0], answers)
    found.append(f"cached {cached.get_property('LOADED_FROM_CACHE')}")
    blob.write_bytes(cached.export_model().getvalue())
    return found


def between_pages(path: Path | str, images: np.ndarray, answers: np.ndarray) -> None:
    """All that kernels see ends at an inaccessible page."""
    from ovjit.engine import compile_graph

    guard_pages.install(guard_pages.BEHIND)
    job = compile_graph(ov.Core().read_model(str(path))._graph(), {"threads": 1}).new_job()
    job.set_input(0, guard_pages.guarded(images[:5], guard_pages.BEHIND))
    out = guard_pages.empty(answers[:5].shape, np.float32, guard_pages.BEHIND)
    job.set_output(0, out)
    job.run()
    np.testing.assert_allclose(out, answers[:5], 1e-5, 1e-6)


def main(folder: Path) -> None:
    path, images, _ = digits()
    images = images[: IMAGES + 2]
    compiled = ov.compile_model(path, "CPU", SETTINGS)
    assert compiled.get_property("NUM_STREAMS") == STREAMS
    answers = np.array(compiled(images)[0])
    queues(compiled, images, answers)
    threads(compiled, images, answers)
    found = files(folder, path, images, answers)
    between_pages(path, images, answers)
    print(mmap.PAGESIZE, *found, sep=", ")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
