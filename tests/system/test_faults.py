"""What a machine may do to a process: a full disk, no more threads, other users' folders, a clock that is set
back, another version of ovjit beside this one, green threads. A right answer, or an error of ovjit's."""

from __future__ import annotations

import concurrent.futures
import errno
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from ovjit.codegen.cpu import machine
from ovjit.disk import keys
from ovjit.disk.folders import replacing
from ovjit.disk.kernel_cache import KernelCache
from ovjit.out_of_memory import is_shortage
from ovjit.source_digests import source_modules
from ovjit.storage.origins import SETTLED_SECONDS
from tests.support import ROOT
from tests.support.run import FINISH, printed


def run(script: str, *arguments: object, **variables: str) -> str:
    """What a process with this script prints."""
    variables = {"OPENBLAS_NUM_THREADS": "1", **variables}
    return printed("-X", "faulthandler", "-c", script, *arguments, folder=Path("/"), **variables)


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


# --- a full disk


@pytest.fixture
def small_disk(tmp_path):
    """A folder of a file system of its own with so many kB, for root where that can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def make(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k,mode=0700", "tmpfs", str(place)]
        if (
            os.geteuid() != 0
            or not shutil.which("mount")
            or subprocess.run(command, capture_output=True).returncode
        ):
            pytest.skip("no file system can be mounted")
        mounted.append(place)
        return place

    yield make
    for one in mounted:
        subprocess.run(["umount", "-l", str(one)], check=True)


FILLS = """
import contextlib, os, resource, sys
from pathlib import Path
import numpy as np
import ovjit as ov
from ovjit.integrations.shipping import ship
from ovjit.tools.files import compile_main
disk, limit, model = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
core = ov.Core()
plain = core.compile_model(core.read_model(model), "CPU")
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
failed = []
for folder in ("a", "b"):
    kept = ov.Core()
    with contextlib.suppress(OSError):
        (disk / folder).mkdir(0o700)
    kept.set_property({"CACHE_DIR": str(disk / folder)})
    assert (kept.compile_model(model, "CPU")(x)[0] == plain(x)[0]).all()
for what, make in {
    "save_model": lambda: ov.save_model(core.read_model(model), str(disk / "saved.xml")),
    "ship": lambda: ship(plain, disk),
    "compile": lambda: compile_main([model, "-o", str(disk / "old.blob")]) and 1 / 0,
    "compile anew": lambda: compile_main([model, "-o", str(disk / "new.blob")]) and 1 / 0,
}.items():
    try:
        make()
    except (RuntimeError, OSError, ZeroDivisionError) as error:
        failed.append(what)
