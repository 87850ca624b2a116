"""Hashes and codes are what Python's own modules say, and a start does without OpenSSL."""

from __future__ import annotations

import hashlib
import hmac
import sys
from pathlib import Path

import numpy as np
import pytest

from ovjit import hashes, source_files
from ovjit.codegen import versions
from tests.support.run import printed


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000, hashes.LARGE - 1, hashes.LARGE])
def test_codes_are_those_of_hmac(size: int, loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not loaded:
        monkeypatch.delitem(sys.modules, "_hashlib", raising=False)
    rng = np.random.default_rng(size)
    content = rng.bytes(size)
    cuts = sorted(rng.integers(0, size + 1, 2).tolist())
    parts = [content[: cuts[0]], memoryview(content)[cuts[0] : cuts[1]], content[cuts[1] :]]
    for length in (0, 1, 32, 63, 64, 65, 200):
        key = rng.bytes(length)
        assert hashes.hmac_sha256(key, parts) == hmac.digest(key, content, "sha256"), (size, length)
    assert hashes.sha256(content).digest() == hashlib.sha256(content).digest()
    assert (hashes.sha256_for(size) is hashlib.sha256) == (loaded or size >= hashes.LARGE)


def test_a_python_without_its_own_hash_takes_hashlib() -> None:
    assert hashes._own("sha256", "no_such_module", "hashlib") is hashlib.sha256
    assert hashes._own("_compare_digest", "no_such_module", "hmac") is hmac.compare_digest
    assert hashes.same_bytes(b"one", b"one") and not hashes.same_bytes(b"one", b"two")


PROGRAM = """
import sys
import numpy as np
import ovjit
compiled = ovjit.Core().compile_model(sys.argv[1], "CPU", {"CACHE_DIR": sys.argv[2]})
print(float(compiled(np.ones(8, np.float32))[0].sum()), "_hashlib" in sys.modules)
"""


def test_a_start_that_finds_its_model_does_without_openssl(tmp_path: Path) -> None:
    import ovjit
    from ovjit import opset8

    x = opset8.parameter([8], np.float32, name="x")
    ovjit.save_model(ovjit.Model([opset8.add(x, x)], [x]), tmp_path / "m.xml", False)
    for _ in range(2):
        given = tmp_path / "m.xml", tmp_path / "models"
        said = printed("-c", PROGRAM, *given, OVJIT_CACHE=str(tmp_path / "kernels"))
    assert said.split() == ["16.0", "False"]


def test_the_digest_of_sources_is_kept_until_one_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "digested"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "bytecode"))
    assert source_files.read_kept("digested", "digest") is None
    first = versions.package_digest("digested")
    source_files.keep("digested", "digest", first)
    assert source_files.read_kept("digested", "digest") == first
    (package / "inner.py").write_text("x = 12\n")
    assert source_files.read_kept("digested", "digest") is None
    assert versions.package_digest("digested") != first
    monkeypatch.undo()
    for ours in ("ovjit.codegen", "ovjit.tiles"):
        assert source_files.read_kept(ours, versions._DIGEST) in (None, versions.package_digest(ours))
