"""The editable graph from Python, as the real OpenVINO has it: the scripts in `tests/scripts` run on both."""

from __future__ import annotations

import pytest
from both_packages import assert_same, scripts


@pytest.mark.parametrize("script", scripts())
def test_script(script: str) -> None:
    assert_same(script)
