"""A release can be checked: two builds are equal; the wheel, its bill of materials and types are whole."""

from __future__ import annotations

import email
import hashlib
import json
import os
import shutil
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.environments import install, new_environment
from tests.support.run import command

pytestmark = pytest.mark.pypi

PROGRAM = Path(__file__).with_name("typed_program.py")
#: Values of which none is a number to type checkers: methods, attributes, builders.
WRONG = (
    "ovjit.Core().get_available_devices()",
    "ovjit.Core().available_devices",
    "ovjit.Tensor([1.0]).shape",
    "ovjit.Model([], [], '').inputs[0].element_type",
    "ops.relu(ops.parameter([1]))",
    "ops.constant(1).get_rt_info()",
    "ovjit.Model([], [], '').get_rt_info()",
)
#: Runs from an unpacked sdist: something of each kind, in seconds.
SOME_TESTS = (
    "tests/api/test_tensor.py",
    "tests/codegen/test_machine.py",
    "tests/docs/test_names_in_pages.py",
    "tests/system/test_end_to_end.py",
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with what makes and checks releases."""
    made = new_environment(tmp_path_factory.mktemp("release") / "env")
    install(made, "build", "hatchling>=1.28", "twine", "cyclonedx-python-lib[json-validation]", "mypy")
    return made


def copied(folder: Path, private: bool) -> Path:
    """The sources in another folder; `private` files have other modes and another age."""
    skip = shutil.ignore_patterns(".git", ".venv*", "__pycache__", "dist", "build", ".*_cache", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=skip, symlinks=True)
    for path in folder.rglob("*") if private else ():
        path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
        os.utime(path, (1.5e9, 1.5e9))
    return folder


def built(python: Path, source: Path, **variables: str) -> dict[str, Path]:
    """The sdist and the wheel that is made from it: suffix -> file."""
    done = command(python, "-m", "build", "--no-isolation", folder=source, PYTHONPATH="", **variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {path.suffix: path for path in (source / "dist").iterdir()}


@pytest.fixture(scope="module")
def release(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return built(python, copied(tmp_path_factory.mktemp("one") / "source", private=False))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_builds_are_equal(python: Path, release: dict[str, Path], tmp_path: Path) -> None:
    """Whatever the folder, the files' age and modes, the time zone, the locale and the seed of hashes."""
    other = copied(tmp_path / "elsewhere", private=True)
    again = built(python, other, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7")
    assert {kind: digest(path) for kind, path in again.items()} == {
        kind: digest(path) for kind, path in release.items()
    }
    done = command(python, "-m", "build", "--no-isolation", "--wheel", folder=other, PYTHONPATH="")
    assert done.returncode == 0, done.stderr[-2000:]
    assert digest(again[".whl"]) == digest(release[".whl"]), "a wheel that is not made from the sdist"


def test_members_have_fixed_ages_and_modes(release: dict[str, Path]) -> None:
    with zipfile.ZipFile(release[".whl"]) as wheel:
        assert {info.date_time for info in wheel.infolist()} == {(2020, 2, 2, 0, 0, 0)}
        assert {info.external_attr >> 16 & 0o777 for info in wheel.infolist()} <= {0o644, 0o755}
        assert len(set(wheel.namelist())) == len(wheel.namelist())
    with tarfile.open(release[".gz"]) as sdist:
        members = sdist.getmembers()
    assert len({member.mtime for member in members}) == 1
    assert {member.mode & 0o777 for member in members} <= {0o644, 0o755}
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}


def test_the_epoch_is_the_one_that_is_asked_for(python: Path, tmp_path: Path) -> None:
    files = built(python, copied(tmp_path / "source", private=False), SOURCE_DATE_EPOCH="1700000000")
    with tarfile.open(files[".gz"]) as sdist:
        assert {member.mtime for member in sdist.getmembers()} == {1_700_000_000}


def test_twine(python: Path, release: dict[str, Path]) -> None:
    done = command(python, "-m", "twine", "check", "--strict", *release.values())
    assert done.returncode == 0, done.stdout + done.stderr


def test_bill_of_materials(python: Path, release: dict[str, Path]) -> None:
    with zipfile.ZipFile(release[".whl"]) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/sboms/ovjit.cdx.json"))
        text = wheel.read(name).decode()
        bill = json.loads(text)
        parts = bill["metadata"]["component"]["components"]
        files = {part["name"]: part["hashes"][0]["content"] for part in parts}
        data = {n for n in wheel.namelist() if n.startswith("ovjit/data/") and not n.endswith(".py")}
        assert files == {n: hashlib.sha256(wheel.read(n)).hexdigest() for n in data}
        binary = {n for n in wheel.namelist() if n.endswith((".so", ".xz", ".bin", ".npz", ".a", ".o"))}
        assert binary <= files.keys(), "code or data that the bill does not name"
        about = email.message_from_bytes(wheel.read(name.replace("sboms/ovjit.cdx.json", "METADATA")))
    needed = {part["name"] for part in bill["components"] if part["scope"] == "required"}
    lines = [line for line in about.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert lines and needed == {line.split(">")[0].replace("_", "-") for line in lines}
    check = (
        "import sys; from cyclonedx.schema import SchemaVersion; "
        "from cyclonedx.validation.json import JsonStrictValidator; "
        "print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.argv[1]))"
    )
    done = command(python, "-c", check, text)
    assert done.stdout.strip() == "None", done.stdout[-2000:] + done.stderr[-2000:]


def unpacked(release: dict[str, Path], folder: Path) -> Path:
    with tarfile.open(release[".gz"]) as sdist:
        sdist.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return source


def run_tests(python: Path, source: Path, *words: str) -> None:
    place = command(python, "-c", "import ovjit; print(ovjit.__file__)", folder=source, PYTHONPATH="")
    assert Path(place.stdout.strip()).is_relative_to(source), place.stdout + place.stderr
    options = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
    done = command(python, *options, *words, folder=source, seconds=3000, PYTHONPATH=str(source))
    assert done.returncode == 0, done.stdout[-3000:]


def test_tests_from_the_sdist(python: Path, release: dict[str, Path], tmp_path: Path) -> None:
    run_tests(python, unpacked(release, tmp_path), *SOME_TESTS)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_all_tests_from_the_sdist(release: dict[str, Path], tmp_path: Path) -> None:
    run_tests(Path(sys.executable), unpacked(release, tmp_path))


def test_the_lowest_versions(release: dict[str, Path], tmp_path: Path) -> None:
    """Of each package that the wheel requires: files that are mapped are read, compiled and run."""
    with zipfile.ZipFile(release[".whl"]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        required = email.message_from_bytes(wheel.read(name)).get_all("Requires-Dist", [])
    python = new_environment(tmp_path / "env")
    install(python, *(each.replace(">=", "==") for each in required if ";" not in each), alone=True)
    run_tests(python, unpacked(release, tmp_path / "sdist"), "tests/api/test_gil.py")


def test_a_program_with_types(release: dict[str, Path], tmp_path: Path) -> None:
    """As a user has it: the wheel is installed, and `mypy --strict` finds ovjit's types in it."""
    python = new_environment(tmp_path / "env")
    install(python, release[".whl"], alone=True)
    install(python, "mypy")
    (tmp_path / "program.py").write_text(PROGRAM.read_text())
    words = ("--strict", "--config-file=", "--python-executable", python, "program.py")
    done = command(python, "-m", "mypy", *words, folder=tmp_path, PYTHONPATH="")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    lines = [f"x{i}: complex = {value}" for i, value in enumerate(WRONG)]
    (tmp_path / "wrong.py").write_text("import ovjit\nimport ovjit.opset13 as ops\n" + "\n".join(lines))
    wrong = command(python, "-m", "mypy", *words[:-1], "wrong.py", folder=tmp_path, PYTHONPATH="")
    assert wrong.stdout.count("Incompatible types in assignment") == len(WRONG), "types are not looked at"


def test_the_program_with_types_runs() -> None:
    done = command(sys.executable, PROGRAM)
    assert done.returncode == 0, done.stderr[-3000:]
