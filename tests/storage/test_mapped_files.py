"""Mapped files: they keep no descriptor, so a process may have more models than open files."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from ovjit.file_maps import map_file
from ovjit.storage.mapped import MappedFile
from tests.support.run import printed

LINUX = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 64)
    return path


@pytest.mark.parametrize("kind", [mmap.mmap, MappedFile])
def test_its_bytes(file: Path, kind: type[mmap.mmap]) -> None:
    with file.open("rb") as opened:
        pages = map_file(opened.fileno(), kind=kind)
    assert type(pages) is kind and len(pages) == 256 * 64 and pages[:] == file.read_bytes()
    array = np.frombuffer(pages, np.uint8)
    assert not array.flags.writeable and memoryview(pages).readonly
    pages.madvise(mmap.MADV_DONTNEED)
    assert bytes(array) == file.read_bytes()
    with pytest.raises(BufferError):
        pages.close()


def test_a_writable_one_writes_its_file(file: Path) -> None:
    with file.open("r+b") as opened:
        pages = map_file(opened.fileno(), 8192, writable=True)
    assert len(pages) == 8192
    np.frombuffer(pages, np.uint8)[:4] = 7
    assert file.read_bytes()[:5] == bytes([7, 7, 7, 7, 4])


def test_what_cannot_be_mapped(file: Path) -> None:
    file.write_bytes(b"")
    with file.open("rb") as opened, pytest.raises((OSError, ValueError)):
        map_file(opened.fileno())
    with pytest.raises((OSError, ValueError)):
        map_file(1 << 20, 4096)


MODELS = """
import os, sys
import numpy as np
import ovjit as ov
folder = sys.argv[1]
weights = np.random.default_rng(0).standard_normal((600, 600)).astype(np.float32)
x = ov.opset13.parameter([1, 600], np.float32)
ov.save_model(ov.Model([ov.opset13.matmul(x, weights, False, False)], [x]), f"{folder}/m.xml", False)
kept = ov.Core()
kept.set_property({"CACHE_DIR": f"{folder}/models"})
data = np.ones((1, 600), np.float32)

def make():
    first = kept.compile_model(f"{folder}/m.xml", "CPU")
    with open(f"{folder}/m.blob", "wb") as file:
        file.write(first.export_model().getvalue())
    plain = ov.Core()
    alive = [plain.read_model(f"{folder}/m.xml"), first, plain.import_model(f"{folder}/m.blob", "CPU")]
    alive += [ov.compile_model(f"{folder}/m.xml", "CPU"), kept.compile_model(f"{folder}/m.xml", "CPU")]
    for model in alive[1:]:
        np.testing.assert_allclose(model([data])[0], data @ weights, rtol=1e-3, atol=1e-3)
    return alive

alive = make()
before = len(os.listdir("/proc/self/fd"))
alive += make() + make()
print(len(os.listdir("/proc/self/fd")) - before)
"""


@LINUX
def test_models_keep_no_descriptors(tmp_path: Path) -> None:
    """Weights in a mapped file, a blob, and the memory of a cached model, made and found."""
    assert printed("-c", MODELS, tmp_path, OVJIT_PRECISION="f32").strip() == "0"
