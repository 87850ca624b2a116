#!/bin/sh
# OpenVINO: Divide of integers with m_pythondiv, which is the default, rounds towards zero on the CPU, so -7 // 2 is -3.
#
# Versions: openvino 2026.4.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# By the specification of Divide-1, m_pythondiv says that integers are divided as by Python's //, which rounds down; it is true by default. With false,
# the quotient is cut off as in C. Model.evaluate of the same package does both. The CPU plugin cuts off in both cases, for i32 and i64, with a
# constant divisor and with one that is an input. A position that is relative to another one and negative is put into the wrong block. FloorMod of
# the same numbers rounds down, so the quotient times the divisor and the rest do not add up to the number.
# Seen with torch 2.13.0, too: convert_model of a PyTorch module that computes x // y, traced or exported, makes Divide and Floor of it, and
# the Floor of an integer changes nothing, so the converted model has -3 where PyTorch has -4. No error, no warning.
#
# Reported as openvino's issue 38248 in September 2026; pull request 38260 changes what the PyTorch front end writes.
#
# Output seen on 2026-11-29:
#   int32  given    m_pythondiv True    evaluate [-4, -4, 3, 3, -1, 2]   CPU [-3, -3, 3, 3, 0, 2]
#   int32  given    m_pythondiv False   evaluate [-3, -3, 3, 3, 0, 2]   CPU [-3, -3, 3, 3, 0, 2]
#   int32  constant m_pythondiv True    evaluate [-4, -4, 3, 3, -1, 2]   CPU [-3, -3, 3, 3, 0, 2]
#   int32  constant m_pythondiv False   evaluate [-3, -3, 3, 3, 0, 2]   CPU [-3, -3, 3, 3, 0, 2]
#   int64  given    m_pythondiv True    evaluate [-4, -4, 3, 3, -1, 2]   CPU [-3, -3, 3, 3, 0, 2]
#   int64  given    m_pythondiv False   evaluate [-3, -3, 3, 3, 0, 2]   CPU [-3, -3, 3, 3, 0, 2]
#   int64  constant m_pythondiv True    evaluate [-4, -4, 3, 3, -1, 2]   CPU [-3, -3, 3, 3, 0, 2]
#   int64  constant m_pythondiv False   evaluate [-3, -3, 3, 3, 0, 2]   CPU [-3, -3, 3, 3, 0, 2]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q openvino==2026.4.1 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import openvino as ov
from openvino import opset13 as opset

x, y = [-7, 7, -7, 7, -1, 6], [2, -2, -2, 2, 3, 3]
down, cut = np.floor_divide(x, y), np.trunc(np.divide(x, y)).astype(int)


def build(kind, python, constant):
    given = [opset.parameter([len(x)], kind) for _ in range(1 if constant else 2)]
    divisor = opset.constant(np.array(y, kind)) if constant else given[1]
    quotient = opset.divide(given[0], divisor)
    quotient.set_attribute("m_pythondiv", python)
    assert quotient.get_attributes()["m_pythondiv"] == python
    return ov.Model([quotient, opset.floor_mod(given[0], divisor)], given)


for kind in (np.int32, np.int64):
    for constant in (False, True):
        for python in (True, False):
            model = build(kind, python, constant)
            inputs = [np.array(values, kind) for values in ((x,) if constant else (x, y))]
            results = [ov.Tensor(np.zeros(len(x), kind)) for _ in range(2)]
            assert model.evaluate(results, [ov.Tensor(array) for array in inputs])
            evaluated = results[0].data
            found, rest = ov.compile_model(model, "CPU")(inputs).values()
            title = f"{np.dtype(kind).name:6} {'constant' if constant else 'given':8} m_pythondiv {python!s:5}"
            print(f"{title}   evaluate {evaluated.tolist()}   CPU {found.tolist()}")
            assert np.array_equal(evaluated, down if python else cut), "Model.evaluate has changed"
            assert np.array_equal(found, cut) and np.array_equal(rest, np.mod(x, y)), "OpenVINO has changed"
PYTHON
