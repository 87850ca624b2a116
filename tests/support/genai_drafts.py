"""Programs with drafts of DFlash, MTP and EAGLE-3 (of pictures), whose results are compared, and the small models that they read.

    python -m tests.support.genai_drafts tests/genai/drafts.json

runs them on the real packages. The models have the names of nodes that optimum-intel's exports have. All but a few words are unlikely, so some
proposals are accepted.
"""

# the cases are a table
# ruff: noqa: E501
from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench import transformers as nets
from tests.support import ROOT
from tests.support.genai_eagle import EXACT, SIZES
from tests.support.genai_families import WORDS, write_folder
from tests.support.genai_images import Ops, picture
from tests.support.genai_vision import WIDTH, move

#: The layers that drafts read, the word of masks, and the words that texts consist of.
LAYERS, MASK, LIKELY = (1, 4, 8), 5, (73, 81, 264)
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {}, "three": {"num_assistant_tokens": 3}, "one": {"num_assistant_tokens": 1}, "stop": {"stop_strings": {"so"}},
    "penalty": {"repetition_penalty": 1.3},
    "two tokens": {"max_new_tokens": 2}, "one token": {"max_new_tokens": 1}, "threshold": {"assistant_confidence_threshold": 0.3},
}  # fmt: skip


def favour(package: Any, model: Any) -> None:
    """Let the head of a model choose likely words."""
    product = model.get_results()[0].input_value(0).get_node()
    weights = product.input_value(1).get_node().data
    axis = int(np.argmax(weights.shape))
    gain = np.where(np.isin(np.arange(weights.shape[axis]), LIKELY), 3, 0.01).astype(np.float32)
    gain = gain[:, None] if axis == 0 else gain
    product.input(1).replace_source_output(package.opset13.constant(weights * gain).output(0))


def write_target(package: Any, folder: Path, annotated: bool, shared: int = SIZES.shared) -> None:
    net = nets.Net(package, "dflash")
    model = nets.llama(net, SIZES._replace(shared=shared))
    sums = [node for node in model.get_ordered_ops() if node.get_type_name() == "Add"
            and node.input_value(1).get_node().get_type_name() == "MatMul"]  # fmt: skip
    for i, node in enumerate(sums):
        node.set_friendly_name(f"__module.model.layers.{i // 2}/aten::add/Add_{i % 2}")
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Gather" and node.input_value(0).get_node().get_type_name() == "Constant":
            node.input_value(0).get_node().set_friendly_name("self.model.embed_tokens.weight")
            break
    if annotated:
        places = {
            str(i): {"producer": sums[2 * i + 1].get_friendly_name(), "output_index": 0} for i in LAYERS
        }
        model.set_rt_info(json.dumps({"layers": places}), "hidden_states_decoder_layers")
    favour(package, model)
    package.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)


