"""Recordings of modules: those of the room `recording`, or plain ones in an installation without it."""

from __future__ import annotations

from collections.abc import Generator

from ovjit.readers.torch.tracing.exported import export, export_open
from ovjit.readers.torch.tracing.plain import Recorded, trace_plainly
from ovjit.readers.torch.tracing.trace import Prepared


def plain_recordings(ready: Prepared, exports: bool = False) -> Generator[Recorded, None, None]:
    """Yield the plain trace of a module, or its program if `exports`, with PyTorch's warnings."""
    if exports:
        yield export(ready, export_open)
        return
    result = Recorded(None, [])
    yield result._replace(script=trace_plainly(ready, result.warned))


try:
    from ovjit.readers.torch.recording.recordings import recordings
except ModuleNotFoundError as error:
    if not str(error.name).startswith("ovjit.readers.torch.recording"):
        raise
    recordings = plain_recordings
