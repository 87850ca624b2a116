"""Tiles for CPUs that multiply matrices (NEON's usmmla and bfmmla): two pixels with two channels at a time.

    acc[2 pixels, 2 channels] += a[2 pixels, 2 words] * w[2 channels, 2 words]

This takes half as many multiply instructions as `by_lane`. But two pixels must be adjacent in a vector, and
so must two words of each channel. To arrange them takes ten instructions for 24 multiplications, on the same
ports. The sum named m, v holds the pixels m and m ^ 1. It holds the first two channels of vector v if m is
even, and the last two if m is odd.

In a `paired` format, both are arranged in memory, and only multiplications use these ports:

    panels [panel][two words][width][2]     pixels [two words][pixels][2]

The driver copies the pixels of a tile, once for all panels. That takes as long as the products of one or two
panels. Both are padded with zeros to a multiple of the loop's step.

Bytes that `sdot` multiplies by lanes are copied in the same way, with 128 subtracted. So the loop flips no
signs, and two words of a pixel take half a load instead of three instructions. Their panels are not paired.
"""

from __future__ import annotations

from ovjit.codegen.cpu.formats import PAIRED_STEP, WORD
from ovjit.tiles.by_lane import LaneTile


class PairTile(LaneTile):
    """Prints one tile of an even number of pixels."""

    loaded_pixels = 4

    def read_bias(self) -> None:
        """Load the bias. Each vector is arranged for two pixels: its first two channels, and its last two."""
        super().read_bias()
        self.biases = [
            [self.shuffle(f"%bias{v}", "poison", order) for order in ("0101", "2323")]
            for v in range(self.vectors)
        ]

    def first(self, m: int, v: int) -> str:
        return self.biases[v][m & 1].removeprefix("%")

    def sum(self, m: int, v: int) -> str:
        one, other = (super(PairTile, self).sum(m & ~1 | part, v) for part in (0, 1))
        return self.shuffle(one, other, "2367" if m & 1 else "0145")

    def words(self, at: str, offset: str, done: int, count: int, last: bool) -> str:
        """Print acc[m][v] += a[m] * w[v] for one or two words of a step: see `LaneTile.words`."""
        weights = self.pairs_of_weights(at, done, count)
        before = f"%{at}." if done == 0 else f"%{at}.{done}."
        prefix_after = f"%{at}.new." if last else f"%{at}.{done + count}."
        some = self.loaded_pixels
        groups = [range(m, min(m + some, self.rows)) for m in range(0, self.rows, some)]
        waiting = [f"{before}{m}.{v}" for m in groups[-1] for v in range(self.vectors)] if done else []
        for group in groups:
            offset = self.after(offset, waiting)
            for m in group[::2]:
                pixels = self.pair(m, offset, count)
                for v in range(self.vectors):
                    for part in (0, 1):
                        name = f"{m + part}.{v}"
                        self.call(prefix_after + name, "matrix", before + name, pixels, weights[2 * v + part])
            waiting = [f"{prefix_after}{m}.{v}" for m in group for v in range(self.vectors)]
        return offset

    def pairs_of_weights(self, at: str, done: int, count: int) -> list[str]:
        """The two words of each two channels. A single word is followed by zeros."""
        words = self.words_of_weights(at, done, count)
        others = words[1] if count == 2 else ["zeroinitializer"] * self.vectors
        return [
            self.shuffle(x, y, order)
            for x, y in zip(words[0], others, strict=True)
            for order in ("0415", "2637")
        ]

    def pair(self, m: int, offset: str, count: int) -> str:
        """Load one or two words of pixels m and m + 1 to one vector. A single word is followed by zeros."""
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


class _Packed(LaneTile):
    """Prints one tile of a `paired` format, whose pixels the driver has arranged."""

    def over_taps(self) -> None:
        """Print the loop over all words, `PAIRED_STEP` at a time. The sums are then %t.m.v."""
        self.say("%taps = mul i64 %n1, %n2", "%words = mul i64 %taps, %k")
        self.say(f"%t.up = add i64 %words, {PAIRED_STEP - 1}", f"%t.count = udiv i64 %t.up, {PAIRED_STEP}")
        self.say(f"%t.step = mul i64 %ahead_step, {PAIRED_STEP}", "br label %t.head", "t.head:")
        self.say("%t.i = phi i64 [ 0, %entry ], [ %t.next, %t.body ]")
        for name, first in (("w", "w0"), ("x", "x0"), ("ahead", "ahead0")):
            self.say(f"%t.{name} = phi ptr [ %{first}, %entry ], [ %t.new.{name}, %t.body ]")
        for m, v in self.cells:
            begin = self.first(m, v)
            self.say(f"%t.{m}.{v} = phi {self.acc} [ %{begin}, %entry ], [ %t.new.{m}.{v}, %t.body ]")
        self.say("%t.more = icmp slt i64 %t.i, %t.count", "br i1 %t.more, label %t.body, label %t.done")
        self.say("t.body:", "%t.next = add i64 %t.i, 1")
        self.say("call void @llvm.prefetch.p0(ptr %t.ahead, i32 0, i32 2, i32 1)")
        self.say("%t.new.ahead = getelementptr i8, ptr %t.ahead, i64 %t.step")
        offset = "0"
        for done in range(0, PAIRED_STEP, 2):
            offset = self.words("t", offset, done, 2, done + 2 == PAIRED_STEP)
            offset = self.new(f"add i64 {offset}, {self.rows // 2 * self.vector_bytes}")
        for name, count in (("w", PAIRED_STEP * self.vectors), ("x", PAIRED_STEP * self.rows // 4)):
            size = count * self.vector_bytes
            self.say(f"%t.new.{name} = getelementptr i8, ptr %t.{name}, i64 {size}")
        self.say("br label %t.head", "t.done:")

    def pair(self, m: int, offset: str, count: int) -> str:
        """Load two words of pixels m and m + 1."""
        at = self.new(f"getelementptr i8, ptr %t.x, i64 {m // 2 * self.vector_bytes}")
        at = self.new(f"getelementptr i8, ptr {at}, i64 {offset}")
        return self.new(f"load {self.acc}, ptr {at}, align {self.vector_bytes}")


class PackedPairTile(_Packed, PairTile):
    """Multiplies pairs of pixels by pairs of channels, which are adjacent in the panels."""

    def pairs_of_weights(self, at: str, done: int, count: int) -> list[str]:
        indices = range(done * self.vectors, (done + count) * self.vectors)
        return [self.weights(f"%{at}.w", index) for index in indices]


class PackedLaneTile(_Packed):
    """Multiplies panels that are not paired by a lane of a pixel. A load has two pixels."""

    loaded_pixels = PairTile.loaded_pixels

    def pixel(self, m: int, offset: str, count: int) -> str:
        if m % 2 == 0:
            self.both = self.pair(m, offset, count)
        return self.shuffle(self.both, "poison", "23" if m % 2 else "01")
