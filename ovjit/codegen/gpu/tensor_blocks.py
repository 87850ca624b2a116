"""The words for blocks of several warps as LLVM code: `tests.support.block_meanings` has their meaning.

They are instructions of `sm_90a` that LLVM has no intrinsics for, or whose order it must keep: inline PTX.
One lane of a warp starts copies and arrives. Addresses in shared memory are int64s in the kernel's source,
and 32 bits here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.gpu.calls import call, lane_number
from ovjit.codegen.gpu.tensor_cores import part_of_sums, sum_type, vector_of
from ovjit.codegen.warps import ATOM, COLUMNS, MOST_BLOCK, STRIP

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
_F16, _F32, _VOID = ir.HalfType(), ir.FloatType(), ir.VoidType()
#: The name of a block's shared memory, and of the tensor map among an entry point's parameters.
_MEMORY, MAP = "ovjit_block", "ovjit_map"
#: Element type -> depth and types of a product of a group, and the operands after the descriptors.
_PRODUCTS = {
    "f16": ("k16.f32.f16.f16", "1, 1, 1, 0, 0"), "bf16": ("k16.f32.bf16.bf16", "1, 1, 1, 0, 0"),
    "i8": ("k32.s32.s8.s8", "1"), "u8": ("k32.s32.u8.s8", "1"), "f32": ("k8.f32.tf32.tf32", "1, 1, 1"),
}  # fmt: skip
#: Upper part of a descriptor: 8 rows are 1,024 bytes apart, and 16 bytes are permuted in 128.
_HIGH = 64 | 1 << 30
#: Tries to see the end of a phase, before a copying warp gives up: a kernel fails, and does not hang.
_TRIES = 1 << 22


def inline(b: ir.IRBuilder, text: str, result: ir.Type, constraints: str, *arguments: ir.Value) -> ir.Value:
    """Emit inline PTX, which may read and write any memory."""
    kind = ir.FunctionType(result, [a.type for a in arguments])
    more = f"{constraints},~{{memory}}" if constraints else "~{memory}"
    asm = ir.InlineAsm(kind, text, more, side_effect=True)
    values = ", ".join(f"{a.type} {a.get_reference()}" for a in arguments)
    line = f"call {result} asm sideeffect {_quote(asm)}({values}) convergent nounwind"
    return b.do(line) if result == _VOID else b.say(result, line)


def _quote(asm: ir.InlineAsm) -> str:
    text = asm.asm.replace("\n", "\\0A").replace('"', "\\22")
    return f'"{text}", "{asm.constraint}"'


def _near(b: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return b.trunc(address, _I32)


def _is_first(b: ir.IRBuilder) -> ir.Value:
    return b.zext(b.icmp_signed("==", lane_number(b), _I32(0)), _I32)


def _once(b: ir.IRBuilder, text: str, constraints: str, *arguments: ir.Value) -> None:
    """Emit an instruction that only the first lane runs. `text` begins with @p."""
    count = len(arguments)
    body = f"{{ .reg .pred p; setp.ne.u32 p, ${count}, 0; {text}; }}"
    inline(b, body, _VOID, ",".join(filter(None, (constraints, "r"))), *arguments, _is_first(b))


def _block_memory(b: ir.IRBuilder, size: ir.Value, warps: ir.Value) -> ir.Value:
    assert 0 < size.constant <= MOST_BLOCK, size
    array = b.module.globals.get(_MEMORY)
    if array is None:
        array = ir.GlobalVariable(b.module, ir.ArrayType(_I8, 0), _MEMORY, addrspace=3)
        array.linkage, array.align = "external", ATOM
    start = b.add(b.ptrtoint(array, _I64), _I64(ATOM - 1))
    return b.and_(start, _I64(-ATOM))


def _special(name: str) -> Callable[[ir.IRBuilder], ir.Value]:
    """An intrinsic that reads a special register, such as the block's index."""
    return lambda b: b.zext(call(b, f"llvm.nvvm.read.ptx.sreg.{name}", _I32), _I64)


