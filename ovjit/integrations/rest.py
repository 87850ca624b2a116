"""The REST API of the Open Inference Protocol for one model, independent of a server.

A request's method, path, body and headers give a status, a body and headers; or the JSON of a response.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from ovjit.errors import OvjitError
from ovjit.integrations.limits import DEFAULT, InvalidRequest, Limits, Overloaded, TooLarge
from ovjit.integrations.off_loop import off_loop
from ovjit.integrations.protocol import Request, read_body, response, response_body
from ovjit.integrations.served import Answer, ServedModel
from ovjit.records import NamedTuple
from ovjit.version import __version__

#: The header with the length of the JSON, if raw tensors follow it: the protocol's binary extension.
HEADER_LENGTH = "Inference-Header-Content-Length"

#: Maximum bytes of raw tensors that the event loop copies itself. For these, a thread would take longer.
_COPIED = 1 << 20


class Reply(NamedTuple):
    """A response: status, body and headers."""

    status: int
    body: bytes
    headers: dict[str, str]


class RestModel:
    """The API of `served` under a name and a version (None: no version), at the address /v2/models/<name>.
    `observe` is called with each answer of the model. `limits`: those of requests."""

    def __init__(
        self,
        served: ServedModel,
        name: str,
        version: str | None = None,
        observe: Callable[[Answer], object] | None = None,
        limits: Limits = DEFAULT,
    ):
        self.served, self.name, self.version, self._observe = served, name, version, observe
        self.limits = limits
        self._inside = 0  # requests that are being read, waiting or running

    async def answer(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """Status and JSON. 400 for a request that does not fit the model, 404 for an unknown path, 413 for
        too many bytes, 503 if memory, threads or room in the line are missing. `path` may have a prefix
        before /v2."""
        answer = self._look_up(method, path)
        if answer is not None:
            return answer
        try:
            request, outputs = await self._infer(body, None)
            return 200, await off_loop(response, self.name, self.version, request.identity, outputs)
        except (OvjitError, MemoryError) as error:
            return self._wrong(error)

    async def reply(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """As `answer`, but ready to be sent. Tensors follow the JSON as raw bytes if the request asks for
        that. `headers`: the request's, with names in any case."""
        answer = self._look_up(method, path)
        if answer is None:
            try:
                return await self._infer_bytes(body, headers or {})
            except (OvjitError, MemoryError) as error:
                answer = self._wrong(error)
        again = {"Retry-After": "1"} if answer[0] == Overloaded.status else {}
        return Reply(answer[0], json.dumps(answer[1]).encode(), {"Content-Type": "application/json", **again})

    async def reply_to(self, request: Any) -> Reply:
        """The reply to a request of Starlette. Its body is read only up to the limit."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.limits.body_bytes:
                answer = self._wrong(TooLarge(f"the request has more than {self.limits.body_bytes} bytes"))
                return Reply(answer[0], json.dumps(answer[1]).encode(), {"Content-Type": "application/json"})
        return await self.reply(request.method, request.url.path, bytes(body), request.headers)

    async def _infer_bytes(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        header_length = next((v for k, v in headers.items() if k.lower() == HEADER_LENGTH.lower()), None)
        request, outputs = await self._infer(body, header_length)
        args = (self.name, self.version, request, outputs)
        if all(request.is_raw(name) and array.nbytes <= _COPIED for name, array in outputs.items()):
            content, length = response_body(*args)
        else:  # converting numbers to text takes long
            content, length = await off_loop(response_body, *args)
        if length is None:
            return Reply(200, content, {"Content-Type": "application/json"})
        return Reply(200, content, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(length)})

    async def _infer(self, body: bytes, header_length: str | None) -> tuple[Request, dict[str, Any]]:
        if self._inside >= self.limits.requests:
            raise Overloaded(f"{self._inside} requests are waiting, the maximum of this server: retry later")
        self._inside += 1
        try:
            if len(body) <= self.limits.inline_bytes:
                request = read_body(body, header_length, self.limits)
                answer = await self.served.infer(request.arrays, request.output_names, request.session)
            else:
                request, future = await off_loop(self._read_and_start, body, header_length)
                answer = await asyncio.wrap_future(future)
        finally:
            self._inside -= 1
        if self._observe is not None:
            self._observe(answer)
        return request, answer.outputs

    def _read_and_start(self, body: bytes, header_length: str | None) -> tuple[Request, Future[Answer]]:
        request = read_body(body, header_length, self.limits)
        return request, self.served.submit(request.arrays, request.output_names, request.session)

    def _wrong(self, error: Exception) -> tuple[int, dict[str, Any]]:
        if isinstance(error, MemoryError):
            error = Overloaded(f"not enough memory for this request: retry later: {error}")
        status = getattr(error, "status", InvalidRequest.status)
        return status, {"error": f"model {self.name!r}: {error}"}

    def _look_up(self, method: str, path: str) -> tuple[int, dict[str, Any]] | None:
        """The answer if it needs no inference, else None."""
        parts = [p for p in path.split("/") if p]
        if "v2" not in parts:
            return 404, {"error": f"{path!r} does not exist; the model is at /v2/models/{self.name}"}
        parts = parts[parts.index("v2") + 1 :]
        if method == "GET" and parts in (["health", "live"], ["health", "ready"]):
            return 200, {}
        if method == "GET" and not parts:
            return 200, {"name": "ovjit", "version": __version__, "extensions": ["binary_tensor_data"]}
        if parts[:2] != ["models", self.name]:
            return 404, {"error": f"{path!r} does not exist; the model is at /v2/models/{self.name}"}
        remaining = parts[2:]
        if len(remaining) >= 2 and remaining[0] == "versions":
            if remaining[1] != self.version:
                return 404, {"error": f"model {self.name!r} has no version {remaining[1]!r}"}
            remaining = remaining[2:]
        if method == "GET" and not remaining:
            return 200, self.metadata()
        if method == "GET" and remaining == ["ready"]:
            return 200, {"name": self.name, "ready": True}
        if method != "POST" or remaining != ["infer"]:
            return 404, {"error": f"{path!r} does not support the method {method}"}
        return None

    def metadata(self) -> dict[str, Any]:
        """The model's metadata."""
        return {
            "name": self.name, "versions": [self.version] if self.version else [], "platform": "ovjit",
            "inputs": [port.metadata() for port in self.served.inputs],
            "outputs": [port.metadata() for port in self.served.outputs],
        }  # fmt: skip
