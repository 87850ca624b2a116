"""The format of a model file by its contents, for files whose names do not tell it."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

#: A GGUF file begins with this, and a TensorFlow Lite file has the other at its fifth byte.
_GGUF, _TFLITE = b"GGUF", b"TFL3"
#: The root of an IR. Versions before 10 are not read.
_NET = re.compile(rb"<net\b[^>]*\bversion\s*=\s*[\"'](\d+)[\"']")
_OLDEST_IR = 10
#: The fields of ONNX's ModelProto, with their kinds in protobuf's wire format.
_NUMBER, _BYTES = 0, 2
_MODEL = {1: _NUMBER, 5: _NUMBER, **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), _BYTES)}
_GRAPH = 7
#: Those of TensorFlow's GraphDef, of which 1 is its nodes.
_GRAPH_DEF = {3: _NUMBER, **dict.fromkeys((1, 2, 4, 5), _BYTES)}
_NODE = 1
#: Those of TensorFlow's MetaGraphDef, of which 2 is its graph.
_META_GRAPH, _META_GRAPH_DEF = dict.fromkeys(range(1, 8), _BYTES), 2
#: How a GraphDef as text begins, behind remarks.
_GRAPH_TEXT = re.compile(rb"(\s|#[^\n]*\n)*(node|versions|version|library|debug_info)\s*[:{<]")
#: The root of an IR stands in so many first bytes. A ModelProto has no more fields of its own.
_HEAD, _MOST_FIELDS = 1 << 16, 1 << 16


def format_of(path: str | os.PathLike[str]) -> str | None:
    """ "ir", "onnx", "tflite" or "gguf"; None for other contents and for what is no regular file."""
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        kind = format_of_bytes(file.read(8))
        if kind == "ir":
            file.seek(0)
            match = _NET.search(file.read(_HEAD))
            return kind if match and int(match[1]) >= _OLDEST_IR else None
        return kind if kind != "onnx" or _is_message(file, _MODEL, _GRAPH) else None


def format_of_bytes(head: bytes) -> str:
    """The format by the first 8 bytes or more: "onnx" where they are of no other."""
    if head[:4] == _GGUF:
        return "gguf"
    if head[4:8] == _TFLITE:
        return "tflite"
    return "ir" if looks_like_xml(head) else "onnx"


def is_graph_def(path: str | os.PathLike[str]) -> bool:
    """Whether a file may be a GraphDef of TensorFlow, by its outermost fields, as text by the first."""
    with open(path, "rb") as file:
        return _GRAPH_TEXT.match(file.read(_HEAD)) is not None or _is_message(file, _GRAPH_DEF, _NODE)


def is_meta_graph(path: str | os.PathLike[str]) -> bool:
    """Whether a file may be a MetaGraphDef of TensorFlow, by its outermost fields."""
    with open(path, "rb") as file:
        return _is_message(file, _META_GRAPH, _META_GRAPH_DEF)


def looks_like_xml(head: bytes) -> bool:
    """Whether contents begin as XML does."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def _is_message(file: BinaryIO, fields: dict[int, int], needed: int) -> bool:
    """Whether a file is a whole message of protobuf, judged by its outermost fields, whose data are skipped.
    One of them is `needed`."""
    at, size, has_needed = 0, os.fstat(file.fileno()).st_size, False
    for _ in range(_MOST_FIELDS):
        if at == size:
            return has_needed
        tag, at = _varint(file, at)
        field, kind = tag >> 3, tag & 7
        if fields.get(field) != kind:
            return False
        number, at = _varint(file, at)
        at += number if kind == _BYTES else 0
        has_needed |= field == needed
        if not 0 < at <= size:
            return False
    return False


def _varint(file: BinaryIO, at: int) -> tuple[int, int]:
    """(a number, where it ends); the end is -1 for what is no number."""
    file.seek(at)
    number = 0
    for index, byte in enumerate(file.read(10)):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, at + index + 1
    return 0, -1
