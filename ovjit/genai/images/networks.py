"""A network of a pipeline, and the constructors that all networks share."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.adapters import AdapterConfig, AdapterController, apply_adapters, controller_of
from ovjit.genai.fields import unpack_config
from ovjit.genai.images.noise_levels import read_fields

#: The type of the paths of folders.
PATH = (str, bytes, os.PathLike)
_BLOB = "openvino_model.blob"
#: A model -> the model that is compiled.
Change = Callable[[Any], Any]
#: The types of a constructor's arguments, in order.
Overload = Mapping[str, Any]


def choose_overload(
    name: str, overloads: Sequence[Overload], arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the arguments by name, the properties) of the first overload that takes them. Only one with a device
    takes properties. TypeError if there is none."""
    for overload in overloads:
        values = dict(zip(overload, arguments, strict=False))
        values |= {key: value for key, value in keywords.items() if key in overload and key not in values}
        properties = {key: value for key, value in keywords.items() if key not in values}
        fits = values.keys() == overload.keys() and len(arguments) <= len(overload)
        if fits and ("device" in overload or not properties):
            if all(isinstance(value, overload[key]) for key, value in values.items()):
                return values, unpack_config(properties)
    forms = "; ".join(f"{name}({', '.join(overload)})" for overload in overloads)
    raise TypeError(f"__init__(): incompatible constructor arguments. Supported are {forms}")


def add_devices(*overloads: Overload) -> list[Overload]:
    """The overloads, each after its form with a device, for which the network is compiled at once."""
    return [form for overload in overloads for form in ({**overload, "device": str}, overload)]


class NetworkConfig:
    """The fields of a network's config.json: Config(path). Attributes are those of `_defaults`."""

    _defaults: dict[str, Any] = {}
    #: Fields that files do not change.
    _constants: frozenset[str] = frozenset()

    def __init__(self, config_path: Any):
        fields = read_fields(config_path, self._defaults)
        vars(self).update(fields | {name: self._defaults[name] for name in self._constants})

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"Config has no attribute {name!r}: it has {', '.join(self._defaults)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._defaults:
            raise AttributeError(f"Config has no attribute {name!r}: it has {', '.join(self._defaults)}")
        vars(self)[name] = value


class Network:
    """A model that can be reshaped until it is compiled, then its request."""

    def __init__(self, title: str, model: Any):
        self.title, self.model = title, model
        self.request: Any = None
        self.adapters: AdapterController | None = None

    @classmethod
    def load(
        cls,
        title: str,
        values: Mapping[str, Any],
        properties: Mapping[str, Any],
        change: Change | None = None,
        prefix: str = "",
    ) -> Network:
        """The network of a constructor's `root_dir`, `model` and `weights`, or `blob_tensor`. With a `device`
        it is compiled. The property `blob_path` is the path of a folder where `export` wrote. `change` gets
        the model before. `prefix`: see `compile`."""
        from ovjit.api.run.core import Core

        device, folder = values.get("device"), values.get("root_dir")
        options = {name: value for name, value in properties.items() if name != "blob_path"}
        blob = values.get("blob_tensor")
        if properties.get("blob_path") is not None:
            blob = Path(os.fsdecode(properties["blob_path"])) / _BLOB
        if blob is not None:
            if prefix and options.pop("adapters", None):
                raise UnsupportedError(
                    f"{title} of a blob takes no adapters: load its folder, or export it with "
                    "AdapterConfig.Mode.MODE_FUSE"
                )
            network = cls(title, None)
            compiled = Core().import_model(blob, device or "CPU", options)
            network.request = compiled.create_infer_request()
            return network
        if folder is None:
            model = Core().read_model(values["model"], values["weights"])
        else:
            file = Path(os.fsdecode(folder)) / "openvino_model.xml"
            if not file.is_file():
                raise OvjitError(f"{str(file)!r} is missing: export the pipeline with optimum-cli")
            model = Core().read_model(str(file))
        network = cls(title, model if change is None else change(model))
        if device is not None:
            network.compile(device, options, prefix)
        return network

    def check_model(self) -> Any:
        """The model. RuntimeError if it has been compiled."""
        if self.model is None:
            raise OvjitError(
                f"{self.title} has been already compiled: call reshape before compile, and each once"
            )
        return self.model

    def compile(self, device: str, properties: Mapping[str, Any], prefix: str = "") -> None:
        """Compile the model. The property `adapters` changes layers that the adapters name with this prefix;
        it is ignored if there is none."""
        from ovjit.api.run.core import Core

        model = self.check_model()
        if prefix:
            self.adapters = controller_of(properties, prefix)
        if self.adapters is not None:
            self.adapters.insert(model)
        options = {name: value for name, value in properties.items() if name != "adapters"}
        self.request = Core().compile_model(model, device, options).create_infer_request()
        self.model = None
        if self.adapters is not None:
            self.adapters.apply([self.request], None)

    def set_adapters(self, config: AdapterConfig | None) -> None:
        """Use these adapters from now on; None for no change."""
        if config is not None:
            apply_adapters(self.adapters, [self.check_request()], config)

    def check_request(self) -> Any:
        """The request. RuntimeError if the network has not been compiled."""
        if self.request is None:
            raise OvjitError(f"{self.title} must be compiled first: call compile(device)")
        return self.request

    def run(self, feeds: Any) -> list[np.ndarray]:
        """The outputs, as copies."""
        results = self.check_request().infer(feeds)
        return [np.array(results[i]) for i in range(len(results))]

    def export(self, folder: Any) -> None:
        """Write the compiled model to a folder, for the property `blob_path`. UnsupportedError with adapters
        that can be changed."""
        if self.adapters is not None and self.adapters.has_inputs():
            raise UnsupportedError(
                f"{self.title} has adapters that can be changed, and cannot be exported: use "
                "AdapterConfig.Mode.MODE_FUSE"
            )
        path = Path(os.fsdecode(folder))
        blob = self.check_request().get_compiled_model().export_model().getvalue()
        path.mkdir(parents=True, exist_ok=True)
        (path / _BLOB).write_bytes(blob)


class SingleNetwork:
    """The methods that text encoders and denoisers share: an object with one network and its config."""

    Config = NetworkConfig
    #: Prefix of the names of an adapter's tensors that belong to the network; "" if it takes none.
    adapter_prefix = ""
    _title: ClassVar[str]
    _network: Network
    _config: NetworkConfig

    def _choose_overload(
        self, tools: Overload, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `choose_overload`. `tools` are the arguments that a folder replaces."""
        overloads = [
            {"model": type(self)},
            *add_devices({"root_dir": PATH}, {"model": str, "weights": Tensor, **tools}),
            {"blob_tensor": Tensor, **tools, "device": str},
        ]
        return choose_overload(type(self).__name__, overloads, arguments, keywords)

    def _load(self, values: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
        self._network = Network.load(self._title, values, properties, prefix=self.adapter_prefix)

    def _copy_from(self, other: SingleNetwork) -> None:
        """Copy the attributes of another object. A network that is not compiled yet can be reshaped
        separately."""
        vars(self).update(vars(other))
        self._network = copy.copy(self._network)

    def get_config(self) -> NetworkConfig:
        return self._config

    def compile(self, device: str, **kwargs: Any) -> None:
        self._network.compile(device, unpack_config(kwargs), self.adapter_prefix)

    def set_adapters(self, adapters: AdapterConfig | None) -> None:
        """Use these adapters from now on; None for no change."""
        self._network.set_adapters(adapters)

    def export_model(self, export_path: Any) -> None:
        """Write the compiled model for `blob_path` of the constructor."""
        self._network.export(export_path)
