"""The site of all pages: it is whole, its links lead somewhere, and its search finds pages and names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from tests.support import ROOT
from tests.support.doc_pages import module_of_docs
from tests.support.run import printed

site = module_of_docs("build")


def test_every_page_is_in_the_table_of_contents() -> None:
    assert len(site.pages()) == len({site.target(page) for page in site.pages()})


def test_kinds_are_apart() -> None:
    assert list(site.ORDER)[:4] == ["Tutorials", "How-to guides", "Reference", "Explanation"]
    assert site.target(site.pages()[0]) == "index.html"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the site, without the API's part."""
    pytest.importorskip("markdown2", reason="needs ovjit[docs]")
    folder = tmp_path_factory.mktemp("site")
    site.build(folder, api=False)
    return folder


def test_pages_link_to_each_other(built) -> None:
    files = {p.name for p in built.iterdir()}
    assert {"index.html", "calls.svg", "search.js", "site.css", "image.ipynb", "digits.svg"} <= files
    headings = {p.name: set(re.findall(r'id="([^"]+)"', p.read_text())) for p in built.glob("*.html")}
    for page in built.glob("*.html"):
        text = page.read_text()
        assert "<!-- python" not in text and text.count("<h1") == 1, page.name
        for link, part in re.findall(r'(?:href|src)="([^"#:]*)(?:#([^"]*))?"', text):
            assert not link or link in files or link == "api/index.html", f"{page.name} links to {link}"
            if part and link.endswith((".html", "")):
                assert part in headings[link or page.name], f"{page.name} links to {link}#{part}"
        assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:css|js)"', text), "nothing is fetched"


@pytest.mark.pypi
def test_names_of_the_api_are_found(tmp_path) -> None:
    """In a process of its own: modules get the names that programs import."""
    pytest.importorskip("pdoc", reason="needs ovjit[docs]")
    code = (
        "import sys; from pathlib import Path; from docs import build\n"
        "build.MODULES = ['ovjit', 'ovjit.errors', 'ovjit.opset17', 'ovjit.preprocess']\n"
        "build.describe(Path(sys.argv[1]) / 'api', build.MODULES)\n"
        "print(*(row['url'] for row in build.api_names()))"
    )
    urls = printed("-W", "ignore", "-c", code, tmp_path, folder=ROOT).split()
    assert {"api/ovjit/opset17.html#relu", "api/ovjit/preprocess.html#PrePostProcessor"} <= set(urls)
    assert "api/ovjit.html#InferRequest.get_tensor" in urls
    for page in {url.partition("#")[0] for url in urls}:
        text = (tmp_path / page).read_text()
        parts = {part for url in urls for name, _, part in [url.partition("#")] if name == page}
        ids = set(re.findall(r'id="([^"]+)"', text))
        assert parts <= ids, page
        assert set(re.findall(r'href="#([^"]+)"', text)) <= ids, f"{page}: links within it"


def test_members_of_bases_that_have_no_entry_are_described_with_the_class() -> None:
    class Part:
        __module__ = "ovjit.api"

        def get(self) -> int:
            return 1

        def both(self) -> int:
            return 1

        def _hidden(self) -> None:
            pass

    class First(Part):
        def both(self) -> int:
            return 2

    class Public(First, dict):
        __module__ = "ovjit.api"

    First.__module__ = "ovjit.api"
    assert site.parts(Public) == [Part, First]
    site.adopt(Public)
    assert {"get", "both"} == {name for name in vars(Public) if not name.startswith("_")}
    assert Public.both is First.both


def index_of(folder) -> list[dict[str, str]]:
    text = (folder / "index.js").read_text()
    return json.loads(text.removeprefix("const PAGES = ").rstrip().removesuffix(";"))


def test_the_index_has_all_pages(built) -> None:
    rows = index_of(built)
    assert {row["page"] for row in rows} == {site.title(page) for page in site.pages()}
    addresses = [row["url"] for row in rows]
    assert len(set(addresses)) == len(addresses)
    assert any(row["heading"] == "A queue" and row["url"] == "async.html#a-queue" for row in rows)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("<p>by <code>call</code>: a<b>b</b> &lt;x&gt;</p><p>next</p>", "by call: ab <x> next"),
        ('<pre><code><span class="n">a</span>.<span>f</span>()\n</code></pre>', "a.f()"),
        ("<td>1</td><td>2</td><br>3", "1 2 3"),
    ],
)
def test_excerpts_read_as_the_page_does(part: str, text: str) -> None:
    assert site.plain(part) == text


QUANTISED = "precision.html#quantised-models"


def test_the_search_finds(built, tmp_path) -> None:
    """`points` of search.js, by Node where it is installed."""
    node = shutil.which("node")
    if not node:
        pytest.skip("needs node")
    script = (built / "search.js").read_text()
    points = script[script.index("function spelled") : script.index("function excerpt")]
    code = (
        (built / "index.js").read_text()
        + points
        + """
    for (const said of ["asynchronous", "queue callback", "xyzzy", "Quantized models", "quantised models"])
      console.log((PAGES.map((row) => [points(row, spelled(said).split(" ")), row.url]).filter(([sum]) => sum)
        .sort((one, other) => other[0] - one[0])[0] || ["", "nothing"])[1]);
    """
    )
    (tmp_path / "search.js").write_text(code)
    done = subprocess.run(
        [node, tmp_path / "search.js"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["async.html", "async.html#a-queue", "nothing", *2 * [QUANTISED]]


def test_names_of_the_api_are_in_the_index() -> None:
    rows = {row["page"]: row for row in site.api_names()}
    assert rows["ovjit.Core.compile_model"]["url"] == "api/ovjit.html#Core.compile_model"
    assert rows["ovjit.preprocess.PrePostProcessor"]["url"] == "api/ovjit/preprocess.html#PrePostProcessor"
