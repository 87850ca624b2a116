"""vLLM's worker of one process: an ovjit decoder, its caches and its threads."""

from __future__ import annotations

import os
from typing import Any

import psutil
import torch
from vllm.distributed import parallel_state  # noqa: F401  before gpu_worker, which imports it in a circle
from vllm.platforms import current_platform
from vllm.utils.torch_utils import set_random_seed
from vllm.v1.worker.cpu_worker import CPUWorker
from vllm.v1.worker.gpu_worker import init_worker_distributed_environment
from vllm.v1.worker.worker_base import CompilationTimes

from ovjit.integrations.vllm.runner import OvjitModelRunner

#: Prompts that are compiled for before the first request.
_PROMPTS = (1, 8, 64)


class OvjitWorker(CPUWorker):
    """The worker of vLLM's CPU backend with ovjit's model runner, and without OpenMP's threads bound."""

    def init_device(self) -> None:
        """Make the runner. vLLM's second version of it is not supported."""
        if self.use_v2_model_runner:
            raise ValueError("ovjit needs vLLM's first model runner: set VLLM_USE_V2_MODEL_RUNNER=0")
        self.device = torch.device("cpu")
        os.environ["VLLM_DIST_IDENT"] = self.distributed_init_method.split(":")[-1].replace("/", "_")
        init_worker_distributed_environment(
            self.vllm_config, self.rank, self.distributed_init_method, self.local_rank,
            current_platform.dist_backend,
        )  # fmt: skip
        set_random_seed(self.model_config.seed)
        self.model_runner: Any = OvjitModelRunner(self.vllm_config, self.device)

    def determine_available_memory(self) -> int:
        """Bytes for caches: `kv_cache_memory_bytes`; or `gpu_memory_utilization` of the machine's memory,
        minus the memory in use once the model is loaded. Raises ValueError if nothing remains."""
        limit, free = self.cache_config.kv_cache_memory_bytes, psutil.virtual_memory().available
        size = limit if limit is not None else self.requested_cpu_memory - psutil.Process().memory_info().rss
        if size <= 0 or size > free:
            raise ValueError(
                f"caches need {size} bytes, but {free} are free: set kv_cache_memory_bytes, or another "
                "gpu_memory_utilization (the fraction of the machine's memory that vLLM uses)"
            )
        return int(size)

    def compile_or_warm_up_model(self) -> CompilationTimes:
        """Compile for prompts and tokens. This uses block 0, which belongs to no sequence."""
        most = min(self.scheduler_config.max_num_batched_tokens, self.model_config.max_model_len)
        counts = sorted({min(n, most) for n in (*_PROMPTS, most)})
        self.model_runner.model.decoder.warm_up(counts, self.scheduler_config.max_num_seqs)
        set_random_seed(self.model_config.seed)
        return CompilationTimes(language_model=0.0, encoder=0.0)
