"""Dimensions by letter: `Dims().fit("X", x, "BTI")` says which dimensions of several inputs are equal."""

from __future__ import annotations

from ovjit.errors import check
from ovjit.graph.op import TensorType
from ovjit.graph.shapes import ANY, Dim, merge


class Dims:
    """What is known of each letter. Letters may be given from the start: `Dims(H=128)`."""

    def __init__(self, **known: Dim):
        self.known = dict(known)

    def fit(self, what: str, x: TensorType, letters: str) -> None:
        """Learn from the shape of x, one letter a dimension; "." is any, "1" is one.

        Raises ModelError naming `what` where the rank or a dimension does not fit.
        """
        if x.shape is None:
            return
        names = " ".join(letters) or "nothing"
        check(len(x.shape) == len(letters), f"{what} should have the dimensions {names}, not {x}")
        for letter, d in zip(letters, x.shape, strict=True):
            if letter == ".":
                continue
            have = 1 if letter == "1" else self.known.get(letter, ANY)
            both = merge(have, d)
            check(both is not None, f"{what} {x} should have {have} for {letter} of the dimensions {names}")
            if both is not None and letter != "1":
                self.known[letter] = both

    def shape(self, letters: str) -> tuple[Dim, ...]:
        """The shape that these letters stand for."""
        return tuple(1 if letter == "1" else self.known.get(letter, ANY) for letter in letters)
