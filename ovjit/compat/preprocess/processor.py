"""`PrePostProcessor`: puts the steps that a user describes before and after a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ovjit.compat.preprocess.steps as steps
from ovjit.api.arguments import explain_calls
from ovjit.api.model.boundary import Parameter, Result
from ovjit.api.model.model import Model, check_model
from ovjit.api.model.node import GRAPH_LOCK, Input, Output
from ovjit.api.model.node_ports import target_inputs
from ovjit.api.tensors.layout import Layout
from ovjit.compat.preprocess.formats import FORMATS, ColorFormat, plane_shapes
from ovjit.compat.preprocess.infos import InputInfo, OutputInfo
from ovjit.compat.preprocess.layouts import (
    axes_of,
    check_order,
    find_change,
    invert_permutation,
    of_other_sizes,
    permute_items,
    permuted_layout,
)
from ovjit.compat.preprocess.tidy import tidy
from ovjit.errors import ModelError, OvjitError, checked_index
from ovjit.graph.shapes import ANY, Dim
from ovjit.records import NamedTuple

#: What a model may take.
_MODEL_COLORS = {ColorFormat.RGB, ColorFormat.BGR, ColorFormat.GRAY, ColorFormat.UNDEFINED}


class _Front(NamedTuple):
    """The parameters that take an input's place, and the layouts of the user's tensor and of the model's."""

    parameters: list[Parameter]
    layout: Layout
    model_layout: Layout


@explain_calls
class PrePostProcessor:
    """Describes the tensors that a user passes and gets, and the steps between them and a Model; `build` adds
    the steps to that Model. TypeError unless it is a Model."""

    def __init__(self, model: Model):
        self._model = check_model(model)
        self._inputs: list[InputInfo] = [InputInfo._make() for _ in model.inputs]
        self._outputs: list[OutputInfo] = [OutputInfo._make() for _ in model.outputs]
        self._built = False
        self._described = ""  # what was built, of the model as it was before

    def input(self, key: str | int | None = None, /, **named: Any) -> InputInfo:
        """The input of a tensor name or index; without either, the only one. RuntimeError if there is
        none."""
        return _find(self._inputs, self._model.inputs, "input", key, named)

    def output(self, key: str | int | None = None, /, **named: Any) -> OutputInfo:
        """The output of a tensor name or index; without either, the only one. RuntimeError if there is
        none."""
        return _find(self._outputs, self._model.outputs, "output", key, named)

    # -- building ------------------------------------------------------------------------------------------

    def build(self) -> Model:
        """Put the steps into the Model, and return it. RuntimeError, and an unchanged Model, where a step
        does not fit or `build` has been called before."""
        if self._built:
            raise ModelError(
                "Parameter to replace has been replaced by previous steps of preprocessing. Use only one "
                "PrePostProcessor.build() for one description"
            )
        model, described = self._model, str(self)
        with GRAPH_LOCK:
            undo = _Undo(model)
            try:
                replaced: list[Parameter] = []
                for info, old in zip(self._inputs, undo.parameters, strict=True):
                    replaced += self._build_input(info, old)
                model._parameters[:] = replaced
                model.validate_nodes_and_infer_types()
                for output, result in zip(self._outputs, model._results, strict=True):
                    self._build_output(output, result)
            except BaseException:
                undo()
                raise
            tidy(model)
        self._built, self._described = True, described
        return model

    def _build_input(self, info: InputInfo, old: Parameter) -> list[Parameter]:
        front = _front(info, old)
        if not _changes(info, front, old):
            layout = front.layout if info._tensor._layout is not None else front.model_layout
            if not layout.empty:  # which says nothing, so what is known stays
                old.set_layout(layout)
            return [old]
        nodes, context = _run(info, front, old)
        last = steps.one(
            nodes,
            "Multiple plane input is not allowed as model input. Consider using of convert_color "
            "preprocessing "
            f"operation. Current format is '{FORMATS[info._tensor._color].label}'",
        )
        if context.color not in _MODEL_COLORS:
            raise ModelError(
                "model shall have RGB/BGR/GRAY color format. Consider add 'convert_color' preprocessing "
                f"operation to convert current color format '{FORMATS[context.color].label}' to RGB/BGR/GRAY"
            )
        expected = old.get_partial_shape()
        if not last.get_partial_shape().compatible(expected):
            raise ModelError(
                f"Resulting shape '{last.get_partial_shape()}' after preprocessing is not aligned with "
                f"original "
                f"parameter's shape: {expected}, input parameter: {old.get_friendly_name()}"
            )
        for target in target_inputs(old, 0):
            target._node._connect(target._index, last)
        return front.parameters

    def _build_output(self, info: OutputInfo, result: Result) -> None:
        source = result.input_value(0)
        context = _output_context(info, result)
        if info._model._layout is not None:
            result.set_layout(context.layout)
        nodes = [source]
        for step in info._steps._steps:
            nodes = step.apply(nodes, context)
        for step in _implicit(nodes, context):
            nodes = step.apply(nodes, context)
        last = nodes[0]
        if last != source:
            names = result._own_names or source._tensor._names
            if not isinstance(source._node, Parameter):
                name = source._node.get_friendly_name()
                last._node.set_friendly_name(f"{name}.{source._index}")
            last._tensor._names = last._tensor._names | names
            moved = result._own_names if isinstance(source._node, Parameter) else names
            source._tensor._names = source._tensor._names - moved
            result._connect(0, last)
        if info._tensor._layout is not None or not context.layout.empty:
            result.set_layout(context.layout)

    # -- showing -------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<PrePostProcessor: {self}>"

    def __str__(self) -> str:
        if self._built:
            return self._described
        lines: list[str] = []
        for info, parameter in zip(self._inputs, self._model._parameters, strict=False):
            _show_input(info, parameter, lines)
        for output, result in zip(self._outputs, self._model._results, strict=False):
            _show_output(output, result, lines)
        return "\n".join(lines) + "\n" if lines else ""


