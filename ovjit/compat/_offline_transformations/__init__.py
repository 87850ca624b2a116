"""Rewritings of a Model that programs ask for before they save it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovjit.api.model.model import Model, check_model
from ovjit.api.model.node import GRAPH_LOCK
from ovjit.compat.passes.precision import compress_to_f16
from ovjit.compat.passes.sequences import sequences_to_loops
from ovjit.compat.passes.stateful import low_latency, make_stateful
from ovjit.compat.passes.unneeded import simplify
from ovjit.errors import ModelError
from ovjit.readers.quantized_weights import compress_quantized
from ovjit.version import get_version

__version__ = get_version()


def apply_moc_transformations(model: Model, cf: bool, smart_reshape: bool = False) -> None:
    """The rewriting passes that need no device, see `ovjit.compat.passes.unneeded`. With `cf` known shapes
    become constants.

    `smart_reshape` has no effect: ovjit infers every shape anew."""
    with GRAPH_LOCK:
        simplify(check_model(model), fold_shapes=cf)
        model.validate_nodes_and_infer_types()


def apply_moc_legacy_transformations(model: Model, params_with_custom_types: Sequence[str]) -> None:
    """Only check the model: no operation is converted for older devices."""
    check_model(model)


def apply_low_latency_transformation(model: Model, use_const_initializer: bool = True) -> None:
    """Convert the values that loops carry to variables, see `ovjit.passes.LowLatency2`."""
    with GRAPH_LOCK:
        if low_latency(check_model(model), use_const_initializer):
            model.validate_nodes_and_infer_types()


def apply_pruning_transformation(model: Model) -> None:
    """Only check the model: channels whose weights are all zero stay, and results do not change."""
    check_model(model)


def apply_make_stateful_transformation(
    model: Model, param_res_names: Mapping[str, str] | None = None, *, pairs_to_replace: Any = None
) -> None:
    """Convert pairs of parameters and results, or of their tensor names, to variables. RuntimeError for a
    name that the model does not have."""
    pairs = param_res_names if pairs_to_replace is None else pairs_to_replace
    if not isinstance(pairs, (Mapping, list, tuple)):
        raise TypeError(
            "apply_make_stateful_transformation takes a dict of tensor names, or pairs of Parameter "
            "and Result"
        )
    with GRAPH_LOCK:
        make_stateful(check_model(model), pairs)
        model.validate_nodes_and_infer_types()


def compress_model_transformation(model: Model) -> None:
    """Convert f32 and f64 constants to f16, followed by a Convert."""
    with GRAPH_LOCK:
        compress_to_f16(check_model(model))


def compress_quantize_weights_transformation(model: Model) -> None:
    """Replace FakeQuantize of constant weights by integers, a zero point and a scale."""
    with GRAPH_LOCK:
        compress_quantized(check_model(model))
        model.validate_nodes_and_infer_types()


def apply_fused_names_cleanup(model: Model) -> None:
    """Remove `fused_names` from rt_info: the names of the nodes that a node was made of."""
    with GRAPH_LOCK:
        for node in check_model(model).get_ordered_ops():
            if node._rt_info is not None:
                node._rt_info._items.pop("fused_names_0", None)


def convert_sequence_to_tensor_iterator_transformation(model: Model) -> None:
    """Replace recurrent layers of one direction by loops over their cells."""
    with GRAPH_LOCK:
        if sequences_to_loops(check_model(model)):
            model.validate_nodes_and_infer_types()


def paged_attention_transformation(
    model: Model,
    use_block_indices_inputs: bool = False,
    use_score_outputs: bool = False,
    allow_score_aggregation: bool = False,
    allow_cache_rotation: bool = False,
    allow_xattention: bool = False,
    allow_adaptive_rkv: bool = False,
    allow_qq_bias: bool = False,
) -> None:
    """Convert attention to paged attention, with caches that the caller owns: see
    `ovjit.passes.paged_attention`.

    `use_block_indices_inputs`: each layer has block indices of its own. `use_score_outputs`: outputs
    `scores.N`, the weights that keys have got; with `allow_score_aggregation` only of the last queries. The
    others add the inputs that rotate cached keys, leave out blocks (XAttention), tell how different keys are,
    and mask queries of one call from each other. RuntimeError for a model without state.
    """
    if not check_model(model).get_variables():
        raise ModelError(
            "Model is supposed to be stateful, cannot perform the SDPAToPagedAttention transformation. "
            "For proper conversion run: optimum-cli export openvino --task text-generation-with-past instead "
            "of --task text-generation"
        )
    from ovjit.compat.passes.paged_attention import Options, make_paged

    options = Options(
        use_block_indices_inputs, use_score_outputs, allow_score_aggregation, allow_cache_rotation,
        allow_xattention, allow_adaptive_rkv, allow_qq_bias,
    )  # fmt: skip
    with GRAPH_LOCK:
        make_paged(model, options)


def stateful_to_stateless_transformation(model: Model) -> None:
    """Convert variables back to inputs and outputs. RuntimeError for a model without the input `beam_idx`, as
    in OpenVINO."""
    from ovjit.compat.passes.stateful import make_stateless

    with GRAPH_LOCK:
        make_stateless(check_model(model))
        model.validate_nodes_and_infer_types()


__all__ = [
    "apply_fused_names_cleanup", "apply_low_latency_transformation", "apply_make_stateful_transformation",
    "apply_moc_legacy_transformations", "apply_moc_transformations", "apply_pruning_transformation",
    "compress_model_transformation", "compress_quantize_weights_transformation",
    "convert_sequence_to_tensor_iterator_transformation", "paged_attention_transformation",
    "stateful_to_stateless_transformation",
]  # fmt: skip
