"""Numbers that follow one another, as one: OpenVINO's `convert_model` does so, too.

x + a + b            x + (a + b)                    conv(x; w) * a      conv(x; w * a)
x * a * b            x * (a * b)                    conv(x * a; w)      conv(x; w * a)
conv(pad(x); w)      conv(x; w), padded             x[1:][:, 2:]        x[1:, 2:]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.build import Model
from ovjit.build.rules import ModelNode, ModelValue, ModelWriter, apply_rules
from ovjit.rewrite.pattern import constant, op, value
from ovjit.rewrite.rules import Rule, rule
from ovjit.rewrite.weight_scales import f32_constant, join_factors, join_sums, scale_inputs, scale_outputs

_X = value("x")
_CONVOLUTION = op["Convolution GroupConvolution"]
_WEIGHTS = f32_constant("weights")


def _is_sum(x: ModelValue) -> bool:
    return op.Add(value("y"), f32_constant("term")).matches(x)


_FACTOR = op.Multiply(_X.where(lambda x: not _is_sum(x)), f32_constant("factor")).once
#: `scale_inputs`, but of sums with constants.
_scale_inputs = Rule(_CONVOLUTION(_FACTOR, _WEIGHTS), scale_inputs.after)


def join_constants(model: Model) -> None:
    """Apply the rules as long as one fits."""
    rules = [scale_outputs, _scale_inputs, join_sums, join_factors, join_slices, pad_convolution]
    while apply_rules(rules, model):
        pass


_BOUNDS = [constant("")] * 4
_SLICED = op.Slice(_X, *_BOUNDS).once.named("first")


@rule(op.Slice(_SLICED, *_BOUNDS))
def join_slices(w: ModelWriter, node: ModelNode, x: ModelValue, first: ModelValue) -> ModelValue | None:
    """x[1:][:, 2:] -> x[1:, 2:]: slices of different axes"""
    joined = [
        np.concatenate([np.asarray(value.constant, np.int64).reshape(-1) for value in bounds])
        for bounds in zip(first.node.inputs[1:], node.inputs[1:], strict=True)
    ]
    if x.shape is None or len(set(joined[3] % len(x.shape))) < joined[3].size:
        return None
    return w("Slice", x, *joined)


_PADDED = op.Pad(_X, constant("before"), constant("after"), constant("fill"), pad_mode="constant").once


@rule(_CONVOLUTION(_PADDED, _WEIGHTS, auto_pad="explicit"))
def pad_convolution(
    w: ModelWriter, node: ModelNode, x: ModelValue, before: ModelValue, after: ModelValue, fill: ModelValue
) -> Sequence[ModelValue] | None:
    """conv(pad(x)) -> conv(x) with more padding, where zeros are put around the picture"""
    low, high = (np.asarray(value.constant).reshape(-1).tolist() for value in (before, after))
    if np.any(fill.constant) or min(low + high) < 0 or any(low[:2] + high[:2]):
        return None
    pads = {
        key: [a + b for a, b in zip(node.attrs[key], more[2:], strict=True)]
        for key, more in (("pads_begin", low), ("pads_end", high))
    }
    return w.b.instead(node, [x, *node.inputs[1:]], {**node.attrs, **pads})
