"""The user's key and the kernel cache under every fault of a disk, and every attack by a user with access to
it."""

from __future__ import annotations

import errno
import logging
import os
import pathlib
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time

import platformdirs
import pytest

from ovjit.disk import folders, keys, notice, sealed
from ovjit.disk import kernel_cache as cache_module
from ovjit.disk.kernel_cache import KernelCache
from ovjit.tools import cache as cli
from tests.support import ROOT
from tests.support.threads import start_and_join

KEY = "ovjit_" + "0123456789" * 4
OTHER = "ovjit_" + "9876543210" * 4
CODE = bytes(range(100))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, and a process that has looked at nothing yet."""
    path = tmp_path / "home"
    path.mkdir(0o700)
    monkeypatch.setenv("HOME", str(path))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "OVJIT_CACHE", "OVJIT_KEY"):
        monkeypatch.delenv(name, raising=False)
    _forget(monkeypatch)
    return path


def _forget(monkeypatch):
    """As in a new process: keys are read again, and warnings said again."""
    monkeypatch.setattr(keys, "_keys", {})
    monkeypatch.setattr(notice, "_topics", {})
    monkeypatch.setattr(cache_module, "_default", None)


def _everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _only_entry(cache):
    (path,) = cache.folder.glob("*.kernel")
    return path


def _mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def warnings(caplog):
    """The messages of the log `ovjit` so far."""
    caplog.set_level(logging.WARNING, "ovjit")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "ovjit"]


def _run(script, *args, **environment):
    """A Python process with `script`, its pipes open."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


# ---- The ordinary way


def test_put_and_get(home, warnings):
    cache = KernelCache()
    assert cache.get(KEY) is None
    cache.write(KEY, CODE)
    cache.write(OTHER, b"")
    assert KernelCache().get(KEY) == CODE and KernelCache().get(OTHER) == b""
    assert cache.folder == home / ".cache" / "ovjit"
    assert not warnings()


def test_what_is_written_is_private(home):
    old = os.umask(0)
    try:
        cache = KernelCache()
        cache.write(KEY, CODE)
    finally:
        os.umask(old)
    modes = {name: _mode(home / name) for name in _everything_in(home)}
    assert modes == {
        ".cache": 0o700,
        ".cache/ovjit": 0o700,
        f".cache/ovjit/{KEY}.kernel": 0o600,
        ".config": 0o700,
        ".config/ovjit": 0o700,
        ".config/ovjit/key": 0o600,
    }


def test_folders_are_those_of_platformdirs(home, monkeypatch):
    for set_to in (None, home / "elsewhere"):
        for kind, theirs in (
            ("cache", platformdirs.user_cache_dir),
            ("config", platformdirs.user_config_dir),
        ):
            if set_to is not None:
                monkeypatch.setenv(f"XDG_{kind.upper()}_HOME", str(set_to))
            assert folders.user_folder(kind) == theirs("ovjit", False)


def test_variable_names_the_folder(home, monkeypatch, tmp_path):
    monkeypatch.setenv("OVJIT_CACHE", str(tmp_path / "deep" / "down"))
    KernelCache().write(KEY, CODE)
    assert (tmp_path / "deep" / "down" / f"{KEY}.kernel").exists()
    assert not (home / ".cache").exists()


def test_default_cache_is_one(home, monkeypatch, tmp_path):
    monkeypatch.setenv("OVJIT_CACHE", str(tmp_path / "first"))
    first = cache_module.default_cache()
    monkeypatch.setenv("OVJIT_CACHE", str(tmp_path / "second"))
    assert cache_module.default_cache() is first
    assert first.folder == tmp_path / "first"


@pytest.mark.parametrize(
    "key", ["", "short", "../../../etc/passwd", "a" * 129, "a" * 20 + "\n", "a" * 20 + "/b"]
)
def test_a_key_is_no_path(home, key):
    with pytest.raises(ValueError, match="content address"):
        KernelCache().get(key)
    with pytest.raises(ValueError, match="content address"):
        KernelCache().write(key, CODE)


