"""Attributes of operations: their types, the coercion of values, and their extraction from signatures."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Annotated, Any

import numpy as np

from ovjit.errors import ModelError, check
from ovjit.graph import dtypes, shapes
from ovjit.records import NamedTuple

#: Attribute types, by annotation name: how an attribute is read from text and checked.
Int = int  # 64 bits
UInt = Annotated[int, "UInt"]  # 64 bits, unsigned
Positive = Annotated[int, "Positive"]  # Int > 0
Count = Annotated[int, "Count"]  # Int >= 0
Float = float
Single = Annotated[float, "Single"]  # a Float kept in f32, as OpenVINO's class has it
Bool = bool
Str = str
Word = Annotated[str, "Word"]  # a member of an enumeration, case-insensitive and normalised
Ints = Annotated[tuple[int, ...], "Ints"]
Floats = Annotated[tuple[float, ...], "Floats"]  # in f32
Strs = Annotated[tuple[str, ...], "Strs"]
DType = Annotated[str, "DType"]  # the name of an element type
Index = Annotated[str, "Index"]  # a DType: i32 or i64
OpenShape = Annotated[Any, "OpenShape"]  # static and dynamic dimensions; None for unknown rank
Any_ = Annotated[Any, "Any_"]  # not expressible as text: arrays, subgraphs

#: Attribute -> its name in files and in `get_attributes`, if different.
FILE_NAMES = {"exclude_pad": "exclude-pad"}


class Attribute(NamedTuple):
    """One attribute: its type's name (see above), its default (`REQUIRED` if none), and its allowed values.

    Allowed values are a name in `LIMITS`, "" for all, or the members of an enumeration (`Op.words`)."""

    name: str
    type: str
    default: Any
    limit: str = ""
    words: str = ""

    def read(self, value: Any, operation: str, *, alone: bool = False) -> Any:
        """`value`, coerced to the attribute's type. Raises ModelError if it is not allowed. `alone`: no other
        attribute is set with it, so that the error shows a word as it was given."""
        try:
            result = _COERCE[self.type](value)
        except (ValueError, TypeError, OverflowError) as error:
            raise ModelError(
                f"attribute {self.name!r} of {operation} should be {self.type}, not {value!r}"
            ) from error
        if self.limit:
            _, fits, says = LIMITS[self.limit]
            spoken = self.name.replace("_", " ").capitalize()  # OpenVINO's wording
            check(fits(result), f"{spoken} must be {says}: {self.name} of {operation} is {result}")
        if not self.words:
            return result
        if self.type in ("Str", "Strs"):  # shown as they are given
            for word in (result,) if self.type == "Str" else result:
                self._member(word, operation, alone)
            return result
        return self._member(value, operation, alone)

    def choices(self) -> dict[str, str]:
        """The members of the attribute's enumeration by their names in lower case, in OpenVINO's order."""
        return _members(self.words)[2] if self.words else {}

    def _member(self, value: Any, operation: str, alone: bool) -> str:
        """The member of the enumeration that `value` names. Raises ModelError, with OpenVINO's wording, if
        there is none."""
        enumeration, words, members = _members(self.words)
        text = str(value)
        if (member := members.get(text.lower())) is not None:
            return member
        if words.isupper() and not alone:
            text = text.upper()
        says = f"is not a member of enum {enumeration}" if enumeration else "is not a valid value"
        names = ", ".join(members)
        raise ModelError(f'"{text}" {says}: {self.name} of {operation} should be one of {names}')


@functools.cache
def _members(declared: str) -> tuple[str, str, dict[str, str]]:
    """(name of an enumeration, its words as one text, word in lower case -> the member that it names)."""
    enumeration, _, words = declared.rpartition(": ")
    pairs = (word.partition("=") for word in words.lower().split())
    return enumeration, words, {word: _to_enumeration(member or word) for word, _, member in pairs}


#: Restricted attribute type -> (base type, test of a value, description).
LIMITS: dict[str, tuple[str, Callable[[Any], bool], str]] = {
    "Positive": ("Int", lambda value: value > 0, "positive"),
    "Count": ("Int", lambda value: value >= 0, "no negative number"),
    "Index": ("DType", lambda value: value in ("i32", "i64"), "i32 or i64"),
}


REQUIRED: Any = inspect.Parameter.empty


def with_earlier(
    overrides: Mapping[str, Attribute], earlier: Mapping[str, Attribute], without: Iterable[str]
) -> dict[str, Attribute]:
    """The attributes of an earlier version, without `without` and with `overrides` inserted. A new attribute
    follows its predecessor in `overrides` if that exists in the earlier version; else it comes last."""
    names = [name for name in earlier if name not in without]
    position = len(names)
    for name in overrides:
        if name not in names:
            names.insert(position, name)
        position = names.index(name) + 1
    return {name: overrides.get(name) or earlier[name] for name in names}


class Signature(NamedTuple):
    """The parameters of `infer`: input names, number of required inputs, name of the variadic input,
    attributes with annotation and default, and whether there is a `**attrs`."""

    inputs: tuple[str, ...]
    required: int
    variadic: str | None
    keywords: dict[str, tuple[Any, Any]]
    more: bool


def signature(infer: Callable) -> Signature:
    """The signature of a plain function from its code object: ten times as fast as `inspect.signature`."""
    if type(infer) is not FunctionType or infer.__dict__:
        return inspect_infer(infer)
    code, notes, defaults = infer.__code__, infer.__annotations__, infer.__kwdefaults__ or {}
    first, last = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames
    return Signature(
        names[:first],
        first - len(infer.__defaults__ or ()),
        names[last] if code.co_flags & inspect.CO_VARARGS else None,
        {name: (notes.get(name, REQUIRED), defaults.get(name, REQUIRED)) for name in names[first:last]},
        bool(code.co_flags & inspect.CO_VARKEYWORDS),
    )


def inspect_infer(infer: Callable) -> Signature:
    parameters = inspect.signature(infer).parameters.values()
    inputs = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return Signature(
        tuple(p.name for p in inputs),
        sum(p.default is p.empty for p in inputs),
        next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None),
        {p.name: (p.annotation, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY},
        any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def annotation_name(attribute: str, annotation: Any, name: str) -> str:
    """The name of an attribute's type. `name`: the operation, for errors."""
    if annotation is REQUIRED:
        raise TypeError(f"attribute {attribute!r} of {name} needs an annotation: Int, Float, Bool, ...")
    (text,) = getattr(annotation, "__metadata__", (annotation,))
    text = text if isinstance(text, str) else getattr(text, "__name__", str(text))
    if text not in _COERCE and text not in LIMITS:
        raise TypeError(f"attribute {attribute!r} of {name} has the unknown type {text}")
    return text


