"""docs/operations.md is true: what it says of each operation that ovjit has is what the record says."""

from __future__ import annotations

import operations

from ovjit.graph.op import all_ops


def rows_of_the_page() -> dict[str, tuple[str, str]]:
    lines = [line.strip("| ").split(" | ") for line in operations.PAGE.read_text().splitlines()]
    return {name: (versions, ways) for name, versions, ways in (x for x in lines if len(x) == 3)}


def test_every_row_is_true():
    """A row may call an operation missing that has come since; no row may promise what is not there."""
    page = rows_of_the_page()
    wrong = [
        row
        for row in operations.rows()
        if page.get(row[0], ("", "missing"))[1] != "missing" and page[row[0]] != row[1:]
    ]
    assert wrong == [], "run python tests/operations.py"


def test_no_row_names_an_operation_that_is_gone():
    names = {record.name for record in all_ops()}
    page = rows_of_the_page()
    assert [
        name
        for name, (_, ways) in page.items()
        if ways != "missing" and name not in {*names, "operation", "---"}
    ] == []
