"""Two replicas of a vLLM engine behind Ray Serve, one of which is killed. Run as a program by
`tests/integrations/test_vllm.py`, in an environment that has both: it says what it finds as a line of JSON.

    python vllm_replicas.py FOLDER PORT
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

REQUESTS, AT_ONCE = 120, 8


class Completions:
    """An engine of vLLM, which answers lists of tokens."""

    def __init__(self, model: str):
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self.engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(model, max_model_len=256, kv_cache_memory_bytes=16 << 20, max_num_seqs=16)
        )

    async def __call__(self, request: Any) -> dict[str, Any]:
        from vllm import SamplingParams

        body = await request.json()
        params = SamplingParams(temperature=0, max_tokens=body["max_tokens"], ignore_eos=True)
        prompt, found = {"prompt_token_ids": body["prompt"]}, None
        async for answer in self.engine.generate(prompt, params, uuid.uuid4().hex):
            found = answer
        assert found is not None
        worker = self.engine.vllm_config.parallel_config.worker_cls  # the class that the engine runs
        return {"tokens": list(found.outputs[0].token_ids), "process": os.getpid(), "worker": worker}

    async def check_health(self) -> None:
        await self.engine.check_health()


def main(folder: str, port: int) -> None:
    import numpy as np
    import ray
    from ray import serve

    # Ray's workers would have the niceness 15: beside other jobs a start takes longer than the test may.
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=200 << 20,
        _system_config={"worker_niceness": 0},
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    replicas = serve.deployment(Completions, num_replicas=2, ray_actor_options={"num_cpus": 1})
    serve.run(replicas.bind(folder))
    rng = np.random.default_rng(20261123)
    prompts = [rng.integers(3, 320, 20).tolist() for _ in range(12)]

    def ask(prompt: list[int]) -> dict[str, Any]:
        data = json.dumps({"prompt": prompt, "max_tokens": 24}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", data)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.loads(answer.read())
        except (urllib.error.URLError, OSError) as error:
            return {"failed": repr(error)[:100]}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        expected = list(pool.map(ask, prompts))
        before = [answer["process"] for answer in pool.map(ask, prompts * 2)]
        jobs = [pool.submit(ask, prompts[i % 12]) for i in range(REQUESTS)]
        time.sleep(0.2)
        os.kill(before[0], signal.SIGKILL)
        answers = [job.result() for job in jobs]
        end, after = time.monotonic() + 400, Counter[int]()
        while time.monotonic() < end and len(after) < 2:
            time.sleep(2)
            after = Counter(a["process"] for a in pool.map(ask, prompts * 2) if "process" in a)
    failed = [answer for answer in answers if "failed" in answer]
    pairs = zip(answers, (expected[i % 12] for i in range(REQUESTS)), strict=True)
    wrong = [a for a, b in pairs if "failed" not in a and a["tokens"] != b["tokens"]]
    found = {
        "before": len(set(before)), "failed": len(failed), "wrong": len(wrong), "after": len(after),
        "killed_answers": before[0] in after, "workers": sorted({a["worker"] for a in expected}),
    }  # fmt: skip
    serve.shutdown()
    ray.shutdown()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
