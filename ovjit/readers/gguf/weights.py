"""Tensors of a GGUF file as nodes: small ones as f32, matrices as they are stored, worked out by nodes that
the compiler knows as compressed weights."""

from __future__ import annotations

import numpy as np

from ovjit.build import Output, make_constant
from ovjit.build.builder import Builder, Draft
from ovjit.errors import ModelError, UnsupportedError
from ovjit.graph.converted import Unmade
from ovjit.graph.dtypes import numpy_dtype
from ovjit.readers.gguf.blocks import REALS, check_kind, groups_of, values_of
from ovjit.readers.gguf.header import SHOWN, GgufFile, Stored
from ovjit.readers.gguf.settings import Settings

#: Tensors that say nothing that metadata does not say, and the scales by which other programs round rows.
_SPARE = ("attn_rot_embd.weight", "attn.rot_embd.weight", "attention.rotary_emb.inv_freq", ".input_scale")
#: Tables of matrices of which rows choose their own have outputs in multiples.
_PANEL = 32


def half_order(heads: int, size: int, rotated: int) -> np.ndarray:
    """The order of rows in which the two elements of a rotated pair are half a head apart, as the operation
    expects. In files they are adjacent, in the first `rotated` of the `size` rows of each head of llama's
    queries and keys."""
    pairs = np.arange(rotated).reshape(-1, 2).T.reshape(-1)
    one = np.concatenate([pairs, np.arange(rotated, size)])
    return (np.arange(heads)[:, None] * size + one).reshape(-1)


def shape_of_rank(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """An equal shape of `rank` dimensions: tensors have four in files, of which trailing ones of length 1 are
    omitted, so [n] is [n, 1]. The shape itself if there is none."""
    lead = len(shape) - rank
    if lead > 0 and set(shape[:lead]) == {1}:
        return shape[lead:]
    return (1,) * -lead + shape


class Weights(Builder):
    """Makes nodes of the tensors of one file, and records which tensors were read."""

    def __init__(self, file: GgufFile, settings: Settings):
        self.reader, self.base = Draft(), ""
        self.file, self.settings = file, settings
        self._used: set[str] = set()
        parts = (name.split(".", 2) for name in file.tensors if name.endswith(".bias"))
        #: Biases that some layer has, by what follows the layer in their names.
        self._biases = {part[2] for part in parts if part[0] == "blk" and len(part) > 2}

    def has(self, name: str) -> bool:
        return name in self.file.tensors

    def tensor(self, name: str) -> Stored:
        """The tensor. ModelError if it is missing."""
        stored = self.file.tensors.get(name)
        if stored is None:
            raise ModelError(f"the tensor {name!r} of the architecture {self.settings.arch!r} is missing")
        self._used.add(name)
        return stored

    def check_used(self) -> None:
        """Raise UnsupportedError with the names of tensors that were not read: the model has features that
        are not supported."""
        unused = [n for n in self.file.tensors if n not in self._used and not n.endswith(_SPARE)]
        if unused:
            raise UnsupportedError(
                f"tensors that are not read for the architecture {self.settings.arch!r}: "
                + ", ".join(f"{name!r:.{SHOWN}}" for name in unused[:10])
                + (f" and {len(unused) - 10} more" if len(unused) > 10 else "")
            )

    def array(self, name: str, *shape: int) -> np.ndarray:
        """A small tensor in f32, of this shape. ModelError for another one."""
        stored = self.check_shape(name, shape)
        return values_of(stored.kind, stored.data, stored.shape).reshape(shape)

    def matrix(self, name: str, *shape: int, order: np.ndarray | None = None) -> Output:
        """A matrix [outputs, inputs], or a table of such, in f32; -1 is any size, `order` that of rows."""
        tensor = self.check_shape(name, shape)
        if tensor.kind in REALS:
            return self._reals(tensor, name, order)
        codes, dtype, scale, zero, levels = groups_of(tensor.kind, tensor.data, tensor.shape, order)
        stored = self._add_constant(codes, dtype, name)
        if levels is not None:
            real = self("Gather", self.const(levels), self.convert(stored, "i32"), 0)
        else:
            real = self("Convert", stored, destination_type="f32")
        if zero is not None:
            real = self("Subtract", real, self._factor(zero, name))
        real = self("Multiply", real, self._factor(scale, name))
        return self.reshape(real, list(tensor.shape))

    def linear(self, x: Output, name: str, outs: int, order: np.ndarray | None = None) -> Output:
        """x [..., K] times `name`.weight [outs, K] and `name`.scale, which files of NVFP4 have, plus
        `name`.bias. Raises ModelError if the bias is missing, and the architecture or another layer of the
        file has one."""
        w = self.matrix(f"{name}.weight", outs, self.last_dim(x), order=order)
        y = self("MatMul", x, w, transpose_a=False, transpose_b=True)
        if self.has(f"{name}.scale"):
            y = self("Multiply", y, self.array(f"{name}.scale", 1))
        if not self._is_biased(name) and not self.has(f"{name}.bias"):
            return y
        bias = self.array(f"{name}.bias", self.last_dim(y))
        return self("Add", y, bias if order is None else bias[order])

    def _is_biased(self, name: str) -> bool:
        """Whether a layer's product has a bias, by its architecture and other layers."""
        part, *tail = name.split(".", 2)
        return part == "blk" and (self.settings.kind.biased or f"{tail[-1]}.bias" in self._biases)

    def is_multiplied_by_row(self, name: str) -> bool:
        """Whether a table of matrices, in its stored type, is multiplied by rows that choose one matrix
        each."""
        stored = self.tensor(name)
        shape = shape_of_rank(stored.shape, 3)
        return stored.kind not in REALS and len(shape) == 3 and not shape[1] % _PANEL

    def check_shape(self, name: str, shape: tuple[int, ...]) -> Stored:
        """The tensor with the dimensions that are expected, -1 for any. ModelError for another shape,
        UnsupportedError for a type that is not read."""
        stored = self.tensor(name)
        try:
            check_kind(stored.kind)
        except UnsupportedError as error:
            raise UnsupportedError(f"the tensor {name!r}: {error}") from None
        expected = shape_of_rank(stored.shape, len(shape))
        if len(shape) != len(expected) or any(
            n not in (-1, has) for n, has in zip(shape, expected, strict=True)
        ):
            raise ModelError(
                f"the tensor {name!r} has the shape {list(stored.shape)}; the metadata require "
                f"{['any' if n < 0 else n for n in shape]}"
            )
        return stored._replace(shape=expected)

    def _reals(self, stored: Stored, name: str, order: np.ndarray | None) -> Output:
        dtype = REALS[stored.kind]
        array = stored.data.view(numpy_dtype(dtype)).reshape(stored.shape)
        if order is not None:
            array = array[order]
        if not array.flags.aligned:
            array = array.copy()
        return self.convert(self._add_constant(array, dtype, name), "f32")

    def _factor(self, values: np.ndarray | Unmade, name: str) -> Output:
        """Scales or zeros in f32."""
        if isinstance(values, Unmade):
            return self._add_constant(values, "f32", name)
        return self.convert(self.const(values), "f32")

    def _add_constant(self, array: np.ndarray | Unmade, dtype: str, name: str) -> Output:
        return make_constant(array, dtype, None, self.reader.name("", name))
