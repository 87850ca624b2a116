"""MLServer, Ray Serve and gevent themselves, each in an environment of its own: workers killed in requests,
more connections than sensible, requests of strangers over HTTP, and green threads."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ovjit.data import DIGITS_XML, digits
from tests.support import ROOT
from tests.support.environments import install, new_environment
from tests.support.run import command

pytestmark = [pytest.mark.pypi, pytest.mark.timeout(1500)]
_, IMAGES, LABELS = digits()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The Python of an environment with these packages; one for each test, as they exclude each other."""

    def make(*packages: str) -> Path:
        given = os.environ.get("OVJIT_TEST_ENVIRONMENT")  # one that is there, to save the installation
        if given:
            return Path(given)
        python = new_environment(tmp_path_factory.mktemp("servers") / "env")
        install(python, *packages)
        return python

    return make


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


def body_of(i: int) -> bytes:
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": IMAGES[i].ravel().tolist()}
    return json.dumps({"id": str(i), "inputs": [tensor]}).encode()


def ask(port: int, path: str, body: bytes | None = None, seconds: float = 60) -> tuple[int, bytes]:
    """Status and body of an answer; 0 where the connection broke."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (ConnectionError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def wait_until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.2)


def children(pid: int) -> list[int]:
    return [
        int(x)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for x in (task / "children").read_text().split()
    ]


def is_right(port: int, path: str, i: int) -> bool:
    status, body = ask(port, path, body_of(i))
    return status == 200 and np.argmax(json.loads(body)["outputs"][0]["data"]) == LABELS[i]


def while_killed(port: int, path: str, kill) -> list[int]:
    """Eight clients ask all the time, a worker is killed among their requests, and they go on until answers
    come again. Every answer is the right one of its own request or an error. Returns the errors' statuses."""
    wrong: list[object] = []
    errors: list[int] = []
    stop = threading.Event()
    answered = [0]

    def client(first: int) -> None:
        i = first
        while not stop.is_set():
            i = (i + 8) % 300
            try:
                status, body = ask(port, path, body_of(i))
            except TimeoutError:
                wrong.append(("no answer", i))
                return
            if status != 200:
                errors.append(status)
                time.sleep(0.05)
                continue
            found = json.loads(body)
            answered[0] += 1
            if found["id"] != str(i) or np.argmax(found["outputs"][0]["data"]) != EXPECTED[i]:
                wrong.append((i, found))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, n) for n in range(8)]
        try:
            for _ in range(2):
                before = answered[0]
                wait_until(lambda before=before: answered[0] > before + 100)
                kill()
            before = answered[0]
            wait_until(lambda: answered[0] > before + 300)
        finally:
            stop.set()
        for done in clients:
            done.result()
    assert not wrong, wrong[:3]
    return errors


EXPECTED: list[int] = []


@pytest.fixture(autouse=True)
def expected() -> None:
    import ovjit as ov

    if not EXPECTED:
        EXPECTED[:] = ov.compile_model(DIGITS_XML, "CPU")(IMAGES[:300])[0].argmax(1).tolist()


