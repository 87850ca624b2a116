"""What test suites written for OpenVINO rely on besides results: kinds of errors and their words, what may be
copied, what a device that is not there does."""

from __future__ import annotations

import base64
import copy
import pickle
import warnings
from typing import Any

import numpy as np
import openvino
import pytest

import ovjit
from tests.support import api_cases as cases

BOTH = [openvino, ovjit]
both = pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])


def relu(ov: Any, shape: Any = (2, 2)) -> Any:
    p = ov.opset13.parameter(list(shape), dtype=np.float32, name="data")
    return ov.Model([ov.opset13.relu(p)], [p], "m")


class Named:
    def __str__(self) -> str:
        return "no such path"


def closed(ov):
    with relu(ov) as model:
        return model


def written(path):
    path.write_text("nonsense")
    return path


@both
def test_words_of_errors(ov, tmp_path):
    core = ov.Core()
    compiled = core.compile_model(relu(ov), "CPU")
    request = compiled.create_infer_request()
    tensor = ov.Tensor(np.ones((2, 2), np.float32))
    for words, kind, call in (
        ("Path: 'no such path' does not exist", RuntimeError, lambda: core.compile_model(Named())),
        ("Path: '3' does not exist", RuntimeError, lambda: ov.compile_model(3)),
        ("isn't supported as 'model' argument", TypeError, lambda: core.read_model(3)),
        ("is not registered in the OpenVINO Runtime", RuntimeError, lambda: core.query_model(relu(ov), "X")),
        ("is not supported by CPU plugin!", RuntimeError, lambda: core.get_default_context("CPU")),
        ("Check", RuntimeError, lambda: compiled.infer_new_request({"other": tensor})),
        ("Port for tensor name other was not found", RuntimeError, lambda: request.get_tensor("other")),
        ("Incompatible key type for input: 0.0", TypeError, lambda: request.infer({0.0: tensor})),
        ("incompatible function arguments", TypeError, lambda: ov.properties.cache_dir(6)),
        ("incompatible function arguments", TypeError, lambda: ov.properties.supported_properties("x")),
        ("Incorrect passed value: 6 , expected string values.", TypeError,
         lambda: ov.properties.device.priorities("CPU", 6)),
        ("Sink node is expected as argument", TypeError, lambda: relu(ov).get_sink_index(0)),
        ("Cannot evaluate model!", RuntimeError,
         lambda: relu(ov).evaluate([tensor], [ov.Tensor(np.ones((3, 1), np.float32))])),
        ("expected values as str.", TypeError, lambda: relu(ov).reshape({0: [1, 1]}, {0: [1, 1]})),
        ("SHARED MEMORY MODE FOR THIS CONSTANT IS NOT APPLICABLE!", RuntimeError,
         lambda: ov.op.Constant(array=np.asfortranarray(np.ones((2, 3))), shared_memory=True)),
        ("NOT APPLICABLE! Passed numpy array must be C contiguous.", RuntimeError,
         lambda: ov.opset13.constant(np.ones((4, 4))[::2], shared_memory=True)),
        ("'Model' object has no attribute 'inputs' or attribute is no longer accessible.", AttributeError,
         lambda: closed(ov).inputs),
        ("'int' object has no attribute '__getitem__'", AttributeError, lambda: ov.OVAny(1)[0]),
        ("'int' object has no attribute '__len__'", AttributeError, lambda: len(ov.OVAny(1))),
        ("incompatible constructor arguments", TypeError, lambda: ov.Dimension(0.5)),
        ("incompatible constructor arguments", TypeError, lambda: ov.Shape([1.5])),
        ("Please check that model format: \".xml\" is supported and the model is correct.", RuntimeError,
         lambda: core.read_model(written(tmp_path / "bad.xml"))),
        ("Please check that model format: \".onnx\" is supported and the model is correct.", RuntimeError,
         lambda: core.read_model(written(tmp_path / "bad.onnx"))),
        ("Please check if the model format is supported and model is correct.", RuntimeError,
         lambda: core.read_model(b"nonsense")),
        ("missing 2 required positional arguments: 'nodes' and 'axis'", TypeError,
         lambda: ov.opset13.concat()),
        ("NotFound: Unsupported property NOTHING by CPU plugin.", RuntimeError,
         lambda: core.compile_model(relu(ov), "CPU", {"NOTHING": 1})),
        ("Unsupported property: NOTHING", RuntimeError, lambda: compiled.get_property("NOTHING")),
        ("call get_property with unsupported property: 'NOTHING'", RuntimeError,
         lambda: core.get_property("NOTHING")),
        ("relu() missing 1 required positional argument", TypeError, lambda: ov.opset13.relu()),
        ("clamp() takes from 3 to 4 positional arguments but 5 were given", TypeError,
         lambda: ov.opset13.clamp(1.0, 0, 1, None, 3)),
        ("cannot pickle 'Core' object", TypeError, lambda: copy.deepcopy(core)),
    ):  # fmt: skip
        with pytest.raises(kind) as error:
            call()
        assert words in str(error.value), words


