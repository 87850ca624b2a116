"""`ovjit convert` and `ovjit compile`: model files to IR, and to compiled blobs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import ovjit as ov
from ovjit.disk.folders import replacing
from ovjit.tools.terminal import FAULTS, reporting


def parse_config(pairs: Sequence[str]) -> dict[str, str]:
    """The properties of options -c KEY=VALUE. ValueError for other texts."""
    for text in pairs:
        if "=" not in text:
            raise ValueError(f"-c {text!r}: write KEY=VALUE")
    return dict(text.split("=", 1) for text in pairs)


def graph_file(path: str) -> str:
    """`path` if it may be of a model whose graph can be read. ValueError for a blob, which has none."""
    if Path(path).suffix.lower() == ".blob":
        raise ValueError(
            f"{path!r} is a compiled blob, which has no graph to read: give the IR or ONNX file of the "
            "model (`ovjit benchmark` takes blobs)"
        )
    return path


@reporting(*FAULTS, TypeError)
def convert_main(argv: Sequence[str] | None = None) -> int:
    """Run `ovjit convert`: a model file of any format to IR. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="ovjit convert", description="A model file to OpenVINO IR.")
    parser.add_argument("model", help="a model file, or a folder with a SavedModel")
    parser.add_argument("-o", "--output", type=Path, help="the .xml to write; default: beside the model")
    parser.add_argument("--compress_to_fp16", default="True", choices=("True", "False"), help="f16 weights")
    parser.add_argument("--input", help="shapes: name[1,3,224,224],other[1]")
    parser.add_argument("--list", action="store_true", help="name the inputs and outputs and write nothing")
    options = parser.parse_args(argv)
    model = ov.convert_model(graph_file(options.model))
    if options.input:
        model.reshape(_shapes(options.input))
    if options.list:
        for what, ports in (("input", model.inputs), ("output", model.outputs)):
            for port in ports:
                print(what, ",".join(sorted(port.get_names())), port.get_element_type().get_type_name(),
                      port.get_partial_shape())  # fmt: skip
        return 0
    target = options.output or Path(options.model).with_suffix(".xml")
    if options.output is None and target.exists() and target.samefile(options.model):
        raise ValueError(f"{target} is the model itself, whose weights would be rounded: give -o")
    ov.save_model(model, str(target), compress_to_fp16=options.compress_to_fp16 == "True")
    print(target)
    return 0


def _shapes(text: str) -> dict[str, list[int]]:
    out = {}
    for part in text.replace("],", "]\n").splitlines():
        name, bracket, dimensions = part.partition("[")
        if not bracket or not dimensions.endswith("]"):
            raise ValueError(f"--input {part!r}: write name[1,3,224,224]")
        out[name.strip()] = [int(d) for d in dimensions[:-1].split(",") if d.strip()]
    return out


@reporting(*FAULTS, TypeError)
def compile_main(argv: Sequence[str] | None = None) -> int:
    """Run `ovjit compile`: a model file to a blob that `Core.import_model` loads. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="ovjit compile", description="A model file to a compiled blob.")
    parser.add_argument("model", help="an IR or ONNX file")
    parser.add_argument("-o", "--output", type=Path, help="the .blob to write; default: beside the model")
    parser.add_argument("-c", "--config", action="append", default=[], metavar="KEY=VALUE", help="a property")
    options = parser.parse_args(argv)
    core, config = ov.Core(), parse_config(options.config)
    compiled = core.compile_model(core.read_model(graph_file(options.model)), "CPU", config)
    blob = compiled.export_model()
    target = options.output or Path(options.model).with_suffix(".blob")
    with replacing(target) as file:
        file.write(blob.getbuffer())
    print(target)
    return 0
