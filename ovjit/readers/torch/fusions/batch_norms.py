"""BatchNorm as a factor and a term for each channel, the factor in a convolution's weights: OpenVINO's
`convert_model` does so, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovjit.build.rules import ModelNode, ModelValue, ModelWriter
from ovjit.rewrite.pattern import anything, constant, op
from ovjit.rewrite.rules import rule
from ovjit.rewrite.weight_scales import (
    CONVOLUTION,
    by_channel,
    expand_batch_norm,
    f32_constant,
    scale_outputs,
)

_BIASED = op.Add(CONVOLUTION | op.MatMul(...).named("product"), f32_constant("bias")).once


@rule(op.BatchNormInference(_BIASED, anything, anything, constant("mean"), anything))
def subtract_bias_from_mean(
    w: ModelWriter, node: ModelNode, bias: ModelValue, mean: ModelValue, conv: ModelValue | None = None,
    product: ModelValue | None = None,
) -> Sequence[ModelValue] | None:  # fmt: skip
    """BatchNormInference(x + bias; mean) -> BatchNormInference(x; mean - bias), where x is a product"""
    data, means = conv or product, np.asarray(mean.constant, np.float64)
    assert data is not None
    biases = by_channel(np.asarray(bias.constant), len(data.shape or ()), means.size)
    if biases is None:
        return None
    _, gamma, beta, _, variance = node.inputs
    difference = w.b.constant((means - biases).astype(np.float32))
    return w.b.instead(node, [data, gamma, beta, difference, variance])


BATCH_NORMS = [[subtract_bias_from_mean], [expand_batch_norm], [scale_outputs]]
