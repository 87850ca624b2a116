#!/bin/sh
# orbital: a tree of several targets becomes SQL of the last one, and labels of linear models and networks become bytes.
#
# Versions: orbital 0.6.0, ibis-framework 12.0.0, duckdb 2.0.1, skl2onnx 1.20.0, onnx 1.22.0, scikit-learn 1.9.1, pandas 3.1.1, numpy 2.4.6, Python 3.11,
# Linux x86-64.
#
# orbital writes pipelines of scikit-learn as SQL, by way of skl2onnx and ibis. It refuses what it does not know, by name ("Translation for Exp not
# implemented"). DuckDB's answers to these queries are compared with `predict`:
# - DecisionTreeRegressor, RandomForestRegressor and ExtraTreesRegressor of two targets: the query has one column, "variable", with the second
#   target. The first is gone: each leaf has one weight, and a later target replaces the one before. LinearRegression of two targets has two.
# - LogisticRegression and MLPClassifier with labels that are texts: the column has the type BLOB, and 'yes' is '\x79\x65\x73'. As a data frame it holds
#   byte arrays, which no text is equal to, so an accuracy computed from it is 0. Labels of trees are VARCHAR.
# Trees of one target and labels that are integers agree with scikit-learn. Nothing warns. No report of these was found.
#
# Output seen on 2026-11-30:
#   LinearRegression         columns ['variable.out_0', 'variable.out_1']         the last one, from target 1:  22.405, from target 2: 0.000
#   DecisionTreeRegressor    columns ['variable']                                 the last one, from target 1:  20.317, from target 2: 0.000
#   RandomForestRegressor    columns ['variable']                                 the last one, from target 1:  19.461, from target 2: 0.000
#   ExtraTreesRegressor      columns ['variable']                                 the last one, from target 1:  19.211, from target 2: 0.000
#   DecisionTreeClassifier   VARCHAR  'yes'                equal to predict: 100%, decoded: 100%
#   LogisticRegression       BLOB     bytearray(b'yes')    equal to predict: 0%, decoded: 100%
#   MLPClassifier            BLOB     bytearray(b'no')     equal to predict: 0%, decoded: 100%
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q orbital==0.6.0 'ibis-framework[duckdb]==12.0.0' duckdb==2.0.1 skl2onnx==1.20.0 onnx==1.22.0 \
    scikit-learn==1.9.1 pandas==3.1.1 numpy==2.4.6
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import duckdb
import numpy as np
import orbital
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

generator = np.random.default_rng(0)
rows = pd.DataFrame({"a": generator.normal(size=300), "b": generator.normal(size=300)})
first, second = 3 * rows.a + 10, -rows.a + rows.b
labels = np.where(second > 0, "yes", "no")
database = duckdb.connect()


def ask(model, rows, targets):
    """Return the answers of the query, of scikit-learn, and the type of the first column."""
    pipeline = Pipeline([("scale", StandardScaler()), ("model", model)]).fit(rows, targets)
    parsed = orbital.parse_pipeline(pipeline, features=orbital.types.guess_datatypes(rows))
    query = orbital.export_sql("data", parsed, dialect="duckdb")
    database.register("data", rows)
    answer = database.sql(query)
    names = [name for name in answer.columns if "probability" not in name]
    return answer.df()[names], pipeline.predict(rows), dict(zip(answer.columns, answer.types))[names[0]]


for model in (
    LinearRegression(),
    DecisionTreeRegressor(max_depth=3, random_state=0),
    RandomForestRegressor(3, max_depth=3, random_state=0),
    ExtraTreesRegressor(3, max_depth=3, random_state=0),
):
    found, right, _ = ask(model, rows, np.column_stack([first, second]))
    of_first, of_second = (np.abs(found.iloc[:, -1].to_numpy() - right[:, target]).max() for target in (0, 1))
    name = type(model).__name__
    print(f"{name:24} columns {list(found.columns)!s:44} the last one, from target 1: {of_first:7.3f}, from target 2: {of_second:.3f}")
    expected = 2 if name == "LinearRegression" else 1
    assert len(found.columns) == expected and of_first > 5 and of_second < 1e-4, f"{name}: orbital has changed"

for model, kind in (
    (DecisionTreeClassifier(max_depth=3, random_state=0), "VARCHAR"),
    (LogisticRegression(), "BLOB"),
    (MLPClassifier((4,), max_iter=20, random_state=0), "BLOB"),
):
    found, right, column = ask(model, rows, labels)
    equal = np.mean([label == text for label, text in zip(found.iloc[:, 0], right)])
    decoded = [label if isinstance(label, str) else bytes(label).decode() for label in found.iloc[:, 0]]
    print(f"{type(model).__name__:24} {column!s:8} {found.iloc[0, 0]!r:20} equal to predict: {equal:.0%}, decoded: {np.mean(np.array(decoded) == right):.0%}")
    assert str(column) == kind and equal == (kind == "VARCHAR") and (np.array(decoded) == right).all(), "orbital has changed"
PYTHON
