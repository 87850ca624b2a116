"""Constants of tiles that planning needs too. Nothing here imports the code generators."""

from __future__ import annotations

#: int64 entries of one row of the address table: rows of it are input, output, pixel operands.
TABLE = 16
#: Words of a block: see `make_tile`.
BLOCK = 1024
#: Instruction sets that round several vectors to bytes at once: see `ovjit.tiles.stores`.
JOINING = ("avx512", "avx2", "neon")
#: Channels from which on the pixels of a tile are copied in pairs.
PAIRED_CHANNELS = 32
#: Words of a sum up to which they are: copies of a tile's pixels should stay in the second-level cache.
PAIRED_WORDS = 4096
#: Rounding to bytes, see `rounding`: the number whose bits as an f32 sums begin with, the maximum magnitude
#: of sums, and the exponent of the power of two of which all thresholds are multiples.
FIRST, FARTHEST_SUM, FINEST = 3 << 22, 1 << 22, -26
