"""Short scripts that run on the real OpenVINO and on ovjit, statement by statement, with the same outcome.

A script is Python source. `ov` is the package, `o1` to `o17` are its opsets, `np` is NumPy; `P(shape, dtype)`
makes a parameter, `info(node)` says what a node is, `run(node, parameters, arrays)` computes it on the CPU.
What an expression gives and the builtin exception that any statement raises is compared;
words are compared only where a script asks for them (`words(call, ...)`).
"""

from __future__ import annotations

import ast
import importlib
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np


class Opsets(dict):
    """Names of a script; an opset is imported when it is asked for, a module of the package by its name."""

    def __missing__(self, name: str) -> Any:
        if re.fullmatch(r"o\d+", name):
            self[name] = importlib.import_module(f"{self['ov'].__name__}.opset{name[1:]}")
        elif name in ("op", "passes", "preprocess", "frontend", "_offline_transformations", "tools"):
            self[name] = importlib.import_module(f"{self['ov'].__name__}.{name}")
        else:
            raise KeyError(name)
        return self[name]


def names_of(package: Any) -> Opsets:
    """What a script finds."""
    names = Opsets(ov=package, np=np, words=words)
    importlib.import_module(f"{package.__name__}.frontend.onnx")
    names["Type"], names["Shape"], names["PartialShape"] = package.Type, package.Shape, package.PartialShape
    names["Model"], names["Tensor"], names["Node"] = package.Model, package.Tensor, package.Node

    def parameter(shape: Any, dtype: Any = np.float32, name: str = "p") -> Any:
        return names["o13"].parameter(shape, dtype, name=name)

    def run(node: Any, parameters: Any, arrays: Any) -> Any:
        nodes = node if isinstance(node, list) else [node]
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = package.Core().compile_model(package.Model(nodes, parameters, "m"), "CPU", config)
        results = compiled(arrays)
        return [np.array(results[i]) for i in range(len(compiled.outputs))]

    names["P"], names["info"], names["run"] = parameter, info, run
    return names


def info(node: Any) -> Any:
    """Type, and the outputs' shapes and element types."""
    outputs = [(str(o.get_partial_shape()), o.get_element_type().get_type_name()) for o in node.outputs()]
    return node.get_type_name(), outputs


def words(call: Any, *args: Any, **kwargs: Any) -> str:
    """What a call says when it raises."""
    try:
        call(*args, **kwargs)
    except Exception as error:
        return str(error)
    return "nothing raised"


def plain(value: Any) -> Any:
    """A value in a form that compares across the packages: ours and theirs say their type's names."""
    if isinstance(value, np.ndarray):
        shown = value.astype(np.float64).round(4) + 0.0 if value.dtype.kind == "f" else value
        return "array", value.dtype.str, value.shape, shown.tolist()
    if isinstance(value, np.generic):
        return value.dtype.str, value.item()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    text = re.sub(r"(?<![\w.])[A-Za-z_]\w*_\d+(?!\w)", "<numbered>", repr(value))
    text = re.sub(r"\b(openvino|ovjit)(\.\w+)*\.(?=[A-Z])", "", text)
    return re.sub(r"0x[0-9a-f]+", "0x", text)


def outcomes(package: Any, script: str) -> list[Any]:
    """One outcome for each statement that is an expression or raises, with its line."""
    names = names_of(package)
    told: list[Any] = []
    for statement in ast.parse(script).body:
        line = ast.get_source_segment(script, statement)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                if isinstance(statement, ast.Expr):
                    code = compile(ast.Expression(statement.value), "script", "eval")
                    told.append((line, plain(eval(code, names))))
                else:
                    exec(compile(ast.Module([statement], []), "script", "exec"), names)
            except Exception as error:
                kind = next(k for k in type(error).__mro__ if k.__module__ == "builtins")
                told.append((line, "raises", kind.__name__))
        told += [(line, "warns", w.category.__name__) for w in caught if "openvino" in str(w.filename)]
    return told


def assert_same(script: str) -> None:
    """Both packages come to the same, statement by statement."""
    import openvino

    import ovjit

    real, ours = outcomes(openvino, script), outcomes(ovjit, script)
    for theirs, mine in zip(real, ours, strict=False):
        assert mine == theirs, f"\nOpenVINO: {theirs}\novjit:    {mine}"
    assert len(real) == len(ours)


def scripts() -> list[Any]:
    """The scripts of all files in `tests/support/scripts`, each begun by `# -- name`, as parameters."""
    import pytest

    found = []
    for path in sorted((Path(__file__).parent / "scripts").glob("*.txt")):
        parts = re.split(r"^# -- (.+)\n", path.read_text(), flags=re.M)[1:]
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            found.append(pytest.param(body, id=f"{path.stem}-{name}".replace(" ", "-")))
    return found
