"""The six image classifiers beside the real OpenVINO: same answers, same bits on every run, all native.

By default each network is in half of the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ovjit as ov
from tests.support.networks import (
    NAMES,
    build,
    error,
    expected,
    expected_of,
    network_input,
    read_with_outputs,
    real_core,
)
from tests.support.sweeps import in_turn

#: Of the output's largest value.
LIMIT = 1e-4


@pytest.fixture(scope="module")
def core() -> ov.Core:
    return ov.Core()


@pytest.fixture(scope="module", params=in_turn(NAMES, 2))
def network(request: pytest.FixtureRequest, core: ov.Core) -> tuple[str, Any]:
    """Name and compiled model, for one thread and with profiling."""
    config = {"INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True}
    return request.param, core.compile_model(str(build(request.param)), "CPU", config)


def test_equals_openvino(network: tuple[str, Any]) -> None:
    name, compiled = network
    off = error(compiled([network_input(name)])[0], expected(name))
    assert off <= LIMIT, f"{name}: off by {off:.2g} of the largest output"


def test_same_bits_on_every_run_and_number_of_threads(network: tuple[str, Any], core: ov.Core) -> None:
    name, compiled = network
    image = network_input(name)
    first = np.array(compiled([image])[0])
    two = core.compile_model(str(build(name)), "CPU", {"INFERENCE_NUM_THREADS": 2})
    for _ in range(3):
        np.testing.assert_array_equal(compiled([image])[0], first, err_msg=f"{name}, 1 thread")
        np.testing.assert_array_equal(two([image])[0], first, err_msg=f"{name}, 2 threads")
    other = compiled([network_input(name, seed=1)])[0]
    assert error(np.array(other), first) > 0.01, f"{name}: another image gives the same output"


def test_every_step_is_native(network: tuple[str, Any]) -> None:
    name, compiled = network
    request = compiled.create_infer_request()
    request.infer([network_input(name)])
    rows = request.get_profiling_info()
    assert len(rows) > 20
    assert not [f"{r.node_name} ({r.node_type})" for r in rows if r.exec_type == "ref_numpy"], name


@pytest.mark.parametrize("name", in_turn(NAMES, 2, 1))
def test_layers_equal_openvino(name: str, core: ov.Core) -> None:
    """Inside the network too, where no softmax hides a shift: every tenth convolution and the last layer. Of
    every second network by default; the tests before have the others."""
    model = real_core().read_model(build(name))
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    heavy = [n for n in model.get_ordered_ops() if n.type_info.name in kinds]
    layers = [(n.friendly_name, 0) for n in dict.fromkeys([*heavy[::10], heavy[-1]])]
    assert len(layers) > 2
    wanted = expected_of(read_with_outputs(real_core(), name, layers), name)
    compiled = core.compile_model(read_with_outputs(core, name, layers), "CPU", {"INFERENCE_NUM_THREADS": 2})
    got = list(compiled([network_input(name)]).values())
    for layer, mine, real in zip(["the output", *(layer for layer, _ in layers)], got, wanted, strict=True):
        off = error(mine, real)
        assert off <= LIMIT, f"{name}, {layer}: off by {off:.2g} of the largest value"
