"""Tiles for CPUs that multiply f16 and add in f32 (NEON's fmlal and fmlal2), by a lane of each pixel.

    acc[m, v] += w[k, v] * a[m][k]      fmlal acc, w, a.h[lane]    lower half of w's lanes; fmlal2: upper

Products of f16 are exact in f32, so sums are those of f32. A word of weights has two adjacent elements of
depth of each channel. Two vectors of weights are de-interleaved: one gets the first elements, one the second.
That takes two instructions for twelve pixels. A single vector is de-interleaved with itself.
"""

from __future__ import annotations

from ovjit.tiles.by_lane import LaneTile


class HalfTile(LaneTile):
    """Prints one tile."""

    def words_of_weights(self, at: str, done: int, count: int) -> list[list[str]]:
        """[word][part]: element `part` of depth, for the channels of both vectors."""
        return [
            [self.deinterleave(word[0], word[-1], part) for part in (0, 1)]
            for word in super().words_of_weights(at, done, count)
        ]

    def deinterleave(self, x: str, y: str, first: int) -> str:
        """Every other f16 of two vectors, from the element `first` on."""
        words = [self.new(f"bitcast {self.acc} {v} to <8 x half>") for v in (x, y)]
        order = ", ".join(f"i32 {lane}" for lane in range(first, 16, 2))
        both = self.new(f"shufflevector <8 x half> {words[0]}, <8 x half> {words[1]}, <8 x i32> <{order}>")
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
        """Broadcast element i of a pixel's `count` f16."""
        lanes = ", ".join([f"i32 {i}"] * 8)
        one = self.new(
            f"shufflevector <{count} x half> {pixel}, <{count} x half> poison, <8 x i32> <{lanes}>"
        )
        return self.new(f"bitcast <8 x half> {one} to {self.acc}")
