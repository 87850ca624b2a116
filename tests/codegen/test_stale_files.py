"""Which changes of the sources make a shipped file stale: changes of code, and of nothing else."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from ovjit import source_digests
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.codegen.versions import PRINTING_PACKAGES
from ovjit.tools import ship
from tests.support import ROOT
from tests.support.run import printed

HERE = "import os, ovjit; assert os.path.samefile(os.path.dirname(ovjit.__file__), 'ovjit')\n"
#: Prints the stamps of shipped files and the digest of the operations, and whether the index is believed.
PROGRAM = """
from ovjit.codegen import shipped
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.graph import op_index
from ovjit.source_digests import package_digest
print(*(shipped.generators(target.machine).hex() for target in TARGETS.values()), shipped.printers().hex(),
      package_digest("ovjit_ops"), op_index._shipped_index() is not None)
"""
#: Prints the text of a kernel with branches, loops and inline functions.
KERNEL = """
import ovjit as ov, numpy as np
from ovjit.codegen.cpu.targets import TARGETS
from ovjit.tools.groups import kernels_of
x = ov.opset8.parameter([3, 40], np.float32)
model = ov.Model([ov.opset8.softmax(ov.opset8.gelu(x, "erf"), 1)], [x])
kernels = kernels_of(model._graph(), TARGETS["avx2"])["f32"]
print(*sorted(kernel.source for kernel in kernels))
"""


def comment_everything(path: Path) -> None:
    """Give a file a comment, and all its functions and classes another docstring."""
    lines = path.read_text(encoding="utf-8").splitlines()
    tree = ast.parse("\n".join(lines))
    holders = [n for n in ast.walk(tree) if isinstance(n, (ast.ClassDef, ast.FunctionDef, ast.Module))]
    for node in sorted(holders, key=lambda node: -getattr(node, "lineno", 0)):
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and ast.get_docstring(node) is not None:
            indent = " " * first.col_offset
            lines[first.lineno - 1 : first.end_lineno] = [
                f'{indent}"""Other words."""',
                f"{indent}# and a comment",
                "",
            ]
    path.write_text("# A comment.\n" + "\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def commented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages in which every comment and docstring is another one."""
    folder = tmp_path_factory.mktemp("commented")
    for package in ("ovjit", "ovjit_ops"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (folder / package).rglob("*.py"):
            comment_everything(path)
    return folder


def output(program: str, folder: Path, tmp_path: Path) -> str:
    """What a program prints on the packages in a folder, with the shipped tables of the checkout."""
    return printed(
        "-c", HERE + program, folder=folder, PYTHONPYCACHEPREFIX=str(tmp_path / "code"), OVJIT_CACHE="0"
    )


def test_comments_and_docstrings_make_nothing_stale(commented: Path, tmp_path: Path) -> None:
    ours, other = output(PROGRAM, ROOT, tmp_path / "a"), output(PROGRAM, commented, tmp_path / "b")
    assert ours == other and ours.split()[-1] == "True"


def test_comments_and_docstrings_change_no_kernel(commented: Path, tmp_path: Path) -> None:
    assert output(KERNEL, ROOT, tmp_path / "a") == output(KERNEL, commented, tmp_path / "b")


def test_code_makes_kernels_and_index_stale(tmp_path: Path) -> None:
    digests = {}
    for package, file in (("ovjit.codegen", "approx.py"), ("ovjit_ops", "normalization/cpu_softmax.py")):
        modules = dict(source_digests.source_modules(package))
        assert package in PRINTING_PACKAGES
        digests[package] = source_digests.modules_digest(modules.items())
        modules[file] += b"\nADDED = 1\n"
        assert source_digests.modules_digest(modules.items()) != digests[package]
        modules[f"{file}2"] = modules.pop(file)
        assert source_digests.modules_digest(modules.items()) != digests[package]


def test_the_table_has_the_files_of_all_intrinsics() -> None:
    """Otherwise each first compilation or export would parse the file."""
    table = ship.digests_content()
    size = source_digests.SIZE
    sources = {table[i : i + size] for i in range(0, len(table), 2 * size)}
    kernels = list(ship._always(TARGETS["avx512"]))
    files = {k._intrinsics.__code__.co_filename for k in kernels if k._intrinsics is not None}
    assert any(file.endswith("tags.py") for file in files)
    assert not [file for file in files if source_digests._hash(Path(file).read_bytes()) not in sources]


def test_stale_files_are_listed_with_what_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (ROOT / "ovjit" / "data").iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    for name, content in ship.TABLES.items():
        (tmp_path / name).write_bytes(content())
    (tmp_path / "syntax.bin").write_bytes(b"")
    (tmp_path / "kernels_avx2.xz").unlink()
    with (tmp_path / "printed_neon.xz").open("r+b") as file:
        file.write(bytes(32))
    assert ship.main(["--stale", "--folder", str(tmp_path)]) == 1
    rows = dict(row.split(": ") for row in capsys.readouterr().out.splitlines())
    assert rows["ovjit/data/syntax.bin"] == "python -m ovjit.tools.ship --texts"
    assert rows["ovjit/data/kernels_avx2.xz"] == "python -m ovjit.tools.ship --isa avx2"
    assert rows["ovjit/data/printed_neon.xz"] == "python -m ovjit.tools.ship --isa neon"
    assert "ovjit/data/onnx_schemas.txt" not in rows
