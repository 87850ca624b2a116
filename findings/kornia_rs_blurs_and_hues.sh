#!/bin/sh
# kornia-rs: gaussian_blur of 3 x 3 is one and the same filter for every sigma from 0.6 to 1.2, and HSV and HLS mix two units in one picture.
#
# Versions: kornia-rs 0.2.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# - gaussian_blur(image, (3, 3), (sigma, sigma)) of bytes has the weights [1, 2, 1] / 4 in both directions for each sigma between 0.6 and 1.2, also if
#   the two sigmas differ. A point of 255 leaves 118 in its place with sigma 0.59, and 64 with 0.60, where 114 is right; between 1.20 and
#   1.21 it falls by twenty. A search for the best sigma sees two steps and a plateau. Other sizes and sigmas have the weights of
#   the bell curve to one level.
# - hsv_from_rgb and hls_from_rgb take float32. Hue and saturation come out from 0 to 255 whatever the range of the picture is, value and
#   lightness in the picture's own range. For a picture from 0 to 1, as normalized pictures are, the third (second) channel goes to 1 and the
#   others to 255; a mean over channels, or a division by 255, treats them alike. Its documentation has "H,S,V in [0,255]".
# - sepia_from_rgb of white gives 344, and is not cut off at 255 as adjust_brightness and add_weighted are.
# Nothing warns. No report of these was found.
#
# Output seen on 2026-11-29:
#   3 x 3, sigma  0.5   right  157.9   kornia-rs 159.0
#   3 x 3, sigma 0.59   right  117.1   kornia-rs 118.0
#   3 x 3, sigma  0.6   right  113.5   kornia-rs  64.0
#   3 x 3, sigma  0.8   right   69.5   kornia-rs  64.0
#   3 x 3, sigma  1.0   right   52.1   kornia-rs  64.0
#   3 x 3, sigma  1.2   right   43.8   kornia-rs  64.0
#   3 x 3, sigma 1.21   right   43.5   kornia-rs  44.0
#   3 x 3, sigma  2.0   right   33.4   kornia-rs  33.0
#   5 x 5, sigma  0.6   right  112.4   kornia-rs 112.0
#   5 x 5, sigma  1.0   right   41.3   kornia-rs  41.0
#   HSV of red and blue, 0 to 1 [[0.0, 255.0, 1.0], [170.0, 255.0, 1.0]]   0 to 255 [[0.0, 255.0, 255.0], [170.0, 255.0, 255.0]]
#   HLS of red and blue, 0 to 1 [[0.0, 0.5, 255.0], [170.0, 0.5, 255.0]]   0 to 255 [[0.0, 127.5, 255.0], [170.0, 127.5, 255.0]]
#   sepia of white [344.5, 306.79998779296875, 238.89999389648438]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q kornia-rs==0.2.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from kornia_rs import imgproc

point = np.zeros((9, 9, 1), np.uint8)
point[4, 4] = 255


def bell(size, sigma):
    places = np.arange(size) - size // 2
    weights = np.exp(-(places**2) / (2 * sigma**2))
    return weights / weights.sum()


def blur(size, sigmas):
    """Return the point after blurring, and what the weights of the bell curve give, float [size, size] each."""
    found = imgproc.gaussian_blur(point, (size, size), sigmas)[..., 0].astype(float)
    half = size // 2
    right = 255 * np.outer(bell(size, sigmas[1]), bell(size, sigmas[0]))
    return found[4 - half : 5 + half, 4 - half : 5 + half], right


binomial = 255 * np.outer([1, 2, 1], [1, 2, 1]) / 16
for size, sigma in ((3, 0.5), (3, 0.59), (3, 0.6), (3, 0.8), (3, 1.0), (3, 1.2), (3, 1.21), (3, 2.0), (5, 0.6), (5, 1.0)):
    found, right = blur(size, (sigma, sigma))
    same = abs(found - right).max() < 2
    middle = size // 2
    print(f"{size} x {size}, sigma {sigma:4}   right {right[middle, middle]:6.1f}   kornia-rs {found[middle, middle]:5.1f}")
    plateau = size == 3 and 0.6 <= sigma <= 1.2
    assert (abs(found - binomial).max() < 1) if plateau else same, f"sigma {sigma} has changed"
assert np.array_equal(blur(3, (0.65, 1.15))[0], blur(3, (1.0, 1.0))[0]), "the behaviour has changed"

colours = np.array([[[1, 0, 0], [0, 0, 1], [1, 1, 1]]], np.float32)
for name, convert, own in (("HSV", imgproc.hsv_from_rgb, 2), ("HLS", imgproc.hls_from_rgb, 1)):
    unit, byte = convert(colours), convert(255 * colours)
    print(f"{name} of red and blue, 0 to 1 {unit[0, :2].round(2).tolist()}   0 to 255 {byte[0, :2].round(2).tolist()}")
    others = [channel for channel in range(3) if channel != own]
    assert np.allclose(unit[..., others], byte[..., others]) and np.allclose(255 * unit[..., own], byte[..., own]), f"{name} has changed"
    assert unit[..., others].max() == 255 and unit[..., own].max() == 1, f"{name} has changed"

white = imgproc.sepia_from_rgb(255 * colours)[0, 2]
print("sepia of white", white.round(1).tolist())
assert white.max() > 300, "the behaviour has changed"
PYTHON
