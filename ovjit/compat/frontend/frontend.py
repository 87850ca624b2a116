"""Formats that models are read from, one by one: `FrontEndManager` finds a `FrontEnd`, which loads an
`InputModel`, which can be cut and given other shapes before it is converted to a Model.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from ovjit.api.arguments import expect, explain_calls
from ovjit.api.model.custom import Extension
from ovjit.api.model.model import Model, check_model
from ovjit.api.run.core import Core
from ovjit.compat.frontend.extensions import WatchingExtension
from ovjit.compat.frontend.failures import GeneralFailure, InitializationFailure, Unreadable, as_failures
from ovjit.compat.frontend.input_model import InputModel, Place
from ovjit.errors import ModelError, no_such_constructor
from ovjit.native_packages import is_tokenizers
from ovjit.readers.registry import (
    Conversion,
    Reader,
    Request,
    Source,
    find_converter,
    find_readers,
    recognize,
)


def _find_front_end(name: str) -> Reader:
    """The reader of a format. InitializationFailure if there is none."""
    readers = {reader.name: reader for reader in find_readers()}
    if name not in readers:
        raise InitializationFailure(
            f"FrontEnd for Framework {name} is not found; available frameworks: {', '.join(readers)}"
        )
    return readers[name]


@explain_calls
class FrontEnd:
    """The reader of one format."""

    def __init__(self, fe: FrontEnd | str):
        if not isinstance(fe, (FrontEnd, str)):
            raise no_such_constructor(
                f"FrontEnd is constructed from another FrontEnd, not from {type(fe).__name__}"
            )
        self._reader: Reader = _find_front_end(fe) if isinstance(fe, str) else fe._reader
        self._core: Core = Core() if isinstance(fe, str) else fe._core
        self._watching: list[WatchingExtension] = [] if isinstance(fe, str) else fe._watching
        self._extensions: list[Any] = [] if isinstance(fe, str) else fe._extensions  # the reader's own
        self._count = 0  # of extensions that models are read with

    @property
    def _name(self) -> str:
        return self._reader.name

    def get_name(self) -> str:
        """The name of the format."""
        return self._name

    def supported(self, model: Any) -> bool:
        """Whether a file is of this format, by its ending and its first byte, or an object of this framework.
        GeneralFailure if there is no such file. False for GGUF, as in OpenVINO."""
        if not self._reader.title or not isinstance(model, (str, os.PathLike)):
            return not self._reader.title and find_converter(model) is self._reader
        if not self._reader.listed and not os.path.exists(model):
            return False
        return self._reader.sniff(Source(_check_path(model, self._name)))

    def load(self, path: Any, enable_mmap: bool = True) -> InputModel:
        """Read a file, or an object of the framework. GeneralFailure for a missing or invalid one."""
        files = path if isinstance(path, (list, tuple)) else [path]
        if not files:
            raise GeneralFailure(f"{self._name}: no model is given")
        if isinstance(files[0], (str, os.PathLike)):
            self._check_file(_check_path(files[0], self._name), files[0])
        if not self._reader.title:
            if not self.supported(files[0]):
                kind = type(files[0]).__name__
                raise GeneralFailure(f"{self._name}: {kind} is not a model of this framework")
            return InputModel(lambda: as_failures(lambda: self._convert(files[0])), lambda: self._count)
        core, weights = self._core, files[1] if len(files) > 1 else None
        request = Request(weights, bool(enable_mmap), core._extensions, core._converters)
        input_model = _resolve(self._reader.input_model) or InputModel
        return input_model._load(self._reader, files[0], request, lambda: self._count)

    def _check_file(self, path: Path, shown: Any) -> None:
        """Raise Unreadable for a file of another format."""
        source = Source(path)
        if self._reader.certain:
            if not self._reader.sniff(source):
                raise Unreadable(f"{self._name}: {shown!r} is not a model of this framework")
        elif self._reader.title and (other := recognize(source)) not in (None, self._reader):
            raise Unreadable(f"{self._name}: {shown!r} is a model of another format, {other.name}")

    def _convert(self, model: Any) -> Model:
        converters = self._core._converters
        return self._reader.convert(model, Conversion(extensions=self._extensions, converters=converters))

    def convert(self, model: InputModel | Model) -> Model:
        """Convert an InputModel to a Model. A Model is returned unchanged."""
        if not isinstance(model, InputModel):
            return check_model(model)
        converted = model._check()
        for extension in self._watching:
            extension._after_conversion(self._name, converted)
        return converted

    def convert_partially(self, model: InputModel) -> Model:
        """Convert an InputModel to a Model. Unlike OpenVINO's, raises OpConversionFailure for an unsupported
        operation: Models have no operations of other frameworks."""
        return self.convert(model)

    def decode(self, model: InputModel) -> Model:
        """Convert an InputModel to a Model: ovjit has no intermediate form."""
        return self.convert(model)

    def normalize(self, model: Model) -> None:
        """Do nothing: converted models are complete."""
        check_model(model)

    def add_extension(self, extension: Any) -> None:
        """Add operations written in Python. The library of openvino_tokenizers has no effect: ovjit has its
        operations. RuntimeError for the path of another library."""
        if isinstance(extension, (str, os.PathLike)) and is_tokenizers(extension):
            return
        for item in extension if isinstance(extension, (list, tuple)) else [extension]:
            self._count += not isinstance(item, WatchingExtension)
            if isinstance(item, WatchingExtension):
                self._watching.append(item)
            elif self._reader.extensions([item]):
                self._extensions.append(item)
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
        return [reader.name for reader in find_readers() if reader.listed]

    def load_by_framework(self, framework: str) -> FrontEnd:
        """The front end of a format. InitializationFailure if there is none."""
        expect(framework, str, "a framework's name is a str")
        return FrontEnd(framework)

    def load_by_model(self, model: Any) -> FrontEnd | None:
        """The front end of a file or an object, or None. GeneralFailure if there is no such file."""
        if not isinstance(model, (str, os.PathLike)):
            reader = find_converter(model)
            return None if reader is None or reader.title else FrontEnd(reader.name)
        path = _check_path(model, "ir")
        source = Source(path)
        reader = next((one for one in find_readers() if one.title and one.sniff(source)), None)
        if reader is None and path.is_dir():
            raise GeneralFailure(f'Could not open the file: "{path / "saved_model.pb"}"')
        return None if reader is None else FrontEnd(reader.name)

    def register_front_end(self, name: str, library_path: Any) -> None:
        """Raise GeneralFailure: front ends in native libraries cannot be loaded."""
        raise GeneralFailure(
            f"{library_path!r} cannot be registered as {name!r}: ovjit loads no native libraries"
        )

    def __repr__(self) -> str:
        return "<FrontEndManager>"


def _check_path(model: Any, name: str) -> Path:
    """The path of a model. GeneralFailure, with the front end's `name`, if there is no such file."""
    expect(model, (str, os.PathLike), "a path of a file is expected", TypeError)
    path = Path(os.fspath(model))
    if not os.fspath(model) or not path.exists():
        raise GeneralFailure(f'{name}: Could not open the file: "{os.fsdecode(model)}"')
    return path


def _resolve(name: str) -> Any:
    """The class of "module:class"; None for ""."""
    module, _, kind = name.partition(":")
    return getattr(importlib.import_module(module), kind) if module else None


#: The classes below in OpenVINO's native part; here they are one.
FrontEndBase, FrontEndManagerBase = FrontEnd, FrontEndManager

__all__ = ["FrontEnd", "FrontEndManager", "InputModel", "Place"]
