"""Models of frameworks that are objects and not files: PyTorch's modules, JAX's jaxprs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovjit.api.model.model import Model
from ovjit.api.run.core import Core
from ovjit.compat.frontend.jax.jaxpr_decoder import JaxprPythonDecoder
from ovjit.compat.frontend.pytorch.conversions import for_torch
from ovjit.readers.jax.reader import is_jaxpr
from ovjit.readers.torch.decoders import is_torch

#: Front ends of such models.
FRAMEWORKS = ("pytorch", "jax")


def framework_of_object(model: Any) -> str | None:
    """The name of the front end for an object, None where no front end takes it."""
    if is_torch(model):
        return "pytorch"
    return "jax" if isinstance(model, JaxprPythonDecoder) or is_jaxpr(model) else None


def read_object(
    core: Core, source: Any, example: Any = None, inputs: Sequence[Any] = (), extensions: Sequence[Any] = (),
    dynamo: bool = False,
) -> Model:  # fmt: skip
    """The Model of an object that a front end takes.

    `inputs` has a row of name, shape and type for each input that is described. `extensions` are those that
    concern PyTorch. With `dynamo`, modules are read by torch.export alone. RuntimeError for what cannot be
    converted.
    """
    if is_torch(source):
        from ovjit.readers.torch.convert import convert

        return convert(source, example, list(inputs), core.read_model, *for_torch(extensions), dynamo)
    from ovjit.readers.jax.reader import read_jaxpr

    if not isinstance(source, JaxprPythonDecoder):
        return read_jaxpr(source, core._converters)
    model = read_jaxpr(source.jaxpr, core._converters)
    model.set_friendly_name(source.name)
    return model
