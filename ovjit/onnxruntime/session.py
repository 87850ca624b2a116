"""InferenceSession: ONNX Runtime's class for running a model, on ovjit."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ovjit.cores import usable_cores
from ovjit.errors import arguments_error
from ovjit.onnxruntime.binding import IOBinding
from ovjit.onnxruntime.engine import Engine
from ovjit.onnxruntime.failures import STATE, Fail, InvalidArgument, failure_of, refuse_pickle, text_of
from ovjit.onnxruntime.graph_info import ModelMetadata, NodeArg
from ovjit.onnxruntime.options import RunOptions, SessionOptions
from ovjit.onnxruntime.providers import CPU, OrtEpDevice, choose_providers, get_ep_devices
from ovjit.onnxruntime.values import OrtMemoryInfo, OrtValue, OrtValueVector, cpu_memory_info

_STARS = "*" * 15


@functools.lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads of `run_async` in a process: a fork has none of its parent's."""
    return ThreadPoolExecutor(usable_cores()[0], "ovjit-run-async")


class Session:
    """A model's inputs, outputs and runs. `InferenceSession` makes it of a file or bytes."""

    _sess: Engine
    _sess_options: SessionOptions
    _inputs_meta: list[NodeArg]
    _outputs_meta: list[NodeArg]
    _overridable_initializers: list[NodeArg]
    _model_meta: ModelMetadata
    #: The names of inputs that a run needs, and of all outputs.
    _required: list[str]
    _output_names: list[str]

    def __init__(self, enable_fallback: bool = True) -> None:
        self._enable_fallback = enable_fallback
        self._fallback_providers = [CPU]

    def get_session_options(self) -> SessionOptions:
        """The options that the session was made with."""
        return self._sess_options

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that a run needs."""
        return self._inputs_meta

    def get_outputs(self) -> list[NodeArg]:
        return self._outputs_meta

    def get_overridable_initializers(self) -> list[NodeArg]:
        """The inputs that have a default, which a run may replace."""
        return self._overridable_initializers

    def get_modelmeta(self) -> ModelMetadata:
        return self._model_meta

    def get_input_memory_infos(self) -> list[OrtMemoryInfo]:
        return [cpu_memory_info() for _ in self._inputs_meta]

    def get_output_memory_infos(self) -> list[OrtMemoryInfo]:
        return [cpu_memory_info() for _ in self._outputs_meta]

    def get_input_epdevices(self) -> list[OrtEpDevice]:
        return [device for _ in self._inputs_meta for device in get_ep_devices()]

    def get_providers(self) -> list[str]:
        return self._providers

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return self._provider_options

    def get_provider_graph_assignment_info(self) -> Any:
        """Raise Fail, as without the recording of assignments."""
        raise failure_of(
            Fail,
            "Session configuration entry 'session.record_ep_graph_assignment_info' must be set to \"1\" to "
            "retrieve EP graph assignment information. ovjit does not record it",
        )

    def set_providers(self, providers: Any = None, provider_options: Any = None) -> None:
        """Choose the providers again. The compiled model is kept: there is one provider."""
        self._set_providers(providers, provider_options)

    def _set_providers(self, providers: Any, provider_options: Any) -> None:
        self._provider_options = choose_providers(providers, provider_options)
        self._providers = list(self._provider_options)

    def disable_fallback(self) -> None:
        """Make the constructor raise its errors about providers."""
        self._enable_fallback = False

    def enable_fallback(self) -> None:
        """Make the constructor use the CPU if the list of providers is wrong."""
        self._enable_fallback = True

    def _validate_input(self, feed_input_names: Any) -> None:
        missing = [name for name in self._required if name not in feed_input_names]
        if missing:
            raise ValueError(
                f"Required inputs ({missing}) are missing from input feed ({list(feed_input_names)})."
            )

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """Run the model. `input_feed`: {name: array, list or OrtValue}. Returns the outputs of these names
        (None or []: all) as arrays; sequences as lists, ZipMap's results as lists of dicts.

        ValueError for missing inputs, InvalidArgument for other names, types, ranks and dimensions, Fail if
        the model cannot compute with these inputs.
        """
        self._validate_input(input_feed.keys())
        return self._sess.run(output_names or self._output_names, input_feed, run_options)

    def run_async(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any],
        callback: Callable[[list[Any], Any, str], Any], user_data: Any, run_options: Any = None,
    ) -> None:  # fmt: skip
        """Start a run and return. `callback(results, user_data, error)` is called by another thread; `error`
        is "" or the error's text, with results []."""
        self._validate_input(input_feed.keys())
        if self._sess_options.intra_op_num_threads == 1:
            raise failure_of(
                InvalidArgument, "intra op thread pool must have at least one thread for RunAsync"
            )
        names, feed = output_names or self._output_names, dict(input_feed)

        def compute() -> None:
            results, error = [], ""
            try:
                results = self._sess.run(names, feed, run_options)
            except Exception as failure:
                error = text_of(failure).replace("Invalid output name:", "Invalid output name: ")
            callback(results, user_data, error)

        _pool(os.getpid()).submit(compute)

    def run_with_ort_values(
        self, output_names: Sequence[str] | None, input_dict_ort_values: Mapping[str, OrtValue],
        run_options: Any = None,
    ) -> list[OrtValue]:  # fmt: skip
        """Run the model on OrtValues. Returns OrtValues."""
        self._validate_input(input_dict_ort_values.keys())
        feeds = {name: value._get_c_value() for name, value in input_dict_ort_values.items()}
        return self._sess.run_values(output_names or self._output_names, feeds, run_options)

    def run_with_ortvaluevector(
        self, run_options: Any, feed_names: Sequence[str], feeds: Any, fetch_names: Sequence[str],
        fetches: OrtValueVector, fetch_devices: Any,
    ) -> None:  # fmt: skip
        """Run the model on a vector of values. The results are appended to `fetches`."""
        values = dict(zip(feed_names, feeds, strict=True))
        for value in self._sess.run_values(list(fetch_names), values, run_options):
            fetches.push_back(value)

    def end_profiling(self) -> str:
        """Write the times of all runs. Returns the file's name, "" without `enable_profiling`."""
        return self._sess.end_profiling()

    def get_profiling_start_time_ns(self) -> int:
        """The begin of the session, as time.monotonic_ns()."""
        return self._sess.profiling_start

    def io_binding(self) -> IOBinding:
        """A new binding of inputs and outputs."""
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Run the model on bound inputs and outputs."""
        if iobinding._session is not self._sess:
            raise ValueError("IOBinding must be used with the session that created it.")
        iobinding._run(run_options)

    def create_ortvalue_from_shape_and_type(
        self, shape: Sequence[int], element_type: Any, device_type: str, device_id: int = 0,
        vendor_id: int = -1,
    ) -> OrtValue:  # fmt: skip
        """A value of zeros."""
        return OrtValue.ortvalue_from_shape_and_type(shape, element_type, device_type, device_id, vendor_id)

    def release_captured_graph(self, graph_annotation_id: int = 0) -> None:
        """Do nothing: the CPU captures no graphs."""

    def set_ep_dynamic_options(self, options: dict[str, str]) -> None:
        """Accept options of providers: the CPU has none."""

    def get_tuning_results(self) -> list[Any]:
        return []

    def set_tuning_results(self, results: list[Any], *, error_on_invalid: bool = False) -> None:
        """Accept tuning results: the CPU has none."""

    def __getstate__(self) -> Any:
        refuse_pickle(self._sess)


class InferenceSession(Session):
    """A session of a model's path or bytes. `intra_op_num_threads` of the options sets the threads. Runs from
    several threads at once are safe."""

    def __init__(
        self, path_or_bytes: str | bytes | os.PathLike[str], sess_options: SessionOptions | None = None,
        providers: Any = None, provider_options: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(enable_fallback=int(kwargs.get("enable_fallback", 1)) == 1)
        self._model_path: str | None = None
        self._model_bytes: bytes | None = None
        if isinstance(path_or_bytes, (str, os.PathLike)):
            self._model_path = os.fspath(path_or_bytes)
        elif isinstance(path_or_bytes, bytes):
            self._model_bytes = path_or_bytes
        else:
            raise TypeError(f"Unable to load from type '{type(path_or_bytes)}'")
        self._choose_providers(providers, provider_options)
        if sess_options is not None and providers and sess_options.has_providers():
            warnings.warn(
                "Specified 'providers'/'provider_options' when creating InferenceSession but SessionOptions "
                "has already been configured with providers. InferenceSession will only use the providers "
                "passed to InferenceSession().",
                stacklevel=2,
            )
        self._start(sess_options)

    def _choose_providers(self, providers: Any, provider_options: Any) -> None:
        try:
            self._set_providers(providers, provider_options)
        except (ValueError, RuntimeError) as error:
            if not self._enable_fallback:
                raise
            print(f"{_STARS} EP Error {_STARS}")
            print(f"EP Error {error} when using {providers}")
            print(f"Falling back to {self._fallback_providers} and retrying.")
            print("*" * 40)
            self._set_providers(self._fallback_providers, None)
            self.disable_fallback()

    def _start(self, options: SessionOptions | None) -> None:
        source = self._model_path or self._model_bytes
        if (options is not None and not isinstance(options, SessionOptions)) or source is None:
            if self._model_path or self._model_bytes is None or not isinstance(options, SessionOptions):
                parameters = [f"arg0: {STATE}.SessionOptions", "arg1: str", "arg2: bool", "arg3: bool"]
                why = "a session is made of SessionOptions, and of a path or bytes"
                raise arguments_error("__init__", "constructor", parameters, [options, source], {}, why)
        self._sess_options = options._copy() if isinstance(options, SessionOptions) else SessionOptions()
        self._sess = Engine(self._model_bytes if source is None else source, self._sess_options)  # type: ignore[arg-type]
        self._inputs_meta, self._outputs_meta = self._sess.inputs, self._sess.outputs
        self._overridable_initializers = self._sess.overridable
        self._model_meta = self._sess.metadata
        self._required = [a.name for a in self._inputs_meta if not a.type.startswith("optional")]
        self._output_names = [arg.name for arg in self._outputs_meta]


for _class in (Session, InferenceSession):
    _class.__module__ = "onnxruntime.capi.onnxruntime_inference_collection"
