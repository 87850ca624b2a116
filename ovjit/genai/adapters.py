"""LoRA adapters of pipelines: Adapter, AdapterConfig, and the matrices of a model's requests."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.tensors.tensor import Tensor
from ovjit.compat import opset13
from ovjit.errors import OvjitError
from ovjit.genai.enums import Arithmetic
from ovjit.lora import layers
from ovjit.lora.names import convert_names
from ovjit.lora.tensors import AdapterTensors, parse_adapter, read_adapter

_CONSTRUCTORS = (
    "__init__(): incompatible constructor arguments. AdapterConfig takes an Adapter and its alpha, or a list "
    "of Adapter or of pairs (Adapter, alpha), and a mode"
)


class _Mode(Arithmetic):
    """Ways to apply adapters. DYNAMIC (AUTO): any adapters in each call. STATIC_RANK: the sum of their ranks
    stays. STATIC: constants of the model. FUSE: added to the model's weights."""

    MODE_AUTO, MODE_DYNAMIC, MODE_STATIC_RANK, MODE_STATIC, MODE_FUSE = range(5)


_Mode.__name__ = "Mode"
#: Prefix of the names of a decoder's tensors, as PEFT writes them.
DECODER = "base_model.model."
#: Modes in which a call may change the adapters.
_CHANGEABLE = (_Mode.MODE_DYNAMIC, _Mode.MODE_STATIC_RANK)


class Adapter:
    """The matrices of a safetensors or GGUF file: Adapter(path), or Adapter(safetensor=Tensor) of the bytes
    of a safetensors file. Two objects are two adapters, even of one file."""

    def __init__(self, path: Any = None, *, safetensor: Any = None):
        source = path if safetensor is None else safetensor
        self._tensors: AdapterTensors | None = None
        #: The tensors by the prefix of a network, with the names that its model has.
        self._converted: dict[str, AdapterTensors] = {}
        if isinstance(source, Tensor):
            self._tensors = parse_adapter(np.array(source.data).reshape(-1).view(np.uint8))
        elif isinstance(source, (str, bytes, os.PathLike)) and safetensor is None:
            self._tensors = read_adapter(Path(os.fsdecode(source)))
        elif source is not None:
            raise TypeError(
                "__init__(): incompatible constructor arguments. Adapter takes the path of a safetensors "
                f"file, or a Tensor of its bytes, not {type(source).__name__}"
            )

    def __bool__(self) -> bool:
        return self._tensors is not None

    def convert(self, prefix: str) -> AdapterTensors:
        """The tensors for a network, see `convert_names`. RuntimeError without a file."""
        if self._tensors is None:
            raise OvjitError("an Adapter without a file has no matrices: give it a path")
        if prefix not in self._converted:
            self._converted[prefix] = convert_names(self._tensors, prefix)
        return self._converted[prefix]


