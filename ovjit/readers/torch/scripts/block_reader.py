"""Interface of a reader of scripts to the bodies of branches and loops, to lists and to views."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.readers.torch.graph import TorchReader
from ovjit.readers.torch.scripts.memory import Memory


class BlockReader(TorchReader):
    """Reads blocks of a graph. `env`: name -> value."""

    def __init__(self, converters: Mapping[str, Any] | None = None):
        super().__init__(converters)
        self.env: dict[str, Any] = {}
        self.around: dict[str, Any] = {}  # what `env` was around the body that is read
        self.holders: list[Any] = []  # what holds tensors beside `env`, in bodies
        self.memory = Memory()

    def look_up(self, value: Any) -> Any:
        return self.env[value.debugName()]

    @abstractmethod
    def read_block(self, block: Any) -> None:
        """Read the nodes of a block, and store their results in `env`."""

    @abstractmethod
    def enter(self, inside: Any) -> contextlib.AbstractContextManager[None]:
        """Context manager in which a body is read. `inside`: its inputs."""

    @abstractmethod
    def carry(self, inside: Any, value: Any, inner: Any) -> None:
        """Record that a body computes a new value of an outer tensor, `inner` in the body."""

    @abstractmethod
    def mark_unknown(self, inside: Any) -> None:
        """Mark tensors that a body has written without carrying them as unknown."""

    @abstractmethod
    def note_outputs(self, outputs: Sequence[Any], ends: Sequence[Sequence[Any]]) -> None:
        """Record that each output may share memory with one of the values in `ends`."""

    @abstractmethod
    def begin_iteration(self, outer: Any, value: Any) -> list[Any]:
        """Record that an iteration begins with `value` for `outer`. Returns the pieces of both."""

    @abstractmethod
    def end_iterations(
        self, node: Any, inside: Any, carried: Sequence[Any], after: Sequence[Any], used: Sequence[bool]
    ) -> list[int]:
        """Record what a loop has written. Returns the indices of tensors that it writes in place."""

    @abstractmethod
    def replace(self, node: Any, old: Any, value: Any) -> None:
        """Set a new value of a tensor and of all tensors that share its memory."""

    @abstractmethod
    def join_stacked(self, lists: Sequence[Any], tensors: Sequence[Any]) -> None:
        """Record that lists of dynamic length may share memory with tensors."""
