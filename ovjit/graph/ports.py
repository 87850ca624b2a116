"""Names, types and shapes of a compiled model's inputs and outputs, from which the API makes ports."""

from __future__ import annotations

from ovjit.graph import shapes
from ovjit.records import NamedTuple


class PortInfo(NamedTuple):
    """One input or output: the node's friendly name, the tensor's names (sorted), type and dimensions.

    `source`: for an output, the friendly name of the node that makes it. `written`: an input that inferences
    write where the caller has it.
    """

    node: str
    names: tuple[str, ...]
    dtype: str
    shape: tuple[shapes.Dim, ...] | None
    source: str = ""
    written: bool = False

    @property
    def label(self) -> str:
        """The name by which error messages call it."""
        return self.names[0] if self.names else self.node

    def __str__(self) -> str:
        return f"{self.dtype} of shape {shapes.text(self.shape)}"
