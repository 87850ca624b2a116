"""Every snippet of the two documents that ovjit implements, as they are printed there.

Each runs with `import ovjit as ov`, with `import ovjit.runtime as ov`, unmodified in a process where
`ovjit.as_openvino` stands in for the package, and on the real OpenVINO, which tells that what is checked
after a snippet is true of it too. `before` supplies what a snippet takes for granted; `after` looks at what
it has done.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino
import pytest

import ovjit
from tests.support.run import printed


class Snippet(NamedTuple):
    name: str
    text: str
    before: str = ""
    after: str = ""


# --- the first document: advanced inference. Names that it uses without saying what they are:

TWO_INPUTS = """
import openvino.runtime as ov
import numpy as np

def two_inputs():
    a = ov.opset8.parameter([2, 8], np.float32, name="input_0")
    b = ov.opset8.parameter([2, 8], np.float32, name="input_1")
    return ov.Core().compile_model(ov.Model(ov.opset8.relu(ov.opset8.add(a, b)), [a, b]), "CPU", EXACT)

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
compiled_model = two_inputs()
request = compiled_model.create_infer_request()
count = np.arange(16, dtype=np.float32).reshape(2, 8)
data_0, data_1, data_2, data_3 = (count * k - 5 for k in (1, -2, 3, 5))
expected = np.maximum(data_0 + data_1, 0)
time_in_sec = 0.01
"""

DIRECT = Snippet(
    "direct inference",
    """
# Calling CompiledModel creates and saves InferRequest object
results_0 = compiled_model({"input_0": data_0, "input_1": data_1})
# Second call reuses previously created InferRequest object
results_1 = compiled_model({"input_0": data_2, "input_1": data_3})
""",
    TWO_INPUTS,
    """
assert np.array_equal(results_0[0], expected)
assert np.array_equal(results_1[0], np.maximum(data_2 + data_3, 0))
""",
)

SHARED_CALLS = Snippet(
    "shared memory on inputs and outputs",
    """
# Data can be shared only on inputs
_ = compiled_model({"input_0": data_0, "input_1": data_1}, share_inputs=True)
_ = request.infer({"input_0": data_0, "input_1": data_1}, share_inputs=True)
# Data can be shared only on outputs
_ = request.infer({"input_0": data_0, "input_1": data_1}, share_outputs=True)
# Or both flags can be combined to achieve desired behavior
_ = compiled_model({"input_0": data_0, "input_1": data_1}, share_inputs=False, share_outputs=True)
""",
    TWO_INPUTS,
    """
assert np.array_equal(_[0], expected)
view = request.infer({"input_0": data_0, "input_1": data_1}, share_outputs=True)[0]
copy = request.infer({"input_0": data_0, "input_1": data_1})[0]
assert np.shares_memory(view, request.get_output_tensor(0).data)
assert not np.shares_memory(copy, request.get_output_tensor(0).data)
assert np.array_equal(copy, expected)
""",
)

HIDING_LATENCY = Snippet(
    "hiding latency",
    """
import time

# Long running function
def run(time_in_sec):
    time.sleep(time_in_sec)

# No latency hiding
results = request.infer({"input_0": data_0, "input_1": data_1})[0]
run(time_in_sec)

# Hiding latency
request.start_async({"input_0": data_0, "input_1": data_1})
run(time_in_sec)
request.wait()
results = request.get_output_tensor(0).data  # Gather data from InferRequest
""",
    TWO_INPUTS,
    "assert np.array_equal(results, expected)",
)

POSTPONED_RETURN = Snippet(
    "postponed return",
    """
# Standard approach
results = request.infer({"input_0": data_0, "input_1": data_1})[0]

