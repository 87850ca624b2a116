"""The six image classifiers that ovjit is measured with, as ONNX and as OpenVINO IR.

In: the architectures in the ONNX package's own backend test data (`onnx/backend/test/data/light`), whose
weights are constants that would make every activation alike.  Out: for each network `name.onnx`, `name.xml`
and `name.bin` in f32 with seeded random weights that keep the activations of all layers in range and the
last softmax unsaturated, the IR written by the real OpenVINO.

    python -m bench.networks [--folder DIR] [--check] [name ...]

Files are made once and then found in the folder: `OVJIT_NETWORKS`, or one in the user's cache.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import command

SEED = 20261121
#: Part of the folder's name: raise it when what is generated changes.
VERSION = 1
NAMES = ("resnet50", "squeezenet", "shufflenet", "inception_v1", "inception_v2", "densenet121")
#: Standard deviation of the weights in units of He's, of the layers and of the last one.  Chosen so that
#: signals neither fade nor grow and that classes and images differ clearly without saturating the softmax.
GAIN = {
    "resnet50": (1.0, 4.0), "squeezenet": (1.2, 8.0), "shufflenet": (1.0, 1.0),
    "inception_v1": (1.2, 35.0), "inception_v2": (1.2, 1.7), "densenet121": (1.1, 10.0),
}  # fmt: skip
#: What a residual branch's last BatchNorm multiplies by: blocks add up without growing.
BRANCH_GAIN = 0.5
#: Limits that `check` holds every layer's standard deviation to, and the largest probability.
DEVIATION = (0.05, 20.0)
LARGEST_PROBABILITY = 0.5


def default_folder() -> Path:
    """Where the networks are kept."""
    if chosen := os.environ.get("OVJIT_NETWORKS"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("ovjit-bench")) / f"networks-{VERSION}-{SEED}"


def network_input(name: str, seed: int = SEED) -> np.ndarray:
    """A random image, f32 [1, 3, 224, 224]: patches of 32 x 32 with noise on them, mean 0, variance 1.25.

    White noise alone would make all images alike to a network that ends in a mean over the pixels.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    patches = rng.standard_normal((1, 3, 7, 7), np.float32).repeat(32, 2).repeat(32, 3)
    return patches + rng.standard_normal((1, 3, 224, 224), np.float32) / 2


def build(name: str, folder: Path | None = None) -> Path:
    """The path of the network's IR (`.onnx` and `.bin` are beside it), made if it is not there yet."""
    if name not in NAMES:
        raise ValueError(f"unknown network {name!r} (there are: {', '.join(NAMES)})")
    folder = Path(folder or default_folder())
    path = folder / f"{name}.xml"
    if path.exists():
        return path
    import onnx
    import openvino

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / f"{name}.onnx"
        onnx.save(with_random_weights(name), made)
        model = openvino.convert_model(made)
        openvino.save_model(model, made.with_suffix(".xml"), compress_to_fp16=False)
        # The .xml last: it says that the others are complete.
        for suffix in (".onnx", ".bin", ".xml"):
            os.replace(made.with_suffix(suffix), path.with_suffix(suffix))
    return path


def with_random_weights(name: str) -> Any:
    """The ONNX model `name` with weights as initialisers, drawn by the part that each plays."""
    import onnx
    from onnx import numpy_helper

    source = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    model = onnx.load(source)
    graph = model.graph
    known = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    constants = {n.output[0]: tuple(known[n.input[0]]) for n in graph.node if n.op_type == "ConstantOfShape"}
    constants |= {k: v.shape for k, v in known.items() if v.dtype == np.float32}
    roles = _roles(graph, constants)
    makers = {o: n for n in graph.node for o in n.output}
    branch_ends = _branch_ends(graph, makers)
    last = next(n for n in reversed(graph.node) if n.op_type in ("Conv", "Gemm"))
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    weights = {}
    for key, (node, index) in roles.items():
        gain = BRANCH_GAIN if node.output[0] in branch_ends else 1.0
        if node.op_type in ("Conv", "Gemm"):
            gain = GAIN[name][node is last]
            if not _is_rectified(node.input[0], makers):
                gain *= np.sqrt(0.5)  # He's factor of 2 makes up for a Relu
        weights[key] = _draw(rng, node, index, constants[key], gain)
    nodes = [n for n in graph.node if n.op_type != "ConstantOfShape"]
    used = {i for n in nodes for i in n.input}
    kept = [i for i in graph.initializer if i.name in used and i.name not in weights]
    inputs = [i for i in graph.input if i.name in used and i.name not in known]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept + [numpy_helper.from_array(v, k) for k, v in weights.items()])
    graph.input.extend(inputs)
    model.ir_version = 4  # the first whose initialisers need not be inputs
    onnx.checker.check_model(model)
    return model


