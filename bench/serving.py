"""A load test of MLServer with ovjit and with OpenVINO in it: throughput, latency, and whether answers are
right.

    python -m bench.serving --requests 20000 --model digits --clients 1 4 16
    python -m bench.serving --requests 400 --model tower --clients 1 2 4 8 16 --json serving.json

Needs ovjit[mlserver], tritonclient[all] and openvino. One server on the loopback interface has the model once
for each engine. Clients are threads of a separate process, each with its own connection. Every request has an
id and one of 64 inputs with different answers, and every answer is checked. The reference is the queue alone:
an AsyncInferQueue over the same inputs, in a process with nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
INPUTS, SEED = 64, 20261120
CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
RUNTIMES = {
    "ovjit": "ovjit.integrations.mlserver.OvjitRuntime",
    "openvino": "bench.serving_openvino.OpenVINORuntime",
}
#: REST with JSON, REST with raw tensors, gRPC.
PROTOCOLS = ("rest", "binary", "grpc")
#: Largest difference of an answer from what is expected; two inputs' answers differ by more than 10 times
#: that.
LIMIT = 1e-3


def make_model(name: str, folder: Path, layers: int) -> Path:
    """`digits`, the embedded model: small, so that the server is what takes time. `tower`: so many
    convolutions over a small input; twelve are tens of milliseconds of one core."""
    import ovjit as ov
    from ovjit import opset13 as op

    if name == "digits":
        from ovjit.data import DIGITS_XML

        return DIGITS_XML
    rng = np.random.default_rng(SEED)
    x = op.parameter([1, 3, 16, 16], np.float32, name="image")
    x.output(0).set_names({"image"})
    y: Any = x
    for i in range(layers):
        filters = rng.standard_normal((256, 3 if i == 0 else 256, 3, 3), np.float32)
        filters *= np.float32(np.sqrt(2 / filters[0].size))
        y = op.relu(op.convolution(y, op.constant(filters), [1, 1], [1, 1], [1, 1], [1, 1]))
    y = op.reduce_mean(y, [2, 3], False)
    y = op.matmul(y, op.constant(rng.standard_normal((256, 16), np.float32)), False, False)
    y.output(0).set_names({"scores"})
    ov.save_model(ov.Model(y, [x]), folder / "tower.xml", compress_to_fp16=False)
    return folder / "tower.xml"


def inputs_for(path: Path) -> tuple[str, np.ndarray, np.ndarray]:
    """The input's name, 64 inputs of batch 1, and their answers by one synchronous request."""
    import ovjit as ov

    model = ov.Core().read_model(path)
    port = model.input(0)
    dims = [1, *(d.get_length() for d in list(port.get_partial_shape())[1:])]
    if path.stem == "digits":
        from ovjit.data import digits

        x = digits()[1][:INPUTS, None]
    else:
        x = np.random.default_rng(SEED).standard_normal((INPUTS, *dims), np.float32)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    compiled = ov.compile_model(model, "CPU", exact)
    y = np.stack([np.array(compiled(one)[0]) for one in x])
    return port.get_any_name(), x, y


