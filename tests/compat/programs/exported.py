"""Small models of the architectures that people export, with seeded random weights: by PyTorch as ONNX, by
OpenVINO's converter as IR. Arguments: a folder. Prints the names of the files."""

import json
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import torch
import transformers as t

ENCODER = {
    "vocab_size": 100,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
DECODER = dict(ENCODER, num_key_value_heads=2, use_cache=False, pad_token_id=0)
PICTURE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 64,
    "patch_size": 16,
}
SEQUENCES = {
    "vocab_size": 100,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "use_cache": False,
}


def words(*others):
    tokens = {
        "input_ids": torch.randint(3, 100, (1, 12)),
        "attention_mask": torch.ones(1, 12, dtype=torch.long),
    }
    return {k: tokens[k] for k in ("input_ids", *others)}


def picture(size):
    return {"pixel_values": torch.randn(1, 3, size, size)}


def two():
    return {"input_ids": torch.randint(3, 100, (1, 12)), "decoder_input_ids": torch.randint(3, 100, (1, 5))}


MASK = "attention_mask"
MODELS = {
    "bert": ("BertModel", t.BertConfig(**ENCODER), lambda: words(MASK)),
    "deberta": (
        "DebertaV2Model",
        t.DebertaV2Config(
            **ENCODER, relative_attention=True, position_buckets=16, pos_att_type=["p2c", "c2p"]
        ),
        lambda: words(MASK),
    ),
    "xlnet": (
        "XLNetModel",
        t.XLNetConfig(vocab_size=100, d_model=64, n_layer=2, n_head=4, d_inner=128),
        lambda: words(MASK),
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        t.GPT2Config(vocab_size=100, n_embd=64, n_layer=2, n_head=4, n_positions=64, use_cache=False),
        lambda: words(MASK),
    ),
    "llama": ("LlamaForCausalLM", t.LlamaConfig(**DECODER), lambda: words(MASK)),
    "gemma2": ("Gemma2ForCausalLM", t.Gemma2Config(**DECODER, head_dim=16), lambda: words(MASK)),
    "mamba": (
        "MambaForCausalLM",
        t.MambaConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, state_size=4, use_cache=False),
        words,
    ),
    "t5": (
        "T5Model",
        t.T5Config(vocab_size=100, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, use_cache=False),
        two,
    ),
    "bart": ("BartModel", t.BartConfig(**SEQUENCES, max_position_embeddings=64), two),
    "vit": ("ViTModel", t.ViTConfig(**PICTURE), lambda: picture(64)),
    "swin": (
        "SwinModel",
        t.SwinConfig(
            image_size=64, patch_size=4, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4
        ),
        lambda: picture(64),
    ),
    "segformer": (
        "SegformerForSemanticSegmentation",
        t.SegformerConfig(hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1], decoder_hidden_size=32),
        lambda: picture(128),
    ),
    "convnext": (
        "ConvNextV2Model",
        t.ConvNextV2Config(hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 2, 1]),
        lambda: picture(64),
    ),
    "wav2vec2": (
        "Wav2Vec2ForCTC",
        t.Wav2Vec2Config(
            vocab_size=32,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            conv_dim=(32,) * 7,
        ),
        lambda: {"input_values": torch.randn(1, 8000)},
    ),
}

#: What PyTorch's newer exporter does not take.
UNTRACED = {"xlnet"}


class Positional(torch.nn.Module):
    """The model with its inputs by position; its results are the tensors among its first outputs."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        made = self.model(**dict(zip(self.names, inputs, strict=True)), return_dict=True)
        return tuple(v for v in made.to_tuple() if isinstance(v, torch.Tensor))[:3]


def main(folder):
    for name, (kind, config, inputs) in MODELS.items():
        torch.manual_seed(0)
        given = inputs()
        model = Positional(getattr(t, kind)(config).eval(), list(given)).eval()
        arguments = tuple(given.values())
        np.savez(folder / f"{name}.npz", **{k: v.numpy() for k, v in given.items()})
        with torch.no_grad():
            # a name of its own for each: ONNX Runtime lays out memory by equal ones
            axes = {k: {0: "batch", 1: f"length of {k}"} for k, v in given.items() if v.ndim == 2}
            torch.onnx.export(
                model,
                arguments,
                folder / f"{name}.onnx",
                input_names=list(given),
                dynamic_axes=axes,
                dynamo=False,
                opset_version=17,
            )
            if name not in UNTRACED:
                torch.onnx.export(
                    model,
                    arguments,
                    folder / f"{name}.traced.onnx",
                    input_names=list(given),
                    dynamo=True,
                    external_data=False,
                    verbose=False,
                )
            example = arguments if len(arguments) > 1 else arguments[0]
            ov.save_model(ov.convert_model(model, example_input=example), folder / f"{name}.xml")
    print(json.dumps(sorted(p.name for p in folder.iterdir() if p.suffix in (".onnx", ".xml"))))


main(Path(sys.argv[1]))