def _roles(graph: Any, constants: Iterable[str]) -> dict[str, tuple[Any, int]]:
    """Constant -> the layer and its input that the constant feeds, through Unsqueeze and Reshape."""
    constants = set(constants)
    same = {k: k for k in constants}  # a reshaped constant -> the constant
    roles = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name not in same:
                continue
            if node.op_type in ("Unsqueeze", "Reshape"):
                same[node.output[0]] = same[name]
            else:
                roles[same[name]] = node, index
    return roles


def _is_rectified(name: str, makers: Mapping[str, Any]) -> bool:
    """Whether the tensor comes from a Relu, with nothing in between that moves it below 0."""
    while name in makers and makers[name].op_type not in ("Relu", "Conv", "BatchNormalization", "Sum", "Add"):
        name = makers[name].input[0]
    return name in makers and makers[name].op_type == "Relu"


def _branch_ends(graph: Any, makers: Mapping[str, Any]) -> set[str]:
    """Outputs of the BatchNorms whose result is added to a shortcut that had no layer of its own."""
    ends = set()
    for node in graph.node:
        if node.op_type == "Sum":
            branches = [makers[i] for i in node.input]
            normed = [n for n in branches if n.op_type == "BatchNormalization"]
            if len(normed) == 1:
                ends.add(normed[0].output[0])
    return ends


def _draw(rng: np.random.Generator, node: Any, index: int, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """Random values for input `index` of `node`."""
    kind = node.op_type, index
    if kind in (("Conv", 1), ("Gemm", 1)):
        fan_in = int(np.prod(shape[1:]))
        weights = rng.standard_normal(shape, np.float32)
        if fan_in > 9:
            # What all channels have in common after a Relu would otherwise drown the image, layer by layer.
            weights -= weights.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        return weights * np.float32(gain * np.sqrt(2 / fan_in))
    if kind in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 0), ("Mul", 1)):
        factor = gain if kind == ("BatchNormalization", 1) else 1.0
        return rng.uniform(0.8, 1.2, shape).astype(np.float32) * np.float32(factor)
    return rng.standard_normal(shape, np.float32) * np.float32(0.1)  # biases, means, offsets


def check(name: str, folder: Path | None = None) -> list[str]:
    """What is out of range in the network's activations for `network_input`; empty: nothing.

    Every layer's standard deviation is held to DEVIATION, the largest probability to LARGEST_PROBABILITY, and
    another image must give clearly another output.
    """
    import onnx
    import onnxruntime

    model = onnx.load(build(name, folder).with_suffix(".onnx"))
    outputs = [o.name for o in model.graph.output]
    kinds = {o: n.op_type for n in model.graph.node for o in n.output}
    folded = {i.name for i in model.graph.initializer}
    for node in model.graph.node:
        if set(node.input) <= folded:
            folded.update(node.output)
        elif node.op_type != "Dropout" and node.output[0] not in outputs:
            model.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    source = session.get_inputs()[0].name
    found = dict(zip(names, session.run(names, {source: network_input(name)}), strict=True))
    wrong, deviations = [], []
    for key, array in found.items():
        if kinds[key] == "Softmax":
            continue
        deviation = float(array.std())
        deviations.append(deviation)
        if not DEVIATION[0] <= deviation <= DEVIATION[1]:
            wrong.append(f"{name}: {key} ({kinds[key]}) has the standard deviation {deviation:.3g}")
    result = found[outputs[0]]
    if kinds[outputs[0]] == "Softmax" and not 0.01 <= result.max() <= LARGEST_PROBABILITY:
        wrong.append(f"{name}: the largest probability is {result.max():.3g}")
    other = session.run(outputs[:1], {source: network_input(name, SEED + 1)})[0]
    differs = float(np.abs(other - result).max() / np.abs(result).max())
    if differs < 0.01:
        wrong.append(f"{name}: another image changes the output by {differs:.2g} only")
    print(
        f"{name:14s} deviations {min(deviations):.3g} .. {max(deviations):.3g}, largest output "
        f"{result.max():.3g}, mean |output| {np.abs(result).mean():.3g}, "
        f"another image changes it by {differs:.2g}"
    )
    return wrong


def main() -> int:
    parser = command.parser("networks", __doc__, json=False)
    parser.add_argument("names", nargs="*", metavar="name", help="default: all six")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--check", action="store_true", help="check the range of all activations")
    arguments = parser.parse_args()
    wrong: list[str] = []
    for name in arguments.names or NAMES:
        print(build(name, arguments.folder))
        if arguments.check:
            wrong += check(name, arguments.folder)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
