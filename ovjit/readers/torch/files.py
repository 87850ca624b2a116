"""Files of PyTorch: a path -> a script or an exported program. A file is known by what its archive holds."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ovjit.errors import ModelError, unless_of_signal
from ovjit.readers.files.archives import check_archive, members_of
from ovjit.readers.registry import Source, recognize
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.recorder import is_recording
from ovjit.readers.torch.tracing.trace import quietly
from ovjit.readers.torch.untrusted import check_program, check_script

#: Members of the archives that torch.jit.save and torch.export.save write, below their first folder.
_SCRIPT = "constants.pkl"
_ENDINGS = (".pt", ".pt2", ".pth")
_PROGRAM = ("archive_format", "serialized_exported_program.json")


def kind_of(path: str) -> str | None:
    """ "script", "program", or "pickle" for what torch.save wrote; None for a file that is not PyTorch's."""
    if not os.path.isfile(path) or not zipfile.is_zipfile(path):
        return None
    names = members_of(path)
    members = {name.split("/", 1)[-1] for name in names}
    if any(name in members or name in names for name in _PROGRAM):
        return "program"
    if _SCRIPT in members and any(name.startswith("code/") for name in members):
        return "script"
    return "pickle" if "data.pkl" in members else None


def load(path: str) -> Any:
    """The ScriptModule or ExportedProgram of a file, None where the file is not PyTorch's.

    Raises ModelError for a file that holds weights or a pickled module, for one that PyTorch cannot load, and
    for an exported program that would run code.
    """
    kind = kind_of(path)
    if kind is None:
        if os.path.isfile(path) and path.lower().endswith(_ENDINGS) and recognize(Source(path)) is None:
            raise ModelError(
                f"{path} is no archive of torch.jit.save or torch.export.save, or it is damaged. Load what "
                "torch.save wrote in Python, and pass the module to convert_model"
            )
        return None
    if kind == "pickle":
        raise ModelError(
            f"{path} holds weights or a pickled module, but no graph. Load it in Python and pass the "
            "module to convert_model, or save it with torch.jit.save or torch.export.save"
        )
    try:
        import torch
    except ImportError as error:
        raise ModelError(
            f"{path} is a PyTorch file, which needs the package torch: pip install 'ovjit[torch]'"
        ) from error
    check_archive(path)
    reasons: list[BaseException] = []
    try:
        with quietly(), _logged_errors(reasons):
            if kind == "program":
                check_program(path)
                return _without_guards(torch.export.load(path))
            check_script(path)
            return torch.jit.load(path, map_location="cpu").eval()
    except ModelError:
        raise
    except unless_of_signal(Exception) as error:
        reason = str(reasons[0] if reasons else error)
        raise ModelError(f"PyTorch cannot load {path}: {reason[:1000]}") from error


def _without_guards(program: Any) -> Any:
    """The program without its guards, which are code that asks what inputs it was made for. ModelError if its
    weights are no tensors."""
    if hasattr(program, "_guards_code"):
        program._guards_code = []
    for name, value in program.state_dict.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"the weight {name[:200]!r} is no tensor, but {type(value).__name__}")
    return program


@contextmanager
def _logged_errors(errors: list[BaseException]) -> Iterator[None]:
    """Keep what PyTorch writes into its log, with tracebacks of a hundred lines, before it raises an error
    that refers to it."""

    def keep(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info and is_recording() else None
        if error is not None:
            errors.append(error)
        return error is None

    logger = logging.getLogger("torch.export")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
