"""Tiles for CPUs with arithmetic of f16 (NEON's fmla of eight), by a lane of each pixel.

    acc[m, part] += w[k, part] * a[m][2 k + part]      fmla acc, w, a.h[lane]      of eight channels, in f16
    total[m, v] += acc[m, 0] + acc[m, 1]               every `SUM` words, in f32

A word of weights has two elements of each channel side by side. Of two vectors, or one twice, the first
elements are put into one and the others into another: two instructions for twelve pixels. Each has sums of
its own, so that 24 are added at a time and chains are short.

Sums of f16 are rounded as OpenVINO's are, but not for longer than `SUM` words. So the error does not grow
with the depth: it is about 8e-4 of a result's usual size, and rounding the result to f16 makes one of 2e-4.
Totals are in memory, since registers are for what is being added.
"""

from __future__ import annotations

from typing import Any

from ovjit.tiles.by_lane import LaneTile

#: Words that are added in f16.
SUM = 32
_EIGHT, _FOUR = "<8 x half>", "<4 x half>"


class HalfTile(LaneTile):
    """Prints one tile. What is called m, v while it is added is the sum of the elements v of words, of both
    vectors; of one vector it is that of all elements."""

    counters = ("room",)
    in_memory = True
    #: Keeps the optimiser from holding totals in registers, and lets it load and store two at a time.
    totals_used = 'call void asm sideeffect "", "r,~{memory}"(ptr %totals)'

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.most = SUM * self.vectors // self.isa.tile_vectors
        #: By pixel, what is left to add at the end.
        self.left_over: list[str] = []

    def over_taps(self) -> None:
        self.say("%taps = mul i64 %n1, %n2", "%last = sub i64 %n2, 1", "%across = mul i64 %last, %s2")
        self.say("%turn = sub i64 %s1, %across", "br label %t.head", "t.head:")
        self.say("%t.i = phi i64 [ 0, %entry ], [ %t.next, %r.latch ]")
        for name in ("j", "base"):
            self.say(f"%t.{name} = phi i64 [ 0, %entry ], [ %t.{name}.next, %r.latch ]")
        for name in ("w", "ahead"):
            self.say(f"%t.{name} = phi ptr [ %{name}0, %entry ], [ %r.{name}, %r.latch ]")
        self.say(f"%t.room = phi i64 [ {self.most}, %entry ], [ %r.end.room, %r.latch ]")
        for m, v in self.cells:
            self.say(f"%t.{m}.{v} = phi {self.acc} [ zeroinitializer, %entry ], [ %r.end.{m}.{v}, %r.latch ]")
        self.say("%t.more = icmp slt i64 %t.i, %taps", "br i1 %t.more, label %t.body, label %t.done")
        self.say("t.body:", "%t.next = add i64 %t.i, 1")
        self.next_tap()
        self.over_depth("t.body")
        self.say("r.done:")
        self.add_if_full("r", "r.done", "r", "r.end")
        self.say("br label %t.head", "t.done:", self.totals_used)
        self.left_over = [self.both(m, "t") for m in range(self.rows)]

    def latch(self, at: str) -> tuple[str, str]:
        return ("k.latch", "k.end") if at == "k" else super().latch(at)

    def behind_step(self, at: str, words: int) -> None:
        self.say(f"%{at}.new.room = sub i64 %{at}.room, {words}")
        if at == "k":
            self.add_if_full("k", "k.body", "k.new", "k.end")

    def add_if_full(self, at: str, before: str, state: str, kept: str) -> None:
        """Add what is called `state` in the block `before` to the totals and begin anew, if there is no room
        for more of it; then it is called `kept`."""
        self.say(f"%{at}.full = icmp sle i64 %{state}.room, 0")
        self.say(f"br i1 %{at}.full, label %{at}.add, label %{at}.latch", f"{at}.add:", self.totals_used)
        for m in range(self.rows):
            both = self.both(m, state)
            for v in range(self.vectors):
                self.store_total(m, v, self.added(m, v, both))
        self.say(f"br label %{at}.latch", f"{at}.latch:")
        self.say(f"%{kept}.room = phi i64 [ %{state}.room, %{before} ], [ {self.most}, %{at}.add ]")
        for m, v in self.cells:
            ends = f"[ %{state}.{m}.{v}, %{before} ], [ zeroinitializer, %{at}.add ]"
            self.say(f"%{kept}.{m}.{v} = phi {self.acc} {ends}")

    def place_totals(self) -> None:
        count = len(self.cells)
        self.say(f"%totals = alloca [{count} x {self.acc}], align {self.vector_bytes}")
        for i, (m, v) in enumerate(self.cells):
            self.say(f"%sum{m}.{v} = getelementptr i8, ptr %totals, i64 {i * self.vector_bytes}")

    def total(self, m: int, v: int) -> str:
        return self.new(f"load {self.acc}, ptr %sum{m}.{v}, align {self.vector_bytes}")

    def store_total(self, m: int, v: int, sum: str) -> None:
        self.say(f"store {self.acc} {sum}, ptr %sum{m}.{v}, align {self.vector_bytes}")

    def both(self, m: int, state: str) -> str:
        """The eight f16 that a pixel's sums are together."""
        halves = [self.new(f"bitcast {self.acc} %{state}.{m}.{v} to {_EIGHT}") for v in range(self.vectors)]
        return self.new(f"fadd {_EIGHT} {halves[0]}, {halves[1]}") if self.vectors > 1 else halves[0]

    def added(self, m: int, v: int, both: str) -> str:
        """The total of vector v of a pixel, with its part of `both`."""
        lanes = ", ".join(f"i32 {self.lanes * v + lane}" for lane in range(self.lanes))
        four = self.new(f"shufflevector {_EIGHT} {both}, {_EIGHT} poison, <4 x i32> <{lanes}>")
        wide = self.new(f"fpext {_FOUR} {four} to {self.acc}")
        return self.new(f"fadd {self.acc} {self.total(m, v)}, {wide}")

    def sum(self, m: int, v: int) -> str:
        return self.added(m, v, self.left_over[m])

    def words_of_weights(self, at: str, done: int, count: int) -> list[list[str]]:
        """Of each word, the first elements of two vectors of channels and the second ones."""
        return [
            [self.halves(word[0], word[-1], part) for part in (0, 1)]
            for word in super().words_of_weights(at, done, count)
        ]

    def halves(self, x: str, y: str, first: int) -> str:
        """Every other f16 of two vectors."""
        given = [self.new(f"bitcast {self.acc} {v} to {_EIGHT}") for v in (x, y)]
        order = ", ".join(f"i32 {lane}" for lane in range(first, 16, 2))
        both = self.new(f"shufflevector {_EIGHT} {given[0]}, {_EIGHT} {given[1]}, <8 x i32> <{order}>")
        return self.new(f"bitcast {_EIGHT} {both} to {self.acc}")

    def multiply(self, names: list[list[str]], pixel: str, weights: list[list[str]]) -> None:
        for i, word in enumerate(weights):
            ones = [self.element(pixel, 2 * i + part, 2 * len(weights)) for part in (0, 1)]
            if self.vectors > 1:
                for v, (one, vector) in enumerate(zip(ones, word, strict=True)):
                    self.call(names[v][i + 1], "madd", names[v][i], one, vector)
                continue
            before, behind = names[0][i : i + 2]
            self.call(f"{behind}.a", "madd", before, ones[0], word[0])
            self.call(behind, "madd", f"{behind}.a", ones[1], word[1])

    def element(self, pixel: str, i: int, count: int) -> str:
        """The element i of a pixel's f16, in all lanes."""
        lanes = ", ".join([f"i32 {i}"] * 8)
        one = self.new(
            f"shufflevector <{count} x half> {pixel}, <{count} x half> poison, <8 x i32> <{lanes}>"
        )
        return self.new(f"bitcast {_EIGHT} {one} to {self.acc}")
