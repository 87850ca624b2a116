"""ovjit beside OpenVINO's own stubs: the differences are those that docs/types.md lists."""

from __future__ import annotations

import pytest

from tests.support import stub_differences as stubs


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_page_is_the_one_that_the_tool_makes() -> None:
    pytest.importorskip("mypy", reason="needs ovjit[lint]")
    pytest.importorskip("torch", reason="modules of OpenVINO import it")
    assert stubs.PAGE.read_text() == stubs.table(), "run python -m tests.support.stub_differences"


def test_sentences_have_meanings() -> None:
    assert stubs.kind('stub parameter "arg0" differs from runtime parameter "sources"') == (
        "a positional argument has another name"
    )
    assert stubs.kind("is not present at runtime") == "is not there"
