"""A module, script or exported program with its example: names and tensors of its inputs, outputs by name.

PyTorch is not imported for those who have no module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit import logs
from ovjit.errors import OvjitError, unless_of_signal
from ovjit.readers.torch.naming import TRACED, WRAPPED
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.effects import Effect
from ovjit.readers.torch.tracing.patches import patch
from ovjit.readers.torch.tracing.recorder import collect_warnings, recording_category
from ovjit.readers.torch.values import torch_types
from ovjit.records import NamedTuple

#: Types of a script's arguments that are numbers of Python's.
_NUMBERS = ("IntType", "FloatType", "BoolType")
NOT_TRACED = "Couldn't get TorchScript module by tracing.\nException:\n"


class Prepared(NamedTuple):
    """A module to convert, with its inputs.

    `module` takes only the tensors `leaves`, which are named `names`; `arguments` by name are made of these.
    If `fused`, attention is traced as PyTorch's fused operators. `kinds` are the types of the model's inputs,
    if they differ from those of `leaves`. `assumed` are the dynamic dimensions of an example of zeros, as
    pairs of the index of the tensor and the axis.
    """

    source: Any
    names: list[str]
    leaves: list[Any]
    module: Any
    arguments: Mapping[str, Any]
    fused: bool = False
    kinds: Sequence[Any] = ()
    assumed: Sequence[tuple[int, int]] | None = None

    def inputs(self) -> Iterator[tuple[str, Any, Any]]:
        """The name, tensor and type of each input."""
        kinds = self.kinds or [leaf.dtype for leaf in self.leaves]
        return zip(self.names, self.leaves, kinds, strict=True)


def prepare(source: Any, example: Any, described: Sequence[tuple[Any, Any, Any]]) -> Prepared | None:
    """A module or script with its example; without one, an example made from `described` or a script's types.

    `described` is (name, shape, element type) of each input. None where nothing tells of the inputs.
    """
    keywords: Mapping[str, Any] = {}
    if isinstance(source, torch.export.ExportedProgram):
        if example is None:
            arguments, keywords = source.example_inputs or ((), {})
            example = tuple(arguments)
        source = source.module()
    elif isinstance(source, torch.nn.Module):
        with contextlib.suppress(NotImplementedError):  # graphs of torch.export have no modes
            source.eval()
    has_example = example is not None or bool(keywords)
    if not has_example:
        example = example_of(source, described)
        if example is None:
            return None
    ready = Prepared(source, *flatten_example(source, example, keywords))
    rows = _rows(ready, described)
    shapes = [shape or () for shape, _ in rows]
    assumed = [(i, a) for i, shape in enumerate(shapes) for a, d in enumerate(shape) if is_open(d)]
    kinds = _kinds(ready, [kind for _, kind in rows])
    return ready._replace(kinds=kinds, assumed=None if has_example else assumed)


def _rows(ready: Prepared, described: Sequence[tuple[Any, Any, Any]]) -> list[tuple[Any, Any]]:
    """The described (shape, element type) of each input, None where there is none."""
    rows = {name or index: (shape, kind) for index, (name, shape, kind) in enumerate(described)}
    return [rows.get(name) or rows.get(i) or (None, None) for i, name in enumerate(ready.names)]


def _kinds(ready: Prepared, described: Sequence[Any]) -> list[Any]:
    """The element types of the inputs: described ones, else the example's. Complex ones are unchanged."""
    types = torch_types()
    return [
        types.get(kind, leaf.dtype) if not leaf.is_complex() else leaf.dtype
        for kind, leaf in zip(described, ready.leaves, strict=True)
    ]


@contextlib.contextmanager
def quietly(records: list[Any] | None = None, fused: bool | None = False) -> Iterator[None]:
    """Context manager that hides warnings of this thread, and uses PyTorch's fused attention only if `fused`.
    None: PyTorch decides, as where scripts are compiled, which may call the function that is replaced.

    Warnings that something may be incorrect are kept: `warn_again` shows them.
    """
    rows = [(torch.jit, "TracerWarning", recording_category())]
    if fused is not None:
        rows.append((torch.backends.mha, "get_fastpath_enabled", lambda: fused))
    with collect_warnings(records), patch(*rows):
        yield


@contextlib.contextmanager
def attempt(what: str) -> Iterator[None]:
    """Context manager that logs and suppresses errors of any type, as modules and PyTorch may raise any.

    SystemExit and `Effect` are suppressed as well, what the handler of a signal raises is not.
    """
    try:
        yield
    except unless_of_signal(Exception, SystemExit, Effect) as error:
        logs.debug("%s failed: %s: %s", what, type(error).__name__, error)


def warn_again(records: list[Any]) -> None:
    """Emit stored warnings again, once per line."""
    category_by_line = {(str(w.message), w.filename, w.lineno): w.category for w in records}
    for (text, file, line), category in category_by_line.items():
        warnings.warn_explicit(text, category, file, line)


