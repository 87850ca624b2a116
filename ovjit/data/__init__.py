"""The embedded model: a small convolutional network for handwritten digits, and digits it has never seen.

`digits.xml` and `digits.bin` are OpenVINO IR v11 in f32, written by the real OpenVINO; `digits.npz` holds the
held-out fifth of scikit-learn's digits. `bench/train_digits.py` makes all three.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGITS_XML = Path(__file__).resolve().parent / "digits.xml"


def digits() -> tuple[Path, NDArray[np.float32], NDArray[np.uint8]]:
    """Path of the model's xml, held-out images f32 [n, 1, 8, 8] in 0..1, and their labels u8 [n] in 0..9."""
    with np.load(DIGITS_XML.with_suffix(".npz"), allow_pickle=False) as held_out:
        images, labels = held_out["images"], held_out["labels"]
    return DIGITS_XML, images[:, None].astype(np.float32) / np.float32(16), labels
