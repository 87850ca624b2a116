"""silero_vad's models through Core: the probability of speech in a sound that begins quietly."""

import json
import sys
from pathlib import Path

import numpy as np
import openvino as ov

RATE = 16000
time = np.arange(RATE) / RATE
noise = 0.05 * np.random.default_rng(0).standard_normal(RATE)
sound = (0.3 * np.sin(2 * np.pi * 180 * time) * (1 + np.sin(2 * np.pi * 4 * time)) + noise).astype(np.float32)
sound[:8000] *= 0.01
shown = {}
for name in ("silero_vad_op18_ifless.onnx", "silero_vad_openvino_16k.onnx"):
    core = ov.Core()
    compiled = core.compile_model(Path(sys.argv[1]) / name, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    named = {port.any_name for port in compiled.inputs}
    state, before, shown[name] = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
    for at in range(0, RATE - 512, 512):
        piece = sound[at : at + 512]
        given = {"input": np.concatenate([before, piece])[None], "state": state}
        if "sr" in named:
            given["sr"] = np.array(RATE)
        probability, state = compiled(given).values()
        before = piece[-64:]
        shown[name].append(float(probability.reshape(-1)[0]))
print(json.dumps(shown))
