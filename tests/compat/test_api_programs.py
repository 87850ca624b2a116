"""Random programs for the API, on the real OpenVINO and on ovjit: see `tests/support/api_programs.py`."""

from __future__ import annotations

import pytest

from tests.support import api_programs

#: Programs whose difference is known, by their seeds.
KNOWN = {
    58: "OpenVINO does not look at a model that is reshaped to the shapes that it has",
    153: "an OVAny of one of NumPy's integers is no int there",
    195: "OpenVINO refuses a logical operation of numbers when it compiles, ovjit computes it",
    206: "evaluate takes a tensor of another element type there, whose elements are none",
    212: "a scalar has no axis to be summed over there",
    267: "OpenVINO lists CPU.1 after it was asked for a property",
}


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (0, 20),
        (1_000_108, 1_000_114),
        pytest.param(20, 400, marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_both_packages_come_to_the_same(first: int, last: int) -> None:
    found = api_programs.differences(first, last)
    said = [f"{seed}.{n}: {line}: OpenVINO {real}, ovjit {ours}" for seed, n, line, real, ours in found]
    assert [text for text in said if int(text.partition(".")[0]) not in KNOWN] == []


def test_programs_are_those_of_their_seeds() -> None:
    one, again, other = (api_programs.Program(seed).lines for seed in (1, 1, 2))
    assert one == again != other
    assert len(one) >= api_programs.STATEMENTS


def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome that is not the same is told with its statement; what follows is left out."""
    lines = api_programs.Program(7).lines
    outcomes = {"openvino": [["made"] * 9], "ovjit": [["made"] * 4 + ["raises TypeError"] * 5]}
    monkeypatch.setattr(
        api_programs, "outcomes", lambda package, *seeds: zip([7], outcomes[package], strict=True)
    )
    assert api_programs.differences(7, 8) == [(7, 4, lines[4], "made", "raises TypeError")]
