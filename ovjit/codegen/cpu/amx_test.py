"""The test of a machine's matrix unit: before it is used, its bits are compared with those of `amx`.

An emulator or a hypervisor may round otherwise than the manual says. The verdict is kept with the kernels in
the cache, by the CPU's name and by the code that was tested.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ovjit import logs
from ovjit.codegen import shipped
from ovjit.codegen.cpu import objects
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.versions import code_digest, file_digest, versions
from ovjit.disk.kernel_cache import default_cache
from ovjit.hashes import sha256
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    import numpy as np

#: CPU feature -> the format whose products it has.
FORMATS = {"amx-bf16": "bf16", "amx-int8": "u8i8"}
_AGREES, _DIFFERS = b"the matrix unit agrees", b"the matrix unit differs"
#: Products that are compared, and the bytes of a tile.
PRODUCTS, _TILE = 12, 1024
#: a, b and c are arrays of tiles: c[i] += a[i] * b[i]
SOURCE = """@njit(nogil=True)
def kernel(a, b, c, count):
    tile_begin(16)
    i = 0
    while i < count:
        tile_load_0(c + i * 1024, 64)
        tile_load_4(a + i * 1024, 64)
        tile_load_6(b + i * 1024, 64)
        tile_multiply_0_4_6()
        tile_store_0(c + i * 1024, 64)
        i += 1
    tile_end()
    return 0
"""


class Tested(NamedTuple):
    """What is run for a feature, as a kernel's parts: its key and its format."""

    key: str
    form: str

    def words(self, isa: Target) -> Mapping[str, Any]:
        from ovjit.codegen.cpu.amx import intrinsics

        return intrinsics(self.form.removeprefix("amx_"))

    def name(self, target: Target) -> str:
        """The name under which its code comes with ovjit."""
        return shipped.content_key(SOURCE, self.key, self.form, file_digest(self.words), target)

    def address(self, target: Target) -> int:
        """Where its code is, which came with ovjit or is made now."""
        symbol = f"ovjit_{self.name(target)}"
        if objects.address_of(symbol) is None:
            code = shipped.find(self.name(target), target)
            if code is None:
                from ovjit.codegen.cpu import jit

                least = shipped.needed_by(SOURCE, self.key, self.form, target)
                code = jit.object_code(SOURCE, symbol, least, self.words(least), shipped.SYMBOL)
            objects.load(symbol, code.replace(shipped.SYMBOL.encode(), symbol.encode()))
        return objects.loaded(symbol)


def tested(feature: str) -> Tested:
    return Tested(f"test {feature}", f"amx_{FORMATS[feature]}")


def failing(features: Collection[str], target: Target, cpu: Any) -> frozenset[str]:
    """Those of the features whose products do not have the bits that they should. `target` has them all;
    `cpu` names this CPU."""
    return frozenset(feature for feature in features if not _agrees(feature, target, cpu))


def _agrees(feature: str, target: Target, cpu: Any) -> bool:
    parts = (tested(feature).name(target), cpu, *versions(), code_digest())
    key = f"tested_{sha256(repr(parts).encode()).hexdigest()[:40]}"
    verdict = default_cache().get(key)
    if verdict not in (_AGREES, _DIFFERS):
        verdict = _AGREES if differences(feature, target) == 0 else _DIFFERS
        default_cache().put(key, verdict, {"name": f"the test of {feature}"})
    if verdict == _DIFFERS:
        logs.warning("%s is not used: its products have other bits here than they should", feature)
    return verdict == _AGREES


def differences(feature: str, target: Target) -> int:
    """How many sums have other bits than `amx` computes."""
    import numpy as np

    from ovjit.codegen.cpu import amx

    left, right, sums = operands(feature)
    given = np.concatenate([sums, left, right]).view(np.uint8)
    memory = np.zeros(given.nbytes + 64, np.uint8)
    base = -memory.ctypes.data % 64
    memory[base:][: given.nbytes] = given.reshape(-1)
    c = memory.ctypes.data + base
    run = objects.function(tested(feature).address(target), 4)
    run(c + PRODUCTS * _TILE, c + 2 * PRODUCTS * _TILE, c, PRODUCTS)
    got = memory[base:][: PRODUCTS * _TILE].view(np.int32).reshape(-1, amx.ROWS, amx.ROWS)
    multiply = functools.partial(amx.multiply_tiles, FORMATS[feature])
    want = [multiply(*tiles).view(np.int32) for tiles in zip(sums, left, right, strict=True)]
    return int((got != np.stack(want)).sum())


def operands(feature: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles [PRODUCTS, 16, 64 bytes]: left, right, sums. Of bf16 exponents near each other, far apart and
    where products and sums are subnormal."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (PRODUCTS, 16, 64)
    left, right, sums = (rng.integers(0, 256, shape, np.uint8) for _ in range(3))
    if FORMATS[feature] != "bf16":
        return left, right, sums
    spread = np.resize((2, 30, 60), PRODUCTS).reshape(-1, 1, 1)
    middle = np.resize((127, 127, 127, 64, 64), PRODUCTS).reshape(-1, 1, 1)

    def numbers(bits: np.ndarray, kind: type, fraction: int) -> np.ndarray:
        exponents = middle + rng.integers(-spread, spread + 1, bits.shape)
        kept = bits & ~np.asarray(0xFF << fraction, kind)
        return (kept | (exponents.clip(0, 200).astype(kind) << fraction)).view(np.uint8)

    made = [numbers(x.view(np.uint16), np.uint16, 7) for x in (left, right)]
    return made[0], made[1], numbers(sums.view(np.uint32), np.uint32, 23)
