"""The attributes of ONNX operators that are choices: enumerated words, enumerated numbers and flags.

The standard's schemas give types and defaults of attributes alone; what they may be is in these tables. Other
domains declare theirs by `declare_choices`. A text that is no choice is declared as TEXT.
"""

from __future__ import annotations

from collections.abc import Mapping

from ovjit.readers.choices import FLAG, TEXT, Choice, one_of
from ovjit.readers.onnx.activations import ALPHAS, PLAIN
from ovjit.readers.onnx.attributes import AttributeValues

#: In place of an operator's name: an attribute that means the same in each operator of the domain.
ANY = "*"

#: domain -> operator, or ANY -> attribute -> what it may be
_TABLES: dict[str, dict[str, dict[str, Choice]]] = {}


def declare_choices(domain: str, table: Mapping[str, Mapping[str, Choice]]) -> None:
    """Register allowed values of a domain's attributes: operator, or ANY -> attribute -> its choice."""
    domain_table = _TABLES.setdefault(domain, {})
    for operator, attributes in table.items():
        domain_table.setdefault(operator, {}).update(attributes)


def find_choice(domain: str, operator: str, attribute: str) -> Choice | None:
    """Allowed values of an attribute; None for numbers, tensors and undeclared attributes."""
    table = _TABLES.get(domain, {})
    choice = table.get(operator, {}).get(attribute)
    return choice or table.get(ANY, {}).get(attribute)


def choices_of(domain: str, operator: str) -> Mapping[str, Choice]:
    """Allowed values of the attributes that are declared for one operator alone."""
    return _TABLES.get(domain, {}).get(operator, {})


def check_choices(domain: str, operator: str, values: AttributeValues) -> None:
    """Raise ModelError for an attribute with a value that is not allowed. `values`: the attributes of a
    node."""
    for name in values:
        choice = find_choice(domain, operator, name)
        if choice is not None and choice is not TEXT:
            choice.check(name, values.distinct(name))


def flags(names: str) -> dict[str, Choice]:
    """Attributes that are 0 or 1."""
    return dict.fromkeys(names.split(), FLAG)


def texts(names: str) -> dict[str, Choice]:
    """Attributes that are any text."""
    return dict.fromkeys(names.split(), TEXT)


AUTO_PAD = one_of(("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", ""))
COORDINATES = one_of(
    "half_pixel half_pixel_symmetric pytorch_half_pixel align_corners asymmetric tf_half_pixel_for_nn "
    "tf_crop_and_resize"
)
DIRECTION = one_of("forward reverse bidirectional", any_case=True)
ACTIVATIONS = one_of(sorted({*PLAIN, *ALPHAS}), any_case=True)
BLOCKS = one_of("DCR CRD")
GRID = {
    "mode": one_of("bilinear nearest bicubic linear cubic"),
    "padding_mode": one_of("zeros border reflection"),
}
PAD_MODE = one_of("constant reflect edge wrap")
#: Numbers of TensorProto.DataType: floats that a step may be computed in.
PRECISION = one_of((1, 10, 11, 16))
_REDUCTION = {"reduction": one_of("none add mul min max")}
_LOSS = {"reduction": one_of("none sum mean")}
_RECURRENT = {"direction": DIRECTION, "activations": ACTIVATIONS}
_POST_TRANSFORM = {"post_transform": one_of("NONE SOFTMAX LOGISTIC SOFTMAX_ZERO PROBIT")}
_SVM = {**_POST_TRANSFORM, "kernel_type": one_of("LINEAR POLY RBF SIGMOID")}
_TREES = {
    **_POST_TRANSFORM,
    "nodes_modes": one_of("BRANCH_LEQ BRANCH_LT BRANCH_GTE BRANCH_GT BRANCH_EQ BRANCH_NEQ LEAF"),
}

