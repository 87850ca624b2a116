#!/bin/sh
# ONNX Runtime: Resize with tf_crop_and_resize does not crop an axis whose result has as many pixels as the image.
#
# Versions: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Resize has a region of interest in this mode: half an image of 4 x 4 is cut out and resized. An axis with a scale of one is taken as
# one that has nothing to do, so a crop that is enlarged to the size of the image gives the image back, and one that is enlarged along
# one axis is cropped along that axis alone. Any other size is right; a model that crops to a size that its input happens to have finds
# other pixels than for the next input. It is so for the modes nearest, linear and cubic, with sizes and with scales.
# The reference implementation in the package onnx crops both axes.
#
# Output seen (first row of the result, linear):
#   4 x 4 to 8 x 8   ONNX Runtime as the reference
#   4 x 4 to 4 x 4   ONNX Runtime [0.0, 1.0, 2.0, 3.0]   reference [3.75, 4.25, 4.75, 5.25]
#   4 x 4 to 8 x 4   ONNX Runtime [3.0, 4.0, 5.0, 6.0]   reference [3.75, 4.25, 4.75, 5.25]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)


def resized(mode, height, width, by):
    sizes = {"sizes": f"int64[4] s = {{1, 1, {height}, {width}}}", "scales": f"float[4] s = {{1, 1, {height / 4}, {width / 4}}}"}
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> g (float[1,1,4,4] x) => (float[1,1,{height},{width}] y) '
        f"<float[8] region = {{0, 0, 0.25, 0.25, 1, 1, 0.75, 0.75}}, {sizes[by]}> "
        f'{{ y = Resize<mode = "{mode}", coordinate_transformation_mode = "tf_crop_and_resize">(x, region{",," if by == "sizes" else ","} s) }}'
    )
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": image})[0][0, 0], ReferenceEvaluator(model).run(None, {"x": image})[0][0, 0]


for height, width in ((8, 8), (4, 4), (8, 4)):
    for mode in ("nearest", "linear", "cubic"):
        for by in ("sizes", "scales"):
            got, reference = resized(mode, height, width, by)
            assert np.allclose(got, reference, atol=1e-5) == (height == width == 8), (mode, by, got, reference)
            if height == width == 4:
                assert np.array_equal(got, image[0, 0]), got
    got, reference = (result[0].round(2).tolist() for result in resized("linear", height, width, "sizes"))
    text = "as the reference" if got == reference else f"{got}   reference {reference}"
    print(f"4 x 4 to {height} x {width}   ONNX Runtime {text}")
PYTHON
