"""Plans for open shapes, kept beside the blob of their model, so that a later start need not make them again.

A blob is written when a model is compiled, and what open shapes will be is known when inputs arrive. So the
traces that a process makes (`compiler/parametric.py`) are put into a file of their own, which names the blob
by its authentication code and is sealed under the same key: they hold for that blob's code and constants and
for no other. What is not found, or not what it should be, is planned as ever.

    {"kernels": [[symbol, name], ...],
     "traces": [{"facts": ..., "data": bytes,
                 "steps": [[kernel, chunks, name, type, [origin], flops, bytes], ...]}, ...]}

Before it stands its length (little-endian, 8 bytes), behind it the constants of the traces' plans.
"""

from __future__ import annotations

import contextlib
import os
import struct
import weakref
from typing import Any

import numpy as np

from ovjit.compiler.parametric import Parametric, Traces, evaluating_kernel
from ovjit.compiler.steps import Step
from ovjit.storage import sealed
from ovjit.storage.container import BlobError
from ovjit.storage.folders import READ, check_owner, write_whole
from ovjit.storage.graph_format import dump, parse
from ovjit.storage.notice import warn_once
from ovjit.storage.program import StoredProgram, symbol_of

SUFFIX = ".plans"
#: So many are kept, those that served last.
MOST = 8
#: Larger files are not written.
LARGEST = 8 << 20
_KIND = b"OVJITPLN"
_LENGTH = struct.Struct("<Q")


def path_for(blob: str) -> str:
    return blob.removesuffix(".blob") + SUFFIX


def keep_traced(blob: str, code: bytes, key: bytes, program: Any) -> None:
    """From now on keep the plans for open shapes that `program` makes beside the blob at this path, which was
    made of it, or it of the blob. `code`: the blob's authentication code."""
    whose = weakref.ref(program)

    def keep(traces: Traces) -> None:
        program = whose()
        before = program.traces if isinstance(program, StoredProgram) else ()
        _write(blob, code, key, [*traces, *before])

    if isinstance(program, StoredProgram):
        program.traced = keep
    elif isinstance(getattr(program, "traces", None), Traces):
        program.traces.added = keep


def find(blob: str, code: bytes, key: bytes, program: Any) -> None:
    """Give a program that was made of this blob the plans that are kept beside it, and have it keep more."""
    if not isinstance(program, StoredProgram) or program.memory is None:
        return
    keep_traced(blob, code, key, program)
    path = path_for(blob)
    # what is not as it should be is planned anew, and then written anew
    with contextlib.suppress(OSError, sealed.Damaged, BlobError, LookupError, TypeError, ValueError):
        descriptor = os.open(path, READ)
        try:
            check_owner(path, os.fstat(descriptor))
            with open(descriptor, "rb", closefd=False) as file:
                record = file.read(LARGEST + 1)
        finally:
            os.close(descriptor)
        _read(sealed.unseal(_KIND, _name(blob, code), record, key), program)


def _name(blob: str, code: bytes) -> str:
    return f"{os.path.basename(blob)} {code.hex()}"


def _write(blob: str, code: bytes, key: bytes, traces: list[Parametric]) -> None:
    number: dict[tuple[str, str], int] = {}

    def number_of(kernel: Any) -> int:
        return number.setdefault((symbol_of(kernel), kernel.name), len(number))

    number_of(evaluating_kernel())
    rows, data = [], []
    for trace in traces:
        facts = trace.facts()
        if facts is None:
            continue
        steps = [
            [number_of(s.kernel), int(s.chunks), s.name, s.type, list(s.origins), int(s.flops), int(s.bytes)]
            for s in trace.steps
        ]
        rows.append({"facts": facts, "data": trace.data.size, "steps": steps})
        data.append(trace.data.tobytes())
        if len(rows) == MOST:
            break
    if not rows:
        return
    head = dump({"kernels": [list(kernel) for kernel in number], "traces": rows})
    content = b"".join((_LENGTH.pack(len(head)), head, *data))
    if len(content) > LARGEST // 2:
        return
    try:
        record = sealed.seal(_KIND, _name(blob, code), content, key)
        write_whole(path_for(blob), record, lasting=False)
    except OSError as error:
        warn_once(f"write {os.path.dirname(blob)}", f"plans are not kept beside {blob}: {error}")


def _read(content: bytes, program: StoredProgram) -> None:
    (length,) = _LENGTH.unpack_from(content)
    table = parse(content[_LENGTH.size : _LENGTH.size + length], "plans")
    kernels = program.kernels_named([(symbol, name) for symbol, name in table["kernels"]])
    at = _LENGTH.size + length
    traces = []
    for row in table["traces"]:
        data = np.frombuffer(content, np.uint8, row["data"], at)
        at += row["data"]
        steps = [
            Step(kernels[kernel], (), chunks, name, kind, origins, flops, moved)
            for kernel, chunks, name, kind, origins, flops, moved in row["steps"]
        ]
        traces.append(Parametric.of_facts(row["facts"], steps, data))
    program.offer(traces, kernels[0])
