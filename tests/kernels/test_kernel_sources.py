"""Kernels' definitions are found as `inspect` finds them, wherever a line of theirs stands."""

from __future__ import annotations

import ast
import errno
import importlib
import inspect
import linecache
import logging
import statistics
import sys
import textwrap
import tokenize
from pathlib import Path

import pytest

from ovjit import logs
from ovjit.codegen.function import FunctionKernel
from ovjit.codegen.parts import Inline
from ovjit.codegen.source import definition, parameters
from ovjit.codegen.template import Template
from ovjit.graph import op
from tests.support import ROOT
from tests.support.run import printed, python


def plainly(function) -> ast.FunctionDef:
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(found, ast.FunctionDef)
    return found


def test_linecache_without_memory(monkeypatch) -> None:
    """It answers that there are no lines: they are read without it, or memory is what is missing."""
    monkeypatch.setattr(linecache, "getlines", lambda *a: [])
    assert definition(same).name == "same"

    def refuse(path: str) -> None:
        raise OSError(errno.ENOMEM, "x")

    monkeypatch.setattr(tokenize, "open", refuse)
    with pytest.raises(MemoryError, match=f"read {__file__}"):
        definition(same)


def same(function) -> None:
    assert ast.dump(definition(function)) == ast.dump(plainly(function)), function
    known = inspect.signature(function).parameters.values()
    expected = [(p.name, p.kind is p.KEYWORD_ONLY) for p in known]
    assert [(p.name, p.keyword_only) for p in parameters(function)] == expected
    for p, q in zip(parameters(function), known, strict=True):
        assert p.annotation == (None if q.annotation is q.empty else q.annotation)
        assert p.default is (None if q.default is q.empty else q.default)


def defined(*kinds: type) -> list:
    """What the modules of the project define of these kinds, each once."""
    op.load_ops()
    modules = [m for name, m in list(sys.modules.items()) if name.startswith(("ovjit_ops.", "ovjit."))]
    found = {id(k): k for m in modules for k in vars(m).values() if isinstance(k, kinds)}
    assert len(found) > 20
    return list(found.values())


def test_every_kernel_of_the_operations() -> None:
    for kernel in defined(FunctionKernel, Inline, Template):
        same(kernel.function)


def test_kernels_take_tensors_and_structures() -> None:
    """A kernel of more than 20 positional parameters, or a median above 5, wants structures
    (`ovjit.codegen.tensors`)."""
    for path in [p for package in ("ovjit", "ovjit_ops") for p in (ROOT / package).rglob("*.py")]:
        if "@kernel" in path.read_text():
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    counts = {k.function.__name__: len(k.arguments) for k in defined(FunctionKernel)}
    assert len(counts) > 80
    assert not {name: n for name, n in counts.items() if n > 20}
    assert statistics.median(counts.values()) <= 5


# fmt: off
def texts_to_the_left(a, b: int, *, c):
    """A text
that goes on
    def at_the_margin(x):
further to the left."""
    # a comment
# to the left
    d = (a +
b
)
    return d, c


def spread(
    a,
    b=(1,
2),
) -> tuple[
    int,
    int,
]:
    return a, b


def outer():
    if True:

        def inner(a):
            return a
        # behind it

        def last(a): return a

    return inner, last


# fmt: on


@pytest.mark.parametrize("function", [texts_to_the_left, spread, outer, *outer()])
def test_lines_to_the_left(function) -> None:
    same(function)


def test_rules_name_operations_that_exist() -> None:
    for record in op.ops_with_rules():
        assert record.rules_for, record  # others are imported for every model
        for name in record.rules_for:
            assert op.find_op(name).name == name
    assert not op.ops_with_rules({"Add", "Relu"})
    assert [r.name for r in op.ops_with_rules({"Add", "PRelu"})] == ["PRelu"]


LOGGED = """
import sys
from ovjit import logs
logs.debug("nobody %d", 1)
logs.info("reads it")
assert "logging" not in sys.modules
logs.warning("this is %s", "read")
"""


def test_logging_is_imported_when_there_is_something_to_say(caplog: pytest.LogCaptureFixture) -> None:
    done = python("-c", LOGGED)
    assert (done.returncode, done.stderr) == (0, "this is read\n")
    with caplog.at_level(logging.DEBUG, "ovjit"):
        logs.debug("seen %d", 1)
        logs.info("seen %d", 2)
    assert caplog.messages == ["seen 1", "seen 2"]
    assert {record.funcName for record in caplog.records} == {
        "test_logging_is_imported_when_there_is_something_to_say"
    }


WARM = """
import sys
import numpy as np
import ovjit
o = ovjit.opset8
x = o.parameter([1, 3, 16, 16], np.float32)
weights = np.ones((8, 3, 3, 3), np.float32)
y = o.relu(o.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
model = ovjit.Model([y], [x])
ovjit.Core().compile_model(model, "CPU")([np.ones((1, 3, 16, 16), np.float32)])
print(*(name for name in ("numba", "llvmlite", "logging", "pathlib", "xml") if name in sys.modules))
"""


def test_a_warm_start_imports_no_compiler(tmp_path: Path) -> None:
    said = [printed("-c", WARM, OVJIT_CACHE=str(tmp_path)) for _ in range(2)]
    assert said[1].split() == []
