"""The wheel's bill of materials, which is made when it is built."""

from __future__ import annotations

import importlib.util
import json

from tests.support import ROOT


def test_every_file_of_data_is_described() -> None:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / ".ci" / "sbom.py")
    assert spec is not None and spec.loader is not None
    sbom = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sbom)
    bill = json.loads(sbom.bill(ROOT, "ovjit", "1.0", ["numpy>=1"], {}))
    named = {part["name"] for part in bill["metadata"]["component"]["components"]}
    files = {p.relative_to(ROOT).as_posix() for p in (ROOT / "ovjit" / "data").iterdir() if p.is_file()}
    assert named == {name for name in files if not name.endswith(".py")}
