"""A runtime for MLServer: a model folder over the Open Inference Protocol, REST and gRPC.

In `model-settings.json`, `"implementation"` is `"ovjit.integrations.mlserver.OvjitRuntime"`. Under
`parameters` are the `uri` of a model file or folder and `extra`, with `config` (properties for compiling),
`jobs` (requests that run at once; 0: the model's optimum), `limits` (of requests, see `Limits`), and for
models with state `state`, `sessions` and `session_seconds` (see `ServedModel`). The parameters
`sequence_id`, `sequence_start` and `sequence_end` of a request name its session.
`max_batch_size` and `max_batch_time` are MLServer's adaptive batching. Clients with raw tensors use the
address below `/binary`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import mlserver
import numpy as np
from mlserver.errors import InferenceError, MLServerError
from mlserver.handlers.custom import CustomHandler, register_custom_handler
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor, ResponseOutput
from mlserver.utils import get_model_uri
from starlette.requests import Request
from starlette.responses import Response

from ovjit.errors import OvjitError
from ovjit.integrations.elements import array_of, datatype_of, to_list
from ovjit.integrations.json_pieces import PIECE
from ovjit.integrations.limits import InvalidRequest, Limits, Overloaded, show
from ovjit.integrations.mlserver_metrics import INFERENCE, WAITED
from ovjit.integrations.off_loop import off_loop
from ovjit.integrations.protocol import Port
from ovjit.integrations.rest import RestModel
from ovjit.integrations.served import Answer, ServedModel
from ovjit.integrations.sessions import Session, sequence_of

#: Settings of models with state.
_OF_STATE = ("state", "sessions", "session_seconds")


class OvjitRuntime(mlserver.MLModel):
    """One model. Requests run on threads of their own, so the event loop is not blocked."""

    #: The module with OpenVINO's API that runs the model.
    engine: Any = None
    platform = "ovjit"

    def __init__(self, settings: Any):
        super().__init__(settings)
        self._rest_model: RestModel | None = None
        # MLServer's own routes convert tensors to lists and do not support raw ones. These routes do.
        # MLServer asks for their addresses before it loads the model.
        ends = [("GET", ""), ("GET", "/ready"), ("POST", "/infer")]
        for version in ["", f"/versions/{self.version}"][: 2 if self.version else 1]:
            for method, end in ends:
                self._add_handler(method, f"/binary/v2/models/{self.name}{version}{end}")

    def _add_handler(self, method: str, path: str) -> None:
        async def handler(request: Request) -> Response:
            if self._rest_model is None:
                return Response(b'{"error": "the model is being loaded"}', 503)
            status, content, headers = await self._rest_model.reply_to(request)
            return Response(content, status, headers)

        handler.__name__ = f"_{method}_{path}"
        register_custom_handler(CustomHandler(rest_path=path, rest_method=method), handler)
        setattr(self, handler.__name__, handler)

    async def load(self) -> bool:
        """Read and compile the model. Raises MLServerError (422) with the reason if that fails."""
        uri = await get_model_uri(self.settings)
        parameters = self.settings.parameters
        extra = dict((parameters.extra if parameters else None) or {})
        supported = ["config", "jobs", "limits", *_OF_STATE]
        unknown = sorted(extra.keys() - set(supported))
        if unknown:
            names = ", ".join(supported)
            text = f"model {self.name!r}: the supported extra parameters are {names}, not {unknown}"
            raise MLServerError(text, 422)
        batches = self.settings.max_batch_size > 1 and self.settings.max_batch_time > 0
        try:
            self._limits = Limits.from_settings(extra.get("limits"))
            self._served = await asyncio.to_thread(
                ServedModel, uri, extra.get("config"), int(extra.get("jobs", 0)), batches, self.version,
                self.engine, **{name: extra[name] for name in _OF_STATE if name in extra},
            )  # fmt: skip
            if self._served.state is not None and self.settings.cache_enabled:
                self._served.close()
                raise OvjitError("the answers of a model with state cannot be cached: disable cache_enabled")
        except (RuntimeError, TypeError, ValueError, OSError) as error:
            raise MLServerError(f"model {self.name!r}: {error}", 422) from error
        self._rest_model = RestModel(self._served, self.name, self.version, self._observe, self._limits)
        self.inputs = [_metadata(port) for port in self._served.inputs]
        self.outputs = [_metadata(port) for port in self._served.outputs]
        self.settings.platform = self.platform
        if self.version and not self.settings.versions:
            self.settings.versions = [self.version]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The outputs that the request names; all if it names none. Errors of the client and of the inference
        have status 400, as in the protocol's server."""
        try:
            names = [output.name for output in payload.outputs] if payload.outputs else None
            answer = await self._served.infer(await self._arrays(payload), names, _session(payload))
        except OvjitError as error:
            raise InferenceError(f"model {self.name!r}: {error}") from error
        except MemoryError as error:
            text = f"model {self.name!r}: not enough memory for this request: retry later: {error}"
            raise MLServerError(text, Overloaded.status) from error
        self._observe(answer)
        if sum(array.size for array in answer.outputs.values()) > PIECE:
            result = await off_loop(_outputs, answer.outputs)
        else:
            result = _outputs(answer.outputs)
        return InferenceResponse(
            model_name=self.name, model_version=self.version, id=payload.id, outputs=result
        )

    async def _arrays(self, payload: InferenceRequest) -> dict[str, np.ndarray]:
        # the length of a nested list does not bound the number of elements
        small = all(
            len(data) <= PIECE and not isinstance(data[0] if len(data) else 0, list)
            for data in map(_data, payload.inputs)
        )
        if small and len(payload.inputs) < 16:
            return _arrays(payload, self._limits)
        return await off_loop(_arrays, payload, self._limits)

    def _observe(self, answer: Answer) -> None:
        labels = (self.name, self.version or "")
        WAITED.labels(*labels).observe(answer.waited)
        INFERENCE.labels(*labels).observe(answer.ran)

    def __setattr__(self, name: str, value: Any) -> None:
        # MLServer's adaptive batching replaces `predict`, and fails all requests of a batch if one is
        # invalid. So each request is checked before.
        if name == "predict":
            value = self._check_first(value)
        super().__setattr__(name, value)

    def _check_first(self, predict: Callable[[InferenceRequest], Any]) -> Callable[[InferenceRequest], Any]:
        @functools.wraps(predict)
        async def check_and_predict(payload: InferenceRequest) -> InferenceResponse:
            try:
                outputs = [output.name for output in payload.outputs or ()]
                self._served.check(await self._arrays(payload), outputs, _session(payload))
            except OvjitError as error:
                raise InferenceError(f"model {self.name!r}: {error}") from error
            return await predict(payload)

        return check_and_predict

    async def unload(self) -> bool:
        """Finish pending requests, and close the model."""
        served = getattr(self, "_served", None)
        if served is not None:
            await asyncio.to_thread(served.close)
        return True


