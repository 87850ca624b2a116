#!/bin/sh
# OpenCV 5: NOT of a mask of booleans is true everywhere; uint32 pixels wrap in products and means, and 3000000000 plus 1 is 3000000000.
#
# Versions: opencv-python-headless 5.0.0.93 and 4.13.0.92, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# OpenCV 4 refuses NumPy arrays of booleans and of uint32 ("data type = bool is not supported"). OpenCV 5 has types for both, so `mask = image > 5` can
# be given to it as it is. Its functions count each byte that is not 0 as true, as NumPy does.
# - bitwise_not inverts all eight bits of each byte: false (0) becomes 255, and true (1) becomes 254. So the inverse of a mask is true
#   everywhere, for OpenCV and for NumPy: image[inverse], copyTo and countNonZero take all pixels. Nothing shows it, as the array prints True and has
#   the type bool. Twice inverted, the mask is right again. Of bytes (0 and 255), as all code for OpenCV 4 has them, it is right. bitwise_and, or and
#   xor are right, so xor with true is the inverse.
# - OpenCV's arithmetic saturates: what is too large for the result is its largest number. The sum of two uint32 arrays does so; their product wraps
#   at 2^32. 3000000000 plus the number 1 is 3000000000, as a number beside an array counts in float32, where int32 has float64.
# - mean and sumElems take 3000000000 and 4000000000 for 4294967296 less in all, where meanStdDev and norm have the right numbers.
# - 3000000000 converted to uint8 is 0, and to int32 the lowest number, as it was from floats of that size before (issue 27556).
# The results are the same without AVX, AVX2 and AVX-512 (OPENCV_CPU_DISABLE). Nothing warns.
#
# Known in part: issues 30002 (sums wrap) and 29964 (conversions of longer arrays) of OpenCV, both of September 2026. None was found for masks.
#
# Output seen on 2026-11-30:
#   4.13.0 bool   is refused
#   4.13.0 uint32 is refused
#   mask                          [[0, 1, 0, 1, 0, 1]]
#   NumPy ~mask                   [[True, False, True, False, True, False]]
#   OpenCV NOT of bytes           [[True, False, True, False, True, False]]
#   OpenCV NOT of booleans        [[True, True, True, True, True, True]]
#   NOT of NOT of booleans        [[False, True, False, True, False, True]]
#   XOR with true                 [[True, False, True, False, True, False]]
#   bytes of NOT of booleans      [[255, 254, 255, 254, 255, 254]]
#   pixels of the inverse: image[inverse] 6, countNonZero 6, copyTo 6; of bytes 3
#   uint32 to uint8               [0, 0, 7, 100]  where [255, 255, 7, 100] is right
#   uint32 to int32               [-2147483648, -2147483648, 7, 100]  where [2147483647, 2147483647, 7, 100] is right
#   uint32 to float64             [3000000000.0, 4000000000.0, 7.0, 100.0]
#   array plus array              [4294967295, 4294967295, 14, 200]
#   array times array             [3800301568, 0, 49, 10000]  where [4294967295, 4294967295, 49, 10000] is right
#   array plus 1                  [3000000000, 4000000000, 8, 101]  where [3000000001, 4000000001, 8, 101] is right
#   int32 array plus 1            [1500000001, 2000000001, 4, 51]
#   mean                          [676258202.75]  where [1750000026.75] is right
#   meanStdDev                    [1750000026.75]
#   sumElems                      [2705032811.0]  where [7000000107.0] is right
#   norm                          [7000000107.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 4.13.0.92 5.0.0.93; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q opencv-python-headless==$version numpy==2.4.6
done
cat > "$folder/refused.py" <<'PYTHON'
import cv2
import numpy as np

for dtype in (bool, np.uint32):
    try:
        cv2.bitwise_not(np.zeros((1, 4), dtype))
    except cv2.error as error:
        assert "is not supported" in str(error)
        print(f"{cv2.__version__:6} {np.dtype(dtype).name:6} is refused")
    else:
        raise SystemExit("OpenCV 4 has changed")
PYTHON
"$folder/4.13.0.92/bin/python" "$folder/refused.py"
"$folder/5.0.0.93/bin/python" -W ignore - <<'PYTHON'
import cv2
import numpy as np

image = np.array([[3, 9, 4, 7, 1, 8]], np.uint8)
mask = image > 5
inverse = cv2.bitwise_not(mask)
bytes_of_inverse = cv2.bitwise_not(mask.astype(np.uint8) * 255)
print(f"mask                          {mask.astype(int).tolist()}")
for name, found, right in (
    ("NumPy ~mask", ~mask, ~mask),
    ("OpenCV NOT of bytes", bytes_of_inverse != 0, ~mask),
    ("OpenCV NOT of booleans", inverse, np.ones_like(mask)),
    ("NOT of NOT of booleans", cv2.bitwise_not(inverse), mask),
    ("XOR with true", cv2.bitwise_xor(mask, np.ones_like(mask)), ~mask),
):
    print(f"{name:29} {found.tolist()}")
    assert found.dtype == bool and np.array_equal(found, right), "the behaviour has changed"
print(f"bytes of NOT of booleans      {inverse.view(np.uint8).tolist()}")
counts = len(image[inverse]), cv2.countNonZero(inverse), np.count_nonzero(cv2.copyTo(image, inverse)), cv2.countNonZero(bytes_of_inverse)
print("pixels of the inverse: image[inverse] {}, countNonZero {}, copyTo {}; of bytes {}".format(*counts))
assert counts == (6, 6, 6, 3), "the behaviour has changed"

pixels = np.array([[3000000000, 4000000000, 7, 100]], np.uint32)
zeros = np.zeros_like(pixels)


def check(name, found, right, wrong):
    found, right = np.asarray(found).ravel(), np.asarray(right).ravel()
    print(f"{name:29} {found.tolist()}{'  where ' + str(right.tolist()) + ' is right' if wrong else ''}")
    assert np.array_equal(found, right) != wrong, f"{name}: OpenCV has changed"


check("uint32 to uint8", cv2.convertScaleAbs(pixels), np.minimum(pixels, 255), True)
check("uint32 to int32", cv2.add(pixels, zeros, dtype=cv2.CV_32S), np.minimum(pixels, 2**31 - 1), True)
check("uint32 to float64", cv2.add(pixels, zeros, dtype=cv2.CV_64F), pixels, False)
check("array plus array", cv2.add(pixels, pixels), np.minimum(2 * pixels.astype(np.uint64), 2**32 - 1), False)
check("array times array", cv2.multiply(pixels, pixels), np.minimum(pixels.astype(np.uint64) ** 2, 2**32 - 1), True)
check("array plus 1", cv2.add(pixels, (1, 0, 0, 0)), pixels + 1, True)
check("int32 array plus 1", cv2.add((pixels // 2).astype(np.int32), (1, 0, 0, 0)), pixels // 2 + 1, False)
check("mean", cv2.mean(pixels)[0], pixels.mean(), True)
check("meanStdDev", round(cv2.meanStdDev(pixels)[0].item(), 2), pixels.mean(), False)
check("sumElems", cv2.sumElems(pixels)[0], float(pixels.sum()), True)
check("norm", cv2.norm(pixels, cv2.NORM_L1), float(pixels.sum()), False)
PYTHON
