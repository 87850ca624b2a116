"""com.microsoft's operators beside ONNX Runtime, which defines them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import ovjit as ov

MS = "com.microsoft"
F = np.float32


def build(
    op: str, inputs: list, outputs: int, constants: tuple[int, ...] = (), domain: str = MS,
    **attributes: Any,
) -> tuple[bytes, dict[str, np.ndarray]]:  # fmt: skip
    """(a model of one node, the values of its inputs); `constants` are initializers, None is left out."""
    names = [f"x{i}" if v is not None else "" for i, v in enumerate(inputs)]
    outs = [f"y{i}" for i in range(outputs)]
    made = helper.make_node(op, names, outs, domain=domain, **attributes)
    infos, initializers, given = [], [], {}
    for i, (name, value) in enumerate(zip(names, inputs, strict=True)):
        if value is None:
            continue
        if i in constants:
            initializers.append(onnx.numpy_helper.from_array(value, name))
        else:
            infos.append(
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            )
            given[name] = value
    graph = helper.make_graph(
        [made],
        "g",
        infos,
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outs],
        initializers,
    )
    for info in graph.output:
        info.ClearField("type")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString(), given


def r(*shape: int, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(abs(hash(shape)) % 1000)
    return (rng.standard_normal(shape) * scale).astype(F)


def u8(*shape: int, low: int = 0, high: int = 255) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(low, high, shape).astype(np.uint8)


def i8(*shape: int) -> np.ndarray:
    """Weights of 7 bits: sums of wider ones saturate in ONNX Runtime on CPUs without VNNI."""
    return np.random.default_rng(sum(shape)).integers(-64, 64, shape).astype(np.int8)


def f(value: Any) -> np.ndarray:
    return np.array(value, F)


def z(value: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.array(value, dtype)


def rotary(length: int, half: int) -> list[np.ndarray]:
    angles = np.outer(np.arange(length), 1 / 10 ** (np.arange(half) / half))
    return [np.cos(angles).astype(F), np.sin(angles).astype(F)]


def nbits(rows: int, depth: int, block: int, bits: int, zeros: bool) -> list[np.ndarray | None]:
    blocks = -(-depth // block)
    packed = u8(rows, blocks, block * bits // 8)
    scales = r(rows * blocks, scale=0.1)
    zero = u8(rows * -(-blocks * bits // 8)) if zeros else None
    return [r(3, depth), packed, scales, zero]


A = (2, 5, 8)
ZERO = z(0, np.int8).reshape(1)
LSTM = [
    r(4, 2, 3),
    i8(1, 3, 20),
    i8(1, 5, 20),
    r(1, 40),
    None,
    None,
    None,
    None,
    f([0.01]),
    ZERO,
    f([0.02]),
    ZERO,
]

#: name -> (operator, inputs, number of outputs, which inputs are constants, attributes, tolerance)
CASES: dict[str, tuple[str, list[np.ndarray | None], int, tuple[int, ...], dict[str, Any], float]] = {
    "Gelu": ("Gelu", [r(2, 17)], 1, (), {}, 1e-5),
    "FastGelu": ("FastGelu", [r(2, 17), r(17)], 1, (1,), {}, 1e-4),
    "FastGelu without bias": ("FastGelu", [r(2, 17)], 1, (), {}, 1e-4),
    "BiasGelu": ("BiasGelu", [r(2, 17), r(17)], 1, (1,), {}, 1e-5),
    "QuickGelu": ("QuickGelu", [r(2, 17)], 1, (), {"alpha": 1.5}, 1e-5),
    "FusedMatMul": (
        "FusedMatMul",
        [r(2, 3, 4), r(2, 5, 3)],
        1,
        (),
        {"transA": 1, "transB": 1, "alpha": 0.5},
        1e-5,
    ),
    "FusedMatMul of batches": ("FusedMatMul", [r(3, 2, 4), r(2, 4, 5)], 1, (), {"transBatchA": 1}, 1e-5),
    "FusedGemm": (
        "FusedGemm",
        [r(3, 4), r(4, 5), r(5)],
        1,
        (1, 2),
        {"activation": "Relu", "alpha": 0.5, "beta": 2.0},
        1e-5,
    ),
    "FusedConv": ("FusedConv", [r(1, 3, 8, 8), r(4, 3, 3, 3), r(4)], 1, (1, 2), {"activation": "Relu"}, 1e-4),
    "LayerNormalization of a skip": (
        "SkipLayerNormalization",
        [r(*A), r(3, 5, 8)[:2], r(8), r(9)[:8], r(11)[:8]],
        4,
        (2, 3, 4),
        {},
        1e-4,
    ),
    "SkipSimplifiedLayerNormalization": (
        "SkipSimplifiedLayerNormalization",
        [r(*A), r(3, 5, 8)[:2], r(8)],
        1,
        (2,),
        {},
        1e-4,
    ),
    "EmbedLayerNormalization": (
        "EmbedLayerNormalization",
        [
            np.array([[1, 3, 2], [0, 4, 4]], np.int32),
            np.array([[0, 1, 1], [0, 0, 1]], np.int32),
            r(5, 8),
            r(6, 8),
            r(2, 8),
            r(8),
            r(9)[:8],
            np.array([[1, 1, 0], [1, 1, 1]], np.int32),
        ],
        2,
        (2, 3, 4, 5, 6),
        {},
        1e-4,
    ),
    "Attention": ("Attention", [r(2, 5, 8), r(8, 24), r(24)], 1, (1, 2), {"num_heads": 2}, 1e-4),
    "Attention, causal, masked": (
        "Attention",
        [r(2, 5, 8), r(8, 24), r(24), np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)],
        1,
        (1, 2),
        {"num_heads": 2, "unidirectional": 1},
        1e-4,
    ),
    "Attention with lengths": (
        "Attention",
        [r(2, 5, 8), r(8, 24), r(24), np.array([5, 3], np.int32)],
        1,
        (1, 2),
        {"num_heads": 2},
        1e-4,
    ),
    "Attention with a past": (
        "Attention",
        [r(2, 3, 8), r(8, 24), r(24), None, r(2, 2, 2, 4, 4)],
        2,
        (1, 2),
        {"num_heads": 2, "unidirectional": 1},
        1e-4,
    ),
    "MultiHeadAttention": (
        "MultiHeadAttention",
        [r(2, 5, 8), r(2, 7, 8), r(2, 7, 8)],
        1,
        (),
        {"num_heads": 2},
        1e-4,
    ),
    "MultiHeadAttention with bias and mask": (
        "MultiHeadAttention",
        [r(2, 5, 8), r(2, 5, 8), r(2, 5, 8), r(24), np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], np.int32)],
        1,
        (3,),
        {"num_heads": 2},
        1e-4,
    ),
    "MultiHeadAttention with a past": (
        "MultiHeadAttention",
        [r(2, 3, 8), r(2, 3, 8), r(2, 3, 8), None, None, r(1, 2, 3, 7), r(2, 2, 4, 4), r(2, 2, 4, 4)],
        3,
        (),
        {"num_heads": 2, "scale": 0.3},
        1e-4,
    ),
    "GroupQueryAttention of a prompt": (
        "GroupQueryAttention",
        [
            r(1, 6, 32),
            r(1, 6, 16),
            r(1, 6, 16),
            r(1, 2, 0, 8),
            r(1, 2, 0, 8),
            np.array([5], np.int32),
            np.array(6, np.int32),
        ],
        3,
        (),
        {"num_heads": 4, "kv_num_heads": 2},
        1e-4,
    ),
    "GroupQueryAttention of a step": (
        "GroupQueryAttention",
        [
            r(1, 1, 64),
            r(1, 1, 32),
            r(1, 1, 32),
            r(1, 2, 6, 16),
            r(1, 2, 6, 16),
            np.array([6], np.int32),
            np.array(7, np.int32),
            *rotary(16, 8),
        ],
        3,
        (7, 8),
        {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1},
        1e-4,
    ),
    "GroupQueryAttention, packed, windowed": (
        "GroupQueryAttention",
        [
            r(1, 6, 128),
            None,
            None,
            r(1, 2, 0, 16),
            r(1, 2, 0, 16),
            np.array([5], np.int32),
            np.array(6, np.int32),
            *rotary(16, 8),
        ],
        3,
        (7, 8),
        {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1, "rotary_interleaved": 1, "local_window_size": 3},
        1e-4,
    ),
    "RotaryEmbedding": (
        "RotaryEmbedding",
        [r(2, 5, 16), np.array([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]]), *rotary(16, 4)],
        1,
        (2, 3),
        {},
        1e-5,
    ),
    "RotaryEmbedding from a begin, interleaved": (
        "RotaryEmbedding",
        [r(2, 2, 5, 8), np.array([3]), *rotary(16, 4)],
        1,
        (2, 3),
        {"interleaved": 1},
        1e-5,
    ),
    "MatMulNBits of 4": (
        "MatMulNBits",
        nbits(5, 64, 32, 4, False),
        1,
        (1, 2, 3),
        {"N": 5, "K": 64, "bits": 4, "block_size": 32},
        1e-3,
    ),
    "MatMulNBits with zero points": (
        "MatMulNBits",
        nbits(5, 96, 32, 4, True),
        1,
        (1, 2, 3),
        {"N": 5, "K": 96, "bits": 4, "block_size": 32},
        1e-3,
    ),
    "QLinearAdd": (
        "QLinearAdd",
        [u8(3, 7), f(0.1), z(3), u8(3, 7), f(0.2), z(9), f(0.25), z(5)],
        1,
        (1, 2, 4, 5, 6, 7),
        {},
        1,
    ),
    "QLinearMul": (
        "QLinearMul",
        [u8(3, 7), f(0.1), z(3), u8(3, 7), f(0.2), z(9), f(1.5), z(5)],
        1,
        (1, 2, 4, 5, 6, 7),
        {},
        1,
    ),
    "QLinearSigmoid": (
        "QLinearSigmoid",
        [u8(3, 7), f(0.1), z(120), f(1 / 256), z(0)],
        1,
        (1, 2, 3, 4),
        {},
        1,
    ),
    "QLinearLeakyRelu": (
        "QLinearLeakyRelu",
        [u8(3, 7), f(0.1), z(120), f(0.1), z(20)],
        1,
        (1, 2, 3, 4),
        {"alpha": 0.1},
        1,
    ),
    "QLinearGlobalAveragePool": (
        "QLinearGlobalAveragePool",
        [u8(1, 3, 5, 5), f(0.1), z(12), f(0.1), z(12)],
        1,
        (1, 2, 3, 4),
        {},
        1,
    ),
    "QLinearAveragePool": (
        "QLinearAveragePool",
        [u8(1, 3, 6, 6), f(0.1), z(12), f(0.1), z(12)],
        1,
        (1, 2, 3, 4),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        1,
    ),
    "QLinearConcat": (
        "QLinearConcat",
        [f(0.3), z(2), u8(2, 3), f(0.2), z(1), u8(2, 4), f(0.3), z(2)],
        1,
        (0, 1, 3, 4, 6, 7),
        {"axis": 1},
        1,
    ),
    "QLinearSoftmax": (
        "QLinearSoftmax",
        [u8(3, 7), f(0.1), z(120), f(1 / 256), z(0)],
        1,
        (1, 2, 3, 4),
        {"axis": -1, "opset": 13},
        1,
    ),
    "QGemm": (
        "QGemm",
        [
            u8(3, 6),
            f(0.1),
            z(100),
            i8(5, 6),
            f(0.02),
            z(0, np.int8),
            np.arange(5, dtype=np.int32) * 30,
            f(0.2),
            z(7),
        ],
        1,
        (1, 2, 3, 4, 5, 6, 7, 8),
        {"transB": 1},
        1,
    ),
    "QGemm to real numbers": (
        "QGemm",
        [u8(3, 6), f(0.1), z(100), i8(6, 5), f(0.02), z(0, np.int8), np.arange(5, dtype=np.int32) * 30],
        1,
        (1, 2, 3, 4, 5, 6),
        {},
        1e-4,
    ),
    "MatMulIntegerToFloat": (
        "MatMulIntegerToFloat",
        [u8(3, 6), i8(6, 5), f(0.1), f(0.02), z(100), z(3, np.int8), r(5)],
        1,
        (1, 2, 3, 4, 5, 6),
        {},
        1e-4,
    ),
    "DynamicQuantizeMatMul": (
        "DynamicQuantizeMatMul",
        [r(3, 6), i8(6, 5), f(0.02), z(3, np.int8), r(5)],
        1,
        (1, 2, 3, 4),
        {},
        1e-4,
    ),
    "QAttention": (
        "QAttention",
        [u8(2, 5, 8), i8(8, 24), r(24), f(0.02), f(0.02), None, z(120), z(0, np.int8)],
        1,
        (1, 2, 3, 4, 6, 7),
        {"num_heads": 2},
        1e-3,
    ),
    "DynamicQuantizeLSTM": ("DynamicQuantizeLSTM", LSTM, 3, tuple(range(1, 12)), {"hidden_size": 5}, 2e-2),
}


def qmoe(bits: int, block: int, zeros: bool, fused: int, mixing: bool) -> list[np.ndarray | None]:
    """Inputs of a mixture of four experts with two layers of packed weights."""
    rng = np.random.default_rng(bits + block)

    def layer(out: int, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        packed = rng.integers(0, 256, (4, out, depth * bits // 8)).astype(np.uint8)
        scales = rng.uniform(0.01, 0.03, (4, out, depth // block) if block else (4, out)).astype(F)
        lines = (4, out, -(-(depth // block) * bits // 8)) if block else (4, -(-out * bits // 8))
        zero = rng.integers(0, 256, lines).astype(np.uint8) if zeros else None
        return packed, scales, r(4, out), zero

    (w1, s1, b1, z1), (w2, s2, b2, z2) = layer(64 * (1 + fused), 32), layer(32, 64)
    inputs = [r(5, 32), r(5, 4), w1, s1, b1, w2, s2, b2, None, None, None, z1, z2, None]
    inputs.append(np.abs(r(6, 4)[:5]) if mixing else None)
    while inputs[-1] is None:
        inputs.pop()
    return inputs


SWIGLU = {"activation_type": "swiglu", "swiglu_fusion": 1, "activation_alpha": 1.7, "activation_beta": 1.0,
          "swiglu_limit": 7.0}  # fmt: skip
for _bits, _block, _zeros, _more in (
    (4, 0, False, {}), (4, 16, True, {}), (8, 0, True, {}), (2, 0, False, {"activation_type": "silu"}),
    (4, 16, False, SWIGLU), (4, 0, False, {"mixing": 1}),
):  # fmt: skip
    _given = qmoe(_bits, _block, _zeros, int("swiglu_fusion" in _more), "mixing" in _more)
    _attributes = {"k": 2, "expert_weight_bits": _bits, **({"block_size": _block} if _block else {}),
                   **{k: v for k, v in _more.items() if k != "mixing"}}  # fmt: skip
    CASES[f"QMoE of {_bits} in {_block}, {_zeros}, {list(_more)}"] = (
        "QMoE", _given, 1, tuple(range(2, 14)), _attributes, 1e-4,
    )  # fmt: skip
CASES["ScaledSiLU"] = ("ScaledSiLU", [r(3, 4)], 1, (), {"alpha": 1.3}, 1e-5)
CASES["ScaledSiLU by an input"] = ("ScaledSiLU", [r(3, 4), f(0.7)], 1, (), {}, 1e-5)
CASES["GatedAdd"] = ("GatedAdd", [r(2, 3, 4), r(2, 3, 5)[..., :4].copy(), r(2, 3, 1)], 1, (), {}, 1e-6)

_gate_inputs: list[np.ndarray | None] = [r(2, 3, 4), r(4), -abs(r(4, scale=0.5)), r(2, 3, 4) + 1]
CASES["LinearAttentionGate"] = ("LinearAttentionGate", _gate_inputs, 2, (1, 2), {}, 1e-5)
CASES["LinearAttentionGate without b"] = ("LinearAttentionGate", _gate_inputs[:3], 1, (), {}, 1e-5)
for _rule, _heads, _past, _wide in (
    ("linear", 2, True, False), ("gated", 4, False, True), ("gated", 2, True, False),
    ("delta", 2, True, False), ("gated_delta", 4, True, True), ("gated_delta", 2, False, False),
):  # fmt: skip
    _given = [r(2, 5, _heads * 3), r(2, 5, 6, scale=0.5), r(2, 5, 8), r(2, 2, 3, 4) if _past else None]
    _given += [-abs(r(2, 5, 6 if _wide else 2)) if "gated" in _rule else None]
    _given += [abs(r(2, 5, 1 if _past and _wide else 2, scale=0.5)) if "delta" in _rule else None]
    CASES[f"LinearAttention {_rule} {_heads} {_past} {_wide}"] = (
        "LinearAttention", _given, 2, (), {"q_num_heads": _heads, "kv_num_heads": 2, "update_rule": _rule},
        1e-4,
    )  # fmt: skip

# caches in buffers that are longer than what is valid in them, which beams share or do not
_token: list[np.ndarray | None] = [r(4, 1, 64), r(4, 1, 64) * 0.7, r(4, 1, 64) + 1]
_caches: list[np.ndarray | None] = [r(4, 4, 8, 16), r(4, 4, 8, 16) - 0.5, np.array([3], np.int32)]
_beams = np.random.default_rng(4).integers(0, 2, (2, 2, 8)).astype(np.int32)
_seen = np.array([[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1]], np.int32)
_shared: dict[str, Any] = {"num_heads": 4, "past_present_share_buffer": 1}
for _name, _inputs in {
    "": [*_token, None, None, *_caches],
    " masked": [*_token, _seen, r(1, 4, 1, 4), *_caches, None, None, r(192)],
    " of beams": [*_token, None, None, *_caches, np.array([2], np.int32), _beams],
}.items():
    CASES["DecoderMaskedMultiHeadAttention" + _name] = (
        "DecoderMaskedMultiHeadAttention", _inputs, 3, (), _shared, 1e-4,
    )  # fmt: skip
for _name, _more in {"": [], " of beams": [_beams]}.items():
    CASES["MultiHeadAttention with a shared cache" + _name] = (
        "MultiHeadAttention", [*_token, None, None, None, *_caches, *_more], 3, (), {"num_heads": 4}, 1e-4,
    )  # fmt: skip
CASES["MultiHeadAttention that gives its scores"] = (
    "MultiHeadAttention", [r(2, 3, 64), r(2, 5, 64), r(2, 5, 64), None, u8(2, 5, high=2).astype(np.int32),
                           r(2, 4, 3, 5)], 4, (), {"num_heads": 4}, 1e-3,
)  # fmt: skip
CASES["MultiHeadAttention that gives what it masks"] = (
    "MultiHeadAttention", [r(2, 3, 64), r(2, 3, 64), r(2, 3, 64), r(192), None, None, r(2, 4, 2, 16),
                           r(2, 4, 2, 16)], 4, (), {"num_heads": 4, "unidirectional": 1, "scale": 0.3}, 1e-3,
)  # fmt: skip
_inputs = [r(1, 4, 32), r(1, 4, 64), r(1, 4, 32), None, -abs(r(1, 4, 4)), abs(r(1, 4, 4))]
_heads_of: dict[str, Any] = {"q_num_heads": 2, "kv_num_heads": 4}
CASES["LinearAttention of more keys than queries"] = ("LinearAttention", _inputs, 2, (), _heads_of, 1e-4)
for _dims in ((4,), (2, 2)):
    for _past in (None, r(2, 4, *_dims)):
        CASES[f"CausalConvWithState {_dims} last {_past is None}"] = (
            "CausalConvWithState", [r(2, 6, *_dims), r(4, 1, 3), r(4), _past], 2, (1, 2),
            {"channels_last": 1, "activation": "silu", "dilation": 2}, 1e-5,
        )  # fmt: skip
# of a prompt's numbers of places only the very first counts
_inputs = [r(2, 3, 64), r(2, 3, 32), r(2, 3, 32), None, None, np.full(2, 2, np.int32), z(3, np.int32),
           *rotary(24, 8), u8(2, 3, high=16).astype(np.int64)]  # fmt: skip
CASES["GroupQueryAttention of numbered places"] = (
    "GroupQueryAttention", _inputs, 3, (7, 8), {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1}, 1e-4,
)  # fmt: skip
_inputs = [r(1, 3, 64), r(1, 3, 32), r(1, 3, 32), r(1, 2, 4, 16), r(1, 2, 4, 16) + 1, np.full(1, 6, np.int32),
           z(7, np.int32), *rotary(24, 8), u8(1, 3, high=16).astype(np.int64)]  # fmt: skip
CASES["GroupQueryAttention of later numbered places"] = (
    "GroupQueryAttention", _inputs, 3, (7, 8), {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1}, 1e-4,
)  # fmt: skip
CASES["MRotaryEmbedding by a scale"] = (
    "MRotaryEmbedding", [r(2, 4, 3, 32), u8(3, 2, 3, high=16).astype(np.int64), *rotary(16, 8)], 1, (2, 3),
    {"mrope_section": [2, 3, 3], "scale": 0.5, "rotary_embedding_dim": 16, "num_heads": 4}, 1e-5,
)  # fmt: skip
CASES["RotaryEmbedding by a scale"] = (  # which has no effect
    "RotaryEmbedding", [r(2, 4, 3, 16), np.array([1], np.int64), *rotary(16, 8)], 1, (2, 3),
    {"scale": 0.5}, 1e-5,
)  # fmt: skip


def both(data: bytes, given: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(ovjit's outputs, ONNX Runtime's)"""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    compiled = ov.Core().compile_model(ov.Core().read_model(data), "CPU")
    got = compiled(
        {name: value for name, value in given.items() if any(name in p.get_names() for p in compiled.inputs)}
    )
    return [got[i] for i in range(len(got))], session.run(None, given)


