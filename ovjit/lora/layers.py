"""Layers of a Model that adapters change: MatMul and 1 x 1 Convolution, found by their friendly names.

A layer's result y becomes y + (x A^T) B^T. A and B are inputs of the model, or constants; or B A is added to
the layer's own weights. Matrices of several adapters are concatenated along the rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ovjit.api.model.model import Model
from ovjit.compat import opset13
from ovjit.errors import OvjitError, UnsupportedError
from ovjit.lora.tensors import GGUF_LAYERS, AdapterTensors, LowRank, join_block

#: Adapters and their scales.
Blend = Sequence[tuple[AdapterTensors, float]]
#: A convolution's channels [batch, channels, height, width] become the last axis, and back.
_CHANNELS = np.array([2, 3, 0, 1])
#: Names of matrices of GGUF files.
_GGUF_MATRIX = re.compile(r"(?:blk\.(?P<block>\d+)\.)?(?P<layer>\w+)\.weight", re.ASCII)
#: Types of weights that take a sum.
_FLOATS = ("f32", "f16", "bf16", "f64")


def find_name(names: Iterable[str], node_name: str, prefix: str) -> str | None:
    """The first of an adapter's names, without the prefix, that is a part of a node's name. Exporters write
    dots as underscores in some names. Names without the prefix are those of other models."""
    variants = node_name, node_name.replace(".", "_")
    for name in names:
        if name.startswith(prefix) and any(name[len(prefix) :] in variant for variant in variants):
            return name
    return None


def name_gguf_layers(model: Model) -> None:
    """Give products with matrices of a GGUF file the names that adapters have."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        source = node.input_value(1).get_node()
        while source.get_input_size():  # scales and levels are later inputs
            source = source.input_value(0).get_node()
        match = _GGUF_MATRIX.fullmatch(source.get_friendly_name())
        layer = GGUF_LAYERS.get(match["layer"]) if match else None
        if match and layer:
            node.set_friendly_name(join_block(match["block"], layer))


def find_layers(model: Model, blend: Blend, prefix: str) -> list[Any]:
    """The nodes that at least one of the adapters has matrices for."""
    nodes = [n for n in model.get_ordered_ops() if n.get_type_name() in ("MatMul", "Convolution")]
    return [
        node
        for node in nodes
        if any(find_name(each.layers, node.get_friendly_name(), prefix) for each, _ in blend)
    ]


def blend_layer(
    blend: Blend, node_name: str, prefix: str, sizes: tuple[int, int], head_size: int = 0
) -> LowRank:
    """The matrices of a layer: of all adapters, A with their scales. Rank 0 if no adapter has some. `sizes`:
    the layer's inputs and outputs; RuntimeError if those of an adapter differ. `head_size`: for layers of
    adapters that are `paired`; UnsupportedError for these if it is 0."""
    pairs = []
    for tensors, scale in blend:
        name = find_name(tensors.layers, node_name, prefix)
        if name is None:
            continue
        a, b = tensors.layers[name]
        if (a.shape[1], b.shape[0]) != sizes:
            raise OvjitError(
                f"the LoRA tensors {name} have A {list(a.shape)} and B {list(b.shape)}, but the layer "
                f"{node_name} has {sizes[0]} inputs and {sizes[1]} outputs"
            )
        if name in tensors.paired:
            if not head_size:
                raise UnsupportedError(
                    "an adapter of a GGUF file needs a model whose attention has heads of one size"
                )
            from ovjit.readers.gguf.weights import half_order

            b = b[half_order(len(b) // head_size, head_size, head_size)]
        pairs.append(LowRank(a * np.float32(scale), b))
    if not pairs:
        return LowRank(np.zeros((0, sizes[0]), np.float32), np.zeros((sizes[1], 0), np.float32))
    return LowRank(np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs], 1))


def find_head_size(model: Model) -> int:
    """The size of a head of the model's attention, 0 if it is not one for all layers."""
    sizes = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            shape = node.input_value(0).get_partial_shape()
            is_fixed = shape.rank.is_static and shape[-1].is_static
            sizes.add(shape[-1].get_length() if is_fixed else 0)
        elif node.get_type_name() == "PagedAttentionExtension":
            sizes.add(int(node.get_rt_info()["k_head_size"].value))
    return sizes.pop() if len(sizes) == 1 else 0


def layer_sizes(node: Any) -> tuple[int, int]:
    """The inputs and outputs of a layer. UnsupportedError for a layer that is not a product with weights."""
    shape = node.input_value(1).get_partial_shape()
    attributes, name = node.get_attributes(), node.get_friendly_name()
    is_matmul = node.get_type_name() == "MatMul"
    if attributes.get("transpose_a") or shape.rank != (2 if is_matmul else 4):
        raise UnsupportedError(
            f"the layer {name} cannot be adapted: weights {shape} of rank {2 if is_matmul else 4} are "
            "expected, and activations that are not transposed"
        )
    outputs, inputs = (shape[i].get_length() for i in (0, 1))
    return (inputs, outputs) if not is_matmul or attributes["transpose_b"] else (outputs, inputs)


def add_products(node: Any, a: Any, b: Any) -> None:
    """Add the low-rank products of the f32 nodes `a` and `b` to a layer's result, for all that use it."""
    ops, target = opset13, node.output(0)
    users, names = target.get_target_inputs(), target.get_names()
    x, kind = node.input_value(0), target.get_element_type()
    is_convolution = node.get_type_name() == "Convolution"
    order = ops.constant(_CHANNELS)
    if is_convolution:
        x = ops.transpose(x, order).output(0)
    if kind != a.get_element_type():
        a, b = ops.convert(a, kind), ops.convert(b, kind)
    product = ops.matmul(ops.matmul(x, a, False, True), b, False, True)
    if is_convolution:
        product = ops.transpose(product, order)
    total = ops.add(target, product)
    for user in users:
        user.replace_source_output(total.output(0))
    target.set_names(set())
    total.output(0).set_names(names)


def add_to_weights(node: Any, matrices: LowRank) -> None:
    """Add B A to the weights of a layer, which become f32. RuntimeError for compressed weights."""
    source = node.input_value(1).get_node()
    stored = source.input_value(0).get_node() if source.get_type_name() == "Convert" else source
    if stored.get_type_name() != "Constant" or stored.get_element_type().get_type_name() not in _FLOATS:
        raise OvjitError(
            f"LoRA adapter application: not supported decompression pattern at the weight input of "
            f"{node.get_friendly_name()} (presumably low-bit compression). Use f32/f16/bf16 weights only if "
            "MODE_FUSE is used."
        )
    change = matrices.b @ matrices.a
    if node.get_type_name() == "MatMul":
        change = change if node.get_attributes()["transpose_b"] else change.T
    else:
        change = change[:, :, None, None]
    weights = stored.get_data(dtype=np.float32) + change
    kind = node.input_value(1).get_element_type()
    node.input(1).replace_source_output(opset13.constant(weights, kind).output(0))


def find_weights(model: Model, weights: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """The constants that an adapter's whole weights replace, by the names of these. RuntimeError if they
    differ in shape, or are not floats."""
    constants: dict[str, Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or not weights:
            continue
        name = find_name(weights, node.get_friendly_name(), prefix)
        if name is None:
            continue
        kind, shape = node.get_element_type(), list(node.output(0).get_shape())
        if shape != list(weights[name].shape) or kind.get_type_name() not in _FLOATS:
            raise OvjitError(
                f"{name} of the shape {list(weights[name].shape)} cannot replace the weights "
                f"{node.get_friendly_name()}, which are {kind.get_type_name()} {shape}"
            )
        constants[name] = node
    return constants
