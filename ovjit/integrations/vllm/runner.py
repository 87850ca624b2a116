"""vLLM's model runner (batches, sampling, structured output) with an ovjit decoder as its model.

Attention layers have an entry in vLLM, which computes nothing: the sizes of their caches and a batch's
tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from vllm.forward_context import get_forward_context
from vllm.logger import init_logger
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.v1.attention.backend import AttentionBackend, AttentionImplBase, AttentionMetadataBuilder
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

from ovjit.generation.paged import PagedDecoder, cache_bytes
from ovjit.generation.paged_tables import Tables, tables_of
from ovjit.integrations.vllm.options import parse_options


class TablesBuilder(AttentionMetadataBuilder):
    """Makes the inputs of a paged decoder, once for all layers."""

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: Any):
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)

    def build(self, common_prefix_len: int, common_attn_metadata: Any, fast_build: bool = False) -> Tables:
        """The tables of one batch."""
        batch = common_attn_metadata
        return tables_of(
            batch.query_start_loc.numpy(), batch.seq_lens.numpy(), batch.block_table_tensor.numpy(),
            self.kv_cache_spec.block_size,
        )  # fmt: skip


class PagedBackend(AttentionBackend):
    """The attention of ovjit's decoders. Caches are not vLLM's: see `OvjitModelRunner`."""

    supported_dtypes = [torch.float32]
    supported_kv_cache_dtypes: list[Any] = []

    @staticmethod
    def get_name() -> str:
        """The backend's name in vLLM's messages."""
        return "OVJIT"

    @staticmethod
    def get_impl_cls() -> type[AttentionImplBase]:
        """None: a decoder computes all of its layers at once."""
        raise NotImplementedError("ovjit's decoders compute attention inside the model")

    @staticmethod
    def get_builder_cls() -> type[TablesBuilder]:
        """The class that makes a batch's tables."""
        return TablesBuilder


class PagedLayer(AttentionLayerBase):
    """One layer of a decoder: keys of `shape` [heads, ..., size] in each block, `bytes` with its values."""

    def __init__(self, shape: list[int], block_bytes: int):
        self.num_kv_heads, self.head_size, self.bytes = shape[0], shape[-1], block_bytes
        self.kv_cache: Any = torch.tensor([])

    def get_attn_backend(self) -> type[AttentionBackend]:
        """The backend, for the groups of layers that vLLM makes."""
        return PagedBackend

    def get_kv_cache_spec(self, vllm_config: Any) -> FullAttentionSpec:
        """The memory of a block, from the ports of the compiled decoder."""
        return FullAttentionSpec(
            block_size=vllm_config.cache_config.block_size, num_kv_heads=self.num_kv_heads,
            head_size=self.head_size, dtype=torch.uint8, state_content_bytes=1, page_size_padded=self.bytes,
        )  # fmt: skip


logger = init_logger("vllm.ovjit")  # shown as vLLM's own messages are


