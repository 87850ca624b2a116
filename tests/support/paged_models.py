"""Small decoders over pages of a cache, and sequences that come and go in chunks of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import ovjit as ov
from bench import transformers

SIZES = transformers.Sizes(layers=2, wide=64, heads=4, shared=2, inner=96, words=50)
#: Tokens of a block.
BLOCK = 32


def decoder(package: Any, sizes: transformers.Sizes = SIZES) -> Any:
    """A llama with state."""
    return transformers.llama(transformers.Net(package, "llama"), sizes)


class Cache:
    """A request of a paged decoder, with blocks that sequences take in random order."""

    def __init__(self, package: Any, compiled: Any, rng: np.random.Generator, blocks: int = 48):
        self.request = compiled.create_infer_request()
        self.names = {name for port in compiled.inputs for name in port.get_names()}
        self.caches: dict[str, Any] = {}
        for port in compiled.inputs:
            name = port.get_any_name()
            if "_cache." in name:
                shape = [blocks if d.is_dynamic else d.get_length() for d in port.get_partial_shape()]
                tensor = package.Tensor(port.get_element_type(), package.Shape(shape))
                tensor.data[...] = 0
                self.caches[name] = tensor
                self.request.set_tensor(name, tensor)
        self.free = [int(i) for i in rng.permutation(blocks)]
        self.tables: dict[int, list[int]] = {}

    def table(self, sequence: int, length: int, block: int = BLOCK) -> list[int]:
        """The blocks of a sequence, as many as so many tokens need."""
        own = self.tables.setdefault(sequence, [])
        while len(own) * block < length:
            own.append(self.free.pop())
        return own[: -(-length // block)]

    def inputs(self, rows: list[tuple[int, int, np.ndarray]]) -> dict[str, np.ndarray]:
        """What a call is given for (sequence, its past, new tokens)."""
        tables = [self.table(s, past + len(new)) for s, past, new in rows]
        lengths = [past + len(new) for _, past, new in rows]
        given = {
            "input_ids": np.concatenate([new for _, _, new in rows]).astype(np.int64),
            "position_ids": np.concatenate([np.arange(past, past + len(new)) for _, past, new in rows]),
            "past_lens": np.array([past for _, past, _ in rows], np.int32),
            "subsequence_begins": np.cumsum([0, *(len(new) for _, _, new in rows)]).astype(np.int32),
            "block_indices": np.concatenate(tables).astype(np.int32),
            "block_indices_begins": np.cumsum([0, *map(len, tables)]).astype(np.int32),
            "max_context_len": np.array(max(lengths), np.int32),
        }
        own = {name: given["block_indices"] for name in self.names if name.startswith("block_indices.")}
        return {name: array for name, array in (given | own).items() if name in self.names}


def alone(compiled: Any, tokens: np.ndarray) -> np.ndarray:
    """The logits of one sequence, decoded with state."""
    n = len(tokens)
    given = {
        "input_ids": tokens[None], "attention_mask": np.ones((1, n), np.int64),
        "position_ids": np.arange(n)[None], "beam_idx": np.zeros(1, np.int32),
    }  # fmt: skip
    names = {name for port in compiled.inputs for name in port.get_names()}
    request = compiled.create_infer_request()
    return np.array(request.infer({k: v for k, v in given.items() if k in names})[0][0])


def decoded(cache: Cache, sequences: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """The logits of all tokens of the sequences, given in random chunks and mixtures."""
    made: list[list[np.ndarray]] = [[] for _ in sequences]
    past = [0] * len(sequences)
    while any(p < len(s) for p, s in zip(past, sequences, strict=True)):
        active = [i for i, s in enumerate(sequences) if past[i] < len(s) and rng.random() < 0.7]
        if not active:
            continue
        counts = [min(len(sequences[i]) - past[i], int(rng.choice([1, 1, 2, 4, 16, 40]))) for i in active]
        pairs = zip(active, counts, strict=True)
        rows = [(i, past[i], sequences[i][past[i] : past[i] + n]) for i, n in pairs]
        logits = np.array(cache.request.infer(cache.inputs(rows))[0])[:, 0]
        for i, part in zip(active, np.split(logits, np.cumsum(counts)[:-1]), strict=True):
            made[i].append(part)
            past[i] += len(part)
    return [np.concatenate(parts) for parts in made]


def both_transformed(model: ov.Model, folder: Path) -> tuple[Any, Any]:
    """A model as a file has it, for paged attention: by ovjit's transformation, and by OpenVINO's."""
    import openvino
    import openvino._offline_transformations as theirs
    from ovjit._offline_transformations import paged_attention_transformation

    path = folder / "a.xml"
    ov.save_model(model, path, compress_to_fp16=False)
    mine, real = ov.Core().read_model(path), openvino.Core().read_model(path)
    paged_attention_transformation(mine)
    theirs.paged_attention_transformation(real)
    return mine, real


def told(model: Any) -> Any:
    """What a model says of its ends and of its layers."""

    def ports(found: Any) -> list[Any]:
        return [
            (sorted(p.get_names()), p.get_element_type().get_type_name(), str(p.get_partial_shape()))
            for p in found
        ]

    layers = []
    for node in model.get_ordered_ops():
        if node.get_type_name() == "PagedAttentionExtension":
            info = node.get_rt_info()
            names = ("num_k_heads", "k_head_size", "num_v_heads", "v_head_size")
            inputs = [
                (x.get_element_type().get_type_name(), str(x.get_partial_shape()))
                for x in node.input_values()
            ]
            said = [info[n].astype(int) for n in names]
            layers.append((inputs, said, node.get_attributes(), ports(node.outputs())))
    return ports(model.inputs), ports(model.outputs), layers, len(model.get_sinks())
