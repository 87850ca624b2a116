"""Replaces a module by one operator while it is traced, as extensions for modules require."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ovjit.readers.torch.pytorch import torch
from ovjit.readers.torch.tracing.patches import patch, suspend_tracing


@contextlib.contextmanager
def replace_modules(root: Any, extensions: Mapping[Any, Any]) -> Iterator[bool]:
    """Context manager: modules that an extension matches, by instance, class, or name below `root`, call its
    operator. Yields whether there are any."""
    modules = root.named_modules() if extensions and hasattr(root, "named_modules") else ()
    pairs = [(module, extension_of(name, module, extensions)) for name, module in modules]
    rows = [(module, "forward", forward_of(module, each)) for module, each in pairs if each is not None]
    with patch(*rows):
        yield bool(rows)


def extension_of(name: str, module: Any, extensions: Mapping[Any, Any]) -> Any:
    """The extension for a module, None if there is none."""
    for key in (module, module.__class__, name):
        extension = extensions.get(key)
        if extension is not None and extension.condition(module):
            return extension
    return None


def forward_of(module: Any, extension: Any) -> Any:
    """A forward that passes `convert` a function which becomes the operator in the traced graph."""
    original = type(module).forward
    is_evaluated = []  # not empty while the module computes what its operator gives

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        is_evaluated.append(True)
        try:
            return extension.evaluate(module, *args, **kwargs)
        finally:
            is_evaluated.pop()

    def forward(*args: Any, **kwargs: Any) -> Any:
        if is_evaluated:
            return original(module, *args, **kwargs)

        def target(*inputs: Any) -> Any:
            def run(context: Any, *inner: Any) -> Any:
                with suspend_tracing():
                    return evaluate(*args, **kwargs)

            kind = {"forward": staticmethod(run)}
            function: Any = type(extension.target_op, (torch.autograd.Function,), kind)
            return function.apply(*inputs)

        return extension.convert(module, target, *args, **kwargs)

    forward.__wrapped__ = original  # type: ignore[attr-defined]
    return forward
