"""The opset builders: for every operation of the registry a snake_case function that makes its node.

Inputs come first, then the attributes in the order of the record, then `name`. `ovjit.api.surface`
has other names and orders. An input may be a Node, an Output or a value
that makes a constant: a number, list or array. As in OpenVINO, `name` is used only as a keyword. A positional
one is accepted and ignored.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, wraps
from typing import Any, TypeVar, cast

import numpy as np

from ovjit.api.arguments import expect
from ovjit.api.exceptions import UserInputError
from ovjit.api.model.boundary import Constant, Parameter, Result, as_output, constant_node
from ovjit.api.model.node import Node, Output
from ovjit.api.surface import first_opset, surface_of
from ovjit.api.tensors.convert import dims_with_symbols, element_name
from ovjit.errors import ModelError, no_such_form
from ovjit.graph import op
from ovjit.graph.attributes import REQUIRED
from ovjit.graph.op import Op, all_ops, find_op

#: Second names that OpenVINO has for a builder.
ALIASES = {"abs": "absolute", "ceil": "ceiling", "cumsum": "cum_sum"}
#: Operations whose builders are written out below.
_WRITTEN = ("Parameter", "Constant", "Result", "If", "Loop", "TensorIterator")


def opset_functions(module: str, opset: int) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of the module that has the builders of opset number `opset`."""

    def __getattr__(name: str) -> Any:
        if name == "__all__":
            return sorted(builders(opset))
        if name.startswith("__"):
            raise AttributeError(f"module 'ovjit.opset{opset}' has no attribute {name!r}")
        try:
            return builders(opset)[name]
        except KeyError:
            raise AttributeError(f"module 'ovjit.opset{opset}' has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        return sorted(builders(opset))

    # in OpenVINO the builders are in a submodule `ops` of the opset's module; here both are one
    this = sys.modules[module]
    this.__path__ = []
    sys.modules[f"{module}.ops"] = this
    return __getattr__, __dir__


def builders(opset: int) -> dict[str, Callable[..., Node]]:
    """name -> builder, of every operation that opset number `opset` has."""
    op.load_ops()
    return _builders(opset, op.generation)


@lru_cache(17)
def _builders(opset: int, generation: int) -> dict[str, Callable[..., Node]]:
    newest: dict[str, Op] = {}
    for record in all_ops():  # versions of an operation in rising order
        if first_opset(record) <= opset and not record.internal and not record.plugin:
            newest[record.name] = record
    functions: dict[str, Callable[..., Node]] = {
        "parameter": parameter,
        "result": result,
        "constant": constant if opset < 13 else constant_13,
    }
    for record in newest.values():
        if record.name not in _WRITTEN:
            function = make_builder(record)
            functions[function.__name__] = function
    from ovjit.api.model.subgraphs import CLASSES

    for record in newest.values():
        if record.name in CLASSES:
            functions[CLASSES[record.name].__name__] = CLASSES[record.name]
    if "is_inf" in functions:
        functions["is_inf"] = is_inf
    if "roi_pooling" in functions:
        functions["roi_pooling"] = roi_pooling
    if opset >= 6 and "read_value" in functions:
        from ovjit.api.model.variables import assign, read_value

        functions.update(read_value=read_value, assign=assign)
    for alias, name in ALIASES.items():
        if name in functions:
            functions[alias] = functions[name]
    return functions


def builder_name(record: Op) -> str:
    """`ReduceMax` -> `reduce_max`, `SomeNMS` -> `some_nms`, or the name in its surface."""
    own_name = surface_of(record).function
    if own_name:
        return own_name
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", record.name).lower()


@cache
def make_builder(record: Op) -> Callable[..., Node]:
    """The function that makes nodes of `record`. It raises TypeError for wrong arguments, RuntimeError for
    inputs and attributes that do not fit the operation."""
    name = builder_name(record)
    signature, inputs, attributes = _signature(record)
    required = [  # what the operation needs, after arguments that may be left out
        argument for argument, (attribute, _) in attributes.items()
        if record.attributes[attribute].default is REQUIRED and signature.parameters[argument].default is None
    ]  # fmt: skip
    surface = surface_of(record)
    settling, settled = surface.settled

    def build(*args: Any, **kwargs: Any) -> Node:
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}() {_in_python_s_words(signature, args, kwargs, error)}") from None
        for argument in required:
            if arguments.get(argument) is None:
                raise ValueError(f"{argument} must be provided to {name}()")
        node_name = kwargs.get("name")
        attrs = {xml: _value(arguments[argument], kind) for argument, (xml, kind) in attributes.items()
                 if arguments.get(argument) is not None}  # fmt: skip
        if arguments.get(settling) is not None:
            attrs = {xml: value for xml, value in attrs.items() if xml not in settled}
        sources = _sources(record, name, inputs, arguments, attrs, node_name)
        if surface.dict_argument:
            attrs = _attributes_of(arguments.get(surface.dict_argument), record, name)
        return Node._new(record, sources, record.check_attributes(attrs), node_name)

    build.__name__ = build.__qualname__ = name
    build.__module__ = f"ovjit.opset{record.opset}"
    build.__doc__ = record.doc or f"A {record.name} node of opset {record.opset}."
    build.__signature__ = signature  # type: ignore[attr-defined]
    return build


