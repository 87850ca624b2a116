"""What an expression gives on either package, as text."""

from __future__ import annotations

import re
from typing import Any


def outcome(expression: str, names: dict[str, Any]) -> str:
    """What an expression gives, as text without running numbers; or its exception's class."""
    try:
        value = eval(expression, names)
    except (RuntimeError, TypeError, IndexError, ValueError, AttributeError) as error:
        kinds = (RuntimeError, IndexError, TypeError, ValueError, AttributeError)
        return next(kind.__name__ for kind in kinds if isinstance(error, kind))
    return re.sub(r"(_|Model)\d+", r"\1N", repr(value))
