"""Helpers for packages that depend on OpenVINO: deprecation warnings, class properties, lazy imports."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any


def get_cmake_path() -> str:
    """The folder of OpenVINO's CMake files; "" where there are none, as ovjit has no C++ to build against."""
    for folder, _, files in os.walk(Path(__file__).parent):
        if "OpenVINOConfig.cmake" in files:
            return str(folder)
    return ""


def deprecation_warning(
    function_name: str, version: str = "", message: str = "", stacklevel: int = 2
) -> None:
    """Emit a DeprecationWarning for `function_name`: the version of its removal, and a message."""
    import warnings

    text = f"{function_name} is deprecated"
    text += f" and will be removed in version {version}" if version else ""
    text += f". {message}" if message else ""
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel + 1)


def deprecated(
    name: Any = None, version: str = "", message: str = "", stacklevel: int = 2
) -> Callable[..., Any]:
    """Decorator: every call emits a `deprecation_warning`."""

    def decorator(wrapped: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(wrapped)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            deprecation_warning(wrapped.__name__ if name is None else name, version, message, stacklevel)
            return wrapped(*args, **kwargs)

        return wrapper

    return decorator


class _ClassPropertyDescriptor:
    def __init__(self, fget: Callable[[Any], Any]):
        self.fget = fget

    def __get__(self, obj: Any, cls: Any = None) -> Any:
        return self.fget(type(obj) if cls is None else cls)


def classproperty(func: Any) -> _ClassPropertyDescriptor:
    """A property of the class itself: `func(cls)`."""
    return _ClassPropertyDescriptor(func.__func__ if isinstance(func, (classmethod, staticmethod)) else func)


def deprecatedclassproperty(
    name: Any = None, version: str = "", message: str = "", stacklevel: int = 2
) -> Callable[[Any], _ClassPropertyDescriptor]:
    """Decorator: a `classproperty` that emits a `deprecation_warning` whenever it is read."""

    def decorator(wrapped: Any) -> _ClassPropertyDescriptor:
        inner = wrapped.__func__ if isinstance(wrapped, (classmethod, staticmethod)) else wrapped
        return classproperty(deprecated(name, version, message, stacklevel + 1)(inner))

    return decorator


class LazyLoader:
    """A module that is imported when one of its attributes is first read."""

    def __init__(self, module_name: str):
        self.module_name = module_name
        self._module: ModuleType | None = None

    def _load_module(self) -> ModuleType:
        if self._module is None:
            self._module = importlib.import_module(self.module_name)
            self.__dict__.update(self._module.__dict__)
        return self._module

    def __getattr__(self, item: str) -> Any:
        return getattr(self._load_module(), item)

    def __dir__(self) -> list[str]:
        return dir(self._load_module())

    def __repr__(self) -> str:
        return f"<LazyLoader for module '{self.module_name}'>"