@both
def test_a_device_of_another_library_is_only_noted(ov, tmp_path):
    core = ov.Core()
    core.register_plugin("some_plugin", "SOME")
    assert core.available_devices == ["CPU"]
    for call in (lambda: core.get_versions("SOME"), lambda: core.compile_model(relu(ov), "SOME")):
        with pytest.raises(RuntimeError, match='Cannot load library "libsome_plugin.so"'):
            call()
    with pytest.raises(RuntimeError):
        core.register_plugin("some_plugin", "SOME")
    page = tmp_path / "plugins.xml"
    page.write_text('<ie><plugins><plugin location="libx.so" name="X"></plugin></plugins></ie>')
    for other in (ov.Core(), ov.Core(page)):
        if other.available_devices and "X" not in str(other):
            try:
                other.register_plugins(page)
            except RuntimeError:
                pass  # the second has read it already
        with pytest.raises(RuntimeError, match='Cannot load library "libx.so"'):
            other.get_versions("X")
    with pytest.raises(RuntimeError):
        core.register_plugins(tmp_path / "none.xml")
    page.write_text('<!DOCTYPE ie [<!ENTITY a "b">]><ie><plugins>&a;</plugins></ie>')
    if ov is ovjit:
        with pytest.raises(RuntimeError, match="Error loading XML file"):
            core.register_plugins(page)
    core.set_property("GPU", {"PERF_COUNT": True})  # without effect, and no error


@both
def test_unload_plugin(ov):
    core = ov.Core()
    with pytest.raises(RuntimeError):
        core.unload_plugin("CPU")  # it has not been asked for anything
    core.get_versions("CPU")
    core.unload_plugin("CPU")
    assert core.compile_model(relu(ov), "CPU")(np.ones((2, 2), np.float32))[0].sum() == 4


@both
def test_reading_takes_properties_of_others(ov, tmp_path):
    core, path, cache = ov.Core(), tmp_path / "m.xml", tmp_path / "cache"
    ov.serialize(relu(ov), path)
    assert len(core.read_model(path, config={"NO_SUCH_PROPERTY": 1}).inputs) == 1
    core.read_model(path, config={"CACHE_DIR": str(cache)})
    assert cache.is_dir()
    assert core.get_property("CACHE_DIR") == ""


@both
def test_encrypted_blobs(ov):
    calls = []

    def encrypt(content: bytes) -> bytes:
        calls.append("encrypt")
        return base64.b64encode(content)

    def decrypt(content: bytes) -> bytes:
        calls.append("decrypt")
        return base64.b64decode(content)

    config = {"CACHE_ENCRYPTION_CALLBACKS": [encrypt, decrypt]}
    core = ov.Core()
    blob = core.compile_model(relu(ov), "CPU", config).export_model()
    again = core.import_model(blob, "CPU", config)
    assert again(np.full((2, 2), -1, np.float32))[0].sum() == 0
    assert "encrypt" in calls and "decrypt" in calls


def test_encrypted_blobs_need_the_functions(tmp_path):
    core = ovjit.Core()
    config = {"CACHE_ENCRYPTION_CALLBACKS": [lambda b: b[::-1], lambda b: b[::-1]]}
    blob = core.compile_model(relu(ovjit), "CPU", config).export_model()
    assert b"data" not in blob.getvalue()
    with pytest.raises(RuntimeError, match="CACHE_ENCRYPTION_CALLBACKS"):
        core.import_model(blob, "CPU")
    with pytest.raises(RuntimeError, match="must return bytes"):
        core.import_model(blob, "CPU", {"CACHE_ENCRYPTION_CALLBACKS": [len, len]})
    for wrong in (5, [len], [1, 2]):
        with pytest.raises(RuntimeError, match="two functions"):
            core.compile_model(relu(ovjit), "CPU", {"CACHE_ENCRYPTION_CALLBACKS": wrong})
    plain = core.compile_model(relu(ovjit), "CPU").export_model()
    assert core.import_model(plain, "CPU", config)(np.ones((2, 2), np.float32))[0].sum() == 4