@pytest.mark.parametrize("name", CASES)
def test_as_onnx_runtime(name: str) -> None:
    op, inputs, outputs, constants, attributes, tolerance = CASES[name]
    data, given = build(op, inputs, outputs, constants, **attributes)
    if op.startswith("Skip") and outputs == 4:  # only the sum beside the result is defined for inference
        proto = onnx.ModelProto.FromString(data)
        del proto.graph.output[1:3]
        proto.graph.node[0].output[1] = proto.graph.node[0].output[2] = ""
        data = proto.SerializeToString()
    if op == "MultiHeadAttention" and outputs == 4:
        proto = onnx.ModelProto.FromString(data)
        proto.graph.output[3].type.tensor_type.elem_type = TensorProto.FLOAT
        data = proto.SerializeToString()
    ours, theirs = both(data, given)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(
            mine.astype(np.float64),
            other.astype(np.float64),
            rtol=0 if tolerance == 1 else tolerance,
            atol=tolerance,
        )


@pytest.mark.parametrize(("length", "past", "turning"), [(32, 0, False), (1, 40, True), (20, 0, True)])
def test_sparse_attention(length: int, past: int, turning: bool) -> None:
    """Blocks of 16 in two layouts; ONNX Runtime wants the caches of before and after in one buffer."""
    batch, heads, groups, size, room = 2, 4, 2, 16, 64
    seen = np.tril(np.ones((2, 4, 4), bool))
    seen[0, 2:, 0] = seen[1, 3, 1] = seen[1, 2, 1] = False
    counts = np.concatenate([np.zeros((2, 1), int), np.cumsum(seen.sum(2), 1)], 1).astype(np.int32)
    columns = np.full((2, counts.max()), -1, np.int32)
    for layout in range(2):
        columns[layout, : counts[layout, -1]] = np.nonzero(seen[layout])[1]
    total = length + past
    lengths = np.full(batch, total, np.int32)  # of a shorter item ONNX Runtime reads unwritten memory
    caches = [r(batch, groups, room, size), r(batch, groups, room, size) + 1]
    inputs: list[np.ndarray | None] = [
        r(batch, length, heads * size), r(batch, length, groups * size), r(batch, length, groups * size) + 1,
        *caches, counts, columns, np.int32(total) * np.ones(1, np.int32), lengths,
    ]  # fmt: skip
    inputs += [r(room, size // 2), r(room, size // 2) * 0.5] if turning else []
    attributes = {"num_heads": heads, "kv_num_heads": groups, "do_rotary": int(turning)}
    data, given = build("SparseAttention", inputs, 3, (5, 6), sparse_block_size=16, **attributes)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    shared = {i: onnxruntime.OrtValue.ortvalue_from_numpy(cache.copy()) for i, cache in enumerate(caches)}
    for name, value in given.items():
        if name in ("x3", "x4"):
            binding.bind_ortvalue_input(name, shared[int(name[1]) - 3])
        else:
            binding.bind_cpu_input(name, value)
    binding.bind_output("y0")
    for i in range(2):
        binding.bind_ortvalue_output(f"y{i + 1}", shared[i])
    session.run_with_iobinding(binding)
    wanted = [value.numpy() for value in binding.get_outputs()]
    got = ov.Core().compile_model(ov.Core().read_model(data), "CPU")(given)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-4, atol=1e-4)
    for i in (1, 2):
        np.testing.assert_allclose(got[i][:, :, :total], wanted[i][:, :, :total], rtol=1e-5, atol=1e-5)


def test_attention_with_a_shared_cache() -> None:
    """ONNX Runtime has it on GPUs alone: the attention with as much of the past as is valid."""
    x, w, b, past = r(2, 2, 24), r(24, 48), r(48), r(2, 2, 4, 8, 4)
    valid = past[:, :, :, :3].copy()
    plain, given = build("Attention", [x, w, b, None, valid], 2, num_heads=4, unidirectional=1)
    _, wanted = both(plain, given)
    data, given = build("Attention", [x, w, b, None, past, None, np.array([3], np.int32)], 2, num_heads=4,
                        unidirectional=1, past_present_share_buffer=1)  # fmt: skip
    got = ov.compile_model(data, "CPU")(given)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[1][:, :, :, :5], wanted[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got[1][:, :, :, 5:], past[:, :, :, 5:])


@pytest.mark.parametrize("op", ["Affine", "ScaledTanh", "ParametricSoftplus"])
def test_first_operators(op: str) -> None:
    """Operators that the standard has dropped, and ONNX Runtime runs in models of before."""
    data, given = build(op, [r(3, 4)], 1, (), domain="", alpha=2.0, beta=0.5)
    proto = onnx.ModelProto.FromString(data)
    proto.opset_import[0].version = 9
    (ours,), (theirs,) = both(proto.SerializeToString(), given)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["BiasSplitGelu", "GemmFastGelu"])
