# ruff: noqa: E501 (a form of a statement is one piece of text)
"""Random PyTorch modules beside eager PyTorch: as a trace, a script and an exported program.

Statements are drawn one by one and run at once, so that each fits the tensors that are there: element types,
views, indexing, writes in place, scatters, einsum, sizes read from shapes. The model is then given inputs of
other sizes, where PyTorch's own trace or script is the answer.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import ovjit
from ovjit.errors import OvjitError
from tests.fuzz import fuzzing

LIFE = 100
FLOATS = ("float32", "float32", "float32", "float32", "float64", "float16", "bfloat16")
TYPES = ("int64", "int32", "uint8", "bool", "int8")
OV_TYPES = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "int64": "i64",
            "int32": "i32", "uint8": "u8", "int8": "i8", "bool": "boolean"}  # fmt: skip
#: Statements in a module.
LENGTHS = (1, 2, 3, 3, 4, 5, 6, 8, 10)
MOST = 4096
F = "torch.nn.functional"


class Net:
    """The text of a module, and the tensors that its variables are for the example."""

    def __init__(self, seed: int, without: list[int]):
        import torch

        self.torch = torch
        self.r = random.Random(seed)
        torch.manual_seed(seed)
        self.lines: list[str] = []
        self.values: dict[str, Any] = {}
        self.count = 0
        sizes = [self.r.choice((1, 2, 3, 4, 5, 7)) for _ in range(4)]
        rank = self.r.choice((1, 2, 2, 3, 3, 4))
        kind = self.r.choice(FLOATS)
        shapes = [sizes[:rank]]
        if self.r.random() < 0.6:
            shapes.append(
                [d if self.r.random() < 0.7 else 1 for d in sizes[: self.r.choice((rank, rank, 1, 2))]]
            )
        self.kinds = [kind] + [self.r.choice((kind, kind, *TYPES)) for _ in shapes[1:]]
        self.shapes = shapes
        #: Which sizes are others in the second call: all places of one size together.
        self.others = {d: d + self.r.choice((1, 2, 3)) for d in set(sizes) if d > 1 and self.r.random() < 0.7}
        for i, x in enumerate(self.inputs(False)):
            self.values["xyz"[i]] = x.clone()
        wanted = self.r.choice(LENGTHS)
        for i in range(wanted):
            draw = random.Random(self.r.random())
            if i not in without:
                self.statement(draw)
        results = list(self.values)
        chosen = [results[-1]] + self.r.sample(
            results[:-1], min(len(results) - 1, self.r.choice((0, 0, 1, 2)))
        )
        self.results = sorted(set(chosen))

    def inputs(self, other: bool) -> list[Any]:
        made = []
        generator = self.torch.Generator().manual_seed(7 + other)
        for kind, shape in zip(self.kinds, self.shapes, strict=True):
            dtype = getattr(self.torch, kind)
            sizes = [self.others.get(d, d) if other else d for d in shape]
            x = self.torch.randn(sizes, generator=generator)
            made.append(x > 0 if kind == "bool" else (x * 3).abs().to(dtype) if dtype == self.torch.uint8
                        else (x * 3).to(dtype) if not dtype.is_floating_point else x.to(dtype))  # fmt: skip
        return made

    def text(self) -> str:
        names = ", ".join("xyz"[: len(self.shapes)])
        body = "\n".join(f"        {line}" for line in self.lines) or "        pass"
        returned = self.results[0] if len(self.results) == 1 else f"({', '.join(self.results)},)"
        return (
            "import torch\nclass M(torch.nn.Module):\n"
            f"    def forward(self, {names}):\n{body}\n        return {returned}\n"
        )

    # --- statements

    def statement(self, r: random.Random) -> None:
        for _ in range(12):
            made = r.choice(STATEMENTS)(self, r)
            if made and self.accepts(made, r):
                return

    def accepts(self, line: str, r: random.Random) -> bool:
        torch = self.torch
        # views of the variables must be kept: all lines run on copies of the inputs
        fresh = {"torch": torch, **{"xyz"[i]: x.clone() for i, x in enumerate(self.inputs(False))}}
        try:
            exec("\n".join([*self.lines, line]), fresh)
        except Exception:
            return False
        values = {k: v for k, v in fresh.items() if isinstance(v, torch.Tensor)}
        for v in values.values():
            if v.numel() > MOST or v.dim() > 6 or v.is_complex():
                return False
            if v.numel() and not bool((v.double().abs() < 1e4).all()):
                return False
        self.lines.append(line)
        self.values = values
        return True

    def new(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def any(self, r: random.Random, kinds: str = "", least: int = 0) -> str | None:
        """The name of a variable: `kinds` are f (floats), i (integers), b (booleans)."""

        def fits(v: Any) -> bool:
            kind = "b" if v.dtype == self.torch.bool else "f" if v.dtype.is_floating_point else "i"
            return (not kinds or kind in kinds) and v.dim() >= least

        found = [k for k, v in self.values.items() if fits(v)]
        return r.choice(found[-3:] if r.random() < 0.5 else found) if found else None

    def size(self, r: random.Random, name: str, axis: int) -> str:
        """A size as it is read, or as a number."""
        d = self.values[name].shape[axis]
        return r.choice((f"{name}.shape[{axis}]", f"{name}.size({axis})", str(d)))


def _axis(r: random.Random, x: Any) -> int:
    return r.randrange(-x.dim(), x.dim()) if x.dim() else 0


UNARY = ("relu sigmoid tanh exp abs neg sin cos sqrt rsqrt log erf floor ceil round trunc sign square "
         "reciprocal log1p expm1 isnan logical_not bitwise_not atan softplus sinh frac silu gelu hardswish mish "
         "leaky_relu elu selu hardtanh celu softsign tanhshrink log2 exp2 positive isfinite relu6").split()  # fmt: skip
BINARY = ("add sub mul div maximum minimum pow fmod remainder floor_divide eq ne lt le gt ge logical_and "
          "logical_or logical_xor bitwise_and bitwise_or atan2 fmax fmin where_ dist_ rsub true_divide hypot "
          "bitwise_xor copysign xlogy").split()  # fmt: skip


def unary(n: Net, r: random.Random) -> str | None:
    x = n.any(r)
    name = r.choice(UNARY)
    space = F if name in ("silu gelu hardswish mish softplus leaky_relu elu hardtanh celu softsign tanhshrink "
                          "selu relu6").split() else "torch"  # fmt: skip
    return f"{n.new()} = {space}.{name}({x})"


def binary(n: Net, r: random.Random) -> str | None:
    x, y, name = n.any(r), n.any(r), r.choice(BINARY)
    if r.random() < 0.3:
        y = r.choice(("2", "0.5", "-1.5", "3", "True", "torch.tensor(2)", "torch.tensor([1.5])"))
    if name == "where_":
        return f"{n.new()} = torch.where({x} > 0, {x}, {y})"
    if name == "dist_":
        return f"{n.new()} = ({x} - {y}).abs().sum()"
    if r.random() < 0.4 and name in ("add", "sub", "mul", "div"):
        sign = {"add": "+", "sub": "-", "mul": "*", "div": "/"}[name]
        return f"{n.new()} = {r.choice((f'{x} {sign} {y}', f'{y} {sign} {x}'))}"
    more = r.choice(("", "", ", alpha=2")) if name in ("add", "sub", "rsub") else ""
    more = r.choice((", rounding_mode='floor'", ", rounding_mode='trunc'", "")) if name == "div" else more
    return f"{n.new()} = torch.{name}({x}, {y}{more})"


def cast(n: Net, r: random.Random) -> str | None:
    kind = r.choice((*FLOATS, *TYPES))
    return f"{n.new()} = {n.any(r)}.to(torch.{kind})"


def in_place(n: Net, r: random.Random) -> str | None:
    x, y = n.any(r), n.any(r)
    ways = [f"{x}.add_({y})", f"{x}.mul_({y})", f"{x}.sub_(1)", f"{x}.clamp_(-1, 2)", f"{x}.relu_()",
            f"{x}.copy_({y})", f"{x} += {y}", f"{x} *= 2", f"{x}.fill_(2)", f"{x}.zero_()", f"{x}.neg_()",
            f"{x}.masked_fill_({x} > 0, 1)", f"{x}.div_(2)", f"{x}.tanh_()", f"{x}.t_()", f"{x}.unsqueeze_(0)",
            f"{x}.squeeze_()"]  # fmt: skip
    return r.choice(ways)


def _index(n: Net, r: random.Random, x: str) -> str:
    v = n.values[x]
    parts = []
    for axis in range(r.randint(1, max(v.dim(), 1))):
        d = v.shape[axis] if axis < v.dim() else 1
        ways = [":", "0", "-1", "1:", ":-1", "::2", "None", "...", f"{max(d // 2, 0)}:", f"-{max(d, 1)}:",
                f"torch.tensor([0, {max(d - 1, 0)}])", f"torch.arange({d})", f":{n.size(r, x, axis) if v.dim() else 1} - 1",
                f"torch.arange({n.size(r, x, axis) if v.dim() else 1}) % 2 == 0", "[0, 0]", "torch.tensor(0)"]  # fmt: skip
        parts.append(r.choice(ways))
    if parts.count("...") > 1:
        return ":"
    return ", ".join(parts)


def index(n: Net, r: random.Random) -> str | None:
    x = n.any(r, least=1)
    return x and f"{n.new()} = {x}[{_index(n, r, x)}]"


def index_write(n: Net, r: random.Random) -> str | None:
    x = n.any(r, least=1)
    if not x:
        return None
    value = r.choice(("1", "0.5", str(n.any(r)), f"{x}[{_index(n, r, x)}] * 2"))
    return f"{x}[{_index(n, r, x)}] {r.choice(('=', '=', '+=', '*='))} {value}"


def masked(n: Net, r: random.Random) -> str | None:
    x, y = n.any(r, least=1), n.any(r)
    ways = [f"{x}[{x} > 0]", f"torch.masked_select({x}, {x} < 1)", f"torch.nonzero({x} > 0)",
            f"{x}.masked_fill({x} > 0, 2)", f"torch.where({x} > {y}, {x}, {y})", f"torch.where({x} > 0)[0]",
            f"torch.where({x} > 0, 1, 0)", f"torch.where({x} > 0, {x}, 0.5)"]  # fmt: skip
    return f"{n.new()} = {r.choice(ways)}"


def view(n: Net, r: random.Random) -> str | None:
    x = n.any(r, least=1)
    if not x:
        return None
    v = n.values[x]
    a, b = _axis(r, v), _axis(r, v)
    order = r.sample(range(v.dim()), v.dim())
    ways = [f"{x}.reshape(-1)", f"{x}.flatten({min(a % v.dim(), b % v.dim())}, {max(a % v.dim(), b % v.dim())})",
            f"{x}.transpose({a}, {b})", f"{x}.permute({order})", f"{x}.unsqueeze({a})", f"{x}.squeeze({a})",
            f"{x}.view({n.size(r, x, 0)}, -1)", f"{x}.reshape(-1, {n.size(r, x, -1)})", f"{x}.T" if v.dim() == 2 else f"{x}.mT",
            f"{x}.expand(2, {', '.join(['-1'] * v.dim())})", f"{x}.unfold({a}, 1, 1)", f"{x}.narrow({a}, 0, 1)",
            f"{x}.select({a}, 0)", f"{x}.expand_as({n.any(r)})", f"{x}.contiguous()", f"{x}.movedim({a}, {b})",
            f"{x}.swapaxes({a}, {b})", f"{x}.diagonal(0, {a}, {b})", f"{x}.unflatten({a}, (-1, 1))",
            f"{x}.view_as({n.any(r)})", f"{x}.detach()", f"{x}.view(-1)", f"{x}.chunk(2, {a})[0]",
            f"{x}.split(1, {a})[-1]", f"{x}.unbind({a})[0]", f"torch.tensor_split({x}, 2, {a})[1]"]  # fmt: skip
    return f"{n.new()} = {r.choice(ways)}"


def move(n: Net, r: random.Random) -> str | None:
    x, y = n.any(r, least=1), n.any(r, least=1)
    if not x or not y:
        return None
    a, b = _axis(r, n.values[x]), _axis(r, n.values[x])
    ways = [f"torch.cat([{x}, {y}], {a})", f"torch.stack([{x}, {y}], {a})", f"torch.flip({x}, [{a}])",
            f"torch.roll({x}, {r.randint(-2, 2)}, {a})", f"{x}.repeat(2, {', '.join(['1'] * n.values[x].dim())})",
            f"torch.repeat_interleave({x}, 2, {a})", f"torch.tile({x}, (2,))", f"torch.tril({x})", f"torch.triu({x}, 1)",
            f"{F}.pad({x}, (1, 2), value=0.5)", f"{F}.pad({x}, (1, 0), mode='reflect')", f"torch.broadcast_tensors({x}, {y})[0]",
            f"torch.rot90({x})", f"{F}.pad({x}, (-1, 1))", f"torch.hstack([{x}, {y}])", f"torch.vstack([{x}, {y}])",
            f"torch.cat([{x}, {x}.to(torch.float32)], {a})", f"{F}.pad({x}, (0, 1), mode='replicate')",
            f"torch.atleast_2d({x})", f"torch.diag_embed({x})", f"{F}.one_hot({x}.long().clamp(0, 3), 4)",
            f"torch.meshgrid({x}.reshape(-1), {y}.reshape(-1), indexing='ij')[1]"]  # fmt: skip
    del b
    return f"{n.new()} = {r.choice(ways)}"


def gather(n: Net, r: random.Random) -> str | None:
    x, y = n.any(r, least=1), n.any(r, least=1)
    if not x or not y:
        return None
    a = _axis(r, n.values[x])
    d = max(n.values[x].shape[a], 1)
    i = f"({y}.long().abs() % {d})"
    own = f"({x}.long().abs() % {d})"
    ways = [f"torch.gather({x}, {a}, {own})", f"torch.index_select({x}, {a}, {i}.reshape(-1))", f"torch.take({x}, {i})",
            f"torch.scatter({x}, {a}, {own}, 1.0)", f"torch.scatter({x}, {a}, {own}, {x})", f"{x}.scatter_add({a}, {own}, {x})",
            f"{x}.index_add({a}, torch.tensor([0]), {x}.narrow({a}, 0, 1))", f"{x}.index_fill({a}, torch.tensor([0, -1]), 2)",
            f"torch.scatter_reduce({x}, {a}, {own}, {x}, '{r.choice(('sum', 'prod', 'amax', 'amin', 'mean'))}', include_self={r.random() < 0.5})",
            f"{x}.index_copy({a}, torch.tensor([0]), {x}.narrow({a}, -1, 1))", f"torch.take_along_dim({x}, {own}, {a})",
            f"torch.index_put({x}, (torch.tensor([0, 0]),), {x}[:1], accumulate={r.random() < 0.5})",
            f"{F}.embedding({i}, {x})", f"torch.select_scatter({x}, {x}.select({a}, 0) * 2, {a}, -1)",
            f"torch.slice_scatter({x}, {x}.narrow({a}, 0, 1), {a}, 0, 1)", f"torch.masked_scatter({x}, {x} > 0, {x} * 2)",
            f"torch.bucketize({x}, torch.tensor([-1.0, 0.0, 1.0]))", f"torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), {x})"]  # fmt: skip
    return f"{n.new()} = {r.choice(ways)}"


def reduce(n: Net, r: random.Random) -> str | None:
    x = n.any(r, least=1)
    if not x:
        return None
    a = _axis(r, n.values[x])
    keep = r.random() < 0.5
    name = r.choice("sum mean amax amin prod argmax argmin any all logsumexp var std norm max min cumsum "
                    "softmax log_softmax sort topk median count_nonzero cumprod var0 argsort nansum cummax full "
                    "unique std0".split())  # fmt: skip
    ways = {
        "softmax": f"{F}.softmax({x}, {a})", "log_softmax": f"{F}.log_softmax({x}, {a})", "cumsum": f"{x}.cumsum({a})",
        "cumprod": f"{x}.cumprod({a})", "max": f"{x}.max({a}, keepdim={keep})[0]", "min": f"{x}.min({a}, {keep}).values",
        "sort": f"{x}.sort({a}, descending={keep})[0]", "topk": f"{x}.topk(1, {a})[0]", "median": f"{x}.median({a})[0]",
        "count_nonzero": f"torch.count_nonzero({x}, {a})", "var0": f"{x}.var({a}, unbiased=False)",
        "std0": f"torch.std({x}, {a}, correction=0)", "argsort": f"torch.argsort({x}, {a}, stable=True)",
        "cummax": f"torch.cummax({x}, {a})[0]", "full": f"{x}.{r.choice(('sum', 'mean', 'max', 'min', 'prod', 'std'))}()",
        "unique": f"torch.unique({x})", "norm": f"torch.norm({x}, {r.choice((1, 2))}, {a})",
        "sum": f"{x}.sum({a}, keepdim={keep}" + r.choice((")", ", dtype=torch.float32)", ", dtype=torch.int64)")),
    }  # fmt: skip
    return f"{n.new()} = " + ways.get(name, f"torch.{name}({x}, dim={a}, keepdim={keep})")


def product(n: Net, r: random.Random) -> str | None:
    x, y = n.any(r, "fi", 1), n.any(r, "fi", 1)
    if not x or not y:
        return None
    rank = n.values[x].dim()
    letters = "abcdef"[:rank]
    ways = [f"{x} @ {y}", f"torch.matmul({x}, {y}.mT)", f"torch.einsum('{letters},{letters}->{letters[: r.randint(0, rank)]}', {x}, {x})",
            f"torch.einsum('...i,...j->...ij', {x}, {x})", f"torch.einsum('{letters}->{letters[::-1]}', {x})",
            f"torch.outer({x}.reshape(-1), {y}.reshape(-1))", f"torch.bmm({x}, {x}.mT)", f"torch.tensordot({x}, {x}, 1)",
            f"{F}.linear({x}, torch.ones(3, {n.values[x].shape[-1]}))", f"torch.einsum('...i,...i', {x}, {x})",
            f"{F}.layer_norm({x}, ({n.values[x].shape[-1]},))", f"{F}.normalize({x}, dim=-1)", f"{F}.avg_pool1d({x}, 2, ceil_mode=True)",
            f"{F}.max_pool1d({x}, 2, 1)", f"{F}.interpolate({x}, scale_factor=2.0, mode='nearest')", f"{F}.adaptive_avg_pool1d({x}, 2)",
            f"{F}.interpolate({x}, size=5, mode='linear')", f"{F}.glu({x}, -1)", f"torch.cdist({x}, {x})", f"{F}.scaled_dot_product_attention({x}, {x}, {x})",
            f"{F}.conv1d({x}, torch.ones(2, {n.values[x].shape[-2] if rank > 1 else 1}, 1))", f"torch.baddbmm({x}, {x}, {x}.mT)",
            f"{F}.cosine_similarity({x}, {x} + 1, -1)", f"{F}.group_norm({x}, 1)", f"torch.addmm({y}, {x}, {x}.mT)", f"torch.kron({x}, {y})"]  # fmt: skip
    return f"{n.new()} = {r.choice(ways)}"


def make_tensor(n: Net, r: random.Random) -> str | None:
    x = n.any(r, least=1)
    if not x:
        return None
    a = _axis(r, n.values[x])
    size = n.size(r, x, a)
    ways = [f"torch.zeros_like({x})", f"torch.ones({size}, 2)", f"torch.arange({size})", f"torch.full_like({x}, 2)",
            f"{x}.new_zeros({size})", f"torch.arange(0, {size}, 2, dtype=torch.float32)", f"torch.eye({size})",
            f"torch.linspace(0, 1, {size})", f"torch.full(({size},), 0.5)", f"{x}.new_full(({size}, 1), 3)",
            f"torch.tensor({size})", f"torch.ones_like({x}, dtype=torch.int32)", f"torch.zeros({size}).to({x})",
            f"torch.empty_like({x}).fill_(1.5)", f"{x} * {size}", f"{x} / {x}.numel()", f"torch.zeros({x}.shape)"]  # fmt: skip
    return f"{n.new()} = {r.choice(ways)}"


STATEMENTS = [unary, unary, binary, binary, cast, in_place, in_place, index, index, index_write, index_write,
              masked, view, view, view, move, gather, reduce, reduce, product, make_tensor]  # fmt: skip


make = fuzzing.make_by_seed


def check(case: dict[str, Any]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _check(case)


def _module(text: str) -> Any:
    """The class of a module's text, whose source scripts can read."""
    import linecache

    name = "<random module>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"__name__": "random_module"}
    exec(compile(text, name, "exec"), names)
    return names["M"]().eval()


