"""`Core`: devices and their properties, reading, compiling and importing models."""

from __future__ import annotations

import copy
import io
import mmap
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ovjit import collector
from ovjit.api.accessors import accessor
from ovjit.api.arguments import expect, explain_calls
from ovjit.api.model.node import GRAPH_LOCK
from ovjit.api.model.ports import port_infos
from ovjit.api.run import gpu_device, gpu_properties
from ovjit.api.run import properties_table as table
from ovjit.api.run.compiled import CompiledModel
from ovjit.api.run.remote import RemoteContext
from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError, no_path, no_such_form
from ovjit.out_of_memory import as_memory_errors
from ovjit.records import NamedTuple
from ovjit.version import get_version

if TYPE_CHECKING:
    from ovjit.api.model.model import Model
    from ovjit.compiler.options import Memory
    from ovjit.storage.blob import Merge

#: Devices that come down to the CPU, each with what get_versions calls it.
DEVICES = {
    "CPU": "ovjit_cpu", "AUTO": "ovjit_auto", "MULTI": "ovjit_auto", "HETERO": "ovjit_hetero",
    "BATCH": "ovjit_auto_batch",
}  # fmt: skip
#: Devices that OpenVINO knows and that need hardware ovjit does not drive.
ABSENT = ("GPU", "NPU")
AVAILABLE = ("CPU",)
#: Properties that devices without hardware answer, as in OpenVINO.
_OF_ABSENT: dict[str, Any] = {
    "AVAILABLE_DEVICES": [],
    "SUPPORTED_PROPERTIES": {"AVAILABLE_DEVICES": "RO", "SUPPORTED_PROPERTIES": "RO", "CACHE_DIR": "RW"},
    "CACHE_DIR": "",
}
#: Contents of files that lie in memory.
_BYTES = (bytes, bytearray, memoryview, mmap.mmap)


class DeviceError(OvjitError):
    """There is no such device."""


class Version(NamedTuple):
    """A device's version, as `Core.get_versions` returns it."""

    major: int
    minor: int
    patch: int
    build_number: str
    description: str

    def __repr__(self) -> str:
        return f"<Version: {self.build_number} {self.description}>"


class Device(str):
    """The device that a name comes down to: CPU, AUTO, MULTI, HETERO or BATCH. `priorities`: the devices that
    it stands over, as MULTI_DEVICE_PRIORITIES tells them."""

    priorities: str

    def __new__(cls, name: str, priorities: str = "CPU") -> Device:
        self = str.__new__(cls, name)
        self.priorities = priorities
        return self


def is_available(device: str) -> bool:
    """True if a model can be compiled for this one device, such as "CPU" or "GPU.0"."""
    return device in AVAILABLE or gpu_device.index_of(device) is not None


def available_devices() -> list[str]:
    """The devices that models can be compiled for."""
    return [*AVAILABLE, *gpu_device.names()]


def parse_device(name: Any, config: Any = None) -> Device:
    """The device that `name` ("CPU", "AUTO:CPU,GPU") comes down to. Those that it stands over may be a
    property in `config` instead.

    TypeError unless it is a str; DeviceError, a RuntimeError that names the devices there are, for others.
    """
    expect(name, str, "the name of a device is a str")
    head, colon, devices = name.partition(":")
    if not colon and gpu_device.index_of(name) is not None:
        return Device("GPU", name)
    if head not in DEVICES:
        _refuse(name, head)
    if colon and head == "CPU":
        _refuse(name, name)
    priorities = _list_priorities(name, devices, {} if head == "CPU" else config)
    chosen = [_drop_count(name, head, part) for part in priorities.split(",") if part]
    if head in ("MULTI", "HETERO", "BATCH") and not chosen:
        raise DeviceError(
            f"KEY_MULTI_DEVICE_PRIORITIES key is not set for {head}: "
            f"give a list of devices, such as {head}:CPU"
        )
    if head in ("AUTO", "MULTI"):
        return Device(head, ",".join(_choose_available(name, head, chosen)))
    if head == "BATCH" and "," in priorities:
        raise DeviceError(f"BATCH accepts only one device in list but got {priorities!r}")
    # HETERO asks the devices in their order, and the CPU runs all operations
    first = chosen[: chosen.index("CPU")] if head == "HETERO" and "CPU" in chosen else chosen
    for part in first:
        if not is_available(part):
            _refuse(name, part)
    return Device(head, priorities if head == "BATCH" else ",".join(chosen) or "CPU")


