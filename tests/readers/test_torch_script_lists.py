"""Lists of numbers in scripts that depend on sizes and data: beside the script itself."""

from __future__ import annotations

from typing import List  # noqa: UP035 - by this name scripts know it

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
Tensor = torch.Tensor
SEED = 20261129


def of_open_length(x: Tensor):
    numbers = [i * 2 for i in range(x.shape[0])]
    numbers.sort(reverse=True)
    more = numbers[1:] + [1]
    return x.sum() + sum(more) + max(numbers) + min(more) + more.count(2) + numbers[0]


def of_open_numbers(x: Tensor):
    numbers = [x.shape[0], x.shape[1], 2]
    numbers.sort()
    other = sorted([x.shape[0], 1])
    return x * numbers[0] + numbers[2] + other[0] + numbers.count(2) + sum(numbers)


def from_tensors(x: Tensor):
    row: List[float] = x[0].tolist()  # noqa: UP006
    known: List[int] = torch.tensor([1, 2]).tolist()  # noqa: UP006
    whole: float = x.sum().tolist()
    total = 0.0
    for value in row:
        total += value
    return x * row[1] * known[1] + total + whole + len(row)


def any_and_all(x: Tensor):
    sizes = int(any([x.shape[0] > 9, False])) + int(all([True, x.shape[1] > 4]))
    rows = [bool(t.sum() > 0) for t in x]
    return x + sizes + int(any(rows)) * 10 + int(all(rows)) * 100


def texts(x: Tensor):
    if "%d_%s" % (3, "a") == "3_a":  # noqa: UP031
        x = x + 1
    return x


def shapes(x: Tensor):
    weight = torch.ones(1, x.shape[1]) * 2
    loss = torch.nn.functional.binary_cross_entropy(x.sigmoid(), x.abs().clamp(0, 1), weight[0])
    return torch.ones(torch.broadcast_shapes(x.shape, [2, 1, 1])) + loss


def counted_parts(x: Tensor):
    """Numbers of parts, where the last ones may be empty or shorter."""
    halves, thirds, pairs = x.chunk(2, 1), x.chunk(4, 1), x.split(2, 1)
    total = x.sum(1)
    for part in x.chunk(5, 1):
        total = total + part.sum(1)
    some = pairs[0].sum(1) + pairs[-1].sum(1) * len(pairs)
    return x * len(thirds) + len(halves) + (total + some + thirds[0].sum(1) + len(x.split(3, 1)))[:, None]


def padded(x: Tensor):
    rows: List[Tensor] = []  # noqa: UP006
    for i in range(x.shape[0]):
        rows.append(x[i] * i)
    lines = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return lines + torch.nn.utils.rnn.pad_sequence(rows).transpose(0, 1)


@pytest.mark.parametrize(
    "function",
    [padded, counted_parts, shapes, of_open_length, of_open_numbers, from_tensors, any_and_all, texts],
)
def test_lists(function):
    script = torch.jit.script(function)
    model = ov.convert_model(script, input=[(ov.PartialShape([-1, -1]), ov.Type.f32)])
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    generator = torch.Generator().manual_seed(SEED)
    for shape in ((3, 4), (5, 6), (2, 3), (4, 9)):
        x = torch.randn(*shape, generator=generator)
        want = script(x).numpy()
        made = compiled([x.numpy()])[0]
        assert made.shape == want.shape
        np.testing.assert_allclose(made, want, rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")