def _find(infos: list[Any], ports: list[Output], what: str, key: Any, named: dict[str, Any]) -> Any:
    if named:
        if key is not None or len(named) != 1 or set(named) - {"tensor_name", f"{what}_index"}:
            raise TypeError(f"{what}() takes a tensor_name or an {what}_index")
        (key,) = named.values()
    title = f"PrePostProcessor::{what}"
    if key is None:
        if len(infos) != 1:
            raise ModelError(f"{title}() - Model must have exactly one {what}, got {len(infos)}")
        return infos[0]
    if isinstance(key, str):
        for info, port in zip(infos, ports, strict=True):
            if key in port._tensor._names:
                return info
        names = ", ".join(sorted(name for port in ports for name in port._tensor._names))
        raise ModelError(f"Model doesn't have {what} with name {key}; available names: {names or 'none'}")

    def beyond(index: int) -> Exception:
        return ModelError(
            f"{title}(size_t) - Model doesn't have {what} with index {index}. Total number of {what}s is "
            f"{len(infos)}"
        )

    return infos[checked_index(key, len(infos), what, beyond)]


class _Undo:
    """A snapshot of a Model; calling it restores the Model."""

    def __init__(self, model: Model):
        self.model = model
        self.parameters = list(model._parameters)
        ends = [*model._parameters, *(r.input_value(0)._node for r in model._results)]
        targets = [t for node in ends for i in range(len(node._tensors)) for t in target_inputs(node, i)]
        self.edges: list[tuple[Input, Output]] = [(t, t.get_source_output()) for t in targets]
        self.names = [(tensor, set(tensor._names)) for node in ends for tensor in node._tensors]
        ends_of: list[Parameter | Result] = [*model._parameters, *model._results]
        self.layouts = [(node, node.get_layout()) for node in ends_of]
        self.types = [(tensor, tensor._type) for node in model._walk() for tensor in node._tensors]

    def __call__(self) -> None:
        self.model._parameters[:] = self.parameters
        for target, source in self.edges:
            target._node._connect(target._index, source)
        for tensor, names in self.names:
            tensor._names = names
        for tensor, type_ in self.types:
            tensor._type = type_
        for node, layout in self.layouts:
            node.set_layout(layout)


# -- inputs ------------------------------------------------------------------------------------------------


def _check_layout(node: Parameter | Result, layout: Layout) -> None:
    """RuntimeError if `layout` is not of the node's rank."""
    before = node.get_layout()
    node.set_layout(layout)
    node.set_layout(before)


def _front(info: InputInfo, old: Parameter) -> _Front:
    """Create the parameters for the user's tensor."""
    tensor = info._tensor
    model_layout = _model_layout(info, old)
    shape, layout = _tensor_shape(info, old._attrs["shape"], model_layout)
    if tensor._spatial is not None:
        shape = _with_spatial(shape, layout, tensor._spatial)
    dtype = old._attrs["element_type"] if tensor._type is None else tensor._type
    parameters = []
    shapes_ = plane_shapes(tensor._color, shape, layout)
    for i, plane in enumerate(shapes_):
        parameter = Parameter._of(dtype, plane)
        suffix = f"/{tensor._sub_names[i]}" if tensor._sub_names else ""
        if suffix or len(shapes_) == 1:
            parameter._friendly_name = old.get_friendly_name() + suffix
            parameter._tensors[0]._names = {name + suffix for name in old._tensors[0]._names}
        # a layout that says nothing leaves what is known
        shown = old.get_layout() if layout.empty and info._model._layout is not None else layout
        if not shown.empty:
            parameter.set_layout(shown)
        if tensor._memory_type:
            parameter._tensors[0].get_rt_info()._set("memory_type_0", {"value": tensor._memory_type})
        parameters.append(parameter)
    return _Front(parameters, layout, model_layout)


