"""llama.cpp's files of language models -> Model: a decoder with state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovjit.errors import UnsupportedError
from ovjit.readers.registry import Reader, Request, Source

if TYPE_CHECKING:
    from ovjit.build import Model


class GgufReader(Reader):
    """The reader of GGUF files. Its front end gives the model without state, as OpenVINO's does."""

    name = "gguf"
    title = "GGUF (.gguf)"
    suffixes = (".gguf",)
    listed = False

    def sniff(self, source: Source) -> bool:
        return source.head[:4] == b"GGUF"

    def read(self, source: Source, request: Request) -> Model:
        if source.path is None:
            raise UnsupportedError(
                "a GGUF file is read from its path; its contents as bytes are not supported"
            )
        from ovjit.readers.gguf.reader import read_gguf

        return read_gguf(source.path)

    def read_for_front_end(self, source: Source, request: Request) -> Model:
        from ovjit.readers.gguf.reader import read_gguf

        return read_gguf(str(source.path), flat=True)


READER = GgufReader()
