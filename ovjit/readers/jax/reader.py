"""A ClosedJaxpr, as `jax.make_jaxpr(function)(*examples)` gives it -> Model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit import build
from ovjit.build import Model, Node, Output, Parameter
from ovjit.build.builder import Builder, Draft
from ovjit.errors import ModelError, OvjitError, UnsupportedError, unless_of_signal
from ovjit.graph.dtypes import ELEMENT_TYPES, from_numpy
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, Dim
from ovjit.readers.choices import Choice, one_of
from ovjit.readers.files import list_missing
from ovjit.readers.jax.decoder import is_jaxpr
from ovjit.readers.jax.lowerings import expand, find_line
from ovjit.readers.jax.multi_tensor import (
    BY_OPERAND,
    BY_PART,
    Parts,
    constant,
    flat,
    group_by_variable,
    join_parts,
    part_type,
    separate_parts,
    widths,
)
from ovjit.readers.jax.registry import find_rule, find_rule_of_parts
from ovjit.readers.jax.symbolic import Sizes, is_number, is_undecided, number_or_dim
from ovjit.readers.rows import Rule
from ovjit.records import NamedTuple

#: What becomes of indices beyond an operand.
_INDEXED = {"mode": one_of("clip fill_or_drop promise_in_bounds")}
_SCATTERED = ("", "-add", "_add", "-sub", "_sub", "-mul", "_mul", "-min", "_min", "-max", "_max")

#: primitive -> parameter -> its choices. None is always the default.
CHOICES: dict[str, dict[str, Choice]] = {
    "eigh": {"implementation": one_of("qr jacobi qdwh"), "algorithm": one_of("qr jacobi qdwh")},
    "fft": {"fft_type": one_of("fft ifft rfft irfft")},
    "gather": _INDEXED,
    "round": {"rounding_method": one_of((0, 1))},
    "svd": {"algorithm": one_of("default qr jacobi polar divide_and_conquer")},
    **{f"scatter{joined}": _INDEXED for joined in _SCATTERED},
}


def check_params(primitive: str, params: Mapping[str, Any]) -> None:
    """Raise ModelError for a parameter with a value that is not allowed."""
    for name, choice in CHOICES.get(primitive, {}).items():
        value = params.get(name)
        if value is not None:
            word = str(getattr(value, "name", value)).rpartition(".")[2].lower()
            choice.check(name, int(value) if isinstance(choice.words[0], int) else word)


#: What rules raise for parameters and operands that are not those of the primitive.
_NOT_VALID = (KeyError, IndexError, ValueError, TypeError, AttributeError, ArithmeticError)
#: Parameters of an equation that are jaxprs to be read in its place.
INLINED = ("jaxpr", "call_jaxpr", "fun_jaxpr")
#: Primitives with such a parameter that is about a part of their operands.
_NOT_INLINED = ("scan", "while", "cond", "reduce", "reduce_window")


class Closed(NamedTuple):
    """A jaxpr with its constants."""

    jaxpr: Any
    consts: Sequence[Any]


def closed_of(value: Any) -> Any:
    """A parameter of an equation as a jaxpr with its constants; None for other values, and if constants are
    missing."""
    if is_jaxpr(value):
        return value
    return Closed(value, ()) if is_jaxpr(value, "Jaxpr") and not value.constvars else None


def needed_equations(jaxpr: Any) -> list[tuple[int, Any]]:
    """The equations whose results are used, with their positions."""
    used, equations_used = {var for var in jaxpr.outvars if not hasattr(var, "val")}, []
    for i, eqn in reversed([*enumerate(jaxpr.eqns)]):
        if not used.isdisjoint(eqn.outvars):
            equations_used.append((i, eqn))
            used.update(var for var in eqn.invars if not hasattr(var, "val"))
    return equations_used[::-1]


def read_jaxpr(jaxpr: Any, converters: Mapping[str, Rule] | None = None) -> Model:
    """The Model of a ClosedJaxpr, or of a Jaxpr without constants.

    Inputs and outputs are named `jaxpr_invar_0`, `jaxpr_outvar_0` and so on. RuntimeError for what is not
    valid names the primitive. UnsupportedError, a RuntimeError, too, lists all primitives that cannot be
    read.
    """
    closed = closed_of(jaxpr)
    if closed is None:
        raise UnsupportedError("a Jaxpr with constants lacks their values: convert the ClosedJaxpr")
    reader = Reader(converters)
    missing: dict[str, list[str]] = {}
    for eqn in equations(closed.jaxpr):
        if reader.rule(eqn.primitive.name) is None:
            missing.setdefault(eqn.primitive.name, []).append(find_line(eqn))
    if missing:
        raise UnsupportedError(
            "Model wasn't fully converted. No conversion rule found for operations: "
            f"{', '.join(sorted(missing))}. The equations are: {list_missing(missing)}"
        )
    parameters, values = [], []
    n = Builder()
    n.reader, n.base = reader, ""
    for i, var in enumerate(closed.jaxpr.invars):
        name = f"jaxpr_invar_{i}"
        kind = type_of(var.aval)
        width = () if part_type(var.aval) is None else tuple(widths([var]))
        parameters.append(build.make_parameter(kind.dtype, (*(kind.shape or ()), *width), name, {name}))
        value = parameters[-1].output(0)
        values.append(separate_parts(n, value) if width else value)
    results = []
    for i, result in enumerate(reader.run(closed, values, "")):
        value = join_parts(n, result) if isinstance(result, Parts) else result
        if not build.names_of(value):
            build.set_names(value, {f"jaxpr_outvar_{i}"})
        results.append(value)
    return build.make_model(results, parameters, "")


def equations(jaxpr: Any) -> Iterator[Any]:
    """The equations of a jaxpr and of those inside it; not those that are only read in place."""
    for _, eqn in needed_equations(jaxpr):
        inner = inlined_of(eqn)
        if inner is not None:
            yield from equations(inner.jaxpr)
            continue
        yield eqn
        for one in bodies_of(eqn):
            yield from equations(one.jaxpr)


def bodies_of(eqn: Any) -> list[Any]:
    """The jaxprs that the rule of an equation converts as bodies."""
    if eqn.primitive.name == "custom_linear_solve":
        return [eqn.params["jaxprs"].solve]
    parameter_lists = [v if isinstance(v, (tuple, list)) else (v,) for v in eqn.params.values()]
    return [one for listed in parameter_lists for one in map(closed_of, listed) if one is not None]


def inlined_of(eqn: Any) -> Any:
    """The jaxpr that an equation calls, such as that of a jitted function, or that expresses a primitive
    without a rule; None for others."""
    name = eqn.primitive.name
    if name in _NOT_INLINED:
        return None
    bodies = (closed_of(eqn.params.get(parameter)) for parameter in INLINED)
    body = next((one for one in bodies if one is not None), None)
    return expand(eqn) if body is None and find_rule(name) is None else body


def type_of(aval: Any) -> TensorType:
    """The element type and shape of an abstract value, or of each of its parts. Symbols are dynamic."""
    dims: tuple[Dim, ...] = tuple(int(d) if is_number(d) else ANY for d in aval.shape)
    parts = part_type(aval)
    return TensorType(element_type(aval.dtype) if parts is None else parts[0], dims)


def element_type(dtype: Any) -> str:
    """OpenVINO's name of a type. UnsupportedError where it has none."""
    try:
        name = from_numpy(np.dtype(dtype))
    except (TypeError, KeyError, ValueError, OvjitError) as error:
        raise UnsupportedError(f"values of the type {dtype} are not supported") from error
    if ELEMENT_TYPES[name].numpy is None:
        raise UnsupportedError(f"values of the type {dtype} are not supported")
    return name


