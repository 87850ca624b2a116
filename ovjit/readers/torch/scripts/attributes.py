"""Attributes of modules, and of objects of a script's classes, which scripts read and write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

from ovjit.readers.torch.branches import Inside
from ovjit.readers.torch.graph import Refused
from ovjit.readers.torch.naming import where
from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.scripts.memory import TENSORS
from ovjit.readers.torch.scripts.mutation import WritingReader
from ovjit.readers.torch.values import constant_of


class AttributesReader(WritingReader):
    """Reads a graph of a module. Attributes are read from the object `module`, None for a function."""

    def __init__(self, module: Any, converters: Mapping[str, Any] | None = None, prefix: str = "self."):
        super().__init__(converters)
        self.module = module
        self.prefix = prefix
        self._paths: dict[str, str] = {}  # of modules and attributes, by the names of values

    @contextlib.contextmanager
    def enter(self, inside: Inside) -> Iterator[None]:
        """Context manager in which attributes are read inside of a body."""
        outer, self._attributes = self._attributes, {}
        self.bodies.append((inside, outer))
        try:
            with self.in_body(inside.shared):
                yield
        finally:
            self.bodies.pop()
            self._attributes = outer

    def _attribute(self, node: Any) -> None:
        owner = self._paths.get(node.input().debugName())
        if owner is None and node.input().node().kind() != "prim::Constant":
            self._attribute_of_object(node)
            return
        if owner is None:
            raise Refused(node.kind(), f"reading an attribute of an object is not supported{where(node)}")
        path = f"{owner}.{node.s('name')}" if owner else node.s("name")
        name = node.output().debugName()
        self._paths[name] = path
        if path not in self._attributes and self.bodies:
            self._bring_in(path)
        if path in self._attributes:
            self.env[name] = self._attributes[path]
            return
        value = self.module
        for part in path.split("."):
            value = getattr(value, part)
        tensor = value
        if isinstance(value, torch.Tensor):
            value = self.constant(value, self.prefix + path)
        elif isinstance(value, (list, tuple)):
            value = [self.constant(v, None) if isinstance(v, torch.Tensor) else v for v in value]
        elif isinstance(value, (torch.nn.Module, torch.jit.ScriptModule)):
            return
        self._attributes[path] = self.env[name] = value
        if isinstance(value, TENSORS):
            self.memory.piece(value).path = path
            self.note_constant(value, tensor)

    def _bring_in(self, path: str) -> None:
        """Make a module's attribute an input of the current body, if it was written outside or the body
        carries it."""
        values_by_body = [attributes.get(path) for _, attributes in self.bodies]
        first = next((i for i, value in enumerate(values_by_body) if value is not None), None)
        if first is None:
            return
        value = values_by_body[first]
        for inside, attributes in self.bodies[first:]:
            value = attributes.setdefault(path, value)
            piece = self.memory.find(value)
            is_constant = piece is not None and piece.path is not None and not piece.is_written
            if is_constant and id(value) not in inside.carried:
                return
            value = inside.value(value)
        self._attributes[path] = value

    def _attribute_around(self, path: str) -> Any:
        attributes = self.bodies[-1][1]
        if path not in attributes:
            tensor = reduce(getattr, path.split("."), self.module)
            attributes[path] = value = constant_of(tensor, self.prefix + path)
            self.memory.piece(value).path = path
            self.note_constant(value, tensor)
        return attributes[path]

    def _attribute_of_object(self, node: Any) -> None:
        values, key = self.look_up(node.input()), node.s("name")
        if not isinstance(values, dict) or key not in values:
            raise Refused(node.kind(), f"reading an attribute of an object is not supported{where(node)}")
        self.env[node.output().debugName()] = values[key]

    def _set_attribute(self, node: Any) -> None:
        """Assign to an attribute of an object, or of a module, where the assignment lasts until the end of
        the run."""
        target, value = node.inputs()
        owner, key = self._paths.get(target.debugName()), node.s("name")
        if owner is None:
            self.look_up(target)[key] = self.look_up(value)
            return
        if self.around:
            message = "assignment to an attribute of a module where data decide is not supported"
            raise Refused(node.kind(), f"{message}{where(node)}")
        self._attributes[f"{owner}.{key}" if owner else key] = self.look_up(value)
