"""VLMPipeline of openvino_genai with small random networks of transformers. The first run exports them by
optimum-intel; a later one reads the same folders. Prints a line of JSON: case -> results.

    python genai_pictures.py FOLDER [case ...]
"""

import warnings

import numpy as np
import openvino as ov
import openvino_genai as genai
from cases import print_results

warnings.simplefilter("ignore")
SEED = 20261130
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
MARKS = ("<pad>", "<s>", "</s>", "<image>", "<video>", "<|im_start|>", "<|im_end|>", "<|vision_start|>",
         "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<start_of_image>", "<image_soft_token>",
         "<end_of_image>")  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096, "pad_token_id": 256,
        "bos_token_id": 257, "eos_token_id": 258, "tie_word_embeddings": False}  # fmt: skip
VIEW = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "image_size": 56, "patch_size": 14}  # fmt: skip
VIEWS = [[56, 112], [112, 56], [112, 112]]


def tokenizer():
    """Bytes, and the marks after them."""
    import transformers as hf
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    table = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    table.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    table.decoder = decoders.ByteLevel()
    special = {"pad_token": MARKS[0], "bos_token": MARKS[1], "eos_token": MARKS[2]}
    made = hf.PreTrainedTokenizerFast(tokenizer_object=table)
    made.add_special_tokens({**special, "additional_special_tokens": list(MARKS[3:])})
    made.chat_template = TEMPLATE
    return made


def number_of(mark):
    return 256 + MARKS.index(mark)


def llava(hf):
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VIEW, projection_dim=32), text_config=text(hf),
        image_token_index=number_of("<image>"), image_seq_length=16,
    )  # fmt: skip
    return config, [hf.CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})]


def llava_next(hf):
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VIEW, projection_dim=32), text_config=text(hf),
        image_token_index=number_of("<image>"), image_grid_pinpoints=VIEWS,
    )  # fmt: skip
    sizes = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    return config, [hf.LlavaNextImageProcessor(**sizes, image_grid_pinpoints=VIEWS)]


def llava_next_video(hf):
    config = hf.LlavaNextVideoConfig(
        vision_config=hf.CLIPVisionConfig(**VIEW, projection_dim=32), text_config=text(hf),
        image_token_index=number_of("<image>"), video_token_index=number_of("<video>"),
        image_grid_pinpoints=VIEWS,
    )  # fmt: skip
    return config, llava_next(hf)[1]


def text(hf):
    return hf.LlamaConfig(**TEXT, vocab_size=256 + len(MARKS))


def qwen(name, **view):
    def make(hf):
        shared = {"depth": 2, "num_heads": 4, "hidden_size": 32, "patch_size": 14, "in_channels": 3,
                  "spatial_merge_size": 2, "temporal_patch_size": 2}  # fmt: skip
        sections = [2, 1, 1] if name == "Qwen3VL" else [1, 1, 2]
        kind = {"rope_type": "default"} if name == "Qwen3VL" else {"type": "mrope"}
        words = {**TEXT, "vocab_size": 256 + len(MARKS), "rope_scaling": {**kind, "mrope_section": sections}}
        marks = {f"{mark}_token_id": number_of(f"<|{mark}|>") for mark in ("vision_start", "vision_end")}
        config = getattr(hf, f"{name}Config")(
            vision_config={**shared, **view}, text_config=words, **marks,
            image_token_id=number_of("<|image_pad|>"), video_token_id=number_of("<|video_pad|>"),
        )  # fmt: skip
        patch = config.vision_config.patch_size
        sizes = {"min_pixels": 16 * patch * patch, "max_pixels": 64 * patch * patch, "patch_size": patch}
        images = hf.Qwen2VLImageProcessor(**sizes)
        if name != "Qwen3VL":
            return config, [images]
        size = {"shortest_edge": 16 * patch * patch, "longest_edge": 128 * patch * patch}
        return config, [images, hf.Qwen3VLVideoProcessor(size=size, patch_size=patch)]

    return make


def gemma3(hf):
    words = {**TEXT, "vocab_size": 256 + len(MARKS), "query_pre_attn_scalar": 8, "sliding_window": 64,
             "layer_types": ["sliding_attention", "full_attention"]}  # fmt: skip
    config = hf.Gemma3Config(
        vision_config={**VIEW, "model_type": "siglip_vision_model"}, text_config=words, mm_tokens_per_image=4,
        image_token_index=number_of("<image_soft_token>"), boi_token_index=number_of("<start_of_image>"),
        eoi_token_index=number_of("<end_of_image>"),
    )  # fmt: skip
    return config, [hf.Gemma3ImageProcessor(size={"height": 56, "width": 56})]


