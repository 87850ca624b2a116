"""Scripts whose lists, dicts, loops and branches depend on data: beside what the script itself gives."""

from __future__ import annotations

import inspect
from typing import Dict, List, Optional, Tuple  # noqa: UP035 - by these names scripts know them

import numpy as np
import pytest

import ovjit as ov
from ovjit.errors import UnsupportedError

torch = pytest.importorskip("torch")
Tensor = torch.Tensor
SEED = 20261125
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def check(function, *examples):
    """Convert with the first example, and run with all."""
    from torch.utils._pytree import tree_leaves

    script = torch.jit.script(function)
    compiled = ov.compile_model(ov.convert_model(script, example_input=tuple(examples[0])), "CPU", EXACT)
    for inputs in examples:
        wanted = tree_leaves(script(*inputs))
        leaves = [leaf.numpy() for leaf in tree_leaves(inputs)]
        result = compiled(leaves)
        assert len(result) == len(wanted)
        for i, want in enumerate(wanted):
            want = want.detach().numpy() if isinstance(want, Tensor) else np.array(want)
            assert result[i].shape == want.shape, f"seed {SEED}, output {i}"
            np.testing.assert_allclose(result[i], want, rtol=1e-5, atol=1e-5, err_msg=f"seed {SEED}")


def rows(*counts, columns=4):
    generator = torch.Generator().manual_seed(SEED)
    return [[torch.randn(count, columns, generator=generator)] for count in counts]


def signs():
    generator = torch.Generator().manual_seed(SEED)
    return [[torch.rand(3, 4, generator=generator)], [-torch.rand(3, 4, generator=generator)]]


def items_in_a_branch(x: Tensor):
    parts = [x, x + 1]
    by_name = {"a": x, "b": x + 1}
    if bool(x.sum() > 0):
        parts[0] = x * 2
        by_name["a"] = x * 3
    else:
        by_name["b"] = x * 5
        by_name["b"] += 1
    return parts[0] + parts[1], by_name["a"] + by_name["b"] * 10


def new_key_in_a_branch(x: Tensor):
    by_name: Dict[str, Tensor] = {}  # noqa: UP006
    if bool(x.sum() > 0):
        by_name["a"] = x * 2
    else:
        by_name["a"] = x * 5
    return by_name["a"]


def appended_in_a_branch(x: Tensor):
    parts = [x]
    none: List[Tensor] = []  # noqa: UP006
    if bool(x.sum() > 0):
        parts.append(x * 2)
        none.append(x - 1)
    else:
        none.append(x - 2)
        none.append(x - 3)
    return torch.cat(parts), torch.stack(parts), len(parts), torch.cat(none)


def written_in_a_branch(x: Tensor):
    y = torch.ones(4)
    if bool(x.sum() > 0):
        y.add_(x[0])
    else:
        y.mul_(3.0)
    return y


@pytest.mark.parametrize(
    "function", [items_in_a_branch, new_key_in_a_branch, appended_in_a_branch, written_in_a_branch]
)
def test_branches_change_lists_dicts_and_tensors(function) -> None:
    check(function, *signs())


def items_in_a_loop(x: Tensor):
    parts = [torch.zeros(4), torch.ones(4)]
    by_name = {"t": torch.zeros(4)}
    for i in range(x.size(0)):
        parts[0] = parts[0] + x[i]
        parts[1] = parts[1] * 0.5 + parts[0]
        by_name["t"] = by_name["t"] * 0.5 + x[i]
    return parts[0], parts[1], by_name["t"]


def length_of_a_growing_list(x: Tensor):
    made: List[Tensor] = []  # noqa: UP006
    for i in range(x.size(0)):
        if len(made) > 0:
            made.append(x[i] + made[-1])
        else:
            made.append(x[i])
    return torch.stack(made), len(made)


def inserted(x: Tensor):
    made: List[Tensor] = []  # noqa: UP006
    for i in range(x.size(0)):
        made.insert(0, x[i] * i)
    return torch.stack(made)


