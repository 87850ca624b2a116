#!/bin/sh
# TVM's ONNX front end: attributes that no line reads, and scales that are forgotten: IsInf has no sign, Resize by 0.6 is by 0.5.
#
# Versions: apache-tvm 0.27.0.post1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# tvm.relax.frontend.onnx.from_onnx refuses operators that it does not know, by name. Of those it knows it reads some attributes; the
# others do not stop it. Each model is valid for ONNX's checker, and TVM compiles and runs it without an error or a warning:
# - IsInf ignores detect_positive and detect_negative.
# - ConvTranspose ignores output_shape, from which ONNX computes the padding; the result has the size without padding.
# - auto_pad SAME_LOWER of MaxPool divides the size by the stride and rounds down, ONNX up: an image of 5 x 5 loses a row and a column.
# - Resize ignores antialias, so what is made smaller has the aliases that the attribute is there to remove.
# - Resize by a scale computes the size, rounds it down, and goes on with the quotient of the sizes: 0.6 of six pixels is the same as 0.5.
# - NonMaxSuppression without a threshold has 0.5 where ONNX has 0: boxes that overlap by a third stay. If the number of boxes is an input
#   of the model and not a constant, it is 0, so nothing is ever selected.
# - Expand by a shape that is an input of the model has that shape: a row count of 1, which keeps three rows in ONNX, keeps the first.
# With the default of each attribute, TVM agrees with ONNX Runtime, as is checked. The scale of Resize is TVM's issue 19570; no report of the
# others was found.
#
# Output seen on 2026-11-29:
#   IsInf                                  ONNX Runtime (3,) [True, False, True]                 TVM the same
#   IsInf, detect_negative=0               ONNX Runtime (3,) [False, False, True]                TVM (3,) [True, False, True]
#   IsInf, neither sign                    ONNX Runtime (3,) [False, False, False]               TVM (3,) [True, False, True]
#   ConvTranspose                          ONNX Runtime (1, 1, 13, 13) [0.0, 0.0, 1.0, 1.0]      TVM the same
#   ConvTranspose, output_shape 12         ONNX Runtime (1, 1, 12, 12) [0.0, 1.0, 1.0, 3.0]      TVM (1, 1, 13, 13) [0.0, 0.0, 1.0, 1.0]
#   MaxPool, SAME_UPPER                    ONNX Runtime (1, 1, 3, 3) [7.0, 9.0, 10.0, 19.0]      TVM the same
#   MaxPool, SAME_LOWER                    ONNX Runtime (1, 1, 3, 3) [7.0, 9.0, 10.0, 19.0]      TVM (1, 1, 2, 2) [14.0, 16.0, 26.0, 28.0]
#   Resize, linear                         ONNX Runtime (1, 1, 3, 3) [3.5, 5.5, 7.5, 15.5]       TVM the same
#   Resize, cubic                          ONNX Runtime (1, 1, 3, 3) [2.84, 4.94, 7.03, 15.41]   TVM the same
#   Resize, cubic, antialias               ONNX Runtime (1, 1, 3, 3) [3.31, 5.34, 7.36, 15.47]   TVM (1, 1, 3, 3) [2.84, 4.94, 7.03, 15.41]
#   Resize, linear, scale 0.6              ONNX Runtime (1, 1, 3, 3) [2.33, 4.0, 5.67, 12.33]    TVM (1, 1, 3, 3) [3.5, 5.5, 7.5, 15.5]
#   Resize to 3 x 2                        ONNX Runtime (1, 1, 3, 2) [4.0, 7.0, 16.0, 19.0]      TVM the same
#   NonMaxSuppression, threshold 0.5       ONNX Runtime (3, 3) [0.0, 0.0, 0.0, 0.0]              TVM the same
#   NonMaxSuppression                      ONNX Runtime (2, 3) [0.0, 0.0, 0.0, 0.0]              TVM (3, 3) [0.0, 0.0, 0.0, 0.0]
#   NonMaxSuppression, number as input     ONNX Runtime (3, 3) [0.0, 0.0, 0.0, 0.0]              TVM (0, 3) []
#   Expand by a constant                   ONNX Runtime (3, 2) [1.0, 1.0, 2.0, 2.0]              TVM the same
#   Expand by an input                     ONNX Runtime (3, 2) [1.0, 1.0, 2.0, 2.0]              TVM (1, 2) [1.0, 1.0]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q apache-tvm==0.27.0.post1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

KINDS = {"f": TensorProto.FLOAT, "i": TensorProto.INT64, "b": TensorProto.BOOL}


