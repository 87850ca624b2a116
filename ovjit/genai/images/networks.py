"""A network of a pipeline, and the constructors that all networks share."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError, UnsupportedError
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
                return values, properties
    forms = "; ".join(f"{name}({', '.join(overload)})" for overload in overloads)
    raise TypeError(f"__init__(): incompatible constructor arguments. Supported are {forms}")


def add_devices(*overloads: Overload) -> list[Overload]:
    """The overloads, each after its form with a device, for which the network is compiled at once."""
    return [form for overload in overloads for form in ({**overload, "device": str}, overload)]


def refuse_adapters(adapters: Any) -> None:
    """UnsupportedError for adapters of any kind; None and empty ones pass."""
    if adapters:
        raise UnsupportedError("ovjit does not support adapters of pictures yet: leave them out")


def check_properties(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Properties of the device. UnsupportedError for adapters."""
    refuse_adapters(properties.get("adapters"))
    return {name: value for name, value in properties.items() if name != "adapters"}


class NetworkConfig:
    """The fields of a network's config.json: Config(path). Attributes are those of `_defaults`."""

    _defaults: dict[str, Any] = {}

    def __init__(self, config_path: Any):
        vars(self).update(read_fields(config_path, self._defaults))

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

    @classmethod
    def load(
        cls,
        title: str,
        values: Mapping[str, Any],
        properties: Mapping[str, Any],
        change: Change | None = None,
    ) -> Network:
        """The network of a constructor's `root_dir`, `model` and `weights`, or `blob_tensor`. With a `device`
        it is compiled. The property `blob_path` is the path of a folder where `export` wrote. `change` gets
        the model before."""
        from ovjit.api.run.core import Core

        device, folder = values.get("device"), values.get("root_dir")
        options = {name: value for name, value in properties.items() if name != "blob_path"}
        blob = values.get("blob_tensor")
        if properties.get("blob_path") is not None:
            blob = Path(os.fsdecode(properties["blob_path"])) / _BLOB
        if blob is not None:
            network = cls(title, None)
            compiled = Core().import_model(blob, device or "CPU", check_properties(options))
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
            network.compile(device, options)
        return network

    def check_model(self) -> Any:
        """The model. RuntimeError if it has been compiled."""
        if self.model is None:
            raise OvjitError(
                f"{self.title} has been already compiled: call reshape before compile, and each once"
            )
        return self.model

    def compile(self, device: str, properties: Mapping[str, Any]) -> None:
        from ovjit.api.run.core import Core

        compiled = Core().compile_model(self.check_model(), device, check_properties(properties))
        self.model, self.request = None, compiled.create_infer_request()

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
        """Write the compiled model to a folder, for the property `blob_path`."""
        path = Path(os.fsdecode(folder))
        blob = self.check_request().get_compiled_model().export_model().getvalue()
        path.mkdir(parents=True, exist_ok=True)
        (path / _BLOB).write_bytes(blob)


class SingleNetwork:
    """The methods that text encoders and denoisers share: an object with one network and its config."""

    Config = NetworkConfig
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

    def _copy_from(self, other: SingleNetwork) -> None:
        """Take the attributes of another; a network that is not compiled yet can be reshaped apart."""
        vars(self).update(vars(other))
        self._network = copy.copy(self._network)

    def get_config(self) -> NetworkConfig:
        return self._config

    def compile(self, device: str, **kwargs: Any) -> None:
        self._network.compile(device, kwargs)

    def set_adapters(self, adapters: Any) -> None:
        refuse_adapters(adapters)

    def export_model(self, export_path: Any) -> None:
        """Write the compiled model for `blob_path` of the constructor."""
        self._network.export(export_path)