# "Postponed Return" approach
request.start_async({"input_0": data_0, "input_1": data_1})
request.wait()
results = request.get_output_tensor(0).data  # Gather data "on demand" from InferRequest
""",
    TWO_INPUTS,
    "assert np.array_equal(results, expected)",
)

# --- the second document: Python API exclusives

NUMPY = "import openvino.runtime as ov\nimport numpy as np\n"

MODEL_FILE = (
    NUMPY
    + """
def write_model():
    x = ov.opset8.parameter([1, 3, 16, 16], np.float32, name="image")
    filters = ov.opset8.constant(np.full((4, 3, 3, 3), 0.25, np.float32))
    y = ov.opset8.convolution(x, filters, [1, 1], [1, 1], [1, 1], [1, 1])
    ov.serialize(ov.Model(ov.opset8.relu(y), [x]), "model.xml")

write_model()
"""
)

EASIER = Snippet(
    "easier model compilation",
    """
import openvino.runtime as ov

compiled_model = ov.compile_model("model.xml")
""",
    MODEL_FILE,
    """
assert list(compiled_model.output().shape) == [1, 4, 16, 16]
inside = compiled_model(np.ones((1, 3, 16, 16), np.float32))[0][0, :, 8, 8]
assert np.allclose(inside, 27 * 0.25, rtol=1e-2), inside
""",
)

ENDS = Snippet(
    "inputs and outputs",
    """
core = ov.Core()

input_a = ov.opset8.parameter([8])
res = ov.opset8.absolute(input_a)
model = ov.Model(res, [input_a])
compiled = core.compile_model(model, "CPU")

print(model.inputs)
print(model.outputs)

print(compiled.inputs)
print(compiled.outputs)
""",
    NUMPY,
    """
for ends in (model.inputs, model.outputs, compiled.inputs, compiled.outputs):
    (end,) = ends
    assert list(end.shape) == [8]
    assert end.element_type == ov.Type.f32
""",
)

TENSOR = Snippet(
    "working with tensor",
    """
data_float64 = np.ones(shape=(2,8))

tensor = ov.Tensor(data_float64)
assert tensor.element_type == ov.Type.f64

data_int32 = np.ones(shape=(2,8), dtype=np.int32)

tensor = ov.Tensor(data_int32)
assert tensor.element_type == ov.Type.i32
""",
    NUMPY,
    """
data_int32[0] = 7
assert (tensor.data == 1).all(), "the tensor holds a copy"
""",
)

SHARED_TENSOR = Snippet(
    "shared memory mode",
    """
data_to_share = np.ones(shape=(2,8))

shared_tensor = ov.Tensor(data_to_share, shared_memory=True)

# Editing of the numpy array affects Tensor's data
data_to_share[0][2] = 6.0
assert shared_tensor.data[0][2] == 6.0

# Editing of Tensor's data affects the numpy array
shared_tensor.data[0][2] = 0.6
assert data_to_share[0][2] == 0.6
""",
    NUMPY,
)

ONE_INPUT = (
    NUMPY
    + """
input_a = ov.opset8.parameter([8])
compiled = compiled_model = ov.compile_model(ov.Model(ov.opset8.absolute(input_a), [input_a]), "CPU")
infer_request = compiled.create_infer_request()
data = np.arange(8, dtype=np.float32) - 4
"""
)

INPUTS = Snippet(
    "running inference",
    """
# Passing inputs data in form of a dictionary
infer_request.infer(inputs={0: data})
# Passing inputs data in form of a list
infer_request.infer(inputs=[data])
""",
    ONE_INPUT,
    "assert np.array_equal(infer_request.get_output_tensor().data, abs(data))",
)

RESULTS = Snippet(
    "results of inference",
    """
# Get output tensor
results = infer_request.get_output_tensor().data
first = results

# Get tensor with CompiledModel's output node
results = infer_request.get_tensor(compiled.outputs[0]).data
second = results

# Get all results with special helper property
results = list(infer_request.results.values())
""",
    ONE_INPUT + "infer_request.infer(inputs={0: data})",
    "for found in (first, second, results[0]): assert np.array_equal(found, abs(data))",
)

SYNCHRONOUS = Snippet(
    "synchronous mode, extended",
    """
