"""A stateful decoder made one over pages of a cache.

    ScaledDotProductAttention(q, Concat(ReadValue, k), Concat(ReadValue, v), mask)
        -> PagedAttentionExtension(q, k, v, key_cache.N, value_cache.N, tables ...)

`input_ids` and `position_ids` lose their batch: the tokens of all sequences follow each other, and the model
sees each as a sequence of its own, of one token. Names, types and order of the new inputs are OpenVINO's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ovjit.api.model.boundary import Parameter, Result, constant_node
from ovjit.api.model.boundary import new_output as _op
from ovjit.api.model.model import Model
from ovjit.api.model.node import Node, Output, make_node
from ovjit.api.model.paged import CHUNKS, PagedAttentionExtension
from ovjit.compat.passes.longest import Choice, choices, choose_by_token
from ovjit.compat.passes.masks import Mask, read_mask
from ovjit.compat.passes.paged_inputs import (
    Inputs,
    _i64,
    check_stateless,
    find_counted_positions,
    names_of,
    padding_products,
    row_ends,
)
from ovjit.compat.passes.paged_layers import CachedLayer, is_cached, scale_of
from ovjit.compat.passes.paged_states import Input, Layer, recurrent_layers
from ovjit.compat.passes.probe import inputs_named, is_a
from ovjit.compat.passes.score_bias import (
    bias_of,
    columns,
    score_bias,
    with_bias,
    with_columns,
    with_factor,
    with_factors,
)
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.paged_caches import BLOCK
from ovjit.graph.shapes import ANY
from ovjit.records import NamedTuple

#: The names of tables of states, and those of their lists.
TABLES = {
    "PagedCausalConv1D": "conv_state_table", "PagedGatedDeltaNet": "gated_delta_state_table",
    "PagedSelectiveSSM": "selective_ssm_state_table",
}  # fmt: skip
LISTS = ("block_indices", "block_indices_begins", "past_lens", "cache_interval")


class Options(NamedTuple):
    """The flags of `paged_attention_transformation`."""

    use_block_indices_inputs: bool = False
    use_score_outputs: bool = False
    allow_score_aggregation: bool = False
    allow_cache_rotation: bool = False
    allow_xattention: bool = False
    allow_adaptive_rkv: bool = False
    allow_qq_bias: bool = False


def make_paged(model: Model, options: Options) -> None:
    """Rewrite the model in place. ModelError for one without state or attention, UnsupportedError for masks
    that are none of paged attention's; the model is as it was then."""
    layers = [CachedLayer.of(node) for node in model.get_ordered_ops() if is_cached(node)]
    if not layers:
        raise ModelError(
            "paged attention needs a decoder whose attention (ScaledDotProductAttention) reads keys "
            "and values from variables; this model has no such attention"
        )
    other = _variables(model) - {name for layer in layers for name in layer.variables()}
    states = recurrent_layers(model, other) if other else []
    unsupported = sorted(other - {layer.variable for layer in states})
    if unsupported:
        raise UnsupportedError(
            f"the variables {', '.join(map(repr, unsupported[:4]))} are not caches of attention, and their "
            "layers are not of a kind with paged states: PagedCausalConv1D, PagedGatedDeltaNet, "
            "PagedSelectiveSSM"
        )
    positions, lengths = find_counted_positions(model)
    replaced: dict[Output, list[Output]] = {x: [] for x in (*positions, *lengths)}
    for layer in layers:
        node = layer.node
        replaced[node.output(0)] = [node.input_value(0), layer.key, layer.value, *node.input_values()[4:]]
    for state in states:
        inputs = [x.source if isinstance(x, Input) else x for x in state.inputs]
        replaced |= dict.fromkeys(state.outputs, inputs)
    computed = check_stateless(model, replaced)
    positions, lengths = ([x for x in outputs if x in computed] for outputs in (positions, lengths))
    masks, chosen = _masks(layers), choices(model, lengths, computed)
    _check_chunks(masks, options)
    products = padding_products(model)
    _Rewriting(model, options).run(layers, masks, states, positions, lengths, chosen, products)


