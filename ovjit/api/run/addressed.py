"""Inferences on memory that is given by its addresses, as compiled parts of torch.compile run them."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.execution.layout import BASES
from ovjit.forks import members
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.shapes import is_static
from ovjit.planning.views import FIRST_IO

if TYPE_CHECKING:
    from ovjit.api.run.compiled import CompiledModel

Shape = tuple[int, ...]


class AddressedJob:
    """A job whose caller writes the addresses of inputs and outputs to `bases`. Not thread-safe.

    Memory at an address is C-contiguous and has the port's type. `bases` has the inputs first, and after
    them the outputs. The caller calls `prepare` if `shapes` are others, writes all addresses but those of
    outputs of open shape, and calls `run`. Then it takes each output of open shape by `take`.
    """

    __slots__ = ("__weakref__", "_job", "bases", "run", "shapes", "take")

    def __init__(self, compiled: CompiledModel):
        executable = compiled._executable
        self._job = job = executable.new_job()
        self.run = job.run
        #: Gives an output of the last run, of open shape. The array belongs to the caller.
        self.take = job.take_output
        #: The input shapes of the last `prepare`. None before, if it failed, and in a forked process.
        self.shapes: Sequence[Shape] | None = None
        #: None if Python takes part in inferences of these shapes. They need arrays.
        self.bases: Any = None
        for i, value in enumerate(executable.outputs):
            if is_static(value.shape):
                job.set_output(i, _array_without_memory(value, value.shape))
        _jobs.add(self)

    def prepare(self, shapes: Sequence[Shape]) -> None:
        """Get ready for these input shapes. Raises InferenceError if the model does not take them."""
        job, self.shapes, self.bases = self._job, None, None
        for i, (value, shape) in enumerate(zip(job.executable.inputs, shapes, strict=True)):
            job.set_input(i, _array_without_memory(value, shape), 0)
        job.unbind()
        job._bind()
        if not job.in_python:
            count = len(shapes) + len(job.outputs)
            self.bases = (ctypes.c_int64 * count).from_address(job.words[BASES] + 8 * FIRST_IO)
        self.shapes = shapes


def _array_without_memory(value: Any, shape: Shape) -> np.ndarray:
    """An array of a shape without memory of its own. It is a placeholder for data with an address."""
    return np.broadcast_to(np.zeros((), numpy_dtype(value.dtype)), shape)


_jobs: weakref.WeakSet[AddressedJob] = weakref.WeakSet()


def _after_fork() -> None:
    for job in members(_jobs):
        job.shapes = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
