"""The micro-kernel: a block of pixels x channels of a convolution or matrix product, in registers.

    acc[m, n] = bias[n] + sum over taps (i, j) and words k of  a[m][i*s1 + j*s2 + k] * w[i, j, k, n]
    out[m, n] = epilogue(acc[m, n], operands...)

`m` counts `rows` pixels, each with an address of its own (so a tile may wrap over image rows, strides and
halos), `n` the `vectors * lanes` channels of one weight panel. All loop bounds are run-time integers.

| ISA     | tile (rows x channels) | accumulators |
|---------|------------------------|--------------|
| avx512  | 14 x 32                | 28 of 32 registers |
| avx2    | 6 x 16                 | 12 of 16 |
| generic | 4 x 8                  | 8 of 16 |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.tiles.formats import F32, WORD, Format

#: int64 entries of one row of the address table: rows of it are input, output, pixel operands.
TABLE = 16

#: The arguments of a tile, all int64: address table; weights; bias; taps (n1, s1, n2, s2); depth k;
#: first channel; valid channels; what to prefetch and by how many bytes to go on there at each k; then one
#: address for each channel operand.
ARGUMENTS = "table weights bias n1 s1 n2 s2 k channel valid ahead ahead_step".split()


def make_tile(isa: Any, rows: int, vectors: int, epilogue: Any, form: Format = F32) -> Any:
    """The Numba intrinsic of one tile size. `epilogue` is an `ovjit.codegen.cpu.ir.Epilogue`, which gets
    accumulators of type `form.acc`; `k` counts words.

    The address table holds `TABLE` int64s for each of: input pixels, output pixels, pixel operands.
    """
    import llvmlite.ir as ir
    from numba.core import types
    from numba.core.typing.templates import signature
    from numba.extending import intrinsic

    from ovjit.codegen.cpu import vector as simd

    i32, i64 = ir.IntType(32), ir.IntType(64)
    lanes = isa.lanes
    word = simd.scalar_ir(form.acc)  # any type of 4 bytes: instructions see words
    vt = ir.VectorType(word, lanes)
    vector_bytes = lanes * WORD

    def load_address(b: ir.IRBuilder, table: ir.Value, row: int, m: int) -> ir.Value:
        return b.load(b.gep(simd.pointer(b, table, i64), [i64(row * TABLE + m)]), align=8)

    def prefetch(b: ir.IRBuilder, address: ir.Value) -> None:
        """Into the second-level cache."""
        p = simd.pointer(b, address, ir.IntType(8))
        simd.call_intrinsic(b, "llvm.prefetch.p0", ir.VoidType(), [p, i32(0), i32(2), i32(1)])

    def depth_step(b: ir.IRBuilder, pixels: list, off: ir.Value, w: ir.Value, acc: list) -> list:
        """One k: acc[m][v] += a[m] * w[v]."""
        ws = [
            b.load(simd.pointer(b, b.add(w, i64(v * vector_bytes)), vt), align=vector_bytes)
            for v in range(vectors)
        ]
        out = []
        for m in range(rows):
            address = b.gep(
                b.inttoptr(pixels[m], ir.IntType(8).as_pointer()), [off],
                source_etype=ir.IntType(8),
            )  # fmt: skip
            a = simd.broadcast(
                b, b.load(b.bitcast(address, word.as_pointer()), align=simd.SIZE[form.a]), lanes
            )
            for v in range(vectors):
                out.append(form.madd(b, lanes, a, ws[v], acc[m * vectors + v]))
        return out

    def body(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        a = dict(zip(ARGUMENTS, args, strict=False))
        operands = args[len(ARGUMENTS) :]
        pixels = [load_address(b, a["table"], 0, m) for m in range(rows)]
        channel = a["channel"]
        init = [
            b.load(simd.pointer(b, b.add(a["bias"], i64(v * vector_bytes)), vt), align=vector_bytes)
            for v in range(vectors)
        ]
        acc = [init[v] for _ in range(rows) for v in range(vectors)]

        # for i in range(n1): for j in range(n2): for k in range(K)
        def loop(count: ir.Value, step: int, state: list, emit: Any) -> list:
            """while index + step <= count; returns the state after it, index first."""
            entry = b.block
            head, inside, after = (b.append_basic_block(n) for n in ("head", "body", "after"))
            b.branch(head)
            b.position_at_end(head)
            phis = []
            for value in state:
                phi = b.phi(value.type)
                phi.add_incoming(value, entry)
                phis.append(phi)
            b.cbranch(b.icmp_signed("<=", b.add(phis[0], i64(step)), count), inside, after)
            b.position_at_end(inside)
            new = [b.add(phis[0], i64(step)), *emit(phis)]
            for phi, value in zip(phis, new, strict=True):
                phi.add_incoming(value, b.block)
            b.branch(head)
            b.position_at_end(after)
            return phis

        def over_k(base: ir.Value, state: list) -> list:
            def emit(s: list) -> list:
                k, w, ahead, acc = s[0], s[1], s[2], s[3:]
                prefetch(b, ahead)
                acc = depth_step(b, pixels, b.add(base, b.shl(k, i64(2))), w, acc)
                return [b.add(w, i64(vectors * vector_bytes)), b.add(ahead, a["ahead_step"]), *acc]

            return loop(a["k"], 1, [i64(0), *state], emit)[1:]

        def over_j(base: ir.Value, state: list) -> list:
            return loop(
                a["n2"], 1, [i64(0), base, *state],
                lambda s: [b.add(s[1], a["s2"]), *over_k(s[1], s[2:])],
            )[2:]  # fmt: skip

        state = loop(
            a["n1"], 1, [i64(0), i64(0), a["weights"], a["ahead"], *acc],
            lambda s: [b.add(s[1], a["s1"]), *over_j(s[1], s[2:])],
        )  # fmt: skip
        acc = state[4:]

        def finish(masked: bool) -> None:
            masks = [b.sub(a["valid"], i64(v * lanes)) if masked else None for v in range(vectors)]
            results = []
            shared: dict[tuple, ir.Value] = {}

            def operand(position: int, m: int, v: int) -> ir.Value:
                kind, where, elem = epilogue.operands[position]
                if kind == "channel":
                    key = (position, v)
                    if key not in shared:
                        shared[key] = at(operands[where], v, elem)
                    return shared[key]
                base = load_address(b, a["table"], where, m)
                if kind == "scalar":
                    one = b.load(simd.pointer(b, base, simd.memory_ir(elem)), align=simd.SIZE[elem])
                    return simd.broadcast(b, simd.from_memory(b, one, elem), lanes)
                return at(base, v, elem)

            def at(base: ir.Value, v: int, elem: str) -> ir.Value:
                scale = i64(simd.SIZE[elem])
                address = b.add(base, b.add(b.mul(channel, scale), i64(v * lanes * simd.SIZE[elem])))
                return simd.load_vector(b, address, elem, lanes, masks[v])

            for m in range(rows):
                for v in range(vectors):
                    loaded = [operand(j, m, v) for j in range(len(epilogue.operands))]
                    results.append(epilogue.emit_ir(b, acc[m * vectors + v], loaded, lanes))
            out_size = simd.SIZE[epilogue.out]
            for m in range(rows):
                base = b.add(load_address(b, a["table"], 1, m), b.mul(channel, i64(out_size)))
                for v in range(vectors):
                    simd.store_vector(
                        b,
                        b.add(base, i64(v * lanes * out_size)),
                        results[m * vectors + v],
                        epilogue.out,
                        masks[v],
                    )

        if vectors == 1:  # for the last channels, which seldom fill the vector
            finish(True)
            return
        full = b.icmp_signed(">=", a["valid"], i64(vectors * lanes))
        with b.if_else(full) as (then, otherwise):
            with then:
                finish(False)
            with otherwise:
                finish(True)

    count = len(ARGUMENTS) + epilogue.channel_operands

    def define(typingctx: Any, *xs: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, s: Any, values: Any) -> Any:
            body(builder, values)
            return context.get_dummy_value()

        return signature(types.void, *[types.int64] * count), codegen

    names = ", ".join(f"a{i}" for i in range(count))
    scope: dict[str, Any] = {"define": define}
    exec(f"def tile(typingctx, {names}): return define(typingctx, {names})", scope)  # fixed text
    return intrinsic(scope["tile"])
