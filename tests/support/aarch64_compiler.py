"""Kernels for emulated AArch64, compiled by this machine: an emulated LLVM takes twenty times as long.

    python -m tests.support.aarch64_compiler SOCKET

This serves until it is ended. A process that emulates sends what makes a kernel and is sent the object code
(`ask`). `test_code_is_the_same_wherever_it_is_made` shows that these are the bytes it would have made itself.
"""

from __future__ import annotations

import os
import pickle
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ovjit.codegen.cpu import systems
from ovjit.codegen.cpu.targets import Target
from ovjit.codegen.kernel import Kernel, KernelArgs

VARIABLE = "OVJIT_AARCH64_COMPILER"
_LENGTH = struct.Struct("<Q")
#: (content key, operating system, triple of another object format) -> object code: most kernels are the same
#: for all CPUs.
_made: dict[tuple[str, str, str], bytes] = {}
_compiling = threading.Lock()


def ask(kernel: Kernel, isa: Target) -> bytes | None:
    """The content of a kernel; None where it cannot be sent or is not compiled there either."""
    import cloudpickle

    other = sys.modules.get("tests.support.mach_o")
    try:
        sent = cloudpickle.dumps((
            (kernel.content_key(isa), systems.name, other.TRIPLE if other else ""), isa,
            (kernel.name, kernel.source, KernelArgs(), kernel._intrinsics, kernel.key, kernel.form),
        ))  # fmt: skip
    except (pickle.PicklingError, TypeError):
        return None
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(os.environ[VARIABLE])
        line.sendall(_LENGTH.pack(len(sent)) + sent)
        with line.makefile("rb") as stream:
            return stream.read(*_LENGTH.unpack(stream.read(_LENGTH.size))) or None


def _compile(key: tuple[str, str, str], isa: Target, parts: tuple) -> bytes:
    """The content of a kernel, for the system and the object format of the process that asked."""
    from ovjit.codegen.cpu import emit

    before = emit.triple
    _, systems.name, named = key
    try:
        emit.triple = (lambda isa: named) if named else before
        return Kernel(*parts).content(isa)
    except Exception:  # it is for the process that asked to find out
        return b""
    finally:
        emit.triple = before


class _Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        key, isa, parts = pickle.loads(self.rfile.read(*_LENGTH.unpack(self.rfile.read(_LENGTH.size))))
        with _compiling:
            if key not in _made:
                _made[key] = _compile(key, isa, parts)
        self.wfile.write(_LENGTH.pack(len(_made[key])) + _made[key])


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def serving() -> Iterator[None]:
    """A compiler of its own for processes that are started meanwhile."""
    with tempfile.TemporaryDirectory() as folder:  # whose names are short, as a socket's has to be
        path = Path(folder) / "compiler"
        environment = {**os.environ, "OVJIT_CACHE": "0"}
        process = subprocess.Popen([sys.executable, "-m", __name__, str(path)], env=environment)
        try:
            while not path.exists():
                assert process.poll() is None, "the compiler does not start"
                time.sleep(0.05)
            os.environ[VARIABLE] = str(path)
            yield
        finally:
            os.environ.pop(VARIABLE, None)
            process.terminate()
            process.wait()


if __name__ == "__main__":
    with _Server(sys.argv[1], _Answer) as server:
        server.serve_forever()
