"""Packages that are linked to OpenVINO's native library are told that ovjit has none."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import pytest

import ovjit
from ovjit import native_packages
from ovjit.compat.utils.node_factory import NodeFactory
from ovjit.errors import OvjitError
from tests.support import ROOT
from tests.support.run import printed

SUFFIX = EXTENSION_SUFFIXES[0]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with the module of the real openvino, which its library is not beside here, and with one
    that cannot be loaded for another reason."""
    folder = tmp_path / "native_pack"
    (folder / "lib").mkdir(parents=True)
    real = Path(find_spec("openvino").origin).parent
    shutil.copy(next(real.glob(f"_pyopenvino*{SUFFIX}")), folder / f"linked{SUFFIX}")
    (folder / f"broken{SUFFIX}").write_bytes(b"\x7fELF" + bytes(60))
    shutil.copy(folder / f"linked{SUFFIX}", folder / "lib" / "libnative_pack.so")
    (folder / "__init__.py").write_text("import openvino\n")
    return folder


PROGRAM = """
import ovjit.as_openvino, sys
import native_pack
try:
    import native_pack.broken
except ImportError as error:
    assert type(error) is ImportError and "ovjit" not in str(error), error
else:
    raise AssertionError
try:
    from native_pack import linked
except ImportError as error:
    caught = error
assert isinstance(caught, RuntimeError) and caught.name == "native_pack.linked", caught
import _decimal, numpy.random  # others are imported as ever
assert type(_decimal.__loader__).__mro__[1].__name__ == "ExtensionFileLoader"
print(caught)
"""


def test_a_module_that_is_linked_to_it(package: Path) -> None:
    said = printed("-c", PROGRAM, PYTHONPATH=os.pathsep.join([str(ROOT), str(package.parent)]))
    assert said.startswith("native_pack.linked is linked to OpenVINO's native library")
    assert "native_pack needs the real openvino" in said
    assert "cannot open shared object file" in said  # what the system said


def test_without_the_name_openvino_nothing_changes() -> None:
    assert native_packages._Finder not in sys.meta_path


def test_a_library_of_operations(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    library = package / "lib" / "libnative_pack.so"
    assert native_packages.is_linked(str(library)) and not native_packages.is_linked(str(package / "none.so"))
    assert not native_packages.is_linked(str(package / f"broken{SUFFIX}"))
    with caplog.at_level(logging.WARNING, "ovjit"):
        for _ in range(2):
            with pytest.raises(OvjitError, match="ovjit loads no native libraries"):
                ovjit.Core().add_extension(str(library))
        with pytest.raises(OvjitError, match="ovjit loads no native libraries"):
            NodeFactory("opset13").add_extension(library)
        with pytest.raises(OvjitError, match="ovjit loads no native libraries"):
            ovjit.Core().add_extension("another.so")
    (said,) = caplog.messages  # once, as packages try again with each Core
    assert str(library) in said and "operations of native_pack are not available" in said
    with pytest.raises(OvjitError, match="RegexSplitting.*libnative_pack.so"):
        NodeFactory("opset13").create("RegexSplitting", [])
    native_packages.refusals.clear()
    with pytest.raises(OvjitError) as caught:
        NodeFactory("opset13").create("RegexSplitting", [])
    assert "native" not in str(caught.value)
