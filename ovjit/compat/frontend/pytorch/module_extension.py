"""One operation in the place of a whole PyTorch module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ModuleExtension:
    """`target_op` in the place of `module`: an instance, a class or a name.

    While the model is traced, `evaluate(module, *args, **kwargs)` gives the module's values;
    `convert(module, target_op, *args, **kwargs)` says what the operation is given; `condition(module)` says
    which modules are meant.
    """

    def __init__(
        self,
        module: Any,
        target_op: str,
        evaluate: Callable | None = None,
        convert: Callable | None = None,
        condition: Callable | None = None,
    ):
        self.module, self.target_op = module, target_op
        self.evaluate = evaluate or (lambda module, *args, **kwargs: module(*args, **kwargs))
        self.convert = convert or (lambda module, target_op, *args, **kwargs: target_op(*args, **kwargs))
        self.condition = condition or (lambda module: True)


__all__ = ["ModuleExtension"]