def _list_priorities(name: str, devices: str, config: Any) -> str:
    """The `devices` of a name, or those that a property in `config` has instead, separated by commas."""
    listed = config.get("MULTI_DEVICE_PRIORITIES") if isinstance(config, Mapping) else None
    listed = getattr(listed, "value", listed)
    if isinstance(listed, str) and devices not in ("", listed):
        text = f"MULTI_DEVICE_PRIORITIES is {listed!r}, but the device name is {name!r}"
        raise DeviceError(f"Device priority / ID mismatch: {text}")
    return listed if isinstance(listed, str) else devices


def why_missing(name: str) -> str:
    """Why models cannot be compiled for a device; "" if they can."""
    try:
        parse_device(name)
    except DeviceError as error:
        return str(error)
    return ""


def _drop_count(name: str, head: str, part: str) -> str:
    """The device of one part of a list: "CPU" of "CPU(4)", whose number counts requests. DeviceError for a
    number below 1 and for other text in the brackets. HETERO has no numbers, and its parts stay."""
    device, bracket, count = part.partition("(")
    digits = count.removesuffix(")")
    if head == "HETERO" or not bracket:
        return part
    if digits == count or not digits.isdecimal() or int(digits) < 1:
        raise DeviceError(f"{part!r} in {name!r} should have a positive number of requests, as in CPU(4)")
    return device


def _choose_available(name: str, head: str, parts: list[str]) -> list[str]:
    """The devices that AUTO or MULTI (`head`) of this `name` stands over. As in OpenVINO it leaves out names
    that are no device's and those after a "-", passes by devices that are not there, AUTO without a mention,
    and refuses a list that has no other."""
    excluded = {part[1:] for part in parts if part.startswith("-")}
    listed = [part for part in parts if not part.startswith("-")]
    recognized = [part for part in listed if part.partition(".")[0] in (*AVAILABLE, *ABSENT)]
    if listed and not recognized:
        raise DeviceError(
            f"No available device to filter {head} plugin in {name!r}: "
            f"available devices are {', '.join(AVAILABLE)}"
        )
    over = recognized or [device for device in AVAILABLE if device not in excluded]
    for part in over:
        if part.partition(".")[0] not in ABSENT and not is_available(part):
            _refuse(name, part)
    if not over:
        raise DeviceError(f"{name!r} excludes every device: available devices are {', '.join(AVAILABLE)}")
    if not any(map(is_available, over)):
        _refuse(name, over[0])
    preferred = [part for part in over if head == "MULTI" or part.partition(".")[0] != "GPU"]
    return preferred or [part for part in over if is_available(part)]


def _refuse(name: str, part: str) -> None:
    kind = part.partition(".")[0]
    inside = f" in {name!r}" if part != name else ""
    if kind == "CPU":
        raise DeviceError(
            f"CPU plugin supports only '' as device id, not {part!r}{inside}: "
            "all cores of the CPU are one device"
        )
    others = "" if kind in ABSENT else " (and AUTO, MULTI, HETERO, which choose among them)"
    if kind == "GPU":
        others = f" ({gpu_device.why_not(part)})"
    raise DeviceError(
        f'Device with "{part}" name is not registered in the OpenVINO Runtime{inside}: '
        f"available devices are {', '.join(AVAILABLE)}{others}"
    )


