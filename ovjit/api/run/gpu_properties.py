"""Properties of the device "GPU": names, defaults and order are those of OpenVINO's.

Those without a meaning for NVIDIA's cards, such as priorities of queues, are accepted and reported, and have
no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ovjit.api.arguments import expect
from ovjit.api.run import properties_table as table
from ovjit.api.run import property_values as values
from ovjit.api.run.properties_table import PropertyError, Row
from ovjit.api.tensors.types import Type
from ovjit.cores import usable_cores

if TYPE_CHECKING:
    from ovjit.api.run.compiled_record import CompiledRecord


def _device_id(value: Any) -> str:
    text = str(value)
    if not text.isdecimal():
        raise ValueError("the number of a card")
    return text


_PRIORITY = table._choice(values.Priority)

#: name -> its row, in OpenVINO's order. `compiled`: "C" for properties that compiled models list.
ROWS = {
    row.name: row
    for row in (
        *(Row(name, None, None) for name in (
            "SUPPORTED_PROPERTIES", "AVAILABLE_DEVICES", "RANGE_FOR_ASYNC_INFER_REQUESTS",
            "RANGE_FOR_STREAMS", "OPTIMAL_BATCH_SIZE", "MAX_BATCH_SIZE", "DEVICE_ARCHITECTURE",
            "FULL_DEVICE_NAME", "DEVICE_UUID", "DEVICE_LUID", "DEVICE_TYPE", "DEVICE_GOPS",
            "OPTIMIZATION_CAPABILITIES", "DEVICE_PCI_INFO", "GPU_DEVICE_ID", "GPU_DEVICE_TOTAL_MEM_SIZE",
            "GPU_DEVICE_MAX_ALLOC_MEM_SIZE", "GPU_UARCH_VERSION", "GPU_CACHELINE_SIZE",
            "GPU_EXECUTION_UNITS_COUNT", "GPU_MEMORY_STATISTICS", "COMPATIBILITY_CHECK",
        )),
        Row("PERF_COUNT", False, table._bool, compiled="C"),
        Row("MODEL_PRIORITY", values.Priority.MEDIUM, _PRIORITY, compiled="C"),
        Row("GPU_HOST_TASK_PRIORITY", values.Priority.MEDIUM, _PRIORITY, compiled="C"),
        Row("GPU_QUEUE_PRIORITY", values.Priority.MEDIUM, _PRIORITY, compiled="C"),
        Row("GPU_QUEUE_THROTTLE", values.Priority.MEDIUM, _PRIORITY, compiled="C"),
        Row("GPU_ENABLE_SDPA_OPTIMIZATION", True, table._bool, compiled="C"),
        Row("GPU_ENABLE_LORA_OPERATION", True, table._bool, compiled="C"),
        Row("GPU_ENABLE_LARGE_ALLOCATIONS", False, table._bool, compiled="C"),
        Row("GPU_ENABLE_LOOP_UNROLLING", True, table._bool, compiled="C"),
        Row("GPU_DISABLE_WINOGRAD_CONVOLUTION", False, table._bool, compiled="C"),
        Row("CACHE_DIR", "", table._text, compiled="C"),
        Row("CACHE_MODE", values.CacheMode.OPTIMIZE_SPEED, table._choice(values.CacheMode), compiled="C"),
        Row("PERFORMANCE_HINT", values.PerformanceMode.LATENCY, table._PERFORMANCE, compiled="C"),
        Row("EXECUTION_MODE_HINT", values.ExecutionMode.PERFORMANCE, table._MODES, compiled="C"),
        Row("COMPILATION_NUM_THREADS", None, table._count, compiled="C"),
        Row("NUM_STREAMS", 1, table._streams, compiled="C"),
        Row("PERFORMANCE_HINT_NUM_REQUESTS", 0, table._count, compiled="C"),
        Row("INFERENCE_PRECISION_HINT", Type.f16, table._PRECISIONS, compiled="C"),
        Row("ENABLE_CPU_PINNING", False, table._bool, compiled="C"),
        Row("ENABLE_CPU_RESERVATION", False, table._bool, compiled="C"),
        Row("DEVICE_ID", "0", _device_id, compiled="C"),
        Row("DYNAMIC_QUANTIZATION_GROUP_SIZE", 0, table._group_size, compiled="C"),
        Row("ACTIVATIONS_SCALE_FACTOR", -1.0, table._number, compiled="C"),
        Row("WEIGHTS_PATH", "", table._text, compiled="C"),
        Row("CACHE_ENCRYPTION_CALLBACKS", (), table._callbacks, readable=False),
        Row("KV_CACHE_PRECISION", Type.dynamic, table._element_type(
            "dynamic", "u8", "u4", "bf16", "f16", "f32"), compiled="C"),
        Row("MODEL_PTR", None, lambda value: value, readable=False),
        Row("OFFLOAD_RATIO", 0.0, table._number, compiled="C"),
        Row("CONFIG_FILE", "", table._text, compiled="C"),
    )
}  # fmt: skip
#: Properties that a Core accepts for all devices, and passes on.
_OF_CORE = (
    "ENABLE_MMAP", "FORCE_TBB_TERMINATE", "AUTO_BATCH_TIMEOUT", "ALLOW_AUTO_BATCHING", "DEVICE_PROPERTIES",
    "OVJIT_KEY", "LOG_LEVEL",
)  # fmt: skip
#: Properties that a compiled model lists before its settings.
_OF_MODELS = (
    "SUPPORTED_PROPERTIES", "NETWORK_NAME", "OPTIMAL_NUMBER_OF_INFER_REQUESTS", "EXECUTION_DEVICES",
    "LOADED_FROM_CACHE",
)  # fmt: skip


def find_row(name: Any) -> Row:
    """The row of a property that can be set. TypeError unless the name is a str; PropertyError if the device
    has none of that name, or one that can only be read."""
    expect(name, str, "the name of a property is a str")
    row = ROWS.get(name) or (table.ROWS[name] if name in _OF_CORE else None)
    if row is None or row.read is None:
        only = "" if row is None else " It can only be read"
        near = "" if row is not None else table._nearest(name, [*ROWS])
        raise PropertyError(f"NotFound: Unsupported property {name} by GPU plugin.{only}{near}")
    return row


def read_config(config: Any) -> dict[str, Any]:
    """Validate properties by name, and return the values to store. TypeError if `config` is no dict,
    PropertyError for unknown names and wrong values. Those of DEVICE_PROPERTIES for "GPU" are applied too."""
    expect(config, Mapping, "properties are given as a dict")
    out = {str(name): table.checked_value(find_row(name), value) for name, value in config.items()}
    inner = out.pop("DEVICE_PROPERTIES", None) or {}
    return {**out, **read_config(inner.get("GPU", {}))} if "GPU" in inner else out


def resolve(config: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The complete properties of a compilation for a card, given those that were set. Those of the engine are
    as for the CPU."""
    out = table.resolve(dict(config), "GPU")
    for row in ROWS.values():
        if row.read is not None:
            out[row.name] = config[row.name] if row.name in config else default_of(row.name, index, config)
    out["card"], out["DEVICE_ID"] = index, str(index)
    out["NUM_STREAMS"] = out["streams"] = max(1, config.get("NUM_STREAMS", _streams(config)))
    out["INFERENCE_PRECISION_HINT"] = precision(config)
    return out


