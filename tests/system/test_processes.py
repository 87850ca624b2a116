"""Forked, spawned and forkserver children, Ctrl-C, SIGTERM, and the end of the interpreter.

Every case is a process of its own that dumps its stacks and ends when it hangs.
"""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ovjit import errors
from ovjit.gpu.driver import CardError
from ovjit.planning.growing import CapacityExceeded
from ovjit.readers.torch.graph import Refused
from tests.support import ROOT
from tests.support.run import python

#: What the programs share. `heavy` runs for several seconds, `small` for none.
COMMON = """
import faulthandler, multiprocessing, os, signal, sys, threading, time, numpy.testing
faulthandler.dump_traceback_later({limit}, exit=True)
import numpy as np
import ovjit as ov
from ovjit import opset8 as o

def small(op="tanh", n=8, **config):
    a = o.parameter([n], name="a")
    return ov.compile_model(ov.Model([getattr(o, op)(a)], [a]), "CPU", config)

def chain(size, layers, **config):
    a = o.parameter([size, size], name="a")
    y = a
    for _ in range(layers):
        y = o.matmul(y, a, False, False)
    return ov.compile_model(ov.Model([y], [a]), "CPU", config)

def heavy():
    return chain(1024, 400)

X = np.linspace(-1, 1, 8, dtype=np.float32)

def right(array, of=np.tanh):
    np.testing.assert_allclose(array, of(X), rtol=1e-5)
    return True

def in_child(work):
    "Fork; the child's exit status within 10 s, None (and stacks on stderr) if it hangs."
    faulthandler.cancel_dump_traceback_later()  # its thread would not exist in the child
    pid = os.fork()
    if pid == 0:
        faulthandler.dump_traceback_later(9, exit=True)
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    faulthandler.dump_traceback_later({limit}, exit=True)
    began = time.time()
    while time.time() - began < 10:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None

def interrupted(wait, after=0.3):
    "Seconds until `wait` ends by the KeyboardInterrupt that comes `after` that many seconds."
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    began = time.time()
    try:
        timer.start()  # under load, it fires before this returns
        wait()
        return "not interrupted"
    except KeyboardInterrupt:
        return time.time() - began
    finally:
        timer.join()
"""


