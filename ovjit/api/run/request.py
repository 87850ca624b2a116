"""`InferRequest`: one inference at a time, synchronous or not, with tensors of its own.

This file keeps the common path through `infer` short. Arrays that fit pass a few comparisons. Rare cases are
elsewhere (`inputs.py`, `slots.py`) or behind a flag that is usually False.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.api.accessors import accessor
from ovjit.api.arguments import expect, takes
from ovjit.api.model.node import ConstOutput
from ovjit.api.run.inputs import assign_inputs
from ovjit.api.run.request_guard import GUARDED, NOTHING, NOTIFIED, SILENT, exclusive, wait_quietly
from ovjit.api.run.request_tensors import RequestTensors
from ovjit.api.run.results import OVDict
from ovjit.api.run.slots import PACKED, SAME, STRING, InputSlot, OutputSlot
from ovjit.api.tensors.memory import decode_array, place_of
from ovjit.errors import no_such_constructor, no_such_form
from ovjit.execution.blocks import copy_results
from ovjit.execution.layout import IDLE, STATE

if TYPE_CHECKING:
    from ovjit.api.run.compiled_record import CompiledRecord
    from ovjit.api.run.profiling import ProfilingInfo
    from ovjit.api.run.variable_state import VariableState
    from ovjit.execution.states import States

_ndarray = np.ndarray
_get_ident = threading.get_ident


class InferRequest(RequestTensors):
    """One inference at a time on a compiled model; made by `CompiledModel.create_infer_request`.

    Not for use by several threads at once: the second one gets a RuntimeError.
    """

    __slots__ = ("__dict__", "__weakref__", "_ports", "_set_input")
    _set_input: Callable[[int, np.ndarray, int], None]
    _ports: tuple[ConstOutput, ...]

    def __new__(cls, other: InferRequest) -> InferRequest:
        """`InferRequest(request)` is that request."""
        return expect(other, InferRequest, "InferRequest() takes an InferRequest", no_such_constructor)

    @classmethod
    def _make(cls, compiled: CompiledRecord) -> InferRequest:
        self = object.__new__(cls)
        job = compiled._executable.new_job()
        self._compiled = compiled
        self._job = job
        self._run = job.run
        self._set_input = job.set_input
        self._inputs = [InputSlot(i, info) for i, info in enumerate(compiled._input_infos)]
        self._outputs = [OutputSlot(i, info) for i, info in enumerate(compiled._output_infos)]
        self._ports = compiled._output_ports
        self._remotes = {}
        self._same = all(slot.way == SAME for slot in self._outputs)
        # key -> slot, apart for every type of key, because 1.0 and numpy.int64(1) would be found under 1
        self._tables = {
            int: dict(enumerate(self._inputs)),
            str: {name: slot for slot in reversed(self._inputs) for name in slot.info.names},
            ConstOutput: dict(zip(compiled._input_ports, self._inputs, strict=True)),
        }
        self._ready = not self._inputs
        self._bound = []
        self._shown = []
        self._user_outputs = []
        self._set_idle()
        return self

    # -- running -------------------------------------------------------------------------------------------

    def infer(
        self, inputs: Any = None, share_inputs: bool = False, share_outputs: bool = False, *,
        decode_strings: bool = True,
    ) -> OVDict:  # fmt: skip
        """Run one inference and return its outputs.

        `inputs`: a dict by index, name or port; a list or tuple in the model's order; for a single input
        also an array, a Tensor or a number. Those not given keep their value. `share_inputs`: C-contiguous
        writeable arrays of the right dtype are read where they lie, else copied. `share_outputs`: the
        result's arrays are overwritten by the next inference of this request.

        RuntimeError if the inputs do not fit or the request is busy, TypeError for inputs of another kind.
        """
        if not self._acquire(False):
            self._claim()
        try:
            if inputs is not None:
                self._assign(inputs, share_inputs)
            return self._infer(share_outputs, decode_strings)
        finally:
            self._release()

    def _is_single_input(self) -> bool:
        return len(self._inputs) == 1

    def _assign(self, inputs: Any, share: bool) -> None:
        """Set the inputs that are given: arrays that fit at once, all else by `assign_inputs`."""
        kind = type(inputs)
        if kind is _ndarray:
            pairs: Any = ((0, inputs),) if len(self._inputs) == 1 else ()
        elif kind is dict:
            pairs = inputs.items()
        elif kind is list or kind is tuple:
            pairs = enumerate(inputs)
        else:
            pairs = ()
        ready = []
        slot: Any = None
        tables = self._tables
        try:
            if share:
                for key, value in pairs:
                    slot = tables[type(key)][key]
                    if (
                        type(value) is not _ndarray
                        or (value.dtype is not slot.dtype and value.dtype != slot.dtype)  # as unpickled ones
                        or (value.shape != slot.shape and not slot.takes_shape(value.shape))
                        or not value.flags.carray
                    ):
                        break
                    if value is not slot.current or slot.holder.value != slot.address:
                        ready.append((slot, value))
                else:
                    for slot, value in ready:
                        # set again unless this comes to its end: Ctrl-C may come in between
                        slot.target = slot.own_shape = slot.current = None
                        if value.base is not None:
                            self._job.leave_results(value.base)
                        slot.shape = value.shape
                        slot.holder = holder = place_of(value)
                        slot.address = holder.value
                        self._set_input(slot.index, value, slot.address)
                        slot.current = value
                    if slot is not None:
                        return
            else:
                for key, value in pairs:
                    slot = tables[type(key)][key]
                    if (
                        type(value) is not _ndarray
                        or value.shape != slot.own_shape
                        or (value.dtype is not slot.dtype and value.dtype.kind not in "fiub")
                    ):
                        break
                    ready.append((slot, value))
                else:
                    for slot, value in ready:
                        slot.native[...] = value
                    if ready:
                        return
        except KeyError:
            pass  # the long way finds out what is wrong
        assign_inputs(self, inputs, share)
        self._note_slots()

    def _prepare(self) -> None:
        """Called before a run, if inputs were never set or the user may have changed tensors."""
        for slot in self._inputs:
            if slot.current is None:
                slot.clear(self._job)
        self._note_slots()
        for slot in self._bound:
            slot.refresh(self._job)
        for out in self._user_outputs:
            out.aim(self._job)

    def _infer(self, share_outputs: bool, decode_strings: bool) -> OVDict:
        if self._bound or self._user_outputs or not self._ready:
            self._prepare()
        self._run()
        if self._shown:
            for slot in self._shown:
                slot.finish(self._job)
        if self._error is not None:
            self._error = None
        arrays = self._job.outputs
        if not self._same:
            return OVDict(self._ports, self._convert_outputs(share_outputs, decode_strings))
        if share_outputs:
            return OVDict(self._ports, [a.view() for a in arrays])
        if len(arrays) == 1:
            return OVDict(self._ports, [copy_results(arrays[0])])
        return OVDict(self._ports, [copy_results(a) for a in arrays])

    def _convert_outputs(self, share: bool, decode_strings: bool) -> list[np.ndarray]:
        """The outputs as results show them, where that is not the job's own form."""
        arrays: list[np.ndarray] = []
        for slot, array in zip(self._outputs, self._job.outputs, strict=True):
            remote = self._remote(slot)
            if remote is not None:
                arrays.append(remote)  # the caller copies it where he wants it
            elif slot.way == STRING:
                arrays.append(decode_array(array) if decode_strings else array.astype("S"))
            else:
                shown = slot.as_data(array)
                arrays.append(shown.view() if share or slot.way == PACKED else copy_results(shown))
        return arrays

    def start_async(self, inputs: Any = None, userdata: Any = None, share_inputs: bool = False) -> None:
        """Start an inference and return at once; `wait` for its end. Inputs as for `infer`.

        `userdata` replaces the one of `set_callback`. Shared arrays are kept alive until other inputs come.
        RuntimeError if the inputs do not fit or the request is busy.
        """
        starting = False
        if not self._acquire(False):
            self._claim()
        try:
            if inputs is not None:
                self._assign(inputs, share_inputs)
            if self._bound or self._user_outputs or not self._ready:
                self._prepare()
            if userdata is not None:
                if self._callback is None:
                    warnings.warn("There is no callback function!", RuntimeWarning, stacklevel=2)
                else:
                    self._userdata = userdata
            job = self._job
            if self._calling and self._calling == _get_ident():
                self._error = None
                self._pending = NOTIFIED
                self._again = True
                return
            if job.words[STATE] != IDLE:
                wait_quietly(job)  # for the callback, if one still runs
            self._error = None
            notify = self._callback is not None
            if notify:
                job.client = self
            self._starting = self._started = starting = True
            self._owes = None
            self._pending = NOTIFIED if notify else SILENT
            job.start(notify)
            self._starting = False
        except BaseException:
            self._starting = False
            if starting and self._job.is_started:
                raise  # interrupted too late: it runs
            self._pending = NOTHING
            self._release()
            raise

    @takes
    def set_callback(self, callback: Callable[[Any], Any], userdata: Any) -> None:
        """Set the function `callback(userdata)`, which workers call after every successful asynchronous
        inference."""
        if not callable(callback):
            raise no_such_form(f"a callback is callable, {type(callback).__name__} is not")
        self._call_back_with(callback, userdata)

    @exclusive
    def _call_back_with(self, callback: Callable[[Any], Any], userdata: Any) -> None:
        self._callback = callback
        self._userdata = userdata

    @property
    def userdata(self) -> Any:
        return self._userdata

    @property
    @exclusive
    def results(self) -> OVDict:
        """Copies of all outputs; strings as str."""
        if self._same:
            return OVDict(self._ports, [copy_results(a) for a in self._job.outputs])
        return OVDict(self._ports, self._convert_outputs(False, True))

    @property
    def latency(self) -> float:
        """Duration of the last inference in ms."""
        return float(self._job.latency_ns) / 1e6

    def get_profiling_info(self) -> list[ProfilingInfo]:
        """One entry per layer of the last inference; NOT_RUN and no times unless compiled with PERF_COUNT."""
        from ovjit.api.run.profiling import profiling_infos

        self._check_idle()
        return profiling_infos(self._job.profile())

    profiling_info = accessor(get_profiling_info)

    def query_state(self) -> list[VariableState]:
        """The variables of the model's ReadValue and Assign operations, as this request has them."""
        self._check_idle()
        states = self._job.states()
        if states is None:
            return []
        from ovjit.api.run.variable_state import VariableState
        from ovjit.rewrite.hoist import UNSET

        names = {variable.name: k for k, variable in enumerate(states.variables)}
        return [
            VariableState(self, states, k, names.get(name + UNSET))
            for name, k in names.items()
            if not name.endswith(UNSET)
        ]

    def reset_state(self) -> None:
        """Reset every variable to its initial value."""
        states = self._job.states()
        if states is not None:
            self._reset_states(states)

    @exclusive
    def _reset_states(self, states: States) -> None:
        states.reset_all()

    def get_compiled_model(self) -> Any:
        """The CompiledModel that made it."""
        return self._compiled

    @property
    def model_inputs(self) -> list[ConstOutput]:
        return list(self._compiled._input_ports)

    @property
    def model_outputs(self) -> list[ConstOutput]:
        return list(self._compiled._output_ports)

    def __copy__(self, memory: Any = None) -> InferRequest:
        raise TypeError("cannot pickle 'InferRequest' object")

    __deepcopy__ = __reduce__ = __copy__  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<InferRequest:\n{self._compiled._ports_text()}>"


GUARDED.update((id(InferRequest.infer.__code__), id(InferRequest.start_async.__code__)))
