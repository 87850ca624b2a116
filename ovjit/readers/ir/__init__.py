"""OpenVINO IR: xml and weights to a Model, and back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ovjit.readers.registry import Reader, Request, Source, check_weights

if TYPE_CHECKING:
    from ovjit.build import Model

#: The root of an IR. Versions before 10 are not read.
_NET = re.compile(rb"<net\b[^>]*\bversion\s*=\s*[\"'](\d+)[\"']")
_OLDEST = 10


class IrReader(Reader):
    """The reader of IR. Contents in memory are IR if they begin as XML does."""

    name = "ir"
    title = "OpenVINO IR (.xml)"
    suffixes = (".xml",)

    def sniff(self, source: Source) -> bool:
        from ovjit.readers.ir.xml import looks_like_xml

        if not looks_like_xml(source.head):
            return False
        match = _NET.search(source.head)
        return source.path is None or (match is not None and int(match[1]) >= _OLDEST)

    def read(self, source: Source, request: Request) -> Model:
        from ovjit.readers.ir.reader import read_ir

        weights, use_mmap, operations, _ = check_weights(request)
        return read_ir(source.model, weights, use_mmap, operations)


READER = IrReader()