@contextlib.contextmanager
def mlserver(python: Path, folder: Path, **settings: object):
    """MLServer with the digits: its process, its port."""
    port = free_port()
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    (folder / "digits").mkdir()
    for file in (DIGITS_XML, DIGITS_XML.with_suffix(".bin")):
        shutil.copy(file, folder / "digits")
    (folder / "settings.json").write_text(
        json.dumps({"host": "127.0.0.1", "debug": False, **ports, **settings})
    )
    (folder / "digits" / "model-settings.json").write_text(json.dumps({
        "name": "digits", "implementation": "ovjit.integrations.mlserver.OvjitRuntime",
        "parameters": {"uri": "./", "extra": {"jobs": 2, "limits": {"body_bytes": 1_000_000}}},
    }))  # fmt: skip
    words = [str(python), "-c", "from mlserver.cli import main; main()", "start", "."]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            words, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
        )

    def ready() -> bool:
        assert server.poll() is None, (folder / "log").read_text()[-3000:]
        with contextlib.suppress(OSError):
            return ask(port, "/v2/models/digits/ready", seconds=5)[0] == 200
        return False

    try:
        wait_until(ready)
        yield server, port
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def test_mlserver_whose_workers_are_killed(environment, tmp_path) -> None:
    """With workers, which are processes, one is killed among requests, twice: others answer meanwhile, and
    MLServer starts another one, which finds what is compiled in the cache."""
    python = environment(
        "mlserver>=1.7", "uvloop<0.22"
    )  # with a newer one MLServer 1.7's workers do not start
    with mlserver(python, tmp_path, parallel_workers=2) as (server, port):
        path = "/v2/models/digits/infer"

        def kill() -> None:
            workers = [
                pid
                for pid in children(server.pid)
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
            os.kill(workers[0], signal.SIGKILL)

        errors = while_killed(port, path, kill)
        assert server.poll() is None
        # MLServer's 404: the new worker has not loaded the model yet
        assert set(errors) <= {0, 404, 500, 503}, set(errors)


def test_mlserver_and_strangers(environment, tmp_path) -> None:
    """Malformed and too large requests to /binary, half requests, and 1,000 connections, of one server."""
    python = environment("mlserver>=1.7")
    with mlserver(python, tmp_path, parallel_workers=0) as (server, port):
        path = "/binary/v2/models/digits/infer"
        nines = b"[" + b",".join([b"9" * 4000] * 200) + b"]"
        for shape, data in ((json.dumps([1] * 65).encode(), b"[1]"), (nines, b"[]"), (b"[1]", b"[NaN]")):
            tensor = b'{"inputs": [{"name": "images", "datatype": "FP32", "shape": %s, "data": %s}]}'
            status, body = ask(port, path, tensor % (shape, data))
            assert status == 400 and 0 < len(json.loads(body)["error"]) < 1000, body[:2000]
        assert ask(port, path, b" " * 2_000_000)[0] in (413, 0)
        held = []
        for i in range(1000):  # more than would be served at once: they have sent half of a request
            one = socket.create_connection(("127.0.0.1", port))
            half = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{{"
            one.sendall(half.encode()[: (None, 30, 0)[i % 3]])
            held.append(one)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda i: is_right(port, path, i), range(40)))
            assert all(pool.map(lambda i: is_right(port, path.removeprefix("/binary"), i), range(40)))
        for one in held:
            one.close()
        assert is_right(port, path, 3) and server.poll() is None


SERVE = """
import sys, time
import ray
from ray import serve
from ovjit.data import DIGITS_XML
from ovjit.integrations.ray import ModelDeployment
found = {"env_vars": {"PYTHONPATH": sys.argv[2]}}
ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", runtime_env=found)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
class Served(ModelDeployment):
    async def __call__(self, request):
        if request.url.path.endswith("/pid"):
            import os
            return os.getpid()
        return await super().__call__(request)
made = serve.deployment(Served, num_replicas=2, ray_actor_options={"num_cpus": 0.5}, health_check_period_s=1)
serve.run(made.bind(str(DIGITS_XML), "digits", limits={"body_bytes": 1_000_000}))
print("ready", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""


#: On a busy machine Ray would replace its own proxy while that starts, and it answers 404 meanwhile.
PATIENT = dict.fromkeys(
    ("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S"), "120"
)


def test_ray_whose_replicas_are_killed(environment, tmp_path) -> None:
    """A replica is killed among requests, twice: Ray starts another one, and no answer is another's."""
    python = environment("ray[serve]>=2.40")
    port, path = free_port(), "/v2/models/digits/infer"
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            [str(python), "-c", SERVE, str(port), str(ROOT)], cwd=tmp_path, stdin=subprocess.PIPE,
            stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT), **PATIENT},
        )  # fmt: skip
    try:

        def ready() -> bool:
            assert server.poll() is None, (tmp_path / "log").read_text()[-3000:]
            return "ready" in (tmp_path / "log").read_text()

        wait_until(ready, 240)

        def kill() -> None:
            os.kill(int(ask(port, "/pid")[1]), signal.SIGKILL)

        errors = while_killed(port, path, kill)
        assert set(errors) <= {0, 500, 503}, set(errors)
        status, body = ask(port, path, body_of(1).replace(b"[1, 1, 8, 8]", json.dumps([1] * 65).encode()))
        assert status == 400 and b"65 dimensions" in body
        assert ask(port, path, b" " * 2_000_000)[0] == 413
    finally:
        server.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(60)
        server.kill()


GREEN = """
import sys
from gevent import monkey
if sys.argv[1] == "late":
    import ovjit
monkey.patch_all()
import gevent, threading
import ovjit as ov
from ovjit.data import DIGITS_XML, digits
from ovjit.integrations.served import ServedModel
_, images, labels = digits()
compiled = ov.compile_model(DIGITS_XML, "CPU")
right = (compiled(images)[0].argmax(1) == labels).sum()
def one(i):
    return compiled(images[i : i + 1])[0].argmax() == labels[i]
assert (compiled(images)[0].argmax(1) == labels).mean() > 0.99
found = [gevent.spawn(one, i) for i in range(100)]
gevent.joinall(found, raise_error=True, timeout=100)
print(sum(bool(one.value) for one in found))
pool = gevent.get_hub().threadpool
print(sum(bool(one.get()) for one in [pool.spawn(one, i) for i in range(100)]))
queue, got = ov.AsyncInferQueue(compiled, 3), {}
queue.set_callback(lambda done, i: got.__setitem__(i, done.get_output_tensor(0).data.argmax()))
for i in range(100):
    queue.start_async([images[i : i + 1]], i)
queue.wait_all()
print(sum(bool(got[i] == labels[i]) for i in range(100)))
served = ServedModel(DIGITS_XML, jobs=2)
waiting = [served.submit({"images": images[i : i + 1]}) for i in range(100)]
answers = [one.result(60).outputs["probabilities"] for one in waiting]
print(sum(bool(answer.argmax() == labels[i]) for i, answer in enumerate(answers)))
served.close()
"""


@pytest.mark.parametrize("order", ["early", "late"])
def test_gevent(environment, order) -> None:
    """ovjit imported before and after `monkey.patch_all()`."""
    done = command(environment("gevent"), "-X", "faulthandler", "-c", GREEN, order, seconds=200)
    assert done.returncode == 0 and done.stdout.split() == 4 * ["100"], done.stdout + done.stderr[-3000:]