def _model_layout(info: InputInfo, old: Parameter) -> Layout:
    """The layout of the model's input: the one that was set, else the user's after the steps."""
    layout = old.get_layout()
    if info._model._layout is not None:
        layout = info._model._layout
    elif layout.empty and info._tensor._layout is not None:
        layout = _passed_on(info, info._tensor._layout)
    else:
        return layout
    _check_layout(old, layout)
    return layout


def _tensor_shape(
    info: InputInfo, shape: tuple[Dim, ...] | None, model_layout: Layout
) -> tuple[tuple[Dim, ...] | None, Layout]:
    """Shape and layout of the user's tensor, for a model's input of this shape and layout."""
    tensor = info._tensor
    user_layout = None if tensor._layout is None or tensor._layout.empty else tensor._layout
    if tensor._layout is None and FORMATS[tensor._color].layout:
        user_layout = Layout(FORMATS[tensor._color].layout)
    if tensor._shape_set and (user_layout is not None or tensor._shape is None):
        return tensor._shape, model_layout if user_layout is None else user_layout
    if user_layout is not None and not model_layout.empty and model_layout != user_layout:
        return _shape_in(user_layout, model_layout, shape), user_layout
    if tensor._shape_set:
        shape = tensor._shape
    before = model_layout
    for step in reversed(info._steps._steps):
        if step.order is not None:
            check_order(step.order)
            if shape is not None and not tensor._shape_set:
                shape = invert_permutation(shape, step.order, ANY)
            back = [step.order.index(i) for i in range(len(step.order))]
            if shape is not None and len(back) == len(shape):
                before = permuted_layout(before, back)
    return shape, before if user_layout is None else user_layout


def _passed_on(info: InputInfo, layout: Layout) -> Layout:
    """The layout after the steps."""
    for step in info._steps._steps:
        if step.layout is not None and not step.layout.empty:
            layout = step.layout
        elif step.order is not None:
            check_order(step.order)
            layout = permuted_layout(layout, step.order)
    return layout


def _shape_in(layout: Layout, model_layout: Layout, shape: tuple[Dim, ...] | None) -> tuple[Dim, ...] | None:
    """The model's shape in the user's layout, which may have fewer axes in front."""
    if shape is None:
        return None
    user_axes = layout._leading if not layout._open else None
    if user_axes is not None and len(user_axes) < len(shape):
        change = find_change(layout, model_layout, len(user_axes))
        if change is None:
            return shape[len(shape) - len(user_axes) :]
        return invert_permutation(shape, change.order, ANY)[change.added :]
    change = find_change(model_layout, layout, len(shape))
    if change is not None and change.added:
        raise of_other_sizes(layout, model_layout)
    return shape if change is None else tuple(permute_items(shape, change.order))


def _with_spatial(shape: tuple[Dim, ...] | None, layout: Layout, spatial: tuple[int, int]) -> Any:
    for name, what in (("H", "height"), ("W", "width")):
        if not layout.has_name(name):
            raise ModelError(f"Layout {layout.to_string()} doesn't have `{what}` dimension")
    if shape is None:
        return None
    axes_of(layout, len(shape))  # raises for another rank
    changed = list(shape)
    for name, length in zip("HW", spatial, strict=True):
        changed[layout.get_index_by_name(name)] = ANY if length < 0 else length
    return tuple(changed)


def _changes(info: InputInfo, front: _Front, old: Parameter, layouts: bool = True) -> bool:
    """Whether an input needs any change; with `layouts` False, a layout alone is none."""
    new = front.parameters
    return bool(
        len(new) > 1
        or info._steps._steps
        or info._tensor._memory_type
        or new[0]._attrs != old._attrs
        or layouts
        and (new[0].get_layout() != old.get_layout() or front.layout != front.model_layout)
    )


def _input_context(info: InputInfo, front: _Front, old: Parameter) -> steps.Context:
    dtype = old._attrs["element_type"]
    wanted_type = "" if dtype == "dynamic" else dtype
    return steps.Context(
        front.layout, info._tensor._color, wanted_type, front.model_layout, old._attrs["shape"]
    )