def is_script(source: Any) -> bool:
    return isinstance(source, (torch.jit.ScriptModule, torch.jit.ScriptFunction))


def is_plain_module(source: Any) -> bool:
    """Whether torch.export accepts the module: it is no script and no graph of torch.export."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module) and not is_script(source)


def signature_of(source: Any) -> inspect.Signature | None:
    """Return the signature of a module, script or function, or None if Python has none, as for traces.

    In a process that has imported PyTorch's tests, traces have one that tells nothing: (*args, **kwargs)."""
    try:
        signature = inspect.signature(getattr(source, "forward", source))
    except ValueError:
        return None
    unknown = all(row.kind in (row.VAR_POSITIONAL, row.VAR_KEYWORD) for row in signature.parameters.values())
    return None if unknown and is_script(source) else signature


def arguments_of(script: Any) -> list[Any]:
    """The arguments of a script with their defaults; none if unknown."""
    schema = getattr(getattr(script, "forward", script), "schema", None)
    skipped = 1 if hasattr(script, "forward") else 0  # the module
    return [] if schema is None else list(schema.arguments)[skipped:]


def argument_names(arguments: Iterable[Any]) -> list[str]:
    """Unique names of arguments: in traces of `forward(*tensors)` several may have one name."""
    names = [argument.name for argument in arguments]
    counts: dict[str, int] = {}
    for i, name in enumerate(names):
        counts[name] = counts.get(name, -1) + 1
        if counts[name]:
            names[i] = f"{name}.{counts[name]}"
    return names


def example_of(source: Any, described: Sequence[tuple[Any, Any, Any]]) -> Any:
    """An example of zeros by the description of the inputs, as keywords if they are named."""
    needed = [a for a in arguments_of(source) if not a.has_default_value()] if is_script(source) else []
    if any(a.type.kind() in (*_NUMBERS, "TupleType", "DictType") for a in needed):
        return None  # zeros would be tensors, which have other rules for types of results
    if described and all(shape is not None for _, shape, _ in described):
        types = torch_types()
        result = [
            torch.zeros([_extent(d) for d in shape], dtype=types.get(kind, torch.float32))
            for _, shape, kind in described
        ]
        named = [name for name, *_ in described]
        if _tells_of_all(source, len(result), named):
            return dict(zip(named, result, strict=True)) if all(named) else tuple(result)
    if is_script(source):
        kinds = [v.type() for v in source.graph.inputs() if isinstance(v.type(), torch.TensorType)]
        if kinds and all(k.sizes() is not None and k.dtype() is not None for k in kinds):
            return tuple(torch.zeros(k.sizes(), dtype=k.dtype()) for k in kinds)
    return None


def _tells_of_all(source: Any, count: int, names: Sequence[str | None]) -> bool:
    """Whether the call needs no other inputs than `count` of them, or those with these names."""
    signature = signature_of(source)
    if signature is None:
        return True
    rows = signature.parameters.values()
    needed = [row.name for row in rows if row.default is row.empty and row.kind is row.POSITIONAL_OR_KEYWORD]
    if all(names):
        return set(needed) <= set(names)
    most = count if any(row.kind is row.VAR_POSITIONAL for row in rows) else len(rows)
    return len(needed) <= count <= most


def is_open(d: Any) -> bool:
    """Whether what may be a Dimension is no number."""
    return bool(getattr(d, "is_dynamic", False)) or (isinstance(d, int) and d < 0)


def _extent(d: Any) -> int:
    """A static length for a possibly dynamic dimension, preferably not 1, which has special rules."""
    if is_open(d):
        most = getattr(d, "max_length", -1)
        return max(2 if most < 0 else min(2, most), getattr(d, "min_length", 1))
    return int(d.get_length()) if hasattr(d, "get_length") else int(d)


def as_tensors(example: Any) -> Any:
    """The example with tensors of PyTorch instead of arrays, and of objects with an array as `data`."""
    if isinstance(example, torch.Tensor):
        return example
    if isinstance(example, Mapping):
        return {k: as_tensors(v) for k, v in example.items()}
    if isinstance(example, (list, tuple)) and not hasattr(example, "_fields"):
        return type(example)(map(as_tensors, example))
    data = example if isinstance(example, np.ndarray) else getattr(example, "data", None)
    return torch.from_numpy(data.copy()) if isinstance(data, np.ndarray) else example


