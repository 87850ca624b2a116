"""Samples of `ovjit_ops/sequences`."""

from __future__ import annotations

import numpy as np

from ovjit_ops.elementwise.arithmetic import random_array
from tests.support.samples import samples


@samples("CTCGreedyDecoder")
def ctc_greedy_decoder(rng, dtype="f32"):
    for t, b, c in ((1, 1, 2), (9, 2, 3), (17, 3, 5)):
        for merge in (True, False):
            mask = np.zeros((t, b), random_array(rng, (1,), dtype).dtype)
            for i in range(b):
                mask[: rng.integers(0, t + 1), i] = 1
            yield [random_array(rng, (t, b, c), dtype), mask], {"ctc_merge_repeated": merge}


@samples("CTCGreedyDecoderSeqLen", 6)
def ctc_greedy_decoder_seq_len(rng, dtype="f32"):
    for b, t, c in ((1, 1, 2), (2, 9, 3), (3, 17, 5)):
        for merge in (True, False):
            lengths = rng.integers(1, t + 1, b)
            inputs = [random_array(rng, (b, t, c), dtype), lengths]
            yield inputs, {"merge_repeated": merge}
            yield (
                [*inputs, np.array([1])],
                {"merge_repeated": merge, "classes_index_type": "i64", "sequence_length_type": "i64"},
            )


@samples("CTCLoss", 4)
def ctc_loss(rng, dtype="f32"):
    for n, t, c in ((1, 3, 3), (2, 8, 5), (3, 6, 4)):
        for ways in (
            (False, True, False),
            (False, False, False),
            (True, True, False),
            (False, True, True),
        ):
            attrs = dict(
                zip(("preprocess_collapse_repeated", "ctc_merge_repeated", "unique"), ways, strict=True)
            )
            count = rng.integers(1, t // 2 + 1, n)
            inputs = [
                random_array(rng, (n, t, c), dtype, (-2, 2)),
                np.full(n, t),
                rng.integers(0, c - 1, (n, t)),
                count,
            ]
            yield inputs, attrs
            if n == 2:
                labels = rng.integers(1, c, (n, t))
                yield [inputs[0], np.array([t, t - 2]), labels, np.minimum(count, 3), np.array(0)], attrs
