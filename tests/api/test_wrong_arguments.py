"""What a TypeError says of arguments that do not fit: the call, its parameters, and what was passed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ovjit.passes import Manager, ModelPass

import ovjit
from ovjit import opset13 as ops

KEY = "ab" * 40


def message(call: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(TypeError) as error:
        call(*args, **named)
    return str(error.value)


def test_the_call_its_parameters_and_what_was_passed() -> None:
    node = ops.parameter([2], np.float32)
    for told, name in (
        (message(node.set_friendly_name, 5), "set_friendly_name(): incompatible function"),
        (message(ovjit.Shape, [1.5]), "__init__(): incompatible constructor"),
        (message(ovjit.Core().create_context, "CPU"), "create_context(): incompatible function"),
    ):
        first, parameters, empty, invoked, *_ = told.split("\n")
        assert first == f"{name} arguments. The following argument types are supported:"
        assert parameters.startswith("    1. (self") and empty == ""
        assert invoked.startswith("Invoked with: ")
    assert "5\n\na name is a str, not int" in message(node.set_friendly_name, 5)


@pytest.mark.parametrize(
    "arguments",
    [("CPU", ["OVJIT_KEY", KEY]), (1, {"OVJIT_KEY": KEY}), ("CPU", "OVJIT_KEY", KEY)],
)
def test_a_key_is_not_repeated(arguments: tuple[Any, ...]) -> None:
    assert KEY[:8] not in message(ovjit.Core().set_property, *arguments)


def test_long_arguments_are_cut() -> None:
    assert len(message(ovjit.Shape, [1.5] * 10**6)) < 1000
    assert "length 1000000" in message(ovjit.Core().get_property, bytes(10**6), "NUM_STREAMS")


def test_what_a_program_s_own_code_raises_is_left_alone() -> None:
    class Failing(ModelPass):
        def run_on_model(self, model: ovjit.Model) -> bool:
            raise TypeError("mine")

    manager = Manager()
    manager.register_pass(Failing())
    x = ops.parameter([2], np.float32)
    assert message(manager.run_passes, ovjit.Model([ops.relu(x)], [x])) == "mine"
