"""Tiles for CPUs that multiply by a lane of a vector (NEON): pixels are read two or four words at a time.

    acc[m, v] += w[k, v] * a[m][k]      fmla acc, w, a[lane]; sudot, sdot, bfdot likewise

To broadcast a word to all lanes takes an instruction, on many cores on the same ports as a multiply-add. To
multiply by a lane of a loaded vector takes none. An iteration has four words of depth. Its counters and
addresses are few instructions beside its 88 or 96 products. Remaining words have an iteration each.

In f32 the weights of an iteration stay in 8 registers, and pixels are loaded four words at a time. With 11
pixels the 32 registers are full. LLVM's model of the Neoverse N1 dispatches three micro-operations per cycle,
of which a vector load takes two. There 12 pixels, in loads of two words, reach 0.79 of the peak rate, and 11
pixels 0.98.
"""

from __future__ import annotations

from ovjit.codegen.cpu.formats import SIGNS, WORD
from ovjit.tiles.micro import Tile

#: Words of depth of an iteration, called a step.
STEP = 4
#: Words per load of a pixel, if the registers do not suffice for a step's weights.
LOADED_WORDS = 2
#: Pixels that are loaded before they are multiplied, if a load has a whole step (`LaneTile.loaded_words`).
LOADED_STEPS = 2
REGISTERS = 32
#: LLVM's names of the 16-bit floats, of which a word has two.
_HALVES = {"bf16": "bfloat", "f16": "half"}


