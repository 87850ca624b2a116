"""Packed weights, and how chunks share the work of multiplying with them."""

from __future__ import annotations

from typing import Any

from ovjit.codegen.cpu.formats import WORD, Format
from ovjit.codegen.cpu.targets import Target
from ovjit.graph.symbolic import sym_int, sym_max, sym_min
from ovjit.graph.traced import is_traced_number
from ovjit.planning.plan import ceil_div
from ovjit.planning.views import Ptr
from ovjit.records import NamedTuple
from ovjit.tiles.pack import PanelSizes

#: Weights that one chunk should touch, so that they stay in a core's second-level cache. A matrix unit reads
#: them faster: there the weights that are fetched for the next chunk have to stay, too. A product of 64 rows
#: by 50,257 columns took 0.68 of the time, one of 256 rows 0.96.
PANEL_BYTES, UNIT_PANEL_BYTES = 384 * 1024, 192 * 1024
#: Floating-point operations of one chunk for each lane of a vector, some 4 us: see `Format.rate`. What a tile
#: takes besides, its table and its epilogue, is worth so many of a lane.
CHUNK_FLOPS, TILE_FLOPS = 62_500, 800
MOST_CHUNKS = 32
#: Pixels that a panel is unpacked for, at least, where there are so many: chunks have fewer panels instead.
#: For 64 pixels in four ranges, unpacking took a third of the time of a product of depth 512 on AVX2.
UNPACKED_FOR = 128
#: Tiles of a matrix unit that a range of pixels has at least, rather than fewer panels. With 8 ResNet-50 in
#: bytes took 1.03 times as long at two threads. With 2 BERT took 1.13 times as long, as all weights are read
#: for each range.
FULL_TILES = 3
#: Pixels up to which weights are not prefetched.
FEW_PIXELS = 4


class Weights(NamedTuple):
    """Packed weights: `groups` matrices of `outs` channels, at `at` (an offset among the constants, or an
    address); and the bias that starts the accumulators, `bias_step` bytes a panel (0: one for all)."""

    groups: int
    outs: int
    sizes: PanelSizes
    at: int | Ptr
    bias: int
    bias_step: int
    lists: tuple[int, int, int] | None = None  # where the places and steps of `narrow.Listed` are; its runs
    picks: Picks | None = None

    def after(self, words: int) -> Weights:
        """Those behind the first `words` of each panel, where all are of one width."""
        nothing = not is_traced_number(words) and words == 0
        return self if nothing else self._replace(at=self.at + words * self.sizes.width * WORD)


class Picks(NamedTuple):
    """Which of `kinds` matrices a group is multiplied with: at `picks`, `picks_g` bytes from group to group,
    and a panel of zeros for indices that name none."""

    picks: Ptr
    picks_g: int
    kinds: int
    none: Ptr


class Sharing(NamedTuple):
    """What multiplies: tiles of `rows` pixels of a format, whose panels each chunk may unpack."""

    target: Target
    form: Format
    rows: int
    unpacks: bool

    def blocks(self, weights: Weights, pixels: int, panels: int, words: int) -> tuple[int, int, int, int]:
        """How chunks share the work: pixels of one and how many ranges of pixels there are, panels of one and
        how many ranges of panels."""
        rows = self.rows
        panel_bytes = weights.sizes.panel
        most = UNIT_PANEL_BYTES if self.form.on_unit else PANEL_BYTES
        pn_per = sym_max(1, sym_min(panels, most // sym_max(panel_bytes, 1)))
        if self.unpacks:
            pn_per = sym_max(1, sym_min(pn_per, panels // MOST_CHUNKS))
        pn_blocks = ceil_div(panels, pn_per)
        # Equal shares of pixels for two and four threads gain, by count, 0.3 to 1.4 % of quantized networks
        # at two threads. They lose as much and more at eight and sixteen. The last panel may have one vector,
        # but then takes little less.
        vectors, rate = self.target.tile_vectors, self.form.rate
        tile_flops = 2.0 * rows * vectors * words * self.form.group + TILE_FLOPS * rate
        flops = ceil_div(pixels, rows) * panels * weights.groups * tile_flops
        wanted = sym_min(MOST_CHUNKS, sym_max(1, sym_int(flops // (CHUNK_FLOPS * rate))))
        others = pn_blocks * sym_max(1, weights.groups)
        if self.form.on_unit:  # the last tile of a range has fewer pixels: ranges of panels have no such
            pn_blocks = sym_max(pn_blocks, sym_min(panels, ceil_div(wanted * FULL_TILES * rows, pixels)))
            pn_per = ceil_div(panels, pn_blocks)
            pn_blocks = ceil_div(panels, pn_per)
            others = pn_blocks * sym_max(1, weights.groups)
        px_blocks = sym_max(1, sym_min(ceil_div(pixels, rows), ceil_div(wanted, others)))
        if self.unpacks:
            px_blocks = sym_min(px_blocks, ceil_div(pixels, UNPACKED_FOR))
        px_per = sym_max(1, ceil_div(ceil_div(pixels, rows), px_blocks)) * rows
        return px_per, ceil_div(pixels, px_per), pn_per, pn_blocks

    def of(self, weights: Weights, pixels: int, words: int) -> tuple[Any, ...]:
        """The flops of a step, what `blocks` gives, the bytes that a word and a tile fetch ahead, and how
        many chunks there are."""
        rows, width = self.rows, weights.sizes.width
        flops = 2.0 * pixels * words * self.form.group * weights.outs * weights.groups
        blocks = self.blocks(weights, pixels, ceil_div(weights.outs, width), words)
        # All tiles together prefetch each panel of the next block once. Few rows read weights at the speed of
        # memory. Further requests then disturb the CPU's own prefetching (5 to 10 % at 1 row).
        ahead_step = ceil_div(width * WORD, sym_max(1, ceil_div(pixels, rows)))
        ahead_step = ahead_step * sym_min(1, pixels // (FEW_PIXELS + 1))
        return flops, *blocks, ahead_step, ahead_step * words, blocks[1] * blocks[3] * weights.groups