def _check(case: dict[str, Any]) -> str:
    import torch

    n = Net(case["seed"], case["without"])
    way = case.get("way") or random.Random(case["seed"] + 1).choice(("trace", "trace", "script", "export"))
    text, module = n.text(), _module(n.text())
    example = tuple(x.clone() for x in n.inputs(False))
    try:
        source = module
        if way == "script":
            source = torch.jit.script(module)
        elif way == "export":
            source = torch.export.export(module, tuple(x.clone() for x in example))
        reference = (
            torch.jit.trace(module, tuple(x.clone() for x in example), check_trace=False)
            if way == "trace"
            else source
        )
    except Exception:
        return ""
    title = f"{way} {n.kinds} {n.shapes} {n.others}\n{text}\n"
    try:
        more: dict[str, Any] = {}
        if way == "trace":
            more = {"example_input": tuple(x.clone() for x in example)}
        elif way == "script":
            types = [getattr(ovjit.Type, OV_TYPES.get(k, k)) for k in n.kinds]
            is_open = "squeeze" not in text  # of an open size it is taken for 1, as by OpenVINO
            shapes = [
                ovjit.PartialShape([-1 if d in n.others and is_open else d for d in s]) for s in n.shapes
            ]
            more = {"input": list(zip(shapes, types, strict=True))}
        model = ovjit.convert_model(source, **more)
        compiled = ovjit.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except OvjitError as error:
        return f"{title}refuses: {str(error)[-600:]}" if case.get("strict") else ""
    except Exception as error:
        return f"{title}raises {type(error).__name__}: {error}"
    for other in (False, True) if way == "trace" or way == "script" and "squeeze" not in text else (False,):
        inputs = n.inputs(other)
        run = reference if other else module
        try:
            wanted = run(*(x.clone() for x in inputs))
        except Exception:
            continue
        found = _run(compiled, inputs)
        if isinstance(found, str):
            return f"{title}sizes {other}: {found}"
        wanted = list(wanted) if isinstance(wanted, tuple) else [wanted]
        wrong = _difference(n, found, wanted)
        if wrong:
            return f"{title}sizes {other}: {wrong}"
    return ""