def test_switched_off_writes_nothing(home, monkeypatch, warnings):
    monkeypatch.setenv("OVJIT_CACHE", "0")
    cache = cache_module.default_cache()
    cache.write(KEY, CODE)
    assert cache.get(KEY) is None and cache.folder is None
    assert cache.entries() == [] and cache.prune(0) == 0
    assert len(keys.user_key()) == 32 and keys.user_key() == keys.user_key()
    assert _everything_in(home) == []
    assert not warnings()


def test_switched_off_reads_the_key_that_is_there(home, monkeypatch):
    key = keys.user_key()
    _forget(monkeypatch)
    monkeypatch.setenv("OVJIT_CACHE", "0")
    assert keys.find_key() == (key, True, True)


def test_removed_folder_is_made_again(home, warnings):
    cache = KernelCache()
    cache.write(KEY, CODE)
    shutil.rmtree(cache.folder)
    assert cache.get(KEY) is None
    cache.write(KEY, CODE)
    assert cache.get(KEY) == CODE and not warnings()


def test_reading_many_is_quick(home):
    cache = KernelCache()
    addresses = [f"ovjit_{i:040x}" for i in range(30)]
    for address in addresses:
        cache.write(address, CODE * 100)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        for address in addresses:
            assert cache.get(address)
        best = min(best, time.perf_counter() - began)
    assert best < 0.1  # thirty compilations take seconds


# ---- Entries that are not what was put


def _damaged(record, how):
    other = sealed.seal(b"OVJITKRN", KEY, b"evil", os.urandom(32))
    genuine = keys.user_key()
    return {
        "empty": b"",
        "garbage": random.Random(1).randbytes(len(record)),
        "zeros": bytes(len(record)),
        "longer": record + b"\0",
        "other kind": sealed.seal(b"OVJITBLB", KEY, CODE, genuine),
        "other name": sealed.seal(b"OVJITKRN", OTHER, CODE, genuine),
        "other version": record[:8] + b"\2" + record[9:],
        "foreign key": other,
        "forged name of the key": other[:16] + sealed.name_of_key(genuine) + other[24:],
        "huge length": record[:24] + (2**63).to_bytes(8, "little") + record[32:],
        "huge description": record[:12] + b"\xff" * 4 + record[16:],
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "garbage",
        "zeros",
        "longer",
        "other kind",
        "other name",
        "other version",
        "foreign key",
        "forged name of the key",
        "huge length",
        "huge description",
    ],
)
def test_planted_entry_is_a_miss_and_replaced(home, warnings, how):
    cache = KernelCache()
    cache.write(KEY, CODE)
    path = _only_entry(cache)
    path.write_bytes(_damaged(path.read_bytes(), how))
    assert cache.get(KEY) is None
    assert cache.get(KEY) is None
    (message,) = warnings()
    assert str(path) in message and "compiled again" in message
    cache.write(KEY, CODE)
    assert cache.get(KEY) == CODE and len(warnings()) == 1


def test_truncated_at_every_byte_and_every_byte_changed(home, warnings):
    cache = KernelCache()
    cache.write(KEY, CODE)
    path = _only_entry(cache)
    record = path.read_bytes()
    for i in range(len(record)):
        path.write_bytes(record[:i])
        assert cache.get(KEY) is None, f"truncated to {i}"
        path.write_bytes(record[:i] + bytes([record[i] ^ (1 << i % 8)]) + record[i + 1 :])
        assert cache.get(KEY) is None, f"bit {i % 8} of byte {i}"
    path.write_bytes(record)
    assert cache.get(KEY) == CODE and len(warnings()) == 1


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "sparse"])
def test_entry_that_is_no_small_file(home, warnings, kind, tmp_path):
    cache = KernelCache()
    cache.write(KEY, CODE)
    path = _only_entry(cache)
    if kind == "link":
        path.rename(tmp_path / "genuine")
        path.symlink_to(tmp_path / "genuine")
    else:
        path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 1 << 29)
    assert cache.get(KEY) is None
    (message,) = warnings()
    assert kind != "sparse" or "536870912 bytes" in message
    cache.write(KEY, CODE)
    assert cache.get(KEY) == (None if kind == "folder" else CODE)


def test_record_of_another_user_is_a_miss(home, monkeypatch, warnings):
    KernelCache().write(KEY, CODE)
    _forget(monkeypatch)
    monkeypatch.setenv("OVJIT_KEY", "ab" * 32)
    assert KernelCache().get(KEY) is None
    assert "another key" in warnings()[0]


