"""Passes over models: the ready ones and patterns of one's own, beside the real OpenVINO."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import openvino
import openvino._offline_transformations
import openvino.passes
import pytest

import ovjit

BOTH = [openvino, ovjit]
WEIGHTS = np.random.default_rng(0).standard_normal((4, 3))
LOW = -np.abs(WEIGHTS).max(axis=1, keepdims=True)


def described(model: Any) -> list[Any]:
    """Every node: type, name, ports, sources and the values of constants, running numbers left out."""
    rows = []
    for node in model.get_ordered_ops():
        values = node.get_data().tolist() if node.get_type_name() == "Constant" else None
        name = re.sub(r"_\d+$", "", node.get_friendly_name())
        ports = [(str(p.get_partial_shape()), str(p.get_element_type()), sorted(p.get_names()))
                 for p in node.outputs()]  # fmt: skip
        sources = [re.sub(r"_\d+$", "", v.get_node().get_friendly_name()) for v in node.input_values()]
        rows.append((node.get_type_name(), name, ports, sources, values))
    return rows


def quantised(ov: Any, low: Any, high: Any, levels: int, out: Any = None) -> Any:
    o = ov.opset13
    ends = (low, high, *(out or (low, high)))
    limits = [o.constant(np.array(v, np.float32), name=n) for v, n in zip(ends, "abcd", strict=True)]
    fake = o.fake_quantize(o.constant(WEIGHTS.astype(np.float32), name="w"), *limits, levels, name="fq")
    x = o.parameter([1, 3], name="x")
    return ov.Model([o.result(o.matmul(x, fake, False, True, name="mm"), name="r")], [x], "m")


@pytest.mark.parametrize(
    "low, high, levels, out",
    [
        (LOW, -LOW, 255, None), (LOW, -LOW * 127 / 128, 256, None), (-3.0, 3.0, 256, None),
        (0.0, 3.0, 256, None), (LOW, -LOW, 15, None), (LOW, -LOW, 16, None), (LOW * 0, LOW * 0, 255, None),
        (LOW, -LOW, 2, None), (LOW, -LOW * 0.5, 200, None), (LOW, -LOW, 255, (LOW * 2, -LOW * 2)),
        (1.0, 3.0, 256, None), (-1.0, 3.0, 256, (0.0, 4.0)), (0.0, 3.0, 256, (-1.0, 4.0)),
        (-3.0, -1.0, 256, None), (-3.0, 3.0, 257, None), (-3.0, 3.0, 17, None), (0.0, 3.0, 16, None),
        (-3.0, 3.0, 3, None),
    ],
)  # fmt: skip
def test_quantised_weights(low, high, levels, out):
    rows = []
    for ov in BOTH:
        model = quantised(ov, low, high, levels, out)
        ov._offline_transformations.compress_quantize_weights_transformation(model)
        rows.append(described(model))
    assert rows[1] == rows[0]


def test_compressed_to_f16():
    rows = []
    for ov in BOTH:
        model = quantised(ov, -1.0, 1.0, 256)
        ov._offline_transformations.compress_model_transformation(model)
        notes = [sorted(node.get_rt_info().keys()) for node in model.get_ordered_ops()]
        rows.append((described(model), notes))
    assert rows[1] == rows[0]


def after(ov: Any, model: Any, *passes: Any) -> Any:
    manager = ov.passes.Manager()
    for one in passes:
        assert manager.register_pass(one) is one
    manager.run_passes(model)
    return model


def test_f16():
    rows = [described(after(ov, quantised(ov, -1.0, 1.0, 256), ov.passes.ConvertFP32ToFP16())) for ov in BOTH]
    assert rows[1] == rows[0]


def foldable(ov: Any) -> Any:
    o = ov.opset13
    x = o.parameter([1, 3], name="x")
    ones = np.ones(3, np.float32)
    total = o.add(o.constant(ones, name="k1"), o.constant(ones, name="k2"), name="kk")
    halves = o.split(o.constant(np.arange(6, dtype=np.float32)), o.constant(np.int64(0)), 2, name="sp")
    length = o.gather(o.shape_of(x), o.constant(np.array([1])), o.constant(np.int64(0)))
    y = o.add(o.add(x, total, name="y1"), halves.output(1), name="y2")
    y = o.reshape(y, o.concat([o.constant(np.array([1])), length], 0, name="cc"), False, name="rs")
    y = o.add(y, o.convert(o.constant(np.ones(3, np.int8)), ov.Type.f32, name="cv"), name="y3")
    return ov.Model([o.result(y, name="r")], [x], "m")


def test_constant_folding():
    rows = [described(after(ov, foldable(ov), ov.passes.ConstantFolding())) for ov in BOTH]
    assert rows[1] == rows[0]


@pytest.mark.parametrize("folds", [True, False])
def test_moc_keeps_what_the_model_computes(folds):
    model = foldable(ovjit)
    before = ovjit.compile_model(model, "CPU")(np.ones((1, 3), np.float32))[0]
    ovjit._offline_transformations.apply_moc_transformations(model, folds)
    assert "Convert" in {node.get_type_name() for node in model.get_ops()}  # a weight stays as small as it is
    assert ovjit.compile_model(model, "CPU")(np.ones((1, 3), np.float32))[0].tolist() == before.tolist()


@pytest.mark.parametrize("folds", [True, False])
def test_moc_folds_constants_and_known_shapes_if_asked(folds):
    seen = []
    for ov in BOTH:
        o = ov.opset13
        x, one = o.parameter([2, 3], name="x"), o.constant(np.ones(3, np.float32))
        model = ov.Model(
            [o.reshape(o.add(x, o.exp(one)), o.shape_of(o.relu(x)), False), o.shape_of(x)], [x], "m"
        )
        ov._offline_transformations.apply_moc_transformations(model, folds)
        kinds = [node.get_type_name() for node in model.get_ops()]
        seen.append(("Exp" in kinds, "ShapeOf" in kinds))
    assert seen[0] == seen[1] == (False, not folds)


@pytest.mark.parametrize("step", ["ConstantFolding", True, False])
def test_rounding_of_weights_is_never_folded(step):
    """Rounded weights are stored as integers, which a folded constant is not."""
    for ov in BOTH:
        o = ov.opset13
        x, low, high = o.parameter([2, 3], name="x"), o.constant(np.float32(-1)), o.constant(np.float32(1))
        weights = o.fake_quantize(o.constant(np.eye(3, dtype=np.float32)), low, high, low, high, 255)
        model = ov.Model([o.matmul(x, weights, False, False)], [x], "m")
        if step == "ConstantFolding":
            after(ov, model, ov.passes.ConstantFolding())
        else:
            ov._offline_transformations.apply_moc_transformations(model, step)
        assert "FakeQuantize" in [node.get_type_name() for node in model.get_ops()], ov.__name__


#: What gives back `r` of shape [2, 3], or does not, as it is.
IDLE = ["o.multiply(r, k(1))", "o.multiply(k(1), r)", "o.add(r, k(0))", "o.subtract(r, k(0))",
        "o.divide(r, k(1))", "o.subtract(k(0), r)", "o.divide(k(1), r)", "o.multiply(r, k([1, 1, 1]))",
        "o.multiply(r, k([[[1]]]))", "o.add(r, k(1))", "o.convert(r, 'f32')", "o.transpose(r, n([0, 1]))",
        "o.concat([r], 0)", "o.transpose(o.transpose(r, n([1, 0])), n([1, 0]))",
        "o.transpose(o.transpose(r, n([1, 0])), n([0, 1]))", "o.pad(r, n([0, 0]), n([0, 0]), 'constant')",
        "o.pad(r, n([0, 0]), n([0, 1]), 'constant')", "o.split(r, n(0), 1).output(0)"]  # fmt: skip


@pytest.mark.parametrize("text", IDLE)
def test_moc_takes_out_what_does_nothing(text):
    seen = []
    for ov in BOTH:
        o = ov.opset13
        x = o.parameter([2, 3], name="x")
        names = {"o": o, "r": o.relu(x), "n": lambda v, o=o: o.constant(np.array(v, np.int64)),
                 "k": lambda v, o=o: o.constant(np.array(v, np.float32))}  # fmt: skip
        node = eval(text, names)
        port = node.output(0) if hasattr(node, "output") else node
        port.get_tensor().set_names({"y"})
        model = ov.Model([o.result(o.floor(port))], [x], "m")
        ov._offline_transformations.apply_moc_transformations(model, False)
        floor = model.get_results()[0].input_value(0).get_node()
        source = floor.input_value(0)
        seen.append((source.get_node().get_type_name(), "y" in source.get_names()))
    # 1 - x and its like are written otherwise in OpenVINO, but stay
    assert (seen[1][0] == "Relu") == (seen[0][0] == "Relu") and seen[1][1] == seen[0][1]


def stateful(ov: Any) -> Any:
    o = ov.opset13
    x, s = o.parameter([1, 3], name="x"), o.parameter([1, 3], name="s")
    total = o.add(x, s, name="a")
    results = [o.result(total, name="rs"), o.result(o.relu(total, name="rl"), name="ro")]
    return ov.Model(results, [x, s], "m")


@pytest.mark.parametrize("by_name", [True, False])
def test_make_stateful(by_name):
    seen = []
    for ov in BOTH:
        model = stateful(ov)
        pairs = {"s": "rs"} if by_name else [(model.get_parameters()[1], model.get_results()[0])]
        after(ov, model, ov.passes.MakeStateful(pairs))
        request = ov.compile_model(model, "CPU").create_infer_request()
        runs = [request.infer(np.ones((1, 3), np.float32))[0].tolist() for _ in range(3)]
        names = [v.info.variable_id for v in model.get_variables()]
        kinds = [node.get_type_name() for node in model.get_ordered_ops()]
        seen.append((runs, names, kinds, [str(p) for p in model.inputs + model.outputs]))
    assert seen[1] == seen[0]
    assert seen[1][0][2] == [[3.0, 3.0, 3.0]]


def test_make_stateful_of_names_that_are_not_there():
    with pytest.raises(RuntimeError, match="nope is not associated with any of Results"):
        ovjit._offline_transformations.apply_make_stateful_transformation(stateful(ovjit), {"s": "nope"})


def test_make_stateful_of_inputs_that_nothing_else_reads():
    """The variable is kept, and whatever the order of pairs of names, variables have that of the names."""
    seen = []
    for ov in BOTH:
        o, ones = ov.opset13, np.ones(2, np.float32)
        names = ["x", "c", "b"]
        inputs = [o.parameter([2], name=name) for name in names]
        sums = [o.add(inputs[0], o.constant(ones * k), name=f"s{k}") for k in range(3)]
        for node, name in zip([*inputs, *sums], [*names, "x0", "c0", "b0"], strict=True):
            node.output(0).set_names({name})
        model = ov.Model([o.result(node) for node in sums], inputs, "m")
        after(ov, model, ov.passes.MakeStateful({"c": "c0", "b": "b0"}))
        told = [v.info.variable_id for v in model.get_variables()]
        kinds = sorted(node.get_type_name() for node in model.get_ops())
        request = ov.compile_model(model, "CPU").create_infer_request()
        values = [request.infer(ones)[0].tolist(), *(s.state.data.tolist() for s in request.query_state())]
        model.remove_variable(model.get_variables()[0])
        seen.append((told, kinds, values, [v.info.variable_id for v in model.get_variables()]))
    assert seen[1] == seen[0]
    assert seen[1][0] == ["bb0", "cc0"] and seen[1][3] == ["cc0"]


def chain(ov: Any) -> Any:
    o = ov.opset13
    x = o.parameter([2, 4], name="x")
    y = o.relu(o.add(o.constant(np.ones(4, np.float32)), x, name="add"), name="relu1")
    y = o.relu(o.multiply(y, o.exp(y, name="exp"), name="mul"), name="relu2")
    return ov.Model([o.result(y, name="r")], [x], "m")


#: What a pattern is, by source: `P` is the package's `passes`, `o` its opset13, `t` its Type, `D` its
#: Dimension.
PATTERNS = [
    "P.WrapType('opset13.Relu')",
    "P.WrapType(['opset13.Relu', 'opset13.Exp'])",
    "P.WrapType('opset13.Relu', P.WrapType('opset13.Add').output(0))",
    "P.WrapType('opset13.Add', [P.AnyInput().output(0), P.WrapType('opset13.Constant').output(0)])",
    "P.WrapType('opset13.Relu', P.Or([P.WrapType('opset13.Exp'), P.WrapType('opset13.Multiply')]))",
    "P.WrapType('opset13.Multiply', [P.AnyInput(), P.Optional(['opset13.Exp'], P.WrapType('opset13.Relu'))])",
    "P.WrapType('opset13.Relu', lambda out: out.get_node().get_friendly_name() == 'relu2')",
    "P.WrapType('opset13.Relu', P.consumers_count(2))",
    "P.WrapType('opset13.Exp', P.rank_equals(D(2)))",
    "P.WrapType('opset13.Exp', P.has_static_shape())",
    "P.WrapType('opset13.Exp', P.has_static_dims([0, 1]))",
    "P.WrapType('opset13.Exp', P.type_matches(t.f16))",
    "P.WrapType('opset13.Exp', P.type_matches_any([t.f16, t.f32]))",
    "P.WrapType('opset13.Exp', P.shape_matches('[A, 4]'))",
    "P.WrapType('opset13.Exp', P.shape_matches('[A, A]'))",
    "P.WrapType('opset13.Exp', P.shape_matches('[B..., 4]'))",
    "P.WrapType('opset13.Add', P.attrs_match({'auto_broadcast': 'numpy'}))",
    "P.WrapType('opset13.Relu', P.AnyInput(lambda out: out.get_node().get_type_name() == 'Add'))",
    "o.relu(o.add(P.AnyInput(), P.AnyInput()))",
    "P.AnyInput()",
]  # fmt: skip


@pytest.mark.parametrize("source", PATTERNS)
def test_patterns_find_what_they_find_there(source):
    found = []
    for ov in BOTH:
        pattern = eval(source, {"P": ov.passes, "o": ov.opset13, "t": ov.Type, "D": ov.Dimension})
        matcher = ov.passes.Matcher(pattern, "m")
        nodes = [n for n in chain(ov).get_ordered_ops() if n.get_type_name() != "Result"]
        found.append([node.get_type_name() for node in nodes if matcher.match(node.output(0))])
    assert found[1] == found[0]


@pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
@pytest.mark.parametrize("how", ["manager", "rewrite", "backward"])
def test_a_rewriting_of_ones_own(ov, how):
    P = ov.passes

    class ReluToSquare(P.MatcherPass):
        def __init__(self) -> None:
            super().__init__()
            relu = P.WrapType("opset13.Relu", P.AnyInput().output(0))

            def callback(matcher: Any) -> bool:
                root = matcher.get_match_root()
                assert matcher.get_pattern_value_map()[relu].get_node().get_name() == root.get_name()
                assert matcher.get_match_value().get_node().get_name() == root.get_name()
                source = root.input_value(0)
                new = ov.opset13.multiply(source, source)
                ov.utils.replace_node(root, new)
                new.set_friendly_name("squared_" + root.get_friendly_name())
                self.register_new_node(new)
                return True

            self.register_matcher(P.Matcher(relu, "ReluToSquare"), callback)

    model = chain(ov)
    if how == "manager":
        after(ov, model, ReluToSquare())
    else:
        rewrite = (P.GraphRewrite if how == "rewrite" else P.BackwardGraphRewrite)()
        rewrite.add_matcher(ReluToSquare())
        after(ov, model, rewrite)
    names = [node.get_friendly_name() for node in model.get_ordered_ops()]
    assert "squared_relu1" in names and "squared_relu2" in names and "relu1" not in names
    x = np.arange(8, dtype=np.float32).reshape(2, 4) / 8
    square = (x + 1) ** 2
    want = (square * np.exp(square)) ** 2
    out = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    np.testing.assert_allclose(out, want, rtol=1e-4)


@pytest.mark.parametrize("ov", BOTH, ids=["openvino", "ovjit"])
def test_a_pass_over_the_model(ov):
    seen = []

    class Rename(ov.passes.ModelPass):
        def run_on_model(self, model: Any) -> bool:
            seen.append(model.get_friendly_name())
            model.set_friendly_name("renamed")
            return False

    assert after(ov, chain(ov), Rename()).get_friendly_name() == "renamed"
    assert seen == ["m"]


def test_what_a_pass_raises_comes_out():
    class Broken(ovjit.passes.ModelPass):
        def run_on_model(self, model: Any) -> bool:
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        after(ovjit, chain(ovjit), Broken())
    with pytest.raises(TypeError):
        ovjit.passes.Manager().register_pass(3)
    with pytest.raises(RuntimeError, match=r"opset13\.Relu"):
        ovjit.passes.WrapType("Relu")


def test_files(tmp_path):
    model = chain(ovjit)
    after(ovjit, model, ovjit.passes.Serialize(tmp_path / "m.xml", tmp_path / "m.bin"))
    assert len(ovjit.Core().read_model(tmp_path / "m.xml").get_ops()) == len(model.get_ops())
    draw = ovjit.passes.VisualizeTree(str(tmp_path / "m.svg"), lambda node, lines: lines.append("seen"))
    after(ovjit, model, draw)
    text = (tmp_path / "m.svg.dot").read_text()
    assert text.count("seen") == len(model.get_ops()) and "relu2" in text


@pytest.mark.parametrize("seed", range(40))
def test_the_order_of_nodes(seed):
    orders = []
    for ov in BOTH:
        rng, o = np.random.default_rng(seed), ov.opset13
        inputs = [o.parameter([2], name=f"p{i}") for i in range(rng.integers(1, 4))]
        nodes = list(inputs)
        for i in range(rng.integers(2, 12)):
            a, b = (nodes[j] for j in rng.integers(0, len(nodes), 2))
            kind = rng.integers(0, 3)
            nodes.append(o.relu(a, name=f"n{i}") if kind == 0 else o.add(a, b, name=f"n{i}") if kind == 1
                         else o.constant(np.ones(2, np.float32), name=f"n{i}"))  # fmt: skip
        ends = [o.result(nodes[j], name=f"r{k}") for k, j in enumerate(rng.integers(0, len(nodes), 3))]
        model = ov.Model(ends, inputs, "m")
        orders.append(
            [[n.get_friendly_name() for n in listed()] for listed in (model.get_ops, model.get_ordered_ops)]
        )
    assert orders[1] == orders[0], f"seed {seed}"


def looping(ov: Any, loop: bool, trips: int) -> Any:
    """h = h / 2 + x in each iteration; the last h, and all of them."""
    o = ov.opset13
    x, h = o.parameter([trips, 3], np.float32, name="x"), o.parameter([1, 3], np.float32, name="h")
    one, state = (o.parameter([1, 3], np.float32, name=name) for name in ("one", "state"))
    new = o.add(o.multiply(state, np.float32(0.5)), one)
    if loop:
        body = ov.Model([o.result(new), o.result(o.constant(True))], [one, state], "body")
        node = o.loop(o.constant(np.int64(trips)), o.constant(True))
        node.set_function(body)
        node.set_special_body_ports([-1, 1])
    else:
        body = ov.Model([o.result(new)], [one, state], "body")
        node = o.tensor_iterator()
        node.set_body(body)
    node.set_friendly_name("loop")
    node.set_sliced_input(one, x.output(0), 0, 1, 1, -1, 0)
    node.set_merged_input(state, h.output(0), new.output(0))
    last = node.get_iter_value(new.output(0), -1)
    every = node.get_concatenated_slices(new.output(0), 0, 1, 1, -1, 0)
    return ov.Model([o.result(last, name="last"), o.result(every, name="every")], [x, h], "m")


@pytest.mark.parametrize("constant", [True, False], ids=["zeros", "given"])
@pytest.mark.parametrize("trips", [1, 4])
@pytest.mark.parametrize("loop", [True, False], ids=["Loop", "TensorIterator"])
def test_what_loops_carry_becomes_variables(loop, trips, constant):
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((n, 3)).astype(np.float32) for n in (trips, 1)]
    found = []
    for ov in BOTH:
        model = looping(ov, loop, trips)
        for _ in range(2):  # the second time nothing is left to be done
            manager = ov.passes.Manager()
            manager.register_pass(ov.passes.LowLatency2(constant))
            manager.run_passes(model)
        request = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        runs = [[value.copy() for value in request.infer(inputs).values()] for _ in range(3)]
        names = [variable.info.variable_id for variable in model.get_variables()]
        types = [node.get_type_name() for node in model.get_ops()]
        loops = types.count("Loop") + types.count("TensorIterator")
        found.append((names, len(model.get_sinks()), loops, runs))
    real, ours = found
    assert ours[:3] == real[:3] == (["loop/state/variable_1"], 1, int(trips > 1))
    for first, second in zip(real[3], ours[3], strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
