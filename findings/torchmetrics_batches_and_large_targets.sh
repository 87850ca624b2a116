#!/bin/sh
# torchmetrics: the AUROC of the same scores depends on how they are cut into batches, scores above 17 all tie, and a regression with an R2 of 0.99 has 0.
#
# Versions: torchmetrics 1.9.0, torch 2.14.1, scikit-learn 1.9.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# - The binary metrics take probabilities or logits. Which of them a tensor has is decided at each `update`: the sigmoid is applied if a score of
#   this batch lies outside of [0, 1]. A batch whose logits happen to lie within stays as it is, beside batches that became probabilities. AUROC and
#   average precision compare scores over all batches, so the logit 0.9 is then above the logit 2.0, which is 0.88 by now. Eight scores in perfect
#   order have the AUROC 1 in one batch, and 0.83 in three. The threshold of BinaryAccuracy is 0.5 for some batches and 0 for others.
# - AUROC depends on the order of scores only. In f32 the sigmoid of 17 and of all above it is 1, so scores of a classifier with margins, counts or
#   percentages tie: 0.5 where all pairs are in order. The same scores divided by 1000 have 1.
# - r2_score, explained_variance and relative_squared_error subtract the sum of squares and the square of the sum, in f32. Targets around 10,000 with
#   a standard deviation of 1 (years, prices, positions) have no variance left, or a wrong one. Results are clamped: the same predictions have R2 0.991 near 0, and
#   0 there; explained variance is above 1, and the relative squared error 79 million where 0.009 is right. pearson_corrcoef, with a running mean, is right.
# Nothing warns.
#
# Output seen on 2026-12-01:
#   BinaryAUROC             one batch 1.0000   three 0.8333   scikit-learn 1.0000
#   BinaryAveragePrecision  one batch 1.0000   three 0.5833   scikit-learn 1.0000
#   BinaryAccuracy          one batch 0.5000   three 0.6250
#   scores 16 to 25         binary_auroc 0.625   of scores / 1000 1.000   of scores * 2 0.500   scikit-learn 1.000
#   targets around 0        r2 0.9911   explained variance 0.9911   relative squared error 0.0089   pearson 0.9956   r2 in f64 0.9911
#   targets around 1000     r2 0.9913   explained variance 0.9911   relative squared error 0.0087   pearson 0.9956   r2 in f64 0.9911
#   targets around 10000    r2 0.0000   explained variance 1.0012   relative squared error 79137744.0000   pearson 0.9956   r2 in f64 0.9911
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.14.1 torchmetrics==1.9.0 scikit-learn==1.9.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import torch
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score
from torchmetrics import functional
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryAveragePrecision

scores = torch.tensor([2.0, 1.5, 0.9, 0.7, 0.6, 0.2, -1.0, -2.0])
labels = torch.tensor([1, 1, 0, 0, 0, 0, 0, 0])


def of_batches(metric, *ends):
    for begin, end in zip((0, *ends), ends):
        metric.update(scores[begin:end], labels[begin:end])
    return metric.compute().item()


for kind, reference in ((BinaryAUROC, roc_auc_score), (BinaryAveragePrecision, average_precision_score)):
    one, three = of_batches(kind(), 8), of_batches(kind(), 2, 6, 8)
    right = reference(labels, scores)
    print(f"{kind.__name__:23} one batch {one:.4f}   three {three:.4f}   scikit-learn {right:.4f}")
    assert one == right == 1 and three < 0.84, "torchmetrics has changed"
one, three = of_batches(BinaryAccuracy(), 8), of_batches(BinaryAccuracy(), 2, 6, 8)
print(f"BinaryAccuracy          one batch {one:.4f}   three {three:.4f}")
assert (one, three) == (0.5, 0.625), "torchmetrics has changed"

margins, labels = torch.tensor([25.0, 21, 19, 18, 17, 16]), torch.tensor([1, 1, 0, 0, 0, 0])
auroc = functional.classification.binary_auroc
plain, small, twice = (auroc(margins * factor, labels).item() for factor in (1, 0.001, 2))
right = roc_auc_score(labels, margins)
print(f"scores 16 to 25         binary_auroc {plain:.3f}   of scores / 1000 {small:.3f}   of scores * 2 {twice:.3f}   scikit-learn {right:.3f}")
assert (plain, small, twice, right) == (0.625, 1, 0.5, 1), "torchmetrics has changed"

generator = torch.Generator().manual_seed(0)
deviations = (1000 + torch.randn(1000, generator=generator)).double() - 1000
errors = 0.1 * torch.randn(1000, generator=generator).double()
for mean in (0, 1000, 10000):
    target, predicted = (deviations + mean).float(), (deviations + errors + mean).float()
    r2, explained = (f(predicted, target).item() for f in (functional.r2_score, functional.explained_variance))
    relative, pearson = (f(predicted, target).item() for f in (functional.relative_squared_error, functional.pearson_corrcoef))
    right = r2_score(target.double().numpy(), predicted.double().numpy())
    print(
        f"targets around {mean:<8} r2 {r2:.4f}   explained variance {explained:.4f}   relative squared error {relative:.4f}"
        f"   pearson {pearson:.4f}   r2 in f64 {right:.4f}"
    )
    assert abs(right - 0.991) < 1e-3 and abs(pearson - 0.9956) < 1e-4
    assert (r2 == 0 and relative > 1e3) == (mean == 10000), "torchmetrics has changed"
PYTHON
