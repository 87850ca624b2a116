"""Lists of tensors and TensorArrays as one tensor, whose first dimension counts the elements."""

from __future__ import annotations

from ovjit.readers.tensorflow_graphs.graph_rewriter import *


def _zeros(size: Any, dims: Any, dtype: Any) -> Any:
    """A list of zeros; `dims` are numbers, or a tensor."""
    if isinstance(dims, (list, tuple)):
        return tf.fill([tf.reshape(size, []), *dims], tf.zeros([], dtype))
    shape = tf.concat([tf.reshape(size, [1]), tf.cast(dims, tf.int32)], 0)
    return tf.fill(shape, tf.zeros([], dtype))


def start_list(values: Value, element: Any, count: Any = None) -> Any:
    """A list into which an element of this shape fits, and which has at least `count` elements, if given."""
    if isinstance(values, Unset):
        dims = element.shape.as_list() if element.shape.is_fully_defined() else tf.shape(element)
        size = values.size if count is None or not values.grows else tf.maximum(values.size, count)
        return _zeros(size, dims, values.dtype)
    fits = values.shape[1:].is_fully_defined() or not element.shape.rank
    if fits and count is None:
        return values
    more = tf.zeros([1], tf.int32)
    if count is not None:
        more = tf.reshape(tf.maximum(count - tf.shape(values)[0], 0), [1])
    wider = tf.zeros([values.shape.rank - 1], tf.int32)
    if not fits:
        wider = tf.maximum(tf.shape(element) - tf.shape(values)[1:], 0)
    pad_after = tf.concat([more, wider], 0)
    result = tf.pad(values, tf.stack([tf.zeros_like(pad_after), pad_after], 1))
    result.set_shape([None, *_merge_dims(values.shape[1:], element.shape)])
    return result


def _merge_dims(a: Any, b: Any) -> list[int | None]:
    """Merge two shapes of elements, each of which may leave dimensions open."""
    if a.rank != b.rank:
        return a.as_list()
    return [y if x is None else x for x, y in zip(a.as_list(), b.as_list(), strict=True)]


def _write(values: Value, index: Any, element: Any, grows: bool) -> Any:
    index = tf.reshape(index, [])
    result = start_list(values, element, index + 1 if grows else None)
    result = tf.tensor_scatter_nd_update(result, tf.reshape(index, [1, 1]), tf.expand_dims(element, 0))
    dims = _merge_dims(result.shape[1:], element.shape)
    result.set_shape([None if grows else result.shape[0], *dims])
    return result


def _items(op: Any, values: Value) -> Any:
    if isinstance(values, Unset):
        raise UnsupportedError(f"{op.type} reads a list to which nothing has been written")
    return values


def _dims(value: Value) -> list[int] | None:
    """The dimensions in an operand, None for open ones."""
    static_value = None if not isinstance(value, tf.Tensor) else tf.get_static_value(value)
    if static_value is None or static_value.ndim != 1 or (static_value < 0).any():
        return None
    return [int(d) for d in static_value]


