"""`rebuild`: what a pass does not touch stays the node that it was."""

from ovjit.graph.graph import Builder, Graph, Node, Value, rebuild, verify


def made() -> tuple[Graph, dict[str, Node]]:
    b = Builder()
    x = b.add("Parameter", (), {"shape": (2,), "element_type": "f32"}, name="x").output
    first = b.add("Relu", [x], name="first")
    b.add("Abs", [x], name="dead")
    second = b.add("Sqrt", [first.output], name="second")
    side = b.add("Exp", [x], name="side")
    return Graph([x], b.nodes, [second.output, side.output]), {node.name: node for node in b.nodes}


def test_without_a_match_the_graph_stays_itself() -> None:
    graph, nodes = made()
    assert rebuild(graph, lambda b, node, inputs: None) is graph
    # and where one node is made anew, the others are as they were, without the dead one
    other = rebuild(graph, lambda b, node, inputs: b.instead(node, inputs) if node is nodes["side"] else None)
    verify(other)
    assert [node.name for node in other.nodes] == [name for name in nodes if name != "dead"]
    assert [node is nodes[node.name] for node in other.nodes] == [True, True, True, False]


def test_what_a_visitor_adds_in_vain_leaves_no_trace() -> None:
    graph, nodes = made()

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> None:
        b.add("Tanh", [nodes["x"].output], name="side")
        assert [known.name for known in b.nodes][:2] == ["x", "side"]

    other = rebuild(graph, lambda b, node, inputs: visit(b, node, inputs) if node is nodes["first"] else None)
    verify(other)
    assert [node.op.name for node in other.nodes] == ["Parameter", "Relu", "Sqrt", "Exp"]


def test_what_follows_a_replaced_node_is_made_anew_and_names_stay_unique() -> None:
    graph, nodes = made()

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        return b.add("Tanh", inputs, name="side").outputs if node is nodes["first"] else None

    other = rebuild(graph, visit)
    verify(other)
    kinds = {node.name: node.op.name for node in other.nodes}
    assert kinds == {"x": "Parameter", "side": "Tanh", "second": "Sqrt", "side_1": "Exp"}
    assert other.nodes[0] is nodes["x"] and not {nodes["second"], nodes["side"]} & set(other.nodes)
    # the graph that was given is as it was
    assert nodes["second"].inputs == (nodes["first"].output,) and nodes["side"].name == "side"


def test_a_node_that_becomes_its_input_leaves_its_consumers_on_that() -> None:
    graph, nodes = made()
    other = rebuild(graph, lambda b, node, inputs: inputs if node is nodes["first"] else None)
    verify(other)
    assert [node.name for node in other.nodes] == ["x", "second", "side"]
    assert other.outputs[0].node.inputs == (nodes["x"].output,) and other.nodes[2] is nodes["side"]


def test_nodes_that_are_passed_are_visited_when_their_inputs_are_replaced() -> None:
    graph, nodes = made()
    visited: list[str] = []

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> object:
        visited.append(node.name)
        return b.instead(node, inputs) if node.name == "first" else None

    passed = {nodes["second"].op, nodes["side"].op, nodes["dead"].op}
    other = rebuild(graph, visit, passed=passed)
    verify(other)
    assert visited == ["x", "first", "second"]
    assert [node.name for node in other.nodes] == ["x", "first", "second", "side"]
    assert [node is nodes[node.name] for node in other.nodes] == [True, False, False, True]