def write_draft(package: Any, folder: Path, has_embeds: bool, sizes: nets.Sizes = SIZES) -> None:
    """Attention to the features and to all proposed places. `has_embeds`: it has neither words nor a head."""
    net = nets.Net(package, "dflash draft")
    wide, size, ops = sizes.wide, sizes.size, net.ops
    decoder = nets.Decoder(net, sizes._replace(shared=sizes.heads))
    x, read = decoder.x, decoder.ids
    if has_embeds:
        x = read = ops.parameter([-1, -1, wide], np.float32, name="inputs_embeds")
        read.output(0).set_names({"inputs_embeds"})
        decoder.batch = ops.gather(ops.shape_of(read, "i64"), net.ints(0), decoder.zero)
    states = ops.parameter([-1, -1, wide * len(LAYERS)], np.float32, name="hidden_states")
    states.output(0).set_names({"hidden_states"})
    features = net.rms_norm(net.linear(states, wide * len(LAYERS), wide, False), wide)
    all_places = ops.convert(decoder.places, "f32")
    count = ops.gather(ops.shape_of(states, "i64"), net.ints(1), decoder.zero)
    angles = ops.multiply(ops.unsqueeze(ops.unsqueeze(all_places, net.ints(-1)), net.ints(1)), net.const(0.7))
    end, one, axis = net.ints(np.iinfo(np.int64).max), net.ints(1), net.ints(2)
    past, mine = ops.slice(angles, net.ints(0), count, one, axis), ops.slice(angles, count, end, one, axis)
    given = ops.multiply(
        ops.subtract(net.const(1.0), ops.unsqueeze(ops.convert(decoder.given, "f32"), net.ints(1, 2))),
        net.const(-60000.0),
    )
    for i in range(2):
        y = net.rms_norm(x, wide)
        weights = [net.weights(wide, wide, fan=wide) for _ in range(3)]
        q, k, v = (net.heads(ops.matmul(y, w, False, True), sizes.heads, size) for w in weights)
        keys, values = (
            net.heads(ops.matmul(features, w, False, True), sizes.heads, size) for w in weights[1:]
        )
        keys = decoder.cached(ops.add(keys, ops.sin(past)), f"past_key_values.{i}.key")
        values = decoder.cached(values, f"past_key_values.{i}.value")
        k = ops.concat([keys, ops.add(k, ops.sin(mine))], 2)
        v = ops.concat([values, v], 2)
        z = ops.scaled_dot_product_attention(ops.add(q, ops.cos(mine)), k, v, given)
        x = ops.add(x, net.linear(net.merge(z, wide), wide, wide, False, 0.5))
        y = net.rms_norm(x, wide)
        inner = ops.multiply(
            ops.swish(net.linear(y, wide, sizes.inner, False)), net.linear(y, wide, sizes.inner, False)
        )
        x = ops.add(x, net.linear(inner, sizes.inner, wide, False, 0.5))
    out = ops.slice(net.rms_norm(x, wide), one, end, one, one)
    name = "last_hidden_state"
    if not has_embeds:
        out, name = net.linear(out, wide, sizes.words, False), "logits"
    out.output(0).set_names({name})
    result = ops.result(out)
    result.set_friendly_name(name)
    model = package.Model(
        [result], decoder.sinks, [read, states, decoder.given, decoder.places, decoder.beams], "draft"
    )
    if not has_embeds:
        favour(package, model)
    model.set_rt_info("True", ["dflash_mode"])
    model.set_rt_info(str(MASK), ["dflash", "mask_token_id"])
    model.set_rt_info(",".join(map(str, LAYERS)), ["dflash", "target_layer_ids"])
    package.save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)


def write_folders(package: Any, folder: Path, has_embeds: bool = True) -> tuple[Path, Path]:
    """The folders of a model and of its draft. `has_embeds`: the draft has neither words nor a head, and the
    model names its layers."""
    for name, write in (("model", write_target), ("draft", write_draft)):
        shutil.copytree(ROOT / "tests" / "genai" / "data", folder / name)
        write(package, folder / name, has_embeds)
    return folder / "model", folder / "draft"


def describe(metrics: Any) -> Any:
    """The counts in figures of drafts."""
    if metrics is None:
        return None
    raws = [metrics.main_model_metrics.raw_metrics, metrics.draft_model_metrics.raw_metrics]
    return [
        metrics.get_num_accepted_tokens(), metrics.get_num_generated_tokens(), metrics.get_num_input_tokens(),
        *[[*raw.m_batch_sizes] for raw in raws], *[len(raw.m_durations) for raw in raws],
        *[part.get_num_generated_tokens() for part in (metrics.main_model_metrics, metrics.draft_model_metrics)],
    ]  # fmt: skip


