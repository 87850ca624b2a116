"""The micro-kernel: a block of pixels x channels of a convolution or matrix product, in registers.

    acc[m, n] = bias[n] + sum over taps (i, j) and words k of  a[m][i*s1 + j*s2 + k] * w[i, j, k, n]
    out[m, n] = epilogue(acc[m, n], operands...)

`m` counts `rows` pixels. Each has its own address, so a tile may span image rows, strides and halos. `n`
counts the `vectors * lanes` channels of a weight panel. All loop bounds are run-time integers.

| ISA     | tile (rows x channels) | accumulators |
|---------|------------------------|--------------|
| avx512  | 14 x 32                | 28 of 32 registers |
| avx2    | 6 x 16                 | 12 of 16 |
| neon    | 12 x 8 (`by_lane`, `by_pairs`, `by_halves`), 11 x 8 in f32 | 24 or 22 of 32 |
| generic | 4 x 8                  | 8 of 16 |
"""

from __future__ import annotations

import functools
from typing import Any

from ovjit.codegen.cpu.formats import WORD, Format
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.targets import CACHE_LINE, Target
from ovjit.tiles.sizes import BLOCK, WAYS, Way
from ovjit.tiles.stores import JOINED, Stores, epilogue_functions, joined_body, made_type

#: The arguments of a tile, all int64: address table; weights; bias; taps (n1, s1, n2, s2); depth k; first
#: channel; valid channels; prefetch address and its increment per k; then one address per shared operand.
ARGUMENTS = "table weights bias n1 s1 n2 s2 k channel valid ahead ahead_step".split()
#: Further arguments if words are permuted: addresses of the offsets, and of the numbers of steps of each way.
LIST_ARGUMENTS = ("offsets", "steps")


def arguments(isa: Target, form: Format) -> list[str]:
    """The names of the arguments of a format's tiles, without shared operands."""
    return [*ARGUMENTS, *(LIST_ARGUMENTS if form.listed else ())]


def multiply_add(isa: Target, form: Format) -> tuple[Any, dict[str, str]]:
    """(the vector type of the format's instruction, the functions `madd(acc, a, w) -> acc` and
    `form.more`)."""
    import llvmlite.ir as ir

    from ovjit.codegen.cpu import vector as simd
    from ovjit.codegen.cpu.llvm_parts import inline_function

    word = ir.VectorType(simd.scalar_ir(form.acc), isa.lanes)
    texts: dict[str, str] = {}
    for name, product in (("madd", form.madd), *form.more):
        texts |= inline_function(isa, name, word, [word] * 3, functools.partial(simd.multiply_words, product))
    return word, texts


def narrow_products(isa: Target, form: Format, way: Way, name: str) -> dict[str, str]:
    """The function `name(a..., w...) -> sums`, which adds the products of words in 16 bits. It takes
    `way.parts` vectors of `w`. If `way.moves_signs`, the last ones are the masks of the data."""
    import llvmlite.ir as ir

    from ovjit.codegen.cpu import vector as simd
    from ovjit.codegen.cpu.llvm_parts import inline_function

    word, kind = ir.VectorType(simd.scalar_ir(form.acc), isa.lanes), simd.vec(form.acc, isa.lanes)

    def body(b: Any, *operands: Any) -> Any:
        data, weights, flips = (operands[i : i + way.span] for i in range(0, 3 * way.span, way.span))
        pairs = list(zip(data, weights, strict=True))
        if way.moves_signs:
            pairs = [(w, b.xor(a, flip)) for (a, w), flip in zip(pairs, flips, strict=True)]
        products = [simd.dot_pairs(b, kind, *pair) for pair in pairs]
        return functools.reduce(lambda x, y: simd.add_pairs(b, kind, x, y), products)

    return inline_function(isa, name, word, [word] * (way.span + way.parts), body)


