"""Parsers of the arguments of `ovc` and `convert_model`: inputs, paths, options."""

from __future__ import annotations

import argparse
import os
import re
from collections import namedtuple
from pathlib import Path
from typing import Any

from ovjit.api.tensors.shapes import PartialShape
from ovjit.compat.ovc.error import Error
from ovjit.compat.ovc.help import PARAMETERS
from ovjit.compat.ovc.moc_frontend.shape_utils import is_shape_type, to_partial_shape
from ovjit.compat.ovc.moc_frontend.type_utils import is_type, to_ov_type
from ovjit.version import openvino_version

#: What one input is to be; a field is None where nothing is said of it.
_InputCutInfo = namedtuple(  # type: ignore[name-match]
    "InputCutInfo", ["name", "shape", "type", "value"], defaults=(None, None, None, None)
)


#: A name, and shapes of numbers, bounds and question marks; that there is one shape at most is checked apart.
_INPUT = re.compile(r"[^\[\]]*(\[[0-9?.,\s\-]*\])*")

# -- inputs ------------------------------------------------------------------------------------------------


def is_single_input(input: Any) -> bool:
    """Whether an object describes one input: at most a name, a shape and a type. TypeError for objects
    without items."""
    kinds = [_kind_of(item) for item in input]
    return None not in kinds and len(set(kinds)) == len(kinds)


def _kind_of(item: Any) -> str | None:
    if isinstance(item, str):
        return "name"
    return "type" if is_type(item) else "shape" if is_shape_type(item) else None


def single_input_to_input_cut_info(input: Any) -> _InputCutInfo:
    """The description of one input. Error for other objects."""
    if isinstance(input, (tuple, list)) and not is_shape_type(input):
        items: dict[str, Any] = {}
        for item in input:
            if item is None:  # a shape of which nothing is said
                continue
            if (kind := _kind_of(item)) is None:
                raise Error(
                    "Incorrect input parameters provided. Expected tuple with input name, input type or "
                    f"input shape. Got unknown object: {item}"
                )
            if kind in items:
                raise Error(f"More than one input {kind} provided: {input}")
            items[kind] = item
        return _cut_info(items)
    kind = _kind_of(input)
    if kind is None:
        raise Error(
            "Unexpected object provided for input. Expected tuple, Shape, PartialShape, Type or str. Got "
            f"{type(input)}"
        )
    return _cut_info({kind: input})


def _cut_info(items: dict[str, Any]) -> _InputCutInfo:
    shape = to_partial_shape(items["shape"]) if "shape" in items else None
    return _InputCutInfo(items.get("name"), shape, to_ov_type(items["type"]) if "type" in items else None)


def input_to_input_cut_info(input: Any) -> list[_InputCutInfo]:
    """Descriptions of inputs: one for each of a list, a tuple or a dict by name, or of one input. A text is a
    name; what the command is given is taken apart by `parse_inputs` before."""
    if input is None or (isinstance(input, (list, tuple)) and not input):
        return []
    if isinstance(input, dict):
        described = []
        for name, value in input.items():
            if not isinstance(name, str):
                raise Error(f"Incorrect operation name type. Expected string, got {type(name)}")
            info = single_input_to_input_cut_info(value)
            if info.name is not None and info.name != name:
                raise Error(
                    'Incorrect "input" dictionary, got different names in key and value. Got operation name '
                    f"{info.name} for key {name}"
                )
            described.append(info._replace(name=name))
        return described
    if isinstance(input, (list, tuple)) and not is_single_input(input) and not is_shape_type(input):
        return [single_input_to_input_cut_info(item) for item in input]
    return [single_input_to_input_cut_info(input)]


def split_inputs(input_str: str) -> list[str]:
    """Split at commas outside of brackets. A comma after a name without brackets does not split."""
    parts = re.split(r",(?![^\[]*\])", input_str)
    if len(parts) > 1 and not parts[-1]:
        parts[-2:] = [parts[-2] + ","]
    if not all(map(_INPUT.fullmatch, parts)):
        raise Error(
            f"input value '{input_str}' is incorrect. Input should be in the following format: "
            f"{PARAMETERS['input']}"
        )
    return parts


def get_shape_from_input_value(input_value: str) -> PartialShape | None:
    """The shape of `name[1,?,3..5]`, or None. Numbers are separated by commas or by spaces."""
    shapes = re.findall(r"\[([^\[\]]*)\]", input_value)
    if len(shapes) > 1:
        raise Error('Wrong syntax to specify shape. Use "input" "node_name[shape]"')
    if not shapes:
        return None
    dims = re.split(r"\s*,\s*|\s+", shapes[0].strip())
    try:
        return PartialShape(f"[{','.join(dims)}]")
    except RuntimeError as error:
        raise Error(f"the shape of the input {input_value!r} is not valid: {error}") from error


def remove_shape_from_input_value(input_value: str) -> str:
    """The text without the shape."""
    return re.sub(r"\[[^\[\]]*\]", "", input_value)


def parse_input_value(input_value: str) -> tuple[str | None, PartialShape | None]:
    """A name and a shape, each None where the text has none."""
    return remove_shape_from_input_value(input_value) or None, get_shape_from_input_value(input_value)


