"""The exceptions of ONNX Runtime's native module, and their texts' common beginning."""

from __future__ import annotations

from typing import Any, NoReturn

#: The module that these classes, the options and the enumerations name as theirs.
STATE = "onnxruntime.capi.onnxruntime_pybind11_state"
#: class -> (ONNX Runtime's status code, its word).
_CODES: dict[type[Exception], tuple[int, str]] = {}


def _define(name: str, code: int, word: str) -> Any:
    failure = type(name, (Exception,), {"__module__": STATE})
    _CODES[failure] = code, word
    return failure


Fail: Any = _define("Fail", 1, "FAIL")
InvalidArgument: Any = _define("InvalidArgument", 2, "INVALID_ARGUMENT")
NoSuchFile: Any = _define("NoSuchFile", 3, "NO_SUCHFILE")
NoModel: Any = _define("NoModel", 4, "NO_MODEL")
EngineError: Any = _define("EngineError", 5, "ENGINE_ERROR")
RuntimeException: Any = _define("RuntimeException", 6, "RUNTIME_EXCEPTION")
InvalidProtobuf: Any = _define("InvalidProtobuf", 7, "INVALID_PROTOBUF")
ModelLoaded: Any = _define("ModelLoaded", 8, "MODEL_LOADED")
NotImplemented: Any = _define("NotImplemented", 9, "NOT_IMPLEMENTED")
InvalidGraph: Any = _define("InvalidGraph", 10, "INVALID_GRAPH")
EPFail: Any = _define("EPFail", 11, "EP_FAIL")
ModelLoadCanceled: Any = _define("ModelLoadCanceled", 12, "MODEL_LOAD_CANCELED")
ModelRequiresCompilation: Any = _define("ModelRequiresCompilation", 13, "MODEL_REQUIRES_COMPILATION")
NotFound: Any = _define("NotFound", 14, "NOT_FOUND")
DeviceReset: Any = _define("DeviceReset", 15, "DEVICE_RESET")

#: The names of the exceptions.
NAMES = tuple(failure.__name__ for failure in _CODES)


def failure_of(kind: type[Exception], text: str) -> Exception:
    """An exception of class `kind` with `text` after ONNX Runtime's status."""
    code, word = _CODES[kind]
    error = kind(f"[ONNXRuntimeError] : {code} : {word} : {text}")
    error.text = text  # type: ignore[attr-defined]
    return error


def text_of(error: BaseException) -> str:
    """The text of an exception without the status in front."""
    return str(getattr(error, "text", error))


def refuse(what: str, instead: str) -> NoReturn:
    """Raise NotImplemented for a part of ONNX Runtime that ovjit does not have."""
    raise failure_of(NotImplemented, f"ovjit does not have {what}: {instead}")


def refuse_pickle(value: Any) -> NoReturn:
    """Raise the TypeError of an object that cannot be pickled."""
    raise TypeError(f"cannot pickle '{STATE}.{type(value).__name__}' object")
