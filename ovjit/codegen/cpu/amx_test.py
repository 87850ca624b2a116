"""The test of a machine's matrix unit: before its first use, its results are compared with `amx` bit by bit.

An emulator or a hypervisor may round differently from the manual. The verdict is stored in the cache of
kernels, per CPU name and tested code.
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

#: CPU feature -> format of its products.
FORMATS = {"amx-bf16": "bf16", "amx-int8": "u8i8"}
_AGREES, _DIFFERS = b"the matrix unit agrees", b"the matrix unit differs"
#: The number of compared products, and the bytes of a tile.
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
    """The parts of the test kernel of a feature: key and format."""

    key: str
    form: str

    def words(self, isa: Target) -> Mapping[str, Any]:
        from ovjit.codegen.cpu.amx import intrinsics

        return intrinsics(self.form.removeprefix("amx_"))

    def name(self, target: Target) -> str:
        """The name of its code among shipped kernels."""
        return shipped.content_key(SOURCE, self.key, self.form, file_digest(self.words), target)

    def address(self, target: Target) -> int:
        """The address of its code, which is shipped or compiled now."""
        symbol = f"ovjit_{self.name(target)}"
        if objects.address_of(symbol) is None:
            code = shipped.find(self.name(target), target)
            if code is None:
                from ovjit.codegen.cpu import jit

                least = shipped.needed_by(SOURCE, self.key, self.form, target)
                code = jit.object_code(SOURCE, symbol, least, self.words(least), shipped.SYMBOL)
            objects.load(symbol, code.replace(shipped.SYMBOL.encode(), symbol.encode()))
        return objects.loaded_address(symbol)


def test_of(feature: str) -> Tested:
    return Tested(f"test {feature}", f"amx_{FORMATS[feature]}")


def failing(features: Collection[str], target: Target, cpu: Any) -> frozenset[str]:
    """The features whose products have wrong bits. `target` has all of them; `cpu` names this CPU."""
    return frozenset(feature for feature in features if not _agrees(feature, target, cpu))


def _agrees(feature: str, target: Target, cpu: Any) -> bool:
    parts = (test_of(feature).name(target), cpu, *versions(), code_digest())
    key = f"tested_{sha256(repr(parts).encode()).hexdigest()[:40]}"
    verdict = default_cache().get(key)
    if verdict not in (_AGREES, _DIFFERS):
        verdict = _AGREES if differences(feature, target) == 0 else _DIFFERS
        default_cache().write(key, verdict, {"name": f"the test of {feature}"})
    if verdict == _DIFFERS:
        logs.warning(
            "the CPU feature %s is not used: its products differ from the reference on this machine", feature
        )
    return verdict == _AGREES


def differences(feature: str, target: Target) -> int:
    """The number of sums whose bits differ from those that `amx` computes."""
    import numpy as np

    from ovjit.codegen.cpu import amx

    lhs, rhs, sums = operands(feature)
    inputs = np.concatenate([sums, lhs, rhs]).view(np.uint8)
    memory = np.zeros(inputs.nbytes + 64, np.uint8)
    base = -memory.ctypes.data % 64
    memory[base:][: inputs.nbytes] = inputs.reshape(-1)
    c = memory.ctypes.data + base
    run = objects.function(test_of(feature).address(target), 4)
    run(c + PRODUCTS * _TILE, c + 2 * PRODUCTS * _TILE, c, PRODUCTS)
    got = memory[base:][: PRODUCTS * _TILE].view(np.int32).reshape(-1, amx.ROWS, amx.ROWS)
    multiply = functools.partial(amx.multiply_tiles, FORMATS[feature])
    want = [multiply(*tiles).view(np.int32) for tiles in zip(sums, lhs, rhs, strict=True)]
    return int((got != np.stack(want)).sum())


def operands(feature: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles [PRODUCTS, 16, 64 bytes]: left and right operands, sums. For bf16, exponents are close together,
    far apart, or such that products and sums are subnormal."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (PRODUCTS, 16, 64)
    lhs, rhs, sums = (rng.integers(0, 256, shape, np.uint8) for _ in range(3))
    if FORMATS[feature] != "bf16":
        return lhs, rhs, sums
    spread = np.resize((2, 30, 60), PRODUCTS).reshape(-1, 1, 1)
    middle = np.resize((127, 127, 127, 64, 64), PRODUCTS).reshape(-1, 1, 1)

    def numbers(bits: np.ndarray, kind: type, fraction: int) -> np.ndarray:
        exponents = middle + rng.integers(-spread, spread + 1, bits.shape)
        sign_and_fraction = bits & ~np.asarray(0xFF << fraction, kind)
        return (sign_and_fraction | (exponents.clip(0, 200).astype(kind) << fraction)).view(np.uint8)

    tiles = [numbers(x.view(np.uint16), np.uint16, 7) for x in (lhs, rhs)]
    return tiles[0], tiles[1], numbers(sums.view(np.uint32), np.uint32, 23)
