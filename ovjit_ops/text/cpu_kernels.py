"""The kernels of all routines on strings, to be shipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ovjit_ops.text import cpu_bytes as cpu_bytes
from ovjit_ops.text import cpu_characters as cpu_characters
from ovjit_ops.text import cpu_grams as cpu_grams
from ovjit_ops.text import cpu_native
from ovjit_ops.text import cpu_split as cpu_split
from ovjit_ops.text import cpu_words as cpu_words

if TYPE_CHECKING:
    from ovjit.codegen.kernel import Kernel


def kernels() -> Iterator[Kernel]:
    """Those that the modules above name."""
    return cpu_native.kernels()
