"""The process that makes an ONNX file of a model of Paddle's: `model parameters file`, "" for no parameters.

Operators that paddle2onnx writes wrongly or refuses are first replaced in the program by others of Paddle's.
The text of this file is what the process runs. It imports nothing of ovjit.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import paddle  # type: ignore[import-not-found]
import paddle2onnx  # type: ignore[import-not-found]

functional = paddle.nn.functional
#: What gives the value of an operator's first result, by other operators; None leaves the operator as it is.
Rule = Callable[[Any], Any]


def _leaky_relu(op: Any) -> Any:
    """The exporter reads the slope, which has 64 bits, as a number of 32."""
    x = op.operand_source(0)
    return functional.prelu(x, paddle.full([1], op.attrs()["negative_slope"], x.dtype))


def _group_norm(op: Any) -> Any:
    """The exporter reads epsilon, which has 64 bits, as a number of 32. It takes all channels to be first."""
    x, *others = op.operands_source()
    attrs = op.attrs()
    last = attrs["data_format"][-1] == "C"
    order = [0, len(x.shape) - 1, *range(1, len(x.shape) - 1)]
    y = paddle.transpose(x, order) if last else x
    shape = paddle.shape(y) if -1 in y.shape else y.shape
    y = paddle.reshape(y, [0, attrs["groups"], -1])
    y = y - paddle.mean(y, axis=[-1], keepdim=True)
    square = paddle.mean(y * y, axis=[-1], keepdim=True)
    y = paddle.reshape(y * paddle.rsqrt(square + attrs["epsilon"]), shape)
    own = [
        None if not v.initialized() else paddle.reshape(v, [1, -1, *[1] * (len(x.shape) - 2)]) for v in others
    ]
    for value, apply in zip(own, (paddle.multiply, paddle.add), strict=False):
        y = y if value is None else apply(y, value)
    return paddle.transpose(y, [0, *range(2, len(x.shape)), 1]) if last else y


def _batch_norm(op: Any) -> Any:
    """The exporter takes channels to be the second dimension."""
    if op.attrs()["data_format"][-1] != "C" or len(op.operand_source(0).shape) < 3:
        return None
    x, mean, variance, weight, bias = op.operands_source()
    scale = paddle.rsqrt(variance + op.attrs()["epsilon"])
    made = (x - mean) * (scale * weight if weight.initialized() else scale)
    return made + bias if bias.initialized() else made


def _norm(op: Any) -> Any:
    """The exporter does not know norms of all elements, and computes infinite powers."""
    x, attrs = op.operand_source(0), op.attrs()
    order, axis = attrs["porder"], attrs["axis"]
    if not attrs["asvector"] and not math.isinf(order):
        return None
    flat = attrs["asvector"]
    made = _norm_along(paddle.reshape(x, [-1]) if flat else x, order, 0 if flat else axis)
    if flat and attrs["keepdim"]:
        return paddle.reshape(made, [1] * len(x.shape))
    return made if attrs["keepdim"] else paddle.squeeze(made, axis=[0 if flat else axis])


def _norm_along(x: Any, order: float, axis: int) -> Any:
    sizes = paddle.abs(x)
    if math.isinf(order):
        return (paddle.max if order > 0 else paddle.min)(sizes, axis=[axis], keepdim=True)
    if order == 0:
        return paddle.sum(paddle.cast(sizes > 0, x.dtype), axis=[axis], keepdim=True)
    total = paddle.sum(sizes * sizes if order == 2 else paddle.pow(sizes, order), axis=[axis], keepdim=True)
    return paddle.sqrt(total) if order == 2 else paddle.pow(total, 1 / order)


def _of_one_axis(function: Callable[..., Any], x: Any) -> Any:
    """A number, by way of a tensor of one element: the exporter gives no other reduction no dimensions."""
    return paddle.squeeze(function(x, axis=[0], keepdim=True), axis=[0])


def _of_all(function: Callable[..., Any]) -> Rule:
    """The exporter refuses reductions of all elements, or gives them a dimension."""

    def rule(op: Any) -> Any:
        if op.result(0).shape or not op.operand_source(0).shape:
            return None
        return _of_one_axis(function, paddle.reshape(op.operand_source(0), [-1]))

    return rule


def _adaptive(op: Any) -> Any:
    """The exporter takes windows of adaptive pooling to be of one size, and steps to be equal."""
    attrs, x, wanted = op.attrs(), op.operand_source(0), op.result(0).shape
    if not attrs["adaptive"] or attrs.get("data_format", "NCHW")[-1] == "C" or len(wanted) < 3:
        return None
    if any(not result.use_empty() for result in op.results()[1:]):
        return None
    average = attrs.get("pooling_type") == "avg"
    sizes = list(zip(x.shape[2:], wanted[2:], strict=True))
    if any(count < 1 or (size < 1 and count > 1) for size, count in sizes):
        return None
    if all(size > 0 and size % count == 0 for size, count in sizes):
        return None
    reduce = paddle.mean if average else paddle.max
    for axis, (size, count) in enumerate(sizes, 2):
        x = _in_windows(x, reduce, axis, size, count)
    return x


def _in_windows(x: Any, reduce: Callable[..., Any], axis: int, size: int, count: int) -> Any:
    """Window i of `count` has the elements from i size / count to (i + 1) size / count, rounded outwards."""
    if count == 1:
        return reduce(x, axis=[axis], keepdim=True)
    ends = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    parts = [paddle.slice(x, [axis], [first], [end]) for first, end in ends]
    return paddle.concat([reduce(part, axis=[axis], keepdim=True) for part in parts], axis=axis)


def _transposed(op: Any) -> Any:
    """The exporter ignores the size that a transposed convolution is to have."""
    attrs, wanted = op.attrs(), op.result(0).shape
    x, weight = op.operand_source(0), op.operand_source(1)
    known = [*x.shape[2:], *weight.shape, *wanted[2:]]
    if attrs["padding_algorithm"] != "EXPLICIT" or attrs["output_padding"] or min(known) < 1:
        return None
    dims, pads = len(wanted) - 2, attrs["paddings"]
    pads = pads if len(pads) == 2 * dims else [pad for pad in pads for _ in range(2)]
    more = []
    for i in range(dims):
        covered = attrs["dilations"][i] * (weight.shape[2 + i] - 1) + 1
        made = (x.shape[2 + i] - 1) * attrs["strides"][i] - pads[2 * i] - pads[2 * i + 1] + covered
        more.append(wanted[2 + i] - made)
    if not any(more) or min(more) < 0 or attrs["data_format"][-1] == "C" or dims != 2:
        return None
    return functional.conv2d_transpose(
        x, weight, stride=attrs["strides"], padding=attrs["paddings"], output_padding=more,
        groups=attrs["groups"], dilation=attrs["dilations"],
    )  # fmt: skip


RULES: dict[str, Rule] = {
    "leaky_relu": _leaky_relu, "leaky_relu_": _leaky_relu, "group_norm": _group_norm,
    "batch_norm": _batch_norm, "batch_norm_": _batch_norm, "p_norm": _norm,
    "mean": _of_all(paddle.mean), "max": _of_all(paddle.max), "min": _of_all(paddle.min),
    "prod": _of_all(lambda x, axis, keepdim: paddle.prod(x, axis[0], keepdim)),
    "pool2d": _adaptive, "pool3d": _adaptive, "max_pool2d_with_index": _adaptive,
    "max_pool3d_with_index": _adaptive, "conv2d_transpose": _transposed,
}  # fmt: skip


def replaced(program: Any) -> bool:
    """Replace the operators of a program that have rules. Whether there were any."""
    from paddle.base.libpaddle import pir  # type: ignore[import-not-found]

    found = False
    with paddle.static.program_guard(program):
        for op in list(program.global_block().ops):
            rule = RULES.get(op.name().removeprefix("pd_op."))
            if rule is None:
                continue
            pir.set_insertion_point(op)
            made = rule(op)
            if made is not None:
                op.result(0).replace_all_uses_with(made)
                program.global_block().remove_op(op)
                found = True
    return found


def _program(path: str, parameters: str, executor: Any) -> Any:
    """The program of a file; its parameters are those of the global scope."""
    folder, name = os.path.split(path)
    files = {"model_filename": name, "params_filename": os.path.relpath(parameters, folder or ".")}
    if not path.endswith(".pdmodel"):
        with paddle.pir_utils.IrGuard():
            return paddle.static.load_inference_model(folder, executor, **files)[0]
    with paddle.pir_utils.OldIrGuard():
        old = paddle.static.load_inference_model(folder, executor, **files)[0]
    program = paddle.pir.translate_to_pir(old.desc)
    paddle2onnx.convert.load_parameter(program)
    return program


def corrected(path: str, parameters: str, folder: str) -> tuple[str, str]:
    """The files of a model without the operators that have rules: those that are given, if it has none."""
    paddle.enable_static()
    made = os.path.join(folder, "corrected")
    if parameters:
        program = _program(path, parameters, paddle.static.Executor(paddle.CPUPlace()))
    else:
        program = _bare_program(path)
    with paddle.pir_utils.IrGuard():
        if not replaced(program):
            return path, parameters
        if not parameters:
            paddle.save(program, made + ".json")
            return made + ".json", ""
    paddle2onnx.convert.save_program(program, made)
    return made + ".json", made + ".pdiparams"


def _bare_program(path: str) -> Any:
    """The program of a file of a model without parameters."""
    if not path.endswith(".pdmodel"):
        with paddle.pir_utils.IrGuard():
            return paddle.load(path)
    with paddle.pir_utils.OldIrGuard():
        return paddle.pir.translate_to_pir(paddle.load(path).desc)


def main(arguments: Sequence[str]) -> None:
    path, parameters, target = arguments
    with tempfile.TemporaryDirectory() as folder:
        path, parameters = corrected(path, parameters, folder)
        paddle2onnx.export(path, parameters, save_file=target, opset_version=17, enable_optimize=False)


if __name__ == "__main__":
    main(sys.argv[1:])
