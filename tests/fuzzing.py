"""Fuzzers: cases made from seeds, run in a child process that may die, findings made small and printed.

A fuzzer is a module with

    make(seed) -> case              data that `json` can write
    check(case) -> str              what is wrong with it, "" for nothing; may end the process
    smaller(case) -> cases          the same with something left out, most first
    script(case) -> str             a program that shows it, without this module where that is possible

and is run as a program: `python fuzz_x.py SECONDS SEED` tries one case after the other, `python fuzz_x.py
SECONDS SEED COUNT` at most so many, `python fuzz_x.py one FILE` the case in the file. A case is written to a
file before it is run, so that what ended the process is known; then the next seed goes on in a new process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

#: How long each fuzzer runs in the default suite; OVJIT_FUZZ_SECONDS says otherwise.
SECONDS = 4.0
#: Runs that may be spent on making one finding smaller.
ATTEMPTS = 150
_HERE = Path(__file__).parent


class Finding(NamedTuple):
    seed: int
    what: str
    script: str


class Report(NamedTuple):
    cases: int
    findings: list[Finding]

    def text(self) -> str:
        shown = "\n\n".join(f"seed {f.seed}: {f.what}\n{f.script}" for f in self.findings[:5])
        return f"{self.cases} cases, {len(self.findings)} findings\n{shown}"


def seconds() -> float:
    return float(os.environ.get("OVJIT_FUZZ_SECONDS", SECONDS))


def fuzz(module: ModuleType, how_long: float, seed: int, most: int = 5, count: int = 1 << 60) -> Report:
    """Run a fuzzer's cases from `seed` on for some seconds in children; stops after `most` findings."""
    findings: list[Finding] = []
    until, ran = time.monotonic() + how_long, 0
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "case.json"
        while ran < count and (left := until - time.monotonic()) > 0 and len(findings) < most:
            note.write_text(json.dumps({"seed": seed, "done": 0}))
            text = [sys.executable, module.__file__, str(left), str(seed), str(count - ran), str(note)]
            done = subprocess.run(
                [str(t) for t in text], capture_output=True, text=True, env=_environment(), check=False
            )
            state = json.loads(note.read_text())
            ran += state["done"]
            if done.returncode == 0:
                break
            found, case = state["seed"], state.get("case")
            if case is None:
                raise RuntimeError(f"the fuzzer did not begin:\n{done.stdout}\n{done.stderr}")
            what = state.get("what") or _death(done)
            case, what = minimise(module, case, what, Path(folder))
            findings.append(Finding(found, what, module.script(case)))
            seed, ran = found + 1, ran + 1
    return Report(ran, findings)


def minimise(module: ModuleType, case: Any, what: str, folder: Path) -> tuple[Any, str]:
    """The smallest case that still goes wrong, by leaving out as long as something can be left out."""
    left = ATTEMPTS
    again = True
    while again and left > 0:
        again = False
        for candidate in module.smaller(case):
            left -= 1
            if left < 0:
                break
            wrong = run_one(module, candidate, folder)
            if wrong:
                case, what, again = candidate, wrong, True
                break
    return case, what


def run_one(module: ModuleType, case: Any, folder: Path) -> str:
    """What is wrong with one case, run in a process of its own."""
    path = folder / "one.json"
    path.write_text(json.dumps({"case": case}))
    done = subprocess.run(
        [sys.executable, str(module.__file__), "one", str(path)],
        capture_output=True, text=True, env=_environment(), check=False, timeout=300,
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    return str(json.loads(path.read_text()).get("what") or _death(done))


def main(module: ModuleType) -> None:
    """What a fuzzer does when it is run as a program."""
    if sys.argv[1] == "one":
        path = Path(sys.argv[2])
        state = json.loads(path.read_text())
        state["what"] = module.check(state["case"])
        path.write_text(json.dumps(state))
        sys.exit(bool(state["what"]))
    until, seed = time.monotonic() + float(sys.argv[1]), int(sys.argv[2])
    most = int(sys.argv[3]) if len(sys.argv) > 3 else 1 << 60
    note = Path(sys.argv[4]) if len(sys.argv) > 4 else None
    done = 0
    while time.monotonic() < until and done < most:
        case = module.make(seed)
        state = {"seed": seed, "done": done, "case": case}
        if note is not None:
            note.write_text(json.dumps(state))
        what = module.check(case)
        if what:
            if note is not None:
                note.write_text(json.dumps({**state, "what": what}))
            print(f"seed {seed}: {what}\n{module.script(case)}", flush=True)
            sys.exit(1)
        seed, done = seed + 1, done + 1
    if note is not None:
        note.write_text(json.dumps({"seed": seed, "done": done}))
    print(done, "cases")


def _environment() -> dict[str, str]:
    paths = [str(_HERE), str(_HERE.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def _death(done: Any) -> str:
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode < 0:
        return f"the process died of signal {-done.returncode}: {last}"
    return f"the process ended with {done.returncode}: {last}"


def without(items: list[Any]) -> Iterator[list[Any]]:
    """The list with parts left out: halves first, then one at a time."""
    size = len(items) // 2
    while size:
        for start in range(0, len(items), size):
            yield items[:start] + items[start + size :]
        size //= 2
