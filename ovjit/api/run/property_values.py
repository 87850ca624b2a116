"""The enumerations that properties take, and the names of properties as callable strings."""

from __future__ import annotations

import enum
import functools
import operator
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ovjit.api.arguments import explain_calls, mismatch
from ovjit.api.model.rt_info import OVAny
from ovjit.errors import no_such_constructor, no_such_form


class _Kind(enum.EnumMeta):
    """Enumerations also tell their members the way that OpenVINO's do."""

    def __getattr__(cls, name: str) -> Any:
        if name == "__entries":  # name -> (member, its description, of which there are none)
            members: dict[str, Any] = dict(cls.__members__)
            return {key: (member, None) for key, member in members.items()}
        parent: Any = getattr(super(), "__getattr__", None)  # Python up to 3.11 finds members by it
        if parent is None:
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        return parent(name)


@functools.total_ordering
class _Choice(enum.Enum, metaclass=_Kind):
    """A value that prints as OpenVINO's enumerations do and can be read as an int. They are in order."""

    @classmethod
    def _missing_(cls, value: object) -> Any:
        if not hasattr(value, "__index__"):
            raise no_such_constructor(f"{cls.__name__} takes an int, not {value!r}")
        return None

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)

    def __hash__(self) -> int:
        return hash(self.value)

    def __lt__(self, other: object) -> bool:
        return self.value < other.value if type(other) is type(self) else NotImplemented


class PerformanceMode(_Choice):
    """LATENCY: one stream on all cores; THROUGHPUT: several streams."""

    LATENCY, THROUGHPUT, CUMULATIVE_THROUGHPUT = 1, 2, 3


class ExecutionMode(_Choice):
    """PERFORMANCE: lower precision where that is faster; ACCURACY: the model's own."""

    PERFORMANCE, ACCURACY = 1, 2


class Priority(_Choice):
    LOW, MEDIUM, HIGH, DEFAULT = 0, 1, 2, 1


class SchedulingCoreType(_Choice):
    ANY_CORE, PCORE_ONLY, ECORE_ONLY = range(3)


class ModelDistributionPolicy(_Choice):
    TENSOR_PARALLEL, PIPELINE_PARALLEL = range(2)


class CacheMode(_Choice):
    OPTIMIZE_SIZE, OPTIMIZE_SPEED = range(2)


class CompatibilityCheck(_Choice):
    NOT_APPLICABLE, SUPPORTED, UNSUPPORTED = range(3)


class WorkloadType(_Choice):
    DEFAULT, EFFICIENT = range(2)


class SchedulePolicy(_Choice):
    ROUND_ROBIN, DEVICE_PRIORITY, DEFAULT = 0, 1, 1


class TbbPartitioner(_Choice):
    STATIC, AUTO = 1, 2


class Level(_Choice):
    """Log levels; as strings LOG_NONE, LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG, LOG_TRACE."""

    NO, ERR, WARNING, INFO, DEBUG, TRACE = range(-1, 5)


class DeviceType(_Choice):
    INTEGRATED, DISCRETE = range(2)


DeviceType.__name__ = DeviceType.__qualname__ = "Type"
DeviceType.__module__ = "ovjit.properties.device"  # where it has that name


class Capability:
    """Possible entries of OPTIMIZATION_CAPABILITIES."""

    FP32 = "FP32"
    BF16 = "BF16"
    FP16 = "FP16"
    INT8 = "INT8"
    INT16 = "INT16"
    BIN = "BIN"
    WINOGRAD = "WINOGRAD"
    EXPORT_IMPORT = "EXPORT_IMPORT"


@explain_calls
class Num:
    """A number of streams; AUTO (-1) leaves it to the runtime."""

    __slots__ = ("_num",)
    AUTO: ClassVar[Num]
    NUMA: ClassVar[Num]

    def __init__(self, num: int = -1):
        self._num = operator.index(num)

    def to_integer(self) -> int:
        return self._num

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Num) and self._num == other._num

    def __hash__(self) -> int:
        return hash(self._num)

    def __repr__(self) -> str:
        return f"<Num: {self._num}>"


Num.AUTO = Num(-1)
Num.NUMA = Num(-2)


class Property(str):
    """A property's name that can be called: without an argument it gives the name, with a value the pair of
    name and value. TypeError for a value of another kind, or for a property that only can be read."""

    _check: Callable[[Any], Any] | None

    def __new__(cls, name: str, check: Callable[[Any], Any] | None = None) -> Property:
        self = str.__new__(cls, name)
        self._check = check
        return self

    def __call__(self, *args: Any) -> Any:
        if not args:
            return str(self)
        if self._check is None:
            raise mismatch(self, args, {}, "it can only be read, and takes no value")
        if len(args) != 1:
            raise mismatch(self, args, {}, f"it takes one value, not {len(args)}")
        try:
            return str(self), OVAny(self._check(args[0]))
        except TypeError as error:
            raise mismatch(self, args, {}, error) from None


class ListProperty(Property):
    """A property that takes any number of values."""

    def __call__(self, *args: Any) -> Any:
        if not args:
            return str(self)
        assert self._check is not None
        return str(self), OVAny(self._check(args))


def instance_of(*kinds: type) -> Callable[[Any], Any]:
    """A check that takes instances of `kinds` and raises TypeError for anything else. For bool, what has a
    truth of its own: numbers and None."""
    if kinds == (bool,):
        return _boolean

    def check(value: Any) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise no_such_form(
                f"a value of type {' or '.join(k.__name__ for k in kinds)} is expected, not {value!r}"
            )
        return value

    return check


def _boolean(value: Any) -> bool:
    if value is None or isinstance(value, (int, float, np.generic)):
        return bool(value)
    raise no_such_form(f"a value of type bool is expected, not {value!r}")


def integer(value: Any) -> int:
    return int(value) if isinstance(value, np.floating) else operator.index(value)


def count(value: Any) -> int:
    """An integer of 0 or more."""
    if integer(value) < 0:
        raise no_such_form(f"a number of 0 or more is expected, not {value!r}")
    return integer(value)


def number(value: Any) -> float:
    if isinstance(value, (str, bytes)):
        raise no_such_form(f"a number is expected, not {value!r}")
    return float(value)
