"""Operators of Paddle's that paddle2onnx writes wrongly or refuses, by others of Paddle's.

The process that converts models imports this package by its name. It imports nothing of ovjit.
"""

from __future__ import annotations

from . import detection, formulas, images, losses, norms, reductions, shapes
from .parts import Rule

_FAMILIES = (detection, formulas, images, losses, norms, reductions, shapes)
#: The rules of all families, by the operators' names.
RULES: dict[str, Rule] = {name: rule for family in _FAMILIES for name, rule in family.RULES.items()}