def start(tmp_path, program, limit=150, **environment):
    file = tmp_path / "program.py"
    file.write_text(COMMON.replace("{limit}", str(limit)) + textwrap.dedent(program))
    return subprocess.Popen(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def ended(process):
    """(stdout, stderr) at the end of the process; children that it leaves behind are killed."""
    try:
        return process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()


def printed(tmp_path, program, status=0, **environment):
    """What `program` prints. It must end with `status`."""
    process = start(tmp_path, program, **environment)
    out, err = ended(process)
    assert process.returncode == status, f"{process.returncode}\n{out}\n{err[-6000:]}"
    return out


# --- children


def test_errors_travel_between_processes() -> None:
    """Of any class: a pool of processes ends when it cannot read what a worker raised."""
    for error in (
        CardError("cuInit", 100, "no device"), CapacityExceeded(7), Refused("aten::x", "no rule for aten::x"),
        errors.Busy("busy"), errors.KernelSourceError("a name"),
    ):  # fmt: skip
        error.node = "n"  # type: ignore[attr-defined]
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(again) is type(error) and again is not error
            assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def test_a_forked_child_infers_with_the_parents_model(tmp_path):
    out = printed(
        tmp_path,
        """
        compiled, wide = small(INFERENCE_NUM_THREADS=2), chain(256, 3, INFERENCE_NUM_THREADS=2)
        request = compiled.create_infer_request()
        queue = ov.AsyncInferQueue(compiled, 2)
        eye = np.eye(256, dtype=np.float32)
        seen = []
        queue.set_callback(lambda request, userdata: seen.append(right(request.results[0])))

        def use():
            seen.clear()
            right(compiled(X)[0])
            right(request.infer(X)[0])
            request.start_async(X)
            request.wait()
            right(request.results[0])
            for i in range(6):
                queue.start_async(X, i)
            queue.wait_all()
            assert len(seen) == 6, seen
            np.testing.assert_array_equal(wide(eye)[0], eye)
            right(compiled.create_infer_request().infer(X)[0])
            right(small("sin")(X)[0], np.sin)

        print(in_child(use))  # before any worker has started
        use()
        print(in_child(use))
        def grandchild():
            use()
            assert in_child(use) == 0
            assert wide._executable.pool.workers, "the child has workers of its own"
        print(in_child(grandchild))
        use()
    """,
    )
    assert out.split() == ["0", "0", "0"]


def test_a_forked_child_is_told_of_the_parents_running_inferences(tmp_path):
    out = printed(
        tmp_path,
        """
        compiled = heavy()
        eye = np.eye(1024, dtype=np.float32)
        request, called = compiled.create_infer_request(), compiled.create_infer_request()
        called.set_callback(lambda userdata: None, None)
        silent, loud = ov.AsyncInferQueue(compiled, 2), ov.AsyncInferQueue(compiled, 2)
        loud.set_callback(lambda request, userdata: None)
        for begin in (request.start_async, called.start_async, silent.start_async, loud.start_async):
            begin([eye])
        time.sleep(0.3)

        def child():
            for wait in (request.wait, called.wait, silent.wait_all, loud.wait_all):
                try:
                    wait()
                except RuntimeError as error:
                    assert "forked" in str(error), error
                else:
                    assert wait == loud.wait_all, "the parent's job has ended in the child"
            tiny = ov.AsyncInferQueue(small(), 2)
            tiny.start_async(X)
            tiny.wait_all()
            for queue in (silent, loud):
                assert queue.is_ready() and queue.get_idle_request_id() in (0, 1)
                assert sorted(queue._pool.idle) == [0, 1]
            request.start_async([eye])
            request.cancel()
            try:
                request.wait()
            except RuntimeError as error:
                assert "Infer Request was canceled" in str(error), error
        print(in_child(child))
        for r in (request, called, *silent, *loud):
            r.cancel()
        for wait in (request.wait, called.wait, silent.wait_all, loud.wait_all):
            try:
                wait()
            except RuntimeError as error:
                assert "Infer Request was canceled" in str(error), error
        print("parent")
    """,
    )
    assert out.split() == ["0", "parent"]


def test_forks_while_another_thread_compiles(tmp_path):
    """The child compiles and loads kernels itself: no lock of Numba, LLVM or ovjit is held there for ever."""
    out = printed(tmp_path, """
        right(small()(X)[0])
        ops = ["sin", "cos", "tan", "exp", "sinh", "cosh", "erf", "atan", "asinh", "sigmoid", "softplus"]
        stop = threading.Event()
        def compile_all():
            for n, op in enumerate(ops):
                if stop.is_set():
                    return
                small(op, 16 + n)
        thread = threading.Thread(target=compile_all)
        thread.start()
        statuses = []
        def child():
            right(small("negative")(X)[0], np.negative)
            right(small()(X)[0])
        began = time.time()
        while thread.is_alive() and len(statuses) < 6:
            time.sleep(0.03)
            statuses.append(in_child(child))
        stop.set()
        thread.join()
        print(set(statuses), len(statuses) >= 3)
    """, OVJIT_CACHE=str(tmp_path / "cache"), OVJIT_SHIPPED="0")  # fmt: skip
    assert out.split() == ["{0}", "True"]


@pytest.mark.parametrize("kind", ["blob", "cut", "stateful"])
def test_forks_while_another_thread_makes_an_imported_models_program(tmp_path, kind):
    """The locks of single objects, and late imports, do not outlive their threads."""
    out = printed(tmp_path, f"""
        import io
        kind = {kind!r}
        x = o.parameter([-1, 8], np.float32)
        y = x
        rng = np.random.default_rng(3)
        for _ in range(20):
            y = o.relu(o.matmul(y, o.constant(rng.random((8, 8), np.float32)), False, False))
        if kind == "cut":
            y = o.convert(o.non_zero(y), "f32")
        if kind == "stateful":
            from ovjit import opset6
            y = opset6.assign(o.add(opset6.read_value(y, "v", np.float32, ov.PartialShape([-1, 8])), y), "v")
        compiled = ov.compile_model(ov.Model([y], [x]), "CPU")
        blob = compiled.export_model().getvalue()
        a = np.ones((4, 8), np.float32)
        want = compiled.create_infer_request().infer([a])[0]
        for i in range(5):
            again = ov.Core().import_model(blob, "CPU")
            thread = threading.Thread(target=lambda: again.create_infer_request().infer([a]))
            thread.start()
            time.sleep(0.002 * 4 ** i / 4)
            def child():
                np.testing.assert_array_equal(again.create_infer_request().infer([a])[0], want)
            assert in_child(child) == 0, i
            thread.join()
        print("done")
    """)  # fmt: skip
    assert out.split() == ["done"]


def test_forks_while_other_threads_infer(tmp_path):
    out = printed(
        tmp_path,
        """
        compiled = small(NUM_STREAMS=2)
        queue = ov.AsyncInferQueue(compiled, 3)
        queue.set_callback(lambda request, userdata: None)
        stop = threading.Event()
        def call():
            while not stop.is_set():
                right(compiled(X)[0])
        def fill():
            while not stop.is_set():
                queue.start_async(X)
            queue.wait_all()
        threads = [threading.Thread(target=f) for f in (call, call, fill)]
        for thread in threads:
            thread.start()
        def child():
            right(compiled(X)[0])
            try:
                queue.wait_all()
            except RuntimeError as error:
                assert "forked" in str(error)
            for _ in range(9):
                queue.start_async(X)
            queue.wait_all()
            assert sorted(queue._pool.idle) == [0, 1, 2]
        statuses = [in_child(child) for _ in range(15)]
        stop.set()
        for thread in threads:
            thread.join()
        print(set(statuses))
    """,
    )
    assert out.split() == ["{0}"]


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_children_of_multiprocessing(tmp_path, method):
    """The compiled model travels as a pickle; the children also compile on their own."""
    out = printed(
        tmp_path,
        f"""
        def work(compiled, seed):
            request = compiled.create_infer_request()
            request.start_async(X * seed)
            request.wait()
            own = small("exp")(X)[0]
            return request.results[0], own

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            compiled = small()
            right(compiled(X)[0])
            with context.Pool(2) as pool:
                for seed, (result, own) in enumerate(pool.starmap(work, [(compiled, i) for i in range(4)])):
                    np.testing.assert_allclose(result, np.tanh(X * seed), rtol=1e-5)
                    right(own, np.exp)
            print("right")
    """,
    )
    assert out.split() == ["right"]


# --- Ctrl-C


def test_ctrl_c_interrupts_the_waits_of_requests(tmp_path):
    out = printed(
        tmp_path,
        """
        compiled = heavy()
        eye = np.eye(1024, dtype=np.float32)
        request = compiled.create_infer_request()
        def begin_and_wait():
            request.start_async([eye])
            request.wait()
        for wait in (begin_and_wait, request.wait, lambda: request.wait_for(60_000)):
            print(round(interrupted(wait), 1))
        request.cancel()
        try:
            request.wait()
        except RuntimeError as error:
            print(error)
        queue = ov.AsyncInferQueue(compiled, 1)
        def begin_and_wait_all():
            queue.start_async([eye])
            queue.wait_all()
        again = lambda: queue.start_async([eye])
        for wait in (begin_and_wait_all, queue.wait_all, again, queue.get_idle_request_id):
            print(round(interrupted(wait), 1))
        queue[0].cancel()
        try:
            queue.wait_all()
        except RuntimeError as error:
            print(error)
        other = threading.Thread(target=lambda: compiled([eye]), daemon=True)
        other.start()
        print(round(interrupted(other.join), 1))
        right(small()(X)[0])
        sys.stdout.flush()
        os._exit(0)
    """,
    )
    lines = out.splitlines()
    cancelled = [line for line in lines if "cancelled" in line]
    times = [float(line) for line in lines if "cancelled" not in line]
    assert len(cancelled) == 2, out
    assert len(times) == 8, out
    assert max(times) < 2, out


def test_ctrl_c_interrupts_a_loop_of_inferences(tmp_path):
    """Wherever in the calls it comes: nothing is left busy."""
    out = printed(
        tmp_path,
        """
        short, long = small(), chain(512, 4)
        eye = np.eye(512, dtype=np.float32)
        queues = [ov.AsyncInferQueue(model, 2) for model in (short, long, short, long)]
        for queue in queues[:2]:
            queue.set_callback(lambda request, userdata: None)
        def calls():
            while True:
                short(X)
        def fill(queue, x):
            while True:
                queue.start_async(x)
        def rounds(queue, x):
            while True:
                queue.start_async(x)
                queue.wait_all()
        for i in range(4):
            assert interrupted(calls, 0.02 + 0.003 * i) < 5
            right(short(X)[0])
            for queue, x in zip(queues, (X, eye, X, eye)):
                for loop in (fill, rounds):
                    assert interrupted(lambda: loop(queue, x), 0.03 + 0.003 * i) < 5
                    try:
                        queue.wait_all()
                    except KeyboardInterrupt:
                        pass  # it came in a callback
                    for _ in range(4):
                        queue.start_async(x)
                    queue.wait_all()
                    assert sorted(queue._pool.idle) == [0, 1], queue._pool.idle
        print("works")
    """,
    )
    assert out.split() == ["works"]


# --- the end


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(3)",
        "request.wait_for(1); sys.exit(3)",
        "queue.start_async([eye]); sys.exit(3)",
        "threading.Thread(target=compiled, args=[[eye]], daemon=True).start(); time.sleep(0.1); sys.exit(3)",
        "called.set_callback(lambda u: 1 / 0, None); called.start_async([eye]); sys.exit(3)",
        "import atexit; atexit.register(lambda: compiled([eye])); sys.exit(3)",
        "import atexit; atexit.register(lambda: [queue.start_async([eye]), queue.wait_all()]); sys.exit(3)",
    ],
)
def test_the_interpreter_ends_with_inferences_running(tmp_path, end):
    began = time.monotonic()
    printed(tmp_path, f"""
        compiled = chain(256, 60)
        eye = np.eye(256, dtype=np.float32)
        request, called = compiled.create_infer_request(), compiled.create_infer_request()
        queue = ov.AsyncInferQueue(compiled, 2)
        queue.set_callback(lambda request, userdata: 1 / 0)
        request.start_async([eye])
        {end}
    """, status=3)  # fmt: skip
    assert time.monotonic() - began < 60


