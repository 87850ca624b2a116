"""TensorFlow Lite's files -> Model. Operators are read by the rows of the families, see `registry`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovjit.readers.registry import Reader, Request, Source

if TYPE_CHECKING:
    from ovjit.build import Model


class TfliteReader(Reader):
    """The reader of TensorFlow Lite's files and contents."""

    name = "tflite"
    title = "TensorFlow Lite (.tflite)"
    suffixes = (".tflite",)
    edits_apart = True

    def sniff(self, source: Source) -> bool:
        return source.head[4:8] == b"TFL3"

    def read(self, source: Source, request: Request) -> Model:
        from ovjit.readers.tflite.reader import read_tflite

        return read_tflite(source.model, request.use_mmap, request.converters)

    def read_editable(self, source: Source, request: Request) -> Model:
        from ovjit.readers.tflite.reader import read_tflite

        return read_tflite(source.model, request.use_mmap, request.converters, plain=True)


READER = TfliteReader()
