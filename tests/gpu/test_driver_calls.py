"""Calls of the driver: their parameters beside the toolkit's header, contexts of threads, and what the
stand-in refuses as the driver does."""

from __future__ import annotations

import ctypes
import re
import threading

import numpy as np
import pytest

from ovjit.codegen.gpu.functions import ENTRY
from ovjit.engine import compile_graph
from ovjit.execution.numpy_words import Memory
from ovjit.gpu import device_job, driver
from ovjit.gpu.driver import CardError
from ovjit.gpu.memory import DeviceMemory
from ovjit.gpu.signatures import SIGNATURES
from ovjit.graph.dtypes import numpy_dtype
from ovjit.graph.graph import Builder
from tests.support.assembler import find_headers
from tests.support.card_words import CardWords, Misaligned
from tests.support.fake_cuda import CONTEXT, FakeCuda
from tests.support.run import run_job
from tests.support.threads import start_and_join

#: Types of the header that are not pointers -> types of ctypes.
KINDS = {
    "int": ctypes.c_int, "unsigned int": ctypes.c_uint, "size_t": ctypes.c_size_t,
    "cuuint32_t": ctypes.c_uint,
    "CUdeviceptr": ctypes.c_uint64, "unsigned long long": ctypes.c_uint64, "unsigned char": ctypes.c_ubyte,
    "CUdevice": ctypes.c_int,
}  # fmt: skip
ENUMERATIONS = (
    "CUresult CUdevice_attribute CUpointer_attribute CUfunction_attribute CUstreamCaptureMode "
    "CUtensorMapDataType CUtensorMapInterleave CUtensorMapSwizzle CUtensorMapL2promotion "
    "CUtensorMapFloatOOBfill"
).split()


def kind_of(parameter: str) -> object:
    """The type of ctypes of a parameter in C: pointers and handles are addresses."""
    text = re.sub(r"\bconst\b", "", parameter).strip()
    if re.search(r"char \*name$", text) and "const" in parameter:
        return ctypes.c_char_p
    name = re.sub(r"\s*\b\w+$", "", text)
    if "*" in text:
        return ctypes.c_void_p
    if name in ENUMERATIONS:
        return ctypes.c_int
    return KINDS.get(name, ctypes.c_void_p)


@pytest.mark.skipif(not find_headers(), reason="the toolkit's header is not installed")
def test_parameters_are_those_of_the_header() -> None:
    text = find_headers()[0].read_text(errors="replace")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    for name, kinds in SIGNATURES.items():
        plain = {"cuGraphInstantiateWithFlags": "cuGraphInstantiate"}.get(name, name.removesuffix("_v2"))
        declared = (rf"CUresult\s+CUDAAPI\s+{each}\s*\(([^;]*?)\);" for each in (name, plain))
        own, found = (re.search(pattern, text, re.S) for pattern in declared)
        found = own or found
        assert found is not None, name
        assert tuple(map(kind_of, found[1].split(","))) == kinds, (name, found[1])
        if own is None:  # the library's symbol for this declaration
            assert re.search(rf"#define\s+{plain}\s+(__CUDA_API_PTSZ\()?{name}\b", text), name


def test_calls_restore_the_context_of_the_thread(cuda: FakeCuda) -> None:
    """Other packages, such as PyTorch, have contexts of other cards."""
    card = driver.open_card(0)
    cuda.contexts.append(5)
    memory = DeviceMemory(card, 64)
    assert cuda.contexts == [5]
    with card, card:
        card.allocate(16)
        assert cuda.contexts == [5, CONTEXT]
    assert cuda.contexts == [5]
    with pytest.raises(CardError, match="invalid device context"):
        card._library("cuMemFree_v2", memory.address)  # the driver refuses calls in another context
    del memory
    assert len(cuda.memory) == 1


def test_errors_leave_no_context_behind(cuda: FakeCuda) -> None:
    card = driver.open_card(0)
    cuda.fail["cuMemAlloc_v2"] = 2
    with pytest.raises(CardError, match="out of memory"):
        card.allocate(16)
    assert cuda.contexts == []


def test_every_thread_has_a_context(cuda: FakeCuda) -> None:
    card, found = driver.open_card(0), []
    thread = threading.Thread(target=lambda: found.append(card.allocate(16)))
    thread.start()
    thread.join()
    assert found and cuda.contexts == []


