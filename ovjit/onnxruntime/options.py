"""SessionOptions and RunOptions: typed fields with ONNX Runtime's defaults, and entries of text."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.errors import arguments_error
from ovjit.onnxruntime.choices import Choice, ExecutionMode, ExecutionOrder, GraphOptimizationLevel
from ovjit.onnxruntime.failures import STATE, Fail, InvalidArgument, failure_of, refuse, refuse_pickle
from ovjit.onnxruntime.values import OrtValue

#: Characters that a key and a value of a configuration have at most.
_LONGEST_KEY, _LONGEST_VALUE = 1024, 8192
_CPU = "CPUExecutionProvider"


class Field:
    """An option: a bool, an int, a str or an enumeration's value."""

    def __init__(self, kind: Any, default: Any) -> None:
        self.kind, self.default = kind, default
        words = {bool: "bool", int: "typing.SupportsInt | typing.SupportsIndex", str: "str"}
        self.word = words.get(kind, f"{STATE}.{kind.__name__}")

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, options: Any, owner: type | None = None) -> Any:
        return self if options is None else options._fields.get(self.name, self.default)

    def __set__(self, options: Any, value: Any) -> None:
        options._fields[self.name] = self._convert(options, value)

    def _convert(self, options: Any, value: Any) -> Any:
        if self.kind is bool and (value is None or isinstance(value, (bool, int))):
            return bool(value)
        if self.kind is int and hasattr(value, "__index__") and not isinstance(value, Choice):
            return operator.index(value)
        if self.kind is not int and isinstance(value, self.kind):
            return value
        parameters = [f"arg0: {STATE}.{type(options).__name__}", f"arg1: {self.word}"]
        why = f"{self.name} takes {self.word}, not {type(value).__name__}"
        raise arguments_error("", "function", parameters, [options, value], {}, why)


class _Options:
    """Fields and entries."""

    __slots__ = ("_entries", "_fields")

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._entries: dict[str, str] = {}

    def _add_entry(self, function: str, key: Any, value: Any) -> None:
        if not isinstance(key, str) or not isinstance(value, str):
            parameters = [f"self: {STATE}.{type(self).__name__}", "arg0: str", "arg1: str"]
            why = "a configuration has a key and a value of type str"
            raise arguments_error(function, "function", parameters, [self, key, value], {}, why)
        if not key or len(key) > _LONGEST_KEY:
            raise RuntimeError(f"Config key is empty or longer than maximum length {_LONGEST_KEY}")
        if len(value) > _LONGEST_VALUE:
            raise RuntimeError(f"Config value is longer than maximum length: {_LONGEST_VALUE}")
        self._entries[key] = value

    def _entry(self, key: str) -> str:
        if key not in self._entries:
            raise RuntimeError(f"{type(self).__name__} does not have configuration with key: {key}")
        return self._entries[key]

    def __reduce__(self) -> Any:
        refuse_pickle(self)


