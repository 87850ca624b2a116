"""A decoder with a paged cache of keys and values: loaded, compressed, rewritten, compiled, and run for
batches.

In: a folder (an IR exported by optimum-intel, one GGUF file, or config.json and safetensors). Out: hidden
states of new tokens, and logits of the selected ones. The last product is a separate model, so it is not
computed for the other tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.api.run.core import Core
from ovjit.api.tensors.tensor import Tensor
from ovjit.api.tensors.vectors import Shape
from ovjit.compat import opset13
from ovjit.compat._offline_transformations import paged_attention_transformation
from ovjit.compat.passes.longest import find_comparisons
from ovjit.compat.passes.probe import Probe
from ovjit.compat.passes.weight_compression import compress_weights
from ovjit.errors import ModelError, UnsupportedError
from ovjit.generation.decoder import FILES, RUNTIME, choose_caches
from ovjit.generation.head import last_product, logits_of
from ovjit.generation.paged_tables import Tables, check_tables, tables_of
from ovjit.generation.row_slices import find_region, fix_sizes, list_sources
from ovjit.generation.tokenizer import find_gguf
from ovjit.readers.registry import name_missing_room
from ovjit.records import NamedTuple


class Options(NamedTuple):
    """`weights`: bits of compressed weights, 0: as they are stored; `group`: elements of the depth that share
    a scale, of 4 bits; `kv_cache`: the caches' element type, "": see `choose_caches`; `properties`: for
    compiling.

    These add inputs to the model, which `hidden` takes by name. `scores`: `score_aggregation_window`, for
    `scores_by_sequence`; `rotation`: those that rotate keys in the cache; `xattention`: those of the sparse
    attention. `inputs`: names of others that the model may have, such as embeddings. `outputs`: names of
    outputs besides logits that the model keeps, in `requests[0]`. `defers`: rows of `hidden` are what the
    last layer needs after its attention, which `logits` computes. `exact`: in f32, if `properties` have no
    other type; else in the type that `compile_model` chooses. `states`: layers may be recurrent;
    `grow_states` makes the tables of their states, whose lists `hidden` takes by name.
    """

    weights: int = 0
    group: int = 128
    kv_cache: str = "f32"
    properties: Mapping[str, Any] = {}
    scores: bool = False
    rotation: bool = False
    xattention: bool = False
    inputs: Collection[str] = ()
    outputs: Collection[str] = ()
    defers: bool = False
    exact: bool = True
    states: bool = False

    @property
    def config(self) -> dict[str, Any]:
        """Properties for compiling."""
        hints = {"INFERENCE_PRECISION_HINT": "f32"} if self.exact else {}
        caches = {"KV_CACHE_PRECISION": self.kv_cache} if self.kv_cache else {}
        return {**hints, **caches, **self.properties}


DEFAULTS = Options()
NONE: Mapping[str, Any] = {}
#: Entries of config.json that only vLLM reads.
_BESIDE = frozenset("architectures bos_token_id eos_token_id max_position_embeddings pad_token_id".split())
#: The inputs that `Options` adds. Those of layers end with their number.
_OPTIONAL = frozenset((
    "score_aggregation_window", "rotated_block_indices", "rotation_deltas", "model_rotation_trig_lut",
    "xattention_threshold", "xattention_block_size", "xattention_stride",
))  # fmt: skip


def read_folder(folder: Path, overrides: Mapping[str, Any] = NONE) -> Model:
    """The decoder with state of a folder. Raises ModelError if there is none, or more than one GGUF file.

    `overrides`: entries that replace those of config.json. Raises UnsupportedError if they would change the
    arithmetic of an IR or a GGUF file.
    """
    files = [folder / name for name in FILES if (folder / name).is_file()][:1]
    files = files or find_gguf(folder)
    if len(files) > 1:
        raise ModelError(f"{folder} has several GGUF files: {', '.join(f.name for f in files)}; keep one")
    if not files:
        with name_missing_room("Folders of config.json and safetensors"):
            from ovjit.readers.checkpoint.reader import read_checkpoint
        return read_checkpoint(folder, overrides)
    changing = sorted(set(overrides) - _BESIDE)
    if changing:
        raise UnsupportedError(
            f"{files[0]} is computed as it is stored; these hf_overrides are not supported: "
            f"{', '.join(changing)}"
        )
    return Core().read_model(files[0])


def settle(model: Model, longest: int) -> None:
    """Replace values that depend on a call's largest position by constants, for sequences of `longest`
    tokens.

    Beyond its original context, Phi 3 rotates all tokens of a call by other factors. A batch has sequences of
    different lengths, in arbitrary chunks, so one table must be used for all, as in vLLM's own model.
    """
    probe = Probe(longest - 1)
    for node, _ in find_comparisons(model):
        node.output(0).replace(opset13.constant(probe.value(node.output(0))).output(0))


def split_head(model: Model, defers: bool = False, outputs: Collection[str] = ()) -> tuple[Model, Model]:
    """A paged decoder as two models: one computes the input of the last product, the scores of keys, and the
    outputs with these names, the other one the logits. `defers`: what follows the last attention belongs to
    the other one, if it computes each token by itself.

    Raises UnsupportedError for a decoder whose logits are not the product with a matrix of weights.
    """
    product, _ = last_product(model)
    if product.get_type_name() != "MatMul":
        raise UnsupportedError(
            f"logits are computed by {product.get_type_name()} {product.get_friendly_name()!r}; a "
            "MatMul is expected"
        )
    hidden, ops = product.input_value(0), opset13
    region = find_region(product.input(0), 0, closed=True) if defers else {}
    fix_sizes(region)
    sources = list_sources(region)
    sizes = [_row_size(value, axis) for value, axis, _ in sources]
    if not sources or None in sizes or len({value.get_element_type() for value, _, _ in sources}) > 1:
        sources, sizes = [(hidden, 0, [product.input(0)])], [None]
    else:
        rows = [
            ops.reshape(value, np.array([-1, 1, size]), False)
            for (value, _, _), size in zip(sources, sizes, strict=True)
        ]
        hidden = ops.concat(rows, 2).output(0)
    begin = ops.parameter(hidden.get_partial_shape(), hidden.get_element_type(), name="hidden_states")
    begin.output(0).set_names({"hidden_states"})
    parts = [begin.output(0)]
    if len(sources) > 1:
        parts = ops.variadic_split(begin, np.int64(2), np.array(sizes)).outputs()
    for (value, _, takers), part, size in zip(sources, parts, sizes, strict=True):
        if size is not None:
            shape = [d.get_length() for d in [*value.get_partial_shape()][1:]]
            part = ops.reshape(part, np.array([-1, *shape]), False).output(0)
        for taker in takers:
            taker.replace_source_output(part)
    logits = logits_of(model)
    others = [r for r in model.get_results() if r.get_friendly_name().startswith("scores.")
              or r.output(0).get_names() & {*outputs}]  # fmt: skip
    head = Model([logits], [begin], "head")
    body = Model([ops.result(hidden), *others], model.get_parameters(), "decoder")
    return body, head


def _row_size(value: Any, axis: int) -> int | None:
    """The elements of a row of a value, None if their number is not constant or rows have another axis."""
    shape = value.get_partial_shape()
    if axis or any(d.is_dynamic for d in [*shape][1:]):
        return None
    return int(np.prod([d.get_length() for d in [*shape][1:]]))


class PagedDecoder:
    """A decoder compiled for batches of sequences, with keys and values in blocks of `block` tokens.

    `layers`: for each layer the shapes of a block of keys and of values, and their element type. `longest`:
    the maximum number of tokens of a sequence, for `settle`; 0: `settle` is not called. `change` edits both
    models, and returns the names of inputs that it adds: their tensors are set by others, in `requests`.
    """

    def __init__(
        self, model: Model, options: Options = DEFAULTS, longest: int = 0,
        change: Callable[[Model, Model], Collection[str]] | None = None,
    ):  # fmt: skip
        kinds = {node.get_type_name() for node in model.get_ops()}
        if "ReadValue" in kinds and "ScaledDotProductAttention" not in kinds:
            raise UnsupportedError(
                "attention without ScaledDotProductAttention is not supported, such as that of Gemma 2 "
                "with attn_logit_softcapping"
            )
        if longest:
            settle(model, longest)
        if not options.kv_cache:
            choose_caches(model, options.properties)
        if options.weights:
            compress_weights(model, options.weights, options.group)
        rotation, xattention = options.rotation, options.xattention
        paged_attention_transformation(model, False, options.scores, options.scores, rotation, xattention)
        body, head = split_head(model, options.defers, options.outputs)
        if model.has_rt_info(RUNTIME):
            for part in (body, head):
                part.set_rt_info(model.get_rt_info(RUNTIME).value, RUNTIME)
        constant_inputs = () if change is None else change(body, head)
        core = Core()
        self._body = core.compile_model(body, "CPU", options.config)
        self._head = core.compile_model(head, "CPU", options.config)
        self._ports = [p for p in self._body.inputs if "_cache." in p.get_any_name()]
        tables = [p for p in self._body.inputs if "_state_table." in p.get_any_name()]
        self._state_ports = tables if options.states else []
        self.inputs = {name for port in self._body.inputs for name in port.get_names()}
        unknown = self.inputs - {"input_ids", "position_ids", *Tables._fields, *constant_inputs}
        unknown -= {*options.inputs}
        unknown -= {name for port in (*self._ports, *self._state_ports) for name in port.get_names()}
        unknown -= {name for name in unknown if self._state_ports and name.startswith("la.")}
        unknown -= {name for name in unknown if name.partition(".")[0] in _OPTIONAL}
        if unknown or not self._ports:
            raise UnsupportedError(f"a decoder with the inputs {sorted(self.inputs)} is not supported")
        shapes = {p.get_any_name(): [*p.get_partial_shape()][1:] for p in self._ports}
        self.layers = [
            tuple([d.get_length() for d in shapes[f"{what}_cache.{i}"]] for what in ("key", "value"))
            for i in range(len(self._ports) // 2)
        ]
        kind = self._ports[0].get_element_type()
        self.kind, self.bits = kind.get_type_name(), kind.bitwidth
        self.block = self.layers[0][1][1]  # of values: scales lie beside them, not between them
        #: Bytes of a block of each layer, keys and values.
        self.layer_bytes = [sum(int(np.prod(s)) * self.bits // 8 for s in layer) for layer in self.layers]
        self._request, self._logits = self._body.create_infer_request(), self._head.create_infer_request()
        self.requests = self._request, self._logits
        self.caches: dict[str, Tensor] = {}
        self._tables: dict[str, Tensor] = {}
        self.blocks = self.state_blocks = 0
        self._lengths: np.ndarray = np.zeros(0, np.int64)
        self.width = int(self._head.input(0).get_partial_shape()[-1].get_length())

    @classmethod
    def load(
        cls, folder: str | Path, options: Options = DEFAULTS, longest: int = 0,
        overrides: Mapping[str, Any] = NONE, change: Callable[[Model, Model], Collection[str]] | None = None,
    ) -> PagedDecoder:  # fmt: skip
        """The decoder of a folder, see `read_folder`."""
        return cls(read_folder(Path(folder), overrides), options, longest, change)

    def allocate(self, blocks: int) -> None:
        """Caches of so many blocks: all memory that sequences ever take."""
        self.caches = {}
        self.grow(blocks)

    def grow(self, blocks: int) -> None:
        """Caches of so many blocks, with the content of those that are there."""
        self._grow(self._ports, self.caches, blocks)
        self.blocks = blocks

    def grow_states(self, blocks: int) -> None:
        """Tables of so many states, with those that are there; the others are 0."""
        self._grow(self._state_ports, self._tables, blocks)
        for tensor in self._tables.values():
            cache_bytes(tensor)[self.state_blocks :] = 0
        self.state_blocks = blocks

    def _grow(self, ports: Sequence[Any], tensors: dict[str, Tensor], blocks: int) -> None:
        for port in ports:
            name = port.get_any_name()
            shape = [blocks, *(d.get_length() for d in [*port.get_partial_shape()][1:])]
            before, tensors[name] = tensors.get(name), Tensor(port.get_element_type(), Shape(shape))
            if before is not None:
                cache_bytes(tensors[name])[: before.shape[0]] = cache_bytes(before)
            self._request.set_tensor(name, tensors[name])

    @property
    def has_states(self) -> bool:
        """Whether layers are recurrent."""
        return bool(self._state_ports)

    def copy_block(self, source: int, target: int) -> None:
        """Copy the keys and values of a block to another one."""
        for tensor in self.caches.values():
            rows = cache_bytes(tensor)
            rows[target] = rows[source]

    def move_blocks(self, layer: int, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy the keys and values of a layer from the blocks `sources` to `targets`, all at once."""
        for name in (f"key_cache.{layer}", f"value_cache.{layer}"):
            rows = cache_bytes(self.caches[name])
            rows[targets] = rows[sources]

    def hidden(
        self, tokens: np.ndarray, positions: np.ndarray, tables: Tables,
        more: Mapping[str, np.ndarray] = NONE,
    ) -> np.ndarray:  # fmt: skip
        """Hidden states [tokens, width] of the new tokens of all sequences, in f32, valid until the next
        call; their keys and values are in the caches then. `more`: inputs that `Options` has added. Raises
        ValueError for tables that would read or write blocks of other sequences, see `check_tables`."""
        if tokens.ndim != 1 or tokens.shape != positions.shape:
            raise ValueError(f"{tokens.shape} tokens have {positions.shape} positions; [n] is expected")
        check_tables(tables, len(tokens), self.block, self.blocks)
        return self._hidden(tokens, positions, tables, more)

    def _hidden(
        self, tokens: np.ndarray, positions: np.ndarray, tables: Tables,
        more: Mapping[str, np.ndarray] = NONE,
    ) -> np.ndarray:  # fmt: skip
        inputs = {
            "input_ids": tokens.astype(np.int64, copy=False),
            "position_ids": positions.astype(np.int64, copy=False),
            **tables._asdict(),
            **more,
        }
        inputs = {name: array for name, array in inputs.items() if name in self.inputs}
        hidden = self._request.infer(inputs, share_inputs=True, share_outputs=True)[0]
        self._lengths = tables.past_lens + tables.subsequence_begins[1:] - tables.subsequence_begins[:-1]
        return hidden.reshape(len(tokens), self.width)

    def scores_by_sequence(self) -> list[np.ndarray]:
        """For each sequence of the last call of `hidden` the scores [layers, tokens] of its keys: the sums,
        over heads and over its last `score_aggregation_window` queries, of their weights."""
        outputs = [self._request.get_output_tensor(i + 1).data for i in range(len(self.layers))]
        return np.split(np.stack(outputs), np.cumsum(self._lengths)[:-1], axis=1)

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Logits [rows, words] of hidden states [rows, width], valid until the next call."""
        rows = np.ascontiguousarray(hidden)[:, None]
        rows_of_logits = self._logits.infer([rows], share_inputs=True, share_outputs=True)[0]
        return rows_of_logits.reshape(len(hidden), -1)

    def warm_up(self, counts: Sequence[int], sequences: int = 1) -> None:
        """Compile what calls need: prompts of these lengths, tokens after them, both in one call, and tokens
        of up to so many sequences. Block 0 is written."""
        batches = [[(count, count)] for count in counts]
        batches += [[(count, 1)] for count in counts]
        batches += [[(count, count), (count, 1)] for count in counts[1:] if sequences > 1]
        batches += [[(8, 1)] * active for active in (2, 4, 8, 16, 32, sequences) if 1 < active <= sequences]
        width = -(-max(counts, default=1) // self.block)
        for batch in batches:
            new, lengths = [n for _, n in batch], [length for length, _ in batch]
            blocks = np.zeros((len(batch), width), np.int32)
            tables = tables_of(np.cumsum([0, *new]), np.array(lengths), blocks, self.block)
            positions = [np.arange(end - n, end) for end, n in batch]
            # all in block 0, so what they compute is of no use
            rows = self._hidden(np.zeros(sum(new), np.int64), np.concatenate(positions), tables)
            self.logits(rows[np.cumsum(new) - 1])


def cache_bytes(tensor: Tensor) -> np.ndarray:
    """A cache as bytes [blocks, ...], in place."""
    data = tensor.data if tensor.byte_size == tensor.data.nbytes else np.asarray(tensor.data)
    return data.view(np.uint8).reshape(tensor.shape[0], -1)
