"""The editable graph from Python, as the real OpenVINO has it.

The scripts in `tests/support/scripts` run on both.
"""

from __future__ import annotations

import pytest

from tests.support.both_packages import assert_same, scripts


@pytest.mark.parametrize("script", scripts())
def test_script(script: str) -> None:
    assert_same(script)