class SessionOptions(_Options):
    """Options of a session. `intra_op_num_threads` is the number of threads, 0 for all cores; `logid`,
    memory, optimization and order options are kept and change nothing: results do not depend on them."""

    __slots__ = ("_dimensions", "_files", "_initializers", "_providers")

    def __init__(self) -> None:
        super().__init__()
        #: ("name" or "denotation", its word) -> the dimension.
        self._dimensions: dict[tuple[str, str], int] = {}
        self._initializers: dict[str, OrtValue] = {}
        #: Location of external data -> the bytes.
        self._files: dict[str, bytes] = {}
        self._providers: list[str] = []

    enable_cpu_mem_arena = Field(bool, True)
    enable_mem_pattern = Field(bool, True)
    enable_mem_reuse = Field(bool, True)
    enable_profiling = Field(bool, False)
    execution_mode = Field(ExecutionMode, ExecutionMode.ORT_SEQUENTIAL)
    execution_order = Field(ExecutionOrder, ExecutionOrder.DEFAULT)
    graph_optimization_level = Field(GraphOptimizationLevel, GraphOptimizationLevel.ORT_ENABLE_ALL)
    inter_op_num_threads = Field(int, 0)
    intra_op_num_threads = Field(int, 0)
    log_severity_level = Field(int, -1)
    log_verbosity_level = Field(int, 0)
    logid = Field(str, "")
    optimized_model_filepath = Field(str, "")
    profile_file_prefix = Field(str, "onnxruntime_profile_")
    use_deterministic_compute = Field(bool, False)
    use_per_session_threads = Field(bool, True)

    def add_session_config_entry(self, key: str, value: str, /) -> None:
        """Keep an entry of the session's configuration."""
        self._add_entry("add_session_config_entry", key, value)

    def get_session_config_entry(self, key: str, /) -> str:
        """An entry's value. RuntimeError if there is none."""
        return self._entry(key)

    def add_free_dimension_override_by_name(self, name: str, dimension: int, /) -> None:
        """Fix the dimensions of inputs that have this symbol."""
        self._dimensions["name", name] = operator.index(dimension)

    def add_free_dimension_override_by_denotation(self, denotation: str, dimension: int, /) -> None:
        """Fix the dimensions of inputs that have this denotation."""
        self._dimensions["denotation", denotation] = operator.index(dimension)

    def add_initializer(self, name: str, value: OrtValue, /) -> None:
        """Use a value for the initializer of this name."""
        if not isinstance(value, OrtValue):
            raise RuntimeError("The provided Python object must be an OrtValue")
        self._initializers[name] = value

    def add_external_initializers(self, names: Sequence[str], values: Sequence[OrtValue], /) -> None:
        """Use values for initializers whose data lie in other files."""
        if len(names) != len(values):
            raise RuntimeError("Expecting names and ortvalues lists to have equal length")
        for name, value in zip(names, values, strict=True):
            self.add_initializer(name, value)

    def add_external_initializers_from_files_in_memory(
        self, locations: Sequence[str], contents: Sequence[Any], sizes: Sequence[int], /
    ) -> None:
        """Use these contents for the files with external data."""
        for location, content, size in zip(locations, contents, sizes, strict=True):
            self._files[location] = bytes(memoryview(content)[:size])

    def register_custom_ops_library(self, path: str, /) -> None:
        """Raise Fail: native libraries are never loaded."""
        raise failure_of(
            Fail,
            f"Failed to load library {path} with error: ovjit loads no native libraries. Add the operators "
            "in Python, by a rule of ovjit.readers.onnx.registry.onnx_op",
        )

    def has_providers(self) -> bool:
        """True if a provider was added to these options."""
        return bool(self._providers)

    def add_provider(self, name: str, options: Mapping[str, str], /) -> None:
        """Add a provider. InvalidArgument for any but the CPU's."""
        if name != _CPU:
            raise failure_of(
                InvalidArgument,
                f"Failed to add provider of type '{name}' to SessionOptions. Provider configuration is not "
                "supported.",
            )
        self._providers.append(name)

    def add_provider_for_devices(self, devices: Sequence[Any], options: Mapping[str, str], /) -> None:
        """Add the provider of devices, which is the CPU's."""
        self._providers += [device.ep_name for device in devices][:1]

    def set_provider_selection_policy(self, policy: Any, /) -> None:
        """Accept a policy: there is one provider."""

    def set_provider_selection_policy_delegate(self, delegate: Any, /) -> None:
        """Accept a function that selects devices: there is one."""

    def set_load_cancellation_flag(self, is_cancelled: bool, /) -> None:
        """Make sessions with these options raise ModelLoadCanceled."""
        self._fields["load_cancellation"] = bool(is_cancelled)

    def _copy(self) -> SessionOptions:
        """Options of equal values, which a session keeps."""
        copy = SessionOptions()
        for name in (*_Options.__slots__, *SessionOptions.__slots__):
            value = getattr(self, name)
            setattr(copy, name, value.copy())
        return copy


class RunOptions(_Options):
    """Options of one run. `terminate` ends runs that begin while it is set."""

    __slots__ = ()

    log_severity_level = Field(int, -1)
    log_verbosity_level = Field(int, 0)
    logid = Field(str, "")
    only_execute_path_to_fetches = Field(bool, False)
    terminate = Field(bool, False)

    def add_run_config_entry(self, key: str, value: str, /) -> None:
        """Keep an entry of the run's configuration."""
        self._add_entry("add_run_config_entry", key, value)

    def get_run_config_entry(self, key: str, /) -> str:
        """An entry's value. RuntimeError if there is none."""
        return self._entry(key)

    def add_active_adapter(self, adapter: Any, /) -> None:
        """Raise NotImplemented: there are no LoRA adapters of ONNX Runtime's format."""
        refuse("LoRA adapters", "merge the adapter into the model's weights")


for _options in (SessionOptions, RunOptions):
    _options.__module__ = STATE
