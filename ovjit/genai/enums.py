"""The enumerations of openvino_genai."""

from __future__ import annotations

import enum


class _Enum(enum.Enum):
    """An enumeration with int(), as pybind11 makes them."""

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)

    def __hash__(self) -> int:
        return hash(self.value)

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class Arithmetic(_Enum):
    """An enumeration that is equal to its numbers."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (int, Arithmetic)):
            return int(self) == int(other)
        return False

    __hash__ = _Enum.__hash__


class StreamingStatus(_Enum):
    """The answer of a streamer: go on, or stop and keep or drop the text of this call."""

    RUNNING, STOP, CANCEL, TOOL_CALL_STOP = range(4)


class GenerationStatus(_Enum):
    """The state of a request of ContinuousBatchingPipeline."""

    RUNNING, FINISHED, IGNORED, CANCEL, STOP = range(5)


class GenerationFinishReason(_Enum):
    """Why a sequence ended."""

    NONE, STOP, LENGTH, TOOL_CALL = range(4)


class StopCriteria(_Enum):
    """When beam search ends."""

    EARLY, HEURISTIC, NEVER = range(3)


class AggregationMode(_Enum):
    """Ways to sum the importance of tokens for cache eviction."""

    SUM, NORM_SUM, ADAPTIVE_RKV = range(3)


class KVCrushAnchorPointMode(_Enum):
    """The point that KVCrush measures distances from."""

    RANDOM, ZEROS, ONES, MEAN, ALTERNATING = range(5)


class SparseAttentionMode(_Enum):
    """The pattern of sparse attention."""

    TRISHAPE, XATTENTION = range(2)
