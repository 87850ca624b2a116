"""A user's program with all its types: `mypy --strict` reads it, and it runs."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
import ovjit.opset13 as ops
import ovjit.properties as props
import ovjit.properties.hint as hints
from ovjit.preprocess import PrePostProcessor

import ovjit as ov
from ovjit import (
    AsyncInferQueue,
    CompiledModel,
    InferRequest,
    Layout,
    Model,
    Node,
    Output,
    PartialShape,
    Shape,
    Tensor,
    Type,
)

Floats = npt.NDArray[np.float32]


def made() -> Model:
    """y = softmax(x w), for rows of bytes."""
    x = ops.parameter(PartialShape([-1, 4]), Type.f32, name="x")
    w = ops.constant(np.eye(4, dtype=np.float32))
    y = ops.softmax(ops.matmul(x, w, False, False), 1)
    model = Model([y], [x], "typed")
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NC"))
    return steps.build()


def classes(compiled: CompiledModel, rows: npt.NDArray[np.uint8]) -> list[int]:
    result = compiled([rows])[compiled.output(0)]
    return [int(row.argmax()) for row in result]


def in_flight(compiled: CompiledModel, rows: npt.NDArray[np.uint8]) -> dict[int, int]:
    found: dict[int, int] = {}

    def done(request: InferRequest, index: int) -> None:
        values: Floats = request.get_output_tensor(0).data
        found[index] = int(values.argmax())

    queue = AsyncInferQueue(compiled, 2)
    queue.set_callback(done)
    for index in range(len(rows)):
        queue.start_async({0: Tensor(rows[index : index + 1])}, index)
    queue.wait_all()
    return found


def told(core: ov.Core, model: Model) -> list[str]:
    return [*core.available_devices, model.friendly_name, *(node.name for node in model.get_ordered_ops())]


def shape_of(port: Output) -> Shape:
    return port.shape


def kind_of(tensor: Tensor) -> Type:
    return tensor.element_type


def rectified(node: Node) -> Node:
    return ops.relu(node)


def exported(compiled: CompiledModel) -> bytes:
    return compiled.export_model().getvalue()


def main() -> int:
    core = ov.Core()
    compiled = core.compile_model(
        made(), "CPU", {hints.performance_mode(): hints.PerformanceMode.LATENCY, props.num_streams(): 1}
    )
    rows = np.diag(np.full(4, 9, np.uint8))
    expected = [0, 1, 2, 3]
    shape: list[int] = list(ov.Shape([2, 3]))
    known: bool = compiled.input(0).partial_shape.is_static
    right = classes(compiled, rows) == expected and in_flight(compiled, rows) == dict(enumerate(expected))
    x = ops.parameter([2, 3])
    relu = rectified(x)
    typed = kind_of(Tensor(rows)) == Type.u8 and shape_of(relu.output(0)) == Shape([2, 3])
    said = "CPU" in told(core, Model([relu], [x], "rectified")) and exported(compiled) != b""
    return 0 if right and typed and said and shape == [2, 3] and not known else 1


if __name__ == "__main__":
    sys.exit(main())
