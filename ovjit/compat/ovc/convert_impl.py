"""Converts the arguments of `convert_model` and `ovc` to a Model."""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Sequence
from typing import Any

import ovjit
from ovjit.api.model.boundary import Result
from ovjit.api.model.custom import Extension, ReaderExtension
from ovjit.api.model.folding import fold
from ovjit.api.model.model import Model
from ovjit.api.model.node import Output
from ovjit.api.run.core import Core
from ovjit.compat.frontend.failures import Unconverted, Unreadable, is_of_operation
from ovjit.compat.frontend.frontend import FrontEndManager
from ovjit.compat.ovc.cli_parser import (
    _InputCutInfo,
    canonicalize_and_check_paths,
    depersonalize,
    get_model_name_from_args,
    input_to_input_cut_info,
    pack_params_to_args_namespace,
    parse_inputs,
    parse_outputs,
)
from ovjit.compat.ovc.error import Error, Unrecognized
from ovjit.compat.ovc.help import PARAMETERS
from ovjit.compat.passes.unneeded import simplify
from ovjit.errors import ConverterError, ModelError, OvjitError, no_path
from ovjit.readers.registry import (
    Conversion,
    Reader,
    Request,
    Source,
    absence_note,
    find_converter,
    find_reader,
    find_readers,
)

#: Printed by `ovc`, which writes the model next.
_COMPRESSION = (
    "[ INFO ] Weights of f32 are written as FP16, rounded. Where that costs accuracy, keep them as they are "
    "by compress_to_fp16=False."
)
#: The formats whose models stay as they are read: the readers of programs simplify them themselves. Models of
#: other formats are simplified, as in OpenVINO: NNCF, for one, looks for biases that are constants.
_AS_READ = ("ir", "pytorch", "jax", "gguf")
#: What need not be said of a conversion.
_DEFAULTS = {"share_weights": True, "verbose": False, "dynamo": False, "compress_to_fp16": True}


def input_model_is_object(input_model: Any) -> bool:
    """Whether a model is given as an object, not as a file."""
    return not isinstance(_first(input_model), (str, os.PathLike))


def convert(args: dict[str, Any], is_command: bool) -> tuple[Model, argparse.Namespace]:
    """The model, and the arguments as they were understood. `args` are those of `ovc` if `is_command`, else
    those of `convert_model`."""
    started = time.perf_counter()
    if is_command:
        argv = argparse.Namespace(**args)
        described = [_InputCutInfo(name, shape) for name, shape in parse_inputs(argv.input or "")]
        outputs = None if argv.output is None else parse_outputs(argv.output)
    else:
        argv = pack_params_to_args_namespace(args)
        described = input_to_input_cut_info(argv.input)
        of_paddle = _framework_of(argv.input_model) == "paddle"  # whose outputs may be its own tensors
        outputs = argv.output if of_paddle else _listed_outputs(argv.output)
    if argv.verbose:
        print_argv(argv)
    model = _driver(argv, described, outputs, argv.extension)
    _note(model, argv)
    if is_command and argv.compress_to_fp16:
        print(_COMPRESSION)
    if argv.verbose:
        print(f"[ SUCCESS ] Total execution time: {time.perf_counter() - started:.2f} seconds. ")
    return model, argv


def _listed_outputs(output: Any) -> list[Any] | None:
    if output is None or (isinstance(output, list) and not output):  # as in OpenVINO: nothing is chosen
        return None
    listed = [output] if isinstance(output, (str, Output)) else output
    if not isinstance(listed, (list, tuple)) or not all(isinstance(item, (str, Output)) for item in listed):
        raise AssertionError(
            f"output '{output}' is incorrect, it should be string or a list/tuple of strings"
        )
    return list(listed)


def print_argv(argv: argparse.Namespace) -> None:
    """Print the arguments of a conversion: the model, the path of the IR, inputs and outputs."""
    inherited = "Not specified, inherited from the model"
    print("Model Conversion arguments:\nCommon parameters:")
    shown = {"Input Model": argv.input_model}
    if hasattr(argv, "output_model"):  # the command's, not a call's
        shown["IR output name"] = get_model_name_from_args(argv)
    shown |= {"Input layers": argv.input or inherited, "Output layers": argv.output or inherited}
    for title, value in shown.items():
        print(f"\t- {title}: \t{value}")