def test_cached_models_are_encrypted(tmp_path):
    model, cache = relu(ovjit, (3, 5)), str(tmp_path)
    config = {
        "CACHE_DIR": cache, "CACHE_ENCRYPTION_CALLBACKS": [lambda b: b[::-1], lambda b: b[::-1]],
    }  # fmt: skip
    core = ovjit.Core()
    assert not core.compile_model(model, "CPU", config).get_property("LOADED_FROM_CACHE")
    (blob,) = tmp_path.glob("*.blob")
    assert not blob.read_bytes().startswith(b"OVJITBLB")
    assert core.compile_model(model, "CPU", config).get_property("LOADED_FROM_CACHE")
    # without the functions it is another entry, and neither is in the other's way
    for loaded in (False, True):
        found = core.compile_model(model, "CPU", {"CACHE_DIR": cache})
        assert found.get_property("LOADED_FROM_CACHE") is loaded


@both
def test_a_batch_of_tensors_is_read_at_every_inference(ov):
    p = ov.opset13.parameter([3, 2], dtype=np.float32, name="data")
    p.set_layout(ov.Layout("NC"))
    compiled = ov.Core().compile_model(ov.Model([ov.opset13.add(p, np.float32(1))], [p]), "CPU", cases.EXACT)
    request = compiled.create_infer_request()
    buffer = np.zeros((6, 2), np.float32)
    parts = [ov.Tensor(buffer[2 * i : 2 * i + 1], shared_memory=True) for i in range(3)]
    request.set_input_tensors(parts)
    with pytest.raises(RuntimeError, match="get_tensor shall not be used together with batched"):
        request.get_tensor("data")
    for value in (4, 7):
        for i in range(3):
            parts[i].data[:] = value + i
        assert request.infer()[0].tolist() == [[value + i + 1] * 2 for i in range(3)]
        request.start_async()
        request.wait()
        assert request.get_output_tensor().data[2, 1] == value + 3
    request.set_input_tensor(ov.Tensor(np.zeros((3, 2), np.float32)))  # takes the batch's place
    assert request.infer()[0].tolist() == [[1, 1]] * 3
    assert request.get_tensor("data").data.sum() == 0


def test_a_batch_whose_tensor_changes_its_shape():
    p = ovjit.opset13.parameter([2, 2], dtype=np.float32, name="data")
    p.set_layout(ovjit.Layout("NC"))
    request = ovjit.compile_model(ovjit.Model([ovjit.opset13.relu(p)], [p]), "CPU").create_infer_request()
    parts = [ovjit.Tensor(np.ones((1, 2), np.float32)) for _ in range(2)]
    request.set_input_tensors(parts)
    parts[1].shape = [1, 1]
    with pytest.raises(RuntimeError, match="has changed since it was set"):
        request.infer()


@both
def test_a_copied_tensor_is_another_handle(ov):
    tensor = ov.Tensor(np.full((3, 4), 7))
    handle = copy.copy(tensor)
    assert handle is not tensor and isinstance(handle, ov.Tensor)
    tensor.data[0, 0] = 100
    tensor.shape = [2, 6]
    assert handle.data[0, 0] == 100 and list(handle.shape) == [2, 6]
    handle.shape = [1]
    assert list(tensor.shape) == [1]
    x = ov.Tensor(np.full((2, 2), -3, np.float32))
    assert ov.compile_model(relu(ov), "CPU")(copy.copy(x))[0].sum() == 0


