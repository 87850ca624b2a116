"""Count the backend tests of ONNX that an engine passes.

`python -m tests.support.onnx.scoreboard openvino [-o file]`. Engines: ovjit, ovjit-reference (the same
without native code), openvino, onnxruntime. Each test runs in a worker process, so that one that ends the
process counts as a crash and the next goes on. The file
gets a line for each test: kind, name, status ("pass", "refused", "wrong", "crash"), what was said.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.onnx.cases import KINDS, Case, as_arrays, as_rows, difference, input_names, load_cases

#: Seconds that one test may take.
PATIENCE = 120


def engine(name: str) -> Callable[[Case], list[list[Any]]]:
    """A function that gives the outputs of each of a case's runs."""
    if name == "onnxruntime":
        return _onnxruntime
    if name == "openvino":
        import openvino

        return lambda case: _openvino(openvino, case)
    if name == "ovjit-reference":
        os.environ["OVJIT_INTERP"] = "1"
    import ovjit

    return lambda case: _openvino(ovjit, case)


def is_plain(value: np.ndarray) -> bool:
    """Whether the element type is NumPy's own, not one that ml_dtypes adds."""
    return value.dtype.type.__module__ == "numpy"


def _onnxruntime(case: Case) -> list[list[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(case.model, options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    outputs = []
    for inputs, _ in case.runs:
        given = dict(zip(names, map(as_arrays, inputs), strict=False))
        if all(isinstance(v, list) or v is None or is_plain(v) for v in given.values()):
            try:
                outputs.append(session.run(None, given))
                continue
            except RuntimeError as error:  # outputs of types that NumPy lacks go another way
                if "not implemented" not in str(error).lower() and "type" not in str(error).lower():
                    raise
        values = {name: _ort_value(onnxruntime, value) for name, value in given.items()}
        outputs.append([_ort_array(v) for v in session.run_with_ort_values(None, values)])
    return outputs


def _ort_value(onnxruntime: Any, value: np.ndarray) -> Any:
    """An OrtValue of these values; types that NumPy lacks go by their bytes."""
    import onnx

    if is_plain(value):
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.array(value, order="C"))
    number = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(value, number)


def _ort_array(value: Any) -> Any:
    import ml_dtypes

    kinds = {"bfloat16": ml_dtypes.bfloat16, "float8e4m3fn": ml_dtypes.float8_e4m3fn,
             "float8e5m2": ml_dtypes.float8_e5m2}  # fmt: skip
    kind = value.data_type().removeprefix("tensor(").removesuffix(")")
    array = value.numpy()
    return array.view(kinds[kind]) if kind in kinds and is_plain(array) else array


def _openvino(ov: Any, case: Case) -> list[list[Any]]:
    core = ov.Core()
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(case.model), "CPU", config)
    ports = {name: port for port in compiled.inputs for name in port.get_names()}
    names = input_names(case)
    outputs = []
    for inputs, _ in case.runs:
        request = compiled.create_infer_request()
        for name, value in zip(names, map(as_arrays, inputs), strict=False):
            port = ports.get(name)
            if port is None and len(names) == len(compiled.inputs):
                port = compiled.input(names.index(name))  # an input that goes by another name
            if port is None:
                continue  # an input that nothing needs
            if value is None:
                raise RuntimeError("an empty optional cannot be an input")
            if isinstance(value, list):
                value = as_rows(value)
            request.set_tensor(port, _tensor(ov, value, port.get_element_type()))
        request.infer()
        outputs.append([_array(request.get_output_tensor(i)) for i in range(len(compiled.outputs))])
    return outputs


def _tensor(ov: Any, value: np.ndarray, wanted: Any) -> Any:
    """A tensor of the port's type with these values; types that NumPy lacks go by their bytes."""
    if value.dtype.kind in "OUS":
        return ov.Tensor(np.array(value, dtype="U"))
    name = value.dtype.name
    if is_plain(value):
        return ov.Tensor(np.array(value, order="C"))
    tensor = ov.Tensor(wanted, list(value.shape))
    if tensor.get_byte_size() == value.nbytes:
        raw = value.reshape(-1).view(np.uint8)
    else:  # types of less than a byte: the first value in the low bits
        bits = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}[name]
        raw = _packed(value, bits)
    tensor.data.reshape(-1).view(np.uint8)[:] = raw
    return tensor


def _packed(value: np.ndarray, bits: int) -> np.ndarray:
    flat = value.reshape(-1).view(np.uint8) & ((1 << bits) - 1)
    per_byte = 8 // bits
    flat = np.concatenate([flat, np.zeros(-flat.size % per_byte, np.uint8)]).reshape(-1, per_byte)
    return (flat << (np.arange(per_byte, dtype=np.uint8) * bits)).sum(axis=1).astype(np.uint8)


