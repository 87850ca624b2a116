"""Samples of `ovjit_ops/strings`."""

from __future__ import annotations

import json

import numpy as np

from ovjit.graph.dtypes import numpy_dtype
from ovjit_ops.elementwise.arithmetic import random_array
from tests.support.samples import samples


@samples("NumberToString")
def number_to_string(rng, dtype="f32"):
    for shape in ((7,), (), (0, 3), (2, 5)):
        yield [random_array(rng, shape, dtype)], {}


@samples("StringToNumber")
def string_to_number(rng, dtype="string"):
    for kind in ("f32", "i64", "u8", "boolean"):
        yield [np.array([["1", " 25"], ["-3.5", "7e2"]], object)], {"destination_type": kind}


@samples("StringTensorUnpack", 15)
def string_tensor_unpack(rng, dtype="string"):
    for words in (["ab", "", "xyz"], [["a", "bc"], ["def", ""]], ["über"]):
        yield [np.array(words, dtype=object)], {}


@samples("StringTensorPack", 15)
def string_tensor_pack(rng, dtype="i32"):
    kind = numpy_dtype(dtype)
    symbols = np.frombuffer(b"abcdefgh", np.uint8).copy()
    yield [np.array([0, 2, 2], kind), np.array([2, 2, 8], kind), symbols], {}
    yield [np.array([[1], [0]], kind), np.array([[3], [8]], kind), symbols], {}


@samples("StringLookup")
def string_lookup(rng, dtype="string"):
    for texts in (["ab", "", "xyz"], [["a", "bc"], ["über", ""]], []):
        yield [np.array(texts, dtype=object)], {"words": json.dumps(["", "über", "a", "xyz", "a"])}


@samples("TextNGrams")
def text_n_grams(rng, dtype="string"):
    attrs = {"token": "[a-z]+", "shortest": 1, "pool": json.dumps([*"ababbb"]), "starts": [0, 2],
             "columns": [3, 0, 1, 2], "width": 5, "least": 1, "most": 2}  # fmt: skip
    texts = np.array(["a b a", "", "B b, b", "c ab a"], dtype=object)
    yield [texts], {**attrs, "case": "lower", "skips": 0}
    yield [texts], {**attrs, "case": "none", "skips": 1, "binary": 1, "scaled": [1.0, 2.0, 3.0, 4.0]}
