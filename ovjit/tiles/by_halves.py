"""Tiles for CPUs that multiply f16 and add in f32 (NEON's fmlal and fmlal2), by a lane of each pixel.

    acc[m, v] += w[k, v] * a[m][k]      fmlal acc, w, a.h[lane]    of the first half of w's lanes, or the last

Products of f16 are exact in f32, so that sums are as those of f32. A word of weights has two elements of each
channel side by side. Of two vectors, or one twice, the first elements are put into one and the others into
another: two instructions for twelve pixels.
"""

from __future__ import annotations

from ovjit.tiles.by_lane import LaneTile


class HalfTile(LaneTile):
    """Prints one tile."""

    def words_of_weights(self, at: str, done: int, count: int) -> list[list[str]]:
        """Of each word, the first elements of two vectors of channels and the second ones."""
        return [
            [self.halves(word[0], word[-1], part) for part in (0, 1)]
            for word in super().words_of_weights(at, done, count)
        ]

    def halves(self, x: str, y: str, first: int) -> str:
        """Every other f16 of two vectors."""
        given = [self.new(f"bitcast {self.acc} {v} to <8 x half>") for v in (x, y)]
        order = ", ".join(f"i32 {lane}" for lane in range(first, 16, 2))
        both = self.new(f"shufflevector <8 x half> {given[0]}, <8 x half> {given[1]}, <8 x i32> <{order}>")
        return self.new(f"bitcast <8 x half> {both} to {self.acc}")

    def multiply(self, names: list[list[str]], pixel: str, weights: list[list[str]]) -> None:
        count = len(weights)
        for i, word in enumerate(weights):
            for part, vector in enumerate(word):
                one = self.element(pixel, 2 * i + part, 2 * count)
                for v, add in zip(range(self.vectors), ("madd", "high"), strict=False):
                    last = part == 1
                    before = names[v][i] if part == 0 else f"{names[v][i + 1]}.a"
                    self.call(names[v][i + 1] + ("" if last else ".a"), add, before, one, vector)

    def element(self, pixel: str, i: int, count: int) -> str:
        """The element i of a pixel's f16, in all lanes."""
        lanes = ", ".join([f"i32 {i}"] * 8)
        one = self.new(
            f"shufflevector <{count} x half> {pixel}, <{count} x half> poison, <8 x i32> <{lanes}>"
        )
        return self.new(f"bitcast <8 x half> {one} to {self.acc}")
