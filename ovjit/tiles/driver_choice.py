"""The kernel of products for a format: the driver of vector tiles, or that of a matrix unit."""

from __future__ import annotations

from ovjit.codegen.cpu.formats import Format
from ovjit.codegen.cpu.ir import Epilogue
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel
from ovjit.tiles.compressed import Unpack
from ovjit.tiles.driver import tile_kernel


def driver_kernel(
    name: str,
    epilogue: Epilogue,
    isa: Target,
    form: Format,
    unpack: Unpack | None = None,
    picked: bool = False,
    gathered: bool = False,
) -> Kernel:
    """The driver for one epilogue and format, of a matrix unit or of vectors: see `tile_kernel`."""
    if not form.on_unit:
        return tile_kernel(name, epilogue, isa, form, unpack=unpack, picked=picked, gathered=gathered)
    from ovjit.tiles.matrix import unit_kernel

    return unit_kernel(name, epilogue, isa, form, unpack, picked)
