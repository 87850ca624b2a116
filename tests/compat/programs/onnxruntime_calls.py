"""Calls of onnxruntime, one a line. The value, warnings or error of each are printed as JSON.

    python onnxruntime_calls.py FOLDER      with the models of `write_models` in FOLDER

Results of the real package and of ovjit are compared by test_onnxruntime_programs.py.
"""

# the calls are a table, and use what is imported
# ruff: noqa: E501, F401, I001
import contextlib
import copy
import io
import json
import os
import pickle
import sys
import threading
import warnings
from collections import OrderedDict
from typing import Any

import numpy as np

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as C

CPU = ["CPUExecutionProvider"]
NUMBERS = {"f32": "f4", "f16": "f2", "f64": "f8", "i64": "i8", "i32": "i4", "u8": "u1", "bool": "?", "i8": "i1",
           "u16": "u2", "i16": "i2", "u32": "u4", "u64": "u8"}  # fmt: skip
f4 = np.float32


def write_models(folder: str) -> None:
    """Write the models of the calls."""
    import onnx
    from onnx import TensorProto as T
    from onnx import helper as h
    from onnx import numpy_helper

    value = h.make_tensor_value_info

    def save(
        name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], **tensors: np.ndarray
    ) -> None:
        initializers = [numpy_helper.from_array(v, n) for n, v in tensors.items()]
        graph = h.make_graph(nodes, f"graph_{name}", inputs, outputs, initializers, doc_string="of the graph")
        opsets = [h.make_opsetid("", 17), h.make_opsetid("ai.onnx.ml", 3)]
        model = h.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="producer", domain="domain",
                             model_version=7, doc_string="of the model")  # fmt: skip
        h.set_model_props(model, {"key": "value", "other": "é"})
        onnx.save(model, f"{folder}/{name}.onnx")

    def maps(key: int) -> Any:
        kind = h.make_map_type_proto(key, h.make_tensor_type_proto(T.FLOAT, None))
        return h.make_value_info("m", h.make_sequence_type_proto(kind))

    node = h.make_node
    w = np.arange(3, dtype=np.float32)
    save("add", [node("Add", ["x", "w"], ["y"]), node("Mul", ["y", "y"], ["z"])],
         [value("x", T.FLOAT, ["batch", 3]), value("w", T.FLOAT, [3])],
         [value("y", T.FLOAT, ["batch", 3]), value("z", T.FLOAT, None)], w=w)  # fmt: skip
    save("two", [node("Add", ["x", "x2"], ["y"]), node("Sub", ["x", "x2"], ["d"])],
         [value("x", T.FLOAT, ["n", "m"]), value("x2", T.FLOAT, ["n", "m"]), value("unused", T.INT64, [None, 2, ""])],
         [value("y", T.FLOAT, ["n", "m"]), value("d", T.FLOAT, ["n", "m"])])  # fmt: skip
    kinds = {"f32": T.FLOAT, "f16": T.FLOAT16, "f64": T.DOUBLE, "i64": T.INT64, "i32": T.INT32, "u8": T.UINT8,
             "bool": T.BOOL, "str": T.STRING, "bf16": T.BFLOAT16, "i8": T.INT8, "u16": T.UINT16, "i16": T.INT16,
             "u32": T.UINT32, "u64": T.UINT64}  # fmt: skip
    for name, kind in kinds.items():
        save(
            f"same_{name}",
            [node("Identity", ["x"], ["y"])],
            [value("x", kind, ["n"])],
            [value("y", kind, ["n"])],
        )
    save(
        "scalar",
        [node("ReduceSum", ["x"], ["y"], keepdims=0)],
        [value("x", T.FLOAT, [2, 3])],
        [value("y", T.FLOAT, [])],
    )
    save("sequence", [node("SplitToSequence", ["x"], ["s"], axis=0)], [value("x", T.FLOAT, ["n", 2])],
         [h.make_tensor_sequence_value_info("s", T.FLOAT, None)])  # fmt: skip
    save("pair", [node("SequenceConstruct", ["x", "y"], ["s"]), node("Neg", ["x"], ["z"])],
         [value("x", T.FLOAT, ["n"]), value("y", T.FLOAT, ["m"])],
         [h.make_tensor_sequence_value_info("s", T.FLOAT, None), value("z", T.FLOAT, ["n"])])  # fmt: skip
    taken = [node("SequenceMap", ["s"], ["t"], body=h.make_graph(
        [node("Neg", ["e"], ["r"])], "b", [value("e", T.FLOAT, None)], [value("r", T.FLOAT, None)]
    )), node("SequenceLength", ["s"], ["n"])]  # fmt: skip
    for name, shape in (("taken", ["a", 2]), ("taken_of_any_rank", None)):
        save(name, taken, [h.make_tensor_sequence_value_info("s", T.FLOAT, shape)],
             [h.make_tensor_sequence_value_info("t", T.FLOAT, shape), value("n", T.INT64, [])])  # fmt: skip
    kind = h.make_optional_type_proto(h.make_tensor_type_proto(T.FLOAT, None))
    save("optional", [node("OptionalHasElement", ["x"], ["y"])], [h.make_value_info("x", kind)],
         [value("y", T.BOOL, None)])  # fmt: skip
    save(
        "zip",
        [node("ZipMap", ["x"], ["m"], domain="ai.onnx.ml", classlabels_int64s=[5, 7])],
        [value("x", T.FLOAT, ["n", 2])],
        [maps(T.INT64)],
    )
    save(
        "zips",
        [node("ZipMap", ["x"], ["m"], domain="ai.onnx.ml", classlabels_strings=["a", "b"])],
        [value("x", T.FLOAT, ["n", 2])],
        [maps(T.STRING)],
    )
    save("unknown", [node("Nope", ["x"], ["y"])], [value("x", T.FLOAT, ["n"])], [value("y", T.FLOAT, ["n"])])
    save(
        "dangling",
        [node("Add", ["x", "q"], ["y"])],
        [value("x", T.FLOAT, ["n"])],
        [value("y", T.FLOAT, ["n"])],
    )
    save(
        "reshape",
        [node("Reshape", ["x", "s"], ["y"])],
        [value("x", T.FLOAT, ["n"]), value("s", T.INT64, ["k"])],
        [value("y", T.FLOAT, None)],
    )
    save(
        "equal_sizes",
        [node("Identity", ["x"], ["y"])],
        [value("x", T.FLOAT, ["n", "n", 4])],
        [value("y", T.FLOAT, ["n", "k", 4])],
    )
    save("any_rank", [node("Neg", ["x"], ["y"])], [value("x", T.FLOAT, None)], [value("y", T.FLOAT, None)])
    branch = [
        h.make_graph([node(op, ["x"], [op])], op, [], [value(op, T.FLOAT, None)]) for op in ("Neg", "Abs")
    ]
    save("branches", [node("Equal", ["rate", "k"], ["c"]), node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1])],
         [value("x", T.FLOAT, ["n"]), value("rate", T.INT64, [])], [value("y", T.FLOAT, None)], k=np.array(8))  # fmt: skip
    for name, content in {"junk": b"this is no model at all", "empty": b""}.items():
        with open(f"{folder}/{name}.onnx", "wb") as file:
            file.write(content)


