"""Blobs of models for cards: the graph, and the PTX of the kernels that its plans have needed so far.

An import compiles the graph anew, which takes no code generation: the PTX is used if the user's key
authenticates the blob. The driver keeps the machine code of PTX itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.codegen.gpu.functions import ptx_of, symbols, use_ptx
from ovjit.storage.container import refuse_invalid
from ovjit.storage.graph_format import Arrays, dump, encode_graph, parse
from ovjit.storage.origins import Elsewhere


def encode_for_card(executable: Any, elsewhere: Elsewhere | None = None) -> dict[str, Any]:
    """All sections but the header of a model for a card. `elsewhere` has no effect: weights are stored."""
    arrays = Arrays("weights")
    graph = dump(encode_graph(executable.graph, arrays))
    numbers = sorted(set(executable.main.program.addresses.values()))
    named, code = symbols(), b""
    rows = []
    for number in numbers:
        text = ptx_of(number).text.encode()
        rows.append([named[number], ptx_of(number).name, len(code), len(text)])
        code += text
    program = dump({"ptx": rows})
    return {
        "graph": graph, "weights": arrays.pieces(), "packed": b"", "program": program, "words": b"",
        "data": b"", "code": code,
    }  # fmt: skip


def provide_ptx(sections: Mapping[str, Any]) -> None:
    """Use the PTX of an authenticated blob for kernels that are compiled from now on. Raises BlobError."""
    code = sections["code"]
    with refuse_invalid("the blob's kernels are"):
        for symbol, name, offset, size in parse(sections["program"], "program")["ptx"]:
            use_ptx(symbol, code[offset : offset + size].decode(), name)
