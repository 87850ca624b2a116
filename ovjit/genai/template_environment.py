"""Jinja's environment with the rules of openvino_genai's engine of chat templates (minja)."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from jinja2 import Undefined
from jinja2.compiler import CodeGenerator
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import SandboxedEnvironment

from ovjit.errors import OvjitError


class Missing(Undefined):
    """None, or a value that is not there: "None" in a joined text, nothing where it is printed alone. It
    has no attributes, no items and no length."""

    __len__ = Undefined._fail_with_undefined_error

    def __str__(self) -> str:
        return "None"

    def __repr__(self) -> str:
        return "null"

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Undefined)

    __hash__ = Undefined.__hash__


class Generation(Extension):
    """{% generation %} marks what a model writes, for training: the block is rendered as it is."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Generator(CodeGenerator):
    """Joins values by `join_values`."""

    def visit_Concat(self, node: Any, frame: Any) -> None:
        self.write("environment.join_values(")
        for each in node.nodes:
            self.visit(each, frame)
            self.write(", ")
        self.write(")")


class Environment(SandboxedEnvironment):
    """A text plus any value is a text, and integers are divided as in C++. Messages are copies, so templates
    may change them."""

    intercepted_binops = frozenset("+/%")
    code_generator_class = Generator

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation], undefined=Missing,
            finalize=_print,
        )  # fmt: skip
        tests: dict[str, Any] = self.tests
        tests["none"] = lambda value: value is None or isinstance(value, Undefined)
        for name in ("iterable", "sequence"):
            tests[name] = _exclude_missing(tests[name])
        filters: dict[str, Any] = self.filters
        for name in ("lower", "trim", "upper"):
            filters[name] = _take_texts(name, filters[name])
        filters["string"] = _show
        self.globals["raise_exception"] = _fail
        self.globals["strftime_now"] = _now

    def call_binop(self, context: Any, operator: str, first: Any, second: Any) -> Any:
        if operator == "+" and (isinstance(first, str) or isinstance(second, str)):
            return self.join_values(first, second)
        if operator != "+" and isinstance(first, int) and isinstance(second, int) and second:
            quotient = abs(first) // abs(second) * (1 if (first < 0) == (second < 0) else -1)
            return quotient if operator == "/" else first - quotient * second
        return self.binop_table[operator](first, second)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An item; a text has slices only."""
        if isinstance(obj, str) and not isinstance(argument, slice):
            return self.undefined(obj=obj, name=argument)
        return super().getitem(obj, argument)

    def join_values(self, *values: Any) -> str:
        return "".join(map(_show, values))


def _exclude_missing(test: Callable[..., Any]) -> Callable[[Any], bool]:
    """The test, which no missing value passes."""
    return lambda value: not isinstance(value, Undefined) and test(value)


def _take_texts(name: str, change: Callable[[str], Any]) -> Callable[[Any], Any]:
    """The filter, which leaves None and missing values as they are, and refuses others than texts."""

    def call(value: Any) -> Any:
        if value is None or isinstance(value, Undefined):
            return value
        if not isinstance(value, str):
            raise OvjitError(f"the filter {name} of a chat template takes a text, not {type(value).__name__}")
        return change(value)

    return call


def _show(value: Any) -> str:
    """The text of a value in a joined text."""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _print(value: Any) -> Any:
    """The text of a value that is printed alone."""
    return "" if value is None or isinstance(value, Undefined) else value


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _fail(message: str) -> None:
    raise OvjitError(message)
