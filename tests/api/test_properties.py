"""Properties: names, spellings, values, defaults and errors beside the real OpenVINO."""

from __future__ import annotations

import importlib

import numpy as np
import openvino
import pytest

import ovjit
from ovjit.codegen.cpu.formats import emulates_bf16
from ovjit.codegen.cpu.host import has_f16, host_target
from tests.support import api_cases as cases
from tests.support.compiled import float_types

MODULES = ("", ".hint", ".device", ".streams", ".log", ".intel_cpu", ".intel_auto")


def members(package, module):
    """name -> the property's key or the enumeration's members, of a module of properties."""
    theirs = importlib.import_module(f"openvino._pyopenvino.properties{module}")
    mine = importlib.import_module(f"{package}.properties{module}")
    found = {}
    for name in dir(theirs):
        if name.startswith(("_", "intel_")) or name in ("device", "hint", "log", "streams"):
            continue
        if name == "cache_encryption_callbacks" or not hasattr(mine, name):
            continue
        value = getattr(mine, name)
        if isinstance(value, str):
            found[name] = str(value)
        elif hasattr(value, "__members__"):
            found[name] = {k: (int(v), v.name, str(v), repr(v)) for k, v in value.__members__.items()}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_names_and_members(module):
    mine, theirs = members("ovjit", module), members("openvino", module)
    assert mine == theirs
    assert mine
    assert set(theirs) - set(mine) == set()
    with pytest.raises(AttributeError):
        _ = importlib.import_module(f"ovjit.properties{module}").nosuch


def test_properties_are_strings_that_can_be_called():
    for ov in (ovjit, openvino):
        p = importlib.import_module(f"{ov.__name__}.properties")
        assert p.cache_dir == "CACHE_DIR" == p.cache_dir() == str(p.cache_dir)
        assert {p.cache_dir: 1} == {"CACHE_DIR": 1}
        name, value = p.inference_num_threads(2)
        assert (name, value.value) == ("INFERENCE_NUM_THREADS", 2)
        assert isinstance(value, ov.OVAny)
        assert (
            p.hint.performance_mode(p.hint.PerformanceMode.LATENCY)[1].value == p.hint.PerformanceMode.LATENCY
        )
        for call in (
            lambda p=p: p.supported_properties(1), lambda p=p: p.inference_num_threads("x"),
            lambda p=p: p.inference_num_threads(2.5), lambda p=p: p.hint.performance_mode("LATENCY"),
            lambda p=p: p.enable_profiling("YES"), lambda p=p: p.num_streams(2),
        ):  # fmt: skip
            with pytest.raises(TypeError):
                call()
        assert p.streams.num(3)[1].value is not None
        assert p.streams.Num(3).to_integer() == 3
        assert p.streams.Num.AUTO.to_integer() == -1
        assert p.device.priorities("CPU", "GPU")[1].value == "CPU,GPU,"
        assert p.device.properties({"CPU": {p.enable_profiling: True}})[1].value == {
            "CPU": {"PERF_COUNT": True}
        }
        assert p.device.Capability.FP32 == "FP32"


SHOWN = (
    "PERFORMANCE_HINT", "NUM_STREAMS", "INFERENCE_NUM_THREADS", "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
    "PERF_COUNT",
    "PERFORMANCE_HINT_NUM_REQUESTS", "EXECUTION_DEVICES", "NETWORK_NAME",
)  # fmt: skip


