"""No name of OpenVINO's is missing, and no argument, without a reason that docs/parity.md tells."""

from __future__ import annotations

import fnmatch

import pytest

from tests.support import ROOT, parity


@pytest.fixture(scope="module")
def found():
    return parity.gaps()[0]


def test_every_gap_has_a_reason(found):
    assert [gap for gap in found if gap.reason is None] == []


def test_every_reason_has_a_gap(found):
    stale = [p for p in parity.GAPS if not any(fnmatch.fnmatchcase(gap.name, p) for gap in found)]
    assert stale == []


def test_the_page_is_the_one_that_the_tool_makes():
    page = ROOT / "docs" / "parity.md"
    assert page.read_text() == parity.table(), "run python -m tests.support.parity"


def test_a_missing_name_and_argument_are_seen():
    class Real:
        def method(self, first, second):
            pass

        def other(self):
            pass

    class Ours:
        def method(self, first):
            pass

    gaps = [(gap.name, gap.what) for gap in parity.of_class("x.C", Real, Ours)]
    assert ("x.C.other", "is not there") in gaps
    assert ("x.C.method()", "takes (first), not (first, second)") in gaps
