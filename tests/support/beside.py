"""The same function, called with the real OpenVINO and with ovjit, gives the same; and examples' parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
from hypothesis import strategies as st

import ovjit
from tests.support.side_by_side import plain


def examples(count: int) -> int:
    """How many of an expensive property are tried; OVJIT_EXAMPLES multiplies them, too."""
    return max(1, count * int(os.environ.get("OVJIT_EXAMPLES", 60)) // 60)


def outcome(call: Callable[[Any], Any], package: Any) -> Any:
    """What a function of the package gives, in a form that compares; or the exception's builtin class."""
    try:
        return plain(call(package))
    except Exception as error:
        return "raises", next(k.__name__ for k in type(error).__mro__ if k.__module__ == "builtins")


def same(call: Callable[[Any], Any]) -> Any:
    """Asserts that both packages come to the same, and gives it."""
    theirs, ours = outcome(call, openvino), outcome(call, ovjit)
    assert ours == theirs, f"OpenVINO: {theirs}\novjit:    {ours}"
    return ours


#: A dimension as Python says it: a number, -1 for any, or (least, most), where -1 is no bound.
dimensions = st.one_of(
    st.integers(0, 6), st.just(-1),
    st.tuples(st.integers(0, 6), st.integers(0, 9)).map(lambda p: (p[0], p[0] + p[1])),
    st.tuples(st.integers(0, 6), st.just(-1)),
    st.sampled_from([2**31, 2**31 - 1, 2**62, 2**63 - 2]),  # 2**63 - 1 is "no bound", and no length
)  # fmt: skip
#: Those that arithmetic of small numbers has.
small_dimensions = st.one_of(
    st.integers(1, 6), st.integers(1, 6), st.just(-1), st.sampled_from([(1, 4), (2, 6), (3, -1), (0, 3)])
)


def partial(package: Any, dims: Any) -> Any:
    """A PartialShape; None: of any rank."""
    if dims is None:
        return package.PartialShape.dynamic()
    return package.PartialShape([package.Dimension(*d) if isinstance(d, tuple) else package.Dimension(d)
                                 for d in dims])  # fmt: skip


def random_array(dtype: Any, shape: Any, seed: int) -> np.ndarray:
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape).copy()
