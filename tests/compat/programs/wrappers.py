"""openvino-model-api's wrappers: they embed preprocessing in a model, save it, and read what it says of
itself."""

import json
import sys

import numpy as np
import openvino as ov
import openvino.opset13 as o
from model_api.models import Model

rng = np.random.default_rng(0)


def classifier():
    x = o.parameter([1, 3, 32, 32], name="data")
    w = o.constant((rng.standard_normal((8, 3, 3, 3)) * 0.2).astype(np.float32))
    y = o.reduce_mean(o.relu(o.convolution(x, w, [2, 2], [1, 1], [1, 1], [1, 1])), np.array([2, 3]), False)
    y = o.matmul(y, o.constant(rng.standard_normal((8, 5)).astype(np.float32)), False, False)
    return x, y, {"model_type": "Classification", "labels": "a b c d e", "topk": "2",
    "mean_values": "10 20 30",
                  "scale_values": "2 3 4", "reverse_input_channels": "True",
                  "resize_type": "standard"}  # fmt: skip


def segmenter():
    x = o.parameter([1, 3, 32, 32], name="data")
    w = o.constant(rng.standard_normal((4, 3, 1, 1)).astype(np.float32))
    y = o.convolution(x, w, [1, 1], [0, 0], [0, 0], [1, 1])
    return x, y, {"model_type": "Segmentation", "labels": "a b c", "resize_type": "standard",
                  "soft_threshold": "0.5", "blur_strength": "-1"}  # fmt: skip


def detector():
    x = o.parameter([1, 3, 32, 32], name="data")
    boxes = np.zeros((1, 1, 4, 7), np.float32)
    boxes[0, 0, :, 1], boxes[0, 0, :, 2] = [0, 1, 1, 0], [0.9, 0.8, 0.3, 0.7]
    boxes[0, 0, :, 3:] = rng.random((4, 4))
    none = o.multiply(o.reduce_mean(x, np.array([0, 1, 2, 3]), False), np.float32(0))
    return x, o.add(o.constant(boxes), none), {"model_type": "ssd", "labels": "a b",
                                               "resize_type": "fit_to_window",
                                               "confidence_threshold": "0.5"}  # fmt: skip


image = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
shown = {}
for make in (classifier, segmenter, detector):
    x, y, facts = make()
    model = ov.Model([o.result(y, name="out")], [x], make.__name__)
    x.layout = ov.Layout("NCHW")
    for key, value in facts.items():
        model.set_rt_info(value, ["model_info", key])
    path = f"{sys.argv[1]}/{make.__name__}"
    ov.serialize(model, path + ".xml")
    wrapper = Model.create_model(path + ".xml", device="CPU")
    result = str(wrapper(image))
    wrapper.save(path + "_embedded.xml")
    again = str(Model.create_model(path + "_embedded.xml", device="CPU")(image))
    later = []
    wrapper.set_callback(lambda found, data, later=later: later.append([str(found), data]))
    wrapper.infer_async(image, "mine")
    wrapper.await_all()
    shown[make.__name__] = [again == result, later == [[result, "mine"]], result]
print(json.dumps(shown))