def parse_inputs(inputs: str) -> list[tuple[str | None, PartialShape | None]]:
    """Names and shapes of the text that the command takes."""
    if "->" in inputs:
        raise Error(f"Incorrect format of input. Got {inputs}")
    return [parse_input_value(part) for part in split_inputs(inputs)] if inputs else []


def parse_outputs(outputs: str) -> list[str]:
    """The names between the commas. Error for invalid names."""
    names = re.split(r"\s*,\s*", outputs.strip())
    if not all(name and not re.search(r"\s", name) for name in names):
        raise Error(f"output '{outputs}' is incorrect, output names should not be empty or contain spaces")
    return names


# -- paths -------------------------------------------------------------------------------------------------


def get_absolute_path(path_to_file: str) -> str:
    """The absolute path, with links resolved."""
    return os.path.realpath(os.path.expanduser(path_to_file))


def readable_file_or_dir_or_object(path: Any) -> Any:
    """An existing path, or an object. Error for a path that does not exist."""
    if isinstance(path, (str, Path)) and not os.path.exists(path):
        raise Error(f'The "{path}" is not existing file or directory')
    return path


def canonicalize_and_check_paths(values: Any, param_name: str) -> Any:
    """Absolute paths of a list, or of a text with commas. Error for one that does not exist; other objects
    are unchanged."""
    if values is None or not isinstance(values, (str, list)):
        return values
    listed = [v for v in values.split(",") if v] if isinstance(values, str) else values
    for value in listed:
        if not os.path.exists(value):
            raise _not_there(param_name, value)
    return [get_absolute_path(value) for value in listed]


def _not_there(name: str, path: Any) -> Error:
    return Error(
        f'The value for parameter "{name}" must be existing file/directory, but "{path}" does not exist.'
    )


def get_model_name(path_input_model: str) -> str:
    """The name of a model's file, without folder and ending."""
    return Path(path_input_model).stem or "model"


def get_model_name_from_args(argv: argparse.Namespace) -> str:
    """The path of the IR to write: `output_model` with the ending .xml. In a folder (default: the working
    directory) the file is named after the model. Error if that is the model itself, whose weights would be
    rounded."""
    source = argv.input_model[0] if isinstance(argv.input_model, (list, tuple)) else argv.input_model
    name = get_model_name(source) + ".xml"
    path = argv.output_model or os.getcwd()
    if not argv.output_model and os.path.exists(name) and os.path.samefile(name, source):
        raise Error("The IR would replace the model {} itself. Give --output_model.", name)
    if os.path.isdir(path) or path.endswith(os.sep):
        return os.path.join(path, name)
    return path if path.endswith(".xml") else path + ".xml"


# -- options -----------------------------------------------------------------------------------------------


def check_bool(value: Any) -> bool:
    """A bool, from itself or its name."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, bool):
        return value
    raise argparse.ArgumentTypeError("expected a True/False value")


def depersonalize(value: Any, key: str) -> Any:
    """A path without its folders, to be stored in the model; other values unchanged."""
    if not isinstance(value, str) or key not in ("input_model", "output_model", "extension"):
        return value
    parts = [os.path.join("DIR", os.path.basename(v)) if os.path.exists(v) else v for v in value.split(",")]
    return ",".join(parts)


class CanonicalizePathCheckExistenceAction(argparse.Action):
    """argparse action that stores absolute paths of existing files."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, canonicalize_and_check_paths(values, option_string or self.dest))


_SWITCHES = ("verbose", "dynamo")


def get_common_cli_parser(parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """A parser of all options of the command, without the model argument."""
    parser = parser or argparse.ArgumentParser()
    parser.add_argument("--output_model", help="where to write: a file, or a folder")
    parser.add_argument("--compress_to_fp16", type=check_bool, nargs="?", default=True, const=True,
                        metavar="True | False", help="whether weights are kept as f16")  # fmt: skip
    parser.add_argument("--version", action="version",
                        version=f"OpenVINO Model Converter (ovc) {openvino_version()}")  # fmt: skip
    actions = {"extension": CanonicalizePathCheckExistenceAction} | dict.fromkeys(_SWITCHES, "store_true")
    for name, text in PARAMETERS.items():
        if text is not None:
            parser.add_argument(f"--{name}", help=text, action=actions.get(name, "store"))
    return parser


def get_all_cli_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(
        prog="ovc",
        usage="%(prog)s INPUT_MODEL... [-h] [--output_model OUTPUT_MODEL]\n"
        "           [--compress_to_fp16 [True | False]] [--version] [--input INPUT]\n"
        "           [--output OUTPUT] [--extension EXTENSION] [--verbose] [--dynamo]",
        description="Convert a model to OpenVINO IR.",
    )
    parser.add_argument("input_model", metavar="INPUT_MODEL", type=readable_file_or_dir_or_object,
                        help="the model's file; weights of an .xml are in the .bin beside it")  # fmt: skip
    return get_common_cli_parser(parser)


def pack_params_to_args_namespace(args: dict[str, Any]) -> argparse.Namespace:
    """The arguments of a call as those of the command. Error for an unknown one, or a missing file."""
    for name, value in args.items():
        if name not in PARAMETERS:
            raise Error(f"Unrecognized argument: {name}")
        path = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
        if name == "input_model" and isinstance(path, (str, Path)) and path and not os.path.exists(path):
            raise _not_there(name, path)
    return argparse.Namespace(**args)
