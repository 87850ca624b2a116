"""optimum-intel's classes of models that are several networks: pictures, speech and text. Small random ones
are saved, exported, saved again, loaded and run. Prints a line of JSON: case -> results beside PyTorch's.

    python optimum_composed.py FOLDER [case ...]
"""

import warnings

import torch
import transformers as hf
from cases import print_results
from optimum.intel import openvino as intel
from tokenizers import Tokenizer, models, pre_tokenizers

warnings.simplefilter("ignore")
hf.logging.set_verbosity_error()
SEED = 20261124
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VIEW = {**SIZES, "image_size": 32, "patch_size": 8}
MARKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = {**SIZES, **MARKS, "vocab_size": 99, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 64}  # fmt: skip
STARTS = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
IMAGE = 90  # the token that an image's parts are put in place of
GENERATED = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}


def words(kind, folder, **more):
    """A tokenizer of 99 words."""
    table = Tokenizer(models.WordLevel({f"w{i}": i for i in range(99)}, unk_token="w3"))
    table.pre_tokenizer = pre_tokenizers.Whitespace()
    table.save(str(folder / "words.json"))
    marks = {"pad_token": "w0", "bos_token": "w1", "eos_token": "w2", "unk_token": "w3"}
    return kind(tokenizer_file=str(folder / "words.json"), **marks, **more)


def segmenting(folder):
    config = hf.SamConfig(
        vision_config={**VIEW, "image_size": 64, "output_channels": 256, "global_attn_indexes": [1],
                       "window_size": 2, "mlp_dim": 64},
        prompt_encoder_config={"image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={"num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 32},
    )  # fmt: skip
    size = {"height": 64, "width": 64}
    hf.SamImageProcessor(size={"longest_edge": 64}, pad_size=size).save_pretrained(folder)
    given = {"pixel_values": torch.randn(1, 3, 64, 64), "input_points": torch.rand(1, 1, 2, 2) * 60}
    return hf.SamModel(config), given


def reading_patches(folder):
    text = {"hidden_size": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
    view = {"hidden_size": 32, "patch_embed_hidden_size": 48, "d_ff": 64, "d_kv": 8, "num_hidden_layers": 2,
            "num_attention_heads": 4, "seq_len": 64}  # fmt: skip
    config = hf.Pix2StructConfig(text_config={**text, **STARTS}, vision_config=view, **STARTS)
    images = hf.Pix2StructImageProcessor(patch_size={"height": 4, "width": 4}, max_patches=64)
    hf.Pix2StructProcessor(images, words(hf.T5TokenizerFast, folder, extra_ids=0)).save_pretrained(folder)
    patches = torch.cat([torch.randint(0, 6, (2, 64, 2)).float(), torch.randn(2, 64, 48)], 2)
    given = {"flattened_patches": patches, "attention_mask": torch.ones(2, 64)}
    return hf.Pix2StructForConditionalGeneration(config), given


def describing(decoder):
    def make(folder):
        configs = hf.ViTConfig(**VIEW), decoder
        config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(*configs, **STARTS)
        return hf.VisionEncoderDecoderModel(config), {"pixel_values": torch.rand(2, 3, 32, 32)}

    return make


def speaking(folder):
    sides = {f"{side}_{name}": n for side in ("encoder", "decoder")
             for name, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))}  # fmt: skip
    config = hf.SpeechT5Config(
        **sides, hidden_size=32, vocab_size=81, num_mel_bins=16, speech_decoder_prenet_units=16,
        speech_decoder_postnet_units=16, speaker_embedding_dim=16, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    waves = hf.SpeechT5HifiGanConfig(
        model_in_dim=16, upsample_initial_channel=16, upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]], initializer_range=0.3,
    )  # fmt: skip
    vocoder = hf.SpeechT5HifiGan(waves).eval()
    vocoder.save_pretrained(folder / "vocoder")
    given = {"input_ids": torch.randint(3, 70, (1, 9)), "speaker_embeddings": torch.randn(1, 16)}
    module = hf.SpeechT5ForTextToSpeech(config)
    module.vocoder_beside = vocoder
    return module, given


def seen(ids):
    ids = torch.tensor([ids])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def llava(folder):
    view = hf.CLIPVisionConfig(**VIEW, projection_dim=32)
    config = hf.LlavaConfig(
        vision_config=view, text_config=hf.LlamaConfig(**TEXT), image_token_index=IMAGE, image_seq_length=16,
        vision_feature_layer=-1,
    )  # fmt: skip
    images = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    text = words(hf.PreTrainedTokenizerFast, folder)
    hf.LlavaProcessor(images, text, patch_size=8, vision_feature_select_strategy="default").save_pretrained(
        folder
    )
    given = {**seen([1, 5, 6] + [IMAGE] * 16 + [7, 8]), "pixel_values": torch.randn(1, 3, 32, 32)}
    return hf.LlavaForConditionalGeneration(config), given