# ---- Folders that can't be trusted


def _assert_not_kept(warnings, because):
    cache = KernelCache()
    cache.write(KEY, CODE)
    assert cache.get(KEY) is None and cache.folder is None
    cache.write(KEY, CODE)
    messages = [message for message in warnings() if "not kept on disk" in message]
    assert len(messages) == 1 and because in messages[0]


def test_symlinked_folder(home, warnings, tmp_path):
    (tmp_path / "real").mkdir(0o700)
    (home / ".cache").mkdir(0o700)
    (home / ".cache" / "ovjit").symlink_to(tmp_path / "real")
    _assert_not_kept(warnings, "symbolic link")
    assert _everything_in(tmp_path / "real") == []


@pytest.mark.parametrize("slash", ["", "/", "/."])
def test_symlinked_folder_in_the_variable(home, warnings, tmp_path, monkeypatch, slash):
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("OVJIT_CACHE", str(tmp_path / "link") + slash)
    _assert_not_kept(warnings, "symbolic link")


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o702, 0o777, 0o1777])
def test_folder_that_others_may_write_to(home, warnings, mode):
    (home / ".cache" / "ovjit").mkdir(parents=True)
    os.chmod(home / ".cache" / "ovjit", mode)
    _assert_not_kept(warnings, "accessible to other users")


def test_folder_of_somebody_else(home, warnings, monkeypatch, tmp_path):
    (tmp_path / "theirs").mkdir(0o700)
    monkeypatch.setenv("OVJIT_CACHE", str(tmp_path / "theirs"))
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    _assert_not_kept(warnings, f"belongs to user {real}")


@pytest.mark.parametrize("missing", [True, False])
def test_root_with_another_users_home(home, warnings, monkeypatch, missing):
    """`sudo` with a kept HOME: root owns a folder there, or would make one."""
    if not missing:
        (home / ".cache" / "ovjit").mkdir(0o700, parents=True)
    if os.geteuid() == 0:
        os.chown(home, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    before = _everything_in(home)
    _assert_not_kept(warnings, "files of root are not written there")
    assert not keys.find_key().lasting
    assert _everything_in(home) == before


def test_folder_swapped_while_running(home, warnings, tmp_path):
    cache = KernelCache()
    cache.write(KEY, CODE)
    cache.folder.rename(tmp_path / "moved")
    (tmp_path / "trap").mkdir(0o700)
    pathlib.Path(home / ".cache" / "ovjit").symlink_to(tmp_path / "trap")
    cache.write(OTHER, CODE)
    assert _everything_in(tmp_path / "trap") == []
    assert len(warnings()) == 1 and "symbolic link" in warnings()[0]


@pytest.mark.parametrize("place", ["/dev/null/home", "/proc/nowhere", "relative", ""])
def test_no_home(home, warnings, monkeypatch, place):
    monkeypatch.setenv("HOME", place)
    _assert_not_kept(warnings, "")
    key = keys.find_key()
    assert not key.lasting and len(key.value) == 32 and keys.find_key() == key
    assert sum("no key" in message for message in warnings()) == 1


def test_a_home_that_does_not_exist_is_not_made(home, warnings, monkeypatch, tmp_path):
    """Not even by root, who could."""
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    _assert_not_kept(warnings, "")
    assert not keys.find_key().lasting
    assert not (tmp_path / "nonexistent").exists()


def test_a_file_in_the_folders_place(home, warnings):
    (home / ".cache").mkdir()
    (home / ".cache" / "ovjit").write_text("not a folder")
    _assert_not_kept(warnings, "not a folder")


# ---- Disks that fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["open", "write", "replace"])
def test_failed_write(home, warnings, monkeypatch, call, number):
    cache = KernelCache()
    cache.write(KEY, CODE)
    real = getattr(os, call)

    def fail(*args, **kwargs):
        if call == "open" and not args[1] & os.O_CREAT:
            return real(*args, **kwargs)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        cache.write(KEY, CODE * 2)
        cache.write(OTHER, CODE)
        assert cache.get(KEY) == CODE and cache.get(OTHER) is None
    assert _everything_in(cache.folder) == [f"{KEY}.kernel"]
    (message,) = warnings()
    assert "not kept" in message and os.strerror(number) in message
    cache.write(OTHER, CODE)
    assert cache.get(OTHER) == CODE


def test_disk_full_for_real(home, warnings, tmp_path):
    """A limit on the size of files stops a write in its middle, as a full disk does."""
    script = """
import resource, sys
from ovjit.disk.kernel_cache import KernelCache
cache = KernelCache()
cache.write("small_one", b"x")
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
cache.write("large_one", b"x" * 20000)
cache.write("other_large_one", b"x" * 20000)
print(cache.get("small_one"), cache.get("large_one"))
"""
    process = _run(script)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, "b'x' None\n"), err
    assert err.count("not kept") == 1
    assert _everything_in(home / ".cache" / "ovjit") == ["small_one.kernel"]