def known_to_cards(config: Mapping[str, Any]) -> dict[str, Any]:
    """The properties of these that a card has: of those that a Core was given for all devices."""
    return {name: value for name, value in config.items() if name in ROWS or name in _OF_CORE}


def over_stored(stored: Mapping[str, Any], settings: Mapping[str, Any], index: int) -> dict[str, Any]:
    """All properties of a blob that is imported: those it has `stored`, and those that were set for
    `settings`, which precede."""
    return resolve({**table.read_stored(stored, ROWS), **settings.get("given", {})}, index)


def precision(config: Mapping[str, Any]) -> Type:
    """The type in which a card stores values, and multiplies them: f16 unless accuracy or another type is
    asked for, as in OpenVINO."""
    exact = config.get("EXECUTION_MODE_HINT") is values.ExecutionMode.ACCURACY
    hint = config.get("INFERENCE_PRECISION_HINT", Type.dynamic if exact else Type.f16)
    return Type.f32 if hint is Type.dynamic else hint


def _streams(config: Mapping[str, Any]) -> int:
    """Two streams for THROUGHPUT: the copies of one request run beside another one's kernels."""
    hint = config.get("PERFORMANCE_HINT", values.PerformanceMode.LATENCY)
    return 1 if hint is values.PerformanceMode.LATENCY else 2


def default_of(name: str, index: int, config: Mapping[str, Any]) -> Any:
    """The value of a property that is not set, given those that are."""
    if name == "COMPILATION_NUM_THREADS":
        return usable_cores()[0]
    if name == "DEVICE_ID":
        return str(index)
    if name == "INFERENCE_PRECISION_HINT":
        return precision(config)
    if name == "NUM_STREAMS":
        return _streams(config)
    return ROWS[name].default


