"""`accessor` is `property`, and type checkers know the type of what its getter returns.

To them `shape = property(get_shape)` is Any: only the decorator has a type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

Value = TypeVar("Value", covariant=True)
Given = TypeVar("Given", contravariant=True)

if TYPE_CHECKING:

    class accessor(Generic[Value, Given]):
        """An attribute of type `Value`. One with a setter takes a `Given`."""

        @overload
        def __init__(self: accessor[Value, NoReturn], get: Callable[[Any], Value]) -> None: ...
        @overload
        def __init__(self, get: Callable[[Any], Value], set: Callable[[Any, Given], None]) -> None: ...
        def __init__(self, get: Any, set: Any = None) -> None: ...
        @overload
        def __get__(self, instance: None, owner: type) -> property: ...
        @overload
        def __get__(self, instance: object, owner: type) -> Value: ...
        def __get__(self, instance: object, owner: type) -> Any: ...
        def __set__(self, instance: Any, value: Given) -> None: ...

else:
    accessor = property
