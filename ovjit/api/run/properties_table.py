"""Properties: one row for each, and what becomes of them when a model is compiled.

A row says who may read or write the property and how a value is understood. Strings, Python values and
OpenVINO's enumerations are taken alike; an unknown name or value is a RuntimeError that names the nearest.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ovjit import debug
from ovjit.api.arguments import expect
from ovjit.api.model.rt_info import OVAny
from ovjit.api.run import property_values as values
from ovjit.api.run.properties_text import read_dict
from ovjit.api.tensors.types import TYPES, Type
from ovjit.codegen.cpu import machine
from ovjit.codegen.cpu.formats import emulates_bf16, float_types
from ovjit.codegen.cpu.host import has_f16, host_target
from ovjit.compiler.options import CACHES, caches_of
from ovjit.cores import usable_cores
from ovjit.errors import OvjitError
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.api.run.compiled_record import CompiledRecord


class PropertyError(OvjitError):
    """An unknown property, or a value that it cannot take."""


class Unanswered(TypeError, PropertyError):
    """A property that has no value of its own: it is an answer to arguments, which are missing."""


class _NoneOf(ValueError):
    """A value that is none of those that there are."""

    def __init__(self, *names: str):
        super().__init__(", ".join(names))


class Row(NamedTuple):
    """One property. `read` turns what the user gives into the value that is kept; None: it cannot be set.

    `devices`: C the CPU, A AUTO, M MULTI, H HETERO, B BATCH, G a Core as a whole. `compiled`: the devices
    for which compiled models list it. `shown`: the devices that list it in SUPPORTED_PROPERTIES, of all of
    `devices` if True, of none if False. `readable` False: it can be set, and is not shown.
    """

    name: str
    default: Any
    read: Callable[[Any], Any] | None
    devices: str = "C"
    compiled: str = ""
    shown: bool | str = True
    readable: bool = True

    def is_listed(self, letter: str) -> bool:
        """True if SUPPORTED_PROPERTIES of the device of a letter has it."""
        return letter in self.devices and (self.shown is True or letter in str(self.shown or ""))

    @property
    def mutability(self) -> str:
        """Mutability of the property in SUPPORTED_PROPERTIES: RO, RW or WO."""
        return "RO" if self.read is None else "RW" if self.readable else "WO"


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("yes", "true", "1"):
        return True
    if isinstance(value, str) and value.lower() in ("no", "false", "0"):
        return False
    raise ValueError("true/false (True, False, YES or NO)")


def _key(value: Any) -> str:
    """Hexadecimal digits; "" is none given. The error does not repeat what may be a secret."""
    text = value.hex() if isinstance(value, (bytes, bytearray)) else value
    if text == "" or isinstance(text, str) and len(text) >= 64 and set(text) <= set("0123456789abcdefABCDEF"):
        if len(text) % 2 == 0:
            return text
    raise PropertyError(
        "Wrong value for the property OVJIT_KEY: expected 32 bytes or more, or their hex digits"
    )


def _callbacks(value: Any) -> tuple[Callable[[bytes], bytes], ...]:
    """The functions that encrypt and decrypt a blob."""
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(pair) != 2 or not all(map(callable, pair)):
        raise ValueError("a list of two functions from bytes to bytes: to encrypt, to decrypt")
    return pair


def _count(value: Any, most: int = (1 << 31) - 1) -> int:
    if isinstance(value, bool):
        raise ValueError("non negative integer numbers")
    try:
        count = int(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("non negative integer numbers") from None
    if count < 0:
        raise ValueError("non negative integer numbers")
    if count > most:
        raise ValueError(f"integer numbers up to {most}")
    return count


def _group_size(value: Any) -> int:
    """-1 is the greatest number of 64 bits, which has no bounds, as in OpenVINO."""
    most = (1 << 64) - 1
    return most if str(value) == "-1" else _count(value, most)


def _streams(value: Any) -> int:
    if isinstance(value, values.Num):
        value = value.to_integer()
    for number, spelled in ((-1, ("AUTO", "", "-1")), (-2, ("NUMA", "-2"))):
        if not isinstance(value, bool) and str(value) in spelled:
            return number
    try:
        return _count(value)
    except ValueError:
        raise ValueError("non negative integer numbers, AUTO or NUMA") from None


def _choice(kind: type[values._Choice], spelled: Mapping[str, str] | None = None) -> Callable[[Any], Any]:
    names = {(spelled or {}).get(name, name): member for name, member in kind.__members__.items()}

    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if isinstance(value, str) and value in names:
            return names[value]
        raise _NoneOf(*names)

    return read


def _text(value: Any) -> str:
    """None is the empty text, as in OpenVINO: a CACHE_DIR of None turns the cache off."""
    if value is None:
        return ""
    if isinstance(value, (str, os.PathLike)):
        return os.fsdecode(value)
    raise ValueError("a string")


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError("a number") from None


def _rate(value: Any) -> float:
    rate = _number(value)
    if not 0 <= rate <= 1:
        raise ValueError("a number from 0 to 1")
    return rate


#: Names of element types in older programs, which OpenVINO takes, too: those of IR files.
_OLDER = {"FP32": "f32", "FP16": "f16", "undefined": "dynamic", "UNSPECIFIED": "dynamic", "": "dynamic"}
_OLDER |= {name.upper(): name for name in ("bf16", "i8", "u8", "u4", "u3")}


def _element_type(*allowed: str) -> Callable[[Any], Type]:
    def read(value: Any) -> Type:
        name = value._name if isinstance(value, Type) else value
        name = _OLDER.get(name.strip(), name.strip()) if isinstance(name, str) else None
        if name not in allowed:
            raise _NoneOf(*allowed)
        return TYPES[name]

    return read


def _quantized_by(value: Any) -> str:
    """Validate the granularity of scales of keys in 8 and 4 bits."""
    names = ("AUTO", "BY_CHANNEL", "BY_TOKEN")
    if value not in names:
        raise _NoneOf(*names)
    return str(value)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a dict")
    return dict(value)


def _thresholds(value: Any) -> dict[str, int]:
    """Percentages by device."""
    percentages = _mapping(value)
    if not all(isinstance(part, int) and 0 <= part <= 100 for part in percentages.values()):
        raise ValueError("a dict of numbers from 0 to 100")
    return percentages


def _per_device(value: Any) -> dict[str, Any]:
    """The properties of each device; each dict may be a text, see `read_dict`."""
    try:
        devices = read_dict(value) if isinstance(value, str) else _mapping(value)
        return {key: read_dict(inner) if isinstance(inner, str) else inner for key, inner in devices.items()}
    except ValueError:
        raise ValueError("a dict, or a text such as {CPU:{NUM_STREAMS:2}}") from None


def _policies(value: Any) -> set[values.ModelDistributionPolicy]:
    if value == "":
        return set()
    if isinstance(value, str):
        value = {values.ModelDistributionPolicy.__members__.get(value)}
    if not isinstance(value, (set, frozenset)) or any(
        not isinstance(v, values.ModelDistributionPolicy) for v in value
    ):
        raise ValueError("a set of ModelDistributionPolicy")
    return set(value)


def _device_id(value: Any) -> str:
    if value not in ("", None):
        raise ValueError("an empty string: the CPU is one device")
    return ""


_PRECISIONS = _element_type("bf16", "f16", "f32", "dynamic")
_CACHE_PRECISION = _element_type("u8", "u4", "u3", "bf16", "f16", "f32")
_KEY_PRECISION = _element_type("u3", "u4", "u8", "i8", "bf16", "f16", "f32")
_MODES = _choice(values.ExecutionMode)
_CORE_TYPES = _choice(values.SchedulingCoreType)
_PERFORMANCE = _choice(values.PerformanceMode)
_POLICIES = _choice(values.SchedulePolicy)
_LEVELS = {
    "NO": "LOG_NONE", "ERR": "LOG_ERROR", "WARNING": "LOG_WARNING", "INFO": "LOG_INFO", "DEBUG": "LOG_DEBUG",
    "TRACE": "LOG_TRACE",
}  # fmt: skip

ROWS = {
    row.name: row
    for row in (
        Row("SUPPORTED_PROPERTIES", None, None, "CAMHB", "CAMHB"),
        Row("AVAILABLE_DEVICES", [""], None),
        Row("RANGE_FOR_ASYNC_INFER_REQUESTS", (1, 1, 1), None),
        Row("RANGE_FOR_STREAMS", None, None),
        Row("EXECUTION_DEVICES", ["CPU"], None, "C", "CAMHB"),
        Row("FULL_DEVICE_NAME", None, None, "CAMHB"),
        Row("OPTIMIZATION_CAPABILITIES", ["WINOGRAD", "FP32", "INT8", "BIN", "EXPORT_IMPORT"], None, "CAMH"),
        Row("DEVICE_TYPE", values.DeviceType.INTEGRATED, None),
        Row("DEVICE_ARCHITECTURE", None, None),
        Row("NETWORK_NAME", None, None, "", "CAMHB"),
        Row("OPTIMAL_NUMBER_OF_INFER_REQUESTS", 1, None, "C", "CAMHB", False),
        Row("HETERO_NUMBER_OF_SUBMODELS", 1, None, "", "H"),
        Row("LOADED_FROM_CACHE", False, None, "", "AMH"),
        Row("RUNTIME_REQUIREMENTS", None, None, "", "C"),
        Row("COMPATIBILITY_CHECK", values.CompatibilityCheck.NOT_APPLICABLE, None),
        Row("NUM_STREAMS", 1, _streams, "C", "C"),
        Row("INFERENCE_NUM_THREADS", 0, _count, "C", "C"),
        Row("INFERENCE_NUM_THREADS_REASON", None, None, "", "C", False),
        Row("PERF_COUNT", False, _bool, "CAMB", "CAM"),
        Row("INFERENCE_PRECISION_HINT", Type.f32, _PRECISIONS, "C", "C"),
        Row("PERFORMANCE_HINT", values.PerformanceMode.LATENCY, _PERFORMANCE, "CAM", "CAM"),
        Row("EXECUTION_MODE_HINT", values.ExecutionMode.PERFORMANCE, _MODES, "CAM", "C"),
        Row("PERFORMANCE_HINT_NUM_REQUESTS", 0, _count, "CAM", "C"),
        Row("ENABLE_CPU_PINNING", True, _bool, "C", "C"),
        Row("ENABLE_CPU_RESERVATION", False, _bool, "C", "C"),
        Row("SCHEDULING_CORE_TYPE", values.SchedulingCoreType.ANY_CORE, _CORE_TYPES, "C", "C"),
        Row("MODEL_DISTRIBUTION_POLICY", set(), _policies, "CH", "C"),
        Row("ENABLE_HYPER_THREADING", True, _bool, "C", "C"),
        Row("DEVICE_ID", "", _device_id),
        Row("CPU_DENORMALS_OPTIMIZATION", False, _bool, "C", "C"),
        Row("LOG_LEVEL", values.Level.NO, _choice(values.Level, _LEVELS), "CAM", "C"),
        Row("CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE", 1.0, _rate, "C", "C"),
        Row("ENABLE_TENSOR_PARALLEL", False, _bool, "C", "C"),
        Row("TBB_PARTITIONER", values.TbbPartitioner.STATIC, _choice(values.TbbPartitioner), "C", "C"),
        Row("DYNAMIC_QUANTIZATION_GROUP_SIZE", 32, _group_size, "C", "C"),
        Row("KV_CACHE_PRECISION", Type.f32, _CACHE_PRECISION, "C", "C"),
        Row("KEY_CACHE_PRECISION", Type.f32, _KEY_PRECISION, "C", "C"),
        Row("VALUE_CACHE_PRECISION", Type.f32, _CACHE_PRECISION, "C", "C"),
        Row("KEY_CACHE_GROUP_SIZE", 0, _group_size, "C", "C"),
        Row("VALUE_CACHE_GROUP_SIZE", 0, _group_size, "C", "C"),
        Row("KEY_CACHE_QUANT_MODE", "AUTO", _quantized_by, "C", "", False, False),
        Row("ENABLE_WEIGHTLESS", False, _bool),
        Row("WEIGHTS_PATH", "", _text, readable=False),
        Row("CPU_RUNTIME_CACHE_CAPACITY", 5000, _count, "C", "", False),
        Row("SNIPPETS_MODE", "ENABLE", _text, "C", "", False),
        Row("LP_TRANSFORMS_MODE", True, _bool, "C", "", False),
        Row("EXCLUSIVE_ASYNC_REQUESTS", False, _bool, "C", "", False),
        Row("CACHE_DIR", "", _text, "CAMHBG", "", False),
        Row("OVJIT_KEY", "", _key, "CAMHBG", "", False),
        Row("OVJIT_MATRIX_UNIT", True, _bool, "CAMHBG", "", False),
        Row("CACHE_ENCRYPTION_CALLBACKS", (), _callbacks, "CAMHBG", "", False),
        Row("CACHE_MODE", values.CacheMode.OPTIMIZE_SPEED, _choice(values.CacheMode), "CAMHBG", "", False),
        Row("ENABLE_MMAP", True, _bool, "CAMHBG", "", False),
        Row("FORCE_TBB_TERMINATE", False, _bool, "CAMHBG", "", False),
        Row("AUTO_BATCH_TIMEOUT", 1000, _count, "CAMHBG", "B", "B"),
        Row("ALLOW_AUTO_BATCHING", True, _bool, "CAMHBG", "", False),
        Row("DEVICE_PROPERTIES", {}, _per_device, "CAMHB", "AMH", False),
        Row("MULTI_DEVICE_PRIORITIES", "", _text, "AMHB", "AMH"),
        Row("MODEL_PRIORITY", values.Priority.MEDIUM, _choice(values.Priority), "AM", "AM"),
        Row("ENABLE_STARTUP_FALLBACK", True, _bool, "A"),
        Row("ENABLE_RUNTIME_FALLBACK", True, _bool, "A"),
        Row("DEVICE_BIND_BUFFER", False, _bool, "AM"),
        Row("SCHEDULE_POLICY", values.SchedulePolicy.DEVICE_PRIORITY, _POLICIES, "AM", "M"),
        Row("DEVICES_UTILIZATION_THRESHOLD", {}, _thresholds, "A"),
        Row("LOW_POWER_DEVICE", "", _text, "A"),
        Row("PERF_CURVE_TABLE", {}, lambda value: value if isinstance(value, str) else _mapping(value), "A"),
    )
}  # fmt: skip

#: What a model compiled for the CPU tells, but does not list.
UNLISTED = ("DEVICE_ID", "EXCLUSIVE_ASYNC_REQUESTS", "WEIGHTS_PATH")

#: In what f32 models compute where neither EXECUTION_MODE_HINT nor INFERENCE_PRECISION_HINT says, on CPUs
#: that have it (else in f32), as in OpenVINO.
DEFAULT_PRECISION = "bf16"
#: The same on AArch64.
DEFAULT_ON_ARM = "f16"

#: What a model compiled for the CPU says in a str.
_AS_TEXT = (
    "EXCLUSIVE_ASYNC_REQUESTS", "PERF_COUNT", "PERFORMANCE_HINT", "PERFORMANCE_HINT_NUM_REQUESTS",
)  # fmt: skip

_LETTERS = {"CPU": "C", "GPU": "C", "AUTO": "A", "MULTI": "M", "HETERO": "H", "BATCH": "B", "": "G"}


def find_row(name: Any, letter: str, device: str, reading: bool = False) -> Row:
    """The row of `name` among those of a device ("": a Core). TypeError unless it is a str, else
    PropertyError, in the words of reading a property or of setting it."""
    expect(name, str, "the name of a property is a str")
    row = ROWS.get(name)
    if row is None or letter not in row.devices:
        names = [r.name for r in ROWS.values() if letter in r.devices or letter == "G" and r.devices]
        names = [other for other in names if other != name]
        raise PropertyError(f"{_describe_unsupported(name, device, reading)}{_nearest(name, names)}")
    return row


def _describe_unsupported(name: str, device: str, reading: bool = False) -> str:
    if reading and device == "CPU":
        return f"Cannot get unsupported property: {name}."
    if device in ("AUTO", "MULTI"):
        return f"property: {name}: not supported"
    if device:
        return f"NotFound: Unsupported property {name} by {device} plugin."
    return f"Exception is thrown while trying to call get_property with unsupported property: '{name}'"


def _nearest(name: str, names: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name.upper(), names, 1, 0.5)
    return f" Or did you mean {near[0]!r}?" if near else ""


def read_value(name: Any, value: Any, letter: str, device: str) -> Any:
    """The value to keep for a property that is set. PropertyError for an unknown name or a wrong value."""
    row = find_row(name, letter, device)
    if row.read is None:
        raise PropertyError(f"{_describe_unsupported(row.name, device)} It can only be read")
    return checked_value(row, value)


def checked_value(row: Row, value: Any) -> Any:
    """The value to keep for a property that can be set. PropertyError for a wrong value."""
    assert row.read is not None
    if isinstance(value, OVAny):
        value = value.value
    try:
        return row.read(value)
    except ValueError as error:
        expectation = f"Supported values: {error}" if isinstance(error, _NoneOf) else f"Expected only {error}"
        raise PropertyError(f"Wrong value {value} for property key {row.name}. {expectation}") from None


def read_config(config: Any, device: str, compiling: bool = True) -> dict[str, Any]:
    """Validate properties by name, and return the values to store. TypeError if `config` is no dict.
    `compiling`: False for properties set on a Core, of which a device such as AUTO passes unknown ones on to
    the CPU."""
    expect(config, Mapping, "properties are given as a dict")
    letters = _find_settable(device) if compiling or device in ("", "CPU") else _LETTERS[device]
    lenient = compiling and device in ("AUTO", "MULTI", "HETERO")
    out: dict[str, Any] = {}
    for name, value in config.items():
        if lenient and _of_nobody(name, letters):
            continue
        letter = next(
            (c for c in letters if isinstance(name, str) and name in ROWS and c in ROWS[name].devices),
            letters[0],
        )
        out[str(name) if isinstance(name, str) else name] = read_value(name, value, letter, device)
    inner = out.pop("DEVICE_PROPERTIES", None)
    for key, nested in (inner or {}).items():
        if key == "CPU":
            if lenient and isinstance(nested, Mapping):
                nested = {name: value for name, value in nested.items() if not _of_nobody(name, "C")}
            out.update(read_config(nested, "CPU"))
    return out


def _of_nobody(name: Any, letters: str) -> bool:
    """Whether devices over the CPU pass by this name, as in OpenVINO, where it may be of another device's.

    Names of this engine alone are not passed by: a misspelled key must not leave a cache in the clear.
    """
    if not isinstance(name, str) or name.upper().startswith("OVJIT"):
        return False
    row = ROWS.get(name)
    return row is None or row.read is None or not set(letters) & set(row.devices)


def _find_settable(device: str) -> str:
    """The device whose properties may be set for `device`: AUTO forwards unknown ones to the CPU, a Core to
    all devices."""
    letter = _LETTERS[device]
    return {"C": "C", "G": "GCA"}.get(letter, letter + "C")


#: What SUPPORTED_PROPERTIES of a device has last.
_LAST = {"H": ("MODEL_DISTRIBUTION_POLICY",), "B": ("AUTO_BATCH_TIMEOUT", "PERF_COUNT")}


def _in_order(letter: str) -> list[Row]:
    """The rows that a device lists, in OpenVINO's order: AUTO and MULTI sort them."""
    rows = [row for row in ROWS.values() if row.is_listed(letter)]
    if letter in "AM":
        return sorted(rows, key=lambda row: row.name)
    last = _LAST.get(letter, ())
    return [r for r in rows if r.name not in last] + [ROWS[name] for name in last]