def _session(payload: InferenceRequest) -> Session | None:
    """The session that the request names."""
    parameters = payload.parameters
    return None if parameters is None else sequence_of(parameters.model_dump())


def _arrays(payload: InferenceRequest, limits: Limits) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for tensor in payload.inputs:
        if tensor.name in arrays:
            raise InvalidRequest(f"input {show(tensor.name)} is given twice")
        arrays[tensor.name] = array_of(tensor.name, _datatype(tensor), tensor.shape, _data(tensor), limits)
    return arrays


def _metadata(port: Port) -> MetadataTensor:
    return MetadataTensor(**port.metadata())


def _datatype(tensor: Any) -> str:
    return str(getattr(tensor.datatype, "value", tensor.datatype))


def _data(tensor: Any) -> Any:
    data = getattr(tensor.data, "root", tensor.data)
    if _datatype(tensor) == "BYTES" or isinstance(data, (bytes, bytearray)):
        return data
    # MLServer batches tensors of raw bytes as a list of them
    if isinstance(data, list) and data and isinstance(data[0], (bytes, bytearray)):
        return b"".join(data)
    return data


def _outputs(arrays: dict[str, np.ndarray]) -> list[ResponseOutput]:
    return [
        ResponseOutput(
            name=name, datatype=datatype_of(array.dtype), shape=list(array.shape), data=to_list(array)
        )
        for name, array in arrays.items()
    ]
