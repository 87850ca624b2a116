"""Tree ensembles beside ONNX Runtime, LightGBM's own predict and lleaves: CPU time of a call.

    python -m bench.trees [--trees 10 100 500 2000] [--rows 1 100 5000] [--threads 1 2] [--leaves 63]

A gradient boosting of LightGBM on 28 features. In every round each engine predicts,
in one process. Times are of the CPU (all threads), medians of rounds; ratios are medians of the rounds'
ratios. `wall` has the ratio of elapsed times, `load` that of reading the model, compiling it and a first
prediction of one row. lleaves needs another version of llvmlite: `--lleaves` names
the Python of an environment with lleaves. It takes part in forests of at most `--compiled` trees, as it
compiles for minutes.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import command

FEATURES = 28
Call = Callable[[np.ndarray], Any]


def train(trees: int, leaves: int) -> Any:
    """A LightGBM booster."""
    import lightgbm

    rng = np.random.default_rng(trees)
    x = rng.standard_normal((20000, FEATURES)).astype(np.float32)
    y = np.sin(x[:, 0] * 2) + x[:, 1] * x[:, 2] + np.abs(x[:, 3]) + rng.standard_normal(len(x)) * 0.3
    options = {
        "num_leaves": leaves,
        "min_data_in_leaf": 5,
        "learning_rate": 0.05,
        "verbose": -1,
        "num_threads": 1,
    }
    return lightgbm.train(options, lightgbm.Dataset(x, y), trees)


def to_onnx(booster: Any) -> bytes:
    """A TreeEnsembleRegressor with the booster's trees."""
    from onnx import TensorProto, helper

    nodes: list[tuple[Any, ...]] = []
    weights: list[tuple[Any, ...]] = []
    for number, tree in enumerate(booster.dump_model()["tree_info"]):
        waiting, count = [(tree["tree_structure"], 0)], 1
        while waiting:
            node, place = waiting.pop()
            if "leaf_value" in node:
                nodes.append((number, place, 0, 0.0, "LEAF", 0, 0, 0))
                weights.append((number, place, 0, node["leaf_value"]))
                continue
            below = np.float32(node["threshold"])  # the next lower one: features are f32
            below = np.nextafter(below, np.float32(-np.inf)) if below > node["threshold"] else below
            sides = (count, count + 1, int(node["default_left"]))
            nodes.append((number, place, node["split_feature"], float(below), "BRANCH_LEQ", *sides))
            waiting += [(node["left_child"], count), (node["right_child"], count + 1)]
            count += 2
    names = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids",
             "missing_value_tracks_true")  # fmt: skip
    given = {f"nodes_{k}": list(c) for k, c in zip(names, zip(*nodes, strict=True), strict=True)}
    leaves = ("treeids", "nodeids", "ids", "weights")
    given |= {f"target_{k}": list(c) for k, c in zip(leaves, zip(*weights, strict=True), strict=True)}
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, **given)
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, k]) for n, k in (("x", FEATURES), ("y", 1))
    ]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def load_ovjit(model: bytes, threads: int) -> Call:
    import ovjit as ov

    config = {"INFERENCE_NUM_THREADS": threads}
    request = ov.Core().compile_model(ov.Core().read_model(model), "CPU", config).create_infer_request()
    return lambda x: request.infer([x])[0]


