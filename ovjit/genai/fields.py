"""Objects with fields whose values are checked and converted."""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ovjit.errors import OvjitError

#: The value of a number that is not limited.
UNLIMITED = 2**64 - 1
#: Texts that are a bool's value, in lower case.
_BOOLS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False, "": False}
#: The number at the start of a text.
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
_WHOLE_NUMBER = re.compile(r"\s*([+-]?\d+)")


class Kind:
    """A kind of fields. `assign` converts the value of an attribute (TypeError), `convert` that of a
    keyword, as OpenVINO's properties do: from texts, and between numbers (ValueError or TypeError)."""

    def assign(self, value: Any) -> Any:
        return value

    def convert(self, value: Any) -> Any:
        return self.assign(value)


class Bool(Kind):
    def assign(self, value: Any) -> bool:
        if value is not None and not isinstance(value, (bool, np.bool_, int, float, np.number)):
            raise TypeError(f"expected a bool, not {type(value).__name__}")
        return bool(value)

    def convert(self, value: Any) -> bool:
        if isinstance(value, str) and value.lower() in _BOOLS:
            return _BOOLS[value.lower()]
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        raise ValueError(f"{value!r} is no bool")


class Integer(Kind):
    def __init__(self, lowest: int = 0):
        self.lowest = lowest

    def assign(self, value: Any) -> int:
        number = int(value) if isinstance(value, np.floating) else operator.index(value)
        if not self.lowest <= number <= UNLIMITED:
            raise TypeError(f"expected a whole number from {self.lowest}, not {number}")
        return number

    def convert(self, value: Any) -> int:
        number: Any = value
        if isinstance(value, str):
            match = _WHOLE_NUMBER.match(value)
            if match is None and value:
                raise ValueError(f"{value!r} is no number")
            number = 0 if match is None else int(match[1])
        elif isinstance(value, (float, np.floating)):
            if not -(2.0**63) < float(value) < 2.0**63:
                raise ValueError(f"{value!r} is no number of 64 bits")
            number = int(value)
        elif isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{value!r} is no number")
        number = operator.index(number)
        return number & UNLIMITED if self.lowest == 0 else number


class Real(Kind):
    """A number in f32."""

    def assign(self, value: Any) -> float:
        if value is None or isinstance(value, str):
            raise TypeError(f"expected a number, not {type(value).__name__}")
        return float(np.float32(value))

    def convert(self, value: Any) -> float:
        if isinstance(value, str):
            match = _NUMBER.match(value)
            if match is None and value:
                raise ValueError(f"{value!r} is no number")
            value = 0.0 if match is None else float(match[1])
        elif isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{value!r} is no number")
        return self.assign(value)


class Set(Kind):
    def __init__(self, element: type):
        self.element = element

    def assign(self, value: Any) -> set[Any]:
        if not isinstance(value, (set, frozenset)):
            raise TypeError(f"expected a set of {self.element.__name__}, not {type(value).__name__}")
        if self.element is str:
            if not all(isinstance(each, str) for each in value):
                raise TypeError("expected a set of str")
            return set(value)
        return {operator.index(each) for each in value}

    def convert(self, value: Any) -> set[Any]:
        if isinstance(value, str):
            return {self.element(each) for each in value.split()}
        return self.assign(value)


class Tokens(Kind):
    """A list of token numbers."""

    def assign(self, value: Any) -> list[int]:
        if isinstance(value, (str, bytes, Mapping)):
            raise TypeError(f"expected a list of int, not {type(value).__name__}")
        return [operator.index(each) for each in value]

    def convert(self, value: Any) -> list[int]:
        return [int(each) for each in value.split()] if isinstance(value, str) else self.assign(value)


class Pairs(Kind):
    """A list of pairs of indices."""

    def assign(self, value: Any) -> list[tuple[int, int]]:
        pairs = [tuple(SIZE.assign(each) for each in pair) for pair in value]
        if isinstance(value, str) or any(len(pair) != 2 for pair in pairs):
            raise TypeError("expected a list of pairs of int")
        return pairs  # type: ignore[return-value]


class TokensByName(Kind):
    """Token numbers by name."""

    def assign(self, value: Any) -> dict[str, int]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise TypeError("expected a dict from str to int")
        return {name: operator.index(value[name]) for name in sorted(value)}


class Optional(Kind):
    """A value or None."""

    def __init__(self, kind: Kind):
        self.kind = kind

    def assign(self, value: Any) -> Any:
        return None if value is None else self.kind.assign(value)

    def convert(self, value: Any) -> Any:
        return None if value is None else self.kind.convert(value)


class Text(Kind):
    def assign(self, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"expected a str, not {type(value).__name__}")
        return value

    def convert(self, value: Any) -> str:
        return str(value)


class Instance(Kind):
    """An object of one of these classes."""

    def __init__(self, *classes: type):
        self.classes = classes

    def assign(self, value: Any) -> Any:
        if not isinstance(value, self.classes):
            names = " or ".join(each.__name__ for each in self.classes)
            raise TypeError(f"expected a {names}, not {type(value).__name__}")
        return value


class Copied(Instance):
    """A kind for instances of a class; a field has a copy of the value."""

    def assign(self, value: Any) -> Any:
        return copy.copy(super().assign(value))


BOOL, SIZE, REAL, TOKEN = Bool(), Integer(), Real(), Integer(-(2**63))


def unpack_config(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords, with those in a dict named `config` beside the others, as openvino_genai takes them."""
    config = keywords.get("config")
    if not isinstance(config, dict):
        return {**keywords}
    return {**{name: value for name, value in keywords.items() if name != "config"}, **config}


class _WithFields(type):
    """Gives a class its fields as properties, which programs look for before they set them."""

    _fields: dict[str, Any]

    def __getattr__(cls, name: str) -> property:
        if name not in cls._fields:
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        return property(operator.attrgetter(name))


class Settings(metaclass=_WithFields):
    """An object with fields. An unknown attribute is an AttributeError, a value of another
    type a TypeError."""

    #: Field -> (default, kind).
    _fields: ClassVar[dict[str, tuple[Any, Kind]]] = {}

    def __init__(self) -> None:
        self._values.update((name, copy.copy(default)) for name, (default, _) in self._fields.items())

    @property
    def _values(self) -> dict[str, Any]:
        """The fields by name: attributes of the object itself, which steps of a generation read often."""
        return self.__dict__

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._fields:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._values[name] = self._fields[name][1].assign(value)

    def update_fields(self, values: Mapping[str, Any]) -> None:
        """Set fields by keywords. Unknown ones are ignored; None and values of other types are
        RuntimeErrors. `taylorseer_config` may be None."""
        for name, value in values.items():
            if value is None and name != "taylorseer_config":
                raise OvjitError(f'Property "{name}" can\'t be None: leave the keyword out')
            if name not in self._fields:
                continue
            try:
                self._values[name] = self._fields[name][1].convert(value)
            except (TypeError, ValueError) as error:
                raise OvjitError(f"the value {value!r} of {name} is not supported: {error}") from error

    def __copy__(self) -> Any:
        other = type(self).__new__(type(self))
        other._values.update((name, copy.copy(value)) for name, value in self._values.items())
        return other

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__copy__()


class Keywords(Settings):
    """An object whose fields are set by keywords. Unknown ones are ignored, as in openvino_genai."""

    def __init__(self, **kwargs: Any):
        super().__init__()
        self.update_fields(kwargs)