def test_fusions_for_other_devices(op: str) -> None:
    """ONNX Runtime has them on GPUs alone: what they stand for, in NumPy."""
    x, w, bias = r(2, 3, 8), r(8, 6), r(9)[:8]
    if op == "BiasSplitGelu":
        data, given = build(op, [x, bias], 1, (1,))
        left, right = np.split((x + bias).astype(np.float64), 2, -1)
        wanted = left * 0.5 * right * (1 + np.vectorize(math.erf)(right / 2**0.5))
    else:
        data, given = build(op, [x, w, bias[:6]], 1, (1, 2))
        y = x.astype(np.float64) @ w + bias[:6]
        wanted = 0.5 * y * (1 + np.tanh((2 / np.pi) ** 0.5 * (y + 0.044715 * y**3)))
    got = ov.Core().compile_model(ov.Core().read_model(data), "CPU")(given["x0"])[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("whole", [False, True])
def test_group_norm_of_a_sum(last: int, whole: bool) -> None:
    """Stable Diffusion's, which ONNX Runtime has on GPUs alone."""
    order = (0, 2, 3, 1) if last else (0, 1, 2, 3)
    x, gamma, beta, bias = r(2, 6, 4, 5), r(6), r(7)[:6], r(8)[:6]
    skip = r(2, 6, 5, 4).swapaxes(2, 3) if whole else r(2, 6)
    given_skip = np.ascontiguousarray(skip.transpose(order)) if whole else skip
    given = [np.ascontiguousarray(x.transpose(order)), gamma, beta, given_skip, bias]
    data, values = build("SkipGroupNorm", given, 2, (1, 2, 4), groups=3, activation=1, channels_last=last)
    total = x.astype(np.float64) + (skip if whole else skip[:, :, None, None]) + bias[:, None, None]
    parts = total.reshape(2, 3, -1)
    rows = (parts - parts.mean(2, keepdims=True)) / np.sqrt(parts.var(2, keepdims=True) + 1e-5)
    y = rows.reshape(x.shape) * gamma[:, None, None] + beta[:, None, None]
    got = ov.compile_model(data, "CPU")(values)
    np.testing.assert_allclose(got[0], (y / (1 + np.exp(-y))).transpose(order), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[1], total.transpose(order), rtol=1e-5, atol=1e-6)


def test_gemmas_rotary_embedding() -> None:
    angles, *states = r(2, 5, 8), r(2, 3, 5, 8), r(2, 3, 5, 8) + 1, r(2, 1, 5, 8), r(2, 1, 5, 8) - 1
    data, values = build("GemmaRotaryEmbedding", [angles, *states], 2)
    got = ov.compile_model(data, "CPU")(values)
    for i in (0, 1):
        wanted = states[2 * i] * np.cos(angles)[:, None] + states[2 * i + 1] * np.sin(angles)[:, None]
        np.testing.assert_allclose(got[i], wanted, rtol=1e-4, atol=1e-5)


def test_channels_last_convolution() -> None:
    """NhwcConv has no kernel in ONNX Runtime's CPU provider; Conv of the transposed image is what it says."""
    x, w, b = r(1, 8, 9, 3), r(4, 3, 3, 3), r(4)
    data, _ = build("NhwcConv", [x, w, b], 1, (1, 2), pads=[1, 1, 1, 1])
    plain, _ = build("Conv", [x.transpose(0, 3, 1, 2).copy(), w, b], 1, (1, 2), domain="", pads=[1, 1, 1, 1])
    session = onnxruntime.InferenceSession(plain, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"x0": x.transpose(0, 3, 1, 2).copy()})[0].transpose(0, 2, 3, 1)
    got = ov.Core().compile_model(ov.Core().read_model(data), "CPU")(x)[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("op", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
def test_statistics_of_skipped_layers(op: str, dtype: Any) -> None:
    inputs = [v.astype(dtype) for v in (r(2, 3, 8), r(3, 5, 8)[:2, :3], r(8), r(8))]
    data, given = build(op, inputs[: 3 if "Simplified" in op else 4], 4, (2,))
    (ours, theirs) = both(data, given)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-3 if dtype == np.float16 else 1e-5)
