"""Connectionist temporal classification: greedy decoders and the loss."""

from __future__ import annotations

import numpy as np

from ovjit.errors import InferenceError, check
from ovjit.graph import shapes
from ovjit.graph.dtypes import FULL, numpy_dtype
from ovjit.graph.op import Bool, Index, TensorType, op
from ovjit_ops.common.checks import check_type
from ovjit_ops.common.dims import unify
from ovjit_ops.common.values import INDEX_TYPES, widen_floats
from ovjit_ops.elementwise.arithmetic import NUMBERS, REALS


def _one(x: TensorType | None, what: str) -> None:
    check_type(x, INDEX_TYPES, what)
    if x is not None and x.shape is not None:
        one = len(x.shape) <= 1 and all(shapes.compatible(d, 1) for d in x.shape)
        check(one, f"Expected 0D or 1D tensor for the '{what}' input. Got: {shapes.text(x.shape)}")


def check_lengths(lengths: np.ndarray, most: int, what: str) -> np.ndarray:
    """Lengths as i64. Raises InferenceError for lengths outside 0 ... `most`."""
    values = lengths.astype(np.int64).reshape(-1)
    if values.size and (values.min() < 0 or values.max() > most):
        raise InferenceError(f"{what} should be in [0, {most}], not {values.min()} .. {values.max()}")
    return values


def best_path(scores: np.ndarray, blank: int, merge: bool) -> list[int]:
    """The labels of the largest score of each step [T, C], without blanks. `merge`: without repetitions."""
    out, last = [], -1
    for label in scores.argmax(-1).tolist():
        if label != blank and not (merge and label == last):
            out.append(label)
        last = label
    return out


@op(
    "CTCGreedyDecoder",
    opset=1,
    types=REALS,
    native=FULL,
    lower=".cpu_greedy:Greedy.of",
)
class CTCGreedyDecoder:
    """The best path of each sequence, padded with -1. The last class is the blank; a mask gives the ends of
    sequences."""

    def infer(data, sequence_mask, *, ctc_merge_repeated: Bool = True):
        check_type(data, NUMBERS)
        check_type(sequence_mask, (*NUMBERS, "boolean"), "sequence_mask")
        dims = unify(data=(data, "TBC"), sequence_mask=(sequence_mask, "TB"))
        return TensorType(data.dtype, dims.shape("BT11"))

    def ref(data, mask, *, ctc_merge_repeated=True):
        steps, batch, classes = data.shape
        out = np.full((batch, steps, 1, 1), -1, data.dtype)
        for b in range(batch):
            ends = np.flatnonzero(mask[:, b] == 0)
            n = int(ends[0]) if ends.size else steps
            labels = best_path(widen_floats(data[:n, b]), classes - 1, ctc_merge_repeated)
            out[b, : len(labels), 0, 0] = labels
        return out


@op(
    "CTCGreedyDecoderSeqLen",
    opset=6,
    types=REALS,
    native=FULL,
    lower=".cpu_greedy:Greedy.of",
)
class CTCGreedyDecoderSeqLen:
    """The best path of each sequence, padded with -1, and its length."""

    def infer(
        data,
        sequence_length,
        blank_index=None,
        *,
        merge_repeated: Bool = True,
        classes_index_type: Index = "i32",
        sequence_length_type: Index = "i32",
    ):
        check_type(data, REALS)
        check_type(sequence_length, INDEX_TYPES, "sequence_length")
        _one(blank_index, "blank_index")
        dims = unify(data=(data, "BTC"), sequence_length=(sequence_length, "B"))
        return (
            TensorType(classes_index_type, dims.shape("BT")),
            TensorType(sequence_length_type, dims.shape("B")),
        )

    def ref(data, sequence_length, blank_index=None, **attrs):
        batch, steps, classes = data.shape
        blank = classes - 1 if blank_index is None else int(blank_index.reshape(-1)[0])
        out = np.full((batch, steps), -1, numpy_dtype(attrs["classes_index_type"]))
        count = np.zeros(batch, numpy_dtype(attrs["sequence_length_type"]))
        for b, n in enumerate(check_lengths(sequence_length, steps, "sequence_length")):
            labels = best_path(widen_floats(data[b, :n]), blank, attrs["merge_repeated"]) if n else []
            out[b, : len(labels)], count[b] = labels, len(labels)
        return out, count