declare_choices("", {
    ANY: {
        "auto_pad": AUTO_PAD,
        "stash_type": PRECISION,
        **flags(
            "align_corners allowzero antialias broadcast ceil_mode center_point_box count_include_pad "
            "detect_negative detect_positive exclude_outside exclusive fmod input_forget interleaved "
            "inverse is_case_sensitive is_causal is_test keepdims largest layout linear_before_reset "
            "new_axis noop_with_empty_axes onesided output_sequence periodic reverse saturate "
            "select_last_index sorted spatial storage_order training_mode transA transB upper"
        ),
    },
    "Attention": {"qk_matmul_output_mode": one_of(range(4)), "softmax_precision": PRECISION},
    "BitShift": {"direction": one_of("LEFT RIGHT")},
    "Cast": {"round_mode": one_of("up down nearest"), "to": TEXT},
    "CastLike": {"round_mode": one_of("up down nearest")},
    "CausalConvWithState": {"activation": one_of("none silu swish")},
    "Constant": texts("value_string value_strings"),
    "DepthToSpace": {"mode": BLOCKS},
    "Einsum": texts("equation"),
    "GRU": _RECURRENT,
    "Gelu": {"approximate": one_of("none tanh")},
    "GridSample": GRID,
    "ImageDecoder": {"pixel_format": one_of("RGB BGR Grayscale")},
    "LSTM": _RECURRENT,
    "LinearAttention": {"update_rule": one_of("linear gated delta gated_delta")},
    "LpNormalization": {"p": one_of((1, 2))},
    "NegativeLogLikelihoodLoss": _LOSS,
    "Pad": {"mode": PAD_MODE},
    "QuantizeLinear": {"precision": one_of((0, *PRECISION.words))},
    "RNN": _RECURRENT,
    "RegexFullMatch": texts("pattern"),
    "Resize": {
        "coordinate_transformation_mode": COORDINATES,
        "keep_aspect_ratio_policy": one_of("stretch not_larger not_smaller"),
        "mode": one_of("nearest linear cubic"),
        "nearest_mode": one_of("round_prefer_floor round_prefer_ceil floor ceil"),
    },
    "RoiAlign": {
        "coordinate_transformation_mode": one_of("half_pixel output_half_pixel"),
        "mode": one_of("avg max"),
    },
    "Scan": flags("directions scan_input_directions scan_output_directions"),
    "ScatterElements": _REDUCTION,
    "ScatterND": _REDUCTION,
    "SoftmaxCrossEntropyLoss": _LOSS,
    "SpaceToDepth": {"mode": BLOCKS},
    "StringNormalizer": {"case_change_action": one_of("NONE LOWER UPPER"), **texts("locale stopwords")},
    "StringSplit": texts("delimiter"),
    "TensorScatter": {"mode": one_of("linear circular")},
    "TfIdfVectorizer": {"mode": one_of("TF IDF TFIDF"), **texts("pool_strings")},
    "Upsample": {"mode": one_of("nearest linear bilinear cubic")},
})  # fmt: skip
declare_choices("ai.onnx.ml", {
    ANY: {**flags("multi_class nodes_missing_value_tracks_true one_class zeros"),
          **texts("cats_strings classes_strings classlabels_strings default_string keys_strings "
                  "string_vocabulary values_strings")},
    "CastMap": {"cast_to": one_of("TO_FLOAT TO_STRING TO_INT64"), "map_form": one_of("DENSE SPARSE")},
    "LinearClassifier": _POST_TRANSFORM,
    "LinearRegressor": _POST_TRANSFORM,
    "Normalizer": {"norm": one_of("MAX L1 L2")},
    "SVMClassifier": _SVM,
    "SVMRegressor": _SVM,
    "TreeEnsemble": {
        "aggregate_function": one_of(range(4)),
        "post_transform": one_of(range(5)),
        **flags("nodes_falseleafs nodes_trueleafs"),
    },
    "TreeEnsembleClassifier": _TREES,
    "TreeEnsembleRegressor": {**_TREES, "aggregate_function": one_of("AVERAGE SUM MIN MAX")},
})  # fmt: skip
declare_choices("ai.onnx.preview.training", {
    "Gradient": texts("xs y zs"),
    "Momentum": {"mode": one_of("standard nesterov")},
})  # fmt: skip
