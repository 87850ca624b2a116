"""Plans for dynamic shapes, kept beside the blob of their model, so that a later start need not make them
again.

A blob is written at compilation, and actual dimensions are known when inputs arrive. So a process stores its
traces (`planning/parametric.py`) in a separate file. It names the blob by its authentication code, and is
sealed under the same key: traces are valid for that blob's code and constants only. A missing or wrong file
means planning as before.

    {"programs": [{"kernels": [[symbol, name], ...],
                   "traces": [result of `stored_program.encode_trace`, ...]}, ...]}

Its length precedes it (little-endian, 8 bytes); the traces' arrays follow.
"""

from __future__ import annotations

import contextlib
import os
import struct
import weakref
from typing import Any

from ovjit.disk import sealed, store
from ovjit.disk.notice import warn_once
from ovjit.planning.parametric import Parametric, Traces, evaluating_kernel
from ovjit.storage.container import BlobError
from ovjit.storage.graph_format import Arrays, Reader, dump, encode, parse
from ovjit.storage.stored_program import StoredProgram, Symbols, encode_trace, read_trace

#: Maximum traces of a file, the most recently used ones.
MOST = 8
_LENGTH = struct.Struct("<Q")


def path_for(blob: str) -> str:
    return blob.removesuffix(store.BLOBS.suffix) + store.PLANS.suffix


def _programs(executable: Any) -> list[Any]:
    """The programs of an executable that make plans: its own, and those that compute variables' initial
    values."""
    inits: list[Any] = getattr(executable.program, "inits", list)()
    starts = {init.executable: None for init in inits if hasattr(init, "executable")}
    return [one.program for one in (executable.main, *starts)]


def keep_traced(blob: str, code: bytes, key: bytes, executable: Any) -> None:
    """Store the plans for dynamic shapes that `executable` makes, from now on, and those that it has made
    since its compilation. The file is beside the blob of `executable` at this path. `code`: the blob's
    authentication code."""
    programs = _programs(executable)
    those = [weakref.ref(program) for program in programs]

    def keep(_: Traces) -> None:
        _write(blob, code, key, [program() for program in those])

    for program in programs:
        if isinstance(program, StoredProgram):
            program.traced = keep
        elif isinstance(getattr(program, "traces", None), Traces):
            program.traces.added = keep
            if any(trace not in program.traced_ahead for trace in program.traces):
                keep(program.traces)


def _traces_of(program: Any) -> list[Parametric]:
    """The traces that a program has made, and those that were read for it."""
    if not isinstance(program, StoredProgram):
        return list(getattr(program, "traces", None) or ())
    return [*program.new_traces(), *program.traces]


def find(blob: str, code: bytes, key: bytes, executable: Any) -> None:
    """Give the executable of a blob the plans that are stored beside it, and let it store further ones."""
    programs = _programs(executable)
    if not all(isinstance(program, StoredProgram) and program.memory is not None for program in programs):
        return
    keep_traced(blob, code, key, executable)
    # what is not as it should be is planned anew, and then written anew
    with contextlib.suppress(OSError, sealed.Damaged, BlobError, LookupError, TypeError, ValueError):
        _read(store.read(path_for(blob), store.PLANS, _name(blob, code), key), programs)


def _name(blob: str, code: bytes) -> str:
    return f"{os.path.basename(blob)} {code.hex()}"


def _write(blob: str, code: bytes, key: bytes, programs: list[Any]) -> None:
    arrays = Arrays("data")
    head = dump({"programs": [_table(program, arrays) for program in programs]})
    if not arrays.parts:
        return
    content = b"".join((_LENGTH.pack(len(head)), head, arrays.content()))
    if len(content) > store.PLANS.largest // 2:
        return
    try:
        store.write(path_for(blob), store.PLANS, _name(blob, code), content, key)
    except OSError as error:
        warn_once(f"write {os.path.dirname(blob)}", f"plans are not kept beside {blob}: {error}", error)


def _table(program: Any, arrays: Arrays) -> dict[str, Any]:
    """The table of one program's traces."""
    symbols = Symbols(program, evaluating_kernel())
    number: dict[tuple[str, str], int] = {}

    def number_of(kernel: Any) -> int:
        return number.setdefault((symbols[kernel], kernel.name), len(number))

    number_of(evaluating_kernel())
    traces = _traces_of(program)[:MOST]
    rows = [encode_trace(trace, number_of) for trace in traces if trace.facts() is not None]
    return {"kernels": [list(kernel) for kernel in number], "traces": encode(rows, arrays)}


def _read(content: bytes, programs: list[StoredProgram]) -> None:
    """Offer the stored traces to the programs that they are of."""
    (length,) = _LENGTH.unpack_from(content)
    tables = parse(content[_LENGTH.size : _LENGTH.size + length], "plans")["programs"]
    reader = Reader({"data": memoryview(content)[_LENGTH.size + length :]})
    offers = []
    for program, table in zip(programs, tables, strict=True):
        if not table["traces"]:
            continue
        kernels = program.kernels_named([(symbol, name) for symbol, name in table["kernels"]])
        traces = [read_trace(row, kernels) for row in reader.value(table["traces"])]
        offers.append((program, traces, kernels[0]))
    for program, traces, evaluating in offers:
        program.offer(traces, evaluating)
