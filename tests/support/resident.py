"""What memory ovjit takes; run by `test_memory.py` in fresh processes. Prints JSON, sizes in bytes.

python -m tests.support.resident compile MODEL.xml         the peak while compiling, beyond what imports took
python -m tests.support.resident infer INFERENCES SIZES    a fully convolutional network, sizes at random
python -m tests.support.resident infer INFERENCES 1        the same, the largest size alone
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

import ovjit as ov
from ovjit.codegen import compiling
from ovjit.codegen.cpu import jit

SEED = 20261120
LARGEST = 640


def status(key: str) -> int:
    """VmRSS: resident now; VmHWM: the most there has been."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def compile_peak(path: str) -> dict[str, Any]:
    assert jit.numba is not None  # imported, so that it is in the baseline
    core = ov.Core()
    before = status("VmRSS")
    compiled = core.compile_model(path, "CPU")
    return {"peak": status("VmHWM") - before, "outputs": len(compiled.outputs), **compiling.counts}


def network() -> ov.Model:
    """Convolutions, a depthwise one, pooling, a residual and an upsampling by transposed convolution."""
    rng = np.random.default_rng(SEED)
    ops = ov.opset8

    def weights(*shape: int) -> Any:
        return ops.constant(rng.standard_normal(shape).astype(np.float32) / 10)

    x = ops.parameter(ov.PartialShape([1, 3, -1, -1]), np.float32, name="x")
    one = ([1, 1], [1, 1], [1, 1], [1, 1])
    a = ops.relu(ops.convolution(x, weights(16, 3, 3, 3), *one))
    b = ops.relu(ops.convolution(a, weights(16, 16, 3, 3), *one))
    c = ops.relu(
        ops.group_convolution(ops.add(a, b), weights(16, 1, 1, 3, 3), [2, 2], [1, 1], [1, 1], [1, 1])
    )
    d = ops.max_pool(c, [1, 1], [1, 1], [1, 1], [1, 1], [3, 3], "floor", "explicit", "i64", 0).output(0)
    up = ops.convolution_backprop_data(d, weights(16, 8, 2, 2), [2, 2])
    return ov.Model([ops.sigmoid(up)], [x], "scores")


def sizes(count: int) -> list[tuple[int, int]]:
    """So many sizes, the largest first, at odd and even extents."""
    rng = np.random.default_rng(SEED)
    found = {(LARGEST, LARGEST): None}
    while len(found) < count:
        found[tuple(int(d) for d in rng.integers(32, LARGEST + 1, 2))] = None
    return list(found)


def infer(inferences: int, count: int) -> dict[str, Any]:
    compiled = ov.Core().compile_model(network(), "CPU")
    request = compiled.create_infer_request()
    rng = np.random.default_rng(SEED)
    image = rng.standard_normal((1, 3, LARGEST, LARGEST)).astype(np.float32)
    known = sizes(count)
    counts = dict(compiling.counts)
    order = np.concatenate([rng.permutation(count) for _ in range(-(-inferences // count))])[:inferences]
    first: dict[int, bytes] = {}
    for i in order:
        h, w = known[i]
        got = request.infer([np.ascontiguousarray(image[:, :, :h, :w])])[0]
        assert got.shape == (1, 8, -(-h // 2) * 2, -(-w // 2) * 2), (h, w, got.shape)
        digest = got[0, :, ::7, ::5].tobytes()
        assert first.setdefault(int(i), digest) == digest, f"other bits for the size {h} x {w}"
    new = {key: n - counts[key] for key, n in compiling.counts.items()}
    return {"resident": status("VmRSS"), "sizes": len(first), "new": new, "compiled": counts}


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    print(json.dumps(compile_peak(rest[0]) if what == "compile" else infer(*map(int, rest))))
