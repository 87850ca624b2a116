"""optimum-intel's pipelines of diffusers: small random networks are exported, saved, loaded and make a
picture or a video, beside PyTorch. Prints a line of JSON: case -> how far apart, and how pixels differ.

    python optimum_diffusion.py FOLDER [case ...]
"""

import warnings

import diffusers
import numpy as np
import torch
import transformers as hf
from cases import print_results
from optimum.intel.openvino import modeling_diffusion
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

warnings.simplefilter("ignore")
hf.logging.set_verbosity_error()
SEED = 20261125
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
START, END = "<|startoftext|>", "<|endoftext|>"
SIZES = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PLAIN = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.06}
ASKED = {"prompt": "a red fox", "num_inference_steps": 2, "height": 32, "width": 32, "output_type": "np"}
LONG = {"max_sequence_length": 16}
#: Latent videos keep their size but for one step down.
VIDEO = {
    "latent_channels": 8, "block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4,
    "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 5,
    "spatio_temporal_scaling": (True, True, False, False), "decoder_inject_noise": (False,) * 5,
    "decoder_spatio_temporal_scaling": (True, True, False, False), "upsample_residual": (False,) * 4,
    "upsample_factor": (1,) * 4, "timestep_conditioning": False, "patch_size": 1, "patch_size_t": 1,
    "encoder_causal": True, "decoder_causal": False,
}  # fmt: skip
PACKED = {
    "in_channels": 3, "latent_channels": 4, "attention_head_dim": 2, "encoder_layers_per_block": (1, 1),
    "encoder_block_types": ("ResBlock", "EfficientViTBlock"), "encoder_block_out_channels": (8, 8),
    "decoder_block_types": ("ResBlock", "EfficientViTBlock"), "decoder_block_out_channels": (8, 8),
    "encoder_qkv_multiscales": ((), (5,)), "decoder_qkv_multiscales": ((), (5,)),
    "decoder_layers_per_block": [1, 1], "downsample_block_type": "conv", "upsample_block_type": "interpolate",
    "decoder_norm_types": "rms_norm", "decoder_act_fns": "silu", "scaling_factor": 0.41,
}  # fmt: skip


def letters():
    """A tokenizer of letters, with those at the end of a word apart."""
    letters = [c + end for c in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    table = {word: i for i, word in enumerate([START, END, *letters])}
    made = Tokenizer(models.BPE(vocab=table, merges=[], end_of_word_suffix="</w>", unk_token=END))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [(START, table[START]), (END, table[END])]
    made.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=marks)
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=16, **marks)


def clip(kind="CLIPTextModel"):
    marks = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "vocab_size": 60}
    config = hf.CLIPTextConfig(**SIZES, **marks, max_position_embeddings=16, projection_dim=32)
    return getattr(hf, kind)(config)


def t5():
    sizes = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    return hf.T5EncoderModel(hf.T5Config(**sizes, pad_token_id=1, eos_token_id=1))


def coder(channels=4, **more):
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 64), latent_channels=channels, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **more,
    )  # fmt: skip


def unet(**more):
    return diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=16, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **more,
    )  # fmt: skip


def flow():
    return diffusers.FlowMatchEulerDiscreteScheduler()


def of_one_text(kind, scheduler, **more):
    free = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return kind(vae=coder(), text_encoder=clip(), tokenizer=letters(), scheduler=scheduler,
                unet=unet(cross_attention_dim=32, **more), **free)  # fmt: skip


def stable():
    scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False)
    return of_one_text(diffusers.StableDiffusionPipeline, scheduler)


def consistent():
    scheduler = diffusers.LCMScheduler(**BETAS, clip_sample=False)
    return of_one_text(diffusers.LatentConsistencyModelPipeline, scheduler, time_cond_proj_dim=32)


def stable_xl():
    words = letters()
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8,
             "projection_class_embeddings_input_dim": 80}  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=coder(), text_encoder=clip(), text_encoder_2=clip("CLIPTextModelWithProjection"), tokenizer=words,
        tokenizer_2=words, scheduler=diffusers.EulerDiscreteScheduler(**BETAS, steps_offset=1),
        unet=unet(cross_attention_dim=64, attention_head_dim=(2, 4), use_linear_projection=True,
                  transformer_layers_per_block=(1, 2), **added),
    )  # fmt: skip


def stable_3():
    words, kind = letters(), "CLIPTextModelWithProjection"
    network = diffusers.SD3Transformer2DModel(
        sample_size=16, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, out_channels=4,
        num_attention_heads=4, joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=64,
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=network, scheduler=flow(), vae=coder(**PLAIN), text_encoder=clip(kind), tokenizer=words,
        text_encoder_2=clip(kind), tokenizer_2=words, text_encoder_3=t5(), tokenizer_3=words,
    )  # fmt: skip


def flux():
    words = letters()
    network = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8],
    )  # fmt: skip
    return diffusers.FluxPipeline(
        transformer=network, scheduler=flow(), vae=coder(1, **PLAIN, scaling_factor=1.5),
        text_encoder=clip(), tokenizer=words, text_encoder_2=t5(), tokenizer_2=words,
    )  # fmt: skip


