"""Branches and loops in loops of TensorFlow, read in processes with the hash seeds that are given."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import ovjit as ov

ROWS = np.random.default_rng(20261127).normal(size=(5, 3)).astype(np.float32)
TABLE = tf.Variable(ROWS * 2.0)
SIGNATURE = [tf.TensorSpec([5, 3], tf.float32, "x")]


def ended(x: Any) -> Any:
    total = tf.zeros([3])
    for i in tf.range(5):
        if tf.reduce_sum(total) > 2.0:
            break
        total = total + x[i]
    return total


def nested(x: Any) -> Any:
    total, factor = tf.zeros([3]), tf.constant(1.0)
    for i in tf.range(5):
        for j in tf.range(3):
            if x[i][j] > 0.0:
                total = total + x[i] * factor
            else:
                factor = factor * 0.9
        total = total * 0.7 if tf.reduce_sum(total) > 0.0 else -total
    return total + factor


def exchanged(x: Any) -> Any:
    a, b, c = x[0], x[1], x[2]
    for _ in tf.range(4):
        if tf.reduce_sum(a) > tf.reduce_sum(b):
            a, b, c = b, c, a + 1.0
        else:
            a, b, c = c - 0.5, a, b
    return tf.stack([a, b, c])


def switched(x: Any) -> Any:
    def outer(i: Any, total: Any) -> Any:
        def inner(j: Any, v: Any) -> Any:
            ways = [lambda: v + x[i], lambda: v * 0.5 - x[j], lambda: v * x[i]]
            return j + 1, tf.switch_case(tf.math.floormod(i + j, 3), ways)

        return i + 1, tf.while_loop(lambda j, v: j < 3, inner, [0, total])[1]

    return tf.while_loop(lambda i, v: i < 4, outer, [0, x[0]])[1]


def complex_loops(x: Any) -> Any:
    rows = tf.complex(x, x[::-1])

    def outer(i: Any, total: Any) -> Any:
        step = lambda j, v: (j + 1, v * tf.complex(0.5, 0.25) + rows[i])  # noqa: E731
        made = tf.while_loop(lambda j, v: j < 3, step, [0, total])[1]
        return i + 1, tf.cond(tf.math.real(made[0]) > 0, lambda: made - rows[i], lambda: tf.math.conj(made))

    return tf.math.abs(tf.while_loop(lambda i, v: i < 4, outer, [0, rows[0]])[1])


def used_twice(x: Any) -> Any:
    @tf.function
    def inner(v: Any, factor: Any) -> Any:
        made = v[0]
        for i in tf.range(5):
            made = made - v[i] if made[0] > 0.0 else made + v[i] * factor
        return made

    return inner(x, 2.0) + inner(x * 2.0, 0.5) * 3.0


def written_in_branches(x: Any) -> Any:
    array, some = tf.TensorArray(tf.float32, 5), tf.TensorArray(tf.float32, 5, element_shape=[3])
    for i in tf.range(5):
        if x[i][0] > 0.0:
            array = array.write(i, x[i] * 2.0)
            some = some.write(i, x[i]) if x[i][1] > 0.0 else some
        else:
            array = array.write(i, x[i] - 1.0)
    return array.stack() + some.stack()


def looked_up(x: Any) -> Any:
    """A variable whose rows are read in branches."""
    total = tf.zeros([3])
    for i in tf.range(5):
        if x[i][0] > 0.0:
            total = total * 0.5 + tf.gather(TABLE, i)
        else:
            total = total - tf.nn.embedding_lookup(TABLE, i) * x[i]
    return total


def forms(made: Any, folder: Path) -> Iterator[Any]:
    """A function, whose loops are operators, a SavedModel of it, and its graph with loops of switches."""
    yield made
    module = tf.Module()
    module.call, module.table = made, TABLE
    tf.saved_model.save(module, str(folder / "saved"), signatures=made)
    yield folder / "saved"
    frozen = convert_variables_to_constants_v2(made.get_concrete_function(), lower_control_flow=True)
    tf.io.write_graph(frozen.graph.as_graph_def(), str(folder), "loop.pb", as_text=False)
    yield folder / "loop.pb"


def compare() -> None:
    functions = (
        ended, nested, exchanged, switched, complex_loops, used_twice, written_in_branches, looked_up,
    )  # fmt: skip
    for function in functions:
        made = tf.function(function, input_signature=SIGNATURE)
        want = made(ROWS).numpy()
        with tempfile.TemporaryDirectory() as folder:
            for number, what in enumerate(forms(made, Path(folder))):
                model = ov.convert_model(what)
                got = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([ROWS])[0]
                where = f"{function.__name__} {number} {os.environ.get('PYTHONHASHSEED')}"
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=where)


def main(seeds: list[str]) -> None:
    for seed in seeds:
        subprocess.run([sys.executable, __file__], env={**os.environ, "PYTHONHASHSEED": seed}, check=True)


if __name__ == "__main__":
    main(sys.argv[1:]) if len(sys.argv) > 1 else compare()
