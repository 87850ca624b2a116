"""Fuzzers: cases made from seeds, run in a child process that may die, findings made small and printed.

A fuzzer is a module with

    make(seed) -> case              data that `json` can write
    check(case) -> str              what is wrong with it, "" for nothing; may end the process
    smaller(case) -> cases          the same with something left out, most first; without it, cases stay
    SHOWN                           an expression of a case that findings show, such as its graph; or none

and is run as a program: `python -m tests.fuzz.fuzz_x SECONDS SEED` tries one case after the other, with a
further argument COUNT at most so many; `one FILE` tries the cases in the file up to the first that goes
wrong. Which case is run is written to a file before, so that what ended the process is known; then the next
seed goes on in a new process. `python -m tests.fuzz.fuzzing fuzz_x SECONDS SEED [COUNT]` goes on for hours
and tells of every kind of finding once.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from tests.support import ROOT

#: How long each fuzzer runs in the default suite; OVJIT_FUZZ_SECONDS says otherwise.
SECONDS = 1.0
#: Runs that may be spent on making one finding smaller.
ATTEMPTS = 150
#: Cases of one child, which gets slower and larger with its caches; a fuzzer's own LIFE takes precedence.
LIFE = 20_000
#: Seconds of computing after which a case has taken too long: its process ends. As LIFE, as is MEMORY.
PATIENCE = 60.0
#: Bytes of address space that a child may have: a case that asks for more gets MemoryError.
MEMORY = 3 << 30
os.environ.setdefault("OVJIT_PRECISION", "f32")  # answers are compared closely


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
    until, ran, life = time.monotonic() + how_long, 0, getattr(module, "LIFE", LIFE)
    with tempfile.TemporaryDirectory() as folder:
        while ran < count and (left := until - time.monotonic()) > 0 and len(findings) < most:
            done, found = child(module, left, seed, min(count - ran, life), most - len(findings), folder)
            for number, what in found:
                case, what = minimise(module, module.make(number), what, Path(folder))
                findings.append(Finding(number, what, script_of(module, case)))
            ran += done
            seed += done
    return Report(ran, findings)


def script_of(module: ModuleType, case: Any) -> str:
    """A program that prints the case and what is wrong with it."""
    shown = f"print(fuzzer.{module.SHOWN})\n" if hasattr(module, "SHOWN") else ""
    return (
        f"import json\nfrom tests.fuzz import {Path(str(module.__file__)).stem} as fuzzer\n"
        f"case = json.loads({json.dumps(case)!r})\n{shown}print(fuzzer.check(case))"
    )


def child(
    module: ModuleType, how_long: float, seed: int, count: int, most: int, folder: str
) -> tuple[int, list[tuple[int, str]]]:
    """(cases that were run, (seed, what is wrong) of those that went wrong) of one process."""
    note = Path(folder) / "note.json"
    note.unlink(missing_ok=True)
    text = [sys.executable, "-m", module.__name__, how_long, seed, count, most, note]
    done = subprocess.run(
        [str(t) for t in text], capture_output=True, text=True, env=_environment(), check=False
    )
    if not note.exists():
        raise RuntimeError(f"the fuzzer did not begin:\n{done.stdout}\n{done.stderr}")
    state = json.loads(note.read_text())
    found = [(int(n), str(what)) for n, what in state["found"]]
    ran = state["done"]
    if done.returncode not in (0, 1):
        found.append((seed + ran, _death(done)))
        ran += 1
    elif done.returncode == 1 and not found:
        raise RuntimeError(f"the fuzzer itself failed at seed {seed + ran}:\n{done.stdout}\n{done.stderr}")
    return ran, found


def minimise(module: ModuleType, case: Any, what: str, folder: Path) -> tuple[Any, str]:
    """The smallest case that still goes wrong, by leaving out as long as something can be left out."""
    smaller = getattr(module, "smaller", lambda case: ())
    left = ATTEMPTS
    while left > 0:
        candidates = [c for c, _ in zip(smaller(case), range(left), strict=False)]
        tried, wrong = run_first(module, candidates, folder)
        left -= tried
        if not wrong:
            break
        case, what = candidates[tried - 1], wrong
    return case, what


def run_first(module: ModuleType, cases: list[Any], folder: Path) -> tuple[int, str]:
    """(how many were run up to the first that goes wrong, what is wrong with it), in a process of its own."""
    if not cases:
        return 0, ""
    path = folder / "some.json"
    path.write_text(json.dumps(cases))
    reached = path.with_suffix(".at")
    reached.write_text("0")
    done = subprocess.run(
        [sys.executable, "-m", module.__name__, "one", str(path)],
        capture_output=True, text=True, env=_environment(), check=False, timeout=1200,
    )  # fmt: skip
    number, _, what = reached.read_text().partition(" ")
    return int(number) + 1, "" if done.returncode == 0 else what or _death(done)


def main(module: ModuleType) -> None:
    """What a fuzzer does when it is run as a program."""
    memory, patience = getattr(module, "MEMORY", MEMORY), getattr(module, "PATIENCE", PATIENCE)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if sys.argv[1] == "one":
        path = Path(sys.argv[2])
        cases = json.loads(path.read_text())
        for i, case in enumerate(cases if isinstance(cases, list) else [cases]):
            path.with_suffix(".at").write_text(str(i))
            signal.setitimer(signal.ITIMER_VIRTUAL, patience)
            what = module.check(case)
            if what:
                path.with_suffix(".at").write_text(f"{i} {what}")
                print(what)
                sys.exit(1)
        return
    until, first = time.monotonic() + float(sys.argv[1]), int(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 1 << 60
    most = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    note = os.open(sys.argv[5] if len(sys.argv) > 5 else os.devnull, os.O_WRONLY | os.O_CREAT)
    found: list[tuple[int, str]] = []
    seed = first

    def write() -> None:
        text = json.dumps({"done": seed - first, "found": found})
        os.pwrite(note, text.encode() + b" " * 16, 0)

    write()
    while time.monotonic() < until and seed - first < count and len(found) < most:
        write()
        signal.setitimer(signal.ITIMER_VIRTUAL, patience)  # what kernels do, no handler interrupts
        case = module.make(seed)
        what = module.check(case)
        if what:
            found.append((seed, what))
            print(f"seed {seed}: {what}\n{script_of(module, case)}", flush=True)
        seed += 1
    write()
    print(seed - first, "cases")
    sys.exit(bool(found))


def _environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def _death(done: Any) -> str:
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode == -signal.SIGVTALRM:
        return "it computes without end"
    if done.returncode < 0:
        return f"the process died of signal {-done.returncode}: {last}"
    return f"the process ended with {done.returncode}: {last}"


def without(items: list[Any]) -> Iterator[list[Any]]:
    """The list with parts left out: large parts first, then one item at a time."""
    size = len(items) // 2
    while size:
        for start in range(0, len(items), size):
            yield items[:start] + items[start + size :]
        size //= 2


def make_by_seed(seed: int) -> dict[str, Any]:
    """The case of fuzzers that derive all from the seed, and leave out what `without` says."""
    return {"seed": seed, "without": []}


def without_steps(case: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    """Such a case with fewer of its `count` steps, by their numbers."""
    for kept in without([i for i in range(count) if i not in case["without"]]):
        yield {**case, "without": [i for i in range(count) if i not in kept]}


def kind(what: str) -> str:
    """What findings of one cause mostly have in common: their text without numbers and names."""
    return re.sub(r"'[^']*'|\[[^\]]*\]|[-+.\de]*\d[-+.\de]*|nan|inf", "#", what)[:90]


def campaign(module: ModuleType, how_long: float, seed: int, count: int) -> None:
    """Cases for hours; a line for each child, and every kind of finding once, made small."""
    until, ran, known = time.monotonic() + how_long, 0, dict[str, int]()
    began, life = time.monotonic(), getattr(module, "LIFE", LIFE)
    with tempfile.TemporaryDirectory() as folder:
        while ran < count and (left := until - time.monotonic()) > 0:
            done, found = child(module, left, seed + ran, min(count - ran, life), 200, folder)
            ran += done
            for number, what in found:
                known[kind(what)] = known.get(kind(what), 0) + 1
                if known[kind(what)] == 1:
                    case, what = minimise(module, module.make(number), what, Path(folder))
                    print(f"\nseed {number}: {what}\n{script_of(module, case)}\n", flush=True)
            pace = ran / (time.monotonic() - began)
            print(f"{module.__name__} from seed {seed}: {ran} cases, {pace:.0f} a second, "
                  f"{sum(known.values())} findings of {len(known)} kinds", flush=True)  # fmt: skip


if __name__ == "__main__":
    asked = importlib.import_module(f"tests.fuzz.{sys.argv[1]}")
    campaign(asked, float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 1 << 60)