def _is_model(model: Any) -> bool:
    if isinstance(model, (str, bytes, os.PathLike)):
        return False  # who has a compiled model's file starts without what edits models
    from ovjit.api.model.model import Model

    return isinstance(model, Model)


def _check_model(model: Any) -> Model:
    if not _is_model(model):
        raise no_such_form(f"a Model is expected, not {type(model).__name__}")
    checked: Model = model
    return checked


@explain_calls
class Core:
    """The entry: reads and compiles models. Properties set on a Core are that Core's only."""

    __slots__ = (
        "__dict__", "__weakref__", "_converters", "_extensions", "_plugins", "_settings", "_used",
    )  # fmt: skip

    def __init__(self, xml_config_file: Any = ""):
        if not isinstance(xml_config_file, (str, os.PathLike)):
            raise no_path(xml_config_file)
        self._plugins: dict[str, str] = {}  # devices of other libraries, which are never loaded
        self._used: set[str] = set()  # devices that this Core has asked something
        if os.fspath(xml_config_file):
            self.register_plugins(xml_config_file)
        self._extensions: dict[tuple[str, str], type] = {}  # operations in Python, by name and version
        self._converters: dict[str, Any] = {}  # rules for operators, by `ConversionExtension.key`
        self._settings: dict[str, dict[str, Any]] = {device: {} for device in ("", *DEVICES, "GPU")}

    # -- devices -------------------------------------------------------------------------------------------

    def get_available_devices(self) -> list[str]:
        """Names of the devices there are."""
        return available_devices()

    available_devices = accessor(get_available_devices)

    def get_versions(self, device_name: str) -> dict[str, Version]:
        """The versions of a device and of those that it stands over, in the order of their names, also
        without their hardware; a name that is none has no version. RuntimeError for "GPU" without its driver.
        """
        expect(device_name, str, "the name of a device is a str")
        head, _, devices = device_name.partition(":")
        names = {re.split(r"[.(]", part.lstrip("-"))[0] for part in (head, *devices.split(","))}
        for device in names & set(self._plugins):
            raise self._plugin_error(device)
        if "GPU" in names and not gpu_device.has_driver():
            _refuse(device_name, "GPU")
        present = sorted(names & {*DEVICES, *ABSENT})
        self._used.update(present)
        version = get_version()  # OpenVINO's, for a program that knows the package under that name
        major, minor, patch = (int(part) for part in version.partition("-")[0].split(".")[:3])
        return {
            device: Version(major, minor, patch, version, DEVICES.get(device, f"ovjit_{device.lower()}"))
            for device in present
        }

    # -- models --------------------------------------------------------------------------------------------

    def read_model(self, model: Any, weights: Any = None, config: Mapping[str, Any] | None = None) -> Model:
        """A Model from a file of a format that there is a reader for (docs/model_files.md), or from contents.

        `model`: a path, bytes-like, BytesIO or an onnx.ModelProto; `weights`: a path, bytes-like, BytesIO or
        a Tensor, for ONNX a dict with the contents of files of external data, {location: bytes}; others
        are left aside there. RuntimeError naming the file for what cannot be read, TypeError for another kind
        of object.
        """
        expect(config, (Mapping, type(None)), "config is a dict")
        properties = {name: value for name, value in (config or {}).items() if name in table.ROWS}
        settings = {**self._settings[""], **table.read_config(properties, "")}
        use_mmap = settings.get("ENABLE_MMAP", True)
        if properties.get("CACHE_DIR"):
            os.makedirs(settings["CACHE_DIR"], exist_ok=True)
        with collector.seldom():
            return self._read(model, weights, use_mmap)

    def _read(self, model: Any, weights: Any, use_mmap: bool) -> Model:
        from ovjit.readers.registry import Request, read_model

        if _is_text(model):
            model = model.encode()
        return read_model(model, Request(weights, use_mmap, self._extensions, self._converters))

    def compile_model(
        self, model: Any, device_name: str | RemoteContext | None = None,
        config: Mapping[str, Any] | None = None, *, weights: Any = None,
    ) -> CompiledModel:  # fmt: skip
        """A CompiledModel of a Model or a model file. `device_name` None means AUTO, which means the CPU.

        RuntimeError for an unknown device, property or operation; all unknown operations are named at once.
        """
        device = self._device("AUTO" if device_name is None else device_name, config)
        settings = self._config_for(device, config)
        if _is_model(model):
            if "_parameters" not in model.__dict__:  # it was left by `with`
                raise no_path(None)
            return _compile(model, device, settings)
        if isinstance(model, bytes) and weights is None and os.path.exists(model):
            model = os.fsdecode(model)
        by_file = isinstance(model, (str, os.PathLike)) and weights is None and not _is_text(model)
        if not by_file:
            from ovjit.readers.registry import is_readable

            if not is_readable(model):
                raise no_path(model)
        plain = not (self._extensions or self._converters or settings["CACHE_ENCRYPTION_CALLBACKS"])
        with collector.seldom():
            if by_file and plain:
                return _compile_file(os.fsdecode(model), device, settings, self._read)
            return _compile(self._read(model, weights, settings["ENABLE_MMAP"]), device, settings)

    def _device(self, name: Any, config: Any = None) -> Device:
        """`parse_device` of a device that is asked something: of its name, or of its RemoteContext."""
        if isinstance(name, RemoteContext):
            name = name.get_device_name()
        if name in self._plugins:
            raise self._plugin_error(name)
        device = parse_device(name, self._settings.get(name, {}) if config is None else config)
        if device == "GPU":
            device = self._card(device, config if isinstance(config, Mapping) else {})
        self._used.add(device)
        return device

    def _card(self, device: Device, config: Mapping[str, Any]) -> Device:
        """The card that a device and DEVICE_ID select; the name "GPU" has no number. DeviceError if they
        differ, or if there is none."""
        name, key = device.priorities, "DEVICE_ID"
        number = gpu_properties.read_config({key: config[key]})[key] if key in config else None
        if name == "GPU":
            number = number or self._settings["GPU"].get(key)
            return device if number is None else parse_device(f"GPU.{number}")
        if number is not None and f"GPU.{number}" != name:
            raise DeviceError(
                f"Device priority / ID mismatch: {key} is {number!r}, but the device name is {name!r}"
            )
        return device

    def _plugin_error(self, device: str) -> UnsupportedError:
        library = self._plugins[device]
        return UnsupportedError(f'Cannot load library "{library}": ovjit loads no native libraries')

    def _config_for(self, device: str, config: Mapping[str, Any] | None) -> dict[str, Any]:
        card = _card_of(device)
        if device == "GPU":
            assert card is not None
            properties = gpu_properties.read_config({} if config is None else config)
            shared = gpu_properties.known_to_cards(self._settings[""])
            return gpu_properties.resolve({**shared, **self._settings["GPU"], **properties}, card)
        properties = table.read_config({} if config is None else config, device)
        merged = {**self._settings[""], **self._settings["CPU"]}
        if device != "CPU":
            merged.update(self._settings[device])
        settings = table.resolve({**merged, **properties}, device)
        if card is not None:
            settings.update(gpu_properties.resolve(settings["given"], card))
        return settings

    def import_model(
        self, model_stream: Any, device_name: str = "AUTO", config: Mapping[str, Any] | None = None
    ) -> CompiledModel:
        """A CompiledModel from a blob of `export_model`: bytes-like, BytesIO, Tensor, mmap or a path.

        RuntimeError for a blob that is damaged or of another version, TypeError for another kind of object.
        """
        _check_blob(model_stream)
        device = self._device(device_name, config)
        settings = self._config_for(device, config)
        data = _blob_bytes(model_stream, settings["ENABLE_MMAP"])
        from ovjit.storage.blob import load_blob
        from ovjit.storage.encryption import decrypt

        data = decrypt(data, settings)
        stored = load_blob(data, _merge(settings, device))
        return _make_compiled(stored, stored.config["name"] or "Model0", device)

    def query_model(
        self, model: Model, device_name: str, config: Mapping[str, Any] | None = None
    ) -> dict[str, str]:
        """friendly name -> device, of all operations that the device can run. AUTO and MULTI name themselves;
        they need a list of devices."""
        _check_model(model)
        device = self._device(device_name)
        if device == "GPU":
            return gpu_device.supported_nodes(model, self._config_for(device, config))
        if device_name == "AUTO":
            raise DeviceError("AUTO: cannot parse valid device from '': name devices, such as AUTO:CPU")
        for part in device_name.partition(":")[2].split(","):  # each of them is asked, by HETERO those before
            if device != "HETERO" and part.partition(".")[0] in ABSENT and not is_available(part):
                _refuse(device_name, part)
        table.read_config(config or {}, device)
        chosen = str(device) if device in ("AUTO", "MULTI") else "CPU"
        return dict.fromkeys(sorted(node.get_friendly_name() for node in model.get_ordered_ops()), chosen)

    # -- properties ----------------------------------------------------------------------------------------

    def set_property(self, *args: Any, **named: Any) -> None:
        """`set_property([device_name,] properties)`: a dict, or one pair of name and value.

        RuntimeError at once for an unknown name or value, which OpenVINO may find later.
        """
        names = ("device_name", "properties") if len(args) > 1 else ("properties",)
        arguments = dict(zip(names, args, strict=False)) | named
        properties = arguments.pop("properties", arguments.pop("property", None))
        device = arguments.pop("device_name", "")
        if arguments or len(args) > 2 or properties is None:
            raise no_such_form("set_property takes a dict of properties, or a device's name and a dict")
        expect(device, str, "the name of a device is a str")
        if isinstance(properties, tuple) and len(properties) == 2:
            properties = dict([properties])
        head = _head(device) if device.partition(".")[0] not in ("", *ABSENT, *self._plugins) else ""
        if properties and head == "CPU":
            parse_device(device)
        if isinstance(properties, Mapping) and "DEVICE_PROPERTIES" in properties:
            raise OvjitError(
                "set_property does not take DEVICE_PROPERTIES: give them to compile_model, or set the "
                "properties of each device"
            )
        if gpu_device.index_of(device) is not None:
            self._settings["GPU"].update(gpu_properties.read_config(properties))
            return
        if device.partition(".")[0] in (*ABSENT, *self._plugins):
            return  # kept for a device that is never asked anything
        self._settings[head].update(table.read_config(properties, head, compiling=False))

    def get_property(self, *args: Any, **named: Any) -> Any:
        """`get_property([device_name,] name[, arguments])`: the value that is set, or the default.
        COMPATIBILITY_CHECK takes arguments. RuntimeError for an unknown name or device."""
        names = ("device_name", "property", "arguments") if len(args) > 1 else ("property",)
        values = dict(zip(names, args, strict=False)) | named
        name = values.pop("property", values.pop("name", None))
        device = values.pop("device_name", "")
        arguments = values.pop("arguments", None)
        if values or len(args) > 3:
            raise no_such_form("get_property takes the name of a property, or a device's name and that")
        expect(arguments, (Mapping, type(None)), "arguments of a property are a dict")
        expect(device, str, "the name of a device is a str")
        number = self._settings["GPU"].get("DEVICE_ID") if device == "GPU" else None
        index = gpu_device.index_of(device if number is None else f"GPU.{number}")
        if number is not None and index is None:
            raise DeviceError(f"there is no card {number}, which DEVICE_ID selects")
        if index is not None:
            shared = gpu_properties.known_to_cards(self._settings[""])
            return gpu_properties.property_of(name, index, {**shared, **self._settings["GPU"]}, arguments)
        if device.partition(".")[0] in ABSENT and name in _OF_ABSENT:
            if device.startswith("GPU") and name == "SUPPORTED_PROPERTIES":
                return gpu_properties.supported_properties()
            return copy.copy(_OF_ABSENT[name])
        if device.partition(".")[0] == "GPU":
            raise DeviceError(
                f"[GPU] Can't get {name} property as no supported devices found or an error happened during "
                f"devices query: {gpu_device.why_not(device)}"
            )
        head = _head(device) if device else ""
        self._used.add(head)
        row = table.find_row(name, table._LETTERS[head], head, reading=True)
        if row.name == "COMPATIBILITY_CHECK":
            return table.compatibility(arguments)
        settings = table.apply_stream_hint({**self._settings[""], **self._settings[head]})
        # of the precision the value that it leads to is returned, which `default_of` gives
        if row.readable and row.name in settings and row.name != "INFERENCE_PRECISION_HINT":
            value = settings[row.name]
            return value.copy() if isinstance(value, (dict, set, list)) else value
        return table.default_of(row, head, settings)

    # -- what needs plugins --------------------------------------------------------------------------------

    def add_extension(self, *args: Any, **named: Any) -> None:
        """Let this Core read models with an operation written in Python: a class derived from `Op`, an
        Extension, or a list of these. RuntimeError for the path of a library, which is never loaded."""
        from ovjit.api.model.custom import (
            ConversionExtensionBase,
            OpExtension,
            extension_records,
            read_extensions,
        )

        for extension in read_extensions((*args, *named.values())):
            if isinstance(extension, OpExtension):
                self._extensions.update(extension_records(extension))
            elif isinstance(extension, ConversionExtensionBase) and extension.key is not None:
                self._converters[extension.key] = extension.convert

    def create_context(self, device_name: str, properties: Mapping[str, Any]) -> RemoteContext:
        """A RemoteContext of a card. `properties`: {}, or {"CONTEXT_TYPE": "CUDA"}. RuntimeError for the CPU,
        and for cards that are not there."""
        expect(properties, Mapping, "properties of a context are a dict")
        index = _card_with_context("create_context", device_name)
        if {"CONTEXT_TYPE": "CUDA", **properties} != {"CONTEXT_TYPE": "CUDA"}:
            raise UnsupportedError(
                f"[GPU] Unsupported parameters of a context: {dict(properties)}; "
                "give {'CONTEXT_TYPE': 'CUDA'}"
            )
        return gpu_device.new_context(index)

    def get_default_context(self, device_name: str) -> RemoteContext:
        """The RemoteContext of a card, always the same one. RuntimeError for the CPU, and for cards that are
        not there."""
        return gpu_device.default_context(_card_with_context("get_default_context", device_name))

    def register_plugin(self, plugin: Any, device_name: str, config: Mapping[str, Any] | None = None) -> None:
        """Register a device of a library. The library is never loaded, so any use of the device raises
        RuntimeError. RuntimeError for a device that exists."""
        if device_name in DEVICES or device_name in self._plugins:
            raise UnsupportedError(f"Device with {device_name!r} name is registered already")
        name = os.fspath(plugin)
        path = name if os.path.dirname(name) or name.endswith((".so", ".dll", ".dylib")) else f"lib{name}.so"
        self._plugins[device_name] = path

    def register_plugins(self, xml_config_file: Any) -> None:
        """As `register_plugin`, for all devices of a plugins file. RuntimeError if it cannot be read."""
        from defusedxml import ElementTree
        from defusedxml.common import DefusedXmlException

        path = os.fsdecode(os.fspath(xml_config_file))
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError, DefusedXmlException) as error:
            raise OvjitError(f"Error loading XML file: {path!r}: {error}") from error
        for plugin in root.iter("plugin") if root is not None else ():
            name, library = plugin.get("name"), plugin.get("location")
            if not name or not library:
                raise OvjitError(f"Error loading XML file: {path!r}: a plugin has no name or no location")
            if name not in DEVICES:
                self.register_plugin(library, name)

    def unload_plugin(self, device_name: str) -> None:
        """Forget the device's properties. RuntimeError for one that this Core has not been using."""
        if device_name in self._plugins:
            del self._plugins[device_name]
            return
        if device_name not in self._used:
            _head(device_name)
            raise DeviceError(f'Device with "{device_name}" name is not registered in the OpenVINO Runtime')
        self._used.discard(device_name)
        self._settings[device_name].clear()

    def __reduce__(self) -> Any:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __repr__(self) -> str:
        return f"<Core: available plugins[{', '.join(available_devices())}]>"


