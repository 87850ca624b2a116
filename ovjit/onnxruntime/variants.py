"""The compiled models of a session: one for most, further ones for what only a call decides.

A compiled model is for inputs of a known rank, and has initializers as constants. Calls with other ranks, or
with values for initializers, have a model each. A model with branches, whose conditions mostly depend on
sizes and on small switches such as a sampling rate, is compiled again for sizes and switches that come often:
the conditions are constants then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from ovjit.api.run.compiled import CompiledModel
from ovjit.api.run.core import Core
from ovjit.errors import OvjitError
from ovjit.onnxruntime.failures import NotImplemented, failure_of
from ovjit.onnxruntime.loading import Change, LoadedModel
from ovjit.onnxruntime.options import SessionOptions

_Picker = Callable[[tuple[np.ndarray, ...]], Any]
#: Calls with the same sizes and switches before a model is compiled for them, and models at most.
CALLS_BEFORE, MOST_MODELS = 16, 8
#: Sizes and switches that are counted at most.
_MOST_COUNTS = 1000


class Variant:
    """A compiled model. `pickers` make the graph's outputs of the model's."""

    def __init__(self, compiled: CompiledModel, pickers: Sequence[_Picker], is_plain: bool) -> None:
        self.compiled = compiled
        self.pickers = pickers
        self.names = frozenset(name for port in compiled.inputs for name in port.get_names())
        #: True if the graph's outputs are the model's, as they are.
        self.is_plain = is_plain

    def output_shapes(self) -> dict[str, list[int | None]]:
        """The shapes of the model's outputs by name, None for dynamic dimensions."""
        shapes: dict[str, list[int | None]] = {}
        for port in self.compiled.outputs:
            shape = port.get_partial_shape()
            if shape.rank.is_static:
                sizes = [dim.get_length() if dim.is_static else None for dim in shape]
                shapes.update(dict.fromkeys(port.get_names(), sizes))
        return shapes


class Variants:
    """The compiled models of a loaded one. Threads may share them."""

    def __init__(self, loaded: LoadedModel, options: SessionOptions) -> None:
        self._loaded = loaded
        self._config = _config_of(options)
        self._models: dict[Change, Variant] = {}
        self._overrides = frozenset(arg.name for arg in loaded.overridable)
        self._has_branches = any(node.op_type == "If" for node in loaded.opened.proto.graph.node)
        self._inputs = [arg.name for arg in loaded.inputs]
        self._switches = {
            arg.name for arg in loaded.inputs
            if not arg._shape and arg.name not in loaded.rankless
            and arg.type in ("tensor(int64)", "tensor(int32)", "tensor(bool)")
        }  # fmt: skip
        self._counts: dict[Change, int] = {}
        self._count_of_special = 0
        #: The model for calls that override nothing, None if the rank of an input is unknown.
        self.plain: Variant | None = None if loaded.rankless else self._compile(Change())

    def choose(self, arrays: dict[str, np.ndarray]) -> Variant:
        """The model for a call's inputs."""
        overrides = self._overrides and self._overrides.intersection(arrays)
        if not overrides and self._has_branches:
            special = self._special(arrays)
            if special is not None:
                return special
        if self.plain is not None and not overrides:
            return self.plain
        ranks = tuple((n, (-1,) * arrays[n].ndim) for n in self._loaded.rankless if n in arrays)
        return self._compile(Change(frozenset(overrides), ranks))

    def _special(self, arrays: dict[str, np.ndarray]) -> Variant | None:
        """The model for just these sizes and switches, None if they have not come often."""
        if not all(name in arrays for name in self._inputs):
            return None
        change = Change(
            frozenset(),
            tuple((name, arrays[name].shape) for name in self._inputs if name not in self._switches),
            tuple((name, arrays[name].tobytes()) for name in self._inputs if name in self._switches),
        )
        model = self._models.get(change)
        if model is not None:
            return model
        count = self._counts.get(change, 0) + 1
        if len(self._counts) < _MOST_COUNTS or count > 1:
            self._counts[change] = count
        if count <= CALLS_BEFORE or self._count_of_special >= MOST_MODELS:
            return None
        self._count_of_special += 1
        return self._compile(change)

    def _compile(self, change: Change) -> Variant:
        variant = self._models.get(change)
        if variant is not None:
            return variant
        loaded = self._loaded
        is_file = loaded.path is not None and not loaded.is_changed and change == Change()
        try:
            model: Any = loaded.path if is_file else loaded.read(change)
            compiled = Core().compile_model(model, "CPU", self._config)
        except OvjitError as error:
            raise loaded.failure(error) from error
        pickers = self._pickers_of(compiled)
        is_plain = len(compiled.outputs) == len(loaded.outputs) and all(
            arg.type.startswith("tensor(") and arg.type != "tensor(string)" for arg in loaded.outputs
        )
        return self._models.setdefault(change, Variant(compiled, pickers, is_plain))

    def _pickers_of(self, compiled: CompiledModel) -> list[_Picker]:
        """For each output of the graph the function that makes it of the compiled model's outputs."""
        names = [port.get_names() for port in compiled.outputs]
        position = 0
        pickers: list[_Picker] = []
        for arg in self._loaded.outputs:
            end = position + 1
            if arg.type.startswith("seq(tensor"):
                if position < len(names) and arg.name in names[position]:
                    pickers.append(partial(_pick_rows, position))
                else:
                    end = position
                    while end < len(names) and f"{arg.name}_{end - position}" in names[end]:
                        end += 1
                    pickers.append(partial(_pick_slice, position, end))
            elif arg.type.startswith("seq(map"):
                labels = self._labels_of(arg.name)
                pickers.append(partial(_pick_maps, position, labels))
            elif arg.type == "tensor(string)":
                pickers.append(partial(_pick_texts, position))
            else:
                pickers.append(itemgetter(position))
            position = end
        return pickers

    def _labels_of(self, output: str) -> list[Any]:
        """The classes of the ZipMap node that computes an output."""
        for node in self._loaded.opened.proto.graph.node:
            if output in node.output and node.op_type == "ZipMap":
                for attribute in node.attribute:
                    if attribute.ints:
                        return [int(value) for value in attribute.ints]
                    if attribute.strings:
                        return [value.decode() for value in attribute.strings]
        text = f"ovjit does not have maps but those of ZipMap: the output {output!r}"
        raise failure_of(NotImplemented, text)


def _config_of(options: SessionOptions) -> dict[str, Any]:
    """The properties of compilation for a session's options."""
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",  # ONNX Runtime computes in the types that the model has
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if options.intra_op_num_threads > 0:
        config["INFERENCE_NUM_THREADS"] = options.intra_op_num_threads
    if options.enable_profiling:
        config["PERF_COUNT"] = True
    return config


def _pick_rows(position: int, arrays: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    return [_as_objects(np.asarray(row)) for row in arrays[position]]


def _pick_slice(begin: int, end: int, arrays: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    return [_as_objects(array) for array in arrays[begin:end]]


def _pick_texts(position: int, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    return _as_objects(arrays[position])


def _as_objects(array: np.ndarray) -> np.ndarray:
    """An array of texts as ONNX Runtime has it, of objects; others as they are."""
    return array.astype(object) if array.dtype.kind in "US" else array


def _pick_maps(position: int, labels: list[Any], arrays: tuple[np.ndarray, ...]) -> list[dict[Any, Any]]:
    """The rows of probabilities as dicts by class."""
    rows = arrays[position].reshape(-1, len(labels)).tolist()
    return [dict(zip(labels, row, strict=False)) for row in rows]
