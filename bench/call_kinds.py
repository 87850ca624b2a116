"""The ways to ask for an inference, as zero-argument calls; the same code on ovjit and the real OpenVINO.

Every kind has a request and arrays of its own: the real OpenVINO copies into whatever array an earlier call
lent to the same request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

#: Items that go through a queue between two `wait_all`.
BURST = 64


def make_calls(
    ov: Any, compiled: Any, inputs: list[np.ndarray], jobs: int
) -> dict[str, tuple[Callable[[], Any], int]]:
    """Kind -> (call, number of inferences in one call). `ov` is the module that compiled the model."""

    def fresh() -> list[np.ndarray]:
        return [a.copy() for a in inputs]

    def by_index() -> dict[int, np.ndarray]:
        return dict(enumerate(fresh()))

    def request(given: list[np.ndarray] | None = None) -> Any:
        made = compiled.create_infer_request()
        made.infer(fresh() if given is None else given)
        return made

    compiled_dict, compiled_list = by_index(), fresh()
    copied, shared, kept, started = by_index(), by_index(), fresh(), by_index()
    infer_copied = request().infer
    infer_shared = request().infer
    infer_kept = request(kept).infer
    starting = request()

    def start_and_wait() -> None:
        starting.start_async(started)
        starting.wait()

    def through(queue: Any) -> Callable[[], None]:
        given = by_index()
        start, wait_all = queue.start_async, queue.wait_all

        def burst() -> None:
            for i in range(BURST):
                start(given, i)
            wait_all()

        return burst

    plain = ov.AsyncInferQueue(compiled, jobs)
    calling = ov.AsyncInferQueue(compiled, jobs)
    seen = [0] * BURST

    def note(done: Any, index: int) -> None:
        seen[index] += 1

    calling.set_callback(note)
    return {
        "compiled(dict)": (lambda: compiled(compiled_dict), 1),
        "compiled(list)": (lambda: compiled(compiled_list), 1),
        "infer(dict)": (lambda: infer_copied(copied), 1),
        "infer(dict, shared both ways)": (
            lambda: infer_shared(shared, share_inputs=True, share_outputs=True),
            1,
        ),
        "infer()": (infer_kept, 1),
        "start_async(dict), wait()": (start_and_wait, 1),
        f"queue of {jobs}": (through(plain), BURST),
        f"queue of {jobs}, callback": (through(calling), BURST),
    }
