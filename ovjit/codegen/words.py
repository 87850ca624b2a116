"""The words of kernels that are functions (`ovjit.codegen.template`), so that editors and linters know them.

A kernel's function is never called: its source is printed as a kernel's text, or run by `Template.run`,
which gives every word its meaning in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

inf = float("inf")


def _word(name: str) -> Callable[..., Any]:
    def word(*arguments: Any) -> Any:
        raise TypeError(f"{name}() is a word of kernels: the function that uses it is printed, not called")

    word.__name__ = word.__qualname__ = name
    return word


load, store, finish, vectors = map(_word, ("load", "store", "finish", "vectors"))
splat, count_of = map(_word, ("splat", "count_of"))
hadd, hmul, hmax, hmin = map(_word, ("hadd", "hmul", "hmax", "hmin"))
maximum, minimum, fma, sqrt = map(_word, ("maximum", "minimum", "fma", "sqrt"))
exp, log, tanh, erf, sigmoid = map(_word, ("exp", "log", "tanh", "erf", "sigmoid"))
