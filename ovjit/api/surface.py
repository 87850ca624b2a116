"""The surface of operations: how builders, node attributes and files name and order what their records have.

An operation has a row here only where that does not follow from its record: a builder is named by the
record's name in snake case, and takes the inputs, then the attributes. A row of `Name-opset` is for this
version, a row of `Name` for all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ovjit.graph.op import Op
from ovjit.records import NamedTuple

_NONE: Mapping[str, Any] = MappingProxyType({})


class Surface(NamedTuple):
    """`function`: the builder's name. `names`: attribute or input -> the builder's argument.
    `dict_argument`: the argument that takes all attributes as a dict. `since`: the first opset whose
    builder makes this version; 0: its own. `all_or_first`: the builder takes either the first input
    only, or all inputs. `read_if`: last input -> (attribute, value); for other values of the attribute
    the builder omits the input. `absent`: optional input -> (index of the input whose type it has,
    number): its value if a builder gets a later input. `filled`: optional input -> (type, number): the
    constant that a builder gives if it gets none. `shown_first`: attributes that `get_attributes`
    and files list first. `order`: the builder's arguments, where they are not inputs, then attributes;
    arguments that are not listed come after `name`, and listed ones that a version does not have are
    skipped. `required`: how many arguments the builder requires, where that is more than those without
    a default. `settled`: (an input, the attributes that stay at their defaults when it is given).
    `prefix`: of the attributes' names in files.
    """

    function: str = ""
    names: Mapping[str, str] = _NONE
    dict_argument: str = ""
    since: int = 0
    all_or_first: bool = False
    read_if: Mapping[str, tuple[str, str]] = _NONE
    absent: Mapping[str, tuple[int, float]] = _NONE
    filled: Mapping[str, tuple[str, float]] = _NONE
    shown_first: str = ""
    order: str = ""
    required: int = 0
    settled: tuple[str, tuple[str, ...]] = ("", ())
    prefix: str = ""


_USUAL = Surface()
_LIMITS = {
    "max_output_boxes_per_class": ("i64", 0),
    "iou_threshold": ("f32", 0),
    "score_threshold": ("f32", 0),
}


def surface_of(record: Op) -> Surface:
    """The surface of a version of an operation."""
    row = SURFACES.get(f"{record.name}-{record.opset}")
    return SURFACES.get(record.name, _USUAL) if row is None else row


def first_opset(record: Op) -> int:
    """The first opset whose builder makes this version; 99: none."""
    return surface_of(record).since or record.opset


#: Operation, or a version of one -> its surface.
SURFACES = {
    "AUGRUCell": Surface("augru_cell", shown_first="linear_before_reset"),
    "AUGRUSequence": Surface("augru_sequence", shown_first="direction linear_before_reset"),
    "Abs": Surface("absolute"),
    "AvgPool": Surface(
        names={"kernel": "kernel_shape", "data": "data_batch"},
        shown_first="kernel strides pads_begin pads_end exclude_pad auto_pad rounding_type",
        order="data_batch strides pads_begin pads_end kernel_shape exclude_pad rounding_type auto_pad "
        "dilations",
        required=6,
    ),
    "BGRtoNV12": Surface("bgr_to_nv12"),
    "BatchNormInference": Surface(order="data gamma beta mean variance epsilon"),
    "BitwiseLeftShift": Surface(names={"left_node": "arg0", "right_node": "arg1"}),
    "BitwiseRightShift": Surface(names={"left_node": "arg0", "right_node": "arg1"}),
    "Broadcast": Surface(names={"mode": "broadcast_spec"}, read_if={"axes_mapping": ("mode", "explicit")}),
    "Broadcast-1": Surface(),
    "CTCGreedyDecoder": Surface("ctc_greedy_decoder", names={"ctc_merge_repeated": "merge_repeated"}),
    "CTCGreedyDecoderSeqLen": Surface("ctc_greedy_decoder_seq_len"),
    "CTCLoss": Surface("ctc_loss"),
    "Clamp": Surface(names={"min": "min_value", "max": "max_value"}),
    "Col2Im": Surface("col2im"),
    "Concat": Surface(names={"args": "nodes"}),
    "Convolution": Surface(shown_first="strides dilations", required=6),
    "ConvolutionBackpropData": Surface(
        shown_first="strides dilations",
        order="data filters strides output_shape pads_begin pads_end dilations auto_pad output_padding",
        required=3,
    ),
    "DFT": Surface("dft"),
    "DeformableConvolution": Surface(
        names={"offsets": "deformable_values"}, shown_first="strides dilations",
        order="data deformable_values offsets filters strides pads_begin pads_end dilations mask "
        "auto_pad group deformable_group bilinear_interpolation_pad",
    ),
    "DeformableConvolution-8": Surface(
        shown_first="bilinear_interpolation_pad strides dilations",
        order="data deformable_values offsets filters strides pads_begin pads_end dilations mask "
        "auto_pad group deformable_group bilinear_interpolation_pad",
    ),
    "DeformablePSROIPooling": Surface(
        names={"data": "feature_maps", "rois": "coords"},
        order="feature_maps coords output_dim spatial_scale group_size mode spatial_bins_x "
        "spatial_bins_y trans_std part_size offsets",
    ),
    "DeformedColumns": Surface(shown_first="bilinear_interpolation_pad strides dilations"),
    "DepthToSpace": Surface(names={"data": "node"}, order="node mode block_size"),
    "DetectionOutput": Surface(dict_argument="attrs"),
    "Divide": Surface(order="left_node right_node auto_broadcast"),
    "Einsum": Surface(names={"xs": "inputs"}),
    "EmbeddingBagOffsets": Surface(absent={"default_index": (1, -1)}),
    "EmbeddingBagOffsetsSum": Surface(absent={"default_index": (1, -1)}),
    "ErfInv": Surface("erfinv"),
    "ExperimentalDetectronDetectionOutput": Surface(
        since=99, shown_first="score_threshold nms_threshold max_delta_log_wh",
    ),
    "ExperimentalDetectronGenerateProposalsSingleImage": Surface(since=99),
    "ExperimentalDetectronPriorGridGenerator": Surface(since=99),
    "ExperimentalDetectronROIFeatureExtractor": Surface(since=99),
    "ExperimentalDetectronTopKROIs": Surface(since=99),
    "Eye": Surface(order="num_rows num_columns diagonal_index output_type batch_shape"),
    "GRN": Surface("grn"),
    "GRUCell": Surface("gru_cell", shown_first="linear_before_reset"),
    "GRUSequence": Surface("gru_sequence", shown_first="direction linear_before_reset"),
    "GatherND": Surface("gather_nd"),
    "Gelu": Surface(required=2),
    "Gelu-2": Surface(),
    "GenerateProposals": Surface(shown_first="min_size nms_threshold post_nms_count"),
    "GridSample": Surface(dict_argument="attributes"),
    "GroupConvolution": Surface(required=6),
    "GroupConvolutionBackpropData": Surface(
        order="data filters strides output_shape pads_begin pads_end dilations auto_pad output_padding",
        required=3, settled=("output_shape", ("pads_begin", "pads_end")),
    ),
    "GroupedMatMul": Surface("grouped_matmul"),
    "HSigmoid": Surface("hsigmoid", names={"node": "data"}),
    "HSwish": Surface("hswish", names={"node": "data"}),
    "I420toBGR": Surface("i420_to_bgr", all_or_first=True),
    "I420toRGB": Surface("i420_to_rgb", all_or_first=True),
    "IDFT": Surface("idft"),
    "IRDFT": Surface("irdft"),
    "ISTFT": Surface("istft", order="data window frame_size frame_step center normalized signal_length"),
    "Interpolate": Surface(
        names={"data": "image", "sizes": "output_shape"}, dict_argument="attrs",
        shown_first="align_corners antialias",
        order="image output_shape scales_or_sizes scales mode shape_calculation_mode pads_begin pads_end "
        "coordinate_transformation_mode nearest_mode antialias cube_coeff axes",
    ),
    "Interpolate-4": Surface(
        names={"data": "image", "sizes": "output_shape"}, since=10,
        shown_first="mode shape_calculation_mode coordinate_transformation_mode nearest_mode antialias",
        order="image output_shape scales_or_sizes scales mode shape_calculation_mode pads_begin pads_end "
        "coordinate_transformation_mode nearest_mode antialias cube_coeff axes",
    ),
    "Interpolate-11": Surface(
        names={"data": "image"},
        shown_first="mode shape_calculation_mode coordinate_transformation_mode nearest_mode antialias",
        order="image output_shape scales_or_sizes scales mode shape_calculation_mode pads_begin pads_end "
        "coordinate_transformation_mode nearest_mode antialias cube_coeff axes",
    ),
    "IsNaN": Surface("is_nan"),
    "LRN": Surface("lrn"),
    "LSTMCell": Surface(
        "lstm_cell",
        shown_first="hidden_size activations activations_alpha activations_beta clip input_forget",
        order="X initial_hidden_state initial_cell_state W R B hidden_size activations activations_alpha "
        "activations_beta clip",
    ),
    "LSTMCell-4": Surface(
        "lstm_cell",
        order="X initial_hidden_state initial_cell_state W R B hidden_size activations activations_alpha "
        "activations_beta clip",
    ),
    "LSTMSequence": Surface("lstm_sequence", shown_first="direction"),
    "LogSoftmax": Surface(required=2),
    "LogicalXor": Surface(since=1),
    "MVN": Surface(
        "mvn", shown_first="eps", order="data axes across_channels normalize_variance eps eps_mode",
    ),
    "MVN-6": Surface("mvn", order="data axes across_channels normalize_variance eps eps_mode", required=5),
    "MatMul": Surface("matmul", required=4),
    "MatrixNms": Surface(shown_first="sort_result_type output_type nms_top_k keep_top_k"),
    "MaxPool": Surface(names={"kernel": "kernel_shape"}, required=6),
    "MaxPool-1": Surface(names={"kernel": "kernel_shape"}, required=5),
    "Mish": Surface(names={"node": "data"}),
    "MulticlassNms": Surface(shown_first="sort_result_type output_type nms_top_k keep_top_k"),
    "NV12toBGR": Surface("nv12_to_bgr"),
    "NV12toRGB": Surface("nv12_to_rgb"),
    "NonMaxSuppression": Surface(filled=_LIMITS),
    "NonMaxSuppression-9": Surface(filled={**_LIMITS, "soft_nms_sigma": ("f32", 0)}),
    "NormalizeL2": Surface(required=4),
    "PRelu": Surface("prelu"),
    "PSROIPooling": Surface(
        names={"data": "input", "rois": "coords"}, shown_first="output_dim group_size spatial_scale mode",
        required=8,
    ),
    "Pad": Surface(
        names={"data": "arg", "pad_value": "arg_pad_value"}, absent={"arg_pad_value": (0, 0)},
        order="arg pads_begin pads_end pad_mode arg_pad_value",
    ),
    "PriorBox": Surface(
        names={"layer": "layer_shape", "image": "image_shape"}, dict_argument="attrs",
        shown_first="min_size max_size aspect_ratio density fixed_ratio fixed_size clip flip",
    ),
    "PriorBoxClustered": Surface(
        names={"layer": "output_size", "image": "image_size"}, dict_argument="attrs",
        shown_first="step step_w step_h",
    ),
    "Proposal": Surface(dict_argument="attrs"),
    "RDFT": Surface("rdft"),
    "RGBtoNV12": Surface("rgb_to_nv12"),
    "RNNCell": Surface("rnn_cell", since=3, required=9),
    "RNNSequence": Surface("rnn_sequence", shown_first="direction"),
    "ROIPooling": Surface(
        names={"data": "input", "rois": "coords"}, shown_first="output_size output_roi pooled_h pooled_w",
    ),
    "RandomUniform": Surface(shown_first="output_type op_seed"),
    "Range": Surface(since=12),
    "Range-1": Surface(),
    "RegionYolo": Surface(
        names={"data": "input"}, shown_first="anchors axis coords classes end_axis", required=8,
    ),
    "ReorgYolo": Surface(names={"data": "input"}),
    "Reshape": Surface(names={"data": "node", "pattern": "output_shape"}, required=3),
    "Reverse": Surface(since=99),
    "ReverseSequence": Surface(names={"data": "input"}, required=4),
    "RoPE": Surface("rope", prefix="config."),
    "STFT": Surface("stft"),
    "ScaledDotProductAttention": Surface(
        "scaled_dot_product_attention", absent={"attention_mask": (0, 0)},
        order="query key value attention_mask scale causal",
    ),
    "ScatterNDUpdate": Surface("scatter_nd_update"),
    "SearchSorted": Surface(order="sorted_sequence values right_mode"),
    "ShuffleChannels": Surface(required=3),
    "Sigmoid": Surface(names={"node": "data"}),
    "SoftPlus": Surface("softplus", names={"node": "data"}),
    "SoftSign": Surface("softsign"),
    "Softmax": Surface(required=2),
    "SpaceToDepth": Surface(order="data mode block_size"),
    "SquaredDifference": Surface(names={"left_node": "x1", "right_node": "x2"}),
    "Squeeze": Surface(required=2),
    "Squeeze-15": Surface(),
    "StridedSlice": Surface(required=6),
    "TopK": Surface("topk"),
    "TopK-1": Surface("topk", order="data k axis mode sort"),
    "Xor": Surface(since=99),
}  # fmt: skip
