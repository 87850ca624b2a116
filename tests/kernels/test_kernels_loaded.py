"""The kernels that a model loads: of a static one those of its steps, of others those that a plan may
need."""

import numpy as np
import pytest

import ovjit as ov
from ovjit import opset13 as op
from ovjit.codegen.cpu import objects
from ovjit.execution import runner
from tests.support.run import printed


def addition(shape: list[int]) -> ov.CompiledModel:
    x = op.parameter(shape, np.float32, name="x")
    return ov.compile_model(ov.Model([op.add(x, x)], [x]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def loaded(compiled: ov.CompiledModel) -> tuple[set[str], set[str]]:
    """Names of the loaded kernels, and of those that the program may use."""
    executable = compiled._executable
    return {k.name for k in executable.program.addresses}, {k.name for k in executable.program.kernels}


def test_a_static_model_loads_the_kernels_of_its_steps() -> None:
    compiled = addition([8])
    have, known = loaded(compiled)
    assert len(have) == 1 < len(known) and have < known
    np.testing.assert_array_equal(compiled(np.arange(8, dtype=np.float32))[0], 2 * np.arange(8))


def test_open_shapes_have_all_kernels_before_the_first_inference() -> None:
    compiled = addition([-1])
    have, known = loaded(compiled)
    assert have == known and len(have) > 1


def test_what_a_blob_has_does_not_depend_on_what_was_loaded() -> None:
    compiled = addition([8])
    again = ov.Core().import_model(compiled.export_model(), "CPU")
    np.testing.assert_array_equal(again(np.full(8, 3, np.float32))[0], np.full(8, 6))


ALONE = """
import numpy as np, ovjit as ov
from ovjit import opset13 as op
from ovjit.codegen.cpu import objects
from ovjit.execution import runner
x = op.parameter([8], np.float32)
compiled = ov.compile_model(ov.Model([op.add(x, x)], [x]), "CPU")
assert (compiled(np.ones(8, np.float32))[0] == 2).all()
def loaded():
    return [k.name for k in runner.native_kernels() if objects.address_of(k.symbol()) is not None]
print(*loaded())
request = compiled.create_infer_request()
request.start_async(np.ones(8, np.float32))
request.wait()
print(*loaded())
"""


def test_queues_are_loaded_when_something_is_queued() -> None:
    assert printed("-c", ALONE).splitlines() == ["runner", "runner runner_queues"]


@pytest.mark.parametrize("name", list(runner.ROUTINES))
def test_every_function_of_the_runner_has_an_address(name: str) -> None:
    for function in runner.ROUTINES[name]:
        assert runner.address_of(function)
    assert objects.address_of(runner.native_kernel(name).symbol()) is not None
