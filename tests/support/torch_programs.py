"""Random small programs of tensors, as Python source: for torch.compile beside eager mode.

A line is kept if eager mode runs it with finite results. The source of a program can be shown.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import torch

FLOAT, WHOLE, TRUTH = "float", "whole", "truth"
_KINDS = {torch.bool: TRUTH, torch.int64: WHOLE, torch.int32: WHOLE, torch.uint8: WHOLE}

#: The kind of the operand `a`, and a line. `b` is a second operand of any shape, `c` a condition.
#: `i` and `n` are small numbers and `d` an axis of `a`. Lines of EXACT give the same bits everywhere.
EXACT = [
    (WHOLE, "new = a + b"), (WHOLE, "new = a * b - n"), (WHOLE, "new = a // n"), (WHOLE, "new = a % n"),
    (WHOLE, "new = a.remainder(-n)"), (WHOLE, "new = torch.maximum(a, b)"), (WHOLE, "new = a.clamp(-n, n)"),
    (WHOLE, "new = a & 7 | b"), (WHOLE, "new = a >> 1"), (WHOLE, "new = a.sum(d)"),
    (WHOLE, "new = a.cumsum(d)"), (WHOLE, "new = a.amax(d, keepdim=True)"), (WHOLE, "new = a.argmax(d)"),
    (WHOLE, "new = a.to(torch.int32)"), (WHOLE, "new = a.to(torch.uint8)"), (WHOLE, "new = a.prod(d)"),
    (WHOLE, "new = a.sign() + a.abs()"), (WHOLE, "a.add_(n)"), (WHOLE, "a.mul_(b)"),
    (WHOLE, "a[..., 0] = n"), (WHOLE, "a.select(d, 0).sub_(n)"), (WHOLE, "new = a.float()"),
    (WHOLE, "new = a > b"), (WHOLE, "new = a == n"), (WHOLE, "new = a.bool()"),
    (WHOLE, "new = torch.bincount(a.flatten().abs() % 5, minlength=5)"), (WHOLE, "new = a.sort(d)[0]"),
    (WHOLE, "new = torch.where(c, a, b)"), (WHOLE, "a.copy_(b)"), (WHOLE, "new = a.unique()[:1]"),
    (TRUTH, "new = a & b.bool()"), (TRUTH, "new = ~a"), (TRUTH, "new = a ^ (b > 0)"),
    (TRUTH, "new = a.any(d)"), (TRUTH, "new = a.all(d, keepdim=True)"), (TRUTH, "new = a.sum(d)"),
    (TRUTH, "new = a.long()"), (TRUTH, "a.logical_not_()"), (TRUTH, "new = a.cumsum(d)"),
    (TRUTH, "new = torch.where(a, n, -1)"), (TRUTH, "a[..., :1] = True"),
    (TRUTH, "new = a.to(torch.float64)"),
]  # fmt: skip
#: Of any kind: views, copies, writes to views, and what moves elements.
MOVES = [
    "new = a.t() if a.dim() == 2 else a", "new = a.transpose(0, d)", "new = a[1:]", "new = a[..., ::2]",
    "new = a.unsqueeze(d)", "new = a.squeeze()", "new = a.flatten()", "new = a.reshape(-1, a.shape[-1])",
    "new = a.narrow(d, 0, 1)", "new = a.select(d, -1)", "new = a.expand(n, *a.shape)", "new = a.flip(d)",
    "new = a.roll(i, d)", "new = torch.cat([a, a], d)", "new = torch.stack([a, a], d)", "new = a.clone()",
    "new = a.contiguous()", "new = a.chunk(2, d)[-1]", "new = a.movedim(0, -1)", "new = a.unfold(d, 1, 1)",
    "new = a.index_select(d, torch.tensor([0, 0]))", "new = a[torch.tensor([0, -1])]", "new = a.diagonal()",
    "new = a.repeat(*[1] * (a.dim() - 1), n)", "new = a.repeat_interleave(n, d)", "new = a.tril()",
    "new = a.masked_fill(c, 1)", "new = a.gather(d, torch.zeros_like(a, dtype=torch.int64))",
    "new = torch.nn.functional.pad(a, (1, i))", "new = a.view(*a.shape, 1)", "new = a.detach()", "a.zero_()",
    "a[0] = b", "a[..., -1] = 1", "a.select(d, 0).copy_(b)", "a.transpose(0, -1)[0].fill_(i)",
    "a.masked_fill_(c, i)", "a.index_fill_(d, torch.tensor([0]), n)", "a[a > n] = 0",
    "a.diagonal().fill_(i)", "a.view(-1)[::2] = i",
    "a.scatter_(d, torch.zeros_like(a, dtype=torch.int64), b)", "a.swapaxes(0, d).t_()",
    "a.index_put_((torch.tensor([0, 0]),), b, accumulate=True)", "new = a.new_full((2, n), i)",
    "a.unsqueeze_(0)", "new = torch.zeros_like(a)", "new = torch.ones_like(a).mul_(n)",
    "new = a.argsort(d, stable=True)", "new = a if a.shape[d] > 2 else a + 1 > 0",
    "for q in range(n):\n        a[..., 0].add_(q)", "new = a.mT",
    "new = torch.cond(c.any(), lambda x: x + 1, lambda x: x - 1, (a,))", "new = a.split(1, d)[0]",
    "new = a; a = b", "new = a.select_scatter(b, d, 0)", "new = a.T", "new = a.unbind(d)[0]",
    "new = torch.empty_like(a).copy_(a)", "new = a.as_strided((2,), (1,), 1)", "new = a.to(b.dtype)",
    "new = a.expand_as(b)", "new = a.nonzero()[:1]", "new = a.numel() + b.sum()", "new = a[None, ..., None]",
]  # fmt: skip
#: With rounding, which may differ.
ROUNDED = [
    "new = a + b", "new = a * b", "new = a - n", "new = a / (b.abs() + 1)", "new = a.sin()",
    "new = a.tanh() * b", "new = a.exp().clamp(max=9)", "new = a.sum(d)", "new = a.mean(d, keepdim=True)",
    "new = a.softmax(d)", "new = a.var(d, correction=0)", "new = a.amax(d)", "new = a.relu()",
    "new = a.sigmoid()", "new = a.cumsum(d)", "new = torch.nn.functional.gelu(a)",
    "new = torch.where(c, a, b)", "new = a @ a.transpose(-1, -2)",
    "new = torch.einsum('...i,...i->...', a, a)", "new = a.norm()", "new = a.abs().sqrt()",
    "new = a.square()", "new = torch.nn.functional.layer_norm(a, a.shape[-1:])", "new = a.double()",
    "new = a.logsumexp(d)", "new = a.round()", "new = (a * n).floor()", "new = a.long()", "new = a > 0",
    "new = a.argmin(d)", "a.mul_(n)", "a.add_(b, alpha=0.5)", "a.sin_()", "a.clamp_(-1, 1)",
    "a[..., 0] *= 2", "a.select(d, 0).exp_().clamp_(max=5)", "a.transpose(0, -1).addcmul_(b, b)",
    "a.copy_(b)", "a.sub_(a.mean(d, keepdim=True))", "new = a.lerp(b, 0.25)", "torch.add(a, b, out=a)",
    "new = a.atan2(b)", "new = a.sort(d)[0]", "new = a.topk(1, d)[0]", "new = a.dist(b)",
    "new = torch.nn.functional.normalize(a, dim=d)", "new = a.to(torch.complex64).abs()", "a.relu_()",
    "new = -a", "new = a.half().float()", "new = a.bfloat16()", "new = torch.addmm(a, a, a.t())",
    "new = a.prod(d)", "new = torch.func.vmap(torch.sum)(a)",
    "new = a.median(d)[0]",
]  # fmt: skip


class Program:
    """`function` takes the tensors of `inputs(seed)`. `exact` if each line gives the same bits everywhere."""

    def __init__(self, seed: int, lines: int = 7):
        self.rng = random.Random(seed)
        self.seed, self.exact = seed, self.rng.random() < 0.4
        shapes = [(3, 4), (2, 3, 4), (4,), (3, 1), (4, 3), (3, 3), ()]
        self.shapes = [self.rng.choice(shapes[:-1]), self.rng.choice(shapes), (3, 4)]
        self.layouts = [self.rng.choice(("plain", "plain", "turned", "gaps", "expanded")) for _ in range(3)]
        self.names = ["x", "y", "z"]
        kept: list[str] = []
        while lines > 0:
            state = self._after(kept, self.names)
            line, name = self._line(state)
            if self._runs([*kept, line], name):
                kept.append(line)
                self.names = self._named(line, name)
                lines -= 1
        results = self.rng.sample(self.names[3:], min(len(self.names) - 3, 3)) or ["x + 1"]
        self.source = self._text(kept, results)
        self.function = self._made(self.source)

    def inputs(self, seed: int) -> list[torch.Tensor]:
        made = torch.Generator().manual_seed(seed)
        values = []
        for i, (shape, layout) in enumerate(zip(self.shapes, self.layouts, strict=True)):
            sizes = [2 * n for n in shape] if layout == "gaps" else list(shape)
            sizes = sizes[::-1] if layout == "turned" else sizes
            if layout == "expanded" and sizes:
                sizes[0] = 1
            value = torch.randint(-9, 10, sizes, generator=made)
            if not self.exact:
                value = torch.randn(sizes, generator=made)
            if i == 2:
                value = value > 0
            if layout == "turned":
                value = value.permute(list(reversed(range(value.dim()))))
            elif layout == "gaps":
                value = value[(slice(None, None, 2),) * value.dim()]
            elif layout == "expanded":
                value = value.expand(shape)
            values.append(value)
        return values

    def _line(self, state: dict[str, Any]) -> tuple[str, str]:
        rng = self.rng
        a = rng.choice(list(state))
        kind = _KINDS.get(state[a].dtype, FLOAT)
        table = [line for needed, line in EXACT if needed == kind]
        if kind == FLOAT and not self.exact:
            table = ROUNDED
        line = rng.choice(MOVES if rng.random() < 0.5 or not table else table)
        names = {
            "a": a,
            "b": rng.choice(list(state)),
            "c": f"({rng.choice(list(state))} > 0)",
            "d": str(rng.randrange(max(state[a].dim(), 1))),
            "i": str(rng.randint(0, 2)),
            "n": str(rng.randint(1, 3)),
            "new": f"v{len(self.names)}",
        }
        return substituted(line, names), names["new"]

    def _after(self, lines: list[str], names: list[str]) -> dict[str, Any]:
        made = self._made(self._text(lines, names))(*self.inputs(0))
        return dict(zip(names, made, strict=True))

    def _runs(self, lines: list[str], name: str) -> bool:
        names = self._named(lines[-1], name)
        try:
            made = [self._made(self._text(lines, names))(*self.inputs(seed)) for seed in (0, 1)]
        except Exception:
            return False
        return all(_fits(value) for values in made for value in values)

    def _named(self, line: str, name: str) -> list[str]:
        """The names after a line, which may make `name`."""
        return [*self.names, name] if line.startswith(name) else self.names

    def _text(self, lines: list[str], results: list[str]) -> str:
        body = "\n".join(f"    {line}" for line in lines)
        return f"def program(x, y, z):\n{body}\n    return [{', '.join(results)}]\n"

    def _made(self, source: str) -> Callable[..., Any]:
        space: dict[str, Any] = {"torch": torch}
        exec(compile(source, "<program>", "exec"), space)
        return space["program"]


def _fits(value: Any) -> bool:
    return value.numel() <= 2000 and (value.dtype == torch.bool or bool((value.abs() < 1e6).all()))


def substituted(line: str, names: dict[str, str]) -> str:
    """A line with its short names replaced."""
    return re.sub(r"\b(a|b|c|d|i|n|new)\b(?!')", lambda found: names[found[1]], line)