def test_the_code_of_kernels_outlives_pythons_modules(tmp_path):
    """A daemon thread is in the midst of an inference when all modules are gone."""
    printed(tmp_path, """
        import builtins, types

        class Late:  # deleted after the modules of ovjit, since `builtins` refers to its module
            def __del__(self, sleep=time.sleep):
                sleep(0.5)

        builtins.early = early = types.ModuleType("early")
        early.late, modules = Late(), dict(sys.modules)
        sys.modules.clear()
        sys.modules.update({"early": early, **modules})
        del early
        compiled = chain(1024, 200)
        array = np.eye(1024, dtype=np.float32)
        threading.Thread(target=compiled, args=[[array]], daemon=True).start()
        time.sleep(0.3)
        sys.exit(3)
    """, status=3)  # fmt: skip


@pytest.mark.parametrize("jobs", ["running", "host steps", "callbacks", "none"])
def test_waits_after_our_own_atexit_handler(tmp_path, jobs):
    """A handler that was registered before ovjit was imported runs when the workers have been stopped."""
    out = printed(
        tmp_path,
        f"""
        import atexit
        jobs = {jobs!r}
        model = chain(200, 30, NUM_STREAMS=1)
        eye = np.eye(200, dtype=np.float32)
        if jobs == "host steps":
            a = o.parameter([-1, 8], name="a")
            model = ov.compile_model(ov.Model([o.convert(o.non_zero(a), "f32")], [a]), "CPU")
            eye = np.eye(8, dtype=np.float32)
        requests = [model.create_infer_request() for _ in range(8)]
        seen = []
        def late():
            for request in requests:
                if jobs != "none":
                    request.wait()
                request.start_async([eye])
                assert request.wait_for(20000)
            model([eye])
            queue = ov.AsyncInferQueue(model, 2)
            for callback in (False, True):
                if callback:
                    queue.set_callback(lambda request, userdata: seen.append(userdata))
                for i in range(5):
                    queue.start_async([eye], i)
                queue.wait_all()
            assert sorted(seen[-5:]) == [0, 1, 2, 3, 4], seen  # two requests take turns as they like
            print("late", flush=True)
        atexit.unregister(late)
        import ovjit.execution.streams as streams
        atexit.unregister(streams._at_exit)  # the order of a handler that came first
        atexit.register(late)
        atexit.register(streams._at_exit)
        for request in requests if jobs != "none" else ():
            if jobs == "callbacks":
                request.set_callback(seen.append, -1)
            request.start_async([eye])
    """,
    )
    assert out.split() == ["late"]