def property_of(name: Any, index: int, config: Mapping[str, Any], arguments: Any = None) -> Any:
    """A property of a card: its value in `config`, its default, or a fact of the card and its driver."""
    row = ROWS.get(name) if isinstance(name, str) else find_row(name)
    if row is None:
        row = find_row(name)  # one of Core's, or an error
        return config.get(name, row.default)
    if name == "COMPATIBILITY_CHECK":
        return table.compatibility(arguments)
    if row.read is not None:
        if not row.readable:
            raise PropertyError(f"Unsupported property {name} by GPU plugin. It can only be set")
        return config[name] if name in config and name != "INFERENCE_PRECISION_HINT" else default_of(
            name, index, config)  # fmt: skip
    from ovjit.gpu.driver import cards

    facts = cards()[index]
    if name == "SUPPORTED_PROPERTIES":
        return supported_properties()
    if name == "AVAILABLE_DEVICES":
        return [str(i) for i in range(len(cards()))]
    return _fact(name, index, facts)


def supported_properties() -> dict[str, str]:
    """The names of all properties and their mutability; OpenVINO lists them without a card, too."""
    return {row.name: row.mutability for row in ROWS.values()}


def _fact(name: str, index: int, facts: Any) -> Any:
    """Value of a GPU property: from `facts`, which need no context on the card, else from the opened card."""
    major, minor = facts.capability
    facts_by_name: dict[str, Any] = {
        "RANGE_FOR_ASYNC_INFER_REQUESTS": (1, 2, 1),
        "RANGE_FOR_STREAMS": (1, 2),
        "OPTIMAL_BATCH_SIZE": 1,
        "MAX_BATCH_SIZE": 1,
        "DEVICE_ARCHITECTURE": f"GPU: vendor=0x10de arch=v{major}.{minor}.0",
        "FULL_DEVICE_NAME": f"{facts.name} (dGPU)",
        "DEVICE_UUID": facts.uuid.hex(),
        "DEVICE_LUID": "0" * 16,  # Windows alone has them
        "DEVICE_TYPE": values.DeviceType.DISCRETE,
        "OPTIMIZATION_CAPABILITIES": ["FP32", "FP16", "EXPORT_IMPORT"],
        "GPU_DEVICE_TOTAL_MEM_SIZE": facts.memory,
        "GPU_DEVICE_MAX_ALLOC_MEM_SIZE": facts.memory,
        "GPU_UARCH_VERSION": f"{major}.{minor}.0",
        "GPU_CACHELINE_SIZE": 128,
    }
    if name in facts_by_name:
        return facts_by_name[name]
    from ovjit.gpu.driver import open_card

    card = open_card(index)
    if name == "GPU_EXECUTION_UNITS_COUNT":
        return card.attribute("MULTIPROCESSOR_COUNT")
    if name == "GPU_MEMORY_STATISTICS":
        free, total = card.free_bytes()
        return {"usm_device_current": total - free}
    if name == "DEVICE_PCI_INFO":
        domain, bus, device = (card.attribute(f"PCI_{part}_ID") for part in ("DOMAIN", "BUS", "DEVICE"))
        return f"{{domain: {domain} bus: {bus} device: 0x{device:x} function: 0}}"
    if name == "GPU_DEVICE_ID":
        return f"0x{card.attribute('PCI_DEVICE_ID'):x}"
    assert name == "DEVICE_GOPS", name
    return {Type.f32: card.peak_flops() / 1e9}


def compiled_property(compiled: CompiledRecord, name: str) -> Any:
    """Returns a property of a model compiled for a GPU; PropertyError if it is not supported."""
    expect(name, str, "the name of a property is a str")
    config = compiled._config
    if name == "SUPPORTED_PROPERTIES":
        return dict.fromkeys((*_OF_MODELS, *(row.name for row in ROWS.values() if row.compiled)), "RO")
    if name == "EXECUTION_DEVICES":
        return [f"GPU.{config['card']}"]
    if name == "OPTIMAL_NUMBER_OF_INFER_REQUESTS":
        return max(1, config["NUM_STREAMS"]) + 1  # one is copied while another one runs
    if name in _OF_MODELS:
        return table.OF_COMPILED[name](compiled)
    row = ROWS.get(name)
    if row is None or not row.compiled:
        raise PropertyError(f"Unsupported property: {name}.{table._nearest(name, [*ROWS])}")
    return config[name]
