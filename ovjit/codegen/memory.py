"""Sizes that kernels and planning share: bytes of element types, dimensions that a kernel walks.

Nothing here imports the code generators: a start whose kernels and plans are cached never loads those.
"""

from __future__ import annotations

#: Bytes of each element type in memory.
SIZE = {
    "boolean": 1, "i8": 1, "u8": 1, "i16": 2, "u16": 2, "f16": 2, "bf16": 2, "i32": 4, "u32": 4, "f32": 4,
    "i64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
#: Dimensions of rows that a kernel finds: `placed` adds the arguments d0 .. d2, their extents, and for each
#: tensor t its byte strides t_0 .. t_2. More dimensions are merged or copied before.
DIMS = 3
#: The same of items that count through `...` (`ovjit.codegen.tensors`), where one more costs nothing.
WALKED = 4
