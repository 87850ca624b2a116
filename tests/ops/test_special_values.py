"""docs/special_values.md says where answers to NaN, infinities and the like differ, and why."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from ovjit.codegen.cpu.host import best_target, host_target
from tests.support import special_values
from tests.support.sweeps import in_turn


@pytest.fixture(scope="module")
def ours() -> list[list[str]]:
    return special_values.answers("ovjit")


def lines() -> dict[tuple[str, str], list[str]]:
    """(operation, given) -> OpenVINO's answer, ovjit's; as the page has them."""
    page = special_values.PAGE.read_text().splitlines()
    rows = [line[2:-2].split(" | ") for line in page if line[:2] == "| "]
    return {
        (operation, given): answers
        for operation, *cells in rows
        if operation != "operation" and operation[:2] != "**"  # a reason
        for given, *answers in zip(*(cell.split("; ") for cell in cells), strict=True)
    }


def test_ours_are_the_same_on_every_cpu(ours: list[list[str]]) -> None:
    page, found = lines(), 0
    for case, said in zip(special_values.cases(), ours, strict=True):
        for given, answer in zip(case.given, said, strict=True):
            if (case.operation, given) in page:
                found += 1
                assert page[case.operation, given][1] == answer, (case.operation, given)
    assert found == len(page) > 100


@pytest.mark.skipif(best_target() != "avx512", reason="the page has OpenVINO's answers on a CPU with AVX-512")
def test_the_page_is_the_one_that_the_tool_makes(ours: list[list[str]]) -> None:
    made = special_values.table(special_values.answers("openvino"), ours)
    page = special_values.PAGE.read_text()
    if host_target().name == "generic":  # quantized graphs are computed in f32 there, so NaN stays NaN
        page, made = (re.sub(r"\n\| fake_quantize.*", "", text) for text in (page, made))
    assert page == made, "run python -m tests.support.special_values"


@pytest.mark.parametrize("kind", in_turn("i8 i16 i32 i64 u8 u16 u32 u64".split(), 2))
def test_integers_are_divided_downwards_or_towards_zero(kind: str) -> None:
    """By `m_pythondiv`: computed, folded and evaluated alike, and as OpenVINO's own `evaluate`."""
    import openvino

    import ovjit

    dtype = np.dtype(special_values.NUMPY.get(kind, f"{'u' * (kind[0] == 'u')}int{kind[1:]}"))
    info = np.iinfo(dtype)
    pairs = [(7, 2), (info.max, 3), (0, 5), (1, 7), (info.max, info.max)]
    if info.min:
        pairs += [(-7, 2), (-7, 3), (7, -2), (-7, -2), (-8, 2), (-1, 7), (info.min, 3), (info.max, -2)]
    x, y = (np.array(v, dtype) for v in zip(*pairs, strict=True))
    down = [a // b for a, b in pairs]
    cut = [abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) for a, b in pairs]

    def model(package: Any, operation: str, python_division: bool, is_constant: bool) -> Any:
        o = package.opset13
        left, right = (o.parameter(list(v.shape), v.dtype) for v in (x, y))
        made = getattr(o, operation)(o.constant(x) if is_constant else left, right)
        if operation == "divide":
            made.set_attribute("m_pythondiv", python_division)
        return package.Model([made], [right] if is_constant else [left, right])

    rows = [("divide", True, down), ("divide", False, cut)]
    rows += [("mod", True, [a - q * b for (a, b), q in zip(pairs, cut, strict=True)])]
    rows += [("floor_mod", True, [a - q * b for (a, b), q in zip(pairs, down, strict=True)])]
    for operation, python_division, right in rows:
        right = np.array(right, dtype)
        ours = model(ovjit, operation, python_division, False)
        said = f"{operation} of {kind}, m_pythondiv={python_division}"
        np.testing.assert_array_equal(ovjit.compile_model(ours, "CPU")([x, y])[0], right, said)
        made = ovjit.Tensor(np.zeros_like(x))
        ours.evaluate([made], [ovjit.Tensor(x), ovjit.Tensor(y)])
        np.testing.assert_array_equal(made.data, right, said)
        folded = model(ovjit, operation, python_division, True)
        np.testing.assert_array_equal(ovjit.compile_model(folded, "CPU")([y])[0], right, said)
        if kind in ("i32", "u32"):  # it evaluates others in part
            theirs = openvino.Tensor(np.zeros_like(x))
            inputs = [openvino.Tensor(x), openvino.Tensor(y)]
            model(openvino, operation, python_division, False).evaluate([theirs], inputs)
            np.testing.assert_array_equal(theirs.data, right, said)


def test_every_difference_has_a_reason() -> None:
    with pytest.raises(KeyError, match="REASONS does not say why"):
        special_values.reason("abs", "2.5", "2.5", "-2.5")
