"""Models of TensorFlow and Paddle, through the packages that write them as ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ovjit.readers.registry import Conversion, Reader, Request, Source

if TYPE_CHECKING:
    from ovjit.build import Model


class FrameworkReader(Reader):
    """The reader of a framework's files, which are recognized by their names."""

    certain = True

    def claims(self, source: Source) -> bool:
        from ovjit.readers.frameworks.files import framework_of

        return source.path is not None and framework_of(source.path) == self.name

    def missing_packages(self) -> str:
        from ovjit.readers.frameworks.files import missing_packages

        return missing_packages(self.name)

    def read(self, source: Source, request: Request) -> Model:
        from ovjit.readers.frameworks.files import read_framework

        return read_framework(str(source.path), self.name, request.weights, request.converters)


class TensorFlowReader(FrameworkReader):
    """The reader of TensorFlow's files, and of models of Keras and TensorFlow in memory."""

    name = "tf"
    title = "TensorFlow (SavedModel, .pb)"
    input_model = "ovjit.compat.frontend.input_model:TensorFlowInputModel"

    def sniff(self, source: Source) -> bool:
        if source.is_object:
            from ovjit.readers.frameworks.files import is_tensorflow

            return is_tensorflow(source.model)
        from ovjit.readers.frameworks.files import is_damaged

        return self.claims(source) and not is_damaged(str(source.path))

    def convert(self, model: Any, conversion: Conversion) -> Model:
        from ovjit.readers.frameworks.files import of_onnx, rules_of
        from ovjit.readers.frameworks.tensorflow import object_to_onnx

        rules = rules_of(conversion.converters)
        inputs = []
        for one in (each for each in conversion.inputs if each.name is None):
            dims = None if one.shape is None else [d.get_length() if d.is_static else None for d in one.shape]
            inputs.append((dims, None if one.type is None else one.type.to_dtype()))

        def export() -> Any:
            return object_to_onnx(model, conversion.example, inputs, rules)

        return of_onnx("the given model", self.name, export, rules)


class PaddleReader(FrameworkReader):
    """The reader of Paddle's files, and of its models in memory."""

    name = "paddle"
    title = "Paddle (.pdmodel, .json)"

    def sniff(self, source: Source) -> bool:
        if source.is_object:
            from ovjit.readers.frameworks.files import is_paddle

            return is_paddle(source.model)
        return self.claims(source) and bool(source.head)

    def convert(self, model: Any, conversion: Conversion) -> Model:
        """As `Reader.convert`; `conversion.outputs` may be tensors of Paddle's."""
        from ovjit.readers.frameworks.files import of_onnx
        from ovjit.readers.frameworks.paddle import object_to_onnx

        rows = [
            (one.name, one.shape, None if one.type is None else one.type.to_dtype().name)
            for one in conversion.inputs
        ]

        def export() -> Any:
            return object_to_onnx(model, conversion.example, rows, conversion.outputs)

        return of_onnx("the given model", self.name, export)


TENSORFLOW, PADDLE = TensorFlowReader(), PaddleReader()
