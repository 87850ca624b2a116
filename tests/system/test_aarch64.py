"""First light on AArch64, by an emulator that somebody has set up."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest

from tests.support import ROOT

pytestmark = [pytest.mark.aarch64, pytest.mark.timeout(1500)]
PROGRAM = """
import numpy as np, ovjit as ov
from ovjit.codegen.cpu import machine
from ovjit.data import digits
xml, images, labels = digits()
compiled = ov.compile_model(xml, "CPU", {"NUM_STREAMS": 2, "INFERENCE_NUM_THREADS": 2})
answers = np.array(compiled(images)[0])
queue, seen = ov.AsyncInferQueue(compiled, 3), {}
queue.set_callback(lambda request, i: seen.__setitem__(i, request.get_output_tensor(0).data.argmax()))
for i in range(50):
    queue.start_async(images[i : i + 1], i)
queue.wait_all()
assert [seen[i] for i in range(50)] == answers[:50].argmax(1).tolist()
blob = ov.Core().import_model(compiled.export_model().getvalue(), "CPU")
assert np.array_equal(blob(images)[0], answers)
print(machine.name(), (answers.argmax(1) == labels).sum())
"""


def test_the_network_of_digits(tmp_path) -> None:
    command = shlex.split(os.environ.get("OVJIT_AARCH64", ""))
    if not command:
        pytest.skip("OVJIT_AARCH64 names no Python of emulated AArch64")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("OVJIT_AARCH64_PATH")])])
    env = {**os.environ, "PYTHONPATH": path, "OVJIT_CACHE": str(tmp_path)}
    done = subprocess.run(
        [*command, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=1400, env=env
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["aarch64", "359"]