def two_of_each(x: Tensor):
    made: List[Tensor] = [x[0]]  # noqa: UP006
    for i in range(x.size(0)):
        made.append(x[i])
        made.append(x[i] * 2)
    return torch.stack(made), torch.cat(made[1:])


def selected(x: Tensor):
    made: List[Tensor] = []  # noqa: UP006
    for i in range(x.size(0)):
        if bool(x[i, 0] > 0):
            made.append(x[i])
    return torch.stack(made)


def queue(x: Tensor):
    waiting: List[Tensor] = [x[0], x[1]]  # noqa: UP006
    total = torch.zeros(4)
    for i in range(2, x.size(0)):
        waiting.append(x[i])
        total = total + waiting.pop(0) * i
    return total, torch.stack(waiting)


def added_until(x: Tensor):
    """The length is known of the loop, but not where it ends: nothing that was tried of it is kept."""
    made: List[Tensor] = []  # noqa: UP006
    for i in range(5):
        made.append(x[0] * i)
        if bool(x.sum() > i):
            break
    return torch.stack(made)


def numbers(x: Tensor):
    made: List[float] = []  # noqa: UP006
    for i in range(x.size(0)):
        made.append(float(x[i, 0]) * 2)
    return torch.tensor(made), made[1]


@pytest.mark.parametrize(
    "function",
    [items_in_a_loop, length_of_a_growing_list, inserted, two_of_each, selected, queue, added_until, numbers],
)
def test_loops_change_lists_and_dicts(function) -> None:
    check(function, *rows(3, 6))


def steps(x: Tensor):
    total = torch.zeros(4)
    for i in range(1, x.size(0), 2):
        total = total * 0.5 + x[i]
    for i in range(x.size(0) - 1, -1, -2):
        total = total * 0.5 + x[i]
    for _ in range(x.size(0), 3):
        total = total + 1
    return total


def left_early(x: Tensor):
    total = torch.zeros(1)
    for i in range(x.size(0)):
        if i % 2 == 1:
            continue
        if bool(x[i, 0] > 1.0):
            break
        total = total + x[i, 1]
    return total


def returned(x: Tensor):
    for i in range(x.size(0)):
        if bool(x[i].sum() > 0.5):
            return x[i], i
    return torch.zeros(4), -1


def unbound(x: Tensor):
    parts = x.unbind(0)
    made: List[Tensor] = []  # noqa: UP006
    for i in range(len(parts)):
        made.append(parts[len(parts) - 1 - i].cumsum(0))
    made.reverse()
    total = torch.zeros(x.size(0))
    columns = x.unbind(1)
    for i, column in enumerate(columns):
        total = total + column * (i + 1)
    return torch.stack(made), total


def smaller_in_a_branch(x: Tensor):
    rows, columns = x.shape
    factor = 3
    if rows % 2 == 0:
        factor = min(columns, rows)
    for i in range(rows):
        factor = max(factor, columns - i)
    return x * factor


@pytest.mark.parametrize("function", [steps, left_early, returned, unbound, smaller_in_a_branch])
def test_loops_over_open_dimensions(function) -> None:
    check(function, *rows(3, 6, 2))


def methods(x: Tensor, name: str = "Layer.weight"):
    parts = [x, x * 2, x * 3]
    parts.extend([x * 4])
    del parts[0]
    order = [3, 1, 2]
    order.sort()
    parts.reverse()
    by_name: Dict[str, Tensor] = {"a": x}  # noqa: UP006
    by_name.update({"b": x * 2})
    first = by_name.pop("a") + by_name.setdefault("c", x * 3) + by_name.get("d", x * 7)
    del by_name["c"]
    words = name.split(".")
    if name.lower().startswith("layer") and words[1] == "weight":
        first = first + len(f"{words[0]}_{x.dim()}")
    return torch.cat(parts), first, order[0], len(by_name), order.index(3), sum(order)


