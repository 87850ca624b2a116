"""Dimensions by letter: `fitted(x=(x, "BTI"), h=(h, "BH"))` tells which ones of several inputs are equal."""

from __future__ import annotations

from collections.abc import Iterable

from ovjit.errors import ModelError, check
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, Dim, merge
from ovjit_ops.common.checks import check_type


class Dims:
    """What is known of each letter. Letters may be given from the start: `Dims(H=128)`."""

    def __init__(self, **known: Dim):
        self.known = dict(known)

    def fit(self, what: str, x: TensorType | None, letters: str) -> None:
        """Learn from the shape of x, one letter a dimension; "." is any, a digit is that number.

        Raises ModelError naming `what` where the rank or a dimension does not fit.
        """
        if x is None or x.shape is None:
            return
        names = " ".join(letters) or "nothing"
        check(len(x.shape) == len(letters), f"{what} should have the dimensions {names}, not {x}")
        for letter, d in zip(letters, x.shape, strict=True):
            have = self[letter]
            both = merge(have, d)
            if both is None:
                raise ModelError(f"{what} {x} should have {have} for {letter} of the dimensions {names}")
            if letter.isalpha():
                self.known[letter] = both

    def __getitem__(self, letter: str) -> Dim:
        return int(letter) if letter.isdigit() else self.known.get(letter, ANY)

    def shape(self, letters: str) -> tuple[Dim, ...]:
        """The shape that these letters stand for."""
        return tuple(self[letter] for letter in letters)


def fitted(types: Iterable[str] | None = None, /, **inputs: tuple[TensorType | None, str]) -> Dims:
    """What the shapes of several inputs, which may be absent, tell; they are of these element types."""
    dims = Dims()
    for what, (x, letters) in inputs.items():
        if types is not None:
            check_type(x, types, what)
        dims.fit(what, x, letters)
    return dims