def load_onnxruntime(model: bytes, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # its CPU time is not work
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


LOADERS = {"ovjit": load_ovjit, "onnxruntime": load_onnxruntime}


def compare_loading(model: bytes, threads: int, rounds: int) -> float:
    """The median of the rounds' ratios of CPU times."""
    x, ratios = np.zeros((1, FEATURES), np.float32), []
    for _ in range(rounds):
        times = [measure(lambda x, load=load: load(model, threads)(x), x, 1)[0] for load in LOADERS.values()]
        ratios.append(times[0] / times[1])
    return statistics.median(ratios)


#: The program of lleaves' process: for each line "rows times" the microseconds of CPU and of elapsed time.
_LLEAVES = """
import sys, time, numpy as np, lleaves
model = lleaves.Model(model_file=sys.argv[1]); model.compile(); print("ready", flush=True)
for line in sys.stdin:
    rows, times, threads = map(int, line.split())
    x = np.random.default_rng(rows).standard_normal((rows, int(sys.argv[2])))
    call = lambda: model.predict(x, n_jobs=threads)
    call(); begin, cpu = time.perf_counter(), time.process_time()
    for _ in range(times): call()
    print((time.process_time() - cpu) / times * 1e6, (time.perf_counter() - begin) / times * 1e6, flush=True)
"""


@contextlib.contextmanager
def lleaves_process(python: str | None, booster: Any) -> Iterator[subprocess.Popen[str] | None]:
    """A process that predicts by lleaves, compiled. None without a `python`."""
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.txt"
        booster.save_model(file)
        command_line = [python, "-c", _LLEAVES, str(file), str(FEATURES)]
        with subprocess.Popen(
            command_line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise SystemExit("lleaves cannot compile the model")
            yield process
            process.stdin.close()


def measure(call: Call, x: np.ndarray, times: int) -> tuple[float, float]:
    """Microseconds of CPU and of elapsed time for one call."""
    begin, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        call(x)
    return (time.process_time() - cpu) / times * 1e6, (time.perf_counter() - begin) / times * 1e6


def measure_lleaves(
    process: subprocess.Popen[str], rows: int, times: int, threads: int
) -> tuple[float, float]:
    assert process.stdin is not None and process.stdout is not None
    print(rows, times, threads, file=process.stdin, flush=True)
    cpu, wall = map(float, process.stdout.readline().split())
    return cpu, wall


def compare(
    found: dict[str, Call], x: np.ndarray, rounds: int, process: subprocess.Popen[str] | None, threads: int
) -> dict[str, Any]:
    """Medians of one setting."""
    expected = np.ravel(found["onnxruntime"](x))
    ways: dict[str, Callable[[int], tuple[float, float]]] = {}
    for name, call in found.items():
        np.testing.assert_allclose(np.ravel(call(x)), expected, rtol=1e-4, atol=1e-4, err_msg=name)
        ways[name] = functools.partial(measure, call, x)
    if process is not None:
        ways["lleaves"] = lambda times: measure_lleaves(process, len(x), times, threads)
    cost = {name: way(3)[1] for name, way in ways.items()}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    names = list(ways)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            spent[name].append(ways[name](max(1, min(2000, int(10_000 / max(cost[name], 1))))))
    row: dict[str, Any] = {f"{name} us": statistics.median(c for c, _ in spent[name]) for name in names}
    pairs = {n: list(zip(spent["ovjit"], spent[n], strict=True)) for n in names if n != "ovjit"}
    row |= {f"/ {n}": statistics.median(a[0] / b[0] for a, b in pairs[n]) for n in pairs}
    row["wall / onnxruntime"] = statistics.median(a[1] / b[1] for a, b in pairs["onnxruntime"])
    return row


def main() -> int:
    parser = command.parser("trees", __doc__)
    parser.add_argument("--trees", type=int, nargs="+", default=[10, 100, 500, 2000])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 100, 5000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--leaves", type=int, default=63)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compiled", type=int, default=100, help="most trees that lleaves compiles")
    parser.add_argument("--lleaves", help="the Python of an environment with lleaves")
    given = parser.parse_args()
    rows = []
    for trees in given.trees:
        booster = train(trees, given.leaves)
        model = to_onnx(booster)
        python = given.lleaves if trees <= given.compiled else None
        with lleaves_process(python, booster) as process:
            for threads in given.threads:
                calls = {name: load(model, threads) for name, load in LOADERS.items()}
                calls["lightgbm"] = functools.partial(booster.predict, num_threads=threads)
                loading = compare_loading(model, threads, given.rounds)
                for count in given.rows:
                    x = np.random.default_rng(count).standard_normal((count, FEATURES)).astype(np.float32)
                    row = {"trees": trees, "rows": count, "threads": threads, "load": loading}
                    rows.append(row | compare(calls, x, given.rounds, process, threads))
    keys = ("trees", "rows", "threads")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{column: row.get(column, "") for column in columns} for row in rows]
    return command.finish(given, "trees", keys, columns, rows)


if __name__ == "__main__":
    raise SystemExit(main())