assert (ov.compile_model(model, "CPU")(x)[0] == plain(x)[0]).all()  # through the kernel cache
print(",".join(failed))
"""


@pytest.fixture(scope="module")
def large_model(tmp_path_factory) -> Path:
    """1.5 MB of weights of f32 and of ints, which packing copies."""
    import ovjit as ov

    rng = np.random.default_rng(1)
    x = ov.opset13.parameter([-1, 64], np.float32, name="x")
    y = ov.opset13.matmul(x, rng.standard_normal((64, 3000)).astype(np.float32) / 8, False, False)
    y = ov.opset13.matmul(y, rng.standard_normal((3000, 64)).astype(np.float32) / 50, False, False)
    path = tmp_path_factory.mktemp("model") / "model.xml"
    ov.save_model(ov.Model(ov.opset13.softmax(y, 1), [x]), path, compress_to_fp16=False)
    for file in (path, path.with_suffix(".bin")):  # settled: kept models want files that are not of just now
        os.utime(file, (time.time() - 3600, time.time() - 3600))
    return path


def whole(disk: Path, failed: list[str]) -> None:
    """Files that are there are whole, and none is half-written or a draft."""
    found = files_below(disk)
    assert not [name for name in found if name.endswith((".tmp", ".part")) or ".saved." in name], found
    assert ("compile" in failed) == ((disk / "old.blob").read_bytes() == b"what was there")
    assert ("save_model" in failed) == (not (disk / "saved.xml").exists())
    assert ("compile anew" in failed) == (not (disk / "new.blob").exists())


SIZES = [2200, *(pytest.param(size, marks=pytest.mark.long) for size in (64, 300, 5000))]


@pytest.mark.parametrize("size", SIZES)
def test_a_disk_that_gets_full(small_disk, large_model, size) -> None:
    disk = small_disk(size)
    (disk / "old.blob").write_bytes(b"what was there")
    failed = run(FILLS, disk, 0, large_model, OVJIT_CACHE=str(disk / "cache")).strip().split(",")
    whole(disk, failed)
    assert "compile anew" in failed or size == 5000
    # when there is room again, existing entries are used and the others are made
    for path in disk.glob("*.blob"):
        path.unlink()
    run(FILLS, disk, 0, large_model, OVJIT_CACHE=str(disk / "cache"))


@pytest.mark.parametrize("limit", [pytest.param(4096, marks=pytest.mark.long), 200_000])
def test_writes_that_end_in_the_middle(tmp_path, large_model, limit) -> None:
    (tmp_path / "old.blob").write_bytes(b"what was there")
    failed = run(FILLS, tmp_path, limit, large_model, OVJIT_CACHE=str(tmp_path / "cache")).strip()
    assert failed == "save_model,ship,compile,compile anew"
    whole(tmp_path, failed.split(","))


def test_a_file_that_a_user_asked_for(tmp_path) -> None:
    """Whole, with the permissions of any new file, in the place of what was there; a pipe stays one."""
    path = tmp_path / "name"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and files_below(tmp_path) == ["name"]
    with replacing(path) as file:
        file.write(b"new")
    mask = os.umask(0)
    os.umask(mask)
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o666 & ~mask
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with replacing(tmp_path / "pipe") as file:
        file.write(b"through")
    assert os.read(reader, 100) == b"through" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_files_are_written_without_a_change_of_the_umask(tmp_path, monkeypatch) -> None:
    """It is the process's: what other threads make then would be open to all. Drafts have short names."""
    changes: list[int] = []
    monkeypatch.setattr(os, "umask", changes.append)
    name = "\u6f22" * 84 + ".md"
    with replacing(tmp_path / name) as file:
        file.write(b"whole")
    assert not changes and files_below(tmp_path) == [name]


WITHOUT_FOLDER = """
import os, sys
os.chdir(sys.argv[1])
os.rmdir(sys.argv[1])
import numpy as np
import ovjit as ov
x = ov.opset13.parameter([4], np.float32)
model = ov.Model([ov.opset13.relu(x)], [x])
for path in (sys.argv[2], "model.xml"):
    try:
        ov.save_model(model, path)
    except RuntimeError as error:
        print(error)
core = ov.Core()
core.set_property({"CACHE_DIR": sys.argv[3]})
for path in (sys.argv[2], model):
    print(core.compile_model(path, "CPU")(np.float32([-1, 0, 1, 2]))[0].tolist())
"""


def test_the_current_folder_was_removed(tmp_path) -> None:
    """As the scratch folders of daemons and of tests are. Paths from the root are not concerned."""
    (tmp_path / "folder").mkdir()
    arguments = (tmp_path / "folder", tmp_path / "model.xml", tmp_path / "models")
    refused, *answers = run(WITHOUT_FOLDER, *arguments, OVJIT_CACHE=str(tmp_path / "cache")).splitlines()
    assert "'model.xml'" in refused and "No such file or directory" in refused
    assert answers == ["[0.0, 0.0, 1.0, 2.0]"] * 2


# --- a clock that is set back


def test_a_clock_that_was_ahead(tmp_path) -> None:
    """Entries of that time, which would never be old, are the first to go unless they are used."""
    cache = KernelCache(tmp_path / "cache")
    names = [f"ovjit_{i:040x}" for i in range(10)]
    for name in names:
        cache.write(name, bytes(1000))
    if cache.folder is None:
        pytest.skip("no key can be kept here")
    entries = {name: cache.folder / f"{name}.kernel" for name in names}
    ahead = time.time() + 10 * 365 * 24 * 3600
    for name in names[:6]:
        os.utime(entries[name], (ahead, ahead))
    draft = cache.folder / ".ovjit-00ff.tmp"
    draft.write_bytes(bytes(10))
    os.utime(draft, (ahead, ahead))
    for name in names[:2]:
        assert cache.get(name) == bytes(1000)
        assert abs(entries[name].stat().st_mtime - time.time()) < 3600
    each = entries[names[0]].stat().st_size
    cache.prune(max_bytes=6 * each)
    assert [name for name in names if entries[name].exists()] == names[:2] + names[6:]
    assert not draft.exists()
    os.utime(entries[names[0]], (ahead, ahead))
    soon = time.time() + 600  # another machine's clock, of the same folder
    os.utime(entries[names[1]], (soon, soon))
    cache.prune(max_age=3600)
    assert [name for name in names if entries[name].exists()] == names[1:2] + names[6:]