def widen_sums(isa: Target, form: Format) -> dict[str, str]:
    """The function `widen(acc, sums) -> acc` of pairs of sums in 16 bits."""
    import llvmlite.ir as ir

    from ovjit.codegen.cpu import vector as simd
    from ovjit.codegen.cpu.llvm_parts import inline_function

    word, kind = ir.VectorType(simd.scalar_ir(form.acc), isa.lanes), simd.vec(form.acc, isa.lanes)
    return inline_function(
        isa, "widen", word, [word] * 2, lambda b, acc, sums: simd.sum_pairs(b, kind, acc, sums)
    )


def _reads(isa: Target, epilogue: Epilogue) -> dict[str, str]:
    """The functions that load an epilogue's operands."""
    import llvmlite.ir as ir

    from ovjit.codegen.cpu import vector as simd
    from ovjit.codegen.cpu.llvm_parts import inline_function

    inline, i64, out = functools.partial(inline_function, isa), ir.IntType(64), dict[str, str]()
    for elem in {o.dtype for o in epilogue.operands}:
        kind = simd.vec(elem, isa.lanes).ir
        load = functools.partial(simd.load_vector, elem=elem, lanes=isa.lanes)
        out |= inline(f"load_{elem}", kind, [i64], load)
        out |= inline(f"load_{elem}_m", kind, [i64, i64], lambda b, p, n, load=load: load(b, p, n=n))
        splat = functools.partial(simd.splat, elem=elem, lanes=isa.lanes)
        out |= inline(f"splat_{elem}", kind, [i64], splat)
    return out


@functools.lru_cache(64)
def functions(isa: Target, epilogue: Epilogue, form: Format) -> dict[str, str]:
    """The functions that tiles of all sizes share:

        madd(acc, a, w) -> acc              a: one word, in all lanes
        matrix, high(acc, a, w) -> acc      if the format has them: see `by_pairs` and `by_halves`
        way<n>(a..., w...) -> sums          products of words of WAYS[n], added in 16 bits
        widen(acc, sums) -> acc             adds these sums in 32 bits
        load_<type>(address) -> vector, load_<type>_m(address, n), splat_<type>(address)
        epilogue, apart(acc, operands...) -> vector, see `epilogue_functions`
        store(address, vector), store_m(address, vector, n)
        join(vectors...) -> bytes           narrows several vectors
        store<v>(address, bytes of v vectors), store_m<v>(address, bytes, n)

        hide(n) -> n                        an optimisation barrier

    `_m`: only the first n lanes. For `store_m`, n has passed `hide`. It is less than all lanes if `finish`
    has a version of its own for full vectors.
    """
    import llvmlite.ir as ir

    from ovjit.codegen.cpu import vector as simd
    from ovjit.codegen.cpu.llvm_parts import inline_function

    lanes, i64, none = isa.lanes, ir.IntType(64), ir.VoidType()
    inline = functools.partial(inline_function, isa)
    word, madd = multiply_add(isa, form)
    if form.listed:
        madd |= widen_sums(isa, form)
        for number, way in enumerate(WAYS):
            madd |= narrow_products(isa, form, way, f"way{number}")
    joined = joined_body(isa, epilogue)
    result = simd.vec(made_type(isa, epilogue), lanes).ir
    out = {**madd, **epilogue_functions(isa, epilogue, form), **inline("hide", i64, [i64], simd.hidden)}

    def store(b: Any, p: Any, v: Any, n: Any = None) -> None:
        simd.store_vector(b, p, v, epilogue.out, n, part=True)

    if joined:
        bytes_ = ir.VectorType(ir.IntType(8), JOINED * lanes)
        out |= inline(
            "join", bytes_, [result] * JOINED, lambda b, *vs: simd.join_bytes(b, joined[1], epilogue.out, *vs)
        )
        for count in range(1, isa.tile_vectors + 1):
            some = ir.VectorType(ir.IntType(8), count * lanes)
            out |= inline(f"store{count}", none, [i64, some], store)
            out |= inline(f"store_m{count}", none, [i64, some, i64], store)
    else:
        out |= inline("store", none, [i64, result], store)
        out |= inline("store_m", none, [i64, result, i64], store)
    out |= _reads(isa, epilogue)
    if form.widens:
        pairs, mask = f"<{2 * lanes} x i16>", f"<{2 * lanes} x i1>"
        name = f"llvm.masked.load.v{2 * lanes}i16.p0"
        out[name] = f"declare {pairs} @{name}(ptr, i32, {mask}, {pairs})"
    out["llvm.prefetch.p0"] = "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"
    return out


