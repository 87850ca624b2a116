"""The attributes of com.microsoft's operators that are choices, see `ovjit.readers.onnx.choices`.

Where ONNX Runtime has more than is read here, the choices are those that are read. Operators that are read as
the standard's have its choices (`fusions.as_standard`).
"""

from ovjit.readers.onnx.choices import *

#: What follows a fused layer; "" is nothing.
_FUSED = {
    "activation": one_of((
        "", "Relu", "Sigmoid", "Tanh", "Softsign", "Softplus", "LeakyRelu", "Elu", "ThresholdedRelu",
        "HardSigmoid", "Clip", "Gelu",
    ))
}  # fmt: skip
_NUMBER_BITS = one_of((2, 4, 8))
_EXPERTS = {
    "activation_type": one_of("relu gelu silu swiglu identity"),
    "swiglu_fusion": one_of(range(3)),
    "swiglu_limit_after_activation": one_of((0,)),
}
_QUANTIZED_CACHE = one_of("NONE PER_TENSOR PER_CHANNEL")
_GROUP_NORM = flags("activation channels_last")

declare_choices("com.microsoft", {
    ANY: {
        "auto_pad": AUTO_PAD,
        "stash_type": PRECISION,
        **flags(
            "align_corners antialias causal ceil_mode channels_last count_include_pad "
            "do_rotary exclude_outside input_forget interleaved "
            "inverse is_inner_broadcast is_packed_batching keepdims mark mrope_layout "
            "normalize_routing_weights onesided output_qk past_present_share_buffer "
            "rotary_interleaved sliding_window_cache training_mode transA transB transBatchA "
            "transBatchB unidirectional upper use_sparse_mixer"
        ),
    },
    "CDist": {"metric": one_of("euclidean sqeuclidean")},
    "CausalConvWithState": {
        "activation": one_of("none silu swish"),
        "input_channel_offset": one_of((0,)),
        "input_channels": one_of((0,)),
        "ndim": one_of((1, 2, 3)),
        "state_channels_last": one_of((-1, 0)),
        "state_length": one_of((0,)),
        "state_update_capacity": one_of((0,)),
    },
    "DynamicQuantizeLSTM": {"direction": DIRECTION, "activations": ACTIVATIONS},
    "EmbedLayerNormalization": flags("mask_index_type"),
    "FusedConv": _FUSED,
    "FusedGemm": _FUSED,
    "FusedMatMulActivation": _FUSED,
    "GatedRMSNorm": {"activation": one_of("silu swish sigmoid")},
    "GatherBlockQuantized": {"bits": _NUMBER_BITS},
    "GroupNorm": _GROUP_NORM,
    "GroupQueryAttention": {
        "k_quant_type": _QUANTIZED_CACHE,
        "kv_cache_bit_width": one_of((0, 4, 8)),
        "qk_output": one_of(range(3)),
        "smooth_softmax": one_of((-1, 0, 1)),
        "v_quant_type": _QUANTIZED_CACHE,
    },
    "LinearAttention": {"update_rule": one_of("linear gated delta gated_delta")},
    "MatMulBnb4": flags("quant_type"),
    "MatMulNBits": {
        "accuracy_level": one_of(range(5)),
        "bits": _NUMBER_BITS,
        "weight_prepacked": one_of((0,)),
    },
    "MoE": _EXPERTS,
    "NhwcFusedConv": _FUSED,
    "QMoE": {
        **_EXPERTS,
        "accuracy_level": one_of(range(5)),
        **{f"{layer}expert_weight_bits": _NUMBER_BITS for layer in ("", "fc1_", "fc2_", "fc3_")},
        "quant_type": one_of("int fp4 nvfp4 fp8 wfp4afp8"),
        "weights_prepacked": one_of((-1, 0, 1)),
    },
    "SkipGroupNorm": _GROUP_NORM,
    "Tokenizer": texts("pad_value separators tokenexp"),
})  # fmt: skip
