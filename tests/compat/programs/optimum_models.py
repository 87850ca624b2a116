"""optimum-intel's model classes, as its documentation uses them: a small random network of transformers is
saved, exported, run, saved again and loaded. Prints a line of JSON: case -> results, or the error.

    python optimum_models.py FOLDER [case ...]
"""

import warnings

import torch
import transformers
from cases import print_results
from optimum.intel import openvino as intel

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
SEED = 20261123
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "vocab_size": 99, "max_position_embeddings": 64, "pad_token_id": 0}  # fmt: skip
LM = {**TEXT, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2}
PAIR = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 99,
        "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 1, "forced_eos_token_id": None}  # fmt: skip
VIEW = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "image_size": 32, "patch_size": 8}  # fmt: skip
WAVE = {**TEXT, "conv_dim": [16, 16], "conv_stride": [5, 4], "conv_kernel": [10, 4],
        "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        "tdnn_dim": [32, 32], "tdnn_kernel": [5, 3], "tdnn_dilation": [1, 2], "xvector_output_dim": 16,
        "classifier_proj_size": 16}  # fmt: skip
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 99, "bos_token_id": 1,
       "eos_token_id": 2}  # fmt: skip
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 99,
      "decoder_start_token_id": 0}  # fmt: skip
WHISPER = {**PAIR, "num_mel_bins": 16, "max_source_positions": 1500, "max_target_positions": 32,
           "suppress_tokens": None, "begin_suppress_tokens": None}  # fmt: skip

