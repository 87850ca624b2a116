"""Reader of ONNX files: opset 7 to the newest, com.microsoft's operators of exporters and quantisers.

`reader.read_opened` makes a Model; a row or short function for each operator is in the modules of families.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovjit.readers.registry import Reader, Request, Source

if TYPE_CHECKING:
    from ovjit.build import Model


class OnnxReader(Reader):
    """The reader of ONNX files, contents and ModelProtos. Contents of no other format are read as ONNX:
    protobuf has no identifier."""

    name = "onnx"
    title = "ONNX (.onnx)"
    suffixes = (".onnx",)
    input_model = "ovjit.compat.frontend.onnx_model:OnnxInputModel"

    def sniff(self, source: Source) -> bool:
        if not source.is_file:
            return False
        from ovjit.readers.files.protobuf import BYTES, NUMBER, is_message

        fields = {1: NUMBER, 5: NUMBER, **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), BYTES)}
        with open(source.model, "rb") as file:
            return is_message(file, fields, needed=7)  # the graph

    def read(self, source: Source, request: Request) -> Model:
        from ovjit.readers.onnx.reader import open_model, read_opened

        opened = open_model(source.model, request.weights, request.use_mmap)
        return read_opened(opened, request.converters)


READER = OnnxReader()