def arithmetic(x: Tensor):
    n = x.size(0)
    bits = (n & 3) + (n | 1) + (n ^ 2) + (n << 1) + (n >> 1)
    return x * (bits + abs(3 - n) + divmod(n, 2)[0] + sum([n, 2]))


@pytest.mark.parametrize("function", [methods, arithmetic])
def test_methods_of_lists_dicts_and_texts(function) -> None:
    check(function, *rows(3, 6))


class Cells(torch.nn.Module):
    """`self` has another name, the state is a tuple, and a list grows by `+=`."""

    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTMCell(4, 5)
        self.gru = torch.nn.GRUCell(5, 5)
        self.rnn = torch.nn.RNNCell(5, 5)

    def forward(own, x: Tensor, state: Tuple[Tensor, Tensor], more: Optional[Tensor] = None):  # noqa: UP006, UP045
        made: List[Tensor] = []  # noqa: UP006
        if more is None:
            more = torch.zeros(x.size(1), 5)
        parts = x.unbind(0)
        for i in range(len(parts)):
            state = own.lstm(parts[i], state)
            more = own.rnn(own.gru(state[0], more))
            made += [more]
        return torch.stack(made), state


def test_cells_step_by_step() -> None:
    torch.manual_seed(SEED)
    states = [(torch.randn(batch, 5), torch.randn(batch, 5)) for batch in (2, 3)]
    check(Cells(), [torch.randn(3, 2, 4), states[0]], [torch.randn(6, 3, 4), states[1]])


def nested(x: Tensor):
    made: List[Tensor] = []  # noqa: UP006
    for i in range(x.size(0)):
        for j in range(i):
            made.append(x[i] - x[j])
        made += [x[i]]
    return torch.stack(made)


def test_a_list_grows_in_two_loops() -> None:
    check(nested, *rows(3, 5))


def by_keys(first: bool, given: Dict[str, Tensor]):  # noqa: UP006
    if first:
        return given["x"] * 2
    return given["y"] + given["x"]


def test_a_branch_reads_a_dict_of_inputs() -> None:
    """Without an example, a key's input is made where the key is first read."""
    model = ov.convert_model(torch.jit.script(by_keys))
    x, y = np.ones((3, 2), np.float32), np.full((3, 2), 7, np.float32)
    inputs = {port.any_name: port for port in model.inputs}
    assert sorted(inputs) == ["first.1", "x", "y"]
    for name in ("x", "y"):
        inputs[name].get_node().set_element_type(ov.Type.f32)
    model.reshape({port: [] if name == "first.1" else [3, 2] for name, port in inputs.items()})
    compiled = ov.compile_model(model, "CPU", EXACT)
    for first in (True, False):
        got = compiled({"first.1": np.array(first), "x": x, "y": y})[0]
        np.testing.assert_array_equal(got, x * 2 if first else y + x)


def growing(x: Tensor):
    made: List[Tensor] = []  # noqa: UP006
    for i in range(x.size(0)):
        made.append(x[i])
    return made


def test_a_list_of_unknown_length_is_no_output() -> None:
    with pytest.raises(UnsupportedError, match="length depends on data"):
        ov.convert_model(torch.jit.script(growing), example_input=(torch.zeros(3, 4),))


def refined(x: Tensor):
    """As Deformable DETR adds places to boxes, in a loop of a known number of iterations."""
    made: List[Tensor] = []  # noqa: UP006
    for i in range(3):
        boxes = x * (i + 2.0)
        places = boxes[..., :2]
        places += x[..., 2:]
        boxes[..., :2] = places
        made.append(boxes.sigmoid())
    return torch.stack(made)


class Counting(torch.nn.Module):
    """A loop writes to an attribute, which its next iteration reads."""

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x: Tensor):
        self.total.zero_()
        for i in range(3):
            self.total += x.sum(0) * float(i)
            x = x + self.total
        return x