class LaneTile(Tile):
    """Prints one tile. Its loop takes `STEP` words of depth at a time, and the remainder one by one."""

    #: Pixels that are loaded before they are multiplied, if a load has `LOADED_WORDS` words.
    loaded_pixels = 3

    def over_taps(self) -> None:
        self.say("%taps = mul i64 %n1, %n2", "%last = sub i64 %n2, 1", "%across = mul i64 %last, %s2")
        self.say("%turn = sub i64 %s1, %across", "br label %t.head")
        self.loop("t", "taps", "entry", "w0", "ahead0", self.first, "r")
        depth = "left" if self.blocked else "k"
        self.say("r.head:", f"%k.count = lshr i64 %{depth}, {STEP.bit_length() - 1}")
        self.say(f"%r.count = and i64 %{depth}, {STEP - 1}")
        for m in range(self.rows):
            self.say(f"%t.p{m} = getelementptr i8, ptr %x{m}, i64 %t.base")
        self.say("%t.offset = add i64 0, 0", "br label %k.head")
        first = "zeroinitializer" if self.blocked else ""
        self.depth_loop("k", "k.count", "r.head", "t", first, STEP)
        self.depth_loop("r", "r.count", "k.done", "k", "", 1)
        self.say("r.done:")
        if self.blocked:
            for m, v in self.cells:
                total = self.total(m, v)
                self.store_total(m, v, self.new(f"fadd {self.acc} {total}, %r.{m}.{v}"))
        self.say("br label %t.head", "t.done:")

    def depth_loop(self, at: str, count: str, before: str, state: str, first: str, words: int) -> None:
        """Print the loop `at` of `count` iterations, each of `words` words of depth.

        It is entered from block `before`. There, values have the names of the loop `state`. `first`: the
        initial value of the sums; if it is empty, they are those of `state`."""
        body = f"{at}.body"
        self.say(f"{at}.loop:" if at == "r" else f"{at}.head:")
        head = "r.loop" if at == "r" else f"{at}.head"
        self.say(f"%{at}.i = phi i64 [ 0, %{before} ], [ %{at}.next, %{body} ]")
        self.say(f"%{at}.offset = phi i64 [ %{state}.offset, %{before} ], [ %{at}.new.offset, %{body} ]")
        for name in ("w", "ahead"):
            self.say(f"%{at}.{name} = phi ptr [ %{state}.{name}, %{before} ], [ %{at}.new.{name}, %{body} ]")
        for m, v in self.cells:
            begin = first or f"%{state}.{m}.{v}"
            self.say(f"%{at}.{m}.{v} = phi {self.acc} [ {begin}, %{before} ], [ %{at}.new.{m}.{v}, %{body} ]")
        self.say(f"%{at}.more = icmp slt i64 %{at}.i, %{count}")
        self.say(f"br i1 %{at}.more, label %{body}, label %{at}.done", f"{body}:")
        self.say(f"%{at}.next = add i64 %{at}.i, 1")
        self.say(f"call void @llvm.prefetch.p0(ptr %{at}.ahead, i32 0, i32 2, i32 1)")
        ahead = self.new(f"mul i64 %ahead_step, {words}")
        self.say(f"%{at}.new.ahead = getelementptr i8, ptr %{at}.ahead, i64 {ahead}")
        size = words * self.vectors * self.vector_bytes
        self.say(f"%{at}.new.w = getelementptr i8, ptr %{at}.w, i64 {size}")
        offset = f"%{at}.offset"
        some = min(words, self.loaded_words)
        for done in range(0, words, some):
            last = done + some >= words
            offset = self.words(at, offset, done, some, last)
            add = f"add i64 {offset}, {some * WORD}"
            if last:
                self.say(f"%{at}.new.offset = {add}")
            else:
                offset = self.new(add)
        self.say(f"br label %{head}")
        if at == "k":
            self.say("k.done:", "br label %r.loop")

    @property
    def loaded_words(self) -> int:
        """Words per load of a pixel: a whole step, if registers suffice for its weights."""
        needed = (self.rows + STEP) * self.vectors + LOADED_STEPS
        return STEP if self.form.a == "f32" and needed <= REGISTERS else LOADED_WORDS

    def words(self, at: str, offset: str, done: int, count: int, last: bool) -> str:
        """Print acc[m][v] += a[m] * w[v] for `count` words of a step, from word `done` on.

        They are at byte `offset` of each pixel. `last`: they end the step. Returns another name of the
        offset."""
        weights = self.words_of_weights(at, done, count)

        def name(m: int, v: int, i: int) -> str:
            """The name of the sum m, v before word i of these is added."""
            if done + i == 0:
                return f"%{at}.{m}.{v}"
            return f"%{at}.new.{m}.{v}" if last and i == count else f"%{at}.{done + i}.{m}.{v}"

        some = LOADED_STEPS if count == STEP else self.loaded_pixels
        groups = [range(m, min(m + some, self.rows)) for m in range(0, self.rows, some)]
        previous = [name(m, v, 0) for m in groups[-1] for v in range(self.vectors)] if done else []
        for group in groups:
            offset = self.after(offset, previous)
            previous = [name(m, v, count) for m in group for v in range(self.vectors)]
            for m in group:
                names = [[name(m, v, i) for i in range(count + 1)] for v in range(self.vectors)]
                self.multiply(names, self.pixel(m, offset, count), weights)
        return offset

    def multiply(self, names: list[list[str]], pixel: str, weights: list[list[str]]) -> None:
        """Print the products of one pixel. names[v][i]: the sum of vector v after i words."""
        for i, word in enumerate(weights):
            one = self.lane(pixel, i, len(weights))
            for v, vector in enumerate(word):
                self.call(names[v][i + 1], "madd", names[v][i], one, vector)

    def words_of_weights(self, at: str, done: int, count: int) -> list[list[str]]:
        """[word][vector]: the weights of `count` words, from word `done` of the step on."""
        return [
            [self.weights(f"%{at}.w", (done + i) * self.vectors + v) for v in range(self.vectors)]
            for i in range(count)
        ]

    def shuffle(self, x: str, y: str, order: str) -> str:
        """A vector of the lanes `order`, digits that index the lanes of x and then those of y."""
        lanes = ", ".join(f"i32 {lane}" for lane in order)
        return self.new(f"shufflevector {self.acc} {x}, {self.acc} {y}, <{len(order)} x i32> <{lanes}>")

    def after(self, offset: str, sums: list[str]) -> str:
        """The byte offset, passed through an optimisation barrier that depends on these sums. It generates no
        instruction."""
        operands = "".join(f", {self.acc} {value}" for value in sums)
        return self.new(f'call i64 asm "", "=r,0{",w" * len(sums)}"(i64 {offset}{operands})')

    def pixel(self, m: int, offset: str, count: int) -> str:
        """Load `count` words of pixel m at a byte offset. If the format flips signs, this is done in integer
        registers, whose instructions do not use the ports of the products."""
        at = self.new(f"getelementptr i8, ptr %t.p{m}, i64 {offset}")
        kind, align = self.vector_type(count), self.size[self.form.a]
        if not self.form.flips:
            return self.new(f"load {kind}, ptr {at}, align {align}")
        bits = 8 * WORD * count
        signs = SIGNS if count == LOADED_WORDS else SIGNS >> 8 * WORD
        bits_of_pixel = self.new(f"load i{bits}, ptr {at}, align {align}")
        bits_of_pixel = self.new(f"xor i{bits} {bits_of_pixel}, {signs}")
        return self.new(f"bitcast i{bits} {bits_of_pixel} to {kind}")

    def lane(self, pixel: str, i: int, count: int) -> str:
        """Broadcast word `i` of the `count` words that `pixel` returns."""
        each, kind = self.each, self.vector_type(count)
        lanes = ", ".join(f"i32 {i * each + part}" for _ in range(self.lanes) for part in range(each))
        size = self.lanes * each
        word = self.new(f"shufflevector {kind} {pixel}, {kind} poison, <{size} x i32> <{lanes}>")
        return self.new(f"bitcast {self.vector_type(self.lanes)} {word} to {self.acc}")

    @property
    def each(self) -> int:
        """LLVM's elements of a word: two 16-bit floats, else one."""
        return 2 if self.form.a in _HALVES else 1

    def vector_type(self, count: int) -> str:
        """LLVM's type of a vector of `count` words."""
        return f"<{count * self.each} x {_HALVES.get(self.form.a, self.word)}>"