@pytest.fixture
def unprivileged():
    """A folder and a process for which permissions count: root switches to an unprivileged user."""
    folder = pathlib.Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    if root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)


def test_read_only_folder(home, warnings, monkeypatch, unprivileged):
    monkeypatch.setenv("OVJIT_KEY", "ab" * 32)
    monkeypatch.setenv("OVJIT_CACHE", str(unprivileged / "cache"))
    KernelCache().write(KEY, CODE)
    path = unprivileged / "cache" / f"{KEY}.kernel"
    os.utime(path, (0, 0))
    (unprivileged / "cache").chmod(0o500)
    cache = KernelCache()
    assert cache.get(KEY) == CODE  # what a container image was warmed with
    cache.write(OTHER, CODE)
    cache.write(OTHER, CODE)
    assert cache.get(OTHER) is None
    assert cache.prune(0) == 0 and cache.get(KEY) == CODE
    (message,) = warnings()
    assert "Permission denied" in message


def test_unreadable_entry(home, warnings, monkeypatch, unprivileged):
    monkeypatch.setenv("OVJIT_KEY", "ab" * 32)
    monkeypatch.setenv("OVJIT_CACHE", str(unprivileged / "cache"))
    cache = KernelCache()
    cache.write(KEY, CODE)
    _only_entry(cache).chmod(0)
    assert cache.get(KEY) is None
    (message,) = warnings()
    assert "Permission denied" in message


# ---- Bounds


def _fill(cache, count, size=1000):
    """Entries used one hour after another, the last one now."""
    addresses = [f"ovjit_{i:040x}" for i in range(count)]
    now = time.time()
    for i, address in enumerate(addresses):
        cache.write(address, bytes(size))
        os.utime(cache.folder / f"{address}.kernel", (now, now - 3600 * (count - 1 - i)))
    return addresses


