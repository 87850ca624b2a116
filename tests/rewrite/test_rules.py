"""The rewrite language: what patterns match, and what the driver of rules counts, checks and prints."""

from __future__ import annotations

import numpy as np
import pytest

from ovjit.compiler.pass_pipeline import PIPELINE, op_rules
from ovjit.errors import ModelError
from ovjit.graph.graph import Graph, Value, verify
from ovjit.rewrite.pattern import anything, constant, number, op, operation, value, values
from ovjit.rewrite.rules import Uses, applied, rewrite, rule, run_rules
from ovjit.rewrite.simplify import DROP_MORE, DROP_NOOPS
from tests.support.compiled import run_passes
from tests.support.graph_nets import Net

x, y = values("x y")


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes if n.op.name not in ("Parameter", "Constant")]


def test_a_name_stands_for_one_value() -> None:
    net = Net((3,), (3,))
    a, b = net.inputs
    square = x * x
    assert square.first(net.Multiply(a, a)) == {"x": a}
    assert square.first(net.Multiply(a, b)) is None


def test_operands_of_commutative_operations_are_tried_in_both_orders() -> None:
    net = Net((3,))
    (a,) = net.inputs
    assert (x + 2.0).first(net.Add(2.0, a)) == (x + 2.0).first(net.Add(a, 2.0)) == {"x": a}
    assert (x - 2.0).first(net.Subtract(2.0, a)) is None


def test_all_alternatives_are_tried_until_the_whole_fits() -> None:
    """The first order of the sum fits by itself, and not with what is outside."""
    net = Net((3,), (3,))
    a, b = net.inputs
    whole = net.Subtract(net.Add(a, b), b)
    assert ((y + x) - y).first(whole) == {"y": b, "x": a}
    assert ((x + y) - (x * y | y)).first(whole) == {"x": a, "y": b}


def test_numbers_constants_and_attributes() -> None:
    net = Net((2, 3))
    (a,) = net.inputs
    total = net.Add(a, 0.5)
    assert (x + number("n")).first(total) == {"x": a, "n": 0.5}
    assert (x + number("n")).first(net.Add(a, np.ones(3))) is None  # three of them
    assert (x + constant("c")).first(net.Add(a, np.ones(3))) is not None
    made = net.ReduceSum(a, np.array([1]), keep_dims=True)
    assert op.ReduceSum(x, ..., keep_dims=True).first(made) == {"x": a}
    assert op.ReduceSum(x, ..., keep_dims=False).first(made) is None
    assert op.ReduceSum(x).first(made) is None  # of two inputs
    assert op["ReduceMean ReduceSum"](...).first(made) == {}
    assert operation(lambda record: record.scalar is not None)(anything, anything).first(total) == {}


def test_conditions_and_what_follows_from_a_value() -> None:
    net = Net((2, 3))
    (a,) = net.inputs
    pattern = op.Relu(x.where(lambda v: v.shape == (2, 3)).let(rank=lambda v: len(v.shape))).named("all")
    relu = net.Relu(a)
    assert pattern.first(relu) == {"x": a, "rank": 2, "all": relu}
    assert op.Relu(x.let(none=lambda v: None)).first(relu) is None


def test_once_is_what_one_reader_takes() -> None:
    net = Net((3,))
    (a,) = net.inputs
    relu = net.Relu(a)
    graph = net.b.finish([net.Exp(relu), net.Abs(net.Sqrt(a))])
    readers, negative = Uses(graph), -x
    assert op.Exp(op.Relu(x).once).first(graph.outputs[0], readers) == {"x": a}
    net = Net((3,))
    relu = net.Relu(net.inputs[0])
    graph = net.b.finish([net.Exp(relu), net.Abs(relu)])
    assert op.Exp(op.Relu(x).once).first(graph.outputs[0], Uses(graph)) is None
    assert negative.first(graph.outputs[0]) is None