def write_gemma(package: Any, folder: Path) -> tuple[Path, Path]:
    """The folders of a model that gives its keys and values, and of a draft that reads them, as of Gemma 4."""
    model, draft = (
        shutil.copytree(ROOT / "tests" / "genai" / "data", folder / name) for name in ("model", "draft")
    )
    write_target(package, model, annotated=False)
    read = package.Core().read_model(model / "openvino_model.xml")
    caches = [sink.input_value(0) for sink in read.get_sinks()]
    order = sorted(range(len(caches)), key=lambda i: read.get_sinks()[i].get_variable_id())
    names = ("sliding_attention_key", "sliding_attention_value", "full_attention_key", "full_attention_value")
    values = [caches[i] for i in (*order[:2], *order[-2:])]
    values.append(read.get_results()[0].input_value(0).get_node().input_value(0))
    for name, value in zip((*names, "last_hidden_state"), values, strict=True):
        result = package.opset13.result(value)
        result.output(0).set_names({f"mtp_{name}"})
        read.add_results([result])
    for node in read.get_ordered_ops():
        if node.get_type_name() == "Gather" and node.input_value(0).get_node().get_type_name() == "Constant":
            node.set_friendly_name("__module.model.embed_tokens/aten::embedding/Gather")
            break
    package.save_model(read, folder / "openvino_model.xml", compress_to_fp16=False)
    move(folder, model, "openvino_model")
    net = nets.Net(package, "gemma draft")
    ops, wide, size, heads = net.ops, SIZES.wide, SIZES.size, SIZES.shared
    embeds = ops.parameter([1, 1, 2 * wide], np.float32, name="inputs_embeds")
    places, mask = (
        ops.parameter([1, -1], np.int64, name=name) for name in ("position_ids", "attention_mask")
    )
    parts = [ops.parameter([1, heads, -1, size], np.float32, name=name) for name in names]
    for node, name in zip(
        (embeds, places, mask, *parts),
        ("inputs_embeds", "position_ids", "attention_mask", *names),
        strict=True,
    ):
        node.output(0).set_names({name})
    count = ops.reduce_sum(ops.convert(mask, "f32"), net.ints(0, 1), False)
    turned = ops.sin(ops.add(ops.unsqueeze(ops.convert(places, "f32"), net.ints(-1)), count))
    end, one = net.ints(np.iinfo(np.int64).max), net.ints(1)
    unseen = ops.subtract(net.const(1.0), ops.convert(ops.slice(mask, one, end, one, one), "f32"))
    hidden = ops.unsqueeze(ops.multiply(unseen, net.const(-60000.0)), net.ints(1, 2))
    x = ops.add(net.linear(embeds, 2 * wide, wide, False), ops.multiply(turned, net.const(0.1)))
    for key, value in (parts[:2], parts[2:]):
        query = net.heads(net.linear(net.rms_norm(x, wide), wide, heads * size, False), heads, size)
        read_values = net.merge(ops.scaled_dot_product_attention(query, key, value, hidden), heads * size)
        x = ops.add(x, net.linear(read_values, heads * size, wide, False))
    x = net.rms_norm(x, wide)
    logits = net.linear(x, wide, SIZES.words, False)
    for value, name in ((logits, "logits"), (x, "last_hidden_state")):
        value.output(0).set_names({name})
    net_of_draft = package.Model([ops.result(logits), ops.result(x)], [embeds, places, mask, *parts], "draft")
    favour(package, net_of_draft)
    package.save_model(net_of_draft, draft / "openvino_model.xml", compress_to_fp16=False)
    return model, draft


def collect_gemma(package: Any, genai: Any, folder: Path, counts: list[Any] | None = None) -> dict[str, Any]:
    """The tokens of prompts of one token. Counts of the real package vary from run to run; those here are added
    to `counts`."""
    model, draft = write_gemma(package, folder / "gemma")
    config = {"max_new_tokens": 40, "eos_token_id": 290, "stop_token_ids": {290}}
    found: dict[str, Any] = {}
    for name in ("plain", "gemma"):
        settings = {"draft_model": genai.draft_model(draft, "CPU", **EXACT)} if name == "gemma" else {}
        pipeline = genai.LLMPipeline(model, "CPU", ATTENTION_BACKEND="SDPA", **settings, **EXACT)
        for tokens in ([73], [81], [20], [270], [13]):
            for options in (
                {},
                {"num_assistant_tokens": 2},
                {"num_assistant_tokens": 1},
                {"max_new_tokens": 2},
                {"max_new_tokens": 1},
            ):
                ids = package.Tensor(np.array([tokens], np.int64))
                results = pipeline.generate(ids, **{**config, **options})
                found[f"{name} {tokens} {options}"] = results.tokens[0]
                if counts is not None and name == "gemma":
                    counts.append(describe(results.extended_perf_metrics))
    return found


def collect(package: Any, genai: Any, folder: Path) -> dict[str, Any]:
    """Program -> (text, score, figures), or the class of the error."""
    parts = (collect_dflash, collect_mtp, collect_gemma, collect_vision)
    return {key: value for part in parts for key, value in part(package, genai, folder).items()}