def _driver(
    argv: argparse.Namespace, described: list[_InputCutInfo], outputs: list[Any] | None, extensions: Any
) -> Model:
    core = Core()
    source = _load_object(argv.input_model)
    reader = find_converter(source)
    reader_extensions = _add_extensions(core, reader, _as_list(extensions))
    if reader is not None:
        if reader.name == "pytorch" and outputs:
            raise AssertionError("`output` argument is not supported for PyTorch")
        framework: str | None = reader.name
        tensors = (
            None if _are_names(outputs) else outputs if isinstance(outputs, (list, tuple)) else [outputs]
        )
        dynamo = getattr(argv, "dynamo", False)
        conversion = Conversion(
            argv.example_input, described, tensors, reader_extensions, dynamo, core._converters
        )
        model = _convert_object(reader, source, conversion)
        outputs = _listed_outputs(outputs) if _are_names(outputs) else None
    else:
        model = _of_cuts(core, source, _read(core, source), outputs or [])
        framework = _framework_of(source)
    if outputs is not None:
        _set_outputs(model, outputs)
    if described:
        try:
            ports = _set_inputs(model, described, framework)
            if framework in ("pytorch", "tf") and described[0].name is not None:
                _set_order(model, [port.get_node() for port in ports], framework)
        except Error:
            raise
        except OvjitError as error:  # an operation does not take the shapes or types
            raise Unconverted(str(error)) from error
    if framework not in _AS_READ and not isinstance(_first(source), Model):
        simplify(model, fold_shapes=False)
    return model


def _add_extensions(core: Core, reader: Any, extensions: list[Any]) -> list[Any]:
    """Add the extensions to `core` that are not for the reader. Returns those that are."""
    reader_extensions = [] if reader is None else reader.extensions(extensions)
    for item in extensions:
        if item is None or item in reader_extensions or isinstance(item, ReaderExtension):
            continue
        if not isinstance(item, (str, os.PathLike, type, Extension)):
            raise no_path(item)
        core.add_extension(item)
    return list(reader_extensions)


def _first(source: Any) -> Any:
    """The model, if `source` is a list of a model and its weights; otherwise `source`."""
    return source[0] if isinstance(source, (list, tuple)) and source else source


def _framework_of(source: Any) -> str | None:
    """The name of the reader of a file or an object; None for a Model and for objects of no reader."""
    source = _first(source)
    if isinstance(source, (str, os.PathLike)):
        return find_reader(Source(source)).name
    reader = find_converter(source)
    return None if reader is None else reader.name


def _load_object(source: Any) -> Any:
    """The object in a framework's file, or the only object of a list; otherwise `source`."""
    path = source[0] if isinstance(source, (list, tuple)) and len(source) == 1 else source
    if not isinstance(path, (str, os.PathLike)):
        return path if input_model_is_object(path) else source
    try:
        for reader in find_readers():
            if (loaded := reader.load(os.fspath(path))) is not None:
                return loaded
    except ModelError as error:
        raise Error("Cannot recognize input model. {}", error) from error
    return source


def _read(core: Core, source: Any) -> Model:
    try:
        return _read_given(core, source)
    except OvjitError as error:
        raise _failure(error, source) from error


def _of_cuts(core: Core, source: Any, model: Model, outputs: Sequence[Any]) -> Model:
    """The model; it is read again, in a form that can be cut at inner tensors, if the outputs need it."""
    ends = {name for result in model.outputs for name in result.names}
    is_file = isinstance(source, (str, os.PathLike)) and os.path.isfile(source)
    if not is_file or all(not isinstance(name, str) or name in ends for name in outputs):
        return model
    reader = find_reader(Source(source))
    request = Request(operations=core._extensions, converters=core._converters)
    return reader.read_editable(Source(source), request) if reader.edits_apart else model


def _failure(error: OvjitError, source: Any) -> OvjitError:
    """OpenVINO's error for a model that cannot be read: of an operation, a file of a known format, or an
    unknown one."""
    if is_of_operation(error):
        return Unconverted(str(error))
    if isinstance(error, Error):
        return error
    path = _first(source)
    is_object = input_model_is_object(source)
    if is_object or os.path.isdir(path) or FrontEndManager().load_by_model(path) is not None:
        return Unreadable(str(error))
    return Unrecognized("Cannot recognize input model. {}", str(error))


def _read_given(core: Core, source: Any) -> Model:
    if isinstance(source, Model):
        return source
    if isinstance(source, (list, tuple)) and 1 <= len(source) <= 2 and not input_model_is_object(source):
        paths = [path for path in source if isinstance(path, (str, os.PathLike))]
        canonicalize_and_check_paths(paths, "input_model")
        return core.read_model(*source)
    if isinstance(source, str) and not source:
        raise Error("No input model is provided")
    if isinstance(source, (str, os.PathLike, io.BytesIO, bytes)):
        return core.read_model(source)
    if hasattr(source, "SerializeToString") and hasattr(source, "graph"):
        return core.read_model(source.SerializeToString())
    kind = type(source)
    of_jax = kind.__module__.partition(".")[0] in ("jax", "jaxlib")
    way = "give jax.make_jaxpr(function)(*examples)" if of_jax else "export the model to ONNX first"
    raise Error(
        f"Unknown model type: {kind}. convert_model reads files, PyTorch modules, Keras models and jaxprs, "
        f"not {kind.__module__}.{kind.__qualname__}: {way}{absence_note()}"
    )


def _convert_object(reader: Reader, source: Any, conversion: Conversion) -> Model:
    if why := reader.missing_packages():
        raise Error(why)
    if conversion.dynamo and conversion.example is None and reader.needs_example(source):
        raise Error("example_input is required when dynamo=True")
    try:
        return reader.convert(source, conversion)
    except OvjitError as error:
        if is_of_operation(error) or isinstance(error, ConverterError):
            raise Unconverted(str(error)) from error
        raise


