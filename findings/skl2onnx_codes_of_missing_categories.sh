#!/bin/sh
# skl2onnx and ONNX Runtime: a missing category is encoded as an unknown one, whatever code was learnt for it.
#
# Versions: scikit-learn 1.9.1, skl2onnx 1.20.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# Since scikit-learn 1.3 OrdinalEncoder gives NaN a code of its own, encoded_missing_value, and TargetEncoder the mean of its rows. The
# converter lists NaN among the float keys of a LabelEncoder of ai.onnx.ml 2, the newest version that it writes. The standard says since
# that version that keys are compared by their bits, "so even a float NaN can be mapped". ONNX Runtime finds NaN in version 4 alone, and
# the reference evaluator of the package onnx in none: both give the default, without a warning. The converter also gives NaN the next
# number and does not read encoded_missing_value, so that version 4 would be wrong, too.
#
# Output seen:
#   LabelEncoder 2               ONNX Runtime [10.0, -1.0, -1.0]    reference evaluator [10.0, -1.0, -1.0]
#   LabelEncoder 3               ONNX Runtime [10.0, -1.0, -1.0]    reference evaluator [10.0, -1.0, -1.0]
#   LabelEncoder 4               ONNX Runtime [10.0, 20.0, -1.0]    reference evaluator [10.0, -1.0, -1.0]
#   OrdinalEncoder               scikit-learn [0.0, 1.0, 9.0, -5.0]    ONNX [0.0, 1.0, -5.0, -5.0]
#   ... as version 4             scikit-learn [0.0, 1.0, 9.0, -5.0]    ONNX [0.0, 1.0, 2.0, -5.0]
#   TargetEncoder                scikit-learn [0.0, 0.0, 1.0, 0.33]    ONNX [0.0, 0.0, 0.33, 0.33]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from skl2onnx import to_onnx
from sklearn.preprocessing import OrdinalEncoder, TargetEncoder


def run(model, name, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: x})[0].astype(np.float64).ravel().round(2).tolist()


for version, right in ((2, [10, -1, -1]), (3, [10, -1, -1]), (4, [10, 20, -1])):
    node = helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_floats=[1.0, np.nan],
                            values_floats=[10.0, 20.0], default_float=-1.0)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "xy"]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    model = helper.make_model(helper.make_graph([node], "g", infos[:1], infos[1:]), opset_imports=opsets, ir_version=9)
    x = np.array([1, np.nan, 5], np.float32)
    found, reference = run(model, "x", x), ReferenceEvaluator(model).run(None, {"x": x})[0].tolist()
    assert found == right and reference == [10, -1, -1], "the behaviour has changed"
    print(f"LabelEncoder {version}".ljust(28), f"ONNX Runtime {found}    reference evaluator {reference}")

rows = np.array([[1], [2], [np.nan]] * 400, np.float32)
asked = np.array([[1], [2], [np.nan], [7]], np.float32)
options = {"handle_unknown": "use_encoded_value", "unknown_value": -5, "encoded_missing_value": 9, "dtype": np.float32}
encoder = OrdinalEncoder(**options).fit(rows)
right = encoder.transform(asked).ravel().tolist()
assert right == [0, 1, 9, -5]
model = to_onnx(encoder, asked, target_opset={"": 18, "ai.onnx.ml": 4})
for title, wanted in (("OrdinalEncoder", [0, 1, -5, -5]), ("... as version 4", [0, 1, 2, -5])):
    found = run(model, "X", asked)
    assert found == wanted, "the behaviour has changed"
    print(title.ljust(28), f"scikit-learn {right}    ONNX {found}")
    next(opset for opset in model.opset_import if opset.domain == "ai.onnx.ml").version = 4

encoder = TargetEncoder(smooth=1e-3).fit(rows, np.isnan(rows).ravel().astype(np.int64))
right = encoder.transform(asked).ravel().round(2).tolist()
assert right == [0, 0, 1, 0.33]
found = run(to_onnx(encoder, asked, target_opset={"": 18, "ai.onnx.ml": 3}), "X", asked)
assert found == [0, 0, 0.33, 0.33], "the behaviour has changed"
print("TargetEncoder".ljust(28), f"scikit-learn {right}    ONNX {found}")
PYTHON
