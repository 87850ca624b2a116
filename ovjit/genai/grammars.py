"""StructuredOutputConfig: the grammar that an answer obeys, and the grammars that it is composed of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from ovjit.errors import OvjitError
from ovjit.genai.fields import BOOL, Copied, Instance, Keywords, Kind, Optional, Settings, Text


class _List(Kind):
    """A list whose elements are of one kind; not a str."""

    def __init__(self, kind: Kind):
        self.kind = kind

    def assign(self, value: Any) -> list[Any]:
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise TypeError(f"expected a list, not {type(value).__name__}")
        return [self.kind.assign(each) for each in value]

    def convert(self, value: Any) -> list[Any]:
        return [value] if isinstance(value, str) and isinstance(self.kind, Text) else self.assign(value)


_TEXT = Text()


class Grammar(Settings):
    """The base of grammars: `a + b` is a Concat of them, `a | b` a Union. Where a grammar is expected, a str
    with the JSON of a structural tag's format serves as well."""

    def __init__(self, *arguments: Any, **kwargs: Any):
        super().__init__()
        names = list(self._fields)
        values = dict(zip(names, arguments, strict=False)) | kwargs
        # fields with the default None are required
        missing = [name for name in names if self._fields[name][0] is None and name not in values]
        repeated = set(kwargs) & set(names[: len(arguments)])
        if len(arguments) > len(names) or set(kwargs) - set(names) or repeated or missing:
            raise TypeError(
                f"__init__(): incompatible constructor arguments. {type(self).__name__} takes "
                f"{', '.join(names) or 'none'}"
            )
        for name, value in values.items():
            setattr(self, name, value)

    def __add__(self, other: Any) -> Concat:
        return Concat(_elements_of(Concat, self, other))

    def __or__(self, other: Any) -> Union:
        return Union(_elements_of(Union, self, other))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={_quote(self._values[name])}" for name in self._fields)
        return f"{type(self).__name__}({fields})"

    def to_format(self) -> dict[str, Any]:
        """The format of a structural tag, as xgrammar reads it."""
        raise NotImplementedError


_GRAMMAR = Instance(Grammar, str)


def _quote(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return f"[{', '.join(map(_quote, value))}]" if isinstance(value, list) else str(value)


def _elements_of(kind: type[_Elements], *sides: Any) -> list[Any]:
    """The operands of an operator; those of a side that is of this kind itself are its elements."""
    return [each for side in sides for each in (side.elements if isinstance(side, kind) else [side])]


def format_of(grammar: Any) -> Any:
    """The format of a Grammar, or of a str with its JSON. RuntimeError for a str that is no JSON."""
    if isinstance(grammar, Grammar):
        return grammar.to_format()
    try:
        return json.loads(grammar)
    except ValueError as error:
        raise OvjitError(f"Failed to create grammar from structural tag: Invalid JSON: {error}") from error


class _Value(Grammar):
    """A grammar given as one string: a JSON schema, a regular expression or EBNF."""

    _fields: ClassVar[dict[str, tuple[Any, Kind]]] = {"value": (None, _TEXT)}
    #: The format's type, and its name of the text.
    _format: ClassVar[tuple[str, str]]

    def __init__(self, value: str, /):
        super().__init__(value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_quote(self.value)})"

    def to_format(self) -> dict[str, Any]:
        kind, name = self._format
        return {"type": kind, name: self.value}


class Regex(_Value):
    """Text that a regular expression matches as a whole."""

    _format = ("regex", "pattern")


class EBNF(_Value):
    """Text of a grammar in EBNF, whose first rule is `root`."""

    _format = ("grammar", "grammar")


class ConstString(_Value):
    """This text."""

    _format = ("const_string", "value")


class JSONSchema(_Value):
    """JSON that a schema describes; the schema is a str."""

    def to_format(self) -> dict[str, Any]:
        return {"type": "json_schema", "json_schema": format_of(self.value)}


class QwenXMLParametersFormat(Grammar):
    """The arguments of a function's call, <parameter=name>value</parameter>, that a JSON schema describes."""

    _fields: ClassVar[dict[str, tuple[Any, Kind]]] = {"json_schema": (None, _TEXT)}

    def __init__(self, json_schema: str, /):
        super().__init__(json_schema)

    def __repr__(self) -> str:
        return f"QwenXMLParametersFormat(json_schema={self.json_schema})"

    def to_format(self) -> dict[str, Any]:
        return {"type": "qwen_xml_parameter", "json_schema": format_of(self.json_schema)}


class AnyText(Grammar):
    """Any text."""

    def to_format(self) -> dict[str, Any]:
        return {"type": "any_text"}


class _Elements(Grammar):
    """A grammar of at least two others: as arguments, or as one iterable."""

    _fields: ClassVar[dict[str, tuple[Any, Kind]]] = {"elements": (None, _List(_GRAMMAR))}
    _format: ClassVar[str]

    def __init__(self, *grammars: Any, **kwargs: Any):
        if len(grammars) == 1 and isinstance(grammars[0], Iterable):
            grammars = tuple(grammars[0])
        elements = kwargs.pop("elements", grammars)
        try:
            super().__init__(list(elements), **kwargs)
        except TypeError as error:
            raise OvjitError(f"the type isn't supported for StructuralTag: {error}") from error
        if len(self.elements) < 2:
            raise ValueError(f"StructuredOutputConfig.{type(self).__name__} requires at least two elements")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self.elements))})"

    def to_format(self) -> dict[str, Any]:
        return {"type": self._format, "elements": [format_of(each) for each in self.elements]}


