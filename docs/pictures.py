"""Draw the pictures of the tutorials from what their programs compute.

    pip install -e '.[cli]'
    python -m docs.pictures

Each tutorial runs once. The pictures are `docs/tutorials/*.svg`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from docs.notebooks import TUTORIALS, code_of

#: Samples of the sound that the picture of speech shows.
SHOWN = 12 * 8000


def names_of(tutorial: str) -> dict[str, Any]:
    """The global names after a tutorial's code has run, in a temporary folder."""
    names: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for cell in code_of(TUTORIALS / f"{tutorial}.md"):
            exec(cell, names)
    return names


def digits(plt: Any) -> None:
    """Twelve digits with the network's answers."""
    names = names_of("image")
    figure, axes = plt.subplots(1, 12, figsize=(9, 1.2))
    answers = names["compiled"](names["images"][:12])[0].argmax(1)
    for axis, image, answer in zip(axes, names["images"], answers, strict=False):
        axis.imshow(image[0], cmap="gray_r")
        axis.set_title(str(answer))
        axis.axis("off")
    save(figure, "digits")


def speech(plt: Any) -> None:
    """A spectrogram, the marks, and the detector's probability."""
    names = names_of("speech")
    sound, truth, rate = names["fresh"][:SHOWN], names["truth"][:SHOWN], names["RATE"]
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 3.6), sharex=True, height_ratios=(2, 1))
    seconds = len(sound) / rate
    upper.imshow(
        names["spectrogram"](sound[None])[0].T,
        origin="lower",
        aspect="auto",
        interpolation="none",
        extent=(0, seconds, 0, names["BANDS"]),
    )
    upper.set_ylabel("mel band")
    voice = np.array(names["voice"][: len(sound) // names["STEP"]])
    times = (np.arange(len(voice)) + 0.5) * names["STEP"] / rate
    marks = truth[:: rate // 100]
    lower.fill_between(
        np.arange(len(marks)) / 100, marks, step="mid", alpha=0.25, label="voice in the recording"
    )
    lower.plot(times, voice, label="detector")
    lower.set_xlabel("seconds")
    lower.set_ylim(0, 1.05)
    lower.legend(loc="upper right", fontsize="small")
    save(figure, "speech")


def save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(TUTORIALS / f"{name}.svg", metadata={"Date": None})


def main() -> None:
    os.environ.setdefault("MPLBACKEND", "agg")
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "ovjit"
    digits(plt)
    speech(plt)
    print(*sorted(Path(TUTORIALS).glob("*.svg")), sep="\n")


if __name__ == "__main__":
    main()
