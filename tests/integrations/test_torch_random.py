"""torch.compile(backend="openvino") of random programs beside eager mode.

Values, types, strides, shared memory and the arguments afterwards are compared.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import ovjit.torch  # noqa: E402, F401  (torch may be missing)

from tests.support.torch_programs import Program  # noqa: E402

OPTIONS = {"options": {"config": {"INFERENCE_PRECISION_HINT": "f32"}}}
#: Of results in two bytes, whose last bit may differ.
COARSE = {torch.float16: 1e-2, torch.bfloat16: 1e-2}


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def moving(value: Any) -> list[int]:
    """The strides that matter."""
    return [
        step for size, step in zip(value.shape, value.stride(), strict=True) if size > 1 and value.numel()
    ]


def shared(values: list[Any]) -> list[list[bool]]:
    """Which of the tensors have one memory."""
    places = [value.untyped_storage().data_ptr() if value.numel() else None for value in values]
    return [[a is not None and a == b for a in places] for b in places]


def check(program: Program, call: Any, text: str) -> None:
    for seed in (1, 2, 1):
        own, theirs = program.inputs(seed), program.inputs(seed)
        wanted = [*program.function(*theirs), *theirs]
        got = [*call(*own), *own]
        for place, (a, b) in enumerate(zip(got, wanted, strict=True)):
            where = f"{text}\ntensor {place} of results and arguments, inputs {seed}"
            assert (a.dtype, a.shape, a.requires_grad) == (b.dtype, b.shape, b.requires_grad), where
            assert moving(a) == moving(b), where
            bound = 0.0 if program.exact else COARSE.get(b.dtype, 1e-5)
            torch.testing.assert_close(
                a, b, rtol=bound, atol=bound, equal_nan=True, msg=lambda m, w=where: f"{w}\n{m}"
            )
        assert shared(got) == shared(wanted), text


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("seed", range(16))
def test_random_programs_are_as_in_eager_mode(seed, dynamic) -> None:
    """Where PyTorch's own graph of a program is not as eager mode, no backend can be."""
    program = Program(seed + 100 * bool(dynamic))
    text = f"seed {program.seed}, dynamic={dynamic}\n{program.source}"
    compiled = torch.compile(program.function, backend="openvino", dynamic=dynamic, **OPTIONS)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"torch.compile\(backend='openvino'\)")
            check(program, compiled, text)
    except Exception as error:
        torch._dynamo.reset()
        try:
            check(program, torch.compile(program.function, backend="aot_eager", dynamic=dynamic), text)
        except Exception:
            pytest.skip(f"PyTorch's graph: {error}"[:500])
        raise
