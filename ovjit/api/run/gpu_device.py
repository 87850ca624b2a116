"""The device "GPU" in the API: names of cards, and what it says of its properties.

Names are OpenVINO's: "GPU" is "GPU.0"; several cards are listed as "GPU.0", "GPU.1" in the driver's order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovjit.api.run.remote import RemoteContext
from ovjit.errors import OvjitError


def names() -> list[str]:
    """The names of the cards that models can be compiled for."""
    from ovjit.gpu.driver import cards

    count = len(cards())
    return ["GPU"] if count == 1 else [f"GPU.{i}" for i in range(count)]


def index_of(name: str) -> int | None:
    """The card that a name such as "GPU" or "GPU.1" means; None for other names, and numbers without a
    card."""
    kind, dot, number = name.partition(".")
    if kind != "GPU" or (dot and not number.isdecimal()):
        return None
    from ovjit.gpu.driver import cards

    index = int(number or 0)
    return index if index < len(cards()) else None


def new_context(index: int) -> RemoteContext:
    """A context of a card, with a stream of its own for copies."""
    from ovjit.gpu.driver import open_card

    return RemoteContext._make(f"GPU.{index}", open_card(index))


#: Index of a card -> its default context.
_contexts: dict[int, RemoteContext] = {}


def default_context(index: int) -> RemoteContext:
    """The context of a card that all callers share."""
    from ovjit.gpu.driver import open_card

    context = _contexts.get(index)
    if context is None or context._card is not open_card(index):
        context = _contexts[index] = new_context(index)
    return context


def property_of(name: str, index: int, settings: Mapping[str, Any], device: str) -> Any:
    """A property of a card. Those that say how inferences run are the CPU's, with what is set for "GPU"."""
    from ovjit.api.run import properties_table as table
    from ovjit.api.run import property_values as values
    from ovjit.gpu.driver import cards, open_card

    facts = cards()[index]
    major, minor = facts.capability
    known: dict[str, Any] = {
        "AVAILABLE_DEVICES": [str(i) for i in range(len(cards()))],
        "FULL_DEVICE_NAME": f"{facts.name} (dGPU)",
        "DEVICE_TYPE": values.DeviceType.DISCRETE,
        "DEVICE_UUID": facts.uuid.hex(),
        "DEVICE_ID": str(index),
        "DEVICE_ARCHITECTURE": f"GPU: vendor=0x10de arch=v{major}.{minor}.0",
        "OPTIMIZATION_CAPABILITIES": ["FP32"],
        "GPU_DEVICE_TOTAL_MEM_SIZE": facts.memory,
        "GPU_DEVICE_MAX_ALLOC_MEM_SIZE": facts.memory,
        "GPU_UARCH_VERSION": f"{major}.{minor}.0",
        "OPTIMAL_BATCH_SIZE": 1,
        "MAX_BATCH_SIZE": 1,
        "EXECUTION_DEVICES": [f"GPU.{index}"],
    }
    if name == "SUPPORTED_PROPERTIES":
        rows = {r.name: r.mutability for r in table.ROWS.values() if "C" in r.devices and r.name not in known}
        own = dict.fromkeys((*known, "GPU_EXECUTION_UNITS_COUNT", "GPU_MEMORY_STATISTICS"), "RO")
        return {"SUPPORTED_PROPERTIES": "RO", **own, **rows}
    if name in known:
        return known[name]
    card = open_card(index)
    if name == "GPU_EXECUTION_UNITS_COUNT":
        return card.attribute("MULTIPROCESSOR_COUNT")
    if name == "GPU_MEMORY_STATISTICS":
        free, total = card.free_bytes()
        return {"usm_device_current": total - free}
    row = table.find_row(name, "C", "GPU", reading=True)
    if row.name in settings and row.name != "INFERENCE_PRECISION_HINT":
        return settings[row.name]
    if row.name == "INFERENCE_PRECISION_HINT":
        return table.default_of(row, "CPU", {"INFERENCE_PRECISION_HINT": table.TYPES["f32"]})
    return table.default_of(row, "CPU", settings)


def supported_nodes(model: Any, config: Mapping[str, Any]) -> dict[str, str]:
    """friendly name -> "GPU", of all operations of a model that run on a card; the others run on the CPU."""
    from ovjit.codegen.cpu.targets import TARGETS
    from ovjit.compiler import compile as compile_graph
    from ovjit.compiler.options import Options
    from ovjit.planning.lower import ReferenceStep

    graph = model._graph()
    try:
        program = compile_graph(graph, TARGETS["cuda"], Options.of(config, TARGETS["cuda"]))
    except OvjitError:
        return {}
    host = {
        origin
        for lowering in program.lowerings
        if isinstance(lowering, ReferenceStep)
        for origin in lowering.group.origins
    }
    nodes = sorted(node.get_friendly_name() for node in model.get_ordered_ops())
    return {name: "GPU" for name in nodes if name not in host}
