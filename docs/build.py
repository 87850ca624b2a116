"""Make the site: the pages of this folder and of the root as HTML, and the API by pdoc.

    pip install -e '.[docs]'
    python -m docs.build [folder]

The site needs no network and fetches nothing. The search runs in the page. `ORDER` is the table of contents,
and a page that is not in it is an error. Pages are of four kinds: tutorials, how-to guides, reference,
explanation.
"""

from __future__ import annotations

import html
import importlib
import inspect
import json
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: kind of page -> its pages, in the order of the menu. The first page of all is the site's first page.
ORDER = {
    "Tutorials": [
        "docs/index.md", "docs/start.md", "docs/tutorials/image.md", "docs/tutorials/text.md",
        "docs/tutorials/speech.md", "docs/tutorials/own_operation.md", "docs/tutorials/server.md",
    ],
    "How-to guides": [
        "docs/async.md", "docs/dynamic_shapes.md", "docs/precision.md", "docs/model_files.md", "docs/onnx.md",
        "docs/pytorch.md", "docs/tensorflow_lite.md", "docs/gguf.md", "docs/language_models.md",
        "docs/genai.md", "docs/custom_operations.md", "docs/adding_an_op.md", "docs/fusion.md",
        "docs/aten_rules.md", "docs/adding_a_reader.md",
        "docs/openvino_programs.md",
        "docs/onnxruntime_programs.md",
        "docs/deployment.md", "docs/containers.md", "docs/serving.md",
        "docs/distributed.md", "docs/debugging.md",
    ],
    "Reference": [
        "docs/command_line.md", "docs/operations.md", "docs/platforms.md", "docs/gpu.md", "docs/versions.md",
        "docs/parity.md", "docs/types.md", "docs/special_values.md", "docs/benchmarks.md", "docs/accuracy.md",
        "docs/history.md", "docs/memory.md", "docs/fuzzing.md",
    ],
    "Explanation": [
        "docs/architecture.md", "docs/decisions.md", "docs/threads.md", "docs/many_cores.md",
        "docs/blob_format.md", "SECURITY.md",
    ],
    "Project": ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"],
}  # fmt: skip
#: Pages whose title says nothing in a menu.
LABELS = {"docs/index.md": "Home", "README.md": "Readme"}
#: What pdoc describes: what users import.
MODULES = [
    "ovjit", "ovjit.preprocess", "ovjit.properties", "ovjit.properties.device", "ovjit.properties.hint",
    "ovjit.properties.intel_auto", "ovjit.properties.intel_cpu", "ovjit.properties.intel_gpu",
    "ovjit.properties.intel_gpu.hint", "ovjit.properties.intel_npu", "ovjit.properties.log",
    "ovjit.properties.streams", "ovjit.passes", "ovjit.frontend", "ovjit.errors",
    "ovjit.cache", "ovjit.experimental", "ovjit.opset13", "ovjit.opset17", "ovjit.integrations.served",
    "ovjit.integrations.rest", "ovjit.integrations.protocol", "ovjit.integrations.shipping",
    "ovjit.integrations.triton",
]  # fmt: skip

_EXTRAS = ["fenced-code-blocks", "tables", "header-ids", "cuddled-lists", "code-friendly"]


_ASSETS = ROOT / "docs" / "assets"
#: Characters of a section that the index of the search has: tables of names would make most of it.
_INDEXED = 3000


def pages() -> list[str]:
    """All pages, in order. ValueError where one is missing from `ORDER` or from the folder."""
    listed = [page for section in ORDER.values() for page in section]
    folders = (ROOT, ROOT / "docs", ROOT / "docs" / "tutorials")
    found = {p.relative_to(ROOT).as_posix() for folder in folders for p in folder.glob("*.md")}
    if set(listed) != found:
        raise ValueError(f"pages and ORDER differ in {sorted(set(listed) ^ found)}")
    return listed


def target(page: str) -> str:
    """The file of the site that a page becomes. All are in one folder."""
    return Path(page).stem.lower() + ".html"


def title(page: str) -> str:
    """The heading of a page."""
    found = re.search(r"^# (.+)$", (ROOT / page).read_text(), re.M)
    return found[1] if found else page