def configs(ov):
    p = ov.properties
    mode = p.hint.PerformanceMode
    return [
        {}, None, {"PERFORMANCE_HINT": "THROUGHPUT"}, {"PERFORMANCE_HINT": mode.THROUGHPUT},
        {p.hint.performance_mode: mode.LATENCY}, dict([p.hint.performance_mode(mode.THROUGHPUT)]),
        {"PERFORMANCE_HINT": "latency"}, {"PERFORMANCE_HINT": "CUMULATIVE_THROUGHPUT"},
        {"PERFORMANCE_HINT": ""},
        {"PERFORMANCE_HINT": 3}, {"NUM_STREAMS": 2}, {"NUM_STREAMS": "2"}, {"NUM_STREAMS": "AUTO"},
        {"NUM_STREAMS": p.streams.Num.AUTO}, {"NUM_STREAMS": p.streams.Num.NUMA}, {"NUM_STREAMS": ""},
        {"NUM_STREAMS": "AUTO", "PERFORMANCE_HINT": "LATENCY"},
        {"MODEL_DISTRIBUTION_POLICY": "TENSOR_PARALLEL"}, {"MODEL_DISTRIBUTION_POLICY": "TENSOR"},
        {"NUM_STREAMS": "NUMA", "PERFORMANCE_HINT": "THROUGHPUT"}, {"MODEL_DISTRIBUTION_POLICY": ""},
        {"NUM_STREAMS": "x"}, {"NUM_STREAMS": -5}, {"NUM_STREAMS": True},
        {"INFERENCE_NUM_THREADS": 1}, {"INFERENCE_NUM_THREADS": "2"}, {"INFERENCE_NUM_THREADS": -1},
        {"INFERENCE_NUM_THREADS": 1000}, {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "THROUGHPUT"},
        {"PERF_COUNT": True}, {"PERF_COUNT": "YES"}, {"PERF_COUNT": "TRUE"}, {"PERF_COUNT": "true"},
        {"PERF_COUNT": "1"}, {"PERF_COUNT": 1}, {"PERF_COUNT": "maybe"}, {"PERF_COUNT": None},
        {"PERF_COUNT": False}, {"INFERENCE_PRECISION_HINT": "i8"}, {"INFERENCE_PRECISION_HINT": "float32"},
        {"INFERENCE_PRECISION_HINT": "f16"}, {"INFERENCE_PRECISION_HINT": "undefined"},
        {"EXECUTION_MODE_HINT": "ACCURACY"}, {"EXECUTION_MODE_HINT": "x"},
        {"PERFORMANCE_HINT_NUM_REQUESTS": 4, "PERFORMANCE_HINT": "THROUGHPUT"},
        {"PERFORMANCE_HINT_NUM_REQUESTS": 1, "PERFORMANCE_HINT": "THROUGHPUT"},
        {"PERFORMANCE_HINT_NUM_REQUESTS": -1}, {"CPU_DENORMALS_OPTIMIZATION": True},
        {"LOG_LEVEL": "LOG_DEBUG"},
        {"LOG_LEVEL": p.log.Level.ERR}, {"LOG_LEVEL": "ERR"}, {"ENABLE_CPU_PINNING": False},
        {"ENABLE_MMAP": False}, {"NOPE": 1}, {"DEVICE_ID": ""}, {"DEVICE_ID": "0"}, {1: 2},
        {"SUPPORTED_PROPERTIES": 1}, {"NETWORK_NAME": "x"}, {"FULL_DEVICE_NAME": "x"},
        {"MODEL_PRIORITY": "HIGH"},
        {"CACHE_MODE": "OPTIMIZE_SIZE"}, {"DEVICE_PROPERTIES": {"CPU": {"NUM_STREAMS": 2}}},
        {"DEVICE_PROPERTIES": "{CPU:{NUM_STREAMS:2}}"}, {"DEVICE_PROPERTIES": "CPU:{NUM_STREAMS:2}"},
        {"DEVICE_PROPERTIES": "{CPU:{NUM_STREAMS:2,PERF_COUNT:YES},GPU:{NUM_STREAMS:3}}"},
        {"DEVICE_PROPERTIES": ""}, {"DEVICE_PROPERTIES": "{CPU:}"}, {"DEVICE_PROPERTIES": "{CPU:{NOPE:1}}"},
        {"DEVICE_PROPERTIES": {"CPU": "{NUM_STREAMS:2}"}}, {"DEVICE_PROPERTIES": "{CPU:{NUM_STREAMS:x}}"},
        {"DEVICE_PROPERTIES": "{CPU:{PERFORMANCE_HINT:THROUGHPUT}}"},
        {"CPU": {"NUM_STREAMS": 2}}, [("NUM_STREAMS", 2)], "x", {"ALLOW_AUTO_BATCHING": True},
        {"COMPILATION_NUM_THREADS": 2}, {"MULTI_DEVICE_PRIORITIES": "CPU"},
        {"CPU_RUNTIME_CACHE_CAPACITY": 10},
        {"ENFORCE_BF16": "YES"}, {"SCHEDULING_CORE_TYPE": "PCORE_ONLY"}, {"KV_CACHE_PRECISION": "u8"},
        {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}, {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 0.5},
        {"INFERENCE_NUM_THREADS": 1 << 40}, {"PERFORMANCE_HINT_NUM_REQUESTS": "4294967296"},
        {"NUM_STREAMS": 1 << 31}, {"KEY_CACHE_GROUP_SIZE": -1}, {"VALUE_CACHE_GROUP_SIZE": 1 << 40},
        {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 1.5}, {"EXCLUSIVE_ASYNC_REQUESTS": "YES"},
        {"KEY_CACHE_QUANT_MODE": "BY_TOKEN"}, {"KEY_CACHE_QUANT_MODE": "FOO"},
    ]  # fmt: skip


