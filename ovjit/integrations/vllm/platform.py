"""vLLM's CPU platform with ovjit's worker in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from vllm.logger import init_logger
from vllm.platforms.cpu import CpuPlatform

from ovjit.integrations.vllm.options import parse_options

logger = init_logger("vllm.ovjit")  # shown as vLLM's own messages are

#: Tokens of a block, as ovjit's compiled decoders have it.
BLOCK = 32
WORKER = "ovjit.integrations.vllm.worker.OvjitWorker"


class OvjitPlatform(CpuPlatform):
    """The platform that `OVJIT_VLLM=1` chooses. Options come by vLLM's `additional_config`: see
    `parse_options`."""

    device_name = "ovjit"
    #: The compiler of small functions, such as log probabilities. The CPU platform's would run a C++ compiler
    #: for a minute at the first request that needs them.
    simple_compile_backend = "eager"

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        """The platform's name in vLLM's messages."""
        return "ovjit"

    @classmethod
    def register_triton_kernel_overrides(cls) -> None:
        """Register the CPU platform's kernels, and ours that repeats a request's numbers for its drafts.

        That of vLLM 0.32 writes its result to a copy unless the numbers are i64. So temperature, top_k and
        top_p of requests with drafts were not initialised.

        vLLM searches the `__dict__` of every object in every module for copies of its kernels. The search
        fails if llvmlite is imported, as Numba does: its library object returns a function for any attribute
        name, `__dict__` included. `_attributes` skips such objects.
        """
        from vllm.triton_utils import HAS_TRITON, dispatcher

        dispatcher.vars = _attributes
        super().register_triton_kernel_overrides()
        if not HAS_TRITON:
            dispatcher.register_kernels({"vllm.v1.sample.rejection_sampler.expand_kernel": _expand})

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        """Set what ovjit's worker needs. ValueError names an option that it does not have."""
        parallel, cache = vllm_config.parallel_config, vllm_config.cache_config
        executor = parallel.distributed_executor_backend
        super().check_and_update_config(vllm_config)
        _check(vllm_config)
        # The CPU platform uses a process for each worker, to bind OpenMP's threads. ovjit has its own
        # threads.
        parallel.distributed_executor_backend = executor
        if parallel.worker_cls == "vllm.v1.worker.cpu_worker.CPUWorker":
            parallel.worker_cls = WORKER
        if cache.user_specified_block_size and cache.block_size != BLOCK:
            raise ValueError(
                f"ovjit's caches have blocks of {BLOCK} tokens; block_size "
                f"{cache.block_size} is not supported"
            )
        cache.block_size = BLOCK
        model = vllm_config.model_config
        if model is not None:
            parse_options(vllm_config.additional_config, cache.cache_dtype)
            if model.dtype != torch.float32:
                logger.info("hidden states and logits are in float32, not in %s", model.dtype)
                model.dtype = torch.float32
            model.enforce_eager = True
        from vllm.config import CompilationMode, CUDAGraphMode

        vllm_config.compilation_config.mode = CompilationMode.NONE
        vllm_config.compilation_config.cudagraph_mode = CUDAGraphMode.NONE


def _attributes(value: Any) -> Mapping[str, Any]:
    """`vars(value)`, or an empty mapping if its `__dict__` is not a mapping."""
    attributes = vars(value)
    return attributes if isinstance(attributes, Mapping) else {}


def _expand(
    output: torch.Tensor, values: torch.Tensor, ends: torch.Tensor, replaced: float, by: float, *unused: Any,
    **more: Any,
) -> None:  # fmt: skip
    """Write each of `values` [requests] to `output` [tokens] as often as its request has tokens, which end at
    `ends` [requests]. `by` stands for `replaced`."""
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    output.copy_(values.masked_fill(values == replaced, by).repeat_interleave(counts))


def _check(vllm_config: Any) -> None:
    """Refuse what this platform does not have. ValueError."""
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    refused = {
        "tensor, pipeline and context parallelism": parallel.world_size > 1,
        "LoRA adapters": vllm_config.lora_config is not None,
        "transfer of caches between servers": vllm_config.kv_transfer_config is not None,
        # vLLM makes a transfer of it, after this check
        "offloading of caches": getattr(vllm_config.cache_config, "kv_offloading_size", None) is not None,
        "a draft model (prompt look-up, method 'ngram', is supported)": _drafts(
            vllm_config.speculative_config
        ),
    }
    if model is not None:
        elsewhere = model.hf_config_path not in (None, model.model)
        refused |= {
            "models of images, audio or video": model.is_multimodal_model,
            "pooling": model.runner_type != "generate",
            "models with an encoder": model.is_encoder_decoder,
            f"recurrent layers ({model.architecture})": model.is_hybrid or model.is_attention_free,
            "prompts as embeddings": model.enable_prompt_embeds,
            "hf_overrides by a function (a dict is supported)": callable(model.hf_overrides),
            "a configuration of another folder (hf_config_path)": elsewhere,
            "vLLM's quantization (use additional_config's weights: 8 or 4)": model.quantization is not None,
        }
    unsupported = [what for what, is_asked in refused.items() if is_asked]
    if unsupported:
        raise ValueError(
            f"ovjit's platform of vLLM does not support {', '.join(unsupported)}; unset "
            "OVJIT_VLLM to run on another platform"
        )


def _drafts(speculative: Any) -> bool:
    return speculative is not None and speculative.method not in ("ngram", "suffix")
