"""Tiles for CPUs that multiply matrices (NEON's usmmla and bfmmla): two pixels with two channels at a time.

    acc[2 pixels, 2 channels] += a[2 pixels, 2 words] * w[2 channels, 2 words]

This takes half as many products as by lanes. In exchange two pixels are put side by side, and so are two
words of each channel: ten instructions of the products' ports for 24 of them. A sum that is called m, v has
the pixels m and m ^ 1, and of the vector v the first two channels for even m, the others for odd m.
"""

from __future__ import annotations

from ovjit.codegen.cpu.formats import WORD
from ovjit.tiles.by_lane import LaneTile

#: Pixels that are loaded before they are multiplied.
LOADED = 4


class PairTile(LaneTile):
    """Prints one tile of an even number of pixels."""

    def read_bias(self) -> None:
        """A vector's bias for two pixels: its first two channels, and the others."""
        super().read_bias()
        self.biases = [
            [self.shuffled(f"%bias{v}", "poison", order) for order in ("0101", "2323")]
            for v in range(self.vectors)
        ]

    def first(self, m: int, v: int) -> str:
        return self.biases[v][m & 1].removeprefix("%")

    def sum(self, m: int, v: int) -> str:
        one, other = (super(PairTile, self).sum(m & ~1 | part, v) for part in (0, 1))
        return self.shuffled(one, other, "2367" if m & 1 else "0145")

    def words(self, at: str, offset: str, done: int, count: int, last: bool) -> str:
        """acc[m][v] += a[m] * w[v] for one or two words behind the first `done` of a step, which are at
        `offset` in each pixel. Gives another name of this offset."""
        weights = self.pairs_of_weights(at, done, count)
        before = f"%{at}." if done == 0 else f"%{at}.{done}."
        behind = f"%{at}.new." if last else f"%{at}.{done + count}."
        groups = [range(m, min(m + LOADED, self.rows)) for m in range(0, self.rows, LOADED)]
        waiting = [f"{before}{m}.{v}" for m in groups[-1] for v in range(self.vectors)] if done else []
        for some in groups:
            offset = self.after(offset, waiting)
            for m in some[::2]:
                pixels = self.pair(m, offset, count)
                for v in range(self.vectors):
                    for part in (0, 1):
                        name = f"{m + part}.{v}"
                        self.call(behind + name, "matrix", before + name, pixels, weights[2 * v + part])
            waiting = [f"{behind}{m}.{v}" for m in some for v in range(self.vectors)]
        return offset

    def pairs_of_weights(self, at: str, done: int, count: int) -> list[str]:
        """For each two channels their two words; where there is one, zeros behind it."""
        words = self.words_of_weights(at, done, count)
        others = words[1] if count == 2 else ["zeroinitializer"] * self.vectors
        return [
            self.shuffled(x, y, order)
            for x, y in zip(words[0], others, strict=True)
            for order in ("0415", "2637")
        ]

    def pair(self, m: int, offset: str, count: int) -> str:
        """So many words of two pixels side by side, zeros behind one."""
        bits, align = 8 * WORD * count, self.size[self.form.a]
        kind, both = f"i{bits}", "<2 x i64>"
        pixels = []
        for one in (m, m + 1):
            at = self.new(f"getelementptr i8, ptr %t.p{one}, i64 {offset}")
            pixel = self.new(f"load {kind}, ptr {at}, align {align}")
            pixels.append(pixel if count == 2 else self.new(f"zext {kind} {pixel} to i64"))
        first = self.new(f"insertelement {both} poison, i64 {pixels[0]}, i32 0")
        second = self.new(f"insertelement {both} {first}, i64 {pixels[1]}, i32 1")
        return self.new(f"bitcast {both} {second} to {self.acc}")
