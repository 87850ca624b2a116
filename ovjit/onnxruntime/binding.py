"""IOBinding: inputs and outputs of a run in memory that the caller holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.onnxruntime.dlpack import view_memory
from ovjit.onnxruntime.engine import Engine
from ovjit.onnxruntime.failures import NAMES, Fail, InvalidArgument, failure_of, text_of
from ovjit.onnxruntime.feeds import check_shape
from ovjit.onnxruntime.options import RunOptions
from ovjit.onnxruntime.values import OrtDevice, OrtValue, OrtValueVector, element_number, storage_dtype


class IOBinding:
    """The bound inputs and outputs of a session. Outputs that are bound to no memory are allocated by each
    run."""

    def __init__(self, session: Any) -> None:
        self._session: Engine = session._sess
        self._inputs: dict[str, OrtValue] = {}
        self._outputs: dict[str, OrtValue | None] = {}
        self._results: list[OrtValue] = []

    @property
    def _iobinding(self) -> IOBinding:
        return self

    def _bind_input(self, name: str, value: OrtValue) -> None:
        if name not in self._session._checks:
            raise RuntimeError(f"Failed to find NodeArg with name: {name} in the def list")
        self._inputs[name] = value

    def bind_cpu_input(self, name: str, arr_on_cpu: np.ndarray) -> None:
        """Bind an input to an array, whose memory is read by each run if it is C-contiguous."""
        if not isinstance(arr_on_cpu, np.ndarray):
            raise RuntimeError("Unable to create OrtValue from the given python object")
        if arr_on_cpu.dtype.kind in "SUO":
            raise RuntimeError("Only binding non-string Tensors is currently supported")
        self._bind_input(name, OrtValue.ortvalue_from_numpy(arr_on_cpu))

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: Sequence[int],
        buffer_ptr: int,
    ) -> None:
        """Bind an input to memory at an address, which the caller keeps alive."""
        _refuse_other_memory(device_type, device_id)
        self._bind_input(name, _value_at(element_type, shape, buffer_ptr))

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Bind an input to a value."""
        self._bind_input(name, ortvalue._get_c_value())

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Bind an output to memory at an address, or without one have each run allocate it."""
        if buffer_ptr is None:
            OrtDevice.make(device_type, device_id)  # results are in the CPU's memory on every device
            self._outputs[name] = None
            return
        if element_type is None or shape is None:
            raise ValueError(
                "`element_type` and `shape` are to be provided if pre-allocated memory is provided"
            )
        _refuse_other_memory(device_type, device_id)
        self._outputs[name] = _value_at(element_type, shape, buffer_ptr)

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Bind an output to a value's memory."""
        self._outputs[name] = ortvalue._get_c_value()

    def synchronize_inputs(self) -> None:
        """Do nothing: the CPU's memory needs no synchronization."""

    def synchronize_outputs(self) -> None:
        """Do nothing: the CPU's memory needs no synchronization."""

    def get_outputs(self) -> list[OrtValue]:
        """The outputs of the last run, in the order in which they were bound."""
        return list(self._results)

    def get_outputs_as_ortvaluevector(self) -> OrtValueVector:
        """The outputs of the last run."""
        return OrtValueVector(self._results)

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        """Copies of the outputs of the last run."""
        return [np.copy(value.numpy()) if value.is_tensor() else value._array for value in self._results]

    def clear_binding_inputs(self) -> None:
        """Forget the inputs."""
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Forget the outputs, and the results."""
        self._outputs.clear()
        self._results = []

    def _run(self, run_options: RunOptions | None) -> None:
        """Run the session. RuntimeError for bindings that do not fit, as ONNX Runtime has it."""
        try:
            self._results = self._compute(run_options)
        except Exception as error:
            if type(error).__name__ not in NAMES:
                raise
            raise RuntimeError(f"Error in execution: {text_of(error)}") from error

    def _compute(self, run_options: RunOptions | None) -> list[OrtValue]:
        engine = self._session
        if run_options is not None and run_options.terminate:
            raise failure_of(Fail, "Exiting due to terminate flag being set to true.")
        if not self._outputs:
            raise failure_of(InvalidArgument, "At least one output should be requested.")
        for arg in engine.inputs:
            if arg.name not in self._inputs:
                raise failure_of(
                    Fail, f"Non-zero status code returned while running the model: Missing Input: {arg.name}"
                )
        arrays = engine.checked_feeds(self._inputs)
        positions = engine.positions_of(self._outputs, " ")
        for position, target in zip(positions, self._outputs.values(), strict=True):
            if target is not None:
                _check_target(engine, position, target)
        results = engine.compute(arrays)
        values = []
        for position, target in zip(positions, self._outputs.values(), strict=True):
            value = engine.value_of(position, results[position])
            if target is not None:
                value = _copied_to(target, value, engine.outputs[position].name)
            values.append(value)
        return values


def _refuse_other_memory(device_type: str, device_id: int) -> None:
    if OrtDevice.make(device_type, device_id).device_type():
        raise RuntimeError(f"the memory of the device {device_type!r} cannot be read: bind memory of the CPU")


def _value_at(element_type: Any, shape: Sequence[int], address: int) -> OrtValue:
    """The value of a tensor in memory at an address."""
    number = element_number(element_type)
    return OrtValue._of(view_memory(address, storage_dtype(number), tuple(shape)), number)


def _check_target(engine: Engine, position: int, target: OrtValue) -> None:
    arg = engine.outputs[position]
    if target.data_type() != arg.type:
        raise failure_of(
            InvalidArgument,
            f"Unexpected output data type. Actual: ({target.data_type()}) , expected: ({arg.type})",
        )
    if arg._shape or not target.shape():
        check_shape("output", arg, tuple(target.shape()))


def _copied_to(target: OrtValue, value: OrtValue, name: str) -> OrtValue:
    if target.shape() != value.shape():
        bound, computed = (",".join(map(str, v.shape())) for v in (target, value))
        raise failure_of(
            Fail,
            "Non-zero status code returned while running the model: The output OrtValue provided for output "
            f"'{name}' has shape {{{bound}}} but the computed output shape for this run is {{{computed}}}.",
        )
    target._tensor()[...] = value._tensor()
    return target


IOBinding.__module__ = "onnxruntime.capi.onnxruntime_inference_collection"