def collect_mtp(package: Any, genai: Any, folder: Path) -> dict[str, Any]:
    kinds = {"": ("qwen2_vl", False), "hybrid ": ("qwen3_5", True)}
    return {
        f"{name}{key}": value
        for name, kind in kinds.items()
        for key, value in collect_heads(package, genai, folder / f"mtp {name}", *kind).items()
    }


def collect_heads(package: Any, genai: Any, folder: Path, kind: str, is_recurrent: bool) -> dict[str, Any]:
    model, found = write_heads(package, folder, kind, is_recurrent), {}
    plain, shown = genai.VLMPipeline(model, "CPU", **EXACT), picture(package, 40, 33, seed=3)
    vision, properties = (
        {"draft_model": genai.draft_model(model, "CPU", **EXACT), **EXACT} for _ in range(2)
    )
    # the default of the real package shares prefixes, which recurrent layers with drafts do not take
    vision = genai.VLMPipeline(model, "CPU", scheduler_config=genai.SchedulerConfig(), **vision)
    batches = genai.ContinuousBatchingPipeline(model, genai.SchedulerConfig(), "CPU", properties)
    for prompt in ("is it so?", "the weather", "hello"):
        for count in (1, 2, 4):
            for images in ([], [shown]):
                config = genai.GenerationConfig(
                    max_new_tokens=30, ignore_eos=True, num_assistant_tokens=count
                )
                key = f"{prompt} {count} {len(images)}"
                for name, pipe in (("plain", plain), ("mtp", vision)):
                    results = pipe.generate(prompt, images=images, generation_config=config)
                    # counts of the draft include a step that nothing needs
                    figures = (describe(results.extended_perf_metrics) or [])[:4]
                    found[f"{name} {key}"] = [results.texts[0], round(results.scores[0], 2), figures]
                (result,) = batches.generate([prompt], images=[images], generation_config=[config])
                found[f"mtp in batches {key}"] = [result.texts[0], describe(result.extended_perf_metrics)[:4]]
    return found


def collect_dflash(package: Any, genai: Any, folder: Path) -> dict[str, Any]:
    config = {"max_new_tokens": 40, "ignore_eos": True, "apply_chat_template": False}
    found: dict[str, Any] = {}
    for has_embeds in (True, False):
        model, draft = write_folders(package, folder / str(has_embeds), has_embeds)
        for name in ("plain", "dflash"):
            settings = {"draft_model": genai.draft_model(draft, "CPU", **EXACT)} if name == "dflash" else {}
            scheduler = genai.SchedulerConfig()
            pipeline = genai.LLMPipeline(model, "CPU", **settings, scheduler_config=scheduler, **EXACT)
            for prompt in ("hello world", "the weather is not there", "is it so"):
                for title, options in OPTIONS.items():
                    if name == "plain" and title == "threshold":
                        continue  # the real package does not return
                    key = f"{name} {has_embeds} {prompt} {title}"
                    try:
                        results = pipeline.generate([prompt], **{**config, **options})
                    except RuntimeError:
                        found[key] = "error"
                        continue
                    found[key] = [
                        results.texts[0],
                        round(results.scores[0], 2),
                        describe(results.extended_perf_metrics),
                    ]
    return found


def write_heads(package: Any, folder: Path, kind: str, is_recurrent: bool) -> Path:
    """The folder of a model that takes pictures, with its layer of multi-token prediction."""
    model = write_favoured(package, folder, kind, is_recurrent=is_recurrent)
    write_head(package, model, 1)
    return model


