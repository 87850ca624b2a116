"""Lookups in hash tables of numbers, by a search in sorted keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ovjit.errors import UnsupportedError
from ovjit.readers.frameworks.names import node_of, rename_tensor, source_of

_FIND, _SIZE = "LookupTableFindV2", "LookupTableSizeV2"


def has_lookups(graph: Any) -> bool:
    return any(node.op in (_FIND, _SIZE) for node in graph.node)


def with_keys(graph: Any, captures: Sequence[tuple[Any, Any]]) -> Any:
    """A frozen graph that has the keys, values and sizes of its tables of numbers.

    `captures`: tables and what stands for them in the graph of the function. Lookups of texts stay.
    """
    tables = {node_of(inner.name): table for table, inner in captures if inner.dtype == tf.resource}
    nodes = {node.name: node for node in graph.node}
    result = []
    for node in graph.node:
        table = tables.get(source_of(nodes, node.input[0])) if node.op in (_FIND, _SIZE) else None
        if table is None:
            continue
        kinds = [tf.as_dtype(node.attr[key].type) for key in ("Tin", "Tout")] if node.op == _FIND else []
        if tf.string not in kinds:
            result.append((node, _search(node, table, *kinds) if kinds else [_size(node, table)]))
    for node, replacements in result:
        graph.node.remove(node)
        graph.node.extend(replacements)
    return graph


def _size(node: Any, table: Any) -> Any:
    """The constant that is the number of a table's keys."""
    size = tf.raw_ops.LookupTableSizeV2(table_handle=table).numpy()
    with tf.Graph().as_default():
        return tf.constant(size, name=node.name).op.node_def


def _search(node: Any, table: Any, keys_type: Any, values_type: Any) -> list[Any]:
    """The nodes that give what a lookup gives; the last one has its name."""
    exported = tf.raw_ops.LookupTableExportV2(table_handle=table, Tkeys=keys_type, Tvalues=values_type)
    # a dense table exports its empty places, too, all under one key
    keys, first = np.unique(exported.keys.numpy(), return_index=True)
    if exported.values.shape.num_elements() != exported.keys.shape.num_elements():
        raise UnsupportedError(f"{node.name}: the table has values that are vectors; give each a table")
    values = exported.values.numpy().ravel()[first]
    with tf.Graph().as_default() as graph:
        query = tf.compat.v1.placeholder(keys_type, None, "query")
        default = tf.compat.v1.placeholder(values_type, None, "default")
        result = tf.fill(tf.shape(query), default)
        if len(keys):
            flat = tf.reshape(query, [1, -1])
            indices = tf.minimum(
                tf.raw_ops.LowerBound(sorted_inputs=keys[None], values=flat)[0], len(keys) - 1
            )
            are_keys = tf.equal(tf.gather(keys, indices), flat[0])
            result = tf.where(are_keys, tf.gather(values, indices), tf.reshape(result, [-1]))
            result = tf.reshape(result, tf.shape(query))
        tf.identity(result, "found")
        nodes = graph.as_graph_def().node
    names = {each.name: f"{node.name}/{each.name}" for each in nodes}
    names |= {"query": node.input[1], "default": node.input[2], "found": node.name}
    search_nodes = [each for each in nodes if each.op != "Placeholder"]
    for each in search_nodes:
        each.name = names[each.name]
        each.input[:] = [rename_tensor(value, names) for value in each.input]
    return search_nodes
