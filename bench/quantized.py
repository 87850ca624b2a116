"""The benchmark's networks quantized to 8 bits by NNCF, with the real OpenVINO.

In: the IR of a network and some inputs of it. Out: `name-int8.xml` beside it, with FakeQuantize on
activations (ranges of the inputs) and weights of signed 8 bits by channel, as `nncf.quantize` writes them.

    python -m bench.quantized [--folder DIR] [name ...]

Files are made once, by a Python that has `nncf` (which may need an OpenVINO of its own), and then found.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from bench import command, networks, transformers

#: Inputs that the ranges of activations are measured on.
SAMPLES = 8
#: The networks that are quantized by default.
NAMES = ("resnet50", "squeezenet", "inception_v1", "mobilenet")


def quantized(name: str, folder: Path | None = None) -> Path:
    """The path of the quantized network's IR, made if it is not there yet. RuntimeError without NNCF."""
    if name in transformers.NAMES:
        source = transformers.build(name, folder)
        samples = [list(transformers.inputs(name, seed=i)) for i in range(SAMPLES)]
    else:
        source = networks.build(name, folder)
        samples = [[networks.network_input(name, i)] for i in range(SAMPLES)]
    path = source.with_name(f"{source.stem}-int8.xml")
    if not path.exists():
        write(source, path, samples)
    return path


def write(source: Path, path: Path, samples: list[list[np.ndarray]]) -> None:
    """Write the model in `source` as NNCF quantizes it by `samples`. RuntimeError without NNCF."""
    try:
        import nncf
    except ImportError as error:
        raise RuntimeError(
            f"there is no {path.name}, and no NNCF to make it: run `pip install nncf`, and "
            f"`python -m bench.quantized {source.stem}`"
        ) from error
    import openvino

    data = nncf.Dataset([given[0] if len(given) == 1 else given for given in samples])
    model = nncf.quantize(openvino.Core().read_model(source), data, subset_size=len(samples))
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        openvino.save_model(model, made, compress_to_fp16=False)
        # The .xml last: it says that the other is complete.
        for suffix in (".bin", ".xml"):
            os.replace(made.with_suffix(suffix), path.with_suffix(suffix))


def main() -> int:
    parser = command.parser("quantized", __doc__, json=False)
    parser.add_argument("names", nargs="*", metavar="name", help=f"default: {' '.join(NAMES)}")
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    for name in arguments.names or NAMES:
        print(quantized(name, arguments.folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