_warp_number, _warps, _block, _blocks = map(_special, ("tid.y", "ntid.y", "ctaid.x", "nctaid.x"))
#: A barrier of a launch: the first block adds 2**31 less the other blocks, and each of these 1, so the upper
#: bit changes when all have arrived. What was stored before is fenced, and so are further loads, as the cache
#: of a multiprocessor has old values. It fails after some ten seconds.
_MEET_GRID = (
    "{ .reg .pred p; .reg .b32 a, b, n; bar.sync 0; mov.u32 a, %tid.x; mov.u32 b, %tid.y; or.b32 a, a, b; "
    "setp.ne.u32 p, a, 0; @p bra done; mov.u32 b, %nctaid.x; sub.u32 b, 0x80000001, b; mov.u32 n, %ctaid.x; "
    "setp.ne.u32 p, n, 0; selp.u32 b, 1, b, p; mov.u32 n, 0; fence.acq_rel.gpu; "
    "atom.add.relaxed.gpu.global.u32 a, [$0], b; again: ld.relaxed.gpu.global.u32 b, [$0]; xor.b32 b, b, a; "
    f"setp.lt.s32 p, b, 0; @p bra seen; add.u32 n, n, 1; setp.lt.u32 p, n, {_TRIES << 2}; @p bra again; "
    "trap; seen: fence.acq_rel.gpu; done: bar.sync 0; }"
)


def _meet_grid(b: ir.IRBuilder, p: ir.Value) -> None:
    inline(b, _MEET_GRID, _VOID, "l", p)


def _begin_barrier(b: ir.IRBuilder, p: ir.Value, count: ir.Value) -> None:
    text = f"@p mbarrier.init.shared::cta.b64 [$0], {count.constant}"
    _once(b, f"{text}; @p fence.mbarrier_init.release.cluster; @p fence.proxy.async", "r", _near(b, p))


def _meet_block(b: ir.IRBuilder) -> None:
    inline(b, "bar.sync 0;", _VOID, "")


def _arrive(b: ir.IRBuilder, p: ir.Value) -> None:
    _once(b, "@p mbarrier.arrive.shared::cta.b64 _, [$0]", "r", _near(b, p))


def _expect_copies(b: ir.IRBuilder, p: ir.Value, size: ir.Value) -> None:
    text = "@p mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1"
    _once(b, text, "r,r", _near(b, p), b.trunc(size, _I32))


def _await_phase(tries: int) -> Callable[..., None]:
    wait = "mbarrier.try_wait.parity.shared::cta.b64 p, [$0], $1;"
    endless = f"{{ .reg .pred p; again: {wait} @!p bra again; }}"
    limited = (
        f"{{ .reg .pred p; .reg .u32 n; mov.u32 n, 0; again: {wait} @p bra done; add.u32 n, n, 1; "
        f"setp.lt.u32 p, n, {tries}; @p bra again; trap; done: }}"
    )

    def body(b: ir.IRBuilder, p: ir.Value, parity: ir.Value) -> None:
        inline(b, limited if tries else endless, _VOID, "r,r", _near(b, p), b.trunc(parity, _I32))

    return body


def _copy_strips(
    b: ir.IRBuilder,
    to: ir.Value,
    source: ir.Value,
    step: ir.Value,
    last: ir.Value,
    count: ir.Value,
    p: ir.Value,
) -> None:
    """Copy strips to shared memory: lane i copies strip i."""
    lane = lane_number(b, 64)
    index = b.select(b.icmp_signed("<", lane, last), lane, last)
    begin = b.add(source, b.mul(index, step))
    into = b.add(to, b.mul(lane, _I64(STRIP)))
    copies = b.zext(b.icmp_signed("<", lane, _I64(count.constant)), _I32)
    text = (
        "{ .reg .pred p; setp.ne.u32 p, $3, 0; @p cp.async.bulk.shared::cluster.global.mbarrier"
        f"::complete_tx::bytes [$0], [$1], {STRIP}, [$2]; }}"
    )
    inline(b, text, _VOID, "r,l,r,r", _near(b, into), begin, _near(b, p), copies)


def _copy_box(rank: int) -> Callable[..., None]:
    """An intrinsic that copies a box of a tensor map to shared memory. `rank`: number of coordinates, which
    precede the last two arguments."""
    load = f"cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
    coordinates = ", ".join(f"${i + 2}" for i in range(rank))
    text = f"@p {load} [$0], [$1, {{{coordinates}}}], [${rank + 2}]"

    def body(b: ir.IRBuilder, to: ir.Value, *arguments: ir.Value) -> None:
        # a parameter of the entry point, into which the kernel is inlined
        address = inline(b, f"{{ .reg .b64 t; mov.b64 t, {MAP}; cvta.param.u64 $0, t; }}", _I64, "=l")
        *_, _rows, p = arguments
        at = [b.trunc(a, _I32) for a in arguments[-2 - rank : -2]]
        _once(b, text, ",".join(["r", "l", *["r"] * (rank + 1)]), _near(b, to), address, *at, _near(b, p))

    return body