# Simple call to InferRequest
results = infer_request.infer(inputs={0: data})
called = results
# Extra feature: calling CompiledModel directly
results = compiled_model(inputs={0: data})
""",
    ONE_INPUT,
    "for found in (called, results): assert np.array_equal(found[compiled.output()], abs(data))",
)

QUEUE_TEXT = """
core = ov.Core()

# Simple model that adds two inputs together
input_a = ov.opset8.parameter([8])
input_b = ov.opset8.parameter([8])
res = ov.opset8.add(input_a, input_b)
model = ov.Model(res, [input_a, input_b])
compiled = core.compile_model(model, "CPU")

# Number of InferRequests that AsyncInferQueue holds
jobs = 4
infer_queue = ov.AsyncInferQueue(compiled, jobs)

# Create data
data = [np.array([i] * 8, dtype=np.float32) for i in range(jobs)]

# Run all jobs
for i in range(len(data)):
    infer_queue.start_async({0: data[i], 1: data[i]})
infer_queue.wait_all()
"""

QUEUE = Snippet(
    "AsyncInferQueue", QUEUE_TEXT, NUMPY, "assert len(infer_queue) == 4 and infer_queue.is_ready()"
)

QUEUE_RESULTS = Snippet(
    "results from the queue's requests",
    """
results = infer_queue[3].get_output_tensor().data
""",
    NUMPY + QUEUE_TEXT,
    """
found = sorted(float(request.get_output_tensor().data[0]) for request in infer_queue)
assert found == [0, 2, 4, 6], found
assert results.shape == (8,) and results[0] in found
""",
)

QUEUE_CALLBACK = Snippet(
    "setting callbacks",
    """
data_done = [False for _ in range(jobs)]

def f(request, userdata):
    print(f"Done! Result: {request.get_output_tensor().data}")
    data_done[userdata] = True

infer_queue.set_callback(f)

for i in range(len(data)):
    infer_queue.start_async({0: data[i], 1: data[i]}, userdata=i)
infer_queue.wait_all()

assert all(data_done)
""",
    NUMPY + QUEUE_TEXT,
)

PACKED_DATA = (
    NUMPY
    + """
unt8_data = (np.arange(128, dtype=np.uint8) * 7 % 16).reshape(1, 128)
"""
)

PACK_TEXT = """
from openvino.helpers import pack_data

packed_buffer = pack_data(unt8_data, ov.Type.u4)
# Create tensor with shape in element types
t = ov.Tensor(packed_buffer, [1, 128], ov.Type.u4)
"""

PACK = Snippet(
    "packing u4",
    PACK_TEXT,
    PACKED_DATA,
    "assert t.element_type == ov.Type.u4 and list(t.shape) == [1, 128] and t.byte_size == 64",
)

UNPACK = Snippet(
    "unpacking u4",
    """
from openvino.helpers import unpack_data

unpacked_data = unpack_data(t.data, t.element_type, t.shape)
assert np.array_equal(unpacked_data , unt8_data)
""",
    PACKED_DATA + PACK_TEXT,
)

#: With "CPU" where the document has "GPU".
RELEASE_OF_GIL = Snippet(
    "release of GIL",
    """
import openvino.runtime as ov
import cv2 as cv
from threading import Thread

input_data = []

# Processing input data will be done in a separate thread
# while compilation of the model and creation of the infer request
# is going to be executed in the main thread.
def prepare_data(input, image_path):
    image = cv.imread(image_path)
    h, w = list(input.shape)[-2:]
    image = cv.resize(image, (h, w))
    image = image.transpose((2, 0, 1))
    image = np.expand_dims(image, 0)
    input_data.append(image)

