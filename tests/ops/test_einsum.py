"""Einsum as products, with static, partly open and open shapes, beside NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import ovjit

SEED = 6100
CASES = [
    ("bhqd,bhkd->bhqk", (2, 3, 5, 8), (2, 3, 7, 8)),
    ("bhqk,bkhd->bqhd", (2, 3, 5, 7), (2, 7, 3, 8)),
    ("abcd,cd->ab", (2, 3, 4, 5), (4, 5)),
    ("i,j->ij", (4,), (5,)),
    ("ab,bc,cd->ad", (3, 4), (4, 5), (5, 6)),
    ("...ij,...jk->...ik", (2, 3, 4, 5), (3, 5, 6)),
    ("bld,dhk->blhk", (2, 5, 8), (8, 3, 4)),
    ("blhk,hkd->bld", (2, 5, 3, 4), (3, 4, 8)),
    ("ab,ab->", (3, 4), (3, 4)),
    ("abij,abkl->abkijl", (2, 3, 4, 5), (2, 3, 6, 7)),
    ("ibnd,jbnd->bnij", (5, 2, 3, 4), (6, 2, 3, 4)),
    ("aibjc,bkcl->ilkj", (2, 3, 4, 5, 6), (4, 7, 6, 2)),
    ("ab,cb->ca", (1, 4), (3, 4)),
]


@pytest.mark.parametrize("opened", ["none", "first", "all"])
@pytest.mark.parametrize("case", CASES, ids=[c[0] for c in CASES])
def test_einsum(case, opened):
    equation, *shapes = case
    rng = np.random.default_rng(SEED)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    parameters = [
        ovjit.opset13.parameter(
            ovjit.PartialShape(
                [-1 if opened == "all" or (opened == "first" and i == 0) else d for i, d in enumerate(s)]
            ),
            np.float32,
        )
        for s in shapes
    ]
    node = ovjit.opset13.einsum(parameters, equation)
    model = ovjit.Model([node.output(0)], parameters)
    request = ovjit.Core().compile_model(model, "CPU", {"PERF_COUNT": True}).create_infer_request()
    got = request.infer(arrays)[0]
    want = np.einsum(equation, *(a.astype(np.float64) for a in arrays))
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4, err_msg=f"seed {SEED} {equation} {opened}")
    assert "ref_numpy" not in {row.exec_type for row in request.get_profiling_info()}


@pytest.mark.parametrize(
    "equation", ["ij,jk->ik,", "i$,jk->ik", "ij->i", "ij,jk->iz", "ij,jk->ii", "ijk,jk->i", "...i,jk->k"]
)
def test_wrong_equations_are_refused(equation):
    parameters = [ovjit.opset13.parameter([2, 3], np.float32), ovjit.opset13.parameter([3, 4], np.float32)]
    with pytest.raises(RuntimeError, match="Einsum"):
        ovjit.opset13.einsum(parameters, equation)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_product_of_two_constants_of_bytes(dtype):
    rng = np.random.default_rng(20261122)
    a, b, c = (rng.integers(0, 9, shape).astype(dtype) for shape in ((3, 4), (4, 5), (5, 6)))
    ops = ovjit.opset13
    x = ops.parameter(ovjit.PartialShape([-1, 4]), dtype)
    y = ops.einsum([x, ops.constant(b), ops.constant(c)], "ab,bc,cd->ad")
    got = ovjit.Core().compile_model(ovjit.Model([y], [x], "m"), "CPU")([a])[0]
    np.testing.assert_array_equal(got, np.einsum("ab,bc,cd->ad", a, b, c), err_msg="seed 20261122")