@both
def test_enumerations_of_properties(ov):
    hint = ov.properties.hint
    for kind in (hint.Priority, hint.PerformanceMode, ov.properties.CacheMode, ov.properties.device.Type):
        entries = getattr(kind, "__entries")
        assert list(entries) == list(kind.__members__)
        for name, (member, _) in entries.items():
            assert member == getattr(kind, name)
            assert pickle.loads(pickle.dumps(member)) == member
            assert hash(member) == int(member) and member != int(member)
            with pytest.raises(TypeError):
                kind(name)
        first, last = list(kind.__members__.values())[0], list(kind.__members__.values())[-1]
        assert first < last and last >= first and max(first, last) is not first
    with pytest.raises(TypeError):
        assert hint.Priority.LOW < hint.PerformanceMode.LATENCY
    status = ov.ProfilingInfo.Status
    assert [int(s) for s in status.__members__.values()] == [0, 1, 2]
    assert status(2) == status.EXECUTED == ov.ProfilingInfo.EXECUTED


VALUES = [True, 1, 0, -5, 2.5, "a", None, np.uint32(37), np.float32(0.1), {}, [1], (1, 2)]


@pytest.mark.parametrize(
    "name",
    ["enable_profiling", "enable_mmap", "inference_num_threads", "auto_batch_timeout", "cache_dir",
     "hint.num_requests", "hint.allow_auto_batching", "streams.num", "hint.activations_scale_factor"],
)  # fmt: skip
def test_values_that_properties_take(name):
    def pair(ov: Any, value: Any) -> Any:
        place = ov.properties
        for part in name.split("."):
            place = getattr(place, part)
        made = place(value)
        return made[0], made[1].value

    for value in VALUES:
        cases.check_alike(lambda ov, value=value: pair(ov, value), (name, value))


@both
def test_constants_made_late(ov, tmp_path):
    made = []

    def maker() -> Any:
        made.append(1)
        return ov.Tensor(np.full((1, 1, 2, 2), 2, np.float32))  # another shape than was said

    shape = ov.Shape([1, 2, 1, 2])
    p = ov.opset13.parameter(shape, ov.Type.f32, name="data")
    late = ov.utils.make_postponed_constant(ov.Type.f32, shape, maker)
    model = ov.Model([ov.opset13.add(p, late)], [p])
    assert not made
    ov.serialize(model, tmp_path / "m.xml")
    assert len(made) == 1
    compiled = ov.compile_model(model, "CPU")
    assert len(made) == 2
    x = np.arange(4, dtype=np.float32).reshape(1, 2, 1, 2)
    for run in (compiled, ov.Core().compile_model(tmp_path / "m.xml", "CPU")):
        assert run(x)[0].tolist() == (x + 2 + np.zeros((1, 1, 2, 2))).tolist()
    assert len(made) == 2


@both
def test_sinks_without_inputs(ov):
    p = ov.opset13.parameter([2], dtype=np.float32)
    model = ov.Model([ov.opset13.relu(p)], [p])
    sinks = [ov.opset13.assign() for _ in range(2)]
    model.add_sinks(sinks)
    assert [sink.get_type_name() for sink in model.sinks] == ["Assign", "Assign"]
    assert model.get_sink_index(model.sinks[1]) == 1
    model.remove_sink(sinks[0])
    assert len(model.sinks) == 1
    assert len(model.variables) == len(model.get_variables())


@both
def test_words_of_deprecations(ov):
    @ov.utils.deprecated(version="2030.1", message="Use another")
    def old() -> None:
        pass

    @ov.utils.deprecated()
    def older() -> None:
        pass

    with pytest.warns(DeprecationWarning) as caught:
        old()
        older()
    assert [str(w.message) for w in caught] == [
        "old is deprecated and will be removed in version 2030.1. Use another", "older is deprecated",
    ]  # fmt: skip


@both
def test_notes_of_a_compiled_port(ov):
    port = ov.compile_model(relu(ov), "CPU").output(0)
    with pytest.warns(DeprecationWarning, match="Setting rt_info via ConstOutput"):
        port.get_rt_info()["key"] = "value"
    assert port.rt_info["key"] == "value"
    with pytest.raises(KeyError):
        port.rt_info["other"]
    assert list(port.rt_info) == ["key"] and isinstance(port.rt_info, ov.RTMap)
    with pytest.warns(DeprecationWarning, match="Setting rt_info via ConstOutput"):
        del port.rt_info["key"]
    assert len(port.rt_info) == 0


