"""mypy's stubtest of ovjit against the stubs that the openvino wheel has.

`python -m tests.support.stub_differences` writes docs/types.md; it takes a minute. It needs mypy, and
torch, which modules of OpenVINO import.

A copy of OpenVINO's stubs is read as if it described ovjit. stubtest imports ovjit and compares names, kinds
and signatures. It does the same for OpenVINO itself, whose stubs differ from its modules in places: what it
says of both is no difference of ovjit's.
"""

from __future__ import annotations

import collections
import re
import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import openvino

from tests.support import ROOT
from tests.support.run import command

PAGE = ROOT / "docs" / "types.md"
#: Beginnings of stubtest's sentences without names -> what they mean for a program.
KINDS = {
    "stub parameter X differs": "a positional argument has another name",
    "runtime parameter X has a default value of type": "takes None as well",
    "runtime parameter X has a default value of": "another default",
    "runtime parameter X has a default value but": "an argument may be left out here",
    "stub does not have": "takes more arguments",
    "stub parameter X should be positional-only": "takes the argument by position only",
    "stub parameter X has a default value but": "one function for all forms: an argument of another form",
    "stub parameter X is not keyword-only": "takes the argument by keyword only",
    "runtime does not have parameter X": "one function for all forms: an argument of another form",
    "is not present at runtime": "is not there",
    "is not a function": "is callable, and no function",
    "failed to import": "no such module",
    "variable differs": "of another kind",
    "is read-only": "is read-only",
    "metaclass differs": "another metaclass",
    "is inconsistent": "other arguments",
}


#: Kinds in which ovjit takes all that OpenVINO takes: their objects are counted, not listed.
HARMLESS = frozenset(
    (
        "an argument may be left out here",
        "takes None as well",
        "takes more arguments",
        "is callable, and no function",
    )
)


def copied(folder: Path, name: str) -> None:
    """OpenVINO's stubs as those of a package `name`. Lines that make mypy skip a file are left out."""
    source = Path(openvino.__file__).parent
    for path in source.rglob("*.pyi"):
        text = re.sub(r"(?m)^# type: ignore.*\n", "", path.read_text())
        target = folder / name / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(re.sub(r"\bopenvino\b", name, text))


def said(name: str) -> set[tuple[str, str]]:
    """(object, what stubtest says of it) for a package of that name. RuntimeError where stubtest stops."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        copied(folder, name)
        (folder / "mypy.ini").write_text("[mypy]\nignore_errors = True\n")
        done = command(
            sys.executable, "-W", "ignore", "-m", "mypy.stubtest", "--concise", "--ignore-missing-stub",
            "--mypy-config-file", "mypy.ini", name, folder=folder, MYPYPATH=str(folder),
        )  # fmt: skip
    stopped = "error: " in done.stdout or "unexpected error" in done.stdout
    if stopped or done.returncode not in (0, 1) or not done.stdout.strip():
        raise RuntimeError(f"stubtest of {name}: {(done.stdout + done.stderr)[-2000:]}")
    found = set()
    for line in done.stdout.splitlines():
        what, _, text = re.sub(rf"\b{name}\.", "", line).partition(" ")
        if not what.endswith("__all__"):
            found.add((what, text.removeprefix("is inconsistent, ")))
    return found


def differences() -> dict[str, list[str]]:
    """Kind of difference -> the objects, sorted; what is true of OpenVINO as well is left out."""
    found = collections.defaultdict(set)
    for what, text in said("ovjit") - said("openvino"):
        found[kind(text)].add(what)
    return {key: sorted(names) for key, names in sorted(found.items())}


def kind(text: str) -> str:
    """What a sentence of stubtest's means."""
    plain = re.sub(r'"[^"]*"', "X", text)
    return next(meaning for start, meaning in KINDS.items() if start in plain)


def table() -> str:
    """The page."""
    rows = differences()
    release = re.match(r"\d+\.\d+", openvino.__version__)
    lines = [
        "# Types",
        "",
        "Made by `python -m tests.support.stub_differences` from the stubs of OpenVINO "
        f"{release and release[0]}; `tests/compat/test_stubs.py` (marker `long`) keeps it true.",
        "",
        "ovjit's wheel has types (PEP 561). They are in the sources, and in `ovjit-stubs` for the names of",
        "OpenVINO's modules. `mypy --strict` accepts `tests/system/typed_program.py`, a user's program.",
        "To type checkers, a builder of operations (`ovjit.opset13.relu`) takes arguments of any type, and",
        "returns a `Node`.",
        "",
        "mypy's `stubtest` compares the imported ovjit with OpenVINO's own stubs. Differences that also",
        "exist between OpenVINO and its own stubs are left out. One object can differ in several ways.",
        "[parity.md](parity.md) compares the two imported packages, with a reason for each gap.",
        "Kinds in which ovjit takes all that OpenVINO takes are counted, and not listed.",
        "",
        "| difference | objects |",
        "|---|---:|",
        *(f"| {key} | {len(names)} |" for key, names in rows.items()),
        "",
    ]
    for key, names in rows.items():
        if key in HARMLESS:
            continue
        lines += [f"## {key[0].upper()}{key[1:]}", "", f"{'; '.join(_by_owner(names))}.", ""]
    return "\n".join(lines)


def _by_owner(names: list[str]) -> Iterator[str]:
    """`module.Class`: `one`, `other` for each module or class."""
    for owner, members in groupby(sorted(names, key=_owner), _owner):
        yield f"`{owner}`: {', '.join(f'`{name[len(owner) + 1 :]}`' for name in members)}"


def _owner(name: str) -> str:
    """The module or class of a dotted name."""
    return name.rpartition(".")[0]


if __name__ == "__main__":
    PAGE.write_text(table())
    print(PAGE)
