"""The table of operations, docs/operations.md: OpenVINO's, each in every version, and how ovjit runs it.

python tests/operations.py          writes the table, from the real package's library and ovjit's records
"""

from __future__ import annotations

import re
from pathlib import Path

from ovjit.graph.op import Op, all_ops

PAGE = Path(__file__).parent.parent / "docs" / "operations.md"
HEAD = """# Operations

Made by `python tests/operations.py` from the library of the real package and from ovjit's records. A version
is the opset that brought it. How an operation runs:

- **fused**: in elementwise kernels, and behind tiles and convolutions;
- **native**: by kernels of its own, for the element types it says; for others and where a value that decides
  about shapes is not known before the data is, by its reference;
- **expanded**: as simpler operations;
- **reference**: by NumPy, between native steps (`exec_type` is `ref_numpy`);
- **graph**: it is no step: values, inputs and outputs, and what runs bodies.

| operation | versions | runs |
|---|---|---|
"""
#: Operations of OpenVINO's classes that no file of its has: bases, or made inside of plugins only.
INSIDE = frozenset("PagedAttentionExtension Sink".split())
#: Version 0 of the library is opset 1.
FIRST = 1
#: What is no step of a program, or runs programs of its own.
GRAPH = "Parameter Constant Result ReadValue Assign If Loop TensorIterator".split()


def real_operations() -> dict[str, set[int]]:
    """name -> versions, from the symbols of OpenVINO's library (version 0 is opset 1)."""
    import openvino

    library = next((Path(openvino.__file__).parent / "libs").glob("libopenvino.so*"))
    name = rb"(\d+)([A-Za-z0-9_]+?)(?=20get_type_info|17get_type_info|C1E|C2E|D0E|14visit)"
    pattern = rb"N2ov2op(?:2v(\d)|3v(\d\d))" + name
    found: dict[str, set[int]] = {}
    for match in re.finditer(pattern, library.read_bytes()):
        word = match.group(4).decode()
        if len(word) == int(match.group(3)) and word not in INSIDE:
            found.setdefault(word, set()).add(max(FIRST, int(match.group(1) or match.group(2))))
    return found


def how(record: Op) -> str:
    """How an operation runs, in the words of the page."""
    if record.name in GRAPH:
        return "graph"
    if record.scalar is not None:
        return "fused"
    if record.lower is not None:
        return "native"
    return "expanded" if record.expand is not None else "reference"


def rows() -> list[tuple[str, str, str]]:
    """(operation, versions, how it runs), one for each operation."""
    ours: dict[str, list[Op]] = {}
    for record in all_ops():
        if not record.internal:
            ours.setdefault(record.name, []).append(record)
    out = []
    real = real_operations()
    for name in sorted({*real, *ours}):
        records = ours.get(name, [])
        ways = sorted({how(r) for r in records}) or ["missing"]
        versions = ", ".join(str(r.opset) for r in records) or ", ".join(map(str, sorted(real[name])))
        out.append((name, versions, ", ".join(ways)))
    return out


def page() -> str:
    table = "".join(f"| {name} | {versions} | {ways} |\n" for name, versions, ways in rows())
    missing = [name for name, _, ways in rows() if ways == "missing"]
    tail = f"\nMissing: {', '.join(missing)}.\n" if missing else "\nNone is missing.\n"
    return HEAD + table + tail


if __name__ == "__main__":
    PAGE.write_text(page())