def test_iterations_write_to_views_and_attributes() -> None:
    check(refined, *rows(3, 5))
    check(Counting().eval(), *rows(3, 5))


def test_an_iteration_tells_the_type_of_an_input() -> None:
    """Without an example the type of `x` is unknown before the first product."""

    class Repeated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x, times: int = 2):
            for _ in range(times):
                x = self.layer(x)
            return x

    script = torch.jit.script(Repeated().eval())
    for model in (
        ov.convert_model(script),
        ov.convert_model(Repeated().eval(), input=[([3, 4], np.float32)]),
    ):
        assert model.outputs[0].element_type == ov.Type.f32
    model = ov.convert_model(script, input=[([3, 4], np.float32), ([], np.int64)])
    x = torch.randn(3, 4)
    for times in (0, 1, 3):
        result = ov.compile_model(model, "CPU", EXACT)([x.numpy(), np.int64(times)])[0]
        np.testing.assert_allclose(result, script(x, times).detach().numpy(), 1e-5, 1e-5)


def by_views(x: Tensor):
    y = x.clone()
    rows = y.view(-1, 2, 2)
    rows[:, 0].zero_()
    rows.transpose(1, 2)[:, 1] = 9.0
    return y, rows.sum(1)


def by_turned_views(x: Tensor):
    y = x.clone()
    y.t()[1].add_(2.0)
    y.permute(1, 0)[0].mul_(3.0)
    y.mT[2].sub_(1.0)
    y.unsqueeze(0).neg_()
    y.unsqueeze(1).squeeze(1)[0] = 4.0
    return y


def by_parts_of_views(x: Tensor):
    y = x.clone()
    y.diagonal().fill_(0.0)
    y.diagonal(1).add_(7.0)
    y.narrow(1, 1, 2).add_(1.0)
    y.narrow(1, -2, 2).mul_(2.0)
    y.view_as(x)[1] = 4.0
    return y


def by_items(x: Tensor):
    y = x.clone()
    first, second = y.chunk(2, 1)
    first.mul_(2.0)
    second.add_(first)
    y.split(3, 1)[1].add_(1.0)
    y.split([1, 3], 1)[-1].neg_()
    return y


def by_items_of_copied_lists(x: Tensor):
    y = x.clone()
    parts = list(y.chunk(2, 1))
    parts[1].mul_(2.0)
    both = [y, x]
    y.add_(1.0)
    return both[0], both[1], y


def items_of_lists(x: Tensor):
    parts = [x.clone(), x + 1]
    by_name = {"a": x.clone(), "b": x}
    parts[0].mul_(2.0)
    by_name["a"].add_(1.0)
    for i in range(3):
        parts.append(x * i)
    for part in parts:
        part.add_(1.0)
    last = parts.pop()
    last.sub_(5.0)
    return parts[0] + parts[1], parts[3], last, by_name["a"], by_name["b"]


def items_written_in_a_branch(x: Tensor):
    parts = [x.clone(), x.clone()]
    if bool(x.sum() > 0):
        parts[0].mul_(2.0)
    else:
        parts[1].add_(3.0)
    return parts[0], parts[1]


WRITTEN = [by_views, by_turned_views, by_parts_of_views, by_items, by_items_of_copied_lists, items_of_lists]


@pytest.mark.parametrize("function", WRITTEN)
def test_writes_to_views_and_to_items_of_lists(function) -> None:
    check(function, *rows(3, 5))


def test_writes_to_items_in_a_branch() -> None:
    check(items_written_in_a_branch, *signs())


def rows_of_open_length(x: Tensor):
    y = x.clone()
    for row in y.unbind(0):
        row.mul_(2.0)
    return y


def views_in_a_list(x: Tensor):
    y = x.clone()
    views = [y[0], y[1]]
    y.mul_(2.0)
    return views[0]


def read_behind(x: Tensor):
    y = x.clone()
    part = y[1:]
    y.mul_(2.0)
    return part


