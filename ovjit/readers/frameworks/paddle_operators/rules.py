"""The rules of all families."""

from __future__ import annotations

from . import detection, formulas, images, norms, reductions, shapes
from .parts import Rule

_FAMILIES = (detection, formulas, images, norms, reductions, shapes)
#: Rules by the operators' names.
RULES: dict[str, Rule] = {name: rule for family in _FAMILIES for name, rule in family.RULES.items()}
