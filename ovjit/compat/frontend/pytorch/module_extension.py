"""Extension that replaces a whole PyTorch module by one operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ovjit.api.model.custom import ReaderExtension


class ModuleExtension(ReaderExtension):
    """Replaces `module`, an instance, a class or a name, by the operation `target_op`.

    While the model is traced, `evaluate(module, *args, **kwargs)` computes the module's values;
    `convert(module, target_op, *args, **kwargs)` calls the operation with its inputs; `condition(module)` is
    true for modules to replace.
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
