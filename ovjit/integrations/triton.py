"""A recipe for Triton Inference Server's Python backend: a model repository that runs models by ovjit.

    python -m ovjit.integrations.triton model.xml repository --name digits

writes `repository/digits/config.pbtxt` with the model's inputs and outputs, `1/model.py`, and copies the
model beside it. Triton's Python environment needs ovjit. Requests that come together run at once;
instance groups and dynamic batching need not be set.

A model with state needs `--state sessions` or `--state request`. Sessions are named by Triton's correlation
ids and its flags for the begin and the end of a sequence. They belong to one instance of the model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovjit.errors import OvjitError
from ovjit.integrations.limits import Overloaded
from ovjit.integrations.protocol import Port
from ovjit.integrations.served import ServedModel, find_model
from ovjit.integrations.sessions import BY_REQUEST, BY_SESSION, sequence_of

STATES = (BY_SESSION, BY_REQUEST)

#: The text of a version's `model.py`.
MODEL_PY = "from ovjit.integrations.triton import TritonPythonModel  # noqa: F401\n"


class TritonPythonModel:
    """The class that Triton's Python backend creates from `model.py`. In `config.pbtxt`, parameters may have
    `config` (JSON of properties for compiling), `jobs` (requests that run at once), and for models with state
    `state`, `sessions` and `session_seconds` (see `ServedModel`)."""

    _served: ServedModel

    def initialize(self, args: dict[str, str]) -> None:
        """Read and compile the model of the folder `args["model_version"]`."""
        entries = json.loads(args.get("model_config") or "{}").get("parameters", {})
        parameters = {name: value["string_value"] for name, value in entries.items()}
        self._served = ServedModel(
            args["model_repository"], json.loads(parameters.get("config", "{}")),
            int(parameters.get("jobs", 0)), version=args["model_version"], state=parameters.get("state"),
            sessions=int(parameters.get("sessions", 64)),
            session_seconds=float(parameters.get("session_seconds", 600)),
        )  # fmt: skip

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Responses to all requests, in their order. All run at the same time."""
        import triton_python_backend_utils as triton

        arguments = [
            (
                {t.name(): t.as_numpy() for t in request.inputs()},
                list(request.requested_output_names()),
                None if self._served.state is None else _parameters(request, triton),
            )
            for request in requests
        ]
        responses = []
        for answer in answers(self._served, arguments):
            if isinstance(answer, OvjitError):
                responses.append(triton.InferenceResponse([], triton.TritonError(str(answer))))
            else:
                tensors = [triton.Tensor(name, array) for name, array in answer.items()]
                responses.append(triton.InferenceResponse(tensors))
        return responses

    def finalize(self) -> None:
        """Finish pending requests, and close the model."""
        self._served.close()


def _parameters(request: Any, triton: Any) -> dict[str, Any]:
    """The session of Triton's request, in the form of the protocol's parameters."""
    flags = request.flags()
    return {
        "sequence_id": request.correlation_id(),
        "sequence_start": bool(flags & triton.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START),
        "sequence_end": bool(flags & triton.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END),
    }


def answers(
    served: ServedModel, requests: Sequence[tuple[Any, ...]]
) -> list[dict[str, np.ndarray] | OvjitError]:
    """For each request (inputs by name, names of outputs, and perhaps the parameters that name its session):
    its outputs or its error. Scalars are of shape [1] on both sides."""
    started: list[Any] = []
    scalars = frozenset().union(*(port.names for port in served.inputs if port.bounds == ()))
    for arrays, names, *parameters in requests:
        inputs = {k: v.reshape(()) if k in scalars and v.shape == (1,) else v for k, v in arrays.items()}
        try:
            started.append(served.submit(inputs, names, sequence_of(*parameters) if parameters else None))
        except (OvjitError, MemoryError) as error:
            started.append(_error(error))
    out: list[dict[str, np.ndarray] | OvjitError] = []
    for one in started:
        try:
            if not isinstance(one, OvjitError):
                one = {name: np.atleast_1d(array) for name, array in one.result().outputs.items()}
            out.append(one)
        except (OvjitError, MemoryError) as error:
            out.append(_error(error))
    return out


def _error(error: Exception) -> OvjitError:
    if isinstance(error, OvjitError):
        return error
    return Overloaded(f"not enough memory for this request: retry later: {error}")


def config_text(name: str, inputs: Sequence[Port], outputs: Sequence[Port], state: str | None = None) -> str:
    """The text of `config.pbtxt`. `state`: of a model with state, see `ServedModel`."""

    def ports(ports_of_side: Sequence[Port]) -> str:
        return ",\n".join(
            f"  {{ name: {json.dumps(port.name)} data_type: {_type(port)} dims: {_dims(port)} }}"
            for port in ports_of_side
        )

    return (
        f'name: {json.dumps(name)}\nbackend: "python"\nmax_batch_size: 0\n'
        f"input [\n{ports(inputs)}\n]\noutput [\n{ports(outputs)}\n]\n"
        + ("" if state is None else _ONE_INSTANCE + _parameter("state", state))
    )


#: Sessions belong to an instance, and Triton sends a sequence's requests to any of them.
_ONE_INSTANCE = "instance_group [ { count: 1 kind: KIND_CPU } ]\n"


def _dims(port: Port) -> list[int]:
    """The dimensions of a port. Triton has no tensors without dimensions (its `reshape` makes one of a batch
    only), and none with a dimension of 0: scalars are [1], and 0 is open."""
    return [d or -1 for d in port.shape] or [1]


def _parameter(name: str, value: str) -> str:
    return f"parameters {{ key: {json.dumps(name)} value: {{ string_value: {json.dumps(value)} }} }}\n"


def _type(port: Port) -> str:
    return "TYPE_STRING" if port.datatype == "BYTES" else f"TYPE_{port.datatype}"


def write_repository(
    model: Path, repository: Path, name: str, version: str = "1", state: str | None = None
) -> Path:
    """Write and return the folder of a model. `state`: of a model with state, see `ServedModel`. Raises
    OvjitError if the model cannot be served."""
    model = find_model(model)
    served = ServedModel(model, state=state)
    try:
        folder = repository / name
        target = folder / version
        target.mkdir(parents=True, exist_ok=True)
        (folder / "config.pbtxt").write_text(config_text(name, served.inputs, served.outputs, served.state))
        (target / "model.py").write_text(MODEL_PY)
        shutil.copy(model, target / f"model{model.suffix.lower()}")
        weights = model.with_suffix(".bin")
        if model.suffix.lower() == ".xml" and weights.exists():
            shutil.copy(weights, target / "model.bin")
    finally:
        served.close()
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ovjit.integrations.triton", description="A model's folder in a Triton repository."
    )
    parser.add_argument("model", type=Path, help="an IR, ONNX or blob file, or a folder with one")
    parser.add_argument("repository", type=Path)
    parser.add_argument("--name", help="default: the file's")
    parser.add_argument("--version", default="1")
    parser.add_argument("--state", choices=STATES, help="whose the values of a model's variables are")
    options = parser.parse_args(argv)
    try:
        name = options.name or find_model(options.model).stem
        print(write_repository(options.model, options.repository, name, options.version, options.state))
    except (RuntimeError, OSError) as error:
        print(f"ovjit: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