def _array(tensor: Any) -> np.ndarray:
    """A tensor's values, also of types that NumPy does not have."""
    import ml_dtypes

    name = tensor.element_type.get_type_name()
    bytes_like = {
        "bf16": ml_dtypes.bfloat16,
        "f8e4m3": ml_dtypes.float8_e4m3fn,
        "f8e5m2": ml_dtypes.float8_e5m2,
        "f8e8m0": ml_dtypes.float8_e8m0fnu,
    }
    packed = {"i4": (4, ml_dtypes.int4), "u4": (4, ml_dtypes.uint4), "f4e2m1": (4, ml_dtypes.float4_e2m1fn)}
    packed |= {"u2": (2, ml_dtypes.uint2)}
    if name == "string":
        return np.array(tensor.str_data)
    shape = tuple(tensor.shape)
    if name in bytes_like:
        return tensor.data.view(bytes_like[name]).reshape(shape).copy()
    if name in packed:
        bits, dtype = packed[name]
        per_byte = 8 // bits
        raw = tensor.data.reshape(-1, 1).view(np.uint8) >> (np.arange(per_byte, dtype=np.uint8) * bits)
        flat = (raw & ((1 << bits) - 1)).reshape(-1)[: int(np.prod(shape, dtype=np.int64))]
        if dtype is ml_dtypes.int4:
            flat = (flat.astype(np.int8) ^ 8) - 8
            return flat.astype(dtype).reshape(shape)
        return flat.astype(np.uint8).view(dtype).reshape(shape)
    return np.array(tensor.data)


def _are_rows(answer: Any, wanted: Any) -> bool:
    """Whether an answer has the tensors of a sequence as its rows."""
    is_list = isinstance(wanted, list) and not isinstance(answer, list)
    return is_list and bool(wanted) and answer.ndim == np.ndim(as_arrays(wanted[0])) + 1


def judge(run: Callable[[Case], list[list[Any]]], case: Case) -> tuple[str, str]:
    """(status, what was said) of one test."""
    try:
        got = run(case)
    except Exception as error:
        return "refused", f"{type(error).__name__}: {error}"[:2000]
    for answers, (_, wanted) in zip(got, case.runs, strict=True):
        if len(answers) == len(wanted):
            answers = [list(a) if _are_rows(a, w) else a for a, w in zip(answers, wanted, strict=True)]
        if not any(isinstance(answer, list) for answer in answers):  # a sequence is several outputs here
            lists = [right if isinstance(right, list) else [right] for right in wanted]
            wanted = [right for each in lists for right in each]
        if len(answers) != len(wanted):
            return "wrong", f"should have {len(wanted)} outputs, has {len(answers)}"
        for i, (answer, right) in enumerate(zip(answers, wanted, strict=True)):
            said = difference(answer, right, case.rtol, case.atol)
            if said:
                return "wrong", f"output {i} {said}"
    return "pass", ""


def _work(name: str, cases: list[Case], pipe: Any) -> None:
    run = engine(name)
    for case in cases:
        pipe.send(("begin", case.name))
        pipe.send(("end", judge(run, case)))
    pipe.send(("done", None))


def run_all(name: str, cases: list[Case], tell: Callable[[Case, str, str], None]) -> None:
    """Judge every case; `tell` is called with (case, status, what was said)."""
    rest = list(cases)
    context = multiprocessing.get_context("spawn")
    while rest:
        mine, theirs = context.Pipe(False)
        worker = context.Process(target=_work, args=(name, rest, theirs), daemon=True)
        worker.start()
        theirs.close()
        done = 0
        started = False
        try:
            while True:
                if not mine.poll(PATIENCE):
                    raise EOFError
                what, value = mine.recv()
                if what == "begin":
                    started = True
                elif what == "end":
                    tell(rest[done], *value)
                    done += 1
                    started = False
                else:
                    break
        except EOFError:
            worker.kill()
            worker.join()
            if not started and not done:
                raise SystemExit("the worker does not start") from None
            tell(rest[done], "crash", f"exit code {worker.exitcode}")
            done += 1
        rest = rest[done:]
        worker.join(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=["ovjit", "ovjit-reference", "openvino", "onnxruntime"])
    parser.add_argument("-o", "--output", help="file for a line of JSON for each test")
    parser.add_argument("-k", "--contains", default="", help="only tests whose name contains this")
    parser.add_argument("-e", "--every", type=int, default=1, help="only every n-th test")
    given = parser.parse_args()
    cases = [case for case in load_cases() if given.contains in case.name][:: given.every]
    counts: dict[str, collections.Counter] = {kind: collections.Counter() for kind in KINDS}
    out = open(given.output, "w") if given.output else None
    began = time.perf_counter()

    def tell(case: Case, status: str, said: str) -> None:
        counts[case.kind][status] += 1
        if out:
            out.write(json.dumps([case.kind, case.name, status, said]) + "\n")
            out.flush()
        elif status != "pass":
            print(f"{status:8} {case.name}: {said[:300]}")

    run_all(given.engine, cases, tell)
    for kind in KINDS:
        print(f"{kind:18} " + "  ".join(f"{k} {v}" for k, v in sorted(counts[kind].items())))
    total = sum(counts.values(), collections.Counter())
    print(f"{'all':18} " + "  ".join(f"{k} {v}" for k, v in sorted(total.items())))
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
