"""The default precision: bf16 where the CPU has it, as in the real OpenVINO."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import ovjit
from tests.support.compiled import float_types
from tests.support.run import printed

PROGRAM = """
import json, sys
import importlib
import numpy as np
name, model_path = sys.argv[1:]
ov = importlib.import_module(name)
core = ov.Core()
told = [core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()]
core.set_property("CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})
told.append(core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string())
core = ov.Core()
x = np.random.default_rng(0).standard_normal((32, 64), dtype=np.float32)
results = []
for config in ({}, {"EXECUTION_MODE_HINT": "ACCURACY"}, {"INFERENCE_PRECISION_HINT": "f32"},
               {"INFERENCE_PRECISION_HINT": "bf16"}, {"PERFORMANCE_HINT": "THROUGHPUT"}):
    compiled = core.compile_model(model_path, "CPU", config)
    told.append(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    results.append(compiled([x])[0].tolist())
print(json.dumps([told, results]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, np.ndarray]:
    """A product with an activation, and its right-hand side."""
    o = ovjit.opset8
    weights = np.random.default_rng(1).standard_normal((64, 48), dtype=np.float32)
    x = o.parameter([32, 64], np.float32, name="x")
    path = str(tmp_path_factory.mktemp("precision") / "m.xml")
    ovjit.save_model(ovjit.Model([o.relu(o.matmul(x, weights, False, False))], [x]), path, False)
    return path, weights


def outcome(package: str, path: str, **environment: str | None) -> Any:
    """What `PROGRAM` prints where the environment does not say f32, as the other tests' does."""
    environment.setdefault("OVJIT_PRECISION", None)
    return json.loads(printed("-c", PROGRAM, package, path, **environment))


def test_the_default_is_openvinos(model: tuple[str, np.ndarray]) -> None:
    path, weights = model
    told, results = outcome("ovjit", path)
    theirs, oracle = outcome("openvino", path)
    if "bf16" in float_types() and theirs[0] == "bf16":
        assert told == theirs
    x = np.random.default_rng(0).standard_normal((32, 64), dtype=np.float32)
    exact = np.maximum(x.astype(np.float64) @ weights, 0)
    for said, ours, real in zip(told[2:], results, oracle, strict=True):
        limit = 0.1 if said == "bf16" else 1e-4
        assert np.abs(np.asarray(ours) - exact).max() < limit, said
        assert np.abs(np.asarray(ours) - np.asarray(real)).max() < 2 * max(limit, 0.1), said
    if told[2] == "bf16":
        assert results[0] == results[3] != results[1]
    assert results[1] == results[2]


@pytest.mark.parametrize("isa", ["generic", "avx2"])
def test_it_is_f32_where_the_cpu_has_no_bf16(model: tuple[str, np.ndarray], isa: str) -> None:
    try:
        told, results = outcome("ovjit", model[0], OVJIT_ISA=isa)
    except AssertionError as error:
        if "not usable on this CPU" in str(error):
            pytest.skip(f"the CPU has no {isa}")
        raise
    assert told[:3] == ["f32", "dynamic", "f32"]
    assert results[0] == results[2]


def test_the_environment_says_f32(model: tuple[str, np.ndarray]) -> None:
    told, results = outcome("ovjit", model[0], OVJIT_PRECISION="f32")
    assert told[2] == "f32" and results[0] == results[2]
