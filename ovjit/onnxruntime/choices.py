"""The enumerations of ONNX Runtime, as pybind11 makes them: any number is a value."""

from __future__ import annotations

from typing import Any

from ovjit.onnxruntime.failures import STATE


class Choice:
    """A value of an enumeration. Subclasses are made by `_enumeration`."""

    __members__: dict[str, Any]
    #: True if values equal ints, and each other's ints.
    _is_number = True

    def __init__(self, value: int) -> None:
        self._value = int(value)

    @property
    def name(self) -> str:
        for name, member in self.__members__.items():
            if member._value == self._value:
                return name
        return "???"

    @property
    def value(self) -> int:
        return self._value

    def __int__(self) -> int:
        return self._value

    __index__ = __int__

    def __hash__(self) -> int:
        return hash(self._value)

    def __eq__(self, other: object) -> bool:
        if type(other) is type(self):
            return self._value == other._value
        return self._is_number and isinstance(other, int) and self._value == other

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self._value}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._value,)


class _Flags(Choice):
    """An enumeration with arithmetic."""

    def __or__(self, other: Any) -> int:
        return self._value | int(other)

    def __and__(self, other: Any) -> int:
        return self._value & int(other)

    def __lt__(self, other: Any) -> bool:
        return self._value < int(other)

    __ror__, __rand__ = __or__, __and__


def _enumeration(enumeration: str, base: type[Choice] = Choice, is_number: bool = True, **values: int) -> Any:
    text = "Members:\n\n" + "\n\n".join(f"  {name}" for name in values)
    kind: Any = type(enumeration, (base,), {"__module__": STATE, "__doc__": text, "_is_number": is_number})
    kind.__members__ = {name: kind(value) for name, value in values.items()}
    for name, member in kind.__members__.items():
        setattr(kind, name, member)
    return kind


GraphOptimizationLevel: Any = _enumeration(
    "GraphOptimizationLevel", ORT_DISABLE_ALL=0, ORT_ENABLE_BASIC=1, ORT_ENABLE_EXTENDED=2,
    ORT_ENABLE_LAYOUT=3, ORT_ENABLE_ALL=99,
)  # fmt: skip
ExecutionMode: Any = _enumeration("ExecutionMode", ORT_SEQUENTIAL=0, ORT_PARALLEL=1)
ExecutionOrder: Any = _enumeration(
    "ExecutionOrder", is_number=False, DEFAULT=0, PRIORITY_BASED=1, MEMORY_EFFICIENT=2
)
OrtAllocatorType: Any = _enumeration(
    "OrtAllocatorType", INVALID=-1, ORT_DEVICE_ALLOCATOR=0, ORT_ARENA_ALLOCATOR=1
)
OrtMemType: Any = _enumeration("OrtMemType", CPU_INPUT=-2, CPU_OUTPUT=-1, CPU=-1, DEFAULT=0)
OrtSparseFormat: Any = _enumeration(
    "OrtSparseFormat", ORT_SPARSE_UNDEFINED=0, ORT_SPARSE_COO=1, ORT_SPARSE_CSRC=2, ORT_SPARSE_BLOCK_SPARSE=4
)
OrtDeviceMemoryType: Any = _enumeration("OrtDeviceMemoryType", DEFAULT=0, HOST_ACCESSIBLE=5)
OrtMemoryInfoDeviceType: Any = _enumeration("OrtMemoryInfoDeviceType", CPU=0, GPU=1, NPU=3, FPGA=2)
OrtExecutionProviderDevicePolicy: Any = _enumeration(
    "OrtExecutionProviderDevicePolicy", DEFAULT=0, PREFER_CPU=1, PREFER_NPU=2, PREFER_GPU=3,
    MAX_PERFORMANCE=4, MAX_EFFICIENCY=5, MIN_OVERALL_POWER=6,
)  # fmt: skip
OrtHardwareDeviceType: Any = _enumeration("OrtHardwareDeviceType", CPU=0, GPU=1, NPU=2)
OrtCompileApiFlags: Any = _enumeration(
    "OrtCompileApiFlags", _Flags, NONE=0, ERROR_IF_NO_NODES_COMPILED=1, ERROR_IF_OUTPUT_FILE_EXISTS=2
)
