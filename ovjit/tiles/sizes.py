"""Constants of tiles that planning and storage need too. Nothing here imports the code generators."""

from __future__ import annotations

from ovjit.records import NamedTuple

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


class Way(NamedTuple):
    """A way to add words: the products of `span` words are added in 16 bits, then widened to 32. `time`: the
    time of a word for one vector of channels, in units of half an f32 multiply-add."""

    span: int
    moves_signs: bool
    time: float

    @property
    def parts(self) -> int:
        """Vectors of weights, and of masks if turned, that a step of `span` words reads."""
        return self.span * (1 + self.moves_signs)


#: The loops of a tile, in order. Times are of the loops alone on a Zen 3, with operands in the first-level
#: cache; those of turned words are of a Xeon, scaled between the times of unturned and of widened words.
WAYS = (Way(2, False, 1.7), Way(1, False, 2.0), Way(2, True, 2.2), Way(1, True, 2.7))
#: The low bits of a place, which are the byte offset in a run.
RUN_BITS = 32