#: Sessions and arrays whose memory the real package reads without a reference to them.
KEPT: list[Any] = []


def S(name: str, **options: Any) -> Any:
    session = ort.InferenceSession(f"{name}.onnx", providers=CPU, **options)
    KEPT.append(session)
    return session


def args(name: str, options: Any = None) -> Any:
    session = S(name, sess_options=options)
    kinds = session.get_inputs(), session.get_outputs(), session.get_overridable_initializers()
    return [[(a.name, a.type, a.shape, str(a)) for a in kind] for kind in kinds]


def run(name: str, names: Any = None, options: Any = None, **feed: Any) -> Any:
    return S(name).run(names, feed, options)


def options_with(**fields: Any) -> Any:
    options = ort.SessionOptions()
    for name, value in fields.items():
        setattr(options, name, value)
    return options


def fields_of(value: Any) -> Any:
    return {n: getattr(value, n) for n in dir(value) if n[0] != "_" and not callable(getattr(value, n))}


def after(value: Any, *calls: Any) -> Any:
    """`value` after the results of calls."""
    return value


def set_field(kind: Any, name: str, value: Any) -> Any:
    options = kind()
    setattr(options, name, value)
    return getattr(options, name)


def with_dimension(call: str, name: str, size: int) -> Any:
    options = ort.SessionOptions()
    getattr(options, call)(name, size)
    return options