# --- no more threads, and other users

INFERENCES = """
import logging
logging.basicConfig(level=logging.WARNING)
import numpy as np
import ovjit as ov
from ovjit.data import DIGITS_XML, digits
_, images, labels = digits()
config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 4}
compiled = ov.compile_model(DIGITS_XML, "CPU", config)
def right(answers):
    return float((np.reshape(answers, (-1, 10)).argmax(1) == labels[: len(answers)]).mean())
print("call", right(compiled(images)[0]) > 0.99)
request = compiled.create_infer_request()
request.start_async([images])
request.wait()
print("async", right(request.get_output_tensor(0).data) > 0.99)
queue, found = ov.AsyncInferQueue(compiled, 3), {}
queue.set_callback(lambda done, i: found.__setitem__(i, done.get_output_tensor(0).data.copy()))
for i in range(50):
    queue.start_async([images[i : i + 1]], i)
queue.wait_all()
print("queue", right([found[i] for i in range(50)]) > 0.9)
"""
ALL_RIGHT = ["call True", "async True", "queue True"]
BECOME = "from tests.support import other_user\nother_user.become(other_user.SOMEBODY)\n"


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.long)])
def test_no_more_threads(threads) -> None:
    """A user may have so many, this process's own among them: inferences run on those that there are."""
    limited = f"""
import resource
resource.setrlimit(resource.RLIMIT_NPROC, ({threads}, {threads}))
{INFERENCES}
from ovjit.errors import OvjitError
from ovjit.integrations.served import ServedModel
try:
    ServedModel(DIGITS_XML)
except OvjitError as error:
    print("served", "no thread can be started" in str(error))
"""
    become = BECOME if os.geteuid() == 0 else ""
    env = {} if become else {"OVJIT_CACHE": "0"}
    assert run(become + limited, **env).split("\n")[:-1] == [*ALL_RIGHT, "served True"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
@pytest.mark.parametrize(
    "where",
    ["above, open", "key", *(pytest.param(x, marks=pytest.mark.long) for x in (
        "above", "cache", "open, sticky", "CACHE_DIR",
    ))],
)  # fmt: skip
def test_another_user_s_folders(tmp_path, where) -> None:
    """Folders of another user in the paths of cache and key. They are not used, nothing is put there, and
    answers are right."""
    from tests.support.other_user import ANOTHER, SOMEBODY

    home = tmp_path / "home"
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    cache, key = home / ".cache" / "ovjit", home / ".config" / "ovjit"
    for folder in (cache, key):
        folder.mkdir(0o700, parents=True)
    (home / "models").mkdir(0o777)
    for folder in (home, home / ".cache", home / ".config", cache, key):
        os.chown(folder, SOMEBODY, SOMEBODY)
    theirs = {"cache": cache, "key": key, "CACHE_DIR": home / "models"}.get(where, home / ".cache")
    os.chown(theirs, ANOTHER, ANOTHER)
    if where.startswith(("above", "open")):
        cache.rmdir()
        theirs.chmod({"above": 0o755, "above, open": 0o777, "open, sticky": 0o1777}[where])
    script = BECOME + INFERENCES
    if where == "CACHE_DIR":
        script += f"""
core = ov.Core()
core.set_property({{"CACHE_DIR": {str(theirs)!r}}})
print("kept", right(core.compile_model(DIGITS_XML, "CPU")(images)[0]) > 0.99)
"""
    script += FINISH
    planted = theirs / ("ovjit_" + "0" * 40 + ".kernel")
    planted.write_bytes(b"not to be read")
    os.chown(planted, ANOTHER, ANOTHER)
    env = {"HOME": str(home), "OVJIT_CACHE": "", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": "", "OVJIT_KEY": ""}
    before = files_below(theirs)
    done = run(script, **env)
    assert done.split("\n")[:3] == ALL_RIGHT and "False" not in done
    kept = cache.exists() and bool(set(files_below(cache)) - {planted.name})
    # a folder of one's own may be made in an open one
    assert kept == (where in ("above, open", "open, sticky", "CACHE_DIR"))
    if "open" not in where:
        assert files_below(theirs) == before
    else:  # the other one puts a folder of his in its place
        shutil.rmtree(cache)
        cache.mkdir(0o755)
        (cache / planted.name).write_bytes(b"not to be read")
        for path in (cache, cache / planted.name):
            os.chown(path, ANOTHER, ANOTHER)
        assert run(script, **env).split("\n")[:3] == ALL_RIGHT
        assert files_below(cache) == [planted.name]


# --- green threads

GREEN = """
import sys, types, _thread, threading
order = sys.argv[1]
if order == "early":
    import ovjit
saved = {name: getattr(_thread, name) for name in ("start_new_thread", "allocate_lock", "get_ident")}
if sys.argv[2] == "known":  # as gevent's module of that name has it
    monkey = types.ModuleType("gevent.monkey")
    monkey.get_original = lambda module, name: saved[name]
    sys.modules["gevent.monkey"] = monkey
def never(*arguments):
    raise SystemExit("a green thread was started, which never runs while this one sleeps in native code")
_thread.start_new_thread = threading._start_new_thread = lambda *arguments: never()
threading.Thread.start = never
"""


@pytest.mark.parametrize("order, known", [("early", "known"), ("late", "known"), ("late", "unknown")])
def test_green_threads(order, known) -> None:
    """What gevent and eventlet make of `threading`: workers are the system's threads, or there are none."""
    count = (
        "\nfrom ovjit.execution import streams\nprint(sum(len(p.workers) for p in streams._pools.values()))"
    )
    *answers, workers = run(GREEN + INFERENCES + count, order, known).split("\n")[:-1]
    assert answers == ALL_RIGHT and (int(workers) > 0) == (known == "known")


# --- few descriptors

FEW = """
import logging, os, resource, sys
logging.basicConfig(level=logging.ERROR)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
import numpy as np
imported, free, model = sys.argv[1] == "imported", int(sys.argv[2]), sys.argv[3]
cache = os.environ["OVJIT_CACHE"]
if imported:
    import ovjit as ov
x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)

def use():
    import ovjit as ov
    core = ov.Core()
    core.set_property({"CACHE_DIR": cache + "/models"})
    answers = []
    compiled = core.compile_model(model, "CPU")
    queue = ov.AsyncInferQueue(compiled, 2)
    queue.set_callback(lambda request, _: answers.append(request.get_output_tensor(0).data.copy()))
    for _ in range(4):
        queue.start_async(x)
    queue.wait_all()
    answers.append(compiled.infer_new_request(x)[0])
    answers.append(core.import_model(compiled.export_model().getvalue(), "CPU")(x)[0])
    ov.save_model(core.read_model(model), cache + "/saved.xml")
    assert len(answers) == 6 and all((answer == answers[0]).all() for answer in answers)
    return answers[0]

top = max(map(int, os.listdir("/proc/self/fd")))
while (last := os.open(os.devnull, os.O_RDONLY)) <= top:
    pass  # below the limit none is free
os.close(last)
resource.setrlimit(resource.RLIMIT_NOFILE, (last + free, hard))
said = "ok"
try:
    use()
except (ImportError, OSError, RuntimeError) as error:
    said = str(error)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert said == "ok" or "too many open files" in said.lower(), said
first, second = use(), use()
assert (first == second).all()
from ovjit.disk.kernel_cache import default_cache
from ovjit.disk.keys import find_key
assert find_key().lasting and default_cache().path == cache
print(said == "ok")
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
@pytest.mark.parametrize(
    "when, free",
    [("new", 1), ("imported", 1), *(
        pytest.param(when, free, marks=pytest.mark.long) for when in ("new", "imported") for free in (0, 2, 3)
    )],
)  # fmt: skip
def test_few_descriptors(tmp_path, large_model, when, free) -> None:
    """An error that says so, and nothing is concluded from it: later calls find key, cache and kernels."""
    run(FEW, when, free, large_model, OVJIT_CACHE=str(tmp_path / "cache"))


def test_a_key_that_could_not_be_opened_is_found_later(tmp_path, monkeypatch) -> None:
    """Cache and key, when there are descriptors again."""
    for name in ("XDG_CONFIG_HOME", "OVJIT_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("OVJIT_KEY", raising=False)
    opened = os.open

    def refuse(path, *args, **named):
        if os.fspath(path).endswith("key"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return opened(path, *args, **named)

    monkeypatch.setattr(os, "open", refuse)
    cache = KernelCache()
    assert not keys.find_key().lasting and cache.path is None
    monkeypatch.setattr(os, "open", opened)
    assert keys.find_key().lasting and cache.path == str(tmp_path / "OVJIT_CACHE")


def test_a_digest_is_of_all_modules_or_none(monkeypatch) -> None:
    """Not of those whose folders could be opened, to be kept for later processes."""
    listed = os.scandir

    def refuse(path):
        if str(path).endswith("matmul"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        list(source_modules("ovjit_ops"))


def test_what_reports_a_shortage() -> None:
    for error in (
        OSError(errno.EMFILE, "x"), OSError(errno.ENFILE, "x"),
        ImportError("libx.so: cannot open shared object file: Too many open files"),
    ):  # fmt: skip
        assert is_shortage(error)
        with pytest.raises(type(error)), machine.needing("numba"):
            raise error
    assert is_shortage(MemoryError()) and is_shortage(OSError(errno.ENOMEM, "x"))
    for error in (OSError(errno.ENOENT, "x"), ImportError("no module named x"), PermissionError(13, "x")):
        assert not is_shortage(error)


# --- two versions


@pytest.mark.parametrize("at_once", [1, pytest.param(3, marks=pytest.mark.long)])
def test_two_versions_share_a_cache(tmp_path, large_model, at_once) -> None:
    """They neither use each other's kernels and models nor drive them out, also at the same time."""
    other = tmp_path / "other"
    for package in ("ovjit", "ovjit_ops"):
        ignore = shutil.ignore_patterns("__pycache__", "*.xz")
        shutil.copytree(ROOT / package, other / package, ignore=ignore)
    version = other / "ovjit" / "version.py"
    text = version.read_text()
    changed = text.replace('__version__ = "', '__version__ = "9.')
    assert changed != text
    version.write_text(changed)
    script = (
        """
import json, logging, sys
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
import numpy as np
import ovjit as ov
x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
core = ov.Core()
core.set_property({"CACHE_DIR": sys.argv[2]})
compiled = core.compile_model(sys.argv[1], "CPU")
first = ov.compile_model(sys.argv[1], "CPU")
found = [ov.__version__, compiled.get_property("LOADED_FROM_CACHE"), first.get_property("LOADED_FROM_CACHE")]
answers = compiled(x)[0]
assert (answers == first(x)[0]).all()
print(json.dumps([*found, answers.tobytes().hex()]))
"""
        + FINISH
    )
    env = {"OVJIT_CACHE": str(tmp_path / "cache")}
    models = tmp_path / "models"
    models.mkdir(0o700)
    while time.time() < large_model.stat().st_ctime + SETTLED_SECONDS:
        time.sleep(0.1)  # a file that has just changed is not kept
    places = [str(ROOT), str(other)]

    def start(place: str) -> list:
        return json.loads(run(script, large_model, models, **env, PYTHONPATH=place))

    with concurrent.futures.ThreadPoolExecutor(2 * at_once) as pool:  # all begin with an empty cache
        first = list(pool.map(start, places * at_once))
    assert len({version for version, *_ in first}) == 2
    kept = files_below(tmp_path / "cache"), files_below(models)
    again = [start(place) for place in places * at_once]
    assert [loaded for _, loaded, *_ in again] == [True] * 2 * at_once
    assert (files_below(tmp_path / "cache"), files_below(models)) == kept
    assert len({answers for *_, answers in first + again}) == 1
