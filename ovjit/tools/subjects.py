"""The subjects of `ovjit benchmark`: models, compiled under each combination of the options, with their data.

In: parsed options. Out: subjects that are ready to run, synchronously or in a queue.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import runpy
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.records import NamedTuple
from ovjit.tools.benchmark_options import HINTS


class Timed(NamedTuple):
    """An inference: the index of its set of data, and its time."""

    data: int
    ms: float


#: (seconds, or inferences) -> the inferences, and seconds of all
Run = Callable[[float, int], tuple[list[Timed], float]]


class Subject(NamedTuple):
    """A model under one configuration. `batch`: the number of images of an inference."""

    name: str
    model: str
    api: str
    config: dict[str, Any]
    compiled: Any
    requests: int
    batch: int
    compile_ms: float
    first_ms: float
    data: list[list[np.ndarray]]
    run: Run


def counters(options: argparse.Namespace) -> bool:
    """Whether a report contains the times of steps."""
    return options.report_type in ("average_counters", "detailed_counters")


def subjects(options: argparse.Namespace) -> list[Subject]:
    """One subject for each combination of the options' lists. Raises RuntimeError for models that do not
    compile."""
    properties: dict[str, Any] = {}
    if options.load_config:
        properties = json.loads(options.load_config.read_text()).get(options.target_device, {})
    ways = list(itertools.product(
        options.path_to_model, options.perf_hint, options.infer_precision, options.number_streams,
        options.number_threads,
    ))  # fmt: skip
    varied = [len(set(column)) > 1 for column in zip(*ways, strict=True)]
    out = []
    for way in ways:
        model, hint, precision, streams, threads = way
        config: dict[str, Any] = dict(properties)
        if HINTS[hint]:
            config["PERFORMANCE_HINT"] = HINTS[hint]
        if precision:
            config["INFERENCE_PRECISION_HINT"] = precision.removeprefix(f"{options.target_device}:")
        if streams:
            streams = str(streams).removeprefix(f"{options.target_device}:")
            config["NUM_STREAMS"] = int(streams) if streams.lstrip("-").isdecimal() else streams
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        if options.cache_dir:
            config["CACHE_DIR"] = options.cache_dir
        if options.infer_threads_pinning:
            config["ENABLE_CPU_PINNING"] = options.infer_threads_pinning == "YES"
        if options.perf_counts or counters(options):
            config["PERF_COUNT"] = True
        texts = (Path(model).name, hint, precision, f"{streams} streams", f"{threads} threads")
        name = (
            " ".join(str(t) for t, v, w in zip(texts, varied, way, strict=True) if v and w)
            or Path(model).name
        )
        api = options.api_type or ("sync" if hint == "latency" else "async")
        out.append(_open(name, model, api, config, options))
    return out


def _open(name: str, path: str, api: str, config: dict[str, Any], options: argparse.Namespace) -> Subject:
    import ovjit as ov

    core = ov.Core()
    if options.extensions:
        core.add_extension([op for file in options.extensions.split(",") for op in _operations(ov, file)])
    start = time.perf_counter()
    if Path(path).suffix == ".blob":
        compiled = core.import_model(Path(path).read_bytes(), options.target_device, config)
    elif options.load_from_file:
        compiled = core.compile_model(path, options.target_device, config)
    else:
        model = core.read_model(path)
        _reshape(ov, model, options)
        model = _preprocess(ov, model, options)
        compiled = core.compile_model(model, options.target_device, config)
    compile_ms = 1e3 * (time.perf_counter() - start)
    data = _data(compiled, options)
    preset = len(data) == 1 and options.inference_only is not False
    batch = options.batch_size or (data[0][0].shape[0] if data[0] and data[0][0].ndim > 1 else 1)
    queue = ov.AsyncInferQueue(compiled, options.number_infer_requests or 0) if api == "async" else None
    requests = list(queue) if queue is not None else [compiled.create_infer_request()]
    for request in requests:
        for i, array in enumerate(data[0]):
            request.set_input_tensor(i, ov.Tensor(array))
    start = time.perf_counter()
    requests[0].infer()
    first_ms = 1e3 * (time.perf_counter() - start)
    inputs = itertools.repeat((0, None)) if preset else itertools.cycle(enumerate(data))
    pace = _pace(options.maximum_inference_rate)
    run = _async(queue, inputs, pace) if queue is not None else _sync(requests[0], inputs, pace)
    return Subject(
        name, path, api, config, compiled, len(requests), batch, compile_ms, first_ms, data, run
    )  # fmt: skip


def _operations(ov: Any, file: str) -> list[Any]:
    """The operations that a Python file defines. Other files are left to `add_extension`."""
    if Path(file).suffix != ".py":
        return [file]
    names = runpy.run_path(file)
    classes = [v for v in names.values() if isinstance(v, type)]
    operations = [v for v in classes if issubclass(v, ov.Op) and v is not ov.Op]
    if not operations:
        raise ValueError(f"-extensions {file}: it defines no class derived from ovjit.Op")
    return operations


def _data(compiled: Any, options: argparse.Namespace) -> list[list[np.ndarray]]:
    """Sets of arrays for the inputs: one, or as many as -data_shape gives shapes for an input."""
    from ovjit.tools.profile import random_inputs

    ports = compiled.inputs
    texts_by_port = _by_port(ports, options.data_shape, "-data_shape") if options.data_shape else {}
    count = max((len(shapes) for shapes in texts_by_port.values()), default=1)
    sets = []
    for k in range(count):
        shapes = None
        if texts_by_port:
            shapes = [
                _parse_dims(texts_by_port[i][k % len(texts_by_port[i])]) if i in texts_by_port
                else [max(1, d.get_min_length()) for d in port.get_partial_shape()]
                for i, port in enumerate(ports)
            ]  # fmt: skip
        sets.append(random_inputs(ports, shapes, options.seed + k))
    for i, file in enumerate(options.paths_to_input):
        if i >= len(ports):
            raise ValueError(
                f"{len(options.paths_to_input)} input files are given, but the model has {len(ports)} inputs"
            )
        for arrays in sets:
            arrays[i] = _input(Path(file), arrays[i])
    return sets


def _by_port(ports: Sequence[Any], text: str, option: str) -> dict[int, list[str]]:
    """Parse `"x[1,2][1,4],y[3]"`, or `"[1,2]"` for all inputs: the texts in brackets, by the input's
    number."""
    texts_by_port: dict[int, list[str]] = {}
    text = text.replace(" ", "")
    if not re.fullmatch(r"[^\[\],]*(\[[^\[\]]*\])+(,[^\[\],]+(\[[^\[\]]*\])+)*", text):
        raise ValueError(f"{option} {text!r}: write name[...],other[...], or [...] for all inputs")
    for name, brackets in re.findall(r"([^\[\],]*)((?:\[[^\[\]]*\])+)", text):
        values = re.findall(r"\[([^\]]*)\]", brackets)
        indices = [
            i for i, port in enumerate(ports)
            if not name or name in port.get_names() or name == port.get_node().get_friendly_name()
        ]  # fmt: skip
        if not indices:
            raise ValueError(f"{option}: the model has no input {name!r}")
        texts_by_port.update((i, values) for i in indices)
    return texts_by_port


def _reshape(ov: Any, model: Any, options: argparse.Namespace) -> None:
    """-shape, -layout and -b."""
    shapes: dict[Any, Any] = {}
    if options.shape:
        for i, values in _by_port(model.inputs, options.shape, "-shape").items():
            dims = _parse_dims(values[0], open_too=True)
            shapes[model.input(i)] = ov.PartialShape([ov.Dimension(d) for d in dims])
        model.reshape(shapes)
    if options.layout:
        for i, values in _by_port(model.inputs, options.layout, "-layout").items():
            model.get_parameters()[i].set_layout(ov.Layout(values[0]))
    if options.batch_size and not options.shape:
        if options.layout:
            ov.set_batch(model, options.batch_size)
        else:
            model.reshape({p: [options.batch_size, *list(p.get_partial_shape())[1:]] for p in model.inputs})


def _preprocess(ov: Any, model: Any, options: argparse.Namespace) -> Any:
    """The model with the requested element types, means and scales."""
    sides = {"input": (model.inputs, options.input_precision),
             "output": (model.outputs, options.output_precision)}  # fmt: skip
    types: dict[tuple[str, int], str] = {
        (side, i): kind for side, (ports, kind) in sides.items() for i in range(len(ports)) if kind
    }
    for part in filter(None, options.input_output_precision.replace(" ", "").split(",")):
        name, _, kind = part.rpartition(":")
        matches = [(side, i) for side, (ports, _) in sides.items()
                   for i, port in enumerate(ports) if name in port.get_names()]  # fmt: skip
        if not matches or not kind:
            raise ValueError(f"-iop {part!r}: write name:type, with the name of an input or output")
        types.update((port, kind) for port in matches)
    steps = [
        (what, i, [float(v) for v in values[0].split(",")])
        for what, text in (("mean", options.mean_values), ("scale", options.scale_values)) if text
        for i, values in _by_port(model.inputs, text, f"--{what}_values").items()
    ]  # fmt: skip
    if not types and not steps:
        return model
    prepared = ov.preprocess.PrePostProcessor(model)
    for (side, i), kind in types.items():
        info = prepared.input(i) if side == "input" else prepared.output(i)
        info.tensor().set_element_type(_element_type(ov, kind))
    for what, i, numbers in steps:
        if ("input", i) in types or model.input(i).get_element_type() != ov.Type.f32:
            prepared.input(i).preprocess().convert_element_type(ov.Type.f32)
        getattr(prepared.input(i).preprocess(), what)(numbers if len(numbers) > 1 else numbers[0])
    return prepared.build()


def _element_type(ov: Any, name: str) -> Any:
    element_type = getattr(ov.Type, name.lower().replace("fp", "f"), None)
    if not isinstance(element_type, ov.Type):
        raise ValueError(f"unknown element type {name!r}: use f32, f16, u8, i8, ...")
    return element_type


def _parse_dims(text: str, open_too: bool = False) -> list[Any]:
    """Numbers; with `open_too` also `?`, -1, and ranges such as 1..8, as text."""
    out: list[Any] = []
    for part in filter(None, text.split(",")):
        if open_too and (part == "?" or ".." in part):
            out.append(part)
            continue
        try:
            out.append(int(part))
        except ValueError:
            raise ValueError(f"shape [{text}]: dimensions should be integers") from None
    return out


def _input(file: Path, like: np.ndarray) -> np.ndarray:
    """The array of a file. Raw bytes get the shape of the input."""
    if not file.is_file():
        raise ValueError(f"-i: the file {str(file)!r} does not exist")
    if file.suffix == ".npy":
        return np.load(file, allow_pickle=False).astype(like.dtype)
    raw = np.fromfile(file, like.dtype)
    if raw.size != like.size:
        raise ValueError(f"{file} has {raw.size} elements of {like.dtype}, the input needs {like.size}")
    return raw.reshape(like.shape)


def _pace(rate: float) -> Callable[[float, int], None]:
    """A function that waits until the start of an inference: number `number` of `rate` per second, counted
    from `start`. For a rate of 0 it does not wait."""

    def wait(start: float, number: int) -> None:
        remaining = start + number / rate - time.perf_counter()
        if remaining > 0:
            time.sleep(remaining)

    return wait if rate > 0 else lambda start, number: None


def _sync(request: Any, inputs: Iterator[Any], pace: Callable[[float, int], None]) -> Run:
    def run(seconds: float, count: int) -> tuple[list[Timed], float]:
        """Run inferences one after the other. Returns them and the total seconds."""
        times: list[Timed] = []
        start = now = time.perf_counter()
        while (now - start < seconds) if not count else len(times) < count:
            pace(start, len(times))
            which, arrays = next(inputs)
            before = time.perf_counter()
            request.infer(arrays)
            now = time.perf_counter()
            times.append(Timed(which, 1e3 * (now - before)))
        return times, now - start

    return run


def _async(queue: Any, inputs: Iterator[Any], pace: Callable[[float, int], None]) -> Run:
    times: list[Timed] = []
    queue.set_callback(lambda request, which: times.append(Timed(which, request.latency)))

    def run(seconds: float, count: int) -> tuple[list[Timed], float]:
        times.clear()
        start, started = time.perf_counter(), 0
        while (time.perf_counter() - start < seconds) if not count else started < count:
            pace(start, started)
            which, arrays = next(inputs)
            queue.start_async(arrays, which)
            started += 1
        queue.wait_all()
        return list(times), time.perf_counter() - start

    return run
