"""`OVDict`: what an inference returns, the outputs by port, index or name."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

import numpy as np

from ovjit.api.model.node import ConstOutput


class OVDict(Mapping[ConstOutput, np.ndarray]):
    """The outputs of one inference, in the model's order: a read-only mapping from port to array.

    Look-up takes a port, an int (negative ones count from the end) or one of the port's names. KeyError for
    what the model does not have, TypeError for keys of any other type. It is filled by position, so that
    building it costs nothing; keys are compared only when asked for.
    """

    __slots__ = ("_arrays", "_ports")
    _ports: tuple[ConstOutput, ...]
    _arrays: list[np.ndarray]

    def __init__(self, ports: Any, arrays: list[np.ndarray] | None = None):
        if arrays is None:  # OVDict({port: array})
            ports, arrays = tuple(ports), list(ports.values())
        self._ports = ports
        self._arrays = arrays

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, int):
            try:
                return self._arrays[key]
            except IndexError:
                raise KeyError(key) from None
        if isinstance(key, str):
            for i, port in enumerate(self._ports):
                if key in port.get_names():
                    return self._arrays[i]
            raise KeyError(key)
        if isinstance(key, ConstOutput):
            for i, port in enumerate(self._ports):
                if port is key or port == key:
                    return self._arrays[i]
            raise KeyError(key)
        raise TypeError(f"Unknown key type: {type(key)}; a result is selected by port, index or name")

    def __iter__(self) -> Iterator[ConstOutput]:
        return iter(self._ports)

    def __len__(self) -> int:
        return len(self._ports)

    # Views of a dict, as OpenVINO's: they print their entries, and can be walked backwards.

    def keys(self) -> KeysView[ConstOutput]:
        return self.to_dict().keys()

    def values(self) -> ValuesView[np.ndarray]:
        return self.to_dict().values()

    def items(self) -> ItemsView[ConstOutput, np.ndarray]:
        return self.to_dict().items()

    def __repr__(self) -> str:
        return repr(self.to_dict())

    def names(self) -> tuple[set[str], ...]:
        """The names of each output."""
        return tuple(port.get_names() for port in self._ports)

    def to_dict(self) -> dict[ConstOutput, np.ndarray]:
        """A new dict from port to array."""
        return dict(zip(self._ports, self._arrays, strict=True))

    def to_tuple(self) -> tuple[np.ndarray, ...]:
        """The arrays alone, in the model's order."""
        return tuple(self._arrays)
