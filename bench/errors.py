"""How far two engines' answers are from exact ones, over many inputs.

    python -m bench.errors [--precision bf16 int8] [--models squeezenet ...] [--inputs 40] [--seed 5000]

For `bf16` OpenVINO's answers in f32 are exact. For `int8`, the networks that NNCF has quantized
(`bench.quantized`), exact answers are those of FakeQuantize in f64, evaluated here.

A row is an output; logits before a softmax are outputs too. It has root mean squares over all inputs of both
engines, relative to the answers', and their ratio. The ratios of single inputs have a median, quartiles, and
a geometric mean with its standard error. One input's ratio is chance. If no rounding of a quantized network
goes wrong, its answer is exact to 1e-7; otherwise it is a hundredth off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import command, networks, quantized, report, transformers

COLUMNS = ("model", "precision", "output", "openvino", "ovjit", "ratio", "median", "quartiles", "geomean")
F32 = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}


def given(name: str, seed: int) -> np.ndarray:
    """An input of a network, other for each seed."""
    if name in transformers.NAMES:
        return next(iter(transformers.inputs(name, seed=seed)))
    return networks.network_input(name, seed)


def with_logits(model: Any) -> Any:
    """The model, which also gives what its first softmax is made of."""
    for op in model.get_ordered_ops():
        if op.get_type_name() == "Softmax":
            model.add_outputs(op.input_value(0))
            break
    return model


class Exact:
    """A model of FakeQuantize in f64, whatever its constants are stored in."""

    def __init__(self, model: Any):
        self.graph = model._graph()
        self.constants: dict[Any, np.ndarray] = {}
        for node in self.graph.nodes:
            if node.op.name != "Parameter" and all(v in self.constants for v in node.inputs):
                self._evaluate(node, self.constants)

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        values = {**self.constants, self.graph.inputs[0]: x.astype(np.float64)}
        for node in self.graph.nodes:
            if node.outputs[0] not in values:
                self._evaluate(node, values)
        return [values[v] for v in self.graph.outputs]

    @staticmethod
    def _evaluate(node: Any, values: dict[Any, np.ndarray]) -> None:
        from ovjit.graph.interp import evaluate_node

        arrays = [values[v] for v in node.inputs]
        if node.op.name == "FakeQuantize":
            x, low, high, out_low, out_high = arrays
            steps = node.attrs["levels"] - 1
            at = np.rint(np.clip((x - low) * steps / (high - low), 0, steps))
            made = [at * ((out_high - out_low) / steps) + out_low]
        else:
            made = evaluate_node(node, arrays)
        made = [a.astype(np.float64) if a.dtype == np.float32 else a for a in made]
        values.update(zip(node.outputs, made, strict=True))


def measure(name: str, precision: str, inputs: int, seed: int) -> list[dict[str, Any]]:
    import openvino

    import ovjit

    path = quantized.quantized(name) if precision == "int8" else _path(name)
    asked = F32 if precision == "int8" else {**F32, "INFERENCE_PRECISION_HINT": precision}
    theirs, mine = (
        core.compile_model(with_logits(core.read_model(path)), "CPU", asked)
        for core in (openvino.Core(), ovjit.Core())
    )
    if precision == "int8":
        exact: Any = Exact(with_logits(ovjit.Core().read_model(path)))
    else:
        core = openvino.Core()
        exact = core.compile_model(with_logits(core.read_model(path)), "CPU", F32)
    squares = []
    for i in range(seed, seed + inputs):
        x = given(name, i)
        want = exact(x)
        want = want if isinstance(want, list) else list(want.values())
        answers = [list(engine(x).values()) for engine in (theirs, mine)]
        want = [w.astype(np.float64) for w in want]
        squares.append(
            [[np.mean(w**2), *(np.mean((a[k] - w) ** 2) for a in answers)] for k, w in enumerate(want)]
        )
    rows = []
    for k, (size, other, own) in enumerate(np.array(squares).transpose(1, 2, 0)):
        each = np.sqrt(own / other)
        error = np.std(np.log(each)) / np.sqrt(inputs)
        rows.append({
            "model": name, "precision": precision, "output": k,
            "openvino": np.sqrt(other.mean() / size.mean()), "ovjit": np.sqrt(own.mean() / size.mean()),
            "ratio": np.sqrt(own.mean() / other.mean()), "median": np.median(each),
            "quartiles": " ".join(f"{v:.2f}" for v in np.percentile(each, [25, 75])),
            "geomean": f"{np.exp(np.mean(np.log(each))):.3f} *{np.exp(error):.2f}",
        })  # fmt: skip
    return rows


def _path(name: str) -> Any:
    return transformers.build(name) if name in transformers.NAMES else networks.build(name)


def main() -> int:
    parser = command.parser("errors", __doc__, json=False)
    parser.add_argument("--precision", nargs="*", default=["bf16", "int8"], choices=["bf16", "int8"])
    parser.add_argument("--models", nargs="*")
    parser.add_argument("--inputs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=5000)
    arguments = parser.parse_args()
    rows = []
    for precision in arguments.precision:
        for name in arguments.models or (quantized.NAMES if precision == "int8" else networks.NAMES):
            rows += measure(name, precision, arguments.inputs, arguments.seed)
    print(report.table(rows, COLUMNS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
