"""The site of all pages: it is whole, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest

from tests.support import ROOT

_spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
assert _spec and _spec.loader
site = importlib.util.module_from_spec(_spec)
sys.modules["docs_build"] = site
_spec.loader.exec_module(site)


def test_every_page_is_in_the_table_of_contents() -> None:
    assert len(site.pages()) == len({site.target(page) for page in site.pages()})


def test_pages_link_to_each_other(tmp_path) -> None:
    pytest.importorskip("markdown2", reason="needs ovjit[docs]")
    site.build(tmp_path, api=False)
    files = {p.name for p in tmp_path.iterdir()}
    assert "index.html" in files and "calls.svg" in files
    for page in tmp_path.glob("*.html"):
        text = page.read_text()
        assert "<!-- python" not in text and text.count("<h1") == 1, page.name
        for link in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', text):
            assert link in files or link == "api/index.html", f"{page.name} links to {link}"
        assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:css|js)"', text), "nothing is fetched"
