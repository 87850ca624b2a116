"""transformers' pipelines with optimum-intel's models, models of fixed shape, and options of compilation.
Small random networks are exported and run beside PyTorch. Prints a line of JSON: case -> how far apart.

    python optimum_pipelines.py FOLDER [case ...]
"""

import warnings

import numpy as np
import torch
import transformers as hf
from cases import print_results
from optimum.intel import openvino as intel
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

warnings.simplefilter("ignore")
hf.logging.set_verbosity_error()
SEED = 20261127
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**SIZES, "vocab_size": 99, "max_position_embeddings": 64, "pad_token_id": 0}
LM = {**TEXT, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
VIEW = {**SIZES, "image_size": 32, "patch_size": 8}
CLIP = {"text_config": {**TEXT, "bos_token_id": 1, "eos_token_id": 2}, "vision_config": VIEW,
        "projection_dim": 16}  # fmt: skip
WAVE = {**TEXT, "conv_dim": [16, 16], "conv_stride": [5, 4], "conv_kernel": [10, 4],
        "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4}  # fmt: skip
ENTAILED = {"num_labels": 3, "label2id": {"entailment": 0, "neutral": 1, "contradiction": 2},
            "id2label": {0: "entailment", 1: "neutral", 2: "contradiction"}}  # fmt: skip
WORDS = "w9 w10 w44 w50 w7"
LABELS = {"candidate_labels": ["w7", "w9 w10"], "hypothesis_template": "w3 {}"}
PICTURE = Image.fromarray(np.random.default_rng(SEED).integers(0, 255, (40, 48, 3), np.uint8))
GREEDY = {"max_new_tokens": 5, "do_sample": False}
BEAMS = {**GREEDY, "num_beams": 3, "num_return_sequences": 2}
#: Case -> name of the pipeline, class of optimum-intel, network, its sizes, what is given.
PIPELINES = {
    "text": ("text-classification", "SequenceClassification", "bert", TEXT, WORDS, {}),
    "texts": ("text-classification", "SequenceClassification", "roberta", {**TEXT, "num_labels": 3},
              [WORDS, "w3 w4"], {"top_k": None, "batch_size": 2, "padding": True}),
    "entailment": ("zero-shot-classification", "SequenceClassification", "bert", {**TEXT, **ENTAILED}, WORDS,
                   LABELS),
    "tokens": ("token-classification", "TokenClassification", "bert", TEXT, WORDS, {}),
    "mask": ("fill-mask", "MaskedLM", "bert", TEXT, "w9 w4 w10", {}),
    "features": ("feature-extraction", "FeatureExtraction", "bert", TEXT, WORDS, {}),
    "greedy": ("text-generation", "CausalLM", "llama", LM, WORDS, GREEDY),
    "beams": ("text-generation", "CausalLM", "llama", LM, WORDS, BEAMS),
    "image": ("image-classification", "ImageClassification", "vit", VIEW, PICTURE, {}),
    "labels": ("zero-shot-image-classification", "ZeroShotImageClassification", "clip", CLIP, PICTURE,
               LABELS),
}  # fmt: skip
#: Case -> class of optimum-intel, network, its sizes, the shape of its first input.
FIXED = {
    "fixed text": ("SequenceClassification", "bert", TEXT, (2, 9)),
    "fixed image": ("ImageClassification", "vit", VIEW, (1, 3, 32, 32)),
    "fixed wave": ("CTC", "wav2vec2", WAVE, (1, 800)),
}
OPTIONS = {
    "latency": {"PERFORMANCE_HINT": "LATENCY"},
    "throughput": {"PERFORMANCE_HINT": "THROUGHPUT"},
    "streams": {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"},
    "cache": {"CACHE_DIR": "cache"},
}
#: What transformers has no class of the same name for.
PLAIN = ("FeatureExtraction", "ZeroShotImageClassification")


def saved(task, kind, sizes, folder):
    torch.manual_seed(SEED)
    config = hf.AutoConfig.for_model(kind, **sizes)
    make = hf.AutoModel if task in PLAIN else getattr(hf, f"AutoModelFor{task}")
    module = make.from_config(config).eval()
    with torch.no_grad():
        for weights in module.parameters():  # random weights of the usual size choose the same token always
            if weights.ndim > 1:
                weights.mul_(3)
    module.save_pretrained(folder)
    return module, getattr(intel, f"OVModelFor{task}")


def words():
    """A tokenizer of 99 words."""
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(99)}, unk_token="w3"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = ("pad", "bos", "eos", "unk", "mask", "sep", "cls")
    marks = {f"{mark}_token": f"w{i}" for i, mark in enumerate(marks)}
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=32, **marks)


def apart(ours, theirs):
    """The largest difference of numbers in results of one structure, whose texts are the same."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), (ours, theirs)
        return max(apart(ours[key], value) for key, value in theirs.items())
    if isinstance(theirs, (list, tuple)):
        return max(apart(a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(theirs, (float, np.floating)):
        return abs(float(ours) - float(theirs))
    assert ours == theirs, (ours, theirs)
    return 0.0


def largest(ours, theirs):
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours - theirs).abs().max())


def pipelined(folder, name, task, kind, sizes, given, asked):
    module, wrapper = saved(task, kind, sizes, folder / "torch")
    size = {"height": 32, "width": 32}
    parts = {"tokenizer": words()} if task != "ImageClassification" else {}
    if kind in ("vit", "clip"):
        parts["image_processor"] = hf.ViTImageProcessor(size=size)
    model = wrapper.from_pretrained(folder / "torch", export=True, ov_config=EXACT)
    ours, theirs = (hf.pipeline(name, model=each, **parts)(given, **asked) for each in (model, module))
    return {"apart": apart(ours, theirs)}


def fixed(folder, task, kind, sizes, shape):
    module, wrapper = saved(task, kind, sizes, folder / "torch")
    model = wrapper.from_pretrained(folder / "torch", export=True, compile=False, ov_config=EXACT)
    model.reshape(*shape)
    model.save_pretrained(folder / "ir")
    loaded = wrapper.from_pretrained(folder / "ir", ov_config=EXACT)
    model.compile()
    name = module.main_input_name
    given = {name: torch.randint(3, 90, shape) if name == "input_ids" else torch.rand(shape)}
    if name == "input_ids":
        given |= {
            "attention_mask": torch.ones(shape, dtype=int),
            "token_type_ids": torch.zeros(shape, dtype=int),
        }
    static = all(not port.get_partial_shape().is_dynamic for port in model.model.inputs)
    with torch.no_grad():
        wanted = module(**given).logits
        return {
            "apart": max(largest(each(**given).logits, wanted) for each in (model, loaded)),
            "static": static,
        }


def with_options(folder, options):
    module, wrapper = saved("CausalLM", "llama", LM, folder / "torch")
    wrapper.from_pretrained(folder / "torch", export=True, compile=False).save_pretrained(folder / "ir")
    ids = torch.randint(3, 90, (2, 7))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    chosen = {k: str(folder / v) if k == "CACHE_DIR" else v for k, v in options.items()}
    with torch.no_grad():
        wanted, found = module(**given).logits, 0.0
        for _ in range(2):
            model = wrapper.from_pretrained(folder / "ir", ov_config={**EXACT, **chosen})
            found = max(found, largest(model(**given).logits, wanted))
    kept = not options.get("CACHE_DIR") or any((folder / "cache").iterdir())
    return {"apart": found, "kept": kept}


def run(name, folder):
    where = folder / name.replace(" ", "_")
    if name in PIPELINES:
        return pipelined(where, *PIPELINES[name])
    return fixed(where, *FIXED[name]) if name in FIXED else with_options(where, OPTIONS[name])


print_results({**PIPELINES, **FIXED, **OPTIONS}, run)
