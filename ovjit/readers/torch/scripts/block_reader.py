"""Interface of a reader of scripts to the bodies of branches and loops, to lists and to views."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.readers.torch.graph import TorchReader
from ovjit.readers.torch.scripts.memory import Memory


class BlockReader(TorchReader):
    """Reads blocks of a graph in an environment of values by their names."""

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
        """Add what the nodes of a block give to `env`."""

    @abstractmethod
    def enter(self, inside: Any) -> contextlib.AbstractContextManager[None]:
        """Context manager in which a body is read. `inside` are its inputs."""

    @abstractmethod
    def carry(self, inside: Any, value: Any, inner: Any) -> None:
        """Note that a body gives a tensor from around it, `inner` in the body, a new value."""

    @abstractmethod
    def spoil(self, inside: Any) -> None:
        """Forget the values of tensors that a body has written without carrying them."""

    @abstractmethod
    def note_outputs(self, outputs: Sequence[Any], ends: Sequence[Sequence[Any]]) -> None:
        """Note the memory of outputs, each of which is one of the values of `ends`."""

    @abstractmethod
    def begin_iteration(self, outer: Any, value: Any) -> list[Any]:
        """Note that an iteration begins with `value` for `outer`. Returns the pieces of both."""

    @abstractmethod
    def end_iterations(
        self, node: Any, inside: Any, carried: Sequence[Any], after: Sequence[Any], used: Sequence[bool]
    ) -> list[int]:
        """Note what a loop has written. Returns the indices of tensors that stay in their memory."""

    @abstractmethod
    def replace(self, node: Any, old: Any, value: Any) -> None:
        """Give a tensor, and all that share its memory, a new value."""

    @abstractmethod
    def join_stacked(self, lists: Sequence[Any], tensors: Sequence[Any]) -> None:
        """Note that lists of an unknown number of tensors may share memory with tensors."""