def relinked(page: str, body: str) -> str:
    """Links to pages lead to their files of the site. Links to other files of the repository become text."""
    known = set(pages())

    def change(found: re.Match[str]) -> str:
        link, text = found[1], found[2]
        if re.match(r"[a-z]+:|#", link):
            return found[0]
        path, _, part = html.unescape(link).partition("#")
        name = ((ROOT / page).parent / path).resolve().relative_to(ROOT).as_posix()
        if name in known:
            return f'<a href="{target(name)}{"#" + part if part else ""}">{text}</a>'
        return f"<code>{html.escape(name)}</code>" if text != name else text

    return re.sub(r'<a href="([^"]*)">(.*?)</a>', change, body, flags=re.S)


def body_of(page: str) -> str:
    """A page's text as HTML. Tables scroll by themselves."""
    import markdown2

    text = re.sub(r"^<!-- python\n.*?^-->\n", "", (ROOT / page).read_text(), flags=re.M | re.S)
    body = relinked(page, str(markdown2.markdown(text, extras=_EXTRAS)))
    body = re.sub(r"<td( [^>]*)?>(.*?)</td>", _cell, body, flags=re.S)
    body = re.sub(r"<thead>(?:\s|</?tr>|<th[^>]*></th>)*</thead>", "", body)
    return re.sub(r"<table>.*?</table>", r'<div class="table">\g<0></div>', body, flags=re.S)


def _cell(found: re.Match[str]) -> str:
    """A cell of a table: numbers stay in one line, and long texts get a width to read them in."""
    text = html.unescape(re.sub("<[^>]+>", "", found[2]))
    kind = "number" if re.fullmatch(r"[-+\d.,±e%/ ]{1,24}", text) else "long" if len(text) > 50 else ""
    return f'<td{found[1] or ""} class="{kind}">{found[2]}</td>' if kind else found[0]


def _menu(page: str) -> str:
    parts = []
    for section, members in ORDER.items():
        parts.append(f"<h2>{section}</h2>")
        for member in members:
            here = ' aria-current="page"' if member == page else ""
            text = LABELS.get(member, title(member))
            parts.append(f'<a href="{target(member)}"{here}>{html.escape(text)}</a>')
        if section == "Reference":
            parts.append('<a href="api/index.html">Python API</a>')
    return "".join(parts)


def _contents(body: str) -> str:
    """Links to the headings of a page that has several."""
    found = re.findall(r'<h([23]) id="([^"]+)">(.*?)</h\1>', body, re.S)
    if len(found) < 3:
        return ""
    rows = (f'<a class="h{n}" href="#{at}">{re.sub("<[^>]+>", "", text)}</a>' for n, at, text in found)
    return f"<aside><h2>On this page</h2>{''.join(rows)}</aside>"


def _around(page: str) -> str:
    """Links to the page before and the page after, within a kind."""
    section = next(members for members in ORDER.values() if page in members)
    at, out = section.index(page), []
    for name, other in (("before", at - 1), ("after", at + 1)):
        if 0 <= other < len(section):
            out.append(
                f'<a class="{name}" href="{target(section[other])}">{html.escape(title(section[other]))}</a>'
            )
    return f'<p class="around">{"".join(out)}</p>' if out else ""


def rendered(page: str) -> str:
    """A page of the site."""
    body, name = body_of(page), html.escape(title(page))
    kind = next(section for section, members in ORDER.items() if page in members)
    notebook = ROOT / "docs" / "notebooks" / f"{Path(page).stem}.ipynb"
    if "tutorials" in page and notebook.exists():
        link = f'<p class="notebook"><a href="{notebook.name}" download>Download as a notebook</a></p>'
        body = body.replace("</h1>", f"</h1>{link}", 1)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{name} - ovjit</title>'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="site.css">'
        '<script defer src="index.js"></script>'
        '<script defer src="search.js"></script></head>\n<body>'
        '<header><a class="home" href="index.html">ovjit</a>'
        '<div class="search"><input type="search" placeholder="Search ( / )" aria-label="Search">'
        '<div class="results" hidden></div></div>'
        '<button class="menu" aria-expanded="false">Menu</button></header>\n'
        f'<div class="columns"><nav>{_menu(page)}</nav>\n'
        f'<main><p class="kind">{kind}</p>{body}{_around(page)}</main>{_contents(body)}</div></body></html>\n'
    )