core = ov.Core()
model = core.read_model("model.xml")
# Create thread with prepare_data function as target and start it
thread = Thread(target=prepare_data, args=[model.input(), "path/to/image"])
thread.start()
# The GIL will be released in compile_model.
# It allows a thread above to start the job,
# while main thread is running in the background.
compiled = core.compile_model(model, "CPU")
# After returning from compile_model, the main thread acquires the GIL
# and starts create_infer_request which releases it once again.
request = compiled.create_infer_request()
# Join the thread to make sure the input_data is ready
thread.join()
# running the inference
request.infer(input_data)
""",
    MODEL_FILE,
    """
assert input_data[0].shape == (1, 3, 16, 16) and input_data[0].dtype == np.uint8
inside = request.get_output_tensor().data[0, 0, 8, 8]
assert np.isclose(inside, input_data[0][0, :, 7:10, 7:10].sum() * 0.25, rtol=1e-2), inside
""",
)

SNIPPETS = [value for value in list(globals().values()) if isinstance(value, Snippet)]


def stand_in_for_cv2() -> types.ModuleType:
    """The functions of OpenCV that the document calls: a picture of 40 x 30, nearest neighbours."""
    cv = types.ModuleType("cv2")

    def imread(path: str) -> np.ndarray:
        assert path == "path/to/image"
        return np.add.outer(np.arange(30) * 5, np.arange(40 * 3)).reshape(30, 40, 3).astype(np.uint8)

    def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        width, height = size
        rows = np.arange(height) * image.shape[0] // height
        return image[rows][:, np.arange(width) * image.shape[1] // width]

    cv.imread, cv.resize = imread, resize  # type: ignore[attr-defined]
    return cv


def execute(snippet: Snippet, form: str = "openvino.runtime") -> None:
    """Run a snippet in a fresh namespace and this folder, `form` in the place of `openvino.runtime`."""
    sys.modules.setdefault("cv2", stand_in_for_cv2())
    names: dict[str, Any] = {"__name__": "snippet"}
    package = form.partition(".")[0]
    for part, text in (("before", snippet.before), ("in", snippet.text), ("after", snippet.after)):
        text = text.replace("openvino.runtime", form).replace("openvino.helpers", f"{package}.helpers")
        exec(compile(text, f"<{part} {snippet.name}>", "exec"), names)


@pytest.mark.parametrize("form", ["ovjit", "ovjit.runtime", "openvino"])
@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda s: s.name)
def test_snippet(snippet: Snippet, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "cv2", stand_in_for_cv2())
    execute(snippet, form)


def test_snippets_unmodified_through_as_openvino(tmp_path: Path) -> None:
    """In a process of its own: this one has imported the real package, and then `as_openvino` refuses."""
    runner = (
        "import ovjit.as_openvino, sys\n"
        "import openvino.runtime\n"
        "from tests.compat import test_documented_snippets as pages\n"
        "assert openvino.runtime.Core is sys.modules['ovjit.api.run.core'].Core\n"
        "for snippet in pages.SNIPPETS:\n"
        "    pages.execute(snippet)\n"
        "    print('ran', snippet.name)\n"
    )
    said = printed("-c", runner, folder=tmp_path)
    ran = [line[4:] for line in said.splitlines() if line.startswith("ran ")]
    assert ran == [s.name for s in SNIPPETS]
    assert said.count("Done! Result: [") == 4


@pytest.mark.parametrize("package", [ovjit, openvino], ids=["ovjit", "openvino"])
def test_gpu_without_one(package: Any) -> None:
    """The device that the last snippet asks for is an error here; ovjit's names the devices there are."""
    input_a = package.opset8.parameter([8])
    model = package.Model(package.opset8.absolute(input_a), [input_a])
    core = package.Core()
    with pytest.raises(RuntimeError) as caught:
        core.compile_model(model, "GPU")
    if package is ovjit:
        message = str(caught.value)
        assert "GPU" in message
        assert all(device in message for device in core.available_devices), message
