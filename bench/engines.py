"""The engines that are compared, behind one small interface. Used inside worker processes only.

`open_engine(name)` imports the engine's package and nothing else of the kind, so that a process holds one.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np

#: Name -> what it is. The first is ours, the second what its speed is compared with.
ENGINES = {
    "ovjit": "ovjit asked for f32",
    "openvino": "OpenVINO asked for f32",
    "onnxruntime": "ONNX Runtime, CPU provider",
    "ovjit-bf16": "ovjit asked for bf16",
    "openvino-bf16": "OpenVINO asked for bf16, its default where the CPU has it",
    "ovjit-int8": "ovjit on the network that NNCF has quantized",
    "openvino-int8": "OpenVINO on the same",
}
#: Engine -> the one its times are divided by.
PEERS = {
    "ovjit": "openvino",
    "openvino": "openvino",
    "onnxruntime": "openvino",
    "ovjit-bf16": "openvino-bf16",
    "openvino-bf16": "openvino",
    "ovjit-int8": "openvino-int8",
    "openvino-int8": "openvino",
}


class OpenVinoLike:
    """ovjit or the real OpenVINO: the same calls on another module."""

    def __init__(self, module: Any, hints: dict[str, Any], file: str = "xml"):
        self.module = module
        self.hints = hints
        self.file = file  # which of a model's files
        self.core = module.Core()
        self.version = module.get_version()
        self.compiled: Any = None
        self.request: Any = None

    def load(self, paths: dict[str, str], threads: int, cache: str | None = None) -> None:
        """Compile the IR for `threads` threads; `cache` is the real OpenVINO's CACHE_DIR."""
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, **self.hints}
        if cache:
            config["CACHE_DIR"] = cache
        self.compiled = self.core.compile_model(paths[self.file], "CPU", config)
        self.request = self.compiled.create_infer_request()

    def give(self, inputs: list[np.ndarray]) -> Callable[[], Any]:
        """Set the inputs; the returned call runs one inference on them."""
        for i, array in enumerate(inputs):
            self.request.set_input_tensor(i, self.module.Tensor(array))
        return self.request.infer

    def results(self) -> list[np.ndarray]:
        return [np.array(t.data) for t in self.request.output_tensors]

    def profile(self, paths: dict[str, str], threads: int, inputs: list[np.ndarray]) -> dict[str, Any]:
        """What share of the steps, and of their time, is native, and the operations that are not."""
        config = {"INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True, **self.hints}
        request = self.core.compile_model(paths[self.file], "CPU", config).create_infer_request()
        for _ in range(2):
            request.infer(inputs)
        rows = [r for r in request.get_profiling_info() if r.status.name == "EXECUTED"]
        host = [r for r in rows if r.exec_type.startswith("ref_")]
        total = sum(r.real_time.total_seconds() for r in rows)
        lost = sum(r.real_time.total_seconds() for r in host)
        return {
            "steps": len(rows),
            "native_steps": 1 - len(host) / len(rows) if rows else None,
            "native_time": 1 - lost / total if total else None,
            "host_ops": sorted({r.node_type for r in host}),
        }

    def least_ms(self, paths: dict[str, str], threads: int, inputs: list[np.ndarray]) -> float:
        """What the steps would take at this machine's roofline, in milliseconds (ovjit only)."""
        from ovjit.tools.profile import profile

        found = profile(paths[self.file], threads, config=self.hints, inputs=inputs)
        return found.least_us / 1e3


class OnnxRuntime:
    """ONNX Runtime on the ONNX file that the IR was made from."""

    def __init__(self) -> None:
        import onnxruntime

        self.module = onnxruntime
        self.version = onnxruntime.__version__
        self.session: Any = None
        self.binding: Any = None

    def load(self, paths: dict[str, str], threads: int, cache: str | None = None) -> None:
        if "onnx" not in paths:
            raise ValueError("there is no ONNX file of this model")
        options = self.module.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = self.module.InferenceSession(paths["onnx"], options, ["CPUExecutionProvider"])

    def give(self, inputs: list[np.ndarray]) -> Callable[[], Any]:
        self.binding = self.session.io_binding()
        for source, array in zip(self.session.get_inputs(), inputs, strict=True):
            self.binding.bind_cpu_input(source.name, array)
        for sink in self.session.get_outputs():
            self.binding.bind_output(sink.name, "cpu")
        session, binding = self.session, self.binding
        return lambda: session.run_with_iobinding(binding)

    def results(self) -> list[np.ndarray]:
        return self.binding.copy_outputs_to_cpu()


def open_engine(name: str) -> Any:
    """The engine `name` of ENGINES, its package imported."""
    package, _, precision = name.partition("-")
    if name == "onnxruntime":
        return OnnxRuntime()
    if name in ENGINES:
        module = importlib.import_module(package)
        if precision == "int8":  # what is not in integers is as the engine likes it
            return OpenVinoLike(module, {}, "int8")
        return OpenVinoLike(module, {"INFERENCE_PRECISION_HINT": precision or "f32"})
    raise ValueError(f"unknown engine {name!r} (there are: {', '.join(ENGINES)})")


def peak_memory() -> float:
    """The most memory that this process has had resident so far, in MB (10^6 bytes)."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
