"""Models with variables on a card: their values stay in its memory between the runs of a job.

The next value of a variable is an output of the main program that is not copied to the host. It is the input
of the next run where it lies, and the memory of the value before it is written next. A value is copied to the
host when the caller reads it. Rows are reordered by beams on the card.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

from ovjit.execution.executable import Executable
from ovjit.execution.job import Job
from ovjit.execution.states import Cell, States, in_order
from ovjit.execution.variables import StatefulProgram
from ovjit.gpu import memory as device_memory
from ovjit.gpu.device_job import DeviceJob, stand_in
from ovjit.gpu.driver import Card, CardError
from ovjit.gpu.memory import DeviceMemory, DeviceTensor, row_strides
from ovjit.graph import dtypes


class CardStates(States):
    """The values of a job's variables, on the card from the first run on."""

    #: The job whose stream copies values to the host, once it has run.
    inner: DeviceJob | None = None

    def tensor(self, k: int) -> DeviceTensor | None:
        """The value of variable `k` on the card; None if it is an array of the host, or was reset."""
        memory: Any = self.cells[k][1]
        return memory if isinstance(memory, DeviceTensor) else None

    def _fetch(self, k: int) -> None:
        """Copy a value to the host, where it stays until the next run."""
        tensor = self.tensor(k)
        if tensor is not None:
            assert self.inner is not None
            array = np.empty(tensor.shape, dtypes.numpy_dtype(self.variables[k].storage.dtype))
            device_memory.download(tensor, array, self.inner.device.stream)
            self.cells[k] = array, None

    def show(self, k: int) -> np.ndarray:
        self._fetch(k)
        return super().show(k)

    def cut(self, k: int, axis: int, length: int) -> None:
        tensor = self.tensor(k)
        if tensor is None:
            super().cut(k, axis, length)
            return
        assert self.inner is not None
        shape = tuple(min(length, d) if a == axis else d for a, d in enumerate(tensor.shape))
        part = new_tensor(tensor.card, shape, tensor.itemsize)
        device_memory.copy(tensor._replace(shape=shape), part, self.inner.device.stream)
        self.cells[k] = _cell(part, self.variables[k].storage.dtype)


class CardProgram(StatefulProgram):
    """The program of a graph with ReadValue and Assign on a card."""

    #: Jobs leave remote inputs and outputs to `run`.
    takes_remote = True

    def states_of(self, job: Job) -> CardStates:
        states: CardStates | None = job.notes.get(self)
        if states is None:
            computed = [init is not None for init in self.inits()]
            states = job.notes[self] = CardStates(self.variables, computed)
        return states

    def run(self, job: Job) -> None:
        states, inner = self.states_of(job), job.part_job(self.main)
        assert isinstance(job, DeviceJob) and isinstance(inner, DeviceJob)
        states.inner = inner
        inner.resident = range(self.public_outputs, len(inner.outputs))
        self._pass_tensors(job, inner)
        self._run_on_card(job, inner, states)

    def _pass_tensors(self, job: DeviceJob, inner: DeviceJob) -> None:
        """Give the inner job the caller's inputs, and its outputs on the card."""
        count = len(job.inputs)
        for i, array in enumerate(job.inputs):
            assert array is not None
            if i in job.remote:
                inner.set_remote_input(i, job.remote[i])
            else:
                inner.set_input(i, array)
        for i in range(self.public_outputs):
            tensor = job.remote.get(count + i)
            if tensor is not None:
                inner.set_remote_output(i, tensor)
            elif len(inner.inputs) + i in inner.remote:
                inner.set_output(i, None)

    def _run_on_card(self, job: DeviceJob, inner: DeviceJob, states: CardStates) -> None:
        begun: dict[Executable, Job] = {}
        moved: dict[tuple[int, int], list[int]] = {}
        with inner.device.card:
            try:
                values = [
                    self._set_value(job, inner, states, k, begun, moved) for k in range(len(self.variables))
                ]
                self._run_inner(job, inner)
            except BaseException:
                with contextlib.suppress(CardError):  # rows may be on their way
                    inner.device.card.synchronize(inner.device.stream)
                raise
        self._store(inner, states, values)

    def _set_value(
        self, job: DeviceJob, inner: DeviceJob, states: CardStates, k: int, begun: dict[Executable, Job],
        moved: dict[tuple[int, int], list[int]],
    ) -> Cell:  # fmt: skip
        """Set the value of variable `k` as an input. Returns it as a cell."""
        i, tensor, order = self.public_inputs + k, states.tensor(k), self.variables[k].order
        if tensor is None:
            value = self._stored_value(job, inner, states, k, begun)
            if order >= 0:
                value = in_order(value, self._order(inner, order))
            inner.set_input(i, value)
            return value, None
        if order >= 0:
            key = order, tensor.shape[0]
            if key not in moved:
                moved[key] = self._order(inner, order).tolist()
            tensor = take_rows(tensor, moved[key], inner.device.stream)
        inner.set_remote_input(i, tensor)
        return _cell(tensor, self.variables[k].storage.dtype)

    def _order(self, inner: DeviceJob, i: int) -> np.ndarray:
        """The indices of rows in input i, as an array of the host."""
        array = inner.inputs[i]
        assert array is not None
        if i not in inner.remote:
            return array
        result = np.empty(array.shape, array.dtype)
        device_memory.download(inner.remote[i], result, inner.device.stream)
        return result

    def _store(self, inner: DeviceJob, states: CardStates, values: list[Cell]) -> None:
        """Store the values after the run. The memory of those before is written next."""
        cells = list(values)
        assigned = [k for k, variable in enumerate(self.variables) if variable.assigned]
        for i, k in enumerate(assigned, self.public_outputs):
            self.check_assigned(k, inner.outputs[i].shape)
        for i, k in enumerate(assigned, self.public_outputs):
            tensor = inner.take_resident(i)
            if tensor is None:
                cells[k] = inner.release_output(i), None
            else:
                cells[k] = _cell(tensor, self.variables[k].storage.dtype)
        states.store(cells)
        for i, k in enumerate(assigned, self.public_outputs):  # not before: a signal may stop this anywhere
            before: Any = values[k][1]
            if before is not None:
                inner.give_spare(i, before.owner)


def _cell(tensor: DeviceTensor, dtype: str) -> Cell:
    """A value on the card as a cell: an array without memory, and the tensor."""
    return stand_in(tensor.shape, dtype), tensor  # type: ignore[return-value]


def new_tensor(card: Card, shape: tuple[int, ...], itemsize: int) -> DeviceTensor:
    """A contiguous tensor in new memory."""
    memory = DeviceMemory(card, math.prod(shape) * itemsize)
    return DeviceTensor(card, memory.address, shape, row_strides(shape, itemsize), itemsize, memory)


def take_rows(tensor: DeviceTensor, order: list[int], stream: Any) -> DeviceTensor:
    """The rows of a tensor in this order, in new memory; the tensor itself if it is that of its rows. Rows
    that are not there are zeros."""
    rows = tensor.shape[0]
    if order == list(range(rows)):
        return tensor
    card, size = tensor.card, math.prod(tensor.shape[1:]) * tensor.itemsize
    result = new_tensor(card, (len(order), *tensor.shape[1:]), tensor.itemsize)
    for i, row in enumerate(order):
        if -rows <= row < rows:
            card.copy(result.address + i * size, tensor.address + row % rows * size, size, stream)
        elif size:
            card.clear(result.address + i * size, size, stream)
    return result