class Tile(Stores):
    """Prints one tile. The loop t goes over the taps (i, j) of the equation, k over the words of each; values
    are named by loop, pixel, vector."""

    def text(self, name: str) -> str:
        shared = (f"shared{i}" for i in range(self.epilogue.shared_operands))
        parameters = [*arguments(self.isa, self.form), *shared]
        head = ", ".join(f"i64 %{argument}" for argument in parameters)
        self.say(f"define fastcc void @{name}({head}) noinline nounwind {{", "entry:")
        self.say("%tp = inttoptr i64 %table to ptr", "%bp = inttoptr i64 %bias to ptr")
        self.say("%w0 = inttoptr i64 %weights to ptr", "%ahead0 = inttoptr i64 %ahead to ptr")
        for m in range(self.rows):
            self.say(
                f"%xp{m} = getelementptr i64, ptr %tp, i64 {m}", f"%x{m} = load ptr, ptr %xp{m}, align 8"
            )
        self.read_bias()
        if self.blocked:
            # totals of blocks are in memory: the current block needs the registers
            self.say(*(f"%sum{m}.{v} = alloca {self.acc}, align {self.vector_bytes}" for m, v in self.cells))
            for m, v in self.cells:
                self.store_total(m, v, f"%{self.first(m, v)}")
        self.fetch_operands()
        if self.form.listed:
            self.in_order()
        else:
            self.over_taps()
        self.finish()
        self.say("}")
        return "\n".join(self.lines)

    def read_bias(self) -> None:
        for v in range(self.vectors):
            self.say(f"%bp{v} = getelementptr i8, ptr %bp, i64 {v * self.vector_bytes}")
            self.say(f"%bias{v} = load {self.acc}, ptr %bp{v}, align {self.vector_bytes}")

    def first(self, m: int, v: int) -> str:
        """The initial value of sum m, v."""
        return f"bias{v}"

    def sum(self, m: int, v: int) -> str:
        """The final sums of vector v of pixel m."""
        return self.total(m, v) if self.blocked else f"%{'sum' if self.form.listed else 't'}.{m}.{v}"

    def over_taps(self) -> None:
        """Print the loops over taps and depth. The sums are then %t.m.v."""
        self.say("%taps = mul i64 %n1, %n2", "%last = sub i64 %n2, 1", "%across = mul i64 %last, %s2")
        self.say("%turn = sub i64 %s1, %across", "br label %t.head")
        self.loop("t", "taps", "entry", "w0", "ahead0", self.first, "k")
        depth = "left" if self.blocked else "k"
        self.loop("k", depth, "t.body", "t.w", "t.ahead", lambda m, v: f"t.{m}.{v}", "")
        self.say("k.done:")
        if self.blocked:
            for m, v in self.cells:
                total = self.total(m, v)
                self.store_total(m, v, self.new(f"fadd {self.acc} {total}, %k.{m}.{v}"))
        self.say("br label %t.head", "t.done:")

    def total(self, m: int, v: int) -> str:
        """Load the sums of row m and vector v over the blocks so far."""
        return self.new(f"load volatile {self.acc}, ptr %sum{m}.{v}, align {self.vector_bytes}")

    def store_total(self, m: int, v: int, sum: str) -> None:
        self.say(f"store volatile {self.acc} {sum}, ptr %sum{m}.{v}, align {self.vector_bytes}")

    def loop(self, at: str, count: str, before: str, w: str, ahead: str, acc: Any, inner: str) -> None:
        """Print the loop `at` up to the beginning of the loop `inner`; without `inner`, the complete loop.

        It is entered from block `before` with the values `w`, `ahead` and `acc(m, v)`.
        """
        latch, state = (f"{inner}.done", inner) if inner else (f"{at}.body", "new")
        self.say(f"{at}.head:", f"%{at}.i = phi i64 [ 0, %{before} ], [ %{at}.next, %{latch} ]")
        if inner:
            for name in ("j", "base"):
                self.say(f"%{at}.{name} = phi i64 [ 0, %{before} ], [ %{at}.{name}.next, %{latch} ]")
        self.say(f"%{at}.w = phi ptr [ %{w}, %{before} ], [ %{state}.w, %{latch} ]")
        self.say(f"%{at}.ahead = phi ptr [ %{ahead}, %{before} ], [ %{state}.ahead, %{latch} ]")
        for m, v in self.cells if not (self.blocked and inner) else ():
            first = "zeroinitializer" if self.blocked else f"%{acc(m, v)}"
            self.say(f"%{at}.{m}.{v} = phi {self.acc} [ {first}, %{before} ], [ %{state}.{m}.{v}, %{latch} ]")
        self.say(f"%{at}.more = icmp slt i64 %{at}.i, %{count}")
        self.say(f"br i1 %{at}.more, label %{at}.body, label %{at}.done", f"{at}.body:")
        self.say(f"%{at}.next = add i64 %{at}.i, 1")
        if inner:
            self.next_tap()
            self.say(f"br label %{inner}.head")
        else:
            self.depth_step()

    def next_tap(self) -> None:
        """Advance to the next tap: j by one and the address by s2 bytes; or j back to 0, and the address by
        s1."""
        if self.blocked:
            self.say(f"%t.first = mul i64 %t.j, {BLOCK}", "%t.rest = sub i64 %k, %t.first")
            self.say(f"%t.short = icmp slt i64 %t.rest, {BLOCK}")
            self.say(f"%left = select i1 %t.short, i64 %t.rest, i64 {BLOCK}")
        self.say("%t.turns = icmp eq i64 %t.j, %last", "%t.on = add i64 %t.j, 1")
        self.say("%t.j.next = select i1 %t.turns, i64 0, i64 %t.on")
        self.say("%t.step = select i1 %t.turns, i64 %turn, i64 %s2")
        self.say(f"%t.base.next = add i64 %t.base, {self.tap_step()}")

    def tap_step(self) -> str:
        """Bytes from a tap's run of words to that of the next."""
        return "%t.step"

    def depth_step(self) -> None:
        """Print one step of depth: acc[m][v] += a[m] * w[v]."""
        offset = self.begin_step()
        weights = [self.weights("%k.w", v) for v in range(self.vectors)]
        for m in range(self.rows):
            pixel = self.splat(m, offset)
            for v in range(self.vectors):
                self.call(f"%new.{m}.{v}", "madd", f"%k.{m}.{v}", pixel, weights[v])
        self.end_step()

    def begin_step(self) -> str:
        """Print the prefetches of a step of depth. Returns the offset of its word in a pixel's words."""
        for line in range(0, self.vectors * self.vector_bytes, CACHE_LINE):
            at = self.new(f"getelementptr i8, ptr %k.ahead, i64 {line}") if line else "%k.ahead"
            self.say(f"call void @llvm.prefetch.p0(ptr {at}, i32 0, i32 2, i32 1)")
        self.say("%new.ahead = getelementptr i8, ptr %k.ahead, i64 %ahead_step")
        return self.new(f"add i64 %t.base, {self.new(f'shl i64 %k.i, {WORD.bit_length() - 1}')}")

    def end_step(self) -> None:
        step = self.vectors * self.vector_bytes
        self.say(f"%new.w = getelementptr i8, ptr %k.w, i64 {step}", "br label %k.head")

    def weights(self, base: str, index: int) -> str:
        """The vector of weights `index` vectors after `base`."""
        at = self.new(f"getelementptr i8, ptr {base}, i64 {index * self.vector_bytes}")
        return self.new(f"load {self.acc}, ptr {at}, align {self.vector_bytes}")

    def splat(self, m: int, offset: str) -> str:
        """The word of pixel `m` at a byte offset, in all lanes."""
        zeros = f"<{self.lanes} x i32> zeroinitializer"
        at = self.new(f"getelementptr i8, ptr %x{m}, i64 {offset}")
        one = self.new(f"load {self.word}, ptr {at}, align {self.size[self.form.a]}")
        one = self.new(f"insertelement {self.acc} undef, {self.word} {one}, i32 0")
        return self.new(f"shufflevector {self.acc} {one}, {self.acc} undef, {zeros}")

    def call(self, name: str, add: str, acc: str, *words: str) -> None:
        """name = acc + the products of words."""
        operands = ", ".join(f"{self.acc} {x}" for x in (acc, *words))
        self.say(f"{name} = call {self.acc} @{add}({operands})")

    def in_order(self) -> None:
        """Print, for each vector, a loop per way over its words. The sums are then %sum.m.v."""
        self.say("%places0 = inttoptr i64 %offsets to ptr", "%np = inttoptr i64 %steps to ptr")
        self.say("br label %begin", "begin:")
        before, state = "begin", {"w": "%w0", "ahead": "%ahead0", "places": "%places0"}
        for v in range(self.vectors):
            sums = Delayed(self, f"%bias{v}")
            for number, way in enumerate(WAYS):
                before = self.one_way(f"y{v}.{number}", before, state, sums, way, number, v)
            for m, sum in enumerate(sums.finish()):
                self.say(f"%sum.{m}.{v} = bitcast {self.acc} {sum} to {self.acc}")

    def one_way(
        self, at: str, before: str, state: dict[str, str], sums: Delayed, way: Way, number: int, v: int
    ) -> str:
        """Print the loop `at` over the words of vector `v` that take `way`, entered from block `before`.
        Returns the block after it. `state` and `sums` are updated in place."""
        address = self.new(f"getelementptr i64, ptr %np, i64 {v * len(WAYS) + number}")
        words = self.new(f"mul i64 {self.new(f'load i64, ptr {address}, align 8')}, {way.span}")
        end = self.new(f"getelementptr i64, ptr {state['places']}, i64 {words}")
        self.say(f"br label %{at}.head", f"{at}.head:")
        for name, value in state.items():
            self.say(f"%{at}.{name} = phi ptr [ {value}, %{before} ], [ %{at}.{name}.next, %{at}.body ]")
        sums.enter(at, before)
        self.say(f"%{at}.more = icmp ne ptr %{at}.places, {end}")
        self.say(f"br i1 %{at}.more, label %{at}.body, label %{at}.done", f"{at}.body:")
        if v == 0:
            self.say(f"call void @llvm.prefetch.p0(ptr %{at}.ahead, i32 0, i32 2, i32 1)")
        step = self.new(f"mul i64 %ahead_step, {way.span}") if v == 0 else 0
        self.say(f"%{at}.ahead.next = getelementptr i8, ptr %{at}.ahead, i64 {step}")
        addresses = (self.new(f"getelementptr i64, ptr %{at}.places, i64 {word}") for word in range(way.span))
        offsets = [self.new(f"load i64, ptr {address}, align 8") for address in addresses]
        self.say(f"%{at}.places.next = getelementptr i64, ptr %{at}.places, i64 {way.span}")
        weights = [self.weights(f"%{at}.w", part) for part in range(way.parts)]
        for m in range(self.rows):
            pixel = [self.splat(m, offset) for offset in offsets]
            sums.add(m, self.apply(f"way{number}", *pixel, *weights))
        self.say(f"%{at}.w.next = getelementptr i8, ptr %{at}.w, i64 {way.parts * self.vector_bytes}")
        sums.leave(at)
        self.say(f"br label %{at}.head", f"{at}.done:")
        state |= {name: f"%{at}.{name}" for name in state}
        return f"{at}.done"

    def apply(self, name: str, *operands: str) -> str:
        """The value of a function of vectors."""
        return self.new(f"call {self.acc} @{name}({', '.join(f'{self.acc} {x}' for x in operands)})")


