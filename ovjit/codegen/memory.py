"""Sizes that kernels and planning share: bytes of element types, numbers of dimensions.

This module does not import the code generators, which a start with cached kernels and plans never loads.
"""

#: Bytes of each element type in memory.
SIZE = {
    "boolean": 1, "i8": 1, "u8": 1, "i16": 2, "u16": 2, "f16": 2, "bf16": 2, "i32": 4, "u32": 4, "f32": 4,
    "i64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
#: Dimensions over which `placed` finds rows. It adds the arguments d0 .. d2, their extents, and for each
#: tensor t the byte strides t_0 .. t_2. Further dimensions are merged or copied before.
DIMS = 3
#: The same for items that count through `...` (`ovjit.codegen.tensors`), where one more costs nothing.
WALKED = 4
