"""The end of a tile: the epilogue, and the stores of results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ovjit.codegen.cpu.formats import WORD, Format, tile_heights
from ovjit.codegen.cpu.ir import Body, Epilogue
from ovjit.codegen.cpu.targets import CACHE_LINE, Target
from ovjit.tiles.sizes import JOINING, TABLE

#: Vectors that are narrowed to bytes at once. Products of small depth then take 0.9 of the time.
JOINED = 4
#: Maximum instructions of an epilogue that all tiles inline, and of one that full tiles and tiles of one
#: pixel inline. Inlined everywhere, an AVX-512 kernel has 78 copies: with softplus (75 instructions) 100 KB
#: instead of 16 KB, in 1.02 of the time. Shorter ones gain: products of depth 32 with sigmoid (20) take 0.95
#: of the time, with mish (35) 0.96.
SHORT, LONG = 12, 40


def joined_body(isa: Target, epilogue: Epilogue) -> tuple[Body, str] | None:
    """(the epilogue's body before the final conversion to bytes, the conversion), if `JOINED` vectors are
    narrowed at once; else None."""
    return epilogue.narrowing if isa.name in JOINING else None


def made_type(isa: Target, epilogue: Epilogue) -> str:
    """The element type of the vectors that `epilogue` returns."""
    joined = joined_body(isa, epilogue)
    return joined[0].outputs[0] if joined else epilogue.out


@functools.lru_cache(64)
def epilogue_functions(isa: Target, epilogue: Epilogue, form: Format) -> Mapping[str, str]:
    """The inlined function `epilogue(acc, operands...) -> vector`. If it has more than `SHORT` instructions,
    also `apart`, which is not inlined."""
    import llvmlite.ir as ir

    from ovjit.codegen.cpu import vector as simd
    from ovjit.codegen.cpu.llvm_parts import inline_function

    lanes, joined = isa.lanes, joined_body(isa, epilogue)
    result = simd.vec(made_type(isa, epilogue), lanes).ir
    kinds = [ir.VectorType(simd.scalar_ir(form.acc), lanes)]
    kinds += [simd.vec(o.dtype, lanes).ir for o in epilogue.operands]

    def emit(b: Any, acc: Any, *xs: Any) -> Any:
        return joined[0].emit_ir(b, [acc, *xs], lanes)[0] if joined else epilogue.emit_ir(b, acc, xs, lanes)

    functions = inline_function(isa, "epilogue", result, kinds, emit)
    text = functions["epilogue"]
    if _length(text) > SHORT:
        called = text.replace('"epilogue"', '"apart"', 1)
        functions["apart"] = called.replace("alwaysinline", "noinline", 1)
    return functions


def _length(text: str) -> int:
    """The number of instructions of a function of one block."""
    return text.count(" = ")


class Stores:
    """Prints the code after the sums of a tile. A subclass implements `sum`."""

    def __init__(
        self,
        isa: Target,
        rows: int,
        vectors: int,
        epilogue: Epilogue,
        form: Format,
        blocked: bool,
        fewest: int,
    ):
        from ovjit.codegen.cpu import vector as simd

        self.lanes, self.rows, self.vectors, self.epilogue = isa.lanes, rows, vectors, epilogue
        self.isa, self.form, self.size, self.blocked = isa, form, simd.SIZE, blocked
        #: Number of pixels that may be stored before the operands of others are read. In an incomplete tile
        #: the last pixel is repeated, and its result may be written over its own operand.
        self.alone = rows if all(o.shared for o in epilogue.operands) else fewest - 1
        self.vector_bytes = isa.lanes * WORD
        self.word = str(simd.scalar_ir(form.acc))
        self.acc = f"<{isa.lanes} x {self.word}>"
        self.kinds = {o.dtype: str(simd.vec(o.dtype, isa.lanes).ir) for o in epilogue.operands}
        #: The vector type that `epilogue` returns.
        self.out = str(simd.vec(made_type(isa, epilogue), isa.lanes).ir)
        is_full = rows >= tile_heights(isa, form)[0] and vectors == isa.tile_vectors
        functions = epilogue_functions(isa, epilogue, form)
        inlined = "apart" not in functions or (is_full or rows == 1) and _length(functions["apart"]) <= LONG
        #: The function that is called for each vector of sums.
        self.made_by = "epilogue" if inlined else "apart"
        self.cells = [(m, v) for m in range(rows) for v in range(vectors)]
        self.lines: list[str] = []
        self.names = 0

    def say(self, *lines: str) -> None:
        self.lines += lines

    def new(self, text: str) -> str:
        """The name of a new value."""
        self.names += 1
        self.say(f"%t{self.names} = {text}")
        return f"%t{self.names}"

    def sum(self, m: int, v: int) -> str:
        """The final sums of vector v of pixel m."""
        raise NotImplementedError

    def fetch_operands(self) -> None:
        """Prefetch the epilogue's pixel operands while products are summed. Products of small depth with a
        residual then take 0.89 to 0.93 of the time. Prefetching the output lines gains as much with many
        panels, and loses 7 % with two."""
        for o in self.epilogue.operands:
            if o.kind != "pixel":
                continue
            first = self.new(f"mul i64 %channel, {self.size[o.dtype]}")
            for m in range(self.rows):
                at = self.new(f"add i64 {self.entry(o.where, m)}, {first}")
                for line in range(0, self.vectors * self.lanes * self.size[o.dtype], CACHE_LINE):
                    address = self.new(f"inttoptr i64 {self.new(f'add i64 {at}, {line}')} to ptr")
                    self.say(f"call void @llvm.prefetch.p0(ptr {address}, i32 0, i32 3, i32 1)")

    def finish(self) -> None:
        """Print the epilogue and the stores, for the lanes of valid channels.

        On AVX-512 masks are free, so there is one masked form. A pixel's results are stored before the next
        pixel's are computed: otherwise the scheduler keeps the results of all pixels, and spills. Elsewhere a
        masked store is slow, so full vectors are stored without a mask. The test is made once per vector, for
        all pixels. If a tile has several vectors, a version without masked loads serves full tiles.
        """
        for size in sorted({self.size[elem] for elem in (self.epilogue.out, *self.kinds)}):
            self.say(f"%channel{size} = mul i64 %channel, {size}")
        joins = joined_body(self.isa, self.epilogue) is not None
        if joins and self.isa.name == "avx512":
            self.store_joined()
        elif joins:
            self.if_full(lambda: self.join_and_store(()), lambda: self.join_and_store(self.count_valid()))
        elif self.isa.name == "avx512":
            valid = self.count_valid()
            waiting = []
            for m, results in self.results(valid):
                waiting += [(m, v, result, valid[v]) for v, result in enumerate(results)]
                if m < self.alone or m == self.rows - 1:
                    for each in waiting:
                        self.store(*each)
                    waiting = []
        elif not any(o.kind in ("pixel", "channel") for o in self.epilogue.operands):
            self.store_chosen(dict(self.results()))
        elif self.vectors == 1:
            self.store_chosen(dict(self.results(self.count_valid())))
        else:
            self.if_full(self.store_full, lambda: self.store_chosen(dict(self.results(self.count_valid()))))
        self.say("ret void")

    def if_full(self, full: Callable[[], None], partial: Callable[[], None]) -> None:
        """Print a branch: `full` if all channels are valid, else `partial`."""
        self.say(f"%full = icmp sge i64 %valid, {self.vectors * self.lanes}")
        self.say("br i1 %full, label %whole, label %rest", "whole:")
        full()
        self.say("ret void", "rest:")
        partial()

    def store_full(self) -> None:
        """All vectors of all pixels."""
        for m, results in dict(self.results()).items():
            for v, result in enumerate(results):
                self.store(m, v, result)

    def count_valid(self) -> list[str]:
        """The number of valid channels from each vector on."""
        counts = (
            self.new(f"sub i64 %valid, {v * self.lanes}") if v else "%valid" for v in range(self.vectors)
        )
        return [self.new(f"call i64 @hide(i64 {count})") for count in counts]

    def address_of(self, base: str, v: int, elem: str) -> str:
        """The address of the vector `v` of a pixel's elements that begin at `base`."""
        size = self.size[elem]
        first = self.new(f"add i64 {base}, %channel{size}")
        return self.new(f"add i64 {first}, {v * self.lanes * size}") if v else first

    def entry(self, row: int, m: int) -> str:
        """The entry of the address table for pixel `m` in `row`."""
        address = self.new(f"getelementptr i64, ptr %tp, i64 {row * TABLE + m}")
        return self.new(f"load i64, ptr {address}, align 8")

    def load(self, base: str, v: int, elem: str, valid: Sequence[str] = ()) -> str:
        """The vector `v` of the elements from `base` on. `valid`: see `count_valid`; then only valid channels
        are read."""
        suffix, more = ("_m", f", i64 {valid[v]}") if valid else ("", "")
        address = self.address_of(base, v, elem)
        return self.new(f"call {self.kinds[elem]} @load_{elem}{suffix}(i64 {address}{more})")

    def splat_operand(self, base: str, elem: str) -> str:
        return self.new(f"call {self.kinds[elem]} @splat_{elem}(i64 {base})")

    def shared(self, valid: Sequence[str] = ()) -> dict[tuple[int, int], str]:
        """(operand, vector) -> the value of an operand that all pixels share."""
        values: dict[tuple[int, int], str] = {}
        for o in self.epilogue.operands:
            base, cells = f"%shared{o.where}", [(o.where, v) for v in range(self.vectors)]
            if o.kind == "number":
                values |= dict.fromkeys(cells, self.splat_operand(base, o.dtype))
            elif o.kind == "channel":
                values |= {(where, v): self.load(base, v, o.dtype, valid) for where, v in cells}
        return values

    def results(
        self, valid: Sequence[str] = (), shared: dict[tuple[int, int], str] | None = None
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield (pixel, results of the epilogue for its vectors). `valid`: see `count_valid`; then operands
        are only read for valid channels. `shared`: operands that are loaded already."""
        shared = self.shared(valid) if shared is None else shared
        for m in range(self.rows):
            bases = ["" if o.shared else self.entry(o.where, m) for o in self.epilogue.operands]
            results = []
            for v in range(self.vectors):
                arguments = [f"{self.acc} {self.sum(m, v)}"]
                for o, base in zip(self.epilogue.operands, bases, strict=True):
                    if o.shared:
                        value = shared[o.where, v]
                    elif o.kind == "pixel":
                        value = self.load(base, v, o.dtype, valid)
                    else:
                        value = self.splat_operand(base, o.dtype)
                    arguments.append(f"{self.kinds[o.dtype]} {value}")
                results.append(self.new(f"call {self.out} @{self.made_by}({', '.join(arguments)})"))
            yield m, results

    def store(self, m: int, v: int, result: str, valid: str = "") -> None:
        """Store the vector `v` of a pixel; with `valid`, only the first `valid` lanes."""
        name, more = ("store_m", f", i64 {valid}") if valid else ("store", "")
        address = self.address_of(self.entry(1, m), v, self.epilogue.out)
        self.say(f"call void @{name}(i64 {address}, {self.out} {result}{more})")

    def join_and_store(self, valid: Sequence[str]) -> None:
        """Narrow and store all pixels. `valid`: see `count_valid`; () if all channels are valid."""
        self.store_parts(self.join_results(self.results(valid)), *valid[:1])

    def store_joined(self) -> None:
        """Narrow and store all pixels on AVX-512. Without masks if all channels are valid: masks, and masked
        stores of half a vector, use the ports of the products. That takes 0.98 of the time at depth 64."""
        valid = self.count_valid()
        self.say(f"%full = icmp sge i64 %valid, {self.vectors * self.lanes}")
        self.say("br i1 %full, label %whole, label %part", "whole:")
        full = self.shared()
        self.say("br label %read", "part:")
        part = self.shared(valid)
        self.say("br label %read", "read:")
        kinds = {o.where: self.kinds[o.dtype] for o in self.epilogue.operands if o.shared}
        shared = {
            at: self.new(f"phi {kinds[at[0]]} [ {full[at]}, %whole ], [ {part[at]}, %part ]") for at in full
        }
        joined = self.join_results(self.results(valid, shared))
        self.say("br i1 %full, label %stored, label %some", "stored:")
        self.store_parts(joined)
        self.say("ret void", "some:")
        self.store_parts(joined, valid[0])

    def join_results(self, results_by_pixel: Iterable[tuple[int, list[str]]]) -> list[tuple[int, int, str]]:
        """Narrow vectors to bytes, `JOINED` at a time: (pixel, its index among the pixels of a joined vector,
        the joined vector)."""
        parts: list[tuple[int, int, str]] = []
        vectors: list[str] = []
        for m, results in results_by_pixel:
            vectors += [f"{self.out} {result}" for result in results]
            if len(vectors) == JOINED or m == self.rows - 1:
                first = m + 1 - len(vectors) // self.vectors
                vectors += vectors[-1:] * (JOINED - len(vectors))
                joined = self.new(f"call {self.bytes(JOINED)} @join({', '.join(vectors)})")
                parts += [(first + i, i, joined) for i in range(m + 1 - first)]
                vectors = []
        return parts

    def store_parts(self, parts: list[tuple[int, int, str]], valid: str = "") -> None:
        for pixel, i, joined in parts:
            self.store_part(pixel, i, joined, valid)

    def bytes(self, vectors: int) -> str:
        return f"<{vectors * self.lanes} x i8>"

    def store_part(self, m: int, i: int, joined: str, valid: str = "") -> None:
        """Store pixel `m`, which has index `i` in the vector `joined`; with `valid`, only the first bytes."""
        full, part, size = self.bytes(JOINED), self.bytes(self.vectors), self.vectors * self.lanes
        order = ", ".join(f"i32 {i * size + lane}" for lane in range(size))
        mine = self.new(f"shufflevector {full} {joined}, {full} poison, <{size} x i32> <{order}>")
        address = self.address_of(self.entry(1, m), 0, self.epilogue.out)
        name, more = (f"store_m{self.vectors}", f", i64 {valid}") if valid else (f"store{self.vectors}", "")
        self.say(f"call void @{name}(i64 {address}, {part} {mine}{more})")

    def store_chosen(self, results: dict[int, list[str]]) -> None:
        """Store each vector with a branch: without a mask if all of its channels are valid."""
        for v, valid in enumerate(self.count_valid()):
            self.say(f"%all{v} = icmp sge i64 {valid}, {self.lanes}")
            self.say(f"br i1 %all{v}, label %all{v}.then, label %all{v}.else", f"all{v}.then:")
            for m, of_pixel in results.items():
                self.store(m, v, of_pixel[v])
            self.say(f"br label %all{v}.end", f"all{v}.else:")
            for m, of_pixel in results.items():
                self.store(m, v, of_pixel[v], valid)
            self.say(f"br label %all{v}.end", f"all{v}.end:")
