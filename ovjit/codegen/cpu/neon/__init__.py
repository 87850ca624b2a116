"""AArch64: intrinsics in NEON instructions, and the shapes of tiles.

`words.py`: LLVM code of the intrinsics for which NEON has instructions. All others have the code of any CPU,
for which LLVM selects instructions. `shapes.py`: heights of tiles and numbers of rows and pixels.

NEON has 32 registers of 128 bits. Optional features are in `targets.EXTRA`:

| feature | instructions | used by |
|---------|--------------|---------|
| lse     | ldadd, cas   | the runner's atomics |
| dotprod | sdot         | products of bytes; u8 data become i8 by an exclusive or when they are loaded |
| i8mm    | usmmla, usdot, sudot | products of bytes, unchanged |
| bf16    | bfmmla, bfdot, bfcvtn | products of bf16, and rounding to bf16 |
| fp16fml | fmlal, fmlal2 | products of f16 with sums in f32 |
"""
