"""Targets of guided fuzzing for what frameworks hand over: exported programs of PyTorch, and jaxprs."""

from __future__ import annotations

import io
import random
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

import ovjit
from tests.fuzz.fuzz_models import NUMBERS
from tests.fuzz.guided_targets import _JSON, Target, _refused, _written_again, tokens_changed

GRAPH = "models/model.json"


class Program(Target):
    """An archive of torch.export.save: a byte says which one, the rest is the JSON text of its graph."""

    longest = 1 << 16

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="ovjit-program-"), "m.pt2")
        self.archives = [self._saved(*row) for row in _programs()]

    @staticmethod
    def _saved(module: Any, example: tuple[Any, ...], dynamic: Any) -> dict[str, bytes]:
        import torch

        file = io.BytesIO()
        torch.export.save(torch.export.export(module.eval(), example, dynamic_shapes=dynamic), file)
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def seeds(self) -> list[bytes]:
        return [bytes([i]) + members[_graph_of(members)] for i, members in enumerate(self.archives)]

    def check(self, data: bytes) -> str:
        from ovjit.readers.torch.files import load
        from ovjit.readers.torch.programs.reader import read_program

        members = self.archives[(data or b"\0")[0] % len(self.archives)]
        with zipfile.ZipFile(self.path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, data[1:] if name == _graph_of(members) else content)
        try:
            return _written_again(read_program(load(str(self.path)), None))
        except RuntimeError as error:
            return _refused(error)

    def mutate(self, data: bytes, most: int, rng: random.Random) -> bytes:  # type: ignore[override]
        return data[:1] + tokens_changed(_JSON, data[1:], most, rng)


def _graph_of(members: dict[str, bytes]) -> str:
    return next(name for name in members if name.endswith(GRAPH))


def _programs() -> list[tuple[Any, tuple[Any, ...], Any]]:
    """Modules with their examples and what is open of their inputs."""
    import torch

    class Picks(torch.nn.Module):
        def forward(self, x: Any, at: Any) -> Any:
            y = x[at].reshape(at.shape[0], -1).split(4, 1)
            return torch.cat([y[0], y[1].sort(-1)[0]], 1).permute(1, 0).cumsum(0), x.sum((0, 2)).topk(2)[1]

    class Attention(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True).softmax(-1)

    nn, rows = torch.nn, torch.export.Dim("rows")
    layers = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                           nn.Flatten(), nn.Linear(16, 3), nn.LayerNorm(3))  # fmt: skip
    return [
        (layers, (torch.rand(2, 2, 4, 4),), None),
        (nn.Sequential(nn.Linear(4, 3), nn.GELU()), (torch.rand(3, 4),), ({0: rows},)),
        (Picks(), (torch.rand(5, 3, 4), torch.tensor([0, 4, 2])), ({}, {0: rows})),
        (Attention(), (torch.rand(1, 2, 4, 3),), None),
    ]


class Jaxpr(Target):
    """A function of JAX: a byte says which, and each three of the others change one of its equations."""

    longest = 64

    def __init__(self) -> None:
        import jax
        import jax.numpy as jnp
        from jax import lax

        x, i, image = np.ones((3, 4), np.float32), np.array([2, 0, 1]), np.ones((1, 2, 6, 6), np.float32)
        functions: list[tuple[Any, tuple[Any, ...]]] = [
            (lambda x: jax.nn.softmax(x @ x.T) + jnp.tanh(x).sum(0)[None, :3], (x,)),
            (lambda x, i: (x[i], x.at[i].add(1.0), jnp.take(x, i, 1), x.T[::-1].reshape(2, 6)), (x, i)),
            (lambda x: lax.conv_general_dilated(x, jnp.ones((4, 2, 3, 3)), (2, 2), "SAME"), (image,)),
            (lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"), (image,)),
            (lambda x: (jnp.sort(x), jnp.cumsum(x, 1), lax.pad(x, 0.5, ((1, 2, 1), (0, -1, 0)))), (x,)),
            (lambda x: lax.scan(lambda c, a: (c + a, c * a), x[0], x), (x,)),
            (lambda x: lax.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, x), (x,)),
            (lambda x, i: lax.dynamic_slice(jnp.concatenate([x, x]), (i[1], i[0]), (2, 2)), (x, i)),
        ]
        self.jaxprs = [jax.make_jaxpr(function)(*given) for function, given in functions]

    def seeds(self) -> list[bytes]:
        plain = [bytes([i]) for i in range(len(self.jaxprs))]
        return plain + [bytes([i, 1, 2, 3]) for i in range(len(self.jaxprs))]

    def check(self, data: bytes) -> str:
        closed = self.jaxprs[(data or b"\0")[0] % len(self.jaxprs)]
        eqns = list(closed.jaxpr.eqns)
        for which, how, value in zip(data[1::3], data[2::3], data[3::3], strict=False):
            eqns[which % len(eqns)] = _changed(eqns[which % len(eqns)], how, value)
        try:
            return _written_again(ovjit.convert_model(closed.replace(jaxpr=closed.jaxpr.replace(eqns=eqns))))
        except RuntimeError as error:
            return _refused(error)


def _changed(eqn: Any, how: int, value: int) -> Any:
    """The equation with inputs in another order, or with one parameter that is missing or another."""
    names = sorted(eqn.params)
    if how % 4 == 0 or not names:
        return eqn.replace(invars=eqn.invars[::-1] if value % 2 else eqn.invars[:1] * len(eqn.invars))
    name = names[value % len(names)]
    if how % 4 == 1:
        return eqn.replace(params={k: v for k, v in eqn.params.items() if k != name})
    return eqn.replace(params={**eqn.params, name: _other(eqn.params[name], how // 4)})


def _other(value: Any, which: int) -> Any:
    """A hostile value of the same kind, where it is a number or made of numbers."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, np.integer)):
        return NUMBERS[which % len(NUMBERS)]
    if isinstance(value, tuple) and value:
        at = which % len(value)
        if which % 3 == 0:
            return value[:at] + value[at + 1 :]
        if which % 3 == 1:
            return (*value, value[at])
        changed = (*value[:at], _other(value[at], which // 3), *value[at + 1 :])
        return type(value)(*changed) if hasattr(value, "_fields") else changed
    return value