def _card_of(device: str) -> int | None:
    """The index of the card that models for this device run on; None for the CPU."""
    over = getattr(device, "priorities", "CPU").split(",")
    return None if "CPU" in over or device == "BATCH" else gpu_device.index_of(over[0])


def _card_with_context(method: str, device_name: str) -> int:
    """The index of the card of this name. UnsupportedError for other devices, DeviceError for no device."""
    device = parse_device(device_name)
    if device != "GPU":
        available = ", ".join(available_devices())
        raise UnsupportedError(
            f"{method} is not supported by {device} plugin! Available devices are {available}"
        )
    index = _card_of(device)
    assert index is not None
    return index


def _head(device: Any) -> str:
    """The part of a device's name that has properties; errors as `parse_device`."""
    if isinstance(device, str) and device.partition(".")[0] in DEVICES:
        return device.partition(".")[0]
    head = parse_device(device)
    raise DeviceError(
        f"{device!r} has no property of that name: set properties of {head} itself, or of "
        "its devices by DEVICE_PROPERTIES"
    )


def _is_text(model: Any) -> bool:
    """Whether a str is not a path but the contents of a model."""
    return isinstance(model, str) and model.lstrip("\ufeff \t\r\n").startswith("<")


def _merge(settings: dict[str, Any], device: str) -> Merge:
    """The function that completes the properties of a blob, see `blob.load_blob`."""
    card = settings.get("card")
    if card is None:
        return partial(table.over_stored, settings=settings, device=device)
    return partial(gpu_properties.over_stored, settings=settings, index=card)


