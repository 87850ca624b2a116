"""The surface of openvino_genai as JSON: names, attributes of new objects, what can be assigned to them.

python -m tests.support.genai_surface real|ovjit
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

#: Values that programs assign, by name.
VALUES: dict[str, Any] = {
    "None": None, "text": "abc", "-1": -1, "1.5": 1.5, "3": 3, "True": True,
    "list": [1], "tuple": (1,), "dict": {"a": 1},
    "int64": np.int64(3), "float32": np.float32(2.5), "object": object(),
}  # fmt: skip


def error_of(run: Callable[[], Any]) -> Any:
    """The result, or the name of the built-in class of the error."""
    try:
        return run()
    except Exception as error:
        return "error " + next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins")


def describe(value: Any) -> str:
    """A value without the address and the module of an object."""
    return re.sub(r"<[\w.]*\.(\w+) object at 0x\w+>", r"<\1>", repr(value))


def classes_of(package: Any) -> Iterator[tuple[str, type]]:
    """The public classes by name, nested ones too."""
    for name in sorted(dir(package)):
        value = getattr(package, name)
        if name.startswith("_") or not inspect.isclass(value) or name in ("Any",):
            continue
        yield name, value
        for inner in sorted(dir(value)):
            if not inner.startswith("_") and inspect.isclass(getattr(value, inner)):
                yield f"{name}.{inner}", getattr(value, inner)


def list_members(kind: type) -> dict[str, Any]:
    members = {name: int(value) for name, value in kind.__members__.items()}  # type: ignore[attr-defined]
    value = next(iter(kind.__members__.values()))  # type: ignore[attr-defined]
    return {
        "members": sorted(members.items()),
        "shown": [repr(value), str(value), value.name, value.value],
        "equal": [value == value.value, value != None, hash(value) == hash(value.value)],  # noqa: E711
        "made": error_of(lambda: repr(kind(value.value))),  # type: ignore[call-arg]
    }


def list_attributes(kind: type) -> dict[str, Any]:
    """The attributes of a new object, their values, and what an assignment leaves."""
    found: dict[str, Any] = {}
    fresh = kind()
    for name in sorted(dir(fresh)):
        if name.startswith("_"):
            continue
        value = error_of(lambda name=name: getattr(fresh, name))
        if callable(value):
            found[name] = "callable"
            continue
        found[name] = [type(value).__name__, describe(value)]
        for label, each in VALUES.items():

            def assign(name: str = name, each: Any = each) -> str:
                other = kind()
                setattr(other, name, each)
                return describe(getattr(other, name))

            found[f"{name} = {label}"] = error_of(assign)
    return found


def collect(package: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in classes_of(package):
        if hasattr(kind, "__members__"):
            found[name] = list_members(kind)
        elif isinstance(error_of(kind), str):
            names = [each for each in dir(kind) if not each.startswith("_")]
            found[name] = {"methods": [each for each in names if callable(getattr(kind, each))]}
        else:
            found[name] = list_attributes(kind)
    return found


if __name__ == "__main__":
    if sys.argv[1] == "ovjit":
        import ovjit.as_openvino  # noqa: F401
    import openvino_genai

    print(json.dumps(collect(openvino_genai)))
