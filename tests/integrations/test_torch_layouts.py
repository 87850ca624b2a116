"""Strides of results of torch.compile, where PyTorch's kernels choose them: those that its graphs tell."""

import pytest

torch = pytest.importorskip("torch")

import ovjit.torch  # noqa: E402, F401
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from ovjit.compat.frontend.pytorch.torchdynamo import partition  # noqa: E402
from ovjit.readers.torch.tracing.strides import hint  # noqa: E402

F = torch.nn.functional
CONFIG = {"config": {"INFERENCE_PRECISION_HINT": "f32"}}


def _last(*shape):
    kind = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    return torch.randn(*shape).to(memory_format=kind)


#: A function and its input.
CASES = {
    "group_norm": (lambda x: F.group_norm(x, 2), _last(2, 8, 5, 6)),
    "group_norm of volumes": (lambda x: F.group_norm(x, 2), _last(2, 8, 3, 5, 6)),
    "group_norm in order": (lambda x: F.group_norm(x, 2), torch.randn(2, 8, 5, 6)),
    "roll": (lambda x: x.roll(1, 2), _last(2, 8, 5, 6)),
    "roll of two axes": (lambda x: x.roll((1, 2), (2, 3)), _last(2, 8, 5, 6)),
    "roll of permuted axes": (lambda x: x.roll(1, 0), torch.randn(4, 6, 3).permute(2, 0, 1)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), _last(2, 8, 5, 6)),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), _last(2, 8, 4, 6)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), _last(2, 8, 5, 6)),
    "unsafe_chunk": (lambda x: x.unsafe_chunk(3, 1), torch.randn(2, 8)),
    "unsafe_chunk of images": (lambda x: x.unsafe_chunk(3, 1), _last(2, 8, 5, 6)),
    "unsafe_split": (lambda x: (x * 2).unsafe_split(3, 1), torch.randn(2, 8)),
    "unsafe_split_with_sizes": (lambda x: (x * 2).unsafe_split_with_sizes([3, 5], 1), torch.randn(2, 8)),
    "what follows": (
        lambda x: (F.group_norm(x, 2).relu() + 1, F.max_pool2d(x.roll(1, 2), 2)),
        _last(2, 8, 5, 6),
    ),
    "a convolution": (lambda x: F.conv2d(F.group_norm(x, 2), torch.ones(3, 8, 1, 1)), _last(2, 8, 5, 6)),
    "a view": (lambda x: F.group_norm(x, 2).transpose(1, 3), _last(2, 8, 5, 6)),
    "a view with gaps": (lambda x: F.group_norm(x, 2)[:, ::2], _last(2, 8, 5, 6)),
    "a copy": (lambda x: F.group_norm(x, 2).reshape(2, -1), _last(2, 8, 5, 6)),
    "a copy that is changed": (lambda x: F.group_norm(x, 2).reshape(2, -1) + 1, _last(2, 8, 5, 6)),
    "a sort": (lambda x: x.sort(1), _last(2, 8, 5, 6)),
    "attention": (
        lambda x: F.scaled_dot_product_attention(x, x, x),
        torch.randn(2, 5, 3, 8).transpose(1, 2),
    ),
    "numbers of a draw": (lambda x: F.group_norm(x, 2) + torch.rand_like(x) * 0, _last(2, 8, 5, 6)),
}


def _strides_by_rules(function, x, dynamic):
    """Strides of results by PyTorch's rules for graphs, which may differ from those of its kernels."""
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    sizes = StatelessSymbolicContext([DimDynamic.DYNAMIC if dynamic else DimDynamic.STATIC] * x.ndim)
    with FakeTensorMode(shape_env=ShapeEnv()) as mode:
        results = torch.utils._pytree.tree_leaves(function(mode.from_tensor(x, symbolic_context=sizes)))
    return [tuple(map(hint, result.stride())) for result in results]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_kernels_that_choose_their_strides(name, dynamic) -> None:
    function, x = CASES[name]
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(function, backend="openvino", options=CONFIG, dynamic=dynamic)
        got, wanted = (torch.utils._pytree.tree_leaves(f(x.clone())) for f in (compiled, function))
    for a, b, rule in zip(got, wanted, _strides_by_rules(function, x, dynamic), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        assert a.stride() == rule


def test_a_kernel_in_eager_mode_and_a_copy_of_its_result() -> None:
    """The graph has a view, as PyTorch's rules tell other strides than the kernel gives."""
    options = {**CONFIG, "disabled_ops": ["aten::native_group_norm"]}
    x = _last(2, 8, 5, 6)
    compiled = torch.compile(lambda x: F.group_norm(x, 2).reshape(2, -1), backend="openvino", options=options)
    with torch.no_grad(), pytest.warns(UserWarning, match="native_group_norm"):
        partition._WARNINGS.clear()
        torch.testing.assert_close(compiled(x), F.group_norm(x, 2).reshape(2, -1), rtol=1e-5, atol=1e-5)


def test_asking_for_strides_draws_no_numbers() -> None:
    def function(x):
        return F.group_norm(x, 2), torch.bernoulli(x.sigmoid())

    x = _last(2, 8, 5, 6)
    compiled = torch.compile(function, backend="openvino", options=CONFIG)
    with torch.no_grad():
        made = []
        for call in (compiled, function):
            torch.manual_seed(3)
            made.append((call(x)[1], torch.rand(2)))
    for a, b in zip(*made, strict=True):
        assert a.equal(b)
