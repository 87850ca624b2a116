"""Parameters of JAX's primitives that are members of an enumeration."""

from __future__ import annotations

import enum
from typing import Any

import pytest

from ovjit.errors import ModelError
from ovjit.readers.jax.reader import CHOICES, check_params
from ovjit.readers.jax.registry import find_rule


class Unknown(enum.Enum):
    WRONG = 77

    def __int__(self) -> int:
        return 77


@pytest.mark.parametrize(
    ("primitive", "name"), [(p, name) for p, declared in CHOICES.items() for name in declared]
)
def test_a_wrong_member_is_refused(primitive: str, name: str) -> None:
    assert find_rule(primitive) is not None
    with pytest.raises(ModelError, match=f"attribute '{name}' is .*, which is none of its choices"):
        check_params(primitive, {name: Unknown.WRONG})
    check_params(primitive, {name: None})


def test_members_of_jax_are_declared() -> None:
    jax = pytest.importorskip("jax")
    from jax._src.lax import fft, linalg

    for mode in set(jax.lax.GatherScatterMode) - {jax.lax.GatherScatterMode.ONE_HOT}:
        check_params("gather", {"mode": mode})
        check_params("scatter-add", {"mode": mode})
    for method in jax.lax.RoundingMethod:
        check_params("round", {"rounding_method": method})
    for kind in fft.FftType:
        check_params("fft", {"fft_type": kind})
    for algorithm in linalg.SvdAlgorithm:
        check_params("svd", {"algorithm": algorithm})
    for implementation in linalg.EighImplementation:
        check_params("eigh", {"implementation": implementation})


def test_an_equation_with_another_mode() -> None:
    jax = pytest.importorskip("jax")
    import numpy as np

    import ovjit as ov
    from ovjit.compat.frontend.jax.jaxpr_decoder import JaxprPythonDecoder

    def taken(x: Any) -> Any:
        numbers = jax.lax.GatherDimensionNumbers((), (0,), (0,))
        return jax.lax.gather(x, np.array([[1], [9]]), numbers, (1,), mode="clip")

    closed = jax.make_jaxpr(taken)(np.ones(3, np.float32))
    ov.convert_model(JaxprPythonDecoder(closed))
    (place,) = [i for i, eqn in enumerate(closed.jaxpr.eqns) if eqn.primitive.name == "gather"]
    eqn = closed.jaxpr.eqns[place]
    changed = eqn.replace(params={**eqn.params, "mode": jax.lax.GatherScatterMode.ONE_HOT})
    eqns = [*closed.jaxpr.eqns[:place], changed, *closed.jaxpr.eqns[place + 1 :]]
    wrong = closed.replace(jaxpr=closed.jaxpr.replace(eqns=eqns))
    with pytest.raises(RuntimeError, match="primitive gather: .*'mode' is 'one_hot', .*clip, fill_or_drop"):
        ov.convert_model(JaxprPythonDecoder(wrong))
