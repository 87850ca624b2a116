"""Calls of each form of a constructor, static method and function of openvino_genai, as JSON: what comes of them.

python -m tests.support.genai_calls real|ovjit

The forms are those of the stubs in openvino_genai's wheel. Each is called with arguments by position, by keyword, and by
keyword without those that have defaults. Paths are missing and tensors are empty, so most calls end with a RuntimeError; a
form that is not known ends with a TypeError.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import ast
import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import ROOT

#: Forms that end the process of openvino_genai, or wait for input.
LEFT_OUT = frozenset({"StreamerBase", "Generator"})


def read_stubs() -> ast.Module:
    """The stubs in the wheel of openvino_genai, which need not be imported."""
    wheel = importlib.metadata.distribution("openvino-genai")
    return ast.parse(Path(str(wheel.locate_file("openvino_genai/py_openvino_genai.pyi"))).read_text())


def list_functions(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """(class, function) of each form of each function, those of nested classes too."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from list_functions(node.body, f"{owner}.{node.name}".lstrip("."))
        elif isinstance(node, ast.FunctionDef):
            yield owner, node


def decorators_of(function: ast.FunctionDef) -> set[str]:
    return {ast.unparse(each).rpartition(".")[2] for each in function.decorator_list}


def value_of(package: Any, annotation: str) -> Any:
    """An argument of this type. KeyError for a type without one."""
    import openvino

    values = {
        "str": "CPU", "os.PathLike": "/missing", "openvino._pyopenvino.Tensor": openvino.Tensor(np.zeros(4, np.uint8)),
        "typing.SupportsInt": 2, "typing.SupportsFloat": 0.5, "bool": True, "list": [], "typing.Any": None,
        "collections.abc.Mapping": {}, "collections.abc.Sequence": [],
    }  # fmt: skip
    first = annotation.split(" | ")[0].partition("[")[0].removeprefix("openvino_genai.py_openvino_genai.")
    if first in values:
        return values[first]
    kind = package
    for part in first.split("."):
        kind = getattr(kind, part)
    return next(iter(kind.__members__.values())) if hasattr(kind, "__members__") else kind()


#: Calls of `Tokenizer.encode`: arguments and keywords.
ENCODINGS: list[tuple[list[Any], dict[str, Any]]] = [
    (["hi there", True], {}), (["hi there", False], {}), (["hi there", True, True, 12], {}),
    (["hi there", True, True, 12, "left"], {}), (["hi there", True, False, 2, None, True], {}),
    (["hi there", True], {"truncation": True, "max_length": 3}), (["hi", True], {"add_special_tokens": False}),
    ([["a", "bc"], ["d"]], {}), ([["a"]], {"prompts_2": ["b"]}), (["hi", 1], {}), (["hi", None], {}), ([], {"prompt": "hi"}),
    ([], {"prompts": ["hi"]}), ([], {"prompts": "hi"}), ([], {"prompt": ["hi"]}), ([], {"prompts_1": ["a"]}),
    ([], {"prompts_1": ["a"], "prompts_2": ["b"]}), (["hi"], {"foo": 1}), (["hi", True, False, 3.0], {}),
    (["hi", True, False, "3"], {}), (["hi"], {"max_length": -1}), ([("a", "b")], {}), ([[]], {}), (["hi", 0], {}),
    (["hi", "x"], {}), ([[["a", "b"]]], {}), ([["a"], "b"], {}), (["a", "b"], {}), (["hi"], {"padding_side": "up"}),
    (["hi"], {"pad_to_max_length": None}), (["hi"], {"max_length": 5, "pad_to_max_length": True}), ([[1]], {}), ([None], {}),
    ([], {}), (["hi", True, False, None, None, True, 1], {}),
]  # fmt: skip


def list_encodings(package: Any) -> list[str]:
    tokenizer = package.Tokenizer(ROOT / "tests" / "genai" / "data")

    def encode(*arguments: Any, **keywords: Any) -> list[list[int]]:
        return tokenizer.encode(*arguments, **keywords).input_ids.data.tolist()

    return [describe_call(encode, *call, show=str) for call in ENCODINGS]


def describe_call(
    function: Any,
    arguments: list[Any],
    keywords: dict[str, Any],
    show: Callable[[Any], str] = lambda x: type(x).__name__,
) -> str:
    """The result, as `show` has it, or the name of the built-in class of the error."""
    try:
        return show(function(*arguments, **keywords))
    except Exception as error:
        return "error " + next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins")


def collect(package: Any) -> dict[str, list[str]]:
    """Form -> the results of its calls."""
    found: dict[str, list[str]] = {}
    for owner, form in list_functions(read_stubs().body):
        is_static = not owner or "staticmethod" in decorators_of(form)
        if not (is_static or form.name == "__init__") or owner in LEFT_OUT:
            continue
        nodes = [node for node in form.args.posonlyargs + form.args.args if node.arg != "self"]
        required = [node.arg for node in nodes[: len(nodes) - len(form.args.defaults)]]
        function = package
        try:
            for part in [*owner.split("."), *([form.name] if is_static else [])]:
                function = getattr(function, part) if part else function
            values = {n.arg: value_of(package, ast.unparse(n.annotation)) for n in nodes if n.annotation}
        except (AttributeError, TypeError):
            continue
        label = f"{owner}.{form.name}({', '.join(node.arg for node in nodes)})"
        few = {name: value for name, value in values.items() if name in required}
        calls: list[tuple[list[Any], dict[str, Any]]] = [
            (list(values.values()), {}),
            (list(few.values()), {}),
        ]
        if not any(name.startswith("arg") for name in values):
            calls += [([], values), ([], few), ([], {**values, "unknown_name": 1})]
        found[label] = [describe_call(function, *call) for call in calls]
    return {**found, "Tokenizer.encode": list_encodings(package)}


if __name__ == "__main__":
    if sys.argv[1] == "ovjit":
        import ovjit.as_openvino  # noqa: F401
    import openvino_genai

    print(json.dumps(collect(openvino_genai)))
