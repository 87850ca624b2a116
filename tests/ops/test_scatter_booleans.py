"""Scatters of booleans with a reduction, beside the real OpenVINO's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest

import ovjit


def _model(ov: Any, reduction: str, init: bool | None, places: np.ndarray) -> Any:
    o = ov.opset15
    x, updates = o.parameter([5], bool), o.parameter([4], bool)
    if init is None:
        made = o.scatter_nd_update(x, places[:, None], updates, reduction)
    else:
        made = o.scatter_elements_update(x, places, updates, np.int64(0), reduction, init)
    return ov.Model([made], [x, updates])


#: (reduction, whether the data count); None: of ScatterNDUpdate.
KINDS: list[tuple[str, bool | None]] = [(r, None) for r in "sum sub prod min max".split()]
KINDS += [(r, init) for r in "sum prod min max".split() for init in (True, False)]


@pytest.mark.parametrize(("reduction", "init"), KINDS)
def test_reductions(reduction: str, init: bool | None) -> None:
    rng = np.random.default_rng(20261126)
    places = np.array([0, 2, 2, 1])
    compiled = ovjit.compile_model(_model(ovjit, reduction, init, places), "CPU")
    for _ in range(8):
        data, updates = rng.random(5) < 0.5, rng.random(4) < 0.5
        wanted = openvino.Tensor(openvino.Type.boolean, [5])
        given = [openvino.Tensor(data), openvino.Tensor(updates)]
        assert _model(openvino, reduction, init, places).evaluate([wanted], given)
        have = ovjit.Tensor(ovjit.Type.boolean, [5])
        _model(ovjit, reduction, init, places).evaluate([have], [ovjit.Tensor(data), ovjit.Tensor(updates)])
        assert have.data.tolist() == wanted.data.tolist()
        assert compiled([data, updates])[0].tolist() == wanted.data.tolist()


@pytest.mark.parametrize("ov", (openvino, ovjit))
def test_there_is_no_mean_of_booleans(ov: Any) -> None:
    with pytest.raises(RuntimeError, match="'mean' reduction type is not supported for boolean"):
        _model(ov, "mean", True, np.array([0, 2, 2, 1]))