class OvjitModel(torch.nn.Module):
    """A paged decoder with the methods that vLLM calls. It has no parameters of PyTorch."""

    def __init__(self, *, vllm_config: Any, prefix: str = ""):
        super().__init__()
        options = parse_options(vllm_config.additional_config, vllm_config.cache_config.cache_dtype)
        model = vllm_config.model_config
        self.decoder = PagedDecoder.load(
            _folder(vllm_config), options, model.max_model_len, model.hf_overrides
        )
        if self.decoder.block != vllm_config.cache_config.block_size:
            raise ValueError(
                f"the decoder's blocks have {self.decoder.block} tokens, but vLLM's block_size is "
                f"{vllm_config.cache_config.block_size}"
            )
        context = vllm_config.compilation_config.static_forward_context
        sizes = zip(self.decoder.layers, self.decoder.layer_bytes, strict=True)
        self.names = [f"{prefix}layers.{i}.attn" for i in range(len(self.decoder.layers))]
        for name, ((keys, _), size) in zip(self.names, sizes, strict=True):
            context[name] = PagedLayer(keys, size)

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Raise NotImplementedError: embedding is part of the decoder."""
        raise NotImplementedError("ovjit's decoders take token ids, not embeddings")

    def forward(
        self, input_ids: torch.Tensor, positions: torch.Tensor, intermediate_tensors: Any = None,
        inputs_embeds: Any = None,
    ) -> torch.Tensor:  # fmt: skip
        """Hidden states [tokens, width] of new tokens; keys and values go to the blocks of the batch."""
        metadata = get_forward_context().attn_metadata
        if not metadata:  # vLLM asks how much memory a call takes; caches are not there yet
            width = self.decoder.width
            return torch.zeros(len(input_ids), width)
        tables = metadata[self.names[0]]
        count = int(tables.subsequence_begins[-1])
        ids, token_positions = input_ids[:count].numpy(), positions[:count].numpy()
        return torch.from_numpy(self.decoder.hidden(ids, token_positions, tables))

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Logits [rows, words]."""
        return torch.from_numpy(self.decoder.logits(hidden_states.numpy()))


def _folder(vllm_config: Any) -> Path:
    """The model's folder. A name of the hub is looked up where vLLM's loader puts files."""
    name = vllm_config.model_config.model
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    kinds = ["*.json", "*.safetensors", "*.xml", "*.bin", "*.gguf"]
    load = vllm_config.load_config
    return Path(
        snapshot_download(
            name,
            revision=vllm_config.model_config.revision,
            cache_dir=load.download_dir,
            allow_patterns=kinds,
            ignore_patterns=["pytorch_model*.bin", "original/*"],
        )  # fmt: skip
    )


class OvjitModelRunner(CPUModelRunner):
    """The runner of vLLM's CPU backend; its model, and the caches, are ovjit's."""

    def load_model(self, load_dummy_weights: bool = False) -> None:
        """Read and compile the decoder. ValueError for weights that are to be made up."""
        if load_dummy_weights or self.load_config.load_format == "dummy":
            raise ValueError("load_format 'dummy' is not supported: ovjit reads the model's weights")
        self.model = OvjitModel(vllm_config=self.vllm_config)
        self._setup_eagle3_aux_hidden_state_outputs()

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample. A row of a prompt that goes on gets a token that is dropped, and draws nothing from the
        generator of its request: vLLM would turn that back afterwards, which no generator of a CPU can."""
        generators = self.input_batch.generators
        dropped = self.discard_request_mask.np[: self.input_batch.num_reqs].nonzero()[0].tolist()
        held_generators = {row: generators.pop(row) for row in dropped if row in generators}
        try:
            return super().sample_tokens(grammar_output)
        finally:
            generators.update(held_generators)

    def _sample(self, logits: Any, spec_decode_metadata: Any) -> Any:
        """Sample without drafts where no request of a batch has one. vLLM's sampler of drafts fails for none
        if a request has top_k, and that ends the engine. Logits have a row for each request, then."""
        metadata = spec_decode_metadata
        return super()._sample(
            logits, metadata if metadata is not None and any(metadata.num_draft_tokens) else None
        )

    def initialize_kv_cache_tensors(
        self, kv_cache_config: Any, kernel_block_sizes: list[int], kv_cache_allocation_context: Any = None
    ) -> dict[str, torch.Tensor]:
        """Make the decoder's caches, of as many blocks as vLLM's manager hands out."""
        decoder = self.model.decoder
        decoder.allocate(kv_cache_config.num_blocks)
        size = sum(tensor.byte_size for tensor in decoder.caches.values())
        logger.info("caches of %d blocks, %.1f MiB", kv_cache_config.num_blocks, size / 2**20)
        for tensor in decoder.caches.values():
            self.kv_caches.append(torch.from_numpy(cache_bytes(tensor)))
        return {}

    def _zero_block_ids(self, block_ids: list[int]) -> None:
        """Do nothing: memory after a sequence's last token is never read."""
