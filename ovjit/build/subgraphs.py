"""The classes of nodes with bodies. Few models have some, so importing them is a step of its own."""

from ovjit.api.model.subgraphs import CLASSES, SubGraphNode, if_op, inside_body, loop

__all__ = ["CLASSES", "SubGraphNode", "if_op", "inside_body", "loop"]
