"""Formats that models are read from, one by one: `FrontEndManager` finds a `FrontEnd`, which loads an
`InputModel`, which can be cut and given other shapes before it is converted to a Model.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ovjit.api.arguments import explain_calls
from ovjit.api.model.custom import Extension
from ovjit.api.model.model import Model, check_model
from ovjit.api.run.core import Core
from ovjit.compat.frontend.extensions import WatchingExtension
from ovjit.compat.frontend.failures import (
    GeneralFailure,
    InitializationFailure,
    OpConversionFailure,
    Unreadable,
    is_of_operation,
)
from ovjit.compat.frontend.in_memory import FRAMEWORKS as OBJECTS
from ovjit.compat.frontend.in_memory import framework_of_object, read_object
from ovjit.compat.frontend.input_model import InputModel, Place, TensorFlowInputModel
from ovjit.compat.frontend.onnx_model import OnnxInputModel
from ovjit.compat.frontend.pytorch.conversions import is_of_torch
from ovjit.errors import ModelError, OvjitError, no_such_constructor, no_such_form
from ovjit.native_packages import is_tokenizers
from ovjit.readers.formats import format_of, is_graph_def, is_meta_graph
from ovjit.readers.frameworks.files import FRAMEWORKS, framework_of

#: Those that the contents of a file tell.
_BY_CONTENTS = ("ir", "onnx", "gguf", "tflite")
#: What there are front ends for. What PyTorch and JAX give are objects.
FORMATS = (*_BY_CONTENTS, *FRAMEWORKS, *OBJECTS)
#: Read when it is asked for by its name, and not listed, as in OpenVINO.
_UNLISTED = ("gguf",)


def _as_failures(read: Callable[[], Any]) -> Any:
    """Return the result of `read`; its errors are raised again as OpenVINO's classes."""
    try:
        return read()
    except OvjitError as error:
        kind = OpConversionFailure if is_of_operation(error) else Unreadable
        raise kind(str(error)) from error


@explain_calls
class FrontEnd:
    """The reader of one format."""

    def __init__(self, fe: FrontEnd | str):
        if not isinstance(fe, (FrontEnd, str)):
            raise no_such_constructor(
                f"FrontEnd is constructed from another FrontEnd, not from {type(fe).__name__}"
            )
        self._name: str = fe if isinstance(fe, str) else fe._name
        self._core: Core = Core() if isinstance(fe, str) else fe._core
        self._watching: list[WatchingExtension] = [] if isinstance(fe, str) else fe._watching
        self._of_torch: list[Any] = [] if isinstance(fe, str) else fe._of_torch
        self._count = 0  # of extensions that models are read with

    def get_name(self) -> str:
        """The format."""
        return self._name

    def supported(self, model: Any) -> bool:
        """Whether a file is of this format, by its ending and its first byte, or an object of this framework.
        GeneralFailure if there is no such file; GGUF's front end says no, as OpenVINO's."""
        if self._name in OBJECTS or not isinstance(model, (str, os.PathLike)):
            return self._name in OBJECTS and framework_of_object(model) == self._name
        if self._name == "gguf" and not os.path.exists(model):
            return False
        return _fits(_existing(model, self._name), self._name)

    def load(self, path: Any, enable_mmap: bool = True) -> InputModel:
        """Read a file, or an object of the framework. GeneralFailure for one that is not there or not
        valid."""
        files = path if isinstance(path, (list, tuple)) else [path]
        if not files:
            raise GeneralFailure(f"{self._name}: no model is given")
        if isinstance(files[0], (str, os.PathLike)):
            kind = format_of(file := _existing(files[0], self._name)) or framework_of(os.fspath(file))
            if self._name in _BY_CONTENTS and kind not in (None, self._name):
                raise Unreadable(f"{self._name}: {files[0]!r} is a model of another format, {kind}")
            if self._name in FRAMEWORKS and not _fits(file, self._name):
                raise Unreadable(f"{self._name}: {files[0]!r} is not a model of this framework")
        if self._name in OBJECTS and not self.supported(files[0]):
            raise GeneralFailure(f"{self._name}: {type(files[0]).__name__} is not a model of this framework")

        def read() -> Model:
            return _as_failures(lambda: self._read(files, {"ENABLE_MMAP": bool(enable_mmap)}))

        source = files[0].getvalue() if isinstance(files[0], io.BytesIO) else files[0]
        is_proto = hasattr(source, "SerializeToString")
        if self._name == "onnx" and (is_proto or isinstance(source, (str, os.PathLike, bytes, bytearray))):
            return self._load_onnx(source, bool(enable_mmap))
        if self._name == "tflite":
            return InputModel(read, lambda: self._count, lambda: self._read_all(files[0], bool(enable_mmap)))
        model = TensorFlowInputModel if self._name == "tf" else InputModel
        return model(read, lambda: self._count)

    def _load_onnx(self, path: Any, use_mmap: bool) -> InputModel:
        from ovjit.readers.onnx.reader import opened, read_opened

        def open_model() -> Any:
            return opened(path, None, use_mmap)

        opened_model = _as_failures(open_model)

        def read(proto: Any) -> Model:
            one = opened_model if proto is None else opened_model._replace(proto=proto)
            return _as_failures(lambda: read_opened(one, self._core._converters))

        return OnnxInputModel(opened_model.proto, read, lambda: self._count)

    def _read_all(self, path: Any, use_mmap: bool) -> Model:
        """A file of TensorFlow Lite with all tensors as the file has them, for edits."""
        from ovjit.readers.tflite.reader import read_tflite

        return _as_failures(lambda: read_tflite(path, use_mmap, self._core._converters, plain=True))

    def _read(self, files: Sequence[Any], config: dict[str, Any]) -> Model:
        if self._name in OBJECTS:
            return read_object(self._core, files[0], extensions=self._of_torch)
        if self._name == "gguf":
            from ovjit.readers.gguf.reader import read_gguf

            return read_gguf(files[0], flat=True)
        return self._core.read_model(files[0], files[1] if len(files) > 1 else None, config)

    def convert(self, model: InputModel | Model) -> Model:
        """The Model. One that is converted already stays as it is."""
        if not isinstance(model, InputModel):
            return check_model(model)
        converted = model._check()
        for extension in self._watching:
            extension._after_conversion(self._name, converted)
        return converted

    def convert_partially(self, model: InputModel) -> Model:
        """The Model. OpConversionFailure for an operation that cannot be converted: ovjit has no place for
        those of other frameworks."""
        return self.convert(model)

    def decode(self, model: InputModel) -> Model:
        """The Model: there is no form of it that is read and not yet converted."""
        return self.convert(model)

    def normalize(self, model: Model) -> None:
        """Do nothing: converted models are complete."""
        check_model(model)

    def add_extension(self, extension: Any) -> None:
        """Let models have operations written in Python. The library of openvino_tokenizers changes nothing:
        ovjit has its operations. RuntimeError for the path of another library."""
        if isinstance(extension, (str, os.PathLike)) and is_tokenizers(extension):
            return
        for item in extension if isinstance(extension, (list, tuple)) else [extension]:
            self._count += not isinstance(item, WatchingExtension)
            if isinstance(item, WatchingExtension):
                self._watching.append(item)
            elif self._name == "pytorch" and is_of_torch(item):
                self._of_torch.append(item)
            elif isinstance(item, (Extension, type)):
                self._core.add_extension(item)
            else:
                raise ModelError(
                    f"{item!r} is not an extension: ovjit loads no native libraries; give "
                    "an Op class or an Extension object"
                )

    def __repr__(self) -> str:
        return f"<FrontEnd {self._name!r}>"


