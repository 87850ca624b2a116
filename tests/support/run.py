"""How tests run what has been compiled, and this Python in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.engine import compile_graph
from ovjit.execution.executable import Executable
from ovjit.graph.graph import Graph
from tests.support import ROOT

#: The end of a program that waits until compiled models are kept, which the end of a process does not.
FINISH = """
from ovjit.storage import late_writes
late_writes.finish()
"""


def run(
    what: Executable | Graph,
    arrays: Sequence[np.ndarray],
    times: int = 1,
    native: bool = False,
    **options: Any,
) -> list[np.ndarray]:
    """The outputs for these inputs. A Graph is compiled with `options` first.

    `times`: the job runs so often, and the last outputs are returned. `native`: no step may run on the host.
    """
    executable = what if isinstance(what, Executable) else compile_graph(what, options)
    job = executable.new_job()
    outputs = run_job(job, arrays, times)
    if native:
        assert not [row for row in job.profile() if row.exec_type == "ref_numpy"], "a step ran on the host"
    return outputs


def run_job(job: Any, arrays: Iterable[np.ndarray], times: int = 1) -> list[np.ndarray]:
    """Copies of a job's outputs for these inputs, after so many runs."""
    for i, array in enumerate(arrays):
        job.set_input(i, np.asarray(array, order="C"))
    for _ in range(times):
        job.run()
    return [np.array(output) for output in job.outputs]


#: So many times as long may processes take: more where a CPU is emulated.
PATIENCE = float(os.environ.get("OVJIT_TEST_PATIENCE", "1"))
#: Seconds, the most that a process can be waited for: Python's selectors count milliseconds in 31 bits.
LONGEST = 1 << 20


def python(
    *arguments: object, folder: Path | None = None, seconds: float = 600, **variables: str | None
) -> subprocess.CompletedProcess[str]:
    """This Python with these arguments, in `folder`, with more environment `variables`; it finds ovjit."""
    return command(sys.executable, *arguments, folder=folder, seconds=seconds, **variables)


def command(
    *words: object, folder: Path | None = None, seconds: float = 600, **variables: str | None
) -> subprocess.CompletedProcess[str]:
    """Any command; a Python that it starts finds this folder's packages. A variable that is None is unset."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [str(word) for word in words],
        env={name: value for name, value in environment.items() if value is not None},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=min(seconds * PATIENCE, LONGEST),
        check=False,
    )


def printed(
    *arguments: object, folder: Path | None = None, seconds: float = 600, **variables: str | None
) -> str:
    """What this Python prints with these arguments. It must end well."""
    done = python(*arguments, folder=folder, seconds=seconds, **variables)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    return done.stdout
