"""`convert_model`: a Model of a file, or of a model that is one already; and `ovc`, the same as a command."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.api.run.core import Core
from ovjit.api.tensors.convert import element_name
from ovjit.api.tensors.shapes import PartialShape
from ovjit.api.tensors.types import TYPES, Type
from ovjit.errors import ModelError, OvjitError, UnsupportedError
from ovjit.frontends.ir.writer import save_model
from ovjit.frontends.torch_modules import export, is_torch
from ovjit.version import get_version


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
    """A Model of a file (IR or ONNX), of its contents as BytesIO, of an onnx.ModelProto, of a PyTorch module,
    or of a Model.

    A PyTorch module (or script, or what torch.export made) is traced with `example_input`: a tensor, a tuple
    or a dict of them. `input`: what inputs are to be, one for each in order, or for named ones: a shape, a
    type, a name, a tuple of these, or a dict by name. `output`: names of the tensors to be the outputs.
    UnsupportedError, a RuntimeError, for models of frameworks that ovjit does not read (TensorFlow, Paddle,
    JAX).
    """
    core = Core()
    for item in extension if isinstance(extension, (list, tuple)) else [extension]:
        if item is not None:
            core.add_extension(item)
    if is_torch(input_model):
        model = _read_torch(core, input_model, example_input, input)
    else:
        model = _read(core, input_model)
    if output is not None:
        _set_outputs(model, [output] if isinstance(output, (str, Output)) else list(output))
    if input is not None:
        _set_inputs(model, input)
    return model


def _read(core: Core, given: Any) -> Model:
    if isinstance(given, Model):
        return given
    if isinstance(given, (list, tuple)) and given:
        return core.read_model(*given[:2])
    if isinstance(given, (str, os.PathLike)) and not os.path.exists(given):
        raise OvjitError(
            f'The value for parameter "input_model" must be existing file/directory, but "{given}" does not '
            "exist."
        )
    if isinstance(given, (str, os.PathLike, io.BytesIO, bytes)):
        return core.read_model(given)
    if hasattr(given, "SerializeToString") and hasattr(given, "graph"):
        return core.read_model(given.SerializeToString())
    kind = type(given)
    raise UnsupportedError(
        f"Unknown model type: {kind}. convert_model reads IR, ONNX and PyTorch modules, not "
        f"{kind.__module__}.{kind.__qualname__}: export the model to ONNX first"
    )


def _read_torch(core: Core, given: Any, example: Any, described: Any) -> Model:
    items = list(described.items()) if isinstance(described, dict) else _listed(described or [])
    inputs = []
    for name, shape, kind in map(_parts, items):
        dtype = None if kind is None else TYPES[element_name(kind)].to_dtype()
        inputs.append((name, None if shape is None else list(PartialShape(shape)), dtype))
    with tempfile.TemporaryDirectory() as folder:
        made = export(given, example, inputs, folder)
        model = core.read_model(made.file)
    for port, name in zip(model.outputs, made.outputs, strict=True):
        port.get_tensor().set_names(set() if name is None else {name})
    return model


def _set_outputs(model: Model, wanted: Sequence[Any]) -> None:
    added = [port if isinstance(port, Output) else model.add_outputs(port)[0] for port in wanted]
    results = [next(r for r in model.get_results() if p in (r.output(0), r.input_value(0))) for p in added]
    for result in model.get_results():
        if result not in results:
            model.remove_result(result)


def _set_inputs(model: Model, given: Any) -> None:
    items = list(given.items()) if isinstance(given, dict) else _listed(given)
    shapes: dict[Any, Any] = {}
    for index, item in enumerate(items):
        name, shape, kind = _parts(item)
        if name is None and index >= len(model.inputs):
            raise ModelError(f"{len(items)} inputs are described, the model has {len(model.inputs)}")
        port = model.input(index if name is None else name)
        if kind is not None:
            port.get_node().set_element_type(TYPES[element_name(kind)])  # type: ignore[attr-defined]
        if shape is not None:
            shapes[port] = shape
    if shapes:
        model.reshape(shapes)
    else:
        model.validate_nodes_and_infer_types()


def _listed(given: Any) -> list[Any]:
    if isinstance(given, (str, PartialShape, Type)) or (
        isinstance(given, (list, tuple)) and given and all(isinstance(v, int) for v in given)
    ):
        return [given]
    if isinstance(given, tuple) and given and isinstance(given[0], (str, type)) and len(given) <= 3:
        return [given]
    return list(given)


def _parts(item: Any) -> tuple[str | None, Any, Any]:
    """(name, shape, element type), each None if not given."""
    name: str | None = None
    shape: Any = None
    kind: Any = None
    parts = item if isinstance(item, tuple) and not all(isinstance(v, int) for v in item) else (item,)
    for part in parts:
        if isinstance(part, str):
            name = part
        elif isinstance(part, tuple) and not all(isinstance(v, int) for v in part):
            _, shape, kind = _parts(part)
        elif isinstance(part, (PartialShape, list, tuple)):
            shape = part
        elif part is not None:
            kind = part
    return name, shape, kind


def _described(text: str) -> list[Any]:
    """The inputs of `a[1,?],b` or `[1,3],[2]`: names, shapes, or both."""
    inputs: list[Any] = []
    for item in re.split(r",(?![^\[]*\])", text):  # at commas outside of brackets
        found = re.fullmatch(r"\s*([^\[\]]*?)\s*(\[[^\[\]]*\])?\s*", item)
        if found is None or not any(found.groups()):
            raise ModelError(f"--input takes names with shapes in brackets, as in a[1,9],b[?], not {text!r}")
        name, shape = found.groups()
        sized = PartialShape(shape) if shape else None
        inputs.append((name, sized) if name else sized)
    return inputs


def _target(given: str | None, source: str) -> Path:
    """Where the IR goes: a folder ends with a separator or is there; to all else .xml is added."""
    name = Path(source).with_suffix(".xml").name
    if given is None:
        return Path(name)
    if os.path.isdir(given) or given.endswith(os.sep):
        return Path(given) / name
    return Path(given if given.endswith(".xml") else given + ".xml")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `ovc MODEL [--output_model FILE]`: read a model and write it as IR. The exit code."""
    parser = argparse.ArgumentParser(prog="ovc", description="Convert a model to OpenVINO IR.")
    parser.add_argument("input_model", nargs="+", help="the model's file, and its weights' if they are apart")
    parser.add_argument("--output_model", help="where to write: a file, or a folder")
    parser.add_argument("--compress_to_fp16", default="True", nargs="?", const="True", help="True or False")
    parser.add_argument("--input", help="names of inputs, with shapes in brackets, between commas")
    parser.add_argument("--extension", help="libraries, which are never loaded: an error")
    parser.add_argument("--output", help="names of the tensors to be the outputs, between commas")
    parser.add_argument("--version", action="version", version=f"OpenVINO Model Converter {get_version()}")
    parser.add_argument("--verbose", action="store_true", help="nothing more is said")
    options = parser.parse_args(argv)
    output = options.output.split(",") if options.output else None
    given = options.input_model
    try:
        model = convert_model(
            given[0] if len(given) == 1 else given,
            input=_described(options.input) if options.input is not None else None,
            output=output,
            extension=options.extension.split(",") if options.extension else None,
        )
        target = _target(options.output_model, given[0])
        save_model(model, target, options.compress_to_fp16.strip().lower() in ("true", "1", "yes"))
    except (RuntimeError, OSError) as error:
        print(f"ovc: {error}", file=sys.stderr)
        return 1
    print(f"[ SUCCESS ] XML file: {target}")
    return 0


__all__ = ["convert_model", "main"]

if __name__ == "__main__":
    sys.exit(main())