def model(ov):
    a = ov.opset8.parameter([8], dtype=np.float32, name="a")
    return ov.Model([ov.opset8.relu(a)], [a], "one")


@pytest.fixture
def denormals():
    """OpenVINO lets the thread take denormal numbers for zeros for good where a property asks for that."""
    yield
    openvino.Core().compile_model(model(openvino), "CPU", {"CPU_DENORMALS_OPTIMIZATION": False})
    assert np.float32(1e-40) * np.float32(1e30) > 0


@pytest.mark.usefixtures("denormals")
@pytest.mark.parametrize("i", range(len(configs(ovjit))), ids=lambda i: str(configs(ovjit)[i])[:60])
def test_compiling_with_properties(i):
    def compiled(ov):
        result = ov.Core().compile_model(model(ov), "CPU", configs(ov)[i])
        return [result.get_property(name) for name in SHOWN]

    cases.check_alike(compiled, configs(ovjit)[i])


@pytest.mark.parametrize(
    "steps",
    [
        [{"NUM_STREAMS": "AUTO"}], [{"NUM_STREAMS": "NUMA"}, {"PERFORMANCE_HINT": "THROUGHPUT"}],
        [{"NUM_STREAMS": ""}, {"PERFORMANCE_HINT": "LATENCY"}], [{"NUM_STREAMS": -1}, {"NUM_STREAMS": 2}],
        [{"NUM_STREAMS": 2}, {"NUM_STREAMS": -2}], [{"MODEL_DISTRIBUTION_POLICY": "TENSOR_PARALLEL"}],
        [{"MODEL_DISTRIBUTION_POLICY": ""}],
    ],
    ids=str,
)  # fmt: skip
def test_what_a_core_tells_of_streams(steps):
    """AUTO and NUMA are hints, and no numbers that anybody reads."""

    def told(ov):
        core = ov.Core()
        for step in steps:
            core.set_property("CPU", step)
        names = "NUM_STREAMS", "PERFORMANCE_HINT", "MODEL_DISTRIBUTION_POLICY"
        return [str(core.get_property("CPU", name)) for name in names]

    assert told(ovjit) == [text.replace("openvino", "ovjit") for text in told(openvino)]


