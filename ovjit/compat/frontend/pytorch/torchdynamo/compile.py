"""Graph modules and files of models as compiled models, by the names of OpenVINO's functions."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from ovjit.api.run.core import Core
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import Type
from ovjit.compat.frontend.pytorch.torchdynamo import options as compile_options
from ovjit.compat.frontend.pytorch.torchdynamo.graphs import part_of
from ovjit.compat.frontend.pytorch.torchdynamo.options import Options
from ovjit.readers.torch.values import element_type

logger = logging.getLogger(__name__)


def cached_model_name(
    model_hash_str: str | None, device: str, args: Any, cache_root: str, reversed: bool = False
) -> str | None:
    """The path of a stored model without its ending: a hash of its graph, the device and its inputs."""
    if model_hash_str is None:
        return None
    folder = f"{cache_root}/model/"
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        logger.warning("the folder %s cannot be made, so no model is kept: %s", folder, error)
        return None
    inputs = [f"_{x.type()}{','.join(map(str, x.size()))}" for x in args]
    text = "".join(inputs[::-1] if reversed else inputs)
    return f"{folder}{model_hash_str}_{device}{sha256(text.encode()).hexdigest()}"


def openvino_compile_cached_model(
    cached_model_path: str, options: Mapping[str, Any] | None, *example_inputs: Any
) -> Any:
    """Load a stored model, and compile it for the types and shapes of the example."""
    core, chosen = Core(), _read_options(options, True)
    model = core.read_model(cached_model_path + ".xml")
    for node, example in zip(model.get_parameters(), example_inputs, strict=True):
        node.set_element_type(getattr(Type, element_type(example.dtype)))
        node.set_partial_shape(PartialShape(list(example.shape)))
    model.validate_nodes_and_infer_types()
    return core.compile_model(model, chosen.device, chosen.config)


def openvino_compile(
    gm: Any, *args: Any, model_hash_str: str | None = None, options: Mapping[str, Any] | None = None
) -> Any:
    """Compile a graph module for arguments of these types and shapes. With `model_hash_str`, the compiled
    model is stored in the options' folder."""
    from torch.fx.experimental.proxy_tensor import make_fx

    chosen = _read_options(options, model_hash_str is not None)
    part = part_of(make_fx(gm)(*args), {})
    return Core().compile_model(part.model, chosen.device, chosen.config)


def _read_options(options: Mapping[str, Any] | None, is_kept: bool) -> Options:
    """Parse options; with a folder for compiled models if `is_kept`."""
    return compile_options.read({**(options or {}), **({"model_caching": True} if is_kept else {})})


__all__ = ["cached_model_name", "openvino_compile", "openvino_compile_cached_model"]
