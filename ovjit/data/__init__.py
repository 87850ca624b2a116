"""The embedded model: a small convolutional network for handwritten digits, and digits it has never seen.

`digits.xml` and `digits.bin` are OpenVINO IR v11 in f32, written by the real OpenVINO; `digits.npz` holds the
held-out fifth of scikit-learn's digits. `bench/train_digits.py` makes all three.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGITS_XML = Path(__file__).resolve().parent / "digits.xml"


def digits() -> tuple[Path, NDArray[np.float32], NDArray[np.uint8]]:
    """Path of the model's xml, held-out images f32 [n, 1, 8, 8] in 0..1, and their labels u8 [n] in 0..9.

    Where the package lies in an archive, the files are unpacked into a temporary folder that goes with the
    process. Raises FileNotFoundError where the package has been installed without them.
    """
    xml = DIGITS_XML if DIGITS_XML.is_file() else _unpack() / DIGITS_XML.name
    with np.load(xml.with_suffix(".npz"), allow_pickle=False) as held_out:
        images, labels = held_out["images"], held_out["labels"]
    return xml, images[:, None].astype(np.float32) / np.float32(16), labels


@functools.cache
def _unpack() -> Path:
    """A folder of this process with the three files."""
    import atexit
    import pkgutil
    import shutil
    import tempfile

    contents = {}
    for name in (DIGITS_XML.with_suffix(end).name for end in (".xml", ".bin", ".npz")):
        try:
            contents[name] = pkgutil.get_data(__name__, name)
        except OSError as error:
            raise FileNotFoundError(
                f"the file {name} of ovjit.data is not part of this installation"
            ) from error
    folder, owner = Path(tempfile.mkdtemp(prefix="ovjit-digits-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked child leaves its parent's files alone
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    for name, content in contents.items():
        (folder / name).write_bytes(content or b"")
    return folder