def _sources(
    record: Op, name: str, inputs: Sequence[tuple[str, bool]], arguments: Mapping[str, Any],
    attrs: Mapping[str, Any], node_name: str | None,
) -> list[Output]:  # fmt: skip
    """The outputs that a node of `record` reads, from the `arguments` of its builder. `inputs`: their
    names, and whether they are optional."""
    surface, sources = surface_of(record), list[Output]()
    absent = surface.absent
    variadic = surface.names.get(record.variadic, record.variadic) if record.variadic else None
    for index, (argument, optional) in enumerate(inputs):
        value = arguments.get(argument)
        if value is None and argument in surface.filled:
            type_, number = surface.filled[argument]
            value = constant_node(number, type_)
        attribute, needed = surface.read_if.get(argument, ("", ""))
        if needed and str(attrs.get(attribute, "")).lower() != needed:
            break
        if optional and argument == inputs[-1][0] and _is_default(value, absent.get(argument)):
            value = None
        if value is None and optional:
            later = [n for n, _ in inputs[index + 1 :] if arguments.get(n) is not None]
            if not later:
                break
            if argument not in absent:
                raise _missing(record, name, argument, later[0])
            like, number = absent[argument]
            zero = constant_node(np.array(number, np.int32)).output(0)
            sources.append(Node._new(find_op("ConvertLike"), [zero, sources[like]], {}, None).output(0))
        elif argument == variadic:
            sources += _list_sources(value, name, argument, node_name)
        else:
            sources.append(as_output(value, node_name))
    if surface.all_or_first and len(sources) not in (1, len(inputs)):
        raise _input_count(record)
    return sources


def _is_default(value: Any, absent: tuple[int, Any] | None) -> bool:
    """Whether a number equals the operation's default for the absent input."""
    return absent is not None and isinstance(value, (int, float, np.number)) and bool(value == absent[1])


def _missing(record: Op, name: str, argument: str, later: str) -> Exception:
    """The error for a missing argument `argument`, while the one after it, `later`, was passed."""
    if surface_of(record).all_or_first:
        return _input_count(record)
    return TypeError(f"{name}() takes {later!r} only together with {argument!r}")


def _list_sources(value: Any, name: str, argument: str, node_name: str | None) -> list[Output]:
    """The outputs of a list of nodes."""
    if isinstance(value, (Node, Output)) or not np.iterable(value):
        raise TypeError(f"{name}() takes a list of nodes as {argument!r}")
    listed: list[Output] = []
    for item in value:
        listed += item.outputs() if isinstance(item, Node) else [as_output(item, node_name)]
    return listed


def _in_python_s_words(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any], error: TypeError
) -> str:
    """Python's message for such a call, which differs from that of `inspect`."""
    names = list(signature.parameters)
    needed = [n for n, p in signature.parameters.items() if p.default is inspect.Parameter.empty]
    if len(args) > len(names):
        least = f"from {len(needed)} to " if len(needed) < len(names) else ""
        return f"takes {least}{len(names)} positional arguments but {len(args)} were given"
    missing = [repr(n) for n in needed if n not in kwargs and n not in names[: len(args)]]
    if missing and not set(kwargs) - set(names[len(args) :]):
        last = f"{',' if len(missing) > 2 else ''} and {missing[-1]}" if len(missing) > 1 else missing[0]
        listed = ", ".join(missing[:-1]) + last
        plural = "s" if len(missing) > 1 else ""
        return f"missing {len(missing)} required positional argument{plural}: {listed}"
    return str(error)


