"""Random nodes beside the real OpenVINO.

`python -m tests.support.opsets.beside_openvino COUNT SEED [FAMILY ...] [native]`
prints what differs. The families are the functions of the modules `opset_samples_*`.

Samples whose begins, steps, axes or masks are inputs of the model may end OpenVINO's process.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino

import ovjit
from ovjit.graph import interp
from tests.support.opsets import opset_samples_detection, opset_samples_layers, opset_samples_movement
from tests.support.opsets.opset_samples import Inputs

FAMILIES = {
    **opset_samples_layers.FAMILIES,
    **opset_samples_movement.FAMILIES,
    **opset_samples_detection.FAMILIES,
}
F32 = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "INFERENCE_NUM_THREADS": 1}
_CORE = openvino.Core()


def difference(mine: np.ndarray, real: np.ndarray) -> str:
    if mine.shape != real.shape or mine.dtype != real.dtype:
        return f"{mine.dtype}{mine.shape} for {real.dtype}{real.shape}"
    if mine.dtype.kind != "f":
        wrong = mine != real
    else:
        a, b = mine.astype(np.float64), real.astype(np.float64)
        scale = np.abs(b[np.isfinite(b)]).max(initial=0.0)
        with np.errstate(all="ignore"):
            wrong = ~((np.abs(a - b) <= 2e-4 * (np.abs(b) + 0.1 * scale) + 2e-6) | (a == b))
        wrong &= ~(np.isnan(a) & np.isnan(b))
    if not wrong.any():
        return ""
    at = tuple(int(v[0]) for v in np.nonzero(wrong)) if wrong.ndim else ()
    return f"{wrong.sum()} of {wrong.size} differ, at {at} {mine[at]} for {real[at]}"


def ours(model: openvino.Model, arrays: list[np.ndarray], native: bool) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(model, Path(folder) / "m.xml", compress_to_fp16=False)
        read = ovjit.Core().read_model(Path(folder) / "m.xml")
    if native:
        result = ovjit.Core().compile_model(read, "CPU", F32)(arrays)
        return [np.array(result[i]) for i in range(len(read.outputs))]
    with np.errstate(all="ignore"):
        return list(interp.evaluate(read._graph(), arrays))


def judge(family: str, seed: int, native: bool = False) -> tuple[str, str]:
    """(same, skipped, refused or wrong; what is said of it)"""
    rng = np.random.default_rng((seed, *family.encode()))
    inputs = Inputs(rng)
    try:
        node = FAMILIES[family](rng, inputs)
        parameters = [p for p, _ in inputs.rows]
        arrays = [v for _, v in inputs.rows]
        model = openvino.Model(list(node.outputs()), parameters)
        compiled = _CORE.compile_model(model, "CPU", F32)
        results = compiled(arrays)
        real = [np.array(results[i]) for i in range(len(model.outputs))]
    except Exception as error:
        return "skipped", str(error)[-300:]
    what = f"{node.get_type_name()} {[(v.dtype.name, v.shape) for v in arrays]} {attributes(node)}"
    try:
        mine = ours(model, arrays, native)
    except Exception as error:
        return "refused", f"{what}: {type(error).__name__}: {str(error)[-300:]}"
    for i, (a, b) in enumerate(zip(mine, real, strict=True)):
        said = difference(np.asarray(a), b)
        if said:
            return "wrong", f"{what}: output {i}: {said}"
    return "same", node.get_type_name()


def attributes(node: Any) -> dict[str, Any]:
    try:
        return dict(node.get_attributes())
    except Exception:
        return {}


def main(count: int, seed: int, words: list[str]) -> None:
    import collections

    native = "native" in words
    for family in [w for w in words if w != "native"] or FAMILIES:
        counts: collections.Counter[str] = collections.Counter()
        kinds: collections.Counter[str] = collections.Counter()
        for i in range(seed, seed + count):
            status, said = judge(family, i, native)
            counts[status] += 1
            key = f"{status} {said.split(' ')[0]}"
            kinds[key] += 1
            if (status in ("refused", "wrong") or "-v" in sys.argv) and kinds[key] <= 3:
                print(f"  {family} {i}: {status} {said[:700]}", flush=True)
        print(f"{family}: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [a for a in sys.argv[3:] if a != "-v"])