def _variables(model: Model) -> set[str]:
    """The variables that the model sets."""
    return {str(n._attrs["variable_id"]) for n in model.get_sinks() if n._op.role == "assign"}


def _check_chunks(masks: Iterable[Mask], options: Options) -> None:
    """UnsupportedError for options that have a number for each sequence, where sequences are cut."""
    names = (
        "use_score_outputs", "allow_score_aggregation", "allow_xattention", "allow_adaptive_rkv",
        "allow_qq_bias",
    )  # fmt: skip
    enabled = [name for name in names if getattr(options, name)]
    for mask in masks:
        if mask.chunk and mask.chunk % BLOCK:
            raise UnsupportedError(
                f"chunked attention of {mask.chunk} tokens is not supported: chunks must begin at "
                f"blocks of {BLOCK} tokens"
            )
        if mask.chunk and enabled:
            raise UnsupportedError(f"chunked attention cannot be combined with {' and '.join(enabled)}")


def _masks(layers: Iterable[CachedLayer]) -> list[Mask]:
    """Read each layer's mask; a mask that layers share is read once."""
    mask_by_output: dict[tuple[int, int], Mask] = {}
    masks = []
    for layer in layers:
        mask = layer.mask
        if mask is None:
            masks.append(Mask())
            continue
        key = id(mask._node), mask._index
        if key not in mask_by_output:
            mask_by_output[key] = read_mask(mask, score_bias(mask, layer.concat_of(2)))
        masks.append(mask_by_output[key])
    return masks


