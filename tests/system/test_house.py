"""The limits of each room (`house.json`): no change may raise code lines, dialect names, functions named by a
bare participle, riddle docstrings or circles of imports for types, and no room may import a further one.

`python -m tests.support.house --write` lowers the limits after a change that removes some.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support import house


@pytest.fixture(scope="module", autouse=True)
def no_collections() -> Iterator[None]:
    with house.without_collections():
        yield
        house.forget_trees()


@pytest.mark.parametrize("figure", house.FIGURES)
def test_no_room_has_more_than_its_limit(figure: str) -> None:
    limits = house.limits()["figures"]
    over = {
        room: f"{row[figure]} > {limits.get(room, {}).get(figure, 0)}"
        for room, row in house.figures().items()
        if row[figure] > limits.get(room, {}).get(figure, 0)
    }
    assert not over, f"{figure} grew: {over}; see tests/support/house.py"


def test_no_limit_is_loose() -> None:
    """A limit is the figure itself, so that what one change removes the next one cannot add."""
    figures = house.figures()
    loose = {
        (room, figure): f"{figures.get(room, {}).get(figure, 0)} < {limit}"
        for room, row in house.limits()["figures"].items()
        for figure, limit in row.items()
        if figures.get(room, {}).get(figure, 0) < limit - (SLACK if figure == "code_lines" else 0)
    }
    assert not loose, f"lower these limits (python -m tests.support.house --write): {loose}"


#: Code lines that a room may be below its limit.
SLACK = 40


def test_no_room_imports_a_further_one() -> None:
    allowed = house.limits()["imports"]
    further = {
        room: sorted(set(targets) - set(allowed.get(room, [])))
        for room, targets in house.room_imports().items()
        if set(targets) - set(allowed.get(room, []))
    }
    assert not further, f"rooms that import further ones: {further}"


def test_figures_see_what_they_count() -> None:
    """The measures themselves, on a text that has one of each."""
    text = (
        '"""What it is."""\n# a comment\n\ndef turned(made):\n    """Turns."""\n'
        "    rest = (1,\n        2)\n    return rest\n"
    )
    names, functions, docstrings = house.parts_of(ast.parse(text))
    assert house.count_code_lines(text, docstrings) == 4
    assert sorted(name for name in names if name in house.BANNED_NAMES) == ["made", "rest", "turned"]
    assert functions == ["turned"]
    assert house.is_participle("_joined") and house.is_participle("told") and not house.is_participle("need")
    assert sorted(map(house.is_riddle, docstrings)) == [False, True]
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"f"}, "f": {"e"}}
    assert sorted(map(sorted, house.circles(graph))) == [["a", "b", "c"], ["e", "f"]]