class JaxNode(Builder):
    """One equation that is being read. Indexing gives its inputs, calling it makes a node of the Model."""

    reader: Reader

    def __init__(
        self, reader: Reader, eqn: Any, inputs: Sequence[Any], base: str, sizes: Sizes,
        params: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        self.reader = reader
        self.sizes = sizes
        self.eqn = eqn
        self.op_type: str = eqn.primitive.name
        self.params: Mapping[str, Any] = eqn.params if params is None else params
        self.attributes = self.params
        self.inputs = list(inputs)
        self.base = base

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Output:
        return self.inputs[index]

    def out(self, index: int = 0) -> TensorType:
        """The type of an output."""
        return type_of(self.eqn.outvars[index].aval)

    def dims(self, value: Output) -> tuple[Any, ...]:
        """The shape of an operand, with symbolic dimensions, or of a tensor with a static shape."""
        symbolic_shape = self._known_dims(value)
        return self.static_shape(value, "a shape") if symbolic_shape is None else symbolic_shape

    def _known_dims(self, value: Output) -> tuple[Any, ...] | None:
        pairs = zip(self.inputs, self.eqn.invars, strict=False)
        variable = next((var for each, var in pairs if each is value), None)
        if variable is None or len(self.inputs) != len(self.eqn.invars):
            return None
        return tuple(number_or_dim(d) for d in variable.aval.shape)

    def out_dims(self) -> tuple[Any, ...]:
        """The shape of the result, with symbolic dimensions."""
        return tuple(number_or_dim(d) for d in self.eqn.outvars[0].aval.shape)

    def empty(self) -> list[Output] | None:
        """The outputs as empty tensors, if none of them has elements; else None."""
        shapes = [tuple(number_or_dim(d) for d in var.aval.shape) for var in self.eqn.outvars]
        if not shapes or not all(any(is_number(d) and d == 0 for d in shape) for shape in shapes):
            return None
        kinds = [type_of(var.aval).dtype for var in self.eqn.outvars]
        return [
            self.spread(self.const(np.zeros(()), kind), shape)
            for kind, shape in zip(kinds, shapes, strict=True)
        ]

    def lengths(self, dims: Sequence[Any]) -> Any:
        """Dimensions as an i64 tensor [number of dimensions]."""
        return self.sizes.tensor(self, dims)

    def length(self, dim: Any) -> Output:
        """A dimension as a scalar."""
        return self.const(int(dim)) if is_number(dim) else self.scalar(self.sizes.value(self, dim))

    def arange(self, dim: Any) -> Output:
        """0, 1, ..., dim - 1."""
        if is_number(dim):
            return self.const(np.arange(dim))
        return self("Range", self.const(0), self.length(dim), self.const(1), output_type="i64")

    def is_bool(self, value: Output) -> bool:
        return self.dtype(value) == "boolean"

    def _has_dims(self, value: Output, shape: Sequence[Any]) -> bool:
        return tuple(shape) in (self.shape(value), self._known_dims(value))

    def spread(self, value: Output, shape: Sequence[Any]) -> Output:
        """Broadcast a tensor to a shape."""
        if self._has_dims(value, shape):
            return value
        return self("Broadcast", value, self.lengths(shape), mode="numpy")

    def reshape_to(self, value: Output, shape: Sequence[Any]) -> Output:
        """A tensor in another shape; itself if it has that one."""
        if self._has_dims(value, shape):
            return value
        open_dims = [not is_number(d) for d in shape]
        if sum(open_dims) == 1 and 0 not in shape:  # the others tell it
            return self.reshape(
                value, [-1 if is_open else d for is_open, d in zip(open_dims, shape, strict=True)]
            )
        return self.reshape(value, self.lengths(shape))

    def run(self, closed: Any, values: Sequence[Output]) -> list[Output]:
        """The outputs of a jaxpr for `values` of its inputs. Parts of complex numbers are separate values."""
        grouped_values = group_by_variable(values, closed.jaxpr.invars)
        return flat(self.reader.run(closed, grouped_values, f"{self.base}/"))

    def body(self, name: str = "jaxpr") -> Any:
        """The jaxpr that is the parameter `name`. UnsupportedError if it lacks constants."""
        closed = closed_of(self.params[name])
        if closed is None:
            raise UnsupportedError("a function that captures constants is not supported")
        return closed


class Reader(Draft):
    """Reads one jaxpr."""

    def __init__(self, converters: Mapping[str, Rule] | None = None):
        super().__init__()
        self.converters = dict(converters or {})
        self.constants: dict[int, tuple[Any, np.ndarray]] = {}
        #: The arguments of erfc by the nodes of its results.
        self.of_erfc: dict[Node, Output] = {}

    def rule(self, name: str) -> Rule | None:
        return self.converters.get(name) or find_rule(name)

    def run(self, closed: Any, values: Sequence[Any], prefix: str, outer: Sizes | None = None) -> list[Any]:
        """Reads a jaxpr and returns its outputs. `outer`: sizes known around a jaxpr that is inlined."""
        jaxpr = closed.jaxpr
        first = [v.parts[0] if isinstance(v, Parts) else v for v in values]
        sizes = Sizes([(var.aval.shape, v) for var, v in zip(jaxpr.invars, first, strict=True)], outer)
        value_by_var: dict[Any, Any] = dict(zip(jaxpr.invars, values, strict=True))
        n = Builder()
        n.reader, n.base = self, prefix
        for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
            if part_type(var.aval) is None:
                value_by_var[var] = n.const(self._array(value), element_type(var.aval.dtype))
            else:
                value_by_var[var] = constant(n, value, var.aval)
        for i, eqn in needed_equations(jaxpr):
            inputs = [self._value(n, var, value_by_var) for var in eqn.invars]
            outputs = self._convert_equation(eqn, inputs, f"{prefix}{eqn.primitive.name}_{i}", sizes)
            value_by_var.update(zip(eqn.outvars, outputs, strict=False))
        return [self._value(n, var, value_by_var) for var in jaxpr.outvars]

    def _array(self, value: Any) -> np.ndarray:
        """The value of a constant, converted once for all equations that use it."""
        entry = self.constants.get(id(value))
        if entry is None:
            entry = self.constants[id(value)] = value, np.asarray(value)
        return entry[1]

    def _value(self, n: Builder, var: Any, value_by_var: Mapping[Any, Any]) -> Any:
        if hasattr(var, "val"):  # a literal
            if part_type(var.aval) is not None:
                return constant(n, var.val, var.aval)
            return n.const(np.asarray(var.val, var.aval.dtype), element_type(var.aval.dtype))
        return value_by_var[var]

    def _convert_equation(self, eqn: Any, inputs: Sequence[Any], base: str, sizes: Sizes) -> list[Any]:
        """Convert an equation by its primitive's rule, or inline its program."""
        name = eqn.primitive.name
        inner = inlined_of(eqn)
        if inner is not None and name not in self.converters:
            return self.run(inner, inputs, f"{base}/", sizes)
        rule = self.rule(name)
        if rule is None:
            raise UnsupportedError(f"No conversion rule found for operations: {name}")
        try:
            if name not in self.converters:
                check_params(name, eqn.params)
            if any(isinstance(v, Parts) for v in inputs) or max(widths(eqn.outvars), default=1) > 1:
                outputs = self._of_parts(rule, eqn, inputs, base, sizes)
            else:
                node = JaxNode(self, eqn, inputs, base, sizes)
                outputs = (name not in self.converters and node.empty()) or _as_list(rule(node))
        except (ModelError, UnsupportedError) as error:
            raise type(error)(f"While converting the primitive {name}: {error}") from error
        except unless_of_signal(*_NOT_VALID) as error:
            raise ModelError(f"The equation of the primitive {name} is not valid: {error!r}") from error
        except Exception as error:
            if not is_undecided(error):
                raise
            raise UnsupportedError(f"While converting the primitive {name}: {error}") from error
        for value in flat(outputs):
            if not isinstance(value.node, Parameter) and not build.name_of(value.node):
                value.node.set_friendly_name(base)
        return outputs

    def _of_parts(self, rule: Rule, eqn: Any, inputs: Sequence[Any], base: str, sizes: Sizes) -> list[Any]:
        """The outputs of an equation of complex numbers or keys."""
        name = eqn.primitive.name
        if name in BY_OPERAND:
            counts = [len(v.parts) if isinstance(v, Parts) else 1 for v in inputs]
            node = JaxNode(self, eqn, flat(inputs), base, sizes, _count_operands(eqn.params, counts))
            return group_by_variable(_as_list(rule(node)), eqn.outvars)
        if name in BY_PART:
            count = max([*widths(eqn.invars), *widths(eqn.outvars)])
            each = []
            for i in range(count):
                parts = [v.parts[i] if isinstance(v, Parts) else v for v in inputs]
                each.append(_as_list(rule(JaxNode(self, eqn, parts, base, sizes))))
            return [Parts(values) for values in zip(*each, strict=True)]
        part_rule = find_rule_of_parts(name)
        if part_rule is None and name not in _OF_PARTS:
            kinds = {str(v.aval.dtype) for v in (*eqn.invars, *eqn.outvars) if part_type(v.aval) is not None}
            raise UnsupportedError(f"operands of type {' and '.join(sorted(kinds))} are not supported")
        return _as_list((part_rule or rule)(JaxNode(self, eqn, inputs, base, sizes)))


#: Primitives whose only rule is about parts.
_OF_PARTS = (
    "complex", "conj", "fft", "imag", "random_bits", "random_fold_in", "random_seed",
    "random_split", "random_unwrap", "random_wrap", "real",
)  # fmt: skip
#: Parameters of loops that count operands, in their order.
_COUNTS = ("cond_nconsts", "body_nconsts", "num_consts", "num_carry")


def _as_list(outputs: Any) -> list[Any]:
    return outputs if isinstance(outputs, list) else [outputs]


def _count_operands(params: Mapping[str, Any], counts: Sequence[int]) -> dict[str, Any]:
    """The parameters of a loop, with counts of operands converted to counts of tensors."""
    out, at = dict(params), 0
    for name in _COUNTS:
        if name in params:
            number = int(params[name])
            if not 0 <= number <= len(counts) - at:
                raise ModelError(f"{name} is {number}, but {len(counts) - at} operands are given")
            out[name] = sum(counts[at : at + number])
            at += number
    return out
