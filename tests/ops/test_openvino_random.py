"""Random attributes and inputs of operations beside the real OpenVINO.

`tests/support/opsets/beside_openvino.py` runs more of them, and the families whose samples may end
OpenVINO's process.
"""

from __future__ import annotations

import pytest

from tests.support.opsets.beside_openvino import judge


@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 300), marks=pytest.mark.long)], ids=len)
@pytest.mark.parametrize("family", ["windows", "resizing", "norms", "products", "detection"])
def test_by_the_references(family: str, seeds: range) -> None:
    for seed in seeds:
        status, said = judge(family, seed)
        assert status in ("same", "skipped"), f"seed {seed} of {family}: {said}"


@pytest.mark.parametrize("family", ["norms", "products", "detection"])
def test_natively(family: str) -> None:
    for seed in range(100, 105):
        status, said = judge(family, seed, native=True)
        assert status in ("same", "skipped"), f"seed {seed} of {family}: {said}"
