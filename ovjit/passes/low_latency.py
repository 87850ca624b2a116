"""What loops carry from one trip to the next, made into variables of the model."""

from __future__ import annotations

from ovjit.api.model.model import Model
from ovjit.errors import UnsupportedError

_LOOPS = ("Loop", "TensorIterator")


def low_latency(model: Model, use_const_initializer: bool) -> bool:
    """Nothing is to be done for a model without loops. True if anything changed.

    UnsupportedError for one that has them.
    """
    loops = [node for node in model.get_ordered_ops() if node._op.name in _LOOPS]
    if loops:
        raise UnsupportedError(f"LowLatency2 is not implemented for {loops[0]!r}")
    return False