@rule("TensorListReserve")
def _reserve(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    dtype, dims = op.get_attr("element_dtype"), _dims(inputs[0])
    if dims is None:
        return [Unset(tf.reshape(inputs[1], []), dtype)]
    return [_zeros(inputs[1], dims, dtype)]


@rule("EmptyTensorList")
def _empty(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    dtype, dims = op.get_attr("element_dtype"), _dims(inputs[0])
    nothing = tf.constant(0, tf.int32)
    return [Unset(nothing, dtype, True) if dims is None else _zeros(nothing, dims, dtype)]


@rule("TensorListSetItem")
def _set(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    grows = "resize_if_index_out_of_bounds" in op.node_def.attr and op.get_attr(
        "resize_if_index_out_of_bounds"
    )
    return [_write(inputs[0], inputs[1], inputs[2], grows)]


@rule("TensorListPushBack")
def _push(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    values, element = inputs
    result = tf.concat([start_list(values, element), tf.expand_dims(element, 0)], 0)
    result.set_shape([None, *_merge_dims(result.shape[1:], element.shape)])
    return [result]


@rule("TensorListPopBack")
def _pop(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    values = _items(op, inputs[0])
    remaining = values[:-1]
    remaining.set_shape([None, *values.shape[1:]])
    return [remaining, values[-1]]


@rule("TensorListResize")
def _resize(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    values, size = inputs[0], tf.reshape(inputs[1], [])
    if isinstance(values, Unset):
        return [Unset(size, values.dtype, values.grows)]
    added = tf.maximum(size - tf.shape(values)[0], 0)
    rank = values.shape.rank
    pads = tf.concat([tf.reshape(tf.stack([0, added]), [1, 2]), tf.zeros([rank - 1, 2], tf.int32)], 0)
    result = tf.pad(values, pads)[:size]
    result.set_shape([None, *values.shape[1:]])
    return [result]


def _join(values: Any) -> list[Any]:
    """(elements concatenated along their first dimension, the length of each)."""
    shape = tf.shape(values)
    result = tf.reshape(values, tf.concat([[-1], shape[2:]], 0))
    result.set_shape([None, *values.shape[2:]])
    return [result, tf.fill([shape[0]], tf.cast(shape[1], tf.int64))]


@rule("TensorListScatterIntoExistingList", "TensorListScatterV2", "TensorListScatter")
def _scatter(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    if op.type == "TensorListScatterIntoExistingList":
        values, rows, indices = inputs
        count = None
    else:
        rows, indices = inputs[:2]
        values, count = Unset(tf.constant(0), rows.dtype, True), tf.reduce_max(indices) + 1
        if op.type == "TensorListScatterV2":
            count = tf.maximum(count, tf.reshape(inputs[3], []))
    result = start_list(values, rows[0], count)
    return [tf.tensor_scatter_nd_update(result, tf.expand_dims(indices, 1), rows)]


# -- TensorArrays: the list is what `flow` stands for; the handle knows the size and whether it grows


@rule("TensorArrayV3")
def _array(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    result = Unset(tf.reshape(inputs[0], []), op.get_attr("dtype"), op.get_attr("dynamic_size"))
    return [result, result]


@rule("TensorArrayScatterV3")
def _array_scatter(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    array, indices, rows, values = inputs
    result = start_list(values, rows[0], tf.reduce_max(indices) + 1 if array.grows else None)
    result = tf.tensor_scatter_nd_update(result, tf.expand_dims(indices, 1), rows)
    result.set_shape([None, *rows.shape[1:]])
    return [result]


@rule("TensorArrayWriteV3")
def _array_write(builder: Rebuilder, op: Any, inputs: list[Value]) -> list[Value]:
    array, index, element, values = inputs
    return [_write(values, index, element, array.grows)]


#: Operators that are one expression.
RULES.update({
    "TensorListFromTensor": lambda builder, op, inputs: [tf.identity(inputs[0])],
    "TensorListStack": lambda builder, op, inputs: [tf.identity(_items(op, inputs[0]))],
    "TensorListGetItem": lambda builder, op, inputs:
        [tf.gather(_items(op, inputs[0]), tf.reshape(inputs[1], []), axis=0)],
    "TensorListLength": lambda builder, op, inputs:
        [inputs[0].size if isinstance(inputs[0], Unset) else tf.shape(inputs[0])[0]],
    "TensorListGather": lambda builder, op, inputs: [tf.gather(_items(op, inputs[0]), inputs[1], axis=0)],
    "TensorListConcatV2": lambda builder, op, inputs: _join(_items(op, inputs[0])),
    "TensorListConcat": lambda builder, op, inputs: _join(_items(op, inputs[0])),
    "TensorArrayReadV3": lambda builder, op, inputs:
        [tf.gather(_items(op, inputs[2]), tf.reshape(inputs[1], []), axis=0)],
    "TensorArrayGatherV3": lambda builder, op, inputs: [tf.gather(_items(op, inputs[2]), inputs[1], axis=0)],
    "TensorArraySizeV3": lambda builder, op, inputs: RULES["TensorListLength"](builder, op, inputs[1:]),
    "TensorArrayConcatV3": lambda builder, op, inputs: _join(_items(op, inputs[1])),
})  # fmt: skip