def _are_names(outputs: Any) -> bool:
    return all(isinstance(item, (str, Output)) for item in _as_list(outputs))


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _set_outputs(model: Model, outputs: Sequence[Any]) -> None:
    """Set the outputs, in this order. If each of the model's outputs is named once, their own order stays, as
    in OpenVINO."""
    ports = [port if isinstance(port, Output) else _named(model, port) for port in outputs]
    have = model.get_results()
    result_ports = [(result.input_value(0), result.output(0)) for result in have]
    result_indices = [next((i for i, p in enumerate(result_ports) if port in p), None) for port in ports]
    if len(result_indices) == len(have) and set(result_indices) == set(range(len(have))):
        return
    for result in have:
        model.remove_result(result)
    results: list[Result] = []
    for port, result_index in zip(ports, result_indices, strict=True):
        if result_index is None:
            results.append(Result._of(port))
        else:
            result = have[result_index]
            results.append(Result._of(result.input_value(0)) if result in results else result)
    model.add_results(results)


def _named(model: Model, name: str) -> Output:
    for node in model.get_ordered_ops():
        for port in node.outputs():
            if name in port.names and not isinstance(node, Result):
                return port
    raise _unknown_name(model, name, "outputs")


def _unknown_name(model: Model, name: str, ends: str) -> Error:
    """The error for an unknown tensor name; its text depends on whether an operation has the name."""
    named = (node.get_friendly_name().partition(":")[0] for node in model.get_ops())
    text = f"Name {{}} is not found among model {ends}." if name in named else "No node with name {}"
    return Error(text, name)


def _set_inputs(model: Model, described: list[_InputCutInfo], framework: str | None) -> list[Output]:
    """Set shapes and types of inputs. Returns the inputs in the order of the descriptions."""
    if any(one.name is None for one in described) and any(one.name is not None for one in described):
        raise AssertionError(
            '"input" parameter has unnamed inputs and named inputs. Please either set names for all inputs, '
            "or do not set names for all inputs."
        )
    ports: list[Output] = []
    shapes: dict[Any, Any] = {}
    for index, one in enumerate(described):
        if one.name is None:
            if index >= len(model.inputs):
                raise Error("Could not set shape, as model does not have enough inputs.")
            port = model.input(index)
        else:
            named_input = next((p for p in model.inputs if one.name in p.names), None)
            if named_input is None:
                if framework == "pytorch":
                    raise Error("Input for tensor name '{}' is not found.", one.name)
                if any(one.name in port.names for node in model.get_ops() for port in node.outputs()):
                    raise Error("Name {} is not found among model inputs.", one.name)
                raise _unknown_name(model, one.name, "inputs")
            port = named_input
        ports.append(port)
        if one.type is not None:
            port.get_node().set_element_type(one.type)
        if one.shape is not None:
            shapes[port] = one.shape
    if shapes:
        model.reshape(shapes)
        if framework == "pytorch":  # sizes that are known are constants, as where OpenVINO reads with them
            fold(model, keep_compressed=True)
    else:
        model.validate_nodes_and_infer_types()
    return ports


def _set_order(model: Model, described: Sequence[Any], framework: str) -> None:
    """Order the inputs as described, as OpenVINO does: for PyTorch if all are described; for TensorFlow if
    some are not, which then follow."""
    have = model.get_parameters()
    order = list(dict.fromkeys(described))
    undescribed = [one for one in have if one not in order]
    if framework == "tf" and undescribed:
        order += undescribed
    elif framework == "tf" or len(described) != len(have) or undescribed:
        return
    for parameter in have:
        model.remove_parameter(parameter)
    model.add_parameters(order)


def _note(model: Model, argv: argparse.Namespace) -> None:
    """Record the version, parameters and framework of a conversion in the model's runtime information."""
    if not model.has_rt_info("Runtime_version"):
        model.set_rt_info(ovjit.get_version(), "Runtime_version")
    arguments, described = vars(argv), {*PARAMETERS}
    if hasattr(argv, "output_model"):  # the command's, which tells no model as OpenVINO's does not
        described = described - {"input_model"} | {"output_model", "compress_to_fp16"}
    for name in sorted(described & arguments.keys()):
        value = arguments[name]
        if name == "input_model" and isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
        if isinstance(value, str):
            model.set_rt_info(depersonalize(value, name), ["conversion_parameters", name])
        elif isinstance(value, bool) and value is not _DEFAULTS.get(name):
            model.set_rt_info(str(value), ["conversion_parameters", name])
    objects = input_model_is_object(argv.input_model)
    if objects and not isinstance(argv.input_model, Model):
        model.set_rt_info(_framework_of(argv.input_model) or "onnx", ["conversion_parameters", "framework"])
    model.set_rt_info(str(objects), ["conversion_parameters", "is_python_object"])
