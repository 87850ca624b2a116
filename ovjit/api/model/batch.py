"""The batch of a model: the axis that the layouts of its inputs call N."""

from __future__ import annotations

from typing import Any

from ovjit.api.model.boundary import Parameter
from ovjit.api.model.model import Model, check_model
from ovjit.api.tensors.dimension import Dimension, dimension_of
from ovjit.api.tensors.shapes import PartialShape
from ovjit.errors import ModelError, no_such_form
from ovjit.graph.shapes import ANY, Dim, merge


def get_batch(model: Model) -> Dimension:
    """The batch dimension of all inputs whose layout has one, merged. RuntimeError if no layout names N or
    the dimensions contradict each other."""
    check_model(model)
    batch: Dim = ANY
    for parameter, axis in _find_batch_axes(model):
        merged = merge(batch, parameter.get_partial_shape()[axis]._dim)
        if merged is None:
            raise ModelError(
                f"Get original batch size fails due to conflicting batch values for inputs: "
                f"{_inputs_text(model)}. "
                "Please ensure that N(Batch) dimension is set correctly for listed inputs"
            )
        batch = merged
    return dimension_of(batch)


def set_batch(model: Model, batch_size: int | Dimension = -1) -> None:
    """Give the batch axis of every input whose layout names one the size `batch_size` (-1: open), and infer
    all shapes anew. RuntimeError as `get_batch`, and for a model that cannot take that size."""
    check_model(model)
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, Dimension)):
        raise no_such_form(f"set_batch takes an int or a Dimension, not {type(batch_size).__name__}")
    get_batch(model)
    dimension = batch_size if isinstance(batch_size, Dimension) else Dimension(batch_size)
    shapes: dict[Any, PartialShape] = {}
    for parameter, axis in _find_batch_axes(model):
        shape = PartialShape(parameter.get_partial_shape())
        shape[axis] = dimension
        shapes[parameter.output(0)] = shape
    model.reshape(shapes)


def _find_batch_axes(model: Model) -> list[tuple[Parameter, int]]:
    """(parameter, its batch axis) of each parameter with one."""
    pairs = []
    for parameter in model.get_parameters():
        layout = parameter.get_layout()
        if layout.has_name("N") and parameter.get_partial_shape().rank.is_static:
            pairs.append((parameter, layout.get_index_by_name("N")))
    if not pairs:
        raise ModelError(
            "Get original batch size fails due to batch is not set in any layout for any input. Available "
            f"inputs:\n{_inputs_text(model)}\n---\nPlease use 'set_layout' API to set layout with batch "
            'dimension, e.g. `Model->get_parameters()[index]->set_layout("NCHW");`'
        )
    return pairs


def _inputs_text(model: Model) -> str:
    rows = []
    for i, parameter in enumerate(model.get_parameters()):
        layout = parameter.get_layout()
        rows.append(
            f"{i}: {{ name={parameter.get_friendly_name()!r}, shape={parameter.get_partial_shape()}, "
            f"layout={layout.to_string()}, no batch specified }}"
        )
    return "\n".join(rows)
