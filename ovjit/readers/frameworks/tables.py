"""Lookups in hash tables: the exporter keeps them with the keys and values of their tables as attributes."""

from __future__ import annotations

from ovjit.readers.frameworks.names import node_of, source_of
from ovjit.readers.onnx.rule_language import *
from ovjit.readers.onnx.text import find_text, text_at

_FIND, _SIZE = "LookupTableFindV2", "LookupTableSizeV2"
#: Attributes of a lookup. TensorFlow ignores names that begin like these.
KEYS, VALUES = "_keys", "_values"


def has_lookups(graph: Any) -> bool:
    return any(node.op in (_FIND, _SIZE) for node in graph.node)


def with_keys(graph: Any, captures: Sequence[tuple[Any, Any]]) -> Any:
    """A frozen graph with the keys, values and sizes of its hash tables as attributes.

    `captures`: tables and what stands for them in the graph of the function.
    """
    import tensorflow as tf

    tables = {node_of(inner.name): table for table, inner in captures if inner.dtype == tf.resource}
    nodes = {node.name: node for node in graph.node}
    for node in list(graph.node):
        table = tables.get(source_of(nodes, node.input[0])) if node.op in (_FIND, _SIZE) else None
        if table is not None and node.op == _FIND:
            _add_contents(node, table)
            _add_shape(graph, node)
        elif table is not None:
            size = tf.raw_ops.LookupTableSizeV2(table_handle=table).numpy()
            graph.node.remove(node)
            with tf.Graph().as_default():
                graph.node.append(tf.constant(size, name=node.name).op.node_def)
    return graph


def _add_contents(node: Any, table: Any) -> None:
    """Set the attributes of a lookup. Keys are sorted."""
    import tensorflow as tf

    kinds = {name: tf.as_dtype(node.attr[key].type) for name, key in (("Tkeys", "Tin"), ("Tvalues", "Tout"))}
    exported = tf.raw_ops.LookupTableExportV2(table_handle=table, **kinds)
    # a dense table exports its empty places, too, all under one key
    keys, first = np.unique(exported.keys.numpy(), return_index=True)
    if exported.values.shape.num_elements() != exported.keys.shape.num_elements():
        raise UnsupportedError(f"{node.name}: the table has values that are vectors; give each a table")
    values = exported.values.numpy().ravel()[first]
    for name, array, kind in ((KEYS, keys, kinds["Tkeys"]), (VALUES, values, kinds["Tvalues"])):
        node.attr[name].tensor.CopyFrom(tf.make_tensor_proto(array, kind))


def _add_shape(graph: Any, node: Any) -> None:
    """Reshape the result of a lookup to the shape of its keys, which TensorFlow does not infer."""
    from tensorflow import int32

    name, keys = node.name, node.input[1]
    node.name, shape = f"{name}/values", f"{name}/shape"
    added = graph.node.add(name=shape, op="Shape", input=[keys]), graph.node.add(name=name, op="Reshape")
    added[0].attr["T"].CopyFrom(node.attr["Tin"])
    added[0].attr["out_type"].type = added[1].attr["Tshape"].type = int32.as_datatype_enum
    added[1].input.extend((node.name, shape))
    added[1].attr["T"].CopyFrom(node.attr["Tout"])


def find_in_table(n: OnnxNode) -> Output:
    """The value of each key, the default for others."""
    x, default = n[0], n[1]
    keys, values = (tensors.decode(n.require(name), n.reader.external)[0] for name in (KEYS, VALUES))
    if not keys.size:
        return n.broadcast(default, n.shape_of(x))
    if n.dtype(x) == "string":
        is_key, index = find_text(n, x, keys.tolist())
    else:
        sorted_keys = n.const(keys, n.dtype(x))
        index = n("SearchSorted", sorted_keys, x, right_mode=False, output_type="i64")
        index = n("Minimum", index, keys.size - 1)
        is_key = n("Equal", n("Gather", sorted_keys, index, 0), x)
    if n.dtype(default) == "string":
        texts = [*values.tolist(), n.static(1, "the default of a table of texts").item()]
        return text_at(n, texts, n("Select", is_key, index, values.size))
    return n("Select", is_key, n("Gather", n.const(values, n.dtype(default)), index, 0), default)