def test_prune_by_size_removes_the_least_recently_used(home):
    cache = KernelCache()
    addresses = _fill(cache, 10)
    size = sum(entry.bytes for entry in cache.entries())
    freed = cache.prune(max_bytes=size * 4 // 10)
    assert freed == size * 6 // 10
    assert [address for address in addresses if cache.get(address)] == addresses[6:]
    assert cache.prune(max_bytes=0) == size - freed and cache.entries() == []


def test_prune_by_age(home):
    cache = KernelCache()
    addresses = _fill(cache, 10)
    cache.prune(max_age=3.5 * 3600)
    assert [address for address in addresses if cache.get(address)] == addresses[6:]


def test_prune_removes_old_drafts_and_nothing_else(home):
    cache = KernelCache()
    cache.write(KEY, CODE)
    for name in (".ovjit-00ff.tmp", ".ovjit-00fe.tmp", "mine.txt", ".other.tmp"):
        (cache.folder / name).write_bytes(bytes(10))
        if name != ".ovjit-00fe.tmp":
            os.utime(cache.folder / name, (0, 0))
    (cache.folder / "link.kernel").symlink_to(cache.folder / "mine.txt")
    assert cache.prune() == 10
    assert _everything_in(cache.folder) == sorted(
        [".other.tmp", ".ovjit-00fe.tmp", f"{KEY}.kernel", "link.kernel", "mine.txt"]
    )


def test_cache_bounds_itself(home):
    cache = KernelCache(max_bytes=50_000)
    addresses = [f"ovjit_{i:040x}" for i in range(300)]
    for address in addresses:
        cache.write(address, bytes(1000))
        # Evicted at the latest when an eighth of the bound was written since the last time.
        assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= 50_000 * 9 // 8 + 1200
    assert cache.get(addresses[-1]) is not None
    cache.write(KEY, bytes(50_001))
    assert cache.get(KEY) is None


def test_small_entries_are_bounded_too(home, monkeypatch):
    """Processes that each store little: the count of puts begins anywhere, so that some of them evict."""
    evictions = []
    monkeypatch.setattr(KernelCache, "_evict", lambda self, *bounds: evictions.append(bounds))
    for process in range(64):
        monkeypatch.setattr(os, "getpid", lambda process=process: 1000 + process)
        KernelCache().write(KEY, CODE)
    assert evictions == [(1 << 30, (1 << 30) * 7 // 8, None)]


def test_use_is_noted_once_a_day(home):
    cache = KernelCache()
    cache.write(KEY, CODE)
    path = _only_entry(cache)
    now = time.time()
    for age, noted in ((3600, False), (90_000, True)):
        os.utime(path, (now - age, now - age))
        assert cache.get(KEY) == CODE
        assert (path.stat().st_mtime > now - 60) == noted


def test_entries_say_what_they_are(home):
    cache = KernelCache()
    cache.write(KEY, CODE, {"name": "Conv+Relu", "isa": "avx512"})
    cache.write(OTHER, CODE, {"name": "x" * 10_000})
    (cache.folder / "garbage12.kernel").write_bytes(b"garbage")
    found = {entry.key: entry for entry in cache.entries()}
    assert set(found) == {KEY, OTHER}
    assert found[KEY].about["name"] == "Conv+Relu" and found[KEY].about["isa"] == "avx512"
    assert found[KEY].bytes == _only_size(cache, KEY) and abs(found[KEY].last_used - time.time()) < 60
    assert cache.get(OTHER) == CODE


def _only_size(cache, key):
    return (cache.folder / f"{key}.kernel").stat().st_size


def test_hostile_descriptions(home):
    cache = KernelCache()
    cache.write(KEY, CODE)
    path = _only_entry(cache)
    for text in ("[" * 4000, "nonsense", '"text"', "[1]", '{"a": {"b": 1}}', "NaN", "\u2603"):
        path.write_bytes(sealed.seal(b"OVJITKRN", KEY, CODE, os.urandom(32), text))
        for entry in cache.entries():
            assert all(isinstance(value, str) for value in entry.about.values())
        assert cache.get(KEY) is None


# ---- The key


def test_key_is_made_once(home, monkeypatch):
    key = keys.user_key()
    assert len(key) == 32 and (home / ".config" / "ovjit" / "key").read_bytes() == key
    _forget(monkeypatch)
    assert keys.find_key() == (key, True, True)
    assert _everything_in(home / ".config" / "ovjit") == ["key"]


def test_key_from_the_environment_or_given(home, monkeypatch):
    monkeypatch.setenv("OVJIT_KEY", "0f" * 32)
    assert keys.find_key() == (b"\x0f" * 32, True, True)
    assert keys.user_key(b"k" * 40) == b"k" * 40
    assert keys.user_key("ab" * 32) == b"\xab" * 32
    assert _everything_in(home) == []
    for bad in (b"short", "not hexadecimal" * 5, "abc", b"", ""):
        with pytest.raises(ValueError, match="key"):
            keys.user_key(bad)


@pytest.mark.parametrize("bad", ["ab", "xyz" * 30])
def test_bad_key_in_the_environment_is_not_replaced_by_the_users(home, monkeypatch, warnings, bad):
    users = keys.user_key()
    monkeypatch.setenv("OVJIT_KEY", bad)
    key = keys.find_key()
    assert not key.lasting and key.value != users and keys.find_key() == key
    assert len(warnings()) == 1 and bad not in warnings()[0]
    assert KernelCache().folder is None


@pytest.mark.parametrize("how", ["readable", "link", "short", "long", "fifo", "folder", "owner"])
def test_untrustworthy_key_file(home, monkeypatch, warnings, how, tmp_path):
    keys.user_key()
    path = home / ".config" / "ovjit" / "key"
    monkeypatch.setattr(keys, "_PATIENCE_SECONDS", 0.05)
    if how == "readable":
        path.chmod(0o640)
    elif how in ("short", "long"):
        path.write_bytes(b"k" * (31 if how == "short" else 33))
    elif how == "owner" and os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    elif how == "owner":
        real = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    else:
        path.rename(tmp_path / "genuine")
        {
            "link": lambda: path.symlink_to(tmp_path / "genuine"),
            "fifo": lambda: os.mkfifo(path, 0o600),
            "folder": path.mkdir,
        }[how]()
    _forget(monkeypatch)
    key = keys.find_key()
    assert not key.lasting and keys.find_key() == key
    cache = KernelCache()
    cache.write(KEY, CODE)
    assert cache.get(KEY) is None
    assert sum("no key" in message for message in warnings()) == 1


@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_key_that_cannot_be_written(home, monkeypatch, warnings, call):
    real = getattr(os, call)

    def fail(*args, **kwargs):
        if call == "open" and not args[1] & os.O_CREAT:
            return real(*args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        assert not keys.find_key().lasting
    assert len(warnings()) == 1 and "No space" in warnings()[0]
    assert _everything_in(home / ".config" / "ovjit") == []


_KEY_RACER = """
import os, sys
from ovjit.disk import keys
if sys.argv[1] == "no links":
    def link(*args, **kwargs):
        raise PermissionError("no hard links here")
    os.link = link
print("ready", flush=True)
sys.stdin.readline()
print(keys.user_key().hex(), keys.find_key().lasting, flush=True)
"""


@pytest.mark.parametrize("links", ["links", "no links"])
def test_processes_race_for_the_key(home, links):
    for _ in range(3):
        shutil.rmtree(home / ".config", ignore_errors=True)
        racers = [_run(_KEY_RACER, links) for _ in range(4)]
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("\n")
            racer.stdin.flush()
        said = [racer.communicate(timeout=300) for racer in racers]
        key = (home / ".config" / "ovjit" / "key").read_bytes()
        assert said == [(f"{key.hex()} True\n", "")] * 4
        assert _everything_in(home / ".config" / "ovjit") == ["key"]


# ---- Many processes, killed at random


_USER = """
import hashlib, random, sys
from ovjit.disk.kernel_cache import KernelCache
rng = random.Random(int(sys.argv[1]))
cache = KernelCache(max_bytes=300_000)
def code(i):
    return hashlib.sha256(b"%d" % i).digest() * (1 + i * 37 % 500)
print("ready", flush=True)
while True:
    i = rng.randrange(100)
    address = f"ovjit_{i:040x}"
    found = cache.get(address)
    if found is None:
        cache.write(address, code(i))
    elif found != code(i):
        print("wrong code", i, file=sys.stderr, flush=True)
"""


def test_eight_processes_killed_at_random(home, warnings):
    seed = 20260
    rng = random.Random(seed)
    for round in range(5):
        users = [_run(_USER, str(rng.randrange(1 << 30))) for _ in range(8)]
        for user in users:
            assert user.stdout.readline() == "ready\n"
        for user in users:
            time.sleep(rng.uniform(0, 0.05))
            user.kill()
        complaints = "".join(user.communicate(timeout=300)[1] for user in users)
        assert complaints == "", f"seed {seed}, round {round}"
        cache = KernelCache()
        found = cache.entries()
        assert len(found) > 10
        for entry in found:
            assert cache.get(entry.key) is not None, f"seed {seed}, round {round}: {entry.key}"
    assert not warnings()


def test_threads_share_a_cache(home, warnings):
    cache = KernelCache(max_bytes=20_000)
    wrong = []

    def work(seed):
        rng = random.Random(seed)
        for _ in range(100):
            i = rng.randrange(30)
            address, code = f"ovjit_{i:040x}", bytes([i]) * 1000
            if (cache.get(address) or code) != code:
                wrong.append((seed, i))
            cache.write(address, code)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    start_and_join(threads)
    assert not wrong and not warnings()


def test_descriptors_are_given_back(home, tmp_path):
    cache = KernelCache()
    cache.write(KEY, CODE)
    _only_entry(cache).with_name(f"{OTHER}.kernel").write_bytes(b"garbage")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        cache.write(KEY, CODE)
        assert cache.get(KEY) == CODE and cache.get(OTHER) is None
        assert len(cache.entries()) == 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_fork_while_another_thread_holds_the_locks(home):
    """The child's copies of the locks would stay taken for ever."""
    script = """
import os, signal, threading
from ovjit.disk import kernel_cache, keys
held = threading.Event()
def hold():
    kernel_cache._lock.lock.acquire()
    keys._lock.lock.acquire()
    held.set()
    threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
assert held.wait(60)
child = os.fork()
if not child:
    signal.alarm(20)
    kernel_cache.default_cache().write("something", b"code")
    os._exit(0 if kernel_cache.default_cache().get("something") == b"code" else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    process = _run(script)
    out, err = process.communicate(timeout=300)
    assert out == "0\n", err


def test_importing_is_light():
    script = (
        "import sys; before = set(sys.modules); import ovjit.cache; ovjit.cache.folder();"
        "heavy = {'numba', 'llvmlite', 'numpy', 'platformdirs', 'logging', 'json'};"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    process = _run(script, OVJIT_CACHE="0")
    out, err = process.communicate(timeout=300)
    assert out == "[]\n", err


# ---- For people


def test_public_functions(home):
    from datetime import timedelta

    import ovjit.cache

    cache = cache_module.default_cache()
    _fill(cache, 4)
    assert ovjit.cache.folder() == home / ".cache" / "ovjit"
    assert [entry.key for entry in ovjit.cache.entries()] == [f"ovjit_{i:040x}" for i in (3, 2, 1, 0)]
    ovjit.cache.prune(max_age=timedelta(hours=1.5))
    assert len(ovjit.cache.entries()) == 2
    ovjit.cache.prune(max_bytes=0)
    assert ovjit.cache.entries() == []
    with pytest.raises(ValueError, match="negative"):
        ovjit.cache.prune(max_bytes=-1)


def test_command_line(home, capsys):
    cache = cache_module.default_cache()
    cache.write(KEY, CODE, {"name": "evil\x1b[31m\nname"})
    assert cli.main(["path"]) == 0
    assert capsys.readouterr().out == f"{cache.folder}\n"
    assert cli.main(["list"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert KEY in first and "evil?[31m?name" in first
    assert last.startswith("1 kernels") and str(cache.folder) in last
    assert cli.main(["prune", "--max-bytes", "1M", "--max-age", "1d"]) == 0
    assert cache.get(KEY) == CODE
    assert cli.main(["prune", "--max-bytes", "0"]) == 0
    assert cache.get(KEY) is None
    for bad in (["prune", "--max-bytes", "-5"], ["prune", "--max-age", "soon"], [], ["shrink"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(bad)
        assert caught.value.code == 2


def test_command_line_without_a_cache(home, monkeypatch, capsys):
    monkeypatch.setenv("OVJIT_CACHE", "0")
    assert cli.main(["list"]) == 0
    assert "0 kernels" in capsys.readouterr().out
    assert cli.main(["path"]) == 1
    assert cli.main(["warm", "model.xml"]) == 1
    assert "the kernel cache is disabled" in capsys.readouterr().err


class _Compiler:
    """A Core whose compile_model stores one kernel per letter of a model's name."""

    def compile_model(self, model, device):
        if device != "CPU" or model == "broken":
            raise RuntimeError(f"can't compile {model} for {device}")
        for letter in model:
            cache_module.default_cache().write(f"ovjit_{letter}_0000", CODE)


def test_command_line_warms(home, monkeypatch, capsys):
    import ovjit

    monkeypatch.setitem(vars(ovjit), "Core", _Compiler)
    assert cli.main(["warm", "abc", "broken", "abd"]) == 1
    said = capsys.readouterr()
    assert [line.split(" in ")[0] for line in said.out.splitlines()] == [
        "abc: 3 new kernels",
        "abd: 1 new kernels",
    ]
    assert said.err == "broken: can't compile broken for CPU\n"
    assert cli.main(["warm", "abc"]) == 0
    assert capsys.readouterr().out.startswith("abc: 0 new kernels")
    assert len(cache_module.default_cache().entries()) == 4
