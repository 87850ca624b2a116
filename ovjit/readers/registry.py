"""Readers of model formats: one object for each format, found by files' names, contents, or objects' types.

Further packages add readers by the entry-point group `ovjit.readers`. A reader's room is imported when a
model needs it: endings that belong to one format (SUFFIXES) decide without the rooms of others.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ovjit.errors import ModelError, OvjitError, UnsupportedError, no_path, unreadable
from ovjit.forks import made_once
from ovjit.out_of_memory import as_memory_errors
from ovjit.plugins import load_others
from ovjit.readers.files import name_errors
from ovjit.readers.files.weights import await_file
from ovjit.records import NamedTuple

if TYPE_CHECKING:
    from ovjit.build import Model

GROUP, ROOMS = "ovjit.readers", "ovjit.readers"
#: The readers of ovjit, by the names of their front ends, as in pyproject.toml: ovjit may lie on the path
#: without metadata.
BUILT_IN = {
    "ir": "ovjit.readers.ir:READER", "onnx": "ovjit.readers.onnx:READER",
    "tflite": "ovjit.readers.tflite:READER", "gguf": "ovjit.readers.gguf:READER",
    "tf": "ovjit.readers.frameworks:TENSORFLOW", "paddle": "ovjit.readers.frameworks:PADDLE",
    "pytorch": "ovjit.readers.torch:READER", "jax": "ovjit.readers.jax:READER",
}  # fmt: skip
#: Endings of files, and full names of protobuf messages in memory, that alone name the built-in reader.
SUFFIXES = {".xml": "ir", ".onnx": "onnx", ".tflite": "tflite", ".gguf": "gguf"}
MESSAGES = {"onnx.ModelProto": "onnx"}
#: The readers of files and of contents of unknown formats: their errors are OpenVINO's.
DEFAULT_OF_FILES, DEFAULT_OF_CONTENTS = "ir", "onnx"
#: Types of the contents of files.
CONTENTS = (bytes, bytearray, memoryview, mmap.mmap)
#: Bytes of a file that readers look at to recognize it.
HEAD = 1 << 16
_NONE: Mapping[Any, Any] = {}


class Source:
    """A model as the user passes it: the path of a file or folder, contents of a file, or an object."""

    def __init__(self, model: Any):
        self.model = model.getvalue() if isinstance(model, BytesIO) else model
        self.path = os.fsdecode(model) if isinstance(model, (str, os.PathLike)) else None

    @property
    def suffix(self) -> str:
        """The ending of the file's name in lower case, "" for contents and objects."""
        return os.path.splitext(self.path or "")[1].lower()

    @property
    def is_file(self) -> bool:
        """True for the path of a regular file."""
        return self.path is not None and os.path.isfile(self.path)

    @property
    def is_object(self) -> bool:
        """True for an object in memory, which is neither a path nor contents."""
        return self.path is None and not isinstance(self.model, CONTENTS)

    @made_once
    def head(self) -> bytes:
        """The first bytes of the file or the contents, at most HEAD; b"" for folders and objects."""
        if self.path is not None and self.is_file:
            with open(self.path, "rb") as file:
                return file.read(HEAD)
        return bytes(memoryview(self.model)[:HEAD]) if isinstance(self.model, CONTENTS) else b""


class Request(NamedTuple):
    """Options of reading. `weights`: as for `Core.read_model`. `operations`: classes derived from Op, by
    their types and versions. `converters`: the caller's rules for operators, by `ConversionExtension.key`."""

    weights: Any = None
    use_mmap: bool = True
    operations: Mapping[tuple[str, str], type] = _NONE
    converters: Mapping[str, Any] = _NONE


class Conversion(NamedTuple):
    """Options of converting an object, those of `convert_model`. `inputs`: objects with the `name`, `shape`
    and `type` of each input that is described, None where nothing is said. `extensions`: those that
    `Reader.extensions` has chosen."""

    example: Any = None
    inputs: Sequence[Any] = ()
    outputs: Any = None
    extensions: Sequence[Any] = ()
    dynamo: bool = False
    converters: Mapping[str, Any] = _NONE