class WideTile(Tile):
    """Prints a tile of bf16 whose pixels the driver has widened to adjacent f32. Weights are widened on the
    way: first the odd elements of depth, then the even ones, as dot products add them."""

    def tap_step(self) -> str:
        return super().tap_step() if self.blocked else self.new(f"shl i64 %k, {WORD.bit_length() - 1}")

    def depth_step(self) -> None:
        offset = self.new(f"shl i64 {self.begin_step()}, 1")
        for odd, before, after in ((1, "k", "odd"), (0, "odd", "new")):
            weights = [self.widen_weights("%k.w", v, odd) for v in range(self.vectors)]
            at = self.new(f"add i64 {offset}, {odd * WORD}")
            for m in range(self.rows):
                pixel = self.splat(m, at)
                for v in range(self.vectors):
                    self.call(f"%{after}.{m}.{v}", "wide", f"%{before}.{m}.{v}", pixel, weights[v])
        self.end_step()

    def widen_weights(self, base: str, index: int, odd: int) -> str:
        """The odd or even elements of words of weights, loaded from memory: there is no register left for the
        words, nor for a mask of bits."""
        words, pairs, align = f"<{self.lanes} x i32>", f"<{2 * self.lanes} x i16>", self.vector_bytes
        at = self.new(f"getelementptr i8, ptr {base}, i64 {index * self.vector_bytes}")
        if odd:
            mask = f"<{', '.join(['i1 0, i1 1'] * self.lanes)}>"
            load = f"call {pairs} @llvm.masked.load.v{2 * self.lanes}i16.p0(ptr {at}, i32 {align}, "
            element = self.new(f"{load}<{2 * self.lanes} x i1> {mask}, {pairs} zeroinitializer)")
            return self.new(f"bitcast {pairs} {element} to {self.acc}")
        loaded = self.new(f"load volatile {words}, ptr {at}, align {align}")
        element = self.new(f"shl {words} {loaded}, splat (i32 16)")
        return self.new(f"bitcast {words} {element} to {self.acc}")