def _change_sums(
    b: ir.IRBuilder, text: str, sums: ir.Value, further: str = "", *arguments: ir.Value
) -> ir.Value:
    """Inline PTX that changes all registers of sums. `$` in the text is the list of them."""
    count, letter = sums.type.count, "f" if sums.type.element == _F32 else "r"
    parts = [b.extract_element(sums, _I32(i)) for i in range(count)]
    result = ir.LiteralStructType([sums.type.element] * count)
    outputs = ",".join([f"={letter}"] * count)
    inputs = ",".join(map(str, range(count)))
    constraints = ",".join(filter(None, (outputs, inputs, further)))
    structure = inline(b, text, result, constraints, *parts, *arguments)
    vector: ir.Value = ir.Constant(sums.type, ir.Undefined)
    for i in range(count):
        vector = b.insert_element(vector, b.extract_value(structure, i), _I32(i))
    return vector


def _descriptor(b: ir.IRBuilder, address: ir.Value) -> ir.Value:
    low = b.or_(b.lshr(_near(b, address), _I32(4)), _I32(1 << 16))
    return b.or_(b.zext(low, _I64), _I64(_HIGH << 32))


def _multiply_group(columns: int) -> Callable[..., Callable[..., ir.Value]]:
    def body_for(elem: str) -> Callable[..., ir.Value]:
        form, operands = _PRODUCTS[elem]
        count = columns // 2
        registers = "{" + ", ".join(f"${i}" for i in range(count)) + "}"

        def body(b: ir.IRBuilder, pa: ir.Value, pb: ir.Value, sums: ir.Value) -> ir.Value:
            a, w = _descriptor(b, pa), _descriptor(b, pb)
            product = f"wgmma.mma_async.sync.aligned.m64n{columns}{form} {registers}, a, w, {operands};"
            # a step of 32 bytes along the depth is 2 in the descriptors
            step = "add.u64 a, a, 2; add.u64 w, w, 2;"
            text = (
                f"{{ .reg .b64 a, w; mov.b64 a, ${2 * count}; mov.b64 w, ${2 * count + 1}; "
                f"wgmma.fence.sync.aligned; {f'{step} '.join([product] * 4)} "
                "wgmma.commit_group.sync.aligned; }"
            )
            return _change_sums(b, text, sums, "l,l", a, w)

        return body

    return body_for


def _await_group(elem: str) -> Callable[..., ir.Value]:
    return lambda b, sums, count: _change_sums(b, f"wgmma.wait_group.sync.aligned {count.constant};", sums)


