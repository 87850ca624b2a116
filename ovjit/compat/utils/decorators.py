"""Decorators for functions that make nodes."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from functools import wraps
from typing import Any, Union, get_args, get_origin

from ovjit.api.model.node import Node, Output
from ovjit.compat.utils.types import as_node, as_nodes


def _named(node: Any, name: str | None) -> Any:
    if name is not None:
        node.friendly_name = name
    return node


def nameable_op(node_factory_function: Callable) -> Callable:
    """Decorator: the node that the function returns gets the friendly name passed as `name=`."""

    @wraps(node_factory_function)
    def wrapper(*args: Any, **kwargs: Any) -> Node:
        return _named(node_factory_function(*args, **kwargs), kwargs.get("name"))

    return wrapper


def unary_op(node_factory_function: Callable) -> Callable:
    """Decorator: as `nameable_op`, and the first argument may also be a number or an array."""

    @wraps(node_factory_function)
    def wrapper(input_value: Any, *args: Any, **kwargs: Any) -> Node:
        name = kwargs.get("name")
        return _named(node_factory_function(as_node(input_value, name=name), *args, **kwargs), name)

    return wrapper


def binary_op(node_factory_function: Callable) -> Callable:
    """Decorator: as `nameable_op`, and the first two arguments may also be numbers or arrays."""

    @wraps(node_factory_function)
    def wrapper(first: Any, second: Any, *args: Any, **kwargs: Any) -> Node:
        name = kwargs.get("name")
        return _named(node_factory_function(*as_nodes(first, second, name=name), *args, **kwargs), name)

    return wrapper


def custom_preprocess_function(custom_function: Callable) -> Callable:
    """A function from Output to Node, for a custom step of PrePostProcessor: it returns the node's output."""

    @wraps(custom_function)
    def wrapper(node: Node) -> Output:
        return Output._from_node(custom_function(node))

    return wrapper


class MultiMethod:
    """Overloads of one function: a call uses the first whose annotated types fit."""

    def __init__(self, name: str):
        self.name = name
        self.typemap: dict[tuple, Callable] = {}

    def matches_union(self, union_type: Any, actual_type: type) -> bool:
        """Whether `actual_type` is one of the types of a Union."""
        return any(_fits(member, actual_type) for member in get_args(union_type))

    def matches_optional(self, optional_type: Any, actual_type: Any) -> bool:
        """Whether a type fits an Optional: None, or a type that fits a member, as in `matches_union`."""
        return actual_type is None or self.matches_union(optional_type, actual_type)

    def check_invoked_types_in_overloaded_funcs(self, tuple_to_check: tuple, key_structure: tuple) -> bool:
        """Whether the types of the arguments fit the annotations, as far as both exist."""
        return all(
            _fits(expected, actual) for actual, expected in zip(tuple_to_check, key_structure, strict=False)
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        argument_types = tuple(type(arg) for arg in args)
        for types_, function in self.typemap.items():
            parameters = inspect.signature(function).parameters
            if len(argument_types) > len(parameters) or not set(kwargs) <= set(parameters):
                continue
            if not kwargs and len(argument_types) < sum(p.default is p.empty for p in parameters.values()):
                continue
            if self.check_invoked_types_in_overloaded_funcs(argument_types, types_):
                return function(*args, **kwargs)
        raise TypeError(f"The necessary overload for {self.name} was not found")

    def register(self, types: tuple, function: Callable) -> None:
        """Add an overload. TypeError if there is one with these types."""
        if types in self.typemap:
            raise TypeError("duplicate registration")
        self.typemap[types] = function


def _fits(annotation: Any, actual: type) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(member, actual) for member in get_args(annotation))
    if annotation is Any:
        return True
    kind = origin or annotation
    return isinstance(kind, type) and issubclass(actual, kind)


registry: dict[str, MultiMethod] = {}


def overloading(*types: Any) -> Callable:
    """Decorator: adds an overload with arguments of these types to the function's name."""

    def register(function: Callable) -> MultiMethod:
        method = registry.setdefault(function.__name__, MultiMethod(function.__name__))
        method.register(types, function)
        return method

    return register


__all__ = [
    "MultiMethod", "binary_op", "custom_preprocess_function", "nameable_op", "overloading", "registry",
    "unary_op",
]  # fmt: skip
