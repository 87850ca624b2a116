"""Train the embedded digit classifier and write ovjit/data/digits.{xml,bin,npz}.

In: scikit-learn's handwritten digits (1797 images, 8 x 8, grey levels 0..16).  Out: an OpenVINO IR in f32,
written by the real OpenVINO, and the held-out fifth of the digits, which neither training nor any choice
below has seen.

    python -m venv .venv-train
    .venv-train/bin/pip install torch==2.13.0 openvino==2026.4.1 scikit-learn
    .venv-train/bin/python bench/train_digits.py [folder]

One thread, fixed seeds, deterministic algorithms: two runs on the same machine give the same bytes.  Another
CPU may round otherwise and end with slightly different weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openvino
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

SEED = 20260401
EPOCHS = 60
BATCH = 64
PEAK_RATE = 4e-3
DATA = Path(__file__).resolve().parent.parent / "ovjit" / "data"


def conv_bn(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, padded to keep the size at stride 1, then BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class DigitNet(nn.Module):
    """[n, 1, 8, 8] grey levels in 0..1 -> [n, 10] logits.

    Small, but of the parts that image classifiers are made of: a stem with one channel, a residual block,
    max-pooling, a depthwise and a pointwise convolution, a strided convolution, a global mean, a dense layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(1, 24, 3)
        self.first = conv_bn(24, 24, 3)
        self.second = conv_bn(24, 24, 3)
        self.depthwise = conv_bn(24, 24, 3, groups=24)
        self.pointwise = conv_bn(24, 48, 1)
        self.strided = conv_bn(48, 64, 3, stride=2)
        self.drop = nn.Dropout(0.2)
        self.dense = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(images))
        x = F.relu(x + self.second(F.relu(self.first(x))))
        x = F.max_pool2d(x, 2)
        x = F.relu6(self.depthwise(x))
        x = F.relu(self.pointwise(x))
        x = F.relu(self.strided(x))
        return self.dense(self.drop(x.mean(dim=(2, 3))))


class Probabilities(nn.Module):
    """The trained network with the softmax that only inference needs."""

    def __init__(self, logits: nn.Module) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.softmax(self.logits(images), dim=1)


def load_split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Train images, held-out images (uint8 [n, 8, 8], 0..16), train labels, held-out labels (uint8 [n])."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    train_x, held_x, train_y, held_y = train_test_split(
        images, labels, test_size=0.2, random_state=SEED, stratify=labels
    )
    return train_x, held_x, train_y, held_y


def as_batch(images: np.ndarray) -> torch.Tensor:
    """uint8 [n, 8, 8] in 0..16 -> f32 [n, 1, 8, 8] in 0..1."""
    return torch.from_numpy(images[:, None].astype(np.float32) / 16)


def shifted(batch: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Every image moved by -1, 0 or 1 pixel along each axis, with zeros moving in: the only augmentation."""
    padded = F.pad(batch, (1, 1, 1, 1))
    offsets = torch.randint(0, 3, (len(batch), 2), generator=rng)
    rows = torch.arange(8)
    moved = [image[:, dy + rows][:, :, dx + rows] for image, (dy, dx) in zip(padded, offsets, strict=True)]
    return torch.stack(moved)


def train(images: np.ndarray, labels: np.ndarray) -> DigitNet:
    """Train for a fixed number of epochs; nothing is selected by looking at held-out digits."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    rng = torch.Generator().manual_seed(SEED)
    net = DigitNet()
    x, y = as_batch(images), torch.from_numpy(labels.astype(np.int64))
    steps = -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(x), generator=rng).split(BATCH):
            loss = F.cross_entropy(net(shifted(x[rows], rng)), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  loss {total / len(x):.4f}")
    return net.eval()


def export(net: nn.Module, xml: Path) -> None:
    """Write IR v11 with f32 weights: input `images` [?, 1, 8, 8], output `probabilities` [?, 10].

    The batch stays dynamic. OpenVINO's converter folds the BatchNorms into the convolutions.
    """
    example = torch.zeros(2, 1, 8, 8)
    model = openvino.convert_model(net, example_input=example, input=[("images", [-1, 1, 8, 8])])
    model.set_friendly_name("digits")
    model.output(0).get_tensor().set_names({"probabilities"})
    openvino.save_model(model, xml, compress_to_fp16=False)


def accuracy(xml: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of `images` that the written IR classifies right, run by OpenVINO in f32."""
    compiled = openvino.Core().compile_model(xml, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    probabilities = compiled(as_batch(images).numpy())[0]
    return float((probabilities.argmax(axis=1) == labels).mean())


def main(folder: Path = DATA) -> None:
    train_x, held_x, train_y, held_y = load_split()
    net = Probabilities(train(train_x, train_y)).eval()
    folder.mkdir(parents=True, exist_ok=True)
    xml = folder / "digits.xml"
    export(net, xml)
    np.savez_compressed(folder / "digits.npz", images=held_x, labels=held_y)
    print(f"train    {accuracy(xml, train_x, train_y):.2%} of {len(train_y)}")
    held = accuracy(xml, held_x, held_y)
    print(f"held out {held:.2%} of {len(held_y)}")
    if held < 0.97:
        raise SystemExit("the network is too weak to ship")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