def default_of(row: Row, device: str, config: Mapping[str, Any]) -> Any:
    """The default value of a property that is not set, given the properties that are set (`config`)."""
    if row.name in CACHES:
        return _cache_type(config, row.name)
    if row.name in _COMPUTED:
        return _COMPUTED[row.name](device, config)
    return row.default.copy() if isinstance(row.default, (dict, set, list)) else row.default


_ARCHITECTURES = {machine.X86_64: "intel64", machine.AARCH64: "arm64"}
#: Property -> the function of the device and of the properties that are set that gives its default value.
_COMPUTED: dict[str, Callable[[str, Mapping[str, Any]], Any]] = {
    "INFERENCE_PRECISION_HINT": lambda device, config: _precision(config),
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": lambda device, config: _dynamic_group(config),
    "SUPPORTED_PROPERTIES": lambda device, _: {r.name: r.mutability for r in _in_order(_LETTERS[device])},
    "OPTIMIZATION_CAPABILITIES": lambda device, config: _capabilities(device),
    "OPTIMAL_NUMBER_OF_INFER_REQUESTS": lambda device, config: max(1, config.get("NUM_STREAMS", 1)),
    "RANGE_FOR_STREAMS": lambda device, config: (1, usable_cores()[0]),
    "FULL_DEVICE_NAME": lambda device, config: cpu_name() if device == "CPU" else device,
    "DEVICE_ARCHITECTURE": lambda device, config: _ARCHITECTURES.get(machine.name(), machine.name()),
}


