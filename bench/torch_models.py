"""PyTorch's model collections, converted by ovjit and by OpenVINO and compared with eager mode.

    python -m bench.torch_models {torchvision,timm,transformers} [name ...] [--packages ovjit openvino]
                                 [--form {module,program,script}] [--kinds] [--no-run] [--json out.json]

torchvision: every model that it lists. timm: 100 models, the smallest of each of its modules first.
transformers: small random networks of `ARCHITECTURES`, made from configurations. Nothing is downloaded. A
model is right if it converts, compiles and gives eager mode's numbers within 1e-4 of the largest. Rows of
detections are compared in any order, those that eager mode also gives in f64 and for inputs with noise, and
detectors have weights by which scores differ. Transformers are compared at another batch and length than the
example's, too, torchvision's models at another batch, and detectors with an image of another size. The second
number is the CPU time of `convert_model`. `--form program` hands over what `torch.export` makes of the
module, with an open batch and length, `--form script` what `torch.jit.script` makes of it. `--kinds` prints
the types of operations of which there are other numbers.
`--no-run` only converts. Each model runs in a process of its own.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import inspect
import json
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

SEED = 20261122
TOLERANCE = 1e-4
#: Seconds for one model.
LIMIT = 900
PACKAGES = ("ovjit", "openvino")
FORMS = ("module", "program", "script")
#: A model that is made from a configuration has at most this many parameters.
MOST_PARAMETERS = 40_000_000
MODELS_OF_TIMM = 100
#: Sides of the images that timm's models are tried with, the smallest that a model takes.
SIDES = (64, 96, 128, 160, 224)
#: Model types of transformers.
ARCHITECTURES = (
    "albert", "align", "arcee", "audio-spectrogram-transformer", "bart", "beit", "bert", "big_bird",
    "blenderbot", "bloom", "camembert", "clip", "codegen", "cohere", "cohere2", "convbert", "convnext",
    "cvt", "data2vec-text", "deberta", "deberta-v2", "deit", "dinov2", "distilbert", "electra", "esm",
    "falcon", "flaubert", "fnet", "funnel", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2",
    "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite", "granitemoe", "hubert", "ibert", "layoutlm",
    "levit", "llama", "longt5", "m2m_100", "mamba", "marian", "mbart", "mistral", "mixtral", "mobilebert",
    "mobilevit", "modernbert", "mpnet", "mpt", "mt5", "nystromformer", "olmo", "olmo2", "opt", "pegasus",
    "perceiver", "persimmon", "phi", "phi3", "poolformer", "pvt", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "regnet", "rembert", "resnet", "roberta", "roformer", "segformer", "sew", "smollm3",
    "squeezebert", "stablelm", "starcoder2", "swin", "swinv2", "t5", "vit", "vit_mae", "wav2vec2",
    "whisper", "xglm", "xlm-roberta", "xlnet", "yolos", "bamba", "bigbird_pegasus", "biogpt", "bit",
    "blenderbot-small", "canine", "convnextv2", "ctrl", "data2vec-audio", "data2vec-vision", "deepseek_v3",
    "detr", "dpt", "efficientnet", "ernie", "falcon_h1", "falcon_mamba", "focalnet", "jamba", "led",
    "lfm2", "longformer", "luke", "mamba2", "megatron-bert", "mobilenet_v2", "mra", "mvp", "olmoe",
    "openai-gpt", "phimoe", "plbart", "prophetnet", "recurrent_gemma", "reformer", "rwkv", "seed_oss",
    "siglip", "speech_to_text", "splinter", "switch_transformers", "timesformer", "umt5", "unispeech",
    "videomae", "vilt", "wavlm", "xlm", "xmod", "yoso",
)  # fmt: skip
#: What makes a configuration small, where it has the attribute.
SMALL = {
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "embed_dim": 32, "embedding_size": 32,
    "num_hidden_layers": 2, "num_layers": 2, "n_layer": 2, "n_layers": 2, "encoder_layers": 2,
    "decoder_layers": 2, "num_decoder_layers": 2, "num_attention_heads": 4, "num_heads": 4, "n_head": 4,
    "n_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "d_ff": 64, "ffn_dim": 64, "n_inner": 64, "hidden_dim": 64, "encoder_ffn_dim":
    64, "decoder_ffn_dim": 64, "ffn_hidden_size": 64, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16, "vocab_size": 99, "max_position_embeddings": 128, "n_positions":
    128, "d_kv": 8, "head_dim": 8, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
    "n_ctx": 128, "image_size": 32, "patch_size": 8, "rotary_dim": 8, "attention_types": [[["global",
    "local"], 1]], "layer_types": None, "rotary_pct": 1.0, "max_source_positions": 50, "num_mel_bins": 16,
    "pad_token_id": 0, "sliding_window": 8, "max_length": 32, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1, "num_codevectors_per_group": 8, "d_latents": 32, "num_latents": 8,
    "true_hidden_size": 32, "intra_bottleneck_size": 16, "bottleneck_size": 16, "block_sizes": [1, 1],
    "attention_window": 8, "time_step_rank": 4, "state_size": 4, "emb_dim": 32, "num_conv_pos_embeddings":
    16, "num_conv_pos_embedding_groups": 4, "max_seq_len": 128, "input_embedding_size": 32, "nb_heads": 4,
    "hidden_dropout": 0.0, "block_size": 4, "num_random_blocks": 1, "attention_type": "original_full",
    "global_rotary_base": 10000.0, "d_head": 8, "d_inner": 64, "max_2d_position_embeddings": 128,
}  # fmt: skip


def names_of(collection: str) -> list[str]:
    """The models of a collection that are asked for without names."""
    if collection == "torchvision":
        import torchvision

        return list(torchvision.models.list_models())
    return _timm_names() if collection == "timm" else list(ARCHITECTURES)


def _timm_names() -> list[str]:
    """The smallest model of each module of timm's among those with the shortest names, then the second ones,
    none with too many parameters."""
    import timm
    import torch

    first, second = [], []
    for module in timm.list_modules():
        found = []
        for name in sorted(timm.list_models(module=module), key=lambda n: (len(n), n))[:8]:
            try:
                with torch.device("meta"):
                    found.append((sum(p.numel() for p in timm.create_model(name).parameters()), name))
            except Exception:
                continue
        names = [name for count, name in sorted(found) if count <= MOST_PARAMETERS]
        first += names[:1]
        second += names[1:2]
    return (first + second)[:MODELS_OF_TIMM]


def built(collection: str, name: str) -> tuple[Any, Any]:
    """A model with random weights, and an example of its inputs."""
    import torch

    torch.manual_seed(SEED)
    module, example = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[collection](
        name
    )
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        if parameter.dim() == 1:  # factors of 1 and terms of 0 would be left out
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.running_var is not None:
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.8, 1.2)
    return module.eval(), example


def _torchvision(name: str) -> tuple[Any, Any]:
    import torch
    import torchvision

    builder = torchvision.models.get_model_builder(name)
    given: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        given["weights_backbone"] = None
    size = 299 if "inception" in name else 256 if "maxvit" in name else 64
    if name.startswith("vit_"):
        given["image_size"], size = 56 if name.endswith("14") else 64, 56 if name.endswith("14") else 64
    if name.startswith("maxvit"):
        given["input_size"], size = (224, 224), 224
    if name.startswith("quantized_"):
        given["quantize"] = True
    if name.startswith("raft"):
        return builder(weights=None), (torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128))
    if any(kind in name for kind in DETECTORS):
        example = ([torch.rand(3, 128, 128)],)
        return _with_spread_scores(builder(**given).eval(), example), example
    if name in VIDEO or name.startswith(("mvit", "swin3d")):
        frames = 16 if name.startswith(("mvit", "s3d")) else 8
        side = 224 if name.startswith(("mvit", "s3d")) else 64
        return builder(weights=None), (torch.rand(1, 3, frames, side, side),)
    return builder(**given), (torch.rand(1, 3, size, size),)


def _with_spread_scores(module: Any, example: Any) -> Any:
    """The detector, its layers scaled until their results differ: equal scores have no order."""
    import torch

    def spread(layer: Any, _: Any, out: Any) -> Any:
        factor = 2 / float(out.std()) if out.numel() > 1 else 1.0
        layer.weight.mul_(factor)
        return out * factor

    layers = (torch.nn.Conv2d, torch.nn.Linear)
    hooks = [part.register_forward_hook(spread) for part in module.modules() if isinstance(part, layers)]
    with torch.no_grad():
        module(*example)
    for hook in hooks:
        hook.remove()
    return module


#: Models of torchvision that find things: their outputs have a row for each.
DETECTORS = ("rcnn", "ssd", "retinanet", "fcos")
#: Models of torchvision that take films.
VIDEO = ("r3d_18", "mc3_18", "r2plus1d_18", "s3d")


def _timm(name: str) -> tuple[Any, Any]:
    import timm
    import torch

    for side in SIDES:
        for more in ({"img_size": side}, {}):
            try:
                module = timm.create_model(name, pretrained=False, **more)
                example = (torch.rand(1, module.default_cfg["input_size"][0], side, side),)
                with torch.no_grad():
                    module.eval()(*example)
            except Exception:
                continue
            return module, example
    module = timm.create_model(name, pretrained=False)
    return module, (torch.rand(1, *module.default_cfg["input_size"]),)


def _transformers(name: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(name)
    for part in [config, *(v for v in vars(config).values() if hasattr(v, "to_diff_dict"))]:
        _shrink(part)
    module = AutoModel.from_config(config, attn_implementation="eager" if name in EAGER else None)
    ids = torch.randint(3, 90, (1, 12))
    kind = module.main_input_name
    if kind == "input_ids":
        example: dict[str, Any] = {"input_ids": ids}
        if config.is_encoder_decoder:
            example["decoder_input_ids"] = ids[:, :6].clone()
        if hasattr(config, "vision_config") or name == "vilt":
            side = getattr(config, "vision_config", config).image_size
            example["pixel_values"] = torch.rand(1, 3, side, side)
    elif kind == "pixel_values":
        side = getattr(config, "image_size", 64)
        side = side if isinstance(side, int) else side[0]
        frames = (config.num_frames,) if hasattr(config, "num_frames") else ()
        example = {"pixel_values": torch.rand(1, *frames, 3, side, side)}
    elif kind == "input_features":
        shape = (1, 16, 100) if name == "whisper" else (1, 100, config.input_feat_per_channel)
        example = {"input_features": torch.rand(shape), "decoder_input_ids": ids[:, :6].clone()}
    elif name == "audio-spectrogram-transformer":
        example = {"input_values": torch.rand(1, config.max_length, config.num_mel_bins)}
    elif kind == "inputs":
        example = {"inputs": torch.rand(1, 10, getattr(config, "d_model", 32))}
    else:
        example = {"input_values": torch.rand(1, 2000)}
    if getattr(config, "use_cache", None):
        config.use_cache = False
        for part in module.modules():
            if hasattr(getattr(part, "config", None), "use_cache"):
                part.config.use_cache = False
    return module, example


#: Architectures without the default way of attention.
EAGER = ("gpt_neo",)


def _shrink(config: Any) -> None:
    for key, value in SMALL.items():
        if hasattr(config, key) and not callable(getattr(config, key)):
            if (
                isinstance(getattr(config, key), (list, tuple))
                and not isinstance(value, list)
                and value is not None
            ):
                continue
            if key == "layer_types":
                if getattr(config, key) is not None:
                    config.layer_types = list(config.layer_types)[: config.num_hidden_layers]
                continue
            try:
                setattr(config, key, value)
            except Exception:
                continue


def at_other_sizes(module: Any, example: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a transformer for two samples, of another length where the module takes that."""
    import torch

    def resized(tensor: Any, longer: bool) -> Any:
        shape = [2, *tensor.shape[1:]]
        if longer and (tensor.dim() == 2 or tensor.shape[-1] == shape[1]):
            shape[1:] = [n + n // 3 for n in shape[1:]]
        whole = not tensor.is_floating_point()
        return torch.randint(3, 90, shape) if whole else torch.rand(shape)

    for longer in (True, False):
        other = {key: resized(value, longer and key != "pixel_values") for key, value in example.items()}
        try:
            with torch.no_grad():
                module(**other)
        except Exception:
            continue
        return other
    return example


def with_other_batch(example: Any) -> Any:
    """The inputs of a model of torchvision for two samples. A list of images has one, of other sides."""
    import torch

    if isinstance(example[0], list):
        return ([torch.rand(3, 160, 128)],)
    return tuple(torch.rand(2, *tensor.shape[1:]) for tensor in example)


def in_form(form: str, module: Any, example: Any, other: Any) -> tuple[Any, Any]:
    """What is converted, and the example that goes with it. A program is made with `other`: an exported
    dimension of 1 is not open."""
    import torch

    if form == "module":
        return module, example
    if form == "script":
        return torch.jit.script(module), example
    if isinstance(example, dict):
        given = other or example
        opened = {
            key: {i: torch.export.Dim.AUTO for i, n in enumerate(tensor.shape) if n != given[key].shape[i]}
            for key, tensor in example.items()
        }
        return torch.export.export(module, (), given, dynamic_shapes=opened), None
    if isinstance(example[0], list):
        return torch.export.export(module, example), None
    opened = tuple({0: torch.export.Dim.AUTO} for _ in example)
    return torch.export.export(module, other or example, dynamic_shapes=opened), None


def tensors_of(made: Any) -> list[Any]:
    """The tensors of what a module gives, in order."""
    import torch
    from torch.utils import _pytree as tree

    return [leaf for leaf in tree.tree_leaves(dict(made) if hasattr(made, "keys") else made)
            if isinstance(leaf, torch.Tensor)]  # fmt: skip


def difference(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> str:
    """What is wrong with results, an empty text for nothing."""
    if len(got) != len(wanted):
        return f"{len(got)} outputs, not {len(wanted)}"
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        if a.shape != b.shape:
            return f"output {i}: shape {a.shape}, not {b.shape}"
        if not b.size:
            continue
        scale = max(1.0, float(np.abs(np.nan_to_num(b.astype(np.float64))).max()))
        most = np.abs(a.astype(np.float64) - b)
        if (
            not (np.nan_to_num(most, posinf=np.inf) <= TOLERANCE * scale).all()
            or np.isnan(a).any() != np.isnan(b).any()
        ):
            return f"output {i}: differs by {np.nanmax(most):.3g} of {scale:.3g}"
    return ""


def in_order_of(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rows of detections in the order of the wanted ones: scores that differ by rounding change places."""
    if len(got) != len(wanted) or any(not a.ndim or a.shape[1:] != b.shape[1:]
                                      for a, b in zip(got, wanted, strict=True)):  # fmt: skip
        return list(got)
    if not len(got[0]) or not len(wanted[0]):
        return list(got)

    def rows(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([v.reshape(len(v), -1) for v in values if v.ndim < 3], 1).astype(np.float64)

    theirs = rows(got)
    places = [int(np.abs(theirs - row).sum(1).argmin()) for row in rows(wanted)]
    return [v[places] for v in got]


#: A row counts as stable if perturbed runs of eager mode stay within this part of the tolerance.
STEADY = 0.25
#: Standard deviation of what is added to the inputs, some roundings of f32, and how often.
NOISE, TRIALS = 1e-6, 3


def stable_rows(module: Any, example: Any, wanted: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The detections that eager mode also gives in f64 and for inputs with noise: to suppress a box, and the
    place of a key point, are decisions that rounding can turn, and untrained networks amplify it."""
    import copy

    import torch
    from torch.utils import _pytree as tree

    drawn = torch.Generator().manual_seed(SEED)

    def noisy(value: Any) -> Any:
        return value + NOISE * torch.randn(value.shape, generator=drawn)

    runs = [(copy.deepcopy(module).double(), tree.tree_map(lambda t: t.double(), example))]
    runs += [(module, tree.tree_map(noisy, example)) for _ in range(TRIALS)]
    kept = np.ones(len(wanted[0]), bool)
    for changed, given in runs:
        with torch.no_grad():
            made = in_order_of([t.numpy() for t in tensors_of(changed(*given))], wanted)
        for a, b in zip(made, wanted, strict=True):
            if a.shape != b.shape:
                return [v[:0] for v in wanted]
            limit = STEADY * TOLERANCE * max(1.0, float(np.abs(b).max(initial=0)))
            kept &= (np.abs(a - b) <= limit).reshape(len(b), -1).all(1)
    return [v[kept] for v in wanted]


def ask(
    package: Any, module: Any, example: Any, other: Any = None, detections: bool = False, runs: bool = True,
    form: str = "module",
) -> dict[str, Any]:  # fmt: skip
    """What a package makes of one model; that it converts is all that is asked unless it `runs`.

    The model is made of `example` and run with that and with `other`.
    """
    import torch
    from torch.utils import _pytree as tree

    examples = [example] if other is None else [example, other]
    wanted = []
    for given in examples:
        with torch.no_grad():
            made = module(**given) if isinstance(given, dict) else module(*given)
        wanted.append([t.numpy().copy() for t in tensors_of(made)])
    if detections and runs:
        wanted = [stable_rows(module, *pair) for pair in zip(examples, wanted, strict=True)]
    try:
        with torch.no_grad():
            given, shown = in_form(form, module, example, other)
    except Exception as error:
        return {"state": "left out", "reason": f"{type(error).__name__}: {str(error)[:500]}"}
    before = time.process_time()
    try:
        model = package.convert_model(given, example_input=shown)
        seconds = time.process_time() - before
        kinds = collections.Counter(node.get_type_name() for node in model.get_ops())
        answer = {"state": "right", "reason": "", "convert_s": seconds, "kinds": dict(kinds)}
        if not runs:
            return answer
        compiled = package.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except Exception as error:
        return {"state": "refused", "reason": f"{type(error).__name__}: {str(error)[-1500:]}"}
    for given, values in zip(examples, wanted, strict=True):
        at = "" if given is example else "at other sizes: "
        try:
            result = compiled([t.numpy() for t in tree.tree_leaves(given)])
        except Exception as error:
            return {**answer, "state": "fails", "reason": f"{at}{type(error).__name__}: {str(error)[-1500:]}"}
        got = [np.array(result[i]) for i in range(len(compiled.outputs))]
        if detections:
            got = in_order_of(got, values)
        if wrong := difference(got, values):
            return {**answer, "state": "wrong", "reason": at + wrong}
    return {**answer, "reason": f"{len(wanted[0][0])} rows" if detections else ""}


def _one(package: str, collection: str, name: str, runs: bool, form: str, pipe: Any) -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        module, example = built(collection, name)
    except Exception as error:
        pipe.send({"state": "left out", "reason": f"{type(error).__name__}: {str(error)[:500]}"})
        return
    try:
        detections = collection == "torchvision" and any(kind in name for kind in DETECTORS)
        other = None
        if collection != "timm":
            resize = at_other_sizes if collection == "transformers" else lambda _, e: with_other_batch(e)
            other = resize(module, example)
        pipe.send(ask(importlib.import_module(package), module, example, other, detections, runs, form))
    except Exception as error:
        pipe.send({"state": "left out", "reason": f"{type(error).__name__}: {str(error)[:500]}"})


def alone(function: Callable[..., None], *arguments: Any, limit: float = LIMIT) -> dict[str, Any]:
    """What `function` sends through its last argument, a pipe, from a process of its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(False)
    process = context.Process(target=function, args=(*arguments, theirs))
    process.start()
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(limit) else {"state": "crashed", "reason": f"more than {limit} s"}
    except EOFError:
        process.join()
        answer = {"state": "crashed", "reason": f"the process ended with {process.exitcode}"}
    process.kill()
    process.join()
    return dict(answer)


def differing(ours: dict[str, int], theirs: dict[str, int]) -> str:
    """Types of operations whose numbers differ: ours-theirs."""
    return " ".join(
        f"{kind}:{ours.get(kind, 0)}-{theirs.get(kind, 0)}"
        for kind in sorted(ours.keys() | theirs.keys())
        if ours.get(kind, 0) != theirs.get(kind, 0)
    )


def report(found: dict[str, dict[str, Any]], packages: Sequence[str], kinds: bool) -> None:
    """One line for each model, and the sums."""
    ratios = []
    for name, by in found.items():
        cells = [
            f"{by[p]['state']:>9} {by[p].get('convert_s', float('nan')):8.2f}" for p in packages if p in by
        ]
        print(f"{name:44}", *cells)
        if len(packages) == 2 and all("convert_s" in by[p] for p in packages):
            ratios.append(by[packages[0]]["convert_s"] / by[packages[1]]["convert_s"])
            if kinds and (told := differing(by[packages[0]]["kinds"], by[packages[1]]["kinds"])):
                print("   ", told)
    for package in packages:
        asked = [by[package] for by in found.values() if by[package]["state"] != "left out"]
        print(f"{package}: {sum(a['state'] == 'right' for a in asked)} of {len(asked)} right")
    if ratios:
        print(f"CPU time of convert_model, {' / '.join(packages)}: median {statistics.median(ratios):.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collection", choices=("torchvision", "timm", "transformers"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--packages", nargs="+", default=list(PACKAGES), choices=PACKAGES)
    parser.add_argument("--form", default="module", choices=FORMS)
    parser.add_argument("--kinds", action="store_true")
    parser.add_argument("--no-run", action="store_true")
    parser.add_argument("--json", help="a file for all answers; one that exists is continued")
    given = parser.parse_args(arguments)
    for package in ("torch", given.collection, *given.packages):
        importlib.import_module(package)
    found: dict[str, dict[str, Any]] = {}
    if given.json and os.path.exists(given.json):
        with open(given.json) as file:
            found = json.load(file)
    for name in given.names or names_of(given.collection):
        by = found.setdefault(name, {})
        for package in given.packages:
            if package not in by:
                by[package] = alone(_one, package, given.collection, name, not given.no_run, given.form)
            answer = by[package]
            print(name, package, answer["state"], answer["reason"][-300:], file=sys.stderr, flush=True)
        if given.json:
            with open(given.json, "w") as file:
                json.dump(found, file, indent=1)
    report(found, given.packages, given.kinds)


if __name__ == "__main__":
    main()
