"""Models of tokenizers with further inputs: special tokens, truncation and padding of each call."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import Type
from ovjit.compat.op import Constant, Parameter, Result
from ovjit.compat.utils.node_factory import NodeFactory

#: Inputs that are added -> their values when nothing is set. None: the model's own.
FLAGS: dict[str, Any] = {
    "add_special_tokens": True, "truncation": False, "max_length": None, "pad_to_max_length": False,
    "pad_right": None,
}  # fmt: skip
#: The length of rows that are not truncated.
_LONG = 2**31 - 65


def _nodes(model: Any, kind: str) -> list[Any]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == kind]


def _source(node: Any, index: int) -> Any:
    return node.input_value(index).get_node()


def _make(kind: str, *inputs: Any, **attributes: Any) -> Any:
    """The output of a node; an array is a constant. An opset's builders would import all operations."""
    sources = [Constant(x) if isinstance(x, np.ndarray) else x for x in inputs]
    return NodeFactory().create(kind, sources, attributes).output(0)


def _variable(node: Any) -> str:
    return str(node.get_attributes().get("variable_id", ""))


class Flags:
    """Inputs that `add_flags` has added to a model: parameters by name, and their values by default."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}
        self.defaults: dict[str, np.ndarray] = {}

    def add(self, name: str, dtype: Any, shape: list[int], default: Any) -> Any:
        self.parameters[name] = parameter = Parameter(Type(dtype), PartialShape(shape))
        parameter.set_friendly_name(name)
        parameter.output(0).get_tensor().set_names({name})
        self.defaults[name] = np.full(shape, default, dtype)
        return parameter.output(0)


def add_flags(model: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """(the model with inputs for the flags that its graph allows, their defaults by name)."""
    flags = Flags()
    combined = _nodes(model, "CombineSegments")
    if combined:
        _add_special(combined[-1], flags)
        _add_lengths(model, combined[-1], flags)
    if not flags.parameters:
        return model, {}
    sinks = [
        sink for sink in model.get_sinks() if sink.get_type_name() != "Assign" or _variable(sink) not in FLAGS
    ]
    parameters = [*model.get_parameters(), *flags.parameters.values()]
    changed = Model(model.get_results(), sinks, parameters, model.get_friendly_name())
    return changed, flags.defaults


def _segments(combined: Any) -> int:
    return (combined.get_input_size() - 1) // 3


def _is_text(combined: Any, i: int) -> bool:
    """Whether a segment is a text's tokens. Others are special tokens."""
    return (
        _source(combined, 3 * i + 1).get_type_name() in ("Add", "Truncate")
        or _source(combined, 3 * i).get_type_name() == "Subtract"
    )


def _add_special(combined: Any, flags: Flags) -> None:

    ends = [combined.input(3 * i + 1) for i in range(_segments(combined)) if not _is_text(combined, i)]
    if not ends:
        return
    flag = flags.add("add_special_tokens", np.bool_, [], True)
    for end in ends:
        source = end.get_source_output()
        end.replace_source_output(_make("Select", flag, source, np.zeros([], np.int32)))


def _length_of(combined: Any) -> tuple[Any, Any]:
    """(the constant of the longest row without special tokens, the ReadValue that switches truncation or
    None); (None, None) if the graph has neither of the known forms."""
    for i in reversed(range(_segments(combined))):
        end, begin = _source(combined, 3 * i + 1), _source(combined, 3 * i)
        if end.get_type_name() == "Truncate":
            texts = sum(_is_text(combined, j) for j in range(_segments(combined)))
            length, switch = _source(end, 3 * texts), None
            if length.get_type_name() == "Select":
                switch, length = _source(length, 0), _source(length, 1)
                if switch.get_type_name() != "ReadValue" or _variable(switch) != "truncation":
                    return None, None
        elif end.get_type_name() == "Add" or begin.get_type_name() == "Subtract":
            cut = _source(end if end.get_type_name() == "Add" else begin, 1)
            if cut.get_type_name() != "Minimum":
                return None, None
            length, switch = _source(cut, 1), None
        else:
            continue
        return (length, switch) if length.get_type_name() == "Constant" else (None, None)
    return None, None


def _add_lengths(model: Any, combined: Any, flags: Flags) -> None:

    texts = sum(_is_text(combined, i) for i in range(_segments(combined)))
    length, switch = _length_of(combined)
    if texts not in (1, 2) or length is None:
        return
    added = _segments(combined) - texts
    shape = list(length.get_output_shape(0))
    targets = list(length.output(0).get_target_inputs())
    most = flags.add("max_length", np.int32, shape, int(np.array(length.data).reshape(-1)[0]) + added)
    special: Any = np.full(shape, added, np.int32)
    if "add_special_tokens" in flags.parameters:
        flag = flags.parameters["add_special_tokens"].output(0)
        special = _make("Select", flag, special, np.zeros([], np.int32))
    alone = _make("Subtract", most, special)
    truncation = flags.add("truncation", np.bool_, [], False)
    if switch is None:
        alone = _make("Select", truncation, alone, np.full([], _LONG, np.int32))
    else:
        for target in list(switch.output(0).get_target_inputs()):
            target.replace_source_output(truncation)
    for target in targets:
        target.replace_source_output(alone)
    _add_padding(model, most, flags)


def _add_padding(model: Any, most: Any, flags: Flags) -> None:
    dense = _nodes(model, "RaggedToDense")
    sides = {bool(node.get_attributes().get("pad_right", True)) for node in dense}
    if len(sides) != 1:
        return
    padded = flags.add("pad_to_max_length", np.bool_, [1], False)
    side = flags.add("pad_right", np.bool_, [], sides.pop())
    least, factory = _make("Select", padded, most, np.zeros([], np.int32)), NodeFactory()
    factory.add_extension("openvino_tokenizers")
    for node in dense:
        inputs = [node.input_value(i) for i in range(node.get_input_size())]
        inputs[3] = _make("Maximum", inputs[3], least)
        new = factory.create("RaggedToDense", [*inputs[:5], side], node.get_attributes())
        for i, output in enumerate(node.outputs()):
            for target in list(output.get_target_inputs()):
                target.replace_source_output(new.output(i))


def unpack_texts(model: Any) -> Any:
    """A detokenizer whose outputs are the begins, the ends and the bytes of texts: an array of str would drop
    U+0000 at their ends."""
    (result,) = model.get_results()
    pack = _source(result, 0)
    if pack.get_type_name() != "StringTensorPack":
        return model
    results = [Result(pack.input_value(i)) for i in range(3)]
    return Model(results, model.get_sinks(), model.get_parameters(), model.get_friendly_name())


def add_skip(model: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """(a detokenizer with an input `skip_special_tokens`, its default by name)."""
    decoders = _nodes(model, "VocabDecoder")
    if not decoders or decoders[-1].get_input_size() < 5:
        return model, {}
    decoder = decoders[-1]
    skipped = _source(decoder, 4)
    if skipped.get_type_name() not in ("Constant", "Slice"):
        return model, {}
    flags = Flags()
    flag = flags.add("skip_special_tokens", np.int32, [1], 1)
    stop = _make("Multiply", flag, np.array([2**31 - 1], np.int32))
    if skipped.get_type_name() == "Slice":
        skipped.input(2).replace_source_output(stop)
    else:
        begin, step = (np.array([n], np.int32) for n in (0, 1))
        decoder.input(4).replace_source_output(_make("Slice", skipped, begin, stop, step))
    parameters = [*model.get_parameters(), *flags.parameters.values()]
    changed = Model(model.get_results(), model.get_sinks(), parameters, model.get_friendly_name())
    return changed, flags.defaults