#: Who made a CPU of AArch64, by the number that its register of identity (MIDR_EL1) has for that.
_MAKERS = {
    "0x41": "ARM", "0x42": "Broadcom", "0x43": "Cavium", "0x44": "DEC", "0x46": "Fujitsu",
    "0x48": "HiSilicon", "0x49": "Infineon", "0x4d": "Motorola", "0x4e": "NVIDIA", "0x50": "Applied Micro",
    "0x51": "Qualcomm", "0x53": "Samsung", "0x56": "Marvell", "0x61": "Apple", "0x69": "Intel",
    "0xc0": "Ampere",
}  # fmt: skip
#: Where Linux says what board this is.
_BOARD = ("/sys/firmware/devicetree/base/model", "/proc/device-tree/model")


def cpu_name() -> str:
    """The CPU's name as its maker gives it. Linux has none of an AArch64's: there it is the board's, or the
    last core's maker and number."""
    facts: dict[str, str] = {}
    for line in _text_of("/proc/cpuinfo").splitlines():
        name, _, text = line.partition(":")
        facts[name.strip()] = text.strip()
    if not machine.is_arm():
        return facts.get("model name") or platform.processor() or platform.machine()
    board = (_text_of(path).rstrip("\0\n") for path in _BOARD)
    named = (facts.get(name) for name in ("model name", "Hardware", "Processor", "Model"))
    maker, part = (facts.get(f"CPU {what}", "") for what in ("implementer", "part"))
    maker_name = _MAKERS.get(maker.lower(), "")
    result = f"{maker_name} ({part})" if maker_name and part else maker_name
    return next((text for text in (*board, *named, result) if text), "ARM CPU")


