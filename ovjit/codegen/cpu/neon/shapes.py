"""Shapes of NEON's tiles.

A core starts two to four multiply-adds of four lanes per cycle, and each takes four cycles, so that 8 to 16
accumulators keep it busy. 24 accumulators leave 8 registers for weights and pixels. A tile of 12 pixels x 2
vectors of channels has 16 loads per 48 multiply-adds: two vectors of weights for each of two words of depth,
and two words of each pixel, which are lane operands.

All cores use one shape, so that panels of weights have one width. In f32, by LLVM's models of ten cores, no
other shape is faster by more than 1 %, except 5 x 4 vectors on a neoverse-n1 if it decoded three instructions
per cycle. For bytes with sdot, that shape would reach 1.00 of the peak of an apple-m1 instead of 0.91. See
`python -m bench.aarch64_model --shapes`.
"""

from __future__ import annotations

#: Heights of tiles of products, see `ovjit.tiles.driver`.
TILES = (12, 8, 4, 1)
#: The same for f32. A step's weights take 8 registers, 11 pixels 22, and what is loaded of pixels two.
REALS = (11, 8, 4, 1)
#: Heights of tiles of four vectors for recurrent layers.
RECURRENT = (6, 3, 1)
#: Rows of plain products, with up to two vectors of columns.
PLAIN = 12
#: Pixels of depthwise convolutions: with masks; without masks; with some of the taps unrolled.
PIXELS, WHOLE_PIXELS, PARTED = 4, (8, 4, 1), (8, 4, 2, 1)
