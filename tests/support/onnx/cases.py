"""ONNX's own backend tests as plain records, and how an engine's answers are judged."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

#: The kinds of tests whose files are part of the package; "real" ones are downloaded, and left out.
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


#: Two units of the last place, relatively, for types in which one is more than the tests' tolerance. The
#: expected values of f16 and bf16 are rounded after each step of their computation, in an order that is not
#: prescribed.
EPSILONS = {"float16": 2**-9, "bfloat16": 2**-6}


class Case(NamedTuple):
    """One test: a model's file and, for each run, the values of its inputs and what should come out."""

    kind: str
    name: str
    model: bytes
    runs: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float


def load_cases(kinds: tuple[str, ...] = KINDS) -> list[Case]:
    """All tests of these kinds, by kind and name."""
    return [case for kind in kinds for case in _load(kind)]


@cache
def _load(kind: str) -> list[Case]:
    """The tests of one kind. Takes ten seconds for "node": the package computes them."""
    from onnx.backend.test.loader import load_model_tests

    cases = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for test in load_model_tests(kind=kind):
            if test.model is not None:
                model, runs = test.model.SerializeToString(), test.data_sets
            else:
                model, runs = _read_folder(Path(test.model_dir))
            runs = [(list(inputs), list(outputs)) for inputs, outputs in runs]
            cases.append(Case(kind, test.name, model, runs, test.rtol, test.atol))
    return sorted(cases, key=lambda case: case.name)


def _read_folder(folder: Path) -> tuple[bytes, list[tuple[list[Any], list[Any]]]]:
    runs = []
    for data in sorted(folder.glob("test_data_set_*")):
        runs.append(
            tuple([_read_value(path) for path in _numbered(data, what)] for what in ("input", "output"))
        )
    return (folder / "model.onnx").read_bytes(), runs


def _numbered(folder: Path, what: str) -> list[Path]:
    return sorted(folder.glob(f"{what}_*.pb"), key=lambda path: int(path.stem.partition("_")[2]))


def _read_value(path: Path) -> Any:
    import onnx
    from onnx import numpy_helper

    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def input_names(case: Case) -> list[str]:
    """The names of the inputs that a run has values for: those that are no initializers."""
    import onnx

    graph = onnx.ModelProto.FromString(case.model).graph
    constants = {tensor.name for tensor in graph.initializer}
    return [info.name for info in graph.input if info.name not in constants]


def as_arrays(value: Any) -> Any:
    """A value of the package as an array, a list of such or None; tensors of protobuf decoded."""
    if isinstance(value, (list, tuple)):
        return [as_arrays(v) for v in value]
    if value is None:
        return None
    if hasattr(value, "SerializeToString"):
        from onnx import numpy_helper

        return numpy_helper.to_array(value)
    return np.asarray(value)


def as_rows(values: list[Any]) -> np.ndarray:
    """The tensors of a sequence as the rows of one. RuntimeError for several shapes."""
    if len({array.shape for array in values}) != 1:
        raise RuntimeError("the tensors of a sequence that is an input need one shape")
    return np.stack(values)


def difference(got: Any, wanted: Any, rtol: float, atol: float) -> str:
    """What is wrong with an answer, "" if nothing."""
    wanted = as_arrays(wanted)
    if isinstance(wanted, list) or wanted is None:
        if not isinstance(got, list) or wanted is None:
            return f"should be {'a sequence' if wanted is not None else 'none'}, is {type(got).__name__}"
        if len(got) != len(wanted):
            return f"should have {len(wanted)} parts, has {len(got)}"
        parts = (difference(g, w, rtol, atol) for g, w in zip(got, wanted, strict=True))
        return next((p for p in parts if p), "")
    got = np.asarray(got)
    if got.shape != wanted.shape:
        return f"should have the shape {wanted.shape}, has {got.shape}"
    if wanted.dtype.kind in "OUS":
        same = got.size == wanted.size and all(
            _text(a) == _text(b) for a, b in zip(got.reshape(-1), wanted.reshape(-1), strict=True)
        )
        return "" if same else "strings differ"
    if got.dtype != wanted.dtype and _canonical(got.dtype) != _canonical(wanted.dtype):
        return f"should be {wanted.dtype}, is {got.dtype}"
    rtol = max(rtol, EPSILONS.get(wanted.dtype.name, 0))
    a, b = _wide(got), _wide(wanted)
    if np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        distance = np.abs(a.astype(np.float64) - b.astype(np.float64))
        return f"differs by up to {np.nanmax(distance, initial=0):.3g}"


def _canonical(dtype: np.dtype) -> str:
    return {"float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2"}.get(dtype.name, dtype.name)


def _wide(x: np.ndarray) -> np.ndarray:
    if x.dtype.kind in "V" or x.dtype.name in vars(ml_dtypes):
        return x.astype(np.float64)
    return x.astype(np.int64) if x.dtype == np.bool_ else x


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@cache
def reasons() -> dict[str, str]:
    """Test -> why ovjit does not pass it."""
    out, reason = {}, ""
    for line in (Path(__file__).parent / "not_passed.txt").read_text().splitlines():
        if line.startswith("["):
            reason = line[1:-1]
        elif line and not line.startswith("#"):
            out[line] = reason
    return out