def _input_count(record: Op) -> UserInputError:
    return UserInputError(
        f"Operation {record.name} should have either one input or all {len(record.input_names)}."
    )


def _signature(record: Op) -> tuple[inspect.Signature, list[tuple[str, bool]], dict[str, tuple[str, str]]]:
    """(signature, [(input argument, whether optional)], attribute argument -> (IR name, type))"""
    surface = surface_of(record)
    rename = surface.names
    inputs = [(rename.get(n, n), i >= record.required_inputs) for i, n in enumerate(record.input_names)]
    if record.variadic:
        inputs.append((rename.get(record.variadic, record.variadic), False))
    attributes = {rename.get(a.name, a.name): (a.name, a.type) for a in record.attributes.values()}
    if surface.dict_argument:
        attributes = {}
    defaults = {n: None if optional else REQUIRED for n, optional in inputs}
    defaults.update((n, record.attributes[xml].default) for n, (xml, _) in attributes.items())
    if surface.dict_argument:
        rows = list(defaults.items())
        rows.insert(record.required_inputs, (surface.dict_argument, REQUIRED))
        defaults = dict(rows)
    order = "" if surface.dict_argument else surface.order
    listed = [n for n in order.split() if n in defaults] if order else list(defaults)
    names = [*listed, "name", *(n for n in defaults if n not in listed)]
    parameters: list[inspect.Parameter] = []
    for i, n in enumerate(names):
        default = REQUIRED if i < surface.required else defaults.get(n)
        if default is REQUIRED and parameters and parameters[-1].default is not REQUIRED:
            default = None  # Python wants no required argument after an optional one; the record misses it
        parameters.append(inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default))
    return inspect.Signature(parameters, return_annotation=Node), inputs, attributes


def _attributes_of(attributes: Any, record: Op, name: str) -> dict[str, Any]:
    """The attributes in the dict that a builder was given; keys that the operation does not have are left
    unused, as in OpenVINO. Raises TypeError unless it is a dict, UserInputError for one that lacks an
    attribute or has one of another kind."""
    expect(attributes, dict, f"{name}() takes its attributes as a dict", TypeError)
    for key, attribute in record.attributes.items():
        if attribute.default is REQUIRED and attributes.get(key) is None:
            raise UserInputError(
                f'Provided dictionary is missing {record.name} operator required attribute "{key}".'
            )
        if attributes.get(key) is not None and _is_of_other_kind(attributes[key], attribute.type):
            raise UserInputError(
                f'{record.name} operator attribute "{key}" value must be of type {attribute.type}, not '
                f"{type(attributes[key]).__name__}."
            )
    return {
        key: _value(value, record.attributes[key].type)
        for key, value in attributes.items()
        if key in record.attributes and value is not None
    }


def _is_of_other_kind(value: Any, kind: str) -> bool:
    """Whether an attribute is certainly not what its type says: a text for a number, the reverse, or a
    number with a fraction for an integer."""
    array = np.asarray(value)
    if kind in ("Str", "Strs", "Word", "DType"):
        return array.dtype.kind in "fiub"
    if kind in ("Int", "Ints", "Float", "Single", "Floats"):
        return array.dtype.kind in "US" or (kind[:3] == "Int" and array.dtype.kind == "f" and array.size > 0)
    return False


def _value(value: Any, kind: str) -> Any:
    if kind != "DType":
        return value
    try:
        return element_name(value)
    except TypeError as error:  # an attribute's value is wrong then, not a call's form
        raise ModelError(f'"{value}" is not a member of enum element::Type_t') from error


Build = TypeVar("Build", bound=Callable[..., Any])


def _named_by_keyword(function: Build) -> Build:
    """`function`, whose `name` counts only where it is given by keyword."""
    index = list(inspect.signature(function).parameters).index("name")

    @wraps(function)
    def build(*args: Any, **kwargs: Any) -> Any:
        if len(args) > index:
            args = (*args[:index], None, *args[index + 1 :])
        return function(*args, **kwargs)

    return cast(Build, build)