class AdapterConfig:
    """Adapters with their scales (alpha), and the mode in which they are applied."""

    Mode = _Mode

    def __init__(self, *arguments: Any, **kwargs: Any):
        items = list(arguments)
        self._mode = kwargs.pop("mode", None) or _Mode.MODE_AUTO
        self._pairs: list[tuple[Adapter, float]] = []
        if items and isinstance(items[-1], _Mode):
            self._mode = items.pop()
        for name in ("adapter", "adapters"):
            if name in kwargs:
                items.insert(0, kwargs.pop(name))
        if "alpha" in kwargs:
            items.append(kwargs.pop("alpha"))
        if not isinstance(self._mode, _Mode) or kwargs or len(items) > 2:
            raise TypeError(_CONSTRUCTORS)
        if items and isinstance(items[0], Adapter):
            self._pairs = [(items[0], _alpha_of(items[1] if len(items) == 2 else 1.0))]
        elif items:
            if len(items) > 1 or not isinstance(items[0], (list, tuple)):
                raise TypeError(_CONSTRUCTORS)
            is_bare = all(isinstance(item, Adapter) for item in items[0])
            self.set_adapters_and_alphas([(item, 1.0) for item in items[0]] if is_bare else items[0])

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def __copy__(self) -> AdapterConfig:
        other = AdapterConfig(self._mode)
        other._pairs = list(self._pairs)
        return other

    def _index(self, adapter: Adapter, method: str, advice: str) -> int:
        """The number of an adapter. TypeError for another object, RuntimeError for one that is not here."""
        _check_adapter(adapter, method)
        for i, (each, _) in enumerate(self._pairs):
            if each is adapter:
                return i
        raise OvjitError(f"Unknown adapter object passed to AdapterConfig::{method}, {advice}")

    def add(self, adapter: Adapter, alpha: float = 1.0) -> AdapterConfig:
        """Add an adapter. RuntimeError if it is there already."""
        _check_adapter(adapter, "add")
        if any(each is adapter for each, _ in self._pairs):
            raise OvjitError("Adapter object passed to AdapterConfig::add was already registered")
        self._pairs.append((adapter, _alpha_of(alpha)))
        return self

    def remove(self, adapter: Adapter) -> AdapterConfig:
        del self._pairs[self._index(adapter, "remove", "you can remove previously registered adapters only")]
        return self

    def set_alpha(self, adapter: Adapter, alpha: float) -> AdapterConfig:
        advice = "register adapter object first with AdapterConfig::add"
        self._pairs[self._index(adapter, "set_alpha", advice)] = adapter, _alpha_of(alpha)
        return self

    def get_alpha(self, adapter: Adapter) -> float:
        advice = "alpha can be retrieved for previously registered adapters only"
        return self._pairs[self._index(adapter, "get_alpha", advice)][1]

    def get_adapters(self) -> list[Adapter]:
        return [adapter for adapter, _ in self._pairs]

    def get_adapters_and_alphas(self) -> list[tuple[Adapter, float]]:
        return list(self._pairs)

    def set_adapters_and_alphas(self, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """Use these adapters instead."""
        for pair in adapters:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], Adapter):
                raise TypeError("adapters should be a list of pairs (Adapter, alpha)")
        self._pairs = [(adapter, _alpha_of(alpha)) for adapter, alpha in adapters]


def _check_adapter(adapter: Any, method: str) -> None:
    if not isinstance(adapter, Adapter):
        raise TypeError(f"{method}(): adapter should be an Adapter, not {type(adapter).__name__}")


def _alpha_of(value: Any) -> float:
    """A scale in f32."""
    if isinstance(value, str):
        raise TypeError("alpha should be a number, not a str")
    return float(np.float32(value))


