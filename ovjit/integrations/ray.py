"""Ray: a deployment for Ray Serve, and compiled models that are sent to each worker of a cluster once.

`ModelDeployment` implements the REST API of the Open Inference Protocol (GET: metadata and readiness, POST:
inference). Other deployments call it with arrays. `ship(compiled)` puts a compiled model into Ray's object
store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray

from ovjit.integrations import shipping
from ovjit.integrations.limits import Limits
from ovjit.integrations.rest import RestModel
from ovjit.integrations.served import ServedModel
from ovjit.integrations.sessions import sequence_of


class ModelDeployment:
    """A model for `ray.serve`: `serve.deployment(ModelDeployment).bind("model.xml", name="digits")`.

    `model`: a file or folder (IR, ONNX or blob); `config`, `jobs`, `state`, `sessions` and `session_seconds`
    as of `ServedModel`; `limits` of requests: fields of `Limits` by name.

    Sessions belong to a replica. A request that reaches another one gets the error that its session has not
    begun, so a model with sessions needs one replica, or a proxy that sends a session to one replica.
    """

    def __init__(
        self,
        model: str,
        name: str = "model",
        version: str | None = None,
        config: Mapping[str, Any] | None = None,
        jobs: int = 0,
        limits: Mapping[str, int] | None = None,
        state: str | None = None,
        sessions: int = 64,
        session_seconds: float = 600.0,
    ):
        bounds = Limits.from_settings(limits)
        self._served = ServedModel(
            model, config, jobs, version=version, state=state, sessions=sessions,
            session_seconds=session_seconds,
        )  # fmt: skip
        self._rest_model = RestModel(self._served, name, version, limits=bounds)

    async def infer(
        self,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, np.ndarray]:
        """Outputs by name, for handles: `await handle.infer.remote({"images": x})`. `parameters`: those of
        the protocol that name a session. Raises InvalidRequest if the inputs do not fit the model."""
        return (await self._served.infer(inputs, outputs, sequence_of(parameters))).outputs

    async def __call__(self, request: Any) -> Any:
        """Answer an HTTP request of Starlette."""
        from starlette.responses import Response

        status, content, headers = await self._rest_model.reply_to(request)
        return Response(content, status, headers)


class _Stored:
    """A blob in the object store: all processes of a machine share its memory."""

    def __init__(self, blob: bytes):
        self.reference = ray.put(np.frombuffer(blob, np.uint8))

    def __call__(self) -> memoryview:
        return memoryview(ray.get(self.reference))


def ship(compiled: Any) -> shipping.Shipped:
    """A compiled model as an argument of tasks and actors, which call it: `model()(inputs)`. Each worker
    loads it once. Its weights stay in the object store, which all workers of a machine share."""
    return shipping.Shipped.of(compiled, _Stored)
