#!/bin/sh
# libvips: -3.75 is rounded to -3 and 3.75 to 4, so blurs and shrinks lift negative pixels; 3000000000 cast to a byte is 0, where 255 is right.
#
# Versions: pyvips 3.2.0, pyvips-binary 8.18.7, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Integer images of libvips may have negative pixels (char, short, int), as differences, elevations and CT have.
# - conv with precision="integer", gaussblur with it (its default) and shrink add half of the divisor and cut off. That rounds positive numbers,
#   and for negative ones it is the next larger number: -3.75 is -3, -2.25 is -1. A blurred negative image is not the negative of the
#   blurred image. gaussblur does so twice: a level area of -15 is -13 afterwards, and one of 15 is 15. precision="float" is right. shrink has no such option.
# - cast saturates: 300 is 255 in a byte, as the documentation says. From uint, numbers of 2147483648 and more are read as signed ones: 3000000000 is 0 as uchar
#   and -32768 as short. Below it, and from float and double, all is right. Every uint but the largest one is also "less than -1".
# NumPy and libvips's own float images agree against these. Nothing warns. No report of these was found.
#
# Output seen on 2026-11-30:
#   conv, sum / 4 int16  exact [-3.75, -3.75, -3.75, -3.75, -2.25, -2.25, -0.75, -0.25]
#                        libvips [-3, -3, -3, -3, -1, -1, 0, 0]
#   conv, sum / 4 int32  exact [-3.75, -3.75, -3.75, -3.75, -2.25, -2.25, -0.75, -0.25]
#                        libvips [-3, -3, -3, -3, -1, -1, 0, 0]
#   gaussblur     int16  exact [-15.0, -15.0, -14.28, -12.88, -10.4, -7.36, -4.18, -1.48]
#                        libvips [-13, -13, -12, -11, -8, -5, -2, 0]
#   gaussblur     int32  exact [-15.0, -15.0, -14.28, -12.88, -10.4, -7.36, -4.18, -1.48]
#                        libvips [-13, -13, -12, -11, -8, -5, -2, 0]
#   shrink        int16  exact [-15.0, -5.5, 5.5, 15.0]
#                        libvips [-14, -5, 6, 15]
#   shrink        int32  exact [-15.0, -5.5, 5.5, 15.0]
#                        libvips [-14, -5, 6, 15]
#   uint to uchar  right [5, 255, 255, 255, 255, 255]                                       libvips [5, 255, 255, 0, 0, 0]
#   uint to ushort right [5, 300, 65535, 65535, 65535, 65535]                               libvips [5, 300, 65535, 0, 0, 0]
#   uint to short  right [5, 300, 32767, 32767, 32767, 32767]                               libvips [5, 300, 32767, -32768, -32768, -1]
#   uint to int    right [5, 300, 2147483647, 2147483647, 2147483647, 2147483647]           libvips [5, 300, 2147483647, 2147483647, 2147483647, 2147483647]
#   uint < -1      [True, True, True, True, True, False]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q pyvips==3.2.0 pyvips-binary==8.18.7 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import pyvips

VALUES = np.array([-15, -15, -15, -15, -9, -9, -3, -1, 1, 3, 9, 9, 15, 15, 15, 15])


def image(values, dtype):
    return pyvips.Image.new_from_array(np.array([values], dtype))


def row(picture):
    return picture.numpy().ravel().astype(float)


quarter = pyvips.Image.new_from_array([[1]], scale=4)
FILTERS = {
    "conv, sum / 4": lambda x, precision: x.conv(quarter, precision=precision),
    "gaussblur": lambda x, precision: x.gaussblur(1.5, precision=precision),
    "shrink": lambda x, precision: x.shrink(4, 1),
}
for title, function in FILTERS.items():
    exact = row(function(image(VALUES, np.float64), "float"))
    for dtype in (np.int16, np.int32):
        found = row(function(image(VALUES, dtype), "integer"))
        print(f"{title:13} {np.dtype(dtype).name}  exact {exact[:8].round(2).tolist()}")
        print(f"{'':13} {'':5}  libvips {found[:8].astype(int).tolist()}")
        assert (abs(found - exact)[exact > 0] < 1).all() and (found - exact)[exact < 0].max() >= (0.4 if title == "shrink" else 0.7), f"{title} has changed"
        opposite = row(function(image(-VALUES, dtype), "integer"))
        assert not np.array_equal(opposite, -found), f"{title} has changed"
assert np.array_equal(row(FILTERS["conv, sum / 4"](image(VALUES, np.int16), "integer")), np.trunc((VALUES + 2) / 4)), "conv has changed"

numbers = np.array([5, 300, 2**31 - 1, 2**31, 3 * 10**9, 2**32 - 1])
for target, dtype in (("uchar", np.uint8), ("ushort", np.uint16), ("short", np.int16), ("int", np.int32)):
    limits = np.iinfo(dtype)
    right = np.clip(numbers, limits.min, limits.max)
    found = row(image(numbers, np.uint32).cast(target)).astype(int)
    assert np.array_equal(row(image(numbers, np.float64).cast(target)), right), "casts of double have changed"
    print(f"uint to {target:6} right {right.tolist()!s:66} libvips {found.tolist()}")
    wrong = (numbers >= 2**31) & (target != "int")
    assert np.array_equal(found != right, wrong), f"casts to {target} have changed"
below = row(image(numbers, np.uint32) < -1)
print(f"uint < -1      {below.astype(bool).tolist()}")
assert np.array_equal(below.astype(bool), numbers < 2**32 - 1), "the comparison has changed"
PYTHON