@both
def test_the_node_before_an_output(ov):
    p = ov.opset13.parameter([2], name="data")
    compiled = ov.compile_model(ov.Model([ov.opset13.abs(p, name="made")], [p]), "CPU")
    blob = ov.Core().import_model(compiled.export_model(), "CPU")
    for port in (compiled.output(0), blob.output(0)):
        assert port.get_node().inputs()[0].get_source_output().get_node().get_friendly_name() == "made"
        assert port.__doc__ == "openvino.ConstOutput represents port/node output."
        assert port.get_node().input(0).__doc__ == "openvino.Input wraps ov::Input<Node>"


@both
def test_a_shape_from_bounds(ov):
    from importlib import import_module

    experimental = import_module(f"{ov.__name__}.experimental")
    p = ov.opset13.parameter(ov.PartialShape([(2, 5), 3, -1]))
    shifted = ov.opset13.add(ov.opset13.shape_of(p), np.array([-9, 1, 0]))
    lower, upper = experimental.evaluate_both_bounds(shifted.output(0))
    assert lower.data.tolist() == [-7, 4, 0] and upper.data.tolist()[:2] == [-4, 4]
    shape = ov.PartialShape([])
    assert experimental.evaluate_as_partial_shape(ov.opset13.abs(shifted).output(0), shape)
    assert str(shape) == "[4..7,4,?]"


def test_files_of_version_10(tmp_path):
    for split in (False, True):
        p = openvino.opset13.parameter([1, 2], name="A")
        r = openvino.opset13.relu(p, name="r")
        outs = openvino.opset13.split(r, 1, 2).outputs() if split else [r.output(0)]
        path = tmp_path / f"{split}.xml"
        openvino.serialize(openvino.Model(outs, [p], "m"), path, "", "IR_V10")
        read = [
            [(n.friendly_name, [o.names for o in n.outputs()]) for n in ov.Core().read_model(path).get_ops()]
            for ov in BOTH
        ]
        assert sorted(read[0], key=str) == sorted(read[1], key=str)


@pytest.mark.parametrize("seed", range(6))
def test_which_constants_become_f16(seed, tmp_path):
    rng = np.random.default_rng(seed)
    pool = np.array(
        [1e6, 1e-10, 1e-39, 6e-8, 65504, 65505, 10005, 10001, 0.1, 1.0, 1 / 3, np.inf, 2e-6, 0, 1.00005],
        np.float32,
    )
    constants = [rng.choice(rng.choice(pool, 2), size=rng.choice([1, 2, 3, 8, 100])) for _ in range(12)]
    constants += [np.array([v], np.float32) for v in pool] if seed == 0 else []
    told = []
    for ov in BOTH:
        p = ov.opset13.parameter([-1], name="p")
        sums = [ov.opset13.add(p, ov.opset13.constant(c, name=f"c{i}")) for i, c in enumerate(constants)]
        model = ov.Model(sums, [p])
        path = tmp_path / f"{ov.__name__}.xml"
        ov.save_model(model, path)
        found = {}
        for node in ov.Core().read_model(path).get_ops():
            if node.get_type_name() == "Constant":
                name = node.friendly_name.removesuffix("_compressed")
                found[name] = str(node.get_element_type()), node.data.tobytes()
        told.append(found)
    for i, constant in enumerate(constants):
        assert told[1][f"c{i}"][0] == told[0][f"c{i}"][0], (seed, constant)
        dtype = np.float16 if "16" in told[0][f"c{i}"][0] else np.float32
        kept = [np.frombuffer(t[f"c{i}"][1], dtype) for t in told]
        np.testing.assert_array_equal(kept[1], kept[0], err_msg=str((seed, constant)))


@both
def test_subnormal_weights_become_zero(ov):
    from importlib import import_module

    offline = import_module(f"{ov.__name__}._offline_transformations")
    p = ov.opset13.parameter([1, 3])
    node = ov.opset13.add(p, np.array([[1, -2e-45, 1e-30]], np.float32))
    model = ov.Model([node], [p])
    offline.apply_moc_transformations(model, cf=False)
    assert node.input_value(1).get_node().data.tolist() == [[1, 0, np.float32(1e-30)]]