def parts_of_what_is_written(x: Tensor):
    y = x.clone()
    parts = list(y.chunk(2, 1))
    y.mul_(2.0)
    return parts[0]


def of_many_kinds(x: Tensor):
    y = x.clone()
    wide, turned, windows = y.expand(2, -1, -1), y.t(), y.unfold(0, 2, 1)
    first, column = y[0], y[:, 1]
    y.mul_(2.0)
    first.add_(10.0)
    return wide, turned, windows, first, column, y


def before_a_branch(x: Tensor):
    y = x.clone()
    part = y[1:]
    if bool(y.sum() > 0):
        y.add_(1.0)
    else:
        part.mul_(2.0)
    return part, y


def before_loops(x: Tensor):
    y = x.clone()
    part = y[1:]
    for i in range(y.size(0)):
        y[i].add_(float(i))
    for _ in range(3):
        y.mul_(2.0)
    return part, y


@pytest.mark.parametrize("function", [views_in_a_list, read_behind, parts_of_what_is_written, of_many_kinds])
def test_views_have_new_values_of_what_is_written(function) -> None:
    check(function, *rows(3, 5))


@pytest.mark.parametrize("function", [before_a_branch, before_loops])
def test_views_have_what_branches_and_loops_write(function) -> None:
    check(function, *signs())


def listed_rows_of_open_length(x: Tensor):
    y = x.clone()
    parts = list(y.unbind(0))
    y.mul_(2.0)
    return parts[0]


def rows_appended_by_a_loop(x: Tensor):
    y = x.clone()
    parts: List[Tensor] = []  # noqa: UP006
    for i in range(y.size(0)):
        parts.append(y[i])
    y.mul_(2.0)
    return torch.stack(parts)


UNKNOWN = [rows_of_open_length, listed_rows_of_open_length, rows_appended_by_a_loop]


@pytest.mark.parametrize("function", UNKNOWN)
def test_views_that_would_need_their_new_values_are_refused(function) -> None:
    with pytest.raises(RuntimeError, match="writes to a view"):
        ov.convert_model(torch.jit.script(function), example_input=(torch.ones(3, 4),))


def reshaped_base(x: Tensor):
    base = x.clone()
    view = base[1:]
    before = view + 1
    made = base.unsqueeze_(0)
    base.transpose_(0, 2)
    made.add_(2)
    return base, view, before, made


def reshaped_view(x: Tensor):
    base = x.clone()
    view = base[:, 1:]
    view.t_()
    view.mul_(2)
    base[0].add_(3)
    return base, view


def reshaped_item(x: Tensor):
    base = x.clone()
    left, right = base.split([1, 3], dim=1)
    base.unsqueeze_(1)
    right.add_(5)
    base.mul_(2)
    return base, left, right


@pytest.mark.parametrize("function", [reshaped_base, reshaped_view, reshaped_item])
def test_views_of_what_is_reshaped_in_place(function) -> None:
    """Views stay as they are when the tensor that they are parts of gets another shape."""
    check(function, *rows(3, 5))


def steps_of_data(x: Tensor, ends: Tensor):
    total = 0
    for i in range(int(ends[0]), int(ends[1]), int(ends[2])):
        total += i * 2
    return x + 1, total


def test_ranges_whose_step_is_data() -> None:
    x = torch.ones(2)
    ends = [[1, 32, 1], [1, 32, 10], [32, 1, -1], [32, -31, -10], [1, 32, -2], [5, 5, 3], [7, 0, 2]]
    check(steps_of_data, *([x, torch.tensor(end)] for end in ends))


def contained(x: Tensor, index: Tensor):
    doubled = x * 2 if x.size(0) in [2, 3] else x * 3
    other = x + 1 if int(index) not in [1, 4] else x - 1
    if x.dim() in (1, 3):
        doubled = -doubled
    if 3 in x.size():
        other = -other
    return doubled, other, "a" in ["b", "a"]


