"""optimum-intel's quantisation: weights of a decoder, and networks by calibration. Prints a line of JSON:
case -> types of the large constants, FakeQuantize nodes, and the first logits.

    python optimum_quantized.py FOLDER
"""

import collections
import json
import math
import sys
import warnings
from pathlib import Path

import nncf
import torch
import transformers as hf
from optimum.intel import OVConfig, OVQuantizationConfig, OVQuantizer, OVWeightQuantizationConfig
from optimum.intel import openvino as intel

warnings.simplefilter("ignore")
hf.logging.set_verbosity_error()
SEED = 20261124
#: OpenVINO quantises what goes into compressed products, unless it is told.
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WEIGHTS = {
    "8 bits": {"bits": 8},
    "4 bits": {"bits": 4, "sym": True, "group_size": 16, "ratio": 0.8},
    "4 bits with zero points": {"bits": 4, "sym": False, "group_size": -1},
    "mxfp4": {"bits": 4, "dtype": "mxfp4", "group_size": 32},
}
CALIBRATED = {
    "bert": ("SequenceClassification", "bert", {**SIZES, "vocab_size": 99}),
    "vit": ("ImageClassification", "vit", {**SIZES, "image_size": 32, "patch_size": 8}),
    "resnet": ("ImageClassification", "resnet",
               {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}),
}  # fmt: skip


def module_of(task, kind, sizes, folder):
    torch.manual_seed(SEED)
    config = hf.AutoConfig.for_model(kind, **sizes)
    module = getattr(hf, f"AutoModelFor{task}").from_config(config).eval()
    module.save_pretrained(folder)
    return getattr(intel, f"OVModelFor{task}")


def told(model, given):
    nodes = model.model.get_ops()
    kinds = collections.Counter(
        node.get_element_type().get_type_name()
        for node in nodes
        if node.get_type_name() == "Constant" and math.prod(node.get_output_shape(0)) > 64
    )
    with torch.no_grad():
        logits = model(**given).logits
    return {"constants": dict(sorted(kinds.items())), "logits": logits.flatten()[:40].tolist(),
            "fake": sum(node.get_type_name() == "FakeQuantize" for node in nodes)}  # fmt: skip


def of_weights(folder, how):
    sizes = {**SIZES, "vocab_size": 99, "num_key_value_heads": 2}
    kind = module_of("CausalLM", "llama", sizes, folder / "torch")
    config = OVWeightQuantizationConfig(**how)
    model = kind.from_pretrained(folder / "torch", export=True, compile=False, quantization_config=config)
    model.save_pretrained(folder / "ir")
    ids = torch.randint(3, 90, (2, 9))
    model = kind.from_pretrained(folder / "ir", ov_config=EXACT)
    return told(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def calibrated(folder, task, name, sizes):
    kind = module_of(task, name, sizes, folder / "torch")
    model = kind.from_pretrained(folder / "torch", export=True, compile=False)
    if "ids" in "".join(model.input_names):
        ids = [torch.randint(3, 90, (2, 9)) for _ in range(10)]
        rows = [{"input_ids": x, "attention_mask": torch.ones_like(x), "token_type_ids": torch.zeros_like(x)}
                for x in ids]  # fmt: skip
    else:
        rows = [{"pixel_values": torch.randn(2, 3, 32, 32)} for _ in range(10)]
    config = OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(rows)))
    OVQuantizer.from_pretrained(model).quantize(
        calibration_dataset=nncf.Dataset(rows), ov_config=config, save_directory=folder / "ir"
    )
    return told(kind.from_pretrained(folder / "ir", ov_config=EXACT), rows[0])


def main():
    folder = Path(sys.argv[1])
    found = {name: of_weights(folder / name, how) for name, how in WEIGHTS.items()}
    found.update((name, calibrated(folder / name, *row)) for name, row in CALIBRATED.items())
    print(json.dumps(found))


main()
