"""Make the site: the pages of this folder and of the root as HTML, and the API by pdoc.

    pip install -e '.[docs]'
    python -m docs.build [folder]

The site needs no network and fetches nothing. `ORDER` is its table of contents; a page that is not in it is
an error.
"""

from __future__ import annotations

import html
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: section -> its pages
ORDER = {
    "Start": ["README.md", "docs/start.md", "docs/command_line.md", "docs/openvino_programs.md"],
    "Guides": [
        "docs/async.md", "docs/dynamic_shapes.md", "docs/precision.md", "docs/custom_operations.md",
        "docs/onnx.md", "docs/gguf.md", "docs/pytorch.md", "docs/tensorflow_lite.md", "docs/debugging.md",
    ],
    "Production": [
        "docs/deployment.md", "docs/serving.md", "docs/language_models.md", "docs/distributed.md",
        "docs/platforms.md", "docs/versions.md", "SECURITY.md",
    ],
    "What is there": ["docs/operations.md", "docs/parity.md", "docs/types.md", "docs/special_values.md",
                      "docs/accuracy.md", "docs/benchmarks.md", "CHANGELOG.md"],
    "Inside": ["docs/architecture.md", "docs/decisions.md", "docs/adding_an_op.md", "docs/blob_format.md",
               "CONTRIBUTING.md"],
}  # fmt: skip
#: What pdoc describes: what users import.
MODULES = [
    "ovjit", "ovjit.preprocess", "ovjit.properties", "ovjit.passes", "ovjit.frontend", "ovjit.errors",
    "ovjit.cache", "ovjit.experimental", "ovjit.opset13", "ovjit.opset17", "ovjit.integrations.served",
    "ovjit.integrations.rest", "ovjit.integrations.protocol", "ovjit.integrations.shipping",
    "ovjit.integrations.triton",
]  # fmt: skip

_STYLE = """
:root { --line: #d8dee4; --soft: #f6f8fa; --text: #1b1f24; --link: #1f6f8b; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--text); font: 16px/1.6 system-ui, sans-serif; display: flex; }
nav { flex: 0 0 15rem; padding: 1.5rem 1rem; border-right: 1px solid var(--line); min-height: 100vh;
      background: var(--soft); font-size: .93rem; }
nav h2 { font-size: .8rem; text-transform: uppercase; letter-spacing: .05em; margin: 1.2rem 0 .2rem;
         color: #57606a; }
nav a { display: block; padding: .1rem .5rem; color: var(--text); text-decoration: none; border-radius: 4px; }
nav a:hover, nav a[aria-current] { background: #e3ecf6; }
main { flex: 1; min-width: 0; max-width: 60rem; padding: 1.5rem 2.5rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.25; } h2 { margin-top: 2.2rem; font-size: 1.3rem; }
a { color: var(--link); }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem;
      overflow-x: auto; font-size: .86rem; line-height: 1.45; }
code { font-family: ui-monospace, monospace; font-size: .88em; } :not(pre) > code { background: var(--soft);
      padding: .1em .3em; border-radius: 4px; } pre code { font-size: 1em; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: .93rem; }
th, td { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { background: var(--soft); } img { max-width: 100%; }
@media (max-width: 50rem) { body { display: block; } nav { min-height: 0; border-right: 0; }
                           main { padding: 1rem; } }
"""
_EXTRAS = ["fenced-code-blocks", "tables", "header-ids", "cuddled-lists", "code-friendly"]


def pages() -> list[str]:
    """All pages, in order. ValueError where one is missing from `ORDER` or from the folder."""
    listed = [page for section in ORDER.values() for page in section]
    found = {p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]}
    if set(listed) != found:
        raise ValueError(f"pages and ORDER differ in {sorted(set(listed) ^ found)}")
    return listed


def target(page: str) -> str:
    """The file of the site that a page becomes; all are in one folder."""
    return "index.html" if page == "README.md" else Path(page).stem.lower() + ".html"


def title(page: str) -> str:
    """What the page calls itself."""
    found = re.search(r"^# (.+)$", (ROOT / page).read_text(), re.M)
    return found[1] if found else page


def relinked(page: str, body: str) -> str:
    """Links to pages go to their files of the site; to other files of the repository, they become text."""
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


def rendered(page: str) -> str:
    """A page of the site."""
    import markdown2

    text = re.sub(r"^<!-- python\n.*?^-->\n", "", (ROOT / page).read_text(), flags=re.M | re.S)
    body = relinked(page, str(markdown2.markdown(text, extras=_EXTRAS)))
    menu = []
    for section, members in ORDER.items():
        menu.append(f"<h2>{section}</h2>")
        for member in members:
            here = ' aria-current="page"' if member == page else ""
            menu.append(f'<a href="{target(member)}"{here}>{html.escape(title(member))}</a>')
    menu.append('<h2>Reference</h2><a href="api/index.html">The API</a>')
    name = html.escape(title(page))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{name} - ovjit</title>'
        f"<style>{_STYLE}</style></head>\n<body><nav>{''.join(menu)}</nav>\n<main>{body}</main></body></html>\n"
    )


def build(folder: Path, api: bool = True) -> None:
    """Write the site into the folder. ImportError where the extra `docs` is not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in pages():
        (folder / target(page)).write_text(rendered(page), encoding="utf-8")
    for picture in (ROOT / "docs").glob("*.svg"):
        shutil.copy(picture, folder)
    if api:
        import pdoc

        pdoc.render.configure(docformat="markdown", footer_text="ovjit")
        pdoc.pdoc(*MODULES, output_directory=folder / "api")


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