def test_readers_of_new_values_are_those_of_old_ones() -> None:
    """Relu(Identity(x)) is Relu(x) when its reader is looked at, in the same pass."""
    net = Net((3,))
    (a,) = net.inputs
    graph = net.b.finish([net.Exp(net.Relu(net.Identity(a)))])
    rules = [rewrite(op.Identity(x), x), rewrite(op.Exp(op.Relu(x).once), op.Tanh(x))]
    assert names(run_rules(graph, rules)) == ["Tanh"]
    net = Net((3,))
    relu = net.Relu(net.Identity(net.inputs[0]))
    assert names(run_rules(net.b.finish([net.Exp(relu), relu]), rules)) == ["Relu", "Exp"]


def test_what_is_put_in_place_has_the_name_and_origins() -> None:
    net = Net((3,))
    (a,) = net.inputs
    graph = net.b.finish([net.Relu(net.Exp(a))])
    done = run_rules(graph, [rewrite(op.Exp(x), op.Abs(op.Tanh(x)))])
    verify(done)
    assert names(done) == ["Tanh", "Abs", "Relu"]
    made = next(n for n in done.nodes if n.op.name == "Abs")
    assert (made.name, made.origins) == ("Exp", ("Exp",))


def test_rules_are_tried_in_order_and_counted() -> None:
    first = rewrite(op.Exp(x), op.Abs(x), lambda node: node.name == "Exp_1")
    second = rewrite(op.Exp(x), op.Tanh(x))
    net = Net((3,))
    graph = net.b.finish([net.Exp(net.Exp(net.Exp(net.inputs[0])))])
    assert names(run_rules(graph, [first, second])) == ["Tanh", "Abs", "Tanh"]
    assert (applied[first], applied[second]) == (1, 2)
    assert repr(second) == "Exp(x) -> Tanh(x)"


def test_a_rule_that_changes_the_element_type_is_refused() -> None:
    @rule(op.Exp(x))
    def wrong(w, x: Value) -> Value:
        return w("Convert", x, destination_type="f16")

    net = Net((3,))
    with pytest.raises(ModelError, match=r"node 'Exp': wrong produces f16\[3\], expected f32\[3\]"):
        run_rules(net.b.finish([net.Exp(net.inputs[0])]), [wrong])
    changed = rewrite(op.Exp(x), op.ReduceSum(x, value("axis"), keep_dims=True))
    with pytest.raises(KeyError):
        run_rules(net.b.finish([net.Exp(net.inputs[0])]), [changed])


def test_a_rule_asks_for_what_is_found_alone() -> None:
    @rule(op.Exp(x))
    def wrong(y: Value) -> Value:
        return y

    net = Net((3,))
    with pytest.raises(KeyError, match="wrong reads 'y', which its pattern does not bind"):
        run_rules(net.b.finish([net.Exp(net.inputs[0])]), [wrong])


def test_patterns_with_alternatives_are_not_written() -> None:
    net = Net((3,))
    with pytest.raises(TypeError, match="has alternatives"):
        run_rules(net.b.finish([net.Exp(net.inputs[0])]), [rewrite(op.Exp(x), op.Abs(x) | x)])


def test_a_graph_that_gives_rules_nothing_to_do_stays_as_it_is() -> None:
    net = Net((3,))
    graph = net.b.finish([net.Exp(net.inputs[0])])
    assert run_rules(graph, [*DROP_MORE, *DROP_NOOPS]) is graph


def test_applied_rules_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OVJIT_DEBUG", "3")
    net = Net((2, 8))
    (a,) = net.inputs
    mean = net.ReduceMean(net.Multiply(a, a), np.array([1]), keep_dims=True)
    run_passes(net.b.finish([net.Divide(a, net.Sqrt(net.Add(mean, 1e-5)))]))
    assert "   1 x Divide(x, Add(" in capsys.readouterr().err.replace("Sqrt(", "")


def test_every_rule_says_what_it_does() -> None:
    for each in (*DROP_MORE, *DROP_NOOPS, *op_rules()):
        assert "->" in (each.__doc__ or repr(each)), each
    assert list(PIPELINE) == ["capture", "pages", "state", "graph"]
