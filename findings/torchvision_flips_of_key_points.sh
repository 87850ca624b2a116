#!/bin/sh
# torchvision: two flips of key points are no rotation by 180 degrees, and after a rotation boxes have another size of the picture than the picture.
#
# Versions: torchvision 0.29.1, torch 2.14.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# transforms.v2 moves boxes and key points with the picture. For boxes, a coordinate is that of an edge: the right edge of the picture is its width.
# Key points have that rule in rotate, affine, perspective, resize and pad, so the corners of a box as key points stay corners of the box. In
# horizontal_flip and vertical_flip alone they are numbers of pixels: x becomes width - 1 - x.
# - Flipping both ways, and a rotation by 180 degrees, are one permutation of the pixels, and are for boxes. Key points differ by one pixel.
# - The corners of a box are one pixel off the flipped box: outside on one side, inside on the other. A point at the right edge gets -1, and
#   SanitizeKeyPoints drops it.
# - Resize by 2 and a flip, in the two orders, differ for key points and not for boxes.
# rotate with expand=True takes the floor and ceil of the rotated corners. For the pixels they are measured from the center of the picture,
# for boxes and key points from its corner, so the size differs by one for many angles. Other transforms take canvas_size for the picture's size,
# so a flip behind it moves boxes and pixels apart by one more.
#
# There is no warning. The page of KeyPoints says that points are "X and Y coordinates along the width and height dimensions". No report was found.
#
# Output seen on 2026-11-30:
#   rotation by 180    pixels [30, 20, 48, 32]   box [30, 20, 48, 32]   its corners as key points [30, 20, 48, 32]
#   both flips         pixels [30, 20, 48, 32]   box [30, 20, 48, 32]   its corners as key points [29, 19, 47, 31]
#   horizontal flip    pixels [30, 8, 48, 20]   box [30, 8, 48, 20]   its corners as key points [29, 8, 47, 20]
#   pad by 4           pixels [16, 12, 34, 24]   box [16, 12, 34, 24]   its corners as key points [16, 12, 34, 24]
#   rotation by 90     pixels [8, 30, 20, 48]   box [8, 30, 20, 48]   its corners as key points [8, 30, 20, 48]
#   shift by 5 and 3   pixels [17, 11, 35, 23]   box [17, 11, 35, 23]   its corners as key points [17, 11, 35, 23]
#   resize by 2        pixels [24, 16, 60, 40]   box [24, 16, 60, 40]   its corners as key points [24, 16, 60, 40]
#   resize by 2, flip  pixels [60, 16, 96, 40]   box [60, 16, 96, 40]   its corners as key points [59, 16, 95, 40]
#   flip, resize by 2  pixels [60, 16, 96, 40]   box [60, 16, 96, 40]   its corners as key points [58, 16, 94, 40]
#   right edge         rotation by 180 [0, 20]   flip [-1, 20], points that stay 0
#   rotation by 30     picture (66, 72)   box (65, 72)   key points (65, 72)
#   other sizes at 12 of 17 angles
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import torch
import torchvision.transforms.v2.functional as transforms
from torchvision import tv_tensors
from torchvision.transforms import v2

SIZE = (40, 60)
left, top, right, bottom = 12, 8, 30, 20
box = tv_tensors.BoundingBoxes(torch.tensor([[12.0, 8, 30, 20]]), format="XYXY", canvas_size=SIZE)
corners = tv_tensors.KeyPoints(torch.tensor([[12.0, 8], [30, 20]]), canvas_size=SIZE)
picture = tv_tensors.Image(torch.zeros(1, *SIZE))
picture[:, top:bottom, left:right] = 1

flip, flop = transforms.horizontal_flip, transforms.vertical_flip
STEPS = {
    "rotation by 180": (lambda data: transforms.rotate(data, 180), False),
    "both flips": (lambda data: flip(flop(data)), True),
    "horizontal flip": (flip, True),
    "pad by 4": (lambda data: transforms.pad(data, [4]), False),
    "rotation by 90": (lambda data: transforms.rotate(data, 90, expand=True), False),
    "shift by 5 and 3": (lambda data: transforms.affine(data, 0, [5, 3], 1.0, [0.0]), False),
    "resize by 2": (lambda data: transforms.resize(data, [80, 120]), False),
    "resize by 2, flip": (lambda data: flip(transforms.resize(data, [80, 120])), True),
    "flip, resize by 2": (lambda data: transforms.resize(flip(data), [80, 120]), True),
}


def bounds(points):
    points = points.reshape(-1, 2)
    return [round(value) for value in (*points.amin(0).tolist(), *points.amax(0).tolist())]


def pixels(image):
    _, rows, columns = torch.nonzero(image > 0.5, as_tuple=True)
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]


results = {}
for name, (step, apart) in STEPS.items():
    boxes, points = bounds(step(box)), bounds(step(corners))
    results[name] = boxes, points
    print(f"{name:18} pixels {pixels(step(picture))}   box {boxes}   its corners as key points {points}")
    assert pixels(step(picture)) == boxes and (boxes != points) == apart, f"{name}: torchvision has changed"
assert results["rotation by 180"][0] == results["both flips"][0]
one, other = results["resize by 2, flip"], results["flip, resize by 2"]
assert one[0] == other[0] and one[1] != other[1], "torchvision has changed"

edge = tv_tensors.KeyPoints(torch.tensor([[60.0, 20.0]]), canvas_size=SIZE)
sanitize = v2.SanitizeKeyPoints(labels_getter=None)
print(f"right edge         rotation by 180 {bounds(transforms.rotate(edge, 180))[:2]}   flip {bounds(flip(edge))[:2]}, points that stay {len(sanitize(flip(edge)))}")
assert bounds(transforms.rotate(edge, 180))[:2] == [0, 20] and bounds(flip(edge))[:2] == [-1, 20], "torchvision has changed"
assert len(sanitize(flip(edge))) == 0 and len(sanitize(transforms.rotate(edge, 180))) == 1, "torchvision has changed"

angles = range(5, 90, 5)
sizes = {angle: [transforms.rotate(data, angle, expand=True) for data in (picture, box, corners)] for angle in angles}
apart = [angle for angle, (image, *rest) in sizes.items() if any(tuple(image.shape[1:]) != tuple(data.canvas_size) for data in rest)]
image, boxes, points = sizes[30]
print(f"rotation by 30     picture {tuple(image.shape[1:])}   box {tuple(boxes.canvas_size)}   key points {tuple(points.canvas_size)}")
print(f"other sizes at {len(apart)} of {len(angles)} angles")
assert tuple(image.shape[1:]) == (66, 72) and boxes.canvas_size == points.canvas_size == (65, 72) and len(apart) > 5, "torchvision has changed"
PYTHON
