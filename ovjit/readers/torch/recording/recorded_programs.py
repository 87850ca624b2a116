"""Programs of torch.export for any mask, and with Python's functions of open sizes recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.errors import unless_of_signal
from ovjit.readers.torch.recording.mask_selection import for_any_mask
from ovjit.readers.torch.recording.python_functions import shadow_functions
from ovjit.readers.torch.tracing.exported import Exported, export_open, is_right
from ovjit.readers.torch.tracing.trace import attempt


def export_followed(module: Any, leaves: Sequence[Any]) -> Exported:
    """Export a module; where that fails, such as by a loop over the places of a mask, for any mask."""
    try:
        return _for_any_size(module, leaves)
    except unless_of_signal(Exception):
        with for_any_mask(export=True) as assumed:
            result = _for_any_size(module, leaves)
        if not assumed.any or not is_right(result.program, module, leaves):
            raise
        return result


def _for_any_size(module: Any, leaves: Sequence[Any]) -> Exported:
    """The program; where Python asks for open numbers, the one with Python's functions recorded if that gives
    the same of the example."""
    result = export_open(module, leaves)
    if result.asking_files:
        with attempt("an export with numbers of open sizes"):
            other = export_open(module, leaves, shadow_functions(result.asking_files, module))
            if is_right(other.program, module, leaves):
                return other
    return result