def qwen(name, **view):
    def make(folder):
        shared = {"depth": 2, "num_heads": 4, "hidden_size": 32, "patch_size": 14, "in_channels": 3,
                  "spatial_merge_size": 2, "temporal_patch_size": 2}  # fmt: skip
        rope = {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
        config = getattr(hf, f"{name}Config")(
            vision_config={**shared, **view}, text_config={**TEXT, **rope}, image_token_id=IMAGE,
            video_token_id=91, vision_start_token_id=92, vision_end_token_id=93,
        )  # fmt: skip
        text = words(hf.Qwen2TokenizerFast, folder)
        text.add_special_tokens({"additional_special_tokens": ["<|image_pad|>", "<|video_pad|>"]})
        images = hf.Qwen2VLImageProcessor(), text, hf.Qwen2VLVideoProcessor()
        hf.Qwen2VLProcessor(*images).save_pretrained(folder)
        given = {**seen([1, 5, 92] + [IMAGE] * 4 + [93, 7, 8]), "pixel_values": torch.randn(16, 1176),
                 "image_grid_thw": torch.tensor([[1, 4, 4]])}  # fmt: skip
        return getattr(hf, f"{name}ForConditionalGeneration")(config), given

    return make


def gemma(folder):
    text = {**TEXT, "query_pre_attn_scalar": 8, "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"]}  # fmt: skip
    config = hf.Gemma3Config(
        vision_config={**VIEW, "model_type": "siglip_vision_model"}, text_config=text, mm_tokens_per_image=4,
        image_token_index=IMAGE, boi_token_index=91, eoi_token_index=92,
    )  # fmt: skip
    given = {**seen([1, 5, 91] + [IMAGE] * 4 + [92, 7, 8]), "pixel_values": torch.randn(1, 3, 32, 32)}
    given["token_type_ids"] = (given["input_ids"] == IMAGE).long()
    return hf.Gemma3ForConditionalGeneration(config), given


def idefics(name):
    def make(folder):
        config = getattr(hf, f"{name}Config")(
            vision_config=VIEW, text_config=hf.LlamaConfig(**TEXT), image_token_id=IMAGE, scale_factor=2,
            pad_token_id=0,
        )  # fmt: skip
        given = {**seen([1, 5, 6] + [IMAGE] * 4 + [7, 8]), "pixel_values": torch.randn(1, 1, 3, 32, 32),
                 "pixel_attention_mask": torch.ones(1, 1, 32, 32, dtype=torch.long)}  # fmt: skip
        return getattr(hf, f"{name}ForConditionalGeneration")(config), given

    return make


GPT = hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=99, bos_token_id=1,
                    eos_token_id=2, is_decoder=True, add_cross_attention=True)  # fmt: skip
TROCR = hf.TrOCRConfig(d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64,
                       vocab_size=99, max_position_embeddings=64, **MARKS)  # fmt: skip
VISUAL = "OVModelForVisualCausalLM"
#: Case -> the class of optimum-intel, and what makes the module and what it is given.
CASES = {
    "sam": ("OVSamModel", segmenting),
    "pix2struct": ("OVModelForPix2Struct", reading_patches),
    "vit-gpt2": ("OVModelForVision2Seq", describing(GPT)),
    "trocr": ("OVModelForVision2Seq", describing(TROCR)),
    "speecht5": ("OVModelForTextToSpeechSeq2Seq", speaking),
    "llava": (VISUAL, llava),
    "qwen2_vl": (VISUAL, qwen("Qwen2VL", embed_dim=32, mlp_ratio=2)),
    "qwen2_5_vl": (VISUAL, qwen("Qwen2_5_VL", out_hidden_size=32, intermediate_size=64, window_size=56,
                                fullatt_block_indexes=[1])),
    "gemma3": (VISUAL, gemma),
    "idefics3": (VISUAL, idefics("Idefics3")),
    "smolvlm": (VISUAL, idefics("SmolVLM")),
}  # fmt: skip


def results(name, model, given, vocoder=None):
    if name == "sam":
        made = model(**given)
        return [flat(made.iou_scores), flat(made.pred_masks)]
    if name == "speecht5":
        torch.manual_seed(SEED)  # its prenet drops out when it runs, too
        more = {} if vocoder is None else {"vocoder": vocoder}
        return [flat(model.generate(**given, **more, minlenratio=0.0, maxlenratio=3.0).reshape(-1))]
    return model.generate(**given, **GENERATED).tolist()


def flat(tensor):
    return [list(tensor.shape), [round(float(v), 5) for v in tensor.float().flatten()[:400]]]


def run(name, folder):
    wrapper, make = CASES[name]
    plain, kept = folder / name / "torch", folder / name / "ir"
    plain.mkdir(parents=True)
    torch.manual_seed(SEED)
    module, given = make(plain)
    module = module.eval()
    vocoder = module._modules.pop("vocoder_beside", None)
    module.save_pretrained(plain)
    more = {} if vocoder is None else {"vocoder": str(plain / "vocoder")}
    kind = getattr(intel, wrapper)
    kind.from_pretrained(plain, export=True, compile=False, **more).save_pretrained(kept)
    model = kind.from_pretrained(kept, ov_config=EXACT)
    with torch.no_grad():
        return {"made": results(name, model, given), "torch": results(name, module, given, vocoder)}


print_results(CASES, run)