@pytest.mark.parametrize("device", ["AUTO", "AUTO:CPU", "MULTI:CPU", "HETERO:CPU"])
@pytest.mark.parametrize(
    "config",
    [
        {"NOPE": 1}, {"GPU_ENABLE_LOOP_UNROLLING": "NO"}, {"EXCLUSIVE_ASYNC_REQUESTS": "YES"},
        {"EXCLUSIVE_ASYNC_REQUESTS": "often"}, {"FULL_DEVICE_NAME": "x"}, {"": 1}, {"NUM_STREAMS": "abc"},
        {"PERF_COUNT": "x"}, {"MODEL_PRIORITY": "HIGH"}, {"DEVICE_PROPERTIES": {"CPU": {"NOPE": 2}}},
        {"DEVICE_PROPERTIES": "{CPU:{NUM_STREAMS:2}}"}, {"DEVICE_PROPERTIES": "{CPU:{NUM_STREAMS:x}}"},
        {"DEVICE_PROPERTIES": {"GPU": {"NOPE": 2}}}, {"DEVICE_PROPERTIES": {"CPU": {"NUM_STREAMS": "abc"}}},
        {"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 2.0}, {"INFERENCE_NUM_THREADS": -1},
    ],
    ids=str,
)  # fmt: skip
def test_devices_over_the_cpu_pass_by_what_nobody_knows(device, config):
    cases.check_alike(lambda ov: bool(ov.Core().compile_model(model(ov), device, config)), (device, config))


@pytest.mark.parametrize(
    "text", ["{}", "{CPU:{}}", '{"CPU": {"NUM_STREAMS": "2"}}', "{CPU : {NUM_STREAMS : 2}}"]
)
def test_texts_of_properties_that_openvino_misreads(text):
    """It passes by names with quotes or spaces."""
    compiled = ovjit.Core().compile_model(model(ovjit), "CPU", {"DEVICE_PROPERTIES": text})
    assert compiled.get_property("NUM_STREAMS") == (2 if "2" in text else 1)


@pytest.mark.parametrize(
    "text", ["{CPU:{NUM_STREAMS:2}", "{CPU:{NUM_STREAMS:2,}}", "{CPU:{}}}", "{CPU}", "}{", "{"]
)
def test_texts_of_properties_that_are_cut(text):
    """OpenVINO reads some of them."""
    with pytest.raises(RuntimeError, match="such as {CPU:{NUM_STREAMS:2}}"):
        ovjit.Core().compile_model(model(ovjit), "CPU", {"DEVICE_PROPERTIES": text})


@pytest.mark.parametrize("device", ["AUTO", "HETERO:CPU"])
def test_a_misspelled_key_is_refused_everywhere(device):
    with pytest.raises(RuntimeError, match="OVJIT_KEYS"):
        ovjit.Core().compile_model(model(ovjit), device, {"OVJIT_KEYS": "00" * 32})


def test_properties_of_compiled_models():
    for device in ("CPU", "AUTO", "MULTI:CPU"):
        mine = ovjit.Core().compile_model(model(ovjit), device)
        theirs = openvino.Core().compile_model(model(openvino), device)
        left_out = {"ENABLE_HYPER_THREADING", "INFERENCE_PRECISION_HINT",
        "RUNTIME_REQUIREMENTS",
                    "DEVICE_PROPERTIES", "KV_CACHE_PRECISION", "KEY_CACHE_PRECISION",
                    "VALUE_CACHE_PRECISION"}  # fmt: skip
        supported = mine.get_property("SUPPORTED_PROPERTIES")
        assert set(supported) >= set(theirs.get_property("SUPPORTED_PROPERTIES")) - {"SCHEDULE_POLICY"}
        for name in (
            set(theirs.get_property("SUPPORTED_PROPERTIES"))
            - left_out
            - {"SUPPORTED_PROPERTIES", "SCHEDULE_POLICY"}
        ):
            ours, value = mine.get_property(name), theirs.get_property(name)
            assert repr(ours) == repr(value), (device, name)
        assert mine.get_property("INFERENCE_PRECISION_HINT" if device == "CPU" else "LOADED_FROM_CACHE") in (
            ovjit.Type.f32, False,
        )  # fmt: skip
        for call in (
            lambda m: m.get_property("NOPE"), lambda m: m.get_property(5), lambda m: m.set_property("A", 1),
        ):  # fmt: skip
            kind, error = cases.outcome(lambda call=call, theirs=theirs: call(theirs))
            assert kind == "raises"
            with pytest.raises(type(error)):
                call(mine)
        with pytest.raises(RuntimeError):
            mine.set_property({"PERF_COUNT": True})


def test_an_unknown_name_is_an_error_that_names_the_nearest():
    core = ovjit.Core()
    compiled = core.compile_model(model(ovjit), "CPU")
    for call in (
        lambda: core.compile_model(model(ovjit), "CPU", {"PERFORMANCE_HNT": "LATENCY"}),
        lambda: core.set_property("CPU", {"PERFORMANCE_HNT": "LATENCY"}),
        lambda: core.set_property({"performance_hint": "LATENCY"}),
        lambda: core.get_property("CPU", "PERFORMANCE_HNT"),
        lambda: compiled.get_property("PERFORMANCE_HNT"),
    ):
        with pytest.raises(RuntimeError, match="did you mean 'PERFORMANCE_HINT'"):
            call()
    with pytest.raises(RuntimeError, match="LATENCY, THROUGHPUT"):
        core.set_property("CPU", {"PERFORMANCE_HINT": "FAST"})
    assert core.get_property("CPU", "PERFORMANCE_HINT") == ovjit.properties.hint.PerformanceMode.LATENCY


def test_a_name_is_not_said_to_be_meant_by_itself():
    """A core as such has no PERF_COUNT, which a device has."""
    with pytest.raises(RuntimeError, match="unsupported property: 'PERF_COUNT'") as told:
        ovjit.Core().get_property("PERF_COUNT")
    assert str(told.value).count("'PERF_COUNT'") == 1


@pytest.mark.parametrize("package", [ovjit, openvino])
@pytest.mark.parametrize("size", [-1, "-1", "18446744073709551615"])
def test_a_group_without_bounds(package, size):
    name = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
    compiled = package.Core().compile_model(model(package), "CPU", {name: size})
    assert compiled.get_property(name) == (1 << 64) - 1


def test_properties_of_a_core():
    for ov in (ovjit, openvino):
        core = ov.Core()
        core.set_property("CPU", {"NUM_STREAMS": 2})
        assert core.get_property("CPU", "NUM_STREAMS") == 2
        assert core.compile_model(model(ov), "CPU").get_property("NUM_STREAMS") == 2
        assert core.compile_model(model(ov), "CPU", {"NUM_STREAMS": 1}).get_property("NUM_STREAMS") == 1
        assert ov.Core().get_property("CPU", "NUM_STREAMS") == 1
        core.set_property("CPU", ov.properties.inference_num_threads(1))
        assert core.get_property("CPU", ov.properties.inference_num_threads) == 1
        core.set_property({"ENABLE_MMAP": False})
        assert core.get_property("ENABLE_MMAP") is False
        core.set_property({"PERF_COUNT": "YES"})
        assert core.get_property("CPU", "PERF_COUNT") is True
        core.set_property("AUTO", {"PERFORMANCE_HINT": "THROUGHPUT"})
        assert core.compile_model(model(ov)).get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") >= 1
        for call in (
            lambda core=core: core.set_property("CPU", "NUM_STREAMS", 2),
            lambda core=core: core.get_property("CPU", 5),
        ):  # fmt: skip
            with pytest.raises(TypeError):
                call()
        for call in (
            lambda core=core: core.get_property("CPU", "NOPE"),
            lambda core=core: core.get_property("NOPE"),
        ):
            with pytest.raises(RuntimeError):
                call()


def test_defaults_of_the_cpu_device():
    mine, theirs = ovjit.Core(), openvino.Core()
    supported = mine.get_property("CPU", "SUPPORTED_PROPERTIES")
    named = theirs.get_property("CPU", "SUPPORTED_PROPERTIES")
    # what differs on purpose: precision, capabilities
    different = {
        "INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION",
        "OPTIMIZATION_CAPABILITIES", "COMPATIBILITY_CHECK", "TBB_PARTITIONER",
        "SUPPORTED_PROPERTIES",
    }  # fmt: skip
    assert set(named) == set(supported)
    for name in set(named) - different:
        assert repr(mine.get_property("CPU", name)) == repr(theirs.get_property("CPU", name)), name
        assert supported[name] == named[name], name
    for core in (mine, theirs):  # it can be set, and what it is then is not said
        core.set_property("CPU", {"WEIGHTS_PATH": "w.bin"})
        assert core.get_property("CPU", "WEIGHTS_PATH") == ""
    assert mine.get_property("CPU", "INFERENCE_PRECISION_HINT") == ovjit.Type.f32


def test_threads_follow_what_the_process_may_use(monkeypatch):
    from ovjit.api.run import properties_table as table

    monkeypatch.setattr(table, "usable_cores", lambda: (6, "control group quota"))
    resolved = table.resolve({}, "CPU")
    assert (resolved["NUM_STREAMS"], resolved["INFERENCE_NUM_THREADS"], resolved["threads"]) == (1, 6, 6)
    assert "quota" in resolved["INFERENCE_NUM_THREADS_REASON"]
    resolved = table.resolve(table.read_config({"PERFORMANCE_HINT": "THROUGHPUT"}, "CPU"), "CPU")
    assert (resolved["NUM_STREAMS"], resolved["threads"]) == (6, 1)
    resolved = table.resolve({"NUM_STREAMS": 3}, "CPU")
    assert (resolved["streams"], resolved["threads"]) == (3, 2)
    resolved = table.resolve({"INFERENCE_NUM_THREADS": 2}, "CPU")
    assert (resolved["INFERENCE_NUM_THREADS"], resolved["threads"]) == (2, 2)
    assert resolved["INFERENCE_NUM_THREADS_REASON"] == "INFERENCE_NUM_THREADS of 2"
    resolved = table.resolve({"PERFORMANCE_HINT_NUM_REQUESTS": 2, "NUM_STREAMS": -1}, "CPU")
    assert resolved["NUM_STREAMS"] == 2


@pytest.mark.parametrize("name", ["KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION"])
def test_what_caches_may_be_stored_in(name, monkeypatch):
    """The values that are taken and what is told, as there; but where f32 is asked for, f32."""
    for value in ("u8", "i8", "u4", "i4", "u3", "f16", "bf16", "f32", "f64", "nf4", "dynamic", "undefined"):
        taken = []
        for package in (ovjit, openvino):
            core = package.Core()
            core.get_property("CPU", "FULL_DEVICE_NAME")  # values are read from then on
            try:
                core.set_property("CPU", {name: value})
                taken.append(True)
            except RuntimeError:
                taken.append(False)
        assert taken[0] == taken[1], (value, taken)
    monkeypatch.delenv("OVJIT_PRECISION", raising=False)
    names = ("KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION")
    asked: list[dict[str, str]] = [{name: value} for value in ("u8", "u4", "f16", "f32")]
    for config in ({}, {"EXECUTION_MODE_HINT": "ACCURACY"}, *asked):
        told = []
        for package in (ovjit, openvino):
            compiled = package.Core().compile_model(model(package), "CPU", config)
            told.append([compiled.get_property(each).get_type_name() for each in names])
        assert told[0] == told[1], config
    exact = ovjit.Core().compile_model(model(ovjit), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert exact.get_property(name) == ovjit.Type.f32


def test_runtime_options_of_models(tmp_path, monkeypatch):
    """A model sets types of caches and sizes of groups where neither the call nor the Core does, as there:
    also when it is read from a file."""
    monkeypatch.delenv("OVJIT_PRECISION", raising=False)
    names = (
        "KV_CACHE_PRECISION", "KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION", "KEY_CACHE_GROUP_SIZE",
        "VALUE_CACHE_GROUP_SIZE", "DYNAMIC_QUANTIZATION_GROUP_SIZE",
    )  # fmt: skip
    half = {"KV_CACHE_PRECISION": "f16"}
    sizes = {"KEY_CACHE_GROUP_SIZE": "16", "VALUE_CACHE_GROUP_SIZE": 8, names[-1]: "64"}
    exact = {"EXECUTION_MODE_HINT": "ACCURACY"}
    cases: list[tuple[dict, dict, dict]] = [  # options of the model, of the Core, of the call
        (half, {}, {}), (sizes, {}, {}), ({**half, "KEY_CACHE_PRECISION": "u8"}, {}, {}),
        (half, {}, {"KV_CACHE_PRECISION": "f32"}), (half, {"KV_CACHE_PRECISION": "f32"}, {}),
        ({"KEY_CACHE_PRECISION": "f16"}, {}, {"KV_CACHE_PRECISION": "f32"}),
        ({**half, **sizes}, {}, exact), (sizes, {}, {names[-1]: "0"}), ({"PERFORMANCE_HINT": "x"}, {}, {}),
        (half, {}, {"INFERENCE_PRECISION_HINT": "f32"}),
    ]  # fmt: skip
    for options, of_core, of_call in cases:
        told = []
        for package in (ovjit, openvino):
            core = package.Core()
            if of_core:
                core.set_property("CPU", of_core)
            made = model(package)
            for name, value in options.items():
                made.set_rt_info(value, ["runtime_options", name])
            package.save_model(made, tmp_path / f"{package.__name__}.xml")
            for way in (made, str(tmp_path / f"{package.__name__}.xml")):
                compiled = core.compile_model(way, "CPU", of_call)
                told.append([str(compiled.get_property(name)) for name in names])
        assert told == [told[0]] * 4, (options, of_core, of_call)
    wrong = model(ovjit)
    wrong.set_rt_info("f17", ["runtime_options", "KV_CACHE_PRECISION"])
    with pytest.raises(RuntimeError, match="f17 for property key KV_CACHE_PRECISION"):
        ovjit.Core().compile_model(wrong, "CPU")


@pytest.mark.parametrize("name", ["INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION", "EXECUTION_MODE_HINT"])
def test_how_values_of_precision_may_be_spelled(name):
    """What is taken, what a Core and a compiled model then tell, and the words for what is not taken."""
    words = "f32 bf16 f16 dynamic undefined FP32 FP16 BF16 F32 fp16 U8 U4 U3 UNSPECIFIED ACCURACY accuracy x"
    for value in (*words.split(), " f32", "f16 ", 1, None):
        said = []
        for package in (ovjit, openvino):
            core = package.Core()
            core.get_property("CPU", "FULL_DEVICE_NAME")  # values are read from then on
            try:
                core.set_property("CPU", {name: value})
                compiled = core.compile_model(model(package), "CPU")
                told = [core.get_property("CPU", name), compiled.get_property(name)][: 1 + (name[0] != "K")]
                said.append([getattr(v, "name", None) or v.get_type_name() for v in told])
            except RuntimeError as error:
                said.append(str(error).strip().splitlines()[-1].partition("Supported values:")[1])
        # what OpenVINO makes of both depends on what it finds in the CPU, which cannot be hidden from it
        half, low = value in ("f16", "f16 ", "FP16"), value in ("bf16", "BF16")
        if said[0] != said[1] and (half or low):
            ours = "bf16" if (emulates_bf16(host_target()) if low else "bf16" in float_types()) else "f32"
            ours = "f32" if half and has_f16() else ours
            assert said[0] == [ours] * 2 and said[1] in [[real] * 2 for real in ("f32", "bf16", "f16")], said
            continue
        assert said[0] == said[1], (value, said)


#: What an AArch64 CPU has -> what is told where nothing is asked, bf16, and f16; and its capabilities. Those
#: of OpenVINO 2026.4.1 there: f16, f16, f16 where the CPU has arithmetic of f16, else f32 for all.
ON_ARM = {
    (): ("f32 f32 f32", "FP32"),
    ("lse", "dotprod"): ("f32 f32 f32", "FP32"),
    ("dotprod", "fp16fml"): ("f16 f16 f16", "FP32 FP16"),
    ("dotprod", "bf16"): ("f32 bf16 f32", "BF16 FP32"),
    ("dotprod", "bf16", "fp16fml"): ("f16 bf16 f16", "BF16 FP32 FP16"),
}


@pytest.mark.parametrize("extras", ON_ARM)
def test_what_arm_computes_in(extras, monkeypatch):
    from ovjit.api.run import properties_table as table
    from ovjit.codegen.cpu.targets import target_of

    monkeypatch.delenv("OVJIT_PRECISION", raising=False)
    monkeypatch.setattr(table, "host_target", lambda: target_of("neon", extras))
    monkeypatch.setattr(table.machine, "is_arm", lambda: True)
    row = table.ROWS["INFERENCE_PRECISION_HINT"]
    asked: list[dict] = [{}, *({row.name: getattr(ovjit.Type, kind)} for kind in ("bf16", "f16"))]
    told = [table.default_of(row, "CPU", config).get_type_name() for config in asked]
    assert " ".join(told) == ON_ARM[extras][0]
    capabilities = table.default_of(table.ROWS["OPTIMIZATION_CAPABILITIES"], "CPU", {})
    assert capabilities == [*ON_ARM[extras][1].split(), "INT8", "BIN", "EXPORT_IMPORT"]


#: What /proc/cpuinfo has behind "Features", line by line -> FULL_DEVICE_NAME of OpenVINO 2026.4.1 there.
ARMS_NAMES = {
    "CPU implementer\t: 0x41|CPU part\t: 0xd08": "ARM (0xd08)",
    "CPU implementer\t: 0x61|CPU part\t: 0x022": "Apple (0x022)",
    "CPU implementer\t: 0xc0|CPU part\t: 0xac3": "Ampere (0xac3)",
    "CPU implementer\t: 0x41": "ARM",
    "CPU implementer\t: 0x99|CPU part\t: 0x123": "ARM CPU",
    "CPU implementer\t: 0x|CPU part\t: 0x123": "ARM CPU",
    "CPU implementer\t: 0xunknown": "ARM CPU",
    "CPU implementer\t: 0x51|CPU part\t: 0x804||CPU implementer\t: 0x41|CPU part\t: 0xd05": "ARM (0xd05)",
    "CPU implementer\t: 0x51|CPU part\t: 0x804||Hardware\t: Qualcomm X|Model\t\t: Some Board": "Qualcomm X",
    "CPU implementer\t: 0x41|CPU part\t: 0xd08||Model\t\t: Some Board": "Some Board",
}


@pytest.mark.parametrize("lines", ARMS_NAMES)
def test_names_of_arms_cpus(lines, monkeypatch):
    from ovjit.api.run import properties_table as table

    listed = {"/proc/cpuinfo": "processor\t: 0\nFeatures\t: fp\n" + lines.replace("|", "\n") + "\n"}
    monkeypatch.setattr(table, "_text_of", lambda path: listed.get(path, ""))
    monkeypatch.setattr(table.machine, "name", lambda: "aarch64")
    assert ovjit.Core().get_property("CPU", "FULL_DEVICE_NAME") == ARMS_NAMES[lines]
    assert ovjit.Core().get_property("CPU", "DEVICE_ARCHITECTURE") == "arm64"
    listed["/proc/device-tree/model"] = "Board of the tree\0"
    assert ovjit.Core().get_property("CPU", "FULL_DEVICE_NAME") == "Board of the tree"


def test_the_environment_asks_for_a_precision_that_there_is(monkeypatch):
    monkeypatch.setenv("OVJIT_PRECISION", "f64")
    with pytest.raises(RuntimeError, match="Wrong value f64 of OVJIT_PRECISION. Supported values: bf16, f16"):
        ovjit.Core().compile_model(model(ovjit), "CPU")


OVER_THE_CPU = ["AUTO", "MULTI", "HETERO", "BATCH"]


@pytest.mark.parametrize("device", OVER_THE_CPU)
def test_devices_that_a_property_names(device):
    """What a device stands over may be said by a property, which goes before its name."""

    def compiled(ov, name, config):
        return bool(ov.Core().compile_model(model(ov), name, config))

    for name in (device, f"{device}:CPU"):
        for given in (None, "CPU", "GPU", "CPU,-GPU"):
            config = {} if given is None else {"MULTI_DEVICE_PRIORITIES": given}
            if device in ("HETERO", "BATCH") and given == "CPU,-GPU":
                continue  # a list to choose from is AUTO's
            cases.check_alike(lambda ov, n=name, c=config: compiled(ov, n, c), (name, config))


@pytest.mark.parametrize("device", OVER_THE_CPU)
def test_what_a_device_over_the_cpu_is_told_itself(device):
    """It is not what a compilation hands on to the CPU."""
    for name, value in (
        ("NOPE", 1), ("NUM_STREAMS", 2), ("INFERENCE_NUM_THREADS", 1), ("PERFORMANCE_HINT", "LATENCY"),
        ("CACHE_DIR", ""), ("MULTI_DEVICE_PRIORITIES", "CPU"), ("ENABLE_CPU_PINNING", True),
    ):  # fmt: skip

        def told(ov, name=name, value=value):
            core = ov.Core()
            core.get_property(device, "SUPPORTED_PROPERTIES")  # from then on names are read
            core.set_property(device, {name: value})

        cases.check_alike(told, (device, name))
    cases.check_alike(lambda ov: ov.Core().get_property(f"{device}:CPU", "FULL_DEVICE_NAME"), device)
    mine, theirs = (
        set(ov.Core().compile_model(model(ov), f"{device}:CPU").get_property("SUPPORTED_PROPERTIES"))
        for ov in (ovjit, openvino)
    )
    assert mine | {"AUTO_BATCH_TIMEOUT"} == theirs | {"AUTO_BATCH_TIMEOUT"}


def test_whether_what_a_model_requires_is_there():
    check = ovjit.properties.CompatibilityCheck
    core, name = ovjit.Core(), "COMPATIBILITY_CHECK"
    needed = core.compile_model(model(ovjit), "CPU").get_property("RUNTIME_REQUIREMENTS")
    asked = [core.get_property("CPU", name, {"RUNTIME_REQUIREMENTS": text}) for text in (needed, "meta=1.0")]
    assert asked == [check.SUPPORTED, check.UNSUPPORTED]
    assert core.get_property("CPU", "SUPPORTED_PROPERTIES")[name] == "RO"
    with pytest.raises(RuntimeError, match="RUNTIME_REQUIREMENTS"):
        core.get_property("CPU", name)


@pytest.mark.parametrize("name", ["CACHE_DIR", "DEVICE_ID", "WEIGHTS_PATH"])
def test_none_is_the_empty_text(name: str) -> None:
    for ov in (openvino, ovjit):
        core = ov.Core()
        core.set_property("CPU", {name: None})
        assert core.get_property("CPU", name) == ""