def model_of(operator, inputs, constants, kind, rank, **attributes):
    """Return a model of one node with the arrays `inputs` as inputs and `constants` as initializers, None for an input left out."""
    names = [f"input{i}" for i in range(len(inputs))] + ["" if c is None else f"constant{i}" for i, c in enumerate(constants)]
    node = helper.make_node(operator, names, ["y"], **attributes)
    values = [helper.make_tensor_value_info(f"input{i}", KINDS[x.dtype.kind], x.shape) for i, x in enumerate(inputs)]
    output = helper.make_tensor_value_info("y", KINDS[kind], [None] * rank)
    given = [numpy_helper.from_array(c, f"constant{i}") for i, c in enumerate(constants) if c is not None]
    model = helper.make_model(
        helper.make_graph([node], "g", values, [output], given), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    onnx.checker.check_model(model)
    return model


def run_tvm(model, inputs):
    module = relax.transform.LegalizeOps()(from_onnx(model))
    program = tvm.compile(module, target=tvm.target.Target({"kind": "llvm"}))
    machine = relax.VirtualMachine(program, tvm.cpu())
    machine.set_input("main", *[tvm.runtime.tensor(x) for x in inputs])
    machine.invoke_stateful("main")
    return machine.get_outputs("main").numpy()


def text(array):
    flat = array.ravel()[:4]
    return f"{array.shape} {(flat if array.dtype == bool else flat.astype(float).round(2)).tolist()}"


def check(name, operator, inputs, found, constants=(), kind="f", rank=4, **attributes):
    """`found` is what TVM gives: None if it is right, the shape, or the array."""
    model = model_of(operator, inputs, constants, kind, rank, **attributes)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    right = session.run(None, {f"input{i}": x for i, x in enumerate(inputs)})[0]
    got = run_tvm(model, inputs)
    same = right.shape == got.shape and np.allclose(right, got, atol=1e-5)
    print(f"{name:38} ONNX Runtime {text(right):40} TVM {'the same' if same else text(got)}")
    assert same == (found is None), f"{name} has changed"
    if isinstance(found, tuple):
        assert got.shape == found, f"{name} has changed"
    elif found is not None:
        assert got.shape == found.shape and np.allclose(got, found, atol=1e-5), f"{name} has changed"


signs = np.array([-np.inf, 0, np.inf], np.float32)
check("IsInf", "IsInf", [signs], None, kind="b", rank=1)
check("IsInf, detect_negative=0", "IsInf", [signs], np.isinf(signs), kind="b", rank=1, detect_negative=0)
check("IsInf, neither sign", "IsInf", [signs], np.isinf(signs), kind="b", rank=1, detect_negative=0, detect_positive=0)

image = np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6)
odd = image[:, :, :5, :5].copy()
weights = np.ones((1, 1, 3, 3), np.float32)
check("ConvTranspose", "ConvTranspose", [image], None, [weights], strides=[2, 2])
check("ConvTranspose, output_shape 12", "ConvTranspose", [image], (1, 1, 13, 13), [weights], strides=[2, 2], output_shape=[12, 12])
check("MaxPool, SAME_UPPER", "MaxPool", [odd], None, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
check("MaxPool, SAME_LOWER", "MaxPool", [odd], (1, 1, 2, 2), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER")

half = np.array([1, 1, 0.5, 0.5], np.float32)
wide = np.array([1, 1, 3, 2], np.int64)
check("Resize, linear", "Resize", [image], None, [None, half], mode="linear")
plain = run_tvm(model_of("Resize", [image], [None, half], "f", 4, mode="cubic"), [image])
check("Resize, cubic", "Resize", [image], None, [None, half], mode="cubic")
check("Resize, cubic, antialias", "Resize", [image], plain, [None, half], mode="cubic", antialias=1)
sizes = np.array([1, 1, 3, 3], np.int64)
by_size = run_tvm(model_of("Resize", [image], [None, None, sizes], "f", 4, mode="linear"), [image])
check("Resize, linear, scale 0.6", "Resize", [image], by_size, [None, np.array([1, 1, 0.6, 0.6], np.float32)], mode="linear")
check("Resize to 3 x 2", "Resize", [image], None, [None, None, wide], mode="linear")

boxes = np.array([[[0, 0, 1, 1], [0, 0.5, 1, 1.5], [0, 3, 1, 4]]], np.float32)
scores = np.array([[[0.9, 0.8, 0.7]]], np.float32)
most = np.array([3], np.int64)
threshold = np.array([0.5], np.float32)
every = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 2]])
check("NonMaxSuppression, threshold 0.5", "NonMaxSuppression", [boxes, scores], None, [most, threshold], "i", 2)
check("NonMaxSuppression", "NonMaxSuppression", [boxes, scores], every, [most], "i", 2)
check("NonMaxSuppression, number as input", "NonMaxSuppression", [boxes, scores, most], (0, 3), [threshold], "i", 2)

rows = np.array([[1], [2], [3]], np.float32)
shape = np.array([1, 2], np.int64)
check("Expand by a constant", "Expand", [rows], None, [shape], rank=2)
check("Expand by an input", "Expand", [rows, shape], (1, 2), rank=2)
PYTHON