#: Case -> what makes the configuration and the processors, the class of the network, its tag of a picture.
VISION = "<|vision_start|><|image_pad|><|vision_end|>"
CASES = {
    "llava": (llava, "Llava", "<image>"),
    "llava_next": (llava_next, "LlavaNext", "<image>"),
    "llava_next_video": (llava_next_video, "LlavaNextVideo", "<image>"),
    "qwen2_vl": (qwen("Qwen2VL", embed_dim=32, mlp_ratio=2), "Qwen2VL", VISION),
    "qwen2_5_vl": (qwen("Qwen2_5_VL", out_hidden_size=32, intermediate_size=64, window_size=56,
                        fullatt_block_indexes=[1]), "Qwen2_5_VL", VISION),
    "qwen3_vl": (qwen("Qwen3VL", out_hidden_size=32, intermediate_size=64, num_position_embeddings=64,
                      deepstack_visual_indexes=[0, 1]), "Qwen3VL", VISION),
    "gemma3": (gemma3, "Gemma3", "<start_of_image>"),
}  # fmt: skip
VIDEOS = ("llava_next_video", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def export(name, folder):
    """Save a network of random weights, and what optimum-intel and openvino_tokenizers make of it."""
    import openvino_tokenizers
    import torch
    import transformers as hf
    from optimum.intel import OVModelForVisualCausalLM

    make, kind, _ = CASES[name]
    hf.logging.set_verbosity_error()
    torch.manual_seed(SEED)
    config, processors = make(hf)
    module = getattr(hf, f"{kind}ForConditionalGeneration")(config).eval()
    for parameter in module.parameters():
        if parameter.dim() > 1:  # choices of tokens that no rounding changes
            torch.nn.init.normal_(parameter, std=0.25)
    plain = folder.with_name(f"{name}-torch")
    words = tokenizer()
    for part in (module, words, *processors):
        part.save_pretrained(plain)
    model = OVModelForVisualCausalLM.from_pretrained(plain, export=True, compile=False, load_in_8bit=False)
    model.save_pretrained(folder)
    for part in (words, *processors):
        part.save_pretrained(folder)
    files = ("openvino_tokenizer.xml", "openvino_detokenizer.xml")
    models = openvino_tokenizers.convert_tokenizer(words, with_detokenizer=True)
    for file, ir in zip(files, models, strict=True):
        ov.save_model(ir, folder / file)


def picture(height, width, seed, frames=1):
    """A random picture, or a video."""
    rng = np.random.default_rng(seed)
    return ov.Tensor(rng.integers(0, 256, (frames, height, width, 3)).astype(np.uint8))


def programs(name, pipe):
    """(name of a call, function) for each call."""
    tag, short = CASES[name][2], {"max_new_tokens": 8, "ignore_eos": True, "logprobs": 1}
    one, two, wide = picture(80, 66, 3), picture(40, 128, 4), picture(50, 150, 6)

    def call(prompt, **options):
        results = pipe.generate(prompt, **{**short, **options})
        metrics = results.perf_metrics
        return [results.texts, [float(score) for score in results.scores],
                [str(reason) for reason in results.finish_reasons],
                metrics.get_num_input_tokens(), metrics.get_num_generated_tokens()]  # fmt: skip

    yield "text", lambda: call("What is in the image?")
    pictures = {"image": [one], "images": [one, two], "wide": [wide], "three": [two, wide, one]}
    for what, shown in pictures.items():
        yield what, lambda shown=shown: call("Describe the image", images=shown)
    for prompt in (f"{tag} a {tag} b", "a <ov_genai_image_1> b <ov_genai_image_0>", f"a {tag}",
                   "<ov_genai_image_2>", f"{tag} <ov_genai_image_0>"):  # fmt: skip
        yield prompt, lambda prompt=prompt: call(prompt, images=[one, two])
    yield "no template", lambda: call("hello", images=[one], apply_chat_template=False)
    yield "beams", lambda: call("hello", images=[one], num_beams=3, num_return_sequences=2)
    yield "sampled", lambda: call("hello", images=[one], do_sample=True, rng_seed=5, temperature=0.7)
    yield "penalty", lambda: call("hello", images=[one], repetition_penalty=1.4)

    def stream():
        pieces = []
        call("hello", images=[one], streamer=lambda piece: pieces.append(piece))
        return pieces

    yield "stream", stream

    def chat():
        history, answers = genai.ChatHistory(), []
        for prompt, shown in (("hello", [one, two]), ("and now?", []), ("this one?", [wide])):
            history.append({"role": "user", "content": prompt})
            answers.append(call(history, images=shown))
            history.append({"role": "assistant", "content": answers[-1][0][0]})
        return answers

    clip = picture(60, 70, 8, 6)
    yield "video", lambda: call("hello", videos=[clip])
    if name in VIDEOS:
        yield "video and image", lambda: call("hello", videos=[clip], images=[one])
    yield "chat", chat  # last: a text after it would continue it in openvino_genai


def run(name, folder):
    """The results of all calls, or the class of the error that programs catch."""
    path = folder / name
    if not (path / "openvino_tokenizer.xml").exists():
        export(name, path)
    pipe, found = genai.VLMPipeline(path, "CPU", **EXACT), {}
    for what, function in programs(name, pipe):
        try:
            found[what] = function()
        except (RuntimeError, TypeError, ValueError) as error:
            found[what] = next(k.__name__ for k in type(error).__mro__ if k.__module__ == "builtins")
    return found


print_results(CASES, run)
