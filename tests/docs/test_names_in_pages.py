"""What the documents name is there, and the tour runs. Their code: test_code_in_pages.py."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

from ovjit.graph.op import Declared
from ovjit.planning.fuse import Group, _Fusion
from ovjit.readers.torch.call import Call
from tests.support import ROOT, doc_pages
from tests.support.run import printed


@pytest.mark.parametrize("page", doc_pages.PAGES, ids=lambda p: p.name)
def test_links(page: Path) -> None:
    for link in doc_pages.links(page):
        if not link.startswith(("http://", "https://", "#")):
            target = link.partition("#")[0]
            assert (page.parent / target).exists(), f"{page.name} refers to {link}"


@pytest.mark.parametrize("page", doc_pages.PAGES, ids=lambda p: p.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    """Paths of the sources that stand in `...`."""
    for path in re.findall(r"`((?:ovjit|ovjit_ops|tests|docs|bench)/[\w/.]+?)`", page.read_text()):
        assert (ROOT / path.rstrip("/")).exists(), f"{page.name} names {path}"


@pytest.mark.parametrize("page", doc_pages.PAGES, ids=lambda p: p.name)
def test_names_that_are_named_are_there(page: Path) -> None:
    """`ovjit.module.name` in `...`, and the entry points of pyproject.toml."""
    groups = re.findall(r'entry-points\."([\w.]+)"', (ROOT / "docs" / "adding_an_op.md").read_text())
    for name in re.findall(r"`((?:ovjit|ovjit_ops)(?:\.\w+)+)[`(]", page.read_text()):
        assert name in groups or is_there(name), f"{page.name} names {name}"


def is_there(name: str) -> bool:
    """Whether a dotted name can be had. Modules that import what is not installed are looked at as text."""
    module, _, last = name.rpartition(".")
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        file = ROOT / f"{module.replace('.', '/')}.py"
        return file.exists() and re.search(rf"^(def|class) {last}\b", file.read_text(), re.M) is not None
    return True


def test_every_field_of_a_record_is_explained() -> None:
    """The table of docs/adding_an_op.md, or the text before it, has each field that `@op` takes."""
    fields = set(Declared.__annotations__)
    text = (ROOT / "docs" / "adding_an_op.md").read_text()
    named = set(re.findall(r"`(\w+)`", text.partition("Any other name in the class")[0]))
    assert not fields - named
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \|", text.partition("| field |")[2].partition("\n\n")[0], re.M
    )
    table = {name for row in rows for name in re.findall(r"\w+", row)}
    assert len(table) > 30 and not table - fields


def test_fields_of_a_group_are_there() -> None:
    """The table of docs/fusion.md names fields of `Group`, and the text after it methods of the fusion."""
    text = (ROOT / "docs" / "fusion.md").read_text().partition("A `Group` has")[2]
    table, _, methods = text.strip().partition("\n\n")
    fields = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    assert len(fields) > 3 and fields <= set(Group.__slots__)
    names = re.findall(r"`(\w+)` (?:appends|takes|merges)", methods)
    assert len(names) > 3 and all(hasattr(_Fusion, name) for name in names)


def test_members_of_a_call_are_there() -> None:
    """docs/aten_rules.md names attributes and methods of `Call`, which rules get as `n`."""
    names = set(re.findall(r"`n\.(\w+)", (ROOT / "docs" / "aten_rules.md").read_text()))
    assert len(names) > 8 and names <= {*dir(Call), *Call.__init__.__code__.co_names}


def test_every_reason_of_a_copy_is_explained() -> None:
    """The table of docs/debugging.md has each reason that a profile shows."""
    folders = (ROOT / "ovjit" / "planning", ROOT / "ovjit" / "tiles", ROOT / "ovjit_ops")
    sources = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    reasons = set(re.findall(r'(?:copy_step\(.*, |self\._why = )"([^"]+)"', sources))
    page = (ROOT / "docs" / "debugging.md").read_text()
    table = page.partition("| reason | cause |")[2].partition("\n\n")[0]
    explained = set(re.findall(r"^\| ([^|]+) \|", table, re.M))
    assert len(reasons) >= 7
    assert not reasons - explained


def test_the_tour(tmp_path: Path) -> None:
    """It prints a graph, groups, a kernel, a plan and a profile, and its answer is right."""
    said = printed(ROOT / "docs" / "tour.py", folder=tmp_path)
    for words in ("Convolution+Add+Sigmoid+Multiply", "def kernel(bases, args, chunk, scratch):", "arena:"):
        assert words in said
    found = re.search(r"largest difference: (\S+)", said)
    assert found and float(found[1]) < 1e-5


def test_every_promise_names_tests_that_exist() -> None:
    """SECURITY.md: each row of the table has tests, and each of these is there."""
    text = (ROOT / "SECURITY.md").read_text().partition("| promise | tests |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 12
    for promise, tests in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
        assert named, promise
        for file, test in named:
            assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.M), f"{file} has no {test}"
