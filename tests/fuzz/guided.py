"""Coverage-guided fuzzing of readers and of the servers' protocol, by `atheris` (pip install atheris).

    python -m tests.fuzz.guided ir onnx --seconds 600      these targets, so long each; no name: all
    python -m tests.fuzz.guided --replay onnx FILE ...     the same check on files, without atheris

A target is in `guided_targets`. Each runs in a child process, whose ovjit is instrumented as it is imported.
A child notes a finding and goes on. Where an input ends the process or takes too long, the next child goes on
with the same corpus. Inputs that reach new code are kept in `--corpus DIR`. The exit code is 1 if any were
found to be wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import ROOT

#: Where code counts as new, besides the package gguf. Kernels are left out: they are source text for Numba.
INSTRUMENTED = ("readers", "storage", "disk", "integrations", "graph", "api/model")
#: Seconds of CPU time and MiB of one input, beyond which it is a finding.
LONGEST, MEMORY = 20, 4096
#: Seconds after which libFuzzer ends a process. A machine with other work may not run it for minutes.
STUCK = 600
_STATUS = re.compile(r"#(\d+)\s.*?cov: (\d+)")
_TOTAL = re.compile(r"number_of_executed_units: (\d+)")


class Outcome(NamedTuple):
    """Counts of inputs run, branches reached and inputs kept, and the findings by their files.

    `cpu` is the children's CPU time in seconds. On a machine with other work it is less than `seconds`.
    """

    target: str
    seconds: float
    cpu: float
    runs: int
    branches: int
    kept: int
    findings: dict[Path, str]


def run(target: str, seconds: float, corpus: Path, found: Path, seed: int) -> Outcome:
    """One target for some seconds, in as many children as it takes."""
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    began, cpu, runs, branches = time.monotonic(), _cpu(), 0, 0
    while (left := seconds - (time.monotonic() - began)) > 1:
        command = [
            sys.executable, "-m", "tests.fuzz.guided", "--child", target, str(corpus), str(found),
            str(int(left)), str(seed),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        states = [(int(a), int(b)) for a, b in _STATUS.findall(done.stderr)]
        if not states:
            raise RuntimeError(f"the child did not begin:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        runs += max([*map(int, _TOTAL.findall(done.stderr)), *(count for count, _ in states)])
        branches = max([branches, *(reached for _, reached in states)])
        if done.returncode:
            _note_death(done, found, target)
        seed += 1
    files = sorted(found.glob(f"{target}-*.bin"))
    findings = {path: path.with_suffix(".txt").read_text() for path in files}
    kept = sum(1 for _ in corpus.iterdir())
    return Outcome(target, time.monotonic() - began, _cpu() - cpu, runs, branches, kept, findings)


def _cpu() -> float:
    """CPU time in seconds of all children that have ended."""
    used = os.times()
    return used.children_user + used.children_system


def _note_death(done: Any, found: Path, target: str) -> None:
    """What libFuzzer has left of an input that ended the process."""
    for path in found.glob("end-*"):
        what = f"the process ended with {done.returncode}\n{done.stderr[-3000:]}"
        name = found / f"{target}-{path.name[4:40]}.bin"
        path.rename(name)
        name.with_suffix(".txt").write_text(what)


def child(target: str, corpus: str, found: str, seconds: str, seed: str) -> None:
    """What one process does: never returns."""
    import atheris

    with atheris.instrument_imports(include=["ovjit", "gguf"], exclude=_left_out()):
        _fuzz(atheris, target, corpus, found, seconds, seed)  # within, as modules are imported late


def _left_out() -> list[str]:
    """The modules of ovjit that are not instrumented."""
    files = (ROOT / "ovjit").rglob("*.py")
    names = (path.relative_to(ROOT / "ovjit").as_posix() for path in files)
    others = [name for name in names if not name.startswith(tuple(f"{part}/" for part in INSTRUMENTED))]
    return [
        "ovjit." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in others
    ]


def _fuzz(atheris: Any, target: str, corpus: str, found: str, seconds: str, seed: str) -> None:
    os.environ.setdefault("OVJIT_CACHE", tempfile.mkdtemp(prefix="ovjit-guided-cache-"))
    from tests.fuzz import guided_targets

    subject = guided_targets.make(target)
    for content in subject.seeds():
        Path(corpus, hashlib.sha1(content).hexdigest()).write_bytes(content)
        subject.check(content)  # what it imports is imported before the time begins
    known: set[str] = set()

    def one(data: bytes) -> None:
        what = _judged(subject, data)
        if not what:
            return
        name = hashlib.sha1(_kind(what).encode()).hexdigest()[:12]
        if name in known:
            return
        known.add(name)
        path = Path(found, f"{target}-{name}.bin")
        if not path.exists():
            path.write_bytes(data)
            path.with_suffix(".txt").write_text(what)

    argv = [
        "guided", corpus, f"-max_total_time={seconds}", f"-timeout={STUCK}", f"-rss_limit_mb={MEMORY}",
        f"-seed={seed}", f"-artifact_prefix={found}/end-", f"-max_len={subject.longest}",
        "-print_final_stats=1", "-report_slow_units=1000",
    ]  # fmt: skip
    # atheris.Mutate is another function once Fuzz has begun
    change = subject.mutator(lambda data, most: atheris.Mutate(data, most))
    more = {} if subject.mutate is None else {"custom_mutator": change}
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    atheris.Setup(argv, one, **more)
    atheris.Fuzz()


def _judged(subject: Any, data: bytes) -> str:
    """What is wrong with an input; empty where nothing is, or where it asks for more memory than there is."""
    began = time.process_time()
    try:
        what = subject.check(data)
    except MemoryError:
        return ""
    except Exception as error:
        return _described(error)
    if not what and (took := time.process_time() - began) > LONGEST:
        what = f"takes {took:.0f} seconds of CPU time"
    return what


def _described(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    first = f"{type(error).__name__} in {where.name}, {os.path.basename(where.filename)}:{where.lineno}"
    return f"{first}\n{error}\n\n" + "".join(traceback.format_exception(error))


def _kind(what: str) -> str:
    """The first line without names and numbers, but the place of an exception."""
    first = what.split("\n", 1)[0]
    return first if re.search(r":\d+$", first) else re.sub(r"'[^']*'|\d+", "#", first)


def replay(target: str, files: list[str]) -> int:
    """The check of a target on files; what is wrong with each is printed."""
    from tests.fuzz import guided_targets

    subject = guided_targets.make(target)
    wrong = 0
    for name in files:
        what = _judged(subject, Path(name).read_bytes())
        print(f"{name}: {what or 'well'}")
        wrong += bool(what)
    return min(wrong, 1)


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:7])
    from tests.fuzz import guided_targets

    parser = argparse.ArgumentParser("python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("targets", nargs="*", help=", ".join(guided_targets.TARGETS))
    parser.add_argument("--seconds", type=float, default=600, help="of each target (600)")
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400, help="of mutations (the day)")
    parser.add_argument("--corpus", help="folder that inputs and findings are kept in (a new one)")
    parser.add_argument("--replay", nargs="+", metavar=("TARGET", "FILE"), help="check files of a target")
    given = parser.parse_args()
    if given.replay:
        return replay(given.replay[0], given.replay[1:])
    folder = Path(given.corpus or tempfile.mkdtemp(prefix="ovjit-guided-"))
    print(f"seed {given.seed}, corpus and findings in {folder}")
    wrong = 0
    for name in given.targets or guided_targets.available():
        made = run(name, given.seconds, folder / name, folder / "findings", given.seed)
        print(f"{name}: {made.runs} inputs in {made.seconds:.0f} s ({made.cpu:.0f} s of CPU time), "
              f"{made.branches} branches reached, {made.kept} inputs kept, "
              f"{len(made.findings)} findings", flush=True)  # fmt: skip
        for path, what in made.findings.items():
            print(f"  {path}\n    " + "\n    ".join(what.split("\n")[:3]), flush=True)
        wrong += len(made.findings)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
