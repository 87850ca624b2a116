"""Shapes of NEON's tiles.

A core starts two to four multiply-adds of four lanes in a cycle and each takes four cycles, so that 8 to 16
accumulators keep it busy; 24 of them leave 8 registers for weights and pixels. 12 pixels x 2 vectors of
channels read 16 times for 48 multiply-adds: two vectors of weights for each of two words of depth, and two
words of each pixel, by which lane for lane is multiplied.

One shape is for all cores, so that none is asked which it is: panels of weights have one width. In f32, by
LLVM's descriptions of ten cores, no other is faster by more than a hundredth, but 5 x 4 vectors on a
neoverse-n1 that would decode three instructions in a cycle. Of bytes by sdot these would reach 1.00 of an
apple-m1's rate instead of 0.91. `python -m bench.aarch64_model --shapes`
"""

from __future__ import annotations

#: Heights of tiles of products, see `ovjit.tiles.driver`.
TILES = (12, 8, 4, 1)
#: Heights of tiles of four vectors for recurrent layers.
RECURRENT = (6, 3, 1)
#: Rows of plain products, with up to two vectors of columns.
PLAIN = 12
#: Pixels of depthwise convolutions; without masks; with a part of the taps in the code.
PIXELS, WHOLE_PIXELS, PARTED = 4, (8, 4, 1), (8, 4, 2, 1)