#: Case -> what the class of optimum-intel is for, kind of network, its sizes, what it is given.
CASES = {
    "features": ("FeatureExtraction", "bert", TEXT, "ids"),
    "sequence": ("SequenceClassification", "roberta", TEXT, "ids"),
    "tokens": ("TokenClassification", "distilbert",
               {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 99}, "ids"),
    "answers": ("QuestionAnswering", "albert",
                {**TEXT, "embedding_size": 16}, "ids"),
    "masked": ("MaskedLM", "electra", {**TEXT, "embedding_size": 16}, "ids"),
    "images": ("ImageClassification", "vit", VIEW, "image"),
    "convolutions": ("ImageClassification", "resnet",
                     {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
                     "image"),
    "zero shot": ("ZeroShotImageClassification", "clip",
                  {"text_config": TEXT, "vision_config": VIEW, "projection_dim": 16}, "both"),
    "audio": ("AudioClassification", "wav2vec2", WAVE, "wave"),
    "frames": ("AudioFrameClassification", "wav2vec2", WAVE,
               "wave"),
    "ctc": ("CTC", "hubert", WAVE, "wave"),
    "xvector": ("AudioXVector", "wav2vec2", WAVE, "wave"),
    "gpt2": ("CausalLM", "gpt2", GPT, "text"),
    "llama": ("CausalLM", "llama", LM, "text"),
    "qwen3": ("CausalLM", "qwen3", LM, "text"),
    "phi3": ("CausalLM", "phi3", LM, "text"),
    "mixtral": ("CausalLM", "mixtral",
                {**LM, "num_local_experts": 4, "num_experts_per_tok": 2}, "text"),
    "bloom": ("CausalLM", "bloom",
              {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99}, "text"),
    "t5": ("Seq2SeqLM", "t5", T5, "pair"),
    "bart": ("Seq2SeqLM", "bart", PAIR, "pair"),
    "m2m_100": ("Seq2SeqLM", "m2m_100", PAIR, "pair"),
    "whisper": ("SpeechSeq2Seq", "whisper", WHISPER, "sound"),
    "custom": ("CustomTasks", "roberta", TEXT, "ids"),
    **{kind: ("FeatureExtraction", kind, TEXT, "ids") for kind in (
        "camembert", "deberta", "deberta-v2", "esm", "ibert", "megatron-bert", "mpnet", "rembert", "roformer",
        "squeezebert", "xlm-roberta")},
    "flaubert": ("FeatureExtraction", "flaubert",
                 {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_words": 99}, "ids"),
    **{kind: ("ImageClassification", kind, VIEW, "image") for kind in ("beit", "data2vec-vision", "deit")},
    "convnext": ("ImageClassification", "convnext",
                 {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}, "image"),
    "mobilenet": ("ImageClassification", "mobilenet_v2", {"depth_multiplier": 0.35}, "image"),
    "segformer": ("ImageClassification", "segformer",
                  {"hidden_sizes": [16, 32, 32, 32], "depths": [1, 1, 1, 1],
                   "num_attention_heads": [1, 2, 4, 4], "decoder_hidden_size": 16}, "image"),
    "swin": ("ImageClassification", "swin",
             {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4],
              "window_size": 4}, "image"),
    **{kind: ("AudioClassification", kind, WAVE, "wave") for kind in (
        "data2vec-audio", "sew", "unispeech", "wavlm")},
    **{kind: ("CausalLM", kind, LM, "text") for kind in (
        "arcee", "cohere", "gemma", "gemma2", "gemma3_text", "glm", "granite", "mistral", "olmo", "olmo2",
        "phi", "qwen2", "stablelm", "starcoder2")},
    **{kind: ("CausalLM", kind, {**GPT, "rotary_dim": 4}, "text") for kind in (
        "codegen", "gpt_bigcode", "gptj")},
    "gpt_neox": ("CausalLM", "gpt_neox", TEXT, "text"),
    "opt": ("CausalLM", "opt", {**PAIR, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                                "ffn_dim": 64, "word_embed_proj_dim": 32}, "text"),
    "falcon": ("CausalLM", "falcon", {**TEXT, "bos_token_id": 1, "eos_token_id": 2}, "text"),
    "mpt": ("CausalLM", "mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 99}, "text"),
    "qwen3_moe": ("CausalLM", "qwen3_moe", {**LM, "num_experts": 4, "num_experts_per_tok": 2,
                                            "moe_intermediate_size": 16}, "text"),
    **{kind: ("Seq2SeqLM", kind, PAIR, "pair") for kind in ("blenderbot", "marian", "mbart", "pegasus")},
    **{kind: ("Seq2SeqLM", kind, T5, "pair") for kind in ("longt5", "mt5")},
}  # fmt: skip
#: What transformers calls otherwise, or has no class for.
OTHER = {"CustomTasks": "SequenceClassification", "ZeroShotImageClassification": "", "FeatureExtraction": ""}


def module_of(task, kind, sizes):
    torch.manual_seed(SEED)
    config = transformers.AutoConfig.for_model(kind, **sizes)
    make = getattr(transformers, f"AutoModelFor{OTHER.get(task, task)}", transformers.AutoModel)
    return make.from_config(config).eval()


def given_to(what):
    torch.manual_seed(SEED)
    ids = torch.randint(3, 90, (2, 9))
    mask = torch.ones_like(ids)
    pixels = torch.rand(2, 3, 32, 32)
    return {
        "ids": {"input_ids": ids, "attention_mask": mask}, "image": {"pixel_values": pixels},
        "both": {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels},
        "wave": {"input_values": torch.randn(1, 800)}, "text": {"input_ids": ids, "attention_mask": mask},
        "pair": {"input_ids": ids, "attention_mask": mask},
        "sound": {"input_features": torch.randn(1, 16, 3000)},
    }[what]  # fmt: skip


def results(model, what):
    """The first outputs, and the tokens that are generated where it generates."""
    given = given_to(what)
    if what in ("text", "pair", "sound"):
        made = model.generate(**given, max_new_tokens=6, min_new_tokens=6, do_sample=False)
        out = {"tokens": made.tolist()}
        if what == "text":
            out["logits"] = flat(model(**given).logits)
        return out
    names = {"both": ["logits_per_image"], "wave": ["logits"]}.get(what)
    made = model(**{k: v for k, v in given.items() if k in model.input_names or what == "both"})
    return {k: flat(v) for k, v in made.items() if isinstance(v, torch.Tensor) and (not names or k in names)}


def flat(tensor):
    return [list(tensor.shape), [round(float(v), 5) for v in tensor.float().flatten()[:400]]]


def run(name, folder):
    task, kind, sizes, what = CASES[name]
    wrapper = getattr(intel, f"OVModelFor{task}")
    module = module_of(task, kind, sizes)
    plain, kept = folder / name / "torch", folder / name / "ir"
    module.save_pretrained(plain)
    options = {"export": True, "compile": False, "ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}
    more = {"task": "text-classification"} if name == "custom" else {}
    model = wrapper.from_pretrained(plain, **options, **more)
    model.save_pretrained(kept)
    again = wrapper.from_pretrained(kept, ov_config=options["ov_config"])
    with torch.no_grad():
        out = results(again, what)
        wanted = results(module, what) if what in ("text", "pair", "sound") else None
    if wanted:
        out["as in PyTorch"] = wanted["tokens"] == out["tokens"]
    return out


print_results(CASES, run)
