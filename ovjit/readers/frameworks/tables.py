"""Lookups in hash tables of integers, by a search in sorted keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ovjit.readers.frameworks.names import node_of, rename_tensor, source_of

_FIND = "LookupTableFindV2"


def has_lookups(graph: Any) -> bool:
    return any(node.op == _FIND for node in graph.node)


def with_keys(graph: Any, captures: Sequence[tuple[Any, Any]]) -> Any:
    """A frozen graph whose lookups in tables of integers have the keys and values of these tables.

    `captures`: tables and what stands for them in the graph of the function. Other lookups stay.
    """
    tables = {node_of(inner.name): table for table, inner in captures if inner.dtype == tf.resource}
    nodes = {node.name: node for node in graph.node}
    result = []
    for node in graph.node:
        if node.op == _FIND:
            name = source_of(nodes, node.input[0])
            kinds = [tf.as_dtype(node.attr[key].type) for key in ("Tin", "Tout")]
            if name in tables and all(kind.is_integer for kind in kinds):
                result.append((node, _search(node, tables[name], *kinds)))
    for node, search in result:
        graph.node.remove(node)
        graph.node.extend(search)
    return graph


def _search(node: Any, table: Any, keys_type: Any, values_type: Any) -> list[Any]:
    """The nodes that give what a lookup gives; the last one has its name."""
    exported = tf.raw_ops.LookupTableExportV2(table_handle=table, Tkeys=keys_type, Tvalues=values_type)
    order = np.argsort(exported.keys.numpy())
    keys, values = exported.keys.numpy()[order], exported.values.numpy()[order]
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