def _text_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)  # of some 150 cores, where they are many
    except OSError:
        return ""


def runtime_requirements() -> str:
    """Requirements for importing a blob of this version: versions of metadata and ovjit, and the ISA."""
    from ovjit.version import __version__

    return f"meta=1.0;ovjit={__version__};isa={machine.name()}"


def compatibility(arguments: Any) -> values.CompatibilityCheck:
    """Answers COMPATIBILITY_CHECK: SUPPORTED if RUNTIME_REQUIREMENTS match this installation and machine.

    Raises Unanswered, a TypeError as in OpenVINO, if RUNTIME_REQUIREMENTS is not given as a str.
    """
    needed = arguments.get("RUNTIME_REQUIREMENTS") if isinstance(arguments, Mapping) else None
    if not isinstance(needed, str):
        raise Unanswered("COMPATIBILITY_CHECK needs the options {'RUNTIME_REQUIREMENTS': str}")
    fits = needed == runtime_requirements()
    return values.CompatibilityCheck.SUPPORTED if fits else values.CompatibilityCheck.UNSUPPORTED


def over_stored(stored: Mapping[str, Any], settings: Mapping[str, Any], device: str) -> dict[str, Any]:
    """All properties of a blob that is imported: over what it has `stored` those that `settings`, from
    `resolve`, were given. What this version does not know is left out."""
    config = read_stored(stored, ROWS)
    return resolve({**config, **settings.get("given", {})}, device) if config else dict(settings)


