"""Shapes of NEON's tiles.

A core starts one to four multiply-adds of four lanes per cycle, and each takes four cycles. So 8 to 16
accumulators keep it busy. 24 accumulators leave 8 registers for weights and pixels: two vectors of weights
for each of two words of depth, and two words of a pixel, which are lane operands. In f32 22 accumulators
leave 10: the weights of four words, and two pixels, each of which is loaded four words at a time.

All cores use the same shapes, so that panels of weights have one width. These rates are from LLVM's models of
cortex-a72, neoverse-n1, neoverse-v1 and apple-m1. Full tiles of f32 reach 0.98 or more of the core's rate.
Tiles of bytes whose pixels are copied reach 1.00. See `python -m bench.aarch64_model --shapes`.
"""

#: Heights of tiles of products, see `ovjit.tiles.driver`.
TILES = (12, 8, 4, 1)
#: The same for f32.
REALS = (11, 8, 4, 1)
#: Heights of tiles of four vectors for recurrent layers.
RECURRENT = (6, 3, 1)
#: Rows of plain products, with up to two vectors of columns.
PLAIN = 12
#: Pixels of depthwise convolutions: with masks; without masks; with some of the taps unrolled.
PIXELS, WHOLE_PIXELS, PARTED = 4, (8, 4, 1), (8, 4, 2, 1)