class AdapterController:
    """The adapters of a network: `insert` prepares its Models, `apply` sets the matrices of their requests.
    Layers that none of the first adapters has matrices for are never adapted.

    `prefix`: that of the names of tensors that belong to the network.
    """

    def __init__(self, config: AdapterConfig, prefix: str):
        self._prefix, self._mode, self.first = prefix, config._mode, copy.copy(config)
        if self._mode is _Mode.MODE_AUTO:
            self._mode = _Mode.MODE_DYNAMIC
        self._current, self._is_set = list(config._pairs), False
        names = (name for each, _ in self._blend(self._current) for name in (*each.layers, *each.weights))
        self._unused = {name for name in names if name.startswith(prefix)}
        #: Inputs of A and of B -> (the layer's name, its inputs and outputs, its rank or -1).
        self._inputs: dict[tuple[str, str], tuple[str, tuple[int, int], int]] = {}
        #: Inputs of whole weights -> (their name in an adapter, the model's own).
        self._weights: dict[str, tuple[str, np.ndarray]] = {}
        self._head_size = 0

    def insert(self, *models: Model) -> set[str]:
        """Prepare the layers that the adapters have matrices for. Returns the names of new inputs. Warns of
        tensors that no layer takes."""
        self._head_size = layers.find_head_size(models[0])  # later calls may bring the first GGUF file
        for model in models:
            layers.name_gguf_layers(model)
            self._prepare(model)
        if self._unused:
            warnings.warn(
                "There unused LoRA tensors. The result of generation can be not accurate. Check if a given "
                f"adapter file is compatible with the base model: {', '.join(sorted(self._unused))}",
                RuntimeWarning,
                2,
            )
        return {name for pair in self._inputs for name in pair} | self._weights.keys()

    def _prepare(self, model: Model) -> None:
        blend = self._blend(self._current)
        for node in layers.find_layers(model, blend, self._prefix):
            name, sizes = node.get_friendly_name(), layers.layer_sizes(node)
            self._unused -= {layers.find_name(each.layers, name, self._prefix) for each, _ in blend}
            matrices = layers.blend_layer(blend, name, self._prefix, sizes, self._head_size)
            if self._mode is _Mode.MODE_FUSE:
                layers.add_to_weights(node, matrices)
            elif self._mode is _Mode.MODE_STATIC:
                layers.add_products(node, *(opset13.constant(each) for each in matrices))
            else:
                rank = len(matrices.a) if self._mode is _Mode.MODE_STATIC_RANK else -1
                self._add_inputs(model, node, sizes, rank)
        self._replace_weights(model, blend)
        model.validate_nodes_and_infer_types()

    def _add_inputs(self, model: Model, node: Any, sizes: tuple[int, int], rank: int) -> None:
        name = node.get_friendly_name()
        names = f"lora_A.{name}", f"lora_B.{name}"
        shapes = [rank, sizes[0]], [sizes[1], rank]
        inputs = []
        for shape, tensor_name in zip(shapes, names, strict=True):
            inputs.append(opset13.parameter(shape, np.float32, name=tensor_name))
            inputs[-1].output(0).set_names({tensor_name})
        layers.add_products(node, *inputs)
        model.add_parameters(inputs)
        self._inputs[names] = name, sizes, rank

    def _replace_weights(self, model: Model, blend: layers.Blend) -> None:
        replacements = [each.weights for each, _ in blend if each.weights]
        if len(replacements) > 1:
            raise OvjitError("OpenVINO.GenAI does not support several LoRA adapters with constants!")
        for weights in replacements:
            for name, node in layers.find_weights(model, weights, self._prefix).items():
                self._unused.discard(name)
                kind = node.get_element_type()
                if self._mode not in _CHANGEABLE:
                    node.output(0).replace(opset13.constant(weights[name], kind).output(0))
                    continue
                input_name = f"lora_weights.{node.get_friendly_name()}"
                source = opset13.parameter(list(node.output(0).get_shape()), np.float32, name=input_name)
                source.output(0).set_names({input_name})
                self._weights[input_name] = name, node.get_data(dtype=np.float32)
                node.output(0).replace(opset13.convert(source, kind).output(0))
                model.add_parameters([source])

    def has_inputs(self) -> bool:
        """True if matrices or whole weights are inputs of the models, so that calls can change them."""
        return bool(self._inputs or self._weights)

    def _blend(self, pairs: Sequence[tuple[Adapter, float]]) -> layers.Blend:
        """The tensors of adapters, and their scales."""
        return [(adapter.convert(self._prefix), alpha) for adapter, alpha in pairs]

    def is_current(self, config: AdapterConfig | None) -> bool:
        """True if a call with this configuration changes no adapter. Those of a mode that allows no change
        stay, whatever the configuration of a call is, unless it has this mode itself."""
        if config is None or config._mode is _Mode.MODE_AUTO and self._mode not in _CHANGEABLE:
            return True
        return _is_same_pairs(config._pairs, self._current)

    def apply(self, requests: Sequence[Any], config: AdapterConfig | None) -> bool:
        """Set the matrices of requests for a call. Without a configuration those of the call before stay.
        True if they have changed. RuntimeError for another mode or rank, and for other adapters with a mode
        that allows no change; the adapters stay then."""
        is_same = self.is_current(config)
        pairs = self._current if is_same or config is None else list(config._pairs)
        if is_same and not (config is None or _is_same_pairs(config._pairs, pairs)):
            _warn_of_no_effect(f"the pipeline was loaded with {self._mode.name}, give MODE_DYNAMIC then")
        if config is not None and config._mode not in (_Mode.MODE_AUTO, self._mode):
            raise OvjitError(
                "AdapterConfig::mode cannot be changed and should be configured once for a model at the "
                "initialization"
            )
        if self._is_set and is_same:
            return False
        if self._mode not in _CHANGEABLE and not is_same:
            raise OvjitError(
                "Cannot change adapters and/or the alphas when not one of the dynamic modes are used."
            )
        values, self._is_set = self._compute(pairs), False
        for request in requests:
            inputs = {name for port in request.model_inputs for name in port.get_names()}
            for name in values.keys() & inputs:
                request.set_tensor(name, values[name])
        self._current, self._is_set = pairs, True
        return not is_same

    def _compute(self, pairs: Sequence[tuple[Adapter, float]]) -> dict[str, Tensor]:
        """The values of all inputs."""
        blend, values = self._blend(pairs), dict[str, Tensor]()
        for names, (layer, sizes, rank) in self._inputs.items():
            matrices = layers.blend_layer(blend, layer, self._prefix, sizes, self._head_size)
            if rank not in (-1, len(matrices.a)):
                raise OvjitError(
                    f"the adapters of {layer} have the rank {len(matrices.a)}, but MODE_STATIC_RANK was "
                    f"configured for {rank}: use MODE_DYNAMIC"
                )
            values.update(zip(names, map(Tensor, matrices), strict=True))
        for input_name, (name, original) in self._weights.items():
            values[input_name] = Tensor(
                next((each.weights[name] for each, _ in blend if name in each.weights), original)
            )
        return values


