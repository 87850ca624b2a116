"""Arguments of PyTorch's operators that are choices, as PyTorch's schemas list them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import ovjit as ov
from ovjit.errors import ModelError
from ovjit.readers.choices import TEXT
from ovjit.readers.torch.registry import ANY, CHOICES, find_choice, find_rule, known_operators

torch = pytest.importorskip("torch")

#: Functions of texts, whose arguments are any text.
OF_TEXT = frozenset(
    "Float Int __contains__ __getitem__ _print add capitalize device endswith eq find ge get gt index "
    "isalpha isdigit join le len list lower lstrip lt ne replace rstrip slice split startswith strip upper "
    "warn".split()
)
#: Integers that are numbers of an enumeration, by the names of arguments.
ENUMERATED = frozenset(
    "compute_mode interpolation_mode mask_type mode normalization padding_mode reduction".split()
)


def arguments() -> list[tuple[str, str, str]]:
    """(operator, argument, type) of texts and enumerations of all operators with a rule"""
    known, found = set(known_operators()), set()
    for schema in torch._C._jit_get_all_schemas():
        if schema.name in known and schema.name.startswith(("aten::", "torchvision::", "quantized::")):
            for argument in schema.arguments:
                kind = str(argument.type).removeprefix("Optional[").removesuffix("]")
                if kind == "str" and schema.name.split("::")[1] not in OF_TEXT:
                    found.add((schema.name, argument.name, kind))
                if kind == "int" and argument.name in ENUMERATED:
                    found.add((schema.name, argument.name, kind))
    return sorted(found)


def test_each_text_and_enumeration_is_declared() -> None:
    assert len(arguments()) > 60
    for operator, argument, kind in arguments():
        choice = find_choice(operator, argument)
        assert choice is not None, f"{operator} {argument}: declare its choices, or that it is TEXT"
        if choice is not TEXT:
            assert all(isinstance(word, str) is (kind == "str") for word in choice.words), (
                f"{operator} {argument}"
            )


@pytest.mark.parametrize(("operator", "argument", "kind"), arguments())
def test_a_wrong_choice_is_refused(operator: str, argument: str, kind: str) -> None:
    if find_choice(operator, argument) is TEXT:
        return
    row = find_rule(operator, "")
    assert row is not None
    wrong: Any = "wrong" if kind == "str" else 9
    with pytest.raises(
        ModelError, match=f"attribute '{argument}' is {wrong!r}, which is none of its choices"
    ):
        row(SimpleNamespace(op=operator), {"self": None, argument: wrong})


def test_declared_operators_and_arguments_exist() -> None:
    schemas: dict[str, set[str]] = {}
    for schema in torch._C._jit_get_all_schemas():
        schemas.setdefault(schema.name.removeprefix("aten::"), set()).update(a.name for a in schema.arguments)
    every = set().union(*schemas.values())
    for operator, declared in CHOICES.items():
        assert set(declared) <= (every if operator == ANY else schemas[operator]), operator


def gelu(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x, approximate="erf")


def divide(x: torch.Tensor) -> torch.Tensor:
    return torch.div(x, 3.0, rounding_mode="up")


def pad(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(x, [1, 1], mode="symmetric")


def search(x: torch.Tensor) -> torch.Tensor:
    return torch.searchsorted(x, x, side="middle")


def fourier(x: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfft(x, norm="unit").real


def eigenvalues(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.eigvalsh(x @ x.transpose(0, 1), UPLO="D")


def sample(x: torch.Tensor) -> torch.Tensor:
    grid = x.reshape(1, 3, 2, 2)
    return torch.nn.functional.grid_sample(x[None, None], grid, mode="cubic", align_corners=False)


def enlarge(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(x[None], size=7, mode="lanczos")


@pytest.mark.parametrize(("function", "said"), [
    (sample, "the script raises an exception"), (enlarge, "the script raises an exception"),
    (gelu, "'approximate' is 'erf', which is none of its choices: none, tanh"),
    (divide, "'rounding_mode' is 'up', which is none of its choices: floor, trunc"),
    (pad, "'mode' is 'symmetric', which is none of its choices: constant, reflect, replicate, circular"),
    (search, "'side' is 'middle', which is none of its choices: left, right"),
    (fourier, "'norm' is 'unit', which is none of its choices: forward, backward, ortho"),
    (eigenvalues, "'UPLO' is 'D', which is none of its choices: l, u"),
])  # fmt: skip
def test_scripts_with_wrong_words(function: Any, said: str) -> None:
    """Scripts are not run before they are read, so PyTorch has not compared their arguments."""
    with pytest.raises(RuntimeError, match=said):
        ov.convert_model(torch.jit.script(function), input=[3, 4])
