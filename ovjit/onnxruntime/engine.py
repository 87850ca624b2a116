"""A loaded model compiled and run: inputs are checked, outputs are as ONNX Runtime returns them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.errors import OvjitError, arguments_error
from ovjit.onnxruntime.element_types import TYPES, number_of_text
from ovjit.onnxruntime.failures import STATE, Fail, InvalidArgument, failure_of, refuse, refuse_pickle
from ovjit.onnxruntime.feeds import InputCheck, SequenceCheck
from ovjit.onnxruntime.graph_info import add_known_dimensions, read_metadata
from ovjit.onnxruntime.loading import LoadedModel
from ovjit.onnxruntime.options import RunOptions, SessionOptions
from ovjit.onnxruntime.values import OrtValue
from ovjit.onnxruntime.variants import Variant, Variants

#: The beginnings of the types of inputs.
_TAKEN = ("tensor(", "optional(tensor(", "seq(tensor(")
#: The beginning of ovjit's message about a node that cannot compute.
_NODE = re.compile(r"node '([^']*)' \((\w+)\): ")


class Engine:
    """The native session of an InferenceSession. Threads may share it."""

    def __init__(self, source: str | bytes, options: SessionOptions) -> None:
        self.options = options
        self._loaded = loaded = LoadedModel(source, options)
        self.metadata = read_metadata(loaded.opened.proto)
        self.inputs, self.outputs, self.overridable = loaded.inputs, loaded.outputs, loaded.overridable
        for arg in (*self.inputs, *self.overridable):
            if not number_of_text(arg.type) or not arg.type.startswith(_TAKEN):
                refuse(f"inputs of type {arg.type} ({arg.name})", "change the model to take tensors")
        self._output_rows = [TYPES.get(number_of_text(arg.type)) for arg in self.outputs]
        #: True if an output has an element type that NumPy does not have.
        self._has_odd_types = any(row is not None and row.dtype is None for row in self._output_rows)
        self.output_index = {arg.name: i for i, arg in enumerate(self.outputs)}
        self._picks: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._events: list[dict[str, Any]] = []
        self._start = time.monotonic_ns()
        self._profile = self._profile_path() if options.enable_profiling else ""
        self._variants = variants = Variants(loaded, options)
        ports: dict[str, Any] = {}
        if variants.plain is not None:
            for port in variants.plain.compiled.inputs:
                ports.update(dict.fromkeys(port.get_names(), port))
            add_known_dimensions(self.outputs, variants.plain.output_shapes())
        self._checks = {
            arg.name: (SequenceCheck if arg.type.startswith("seq(") else InputCheck)(
                arg, arg.name not in loaded.rankless, ports.get(arg.name)
            )
            for arg in (*self.inputs, *self.overridable)
        }
        if options.optimized_model_filepath:
            self._write_model(options.optimized_model_filepath)

    # -- a run ---------------------------------------------------------------------------------------------

    def checked_feeds(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The arrays of a run's inputs. Raises ONNX Runtime's errors for inputs that do not fit."""
        checks = self._checks
        arrays = {}
        for name, value in feeds.items():
            check = checks.get(name)
            if check is None:
                raise failure_of(InvalidArgument, f"Invalid input name: {name}")
            if (
                type(value) is not np.ndarray
                or value.shape != check.shape
                or (value.dtype is not check.dtype and (check.dtype is None or value.dtype != check.dtype))
            ):
                value = check.convert(value)
            arrays[name] = value
        return arrays

    def positions_of(self, names: Any, separator: str = "") -> tuple[int, ...]:
        """The places of outputs in the graph. InvalidArgument for names that it does not have."""
        key = tuple(names)
        positions = self._picks.get(key)
        if positions is None:
            for name in key:
                if name not in self.output_index:
                    raise failure_of(InvalidArgument, f"Invalid output name:{separator}{name}")
            positions = self._picks[key] = tuple(self.output_index[name] for name in key)
        return positions

    def compute(self, arrays: dict[str, np.ndarray]) -> list[Any]:
        """All outputs of the graph, of arrays that `checked_feeds` returned."""
        variant = self._variants.choose(arrays)
        if len(arrays) != len(variant.names):
            arrays = {name: array for name, array in arrays.items() if name in variant.names}
        try:
            if self._profile:
                outputs = self._profile_run(variant, arrays)
            else:
                outputs = variant.compiled(arrays).to_tuple()
        except OvjitError as error:
            raise failure_of(Fail, _run_text(str(error))) from error
        if variant.is_plain:
            return list(outputs)
        return [pick(outputs) for pick in variant.pickers]

    def run(self, names: Any, feeds: Mapping[str, Any], run_options: RunOptions | None) -> list[Any]:
        """The outputs of these names as arrays, lists and dicts."""
        if run_options is not None or type(names) is not list or not all(type(n) is str for n in names):
            self._check_arguments("run", names, feeds, run_options)
        arrays = self.checked_feeds(feeds)
        positions = self.positions_of(names)
        results = self.compute(arrays)
        if self._has_odd_types:
            self._refuse_odd_types(positions)
        if len(positions) > 1 and len(set(positions)) < len(positions):
            return [
                np.copy(results[i]) if isinstance(results[i], np.ndarray) else results[i] for i in positions
            ]
        return [results[i] for i in positions]

    def _refuse_odd_types(self, positions: Sequence[int]) -> None:
        for row in (self._output_rows[i] for i in positions):
            if row is not None and row.dtype is None:
                raise RuntimeError(f"No corresponding Numpy type for Tensor Type. {row.word}")

    def _check_arguments(self, function: str, names: Any, feeds: Any, run_options: Any) -> None:
        if run_options is None or isinstance(run_options, RunOptions):
            is_list = isinstance(names, Sequence) and not isinstance(names, str)
            if is_list and all(isinstance(name, str) for name in names):
                if run_options is not None and run_options.terminate:
                    raise failure_of(Fail, "Exiting due to terminate flag being set to true.")
                return
        parameters = [
            f"self: {STATE}.InferenceSession", "arg0: collections.abc.Sequence[str]",
            "arg1: collections.abc.Mapping[str, object]", f"arg2: {STATE}.RunOptions",
        ]  # fmt: skip
        why = "names of outputs are a list of str, options a RunOptions"
        raise arguments_error(function, "function", parameters, [self, names, feeds, run_options], {}, why)

    def run_values(
        self, names: Any, feeds: Mapping[str, Any], run_options: RunOptions | None
    ) -> list[OrtValue]:
        """The outputs of these names as OrtValues."""
        self._check_arguments("run_with_ort_values", names, feeds, run_options)
        arrays = self.checked_feeds(feeds)
        positions = self.positions_of(names)
        results = self.compute(arrays)
        return [self.value_of(i, results[i]) for i in positions]

    def value_of(self, position: int, result: Any) -> OrtValue:
        """The OrtValue of an output."""
        number = number_of_text(self.outputs[position].type)
        if isinstance(result, np.ndarray):
            row = TYPES[number]
            if row.dtype is None and row.storage != "packed":
                return OrtValue._of(result.view(row.storage), number)
            return OrtValue._of(result, number)
        return OrtValue._of(result, number, ())

    # -- files ---------------------------------------------------------------------------------------------

    def _profile_path(self) -> str:
        return f"{self.options.profile_file_prefix}_{time.strftime('%Y-%m-%d_%H-%M-%S')}.json"

    def _profile_run(self, variant: Variant, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """Run on a request of its own, and keep the steps' times as events."""
        request = variant.compiled.create_infer_request()
        begin = (time.monotonic_ns() - self._start) // 1000
        outputs = request.infer(arrays).to_tuple()
        self._events.append(self._event("Session", "model_run", begin, int(request.latency * 1000), {}))
        for info in request.get_profiling_info():
            duration = int(info.real_time.total_seconds() * 1e6)
            about = {"op_name": info.node_type, "provider": "CPUExecutionProvider"}
            self._events.append(self._event("Node", f"{info.node_name}_kernel_time", begin, duration, about))
            begin += duration
        return outputs

    def _event(
        self, category: str, name: str, begin: int, duration: int, about: dict[str, str]
    ) -> dict[str, Any]:
        return {
            "cat": category, "pid": os.getpid(), "tid": 0, "dur": duration, "ts": begin, "ph": "X",
            "name": name, "args": about,
        }  # fmt: skip

    def end_profiling(self) -> str:
        """Write the events of all runs, as Chrome's tracing reads them. Returns the file, "" without
        `enable_profiling`."""
        path, self._profile = self._profile, ""
        if path:
            with open(path, "w", encoding="utf-8") as file:
                json.dump(self._events, file)
        return path

    @property
    def profiling_start(self) -> int:
        return self._start

    def _write_model(self, path: str) -> None:
        """Write the model as it was read: ovjit's rewrites have no form in ONNX."""
        loaded = self._loaded
        if loaded.opened.external.has_files:
            refuse("optimized_model_filepath for models with external data", "leave the option out")
        if loaded.path is not None and not loaded.is_changed:
            with open(loaded.path, "rb") as file:
                content = file.read()
        elif loaded.opened.external.cut:
            refuse("optimized_model_filepath with changed models or bytes", "leave the option out")
        else:
            content = loaded.opened.proto.SerializeToString()
        with open(path, "wb") as file:
            file.write(content)

    def __reduce__(self) -> Any:
        refuse_pickle(self)


def _run_text(text: str) -> str:
    """A message about a run that failed, with ONNX Runtime's words about the node."""
    node = _NODE.match(text)
    if node is None:
        return f"Non-zero status code returned while running the model. Status Message: {text}"
    name, operator = node.groups()
    message = text[node.end() :]
    begin = f"Non-zero status code returned while running {operator} node. Name:'{name}'"
    return f"{begin} Status Message: {message}"


Engine.__name__ = Engine.__qualname__ = "InferenceSession"
Engine.__module__ = STATE
