"""Lists that loops over dynamic lengths fill: traces have the example's iterations, and PyTorch warns."""

import numpy as np
import pytest

import ovjit

torch = pytest.importorskip("torch")


def best_path(x):
    score, choices = x[:, 0], []
    for t in range(1, x.shape[1]):
        score, choice = (score[:, :, None] * 0.7 + x[:, t, None]).max(1)
        choices.append(choice)
    best = score.argmax(1)
    path = [best]
    for choice in choices[::-1]:
        best = choice.gather(1, best[:, None])[:, 0]
        path.append(best)
    path.reverse()
    return torch.stack(path, 1), score


def best_path_by_index(x):
    score, choices = x[:, 0], []
    for t in range(1, x.shape[1]):
        score, choice = (score[:, :, None] * 0.7 + x[:, t, None]).max(1)
        choices.append(choice)
    best = score.argmax(1)
    path = [best]
    for i in range(len(choices) - 1, -1, -1):
        best = choices[i].gather(1, best[:, None])[:, 0]
        path.insert(0, best)
    return torch.stack(path, 1)


def slices(x):
    kept, state = [], torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        state = state * 0.5 + x[:, t]
        kept.append(state)
    for part in kept[1:]:
        state = state * 0.9 + part.sin()
    for part in reversed(kept[:-1]):
        state = state * 1.1 + part
    for part in kept[::2]:
        state = state * 0.8 - part
    return state, kept[-1], kept[0], torch.stack(kept[::-2])


def ends(x):
    kept, state = [x[:, 0]], torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        state = state * 0.5 + x[:, t]
        kept = [state] + kept
    kept.append(state * 2)
    kept.extend([state * 3])
    kept = [state * 4] + kept + [state * 5]
    total = torch.zeros_like(state)
    for part in kept:
        total = total * 0.3 + part
    return total, torch.stack(kept, 1)


def both_directions(x):
    there, back, state = [], [], torch.zeros_like(x[:, 0])
    for t in range(x.size(1)):
        state = torch.tanh(x[:, t] + state)
        there.append(state)
    for t in reversed(range(x.size(1))):
        state = torch.tanh(x[:, t] - state)
        back += [state]
    back.reverse()
    pairs = [torch.cat([a, b], -1) for a, b in zip(there, back)]  # noqa: B905
    return torch.stack(pairs, 1)


def pairs(x):
    kept, state = [], torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        state = state * 0.5 + x[:, t]
        kept.append(state)
    sums = []
    for i in range(len(kept)):
        total = torch.zeros_like(state)
        for part in kept:
            total = total + (part * kept[i]).sum(-1, keepdim=True) * part
        sums.append(total)
    return torch.stack(sums, 1)


def viewed(x):
    kept, state = [], torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        state = state * 0.5 + x[:, t]
        kept.append(state)
    return torch.stack(kept, 1).view(x.shape[0] * x.shape[1], -1)


PROGRAMS = (best_path, best_path_by_index, slices, ends, both_directions, pairs, viewed)


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def compare(function, *inputs):
    """The example's results are right, and a trace with its iterations is warned of."""
    with pytest.warns(torch.jit.TracerWarning, match="incorrect"):
        model = ovjit.convert_model(Module(function), example_input=inputs)
    compiled = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result, expected = compiled([x.numpy() for x in inputs]), function(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(compiled.outputs) == len(expected)
    for i, value in enumerate(expected):
        np.testing.assert_allclose(result[i], value.numpy(), rtol=1e-4, atol=1e-5)
    return compiled


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_lists_have_the_items_of_the_example(program):
    compare(program, torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3)))


def masked_by_lengths(x, lengths):
    mask = torch.zeros(x.shape[0], x.shape[1])
    for i, length in enumerate(lengths.tolist()):
        mask[i, :length] = 1
    return x * mask


def scaled_by_items(x, lengths):
    items, rows = lengths.tolist(), []
    for i in range(len(items)):
        rows.append(x[i] * items[i])
    longer = [k + 1 for k in items]
    return torch.stack(rows) / len(items), x * torch.tensor(longer)[:, None] + sum(items) - max(items)


@pytest.mark.parametrize("function", [masked_by_lengths, scaled_by_items], ids=lambda f: f.__name__)
def test_items_of_tensors_as_pythons_numbers(function):
    """They are as many as the example has, which is warned of."""
    generator = np.random.default_rng(0)
    rows = [
        tuple(map(torch.from_numpy, (generator.random((4, 6), np.float32), generator.integers(1, 6, 4))))
        for _ in range(2)
    ]
    compiled = compare(function, *rows[0])
    if function is masked_by_lengths:  # the numbers themselves are followed where no loop computes with them
        result = compiled([x.numpy() for x in rows[1]])[0]
        np.testing.assert_allclose(result, function(*rows[1]), rtol=1e-5)
