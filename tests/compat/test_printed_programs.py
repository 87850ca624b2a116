"""Small programs over the whole API print the same with both packages, but for those of a list.

The programs are in `tests/compat/programs/api/*.txt`, the list is `better.tsv` beside them; see
`tests/support/printed_programs.py`.
"""

from __future__ import annotations

import pytest

from tests.support import printed_programs
from tests.support.printed_programs import BETTER, read_programs, same_line

PROGRAMS = read_programs()
#: Files of programs that import PyTorch or ONNX.
SLOW = ("convert",)


def is_slow(name: str) -> bool:
    return name.startswith(SLOW)


@pytest.mark.parametrize(
    "slow", [False, pytest.param(True, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_programs_print_the_same(slow: bool) -> None:
    wanted = [name for name in PROGRAMS if is_slow(name) == slow]
    found = printed_programs.differences(wanted)
    told = [
        f"{name}: OpenVINO {real!r}, ovjit {ours!r}"
        for name, pairs in found.items()
        for real, ours in pairs
        if len(pairs) != BETTER.get(name, (0, ""))[0]
    ]
    assert not told, "\n".join(told)
    assert not [name for name in wanted if name in BETTER and name not in found], "these are alike now"


def test_the_list_is_of_programs_and_says_why() -> None:
    assert set(BETTER) <= set(PROGRAMS)
    assert all(lines > 0 and len(reason) > 10 for lines, reason in BETTER.values())
    assert len(PROGRAMS) > 440 and len(BETTER) < 70


def test_what_is_the_same() -> None:
    form = "set_shape(): incompatible function arguments. The following argument types are supported:"
    assert same_line("returns 1", "returns 1")
    assert not same_line("returns 1", "returns 2")
    assert same_line("raises RuntimeError: one", "raises RuntimeError: other")
    assert not same_line("raises RuntimeError: one", "raises TypeError: one")
    whole = f"raises TypeError: {form} ... Invoked with:"
    assert same_line(whole, whole)
    assert not same_line(whole, f"raises TypeError: {form}")
    assert not same_line("raises TypeError: f() takes no arguments", "returns None")
