"""Exported programs -> Model: as they are, or decomposed as far as there are no rules."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.build import Model
from ovjit.errors import ModelError, UnsupportedError, unless_of_signal
from ovjit.readers.torch.graph import Refused
from ovjit.readers.torch.programs.decompose import decompose
from ovjit.readers.torch.programs.fx import read_exported
from ovjit.readers.torch.programs.undecomposed import is_plain, views_of, written_beside

#: How many operators are decomposed that have rules.
MOST_REFUSED = 8


def read_program(
    program: Any, converters: Mapping[str, Any] | None, names: Sequence[str] | None = None,
    scopes: bool = False,
) -> Model:  # fmt: skip
    """Read a program without decomposition if possible, else decomposed. Operators that their rules refuse
    are decomposed too.

    Raises ModelError where PyTorch cannot decompose the program, as one of a damaged file.
    """
    beside = written_beside(program.graph_module)
    if not converters and is_plain(program.graph_module, beside):
        with contextlib.suppress(ModelError, UnsupportedError):
            return read_exported(program, converters, names, scopes, writes=True)
    refused = views_of(beside)
    most = len(refused) + MOST_REFUSED
    while True:
        try:
            ready = decompose(program, converters, refused)
        except unless_of_signal(Exception) as error:
            raise ModelError(f"PyTorch cannot decompose the program: {error}") from error
        try:
            return read_exported(ready, converters, names, scopes)
        except Refused as error:
            if error.operator in refused or len(refused) >= most:
                raise
            refused |= {error.operator}