def test_sizes_and_numbers_of_data_are_found_in_lists() -> None:
    check(contained, *([torch.ones(n, m), torch.tensor(i)] for n, m, i in ((2, 3, 1), (3, 4, 2), (4, 5, 4))))


def of_devices(x: Tensor):
    if x.device == torch.device("cpu") and x.device.index is None:
        x = x + 1
    if x.device.type == "cuda" or str(x.device) == "cuda:1":
        x = x * 3
    if x.device != torch.device("cuda", 1):
        x = x * 5
    return x.to(x.device), torch.zeros(2, device=x.device), x.new_ones(2, device=x.device)


def changed_bits(x: Tensor, y: Tensor):
    x = x.clone()
    z = x.__ixor__(y)
    x.__ilshift__(3)
    x.__irshift__(1)
    return x, z, x | y


def without_gradients(x: Tensor):
    with torch.no_grad():
        y = x * 2
        with torch.no_grad():
            y = y + x
    return y + 1


def test_contexts_of_gradients_change_nothing() -> None:
    check(without_gradients, [torch.ones(2)])


def test_devices_and_bits() -> None:
    check(of_devices, [torch.ones(2)])
    check(changed_bits, [torch.tensor([5, 6]), torch.tensor([3, 4])])


class Forked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3).requires_grad_(False)

    def forward(self, x, times: int):
        first = torch.jit.fork(self.layer, x)
        waiting = [torch.jit.fork(scaled, x, times), torch.jit.fork(scaled, x + 1, 3)]
        made = [torch.jit.wait(each) for each in waiting]
        return torch.jit.wait(first), made[0][0] + made[1][1]


def scaled(x, times: int):
    return x * times, x - times


def test_what_is_forked_is_read_where_it_starts() -> None:
    module, x = Forked().eval(), torch.randn(2, 3)
    script = torch.jit.script(module)
    compiled = ov.compile_model(ov.convert_model(script, example_input=(x, 2)), "CPU", EXACT)
    for i, want in enumerate(module(x, 2)):
        np.testing.assert_allclose(compiled([x.numpy()])[i], want.numpy(), rtol=1e-5, atol=1e-6)


def ranges(x: Tensor, ends: Tensor):
    start, end, step = float(ends[0]), float(ends[1]), float(ends[2])
    whole = torch.arange(start, end, step, dtype=torch.int64)
    return whole, torch.arange(start, end, step), torch.arange(int(end) + 9, out=torch.zeros(1)), x


def test_ranges_of_reals_as_integers() -> None:
    if len(torch.arange(0.5, 9.5, 2.5, dtype=torch.int64)) != 4:
        pytest.skip("PyTorch 2.13 truncates the ends and the step before it counts; 2.14 does not")
    ends = [[-2, 1, 1.25], [0.5, 2.5, 1], [0.5, 9.5, 2.5], [5.5, -3.25, -1.5], [3, 1, 0.5 * -1]]
    check(ranges, *([torch.ones(1), torch.tensor(end)] for end in ends))


def diagonals(x: Tensor, y: Tensor, z: Tensor):
    filled = x.fill_diagonal_(4.0), y.fill_diagonal_(5.0, wrap=True), z.fill_diagonal_(6.0)
    return filled, torch.diagflat(x, 1), x


def test_diagonals_of_tall_matrices_and_cubes() -> None:
    check(diagonals, *([torch.rand(*s), torch.rand(7, 3), torch.rand(3, 3, 3)] for s in ((2, 3), (5, 2))))


def negated_number(x: Tensor):
    number = x.sum().item()
    return x * -number, x + -x.max().item()


def test_numbers_that_a_script_reads_from_tensors_are_negated() -> None:
    check(negated_number, *signs())


