"""NH, the universal hash of UMAC (Black, Halevi, Krawczyk, Krovetz, Rogaway: CRYPTO 1999), in vectors.

    hash_row(words, keys, to)   `to`: STREAMS int64s, the sums of one block of BLOCK_WORDS 64-bit words

The n-th sum, modulo 2**64, is over all words w and their keys k, of which the first is `keys[n]`:

    (low half of w + low half of k mod 2**32) * (high half of w + high half of k mod 2**32)

`SECURITY.md` describes its use.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir

from ovjit.codegen.cpu import types
from ovjit.codegen.cpu.intrinsics import make
from ovjit.codegen.cpu.types import signature
from ovjit.codegen.cpu.vector_types import call_intrinsic, pointer
from ovjit.hashes import BLOCK_BYTES, SUM_BYTES

#: 64-bit words of a block, and the number of its sums.
BLOCK_WORDS, STREAMS = BLOCK_BYTES // 8, SUM_BYTES // 8
_LANES = 8
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_HALVES, _WORDS = ir.VectorType(_I32, 2 * _LANES), ir.VectorType(_I64, _LANES)


def _vector(b: ir.IRBuilder, address: Any) -> Any:
    return b.load(pointer(b, address, _HALVES), align=1)


def _products(b: ir.IRBuilder, word: Any, key: Any) -> Any:
    both = b.bitcast(b.add(word, key), _WORDS)
    low = b.and_(both, ir.Constant(_WORDS, [0xFFFFFFFF] * _LANES))
    return b.mul(low, b.lshr(both, ir.Constant(_WORDS, [32] * _LANES)))


def _hash_row(b: ir.IRBuilder, words: Any, keys: Any, to: Any) -> None:
    before, loop, after = b.block, b.append_basic_block("words"), b.append_basic_block("sums")
    b.branch(loop)
    b.position_at_end(loop)
    at = b.phi(_I64)
    at.add_incoming(_I64(0), before)
    sums = [b.phi(_WORDS) for _ in range(STREAMS)]
    word = _vector(b, b.add(words, at))
    for n, total in enumerate(sums):
        key = _vector(b, b.add(b.add(keys, at), _I64(8 * n)))
        total.add_incoming(ir.Constant(_WORDS, [0] * _LANES), before)
        total.add_incoming(b.add(total, _products(b, word, key)), loop)
    following = b.add(at, _I64(8 * _LANES))
    at.add_incoming(following, loop)
    b.cbranch(b.icmp_signed("<", following, _I64(8 * BLOCK_WORDS)), loop, after)
    b.position_at_end(after)
    for n, total in enumerate(sums):
        value = total.incomings[1][0]
        one = call_intrinsic(b, "llvm.vector.reduce.add.v8i64", _I64, [value])
        b.store(one, pointer(b, b.add(to, _I64(8 * n)), _I64), align=8)


def intrinsics() -> dict[str, Any]:
    i = types.int64
    return {"hash_row": make("hash_row", signature(types.void, i, i, i), _hash_row)}