@explain_calls
class FrontEndManager:
    """Finds front ends by their names or for a file."""

    def get_available_front_ends(self) -> list[str]:
        """The formats that can be read."""
        return [name for name in FORMATS if name not in _UNLISTED]

    def load_by_framework(self, framework: str) -> FrontEnd:
        """The front end of a format. InitializationFailure if there is none."""
        if not isinstance(framework, str):
            raise no_such_form(f"a framework's name is a str, not {framework!r}")
        if framework not in FORMATS:
            raise InitializationFailure(
                f"FrontEnd for Framework {framework} is not found; available frameworks: {', '.join(FORMATS)}"
            )
        return FrontEnd(framework)

    def load_by_model(self, model: Any) -> FrontEnd | None:
        """The front end of a file or an object, or None. GeneralFailure if there is no such file."""
        if not isinstance(model, (str, os.PathLike)):
            framework = framework_of_object(model)
            return None if framework is None else FrontEnd(framework)
        path = _existing(model, "ir")
        front_end = next((FrontEnd(name) for name in FORMATS if _fits(path, name)), None)
        if front_end is None and path.is_dir():
            raise GeneralFailure(f'Could not open the file: "{path / "saved_model.pb"}"')
        return front_end

    def register_front_end(self, name: str, library_path: Any) -> None:
        """GeneralFailure: a front end in a native library is not loaded."""
        raise GeneralFailure(
            f"{library_path!r} cannot be registered as {name!r}: ovjit loads no native libraries"
        )

    def __repr__(self) -> str:
        return "<FrontEndManager>"


def _existing(model: Any, name: str) -> Path:
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"a path of a file is expected, not {type(model).__name__}")
    path = Path(os.fspath(model))
    if not os.fspath(model) or not path.exists():
        raise GeneralFailure(f'{name}: Could not open the file: "{os.fsdecode(model)}"')
    return path


def _fits(path: Path, name: str) -> bool:
    """Whether a file may be of a format: by its contents where they tell it, else by its ending."""
    kind = format_of(path)
    if kind is not None or name in _BY_CONTENTS:
        return kind == name
    if path.is_file() and not path.stat().st_size:
        return False
    if path.is_file() and path.suffix.lower() in (".pb", ".pbtxt") and not is_graph_def(path):
        return False
    if path.is_file() and path.suffix.lower() == ".meta" and not is_meta_graph(path):
        return False
    return name in FRAMEWORKS and framework_of(os.fspath(path)) == name


#: The classes below in OpenVINO's native part; here they are one.
FrontEndBase, FrontEndManagerBase = FrontEnd, FrontEndManager

__all__ = ["FrontEnd", "FrontEndManager", "InputModel", "Place"]
