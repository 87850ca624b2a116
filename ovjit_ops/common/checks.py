"""Checks of inputs for type inference. Each raises ModelError on a mismatch.

The element type "dynamic", unknown ranks and dynamic dimensions match everything. `dims.py` checks equal
dimensions of several inputs by letters.
"""

from __future__ import annotations

from collections.abc import Iterable

from ovjit.errors import ModelError
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, Dim


def check_type(x: TensorType | None, kinds: Iterable[str], what: str = "") -> None:
    """Raise ModelError unless x, if given, has one of these element types. `what`: its name; empty for the
    first input."""
    if x is None or x.dtype == "dynamic" or x.dtype in kinds:
        return
    names = " ".join(sorted(kinds))
    raise ModelError(f"{what} should be one of {names}, not {x}" if what else f"takes {names}, not {x.dtype}")


def check_same_type(x: TensorType | None, other: TensorType, what: str, says: str = "") -> None:
    """Raise ModelError unless x, if given, has the element type of `other`. `says`: OpenVINO's message."""
    if x is not None and x.dtype != other.dtype and "dynamic" not in (x.dtype, other.dtype):
        raise ModelError(f"{says} {what} {x} differs in element type from {other}".lstrip())


def check_rank(x: TensorType | None, rank: int, what: str) -> None:
    if x is not None and x.rank not in (None, rank):
        raise ModelError(f"{what} should have {rank} dimensions, not {x}")


def dims(x: TensorType, rank: int, what: str = "an input") -> tuple[Dim, ...]:
    """The dimensions of x. Raises ModelError unless it has `rank` of them."""
    check_rank(x, rank, what)
    return (ANY,) * rank if x.shape is None else x.shape
