"""Named dimensions: `unify(x=(x, "BTI"), h=(h, "BH"))` checks that equal letters have equal extents."""

from __future__ import annotations

from collections.abc import Iterable

from ovjit.errors import ModelError, check
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, Dim, Interval, bounds, dim, merge
from ovjit_ops.common.checks import check_type


class Dims:
    """The known extent of each letter. Extents may be given: `Dims(H=128)`."""

    def __init__(self, **extents: Dim):
        self.extents = dict(extents)

    def fit(self, what: str, x: TensorType | None, letters: str) -> None:
        """Merge the shape of x, one letter per dimension. "." matches any dimension, a digit that extent.

        Raises ModelError, naming `what`, if the rank or a dimension does not match.
        """
        if x is None or x.shape is None:
            return
        names = " ".join(letters) or "nothing"
        check(len(x.shape) == len(letters), f"{what} should have the dimensions [{names}], not {x}")
        for i, (letter, d) in enumerate(zip(letters, x.shape, strict=True)):
            both = merge(have := self[letter], d)
            if both is None:
                label = "" if letter.isdigit() else f" ({letter})"
                raise ModelError(
                    f"{what} {x} should have {have} in dimension {i}{label}; its dimensions are [{names}]"
                )
            if letter.isalpha():
                self.extents[letter] = both

    def __getitem__(self, letter: str) -> Dim:
        return int(letter) if letter.isdigit() else self.extents.get(letter, ANY)

    def shape(self, letters: str) -> tuple[Dim, ...]:
        """The shape for these letters."""
        return tuple(self[letter] for letter in letters)


def divide_dim(extent: Dim, by: int, what: str) -> Dim:
    """extent / by, without a remainder: the lower bound is rounded up. Raises ModelError, naming `what`, if
    no multiple of `by` is within the bounds."""
    lo, hi = bounds(extent)
    least = -(-lo // by)
    check(
        hi is None or least * by <= hi if isinstance(extent, Interval) else extent % by == 0,
        f"Dimension value: [ {lo}, {hi}] must be a multiple of divisor: {by} ({what})",
    )
    out = extent // by
    return dim(least, out.hi, out.base, out.offset) if isinstance(out, Interval) else out


def unify(types: Iterable[str] | None = None, /, **inputs: tuple[TensorType | None, str]) -> Dims:
    """The dimensions of several inputs, which may be None. Raises ModelError unless they match, and have one
    of `types`."""
    dims = Dims()
    for what, (x, letters) in inputs.items():
        if types is not None:
            check_type(x, types, what)
        dims.fit(what, x, letters)
    return dims
