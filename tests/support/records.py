"""Operations that exist for one test."""

from __future__ import annotations

from ovjit.graph import op as records
from ovjit.graph.op import Op


def unregister(record: Op) -> None:
    """Remove an operation, so that another can be registered. Existing graphs keep their record."""
    with records._lock.lock:
        versions = {k: v for k, v in records._REGISTRY[record.name].items() if k != record.opset}
        if versions:
            records._REGISTRY[record.name] = versions
        else:
            del records._REGISTRY[record.name]
        records.generation += 1
