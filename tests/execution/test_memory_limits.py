"""The memory that control groups leave, read from file systems made for the purpose; and what is about to
take more of it raises MemoryError, where the system would end the process."""

from __future__ import annotations

import asyncio
import gc
import json

import numpy as np
import pytest

import ovjit as ov
from ovjit import control_groups
from ovjit.control_groups import memory_left
from ovjit.execution import blocks
from ovjit.execution.blocks import Arena, release_arenas
from ovjit.integrations.rest import RestModel
from ovjit.integrations.served import ServedModel
from tests.support.sweeps import some

MB = 1 << 20
V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"
POD = {"proc/self/cgroup": "4:memory:/kube/pod\n0::/kube/pod\n"}


def tree(root, files: dict[str, object]):
    """A file system with these files."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{text}\n")
    return root


CASES = {
    "nothing": ({}, None),
    "no limit": ({f"{V2}/memory.max": "max", f"{V2}/memory.current": MB}, None),
    "version 2": ({f"{V2}/memory.max": 64 * MB, f"{V2}/memory.current": 24 * MB}, 40 * MB),
    "over the limit": ({f"{V2}/memory.max": 64 * MB, f"{V2}/memory.current": 65 * MB}, 0),
    "files are let go": (
        {f"{V2}/memory.max": 64 * MB, f"{V2}/memory.current": 60 * MB,
         f"{V2}/memory.stat": f"anon {MB}\ninactive_file {20 * MB}\nactive_file {10 * MB}"}, 34 * MB,
    ),
    "swap": (
        {f"{V2}/memory.max": 64 * MB, f"{V2}/memory.current": 60 * MB, "proc/meminfo": "SwapFree: 2048 kB",
         f"{V2}/memory.swap.max": "max"}, 6 * MB,
    ),
    "no swap for this group": (
        {f"{V2}/memory.max": 64 * MB, f"{V2}/memory.current": 60 * MB, "proc/meminfo": "SwapFree: 2048 kB",
         f"{V2}/memory.swap.max": 0}, 4 * MB,
    ),
    "nested": (
        {**POD, f"{V2}/kube/memory.max": 50 * MB, f"{V2}/kube/memory.current": 45 * MB,
         f"{V2}/kube/pod/memory.max": 30 * MB, f"{V2}/kube/pod/memory.current": 10 * MB}, 5 * MB,
    ),
    "version 1": (
        {**POD, f"{V1}/memory.limit_in_bytes": (1 << 63) - 4096, f"{V1}/memory.usage_in_bytes": MB,
         f"{V1}/kube/pod/memory.limit_in_bytes": 30 * MB, f"{V1}/kube/pod/memory.usage_in_bytes": 20 * MB,
         f"{V1}/kube/pod/memory.stat": f"inactive_file 1\ntotal_inactive_file {3 * MB}"}, 13 * MB,
    ),
    "another's group": ({**POD, f"{V2}/other/memory.max": 1, f"{V2}/other/memory.current": 1}, None),
    "nonsense": ({f"{V2}/memory.max": "many", f"{V2}/memory.current": "\0"}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_left(case, tmp_path) -> None:
    files, left = CASES[case]
    assert memory_left(str(tree(tmp_path, files))) == left


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A control group whose use of memory is what it is set to."""

    def use(used: int, limit: int = 1024 * MB) -> None:
        tree(tmp_path, {f"{V2}/memory.max": limit, f"{V2}/memory.current": used})

    monkeypatch.setattr(control_groups, "ROOT", str(tmp_path))
    gc.collect()  # results of earlier tests give their blocks back, which would do
    release_arenas()
    return use


def test_an_arena_stays_below_the_limit(group) -> None:
    group(1000 * MB)
    arena = Arena(8 * MB)
    with pytest.raises(MemoryError, match="control group leaves 25165824"):
        arena.reserve(64 * MB)
    assert arena.size == 8 * MB and arena.address  # it is what it was
    group(900 * MB)
    arena.reserve(64 * MB)
    group(1000 * MB)
    arena.reserve(70 * MB)  # by little, which is not looked at
    assert arena.size >= 70 * MB


def test_free_blocks_are_given_back_first(group, monkeypatch) -> None:
    blocks.give(Arena(32 * MB))
    looked: list[int] = []

    def left() -> int:
        looked.append(len(blocks.free_blocks))
        return 100 * MB if not blocks.free_blocks else 20 * MB

    monkeypatch.setattr(blocks, "memory_left", left)
    assert Arena(64 * MB).size == 64 * MB
    assert looked == [1, 0]


@pytest.mark.parametrize("how", some(["call", "async", "queue"], 2))
def test_an_inference_that_is_too_large(group, how) -> None:
    """It raises MemoryError, and the next one is answered."""
    x = ov.opset13.parameter([-1], np.float32, name="x")
    tall = ov.opset13.unsqueeze(x, np.int64(1))
    model = ov.Model(ov.opset13.relu(ov.opset13.matmul(tall, tall, False, True)), [x])
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def run(data: np.ndarray) -> np.ndarray:
        if how == "call":
            return compiled(data)[0]
        if how == "async":
            request.start_async([data])
            request.wait()
            return request.get_output_tensor(0).data
        queue, found = ov.AsyncInferQueue(compiled, 1), []
        queue.set_callback(lambda done, _: found.append(done.get_output_tensor(0).data.copy()))
        queue.start_async([data])
        queue.wait_all()
        return found[0]

    group(1000 * MB)
    large = np.ones(4096, np.float32)  # 64 MiB of answers
    for _ in range(2):
        with pytest.raises(MemoryError, match="control group leaves"):
            run(large)
        assert run(np.float32([1, 2])).tolist() == [[1, 2], [2, 4]]
    group(100 * MB)
    assert run(large).sum() == 4096**2


def test_a_server_s_client_is_told(group, tmp_path) -> None:
    """503 for those whose inference is too large; those beside them have their answers."""
    x = ov.opset13.parameter([-1], np.float32, name="x")
    x.output(0).set_names({"x"})
    tall = ov.opset13.unsqueeze(x, np.int64(1))
    model = ov.Model(ov.opset13.relu(ov.opset13.matmul(tall, tall, False, True)), [x])
    ov.save_model(model, tmp_path / "m.xml")

    def body(count: int) -> bytes:
        tensor = {"name": "x", "datatype": "FP32", "shape": [count], "data": [1.0] * count}
        return json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()

    async def ask() -> list[int]:
        asked = (rest.reply("POST", "/v2/models/m/infer", body(2 if i % 3 else 4096)) for i in range(12))
        return [reply.status for reply in await asyncio.gather(*asked)]

    served = ServedModel(tmp_path / "m.xml", jobs=2)
    rest = RestModel(served, "m")
    group(1000 * MB)
    assert asyncio.run(ask()) == [503, 200, 200] * 4
    group(100 * MB)
    assert asyncio.run(ask()) == [200] * 12
    served.close()
