"""Names of an adapter's layers: those of diffusers, kohya and XLabs as the names of layers in models.

A name's prefix says which network its layer belongs to: `lora_unet`, `transformer`, or `lora_te`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ovjit.errors import OvjitError
from ovjit.lora.tensors import AdapterTensors, LowRank

#: (name, matrices) of layers.
Layers = Iterator[tuple[str, LowRank]]

#: A block of an UNet as Stable Diffusion's own code numbers them, and the parts of diffusers' blocks.
_BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks)_(\d+)(?:_(\d+))?(?=_)(?!_op_)(_op\b)?")
_PARTS = ("resnets", "attentions", "upsamplers")
_MIDDLE = ("resnets_0", "attentions_0", "resnets_1")
#: Blocks of an UNet's level.
_LEVEL = 3


def _rules(*pairs: tuple[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), text) for pattern, text in pairs]


#: (pattern, replacement) for kohya's names, whose underscores have become dots.
_DOTTED = _rules(
    (r"(down|up)\.blocks", r"\1_blocks"), (r"mid\.block", "mid_block"),
    (r"transformer\.blocks", "transformer_blocks"), (r"to\.out\.0", "to_out"), (r"to\.([qkv])", r"to_\1"),
    (r"proj\.(in|out)", r"proj_\1"), (r"emb\.layers\.\d+|time\.emb\.proj", "time_emb_proj"),
    (r"in\.layers\.2", "conv1"), (r"out\.layers\.3", "conv2"),
    (r"skip\.connection|conv\.shortcut", "conv_shortcut"), (r"samplers\.0\.op", "samplers.0.conv"),
)  # fmt: skip
#: (pattern of a name of Flux, the names of its parts with their shares of B's rows).
_DOUBLE, _SINGLE = "transformer.transformer_blocks.{}.", "transformer.single_transformer_blocks.{}."
_QKV = {"attn.to_q": 1, "attn.to_k": 1, "attn.to_v": 1}
_ADDED_QKV = {"attn.add_q_proj": 1, "attn.add_k_proj": 1, "attn.add_v_proj": 1}
_FLUX: list[tuple[re.Pattern[str], str, dict[str, int]]] = [
    (re.compile(pattern), prefix, parts)
    for prefix, rules in (
        (_DOUBLE, {
            r"lora_unet_double_blocks_(\d+)_img_attn_proj": {"attn.to_out.0": 1},
            r"lora_unet_double_blocks_(\d+)_img_attn_qkv": _QKV,
            r"lora_unet_double_blocks_(\d+)_img_mlp_0": {"ff.net.0.proj": 1},
            r"lora_unet_double_blocks_(\d+)_img_mlp_2": {"ff.net.2": 1},
            r"lora_unet_double_blocks_(\d+)_img_mod_lin": {"norm1.linear": 1},
            r"lora_unet_double_blocks_(\d+)_txt_attn_proj": {"attn.to_add_out": 1},
            r"lora_unet_double_blocks_(\d+)_txt_attn_qkv": _ADDED_QKV,
            r"lora_unet_double_blocks_(\d+)_txt_mlp_0": {"ff_context.net.0.proj": 1},
            r"lora_unet_double_blocks_(\d+)_txt_mlp_2": {"ff_context.net.2": 1},
            r"lora_unet_double_blocks_(\d+)_txt_mod_lin": {"norm1_context.linear": 1},
            r"(?:diffusion_model\.)?double_blocks\.(\d+)\.processor\.proj_lora1": {"attn.to_out.0": 1},
            r"(?:diffusion_model\.)?double_blocks\.(\d+)\.processor\.proj_lora2": {"attn.to_add_out": 1},
            r"(?:diffusion_model\.)?double_blocks\.(\d+)\.processor\.qkv_lora1": _QKV,
            r"(?:diffusion_model\.)?double_blocks\.(\d+)\.processor\.qkv_lora2": _ADDED_QKV,
        }),
        (_SINGLE, {
            r"lora_unet_single_blocks_(\d+)_linear1": {**_QKV, "proj_mlp": 4},
            r"lora_unet_single_blocks_(\d+)_linear2": {"proj_out": 1},
            r"lora_unet_single_blocks_(\d+)_modulation_lin": {"norm.linear": 1},
            r"(?:diffusion_model\.)?single_blocks\.(\d+)\.processor\.proj": {"proj_out": 1},
            r"(?:diffusion_model\.)?single_blocks\.(\d+)\.processor\.qkv": _QKV,
        }),
    )
    for pattern, parts in rules.items()
]  # fmt: skip


def convert_names(tensors: AdapterTensors, prefix: str) -> AdapterTensors:
    """The tensors with the names that begin with this prefix as models have them; those of a decoder as they
    are. RuntimeError if rows of Flux cannot be split."""
    convert = _CONVERSIONS.get(prefix)
    if convert is None:
        return tensors
    return AdapterTensors(dict(sorted(convert(tensors.layers), key=lambda pair: pair[0])), tensors.weights)


def _rename_block(match: re.Match[str]) -> str:
    """A block by its number over all levels as diffusers' block of a level."""
    kind, number, part, is_sampler = match[1], int(match[2]), int(match[3] or 0), match[4] is not None
    if kind == "middle_block":
        return f"mid_block_{_MIDDLE[min(number, 2)]}"
    if kind == "input_blocks":
        level, layer = divmod(number - 1, _LEVEL)
        return f"down_blocks_{level}_" + ("downsamplers_0_op" if is_sampler else f"{_PARTS[part]}_{layer}")
    level, layer = divmod(number, _LEVEL)
    return f"up_blocks_{level}_{_PARTS[min(part, 2)]}_{layer if part < 2 else 0}"


