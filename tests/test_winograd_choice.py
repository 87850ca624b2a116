"""Which way 3x3 convolutions go: shapes of which one way was clearly the fastest where it was measured, with
everything in the caches and with nothing there."""

from __future__ import annotations

import pytest

from ovjit.tiles.formats import BF16, F32, Format
from ovjit_ops.convolution.cpu_winograd import best_way

LANES = 16
#: (format, channels, height, width, outs), and the ways that were not slower than any other.
CASES = [
    (F32, (64, 56, 56, 64), (4,)), (F32, (128, 28, 28, 128), (4,)), (F32, (256, 14, 14, 256), (2,)),
    (F32, (64, 56, 56, 192), (4,)), (F32, (128, 27, 27, 192), (4,)), (F32, (48, 28, 28, 48), (4,)),
    (F32, (160, 13, 13, 320), (2, 4)), (F32, (512, 7, 7, 512), (0, 2)), (F32, (192, 7, 7, 320), (0, 2)),
    (F32, (32, 112, 112, 32), (4,)), (F32, (32, 224, 224, 32), (4,)),
    # little to multiply: transforms and two more steps are most of it
    (F32, (16, 7, 7, 16), (0,)), (F32, (24, 7, 7, 24), (0,)), (F32, (16, 14, 14, 16), (0,)),
    (F32, (16, 14, 14, 32), (0,)), (F32, (17, 14, 14, 33), (0,)),
    # planes go through memory, and a panel of one vector makes the direct way fast
    (F32, (16, 224, 224, 16), (0,)), (F32, (16, 112, 112, 16), (0,)),
    (BF16, (192, 6, 6, 384), (2,)), (BF16, (160, 14, 14, 192), (2,)), (BF16, (96, 13, 13, 208), (2,)),
    (BF16, (16, 14, 14, 16), (0,)), (BF16, (16, 28, 28, 16), (0,)), (BF16, (16, 56, 56, 16), (0,)),
    (BF16, (24, 56, 56, 24), (0,)), (BF16, (16, 112, 112, 16), (0,)), (BF16, (16, 224, 224, 16), (0,)),
    (BF16, (32, 224, 224, 32), (0,)), (BF16, (16, 55, 55, 64), (0,)),
]  # fmt: skip


@pytest.mark.parametrize(("form", "shape", "ways"), CASES)
def test_the_fastest_way_is_chosen(form: Format, shape: tuple[int, ...], ways: tuple[int, ...]) -> None:
    channels, height, width, outs = shape
    assert best_way(1, height, width, channels, outs, LANES, form) in ways


@pytest.mark.parametrize("form", [F32, BF16])
def test_any_extents_have_a_way(form: Format) -> None:
    for size in (0, 1, 2, 1 << 20, 1 << 40):
        for channels, outs in ((16, 16), (17, 1 << 30), (1 << 30, 31)):
            assert best_way(size, size, size, channels, outs, LANES, form) in (0, 2, 4)
