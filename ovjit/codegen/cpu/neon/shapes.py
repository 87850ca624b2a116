"""Shapes of NEON's tiles.

A core starts two to four multiply-adds of four lanes in a cycle and each takes four cycles, so that 8 to 16
accumulators keep it busy; 24 of them leave 8 registers for weights and pixels. 12 pixels x 2 vectors of
channels read 16 times for 48 multiply-adds: two vectors of weights for each of two words of depth, and two
words of each pixel, by which lane for lane is multiplied.

| cores | tile | why |
|-------|------|-----|
| cortex-a72, neoverse-n1, neoverse-v1, apple-m1 | 12 x 8 | LLVM's models of them: `docs/benchmarks.md` |
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
#: Columns of a block of attention's scores.
COLUMNS = 512
