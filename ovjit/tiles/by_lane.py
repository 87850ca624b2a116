"""Tiles for CPUs that multiply by a lane of a vector (NEON): pixels are read two words at a time.

    acc[m, v] += w[k, v] * a[m][k]      fmla acc, w, a[lane]; sudot, sdot, bfdot likewise

A word in all lanes takes an instruction of the multiply-adds' own ports on many cores, a lane of what is
loaded takes none. Two words of depth are one step of the loop, and an odd one follows.
"""

from __future__ import annotations

from collections.abc import Iterable

from ovjit.codegen.cpu.formats import WORD
from ovjit.tiles.micro import Tile

#: Words of a pixel that are loaded at a time. With four, their weights would take 8 registers.
STEP = 2
#: Pixels that are loaded before they are multiplied, see `LaneTile.behind`.
LOADED = 3
#: The sign of each byte of a word.
_SIGNS = 0x80808080


class LaneTile(Tile):
    """Prints one tile whose depth goes by `STEP` words."""

    def over_taps(self) -> None:
        self.say("%taps = mul i64 %n1, %n2", "%last = sub i64 %n2, 1", "%across = mul i64 %last, %s2")
        self.say("%turn = sub i64 %s1, %across", "br label %t.head")
        self.loop("t", "taps", "entry", "w0", "ahead0", lambda m, v: f"bias{v}", "o")
        depth = "left" if self.blocked else "k"
        self.say("o.head:", f"%steps2 = lshr i64 %{depth}, {STEP.bit_length() - 1}", "br label %k.head")
        self.loop("k", "steps2", "o.head", "t.w", "t.ahead", lambda m, v: f"t.{m}.{v}", "")
        self.say("k.done:", f"%odd = and i64 %{depth}, {STEP - 1}", "%is.odd = icmp ne i64 %odd, 0")
        self.say("br i1 %is.odd, label %one.more, label %o.done", "one.more:")
        self.words(1, "one")
        self.say("br label %o.done", "o.done:")
        for name in ("w", "ahead"):
            self.say(f"%o.{name} = phi ptr [ %k.{name}, %k.done ], [ %one.{name}, %one.more ]")
        for m, v in self.cells:
            self.say(f"%o.{m}.{v} = phi {self.acc} [ %k.{m}.{v}, %k.done ], [ %one.{m}.{v}, %one.more ]")
        if self.blocked:
            for m, v in self.cells:
                total = self.total(m, v)
                self.store_total(m, v, self.new(f"fadd {self.acc} {total}, %o.{m}.{v}"))
        self.say("br label %t.head", "t.done:")

    def depth_step(self) -> None:
        self.words(STEP, "new")
        self.say("br label %k.head")

    def words(self, count: int, to: str) -> None:
        """acc[m][v] += a[m] * w[v] for so many words; what they come to is called `to`."""
        first = self.new(f"shl i64 %k.i, {(STEP * WORD).bit_length() - 1}")
        # hidden: LLVM would have an address, and an addition, for each pixel instead of one offset for all
        offset = self.new(f"call i64 @hide(i64 {self.new(f'add i64 %t.base, {first}')})")
        self.say("call void @llvm.prefetch.p0(ptr %k.ahead, i32 0, i32 2, i32 1)")
        step = self.new(f"mul i64 %ahead_step, {count}")
        self.say(f"%{to}.ahead = getelementptr i8, ptr %k.ahead, i64 {step}")
        weights = [
            [self.weights("%k.w", i * self.vectors + v) for v in range(self.vectors)] for i in range(count)
        ]
        for m in range(self.rows):
            if m and m % LOADED == 0:
                offset = self.behind(offset, to, range(m - LOADED, m))
            pixel = self.pixel(m, offset, count)
            for i in range(count):
                word = self.lane(pixel, i, count)
                for v in range(self.vectors):
                    name = f"%{to}.{m}.{v}" if i == count - 1 else f"%{to}.{i}.{m}.{v}"
                    acc = f"%{to}.{i - 1}.{m}.{v}" if i else f"%k.{m}.{v}"
                    self.call(name, "madd", acc, word, weights[i][v])
        size = count * self.vectors * self.vector_bytes
        self.say(f"%{to}.w = getelementptr i8, ptr %k.w, i64 {size}")

    def behind(self, offset: str, to: str, pixels: Iterable[int]) -> str:
        """The offset, which the products of `pixels` come before. No instruction comes of it; without, LLVM
        loads most pixels before it multiplies, and spills."""
        made = [f"%{to}.{m}.{v}" for m in pixels for v in range(self.vectors)]
        given = ", ".join(f"{self.acc} {value}" for value in made)
        return self.new(f'call i64 asm "", "=r,0{",w" * len(made)}"(i64 {offset}, {given})')

    def pixel(self, m: int, offset: str, count: int) -> str:
        """So many words of pixel `m`, flipped where the format has it: in registers of integers, whose
        instructions take no port of the products."""
        at = self.new(f"getelementptr i8, ptr %x{m}, i64 {offset}")
        kind, align = self.loaded(count), self.size[self.form.a]
        if not self.form.flips:
            return self.new(f"load {kind}, ptr {at}, align {align}")
        bits = 8 * WORD * count
        signs = sum(_SIGNS << 8 * WORD * i for i in range(count))
        whole = self.new(f"load i{bits}, ptr {at}, align {align}")
        whole = self.new(f"xor i{bits} {whole}, {signs}")
        return self.new(f"bitcast i{bits} {whole} to {kind}")

    def lane(self, pixel: str, i: int, count: int) -> str:
        """The word `i` of what `pixel` gives, in all lanes."""
        each, kind = self.each, self.loaded(count)
        lanes = ", ".join(f"i32 {i * each + part}" for _ in range(self.lanes) for part in range(each))
        size = self.lanes * each
        word = self.new(f"shufflevector {kind} {pixel}, {kind} poison, <{size} x i32> <{lanes}>")
        return self.new(f"bitcast {self.loaded(self.lanes)} {word} to {self.acc}")

    @property
    def each(self) -> int:
        """The elements of a word as LLVM knows lanes of it: those of bfdot by pairs of bf16 alone."""
        return 2 if self.form.a == "bf16" else 1

    def loaded(self, count: int) -> str:
        """The type of so many words."""
        return f"<{count * self.each} x {'bfloat' if self.each == 2 else self.word}>"