@as_memory_errors("compile the model")
def _compile(
    model: Model, device: str, settings: dict[str, Any], on_stored: Callable[[str], None] | None = None,
    keep: Callable[[Any], None] | None = None,
) -> CompiledModel:  # fmt: skip
    """`on_stored`: as for `cached_model`. `keep` takes the Imported of a model compiled with no CACHE_DIR."""
    with GRAPH_LOCK:  # graph and ports of one moment, whatever other threads do to the model
        graph = model._graph()
        inputs = port_infos(model.inputs, graph.inputs)
        outputs = port_infos(model.outputs, graph.outputs)
        options = model._rt.get("runtime_options")
        if isinstance(options, Mapping) and settings.get("card") is None:
            settings = table.add_runtime_options(settings, options, device)
        settings["name"] = model._friendly_name  # its own, which a process's count of models has no part in
        name = model.get_friendly_name()
        if any(node.op.role in ("pages", "states") for node in graph.nodes):
            from ovjit.api.model.paged import read_heads
            from ovjit.compiler.pass_pipeline import run_stage

            graph, ports = run_stage("pages", graph, settings, read_heads(model))
            inputs = tuple(
                info._replace(dtype=ports[i].dtype, shape=ports[i].shape, written=True)
                if i in ports
                else info
                for i, info in enumerate(inputs)
            )

    def make(memory: Memory | None) -> Any:
        from ovjit.engine import compile_graph  # the first import of Numba

        return compile_graph(graph, settings, memory)

    if not settings["CACHE_DIR"]:
        executable = make(None)
        if keep is not None:
            from ovjit.storage.blob import Imported

            keep(Imported(executable, inputs, outputs, settings, False))
        return CompiledModel._make(executable, inputs, outputs, name=name, device=device, config=settings)
    from ovjit.storage.model_cache import cached_model

    merge = _merge(settings, device)
    imported = cached_model(settings["CACHE_DIR"], graph, inputs, outputs, settings, merge, make, on_stored)
    return _make_compiled(
        imported, name if not imported.used else imported.config["name"] or "Model0", device
    )