def write_favoured(
    package: Any, folder: Path, kind: str, layers: int = 0, is_recurrent: bool = False
) -> Path:
    """The folder of a model that takes pictures and chooses likely words, with so many further layers, and a
    recurrent one."""
    model = write_folder(package, folder / "model", kind)
    read = package.Core().read_model(model / "openvino_language_model.xml")
    net, product = Ops(package, 98), read.get_results()[0].input_value(0).get_node()
    hidden = product.input_value(0)
    for layer in range(layers):
        gated = net.ops.multiply(hidden, net.weights(1, 1, WIDTH))
        added = net.ops.matmul(gated, net.weights(WIDTH, WIDTH, scale=0.1), False, True)
        hidden = net.ops.add(hidden, added).output(0)
        hidden.get_node().set_friendly_name(f"__module.model.layers.{layer}/aten::add/Add_1")
    if is_recurrent:
        hidden, assign = add_window(net, read, hidden)
        read = package.Model(read.get_results(), [*read.get_sinks(), assign], read.get_parameters())
    product.input(0).replace_source_output(hidden)
    favour(package, read)
    package.save_model(read, folder / "openvino_model.xml", compress_to_fp16=False)
    move(folder, model, "openvino_language_model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "text_config": {"num_hidden_layers": layers}}))
    return model


def add_window(net: Ops, model: Any, hidden: Any) -> tuple[Any, Any]:
    """(the states with a convolution of the last tokens of each channel, what keeps these)."""
    ops, size = net.ops, 4
    zero, one, two, last = (ops.constant(np.array([n])) for n in (0, 1, 2, 2**63 - 1))
    order = ops.constant(np.array([0, 2, 1]))
    beams = next(node for node in model.get_parameters() if "beam_idx" in node.output(0).get_names())
    rows = ops.gather(ops.shape_of(hidden), zero, ops.constant(0))
    start = ops.broadcast(
        ops.constant(np.float32(0)), ops.concat([rows, ops.constant(np.array([WIDTH, size]))], 0)
    )
    info = net.package.op.util.VariableInfo()
    info.data_shape, info.data_type = net.package.PartialShape([-1, WIDTH, size]), net.package.Type.f32
    info.variable_id = "cache_params.past.conv.0cache_params.present.conv.0"
    variable = net.package.op.util.Variable(info)
    before = ops.gather(ops.read_value(start, variable), beams, ops.constant(0))
    whole = ops.concat([before, ops.transpose(hidden, order)], -1)
    kept = ops.slice(whole, ops.constant(np.array([-size])), last, one, two)
    mixed = ops.group_convolution(whole, net.weights(WIDTH, 1, 1, size, scale=0.3), [1], [0], [0], [1])
    count = ops.gather(ops.shape_of(hidden), one, ops.constant(0))
    mixed = ops.slice(mixed, ops.negative(count), last, one, two)
    return ops.add(hidden, ops.transpose(mixed, order)).output(0), ops.assign(kept, variable)


def collect_vision(package: Any, genai: Any, folder: Path) -> dict[str, Any]:
    """Drafts of EAGLE-3 and DFlash, for texts with and without a picture."""
    model, found = write_favoured(package, folder / "vision", "qwen2_vl", SIZES.layers), {}
    drafts = {
        name: shutil.copytree(ROOT / "tests" / "genai" / "families", folder / name)
        for name in ("eagle", "block")
    }
    write_head(package, drafts["eagle"], 3, is_eagle=True)
    write_draft(package, drafts["block"], True, SIZES._replace(wide=WIDTH, heads=2, words=WORDS))
    shown = picture(package, 40, 33, seed=3)
    for name in ("plain", *drafts):
        properties = (
            {"draft_model": genai.draft_model(drafts[name], "CPU", **EXACT)} if name in drafts else {}
        )
        properties["scheduler_config"] = genai.SchedulerConfig()
        pipeline = genai.VLMPipeline(model, "CPU", **properties, **EXACT)
        for prompt in ("is it so?", "the weather", "hello"):
            for images in ([], [shown]):
                for title, options in OPTIONS.items():
                    if title == "penalty" or title == "threshold" and name == "plain":
                        continue  # the real package fails, or does not return
                    key = f"{name} {prompt} {len(images)} {title}"
                    config = genai.GenerationConfig(**{"max_new_tokens": 30, "ignore_eos": True, **options})
                    try:
                        results = pipeline.generate(prompt, images=images, generation_config=config)
                    except RuntimeError:
                        found[key] = "error"
                        continue
                    figures = (describe(results.extended_perf_metrics) or [])[:4]
                    found[key] = [results.texts[0], round(results.scores[0], 2), figures]
    return found


def write_head(package: Any, folder: Path, axes: int, is_eagle: bool = False) -> None:
    """Attention with a cache, from embeddings and states to states. `axes` of positions. `is_eagle`: of three
    layers, to logits."""
    net = Ops(package, 97)
    ops = net.ops
    states = net.parameter("hidden_states", [-1, -1, -1 if is_eagle else WIDTH])
    embeds = net.parameter("inputs_embeds", [-1, -1, WIDTH])
    mask = net.parameter("attention_mask", [-1, -1], np.int64)
    places = net.parameter("position_ids", [axes, -1, -1] if axes > 1 else [-1, -1], np.int64)
    beams = net.parameter("beam_idx", [-1], np.int32)
    one, zero = ops.constant(np.array([1])), ops.constant(0)
    rows = ops.convert(places, np.float32)
    rows = rows if axes > 1 else ops.unsqueeze(rows, ops.constant(np.array([0])))
    angles = ops.multiply(ops.unsqueeze(rows, ops.constant(np.array([3]))), net.weights(axes, 1, 1, WIDTH))
    given = ops.matmul(states, net.weights(WIDTH, 3 * WIDTH, scale=0.1), False, True) if is_eagle else states
    joined = ops.matmul(
        ops.concat([embeds, given], 2), net.weights(2 * WIDTH, WIDTH, scale=0.3), False, False
    )
    hidden = ops.add(joined, ops.reduce_sum(ops.sin(angles), zero))
    heads, assigns, shape = [], [], ops.constant(np.array([0, 0, 2, WIDTH // 2]))
    for name in ("query", "key", "value"):
        head = ops.matmul(hidden, net.weights(WIDTH, WIDTH, scale=0.4), False, False)
        head = ops.transpose(ops.reshape(head, shape, True), ops.constant(np.array([0, 2, 1, 3])))
        if name != "query":
            count = ops.gather(ops.shape_of(embeds), ops.constant(np.array([0])), zero)
            size = ops.concat([count, ops.constant(np.array([2, 0, WIDTH // 2]))], 0)
            info = package.op.util.VariableInfo()
            info.data_shape, info.data_type = package.PartialShape([-1, 2, -1, WIDTH // 2]), package.Type.f32
            info.variable_id = f"past.{name}present.{name}"
            variable = package.op.util.Variable(info)
            before = ops.read_value(ops.broadcast(ops.constant(np.float32(0)), size), variable)
            head = ops.concat([ops.gather(before, beams, zero), head], 2)
            assigns.append(ops.assign(head, variable))
        heads.append(head)
    keys = ops.cum_sum(mask, ops.constant(1))
    new = ops.gather(ops.shape_of(embeds), one, zero)
    queries = ops.slice(keys, ops.negative(new), ops.constant(np.array([2**31 - 1])), one, one)
    seen = ops.less_equal(
        ops.unsqueeze(keys, ops.constant(np.array([1, 2]))),
        ops.unsqueeze(queries, ops.constant(np.array([1, 3]))),
    )
    bias = ops.select(seen, ops.constant(np.float32(0)), ops.constant(np.float32(-60000)))
    context = ops.transpose(
        ops.scaled_dot_product_attention(*heads, bias), ops.constant(np.array([0, 2, 1, 3]))
    )
    read = ops.reshape(context, ops.constant(np.array([0, 0, WIDTH])), True)
    if is_eagle:
        read = ops.multiply(read, net.weights(1, 1, WIDTH))
    out = ops.add(hidden, ops.matmul(read, net.weights(WIDTH, WIDTH, scale=0.4), False, False))
    if is_eagle:
        out.set_friendly_name("__module.midlayer/aten::add/Add_1")
    out = ops.tanh(out)
    if is_eagle:
        out = ops.matmul(out, net.weights(WIDTH, WORDS, scale=2.0), False, False)
    out.output(0).set_names({"logits" if is_eagle else "last_hidden_state"})
    model = package.Model([ops.result(out)], assigns, [states, embeds, mask, places, beams])
    if is_eagle:
        model.set_rt_info("True", ["eagle3_mode"])
        favour(package, model)
    file = "openvino_model.xml" if is_eagle else "openvino_mtp_model.xml"
    package.save_model(model, folder / file, compress_to_fp16=False)


if __name__ == "__main__":
    import openvino
    import openvino_genai

    with tempfile.TemporaryDirectory() as path:
        results = collect(openvino, openvino_genai, Path(path))
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in results.items())
    Path(sys.argv[1]).write_text(f"{{\n{lines}\n}}\n")
