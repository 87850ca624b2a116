"""`convert_model`: a Model of a file, of a PyTorch module, or of a model that is one already."""

from __future__ import annotations

from typing import Any

from ovjit.api.model.model import Model
from ovjit.compat.ovc.convert_impl import convert


def convert_model(
    input_model: Any,
    input: Any = None,
    output: Any = None,
    example_input: Any = None,
    extension: Any = None,
    verbose: bool = False,
    share_weights: bool = True,
    dynamo: bool = False,
) -> Model:
    """A Model of a file, of its contents as BytesIO, of an onnx.ModelProto, of a PyTorch module, of a Keras
    model or a function of TensorFlow's, of a ClosedJaxpr of JAX, or of a Model.

    A PyTorch module (or script, or what torch.export made) is traced with `example_input`: a tensor, a tuple
    or a dict of them. `input`: what inputs are to be, one for each in order, or for named ones: a shape, a
    type, a name, a tuple of these, or a dict by name. `output`: names of the tensors to be the outputs.
    `ovjit.tools.ovc.error.Error`, a RuntimeError, for names that are not there and for models of other
    frameworks.
    """
    return convert(dict(locals()), is_command=False)[0]
