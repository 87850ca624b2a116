"""Each word of kernels has one declaration, a meaning in NumPy and LLVM code, and both agree."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ovjit.codegen import words
from ovjit.codegen.cpu.vector import BODIES, OPERATORS, namespace
from ovjit.codegen.cpu.vector_types import Vec
from ovjit.codegen.gpu import tensor_blocks, tensor_cores
from ovjit.codegen.gpu.barriers import BARRIER
from ovjit.execution.numpy_words import Memory, Words

LANES = 8


def test_every_declared_word_has_code() -> None:
    of_gpus = {*tensor_cores.BODIES, *tensor_blocks.BODIES, BARRIER}
    assert set(words.WORDS) == set(BODIES) | of_gpus and not of_gpus & set(BODIES)
    assert set(OPERATORS.values()) <= set(words.WORDS)


def test_words_of_the_language_are_declared_or_printed_in_place() -> None:
    printed = {w.printed for w in map(vars(words).get, words.__all__) if isinstance(w, words.Word)}
    own = {
        "VL", "chunk", "scratch", "share", "static_range", "vectors", "placed", "items", "applied",
        "registers", "finish", "count_of", "exp", "log", "tanh", "erf", "sigmoid", "exp_below_zero",
        "not_below", "tile_begin", "tile_end", "tile_load", "tile_multiply", "tile_store",
    }  # fmt: skip
    sizes = re.compile(r"(_group)_\d+$")  # of sums of a block: a word for each, printed by one name
    known = own | {sizes.sub(r"\1", name.removesuffix("_T")) for name in words.WORDS}
    assert {name for name in printed if not name.startswith("libm_")} <= known


@pytest.mark.parametrize("name", sorted(BODIES))
def test_signatures_are_those_of_the_code(name: str) -> None:
    """Intrinsics take as many arguments, and give what is declared."""
    declared, text = words.WORDS[name], name.replace("_T", "_i32")
    intrinsic = namespace(LANES)[text]
    assert intrinsic.arity == len(declared.arguments), name
    found, elem = words.find(text)
    assert found is declared and elem == ("i32" if declared.of_elements else "")
    resolved = intrinsic.resolve(*_given(declared))
    assert resolved is not None, name
    result = resolved[0].return_type
    assert isinstance(result, Vec) == (declared.result in ("v", "mask", "V", "I")), name
    assert (result.name == "void") == (declared.result == "")


def _given(declared: words.Declared) -> list:
    from ovjit.codegen.cpu import types
    from ovjit.codegen.cpu.vector_types import vec

    vector = vec("i32", LANES)
    known = {"v": vector, "V": vector, "I": vector, "mask": vec("boolean", LANES), "d": types.float64}
    return [known.get(kind, types.int64 if kind != "x" else types.int32) for kind in declared.arguments]


@pytest.mark.parametrize("name", sorted(n for n, w in words.WORDS.items() if set(w.arguments) == {"v"}))
def test_meanings_take_vectors(name: str) -> None:
    """Lane by lane in NumPy, for small numbers of bytes in lanes of i32."""
    declared = words.WORDS[name]
    reals = name in ("sqrt", "floor", "ceil", "trunc", "rint", "rcp")
    lanes = max(LANES, 2 * int(name[5:])) if name.startswith("fold_") else LANES
    one = np.full(lanes, 4, np.float32) if reals else np.full(lanes, 0x01020301, np.int32)
    vectors = [one] * len(declared.arguments)
    if name in ("shl", "shr"):
        vectors[1] = np.full(lanes, 3, np.int32)
    text = name.replace("_T", "_f32" if name.startswith("halves") else "_i32")
    made = Words(lanes, Memory([]))[text](*vectors)
    assert made.shape == (lanes,), name
