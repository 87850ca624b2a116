"""Hashes and codes are what Python's own modules say, and a start does without OpenSSL."""

from __future__ import annotations

import hashlib
import hmac
import sys
from pathlib import Path

import numpy as np
import pytest

from ovjit import hashes, source_digests, source_files
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
    assert hashes._find_function("sha256", "no_such_module", "hashlib") is hashlib.sha256
    assert hashes._find_function("_compare_digest", "no_such_module", "hmac") is hmac.compare_digest
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
    first = source_digests.package_digest("digested")
    assert source_files.read_kept("digested", source_digests._KEPT) == first
    (package / "inner.py").write_text("x = 12\n")
    assert source_files.read_kept("digested", source_digests._KEPT) is None
    assert source_digests.package_digest("digested") != first
    (package / "inner.py").write_text('"""A module."""\n\nx = 1  # one\n')
    assert source_digests.package_digest("digested") == first


SAME = [
    ("x = 1", "# a\nx = (1)  # b\n\n"),
    (
        "def f(a, /, *b, c: int = 2, **d):\n    return a",
        'def f(a, /, *b, c: int = 2, **d):\n    """F."""\n\n    return a',
    ),
    ("class A:\n    pass", "class A:\n    # c\n    pass"),
    ("async def f(): await g()", 'async def f():\n    """F."""\n    await g()'),
]
OTHER = [
    ("x = 1", "x = 1.0"), ("x = 1", "x = True"), ("x = 1", "x: int = 1"), ("x = 'a'", "x = b'a'"),
    ("return_ = None", "return_ = 'None'"), ("f(a, b)", "f([a, b])"), ("f(a)", "f(*a)"), ("[a]", "(a,)"),
    ("def f(a): return a", "def f(*, a): return a"), ("x = y = 1", "x = 1; y = 1"), ("a < b", "b < a"),
    ("def f(): return", "def f(): return None"), ("f'{a}'", "f'{a!r}'"),
    ("def f(): 'a'; x = 1", "def f(): 1; x = 1"),
    ("def f():\n    x = 1\n    'no docstring'", "def f():\n    x = 1"), ("a if b else c", "c if b else a"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_comments_and_docstrings_do_not_change_a_digest(one: str, other: str) -> None:
    assert source_digests.parse_digest(one.encode()) == source_digests.parse_digest(other.encode())


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_other_code_has_another_digest(one: str, other: str) -> None:
    assert source_digests.parse_digest(one.encode()) != source_digests.parse_digest(other.encode())


def test_a_file_that_is_no_python_has_the_digest_of_its_bytes() -> None:
    assert source_digests.parse_digest(b"x = (") != source_digests.parse_digest(b"x = ((")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 100_000])
def test_names_of_contents_are_those_of_blake2b(size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    expected = hashlib.blake2b(content, digest_size=32).hexdigest()
    assert hashes.content_hash(content) == hashes.content_hash(memoryview(content)) == expected