def sections(page: str) -> list[dict[str, str]]:
    """The parts of a page that the search finds: title, heading, address and text."""
    body = body_of(page)
    parts = re.split(r'<h[123] id="([^"]+)">(.*?)</h[123]>', body, flags=re.S)
    out = []
    for i in range(1, len(parts), 3):
        at, heading, text = (plain(part) for part in parts[i : i + 3])
        url = target(page) if i == 1 else f"{target(page)}#{at}"
        out.append(
            {"page": title(page), "heading": "" if i == 1 else heading, "url": url, "text": text[:_INDEXED]}
        )
    return out


def plain(part: str) -> str:
    """The text of some HTML in one line. Tags within a line leave no blank."""
    inline = re.sub(r"</?(?:a|b|code|em|i|span|strong)\b[^>]*>", "", part)
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]+>", " ", inline))).strip()


def api_names() -> list[dict[str, str]]:
    """Public classes, functions and methods of `MODULES`, for the search."""
    out = []
    for module in MODULES:
        found = importlib.import_module(module)
        address = f"api/{module.replace('.', '/')}.html"
        own = getattr(found, "__all__", None)
        for name in own or dir(found):
            value = getattr(found, name)
            if name.startswith("_") or not callable(value):
                continue
            if own is None and getattr(value, "__module__", "") != module:
                continue  # an import
            members = {name: value}
            if inspect.isclass(value):
                methods = {m: f for k in (*parts(value), value) for m, f in vars(k).items() if callable(f)}
                members |= {f"{name}.{m}": f for m, f in methods.items() if not m.startswith("_")}
            for member, item in members.items():
                text = (inspect.getdoc(item) or "").partition("\n")[0]
                url = f"{address}#{member}"
                out.append({"page": f"{module}.{member}", "heading": "", "url": url, "text": text})
    return out


def parts(kind: type) -> list[type]:
    """Bases of a public class that have no entry of their own, the last of its method order first."""
    import ovjit

    return [
        base for base in kind.__mro__[:0:-1]
        if base.__module__.startswith("ovjit.") and base.__name__ not in ovjit.__all__
    ]  # fmt: skip


def describe(folder: Path, modules: list[str]) -> None:
    """Write pdoc's pages of modules into the folder, under the names that programs import."""
    import pdoc

    for name in modules:
        module = importlib.import_module(name)
        module.__name__ = name  # of those in ovjit.compat
        for member in getattr(module, "__all__", ()):  # pdoc looks at what a module has already
            value = getattr(module, member)
            vars(module).setdefault(member, value)
            if inspect.isclass(value):
                adopt(value)
    pdoc.render.configure(docformat="markdown", footer_text="ovjit")
    pdoc.pdoc(*modules, output_directory=folder)


def adopt(kind: type) -> None:
    """Put public members of a class's `parts` into it, as pdoc describes members where they are defined."""
    for base in reversed(parts(kind)):
        for name, value in vars(base).items():
            described = inspect.isroutine(value) or isinstance(value, (property, classmethod, staticmethod))
            if described and not name.startswith("_") and name not in vars(kind):
                setattr(kind, name, value)


def build(folder: Path, api: bool = True) -> None:
    """Write the site into the folder. ImportError where the extra `docs` is not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for page in pages():
        (folder / target(page)).write_text(rendered(page), encoding="utf-8")
        rows += sections(page)
    docs = ROOT / "docs"
    for file in (*docs.glob("*.svg"), *docs.glob("tutorials/*.svg"), *docs.glob("notebooks/*.ipynb"),
                 *_ASSETS.iterdir()):  # fmt: skip
        shutil.copy(file, folder)
    if api:
        describe(folder / "api", MODULES)
        rows += api_names()
    index = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    (folder / "index.js").write_text(f"const PAGES = {index};\n", encoding="utf-8")


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site"
    try:
        build(folder)
    except ImportError as error:
        print(f"docs.build: {error}: pip install -e '.[docs]'", file=sys.stderr)
        return 2
    print(folder / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