def ltx():
    network = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=4, attention_head_dim=8, cross_attention_dim=32,
        num_layers=1, caption_channels=32,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLLTXVideo(**VIDEO)
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    parts = {"text_encoder": t5(), "tokenizer": letters()}
    return diffusers.LTXPipeline(transformer=network, scheduler=flow(), vae=vae, **parts)


def sana():
    network = diffusers.SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, sample_size=32,
        attention_head_dim=4, num_cross_attention_heads=2, cross_attention_head_dim=4, caption_channels=8,
        cross_attention_dim=8,
    )  # fmt: skip
    text = hf.Gemma2Config(
        vocab_size=60, hidden_size=8, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1,
        num_hidden_layers=1, head_dim=16, query_pre_attn_scalar=16,
    )  # fmt: skip
    return diffusers.SanaPipeline(
        transformer=network, scheduler=flow(), vae=diffusers.AutoencoderDC(**PACKED), tokenizer=letters(),
        text_encoder=hf.Gemma2Model(text),
    )  # fmt: skip


def z_image():
    network = diffusers.ZImageTransformer2DModel(
        in_channels=16, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[8, 4, 4], axes_lens=[256, 32, 32],
    )  # fmt: skip
    for name, weights in network.named_parameters():
        if "pad_token" in name:  # it is made without values
            torch.nn.init.ones_(weights)
    text = hf.Qwen3Config(
        vocab_size=60, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, pad_token_id=1,
    )  # fmt: skip
    words = letters()
    words.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return diffusers.ZImagePipeline(
        transformer=network, scheduler=flow(), vae=coder(16, scaling_factor=0.36, shift_factor=0.11),
        text_encoder=hf.Qwen3Model(text), tokenizer=words,
    )  # fmt: skip


def sana_sprint():
    network = diffusers.SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, sample_size=32,
        attention_head_dim=4, num_cross_attention_heads=2, cross_attention_head_dim=4, caption_channels=8,
        cross_attention_dim=8, qk_norm="rms_norm_across_heads", guidance_embeds=True,
    )  # fmt: skip
    parts = {**sana().components, "transformer": network, "scheduler": diffusers.SCMScheduler()}
    return diffusers.SanaSprintPipeline(**parts)


def of_a_picture(make, kind):
    """The same networks in a pipeline that is given a picture."""
    return lambda: getattr(diffusers, f"{kind}Pipeline")(**make().components)


PICTURE = Image.fromarray(np.random.default_rng(SEED).integers(0, 255, (32, 32, 3), dtype=np.uint8))
HOLE = Image.fromarray(np.pad(np.full((16, 16), 255, np.uint8), 8))
FILLED = {"image": PICTURE, "mask_image": HOLE, "strength": 0.9}
#: Case -> the class of optimum-intel, what makes the pipeline, and what is asked beside a picture.
CASES = {
    "sd": ("StableDiffusion", stable, {}),
    "sd of two": ("StableDiffusion", stable, {"prompt": ["a fox", "b dog"], "num_images_per_prompt": 2,
                                              "negative_prompt": ["bad", "x"]}),
    "lcm": ("LatentConsistencyModel", consistent, {}),
    "sdxl": ("StableDiffusionXL", stable_xl, {}),
    "sd3": ("StableDiffusion3", stable_3, LONG),
    "flux": ("Flux", flux, LONG),
    "ltx": ("LTX", ltx, {**LONG, "num_frames": 9}),
    "sana": ("Sana", sana, {**LONG, "use_resolution_binning": False, "complex_human_instruction": None}),
    "sana sprint": ("SanaSprint", sana_sprint, {**LONG, "use_resolution_binning": False,
                                                "complex_human_instruction": None}),
    "z image": ("ZImage", z_image, LONG),
    "flux filled": ("FluxInpaint", of_a_picture(flux, "FluxInpaint"), {**LONG, **FILLED}),
    "z filled": ("ZImageInpaint", of_a_picture(z_image, "ZImageInpaint"), {**LONG, **FILLED}),
    "ltx of a picture": ("LTXImageToVideo", of_a_picture(ltx, "LTXImageToVideo"),
                         {**LONG, "image": PICTURE, "num_frames": 9}),
}  # fmt: skip


def pixels(pipeline, asked):
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        made = pipeline(**ASKED | asked, guidance_scale=5.0, generator=torch.Generator().manual_seed(SEED))
    return np.asarray(made.frames if hasattr(made, "frames") else made.images)


def run(name, folder):
    kind, make, asked = CASES[name]
    torch.manual_seed(SEED)
    pipeline = make()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    wanted = pixels(pipeline, asked)
    plain, kept = folder / name / "torch", folder / name / "ir"
    pipeline.save_pretrained(plain)
    wrapper = getattr(modeling_diffusion, f"OV{kind}Pipeline")
    wrapper.from_pretrained(str(plain), export=True, compile=False).save_pretrained(str(kept))
    made = pixels(wrapper.from_pretrained(str(kept), ov_config=EXACT), asked)
    assert made.shape == wanted.shape, (made.shape, wanted.shape)
    return {"apart": float(np.abs(made - wanted).max()), "spread": float(wanted.std())}


print_results(CASES, run)