def _zero_group(columns: int) -> Callable[..., Callable[..., ir.Value]]:
    def body_for(elem: str) -> Callable[..., ir.Value]:
        return lambda b: ir.Constant(ir.VectorType(sum_type(elem), columns // 2), [0] * (columns // 2))

    return body_for


# --- eight elements of a lane


def _pack_pair(b: ir.IRBuilder, elem: str, low: ir.Value, high: ir.Value) -> ir.Value:
    kind = {"f16": "f16x2", "bf16": "bf16x2"}[elem]
    return inline_pure(b, f"cvt.rn.{kind}.f32 $0, $1, $2;", _I32, "=r,f,f", high, low)


def inline_pure(b: ir.IRBuilder, text: str, result: ir.Type, constraints: str, *arguments: ir.Value) -> Any:
    """Emit inline PTX without side effects."""
    values = ", ".join(f"{a.type} {a.get_reference()}" for a in arguments)
    return b.say(result, f'call {result} asm "{text}", "{constraints}"({values}) nounwind')


def _address(b: ir.IRBuilder, p: ir.Value, at: ir.Value, kind: ir.Type) -> ir.Value:
    return b.inttoptr(b.add(p, at), kind.as_pointer(1))


#: Element type -> words of 4 bytes that hold eight elements.
_EIGHT = {"f16": 4, "bf16": 4, "f32": 8, "i32": 8}


def _load_fours(b: ir.IRBuilder, p: ir.Value, at: ir.Value, valid: ir.Value, count: int) -> list[ir.Value]:
    """Load `count` vectors of four words in lanes with `valid`, else zeros."""
    four, before = ir.VectorType(_I32, 4), b.block
    with b.if_then(valid):
        loaded = [
            b.load(_address(b, b.add(p, _I64(16 * i)), at, four), align=16, typ=four) for i in range(count)
        ]
        end = b.block
    vectors = []
    for value in loaded:
        phi = b.phi(four)
        phi.add_incoming(value, end)
        phi.add_incoming(ir.Constant(four, [0] * 4), before)
        vectors.append(phi)
    return vectors


def _load_fragment(b: ir.IRBuilder, p: ir.Value, at: ir.Value, valid: ir.Value) -> ir.Value:
    return _load_fours(b, p, at, valid, 1)[0]


def _add_halves(elem: str) -> Callable[..., ir.Value]:
    def body(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        if elem == "f16":
            return inline_pure(b, "add.rn.f16x2 $0, $1, $2;", _I32, "=r,r,r", x, y)
        one = _I32(0x3F803F80)  # cards of 8.0 have no sum of pairs of bf16
        return inline_pure(b, "fma.rn.bf16x2 $0, $1, $2, $3;", _I32, "=r,r,r,r", x, one, y)

    return body


def _load_eight(elem: str) -> Callable[..., ir.Value]:
    def body(b: ir.IRBuilder, p: ir.Value, at: ir.Value, valid: ir.Value) -> ir.Value:
        vectors = _load_fours(b, p, at, valid, _EIGHT[elem] // 4)
        words = [b.extract_element(vector, _I32(i)) for vector in vectors for i in range(4)]
        return vector_of(b, [each for w in words for each in _unpack(b, elem, w)])

    return body


def _unpack(b: ir.IRBuilder, elem: str, word: ir.Value) -> Sequence[ir.Value]:
    if elem == "f32":
        return [b.bitcast(word, _F32)]
    if elem == "i32":
        return [word]
    parts = [word, b.lshr(word, _I32(16))]
    if elem == "bf16":
        return [b.bitcast(b.shl(word, _I32(16)), _F32), b.bitcast(b.and_(word, _I32(-(1 << 16))), _F32)]
    return [b.fpext(b.bitcast(b.trunc(part, _I16), _F16), _F32) for part in parts]


def _store_eight(elem: str) -> Callable[..., None]:
    def body(b: ir.IRBuilder, p: ir.Value, at: ir.Value, values: ir.Value, valid: ir.Value) -> None:
        parts = [b.extract_element(values, _I32(i)) for i in range(8)]
        if elem in ("f16", "bf16"):
            words = [_pack_pair(b, elem, *parts[i : i + 2]) for i in range(0, 8, 2)]
        else:
            words = [b.bitcast(part, _I32) for part in parts]
        four = ir.VectorType(_I32, 4)
        vectors = [vector_of(b, words[i : i + 4]) for i in range(0, len(words), 4)]
        with b.if_then(valid):
            for i, vector in enumerate(vectors):
                b.store(vector, _address(b, b.add(p, _I64(16 * i)), at, four), align=16)

    return body


def _no_arguments(text: str) -> Callable[[ir.IRBuilder], None]:
    def body(b: ir.IRBuilder) -> None:
        inline(b, text, _VOID, "")

    return body


def _set_registers(how: str) -> Callable[..., None]:
    def body(b: ir.IRBuilder, count: ir.Value) -> None:
        inline(b, f"setmaxnreg.{how}.sync.aligned.u32 {count.constant};", _VOID, "")

    return body


#: Word -> its code generator, as in `ovjit.codegen.gpu.words`.
BODIES: dict[str, Any] = {
    "block_memory": _block_memory, "warp_number": _warp_number, "begin_barrier": _begin_barrier,
    "block_warps": lambda b, warps, _: warps, "meet_grid": _meet_grid, "meet_block": _meet_block,
    "grid_warps": lambda b, *_: b.mul(_warps(b), _blocks(b)),
    "grid_warp": lambda b: b.add(b.mul(_warps(b), _block(b)), _warp_number(b)), "arrive": _arrive,
    "expect_copies": _expect_copies, "await_phase": _await_phase(0), "await_space": _await_phase(_TRIES),
    "copy_strips": _copy_strips, "copy_box": _copy_box(2), "copy_pixels": _copy_box(4),
    "start_followers": _no_arguments("griddepcontrol.launch_dependents;"),
    "take_registers": _set_registers("inc"), "leave_registers": _set_registers("dec"),
    "await_leaders": _no_arguments("griddepcontrol.wait;"), "load_eight_T": _load_eight,
    "store_eight_T": _store_eight, "part_of_eight_T": lambda elem: part_of_sums,
    "load_fragment": _load_fragment, "add_halves_T": _add_halves,
    "join_eight_T": lambda elem: lambda b, *parts: vector_of(b, parts),
}  # fmt: skip
for _n in COLUMNS:
    BODIES[f"zero_group_{_n}_T"], BODIES[f"multiply_group_{_n}_T"] = _zero_group(_n), _multiply_group(_n)
    BODIES[f"await_group_{_n}_T"], BODIES[f"part_of_group_{_n}_T"] = _await_group, lambda elem: part_of_sums