def distinct(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inputs whose answers differ from those of all inputs kept before."""
    kept: list[int] = []
    for i in range(len(y)):
        if all(np.abs(y[i] - y[j]).max() > 10 * LIMIT for j in kept):
            kept.append(i)
    return x[kept], y[kept]


# --- processes of their own


def queue_alone(engine: str, path: str, seconds: float) -> None:
    """Print inferences in a second of the engine's AsyncInferQueue."""
    ov: Any = __import__(engine)
    name, x, _ = inputs_for(Path(path))
    compiled = ov.Core().compile_model(path, "CPU", CONFIG)
    queue = ov.AsyncInferQueue(compiled)
    done = []
    queue.set_callback(lambda request, i: done.append(np.array(request.get_output_tensor(0).data)))
    for part in (seconds / 4, seconds):
        done.clear()
        began = time.perf_counter()
        while time.perf_counter() - began < part:
            queue.start_async({name: x[len(done) % len(x)]}, 0)
        queue.wait_all()
        rate = len(done) / (time.perf_counter() - began)
    print(json.dumps(rate))


def load(protocol: str, address: str, model: str, path: str, clients: int, count: int) -> None:
    """Print what `clients` threads get for `count` requests: seconds, latencies, answers lost and wrong."""
    name, x, y = inputs_for(Path(path))
    x, y = distinct(x, y)
    latencies: list[float] = []
    faults: list[str] = []
    answered = 0
    lock = threading.Lock()
    ready, go = threading.Barrier(clients + 1), threading.Event()

    def client(number: int) -> None:
        nonlocal answered
        rng = np.random.default_rng(number)
        if protocol == "grpc":
            import tritonclient.grpc as triton
        else:
            import tritonclient.http as triton
        service = triton.InferenceServerClient(address)
        outputs = service.get_model_metadata(model)
        output = outputs["outputs"][0]["name"] if protocol != "grpc" else outputs.outputs[0].name

        def one(i: int, identity: str) -> Any:
            given = triton.InferInput(name, x[i].shape, "FP32")
            more = {} if protocol == "grpc" else {"binary_data": protocol == "binary"}
            given.set_data_from_numpy(x[i], **more)
            asked = triton.InferRequestedOutput(output, **more)
            return service.infer(model, [given], outputs=[asked], request_id=identity)

        for k in range(3):
            one(k, "warm")
        ready.wait()
        go.wait()
        for k in range(number, count, clients):
            i = int(rng.integers(len(x)))
            began = time.perf_counter()
            try:
                result = one(i, str(k))
                spent = time.perf_counter() - began
                found = result.as_numpy(output)
                said = result.get_response()
                identity = said["id"] if protocol != "grpc" else said.id
                wrong = identity != str(k) or found.shape != y[i].shape or np.abs(found - y[i]).max() > LIMIT
                with lock:
                    answered += 1
                    latencies.append(1e3 * spent)
                    if wrong:
                        faults.append(f"request {k}: the answer is not that of input {i}")
            except Exception as error:
                with lock:
                    faults.append(f"request {k}: {error}")
        service.close()

    threads = [threading.Thread(target=client, args=(i,), daemon=True) for i in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait(120)
    began, cpu = time.perf_counter(), time.process_time()
    go.set()
    for thread in threads:
        thread.join(3600)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    p50, p99 = np.percentile(latencies, (50, 99)) if latencies else (0.0, 0.0)
    print(json.dumps({
        "seconds": seconds, "per_second": answered / seconds, "p50_ms": float(p50), "p99_ms": float(p99),
        "lost": count - answered, "wrong": len(faults) - (count - answered), "faults": faults[:5],
        "inputs": len(x), "client_cpu_ms": 1e3 * cpu / count,
    }))  # fmt: skip


# --- the test


@contextlib.contextmanager
def server(path: Path, engines: Sequence[str]) -> Iterator[tuple[dict[str, str], int]]:
    """MLServer with the model for each engine; the addresses by protocol, and the process's number."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        rest, grpc, metrics = (one.getsockname()[1] for one in sockets)
        for one in sockets:
            one.close()
        folder = Path(place)
        settings = {
            "host": "127.0.0.1", "http_port": rest, "grpc_port": grpc, "metrics_port": metrics,
            "parallel_workers": 0, "debug": False,
        }  # fmt: skip
        (folder / "settings.json").write_text(json.dumps(settings))
        for engine in engines:
            (folder / engine).mkdir()
            (folder / engine / "model-settings.json").write_text(json.dumps({
                "name": engine, "implementation": RUNTIMES[engine],
                "parameters": {"uri": str(path), "extra": {"config": CONFIG}},
            }))  # fmt: skip
        code = "from mlserver.cli import main; main()"
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", code, "start", "."], cwd=folder, env=_environment(), stdout=log,
                stderr=log,
            )  # fmt: skip
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{rest}/v2/health/ready", timeout=5)
                    break
                if process.poll() is not None:
                    raise RuntimeError((folder / "log").read_text())
                time.sleep(0.2)
            addresses = {"rest": f"127.0.0.1:{rest}", "grpc": f"127.0.0.1:{grpc}"}
            yield {**addresses, "binary": f"127.0.0.1:{rest}/binary"}, process.pid
        finally:
            process.terminate()
            process.wait(60)


def loop_seconds(process: int) -> float:
    """CPU time of the thread that has the server's event loop, the first one; 0 where /proc does not tell."""
    try:
        told = Path(f"/proc/{process}/task/{process}/stat").read_text()
    except OSError:
        return 0.0
    user, system = told.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _alone(*arguments: Any) -> Any:
    """What this module prints as `arguments[0]` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.serving", *map(str, arguments)], env=_environment(), cwd=ROOT,
        capture_output=True, text=True, timeout=3600,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    if sys.argv[1:2] == ["queue"]:
        queue_alone(sys.argv[2], sys.argv[3], float(sys.argv[4]))
        return 0
    if sys.argv[1:2] == ["load"]:
        load(*sys.argv[2:6], *map(int, sys.argv[6:8]))  # type: ignore[arg-type]
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=("digits", "tower"), default="digits")
    parser.add_argument("--layers", type=int, default=12, help="of the tower")
    parser.add_argument("--requests", type=int, default=2000, help="of each measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--engines", nargs="+", choices=tuple(RUNTIMES), default=list(RUNTIMES))
    parser.add_argument("--seconds", type=float, default=4.0, help="of the queue alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        path = make_model(options.model, Path(place), options.layers)
        with server(path, options.engines) as (addresses, process):
            for protocol in options.protocols:
                for clients in options.clients:
                    for engine in options.engines:  # interleaved, each beside its queue
                        queue = _alone("queue", engine, path, options.seconds)
                        before = loop_seconds(process)
                        found = _alone(
                            "load", protocol, addresses[protocol], engine, path, clients, options.requests
                        )
                        loop_ms = 1e3 * (loop_seconds(process) - before) / options.requests
                        rows.append({
                            "model": options.model, "layers": options.layers, "engine": engine,
                            "protocol": protocol, "clients": clients, "requests": options.requests,
                            "queue_per_second": queue, "loop_cpu_ms": loop_ms,
                            **found,
                        })  # fmt: skip
                        print(
                            f"{engine:9s} {protocol:5s} {clients:3d} clients {found['per_second']:8.1f}/s "
                            f"= {found['per_second'] / queue:5.2f} of the queue's {queue:8.1f}/s   "
                            f"p50 {found['p50_ms']:7.2f} p99 {found['p99_ms']:7.2f} ms   "
                            f"CPU: loop {loop_ms:5.2f} client {found['client_cpu_ms']:5.2f} ms   "
                            f"{found['lost']} lost, {found['wrong']} wrong of {options.requests}",
                            *found["faults"], flush=True,
                        )  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return int(any(row["lost"] or row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
