"""Misuse of files, devices, requests, states and preprocessing. ovjit's errors contain OpenVINO's words,
which programs match and users search for, and have the same built-in class. Operations: test_sentences.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit

F32 = np.float32
ONES = np.ones((1, 3), F32)


def relu(ov: Any, inputs: int = 1, outputs: int = 1, shape: tuple[int, ...] = (1, 3)) -> Any:
    o = ov.opset13
    parameters = [o.parameter(list(shape), F32, name=f"x{i}") for i in range(inputs)]
    for parameter in parameters:
        parameter.output(0).set_names({parameter.get_friendly_name()})
    return ov.Model([o.result(o.relu(parameters[i % inputs])) for i in range(outputs)], parameters, "net")


def compiled(ov: Any, **options: Any) -> Any:
    return ov.Core().compile_model(relu(ov, **options), "CPU")


def saved(ov: Any, folder: Path) -> Path:
    """An IR with a constant of 48 bytes."""
    o, path = ov.opset13, folder / "net.xml"
    x = o.parameter([1, 3], F32, name="x")
    product = o.matmul(x, o.constant(np.ones((3, 4), F32)), False, False)
    ov.save_model(ov.Model([o.result(product)], [x], "net"), path, compress_to_fp16=False)
    return path


def edited(ov: Any, folder: Path, old: str, new: str) -> None:
    path = saved(ov, folder)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    ov.Core().read_model(path)


def broadcast_by(ov: Any, rule: str) -> None:
    x = ov.opset13.parameter([2, 3], F32)
    ov.opset13.select(ov.opset13.less(x, x), x, x).set_attribute("auto_broadcast", rule)


def weights_of(ov: Any, folder: Path, content: bytes | None) -> None:
    """Reads an IR with other weights, or with none."""
    path = saved(ov, folder)
    path.with_suffix(".bin").unlink()
    if content is not None:
        path.with_suffix(".bin").write_bytes(content)
    ov.Core().read_model(path)


def file_of(ov: Any, folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"garbage!" * 20)
    ov.Core().read_model(folder / name)


def with_property(ov: Any, name: str, value: Any) -> None:
    ov.Core().compile_model(relu(ov), "CPU", {name: value})


def steps(ov: Any, folder: Path, add: Callable[[Any, Any], Any]) -> None:
    package = __import__(f"{ov.__name__}.preprocess").preprocess
    processor = package.PrePostProcessor(relu(ov, shape=(1, 3, 8, 8)))
    add(processor.input(), package)
    processor.build()


def makes(what: Any) -> Callable[[Any, Any], Any]:
    """A custom step that returns `what`."""
    return lambda given, package: given.preprocess().custom(lambda out: what)


def nv12(given: Any, package: Any) -> None:
    colours = package.ColorFormat
    given.tensor().set_color_format(colours.NV12_SINGLE_PLANE)
    given.preprocess().convert_color(colours.RGB)


def state_of(ov: Any, shape: tuple[int, ...]) -> None:
    o = ov.opset13
    x = o.parameter([1, 3], F32, name="x")
    read = o.read_value(o.constant(np.zeros((1, 3), F32)), "v")
    total = o.add(read, x)
    model = ov.Model([o.result(total)], [o.assign(total, "v")], [x], "state")
    request = ov.Core().compile_model(model, "CPU").create_infer_request()
    request.query_state()[0].state = ov.Tensor(np.ones(shape, F32))
    request.infer({0: ONES})


def without_evaluate(ov: Any) -> None:
    class Mine(ov.Op):
        def __init__(self, inputs: Any = None):
            super().__init__(self)
            if inputs is not None:
                self.set_arguments(inputs)
                self.constructor_validate_and_infer_types()

        def validate_and_infer_types(self) -> None:
            self.set_output_type(0, self.get_input_element_type(0), self.get_input_partial_shape(0))

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            return Mine(inputs)

    x = ov.opset13.parameter([1, 3], F32)
    ov.Core().compile_model(ov.Model([Mine([x.output(0)])], [x], "mine"), "CPU")(ONES)


def open_rank(ov: Any) -> None:
    x = ov.opset13.parameter(ov.PartialShape.dynamic(), F32, name="x")
    ov.Core().compile_model(ov.Model([ov.opset13.relu(x)], [x], "open"), "CPU")


def node_without_input(ov: Any, folder: Path) -> None:
    import onnx
    from onnx import helper

    infos = [helper.make_tensor_value_info(name, 1, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "gone"], ["y"])], "g", infos[:1], infos[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "a.onnx"
    )
    ov.Core().read_model(folder / "a.onnx")


def request(ov: Any, **options: Any) -> Any:
    return compiled(ov, **options).create_infer_request()


def on(ov: Any, device: str) -> None:
    ov.Core().compile_model(relu(ov), device)


def branches(ov: Any, *types: str) -> None:
    """An If whose branches have outputs of these types."""
    o = ov.opset13
    x, chosen = o.parameter([2], F32), o.if_op(o.parameter([], np.bool_))
    inner = [o.parameter([2], F32) for _ in types]
    bodies = [ov.Model([o.result(o.convert(p, t))], [p], t) for p, t in zip(inner, types, strict=True)]
    chosen.set_then_body(bodies[0])
    chosen.set_else_body(bodies[1])
    chosen.set_input(x.output(0), *inner)
    chosen.set_output(*(body.results[0] for body in bodies))


def without_output(ov: Any, folder: Path) -> None:
    import onnx
    from onnx import helper

    infos = [helper.make_tensor_value_info(name, 1, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "g", infos[:1], infos[1:])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "a.onnx")
    ov.Core().read_model(folder / "a.onnx")


def written_as(ov: Any, version: str) -> None:
    package = __import__(f"{ov.__name__}.passes").passes
    package.Serialize("a.xml", "a.bin", version)


def with_sink(ov: Any) -> None:
    x = ov.opset13.parameter([1, 3], F32)
    y = ov.opset13.relu(x)
    ov.Model([ov.opset13.result(y)], [y], [x])


def without_variables(ov: Any) -> None:
    state = ov.opset13.read_value(ov.opset13.constant(ONES), "v")
    ov.Model([ov.opset13.result(state)], [], [], [])


def crop(given: Any, package: Any) -> None:
    given.preprocess().crop([0, 0], [1, 1, 1])


#: Words of both packages, and the call that both refuse with them.
CASES: dict[str, Callable[[Any, Path], Any]] = {
    "Empty weights data in bin file or bin file cannot be found!": lambda ov, f: weights_of(ov, f, None),
    "Incorrect weights in bin file!": lambda ov, f: weights_of(ov, f, b"abc"),
    "doesn't contain the operation with type: MatMool": lambda ov, f: edited(ov, f, '"MatMul"', '"MatMool"'),
    'Cannot parse dimension: "a"': lambda ov, f: edited(ov, f, 'shape="1,3"', 'shape="1,a"'),
    '"f99" is not a member of enum element::Type_t': lambda ov, f: edited(
        ov, f, 'shape="1,3" element_type="f32"', 'shape="1,3" element_type="f99"'
    ),
    '"zz" is not a member of enum ov::op::AutoBroadcastType': lambda ov, f: broadcast_by(ov, "zz"),
    'model format: ".foo" is supported and the model is correct': lambda ov, f: file_of(ov, f, "a.foo"),
    'model format: ".tflite" is supported and the model is correct': lambda ov, f: file_of(ov, f, "a.tflite"),
    "Input tensor isn't found for node": node_without_input,
    "was declared as a graph output but is not produced by any operation": without_output,
    "is not equal type of else_body output": lambda ov, f: branches(ov, "f32", "i32"),
    "Invoked with wrong version argument: 'IR_V7'! The supported versions are:": lambda ov, f: written_as(
        ov, "IR_V7"
    ),
    "must be existing file/directory": lambda ov, f: ov.convert_model(["a", "b"]),
    "Couldn't create directory": lambda ov, f: ov.save_model(relu(ov), "/proc/none/a.xml"),
    "Path: 'None' does not exist. Please provide valid model's path": lambda ov, f: ov.save_model(
        relu(ov), None
    ),
    "`model_stream` must be an io.BytesIO object but None` provided": lambda ov, f: compiled(ov).export_model(
        None
    ),
    " is not instance of Sink": lambda ov, f: with_sink(ov),
    "Model references undeclared variables: v": lambda ov, f: without_variables(ov),
    "cannot reshape array of size 1 into shape (1,3)": lambda ov, f: compiled(ov)(np.array(1, F32)),
    "provide a valid openvino.Model instance": lambda ov, f: ov.save_model(None, f / "a.xml"),
    "doesn't support Parameter operation with dynamic rank. Operation name: x": lambda ov, f: open_rank(ov),
    'Device with "XPU" name is not registered in the OpenVINO Runtime': lambda ov, f: on(ov, "XPU"),
    "CPU plugin supports only '' as device id": lambda ov, f: on(ov, "CPU.3"),
    "KEY_MULTI_DEVICE_PRIORITIES key is not set for MULTI": lambda ov, f: on(ov, "MULTI"),
    "INFERENCE_NUM_THREADS. Expected only non negative integer numbers": lambda ov, f: with_property(
        ov, "INFERENCE_NUM_THREADS", -3
    ),
    "Failed to set tensor for output with precision: i64": lambda ov, f: request(ov).set_output_tensor(
        ov.Tensor(np.ones((1, 3), np.int64))
    ),
    "set_output_tensor() must be called on a function with exactly one parameter": lambda ov, f: request(
        ov, outputs=2
    ).set_output_tensor(ov.Tensor(ONES)),
    "get_input_tensor() must be called on a function with exactly one parameter": lambda ov, f: request(
        ov, inputs=2
    ).get_input_tensor(),
    "must be used for single-input models only": lambda ov, f: request(ov, inputs=2).set_input_tensors(
        [ov.Tensor(ONES)]
    ),
    "must be called on a compiled model with exactly one result": lambda ov, f: compiled(
        ov, outputs=2
    ).output(),
    "incompatible function arguments": lambda ov, f: request(ov).wait_for("a"),
    "incompatible constructor arguments": lambda ov, f: ov.AsyncInferQueue(compiled(ov), "a"),
    "No constructor defined!": lambda ov, f: ov.Node(),
    "Can not clone with new dims": lambda ov, f: state_of(ov, (5, 5)),
    "is not used in ov::Model::reshape": lambda ov, f: relu(ov).reshape({relu(ov).input(0): [1, 3]}),
    "Unsupported operation of type: Mine name: Mine_": lambda ov, f: without_evaluate(ov),
    "Image height shall be divisible by 3": lambda ov, f: steps(ov, f, nv12),
    "begin/end coordinates must have the same size. Begin size=2, end size=3": lambda ov, f: steps(
        ov, f, crop
    ),
    "function arguments": lambda ov, f: steps(ov, f, makes(None)),
    "Unable to cast Python instance of type <class 'int'>": lambda ov, f: steps(ov, f, makes(5)),
}


@pytest.mark.parametrize("words", CASES)
def test_both_packages_refuse_with_these_words(words, tmp_path) -> None:
    kinds = []
    for ov in (openvino, ovjit):
        with pytest.raises(Exception) as error:
            CASES[words](ov, tmp_path)
        assert words in str(error.value), (ov.__name__, str(error.value))
        kinds.append(error.type)
    assert issubclass(kinds[1], next(kind for kind in kinds[0].__mro__ if kind.__module__ == "builtins"))