#: Rows after which the sums of a row in 16 bits are widened and added. One after the other, the instructions
#: of a row wait for each other in the CPU's scheduler. With a delay of 2, depths of 64 and 512 take 0.95 and
#: 0.94 of the time on a Zen 3. Longer delays, or an own one for the addition, need more registers than there
#: are: 0.98 to 1.07. Products of i16 gain nothing.
DELAY = 2


class Delayed:
    """The sums of a vector. The products of a row are widened and added while those of later rows are made,
    also of rows of the next step and of the next loop.

    `now`: the current value for each row: its last "products" in 16 bits, and the "sum".
    """

    def __init__(self, tile: Tile, first: str):
        self.tile, self.delay = tile, DELAY if tile.rows > 2 * DELAY else 0
        self.now = {"products": ["zeroinitializer"] * tile.rows, "sum": [first] * tile.rows}

    def enter(self, at: str, before: str) -> None:
        """Print the values at the head of the loop `at`, which is entered from block `before`."""
        for name, values in self.now.items():
            for m, value in enumerate(values):
                repeated = f"[ %{at}.{name}.{m}.next, %{at}.body ]"
                self.tile.say(f"%{at}.{name}.{m} = phi {self.tile.acc} [ {value}, %{before} ], {repeated}")
                values[m] = f"%{at}.{name}.{m}"

    def add(self, m: int, products: str) -> None:
        """Take the products of row `m`, and print the addition that is due."""
        self.now["products"][m] = products
        self._widen_sums((m - self.delay) % self.tile.rows)

    def leave(self, at: str) -> None:
        """Print the values at the end of the body of the loop `at`."""
        for name, values in self.now.items():
            for m, value in enumerate(values):
                self.tile.say(f"%{at}.{name}.{m}.next = bitcast {self.tile.acc} {value} to {self.tile.acc}")
                values[m] = f"%{at}.{name}.{m}"

    def finish(self) -> list[str]:
        """Print the additions that are due after the last loop. Returns the sums."""
        for m in range(self.tile.rows - self.delay, self.tile.rows):
            self._widen_sums(m)
        return self.now["sum"]

    def _widen_sums(self, m: int) -> None:
        terms = (self.now[name][m] for name in ("sum", "products"))
        self.now["sum"][m] = self.tile.apply("widen", *terms)