def _compile_file(
    path: str, device: str, settings: dict[str, Any], read_model: Callable[[Any, Any, bool], Model]
) -> CompiledModel:
    """As `_compile`, with a cached model that is known to be this file's found without reading it: in
    CACHE_DIR, or among those that are kept unasked. `read_model`: a method of the Core."""
    from ovjit.storage import file_models, kept_models

    if settings.get("card") is not None:
        return _compile(read_model(path, None, settings["ENABLE_MMAP"]), device, settings)
    properties = dict(settings)
    in_folder = bool(properties["CACHE_DIR"])
    source = file_models.source_of(path, properties) if in_folder or kept_models.folder() else None
    if source is not None:
        merge = partial(table.over_stored, settings=settings, device=device)
        imported = (file_models if in_folder else kept_models).find(source, properties, merge)
        if imported is not None:
            # LOADED_FROM_CACHE is about the folder that the user has named
            name = imported.config["name"] or "Model0"
            return _make_compiled(imported._replace(used=imported.used and in_folder), name, device)

    def on_stored(blob: str) -> None:
        if source is not None:
            file_models.note(source, path, properties, blob)

    keeps = not in_folder and kept_models.may_keep(source, properties)
    model = read_model(path, None, settings["ENABLE_MMAP"])
    if not model._of_one_file:
        return _compile(model, device, settings)

    def keep(compiled: Any) -> None:
        if source is not None and keeps:
            kept_models.keep_later(source, lambda: file_models.source_of(path, properties), compiled)

    return _compile(model, device, settings, on_stored, keep)


