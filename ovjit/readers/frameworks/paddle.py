"""Models of Paddle, in files and in memory -> bytes of ONNX, by the package paddle2onnx.

It runs in a process of its own: importing paddle changes handlers of signals, and its exporter prints to
standard output. Paddle does not check that the last tensor of a `.pdiparams` file is complete, so it is
checked here. The file has tensors one after another: u32 0, u64 number of levels (of each: u64 bytes, and
they), u32 0, i32 bytes of a description, the description (protobuf: 1 the type, 2 the dimensions), the
elements.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from inspect import signature
from typing import Any, BinaryIO

from ovjit.errors import ModelError, UnsupportedError, unreadable


def file_to_onnx(path: str, weights: Any = None) -> bytes:
    """The contents of an ONNX file. The model's parameters are `weights`, else in .pdiparams beside it."""
    beside = os.path.splitext(path)[0] + ".pdiparams"
    parameters = os.fsdecode(weights) if isinstance(weights, (str, os.PathLike)) else beside
    if os.path.isfile(parameters):
        check_parameters(parameters)
    with tempfile.TemporaryDirectory() as folder:
        result = os.path.join(folder, "model.onnx")
        arguments = [os.path.abspath(path), parameters if os.path.isfile(parameters) else "", result]
        _copy_program(folder)
        done = subprocess.run(
            [sys.executable, os.path.join(folder, "paddle_program.py"), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if not os.path.isfile(result):
            output = " ".join((done.stderr or done.stdout).split())[-600:]
            end = f"died of signal {-done.returncode}" if done.returncode < 0 else "ended"
            why = f"paddle2onnx cannot convert the model. Its process {end} with the output: {output}"
            raise ModelError(unreadable(path, why))
        with open(result, "rb") as file:
            return file.read()


def _copy_program(folder: str) -> None:
    """Context manager for a copy of the program paddle2onnx, which runs instead of the original: the folder
    of that has a paddle.py, which would be imported."""
    package = files(__package__)
    rules = [part for part in package.joinpath("paddle_operators").iterdir() if part.name.endswith(".py")]
    os.mkdir(os.path.join(folder, "paddle_operators"))
    for into, parts in ("", [package.joinpath("paddle_program.py")]), ("paddle_operators", rules):
        for part in parts:
            with open(os.path.join(folder, into, part.name), "wb") as file:
                file.write(part.read_bytes())


def object_to_onnx(
    model: Any, example: Any, described: Sequence[tuple[Any, Any, Any]], outputs: Sequence[Any] | None
) -> bytes:
    """The ONNX file of a model in memory, converted in inference mode.

    A Layer needs an `example`: specifications or values of its inputs, or `described`, which has a row of
    name, shape and NumPy type for each. An Executor or a Program needs the inputs as the example, and
    `outputs`. RuntimeError where they are missing.
    """
    import paddle  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model")
        if isinstance(model, paddle.Model):
            with _dynamic(paddle), _evaluate(model.network):
                model.save(path, training=False)
        elif isinstance(model, paddle.nn.Layer):
            with _dynamic(paddle), _evaluate(model):
                paddle.jit.save(model, path, input_spec=_specifications(paddle, model, example, described))
        else:
            _save_program(paddle, model, example, outputs, path)
        saved = [path + ending for ending in (".json", ".pdmodel") if os.path.isfile(path + ending)]
        return file_to_onnx(saved[0])


def _save_program(paddle: Any, model: Any, example: Any, outputs: Sequence[Any] | None, path: str) -> None:
    feed = [] if example is None else [*example] if isinstance(example, (list, tuple)) else [example]
    if not feed or not outputs:
        raise UnsupportedError(
            f"Paddle's {type(model).__name__} does not tell its inputs and outputs: give the tensors "
            "of the inputs as 'example_input' and those of the outputs as 'output'"
        )
    is_program = "Program" in type(model).__name__
    executor = paddle.static.Executor(paddle.CPUPlace()) if is_program else model
    more = {"program": model} if is_program else {}
    paddle.static.save_inference_model(path, feed, [*outputs], executor, **more)


@contextmanager
def _dynamic(paddle: Any) -> Iterator[None]:
    """Context manager for Paddle's dynamic mode, in which layers are saved."""
    static = not paddle.in_dynamic_mode()
    if static:
        paddle.disable_static()
    try:
        yield
    finally:
        if static:
            paddle.enable_static()


@contextmanager
def _evaluate(layer: Any) -> Iterator[None]:
    """Context manager that sets layers to inference mode, and restores their modes."""
    trained = [part for part in layer.sublayers(include_self=True) if part.training]
    layer.eval()
    try:
        yield
    finally:
        for part in trained:
            part.training = True


def _specifications(
    paddle: Any, layer: Any, example: Any, described: Sequence[tuple[Any, Any, Any]]
) -> list[Any] | None:
    """Input specifications of a Layer in the order of `forward`; None if the Layer has its own.

    They come from an example or from descriptions.
    """
    kind = paddle.static.InputSpec
    names = list(signature(layer.forward).parameters)
    if isinstance(example, Mapping):
        unknown = sorted(set(example) - {*names})
        if unknown:
            raise UnsupportedError(f"the Layer's forward has no input {unknown[0]!r}: it has {names}")
        example = [example[name] for name in names if name in example]
    if example is not None:
        listed = example if isinstance(example, (list, tuple)) else [example]
        return [_specification(paddle, value, name) for value, name in zip(listed, names, strict=False)]
    if described and all(shape is not None for _, shape, _ in described):
        rows = [
            (name or parameter, shape, dtype)
            for (name, shape, dtype), parameter in zip(described, names, strict=False)
        ]
        rows.sort(key=lambda row: names.index(row[0]) if row[0] in names else len(names))
        return [kind(_dims(shape), str(dtype or "float32"), name) for name, shape, dtype in rows]
    if getattr(layer.forward, "function_spec", None) is not None:
        return None  # it was made static with specifications of its own
    raise UnsupportedError(
        "Paddle's Layer does not tell the shapes of its inputs: give 'example_input', a list of "
        "paddle.static.InputSpec or of tensors, or 'input' with shapes"
    )


def _specification(paddle: Any, value: Any, name: str) -> Any:
    if isinstance(value, paddle.static.InputSpec):
        return value
    if not isinstance(value, paddle.Tensor):
        value = paddle.to_tensor(value)
    return paddle.static.InputSpec(list(value.shape), value.dtype, name)


def _dims(shape: Sequence[Any]) -> list[int | None]:
    dims = [d.get_length() if getattr(d, "is_static", False) else d for d in shape]
    return [d if isinstance(d, int) and d >= 0 else None for d in dims]


#: Paddle's number of an element type -> bytes of an element.
_SIZES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16, 32: 1, 33: 1}
#: No description and no levels are larger.
_MOST = 1 << 16


class _Unknown(Exception):
    """The file has an unknown form; Paddle itself decides whether it is valid."""


def check_parameters(path: str) -> None:
    """Raise ModelError if a tensor in the file has fewer bytes than its shape needs."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        number = 0
        try:
            while file.tell() < size:
                _pass_tensor(file, size)
                number += 1
        except _Unknown:
            return
        except (EOFError, struct.error):
            why = f"tensor {number} is cut short: the file ends after {size} bytes. Copy the file again"
            raise ModelError(unreadable(path, why)) from None


def _pass_tensor(file: BinaryIO, size: int) -> None:
    """Move past one tensor. Raises EOFError if it goes beyond the end of the file, and _Unknown for another
    form."""
    version, levels = struct.unpack("<IQ", file.read(12))
    if version or levels > _MOST:
        raise _Unknown
    for _ in range(levels):
        _skip(file, struct.unpack("<Q", file.read(8))[0], size)
    version, length = struct.unpack("<Ii", file.read(8))
    if version or not 0 < length < _MOST:
        raise _Unknown
    described = file.read(length)
    if len(described) < length:
        raise EOFError
    _skip(file, _byte_count(described), size)


def _skip(file: BinaryIO, count: int, size: int) -> None:
    if file.tell() + count > size:
        raise EOFError
    file.seek(count, os.SEEK_CUR)


def _byte_count(described: bytes) -> int:
    """The bytes of the elements of a described tensor."""
    at, element, count = 0, -1, 1
    while at < len(described):
        key, at = _varint(described, at)
        value, at = _varint(described, at)
        if key == 0x08:
            element = value
        elif key == 0x10:
            count *= value
        elif key == 0x12:  # packed dimensions
            end = at + value
            while at < end:
                value, at = _varint(described, at)
                count *= value
        else:
            raise _Unknown
    if element not in _SIZES:
        raise _Unknown
    return count * _SIZES[element]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _Unknown
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
