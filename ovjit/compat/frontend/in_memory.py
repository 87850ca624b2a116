"""Models of frameworks that are objects and not files: PyTorch's modules, JAX's jaxprs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.api.model.model import Model
from ovjit.api.run.core import Core
from ovjit.compat.frontend.jax.jaxpr_decoder import JaxprPythonDecoder
from ovjit.compat.frontend.pytorch.conversions import for_torch
from ovjit.readers.jax.reader import is_jaxpr
from ovjit.readers.torch.decoders import TorchScriptPythonDecoder, is_torch

#: Front ends of such models.
FRAMEWORKS = ("pytorch", "jax")


def framework_of_object(given: Any) -> str | None:
    """The name of the front end for an object, None where no front end takes it."""
    if is_torch(given):
        return "pytorch"
    return "jax" if isinstance(given, JaxprPythonDecoder) or is_jaxpr(given) else None


def read_object(
    core: Core, given: Any, example: Any = None, inputs: Sequence[Any] = (), extensions: Sequence[Any] = (),
    dynamo: bool = False, told: Mapping[Any, Any] | None = None,
) -> Model:  # fmt: skip
    """The Model of an object that a front end takes.

    `inputs` has a row of name, shape and type for each input that is described. `extensions` are those that
    concern PyTorch. With `dynamo`, modules are read by torch.export alone. `told`: what is known of inputs
    without an example. RuntimeError for what cannot be converted.
    """
    if is_torch(given):
        from ovjit.readers.torch.convert import convert

        return convert(given, example, list(inputs), core.read_model, *for_torch(extensions), dynamo, told)
    from ovjit.readers.jax.reader import read_jaxpr

    if not isinstance(given, JaxprPythonDecoder):
        return read_jaxpr(given, core._converters)
    model = read_jaxpr(given.jaxpr, core._converters)
    model.set_friendly_name(given.name)
    return model


def is_without_example(given: Any) -> bool:
    """Whether a decoder holds a module or script of PyTorch's, and no example of its inputs."""
    return isinstance(given, TorchScriptPythonDecoder) and given.example_input is None


def told_read(shape: Any, type: Any) -> Any:
    """A rank and an element type, as the reader of scripts takes them."""
    from ovjit.readers.torch.script_inputs import ANYHOW, Read

    rank = len(shape) if shape is not None and shape.rank.is_static else None
    return Read(rank, ANYHOW.kind if type is None else type.get_type_name())