def _make_compiled(imported: Any, name: str, device: str) -> CompiledModel:
    """The compiled model of an `ovjit.storage.blob.Imported`."""
    executable, inputs, outputs, config, used = imported
    return CompiledModel._make(
        executable, inputs, outputs, name=name, device=device, config=config, loaded_from_cache=used
    )


def _check_blob(stream: Any) -> None:
    """Raises TypeError unless it is of a kind that a blob is read from."""
    if not isinstance(stream, (io.BytesIO, Tensor, str, os.PathLike, *_BYTES)):
        raise TypeError(
            "CompiledModel.import_model(model_stream) incompatible function argument: `model_stream` must be "
            f"an io.BytesIO object or bytes (or a Tensor, memoryview, mmap or path) but {stream!r:.80}` "
            "provided"
        )


def _blob_bytes(stream: Any, use_mmap: bool) -> memoryview:
    """The bytes of a blob: where they lie, or a map of the file."""
    if isinstance(stream, io.BytesIO):
        return memoryview(stream.getvalue())  # all of it, wherever it stands, as OpenVINO reads it
    if isinstance(stream, Tensor):
        return np.ascontiguousarray(stream.data).reshape(-1).view(np.uint8).data
    if isinstance(stream, _BYTES):
        view = memoryview(stream)
        return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
    from ovjit.storage.mapped import read_file

    path = os.fsdecode(stream)
    try:
        return read_file(path, use_mmap)
    except OSError as error:
        raise OvjitError(f"Could not open the blob {path!r}: {error.strerror}") from error


def _unpickle(blob: bytes, device: str) -> CompiledModel:
    return Core().import_model(blob, device)


def compile_model(
    model: Any, device_name: str | None = "AUTO", config: Mapping[str, Any] | None = None
) -> CompiledModel:
    """`Core().compile_model`, for AUTO by default."""
    return Core().compile_model(model, device_name, config)


def read_model(model: Any, weights: Any = None) -> Model:
    """`Core().read_model`."""
    return Core().read_model(model, weights)


def shutdown() -> None:
    """Do nothing: workers end with the process. For programs written for OpenVINO."""
