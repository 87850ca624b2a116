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

    RUNNING = 0
    STOP = 1
    CANCEL = 2
    TOOL_CALL_STOP = 3


class GenerationStatus(_Enum):
    """The state of a request of ContinuousBatchingPipeline."""

    RUNNING = 0
    FINISHED = 1
    IGNORED = 2
    CANCEL = 3
    STOP = 4


class GenerationFinishReason(_Enum):
    """Why a sequence ended."""

    NONE = 0
    STOP = 1
    LENGTH = 2
    TOOL_CALL = 3


class StopCriteria(_Enum):
    """When beam search ends."""

    EARLY = 0
    HEURISTIC = 1
    NEVER = 2


class AggregationMode(_Enum):
    """Ways to sum the importance of tokens for cache eviction."""

    SUM = 0
    NORM_SUM = 1
    ADAPTIVE_RKV = 2


class KVCrushAnchorPointMode(_Enum):
    """The point that KVCrush measures distances from."""

    RANDOM = 0
    ZEROS = 1
    ONES = 2
    MEAN = 3
    ALTERNATING = 4


class SparseAttentionMode(_Enum):
    """The pattern of sparse attention."""

    TRISHAPE = 0
    XATTENTION = 1
