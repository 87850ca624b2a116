"""docs/special_values.md says where answers to NaN, infinities and the like differ, and why."""

from __future__ import annotations

import re

import pytest

from ovjit.codegen.cpu.host import best_target, host_target
from tests.support import special_values


@pytest.fixture(scope="module")
def ours() -> list[list[str]]:
    return special_values.answers("ovjit")


def lines() -> dict[tuple[str, str], list[str]]:
    """(operation, given) -> OpenVINO's answer, ovjit's, why; as the page has them."""
    page = special_values.PAGE.read_text().splitlines()
    rows = [line[2:-2].split(" | ") for line in page if line[:2] == "| "]
    return {(row[0], row[1]): row[2:] for row in rows[1:]}


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


def test_every_difference_has_a_reason() -> None:
    assert all(why for _, _, why in lines().values())
    with pytest.raises(KeyError, match="REASONS does not say why"):
        special_values.reason("abs", "2.5", "2.5", "-2.5")