def _argument_of(port: Any, index: int) -> str:
    """The argument that an input is: scripts call x "x.1"."""
    return next((name[0] for name in port.names if name.partition(".")[0] in tuple("xyz")), "xyz"[index])


def _run(compiled: Any, inputs: list[Any]) -> Any:
    import torch

    values = []
    for x in inputs:
        if x.dtype == torch.bfloat16:
            raw = np.ascontiguousarray(x.view(torch.int16).numpy())
            values.append(ovjit.Tensor(raw, list(x.shape), ovjit.Type.bf16))
        else:
            values.append(x.numpy())
    try:
        request = compiled.create_infer_request()
        by_name = dict(zip("xyz", values, strict=False))
        request.infer([by_name[_argument_of(port, i)] for i, port in enumerate(compiled.inputs)])
        outputs = []
        for i in range(len(compiled.outputs)):
            tensor = request.get_output_tensor(i)
            data = np.array(tensor.data)
            outputs.append(torch.from_numpy(data.view(np.int16)).view(torch.bfloat16)
                           if tensor.element_type == ovjit.Type.bf16 else torch.from_numpy(data))  # fmt: skip
        return outputs
    except Exception as error:
        return f"raises {type(error).__name__}: {str(error)[-300:]}"


def _difference(n: Net, found: list[Any], wanted: list[Any]) -> str:
    low = any(v.dtype in (n.torch.float16, n.torch.bfloat16) for v in [*n.values.values(), *wanted])
    if len(found) != len(wanted):
        return f"{len(found)} outputs, not {len(wanted)}"
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"output {i}: {a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}"
        if not a.numel():
            continue
        u, v = a.double(), b.double()
        scale = max(float(v[v.isfinite()].abs().max()) if bool(v.isfinite().any()) else 0.0, 1e-2)
        near = ((u - v).abs() <= (5e-2 if low else 1e-3) * scale) | (u == v) | (u.isnan() & v.isnan())
        if float(near.double().mean()) < (0.8 if low else 1):
            return f"output {i} ({a.dtype}): {a.reshape(-1)[:6].tolist()}, not {b.reshape(-1)[:6].tolist()}"
    return ""


def smaller(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return fuzzing.without_steps(case, max(LENGTHS))


if __name__ == "__main__":
    fuzzing.main(sys.modules[__name__])