def flatten_example(
    source: Any, example: Any, keywords: Mapping[str, Any]
) -> tuple[list[str], list[Any], Any, Mapping[str, Any]]:
    """(names, tensors) of all inputs in the order of the signature, a module that takes them so, and the
    structure that contains them."""
    from torch.utils import _pytree as tree

    example = as_tensors(_check_example(example))
    arguments: tuple[Any, ...] = ()
    if isinstance(example, dict) and not keywords:
        keywords = _drop_unknown(source, example)
    else:
        arguments = tuple(example) if isinstance(example, (list, tuple)) else (example,)
        keywords = as_tensors(keywords)
    signature = signature_of(source)
    try:
        if signature is not None:
            bound = signature.bind(*arguments, **keywords).arguments
        else:
            bound = {**dict(zip(argument_names(arguments_of(source)), arguments, strict=False)), **keywords}
    except TypeError as error:
        raise OvjitError(f"{NOT_TRACED}{error}") from error
    ordered = _in_order(bound, keywords)
    leaves, shape = tree.tree_flatten((arguments, ordered))
    tensor_indices = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    output_names: list[str | None] = []  # names of outputs; torch.export puts attributes back as they were
    child = WRAPPED if _is_wrapped(source, example) else TRACED

    class Flat(torch.nn.Module):
        """The module as a function from tensors to tensors."""

        names = output_names
        is_wrapped = child == WRAPPED

        def __init__(self) -> None:
            super().__init__()
            self.called = source
            if isinstance(source, torch.nn.Module):
                del self._modules["called"]
                self._modules[child] = source

        def train(self, mode: bool = True) -> Any:
            self.training = mode  # the module itself stays as it was made
            return self

        def forward(self, *tensors: Any) -> Any:
            now = list(leaves)
            for index, tensor in zip(tensor_indices, tensors, strict=True):
                now[index] = tensor
            positional, named = tree.tree_unflatten(now, shape)
            called = self._modules.get(child) or self.called
            result = called(*positional, **named)
            output_names[:], values = named_outputs(result)
            return values

    return _input_names(bound), [leaves[i] for i in tensor_indices], Flat(), bound


def _is_wrapped(source: Any, example: Any) -> bool:
    """Whether OpenVINO wraps the module in one that calls it by keywords: for keyword arguments that are not
    the first ones, and for None among the arguments."""
    values = list(example.values()) if isinstance(example, dict) else example
    if isinstance(values, (list, tuple)):
        nested = [part for v in values if isinstance(v, tuple) for part in v]
        if any(v is None for v in [*values, *nested]) and not isinstance(example, list):
            return True
    if not isinstance(example, dict) or not isinstance(source, torch.nn.Module) or is_script(source):
        return False
    first = list(inspect.signature(getattr(source, "forward", source)).parameters)[: len(example)]
    return set(first) != example.keys()


def _check_example(example: Any) -> Any:
    """Return the example. OvjitError for a str, which is no tensor."""
    if isinstance(example, (str, bytes)):
        raise OvjitError(
            "Unexpected type of example_input. Supported types torch.Tensor, np.array or ov.Tensor. Got "
            f"{type(example)}"
        )
    return example


def _drop_unknown(source: Any, keywords: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keyword arguments that `source` has. As in OpenVINO, others are ignored."""
    signature = signature_of(source)
    if signature is None or any(row.kind is row.VAR_KEYWORD for row in signature.parameters.values()):
        return keywords
    return {name: value for name, value in keywords.items() if name in signature.parameters}


def _input_names(bound: Mapping[str, Any]) -> list[str]:
    """A name per tensor of the arguments: numbered within a list, by keys within a dict."""
    from torch.utils import _pytree as tree

    names: list[str] = []
    for name, value in bound.items():
        parts = [leaf for leaf in tree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
        single = parts and parts[0] is value
        if isinstance(value, dict):  # an argument, or what a signature gathers as **kwargs
            inner = [(k, leaf) for k, v in value.items() for leaf in tree.tree_leaves(v)]
            names += [k for k, leaf in inner if isinstance(leaf, torch.Tensor)]
        else:
            names += [name] if single else [f"{name}.{i}" for i in range(len(parts))]
    return names


def _in_order(bound: Mapping[str, Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords in the order of the signature, those collected by `**` last."""
    first = {k: keywords[k] for k in bound if k in keywords}
    return {**first, **{k: v for k, v in keywords.items() if k not in first}}


def named_outputs(outputs: Any) -> tuple[list[str | None], tuple[Any, ...]]:
    """Names and tensors of a module's results: keys of a dict are names, None is left out."""
    from torch.utils import _pytree as tree

    names: list[str | None] = []
    values: list[Any] = []
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, Mapping):
        outputs = {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    items = outputs.items() if isinstance(outputs, Mapping) else [(None, outputs)]
    numbers = {bool: torch.bool, torch.SymBool: torch.bool, int: torch.int64, torch.SymInt: torch.int64,
               float: torch.float32, torch.SymFloat: torch.float32}  # fmt: skip
    for key, value in items:
        parts = [v for v in tree.tree_leaves(value) if isinstance(v, (torch.Tensor, *numbers))]
        names += [key if len(parts) == 1 else None] * len(parts)
        values += [
            v if isinstance(v, torch.Tensor) else torch.scalar_tensor(v, dtype=numbers[type(v)])
            for v in parts
        ]
    return names, tuple(values)
