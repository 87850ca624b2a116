"""The Open Inference Protocol's REST for one model, without a server: a request's method, path and body
become a status and the JSON of an answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ovjit.errors import OvjitError
from ovjit.integrations.protocol import InvalidRequest, read_request, response
from ovjit.integrations.served import ServedModel
from ovjit.version import __version__


class RestModel:
    """`served` under a name and a version (None: it has none). Its address is /v2/models/<name>."""

    def __init__(self, served: ServedModel, name: str, version: str | None = None):
        self.served, self.name, self.version = served, name, version

    async def answer(self, method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """Status and JSON. 400 for what does not fit the model, 404 for what is not here; `path` may have a
        prefix before /v2."""
        parts = [p for p in path.split("/") if p]
        if "v2" not in parts:
            return 404, {"error": f"there is nothing at {path!r}; the model is at /v2/models/{self.name}"}
        parts = parts[parts.index("v2") + 1 :]
        if method == "GET" and parts in (["health", "live"], ["health", "ready"]):
            return 200, {}
        if method == "GET" and not parts:
            return 200, {"name": "ovjit", "version": __version__, "extensions": []}
        if parts[:2] != ["models", self.name]:
            return 404, {"error": f"there is nothing at {path!r}; the model is at /v2/models/{self.name}"}
        rest = parts[2:]
        if len(rest) >= 2 and rest[0] == "versions":
            if rest[1] != self.version:
                return 404, {"error": f"model {self.name!r} has no version {rest[1]!r}"}
            rest = rest[2:]
        if method == "GET" and not rest:
            return 200, self.metadata()
        if method == "GET" and rest == ["ready"]:
            return 200, {"name": self.name, "ready": True}
        if method != "POST" or rest != ["infer"]:
            return 404, {"error": f"there is no {method} of {path!r}"}
        try:
            try:
                content = json.loads(body)
            except ValueError as error:
                raise InvalidRequest(f"the request is no JSON: {error}") from None
            arrays, wanted, identity = read_request(content)
            found = await self.served.infer(arrays, wanted)
            made = await asyncio.to_thread(response, self.name, self.version, identity, found.outputs)
            return 200, made
        except OvjitError as error:
            return 400, {"error": f"model {self.name!r}: {error}"}

    def metadata(self) -> dict[str, Any]:
        """The model's metadata."""
        return {
            "name": self.name, "versions": [self.version] if self.version else [], "platform": "ovjit",
            "inputs": [port.metadata() for port in self.served.inputs],
            "outputs": [port.metadata() for port in self.served.outputs],
        }  # fmt: skip
