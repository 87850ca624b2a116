"""Layers that vLLM manages but does not compute: the sizes of their caches, and the tables of a batch."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.v1.attention.backend import AttentionBackend, AttentionImplBase, AttentionMetadataBuilder
from vllm.v1.kv_cache_interface import FullAttentionSpec

from ovjit.generation.paged_tables import Tables, tables_of


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