@_named_by_keyword
def parameter(shape: Any, dtype: Any = np.float32, name: str | None = None) -> Parameter:
    """An input of a model: `shape` as PartialShape takes it, `dtype` a Type, NumPy dtype or scalar class."""
    if dtype is None or dtype is object or isinstance(dtype, str):  # NumPy takes None for float64
        raise no_such_form(f"parameter() takes a Type or a NumPy dtype, not {dtype!r}")
    return Parameter._of(element_name(dtype), dims_with_symbols(shape), name)


@_named_by_keyword
def constant(value: Any, dtype: Any = None, name: str | None = None) -> Constant:
    """A constant of a number, list or array. A bare int is i64, a float f64.

    Raises ValueError for None and an empty array, TypeError for values without an element type.
    """
    if value is None or isinstance(value, np.ndarray) and value.size == 0:
        raise ValueError("Cannot create an empty Constant. Please provide valid data.")
    return constant_node(value, None if dtype is None else element_name(dtype), name)


@_named_by_keyword
def constant_13(
    value: Any = None, dtype: Any = None, name: str | None = None, *, shared_memory: bool = False,
    tensor: Any = None,
) -> Constant:  # fmt: skip
    """A constant of a number, list, array or Tensor, the last also as `tensor`. With `shared_memory`, an
    array that needs no conversion is not copied: later writes to it change the constant. Raises TypeError for
    a value without an element type."""
    if tensor is not None:
        value = tensor
    element_type = None if dtype is None else element_name(dtype)
    if hasattr(value, "element_type") and hasattr(value, "data") and not isinstance(value, np.ndarray):
        result = Constant(value, shared_memory=shared_memory)
        if element_type in (None, value.element_type._name):
            result._friendly_name = name or ""
            return result
        value = result.value
    return constant_node(value, element_type, name, share=shared_memory)


constant_13.__name__ = constant_13.__qualname__ = "constant"


@_named_by_keyword
def result(data: Any, name: str | None = None) -> Result:
    """An output of a model."""
    if isinstance(data, Node) and len(data.outputs()) != 1:
        raise ModelError(
            f"{data!r} has {len(data.outputs())} outputs; pass one of them, such as node.output(0)"
        )
    return Result._of(as_output(data), name)


@_named_by_keyword
def is_inf(data: Any, attributes: dict[str, bool] | None = None, name: str | None = None) -> Node:
    """True for the infinite elements of `data`. `attributes`: detect_negative and detect_positive, True by
    default."""
    if attributes is not None and not isinstance(attributes, dict):
        raise no_such_form(f"is_inf() takes its attributes as a dict, not as {type(attributes).__name__}")
    record = find_op("IsInf")
    attrs = record.check_attributes(_attributes_of(attributes or {}, record, "is_inf"))
    return Node._new(record, [as_output(data, name)], attrs, name)


@_named_by_keyword
def roi_pooling(
    input: Any, coords: Any, output_roi: Any = None, spatial_scale: Any = None, method: str = "max",
    name: str | None = None, *, output_size: Any = None,
) -> Node:  # fmt: skip
    """Regions of `input` pooled to `output_roi`, height and width. `coords` has five numbers for each region:
    the image and two corners, which are multiplied by `spatial_scale`. `method`: max or bilinear.
    `output_size` is the older name of `output_roi` and counts before it. Raises AttributeError without size
    or scale."""
    if output_roi is None and output_size is None:
        raise AttributeError("One of the following arguments must be defined: `output_roi`, `output_size`!")
    if spatial_scale is None:
        raise AttributeError("The following arguments must be defined: `spatial_scale`!")
    if output_size is not None:
        import warnings

        text = "`output_size` is deprecated and will be removed in future. Use `output_roi`."
        warnings.warn(text, DeprecationWarning, stacklevel=3)
    record = find_op("ROIPooling")
    size = output_roi if output_size is None else output_size
    attrs = {"output_roi": size, "spatial_scale": spatial_scale, "method": method.lower()}
    sources = [as_output(value, name) for value in (input, coords)]
    node = Node._new(record, sources, record.check_attributes(attrs), name)
    if output_size is not None:  # programs that use the older name ask for the size by it, not for a count
        vars(node).update(get_output_size=node.get_output_roi, set_output_size=node.set_output_roi)
    return node
