"""Lists that a recorded loop fills: what is made of them holds for other lengths than the example's."""

import importlib

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


def converted(program, x):
    class Module(torch.nn.Module):
        def forward(self, x):
            return program(x)

    return ovjit.compile_model(ovjit.convert_model(Module(), example_input=x), "CPU")


def compared(compiled, program, x):
    wanted = program(x)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    made = compiled(x.numpy())
    assert len(compiled.outputs) == len(wanted)
    for i, value in enumerate(wanted):
        assert made[i].shape == tuple(value.shape)
        np.testing.assert_allclose(made[i], value.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_lists_of_other_lengths(program):
    generator = torch.Generator().manual_seed(3)
    compiled = converted(program, torch.randn(2, 5, 4, generator=generator))
    for shape in ((2, 5, 4), (3, 8, 4), (1, 3, 4)):
        compared(compiled, program, torch.randn(shape, generator=generator))


def in_another_function(kept):
    total = torch.zeros_like(kept[0])
    for part in kept:
        total = total * 0.5 + part
    return total


def test_a_list_in_another_function_is_not_of_the_example_without_a_word():
    def program(x):
        kept, state = [], torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            state = state * 0.5 + x[:, t]
            kept.append(state)
        return in_another_function(kept)

    x = torch.arange(40.0).reshape(2, 5, 4)
    compiled = converted(program, x)
    compared(compiled, program, x)
    with pytest.raises(RuntimeError):
        compiled(np.ones((2, 8, 4), np.float32))


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
    class Module(torch.nn.Module):
        def forward(self, x, lengths):
            return function(x, lengths)

    generator = np.random.default_rng(0)
    inputs = [
        (generator.random((rows, columns), np.float32), generator.integers(1, 6, rows))
        for rows, columns in ((4, 6), (3, 9), (7, 6))
    ]
    module = Module()
    model = ovjit.convert_model(module, example_input=tuple(map(torch.from_numpy, inputs[0])))
    compiled = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for x, lengths in inputs:
        wanted = module(torch.from_numpy(x), torch.from_numpy(lengths))
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for want, got in zip(wanted, compiled([x, lengths]).values(), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5)


def test_an_enumeration_that_begins_at_a_traced_number() -> None:
    """The number is taken out of the object that the recorded loop has in its place."""
    loop_items = importlib.import_module("ovjit.readers.torch.recording.loop_items")
    numbers = loop_items.Enumerated(loop_items.Items([5, 6]), loop_items.Items(3))
    assert list(numbers.plain()) == [(3, 5), (4, 6)]