def is_same(config: AdapterConfig | None, other: AdapterConfig | None) -> bool:
    """True if the adapters and their scales are equal."""
    if config is None or other is None:
        return config is other
    return _is_same_pairs(config._pairs, other._pairs)


def _is_same_pairs(pairs: Sequence[tuple[Adapter, float]], others: Sequence[tuple[Adapter, float]]) -> bool:
    return len(pairs) == len(others) and all(
        adapter is other and alpha == scale
        for (adapter, alpha), (other, scale) in zip(pairs, others, strict=True)
    )


def controller_of(properties: Mapping[str, Any], prefix: str) -> AdapterController | None:
    """The controller of the property `adapters`, None without it. RuntimeError for another value."""
    if "adapters" not in properties:
        return None
    config = properties["adapters"]
    if not isinstance(config, AdapterConfig):
        raise OvjitError(
            f'Property "adapters" got unsupported type {type(config).__name__}: it should be an AdapterConfig'
        )
    return AdapterController(config, prefix)


def load_adapters(
    properties: Mapping[str, Any], config: Any
) -> tuple[AdapterController | None, Callable[..., set[str]] | None]:
    """(the controller of a decoder's property `adapters`, its method that prepares models); None without the
    property. The adapters become those of the configuration by default."""
    controller = controller_of(properties, DECODER)
    if controller is None:
        return None, None
    config.adapters = properties["adapters"]
    return controller, controller.insert


def apply_adapters(
    controller: AdapterController | None, requests: Sequence[Any], config: AdapterConfig | None
) -> bool:
    """Set the adapters of a call, see `AdapterController.apply`. Warns of adapters for a network without
    any: they have no effect, as in openvino_genai."""
    if controller is not None:
        return controller.apply(requests, config)
    if config:
        _warn_of_no_effect("the pipeline was loaded without adapters, give the property adapters then")
    return False


def _warn_of_no_effect(reason: str) -> None:
    """Warn of adapters that a call brings in vain, as in openvino_genai."""
    warnings.warn(f"the adapters of this call have no effect: {reason}", RuntimeWarning, 3)
