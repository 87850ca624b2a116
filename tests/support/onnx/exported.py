"""All small networks as exporters write them, by name."""

from __future__ import annotations

from tests.support.onnx import nets_detection, nets_language, nets_quantised, nets_vision

NETS = {
    **nets_language.NETS,
    **nets_detection.NETS,
    **nets_vision.NETS,
    **nets_quantised.NETS,
}
#: Whose results are quantised: a sum that is halfway between two steps may go either way.
STEPS = {"quantised_resnet": 0.07, "qdq_mobile": 0.05}
