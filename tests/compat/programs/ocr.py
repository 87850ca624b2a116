"""Text that is drawn, read by rapidocr (1: rapidocr_openvino, 2: rapidocr with its OpenVINO engine)."""

import json
import sys

import cv2
import numpy as np

TEXTS = ["Hello World 2026", "The quick brown fox", "0123456789 ABC"]
image = np.full((220, 640, 3), 255, np.uint8)
for i, text in enumerate(TEXTS):
    cv2.putText(image, text, (20, 50 + 55 * i), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 0, 0), 2)
if sys.argv[1] == "1":
    if "ovjit" not in sys.modules:
        # the real package has no openvino.runtime any more, and its bfloat16 finds other boxes
        import openvino

        class Exact(openvino.Core):
            def __init__(self):
                super().__init__()
                self.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        openvino.Core = Exact
        sys.modules["openvino.runtime"] = openvino
    from rapidocr_openvino import RapidOCR

    found = [text for _, text, _ in RapidOCR()(image)[0]]
else:
    from rapidocr import EngineType, RapidOCR

    engine = RapidOCR(params={f"{part}.engine_type": EngineType.OPENVINO for part in ("Det", "Cls", "Rec")})
    found = list(engine(image).txts)
print(json.dumps(found))
