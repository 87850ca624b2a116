#!/bin/sh
# hummingbird: LogisticRegression of three classes has other probabilities, sigmoid kernels other classes, and scalers lose clip and with_mean.
#
# Versions: hummingbird-ml 0.4.12, torch 2.13.0, scikit-learn 1.9.1, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# hummingbird.ml.convert reads attributes of scikit-learn's models. Some no longer exist, and others it never reads; nothing raises or warns.
# - LogisticRegression of several classes is a softmax since multi_class was removed from scikit-learn. The converter looks for multi_class,
#   does not find it, and takes a logistic function for each class, divided by their sum, which is the distribution of one-versus-rest
#   models. Two classes are right.
# - SVC and NuSVC with kernel="sigmoid" have tanh in scikit-learn. The model has the logistic function in its place.
# - MLPClassifier of several labels at once gives one class of all of them for each row, and twice as many columns of probabilities.
# - StandardScaler(with_mean=False) keeps mean_, and the model subtracts it. MinMaxScaler(clip=True) is not clipped.
# - OneHotEncoder keeps the columns that drop="first" takes away, and does not put rare categories together with min_frequency.
# - SimpleImputer(add_indicator=True) has no indicators.
# Other kernels, one-versus-rest classifiers and these transformers with their defaults are right.
#
# No report of these was found.
#
# Output seen on 2026-11-29 (first values of the results):
#   LogisticRegression, 2 classes        scikit-learn (300, 2) [0.385, 0.615, 0.966]   hummingbird the same
#   LogisticRegression, 3 classes        scikit-learn (300, 3) [0.064, 0.867, 0.07]    hummingbird (300, 3) [0.201, 0.587, 0.213]
#   SVC, rbf                             scikit-learn (300,) [1.0, 0.0, 0.0]           hummingbird the same
#   SVC, sigmoid                         scikit-learn (300,) [0.0, 0.0, 1.0]           hummingbird (300,) [0.0, 0.0, 0.0]
#   MLPClassifier                        scikit-learn (300, 3) [0.068, 0.237, 0.695]   hummingbird the same
#   MLPClassifier, 2 labels              scikit-learn (300, 2) [0.768, 0.298, 0.809]   hummingbird (300, 4) [0.232, 0.702, 0.768]
#   StandardScaler                       scikit-learn (300, 4) [0.164, -0.083, 0.76]   hummingbird the same
#   StandardScaler, with_mean=False      scikit-learn (300, 4) [1.151, 0.924, 1.676]   hummingbird (300, 4) [0.164, -0.083, 0.76]
#   MinMaxScaler                         scikit-learn (300, 4) [0.811, 0.679, 0.916]   hummingbird the same
#   MinMaxScaler, clip                   scikit-learn (300, 4) [0.811, 0.679, 0.916]   hummingbird (300, 4) [0.811, 0.679, 0.916]
#   OneHotEncoder                        scikit-learn (300, 6) [0.0, 1.0, 0.0]         hummingbird the same
#   OneHotEncoder, drop                  scikit-learn (300, 4) [1.0, 0.0, 0.0]         hummingbird (300, 6) [0.0, 1.0, 0.0]
#   OneHotEncoder, min_frequency         scikit-learn (300, 5) [0.0, 1.0, 0.0]         hummingbird (300, 6) [0.0, 1.0, 0.0]
#   SimpleImputer                        scikit-learn (300, 4) [1.126, 0.953, 0.897]   hummingbird the same
#   SimpleImputer, add_indicator         scikit-learn (300, 8) [1.126, 0.953, 0.897]   hummingbird (300, 4) [1.126, 0.953, 0.897]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.13.0 hummingbird-ml==0.4.12 scikit-learn==1.9.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from hummingbird.ml import convert
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