class _Rewriting(Inputs):
    """The conversion of one model: inputs that all layers share, and values built so far."""

    def __init__(self, model: Model, options: Options):
        super().__init__(model)
        self.options = options
        self.results: list[Result] = []
        #: What keys get by their places, by what masks add.
        self.columns: dict[Output, Output] = {}

    def run(
        self, layers: list[CachedLayer], masks: list[Mask], states: list[Layer], positions: list[Output],
        lengths: list[Output], chosen: list[Choice], products: list[tuple[Node, int]],
    ) -> None:  # fmt: skip
        model = self.model
        self._join_batch(("input_ids", "inputs_embeds"), 1)
        has_positions = bool(inputs_named(model, "position_ids"))
        if has_positions:
            self._join_batch(("position_ids",), -1)
        for name in ("max_context_len", "past_lens", "subsequence_begins", "block_indices_begins"):
            self.input(name, "i32", () if name == "max_context_len" else (ANY,))
        if not self.options.use_block_indices_inputs:
            self.input("block_indices", "i32", (ANY,))
        self._feed_positions(positions, has_positions)
        owners: dict[tuple[int, ...], int] = {}
        for number, (layer, mask) in enumerate(zip(layers, masks, strict=True)):
            self._replace(number, owners.setdefault(layer.caches(), number), layer, mask)
        for state in states:
            self._replace_state(state)
        for assign in list(model.get_sinks()):
            if assign._op.role == "assign":
                model.remove_sink(assign)
                assign.input_value(0)._node._forget_user(assign)
        if chosen:
            own_lengths = self.own_lengths()
        for choice in chosen:
            last = _op("Subtract", own_lengths, _i64(1))
            choose_by_token(model, choice, own_lengths if choice.length in lengths else last)
        for length in lengths:
            length.replace(self.longest(length))
        model.add_results(self.results)
        for product, index in products:
            product.output(0).replace(product.input_value(index))
        self._drop_old_inputs()
        model.add_parameters(self.new_parameters)
        model.validate_nodes_and_infer_types()

    def _join_batch(self, names: tuple[str, ...], axis: int) -> None:
        """Reshape an input to [tokens, 1, ...]: each token is a sequence of one."""
        model = self.model
        for old in inputs_named(model, *names):
            shape = old._attrs["shape"]
            tail = tuple(shape[2:]) if axis == 1 else ()
            lead = tuple(shape[:-2]) if axis == -1 and shape is not None and len(shape) > 2 else ()
            new = Parameter._of(old._attrs["element_type"], (*lead, ANY, *tail), old.get_friendly_name())
            names_of = old._tensors[0]._names
            old._tensors[0]._names = set()
            new._tensors[0]._names = names_of
            old.output(0).replace(_op("Unsqueeze", new.output(0), np.array(axis, np.int32)))
            index = model.get_parameters().index(old)
            model.remove_parameter(old)
            self._insert_parameter(new, index)

    def _feed_positions(self, positions: list[Output], has_positions: bool) -> None:
        """Replace positions of new tokens that the model computes by the input "position_ids". A new input
        also gets the tensor names of those positions."""
        if has_positions:
            row_input = inputs_named(self.model, "position_ids")[0].output(0)
            if len(row_input._tensor._type.shape or ()) != 1 and positions:
                raise UnsupportedError(
                    "several kinds of positions are used, some of which are counted from variables"
                )
        else:
            row_input = self.input("position_ids", "i64", (ANY,))
            row_input._tensor._names = row_input._tensor._names | names_of(positions)
        for position in positions:
            kind = position._tensor._type
            row = row_input if kind.dtype == row_input._tensor._type.dtype else None
            row = row or _op("Convert", row_input, destination_type=kind.dtype)
            for names in (position, position._node.input_value(0)):
                names._tensor._names = names._tensor._names - row_input._tensor._names
            if len(kind.shape or ()) == 1:
                position._tensor._names = set()
                for end in row_ends(position):
                    _stand_up(end)
            else:
                row = _op("Unsqueeze", row, _i64(1))
                if len(kind.shape or ()) > 2:
                    row = _op("Broadcast", row, np.array([*kind.shape[:-2], 1, 1]), mode="bidirectional")
            position.replace(row)

    def _insert_parameter(self, parameter: Parameter, index: int) -> None:
        """Insert an input at the index of another one."""
        following = self.model.get_parameters()[index:]
        for old in following:
            self.model.remove_parameter(old)
        self.model.add_parameters([parameter, *following])

    def _replace(self, number: int, owner: int, layer: CachedLayer, mask: Mask) -> None:
        """Replace one layer's attention by PagedAttention over the caches of the layer `owner`, which writes
        them."""
        node = layer.node
        query = _op("Transpose", node.input_value(0), _i64(0, 2, 1, 3))
        key, value = (self._new(layer, i) for i in (1, 2))
        if mask.bias is not None:
            query = with_factor(query, scale_of(layer))
            key = with_bias(
                key, _op("Transpose", bias_of(mask.bias, layer.concat_of(2), layer.value), _i64(0, 2, 1, 3))
            )
        if mask.placed is not None:
            query, key = self._with_places(layer, mask, query, key)
        rows = [_rows(x) for x in (query, key, value)]
        heads = [x.get_node().input_value(0)._tensor._type.shape for x in rows]
        paged = PagedAttentionExtension([*rows, *self._tables(number, owner, layer, mask)])
        paged.set_write_kv_cache(owner == number)
        for what, shape in zip("kv", heads[1:], strict=True):
            for name, size in ((f"num_{what}_heads", shape[-2]), (f"{what}_head_size", shape[-1])):
                if isinstance(size, int):
                    paged.get_rt_info()[name] = size
        if mask.chunk:
            paged.get_rt_info()._set(CHUNKS, {"size": str(mask.chunk)})
        size = heads[2][-1]
        target = _i64(0, 1, -1, size if isinstance(size, int) else 0)
        split = _op("Reshape", paged.output(0), target, special_zero=True)
        node.output(0).replace(_op("Transpose", split, _i64(0, 2, 1, 3), name=node.get_friendly_name()))
        self._outputs(number, paged)

    def _with_places(
        self, layer: CachedLayer, mask: Mask, query: Output, key: Output
    ) -> tuple[Output, Output]:
        """Queries and keys with the bias that the mask adds by the positions of keys."""
        assert mask.placed is not None and mask.slopes is not None
        column = self.columns.get(mask.placed)
        if column is None:
            ones = self.ones(inputs_named(self.model, "attention_mask")[0], _i64(1))
            column = columns(mask.placed, ones, self.own_places(), mask.slopes)
            self.columns[mask.placed] = column
        heads = len(mask.slopes), key._tensor._type.shape[-2]
        return with_factors(query, scale_of(layer), *heads), with_columns(key, column, *heads)

    def _replace_state(self, layer: Layer) -> None:
        """Replace one recurrent layer by its paged form, with a table of states."""
        tables = [name for name in self.shared if name.startswith(f"{TABLES[layer.operation]}.")]
        lists = ["subsequence_begins", *(f"la.{name}" for name in LISTS)]
        ends = [self.input(name, "i32", (ANY,)) for name in lists]
        shape = layer.state
        if layer.operation == "PagedGatedDeltaNet":
            shape = (shape[0], shape[2], shape[1])
        table = self.input(f"{TABLES[layer.operation]}.{len(tables)}", "dynamic", (ANY, *shape))
        inputs = [_by_token(x) if isinstance(x, Input) else x for x in layer.inputs]
        if layer.operation == "PagedCausalConv1D":
            inputs[1] = _op("Reshape", inputs[1], _i64(shape[0], 1, shape[1]), special_zero=False)
            bias = inputs[2:] or [constant_node(np.zeros(0, np.float32)).output(0)]
            inputs[2:] = [_op("Reshape", x, _i64(-1), special_zero=False) for x in bias]
        inputs.insert(layer.table, table)
        paged = make_node(layer.operation, [*inputs, *ends], layer.attrs)
        name = layer.node.get_friendly_name()
        paged.set_friendly_name(f"{name}/{layer.operation}")
        out = _op("Unsqueeze", paged, _i64(layer.axis), name=name)
        for result in layer.outputs:
            result.replace(out)

    def _new(self, layer: CachedLayer, index: int) -> Output:
        """The new keys (1) or values (2), [tokens, 1, heads, size]."""
        source = (layer.key, layer.value)[index - 1]
        shape = source._tensor._type.shape
        name = layer.node.get_friendly_name()
        if shape is None or len(shape) not in (3, 4):
            raise UnsupportedError(f"the cache of {name!r} should have 4 dimensions; its shape is {shape}")
        if len(shape) == 3:  # one head for all, as in models with multi-query attention
            source = _op("Unsqueeze", source, _i64(layer.axis(index) + 1 if layer.axis(index) == 1 else 1))
        elif layer.axis(index) == 2:
            source = _op("Transpose", source, _i64(0, 2, 1, 3))
        return source

    def _tables(self, number: int, owner: int, layer: CachedLayer, mask: Mask) -> list[Output]:
        """The inputs of PagedAttentionExtension after keys and values."""

        def empty(dtype: Any, *shape: int) -> Output:
            return constant_node(np.zeros(shape or (0,), dtype)).output(0)

        def each(name: str, dtype: str, rank: int = 1) -> Output:
            return self.input(f"{name}.{number}", dtype, (ANY,) * rank)

        node, opts = layer.node, self.options
        names = f"key_cache.{owner}", f"value_cache.{owner}"
        caches = [self.input(name, "dynamic", (ANY,) * 4) for name in names]
        separate = opts.use_block_indices_inputs
        blocks = each("block_indices", "i32") if separate else self.input("block_indices", "i32", (ANY,))
        shared = [self.input(name, "i32", (ANY,)) for name in ("past_lens", "subsequence_begins")]
        ends = self.input("block_indices_begins", "i32", (ANY,))
        slopes = empty(np.float32) if mask.slopes is None else constant_node(mask.slopes).output(0)
        window = constant_node(np.array(mask.window, np.int32)).output(0)
        aggregation = empty(np.int32)
        if opts.allow_score_aggregation:
            aggregation = self.input("score_aggregation_window", "i32", (ANY,))
        rotation = [empty(np.int32), empty(np.int32), empty(np.float32)]
        if opts.allow_cache_rotation:
            table = self.input("model_rotation_trig_lut", "f32", (ANY, ANY))
            rotation = [each("rotated_block_indices", "i32"), each("rotation_deltas", "i32", 2), table]
        zero = np.zeros((), np.int32)
        sparse = [empty(np.float32), constant_node(zero).output(0), constant_node(zero).output(0)]
        if opts.allow_xattention:
            sizes = [self.input(f"xattention_{name}", "i32", ()) for name in ("block_size", "stride")]
            sparse = [each("xattention_threshold", "f32"), *sizes]
        sinks = empty(np.float32, 0, 0, 0, 0)
        if len(node._inputs) > 5:
            sinks = node.input_value(5)
        diversity = [constant_node(zero).output(0), *(empty(np.int32) for _ in range(3))]
        if opts.allow_adaptive_rkv:
            both = [
                self.input("adaptive_rkv_start_size", "i32", ()),
                self.input("adaptive_rkv_evictable_sizes", "i32", (ANY,)),
            ]
            sets = "adaptive_rkv_diversity_block_set_indices"
            diversity = [*both, each(sets, "i32"), each(f"{sets}_begins", "i32")]
        kinds = empty(np.int32)
        type_inputs = inputs_named(self.model, "token_type_ids")
        if type_inputs and type_inputs[0]._attrs["element_type"] in ("i32", "i64"):
            kinds = type_inputs[0].output(0)
            if type_inputs[0]._attrs["element_type"] != "i32":
                kinds = _op("Convert", kinds, destination_type="i32")
        bias = [empty(np.uint8), empty(np.int32)]
        if opts.allow_qq_bias:
            bias = [self.input("qq_bias", "u8", (ANY,)), self.input("qq_bias_begins", "i32", (ANY,))]
        return [
            *caches, *shared, blocks, ends, scale_of(layer), window, slopes,
            self.input("max_context_len", "i32", ()), aggregation, *rotation, *sparse, sinks, *diversity,
            kinds, *bias,
        ]  # fmt: skip

    def _outputs(self, number: int, paged: Node) -> None:
        """Add the outputs that the options request."""
        outputs = [("scores", 1, self.options.use_score_outputs)]
        outputs.append(("adaptive_rkv_diversity", 2, self.options.allow_adaptive_rkv))
        for what, index, enabled in outputs:
            if enabled:
                name = f"{what}.{number}"
                result = Result._of(paged.output(index), name)
                result._tensors[0]._names = result._tensors[0]._names | {name}
                self.results.append(result)

    def _drop_old_inputs(self) -> None:
        """Remove the inputs that only states and masks read."""
        live = {id(node) for node in self.model.get_ordered_ops() if node._op.role != "parameter"}
        for parameter in list(self.model.get_parameters()):
            names = parameter._tensors[0]._names
            users = [x for x in parameter.output(0).get_target_inputs() if id(x.get_node()) in live]
            if names & {"attention_mask", "beam_idx"}:
                if users:
                    self._stand_in(parameter, names)
                self.model.remove_parameter(parameter)

    def _stand_in(self, parameter: Parameter, names: Iterable[str]) -> None:
        """Replace `beam_idx` by 0, 1, ... or a mask by ones, for remaining users: one token a sequence."""
        count = _op("Gather", _op("ShapeOf", self.tokens(), output_type="i64"), _i64(0), np.array(0))
        dtype = parameter._attrs["element_type"]
        if "beam_idx" in names:
            one = np.array(1, np.int64)
            numbers = _op(
                "Range", np.array(0, np.int64), _op("Squeeze", count, _i64(0)), one, output_type="i64"
            )
            parameter.output(0).replace(_op("Convert", numbers, destination_type=dtype))
            return
        parameter.output(0).replace(self.ones(parameter, count))


def _stand_up(end: Output) -> None:
    """Reshape a `row_ends` output to [tokens, 1, ...], of sequences of one token."""
    node, shape = end._node, end._tensor._type.shape or ()
    if is_a(node, "Gather"):
        end.replace(_op("Unsqueeze", end, _i64(1)))
    else:
        target = _i64(-1, *(1 for _ in shape[1:]))
        end.replace(_op("Reshape", node.input_value(0), target, special_zero=False))


def _by_token(data: Input) -> Output:
    """[sequences, tokens, ...] -> [tokens, ...]: each token is a sequence of one token, so one of the
    dimensions is removed."""
    return _op("Reshape", data.source, _i64(-1, *data.shape), special_zero=False)


def _rows(source: Output) -> Output:
    """[tokens, 1, heads, size] as [tokens, heads * size]."""
    return _op("Reshape", source, _i64(0, -1), special_zero=True)