def read_stored(stored: Mapping[str, Any], rows: Mapping[str, Row]) -> dict[str, Any]:
    """The properties of a blob that have a row, and a value that it accepts."""
    config: dict[str, Any] = {}
    for name, value in stored.items():
        row = rows.get(name)
        if row is not None and row.read is not None:
            with contextlib.suppress(ValueError):
                config[name] = row.read(value)
    return config


def apply_stream_hint(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The properties with what NUM_STREAMS of AUTO and NUMA stand for: the hint THROUGHPUT, or LATENCY,
    whatever hint is set beside them."""
    hint = {-1: values.PerformanceMode.THROUGHPUT, -2: values.PerformanceMode.LATENCY}.get(
        config.get("NUM_STREAMS", 0)
    )
    if hint is None:
        return config
    return {**{k: v for k, v in config.items() if k != "NUM_STREAMS"}, "PERFORMANCE_HINT": hint}


def resolve(config: Mapping[str, Any], device: str) -> dict[str, Any]:
    """The complete properties of a compilation: what was set, defaults, and what follows from both.

    For the engine, in lower case: `streams`, and `threads` of each of them, at least 1.
    """
    explicit, config = dict(config), apply_stream_hint(config)
    out = {row.name: default_of(row, "CPU", config) for row in ROWS.values() if row.read is not None}
    out.update(config)
    if device == "MULTI" and "PERFORMANCE_HINT" not in config:
        out["PERFORMANCE_HINT"] = values.PerformanceMode.THROUGHPUT
    cores, reason = usable_cores()
    requested = out["INFERENCE_NUM_THREADS"]
    threads = min(requested, cores) if requested else cores
    streams = config.get("NUM_STREAMS")
    if streams is None:
        throughput = out["PERFORMANCE_HINT"] is not values.PerformanceMode.LATENCY
        streams = threads if throughput else 1
        if out["PERFORMANCE_HINT_NUM_REQUESTS"] and throughput:
            streams = min(streams, out["PERFORMANCE_HINT_NUM_REQUESTS"])
    out["NUM_STREAMS"] = streams
    out["INFERENCE_NUM_THREADS"] = threads
    out["INFERENCE_NUM_THREADS_REASON"] = (
        f"INFERENCE_NUM_THREADS of {requested}" if requested and requested <= cores else reason
    )
    out["streams"], out["threads"] = (
        max(1, streams),
        max(1, threads // max(1, streams)),
    )  # threads of each stream
    out["given"] = explicit
    out["caches"] = ", ".join(cache.text for cache in caches_of(explicit))
    out["INFERENCE_PRECISION_HINT"] = _precision(config)
    out["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = _dynamic_group(config)
    return out


_DYNAMIC_GROUP = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
#: Properties that a model sets for itself, in its information "runtime_options".
_OF_MODELS = (*CACHES, "KEY_CACHE_GROUP_SIZE", "VALUE_CACHE_GROUP_SIZE", _DYNAMIC_GROUP)


def add_runtime_options(settings: dict[str, Any], options: Any, device: str) -> dict[str, Any]:
    """The properties of `resolve` with those that a model sets for itself and the user did not. As in
    OpenVINO, EXECUTION_MODE_HINT=ACCURACY keeps the types of caches and products."""
    explicit = settings["given"]
    fixed = set(explicit) | (set(CACHES) if CACHES[0] in explicit else set())
    if settings["EXECUTION_MODE_HINT"] is values.ExecutionMode.ACCURACY:
        fixed |= {*CACHES, _DYNAMIC_GROUP}
    names = [name for name in _OF_MODELS if name in options and name not in fixed]
    if not names:
        return settings
    chosen = read_config({name: options[name] for name in names}, "CPU")
    return resolve({**chosen, **explicit}, device)


def _dynamic_group(config: Mapping[str, Any]) -> int:
    """Elements of a group in which activations are quantized: 0 by default where accuracy is asked for."""
    row = ROWS[_DYNAMIC_GROUP]
    exact = config.get("EXECUTION_MODE_HINT") is values.ExecutionMode.ACCURACY
    return int(config.get(row.name, 0 if exact else row.default))


def _precision(config: Mapping[str, Any]) -> Type:
    """Inference precision of a model; `dynamic` keeps the tensors' own types.

    As in OpenVINO, bf16 needs AVX-512. CPUs with AVX-512 but without bf16 instructions emulate it if a
    property asks for it; otherwise the precision is f32. A 16-bit type that the CPU does not support falls
    back to the other one, then to f32. On AArch64 and CPUs with AVX512-FP16, f16 does not fall back to bf16,
    which is coarser: OpenVINO computes in f16 there.
    """
    requested = config.get("INFERENCE_PRECISION_HINT")
    if requested is None:
        if config.get("EXECUTION_MODE_HINT") is values.ExecutionMode.ACCURACY:
            return Type.dynamic
        requested = _of_environment()
    elif requested == Type.bf16 and emulates_bf16(host_target()):
        return Type.bf16
    if requested not in (Type.f16, Type.bf16):
        return requested
    floats = float_types(host_target())
    alone = requested == Type.f16 and (machine.is_arm() or has_f16())
    ways = [requested] if alone else [requested, Type.bf16, Type.f16]
    return next((way for way in ways if way.get_type_name() in floats), Type.f32)


def _capabilities(device: str) -> list[str]:
    """OPTIMIZATION_CAPABILITIES of a device over this CPU, in OpenVINO's order; without WINOGRAD on
    AArch64."""
    if device == "HETERO":
        return ["EXPORT_IMPORT"]
    floats, plain = float_types(host_target()), ROWS["OPTIMIZATION_CAPABILITIES"].default
    names = ["BF16"] if "bf16" in floats else []
    if machine.is_arm():
        names += ["FP32", *(["FP16"] if "f16" in floats else []), *plain[2:]]
    else:
        names += plain
    return sorted(set(names) - {"EXPORT_IMPORT"}) if device in ("AUTO", "MULTI") else names


def _of_environment() -> Type:
    """Precision from OVJIT_PRECISION, or the default; PropertyError for an unknown one."""
    default = DEFAULT_ON_ARM if machine.is_arm() else DEFAULT_PRECISION
    word = debug.flag("OVJIT_PRECISION") or default
    try:
        return _PRECISIONS(word)
    except ValueError as error:
        raise PropertyError(f"Wrong value {word} of OVJIT_PRECISION. Supported values: {error}") from None


def _cache_type(config: Mapping[str, Any], name: str, variables: Iterable[Any] = ()) -> Type:
    """The element type of a cache property: the requested one, or the one that a model stores `variables`
    in."""
    kinds = dict(zip("kv", (cache.kind for cache in caches_of(config)), strict=True))
    roles = {CACHES[1]: "k", CACHES[2]: "v"}.get(name, "kv")
    stored = {v.stored.partition(":")[0] for v in variables if v.role and v.role in roles}
    types = stored or {kinds[role] for role in roles}
    requested = getattr(config.get("given", config).get(name), "_name", "")
    return TYPES[requested if requested in types else max(types)]


def compiled_property(compiled: CompiledRecord, name: Any) -> Any:
    """Value of a `CompiledModel`'s property, in OpenVINO's types; PropertyError for unknown names."""
    expect(name, str, "the name of a property is a str")
    row = ROWS.get(name)
    if row is None or not (row.compiled or name in UNLISTED and compiled._device == "CPU"):
        names = [r.name for r in ROWS.values() if r.compiled]
        raise PropertyError(f"Unsupported property: {name}.{_nearest(name, names)}")
    return _value_of(compiled, name, _LETTERS[compiled._device])


def _value_of(compiled: CompiledRecord, name: str, letter: str) -> Any:
    """The value of a property of a compiled model, in the form of the device with this letter."""
    row, config = ROWS[name], compiled._config
    if name == "SUPPORTED_PROPERTIES":
        return {r.name: "RO" for r in ROWS.values() if letter in r.compiled and (r.devices or r.shown)}
    if name == "EXECUTION_DEVICES" and config.get("card") is not None:
        return [f"GPU.{config['card']}"]
    if name in OF_COMPILED:
        return OF_COMPILED[name](compiled)
    if name in CACHES:
        return _cache_type(config, name, getattr(compiled._executable.program, "variables", ()))
    value = config.get(name, default_of(row, "CPU", config)) if row.readable else row.default
    if letter == "C" and name in _AS_TEXT:
        return {"True": "YES", "False": "NO"}.get(str(value), str(getattr(value, "name", value)))
    return value.copy() if isinstance(value, (dict, set, list)) else value


def _cpu_properties(compiled: CompiledRecord) -> dict[str, Any]:
    names = _value_of(compiled, "SUPPORTED_PROPERTIES", "C")
    return {name: _value_of(compiled, name, "C") for name in sorted(names)}


#: Property -> its value, where that is a fact of the compiled model and no setting.
OF_COMPILED: dict[str, Callable[[CompiledRecord], Any]] = {
    "NETWORK_NAME": lambda compiled: compiled._name,
    "OPTIMAL_NUMBER_OF_INFER_REQUESTS": lambda compiled: max(1, compiled._config["NUM_STREAMS"]),
    "LOADED_FROM_CACHE": lambda compiled: compiled._loaded_from_cache,
    "RUNTIME_REQUIREMENTS": lambda compiled: runtime_requirements(),
    "MULTI_DEVICE_PRIORITIES": lambda compiled: getattr(compiled._device, "priorities", "CPU"),
    "DEVICE_PROPERTIES": lambda compiled: {"CPU": _cpu_properties(compiled)},
}
