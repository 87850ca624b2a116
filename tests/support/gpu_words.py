"""Kernels of GPUs in the interpreter: the words of warps and blocks in NumPy, which check their order.

`Words` and `program` are those of `ovjit.execution.numpy_words` for kernels of GPUs, too. The meanings of a
warp's words are in `warp_meanings`, those of blocks of several warps in `block_meanings`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ovjit.codegen import words
from ovjit.codegen.warps import COLUMNS, Form, block_form
from ovjit.execution import numpy_words
from ovjit.execution.numpy_words import compile_source
from tests.support import block_meanings, warp_meanings

#: Declared names whose meaning has the name without the type.
_OF_WARPS = (
    "lane_numbers_T shared_memory copy_async commit_copies await_copies read_tiles mma_T zero_sums_T "
    "share_sums_T read_shared_T share_elements_T read_elements_T part_of_sums_T join_sums_T pack_sums_T "
    "read_turned add_halves_T".split()
)
_OF_BLOCKS = (
    "block_memory warp_number begin_barrier meet_block block_warps grid_warps meet_grid arrive expect_copies "
    "await_phase copy_strips copy_box copy_pixels start_followers await_leaders load_eight_T "
    "store_eight_T load_fragment".split()
)
#: Declared name -> (words, element type if it has one, arguments...) -> result.
MEANINGS: dict[str, Callable[..., Any]] = {
    **{name: getattr(warp_meanings, name.removesuffix("_T")) for name in _OF_WARPS},
    **{name: getattr(block_meanings, name.removesuffix("_T")) for name in _OF_BLOCKS},
    "warp_barrier": warp_meanings.barrier,
    "grid_warp": block_meanings.warp_number,
    "await_space": block_meanings.await_phase,
    "take_registers": block_meanings.set_registers,
    "leave_registers": block_meanings.set_registers,
    "part_of_eight_T": warp_meanings.part_of_sums,
    "join_eight_T": warp_meanings.join_sums,
}
for _n in COLUMNS:
    MEANINGS |= {
        f"zero_group_{_n}_T": functools.partial(block_meanings.zero_group, _n),
        f"multiply_group_{_n}_T": functools.partial(block_meanings.multiply_group, _n),
        f"await_group_{_n}_T": block_meanings.await_group,
        f"part_of_group_{_n}_T": block_meanings.part_of_group,
    }


class Words(numpy_words.Words):
    #: Warps of a launch whose warps all run at a time.
    grid = 8

    def make_word(self, name: str) -> Any:
        declared = name if name in words.WORDS else f"{name.rpartition('_')[0]}_T"
        if declared not in MEANINGS:
            return super().make_word(name)
        word, elem = words.find(name)
        return functools.partial(MEANINGS[word.name], self, *([elem] if elem else []))


def program(source: str, words: numpy_words.Words) -> Callable[[int, int, int, int], int]:
    """The kernel's source as a function over `words`. The warps of a block have words of their own."""
    form = block_form(source)
    if form is None:
        return numpy_words.program(source, words)
    assert isinstance(words, Words)
    form = form._replace(warps=words.grid) if form.requested else form
    return functools.partial(_run_block, compile_source(source), words, form)


def _run_block(code: Any, words: Words, form: Form, *arguments: int) -> int:
    def start(block: block_meanings.Block, warp: int) -> Callable[[], int]:
        warp_words: Any = type(words)(words.lanes, words.memory)
        warp_words.block, warp_words.warp = block, warp
        exec(code, warp_words)  # text printed by ovjit's emitters
        return functools.partial(warp_words["kernel"], *arguments)

    return block_meanings.run_block(form, words.lanes, start)