def name_reader(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: errors of a plug-in reader's method name the reader, and its result must have the right
    type: a bool of a test, or a Model."""

    @functools.wraps(method)
    def call(self: Reader, *args: Any) -> Any:
        with name_errors(f"the reader {self.name!r} of {type(self).__module__}", Exception):
            result = method(self, *args)
            if method.__name__.startswith(("read", "convert")) and not hasattr(result, "get_ops"):
                raise ModelError(f"`{method.__name__}` returns {type(result).__name__}, not a Model")
            return bool(result) if method.__name__ in ("sniff", "claims") else result

    return call


class Reader:
    """Base class of readers. One needs a `name`, and `read` with `suffixes` or `sniff`, or `convert` with
    `sniff`."""

    #: The name of the front end, as `FrontEndManager.load_by_framework` takes it.
    name = ""
    #: The format and its files in messages, such as "ONNX (.onnx)"; "" if only objects are converted.
    title = ""
    #: Endings of names, in lower case, of files that this reader alone reads, whatever is in them.
    suffixes: tuple[str, ...] = ()
    #: Endings of files that `convert_model` alone takes, with the framework's name for messages.
    convert_only: Mapping[str, str] = _NONE
    #: False: `FrontEndManager` has this front end, but does not list it.
    listed = True
    #: True if `sniff` recognizes each file of the format: the front end refuses others without reading them.
    certain = False
    #: True if `read_editable` gives another Model than `read`.
    edits_apart = False
    #: "module:class" of the front end's InputModel; "" for the usual one.
    input_model = ""

    def __init_subclass__(cls) -> None:
        for name in [] if cls.__module__.startswith(f"{ROOMS}.") else [*vars(cls)]:
            if name[0] != "_" and callable(getattr(Reader, name, None)):
                setattr(cls, name, name_reader(vars(cls)[name]))

    def sniff(self, source: Source) -> bool:
        """True if a file or contents are of this format, or if `convert` takes the object."""
        return source.is_file and source.suffix in self.suffixes

    def claims(self, source: Source) -> bool:
        """True if a file that no reader recognizes has a name of this format. Reading it then reports the
        fault."""
        return False

    def missing_packages(self) -> str:
        """An error message for packages that the reader needs and that are not installed, else ""."""
        return ""

    def read(self, source: Source, request: Request) -> Model:
        """The Model of a file or of contents. RuntimeError that names the file and the fault."""
        raise UnsupportedError(f"{self.name}: models are read by convert_model, from objects in memory")

    def read_for_front_end(self, source: Source, request: Request) -> Model:
        """As `read`, for `FrontEnd.load`: the Model as OpenVINO's front end returns it."""
        return self.read(source, request)

    def read_editable(self, source: Source, request: Request) -> Model:
        """As `read`, and the Model has a node output for each tensor of the file, so that it can be cut
        there."""
        return self.read(source, request)

    def load(self, path: str) -> Any:
        """The object that a file of the framework holds, which `convert` takes; None for other files."""
        return None

    def convert(self, model: Any, conversion: Conversion) -> Model:
        """The Model of an object in memory that `sniff` recognizes. RuntimeError if it cannot be read."""
        raise UnsupportedError(f"{self.name}: models are read from files, not from {type(model).__name__}")

    def needs_example(self, model: Any) -> bool:
        """True if `convert` of this object with `dynamo` needs an example."""
        return False

    def extensions(self, items: Sequence[Any]) -> list[Any]:
        """The extensions among `items` that `convert` takes; the others belong to a Core."""
        return []


@contextlib.contextmanager
def name_missing_room(what: str) -> Iterator[None]:
    """Context manager around imports of a reader's package: UnsupportedError if it is not installed. `what`:
    the files or objects that it reads."""
    try:
        yield
    except ModuleNotFoundError as error:
        parts = (error.name or "").split(".")
        if parts[:2] != ROOMS.split(".") or len(parts) < 3:
            raise
        raise UnsupportedError(f"{what} cannot be read: {_absence('.'.join(parts[:3]))}") from error


def _absence(*rooms: str) -> str:
    """The part of an error message about rooms that are not installed."""
    what = f"this installation of ovjit is without {' and '.join(rooms)}"
    return f"{what}. Install ovjit again: pip install --force-reinstall --no-deps ovjit"


def absence_note() -> str:
    """A sentence that names the missing rooms of built-in readers, after a space; "" if all are there."""
    rooms = {BUILT_IN[name].partition(":")[0] for name in BUILT_IN if name not in _built_in()}
    return f" Also, {_absence(*sorted(rooms))}." if rooms else ""


def formats_note() -> str:
    """The part of an error message about a file of an unknown format: the formats there are."""
    *others, last = [reader.title for reader in find_readers() if reader.title]
    return f"The format is unknown; supported formats are {', '.join(others)} and {last}.{absence_note()}"


def conversion_note(path: str) -> str:
    """An error message for a file that only `convert_model` reads, by its ending; "" for others."""
    frameworks = (reader.convert_only.get(Source(path).suffix) for reader in find_readers())
    return next((f"Use convert_model to read files of {name}." for name in frameworks if name), "")


@functools.cache
def load_built_in(name: str) -> Reader:
    """The built-in reader of a name. UnsupportedError if its room is not installed."""
    module, _, attribute = BUILT_IN[name].partition(":")
    endings = ", ".join(ending for ending, reader in SUFFIXES.items() if reader == name)
    with name_missing_room(f"Models of the format {name}{f' ({endings})' if endings else ''}"):
        reader: Reader | None = getattr(importlib.import_module(module), attribute, None)
        if reader is None:  # a folder without its files
            raise ModuleNotFoundError(f"no reader in {module}", name=module)
        return reader


@functools.cache
def _built_in() -> dict[str, Reader]:
    """name -> reader, of the built-in readers whose rooms are installed."""
    readers = {}
    for name in BUILT_IN:
        with contextlib.suppress(UnsupportedError):
            readers[name] = load_built_in(name)
    return readers


#: Readers that `add_reader` has added.
_ADDED: list[Reader] = []


def add_reader(reader: Reader) -> None:
    """Add a reader in this process alone, as in a notebook. A package has an entry point instead."""
    _ADDED.append(reader)


def find_readers() -> list[Reader]:
    """All readers, the built-in ones first. ModelError if a package adds an object that is no Reader, or a
    second reader of one name."""
    readers = dict(_built_in())
    for reader in (*load_others(GROUP, ROOMS), *_ADDED):
        if not isinstance(reader, Reader) or not reader.name or not isinstance(reader.suffixes, tuple):
            raise ModelError(f"{GROUP}: {reader!r} is no Reader with a name and a tuple of suffixes")
        if readers.setdefault(reader.name, reader) is not reader:
            raise ModelError(f"two readers in {GROUP} have the name {reader.name!r}: uninstall one of them")
    return list(readers.values())


def recognize(source: Source) -> Reader | None:
    """The reader of a file or of contents by what is in them, else by the file's name, else None."""
    readers = find_readers()
    sniffing = (reader for reader in readers if reader.title and reader.sniff(source))
    return next(sniffing, None) or next((reader for reader in readers if reader.claims(source)), None)


def find_reader(source: Source) -> Reader:
    """The reader of a file, of contents or of a message: by its ending, by `recognize`, else the default
    one."""
    name = SUFFIXES.get(source.suffix) or MESSAGES.get(_message_name(source.model))
    if name is None:
        by_ending = (reader for reader in find_readers() if source.suffix in reader.suffixes)
        if reader := next(by_ending, None) or recognize(source):
            return reader
        name = DEFAULT_OF_CONTENTS if source.path is None else DEFAULT_OF_FILES
    try:
        return load_built_in(name)
    except UnsupportedError as error:
        raise UnsupportedError(unreadable(source.path, str(error))) from error


def find_converter(model: Any) -> Reader | None:
    """The reader that converts an object; None for paths and contents, and for objects of no reader."""
    source = Source(model)
    if not source.is_object or isinstance(model, (list, tuple)):
        return None
    # a Keras model may be a module of PyTorch, too
    readers = sorted(find_readers(), key=lambda reader: bool(reader.title))
    return next((reader for reader in readers if reader.sniff(source)), None)


def is_message(model: Any) -> bool:
    """True for a protobuf message in memory that a reader takes, found without importing its package."""
    return _message_name(model) in MESSAGES


def _message_name(model: Any) -> str:
    return getattr(getattr(model, "DESCRIPTOR", None), "full_name", "")


def is_readable(model: Any) -> bool:
    """True if `model` is of a type that a model can be read from."""
    return isinstance(model, (str, os.PathLike, BytesIO, *CONTENTS)) or is_message(model)


@as_memory_errors("read the model")
def read_model(model: Any, request: Request, read: Callable[[Source, Request], Model] | None = None) -> Model:
    """The Model of a file, of contents or of a protobuf message, see `Core.read_model`. `read`: a method of
    the reader to use."""
    source = Source(model)
    if source.path is not None:
        if request.weights == "":
            request = request._replace(weights=None)  # the file beside the model
        if not source.path or not await_file(source.path):
            raise OvjitError(f'Could not open the file: "{source.path}": the file does not exist')
    elif not source.is_object:
        request = check_weights(request)
    elif not is_message(source.model):
        raise TypeError(f"Provided python object type {type(model)} isn't supported as 'model' argument.")
    return (read or find_reader(source).read)(source, request)


def check_weights(request: Request) -> Request:
    """The request with the contents of a BytesIO. RuntimeError for weights that are a number, as for a path
    that does not exist."""
    if isinstance(request.weights, BytesIO):
        return request._replace(weights=request.weights.getvalue())
    if isinstance(request.weights, (int, float)):
        raise no_path(request.weights)
    return request
