"""The parts of a compiled model that its requests and properties read: executable, ports, name and device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit.api.model.node import ConstOutput
from ovjit.errors import InferenceError, checked_index, no_such_form
from ovjit.graph.ports import PortInfo

if TYPE_CHECKING:
    from ovjit.execution.executable import Executable


class CompiledRecord:
    """Base class of `CompiledModel`."""

    __slots__ = (
        "_config", "_device", "_executable", "_input_infos", "_input_ports", "_loaded_from_cache", "_name",
        "_output_infos", "_output_ports",
    )  # fmt: skip
    _executable: Executable
    _input_infos: tuple[PortInfo, ...]
    _output_infos: tuple[PortInfo, ...]
    _input_ports: tuple[ConstOutput, ...]
    _output_ports: tuple[ConstOutput, ...]
    _name: str
    _device: str
    _config: dict[str, Any]
    _loaded_from_cache: bool

    @property
    def inputs(self) -> list[ConstOutput]:
        return list(self._input_ports)

    @property
    def outputs(self) -> list[ConstOutput]:
        return list(self._output_ports)

    def input(self, *key: int | str, **named: Any) -> ConstOutput:
        """An input by index or name; without either, the only one. RuntimeError if there is no such one."""
        return _port(self._input_ports, (*key, *_key(named)), "input")

    def output(self, *key: int | str, **named: Any) -> ConstOutput:
        """An output by index or name; without either, the only one. RuntimeError if there is no such one."""
        return _port(self._output_ports, (*key, *_key(named)), "output")

    def _ports_text(self) -> str:
        inputs = ",\n".join(map(repr, self._input_ports))
        outputs = ",\n".join(map(repr, self._output_ports))
        return f"inputs[\n{inputs}\n]\noutputs[\n{outputs}\n]"


def _key(named: dict[str, Any]) -> list[Any]:
    """Returns the values of `input(index=)` or `input(tensor_name=)`; an error for other keywords."""
    if set(named) - {"index", "tensor_name"}:
        raise no_such_form(f"a port is selected by index or tensor_name, not by {min(named)!r}")
    return list(named.values())


def _port(ports: tuple[ConstOutput, ...], key: tuple[Any, ...], what: str) -> ConstOutput:
    if not key:
        if len(ports) != 1:
            kind = "parameter" if what == "input" else "result"
            raise InferenceError(
                f"CompiledModel::{what}() must be called on a compiled model with exactly one {kind}. "
                f"The model has {len(ports)} {what}s: pass an index or a tensor name"
            )
        return ports[0]
    if len(key) > 1:
        raise no_such_form(f"{what}() takes one index or name")
    (name,) = key
    if isinstance(name, str):
        for port in ports:
            if name in port.get_names():
                return port
        names = ", ".join(repr(n) for port in ports for n in sorted(port.get_names()))
        raise InferenceError(
            f"{what.capitalize()} for tensor name {name!r} is not found. Available names: {names or 'none'}"
        )
    if not isinstance(name, (int, np.integer)):
        raise no_such_form(f"an {what} is selected by index or name, not by {type(name).__name__}")

    def beyond(i: int) -> Exception:
        return InferenceError(f"Cannot get {what} for index: {i} {what}s size is {len(ports)}")

    return ports[checked_index(name, len(ports), what, beyond)]
