#!/bin/sh
# skl2onnx: labels are taken from what the converter made of the scores, so SGDClassifier and OneVsRestClassifier give other classes.
#
# Versions: scikit-learn 1.9.1, skl2onnx 1.20.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# scikit-learn's predict compares the scores of its classes. The models compare what they give as probabilities.
# - SGDClassifier with the loss modified_huber clips scores at 1. Two classes with large scores have equal probabilities, and the label
#   is the first of them, not the one with the larger score. Probabilities are right.
# - OneVsRestClassifier of LinearSVC has margins, which are no probabilities. For two classes the model makes the other class of a margin m
#   by 1 - m, so the threshold is 0.5 and not 0; the same threshold is set for more labels at once. Rows with a margin between the two
#   change their class. The option raw_scores, meant for this, makes four columns of two classes and gives the other label for each row.
# Three classes, and OneVsRestClassifier of LogisticRegression, are right.
#
# Output seen (rows of 200 that have another label):
#   SGDClassifier, modified_huber, 3 classes       35   (200, 3)
#   SGDClassifier, modified_huber, 2 classes        0   (200, 2)
#   OneVsRest, LogisticRegression, 2 classes        0   (200, 2)
#   OneVsRest, LinearSVC, 3 classes                 0   (200, 3)
#   OneVsRest, LinearSVC, 2 classes                 6   (200, 2)
#   OneVsRest, LinearSVC, 2 labels at once         21   (200, 2)
#   OneVsRest, LinearSVC, 2 classes, raw_scores   200   (200, 4)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/environment/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC

rng = np.random.default_rng(0)
points, asked = (rng.standard_normal((200, 2)).astype(np.float32) for _ in range(2))
two = (points[:, 0] > 0.3).astype(int)
three = two + (points[:, 1] > 0.3)
pairs = np.stack([two, points[:, 1] > 0.3], 1).astype(int)


def check(title, estimator, classes, predict_wrongly=None, **options):
    """Fit, convert and compare labels; `predict_wrongly` maps scores to the labels that the model is known to give."""
    estimator.fit(points, classes)
    options = {id(estimator): {"zipmap": False, **options}}
    model = to_onnx(estimator, points[:1], target_opset={"": 18, "ai.onnx.ml": 3}, options=options)
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options, providers=["CPUExecutionProvider"])
    labels, found = session.run(None, {"X": asked})
    scores = estimator.decision_function(asked)
    right = scores.argmax(1) if classes is three else (scores > 0).astype(int)
    assert np.array_equal(estimator.predict(asked), right)
    wrong = int((labels != right).reshape(200, -1).any(1).sum())
    print(f"{title:44} {wrong:4}   {found.shape}")
    seen = predict_wrongly(scores) if predict_wrongly else right
    assert np.array_equal(labels, seen), "the behaviour has changed"
    assert (wrong > 0) == bool(predict_wrongly)


clip = lambda scores: np.clip(scores, -1, 1).argmax(1)
check("SGDClassifier, modified_huber, 3 classes", SGDClassifier(loss="modified_huber", random_state=0), three, clip)
check("SGDClassifier, modified_huber, 2 classes", SGDClassifier(loss="modified_huber", random_state=0), two)
check("OneVsRest, LogisticRegression, 2 classes", OneVsRestClassifier(LogisticRegression()), two)
check("OneVsRest, LinearSVC, 3 classes", OneVsRestClassifier(LinearSVC(random_state=0)), three)
half = lambda scores: (scores > 0.5).astype(int)
check("OneVsRest, LinearSVC, 2 classes", OneVsRestClassifier(LinearSVC(random_state=0)), two, half)
check("OneVsRest, LinearSVC, 2 labels at once", OneVsRestClassifier(LinearSVC(random_state=0)), pairs, half)
other = lambda scores: (scores < 0).astype(int)
check("OneVsRest, LinearSVC, 2 classes, raw_scores", OneVsRestClassifier(LinearSVC(random_state=0)), two, other, raw_scores=True)
PYTHON
