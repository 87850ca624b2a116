#!/bin/sh
# Optimizers of ONNX files merge two random tensors into one: ONNX Runtime's default for Bernoulli, three packages for all of them.
#
# Versions: onnx 1.23.2, onnxruntime 1.32.0, onnxsim 0.8.1, onnxoptimizer 0.4.2, onnxslim 0.1.98, onnxscript 0.7.2, numpy 2.4.6,
# Python 3.11, Linux x86-64.
#
# Merging of equal nodes takes two RandomNormalLike of one tensor for one node, so the difference of two draws is zero everywhere.
# onnxsim and onnxoptimizer do so for each of ONNX's random operators, and for Dropout in training; onnxslim, too, but for the two that
# have no input. ONNX Runtime and onnxscript (which torch.onnx.export runs) know the random ones by name and forgot Bernoulli; onnxscript
# also Dropout.
#
# Output seen (equal: the difference is zero):
#   RandomNormalLike   no optimizer differ   onnxruntime differ   onnxscript differ   onnxslim equal    onnxsim equal   onnxoptimizer equal
#   RandomUniformLike  no optimizer differ   onnxruntime differ   onnxscript differ   onnxslim equal    onnxsim equal   onnxoptimizer equal
#   RandomNormal       no optimizer differ   onnxruntime differ   onnxscript differ   onnxslim differ   onnxsim equal   onnxoptimizer equal
#   RandomUniform      no optimizer differ   onnxruntime differ   onnxscript differ   onnxslim differ   onnxsim equal   onnxoptimizer equal
#   Bernoulli          no optimizer differ   onnxruntime equal    onnxscript equal    onnxslim equal    onnxsim equal   onnxoptimizer equal
#   Multinomial        no optimizer differ   onnxruntime differ   onnxscript differ   onnxslim equal    onnxsim equal   onnxoptimizer equal
#   Dropout            no optimizer differ   onnxruntime differ   onnxscript equal    onnxslim equal    onnxsim equal   onnxoptimizer equal
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 onnxsim==0.8.1 onnxoptimizer==0.4.2 onnxslim==0.1.98 \
    onnxscript==0.7.2 numpy==2.4.6
"$folder/environment/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxoptimizer
import onnxruntime
import onnxscript.optimizer
import onnxsim
import onnxslim

onnxruntime.set_default_logger_severity(4)
LEVEL = onnxruntime.GraphOptimizationLevel
DRAWS = {
    "RandomNormalLike": "RandomNormalLike(x)", "RandomUniformLike": "RandomUniformLike(x)",
    "RandomNormal": "RandomNormal<shape=[1, 64]>()", "RandomUniform": "RandomUniform<shape=[1, 64]>()",
    "Bernoulli": "Bernoulli(x)", "Multinomial": "Multinomial<sample_size=64, dtype=7>(x)", "Dropout": "Dropout(x,, training)",
}
TOOLS = {
    "no optimizer": lambda model: model, "onnxruntime": lambda model: model, "onnxscript": onnxscript.optimizer.optimize,
    "onnxslim": onnxslim.slim, "onnxsim": lambda model: onnxsim.simplify(model)[0],
    "onnxoptimizer": lambda model: onnxoptimizer.optimize(model, ["eliminate_common_subexpression"]),
}
EQUAL = {
    "onnxruntime": {"Bernoulli"}, "onnxscript": {"Bernoulli", "Dropout"}, "onnxsim": set(DRAWS), "onnxoptimizer": set(DRAWS),
    "onnxslim": set(DRAWS) - {"RandomNormal", "RandomUniform"},
}
for name, draw in DRAWS.items():
    element = "int64" if name == "Multinomial" else "float"
    text = (
        f'<ir_version: 10, opset_import: ["": 20]> g (float[1, 64] x) => ({element}[1, 64] z, float[1, 64] y) '
        f"<bool training = {{1}}> {{ a = {draw} b = {draw} z = Sub(a, b) y = Neg(x) }}"
    )
    line = f"{name:18}"
    for tool, optimize in TOOLS.items():
        model = onnx.parser.parse_model(text)
        onnx.checker.check_model(model, full_check=True)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = LEVEL.ORT_ENABLE_ALL if tool == "onnxruntime" else LEVEL.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(
            optimize(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (difference,) = session.run(["z"], {"x": np.full((1, 64), 0.5, np.float32)})
        found = "differ" if difference.any() else "equal"
        line += f" {tool} {found:8}"
        assert (found == "equal") == (name in EQUAL.get(tool, set())), f"{tool} has changed: {name} {found}"
    print(line)
PYTHON