def with_initializer(value: Any) -> Any:
    options = ort.SessionOptions()
    KEPT.append(value)
    options.add_initializer("w", value)
    return options


def run_async(names: Any = None, session: Any = None, **feed: Any) -> Any:
    done, calls = threading.Event(), []

    def callback(results: Any, user_data: Any, error: str) -> None:
        calls.append([results, user_data, error, threading.current_thread() is threading.main_thread()])
        done.set()

    started = (session or S("add")).run_async(names, feed, callback, "mine")
    return started, done.wait(20), calls


def in_threads(count: int) -> Any:
    """The number of right answers of threads that share a session."""
    session, right = S("add"), []

    def work(number: int) -> None:
        x = np.full((number + 1, 3), number, np.float32)
        for _ in range(50):
            y, z = session.run(None, {"x": x})
            right.append(np.array_equal(y, x + [0, 1, 2]) and np.array_equal(z, y * y))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(right)


def value_fields(value: Any) -> Any:
    return (value.data_type(), value.shape(), value.device_name(), value.element_type(), value.tensor_size_in_bytes(),
            value.has_value(), value.is_tensor(), value.is_sparse_tensor(), value.is_tensor_sequence())  # fmt: skip


def bound(*outputs: str, x: Any = None, input: str = "x", **options: Any) -> Any:
    session = S("add")
    binding = session.io_binding()
    if x is not None:
        binding.bind_cpu_input(input, x)
    for name in outputs:
        binding.bind_output(name, **options)
    session.run_with_iobinding(binding)
    return [v.numpy() for v in binding.get_outputs()], binding.copy_outputs_to_cpu()


def by_address(
    kind: Any = np.float32, shape: Any = (2, 3), output: Any = np.float32, output_shape: Any = (2, 3)
) -> Any:
    session, y = S("add"), np.zeros((2, 3), np.float32)
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, kind, shape, X.ctypes.data)
    binding.bind_output("y", "cpu", 0, output, output_shape, y.ctypes.data)
    session.run_with_iobinding(binding)
    return y, binding.get_outputs()[0].data_ptr() == y.ctypes.data


def by_values(x: Any = None, target: Any = None) -> Any:
    session = S("add")
    binding = session.io_binding()
    target = target or ort.OrtValue.ortvalue_from_shape_and_type([2, 3], np.float32)
    binding.bind_ortvalue_input("x", x or OV(X))
    binding.bind_ortvalue_output("z", target)
    session.run_with_iobinding(binding)
    binding.synchronize_inputs(), binding.synchronize_outputs()
    binding.clear_binding_inputs(), binding.clear_binding_outputs()
    return target.numpy(), binding.get_outputs()


def enumeration(name: str) -> Any:
    kind = getattr(ort, name)
    members = [
        (k, repr(v), str(v), v.value, v.name, int(v), hash(v) == hash(int(v)))
        for k, v in kind.__members__.items()
    ]
    first = next(iter(kind.__members__.values()))
    return (
        members,
        kind.__doc__,
        kind.__module__,
        repr(kind(77)),
        first == first.value,
        first != kind(77),
        pickle.loads(pickle.dumps(first)) == first,
    )


def profiled() -> Any:
    session = S("add", sess_options=options_with(enable_profiling=True, profile_file_prefix="profile"))
    session.run(["y"], {"x": X})
    path = session.end_profiling()
    with open(path) as file:
        events = json.load(file)
    return (
        path.startswith("profile_"),
        path.endswith(".json"),
        {"cat", "dur", "ts", "name", "ph"} <= set(events[-1]),
    )


def saved() -> Any:
    session = S("add", sess_options=options_with(optimized_model_filepath="saved.onnx"))
    return [
        ort.InferenceSession("saved.onnx", providers=CPU).run(None, {"x": X}),
        session.run(None, {"x": X}),
    ]


def many_runs(rates: Any) -> Any:
    session = S("branches")
    return [session.run(None, {"x": np.array([-2, 3], f4), "rate": np.array(r)})[0].tolist() for r in rates]


class Pickled(ort.InferenceSession):
    """A session that is pickled by its path, as insightface has one."""

    def __getstate__(self) -> Any:
        return {"path": self._model_path}

    def __setstate__(self, state: Any) -> None:
        self.__init__(state["path"], providers=CPU)