def _convert_unet(layers: Mapping[str, LowRank]) -> Layers:
    for name, matrices in layers.items():
        if name.startswith("lora_unet"):
            name = _BLOCK.sub(_rename_block, name).replace("_", ".")
            for pattern, text in _DOTTED:
                name = pattern.sub(text, name)
            yield name.replace("lora.unet", "lora_unet"), matrices
        elif not name.startswith(("lora_te", "text_encoder")):
            yield f"lora_unet.{name.removeprefix('unet.').replace('.processor.', '.')}", matrices


def _convert_transformer(layers: Mapping[str, LowRank]) -> Layers:
    for name, matrices in layers.items():
        matches = ((pattern.fullmatch(name), prefix, parts) for pattern, prefix, parts in _FLUX)
        match, prefix, parts = next((each for each in matches if each[0]), (None, "", {}))
        if match is None:
            yield name, matrices
            continue
        share, remainder = divmod(len(matrices.b), sum(parts.values()))
        if remainder:
            raise OvjitError(f"{name} has {len(matrices.b)} rows, which are not those of {list(parts)}")
        rows = np.split(matrices.b, np.cumsum(list(parts.values()))[:-1] * share)
        for part, b in zip(parts, rows, strict=True):
            yield prefix.format(match[1]) + part, LowRank(matrices.a, b)


def _convert_text(layers: Mapping[str, LowRank]) -> Layers:
    for name, matrices in layers.items():
        name = re.sub(r"^(lora_te1(?=_)|text_encoder(?=\.))", "lora_te", name)
        if name.startswith(("lora_te_", "lora_te.")):
            yield name, matrices


def _convert_second_text(layers: Mapping[str, LowRank]) -> Layers:
    for name, matrices in layers.items():
        yield re.sub(r"^text_encoder_2(?=\.)", "lora_te2", name), matrices


_CONVERSIONS: dict[str, Callable[[Mapping[str, LowRank]], Layers]] = {
    "lora_unet": _convert_unet, "transformer": _convert_transformer, "lora_te": _convert_text,
    "lora_te2": _convert_second_text,
}  # fmt: skip
