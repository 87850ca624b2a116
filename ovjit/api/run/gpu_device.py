"""The device "GPU" in the API: names of cards, their contexts, and the operations that run on them.

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


def has_driver() -> bool:
    """True if the driver's library is installed, be there a card or not."""
    from ovjit.gpu.driver import NO_LIBRARY, why_no_card

    return why_no_card() != NO_LIBRARY


def why_not(name: str) -> str:
    """The reason why there is no card of this name."""
    from ovjit.gpu.driver import why_no_card

    return why_no_card() or f"the driver has {', '.join(names())}, and no {name}"


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