def test_regions_are_scaled_by_numbers_that_a_script_computes() -> None:
    pytest.importorskip("torchvision")

    def regions(features: Tensor, image: Tensor, boxes: Tensor):
        scale = float(features.shape[2]) / float(image.shape[0])
        two_powers = float(2.0 ** torch.tensor(scale).log2().round())
        return torch.ops.torchvision.roi_align(features, boxes, two_powers, 3, 2, 2, True)

    boxes = torch.tensor([[0.0, 1.0, 2.0, 20.0, 25.0], [0.0, 8.0, 0.0, 30.0, 17.0]])
    generator = torch.Generator().manual_seed(SEED)
    features = torch.rand(1, 4, 8, 8, generator=generator)
    check(regions, [features, torch.zeros(32, 32), boxes], [features, torch.zeros(17, 32), boxes / 2])


def norms(x: Tensor):
    layout = torch.zeros([2, 3], dtype=x.dtype, layout=x.layout)
    return torch.norm(x), torch.norm(x, p=float("inf"), dim=[1]), torch.norm(x, p="nuc"), layout


def test_norms_ask_for_the_layout_of_their_tensor() -> None:
    check(norms, *rows(3, 5))


def steps_of_lists(x: Tensor):
    parts: List[Tensor] = []  # noqa: UP006
    for i in range(x.size(0)):
        parts.append(x[i] * i)
    backwards: List[Tensor] = [x[0]]  # noqa: UP006
    for part in parts[::-1]:
        backwards.append(part + backwards[-1])
    ends = torch.stack(parts[-2::-1]), torch.stack(parts[:1:-2]), torch.stack(parts[3:0:-1])
    return torch.stack(backwards), torch.stack(parts[::-1]), ends


def test_lists_of_unknown_length_are_cut_backwards() -> None:
    check(steps_of_lists, *rows(5, 8, 4))


@pytest.mark.parametrize("given", [False, True])
def test_traces_whose_arguments_have_one_name(given: bool) -> None:
    """A loop over `*tensors` calls them all by its variable: each is an input, as in OpenVINO."""

    class Sum(torch.nn.Module):
        def forward(self, *tensors):
            total = 0
            for number, tensor in enumerate(tensors):
                total = total * (number + 1) + tensor
            return total

    tensors = [torch.full((2, 3), float(value)) for value in (2, 3, 5)]
    traced = torch.jit.trace(Sum().eval(), tuple(tensors), check_trace=False)
    example = {"example_input": tuple(tensors)} if given else {}
    compiled = ov.compile_model(ov.convert_model(traced, **example), "CPU", EXACT)
    assert len(compiled.inputs) == 3 and len({port.any_name for port in compiled.inputs}) == 3
    got = compiled([tensor.numpy() for tensor in tensors])[0]
    np.testing.assert_array_equal(got, Sum()(*tensors).numpy())


def test_traces_whose_signature_tells_nothing(monkeypatch) -> None:
    """PyTorch's tests give script methods the signature (*args, **kwargs)."""
    traced = torch.jit.trace(torch.nn.Sigmoid(), torch.ones(2, 3), check_trace=False)
    real = inspect.signature

    def signature(value, **how):
        return (
            real(lambda *args, **kwargs: None)
            if type(value).__name__ == "ScriptMethod"
            else real(value, **how)
        )

    monkeypatch.setattr(inspect, "signature", signature)
    for example in ({}, {"example_input": torch.zeros(2, 3)}):
        compiled = ov.compile_model(ov.convert_model(traced, **example), "CPU", EXACT)
        np.testing.assert_allclose(compiled(np.zeros((2, 3), np.float32))[0], 0.5)


def test_a_branch_on_sizes_that_are_the_same_is_decided() -> None:
    """DeBERTa compares the lengths of queries and keys; the branches have different ranks."""

    def parts(x: Tensor):
        y = torch.tanh(x)
        first = x[0] if x.size(0) != y.size(0) else x.unsqueeze(0)
        second = x.unsqueeze(0) if x.size(1) <= y.size(1) and x.size(0) == y.size(0) else x[0]
        return first[:, :, 0] + second[:, :, 1]

    check(parts, *rows(3, 5))
