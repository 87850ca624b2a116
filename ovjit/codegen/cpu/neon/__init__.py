"""AArch64: intrinsics in NEON's instructions, and the shapes of tiles.

`words.py`: LLVM text of the intrinsics that NEON has instructions for. All others are printed as on any CPU,
and LLVM finds their instructions. `shapes.py`: heights of tiles and numbers of rows and pixels.

NEON has 32 registers of 128 bits. Beyond it code uses the features in `targets.EXTRA`:

| feature | instructions | used by |
|---------|--------------|---------|
| lse     | ldadd, cas   | the runner's atomics |
| dotprod | sdot         | products of bytes; data become signed by an exclusive or when they are loaded |
| i8mm    | usmmla, usdot, sudot | products of bytes, unchanged |
| bf16    | bfmmla, bfdot, bfcvtn | products of bf16, and rounding to it |
| fp16fml | fmlal, fmlal2 | products of f16 that are added in f32 |
"""
