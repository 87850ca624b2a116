from ovjit.codegen.cpu.targets import target_of
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.tiles.driver import tile_kernel
k = tile_kernel("t", Epilogue(None, [], "f32"), target_of("avx2"))
print(k.source)