X = np.ones((2, 3), np.float32)
W = np.full(3, 5, np.float32)
OV = ort.OrtValue.ortvalue_from_numpy
OF = ort.OrtValue.ortvalue_from_shape_and_type
HALVES = np.array([0.5, 1.5], np.float32)


def COO(indices: Any = (0, 4), values: Any = HALVES) -> Any:
    device = ort.OrtDevice.make("cpu", 0)
    return ort.SparseTensor.sparse_coo_from_numpy([2, 3], values, np.asarray(indices), device)


def CSR(inner: Any = (0, 2), outer: Any = (0, 1, 2)) -> Any:
    device = ort.OrtDevice.make("cpu", 0)
    arrays = np.asarray(inner), np.asarray(outer)
    return ort.SparseTensor.sparse_csr_from_numpy([2, 3], HALVES, *arrays, device)


def SV() -> Any:
    return ort.OrtValue.ort_value_from_sparse_tensor(COO())


D = ort.OrtDevice

CALLS = """
fields_of(ort.SessionOptions())
fields_of(ort.RunOptions())
set_field(ort.SessionOptions, "intra_op_num_threads", -1)
set_field(ort.SessionOptions, "intra_op_num_threads", np.int64(2))
set_field(ort.SessionOptions, "intra_op_num_threads", "x")
set_field(ort.SessionOptions, "intra_op_num_threads", 2.5)
set_field(ort.SessionOptions, "graph_optimization_level", ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
set_field(ort.SessionOptions, "graph_optimization_level", 5)
set_field(ort.SessionOptions, "execution_mode", 1)
set_field(ort.SessionOptions, "execution_order", ort.ExecutionOrder.PRIORITY_BASED)
set_field(ort.SessionOptions, "logid", 3)
set_field(ort.SessionOptions, "enable_profiling", 1)
set_field(ort.SessionOptions, "enable_profiling", "x")
set_field(ort.SessionOptions, "use_deterministic_compute", True)
set_field(ort.RunOptions, "terminate", True)
ort.SessionOptions().get_session_config_entry("missing")
(lambda o: (o.add_session_config_entry("a", "b"), o.get_session_config_entry("a")))(ort.SessionOptions())
ort.SessionOptions().add_session_config_entry("", "")
ort.SessionOptions().add_session_config_entry("a", 1)
ort.RunOptions().get_run_config_entry("missing")
(lambda o: (o.add_run_config_entry("a", "b"), o.get_run_config_entry("a")))(ort.RunOptions())
ort.SessionOptions().register_custom_ops_library("/nowhere.so")
ort.SessionOptions().add_provider("CUDAExecutionProvider", {})
(lambda o: (o.has_providers(), o.add_provider("CPUExecutionProvider", {}), o.has_providers()))(ort.SessionOptions())
ort.SessionOptions(1)
ort.SessionOptions.__module__
copy.copy(ort.SessionOptions())
enumeration("GraphOptimizationLevel")
enumeration("ExecutionMode")
enumeration("ExecutionOrder")
enumeration("OrtAllocatorType")
enumeration("OrtMemType")
enumeration("OrtSparseFormat")
enumeration("OrtDeviceMemoryType")
enumeration("OrtMemoryInfoDeviceType")
enumeration("OrtExecutionProviderDevicePolicy")
enumeration("OrtHardwareDeviceType")
enumeration("OrtCompileApiFlags")
ort.OrtCompileApiFlags.ERROR_IF_NO_NODES_COMPILED | ort.OrtCompileApiFlags.ERROR_IF_OUTPUT_FILE_EXISTS
ort.ExecutionMode(0) < ort.ExecutionMode(1)
ort.get_available_providers()
ort.get_all_providers()
ort.get_device(), ort.get_version_string(), ort.__version__, ort.has_collective_ops()
ort.set_seed(3), ort.set_default_logger_severity(3), ort.set_default_logger_verbosity(0), ort.preload_dlls()
ort.set_seed("a")
ort.set_default_logger_severity(9)
ort.set_default_logger_callback(3)
[(d.ep_name, d.ep_vendor, d.ep_metadata, d.ep_options, d.device.type) for d in ort.get_ep_devices()]
[(n, [b.__name__ for b in getattr(C, n).__bases__], getattr(C, n).__module__) for n in "Fail InvalidArgument NoSuchFile NoModel EngineError RuntimeException InvalidProtobuf ModelLoaded NotImplemented InvalidGraph EPFail ModelLoadCanceled ModelRequiresCompilation NotFound DeviceReset".split()]
args("add")
args("two")
args("scalar")
args("sequence")
args("zip")
args("zips")
args("equal_sizes")
args("reshape")
args("any_rank")
args("same_str")
args("same_bf16")
args("add", with_dimension("add_free_dimension_override_by_name", "batch", 2))
args("two", with_dimension("add_free_dimension_override_by_name", "n", 4))
S("add", sess_options=with_dimension("add_free_dimension_override_by_name", "batch", 2)).run(None, {"x": np.ones((3, 3), f4)})
S("add", sess_options=with_initializer(OV(W))).run(None, {"x": X})
with_initializer(X)
(lambda s: (s.get_inputs() is s.get_inputs(), type(s.get_inputs()), repr(s.get_inputs()[0]).split(" at ")[0]))(S("add"))
setattr(S("add").get_inputs()[0], "name", "q")
ort.NodeArg()
ort.ModelMetadata()
fields_of(S("add").get_modelmeta())
(lambda s: (s.get_providers(), s.get_provider_options(), s.end_profiling(), type(s.get_profiling_start_time_ns())))(S("add"))
(lambda o: S("add", sess_options=o).get_session_options() is o)(ort.SessionOptions())
S("add", sess_options=options_with(intra_op_num_threads=2, logid="me")).get_session_options().intra_op_num_threads
(lambda s: (s.set_providers(["CPUExecutionProvider"]), s.get_providers(), s.set_providers(), s.disable_fallback(), s.enable_fallback(), s.get_tuning_results(), s.set_ep_dynamic_options({'a': 'b'})))(S("add"))
[(i.name, i.device_id, i.mem_type, i.allocator_type) for i in S("add").get_input_memory_infos() + S("add").get_output_memory_infos()]
S("add").get_provider_graph_assignment_info()
run("add", x=X)
run("add", [], x=X)
run("add", ["z"], x=X)
run("add", ["z", "z"], x=X)
run("add", ["z", "y"], x=X)
run("add", ("z",), x=X)
run("add", "z", x=X)
run("add", 3, x=X)
run("add", [1], x=X)
run("add", x=X, w=np.zeros(3, f4))
run("add", ["missing"], x=X)
run("add", x=X, missing=X)
run("add")
run("add", missing=X)
run("add", x=X.astype(float))
run("add", x=X.astype(int))
run("add", x=X.astype(bool))
run("add", x=X[0])
run("add", x=X[:, :2])
run("add", x=X, w=np.zeros((1, 3), f4))
run("add", x=X, w=np.zeros(4, f4))
run("add", x=[[1.0, 2, 3]])
run("add", x=[[1, 2, 3]])
run("add", x=[[1], [1, 2]])
run("add", x=["a"])
run("add", x=None)
run("add", x=3.0)
run("add", x=f4(3))
run("add", x="abc")
run("add", x=(1.0, 2))
run("add", x=range(3))
run("add", x=np.ones((3, 2), f4).T)
run("add", x=np.arange(12, dtype=f4).reshape(2, 6)[:, ::2])
run("add", x=np.arange(6, dtype=f4).reshape(2, 3)[::-1])
run("add", x=np.broadcast_to(f4(2), (2, 3)))
run("add", x=X.view(np.recarray))
run("add", x=np.zeros((0, 3), f4))
run("add", x=OV(X))
run("add", x=OV(X.astype(int)))
run("add", None, ort.RunOptions(), x=X)
run("add", None, 1, x=X)
run("add", None, set_field(ort.RunOptions, "terminate", True) and (lambda o: (setattr(o, "terminate", True), o)[1])(ort.RunOptions()), x=X)
S("add").run(None, [X])
S("add").run(None, None)
S("add").run(None, {1: X})
S("add").run(None, OrderedDict(x=X))
S("add").run(None, input_feed={"x": X}, run_options=None)
S("add").run(output_names=["y"], input_feed={"x": X})
run("same_f32", x=np.array([1j]))
run("same_f32", x=np.array(["a"]))
run("same_f32", x=np.array(["2020-01-01"], "M8[D]"))
run("same_f32", x=[])
run("same_str", x=np.array(["a", "é"]))
run("same_str", x=np.array(["a", "é"], object))
run("same_str", x=["a", "b"])
run("same_str", x=np.array([1, None], object))
run("same_str", x=np.array([1, 2]))
run("same_str", x=np.array([["a"]], object))
run("same_bf16", x=OF([2], 16))
run("same_bf16", x=np.zeros(2, np.uint16))
value_fields(S("same_bf16").run_with_ort_values(None, {"x": ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.array([0x3F80, 0x4000], np.uint16), 16)})[0])
run("scalar", x=X)
run("sequence", x=np.arange(6, dtype=f4).reshape(3, 2))
args("taken")
args("optional")
run("optional", x=np.ones(2, f4))
run("taken", s=[np.ones((3, 2), f4), np.zeros((3, 2), f4)])
run("taken", s=[np.ones((4, 2), f4)])
run("taken", s=[])
run("taken", s=S("sequence").run_with_ort_values(None, {"x": OV(np.ones((2, 2), f4))})[0])
[run("taken", s=s) for s in ([np.ones((2, 2), f4)], [np.ones((3, 2), f4)] * 3, [])]
run("taken", s=np.ones((2, 3, 2), f4))
run("taken", s=OV(np.ones((2, 3, 2), f4)))
run("taken", s=(np.ones((3, 2), f4),))
run("taken", s=[[1.0, 2.0]])
run("taken", s=[np.ones((3, 2), f4), "x"])
run("taken", s=[np.ones((3, 2))])
run("taken", s="x")
run("taken", s=3.0)
run("taken_of_any_rank", s=[np.float32(2) * np.ones((), f4)])
run("taken_of_any_rank", s=[np.ones(3, f4), np.ones(3, f4)])
run("taken_of_any_rank", s=[])
run("pair", x=np.ones(2, f4), y=np.ones(3, f4))
run("pair", ["z"], x=np.ones(2, f4), y=np.ones(3, f4))
run("zip", x=np.ones((2, 2), f4))
run("zips", x=np.ones((2, 2), f4))
run("two", x=X, x2=X, unused=np.zeros((1, 2, 3), int))
run("two", x=X, x2=X)
run("two", x=X, x2=np.ones((3, 3), f4), unused=np.zeros((1, 2, 3), int))
run("two", x=X, x2=X, unused=np.zeros((1, 3, 3), int))
run("equal_sizes", x=np.ones((2, 3, 4), f4))[0].shape
run("equal_sizes", x=np.ones((2, 3, 5), f4))
run("reshape", x=np.ones(4, f4), s=np.array([2, 2]))
run("reshape", x=np.ones(5, f4), s=np.array([2, 2]))
[run("any_rank", x=np.ones((2,) * rank, f4))[0].shape for rank in range(4)]
(lambda s: [s.run(None, {"x": np.ones((2,) * rank, f4)})[0].sum() for rank in (1, 3, 1, 2)])(S("any_rank"))
many_runs([8, 7] * 20)
many_runs([8] * 30)
many_runs(range(30))
in_threads(4)
run_async(x=X)
run_async(["z"], x=X)
run_async(["missing"], x=X)
run_async(x=X.astype(int))
run_async(x=X[0])
run_async(missing=X)
run_async(None, S("add", sess_options=options_with(intra_op_num_threads=1)), x=X)
[v.numpy() for v in S("add").run_with_ort_values(["z"], {"x": OV(X)})]
S("add").run_with_ort_values(None, {"x": X})
profiled()
saved()
S("nowhere")
S("junk")
S("empty")
S("unknown")
S("dangling")
ort.InferenceSession("/")
ort.InferenceSession("")
ort.InferenceSession(b"junk junk")
ort.InferenceSession(b"")
ort.InferenceSession(3)
ort.InferenceSession(bytearray(b"a"))
ort.InferenceSession()
ort.InferenceSession(MODEL).get_providers()
ort.InferenceSession(MODEL, providers=["CUDAExecutionProvider", "CPUExecutionProvider"]).get_providers()
ort.InferenceSession(MODEL, providers=["CUDAExecutionProvider"]).get_providers()
ort.InferenceSession(MODEL, providers=[("CUDAExecutionProvider", {"device_id": 0}), ("CPUExecutionProvider", {"arena_extend_strategy": 1})]).get_provider_options()
ort.InferenceSession(MODEL, providers=CPU, provider_options=[{"a": 1}]).get_provider_options()
ort.InferenceSession(MODEL, providers=CPU, provider_options=[{}, {}]).get_providers()
ort.InferenceSession(MODEL, providers=[3]).get_providers()
ort.InferenceSession(MODEL, providers=set(CPU)).get_providers()
ort.InferenceSession(MODEL, providers=CPU * 2).get_providers()
ort.InferenceSession(MODEL, providers=["FooProvider"]).get_providers()
ort.InferenceSession(MODEL, providers=["FooProvider"], enable_fallback=0)
ort.InferenceSession(MODEL, sess_options=3)
ort.InferenceSession(MODEL, ort.SessionOptions(), CPU).get_providers()
pickle.dumps(S("add"))
pickle.dumps(S("add").get_inputs()[0])
pickle.dumps(OV(X))
pickle.loads(pickle.dumps(Pickled("add.onnx", providers=CPU))).run(None, {"x": X})
value_fields(OV(X)), OV(X).data_ptr() == X.ctypes.data, np.shares_memory(OV(X).numpy(), X)
OV(np.arange(6, dtype=f4).reshape(2, 3).T).numpy()
[value_fields(OV(np.zeros(2, d))) for d in NUMBERS.values()]
OV(np.array(["a", "é"]))
OV(np.array(["a", "é"], object))
OV(np.zeros(2, "c8"))
OV([1, 2])
OV(f4(2))
OV(np.array(2, f4)).numpy()
OV(X, "cuda", 0)
OV(X, "gpu", 0)
OV(X, "foo", 0)
value_fields(OV(X, "cpu", 1))
[value_fields(OF([2, 3], kind)) for kind in (np.float32, np.dtype("i8"), "float32", np.bool_, 1, 10, 16, 9, float, int, 17, 22, None)]
OF([2], 8)
OF([2], np.str_)
OF([2], np.complex64)
OF([2], 99)
OF((-2,), np.float32)
OF((2.5,), np.float32)
OF(2, np.float32)
OF((), np.float32).shape(), OF((0, 3), np.float32).shape()
OF([2], 16).numpy()
value_fields(ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.zeros(2, np.uint8), 17))
ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.zeros(2, np.uint8), 16)
(lambda x: (lambda v: (v.update_inplace(np.full((2, 3), 9, f4)), v.numpy(), x))(OV(x)))(X.copy())
(lambda v: (v.update_inplace(np.arange(6, dtype=f4).reshape(3, 2).T), v.numpy(), v.update_inplace(OV(X)), np.asarray(v), np.asarray(v, "f8")))(OF([2, 3], f4))
OF([2, 3], f4).update_inplace(np.zeros((4, 2), f4))
OF([2, 3], f4).update_inplace([1])
OV(X).__dlpack_device__(), np.from_dlpack(OV(X)), np.shares_memory(np.from_dlpack(OV(X)), X)
np.from_dlpack(OV(np.array([True, False])))
value_fields(ort.OrtValue.from_dlpack(X)), ort.OrtValue.from_dlpack(X).data_ptr() == X.ctypes.data
value_fields(ort.OrtValue.from_dlpack(X.__dlpack__())), value_fields(ort.OrtValue.from_dlpack(np.array([True])))
ort.OrtValue.from_dlpack(3)
ort.OrtValue.from_dlpack(np.arange(6, dtype=f4).reshape(2, 3).T)
type(OV(X)._ortvalue.to_dlpack())
ort.OrtValue(1)
[f() for f in (COO().values, COO().dense_shape, COO().format, COO().data_type, COO().device_name)]
COO().as_coo_view().indices(), COO(np.array([[0, 0], [1, 1]])).as_coo_view().indices(), COO(np.array([0, 0, 1, 1])).as_coo_view().indices()
COO(np.array([1, 4], np.int32)).as_coo_view().indices(), np.shares_memory(COO().values(), HALVES)
CSR().values(), CSR().format(), CSR().as_csrc_view().inner(), CSR().as_csrc_view().outer()
COO(np.array([0]))
COO(values=np.zeros((2, 1), f4))
COO(values=np.array(["a", "b"], object))
COO(values=np.array(["a", "b"])).data_type(), COO(np.zeros(0, np.int64), np.zeros(0, f4)).values()
COO().as_csrc_view()
COO().as_blocksparse_view()
CSR().as_coo_view()
CSR(np.array([0]))
CSR(outer=np.array([0, 1]))
ort.SparseTensor(3)
COO(values=[1.0, 2.0])
[f() for f in (SV().is_tensor, SV().is_sparse_tensor, SV().is_tensor_sequence, SV().data_type, SV().shape, SV().element_type, SV().as_sparse_tensor().values)]
SV().numpy()
OV(X).as_sparse_tensor()
S("add").run_with_ort_values(None, {"x": SV()})
[(d.device_id(), d.device_type(), d.device_vendor_id(), d.device_mem_type()) for d in (D.make("cpu", 0), D.make("cuda", 1), D.make("gpu", 0), D.make("npu", 0), D.make("dml", 0), D.make("cann", 0), D.make("webgpu", 0), D.make("gpu", 0, 0x10DE), D.make("cpu", 0, ort.OrtDeviceVendorId.INTEL))]
D.make("foo", 0)
D(1)
[getattr(C.OrtDevice, name)() for name in "cpu cuda cann fpga gpu npu dml webgpu default_memory".split()]
[(name, int(v)) for name, v in ort.OrtDeviceVendorId.__members__.items()]
bound("y", "z", x=X)
bound("z", "y", x=X)
bound("z", x=X)
bound("y", "y", x=X)
bound(x=X)
bound("missing", x=X)
bound("y", x=X, input="missing")
bound("y")
bound("y", x=X[0])
bound("y", x=X.astype(int))
bound("y", x=np.ones((3, 2), f4).T)
bound("y", x=[[1, 2, 3]])
bound("y", x=X, device_type="cuda")
bound("y", x=X, device_type="foo")
by_address()
by_address(1, (2, 3), 1)
by_address(np.float64)
by_address(output=np.int32)
by_address(output=None)
by_address(output_shape=None)
by_address(output_shape=(3, 2))
by_address(output_shape=(1, 3))
by_values()
by_values(OV(X.astype("f2")))
by_values(None, OF([2, 3], np.int64))
by_values(None, OF([3, 3], np.float32))
(lambda b: (b.get_outputs(), b.copy_outputs_to_cpu(), len(b.get_outputs_as_ortvaluevector())))(S("add").io_binding())
S("add").run_with_iobinding(S("add").io_binding())
(lambda v: (v.push_back(OV(X)._ortvalue), len(v), v[0].shape(), v.element_type_at(0), bool(v)))(C.OrtValueVector())
ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT).name
ort.OrtArenaCfg(0, -1, -1, -1).max_mem, ort.OrtArenaCfg({"max_mem": 3}).max_mem
ort.enable_telemetry_events(), ort.disable_telemetry_events()
ort.InferenceSession.__module__, ort.OrtDevice.__module__, C.OrtValue.__module__
""".strip().splitlines()
CALLS += [f"run('same_{name}', x={x})" for name, kind in NUMBERS.items() for x in (f"np.array([0, 1, 1], {kind!r})", "[0, 1, 1]", "[0.5, 1, 1]")]  # fmt: skip


def shown(value: Any) -> Any:
    """A value as JSON."""
    if isinstance(value, np.ndarray):
        return [
            str(value.dtype),
            value.shape,
            value.tolist(),
            value.flags.c_contiguous,
            value.flags.writeable,
        ]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(shown, value)]
    if isinstance(value, dict):
        return sorted([str(k), shown(v)] for k, v in value.items())
    return repr(value).split(" at 0x")[0]


def outcome(call: str) -> Any:
    """The value of a call, or the class and message of its error; what it prints, and its warnings."""
    printed: Any = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always")
        try:
            result = ["value", shown(eval(call))]
        except Exception as error:
            result = ["error", f"{type(error).__module__}.{type(error).__name__}", str(error)]
    return [*result, printed.getvalue(), [f"{w.category.__name__}: {w.message}" for w in caught]]


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    with open("add.onnx", "rb") as model:
        MODEL = model.read()
    for call in CALLS:
        print(json.dumps([call, *outcome(call)]), flush=True)
