"""Packed weights, and the partition of products into chunks."""

from __future__ import annotations

from ovjit.codegen.cpu.formats import WORD, Format
from ovjit.codegen.cpu.targets import Target
from ovjit.graph.symbolic import sym_int, sym_max, sym_min
from ovjit.graph.traced import is_traced_number
from ovjit.planning.plan import ceil_div
from ovjit.planning.views import Ptr
from ovjit.records import NamedTuple
from ovjit.tiles.pack import PanelSizes

#: Bytes of weights per chunk, such that they stay in a core's second-level cache. With a matrix unit the
#: weights that are prefetched for the next chunk have to fit, too. A product of 64 rows by 50,257 columns
#: then took 0.68 of the time, one of 256 rows 0.96.
PANEL_BYTES, UNIT_PANEL_BYTES = 384 * 1024, 192 * 1024
#: The same if the weights of a step exceed PANEL_BYTES, since those of the next chunk are prefetched: CPUs
#: with AVX2 have a second-level cache of 256 or 512 KB. On a Zen 3, products of BERT's sizes in f32 take 0.95
#: to 0.98 of the time; weights of 256 KB in two parts took 1.07, as the pixels are read twice.
NEXT_PANEL_BYTES = {"avx2": 192 * 1024}
#: Floating-point operations of a chunk per lane of a vector, about 4 us (see `Format.rate`); and those that
#: take as long as the address table and the epilogue of a tile.
CHUNK_FLOPS, TILE_FLOPS = 62_500, 800
MOST_CHUNKS = 32
#: Minimum of pixels for which a chunk unpacks a panel; chunks have fewer panels instead. With 64 pixels in
#: four ranges, unpacking took a third of the time of a product of depth 512 on AVX2.
UNPACKED_FOR = 128
#: Minimum of a matrix unit's tiles in a range of pixels; chunks have fewer panels instead. With 8, ResNet-50
#: in bytes took 1.03 times as long at two threads. With 2, BERT took 1.13 times as long, as each range reads
#: all weights.
FULL_TILES = 3
#: Tiles of pixels from which on a number of ranges of pixels is made even.
EVEN_FROM = 4


class Weights(NamedTuple):
    """Packed weights: `groups` matrices of `outs` channels at `at`, an offset in the constants or an address.
    `bias`: offset of the accumulators' start values, `bias_step` bytes per panel (0: all panels share one).
    """

    groups: int
    outs: int
    sizes: PanelSizes
    at: int | Ptr
    bias: int
    bias_step: int
    lists: tuple[int, int, int] | None = None  # offsets of `narrow.Listed.word_offsets` and `steps`; runs
    picks: Picks | None = None

    def after(self, words: int) -> Weights:
        """The weights without the first `words` of each panel. Requires panels of one width."""
        nothing = not is_traced_number(words) and words == 0
        return self if nothing else self._replace(at=self.at + words * self.sizes.width * WORD)


class Picks(NamedTuple):
    """Selects one of `kinds` matrices for each group, by indices at `picks`, `picks_g` bytes apart. `none`: a
    panel of zeros for indices out of range."""

    picks: Ptr
    picks_g: int
    kinds: int
    none: Ptr


class Division(NamedTuple):
    """The chunks of a step, and what tiles prefetch."""

    pixels_per_chunk: int
    pixel_chunks: int
    panels_per_chunk: int
    panel_chunks: int
    #: Bytes of weights that a word and a tile prefetch.
    ahead_step: int
    tile_ahead: int

    def chunks(self, groups: int) -> int:
        return self.pixel_chunks * self.panel_chunks * groups


class Sharing(NamedTuple):
    """The tiles of a product: `rows` pixels, a format, and whether each chunk unpacks its panels. `even`:
    whether the steps before and after have chunks of pixels. Then ranges of pixels are of an even number, so
    that two threads find their own pixels in their caches."""

    target: Target
    form: Format
    rows: int
    unpacks: bool
    even: bool = False

    def blocks(self, weights: Weights, pixels: int, panels: int, words: int) -> tuple[int, int, int, int]:
        """The partition into chunks: pixels per chunk and number of pixel ranges, panels per chunk and number
        of panel ranges."""
        rows = self.rows
        panel_bytes = weights.sizes.panel
        most = UNIT_PANEL_BYTES if self.form.on_unit else PANEL_BYTES
        in_all = panels * panel_bytes
        if not is_traced_number(in_all) and in_all > most:
            most = NEXT_PANEL_BYTES.get(self.target.name, most)
        panels_per_chunk = sym_max(1, sym_min(panels, most // sym_max(panel_bytes, 1)))
        if self.unpacks:
            panels_per_chunk = sym_max(1, sym_min(panels_per_chunk, panels // MOST_CHUNKS))
        panel_chunks = ceil_div(panels, panels_per_chunk)
        # Equal shares of pixels for two and four threads gain, by count, 0.3 to 1.4 % of quantized networks
        # at two threads. They lose as much and more at eight and sixteen. The last panel may have one vector,
        # but then takes little less.
        vectors, rate = self.target.tile_vectors, self.form.rate
        tile_flops = 2.0 * rows * vectors * words * self.form.group + TILE_FLOPS * rate
        flops = ceil_div(pixels, rows) * panels * weights.groups * tile_flops
        chunks = sym_min(MOST_CHUNKS, sym_max(1, sym_int(flops // (CHUNK_FLOPS * rate))))
        others = panel_chunks * sym_max(1, weights.groups)
        if self.form.on_unit:  # the last tile of a range has fewer pixels: ranges of panels have no such
            panel_chunks = sym_max(
                panel_chunks, sym_min(panels, ceil_div(chunks * FULL_TILES * rows, pixels))
            )
            panels_per_chunk = ceil_div(panels, panel_chunks)
            panel_chunks = ceil_div(panels, panels_per_chunk)
            others = panel_chunks * sym_max(1, weights.groups)
        pixel_chunks = sym_max(1, sym_min(ceil_div(pixels, rows), ceil_div(chunks, others)))
        if self.unpacks:
            pixel_chunks = sym_min(pixel_chunks, ceil_div(pixels, UNPACKED_FOR))
        if self.even and not is_traced_number(pixels) and pixels >= EVEN_FROM * rows:
            pixel_chunks += pixel_chunks % 2
        pixels_per_chunk = sym_max(1, ceil_div(ceil_div(pixels, rows), pixel_chunks)) * rows
        return pixels_per_chunk, ceil_div(pixels, pixels_per_chunk), panels_per_chunk, panel_chunks

    def division(self, weights: Weights, pixels: int, words: int) -> Division:
        rows, width = self.rows, weights.sizes.width
        blocks = self.blocks(weights, pixels, ceil_div(weights.outs, width), words)
        # All tiles together prefetch each panel of the next block once. Requests of a single row disturb the
        # CPU's own prefetching (5 to 10 %). 2 to 4 rows take 0.8 of the time with them.
        ahead_step = ceil_div(width * WORD, sym_max(1, ceil_div(pixels, rows))) * sym_min(1, pixels // 2)
        return Division(*blocks, ahead_step, ahead_step * words)