@pytest.mark.parametrize("where", ["on a worker", "in the thread that waits"])
def test_the_end_says_once_which_callback_holds_it_up(tmp_path, where):
    process = start(
        tmp_path,
        f"""
        from ovjit.api.run import queue as queues
        queues._PATIENCE = 0.2
        compiled = small(NUM_STREAMS=2)
        queue = ov.AsyncInferQueue(compiled, 2)
        def never_returns(request, userdata):
            while True:
                time.sleep(0.01)
        if {where!r} == "in the thread that waits":
            queue._pool.quick = 1000  # callbacks were quick: who waits runs them
        queue.set_callback(never_returns)
        queue.start_async(X)
        print("ended", flush=True)
    """,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "ended\n"
    line = process.stderr.readline()
    for part in ("AsyncInferQueue of 2 jobs", "never_returns", "job 0", "program.py:"):
        assert part in line, line
    time.sleep(1)
    assert process.poll() is None, "it still waits"
    process.kill()
    assert ended(process)[1].count("ovjit:") == 0


@pytest.mark.parametrize("handler", ["default", "python"])
def test_sigterm_ends_a_process_with_inferences_running(tmp_path, handler):
    process = start(
        tmp_path,
        f"""
        if {handler!r} == "python":
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
        compiled = chain(512, 40)
        eye = np.eye(512, dtype=np.float32)
        queue = ov.AsyncInferQueue(compiled, 2)
        queue.set_callback(lambda request, userdata: None)
        for _ in range(2):
            queue.start_async([eye])
        print("ready", flush=True)
        while True:
            queue.start_async([eye])
    """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, err = ended(process)
    assert process.returncode == (7 if handler == "python" else -signal.SIGTERM), err[-3000:]
    assert time.monotonic() - began < 50


def runs_quietly(program, folder):
    """A program whose modules may lie in this folder ends well, and says nothing of errors."""
    done = python("-c", program, seconds=90, PYTHONPATH=f"{folder}{os.pathsep}{ROOT}")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_while_another_thread_imports_what_locks_over_forks(tmp_path):
    """`logging` and the executors take a lock before a fork and let go of it behind. Imported while a fork
    waits for our imports they are told of its end alone: "cannot release un-acquired lock" on stderr."""
    slow = tmp_path / "onnx"  # one of the modules whose import a fork waits for
    slow.mkdir()
    (slow / "__init__.py").write_text(
        "import time\nbegan = True\ntime.sleep(0.3)\nimport logging\nimport concurrent.futures.thread\n"
    )
    program = """
import faulthandler, os, sys, threading, time
faulthandler.dump_traceback_later(60, exit=True)
import ovjit
assert "logging" not in sys.modules and "concurrent.futures.thread" not in sys.modules

thread = threading.Thread(target=lambda: __import__("onnx"))
thread.start()
while not hasattr(sys.modules.get("onnx"), "began"):
    time.sleep(0.001)
pid = os.fork()
import concurrent.futures, logging
for lock in (logging._lock, concurrent.futures.thread._global_shutdown_lock):
    assert lock.acquire(timeout=5), "held for ever"
    lock.release()
if pid == 0:
    os._exit(0)
thread.join()
assert os.waitpid(pid, 0)[1] == 0
"""
    runs_quietly(program, tmp_path)


def test_a_fork_while_another_thread_imports_what_calls_llvm(tmp_path):
    """A fork holds the locks of the compiler, and waits for imports: Numba's ask LLVM for the CPU's name."""
    (tmp_path / "onnx.py").write_text(
        "import time\nbegan = True\ntime.sleep(0.3)\nimport llvmlite.binding\n"
        "llvmlite.binding.get_host_cpu_name()\n"
    )
    program = """
import faulthandler, os, sys, threading, time
faulthandler.dump_traceback_later(60, exit=True)
import ovjit, ovjit.codegen.kernel, llvmlite.binding

thread = threading.Thread(target=lambda: __import__("onnx"))
thread.start()
while not hasattr(sys.modules.get("onnx"), "began"):
    time.sleep(0.001)
pid = os.fork()
assert llvmlite.binding.ffi.lib._lock._lock.acquire(timeout=5), "held for ever"
llvmlite.binding.ffi.lib._lock._lock.release()
if pid == 0:
    os._exit(0)
thread.join()
assert os.waitpid(pid, 0)[1] == 0
"""
    runs_quietly(program, tmp_path)


def test_an_install_in_a_zip_archive(tmp_path):
    """Kernels are compiled, kept and found again, and a model is exported and imported, without a folder."""
    import zipfile

    archive = tmp_path / "packages.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for package in ("ovjit", "ovjit_ops"):
            for path in sorted((ROOT / package).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    file.write(path, path.relative_to(ROOT))
    program = """
import numpy as np
import ovjit as ov
from ovjit import opset8 as o
assert "packages.zip" in ov.__file__
a = o.parameter([-1, 7], np.float32, name="a")
w = o.constant(np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32))
rows = o.softmax(o.tanh(o.matmul(a, w, False, False)), 1)
sums = o.cum_sum(o.multiply(o.exp(a), a), o.constant(np.array(1)))
model = ov.Model([rows, sums], [a], "zipped")
compiled = ov.compile_model(model, "CPU")
x = np.linspace(-1, 1, 21, dtype=np.float32).reshape(3, 7)
first, second = compiled([x]).values()
np.testing.assert_allclose(first.sum(1), 1, rtol=1e-5)
np.testing.assert_allclose(second, np.cumsum(np.exp(x) * x, 1), rtol=1e-4, atol=1e-5)
again = ov.Core().import_model(compiled.export_model().getvalue(), "CPU")
np.testing.assert_array_equal(again([x])[0], first)
from ovjit.data import digits
xml, images, labels = digits()
assert digits()[0] == xml and sorted(p.suffix for p in xml.parent.iterdir()) == [".bin", ".npz", ".xml"]
shares = ov.compile_model(xml, "CPU")([images[:50]])[0]
assert (shares.argmax(1) == labels[:50]).mean() > 0.9
import os
if os.fork() == 0:
    sys.exit(0)
os.wait()
assert xml.is_file()
open("digits", "w").write(str(xml.parent))
"""
    program = f"import sys\n{program}"
    for _ in range(2):
        cache = str(tmp_path / "cache")
        done = python("-c", program, folder=tmp_path, PYTHONPATH=str(archive), OVJIT_CACHE=cache)
        assert (done.returncode, done.stderr) == (0, "")
        assert not Path((tmp_path / "digits").read_text()).exists()


def test_nothing_is_made_under_a_lock_that_a_fork_leaves_taken() -> None:
    """`functools.cached_property` has one up to Python 3.11; ours, `ovjit.forks.made_once`, has none."""
    users = [
        str(path.relative_to(ROOT))
        for package in ("ovjit", "ovjit_ops")
        for path in sorted((ROOT / package).rglob("*.py"))
        if "cached_property\n" in (text := path.read_text()) or "import cached_property" in text
    ]
    assert not users
