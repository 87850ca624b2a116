"""What the handler of a signal raises, such as a time limit's, comes out of a call as it is: nothing takes it
for an error of a model, a template, a converter or a callback."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ovjit
from ovjit import opset13 as ops
from ovjit.errors import unless_of_signal
from tests.support.signal_stack import leave_signal_stack
from tests.support.sweeps import some

pytestmark = pytest.mark.thread_unsafe(reason="handlers of signals run in the main thread")


class TimeLimit(Exception):
    """Of a class of its own."""


def limit(number: int, frame: Any) -> None:
    raise TimeLimit


def limit_in_words(number: int, frame: Any) -> None:
    """Of a class that code expects."""
    raise ValueError("a time limit")


class Limit:
    def __call__(self, number: int, frame: Any) -> None:
        raise TimeLimit

    def method(self, number: int, frame: Any) -> None:
        raise TimeLimit


def limit_of(name: str, number: int, frame: Any) -> None:
    raise TimeLimit(name)


def leave(number: int, frame: Any) -> None:
    sys.exit(3)


HANDLERS: list[Callable[..., Any]] = [
    limit, limit_in_words, Limit(), Limit().method, functools.partial(limit_of, "x"), lambda *_: limit(*_)
]  # fmt: skip
#: What these raise.
RAISED = (TimeLimit, ValueError)


@pytest.fixture
def handler(request: pytest.FixtureRequest) -> Iterator[None]:
    leave_signal_stack()
    before = signal.signal(signal.SIGUSR1, getattr(request, "param", limit))
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def ring(*arguments: Any, **named: Any) -> Any:
    """What a user's function does while the signal arrives."""
    signal.raise_signal(signal.SIGUSR1)
    raise AssertionError("the handler did not raise")


def is_caught(error: Exception) -> bool:
    """Whether an `except` of all classes takes it."""
    try:
        try:
            raise error
        except unless_of_signal(Exception):
            return True
    except Exception as raised:
        assert raised is error
        return False


@pytest.mark.parametrize("handler", HANDLERS, indirect=True)
def test_errors_of_handlers_are_known(handler: None) -> None:
    try:
        ring()
    except RAISED as error:
        caught: Exception = error
    assert not is_caught(caught)
    wrapper = RuntimeError("of another package")
    wrapper.__cause__ = caught
    assert not is_caught(wrapper)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert is_caught(caught)


def test_errors_of_others_are_not(handler: None) -> None:
    circle = ValueError()
    circle.__cause__ = circle
    assert all(map(is_caught, (ValueError(), TimeLimit(), OSError(), circle)))


def convert(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    value = functools.partial(helper.make_tensor_value_info, elem_type=1, shape=[2])
    graph = helper.make_graph(
        [helper.make_node("Own", ["x"], ["y"], domain="own")], "g", [value("x")], [value("y")]
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    )
    onnx.save(model, tmp_path / "own.onnx")
    core = ovjit.Core()
    core.add_extension(ovjit.frontend.onnx.ConversionExtension("Own", "own", ring))
    core.read_model(tmp_path / "own.onnx")


def extend(tmp_path: Path) -> None:
    class Own(ovjit.Op):
        def __init__(self, inputs: Any = None) -> None:
            ring()

    ovjit.Core().add_extension(Own)


def rewrite(tmp_path: Path) -> None:
    from ovjit.passes import Manager, Matcher, MatcherPass, WrapType

    class Pass(MatcherPass):
        def __init__(self) -> None:
            super().__init__()
            self.register_matcher(Matcher(WrapType("opset13.Relu"), "own"), ring)

    x = ops.parameter([2], np.float32)
    manager = Manager()
    rewrites = ovjit.passes.GraphRewrite()
    rewrites.add_matcher(Pass())
    manager.register_pass(rewrites)
    manager.run_passes(ovjit.Model([ops.relu(x)], [x]))


def stream(tmp_path: Path) -> None:
    from ovjit.genai.streamers import streamer_of

    class Decoder:
        def decode(self, tokens: Any, **options: Any) -> str:
            return "a b c d" * len(tokens)

    streamer = streamer_of(ring, Decoder())
    for token in range(9):
        streamer.write(token)
    streamer.end()


def trace(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Slow(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            ring()

    ovjit.convert_model(Slow(), example_input=torch.zeros(2))


def render(tmp_path: Path) -> None:
    from ovjit.genai.templates import Template

    Template("{% if slow is defined %}{{ slow() }}{% endif %}", {}).render_raw([], {"slow": ring})


def encode(tmp_path: Path) -> None:
    from ovjit.generation.tokenizer import Tokenizer

    class Inner:
        encode = ring

    Tokenizer(Inner(), frozenset(), "", {}).encode("a text")


@pytest.mark.parametrize("handler", some([limit, limit_in_words, leave], 2), indirect=True)
@pytest.mark.parametrize("call", [convert, extend, rewrite, stream, trace, encode, render])
def test_a_time_limit_ends_the_call(call: Callable[[Path], None], handler: None, tmp_path: Path) -> None:
    with pytest.raises((*RAISED, SystemExit)) as caught:
        call(tmp_path)
    assert type(caught.value) in (*RAISED, SystemExit) and caught.traceback[-1].name in HANDLER_NAMES


HANDLER_NAMES = ("limit", "limit_in_words", "leave")
