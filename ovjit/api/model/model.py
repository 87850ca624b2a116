"""`Model`: a graph with declared inputs and outputs, that the user may edit and `compile_model` captures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np

from ovjit import injected
from ovjit.api.arguments import expect, explain_calls
from ovjit.api.model.boundary import Parameter, Result, from_storage
from ovjit.api.model.model_edits import ModelEdits
from ovjit.api.model.model_forms import copy_map, copy_node, model_arguments, name_tensor, result_of, rt_path
from ovjit.api.model.node import GRAPH_LOCK, ConstOutput, DescriptorTensor, Node
from ovjit.api.model.rt_info import OVAny, RTMap, lookup, plain_value
from ovjit.errors import ModelError
from ovjit.graph.graph import Builder, Graph, Value
from ovjit.graph.shapes import is_static

_numbers = itertools.count()


def check_model(model: Any) -> Model:
    """`model`. TypeError unless it is a Model."""
    if not isinstance(model, Model):
        raise TypeError("Incompatible `model` argument. Please provide a valid openvino.Model instance.")
    return model


@explain_calls
class Model(ModelEdits):
    """A model: results, the parameters they need (more may be declared), and a name.

    `Model(results, [sinks,] parameters, [variables,] name="")`, where results is a Node, or a sequence of
    only Results, only Nodes or only Outputs, beside sinks or variables of only Results or only Outputs; or
    `Model(model)`, which is the same model: a change of one is seen in the other. Names that parameters and
    results have now become tensor names where there are none. Without variables, the model has those of its
    nodes.
    Raises TypeError for other arguments, RuntimeError when an undeclared parameter or variable is needed,
    and for a sink that has no effect.
    """

    #: False where the file that it was read from named others, whose data it has.
    _of_one_file = True

    def __init__(self, *args: Any, **kwargs: Any):
        if isinstance(kwargs.get("other", args[0] if args else None), Model) and len(args) + len(kwargs) == 1:
            other: Model = kwargs.get("other") or args[0]
            self.__dict__ = other.__dict__
            return
        arguments = model_arguments(args, kwargs)
        results = [result_of(r) for r in arguments.results]
        self._setup(results, arguments.parameters, arguments.sinks, arguments.name, arguments.variables or ())
        self._checked_walk()
        if arguments.variables is not None:
            self._check_variables()
        with GRAPH_LOCK:
            for node in (*self._parameters, *self._results):
                name_tensor(node)

    @classmethod
    def _from_parts(
        cls, results: Sequence[Result], parameters: Sequence[Parameter], sinks: Sequence[Node] = (),
        name: str = "",
    ) -> Model:  # fmt: skip
        """A model whose tensors get no names but those they have, as one read from a file."""
        model = cls.__new__(cls)
        model._setup(results, parameters, sinks, name)
        model._checked_walk()
        return model

    def _setup(
        self, results: Sequence[Result], parameters: Sequence[Parameter], sinks: Sequence[Node], name: str,
        variables: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        self._results = list(results)
        self._parameters = list(parameters)
        self._sinks = list(sinks)
        self._variables = list(variables)
        self._removed = set()
        self._name = f"Model{next(_numbers)}"
        self._friendly_name = name
        self._rt: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"'Model' object has no attribute {name!r} or attribute is no longer accessible."
        )

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *exc: object) -> None:
        self.__dict__ = {}  # another object may stand for the same model

    # -- copies and captures -------------------------------------------------------------------------------

    def clone(self) -> Model:
        """A copy with nodes of its own; the constants' data is shared."""
        with GRAPH_LOCK:
            copies: dict[Node, Node] = {}
            tensors: dict[DescriptorTensor, DescriptorTensor] = {}
            for node in self._checked_walk():
                copies[node] = copy_node(node, copies, tensors)
            for node in self._sinks:
                copies[node]._after = tuple(copies[n] for n in node._after if n in copies)
            model = Model.__new__(Model)
            model._setup(
                [copies[r] for r in self._results],  # type: ignore[misc]
                [copies[p] for p in self._parameters],  # type: ignore[misc]
                [copies[s] for s in self._sinks],
                self.get_friendly_name(),
                self._variables,
            )
            model._rt = copy_map(self._rt)
            model._complete = self._complete
            return model

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return self.clone()

    def __reduce__(self) -> Any:
        """Models pickle as IR, so that other processes get them."""
        return injected.model_of, injected.model_bytes(self)

    def __copy__(self) -> Model:
        raise TypeError("Cannot copy 'openvino.Model'. Please, use deepcopy instead.")

    def _graph(self) -> Graph:
        """The immutable graph of this model as it is now, types inferred anew.

        Inputs in the order of `inputs`, outputs the values that feed the results in the order of `outputs`,
        then those of the Assign nodes.
        Raises RuntimeError naming the node when the graph is not valid.
        """
        with GRAPH_LOCK:
            self._read_rest(needed=True)
            builder = Builder()
            values: dict[tuple[Node, int], Value] = {}
            for node in self._checked_walk():
                if isinstance(node, Result):  # who takes a result takes its tensor
                    source = node._inputs[0]
                    values[node, 0] = values[source._node, source._index]
                    continue
                inputs = [values[source._node, source._index] for source in node._inputs]
                real = node._stands_for()
                sources = real._graph_inputs(builder, inputs)
                name = node.get_friendly_name()
                types = real._known_types(sources)
                if types is None:
                    result = builder.add(real._op, sources, real._graph_attrs(), name=name)
                else:
                    result = builder.append(real._op, sources, real._attrs, name, types)
                for i, value in enumerate(result.outputs):
                    values[node, i] = value
            results = [values[s._node, s._index] for s in (r.input_value(0) for r in self._results)]
            # what is assigned comes after what is returned; as a result, it is the value that is assigned
            results = [v.node.inputs[0] if v.node.op.role == "assign" else v for v in results]
            assigned = [n.output for n in builder.nodes if n.op.role == "assign"]
            from ovjit.compiler.pass_pipeline import run_stage

            graph = builder.finish([*results, *assigned], [values[p, 0] for p in self._parameters])
            captured: Graph = run_stage("capture", graph)
            return captured

    def evaluate(
        self, output_tensors: Sequence[Any], input_tensors: Sequence[Any], evaluation_context: Any = None
    ) -> bool:
        """Run the model by the NumPy references of its operations, from and into Tensors.

        Output tensors take the results' shapes; further ones stay as they are. Raises RuntimeError when the
        tensors do not fit, IndexError when there are too few for the results.
        """
        from ovjit.api.tensors.tensor import Tensor
        from ovjit.graph.interp import evaluate

        graph = self._graph()
        graph = Graph(graph.inputs, graph.nodes, graph.public_outputs)
        if len(input_tensors) != len(graph.inputs):
            raise ModelError(
                f"Cannot evaluate model! Number of tensors ({len(input_tensors)}) is not equal to number of "
                f"parameters ({len(graph.inputs)})."
            )
        arrays: list[np.ndarray] = []
        for value, tensor in zip(graph.inputs, input_tensors, strict=True):
            if not isinstance(tensor, Tensor):
                raise ModelError(f"Unable to cast {type(tensor)} to a Tensor")
            name = tensor.element_type._name
            if value.dtype not in (name, "dynamic"):
                raise ModelError(
                    f"input {value.node.name!r} has the element type {value.dtype}, the tensor has {name}"
                )
            if is_static(value.shape) and value.shape != tuple(tensor.shape):
                raise ModelError(
                    f"Cannot evaluate model! Tensor input shape and Parameter op with index {len(arrays)} "
                    f"are mismatches. {value.node.name!r} has the shape {list(value.shape)}, the tensor "
                    f"{list(tensor.shape)}"
                )
            arrays.append(from_storage(np.ascontiguousarray(tensor.data), name, tuple(tensor.shape)))
        if len(output_tensors) < len(graph.outputs):
            raise IndexError(
                f"evaluate takes {len(graph.outputs)} output tensors, one for each result, not "
                f"{len(output_tensors)}"
            )
        for tensor, array in zip(output_tensors, evaluate(graph, arrays), strict=False):
            tensor.shape = list(array.shape)
            tensor.data[...] = array.view(tensor.data.dtype) if array.dtype.kind == "V" else array
        return True

    # -- runtime information -------------------------------------------------------------------------------

    @overload
    def get_rt_info(self, path: None = None) -> RTMap: ...
    @overload
    def get_rt_info(self, path: str | list[str]) -> OVAny: ...
    def get_rt_info(self, path: str | list[str] | None = None) -> RTMap | OVAny:
        """All runtime information as an RTMap, or the value at a path of keys as an OVAny.

        Raises RuntimeError if there is none at the path.
        """
        if path is None:
            return RTMap(self._rt)
        exists, value = lookup(self._rt, rt_path(path))
        if not exists:
            raise ModelError(
                "Cannot get runtime attribute. Path to runtime attribute is incorrect. The path is "
                f"{path!r}; the model's keys are: {', '.join(sorted(self._rt)) or 'none'}"
            )
        return OVAny(value)

    def has_rt_info(self, path: str | list[str]) -> bool:
        return lookup(self._rt, rt_path(path))[0]

    def set_rt_info(self, obj: Any, path: str | list[str]) -> None:
        *folders, last = rt_path(path)
        with GRAPH_LOCK:
            folder = self._rt
            for key in folders:
                inner = folder.setdefault(key, {})
                if not isinstance(inner, dict):
                    inner = folder[key] = {}
                folder = inner
            folder[last] = plain_value(obj)

    @property
    def rt_info(self) -> Any:
        """All runtime information, as an RTMap, or as the dict that was assigned."""
        return self.__dict__.get("_assigned_rt_info") or RTMap(self._rt)

    @rt_info.setter
    def rt_info(self, info: Mapping[str, Any]) -> None:
        expect(info, Mapping, "runtime information is a dict")
        self._rt = {expect(key, str, "a key is a str"): plain_value(value) for key, value in info.items()}
        self._assigned_rt_info = self._rt

    def __repr__(self) -> str:
        if "_parameters" not in self.__dict__:
            return "<Model: no longer accessible>"
        inputs = ",\n".join(repr(ConstOutput._of(p, 0)) for p in self._parameters)
        outputs = ",\n".join(repr(ConstOutput._of(r, 0)) for r in self._results)
        return f"<Model: {self.get_friendly_name()!r}\ninputs[\n{inputs}\n]\noutputs[\n{outputs}\n]>"
