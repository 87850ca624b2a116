"""Linear layers with packed weights: the pattern of compressed weights, beside the layers themselves."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import ovjit as ov

torch = pytest.importorskip("torch")
SEED = 20261123
IN, OUT, GROUP = 64, 48, 32
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def packed(values, bits, axis):
    """Integers in words of 32 bits along an axis, the first in the lowest bits."""
    values = values.movedim(axis, -1).reshape(*values.movedim(axis, -1).shape[:-1], -1, 32 // bits)
    words = sum(values[..., i].long() << bits * i for i in range(32 // bits))
    words = torch.where(words >= 1 << 31, words - (1 << 32), words).int()
    return words.movedim(-1, axis)


def integers(bits, *shape):
    return torch.randint(0, 1 << bits, shape, generator=torch.Generator().manual_seed(SEED))


class Gptq(torch.nn.Module):
    """GPTQ's buffers and arithmetic. `first` is the format whose stored zero points are one less."""

    def __init__(self, bits=4, shuffled=False, first=True, dtype=torch.float16):
        super().__init__()
        self.bits, self.group_size, self.first = bits, GROUP, first
        groups = IN // GROUP
        self.codes, self.zeros = integers(bits, IN, OUT), integers(bits, groups, OUT)
        order = torch.randperm(IN) if shuffled else torch.arange(IN)
        self.register_buffer("qweight", packed(self.codes, bits, 0))
        self.register_buffer("qzeros", packed(self.zeros, bits, 1))
        self.register_buffer("scales", (torch.rand(groups, OUT) * 0.02 + 0.01).to(dtype))
        self.register_buffer("g_idx", (torch.arange(IN) // GROUP)[order].int())
        self.register_buffer("bias", torch.randn(OUT).to(dtype))

    def forward(self, x):
        shifts = torch.arange(0, 32, self.bits)
        mask = (1 << self.bits) - 1
        codes = ((self.qweight[:, None, :] >> shifts[None, :, None]) & mask).reshape(IN, OUT)
        zeros = ((self.qzeros[:, :, None] >> shifts) & mask).reshape(-1, OUT) + int(self.first)
        group = self.g_idx.long()
        return x @ ((codes - zeros[group]) * self.scales.float()[group]).to(x.dtype) + self.bias.to(x.dtype)


class Awq(torch.nn.Module):
    """AWQ's buffers and arithmetic; words hold eight outputs in an order of their own."""

    def __init__(self):
        super().__init__()
        self.w_bit, self.group_size, self.in_features, self.out_features = 4, GROUP, IN, OUT
        groups = IN // GROUP
        self.codes, self.zeros = integers(4, IN, OUT), integers(4, groups, OUT)
        mixed = lambda v: v.reshape(v.shape[0], -1, 8)[..., AWQ_ORDER].reshape(v.shape)  # noqa: E731
        self.register_buffer("qweight", packed(mixed(self.codes), 4, 1))
        self.register_buffer("qzeros", packed(mixed(self.zeros), 4, 1))
        self.register_buffer("scales", (torch.rand(groups, OUT) * 0.02 + 0.01).half())
        self.bias = None

    def forward(self, x):
        def apart(words):
            flat = (words[:, :, None] >> torch.arange(0, 32, 4)) & 15
            return flat[..., torch.tensor(AWQ_ORDER).argsort()].reshape(words.shape[0], -1)

        zeros = apart(self.qzeros).repeat_interleave(GROUP, 0)
        return x @ ((apart(self.qweight) - zeros) * self.scales.float().repeat_interleave(GROUP, 0)).to(
            x.dtype
        )


class OnlyOnAnotherDevice(Gptq):
    """A layer whose kernels do not run here."""

    def forward(self, x):
        raise RuntimeError("no kernel for the CPU")


class Net(torch.nn.Module):
    """A packed layer between others."""

    def __init__(self, layer):
        super().__init__()
        self.before = torch.nn.Linear(8, IN)
        self.layer = layer

    def forward(self, x):
        return torch.relu(self.layer(self.before(x)))


def constants(model):
    return [str(o.get_element_type()) for o in model.get_ops() if o.get_type_name() == "Constant"]


def compare(module, kind, tolerance=2e-3, wanted=None):
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(SEED))
    model = ov.convert_model(module.eval(), example_input=x)
    assert any(kind in text for text in constants(model)), constants(model)
    assert not any("i32" in text for text in constants(model)), "packed words are left in the graph"
    with torch.no_grad():
        wanted = module(x).numpy() if wanted is None else wanted(x)
    got = ov.compile_model(model, "CPU", EXACT)(x.numpy())[0]
    np.testing.assert_allclose(
        got, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max(), err_msg=f"seed {SEED}"
    )
    return model


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(SEED)


@pytest.mark.parametrize(
    "bits, shuffled, first, dtype",
    [(4, False, True, torch.float16), (4, True, False, torch.float16), (8, True, True, torch.float16),
     (8, False, False, torch.float16), (4, False, True, torch.float32)],
)  # fmt: skip
def test_gptq(bits, shuffled, first, dtype) -> None:
    compare(Net(Gptq(bits, shuffled, first, dtype)), f"uint{bits}")


def test_awq() -> None:
    compare(Net(Awq()), "uint4")


@pytest.mark.parametrize("index", [None, torch.empty(0, dtype=torch.int32)])
def test_gptq_without_an_index_of_groups(index) -> None:
    """Kernels for groups in order drop it once they are prepared."""

    class Ordered(Gptq):
        def forward(self, x):
            self.g_idx, kept = torch.arange(IN) // GROUP, self.g_idx
            made = super().forward(x)
            self.g_idx = kept
            return made

    layer = Ordered()
    layer.g_idx = index
    compare(Net(layer), "uint4")


def test_a_forward_that_a_hook_has_set_stays() -> None:
    module = Net(Gptq())
    inner = module.layer.forward
    module.layer.forward = hooked = lambda x: inner(x)
    compare(module, "uint4")
    assert module.layer.forward is hooked


def test_the_module_is_as_before_and_the_weights_stay_packed(tmp_path) -> None:
    module = Net(Gptq())
    model = compare(module, "uint4")
    assert "forward" not in vars(module.layer)
    kinds = [node.get_type_name() for node in model.get_ordered_ops()]
    assert kinds.count("MatMul") == 2 and kinds.count("Subtract") == 1
    file = tmp_path / "m.xml"
    ov.save_model(model, file, compress_to_fp16=False)
    size = (tmp_path / "m.bin").stat().st_size
    assert size < IN * OUT / 2 + 4 * 8 * IN + 2000, f"{size} bytes"


def test_a_layer_without_kernels_for_the_cpu() -> None:
    module, same = Net(OnlyOnAnotherDevice()), Gptq()
    same.load_state_dict(module.layer.state_dict())
    compare(module, "uint4", wanted=lambda x: torch.relu(same(module.before(x))).numpy())


def test_what_only_looks_like_a_packed_layer_keeps_its_arithmetic() -> None:
    class Other(Gptq):
        def forward(self, x):
            return super().forward(x) * 3

    module = Net(Other()).eval()
    x = torch.randn(5, 8)
    model = ov.convert_model(module, example_input=x)
    assert not any("uint4" in text for text in constants(model))
    got = ov.compile_model(model, "CPU", EXACT)(x.numpy())[0]
    np.testing.assert_allclose(got, module(x).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_layers_in_what_is_exported() -> None:
    """A module that torch.jit cannot trace goes by torch.export, and its layers are packed there too."""

    class Untraceable(Net):
        def forward(self, x):
            if torch.jit.is_tracing():
                raise RuntimeError("not traced")
            return super().forward(x)

    compare(Untraceable(Gptq()), "uint4")


@pytest.mark.parametrize("bits", [8, 4])
def test_torchao(bits) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    module = torch.nn.Sequential(torch.nn.Linear(8, IN), torch.nn.Linear(IN, OUT)).eval()
    if bits == 8:
        config = quantization.Int8WeightOnlyConfig()
    else:
        groups = quantization.PerGroup(GROUP)
        config = quantization.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=groups)
    quantization.quantize_(module, config, lambda m, name: name == "1")
    compare(module, f"int{bits}")


class OfCompressedTensors(torch.nn.Linear):
    """compressed-tensors' parameters, and the arithmetic that it has after it unpacks them."""

    def __init__(self, bits, symmetric, groups, shuffled):
        super().__init__(IN, OUT)
        del self.weight
        dress(self, OUT, bits, symmetric, groups, shuffled)

    def forward(self, x):
        return torch.nn.functional.linear(x, self.real_weights, self.bias)


class TableOfCompressedTensors(torch.nn.Embedding):
    """An embedding with the same parameters."""

    def __init__(self, bits, symmetric, groups, shuffled):
        super().__init__(OUT, IN)
        del self.weight
        dress(self, OUT, bits, symmetric, groups, shuffled)

    def forward(self, ids):
        return torch.nn.functional.embedding(ids, self.real_weights)


def dress(module, rows, bits, symmetric, groups, shuffled):
    codes, zeros = integers(bits, rows, IN), integers(bits, rows, groups)
    order = torch.randperm(IN) if shuffled else torch.arange(IN)
    group = (torch.arange(IN) // (IN // groups))[order]
    module.quantization_scheme = SimpleNamespace(
        weights=SimpleNamespace(num_bits=bits, type="int", symmetric=symmetric), input_activations=None
    )
    module.register_buffer("weight_packed", packed(codes, bits, 1))
    module.register_buffer("weight_scale", torch.rand(rows, groups) * 0.02 + 0.01)
    if shuffled:
        module.register_buffer("weight_g_idx", group.int())
    if symmetric:
        zeros = torch.full_like(zeros, 1 << bits - 1)
    else:
        module.register_buffer("weight_zero_point", packed(zeros, bits, 0))
    module.real_weights = (codes - zeros[:, group]) * module.weight_scale[:, group]


STORED = [(4, True, 2, False), (4, False, 2, False), (4, False, 1, False), (4, False, 4, True),
          (8, True, 1, False), (8, False, 2, True), (2, True, 2, False)]  # fmt: skip


def kind_of(bits, symmetric, *_):
    return f"'{'' if symmetric else 'u'}int{max(bits, 4)}_t"


@pytest.mark.parametrize("stored", STORED)
def test_compressed_tensors(stored) -> None:
    compare(Net(OfCompressedTensors(*stored)), kind_of(*stored))


@pytest.mark.parametrize("stored", STORED)
def test_embeddings_of_compressed_tensors(stored) -> None:
    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = TableOfCompressedTensors(*stored)

        def forward(self, x):
            return self.layer((x * 10).long().abs() % OUT)

    compare(Words(), kind_of(*stored))


def test_compressed_tensors_without_unpacked_weights() -> None:
    """As they are loaded: a layer cannot run before its package unpacks the weights."""
    layer = OfCompressedTensors(4, False, 2, False)
    weights = layer.real_weights
    del layer.real_weights
    module = Net(layer)

    def wanted(x):
        return torch.relu(module.before(x) @ weights.T + layer.bias).numpy()

    compare(module, "uint4", wanted=wanted)


class Nibbles(torch.nn.Module):
    """NNCF's arithmetic for weights of 4 bits, two in a byte."""

    def __init__(self, signed, last=-1):
        super().__init__()
        self.signed, self.last = signed, last
        generator = torch.Generator().manual_seed(SEED)
        stored = torch.randint(0, 256, (OUT, IN // 2), dtype=torch.uint8, generator=generator)
        self.register_buffer("stored", stored)
        self.register_buffer("zeros", integers(4, OUT, IN // GROUP, 1).to(torch.uint8))
        self.register_buffer("scales", torch.rand(OUT, IN // GROUP, 1, generator=generator))

    def forward(self, x):
        halves = torch.bitwise_and(self.stored, 15), torch.bitwise_right_shift(self.stored, 4)
        codes = torch.stack(halves, dim=self.last)
        if self.signed:
            weights = (codes.type(torch.int8) - 8).reshape(OUT, -1, GROUP) * self.scales
        else:
            codes = codes.reshape(OUT, -1, GROUP).type(torch.float32)
            weights = (codes - self.zeros.type(torch.float32)) * self.scales
        return x @ weights.reshape(OUT, IN).T


@pytest.mark.parametrize("kind", ["u4", "i4"])
def test_weights_that_are_unpacked_from_bytes(kind, tmp_path) -> None:
    module, x = Nibbles(kind == "i4").eval(), torch.rand(5, IN)
    model = ov.convert_model(module, example_input=x)
    kinds = {n.get_element_type().to_string(): n for n in model.get_ops() if n.get_type_name() == "Constant"}
    assert kind in kinds and list(kinds[kind].shape) == [OUT, IN // GROUP, GROUP]
    assert not {"BitwiseAnd", "BitwiseRightShift", "Concat"} & {n.get_type_name() for n in model.get_ops()}
    ov.save_model(model, tmp_path / "m.xml", compress_to_fp16=False)
    exact = {**EXACT, "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    for given in (model, tmp_path / "m.xml"):
        result = ov.compile_model(given, "CPU", exact)(x.numpy())[0]
        np.testing.assert_allclose(result, module(x).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("last", [0, 1])
def test_halves_of_bytes_in_another_order_keep_their_arithmetic(last) -> None:
    module, x = Nibbles(False, last).eval(), torch.rand(5, IN)
    model = ov.convert_model(module, example_input=x)
    exact = {**EXACT, "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    result = ov.compile_model(model, "CPU", exact)(x.numpy())[0]
    np.testing.assert_allclose(result, module(x).numpy(), rtol=1e-4, atol=1e-4)