@both
def test_a_layer_is_found_by_its_name_in_the_profile(ov):
    data = ov.opset13.parameter([1, 3, 32, 32], np.float32, name="data")
    model = ov.Model([ov.opset13.softmax(data, 1, name="fc_out")], [data], "m")
    request = ov.Core().compile_model(model, "CPU", {"PERF_COUNT": "YES"}).create_infer_request()
    request.infer({0: np.ones((1, 3, 32, 32), np.float32)})
    row = next(row for row in request.get_profiling_info() if row.node_name == "fc_out")
    assert (row.node_type, row.status) == ("Softmax", ov.ProfilingInfo.Status.EXECUTED)
    assert len([row for row in request.profiling_info if row.node_name == "fc_out"]) == 1


@both
def test_ways_to_say_that_nothing_is_given(ov, tmp_path):
    ov.save_model(relu(ov), tmp_path / "m.xml")
    assert len(ov.Core().read_model(str(tmp_path / "m.xml"), "").inputs) == 1
    with pytest.raises(RuntimeError, match="Could not open the file: [\"']{2}"):
        ov.Core().read_model("")
    with pytest.raises(RuntimeError, match="Path: '5' does not exist. Please provide valid"):
        ov.Core(5)


@pytest.mark.parametrize("how", ["compiled", "imported", "with state"])
def test_runtime_models_of_every_program(how: str) -> None:
    op = ovjit.opset13
    x = op.parameter([1, 3, 8, 8], np.float32, name="x")
    y = op.convolution(x, op.constant(np.ones((16, 3, 3, 3), np.float32)), [1, 1], [1, 1], [1, 1], [1, 1])
    sinks = []
    if how == "with state":
        y = op.add(y, op.read_value(op.constant(np.zeros((1, 16, 8, 8), np.float32)), "v"))
        sinks = [op.assign(y, "v")]
    compiled = ovjit.compile_model(ovjit.Model([op.result(op.relu(y))], sinks, [x], "m"), "CPU")
    if how == "imported":
        compiled = ovjit.Core().import_model(compiled.export_model().getvalue(), "CPU")
    model = compiled.get_runtime_model()
    info = [node.get_rt_info() for node in model.get_ordered_ops()]
    assert all("outputLayouts" in one and "execOrder" in one for one in info)
    assert model.get_results()[0].get_output_partial_shape(0) == ovjit.PartialShape([1, 16, 8, 8])


@both
def test_axes_that_do_not_fit_are_taken_as_openvino_takes_them(ov):
    """Squeeze keeps what is known not to be 1; an axis that Unsqueeze is given twice is one dimension."""
    o, p = ov.opset13, lambda *shape: ov.opset13.parameter(ov.PartialShape(list(shape)), dtype=np.float32)
    for made, shape in (
        (lambda: o.squeeze(p(1, 3, 1), np.array([0, 1])), "[3,1]"),
        (lambda: o.squeeze(p(1, ov.Dimension(2, 5), 1), np.array([0, 1])), "[2..5,1]"),
        (lambda: o.squeeze(p(1, -1, 1), np.array([0, 1])), "[1]"),
        (lambda: ov.opset15.squeeze(p(1, 3, 1), np.array([1]), False), "[1,3,1]"),
        (lambda: o.unsqueeze(p(3, 4), np.array([0, 0])), "[1,3,4]"),
        (lambda: o.unsqueeze(p(3, 4), np.array([0, -4])), "[1,3,4]"),
        (lambda: o.unsqueeze(p(3, 4), np.array([1, 1, 0])), "[1,1,3,4]"),
    ):
        assert str(made().get_output_partial_shape(0)) == shape
    data = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    x = p(1, 3, 4)
    y = o.unsqueeze(o.squeeze(x, np.array([0, 1])), np.array([0, 0]))
    np.testing.assert_array_equal(ov.compile_model(ov.Model([y], [x]), "CPU")(data)[0], data)
    x = p(1, -1, 1)  # one dimension is what the model was told; three is an error when it runs
    compiled = ov.compile_model(ov.Model([o.relu(o.squeeze(x, np.array([0, 1])))], [x]), "CPU")
    assert compiled(np.ones((1, 1, 1), np.float32))[0].shape == (1,)
    with pytest.raises(RuntimeError):
        compiled(np.ones((1, 3, 1), np.float32))


