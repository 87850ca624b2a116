"""Operations are imported by need, from an index that is what the registry says."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

from ovjit import plugins, source_files
from ovjit.graph import attributes, op, op_index
from ovjit.source_digests import package_digest
from tests.support import ROOT
from tests.support.run import printed

PROGRAM = """
import sys
from ovjit.graph import op, op_index
op_index.FILE = sys.argv[1]
record = op.find_op("Softmax", 8)
assert (record.name, record.opset) == ("Softmax", 8), record
assert {v for v in op._REGISTRY["Softmax"]} >= {1, 8}
families = sorted(m for m in sys.modules if m.startswith("ovjit_ops.") and m.count(".") == 1)
print(op._loaded, len([m for m in sys.modules if m.startswith("ovjit_ops.")]))
assert len(op.ops_with_rules()) > 0
print(len(op.all_ops()), op._loaded)
"""


def index(prefix: Path, shipped: str = "none", **env: str) -> list[str]:
    """`shipped`: the file of the index that comes with ovjit."""
    variables = {"PYTHONPYCACHEPREFIX": str(prefix), "PYTHONDONTWRITEBYTECODE": "", "OVJIT_CACHE": "0", **env}
    return printed("-c", PROGRAM, shipped, folder=ROOT, **variables).split()


def test_the_first_process_writes_and_later_ones_import_what_they_need(tmp_path: Path) -> None:
    loaded, _, count, _ = index(tmp_path)
    assert loaded == "True" and int(count) == len(op.all_ops())
    assert len(list(tmp_path.rglob("operations_index*"))) == 1
    loaded, modules, count, everything = index(tmp_path)
    assert loaded == "False" and int(modules) < 14
    assert int(count) == len(op.all_ops()) and everything == "True"


def test_without_a_folder_to_write_to_the_cache_has_it(tmp_path: Path) -> None:
    for nothing_kept in ("0", "0"):
        assert index(tmp_path, PYTHONDONTWRITEBYTECODE="1", OVJIT_CACHE=nothing_kept)[0] == "True"
    cache = str(tmp_path / "cache")
    loaded = [index(tmp_path, PYTHONDONTWRITEBYTECODE="1", OVJIT_CACHE=cache)[0] for _ in range(2)]
    assert loaded == ["True", "False"]
    assert not list(tmp_path.rglob("operations_index*"))


def test_with_the_shipped_index_no_process_imports_everything(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped.json"
    content = op_index.shipped_content(op.all_ops())
    shipped.write_bytes(content)
    for nowhere in (True, False):  # to write to
        more = {"PYTHONDONTWRITEBYTECODE": "1"} if nowhere else {}
        loaded, modules, count, _ = index(tmp_path / "p", str(shipped), **more)
        assert loaded == "False" and int(modules) < 14 and int(count) == len(op.all_ops())
    assert len(list((tmp_path / "p").rglob("operations_index*"))) == 1
    for other in (b"", b"[]", content.replace(package_digest("ovjit_ops").encode(), b"of other files")):
        shipped.write_bytes(other)
        assert index(tmp_path / "q", str(shipped), PYTHONDONTWRITEBYTECODE="1")[0] == "True"


def test_a_damaged_or_foreign_index_is_none(tmp_path: Path) -> None:
    index(tmp_path)
    (place,) = tmp_path.rglob("operations_index*")
    whole = place.read_bytes()
    for content in (b"", b"\xff" * 40, whole[:100]):
        place.write_bytes(content)
        assert index(tmp_path)[0] == "True"
        assert place.read_bytes() == whole  # and is written anew


def test_the_index_is_what_the_registry_says() -> None:
    records = [r for r in op.all_ops() if r.module.startswith("ovjit_ops.")]
    index = op_index.make_index(records)
    assert len(records) > 200
    for record in records:
        assert record.module in index.modules[record.name]
        assert not record.rules or record.module in index.rules


def test_a_changed_file_voids_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(source_files, "place_beside", lambda package, name: str(tmp_path / name))
    op_index.write_index(op.all_ops())
    index = op_index.read_index()
    assert index is not None and "Softmax" in index.modules
    monkeypatch.setattr(op_index, "FILE", "none")
    state = source_files._state("ovjit_ops")
    monkeypatch.setattr(source_files, "_state", lambda package: [*state, ("/new/module.py", 1, 2)])
    assert op_index.read_index() is None


def test_other_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = "ovjit.ops", "ovjit_ops"
    assert not plugins.announces_other(*own) and not plugins._announces(
        "[ovjit.ops]\nbuiltin = ovjit_ops\n", *own
    )
    info = tmp_path / "pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[console_scripts]\na = b:c\n\n[ovjit.ops]\nmine = its_ops\n")
    (tmp_path / "its_ops.py").write_text("imported = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.announces_other(*own)
    op_index.import_other_packages()
    assert sys.modules.pop("its_ops").imported


def test_unknown_names_are_told() -> None:
    with pytest.raises(Exception, match="did you mean Softmax"):
        op.find_op("Softmaks")


def test_signatures_are_what_inspect_says() -> None:
    for record in op.all_ops():
        assert attributes.signature(record.infer) == attributes.inspect_infer(record.infer), record
    assert attributes.signature(functools.partial(lambda x, y, *, n: x, n=1)).inputs == ("x", "y")
