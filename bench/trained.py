"""Networks that are trained in seconds, on data that Python packages ship, and what they are tested on.

`make(name, seed, folder)` trains with torch and writes `name-seed.xml` (by the real OpenVINO), `.onnx` and
`.npz` with the held-out examples. Training uses one thread and a fixed number of epochs; held-out data
decide nothing. Data: scikit-learn's digits and wine, and the text of this project's pages.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
#: Examples of a batch, and characters that a language model sees.
BATCH, WINDOW = 64, 96
#: Sizes of the language model.
WIDTH, HEADS, LAYERS = 64, 2, 2


class Mlp(nn.Sequential):
    """13 measurements of a wine -> 3 cultivars."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(13, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 3))


class Cnn(nn.Module):
    """[n, 1, 8, 8] -> 10 digits: convolutions, BatchNorm, a residual block, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.down = nn.Conv2d(16, 32, 3, 2, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.block(x))
        return self.head(F.relu(self.down(x)).mean((2, 3)))


class Lstm(nn.Module):
    """[n, 8, 8] -> 10 digits: an image is a sequence of its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LSTM(8, 48, batch_first=True, bidirectional=True)
        self.head = nn.Linear(96, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rows(x)[0].mean(1))


class Block(nn.Module):
    """A layer of a transformer, normalized before its parts; keys and values of earlier tokens may come."""

    def __init__(self, wide: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(wide), nn.LayerNorm(wide)
        self.qkv, self.out = nn.Linear(wide, 3 * wide), nn.Linear(wide, wide)
        self.mlp = nn.Sequential(nn.Linear(wide, 4 * wide), nn.GELU(), nn.Linear(4 * wide, wide))

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None,
        past: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        n, length, wide = x.shape
        parts = self.qkv(self.first(x)).view(n, length, 3, self.heads, wide // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        y = F.scaled_dot_product_attention(q, k, v, mask)
        x = x + self.out(y.transpose(1, 2).reshape(n, length, wide))
        return x + self.mlp(self.second(x)), (k, v)


class Vit(nn.Module):
    """[n, 1, 8, 8] -> 10 digits: 16 patches of 2 x 2."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 48, 2, 2)
        self.places = nn.Parameter(torch.randn(1, 16, 48) * 0.02)
        self.blocks = nn.ModuleList(Block(48, 2) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x, _ = block(x, None)
        return self.head(self.norm(x).mean(1))


class Gpt(nn.Module):
    """Characters -> logits of the next ones. With `past` it is a step of a decoder with caches.

    tokens: i64 [n, t]; mask: f32 [1, 1, t, all], 0 or -inf; places: i64 [t];
    past: keys and values of each layer, f32 [n, HEADS, before, WIDTH // HEADS].
    """

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(letters, WIDTH), nn.Embedding(WINDOW, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS) for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, letters)

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        x, kept = self.letters(tokens) + self.places(places), []
        for i, block in enumerate(self.blocks):
            x, pair = block(x, mask, (past[2 * i], past[2 * i + 1]) if past else None)
            kept += pair
        logits = self.head(self.norm(x))
        return (logits, *kept) if past else (logits,)


def causal(before: int, length: int) -> np.ndarray:
    """The mask of `length` tokens behind `before` others: f32 [1, 1, length, before + length]."""
    seen = np.tri(length, before + length, before, dtype=bool)
    return np.where(seen, 0, np.float32(-1e9)).astype(np.float32)[None, None]


def table(name: str, seed: int) -> tuple[np.ndarray, ...]:
    """(training inputs, labels, held-out inputs, labels): a third is held out, another for each seed."""
    from sklearn.datasets import load_digits, load_wine
    from sklearn.model_selection import train_test_split

    found = load_wine() if name == "mlp" else load_digits()
    x, y = found.data.astype(np.float32), found.target.astype(np.int64)
    a, b, c, d = train_test_split(x, y, test_size=1 / 3, random_state=seed, stratify=y)
    if name == "mlp":
        a, b = (a - a.mean(0)) / a.std(0), (b - a.mean(0)) / a.std(0)
        return a, c, b, d
    shape = (-1, 8, 8) if name == "lstm" else (-1, 1, 8, 8)
    return (a / 16).reshape(shape), c, (b / 16).reshape(shape), d


def text(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(training characters, held-out windows [n, WINDOW + 1], size of the alphabet), of the pages' text."""
    said = "".join(
        p.read_text() for p in sorted((ROOT / "docs").glob("*.md")) if p.stem not in ("types", "parity")
    )
    said = "".join(letter for letter in said if letter.isascii())
    letters = np.array(sorted(set(said)))
    ids = np.searchsorted(letters, np.array(list(said)))
    usable = len(ids) // (WINDOW + 1) * (WINDOW + 1)
    windows = ids[:usable].reshape(-1, WINDOW + 1)
    order = np.random.default_rng(seed).permutation(len(windows))
    return windows[order[24:]], windows[order[:24]], len(letters)


def fit(net: nn.Module, steps: int, batch: Callable[[torch.Generator], torch.Tensor], seed: int) -> None:
    """AdamW with a rate that rises and falls; `batch` gives the loss of some examples."""
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), 4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        loss = batch(rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()


#: name -> (network, steps of training)
CLASSIFIERS: dict[str, tuple[type[nn.Module], int]] = {
    "mlp": (Mlp, 200), "cnn": (Cnn, 300), "lstm": (Lstm, 300), "vit": (Vit, 400),
}  # fmt: skip
GPT_STEPS = 300


def make(name: str, seed: int, folder: Path) -> Path:
    """Train `name` ("gpt" or one of `CLASSIFIERS`), and write it. The path of the IR, made once."""
    path = folder / f"{name}-{seed}.xml"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        (_gpt if name == "gpt" else _classifier)(name, seed, path)
    return path


def _classifier(name: str, seed: int, path: Path) -> None:
    kind, steps = CLASSIFIERS[name]
    net, (x, y, held, labels) = kind(), table(name, seed)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)

    def batch(rng: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(inputs), (BATCH,), generator=rng)
        return F.cross_entropy(net(inputs[rows]), targets[rows])

    fit(net, steps, batch, seed)
    np.savez(path.with_suffix(".npz"), x=held, y=labels, some=x[:64])
    _export(net, (torch.from_numpy(held[:2]),), path, ["x"], {"x": {0: "n"}})


def _gpt(name: str, seed: int, path: Path) -> None:
    windows, held, letters = text(seed)
    net, all_of_it = Gpt(letters), torch.from_numpy(windows)
    mask, places = torch.from_numpy(causal(0, WINDOW)), torch.arange(WINDOW)

    def batch(rng: torch.Generator) -> torch.Tensor:
        rows = all_of_it[torch.randint(len(all_of_it), (16,), generator=rng)]
        return F.cross_entropy(net(rows[:, :-1], mask, places)[0].flatten(0, 1), rows[:, 1:].flatten())

    fit(net, GPT_STEPS, batch, seed)
    np.savez(path.with_suffix(".npz"), x=held, y=held[:, 1:])
    _decoder(net, path)
    example = (torch.from_numpy(held[:1, :-1]), mask, places)
    axes = {"tokens": {0: "n", 1: "t"}, "mask": {2: "t", 3: "all"}, "places": {0: "t"}}
    torch.onnx.export(
        net, example, path.with_suffix(".onnx"), input_names=list(axes), dynamic_axes=axes, dynamo=False
    )  # fmt: skip


def _decoder(net: Gpt, path: Path) -> None:
    """The decoder with its keys and values in variables, as an IR of the real OpenVINO."""
    import openvino
    from openvino.passes import MakeStateful, Manager

    past = [torch.zeros(1, HEADS, 3, WIDTH // HEADS) for _ in range(2 * LAYERS)]
    example = (torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 1, 2, 5), torch.arange(2), *past)
    shapes = [[1, -1], [1, 1, -1, -1], [-1], *[[1, HEADS, -1, WIDTH // HEADS]] * (2 * LAYERS)]
    names = ["tokens", "mask", "places", *(f"past{i}" for i in range(2 * LAYERS))]
    model = openvino.convert_model(net, example_input=example)
    for port, wanted in zip(model.inputs, names, strict=True):
        port.get_tensor().set_names({wanted})
        port.get_node().set_friendly_name(wanted)
    model.reshape(dict(zip(model.inputs, map(openvino.PartialShape, shapes), strict=True)))
    outputs = {"logits": model.outputs[0]}
    for i, port in enumerate(model.outputs[1:]):
        port.get_tensor().set_names({f"now{i}"})
        outputs[f"now{i}"] = port
    outputs["logits"].get_tensor().set_names({"logits"})
    manager = Manager()
    manager.register_pass(MakeStateful({f"past{i}": f"now{i}" for i in range(2 * LAYERS)}))
    manager.run_passes(model)
    openvino.save_model(model, path, compress_to_fp16=False)


def _export(net: nn.Module, example: Any, path: Path, names: list[str], axes: dict[str, Any]) -> None:
    import openvino

    model = openvino.convert_model(net, example_input=example)
    model.reshape(openvino.PartialShape([-1, *example[0].shape[1:]]))
    openvino.save_model(model, path, compress_to_fp16=False)
    torch.onnx.export(
        net, example, path.with_suffix(".onnx"), input_names=names, dynamic_axes=axes, dynamo=False
    )  # fmt: skip