def _log_sum(*xs: float) -> float:
    return float(np.logaddexp.reduce(xs))


def sequence_loss(log_probs: np.ndarray, target: list[int], blank: int, merge: bool) -> float:
    """-log of the probability of `target`, summed over all alignments; log_probs [T, C]."""
    extended = [blank]
    for label in target:
        extended += [label, blank]
    n = len(extended)
    alpha = np.full(n, -np.inf)
    alpha[0] = 0.0
    start = True
    for row in log_probs:
        new = np.full(n, -np.inf)
        for s, label in enumerate(extended):
            if start:
                if s <= 1:
                    new[s] = row[label]
                continue
            ways = [alpha[s - 1]] if s else []
            if merge or label == blank:
                ways.append(alpha[s])  # a label repeats
            # Skip a blank: from a label to a different one, or to an equal one if repetitions are not merged.
            # A label that equals the blank cannot be skipped from, like a blank, but can be skipped to.
            if s > 1 and extended[s - 2] != blank and (label != extended[s - 2] or not merge):
                ways.append(alpha[s - 2])
            new[s] = _log_sum(*ways) + row[label] if ways else -np.inf
        alpha, start = new, False
    if start:
        return 0.0 if not target else np.inf
    return -_log_sum(*alpha[-2:])


@op(
    "CTCLoss", opset=4, types=REALS, native=FULL, lower=".cpu_ctc_loss:CTCLosses.of"
)  # fmt: skip
class CTCLoss:
    """-log of the probability of each target sequence, summed over its alignments."""

    def infer(
        logits,
        logit_length,
        labels,
        label_length,
        blank_index=None,
        *,
        preprocess_collapse_repeated: Bool = False,
        ctc_merge_repeated: Bool = True,
        unique: Bool = False,
    ):
        check_type(logits, REALS)
        check_type(blank_index, INDEX_TYPES, "blank_index")
        dims = unify(
            INDEX_TYPES, logit_length=(logit_length, "N"), labels=(labels, "NT"),
            label_length=(label_length, "N"),
        )  # fmt: skip
        dims.fit("logits", logits, "NTC")
        return TensorType(logits.dtype, dims.shape("N"))

    def ref(logits, logit_length, labels, label_length, blank_index=None, **attrs):
        batch, steps, classes = logits.shape
        blank = classes - 1 if blank_index is None else int(blank_index.reshape(-1)[0])
        if not 0 <= blank < classes:
            raise InferenceError(f"blank_index {blank} is out of range for {classes} classes")
        times = check_lengths(logit_length, steps, "logit_length")
        counts = check_lengths(label_length, labels.shape[1], "label_length")
        out = np.zeros(batch)
        for b in range(batch):
            if counts[b] > times[b]:
                raise InferenceError(f"label_length {counts[b]} exceeds logit_length {times[b]}")
            target = labels[b, : counts[b]].astype(np.int64).tolist()
            if target and not 0 <= min(target) <= max(target) < classes:
                raise InferenceError(f"a label is out of range for {classes} classes")
            if attrs["preprocess_collapse_repeated"]:
                target = [x for i, x in enumerate(target) if i == 0 or x != target[i - 1]]
            if attrs["unique"]:
                target = list(dict.fromkeys(target))
            x = logits[b, : times[b]].astype(np.float64)
            x = x - x.max(-1, keepdims=True, initial=-np.inf)
            x = x - np.log(np.exp(x).sum(-1, keepdims=True))
            out[b] = sequence_loss(x, target, blank, attrs["ctc_merge_repeated"])
        return out.astype(logits.dtype)