def test_threads_upload_constants_once(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs that start together share the constants: a second upload would free those of the first."""
    b = Builder()
    x = b.add("Parameter", (), {"shape": (2, 4), "element_type": "f32"}).output
    executable = compile_graph(
        b.finish([b.add("Add", [x, b.constant(np.ones(4, np.float32))]).output]), {"card": 0}
    )
    meeting, upload = threading.Barrier(2), driver.Card.upload

    def meet(card: driver.Card, address: int, array: np.ndarray, stream: object) -> None:
        if threading.current_thread().name.startswith("upload"):
            try:
                meeting.wait(0.3)
            except threading.BrokenBarrierError:
                pass
        upload(card, address, array, stream)

    monkeypatch.setattr(driver.Card, "upload", meet)
    card, found = driver.open_card(0), []

    def prepare() -> None:
        stream = card.create_stream()
        found.append(device_job.constants_of(executable, card, np.ones(64, np.uint8), stream))

    threads = [threading.Thread(target=prepare, name=f"upload {i}") for i in range(2)]
    start_and_join(threads)
    assert found[0] is found[1]


def test_kernels_are_compiled_in_several_threads(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel's compilation does not wait for another one's; of two of the same, one function stays."""
    card, meeting, load = driver.open_card(0), threading.Barrier(2), driver.Card._load

    def load_together(card: driver.Card, *arguments: str) -> object:
        meeting.wait(60)
        return load(card, *arguments)

    monkeypatch.setattr(driver.Card, "_load", load_together)
    cuda.sources |= {"one": "", "two": ""}
    for texts in (("one", "two"), ("one", "one")):
        card._functions.clear()
        found: list[object] = []
        start_and_join(
            [
                threading.Thread(
                    target=lambda text=text, found=found: found.append(card.function(text, ENTRY))
                )
                for text in texts
            ]
        )
        assert len(found) == 2 and (found[0] is found[1]) == (texts[0] == texts[1])


def test_further_names_of_the_library_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux in Windows has it in a folder that the loader may not know."""
    tried: list[str] = []

    def load(name: str) -> object:
        tried.append(name)
        if len(tried) < 2:
            raise OSError(name)
        return object()

    monkeypatch.setattr(driver.ctypes, "CDLL", load)
    monkeypatch.setattr(driver, "declare", lambda library: library)
    monkeypatch.setattr(driver, "LIBRARIES", ("a", "b", "c"))
    driver.load_library()
    assert tried == ["a", "b"]
    monkeypatch.setattr(driver, "LIBRARIES", ("d",))
    tried.clear()
    with pytest.raises(OSError, match="d"):
        driver.load_library()


@pytest.mark.parametrize(
    "call",
    [
        ("cuMemAlloc_v2", ctypes.byref(ctypes.c_uint64())),  # an argument is missing
        ("cuMemFree_v2", 1 << 65),  # cut to 64 bits
        ("cuStreamCreate", ctypes.byref(ctypes.c_void_p()), -1),
        ("cuMemcpyHtoDAsync_v2", None, None, 4, None),  # NULL for an address of the card
    ],
    ids=lambda call: call[0],
)  # fmt: skip
def test_the_stand_in_refuses_other_arguments(cuda: FakeCuda, call: tuple) -> None:
    name, *arguments = call
    card = driver.open_card(0)
    with card, pytest.raises(AssertionError, match=name):
        getattr(cuda, name)(*arguments)


def test_elements_that_are_not_aligned_are_found() -> None:
    data = np.zeros(256, np.uint8)
    words, p = CardWords(32, Memory([(data.ctypes.data, 256, "memory")])), data.ctypes.data
    words["load_f32"](p), words["gather_i16"](p + 2, 6, 32), words["loadm_f64"](p + 4, 0)
    for name, *arguments in (
        ("load_f32", 2),
        ("ld", 4, 0),
        ("loadm_f64", 4, 1),
        ("storem_f16", 1, np.zeros(32), 2),
    ):
        with pytest.raises(Misaligned, match=name):
            words[name](p + arguments[0], *arguments[1:])
    with pytest.raises(Misaligned):
        words["gather_f32"](p, 6, 3)


@pytest.mark.parametrize("dtype", ["u8", "f16"])
def test_copies_of_odd_sizes_are_aligned(cuda: FakeCuda, dtype: str) -> None:
    """CPUs copy short elements as words of 4 bytes, of which the last one ends with the row."""
    b = Builder()
    shapes = (3, 301), (3, 2793)
    inputs = [b.add("Parameter", (), {"shape": shape, "element_type": dtype}).output for shape in shapes]
    job = compile_graph(b.finish([b.add("Concat", inputs, {"axis": 1}).output]), {"card": 0}).new_job()
    arrays = [
        np.random.default_rng(i).integers(0, 200, shape).astype(numpy_dtype(dtype))
        for i, shape in enumerate(shapes)
    ]
    run_job(job, arrays)
    np.testing.assert_array_equal(job.outputs[0], np.concatenate(arrays, 1))