def _implicit(nodes: list[Output], context: steps.Context) -> list[steps.Step]:
    """Add the conversions that lead to the final type and layout, if these are set."""
    missing = []
    if context.wanted_type not in ("", nodes[0]._tensor._type.dtype):
        missing.append(steps.convert_type(context.wanted_type))
    if not context.wanted_layout.empty and context.layout != context.wanted_layout:
        missing.append(steps.convert_layout(context.wanted_layout))
    return missing


def _run(info: InputInfo, front: _Front, old: Parameter) -> tuple[list[Output], steps.Context]:
    context = _input_context(info, front, old)
    nodes = [parameter.output(0) for parameter in front.parameters]
    for step in info._steps._steps:
        nodes = step.apply(nodes, context)
    if len(nodes) == 1:
        for step in _implicit(nodes, context):
            nodes = step.apply(nodes, context)
    return nodes, context


def _show_input(info: InputInfo, old: Parameter, lines: list[str]) -> None:
    try:
        front = _front(info, old)
    except OvjitError as error:
        lines += ["", f"Error occurred: {error}"]
        return
    tensor = info._tensor
    # a layout that follows from a colour format was not requested
    requested = tensor._layout is not None or info._model._layout is not None
    if not _changes(info, front, old, requested):
        return
    name = min(old._tensors[0]._names, default=old.get_friendly_name())
    color = f" (color {FORMATS[tensor._color].label})" if tensor._color != ColorFormat.UNDEFINED else ""
    memory = f" memory type={tensor._memory_type}" if tensor._memory_type else ""
    lines.append(f'Input "{name}"{color}{memory}:')
    plain = steps.Context(front.layout, ColorFormat.UNDEFINED, "dynamic", Layout(), None)
    shown = [steps.show([parameter.output(0)], plain) for parameter in front.parameters]
    if len(shown) == 1:
        lines.append(f"    User's input tensor: {shown[0]}")
    else:
        lines.append(f"    {len(shown)} user's tensors expected for each plane:")
        for i, text in enumerate(shown):
            names = sorted(front.parameters[i]._tensors[0]._names)
            lines.append(f"       {i}: {names[0] + ' ' if names else ''}{text}")
    expected = (
        f"{old.get_partial_shape()}, {steps.layout_text(front.model_layout)}, {old._attrs['element_type']}"
    )
    lines.append(f"    Model's expected tensor: {expected}")
    context = _input_context(info, front, old)
    nodes = [parameter.output(0) for parameter in front.parameters]
    nodes = _show_steps("Pre-processing steps", info._steps._steps, nodes, context, lines)
    if nodes is not None and len(nodes) == 1:
        _show_steps("Implicit pre-processing steps", _implicit(nodes, context), nodes, context, lines)


def _show_steps(
    title: str, listed: Sequence[steps.Step], nodes: list[Output], context: steps.Context, lines: list[str]
) -> Any:
    """Append a line for each step to `lines`. None after a step that fails, which is listed."""
    if listed:
        lines.append(f"    {title} ({len(listed)}):")
    for step in listed:
        before = f"      {step.label}: ({steps.show(nodes, context)}"
        try:
            nodes = step.apply(nodes, context)
        except OvjitError as error:
            lines += [before, f"Error occurred: {error}"]
            return None
        lines.append(f"{before}) -> ({steps.show(nodes, context)})")
    return nodes


# -- outputs -----------------------------------------------------------------------------------------------


def _output_context(info: OutputInfo, result: Result) -> steps.Context:
    layout = result.get_layout() if info._model._layout is None else info._model._layout
    target_type = info._tensor._type or ""
    target_layout = Layout() if info._tensor._layout is None else info._tensor._layout
    return steps.Context(layout, ColorFormat.UNDEFINED, target_type, target_layout, None, is_output=True)


def _show_output(info: OutputInfo, result: Result, lines: list[str]) -> None:
    source = result.input_value(0)
    context = _output_context(info, result)
    nodes = [source]
    if not info._steps._steps and not _implicit(nodes, context) and info._model._layout is None:
        return
    name = min(result._tensors[0]._names, default=result.get_friendly_name())
    lines += [f'Output "{name}":', f"    Model's data tensor: {steps.show(nodes, context)}"]
    after = _show_steps("Post-processing steps", info._steps._steps, nodes, context, lines)
    if after is None:
        return
    after = _show_steps("Post-processing implicit steps", _implicit(after, context), after, context, lines)
    if after is not None:
        lines.append(f"    User's output tensor: {steps.show(after, context)}")