class Concat(_Elements):
    """Grammars one after another."""

    _format = "sequence"


class Union(_Elements):
    """One of several grammars."""

    _format = "or"


class Tag(Grammar):
    """A text, a grammar's text, and a text after it."""

    _fields: ClassVar[dict[str, tuple[Any, Kind]]] = {
        "begin": (None, _TEXT), "content": (None, _GRAMMAR), "end": (None, _TEXT),
    }  # fmt: skip

    def __repr__(self) -> str:
        return f"Tag(begin={_quote(self.begin)}, content={self.content}, end={_quote(self.end)})"

    def to_format(self) -> dict[str, Any]:
        content = format_of(self.content)
        return {"type": "tag", "begin": self.begin, "content": content, "end": self.end}


_TAGS = _List(Copied(Tag))


class _Tags(Grammar):
    """A grammar of several tags."""

    _format: ClassVar[str]

    def to_format(self) -> dict[str, Any]:
        tags = [format_of(tag) for tag in self.tags]
        return {"type": self._format, **self._values, "tags": tags}


class TriggeredTags(_Tags):
    """Any text with tags in it: a trigger, a prefix of a tag's `begin`, starts one."""

    _fields: ClassVar[dict[str, tuple[Any, Kind]]] = {
        "triggers": (None, _List(_TEXT)), "tags": (None, _TAGS), "at_least_one": (False, BOOL),
        "stop_after_first": (False, BOOL),
    }  # fmt: skip
    _format = "triggered_tags"


class TagsWithSeparator(_Tags):
    """Tags with a text between them."""

    _fields: ClassVar[dict[str, tuple[Any, Kind]]] = {
        "tags": (None, _TAGS), "separator": (None, _TEXT), "at_least_one": (False, BOOL),
        "stop_after_first": (False, BOOL),
    }  # fmt: skip
    _format = "tags_with_separator"

    def __repr__(self) -> str:
        flags = ", ".join(f"{name}={str(getattr(self, name)).lower()}" for name in list(self._fields)[2:])
        return f"TagsWithSeparator(separator={_quote(self.separator)}, tags={_quote(self.tags)}, {flags})"


class _Printed(Keywords):
    """Such an object whose repr has its fields."""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={self._values[name]!r}" for name in self._fields)
        return f"{type(self).__name__}({fields})"


class StructuralTagItem(_Printed):
    """A tag of StructuralTagsConfig, whose content a JSON schema describes. Deprecated: use Tag."""

    _fields: ClassVar[dict[str, tuple[Any, Kind]]] = {
        "begin": ("", _TEXT), "schema": ("", _TEXT), "end": ("", _TEXT),
    }  # fmt: skip


class StructuralTagsConfig(_Printed):
    """Any text with tags in it. Deprecated: use TriggeredTags."""

    _fields: ClassVar[dict[str, tuple[Any, Kind]]] = {
        "structural_tags": ([], _List(Copied(StructuralTagItem))), "triggers": ([], _List(_TEXT)),
    }  # fmt: skip

    def to_grammar(self) -> TriggeredTags:
        tags = [Tag(item.begin, JSONSchema(item.schema), item.end) for item in self.structural_tags]
        return TriggeredTags(self.triggers, tags)


class StructuredOutputConfig(_Printed):
    """The grammar of an answer: one of `json_schema`, `regex`, `grammar` (EBNF) as str, or
    `structural_tags_config`, a grammar of the classes here. `compound_grammar` is its deprecated name."""

    _fields: ClassVar[dict[str, tuple[Any, Kind]]] = {
        "json_schema": (None, Optional(_TEXT)), "regex": (None, Optional(_TEXT)),
        "grammar": (None, Optional(_TEXT)),
        "structural_tags_config": (None, Optional(Instance(StructuralTagsConfig, Grammar, str))),
        "compound_grammar": (None, Optional(_GRAMMAR)),
    }  # fmt: skip
    Regex, JSONSchema, EBNF, ConstString, AnyText = Regex, JSONSchema, EBNF, ConstString, AnyText
    QwenXMLParametersFormat, Concat, Union, Tag = QwenXMLParametersFormat, Concat, Union, Tag
    TriggeredTags, TagsWithSeparator = TriggeredTags, TagsWithSeparator

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        if kwargs:
            self.validate()

    def validate(self) -> None:
        """RuntimeError unless exactly one field is set."""
        fields = [f"{name}={value}" for name, value in self._values.items() if value is not None]
        if len(fields) != 1:
            raise OvjitError(
                "Only one of json, regex, grammar, structural_tags_config, or compound_grammar should be set "
                f"in StructuredOutputConfig, but got: {', '.join(fields)}"
            )