generator = np.random.default_rng(0)
rows = (generator.normal(size=(300, 4)) + 1).astype(np.float32)
two = (rows[:, 0] > 1).astype(int)
three = np.digitize(rows[:, 0] + rows[:, 1], [1.4, 2.6])


def logistic(scores):
    return 1 / (1 + np.exp(-scores))


def check(name, model, method, targets=None, inputs=rows, asked=None, meaning=None):
    """`meaning` gives what the converted model has instead, from the asked rows and the original; None if it is right."""
    model.fit(inputs, targets)
    asked = inputs if asked is None else asked
    right = np.asarray(getattr(model, method)(asked))
    found = np.asarray(getattr(convert(model, "torch", asked), method)(asked))
    same = right.shape == found.shape and np.allclose(right, found, atol=1e-4, equal_nan=True)
    shown = [f"{array.shape} {array.ravel()[:3].astype(float).round(3).tolist()}" for array in (right, found)]
    print(f"{name:36} scikit-learn {shown[0]:32} hummingbird {'the same' if same else shown[1]}")
    assert same == (meaning is None), f"{name} has changed"
    if meaning is not None:
        expected = meaning(asked, model)
        assert found.shape == expected.shape and np.allclose(found, expected, atol=1e-4), f"{name} has changed"


def one_against_rest(asked, model):
    parts = logistic(model.decision_function(asked))
    return parts / parts.sum(1, keepdims=True)


def logistic_kernel(asked, model):
    kernel = logistic(model._gamma * asked.astype(float) @ model.support_vectors_.T + model.coef0)
    return (kernel @ model.dual_coef_[0] + model.intercept_[0] > 0).astype(int)


def columns_of_both(asked, model):
    positive = model.predict_proba(asked)
    return np.concatenate([1 - positive, positive], 1)


check("LogisticRegression, 2 classes", LogisticRegression(), "predict_proba", two)
check("LogisticRegression, 3 classes", LogisticRegression(), "predict_proba", three, meaning=one_against_rest)
check("SVC, rbf", SVC(), "predict", two)
check("SVC, sigmoid", SVC(kernel="sigmoid", gamma=0.5), "predict", two, meaning=logistic_kernel)
network = {"hidden_layer_sizes": (5,), "max_iter": 30, "random_state": 0}
check("MLPClassifier", MLPClassifier(**network), "predict_proba", three)
labels = np.stack([two, three == 1], 1).astype(int)
check("MLPClassifier, 2 labels", MLPClassifier(**network), "predict_proba", labels, meaning=columns_of_both)
check("StandardScaler", StandardScaler(), "transform")
check("StandardScaler, with_mean=False", StandardScaler(with_mean=False), "transform", meaning=lambda x, model: (x - model.mean_) / model.scale_)
check("MinMaxScaler", MinMaxScaler(), "transform", asked=2 * rows)
check("MinMaxScaler, clip", MinMaxScaler(clip=True), "transform", asked=2 * rows, meaning=lambda x, model: x * model.scale_ + model.min_)
categories = generator.integers(0, 3, (300, 2))
dense = {"sparse_output": False}


def all_columns(x, model):
    return np.concatenate([x[:, i : i + 1] == np.arange(3) for i in range(2)], 1).astype(float)


check("OneHotEncoder", OneHotEncoder(**dense), "transform", inputs=categories)
check("OneHotEncoder, drop", OneHotEncoder(drop="first", **dense), "transform", inputs=categories, meaning=all_columns)
check("OneHotEncoder, min_frequency", OneHotEncoder(min_frequency=100, **dense), "transform", inputs=categories, meaning=all_columns)
holes = np.where(generator.random(rows.shape) < 0.3, np.nan, rows).astype(np.float32)
check("SimpleImputer", SimpleImputer(), "transform", inputs=holes)
imputed = SimpleImputer(add_indicator=True)
check("SimpleImputer, add_indicator", imputed, "transform", inputs=holes, meaning=lambda x, model: model.transform(x)[:, :4])
PYTHON
