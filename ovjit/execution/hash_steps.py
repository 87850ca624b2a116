"""The native function behind `ovjit.storage.tags`: the universal hash of many blocks."""

from ovjit.codegen.parts import routine
from ovjit.codegen.words import Word
from ovjit.hashes import BLOCK_BYTES, SUM_BYTES

hash_row = Word("hash_row")


@routine
def hash_blocks(data, blocks, keys, sums):
    """The sums of each block at `data`, see `ovjit.codegen.cpu.universal_hash`."""
    for n in range(blocks):
        hash_row(data + n * BLOCK_BYTES, keys, sums + n * SUM_BYTES)
    return 0