def _int(value: Any) -> int:
    """A 64-bit integer, the only kind that kernels support."""
    number = _any_int(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(value)
    return number


def _to_unsigned(value: Any) -> int:
    number = _any_int(value)
    if not 0 <= number < 1 << 64:
        raise ValueError(value)
    return number


def _any_int(value: Any) -> int:
    if isinstance(value, str):
        if not value.strip().lstrip("+-").isdecimal() or not value.isascii():
            raise ValueError(value)
        return int(value)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return int(value)


def _shape(value: Any) -> tuple[shapes.Dim, ...] | None:
    """Static and dynamic dimensions; None for unknown rank."""
    if value is None:
        return None
    if isinstance(value, str):
        raise TypeError(value)
    return tuple(d if isinstance(d, shapes.Interval) else _dim(d) for d in value)


def _dim(value: Any) -> int:
    number = operator.index(value)
    if isinstance(value, bool) or not 0 <= number < 1 << 63:
        raise ValueError(value)
    return value if isinstance(value, int) else number  # a Length keeps its Symbol


def _bool(value: Any) -> bool:
    if isinstance(value, str):
        lowered = value.strip().lower()
        if lowered in ("true", "1", "yes"):
            return True
        if lowered in ("false", "0", "no"):
            return False
        raise ValueError(value)
    return bool(value)


def _list_of(convert: Callable) -> Callable:
    def read(value: Any) -> tuple:
        if isinstance(value, str):
            return tuple(convert(part) for part in value.split(",") if part.strip())
        if np.ndim(value) == 0:
            return (convert(value),)
        return tuple(convert(v) for v in value)

    return read


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _word(value: Any) -> str:
    return _str(value).strip()


#: Members of enumerations that are in capitals.
_CAPITALS = frozenset(("ERF", "TANH", "INSIDE_SQRT", "OUTSIDE_SQRT"))


def _to_enumeration(value: Any) -> str:
    """A member of an enumeration in OpenVINO's case."""
    text = _str(value)
    return text.upper() if text.upper() in _CAPITALS else text.lower()


def _dtype(value: Any) -> str:
    name = getattr(value, "_name", value)
    if isinstance(name, str):
        name = {"bool": "boolean", "undefined": "dynamic"}.get(name.lower(), name.lower())
        if name in dtypes.ELEMENT_TYPES:
            return name
    try:
        return dtypes.from_numpy(value)
    except SyntaxError as error:  # NumPy reads some texts as lists of dtypes
        raise ValueError(value) from error


def _single(value: Any) -> float:
    return float(np.float32(float(value)))


_COERCE: dict[str, Callable] = {
    "Int": _int, "int": _int, "Float": float, "float": float, "Single": _single, "Bool": _bool, "bool": _bool,
    "Str": _str, "str": _str, "Ints": _list_of(_int), "Floats": _list_of(_single),
    "Strs": _list_of(_word), "Word": _to_enumeration,
    "DType": _dtype, "UInt": _to_unsigned, "OpenShape": _shape, "Any_": lambda value: value,
}  # fmt: skip