@both
def test_what_is_said_of_copies_and_types(ov):
    model = relu(ov)
    node, port = model.get_parameters()[0], model.outputs[0]
    compiled = ov.compile_model(model, "CPU")
    parameter = "openvino._pyopenvino.op.Parameter"
    for words, call in (
        ("Cannot copy 'openvino.Model'. Please, use deepcopy instead.", lambda: copy.copy(model)),
        ("Cannot deepcopy 'openvino.Output' object.", lambda: copy.deepcopy(port)),
        ("Cannot deepcopy 'openvino.ConstOutput' object.", lambda: copy.deepcopy(compiled.output())),
        ("Cannot deepcopy 'openvino.ConstOutput' object.",
         lambda: copy.deepcopy(compiled(np.ones((2, 2), np.float32)))),
        (f"cannot pickle '{parameter}' object", lambda: copy.copy(node)),
        (f"cannot pickle '{parameter}' object", lambda: copy.deepcopy(node)),
        ("cannot pickle 'openvino._pyopenvino.Node' object", lambda: copy.deepcopy(ov.opset13.relu(node))),
        ("cannot pickle 'openvino._pyopenvino.Input' object", lambda: copy.copy(port.get_node().input(0))),
        ("cannot pickle 'AsyncInferQueue' object", lambda: copy.deepcopy(ov.AsyncInferQueue(compiled, 1))),
        (f"Incorrect key type <class '{parameter}'>", lambda: model.reshape({node: [1, 2]})),
        ("Incorrect key type <class 'int'>", lambda: model.reshape({0: [1, 2]}, {0: [1]})),
        ("Incorrect value type <class 'range'>", lambda: model.reshape({0: range(2)})),
    ):  # fmt: skip
        with pytest.raises(TypeError) as caught:
            call()
        assert words in str(caught.value), words


@both
def test_a_port_may_be_copied_and_given_attributes(ov):
    port = relu(ov).outputs[0]
    port.mine = 1
    again = copy.copy(port)
    again.mine = 2
    assert again is not port and again == port and (port.mine, again.mine) == (1, 2)
    assert again.get_node() is port.get_node()


@both
def test_a_device_says_how_many_requests_suit_it(ov):
    core = ov.Core()
    assert core.get_property("CPU", "OPTIMAL_NUMBER_OF_INFER_REQUESTS") == 1
    core.set_property("CPU", {"NUM_STREAMS": 3})
    assert core.get_property("CPU", "OPTIMAL_NUMBER_OF_INFER_REQUESTS") == 3
    assert "OPTIMAL_NUMBER_OF_INFER_REQUESTS" not in core.get_property("CPU", "SUPPORTED_PROPERTIES")
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert {"FP32", "INT8", "BIN", "EXPORT_IMPORT"} <= set(able)


@both
def test_kinds_of_strings_are_looked_at_before_their_number(ov):
    tensor = ov.Tensor(ov.Type.string, ov.Shape([1]))
    for values in ([1, 2], np.ones(3)):
        with pytest.raises(RuntimeError, match="Unknown string kind passed to fill the Tensor's data!"):
            tensor.str_data = values


@both
@pytest.mark.parametrize(("argument", "warned"), [("output_size", True), ("output_roi", False)])
def test_the_older_name_of_a_size_is_told(ov, argument, warned):
    o = ov.opset13
    maps, rois = o.parameter([1, 3, 6, 6]), o.parameter([2, 5])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        node = ov.opset2.roi_pooling(maps, rois, spatial_scale=0.5, **{argument: [2, 2]})
    assert node.output(0).shape == [2, 3, 2, 2]
    assert [w.category for w in seen] == [DeprecationWarning] * warned
    assert node.get_output_roi() == [2, 2]
    if warned:
        assert "`output_size` is deprecated and will be removed in future" in str(seen[0].message)
        assert node.get_output_size() == [2, 2]
        node.set_output_size([3, 1])
        assert node.get_output_roi() == node.get_output_size() == [3, 1]


@both
def test_a_size_or_scale_that_is_left_out_is_named(ov):
    maps, rois = ov.opset13.parameter([1, 3, 6, 6]), ov.opset13.parameter([2, 5])
    with pytest.raises(AttributeError, match="must be defined: `output_roi`, `output_size`!"):
        ov.opset2.roi_pooling(maps, rois, spatial_scale=0.5)
    with pytest.raises(AttributeError, match="must be defined: `spatial_scale`!"):
        ov.opset2.roi_pooling(maps, rois, [2, 2])
    with pytest.raises(TypeError):
        ov.opset2.roi_pooling(maps, rois, [2, 2], 0.5, "max", None, [2, 2])
