# ruff: noqa: E501 (a line is one statement of a model)
"""Random decoders with states beside OpenVINO in f32: prompts, steps, beams that change places, sizes and grow.

Weights are those of every compressed type, with groups and zero points, at precisions of every hint; OpenVINO gets
the same numbers as f32. Answers of f32 are compared closely, those of lower precisions by their mean square.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import ovjit
from tests.fuzz import fuzzing

LIFE = 400
STEPS = 12
KINDS = ("f32", "f16", "bf16", "u8", "i8", "u4", "i4", "u4", "nf4", "f8e4m3", "f8e5m2", "f4e2m1", "u2")
#: Mean square error over mean square, for answers of low precision.
NEAR = 6e-2
NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)  # fmt: skip


class Engine:
    """Builders of one of the packages; `plain` turns all weights into f32."""

    def __init__(self, ov: Any, plain: bool):
        self.ov, self.o, self.plain = ov, ov.opset15 if hasattr(ov, "opset15") else ov.opset13, plain

    def constant(self, array: Any) -> Any:
        return self.o.constant(np.asarray(array))


def weights(r: random.Random, rows: int, columns: int, kinds: Any = KINDS) -> dict[str, Any]:
    """Numbers of a matrix [rows, columns] in a type, with scales by row or by group of a row."""
    import ml_dtypes

    g = np.random.default_rng(r.randrange(1 << 30))
    kind = r.choice(kinds)
    w = (g.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)
    made: dict[str, Any] = {"kind": kind, "shape": (rows, columns)}
    if kind in ("f32", "f16", "bf16"):
        raw = w.astype({"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}[kind])
        return {**made, "raw": raw, "values": raw.astype(np.float32), "group": 0}
    group = r.choice([c for c in (16, 32, 64, 128, columns) if columns % c == 0 and c <= columns])
    parts = columns // group
    blocks = w.reshape(rows, parts, group)
    top = np.abs(blocks).max(-1, keepdims=True) + 1e-6
    zero = None
    bits = {"u4": 4, "i4": 4, "u8": 8, "i8": 8, "u2": 2, "nf4": 4, "f4e2m1": 4}.get(kind, 8)
    if kind in ("u4", "u8", "u2"):
        low, high = blocks.min(-1, keepdims=True), blocks.max(-1, keepdims=True)
        scale = (high - low) / (2**bits - 1) + 1e-6
        z = np.clip(np.round(-low / scale), 0, 2**bits - 1)
        how = r.choice(("each", "one", "each", "none") if kind != "u2" else ("each", "one"))
        if how == "one":
            z = np.float32(2 ** (bits - 1)).reshape(1, 1, 1)
            scale = top / 2 ** (bits - 1)
        if how == "none":
            z, scale = np.zeros((1, 1, 1), np.float32), blocks.max(-1, keepdims=True) / (2**bits - 1) + 1e-6
        q = np.clip(np.round(blocks / scale + z), 0, 2**bits - 1)
        zero = None if how == "none" else z
    elif kind in ("i4", "i8"):
        scale = top / (2 ** (bits - 1) - 1)
        q = np.clip(np.round(blocks / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if r.random() < 0.2:
            zero = np.full((rows, parts, 1), 1, np.float32)
            q = np.clip(q + 1, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    elif kind == "nf4":
        scale = top
        q = np.abs((blocks / scale)[..., None] - NF4).argmin(-1)
    else:
        kinds_of = {
            "f8e4m3": ml_dtypes.float8_e4m3fn,
            "f8e5m2": ml_dtypes.float8_e5m2,
            "f4e2m1": ml_dtypes.float4_e2m1fn,
        }
        most = {"f8e4m3": 448.0, "f8e5m2": 100.0, "f4e2m1": 6.0}[kind]
        scale = top / most
        q = (blocks / scale).astype(kinds_of[kind])
    scale_kind = r.choice(("f32", "f16", "f16"))
    scale = scale.astype(np.float16).clip(6e-5) if scale_kind == "f16" else scale.astype(np.float32)
    numbers = NF4[q] if kind == "nf4" else np.asarray(q, np.float32)
    values = (numbers - (0 if zero is None else zero)) * scale.astype(np.float32)
    return {**made, "q": q, "zero": zero, "scale": scale, "group": group, "bits": bits,
            "values": values.reshape(rows, columns).astype(np.float32), "three": parts > 1 or r.random() < 0.3,
            "u8zero": r.random() < 0.3}  # fmt: skip


def _packed(e: Engine, numbers: np.ndarray, kind: str, bits: int) -> Any:
    ov = e.ov
    types = {"u8": "u8", "i8": "i8", "u4": "u4", "i4": "i4", "u2": "u2", "nf4": "nf4", "f8e4m3": "f8e4m3",
             "f8e5m2": "f8e5m2", "f4e2m1": "f4e2m1"}  # fmt: skip
    type_ = getattr(ov.Type, types[kind])
    shape = list(numbers.shape)
    raw: Any
    if kind.startswith("f"):
        raw = numbers.reshape(-1).view(np.uint8)
    else:
        raw = numbers.reshape(-1).astype(np.int64).astype(np.uint8) & ((1 << bits) - 1)
    if bits < 8:
        per = 8 // bits
        raw = np.concatenate([raw, np.zeros(-len(raw) % per, np.uint8)]).reshape(-1, per)
        raw = sum((raw[:, i].astype(np.uint16) << (bits * i)) for i in range(per)).astype(np.uint8)
    return e.o.constant(ov.Tensor(np.ascontiguousarray(raw), shape, type_))


def matrix(e: Engine, w: dict[str, Any]) -> Any:
    """The node whose value the matrix is."""
    o = e.o
    if e.plain:
        return o.constant(w["values"])
    if w["kind"] == "f32":
        return o.constant(w["raw"])
    if w["kind"] in ("f16", "bf16"):
        if w["kind"] == "bf16":
            raw = e.ov.Tensor(w["raw"].view(np.uint16), list(w["shape"]), e.ov.Type.bf16)
            return o.convert(o.constant(raw), "f32")
        return o.convert(o.constant(w["raw"]), "f32")
    q, zero, scale = w["q"], w["zero"], w["scale"]
    if not w["three"]:
        q, scale = q.reshape(w["shape"]), scale.reshape(w["shape"][0], 1)
        zero = None if zero is None else zero.reshape(-1, 1)
    wide = "f16" if scale.dtype == np.float16 else "f32"
    y = o.convert(_packed(e, q, w["kind"], w["bits"]), wide)
    if zero is not None:
        kind = "u8" if w["u8zero"] and w["kind"] in ("u4", "u2") else w["kind"]
        y = o.subtract(y, o.convert(_packed(e, zero, kind, 8 if kind == "u8" else w["bits"]), wide))
    y = o.multiply(y, o.constant(scale))
    if w["three"]:
        y = o.reshape(y, o.constant(np.array(w["shape"])), False)
    return o.convert(y, "f32") if wide == "f16" else y


class Decoder:
    """What a model is, drawn once; `build` makes it with a package."""

    def __init__(self, r: random.Random):
        self.head = r.choice((8, 16, 32, 64))
        self.kv = r.choice((1, 2, 2, 3))
        self.ratio = r.choice((1, 1, 2, 4))
        self.width = r.choice((32, 64, 96, 128))
        self.vocabulary = r.choice((17, 64, 100))
        self.inner = r.choice((32, 64, 128))
        self.norm = r.choice(("rms", "rms", "rms_divide", "layer"))
        self.rope = r.choice((True, True, False))
        self.mask = r.choice(("mask", "mask", "causal", "manual"))
        self.fused = r.random() < 0.3
        self.mlp = r.choice(("silu", "gelu", "relu", "gelu_tanh"))
        self.last_only = r.random() < 0.3
        self.layout = r.choice(("bhsd", "bhsd", "bshd"))
        self.bias = r.random() < 0.3
        self.sinks = r.random() < 0.1
        self.scale = r.choice((None, None, 0.2))
        self.layers = r.choice((1, 1, 2))
        kinds = r.choice((KINDS, KINDS, ("f32",), (r.choice(KINDS),)))
        self.kinds = kinds
        q, k = self.head * self.kv * self.ratio, self.head * self.kv
        self.embed = weights(r, self.vocabulary, self.width, kinds)
        self.tied = r.random() < 0.3
        self.out = self.embed if self.tied else weights(r, self.vocabulary, self.width, kinds)
        self.parts: list[dict[str, Any]] = []
        g = np.random.default_rng(r.randrange(1 << 30))
        f = lambda *s: np.asarray(g.standard_normal(s) * 0.1, np.float32)  # noqa: E731
        for _ in range(self.layers):
            rows = (q, k, k)
            qkv = (
                [weights(r, q + 2 * k, self.width, kinds)]
                if self.fused
                else [weights(r, n, self.width, kinds) for n in rows]
            )
            self.parts.append({
                "qkv": qkv, "biases": [f(n) for n in ((q + 2 * k,) if self.fused else rows)],
                "o": weights(r, self.width, q, kinds), "norms": [1 + f(self.width), 1 + f(self.width)],
                "up": weights(r, self.inner, self.width, kinds), "gate": weights(r, self.inner, self.width, kinds),
                "down": weights(r, self.width, self.inner, kinds),
            })  # fmt: skip
        self.final = 1 + f(self.width)

    def __str__(self) -> str:
        shown = {k: v for k, v in vars(self).items() if k not in ("embed", "out", "parts", "final")}
        return (
            f"{shown} embed {self.embed['kind']}/{self.embed['group']} out {self.out['kind']}/{self.out['group']} "
            + str(
                [
                    {k: (v["kind"], v["group"]) for k, v in p.items() if isinstance(v, dict)}
                    for p in self.parts
                ]
            )
        )

    def normalize(self, e: Engine, x: Any, w: np.ndarray) -> Any:
        o = e.o
        c = e.constant
        if self.norm == "layer":
            return o.multiply(o.mvn(x, c(np.array([-1])), True, 1e-5, "inside_sqrt"), c(w))
        mean = o.reduce_mean(o.power(x, c(np.float32(2))), c(np.array([-1])), True)
        root = o.sqrt(o.add(mean, c(np.float32(1e-5))))
        if self.norm == "rms_divide":
            return o.multiply(o.divide(x, root), c(w))
        return o.multiply(c(w), o.multiply(x, o.divide(c(np.float32(1)), root)))

    def linear(self, e: Engine, x: Any, w: dict[str, Any], bias: Any = None) -> Any:
        y = e.o.matmul(x, matrix(e, w), False, True)
        return e.o.add(y, e.constant(bias)) if bias is not None and self.bias else y

    def rotate(self, e: Engine, x: Any, cos: Any, sin: Any) -> Any:
        o, c = e.o, e.constant
        half = self.head // 2
        first = o.slice(x, c(np.array([0])), c(np.array([half])), c(np.array([1])), c(np.array([3])))
        second = o.slice(x, c(np.array([half])), c(np.array([2**31 - 1])), c(np.array([1])), c(np.array([3])))
        turned = o.concat([o.multiply(second, c(np.float32(-1))), first], 3)
        return o.add(o.multiply(x, cos), o.multiply(turned, sin))

    def build(self, e: Engine) -> Any:
        ov, o, c = e.ov, e.o, e.constant
        i64 = lambda *v: c(np.array(v, np.int64))  # noqa: E731
        ids = o.parameter([-1, -1], np.int64, name="ids")
        mask = o.parameter([-1, -1], np.int64, name="mask")
        positions = o.parameter([-1, -1], np.int64, name="positions")
        beams = o.parameter([-1], np.int32, name="beams")
        batch = o.gather(o.shape_of(ids), i64(0), i64(0))
        x = o.gather(matrix(e, self.embed), ids, i64(0))
        sinks: list[Any] = []
        frequencies = np.power(np.float32(10000), -np.arange(0, self.head, 2, dtype=np.float32) / self.head)
        angles = o.matmul(
            o.convert(o.unsqueeze(positions, i64(2)), "f32"), c(frequencies[None]), False, False
        )
        both = o.unsqueeze(o.concat([angles, angles], 2), i64(1))
        cos, sin = o.cos(both), o.sin(both)
        now = o.gather(o.shape_of(ids), i64(1), i64(0))
        used_mask = self.mask in ("mask", "manual")
        if used_mask:
            total = o.gather(o.shape_of(mask), i64(1), i64(0))
            columns = o.unsqueeze(o.range(c(np.int64(0)), o.squeeze(total), c(np.int64(1)), "i64"), i64(0))
            rows = o.unsqueeze(
                o.range(o.squeeze(o.subtract(total, now)), o.squeeze(total), c(np.int64(1)), "i64"), i64(1)
            )
            seen = o.less_equal(columns, rows)
            seen = o.logical_and(
                o.unsqueeze(seen, i64(0, 1)), o.unsqueeze(o.not_equal(mask, c(np.int64(0))), i64(1, 2))
            )
            added = o.select(seen, c(np.float32(0)), c(np.float32(-65504)))
        for n, p in enumerate(self.parts):
            h = self.normalize(e, x, p["norms"][0])
            q_size, k_size = self.head * self.kv * self.ratio, self.head * self.kv
            if self.fused:
                y = self.linear(e, h, p["qkv"][0], p["biases"][0])
                split = o.variadic_split(y, i64(2), i64(q_size, k_size, k_size))
                parts = [split.output(i) for i in range(3)]
            else:
                parts = [self.linear(e, h, w, b) for w, b in zip(p["qkv"], p["biases"], strict=True)]
            heads = [self.kv * self.ratio, self.kv, self.kv]
            q, k, v = (
                o.transpose(o.reshape(y, i64(0, 0, m, self.head), True), i64(0, 2, 1, 3))
                for y, m in zip(parts, heads, strict=True)
            )
            if self.rope:
                q, k = self.rotate(e, q, cos, sin), self.rotate(e, k, cos, sin)
            kept = []
            for name, new in (("k", k), ("v", v)):
                info = ov.op.util.VariableInfo()
                shape = (
                    [-1, self.kv, -1, self.head] if self.layout == "bhsd" else [-1, -1, self.kv, self.head]
                )
                info.variable_id, info.data_type, info.data_shape = (
                    f"{name}{n}",
                    ov.Type.f32,
                    ov.PartialShape(shape),
                )
                variable = ov.op.util.Variable(info)
                if self.layout == "bhsd":
                    start = o.concat([batch, i64(self.kv), i64(0), i64(self.head)], 0)
                else:
                    start = o.concat([batch, i64(0), i64(self.kv), i64(self.head)], 0)
                    new = o.transpose(new, i64(0, 2, 1, 3))
                old = ov.opset8.read_value(o.broadcast(c(np.float32(0)), start), variable)
                whole = o.concat([o.gather(old, beams, i64(0)), new], 2 if self.layout == "bhsd" else 1)
                sinks.append(ov.opset8.assign(whole, variable))
                if self.layout != "bhsd":
                    whole = o.transpose(whole, i64(0, 2, 1, 3))
                if self.ratio > 1:
                    wide = o.unsqueeze(whole, i64(2))
                    size = o.shape_of(whole)
                    target = o.concat(
                        [
                            o.gather(size, i64(0, 1), i64(0)),
                            i64(self.ratio),
                            o.gather(size, i64(2, 3), i64(0)),
                        ],
                        0,
                    )
                    whole = o.reshape(
                        o.broadcast(wide, target, broadcast_spec="BIDIRECTIONAL"),
                        i64(0, self.kv * self.ratio, -1, self.head),
                        True,
                    )
                kept.append(whole)
            k, v = kept
            factor = self.scale or self.head**-0.5
            if self.mask == "manual":
                scores = o.add(o.multiply(o.matmul(q, k, False, True), c(np.float32(factor))), added)
                a = o.matmul(o.softmax(scores, 3), v, False, False)
            elif self.mask == "mask":
                a = (
                    o.scaled_dot_product_attention(q, k, v, added, c(np.float32(factor)))
                    if self.scale
                    else o.scaled_dot_product_attention(q, k, v, added)
                )
            else:
                a = o.scaled_dot_product_attention(q, k, v, causal=False)
            a = o.reshape(o.transpose(a, i64(0, 2, 1, 3)), i64(0, 0, q_size), True)
            x = o.add(x, self.linear(e, a, p["o"]))
            h = self.normalize(e, x, p["norms"][1])
            gate = self.linear(e, h, p["gate"])
            gate = {
                "silu": o.swish,
                "relu": o.relu,
                "gelu": lambda y: o.gelu(y, "erf"),
                "gelu_tanh": lambda y: o.gelu(y, "tanh"),
            }[self.mlp](gate)
            x = o.add(x, self.linear(e, o.multiply(gate, self.linear(e, h, p["up"])), p["down"]))
        if self.last_only:
            x = o.slice(x, i64(-1), i64(2**31 - 1), i64(1), i64(1))
        x = self.normalize(e, x, self.final)
        logits = o.matmul(x, matrix(e, self.out), False, True)
        inputs = [ids, beams] + ([mask] if used_mask else []) + ([positions] if self.rope else [])
        return ov.Model([o.result(logits)], sinks, inputs, "decoder")


class Case:
    def __init__(self, seed: int, without: list[int]):
        r = random.Random(seed)
        self.decoder = Decoder(r)
        self.hint = r.choice(("f32", "f32", "bf16", "f16"))
        self.config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self.hint}
        cache = r.choice((None, "f32", "u8", "f16", "bf16"))
        if cache:
            self.config["KV_CACHE_PRECISION"] = cache
        group = r.choice((None, 0, 0, 32, 64))
        if group is not None:
            self.config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = group
        self.config["INFERENCE_NUM_THREADS"] = r.choice((1, 2))
        compressed = any(k not in ("f32",) for k in self.decoder.kinds)
        self.close = (
            self.hint == "f32"
            and (group == 0 or not compressed)
            and cache in (None, "f32")
            and cache == "f32"
        )
        self.steps: list[tuple[int, bool, dict[str, Any]]] = []
        batch, past = 0, 0
        for i in range(STEPS):
            s = random.Random(r.random())
            if i in without:
                continue
            reset = not batch or s.random() < 0.12
            if reset:
                batch, past = s.choice((1, 1, 2, 3)), 0
                beams = list(range(batch))
                tokens = s.choice((1, 3, 7, 16, 17, 33))
            else:
                new = s.choice((batch, batch, batch, 1, 2, 4))
                beams = (
                    list(range(batch))
                    if new == batch and s.random() < 0.5
                    else [s.randrange(batch) for _ in range(new)]
                )
                batch = new
                tokens = s.choice((1, 1, 1, 1, 2, 5, 16))
            g = np.random.default_rng(s.randrange(1 << 30))
            ids = g.integers(0, self.decoder.vocabulary, (batch, tokens))
            mask = np.ones((batch, past + tokens), np.int64)
            if s.random() < 0.15 and past + tokens > 2:
                mask[0, 0] = 0
            positions = np.broadcast_to(np.arange(past, past + tokens), (batch, tokens)).copy()
            past += tokens
            self.steps.append(
                (
                    i,
                    reset,
                    {"ids": ids, "beams": np.array(beams, np.int32), "mask": mask, "positions": positions},
                )
            )


make = fuzzing.make_by_seed


def answers(compiled: Any, case: Case) -> Iterator[np.ndarray]:
    request = compiled.create_infer_request()
    names = {n for port in compiled.inputs for n in port.names}
    for _, reset, inputs in case.steps:
        if reset:
            request.reset_state()
        yield np.array(request.infer({k: v for k, v in inputs.items() if k in names})[0])


def check(case: dict[str, Any]) -> str:
    import openvino

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        c = Case(case["seed"], case["without"])
        title = f"{c.config} {c.decoder}"
        plain = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "INFERENCE_NUM_THREADS": 1}
        theirs = openvino.Core().compile_model(c.decoder.build(Engine(openvino, True)), "CPU", plain)
        try:
            ours = ovjit.Core().compile_model(c.decoder.build(Engine(ovjit, False)), "CPU", c.config)
            for (i, reset, inputs), x, y in zip(c.steps, answers(ours, c), answers(theirs, c), strict=True):
                where = f"step {i} (reset {reset}, beams {inputs['beams'].tolist()}, ids {inputs['ids'].shape}, mask {inputs['mask'].shape})"
                if x.shape != y.shape:
                    return f"{where}: {x.shape}, not {y.shape}: {title}"
                if not np.isfinite(y).all():
                    continue
                scale = np.sqrt(np.mean(y**2))
                error = np.abs(x - y).max() / scale if c.close else np.sqrt(np.mean((x - y) ** 2)) / scale
                if not error < (3e-3 if c.close else NEAR):
                    return f"{where}: error {error:.3g}: {title}"
        except Exception as error:
            return f"{type(error).__name__}: {error}: {title}"
    return ""


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return fuzzing.without_steps(case, STEPS)


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
