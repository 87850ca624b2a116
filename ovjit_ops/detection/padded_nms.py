"""The expansion of box suppression: an operation with a buffer for all rows, and one that takes the valid
prefix.

    boxes [B, N, 4, or 5 of rotated ones]  scores [B, C, N]; with a sigma, scores decay and no box is dropped
    ->  rows (image, class, box) [capacity, 3], their scores [capacity, 3], and the number of valid rows [1]
"""

from __future__ import annotations

import numpy as np

from ovjit.graph.op import Bool, DType, Int, TensorType, Word, op
from ovjit_ops.detection.cpu_nms import ROTATED
from ovjit_ops.detection.nms import capacity, check_inputs, check_limits, evaluate
from ovjit_ops.detection.nms_rotated import rotated_nms


@op("PaddedNMS", lower=".cpu_nms:PaddedNms.of", internal=True)
class PaddedNMS:
    """NonMaxSuppression with a buffer for the maximum number of rows. Missing rows are -1.

    `limit`: the value of `most` if it is constant, else -1.
    """

    def infer(
        boxes, scores, most, iou_threshold, score_threshold, soft_nms_sigma=None, *, box_encoding: Word,
        sort_result_descending: Bool, output_type: DType, limit: Int,
    ):  # fmt: skip
        check_limits(most, iou_threshold, score_threshold, soft_nms_sigma)
        check_inputs(boxes, scores, 5 if box_encoding in ROTATED else 4)
        rows = capacity(boxes, scores, limit)
        kind = output_type
        return TensorType(kind, (rows, 3)), TensorType("f32", (rows, 3)), TensorType(kind, (1,))

    def ref(boxes, scores, *limits, **attrs):
        evaluate_nms = rotated_nms if attrs["box_encoding"] in ROTATED else evaluate
        selected, scored, count = evaluate_nms(boxes, scores, limits, attrs)
        rows = capacity(TensorType("f32", boxes.shape), TensorType("f32", scores.shape), attrs["limit"])
        missing = ((0, int(rows) - len(selected)), (0, 0))  # type: ignore[arg-type]
        return (
            np.pad(selected, missing, constant_values=-1),
            np.pad(scored.astype(np.float32), missing, constant_values=-1),
            count,
        )
